//! The contents of a container's `/etc/hosts` and `/etc/resolv.conf`.

use crate::warning::Warning;
use std::net::IpAddr;
use std::path::Path;

/// Used when the host has no resolver that a container can reach, as Docker does.
const PUBLIC: [&str; 2] = ["8.8.8.8", "8.8.4.4"];
/// systemd-resolved keeps the real servers here; see systemd-resolved.service(8).
const RESOLVED: &str = "/run/systemd/resolve/resolv.conf";

/// `/etc/hosts`: loopback, the extra lines (`(name, address)`), then the container's own address with its host name
/// and its name, each in a line.
pub(crate) fn hosts(addresses: &[IpAddr], names: &[&str], extra: &[(String, String)]) -> String {
    let mut text = String::from(
        "127.0.0.1\tlocalhost\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\n\
         ff00::0\tip6-mcastprefix\n\
         ff02::1\tip6-allnodes\n\
         ff02::2\tip6-allrouters\n",
    );
    for (name, address) in extra {
        text.push_str(&format!("{}\t{}\n", one_line(address), one_line(name)));
    }
    let mut words: Vec<String> = Vec::new();
    for name in names
        .iter()
        .map(|name| one_line(name))
        .filter(|name| !name.is_empty())
    {
        if !words.contains(&name) {
            words.push(name);
        }
    }
    for ip in addresses.iter().filter(|_| !words.is_empty()) {
        text.push_str(&format!("{ip}\t{}\n", words.join(" ")));
    }
    text
}

/// A word never becomes a line of its own.
fn one_line(word: &str) -> String {
    word.chars().filter(|c| !c.is_control()).collect()
}

/// `/etc/resolv.conf` for a container with an address of its own: the host's, without servers that only the host can
/// reach. One with the host's network gets the host's file as it is.
pub(crate) fn resolv_conf(shares_host: bool) -> (String, Option<Warning>) {
    let read = |path: &str| std::fs::read_to_string(Path::new(path)).ok();
    let host = read("/etc/resolv.conf").unwrap_or_default();
    if shares_host {
        return (host, None);
    }
    // The stub listener alone: the servers behind it are in the other file.
    let stub = servers(&host).all(|server| server == "127.0.0.53" || server == "127.0.0.54");
    let host = if stub {
        read(RESOLVED).unwrap_or(host)
    } else {
        host
    };
    reachable(&host)
}

fn servers(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver"))
            .then(|| words.next())
            .flatten()
    })
}

/// Drops name servers that a container with IPv4 alone cannot reach.
fn reachable(host: &str) -> (String, Option<Warning>) {
    let usable = |server: &str| match server.parse::<IpAddr>() {
        Ok(IpAddr::V4(ip)) => !ip.is_loopback() && !ip.is_unspecified(),
        _ => false,
    };
    let mut text = String::new();
    let mut any = false;
    for line in host.lines() {
        let line = line.trim_end();
        match servers(line).next() {
            Some(server) if usable(server) => any = true,
            Some(_) => continue,
            None if line.trim_start().starts_with("nameserver") => continue,
            None => {}
        }
        text.push_str(line);
        text.push('\n');
    }
    if any {
        return (text, None);
    }
    for server in PUBLIC {
        text.push_str(&format!("nameserver {server}\n"));
    }
    (
        text,
        Some(Warning::PublicResolvers {
            servers: PUBLIC.map(Into::into).into(),
        }),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_servers_are_dropped_and_the_rest_stays() {
        let (text, warning) = reachable(
            "# by hand\nsearch a b\nnameserver 127.0.0.53\nnameserver 10.0.0.2\nnameserver ::1\noptions edns0",
        );
        assert_eq!(
            text,
            "# by hand\nsearch a b\nnameserver 10.0.0.2\noptions edns0\n"
        );
        assert_eq!(warning, None);
    }

    #[test]
    fn without_a_reachable_server_public_ones_are_named_in_a_warning() {
        for host in [
            "",
            "nameserver 127.0.0.1\n",
            "nameserver\n",
            "nameserver fe80::1%eth0\n",
        ] {
            let (text, warning) = reachable(host);
            assert_eq!(text, "nameserver 8.8.8.8\nnameserver 8.8.4.4\n", "{host:?}");
            assert!(matches!(warning, Some(Warning::PublicResolvers { .. })));
        }
    }

    #[test]
    fn a_name_cannot_add_a_line_to_hosts() {
        let extra = [("db\n10.0.0.9 evil".to_string(), "10.0.0.3".to_string())];
        let text = hosts(&[IpAddr::from([10, 0, 0, 2])], &["web", "web", "my-web"], &extra);
        assert!(text.contains("10.0.0.3\tdb10.0.0.9 evil\n"));
        assert!(text.ends_with("10.0.0.2\tweb my-web\n"));
        assert_eq!(text.lines().count(), 8);
        assert_eq!(hosts(&[], &["web"], &[]).lines().count(), 6);
    }
}
