//! The error of every parser here, and sizes in bytes.

/// A text that is not what its flag takes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {what}: {reason}")]
#[non_exhaustive]
pub struct ParseError {
    /// What was expected, with its article: "a published port".
    pub what: &'static str,
    /// What was given.
    pub text: String,
    /// Why it is not that.
    pub reason: String,
}

impl ParseError {
    pub(crate) fn new(what: &'static str, text: &str, reason: impl Into<String>) -> Self {
        Self {
            what,
            text: text.to_owned(),
            reason: reason.into(),
        }
    }
}

/// Parses a size in bytes as docker writes them: `512m`, `1.5g`, `64KiB`, `100`, in powers of 1024; a
/// fraction of a byte is dropped.
///
/// # Errors
/// When it is not a number with one of the units b, k, m, g, t, p, or does not fit.
pub fn parse_size(text: &str) -> Result<u64, ParseError> {
    let error = |reason: &str| ParseError::new("a size", text, reason);
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase();
    let power = match unit
        .strip_suffix('b')
        .map(|unit| unit.strip_suffix('i').unwrap_or(unit))
        .unwrap_or(&unit)
    {
        "" if unit == "ib" => return Err(error("an unknown unit")),
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return Err(error("a number with one of the units b, k, m, g, t, p")),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return Err(error("a number with one of the units b, k, m, g, t, p"));
    }
    let whole = if whole.is_empty() { "0" } else { whole };
    let factor = 1_u128 << (10 * power);
    let too_large = || error("more than 2^64 bytes");
    let whole: u128 = whole.parse::<u64>().map_err(|_| too_large())?.into();
    // Digits beyond the 18th are less than a byte even of a pebibyte.
    let digits = &fraction[..fraction.len().min(18)];
    let part = match digits.parse::<u128>() {
        Ok(value) => value * factor / 10_u128.pow(u32::try_from(digits.len()).unwrap_or(0)),
        Err(_) => 0,
    };
    u64::try_from(whole * factor + part).map_err(|_| too_large())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_as_docker_takes_them() {
        let table = [
            ("0", 0),
            ("100", 100),
            ("32b", 32),
            ("32B", 32),
            ("32k", 32 << 10),
            ("32K", 32 << 10),
            ("32kb", 32 << 10),
            ("32Kib", 32 << 10),
            ("32KiB", 32 << 10),
            ("32 kb", 32 << 10),
            ("512m", 512 << 20),
            ("1.5g", 3 << 29),
            ("0.5k", 512),
            ("32.5 kB", 33280),
            ("1.0001k", 1024),
            (".5k", 512),
            ("1.", 1),
            ("1 ", 1),
            ("2t", 2 << 40),
            ("2p", 2 << 50),
            ("18446744073709551615", u64::MAX),
            ("0.0000000000000000001p", 0),
        ];
        for (text, expected) in table {
            assert_eq!(parse_size(text), Ok(expected), "{text:?}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in [
            "",
            " ",
            "-1",
            "+1",
            "m",
            "1x",
            "1 x",
            "1  k",
            " 1",
            "1  ",
            ".",
            ".k",
            "1.2.3",
            "1e3",
            "0x10",
            "1ib",
            "1kbb",
            "1ki",
            "1,5g",
            "18446744073709551616",
            "16384p",
            "٣",
            "1k\n",
        ] {
            assert!(parse_size(text).is_err(), "{text:?}: {:?}", parse_size(text));
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,24}", digits in "[0-9.]{0,40}[a-zA-Z ]{0,4}") {
            let _ = parse_size(&text);
            let _ = parse_size(&digits);
        }

        #[test]
        fn every_whole_number_of_bytes_is_itself(bytes: u64) {
            prop_assert_eq!(parse_size(&bytes.to_string()), Ok(bytes));
            prop_assert_eq!(parse_size(&format!("{bytes}b")), Ok(bytes));
        }

        #[test]
        fn units_multiply(number in 0_u64..1 << 13) {
            for (unit, power) in [("k", 1), ("MiB", 2), ("gb", 3), ("T", 4), (" p", 5)] {
                prop_assert_eq!(parse_size(&format!("{number}{unit}")), Ok(number << (10 * power)));
            }
        }
    }
}
