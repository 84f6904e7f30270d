//! Durations: `1h2m3.5s`, read with days and weeks too, printed as Go prints them.

/// Nanoseconds of a duration.
pub(crate) fn parse_duration(text: &str) -> Result<i64, String> {
    let wrong = || format!("{text:?} is not a duration like 1m30s");
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(wrong());
    }
    let mut total = 0_f64;
    let mut whole = 0_i64;
    while !rest.is_empty() {
        let end = rest
            .find(|letter: char| !letter.is_ascii_digit() && letter != '.')
            .ok_or_else(wrong)?;
        let (number, after) = rest.split_at(end);
        let end = after
            .find(|letter: char| letter.is_ascii_digit() || letter == '.')
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        rest = after;
        let unit: i64 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            "d" => 86_400_000_000_000,
            "w" => 604_800_000_000_000,
            _ => return Err(wrong()),
        };
        if let Ok(number) = number.parse::<i64>() {
            let part = number.checked_mul(unit).ok_or_else(wrong)?;
            whole = whole.checked_add(part).ok_or_else(wrong)?;
        } else {
            total += number.parse::<f64>().map_err(|_| wrong())? * unit as f64;
        }
    }
    if !(0.0..9.0e18).contains(&total) {
        return Err(wrong());
    }
    let sum = whole.checked_add(total.round() as i64).ok_or_else(wrong)?;
    Ok(if negative { -sum } else { sum })
}

/// A duration as Go's `time.Duration` prints it.
pub(crate) fn format_duration(nanoseconds: i64) -> String {
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let total = nanoseconds.unsigned_abs();
    let fraction = |value: u64, unit: u64| {
        let (whole, part) = (value / unit, value % unit);
        let digits = unit.ilog10() as usize;
        let part = format!("{part:0digits$}");
        let part = part.trim_end_matches('0');
        if part.is_empty() || unit == 1 {
            whole.to_string()
        } else {
            format!("{whole}.{part}")
        }
    };
    match total {
        0 => "0s".to_owned(),
        1..1_000 => format!("{sign}{total}ns"),
        1_000..1_000_000 => format!("{sign}{}µs", fraction(total, 1_000)),
        1_000_000..1_000_000_000 => format!("{sign}{}ms", fraction(total, 1_000_000)),
        _ => {
            let (minutes, rest) = (total / 60_000_000_000, total % 60_000_000_000);
            let seconds = fraction(rest, 1_000_000_000);
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{sign}{seconds}s"),
                (0, minutes) => format!("{sign}{minutes}m{seconds}s"),
                (hours, minutes) => format!("{sign}{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_printed_as_in_go() {
        for (text, expected) in [
            ("10s", "10s"),
            ("60s", "1m0s"),
            ("1m30s", "1m30s"),
            ("1.5h", "1h30m0s"),
            ("1d", "24h0m0s"),
            ("1w", "168h0m0s"),
            ("1500ms", "1.5s"),
            ("1500us", "1.5ms"),
            ("0", "0s"),
            ("-1s", "-1s"),
            ("10ns", "10ns"),
        ] {
            assert_eq!(
                parse_duration(text).map(format_duration).as_deref(),
                Ok(expected),
                "{text}"
            );
        }
        for text in ["", "10", "s", "1x", "1.2.3s", "99999999999h", "-"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
