//! Points in time as users write them: `--since`, `--until`.

use crate::error::{Error, Result};
use jiff::{SignedDuration, Timestamp};

/// Reads a point in time: RFC 3339 (a local time or date when it has no zone), unix seconds with up to nine
/// decimals, or a duration back from now (`10m`, `1h30m`, `90s`).
///
/// # Errors
/// [`Error::Time`] for anything else.
pub(crate) fn parse(text: &str) -> Result<Timestamp> {
    read(text).ok_or_else(|| Error::Time {
        text: text.to_owned(),
    })
}

fn read(text: &str) -> Option<Timestamp> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(time);
    }
    if let Some(time) = unix(text) {
        return Some(time);
    }
    if let Ok(back) = text.parse::<SignedDuration>() {
        return Timestamp::now().checked_sub(back).ok();
    }
    // `2026-01-02`, `2026-01-02T03:04`, `2026-01-02T03:04:05.5`: local, as docker reads them.
    let civil = text.parse::<jiff::civil::DateTime>().ok()?;
    jiff::tz::TimeZone::system().to_timestamp(civil).ok()
}

/// `seconds[.nanoseconds]`, exactly: a binary fraction would lose nanoseconds.
fn unix(text: &str) -> Option<Timestamp> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if seconds.is_empty() || !digits(seconds.strip_prefix('-').unwrap_or(seconds)) || !digits(fraction) {
        return None;
    }
    let fraction = &fraction[..fraction.len().min(9)];
    let nanoseconds: i32 = format!("{fraction:0<9}").parse().ok()?;
    let sign = if text.starts_with('-') { -1 } else { 1 };
    Timestamp::new(seconds.parse().ok()?, sign * nanoseconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_are_absolute_or_back_from_now() {
        let at = |text: &str| parse(text).expect(text).to_string();
        assert_eq!(at("2026-01-02T03:04:05Z"), "2026-01-02T03:04:05Z");
        assert_eq!(at("2026-01-02T03:04:05+02:00"), "2026-01-02T01:04:05Z");
        assert_eq!(at("1136073845"), "2006-01-01T00:04:05Z");
        assert_eq!(at("1136073845.000000001"), "2006-01-01T00:04:05.000000001Z");
        assert_eq!(at("0"), "1970-01-01T00:00:00Z");
        for back in ["10m", "600s", "0h10m0s"] {
            let parsed = parse(back).expect(back);
            let ago = Timestamp::now().duration_since(parsed);
            assert!((600..620).contains(&ago.as_secs()), "{back}: {ago}");
        }
        assert!(parse("2026-01-02").is_ok());
        assert!(parse("2026-01-02T03:04:05").is_ok());
        for wrong in ["", "soon", "10 parsecs", "2026-13-01", "1.2.3", "-", "."] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_time_or_an_error(text in ".{0,40}") {
            let _ = parse(&text);
        }
    }
}
