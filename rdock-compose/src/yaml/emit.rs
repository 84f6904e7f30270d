//! Data as YAML text, in block style and with the quotes that Go's YAML library gives it.

use super::{Ordered, Value as Scalar, plain};

/// The document as YAML 1.2, two spaces a level, with a line end after the last line.
pub(crate) fn emit(value: &Ordered) -> String {
    let mut out = String::new();
    match value {
        Ordered::Map(map) if !map.is_empty() => block(value, 0, &mut out),
        Ordered::List(list) if !list.is_empty() => block(value, 0, &mut out),
        _ => {
            out.push_str(&inline(value, 0));
            out.push('\n');
        }
    }
    out
}

fn is_block(value: &Ordered) -> bool {
    match value {
        Ordered::Map(map) => !map.is_empty(),
        Ordered::List(list) => !list.is_empty(),
        _ => false,
    }
}

fn block(value: &Ordered, depth: usize, out: &mut String) {
    let indent = "  ".repeat(depth);
    match value {
        Ordered::Map(map) => {
            for (key, value) in map {
                out.push_str(&indent);
                entry(key, value, depth, out);
            }
        }
        Ordered::List(list) => {
            for value in list {
                out.push_str(&indent);
                out.push_str("- ");
                element(value, depth, out);
            }
        }
        _ => {}
    }
}

fn entry(key: &str, value: &Ordered, depth: usize, out: &mut String) {
    out.push_str(&text(key, depth, false));
    out.push(':');
    if is_block(value) {
        out.push('\n');
        block(value, depth + 1, out);
    } else {
        out.push(' ');
        out.push_str(&inline(value, depth + 1));
        out.push('\n');
    }
}

/// The first key of a mapping stands on the line of the dash.
fn element(value: &Ordered, depth: usize, out: &mut String) {
    let mut inner = String::new();
    if is_block(value) {
        block(value, depth + 1, &mut inner);
        out.push_str(inner.trim_start_matches(' '));
    } else {
        out.push_str(&inline(value, depth + 1));
        out.push('\n');
    }
}

fn inline(value: &Ordered, depth: usize) -> String {
    match value {
        Ordered::Null => "null".to_owned(),
        Ordered::Text(string) => text(string, depth, true),
        Ordered::List(_) => "[]".to_owned(),
        Ordered::Map(_) => "{}".to_owned(),
        Ordered::Bool(value) => value.to_string(),
        Ordered::Number(number) => number.to_string(),
    }
}

/// A string: plain where that reads back as the same string, a literal block for lines, else in single quotes; in
/// double ones what would be another type, and what has letters that need an escape.
fn text(string: &str, depth: usize, literal: bool) -> String {
    let printable = string.chars().all(|letter| {
        letter == '\n'
            || (!letter.is_control() && !matches!(letter, '\u{feff}' | '\u{2028}' | '\u{2029}' | '\u{85}'))
    });
    let lines = string.contains('\n');
    if lines
        && literal
        && printable
        && !string.starts_with([' ', '\n'])
        && !string.trim_end_matches('\n').is_empty()
    {
        let indent = "  ".repeat(depth);
        let keep = match (string.ends_with('\n'), string.ends_with("\n\n")) {
            (false, _) => "-",
            (true, false) => "",
            (true, true) => "+",
        };
        let body: Vec<String> = string
            .strip_suffix('\n')
            .unwrap_or(string)
            .split('\n')
            .map(|line| {
                if line.is_empty() {
                    String::new()
                } else {
                    format!("{indent}{line}")
                }
            })
            .collect();
        return format!("|{keep}\n{}", body.join("\n"));
    }
    let typed =
        string.is_empty() || string == "<<" || !matches!(plain(string), Scalar::Text(_)) || is_date(string);
    if !printable || lines || typed || string.contains('\t') {
        return quoted(string);
    }
    match is_plain(string) && !is_old(string) {
        true => string.to_owned(),
        false => format!("'{}'", string.replace('\'', "''")),
    }
}

/// Whether it is a plain scalar in any place of a block, where it is a string for this reader.
fn is_plain(string: &str) -> bool {
    let indicator = |letter: char| ",[]{}#&*!|>'\"%@`".contains(letter);
    let mut letters = string.chars();
    let first = letters.next().unwrap_or(' ');
    let second = letters.next().unwrap_or(' ');
    let begins = indicator(first)
        || matches!(first, '-' | '?' | ':') && second == ' '
        || ["---", "...", " "].iter().any(|start| string.starts_with(start));
    let within = [": ", " #"].iter().any(|sign| string.contains(sign));
    !begins && !within && !string.ends_with([' ', ':'])
}

/// Whether readers of YAML 1.1 take it for a boolean or a sexagesimal number.
fn is_old(string: &str) -> bool {
    let word = ["y", "n", "yes", "no", "on", "off"].contains(&string.to_ascii_lowercase().as_str());
    let number = string.strip_prefix(['-', '+']).unwrap_or(string);
    let digit = |letter: char| letter.is_ascii_digit();
    let mut parts = number.split('.').next().unwrap_or_default().split(':');
    let first = parts.next().unwrap_or_default();
    let below_60 = |part: &str| match part.as_bytes() {
        [only] => only.is_ascii_digit(),
        [ten, one] => (b'0'..=b'5').contains(ten) && one.is_ascii_digit(),
        _ => false,
    };
    word || first.starts_with(digit)
        && first.chars().all(|letter| digit(letter) || letter == '_')
        && number.contains(':')
        && parts.all(below_60)
}

/// Whether it is a date, or begins with one and a time.
fn is_date(string: &str) -> bool {
    let mut parts = string.splitn(3, '-');
    let digits = |part: Option<&str>, most: usize| {
        part.is_some_and(|part| {
            !part.is_empty() && part.len() <= most && part.chars().all(|letter| letter.is_ascii_digit())
        })
    };
    let year = string.find('-') == Some(4) && digits(parts.next(), 4);
    let day = |text: &str| {
        let end = text
            .find(|letter: char| !letter.is_ascii_digit())
            .unwrap_or(text.len());
        let rest = &text[end..];
        let time = rest.strip_prefix(['T', 't', ' ']).map(str::trim_start);
        digits(Some(&text[..end]), 2)
            && (rest.is_empty()
                || time.is_some_and(|time| time.starts_with(|letter: char| letter.is_ascii_digit())))
    };
    year && digits(parts.next(), 2) && parts.next().is_some_and(day)
}

fn quoted(string: &str) -> String {
    let mut out = String::from("\"");
    for letter in string.chars() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            other
                if other.is_control() || matches!(other, '\u{feff}' | '\u{2028}' | '\u{2029}' | '\u{85}') =>
            {
                out.push_str(&format!("\\u{:04x}", u32::from(other)));
            }
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::{Limits, parse};
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn back(value: &Value) -> Value {
        let text = emit(&Ordered::of(value));
        let documents =
            parse(0, &text, &Limits::default()).unwrap_or_else(|error| panic!("{error:?}\n{text}"));
        documents[0].to_json()
    }

    #[test]
    fn what_is_written_reads_back() {
        let value = json!({
            "a": [1, "1", "yes", null, [], {}, [["x"]], {"k": {"z": "multi\nline\n"}, "l": "no end\nat all"}],
            "b": {"x: y": "# no comment", "": " lead", "t": "tab\there", "two": "a\n\n", "12:30": "12:30"},
        });
        assert_eq!(back(&value), value);
    }

    proptest! {
        #[test]
        fn any_string_reads_back(text in any::<String>(), key in "[ -~]{0,12}") {
            let value = json!({key: [text.clone(), {"inner": text}]});
            prop_assert_eq!(back(&value), value);
        }
    }
}
