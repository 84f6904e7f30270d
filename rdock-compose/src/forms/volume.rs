//! The short form of a mount: `[source:]target[:options]`.

use crate::source::Span;
use crate::yaml::{Map, Node, Value};

/// The parts between the colons; drive letters and `${...}` stay whole. None for an empty text.
pub(crate) fn split_volume(text: &str) -> Option<Vec<String>> {
    if text.is_empty() {
        return None;
    }
    let (mut parts, mut part) = (Vec::new(), String::new());
    let letters: Vec<char> = text.chars().collect();
    let mut depth = 0_usize;
    for (at, letter) in letters.iter().enumerate() {
        match letter {
            '{' if depth > 0 || part.ends_with('$') => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            ':' if depth == 0 => {
                let mut drive = part.chars();
                let alone =
                    drive.next().is_some_and(|first| first.is_ascii_alphabetic()) && drive.next().is_none();
                // One letter is a drive when a backslash or the end of the part follows.
                let next = letters.get(at + 1);
                if alone && matches!(next, None | Some('\\' | ':')) {
                    part.push(':');
                } else {
                    parts.push(std::mem::take(&mut part));
                }
                continue;
            }
            _ => {}
        }
        part.push(*letter);
    }
    parts.push(part);
    Some(parts)
}

/// Whether the source of a short form is a path of the host, not the name of a volume.
fn is_host_path(source: &str) -> bool {
    let mut letters = source.chars();
    match (letters.next(), letters.next()) {
        (Some('.' | '/' | '~' | '\\'), _) => true,
        (Some(first), Some(':')) => first.is_ascii_alphabetic(),
        _ => false,
    }
}

/// The long form.
pub(crate) fn parse_volume(text: &str, span: Span) -> Result<Node, String> {
    let text_value = |text: &str| Value::Text(text.to_owned());
    if text.chars().count() <= 2 && !text.is_empty() {
        return Ok(Node::object(
            span,
            [
                ("type", text_value("volume")),
                ("target", text_value(text)),
                ("volume", Value::Map(Map::new())),
            ],
        ));
    }
    let parts = split_volume(text).ok_or("an empty text is not a volume")?;
    if parts.iter().any(String::is_empty) {
        return Err(format!("{text:?} has an empty part between colons"));
    }
    let (source, target, options) = match parts.as_slice() {
        [target] => (None, target, ""),
        [source, target] => (Some(source), target, ""),
        [source, target, options] => (Some(source), target, options.as_str()),
        _ => return Err(format!("{text:?} has too many colons")),
    };
    let host = source.is_some_and(|source| is_host_path(source));
    let mut node = Node::object(span, [("type", text_value(if host { "bind" } else { "volume" }))]);
    if let Some(source) = source {
        node.set("source", Node::text(span, source.as_str()));
    }
    node.set("target", Node::text(span, target.as_str()));
    let mut bind = Node::empty_map(span);
    let mut volume = Node::empty_map(span);
    let truth = |value| Node::new(span, Value::Bool(value));
    for option in options.split(',') {
        match option.to_ascii_lowercase().as_str() {
            "ro" => node.set("read_only", truth(true)),
            "rw" => node.set("read_only", truth(false)),
            "z" => bind.set("selinux", Node::text(span, option)),
            "nocopy" => volume.set("nocopy", truth(true)),
            mode @ ("private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave") => {
                bind.set("propagation", Node::text(span, mode));
            }
            // What the specification does not have is passed over, as in docker compose.
            _ => {}
        }
    }
    if host {
        bind.set("create_host_path", truth(true));
        node.set("bind", bind);
    } else {
        node.set("volume", volume);
        if bind.as_map().is_some_and(|map| !map.is_empty()) {
            node.set("bind", bind);
        }
    }
    Ok(node)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn short_forms_become_long_ones() {
        let read = |text: &str| parse_volume(text, Span::default()).map(|node| node.to_json());
        assert_eq!(
            read("/data").unwrap(),
            json!({"type": "volume", "target": "/data", "volume": {}})
        );
        assert_eq!(
            read("db:/data:ro,nocopy").unwrap(),
            json!({"type": "volume", "source": "db", "target": "/data", "read_only": true, "volume": {"nocopy": true}})
        );
        assert_eq!(
            read("./a:/b:Z,rslave").unwrap(),
            json!({"type": "bind", "source": "./a", "target": "/b",
                   "bind": {"selinux": "Z", "propagation": "rslave", "create_host_path": true}})
        );
        for text in ["", "ab::c", "a:b:c:d", ":/x"] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
