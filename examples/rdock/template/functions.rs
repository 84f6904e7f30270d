//! The functions of templates, and how values are shown, compared and taken for true.

use serde_json::Value;
use std::fmt::Write;

/// Their names.
pub(super) const FUNCTIONS: [&str; 24] = [
    "json",
    "join",
    "index",
    "len",
    "upper",
    "lower",
    "title",
    "split",
    "truncate",
    "pad",
    "print",
    "println",
    "printf",
    "eq",
    "ne",
    "lt",
    "le",
    "gt",
    "ge",
    "and",
    "or",
    "not",
    "slice",
    "prettyjson",
];

pub(super) fn call(name: &str, arguments: Vec<Value>) -> Result<Value, String> {
    let wrong = |expected: &str| format!("wrong arguments for {name}: expected {expected}");
    let text = |value: &Value| match value {
        Value::String(text) => Ok(text.clone()),
        other => Err(format!("{name} expects a string, not {}", shown(other))),
    };
    Ok(match (name, arguments.as_slice()) {
        ("json", [value]) => Value::String(value.to_string()),
        ("prettyjson", [value]) => Value::String(format!("{value:#}")),
        ("join", [Value::Array(items), Value::String(between)]) => {
            Value::String(items.iter().map(shown).collect::<Vec<_>>().join(between))
        }
        ("join", [Value::Null, Value::String(_)]) => Value::String(String::new()),
        ("index", [value, keys @ ..]) => {
            let mut value = value.clone();
            for key in keys {
                value = index(&value, key)?;
            }
            value
        }
        ("slice", [value, bounds @ ..]) => slice(value, bounds)?,
        ("len", [Value::String(text)]) => Value::from(text.len()),
        ("len", [Value::Array(items)]) => Value::from(items.len()),
        ("len", [Value::Object(map)]) => Value::from(map.len()),
        ("len", [Value::Null]) => Value::from(0),
        ("upper", [value]) => Value::String(text(value)?.to_uppercase()),
        ("lower", [value]) => Value::String(text(value)?.to_lowercase()),
        ("title", [value]) => {
            let text = text(value)?;
            let mut letters = text.chars();
            let first = letters.next().map(|first| first.to_uppercase().to_string());
            Value::String(first.unwrap_or_default() + letters.as_str())
        }
        ("split", [value, between]) => {
            let (text, between) = (text(value)?, text(between)?);
            Value::from(text.split(&between).collect::<Vec<_>>())
        }
        ("truncate", [value, Value::Number(length)]) => {
            let length = length.as_u64().and_then(|length| usize::try_from(length).ok());
            Value::String(text(value)?.chars().take(length.unwrap_or(0)).collect())
        }
        ("pad", [value, Value::Number(before), Value::Number(after)]) => {
            let count = |number: &serde_json::Number| {
                let count = number.as_u64().and_then(|count| usize::try_from(count).ok());
                count.unwrap_or(0).min(WIDEST)
            };
            let text = text(value)?;
            Value::String(format!(
                "{}{text}{}",
                " ".repeat(count(before)),
                " ".repeat(count(after))
            ))
        }
        ("print", values) => Value::String(values.iter().map(shown).collect::<Vec<_>>().join(" ")),
        ("println", values) => Value::String(values.iter().map(shown).collect::<Vec<_>>().join(" ") + "\n"),
        ("printf", [Value::String(format), values @ ..]) => Value::String(printf(format, values)?),
        ("not", [value]) => Value::Bool(!is_true(value)),
        ("and", [first, ..]) => arguments
            .iter()
            .find(|value| !is_true(value))
            .or(arguments.last())
            .unwrap_or(first)
            .clone(),
        ("or", [first, ..]) => arguments
            .iter()
            .find(|value| is_true(value))
            .or(arguments.last())
            .unwrap_or(first)
            .clone(),
        ("eq", [first, others @ ..]) if !others.is_empty() => Value::Bool(
            others
                .iter()
                .any(|other| order(first, other) == Some(std::cmp::Ordering::Equal)),
        ),
        ("ne", [first, second]) => Value::Bool(order(first, second) != Some(std::cmp::Ordering::Equal)),
        ("lt" | "le" | "gt" | "ge", [first, second]) => {
            let order = order(first, second).ok_or("incompatible types for comparison")?;
            Value::Bool(match name {
                "lt" => order.is_lt(),
                "le" => order.is_le(),
                "gt" => order.is_gt(),
                _ => order.is_ge(),
            })
        }
        ("join", _) => return Err(wrong("a list and a separator")),
        _ => return Err(wrong("others")),
    })
}

/// What `printf` and `pad` make wide at most.
const WIDEST: usize = 4096;

fn index(value: &Value, key: &Value) -> Result<Value, String> {
    match (value, key) {
        // A key that is not there is the zero value, as in Go.
        (Value::Object(map), Value::String(key)) => Ok(map.get(key).cloned().unwrap_or(Value::Null)),
        (Value::Array(items), Value::Number(number)) => {
            let at = number.as_u64().and_then(|at| usize::try_from(at).ok());
            let item = at.and_then(|at| items.get(at));
            item.cloned()
                .ok_or_else(|| format!("index out of range: {number}"))
        }
        (Value::Null, _) => Err("index of nil".to_owned()),
        _ => Err(format!("can't index {} with {}", shown(value), shown(key))),
    }
}

fn slice(value: &Value, bounds: &[Value]) -> Result<Value, String> {
    let length = match value {
        Value::Array(items) => items.len(),
        Value::String(text) => text.len(),
        other => return Err(format!("can't slice {}", shown(other))),
    };
    let bound = |at: usize, default: usize| match bounds.get(at) {
        None => Ok(default),
        Some(bound) => match bound.as_u64().and_then(|bound| usize::try_from(bound).ok()) {
            Some(bound) if bound <= length => Ok(bound),
            _ => Err(format!("index out of range: {}", shown(bound))),
        },
    };
    let (start, end) = (bound(0, 0)?, bound(1, length)?);
    match value {
        Value::Array(items) if start <= end => Ok(Value::Array(items[start..end].to_vec())),
        Value::String(text) => match text.get(start..end) {
            Some(part) => Ok(Value::from(part)),
            None => Err("slice inside a character".to_owned()),
        },
        _ => Err("slice ends before it begins".to_owned()),
    }
}

fn order(first: &Value, second: &Value) -> Option<std::cmp::Ordering> {
    match (first, second) {
        (Value::Number(first), Value::Number(second)) => match (first.as_i64(), second.as_i64()) {
            (Some(first), Some(second)) => Some(first.cmp(&second)),
            _ => first.as_f64()?.partial_cmp(&second.as_f64()?),
        },
        (Value::String(first), Value::String(second)) => Some(first.cmp(second)),
        (Value::Bool(first), Value::Bool(second)) => Some(first.cmp(second)),
        (Value::Null, Value::Null) => Some(std::cmp::Ordering::Equal),
        _ => None,
    }
}

/// Go's idea of an empty value.
pub(super) fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

/// As Go's `%v` prints it.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::Null => "<no value>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let entries = map.iter().map(|(key, value)| format!("{key}:{}", shown(value)));
            format!("map[{}]", entries.collect::<Vec<_>>().join(" "))
        }
        other => other.to_string(),
    }
}

/// `%s %v %d %q %x %t %%` with a width, `-` for left, and `0`.
fn printf(format: &str, values: &[Value]) -> Result<String, String> {
    let mut out = String::new();
    let mut values = values.iter();
    let mut letters = format.chars().peekable();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            out.push(letter);
            continue;
        }
        let left = letters.next_if_eq(&'-').is_some();
        let zeros = letters.next_if_eq(&'0').is_some();
        let mut width = 0usize;
        while let Some(digit) = letters.peek().and_then(|letter| letter.to_digit(10)) {
            width = (width * 10 + digit as usize).min(WIDEST);
            letters.next();
        }
        let mut digits = None;
        if letters.next_if_eq(&'.').is_some() {
            let mut count = 0usize;
            while let Some(digit) = letters.peek().and_then(|letter| letter.to_digit(10)) {
                count = (count * 10 + digit as usize).min(64);
                letters.next();
            }
            digits = Some(count);
        }
        let verb = letters.next().ok_or("printf: the format ends in %")?;
        if verb == '%' {
            out.push('%');
            continue;
        }
        let value = values.next().ok_or("printf: too few values")?;
        let text = match (verb, value) {
            ('q', Value::String(text)) => format!("{text:?}"),
            ('x', Value::Number(number)) => format!("{:x}", number.as_i64().unwrap_or(0)),
            ('x', Value::String(text)) => text.bytes().fold(String::new(), |mut hex, byte| {
                // Writing to a String cannot fail.
                let _ = write!(hex, "{byte:02x}");
                hex
            }),
            ('f', Value::Number(number)) => {
                format!("{:.*}", digits.unwrap_or(6), number.as_f64().unwrap_or(0.0))
            }
            ('s' | 'v', value) => {
                let text = shown(value);
                match digits {
                    Some(count) => text.chars().take(count).collect(),
                    None => text,
                }
            }
            ('d', Value::Number(_)) | ('t', Value::Bool(_)) => shown(value),
            _ => return Err(format!("printf: %{verb} does not fit {}", shown(value))),
        };
        match (left, zeros) {
            (true, _) => write!(out, "{text:<width$}"),
            (false, true) => write!(out, "{text:0>width$}"),
            (false, false) => write!(out, "{text:>width$}"),
        }
        .map_err(|error| error.to_string())?;
    }
    Ok(out)
}
