//! Names and numbers of signals, as `docker stop`, `docker kill` and STOPSIGNAL write them.

/// Standard signals of signal(7) by number, for every architecture that rdock runs on (x86_64, aarch64).
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// Other names for the same numbers.
const ALIASES: [(&str, i32); 4] = [("IOT", 6), ("CLD", 17), ("POLL", 29), ("UNUSED", 31)];

/// First and last real-time signal as libc shows them; 32 and 33 belong to the threading library.
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

/// The number of `SIGTERM`, `TERM`, `term`, `15`, `RTMIN+3` or `SIGRTMAX-2`; `None` when it is no signal.
pub(crate) fn parse(text: &str) -> Option<i32> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok().filter(|number| (1..=RTMAX).contains(number));
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(index) = NAMES.iter().position(|known| *known == name) {
        return i32::try_from(index + 1).ok();
    }
    if let Some((_, number)) = ALIASES.iter().find(|(known, _)| *known == name) {
        return Some(*number);
    }
    let (base, offset) = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(rest), _) => (RTMIN, offset(rest, '+')?),
        (_, Some(rest)) => (RTMAX, -offset(rest, '-')?),
        _ => return None,
    };
    Some(base + offset).filter(|number| (RTMIN..=RTMAX).contains(number))
}

/// What follows RTMIN or RTMAX: nothing, or the sign and one or two digits.
fn offset(text: &str, sign: char) -> Option<i32> {
    if text.is_empty() {
        return Some(0);
    }
    let digits = text.strip_prefix(sign)?;
    if digits.is_empty() || digits.len() > 2 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

/// `SIGTERM` for 15, `SIGRTMIN+3` for 37; the number itself where there is no name.
pub(crate) fn name(number: i32) -> String {
    let standard = usize::try_from(number - 1)
        .ok()
        .and_then(|index| NAMES.get(index));
    match standard {
        Some(name) => format!("SIG{name}"),
        None if number == RTMIN => "SIGRTMIN".into(),
        None if (RTMIN..=RTMAX).contains(&number) => format!("SIGRTMIN+{}", number - RTMIN),
        None => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_as_docker_takes_them() {
        let table = [
            ("SIGTERM", Some(libc::SIGTERM)),
            ("TERM", Some(libc::SIGTERM)),
            ("sigterm", Some(libc::SIGTERM)),
            ("15", Some(15)),
            ("KILL", Some(libc::SIGKILL)),
            ("SIGWINCH", Some(libc::SIGWINCH)),
            ("SYS", Some(libc::SIGSYS)),
            ("POLL", Some(libc::SIGIO)),
            ("CLD", Some(libc::SIGCHLD)),
            ("RTMIN", Some(34)),
            ("SIGRTMIN+3", Some(37)),
            ("RTMAX-14", Some(50)),
            ("64", Some(64)),
            ("0", None),
            ("65", None),
            ("-9", None),
            ("+9", None),
            ("", None),
            ("SIG", None),
            ("SIGSIGTERM", None),
            ("RTMIN-1", None),
            ("RTMAX+1", None),
            ("RTMIN+31", None),
            ("RTMIN++1", None),
            ("TERM ", None),
            ("4294967305", None),
        ];
        for (text, expected) in table {
            assert_eq!(parse(text), expected, "{text:?}");
        }
    }

    #[test]
    fn every_name_comes_back_as_its_number() {
        for number in 1..=64 {
            assert_eq!(parse(&name(number)), Some(number));
        }
    }
}
