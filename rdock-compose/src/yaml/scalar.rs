//! What a plain scalar means. The rules are those of the YAML library of the Go programs: the core schema of YAML
//! 1.2, octal numbers of 1.1 (`0644`), `_` inside numbers, and no `yes`, `no`, `on`, `off`.

use super::Value;

/// The value of a plain scalar.
pub(crate) fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        ".nan" | ".NaN" | ".NAN" => return Value::Float(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Value::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Value::Float(f64::NEG_INFINITY),
        _ => {}
    }
    if !text.starts_with(['+', '-', '.', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9']) {
        return Value::Text(text.to_owned());
    }
    let digits = text.replace('_', "");
    if let Some(number) = integer(&digits) {
        return match i64::try_from(number) {
            Ok(number) => Value::Int(number),
            Err(_) => Value::Float(number as f64),
        };
    }
    if is_float(&digits)
        && let Ok(number) = digits.parse::<f64>()
    {
        return Value::Float(number);
    }
    Value::Text(text.to_owned())
}

/// An integer with an optional sign and the prefixes `0x`, `0o`, `0b`, `0`.
fn integer(text: &str) -> Option<i128> {
    let (negative, rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = rest.get(..2).map(str::to_ascii_lowercase);
    let (radix, digits) = match lower.as_deref() {
        Some("0x") => (16, &rest[2..]),
        Some("0o") => (8, &rest[2..]),
        Some("0b") => (2, &rest[2..]),
        Some(_) if rest.starts_with('0') => (8, &rest[1..]),
        _ => (10, rest),
    };
    // No second sign, which the parser of numbers would take.
    if !digits.starts_with(|letter: char| letter.is_ascii_alphanumeric()) {
        return None;
    }
    let number = u64::from_str_radix(digits, radix).ok()?;
    Some(if negative {
        -i128::from(number)
    } else {
        i128::from(number)
    })
}

/// `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`
fn is_float(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let text = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let exponent = exponent.is_none_or(|text| digits(text.strip_prefix(['+', '-']).unwrap_or(text)));
    let mantissa = match mantissa.split_once('.') {
        Some(("", after)) => digits(after),
        Some((before, after)) => digits(before) && (after.is_empty() || digits(after)),
        None => digits(mantissa),
    };
    exponent && mantissa
}

/// A number as Go's `%v` prints it: the shortest text, with an exponent below 1e-4 and from 1e6.
pub(crate) fn float_text(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if value != 0.0 && !(-4..6).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", exponent.abs());
    }
    format!("{value}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_have_the_types_of_the_go_programs() {
        let text = |text: &str| Value::Text(text.to_owned());
        for (input, expected) in [
            ("yes", text("yes")),
            ("on", text("on")),
            ("22:22", text("22:22")),
            ("0644", Value::Int(420)),
            ("0o644", Value::Int(420)),
            ("0x10", Value::Int(16)),
            ("-0b11", Value::Int(-3)),
            ("1_000", Value::Int(1000)),
            ("08", Value::Float(8.0)),
            ("1e3", Value::Float(1000.0)),
            ("3.10", Value::Float(3.1)),
            ("1.2.3", text("1.2.3")),
            ("-", text("-")),
            ("--1", text("--1")),
            ("~", Value::Null),
            ("True", Value::Bool(true)),
            ("tRue", text("tRue")),
            ("99999999999999999999", Value::Float(1e20)),
        ] {
            assert_eq!(plain(input), expected, "{input}");
        }
    }

    #[test]
    fn floats_print_as_in_go() {
        for (value, expected) in [
            (3.1, "3.1"),
            (1000.0, "1000"),
            (1_000_000.0, "1e+06"),
            (123_456_789.0, "1.23456789e+08"),
            (0.00001, "1e-05"),
            (0.5, "0.5"),
            (0.0, "0"),
            (-2.5e-7, "-2.5e-07"),
        ] {
            assert_eq!(float_text(value), expected);
        }
    }
}
