//! The contents of a container's `/etc/hosts` and `/etc/resolv.conf`.

use crate::warning::Warning;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

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

/// How a container resolves names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resolving {
    /// As the host, whose network it has.
    AsHost,
    /// It asks name servers itself, over its network.
    Directly,
    /// It asks its own resolver.
    ByResolver,
}

/// What the spec says about name servers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wishes<'a> {
    pub(crate) servers: &'a [IpAddr],
    pub(crate) search: &'a [String],
    pub(crate) options: &'a [String],
}

/// `/etc/resolv.conf` for a container: the host's, without servers that only the host can reach, with what the spec
/// wants in its place. One with the host's network gets the host's file as it is.
pub(crate) fn resolv_conf(resolving: Resolving, wishes: Wishes<'_>) -> (String, Option<Warning>) {
    let host = host_resolv_conf();
    let none = wishes.servers.is_empty() && wishes.search.is_empty() && wishes.options.is_empty();
    let (text, warning) = match resolving {
        Resolving::AsHost if none => {
            return (std::fs::read_to_string(HOST).unwrap_or_default(), None);
        }
        Resolving::Directly if wishes.servers.is_empty() => reachable(&host),
        _ => (host, None),
    };
    if none && resolving == Resolving::Directly {
        return (text, warning);
    }
    let mut result = String::new();
    match (resolving, wishes.servers) {
        (Resolving::ByResolver, _) => {
            result.push_str(&format!("nameserver {}\n", super::resolver::ADDRESS));
        }
        (_, []) => servers(&text).for_each(|server| result.push_str(&format!("nameserver {server}\n"))),
        (_, given) => given
            .iter()
            .for_each(|server| result.push_str(&format!("nameserver {server}\n"))),
    }
    let search: Vec<&str> = match wishes.search {
        [] => words(&text, &["search", "domain"]),
        [root] if root == "." => Vec::new(),
        given => given.iter().map(String::as_str).collect(),
    };
    if !search.is_empty() {
        result.push_str(&format!("search {}\n", search.join(" ")));
    }
    let mut options: Vec<&str> = match wishes.options {
        [] => words(&text, &["options"]),
        given => given.iter().map(String::as_str).collect(),
    };
    // As in docker: the name of a container has no dot, and needs no search domain.
    if resolving == Resolving::ByResolver && !options.iter().any(|option| option.starts_with("ndots:")) {
        options.push("ndots:0");
    }
    if !options.is_empty() {
        result.push_str(&format!("options {}\n", options.join(" ")));
    }
    (result, warning)
}

const HOST: &str = "/etc/resolv.conf";

/// The host's, with the real servers when it names a stub of systemd-resolved alone.
fn host_resolv_conf() -> String {
    let read = |path: &str| std::fs::read_to_string(Path::new(path)).ok();
    let host = read(HOST).unwrap_or_default();
    let stub = servers(&host).all(|server| server == "127.0.0.53" || server == "127.0.0.54");
    if stub {
        read(RESOLVED).unwrap_or(host)
    } else {
        host
    }
}

/// The words of the last line that begins with one of `keys`.
fn words<'a>(text: &'a str, keys: &[&str]) -> Vec<&'a str> {
    let line = text.lines().rev().find_map(|line| {
        let mut words = line.split_whitespace();
        words.next().filter(|first| keys.contains(first)).map(|_| words)
    });
    line.map(Iterator::collect).unwrap_or_default()
}

/// Whom a container's resolver asks.
#[derive(Debug, Clone)]
pub(crate) struct Upstream {
    pub(super) servers: Vec<SocketAddr>,
    /// From inside the container; from the host otherwise.
    pub(super) inside: bool,
    pub(super) timeout: Duration,
    pub(super) attempts: usize,
    pub(super) rotate: bool,
}

/// The container's own servers, else the host's, by the rules of resolv.conf(5).
pub(crate) fn upstream(given: &[IpAddr]) -> Upstream {
    // The host's own file: a stub on the host's loopback interface can be asked from the host.
    let text = std::fs::read_to_string(HOST).unwrap_or_default();
    upstream_of(&text, given)
}

fn upstream_of(text: &str, given: &[IpAddr]) -> Upstream {
    let mut servers: Vec<IpAddr> = match given {
        [] => servers(text).filter_map(|server| server.parse().ok()).collect(),
        _ => given.to_vec(),
    };
    if servers.is_empty() {
        servers.push(Ipv4Addr::LOCALHOST.into());
    }
    let options = words(text, &["options"]);
    let number = |key: &str, default: u64, most: u64| {
        let value = options
            .iter()
            .find_map(|option| option.strip_prefix(key)?.parse().ok());
        value.unwrap_or(default).clamp(1, most)
    };
    Upstream {
        servers: servers.into_iter().map(|ip| SocketAddr::new(ip, 53)).collect(),
        inside: !given.is_empty(),
        timeout: Duration::from_secs(number("timeout:", 5, 30)),
        attempts: number("attempts:", 2, 5) as usize,
        rotate: options.contains(&"rotate"),
    }
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
    fn what_the_spec_wants_takes_the_place_of_the_hosts() {
        let search = ["corp.example".to_string()];
        let server = [IpAddr::from([10, 9, 8, 7])];
        let wishes = Wishes {
            servers: &server,
            search: &search,
            options: &["timeout:1".to_string()],
        };
        assert_eq!(
            resolv_conf(Resolving::Directly, wishes).0,
            "nameserver 10.9.8.7\nsearch corp.example\noptions timeout:1\n"
        );
        assert_eq!(
            resolv_conf(Resolving::ByResolver, wishes).0,
            "nameserver 127.0.0.11\nsearch corp.example\noptions timeout:1 ndots:0\n"
        );
        let none = Wishes {
            servers: &server,
            search: &[".".to_string()],
            options: &["ndots:2".to_string()],
        };
        assert_eq!(
            resolv_conf(Resolving::ByResolver, none).0,
            "nameserver 127.0.0.11\noptions ndots:2\n"
        );
    }

    #[test]
    fn the_hosts_servers_are_asked_by_its_options() {
        let text = "nameserver 127.0.0.53\nnameserver fe80::1%eth0\nnameserver ::1\noptions timeout:2 attempts:9 rotate\n";
        let upstream = upstream_of(text, &[]);
        assert_eq!(
            upstream.servers,
            ["127.0.0.53:53".parse().unwrap(), "[::1]:53".parse().unwrap()]
        );
        assert_eq!((upstream.timeout.as_secs(), upstream.attempts), (2, 5));
        assert!(upstream.rotate && !upstream.inside);
        let given = upstream_of(text, &[IpAddr::from([10, 0, 0, 1])]);
        assert_eq!(given.servers, ["10.0.0.1:53".parse().unwrap()]);
        assert!(given.inside);
        assert_eq!(upstream_of("", &[]).servers, ["127.0.0.1:53".parse().unwrap()]);
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
