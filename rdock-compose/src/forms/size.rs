//! Sizes: a number of bytes, or a number with a binary unit (`512m`, `1.5g`, `10kb`).

/// Bytes.
pub(crate) fn parse_size(text: &str) -> Result<i64, String> {
    let wrong = || format!("{text:?} is not a size like 512m");
    let text_lower = text.trim().to_ascii_lowercase();
    if text_lower == "-1" {
        return Ok(-1);
    }
    let end = text_lower
        .find(|letter: char| !letter.is_ascii_digit() && letter != '.')
        .unwrap_or(text_lower.len());
    let (number, unit) = text_lower.split_at(end);
    let power = match unit.trim_start() {
        "" | "b" => 0,
        "k" | "kb" | "ki" | "kib" => 1,
        "m" | "mb" | "mi" | "mib" => 2,
        "g" | "gb" | "gi" | "gib" => 3,
        "t" | "tb" | "ti" | "tib" => 4,
        "p" | "pb" | "pi" | "pib" => 5,
        _ => return Err(wrong()),
    };
    let factor = 1_i64 << (10 * power);
    if let Ok(number) = number.parse::<i64>() {
        return number.checked_mul(factor).ok_or_else(wrong);
    }
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let bytes = number * factor as f64;
    if bytes < 9.0e18 {
        Ok(bytes as i64)
    } else {
        Err(wrong())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_binary_multiples() {
        for (text, expected) in [
            ("0", Ok(0)),
            ("1g", Ok(1 << 30)),
            ("1.5k", Ok(1536)),
            ("10KB", Ok(10240)),
            ("50M", Ok(52_428_800)),
            ("7b", Ok(7)),
            ("-1", Ok(-1)),
        ] {
            assert_eq!(parse_size(text), expected, "{text}");
        }
        for text in ["", "m", "-5", "1x", "1 2", "99999999999g"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}
