//! The syntax tree in the form of the parser suite: one line per statement, `(name ["--flag"] "argument" ...)`.
use rdock_build::dockerfile::syntax::{Arguments, Statement};

/// Writes a statement.
pub(crate) fn line(statement: &Statement) -> String {
    format!("({})", inner(statement))
}

fn inner(statement: &Statement) -> String {
    let mut text = statement.instruction.to_lowercase();
    if !statement.flags.is_empty() {
        let flags: Vec<_> = statement.flags.iter().map(|flag| quoted(&flag.text)).collect();
        text.push_str(&format!(" [{}]", flags.join(" ")));
    }
    arguments(&statement.arguments, &mut text);
    text
}

fn arguments(arguments: &Arguments, text: &mut String) {
    let mut push = |word: &str| text.push_str(&format!(" {}", quoted(word)));
    match arguments {
        Arguments::None => {}
        Arguments::Text(word) => push(word),
        Arguments::Json(words) | Arguments::Words(words) => words.iter().for_each(|word| push(word)),
        Arguments::Pairs(pairs) => {
            for pair in pairs {
                push(&pair.name);
                push(&pair.value);
                push(if pair.legacy { "" } else { "=" });
            }
        }
        Arguments::Typed(word, rest) => {
            push(word);
            self::arguments(rest, text);
        }
        Arguments::Nested(statement) => text.push_str(&format!(" {}", line(statement))),
    }
}

/// Quotes as Go's `%q` does.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\x07' => quoted.push_str("\\a"),
            '\x08' => quoted.push_str("\\b"),
            '\x0b' => quoted.push_str("\\v"),
            '\x0c' => quoted.push_str("\\f"),
            c if c.is_control() => quoted.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
