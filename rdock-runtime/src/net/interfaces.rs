//! The names of a container's interfaces.

use super::error::NetError;
use super::messages;
use crate::spec::EndpointSpec;

/// The first name that is not taken.
pub(super) fn free(taken: impl Fn(&str) -> bool) -> String {
    let mut names = (0..).map(messages::interface_name);
    names.find(|name| !taken(name)).unwrap_or_default()
}

/// As they were asked for, else the first that nobody asked for.
///
/// # Errors
/// [`NetError::InterfaceTaken`] when two are to have one name.
pub(super) fn names(endpoints: &[EndpointSpec]) -> Result<Vec<String>, NetError> {
    let mut names: Vec<Option<String>> = Vec::new();
    for endpoint in endpoints {
        if let Some(interface) = endpoint
            .interface
            .clone()
            .filter(|_| names.contains(&endpoint.interface))
        {
            let network = endpoint.network_name().to_owned();
            return Err(NetError::InterfaceTaken { network, interface });
        }
        names.push(endpoint.interface.clone());
    }
    for at in 0..names.len() {
        if names[at].is_none() {
            names[at] = Some(free(|name| names.iter().flatten().any(|taken| taken == name)));
        }
    }
    Ok(names.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_nobody_named_get_the_names_that_are_left() {
        let asked = |names: &[Option<&str>]| -> Vec<EndpointSpec> {
            let endpoint = |name: &Option<&str>| match name {
                Some(name) => EndpointSpec::new("a").interface(*name),
                None => EndpointSpec::new("a"),
            };
            names.iter().map(endpoint).collect()
        };
        let got = |wanted: &[Option<&str>]| names(&asked(wanted)).unwrap();
        assert_eq!(got(&[None, None]), ["eth0", "eth1"]);
        assert_eq!(got(&[None, Some("lan0"), None]), ["eth0", "lan0", "eth1"]);
        assert_eq!(got(&[None, Some("eth0"), None]), ["eth1", "eth0", "eth2"]);
        let twice = names(&asked(&[Some("x"), None, Some("x")]));
        assert!(matches!(twice, Err(NetError::InterfaceTaken { interface, .. }) if interface == "x"));
    }
}
