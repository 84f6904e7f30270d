//! JSON data as YAML text, in block style.

use super::{Value as Scalar, plain};
use serde_json::Value;

/// The document as YAML 1.2, two spaces a level, with a line end after the last line.
pub(crate) fn emit(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => block(value, 0, &mut out),
        Value::Array(list) if !list.is_empty() => block(value, 0, &mut out),
        _ => {
            out.push_str(&inline(value, 0));
            out.push('\n');
        }
    }
    out
}

fn is_block(value: &Value) -> bool {
    match value {
        Value::Object(map) => !map.is_empty(),
        Value::Array(list) => !list.is_empty(),
        _ => false,
    }
}

fn block(value: &Value, depth: usize, out: &mut String) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                out.push_str(&indent);
                entry(key, value, depth, out);
            }
        }
        Value::Array(list) => {
            for value in list {
                out.push_str(&indent);
                out.push_str("- ");
                element(value, depth, out);
            }
        }
        _ => {}
    }
}

fn entry(key: &str, value: &Value, depth: usize, out: &mut String) {
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
fn element(value: &Value, depth: usize, out: &mut String) {
    let mut inner = String::new();
    if is_block(value) {
        block(value, depth + 1, &mut inner);
        out.push_str(inner.trim_start_matches(' '));
    } else {
        out.push_str(&inline(value, depth + 1));
        out.push('\n');
    }
}

fn inline(value: &Value, depth: usize) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::String(string) => text(string, depth, true),
        Value::Array(_) => "[]".to_owned(),
        Value::Object(_) => "{}".to_owned(),
        other => other.to_string(),
    }
}

/// A string: plain where that reads back as the same string, a literal block for lines, else quoted.
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
    if !printable || lines {
        return quoted(string);
    }
    if is_plain(string) {
        string.to_owned()
    } else {
        quoted(string)
    }
}

fn is_plain(string: &str) -> bool {
    let indicator = |letter: char| "-?:,[]{}#&*!|>'\"%@`=".contains(letter);
    let typed = !matches!(plain(string), Scalar::Text(_));
    // YAML 1.1 readers take these for booleans, and these for dates and sexagesimal numbers.
    let old = ["y", "n", "yes", "no", "on", "off", "<<"].contains(&string.to_ascii_lowercase().as_str());
    let digits = string.starts_with(|letter: char| letter.is_ascii_digit())
        && string
            .chars()
            .all(|letter| letter.is_ascii_digit() || ":-_.,+TZ ".contains(letter));
    !string.is_empty()
        && !typed
        && !old
        && !digits
        && !string.starts_with(|letter: char| indicator(letter) || letter == ' ' || letter == '.')
        && !string.ends_with([' ', ':'])
        && !string.contains(": ")
        && !string.contains(" #")
        && !string.contains('\t')
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
    use serde_json::json;

    fn back(value: &Value) -> Value {
        let text = emit(value);
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
