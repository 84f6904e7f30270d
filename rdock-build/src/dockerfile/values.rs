//! Small grammars of values: durations, sizes, ports, devices.
use super::instruction::Device;
use super::mount::split_csv;
use super::suggest;
use std::time::Duration;

/// Reads a duration as Go writes it: `1h30m`, `1.5s`, `300ms`. `None`: it is none, is negative or too long
/// (an `i64` of nanoseconds).
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let text = text.strip_prefix('+').unwrap_or(text);
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut total: u128 = 0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (whole, after) = rest.split_at(digits);
        let (part, after) = match after.strip_prefix('.') {
            Some(after) => {
                let digits = after.len() - after.trim_start_matches(|c: char| c.is_ascii_digit()).len();
                after.split_at(digits)
            }
            None => ("", after),
        };
        if whole.is_empty() && part.is_empty() || whole.len() > 19 {
            return None;
        }
        let end = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let unit: u128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        total = total.checked_add(whole.checked_mul(unit)?)?;
        // More than 18 digits behind the point are below a nanosecond in every unit.
        let part = &part[..part.len().min(18)];
        if !part.is_empty() {
            total += part.parse::<u128>().ok()? * unit / 10u128.pow(part.len() as u32);
        }
        rest = after;
    }
    let nanoseconds = u64::try_from(total).ok().filter(|n| i64::try_from(*n).is_ok())?;
    Some(Duration::from_nanos(nanoseconds))
}

/// Reads a size in bytes as docker writes it: `64m`, `1.5 GiB`, `100`. Units are powers of 1024.
pub(crate) fn size(text: &str) -> Option<u64> {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase();
    let unit = unit.strip_suffix('b').unwrap_or(&unit);
    let power = match unit {
        "" => 0,
        "k" | "ki" => 1,
        "m" | "mi" => 2,
        "g" | "gi" => 3,
        "t" | "ti" => 4,
        "p" | "pi" => 5,
        _ => return None,
    };
    let factor = 1024u64.pow(power);
    if let Ok(whole) = number.parse::<u64>() {
        return whole
            .checked_mul(factor)
            .filter(|size| i64::try_from(*size).is_ok());
    }
    let size = number.parse::<f64>().ok()? * factor as f64;
    (size.is_finite() && size < i64::MAX as f64).then_some(size as u64)
}

/// A word of EXPOSE, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExposedPort {
    /// First port of the range.
    pub first: u16,
    /// Last port of the range; the first one for a single port.
    pub last: u16,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: &'static str,
}

impl ExposedPort {
    /// Returns the entries of the image config: `80/tcp`.
    pub fn entries(&self) -> impl Iterator<Item = String> + use<> {
        let protocol = self.protocol;
        (self.first..=self.last).map(move |port| format!("{port}/{protocol}"))
    }
}

/// Reads a word of EXPOSE: `80`, `8000-8010/udp`. An address or a host port before it is checked and dropped, as
/// docker does. The error is the rule it breaks.
pub fn exposed_port(text: &str) -> Result<ExposedPort, String> {
    let wrong = |reason: &str| Err(format!("invalid port {text:?}: {reason}"));
    let (front, container) = text.rsplit_once(':').map_or((None, text), |(a, b)| (Some(a), b));
    let (ports, protocol) = container.split_once('/').unwrap_or((container, ""));
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "" | "tcp" => "tcp",
        "udp" => "udp",
        "sctp" => "sctp",
        _ => return wrong("the protocol is tcp, udp or sctp"),
    };
    if ports.is_empty() {
        return wrong("no port specified");
    }
    let Some((first, last)) = port_range(ports) else {
        return wrong("ports are 0 to 65535, or first-last");
    };
    if let Some(front) = front {
        let (address, host) = front
            .rsplit_once(':')
            .map_or((None, front), |(a, b)| (Some(a), b));
        if let Some(address) = address.filter(|address| !address.is_empty()) {
            let plain = address.strip_prefix('[').and_then(|a| a.strip_suffix(']'));
            if plain.unwrap_or(address).parse::<std::net::IpAddr>().is_err() {
                return wrong("the address is none");
            }
        }
        match port_range(host) {
            None if !host.is_empty() => return wrong("the host port is none"),
            Some((a, b)) if b - a != last - first && first != last => {
                return wrong("the two ranges differ in length");
            }
            _ => {}
        }
    }
    Ok(ExposedPort {
        first,
        last,
        protocol,
    })
}

/// Names of signals, and their numbers' limits on Linux.
const SIGNALS: [&str; 34] = [
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL", "PIPE",
    "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP", "TTIN", "TTOU",
    "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ",
];

/// Checks a value of STOPSIGNAL: a number from 1 to 64, or a name with or without `SIG`, `RTMIN+3` and `RTMAX-2`
/// included. The error is the rule it breaks, with what may have been meant.
pub(crate) fn signal(text: &str) -> Result<(), (String, Option<String>)> {
    if let Ok(number) = text.parse::<u32>() {
        return match number {
            1..=64 => Ok(()),
            _ => Err((format!("knows no signal {number}: they are 1 to 64"), None)),
        };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = |rest: &str, sign: char| {
        rest.is_empty()
            || rest
                .strip_prefix(sign)
                .and_then(|n| n.parse::<u32>().ok())
                .is_some_and(|n| n <= 30)
    };
    let realtime = name.strip_prefix("RTMIN").is_some_and(|rest| offset(rest, '+'))
        || name.strip_prefix("RTMAX").is_some_and(|rest| offset(rest, '-'));
    match realtime || SIGNALS.contains(&name) {
        true => Ok(()),
        false => Err((
            format!("knows no signal {text:?}"),
            suggest::closest_exact(name, SIGNALS).map(|name| format!("SIG{name}")),
        )),
    }
}

fn port_range(text: &str) -> Option<(u16, u16)> {
    let number = |text: &str| match text.starts_with('+') && text.len() > 1 {
        true => text[1..].parse::<u16>().ok(),
        false => text.parse::<u16>().ok(),
    };
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (number(first)?, number(last)?),
        None => (number(text)?, number(text)?),
    };
    (first <= last).then_some((first, last))
}

/// Reads a value of `RUN --device`. The error is the rule it breaks, with what may have been meant.
pub(crate) fn device(text: &str) -> Result<Device, (String, Option<String>)> {
    let fields = split_csv(text).map_err(|reason| (reason, None))?;
    let mut name: Option<String> = None;
    let mut required = false;
    for field in fields {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.to_ascii_lowercase(), Some(value)),
            None => (field.to_ascii_lowercase(), None),
        };
        match (key.as_str(), value) {
            ("required", None | Some("1" | "t" | "T" | "true" | "TRUE" | "True")) => required = true,
            ("required", Some("0" | "f" | "F" | "false" | "FALSE" | "False")) => required = false,
            ("required", Some(value)) => {
                return Err((format!("'required' is true or false, not {value:?}"), None));
            }
            ("name", Some(_)) if name.is_some() => return Err(("the name is given twice".to_owned(), None)),
            ("name", Some(value)) => name = Some(value.to_owned()),
            _ if name.is_none() => name = Some(field),
            _ => {
                let meant = suggest::closest_exact(&key, ["name", "required"]);
                return Err((format!("unknown key {key:?} in {field:?}"), meant));
            }
        }
    }
    match name.filter(|name| !name.is_empty()) {
        Some(name) => Ok(Device { name, required }),
        None => Err(("the device's name is missing".to_owned(), None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        for (text, nanoseconds) in [
            ("0", 0),
            ("5s", 5_000_000_000),
            ("1h30m", 5_400_000_000_000),
            ("1.5s", 1_500_000_000),
            (".5ms", 500_000),
            ("1m0.25s", 60_250_000_000),
            ("2µs", 2_000),
        ] {
            assert_eq!(duration(text), Some(Duration::from_nanos(nanoseconds)), "{text}");
        }
        for text in ["", "5", "s", "-5s", "1d", ".s", "9999999999h", "1 s"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, bytes) in [
            ("100", 100),
            ("64m", 64 << 20),
            ("1.5 GiB", 3 << 29),
            ("2kB", 2048),
            ("1G", 1 << 30),
        ] {
            assert_eq!(size(text), Some(bytes), "{text}");
        }
        for text in ["", "m", "-1", "1x", "99999999999999999999p"] {
            assert_eq!(size(text), None, "{text}");
        }
    }

    #[test]
    fn signals_have_names_and_numbers() {
        for text in ["9", "SIGTERM", "term", "SIGRTMIN+3", "RTMAX-1", "64", "SIGUSR1"] {
            assert_eq!(signal(text), Ok(()), "{text}");
        }
        for text in ["", "0", "65", "SIGTREM", "SIGRTMIN+99", "SIG", "-9"] {
            assert!(signal(text).is_err(), "{text}");
        }
    }

    #[test]
    fn ports_have_ranges_and_protocols() {
        let entries = |text| exposed_port(text).map(|port| port.entries().collect::<Vec<_>>());
        assert_eq!(entries("80"), Ok(vec!["80/tcp".to_owned()]));
        assert_eq!(
            entries("7000-7001/UDP"),
            Ok(vec!["7000/udp".to_owned(), "7001/udp".to_owned()])
        );
        assert_eq!(entries("127.0.0.1:80:81"), Ok(vec!["81/tcp".to_owned()]));
        for text in ["", "/tcp", "80/x", "70000", "5-3", "a", "x:1:80", "1-2:80-90"] {
            assert!(entries(text).is_err(), "{text}");
        }
    }
}
