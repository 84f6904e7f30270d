//! The short form of a port: `[[address:]published:]target[/protocol]`, each a number or a range.

use std::net::IpAddr;

/// One port of the long form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PortForm {
    pub(crate) target: u16,
    /// A port, or a range from which one is taken.
    pub(crate) published: Option<String>,
    pub(crate) host_ip: Option<String>,
    pub(crate) protocol: String,
}

/// The ports that a short form stands for; ranges of equal length go side by side.
pub(crate) fn parse_port(text: &str) -> Result<Vec<PortForm>, String> {
    let (ports, protocol) = match text.split_once('/') {
        Some((ports, protocol)) => (ports, protocol.to_ascii_lowercase()),
        None => (text, "tcp".to_owned()),
    };
    if !["tcp", "udp", "sctp"].contains(&protocol.as_str()) {
        return Err(format!("{protocol:?} is not a protocol: tcp, udp or sctp"));
    }
    let (rest, target) = match ports.rsplit_once(':') {
        Some((rest, target)) => (Some(rest), target),
        None => (None, ports),
    };
    let (address, published) = match rest.map(|rest| rest.rsplit_once(':').ok_or(rest)) {
        Some(Ok((address, published))) => (address, published),
        Some(Err(published)) => ("", published),
        None => ("", ""),
    };
    if target.is_empty() {
        return Err("the container's port is missing".to_owned());
    }
    let address = address
        .strip_prefix('[')
        .and_then(|inner| inner.strip_suffix(']'))
        .unwrap_or(address);
    if !address.is_empty() && address.parse::<IpAddr>().is_err() {
        return Err(format!("{address:?} is not an IP address"));
    }
    let (first, last) = range(target)?;
    let form = |target: u16, published: Option<String>| PortForm {
        target,
        published,
        host_ip: Some(address.to_owned()).filter(|address| !address.is_empty()),
        protocol: protocol.clone(),
    };
    if published.is_empty() {
        return Ok((first..=last).map(|port| form(port, None)).collect());
    }
    let (from, to) = range(published)?;
    if first == last {
        return Ok(vec![form(first, Some(published.to_owned()))]);
    }
    if last - first != to - from {
        return Err(format!(
            "the ranges {published} and {target} are not of equal length"
        ));
    }
    Ok((first..=last)
        .zip(from..=to)
        .map(|(target, port)| form(target, Some(port.to_string())))
        .collect())
}

/// `80` or `80-90`.
fn range(text: &str) -> Result<(u16, u16), String> {
    let number = |part: &str| {
        let digits = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        let port = if digits { part.parse::<u16>().ok() } else { None };
        port.ok_or_else(|| format!("{text:?} is not a port or a range of ports"))
    };
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (number(first)?, number(last)?),
        None => (number(text)?, number(text)?),
    };
    if first > last {
        return Err(format!("the range {text} runs backwards"));
    }
    Ok((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_and_ranges_are_read() {
        let show = |text: &str| {
            parse_port(text).map(|ports| {
                let texts = ports.iter().map(|port| {
                    let published = port.published.as_deref().unwrap_or("");
                    format!(
                        "{}|{published}|{}|{}",
                        port.host_ip.as_deref().unwrap_or(""),
                        port.target,
                        port.protocol
                    )
                });
                texts.collect::<Vec<_>>().join(" ")
            })
        };
        for (text, expected) in [
            ("80", "||80|tcp"),
            ("8080:80/udp", "|8080|80|udp"),
            ("80-82:8080-8082", "|80|8080|tcp |81|8081|tcp |82|8082|tcp"),
            ("3000-3010:80", "|3000-3010|80|tcp"),
            ("[::1]:80:81", "::1|80|81|tcp"),
            ("127.0.0.1::80", "127.0.0.1||80|tcp"),
            ("90-91", "||90|tcp ||91|tcp"),
        ] {
            assert_eq!(show(text).as_deref(), Ok(expected), "{text}");
        }
        for text in [
            "",
            "a",
            "80:",
            "1.2.3:1:1",
            "80-82:1-2",
            "99999",
            "2-1",
            "80/x",
            "+80",
        ] {
            assert!(show(text).is_err(), "{text}");
        }
    }
}
