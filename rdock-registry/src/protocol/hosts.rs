//! How a registry's host is spoken to, and how its addresses are shown.

use std::net::{IpAddr, Ipv6Addr};
use url::Url;

/// Which schemes a host is tried with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schemes {
    /// TLS alone.
    Https,
    /// TLS, and plain http where nothing speaks TLS.
    HttpsThenHttp,
    /// Plain http alone.
    Http,
}

/// How a host (`name[:port]`) is spoken to. Registries of this machine, and those marked insecure, may speak plain
/// http: on port 80 they do, on port 443 they do not.
pub fn schemes(host: &str, insecure: bool) -> Schemes {
    let address_alone = host.parse::<Ipv6Addr>().is_ok();
    if address_alone || !(insecure || is_loopback(host)) {
        return Schemes::Https;
    }
    match split_port(host).and_then(|(_, port)| port) {
        Some("443") => Schemes::Https,
        Some("80") => Schemes::Http,
        _ => Schemes::HttpsThenHttp,
    }
}

/// Says whether a host (`name[:port]`) is this machine, which Docker trusts without TLS.
pub fn is_loopback(host: &str) -> bool {
    if host
        .parse::<Ipv6Addr>()
        .is_ok_and(|address| address.is_loopback())
    {
        return true;
    }
    let Some((name, _)) = split_port(host) else {
        return false;
    };
    match name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
        Some(name) => name
            .parse::<Ipv6Addr>()
            .is_ok_and(|address| address.is_loopback()),
        None => name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()),
    }
}

/// Name and port; `None` for a port that is not a number.
fn split_port(host: &str) -> Option<(&str, Option<&str>)> {
    let name_end = host.rfind(']').map_or(0, |at| at + 1);
    match host[name_end..].split_once(':') {
        None => Some((host, None)),
        Some((rest, port)) => {
            let valid = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
            valid.then(|| (&host[..name_end + rest.len()], Some(port)))
        }
    }
}

/// A URL as it may be shown: no password, and no values in the query but the namespace's, since storage hosts put
/// signatures there.
pub fn redacted(url: &str) -> String {
    let Ok(mut url) = Url::parse(url) else {
        return "(not a URL)".to_owned();
    };
    if url.password().is_some() {
        // It fails only for URLs that can have no password.
        url.set_password(Some("xxxxx")).ok();
    }
    if url.query().is_some() {
        let shown: Vec<_> = url
            .query_pairs()
            .map(|(name, value)| match (&*name, &*value) {
                ("ns", _) | (_, "") => (name.into_owned(), value.into_owned()),
                _ => (name.into_owned(), "REDACTED".to_owned()),
            })
            .collect();
        url.query_pairs_mut().clear().extend_pairs(shown);
    }
    url.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn plain_http_is_for_this_machine_and_the_insecure() {
        assert_eq!(schemes("r.example", false), Schemes::Https);
        assert_eq!(schemes("r.example:5000", true), Schemes::HttpsThenHttp);
        assert_eq!(schemes("127.0.0.1:5000", false), Schemes::HttpsThenHttp);
        assert_eq!(schemes("localhost:443", true), Schemes::Https);
        assert_eq!(schemes("localhost:80", false), Schemes::Http);
        assert!(!is_loopback("localhost.example"));
        assert!(!is_loopback("[::1]:"));
    }

    #[test]
    fn signatures_are_not_shown() {
        let shown = redacted("https://u:secret@cdn.example/a?X-Sig=secret&ns=docker.io");
        assert_eq!(shown, "https://u:xxxxx@cdn.example/a?X-Sig=REDACTED&ns=docker.io");
    }

    proptest! {
        #[test]
        fn foreign_hosts_never_panic(host in "[\\[\\]:a-f0-9.%é]{0,20}", insecure in any::<bool>()) {
            schemes(&host, insecure);
            is_loopback(&host);
            redacted(&format!("https://{host}/?a={host}"));
        }
    }
}
