//! What strings stand for where a mapping may be, and the strings with rules of their own.

use super::Shape;
use super::service::GPU_REQUEST;
use crate::forms::{parse_duration, parse_volume};
use crate::source::Span;
use crate::yaml::{Node, Value};

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

/// `gpus: all`, or a list of requests.
pub(super) const GPUS_SHAPE: Shape = Shape::OneOrMany(&Shape::Short(gpu, &GPU_REQUEST), super::Same::Never);

fn gpu(value: &str, span: Span) -> Result<Node, String> {
    match value {
        "all" => Ok(Node::object(span, [("count", Value::Int(-1))])),
        _ => Err(format!("{value:?} is not \"all\"")),
    }
}

pub(super) fn build(value: &str, span: Span) -> Result<Node, String> {
    Ok(Node::object(span, [("context", text(value))]))
}

pub(super) fn grant(value: &str, span: Span) -> Result<Node, String> {
    Ok(Node::object(span, [("source", text(value))]))
}

pub(super) fn env_file(value: &str, span: Span) -> Result<Node, String> {
    Ok(Node::object(span, [("path", text(value))]))
}

pub(super) fn extends(value: &str, span: Span) -> Result<Node, String> {
    Ok(Node::object(span, [("service", text(value))]))
}

pub(super) fn include(value: &str, span: Span) -> Result<Node, String> {
    let path = Node::text(span, value);
    Ok(Node::object(span, [("path", Value::List(vec![path]))]))
}

pub(super) fn volume(value: &str, span: Span) -> Result<Node, String> {
    parse_volume(value, span)
}

/// `source[:target[:permissions]]`, or the name of a device of the Container Device Interface (`vendor/class=name`).
pub(super) fn device(value: &str, span: Span) -> Result<Node, String> {
    let parts: Vec<&str> = value.split(':').collect();
    let (source, target, permissions) = match parts.as_slice() {
        // A colon of such a name is its own.
        _ if !value.starts_with('/') && value.contains('=') => (value, value, "rwm"),
        [source] => (*source, *source, "rwm"),
        [source, target] => (*source, *target, "rwm"),
        [source, target, permissions] => (*source, *target, *permissions),
        _ => return Err(format!("{value:?} is not source:target:permissions")),
    };
    if source.is_empty() || target.is_empty() {
        return Err(format!("{value:?} has an empty part"));
    }
    Ok(Node::object(
        span,
        [
            ("source", text(source)),
            ("target", text(target)),
            ("permissions", text(permissions)),
        ],
    ))
}

pub(super) fn dependency(span: Span) -> Node {
    Node::object(
        span,
        [
            ("condition", text("service_started")),
            ("required", Value::Bool(true)),
        ],
    )
}

pub(super) fn null(span: Span) -> Node {
    Node::new(span, Value::Null)
}

/// `[a-zA-Z0-9][a-zA-Z0-9_.-]+`
pub(super) fn container_name(name: &str) -> Result<(), String> {
    let first = name.starts_with(|letter: char| letter.is_ascii_alphanumeric());
    let rest = name
        .chars()
        .all(|letter| letter.is_ascii_alphanumeric() || "_.-".contains(letter));
    match first && rest && name.len() > 1 {
        true => Ok(()),
        false => Err(format!(
            "{name:?} is not a container's name: two or more of a-z A-Z 0-9 _ . -, the first not one of _ . -"
        )),
    }
}

pub(super) fn env_format(value: &str) -> Result<(), String> {
    match value {
        "raw" | "" => Ok(()),
        _ => Err(format!(
            "{value:?} is not a format of environment files: raw is the only one"
        )),
    }
}

/// `80`, `80-90`, `80/udp`.
pub(super) fn expose(value: &str) -> Result<(), String> {
    if value.contains(':') {
        return Err(format!(
            "{value:?}: only the container's ports can be exposed; ports publishes"
        ));
    }
    crate::forms::parse_port(value).map(|_| ())
}

pub(super) fn ipv4(value: &str) -> Result<(), String> {
    value
        .parse::<std::net::Ipv4Addr>()
        .map(|_| ())
        .map_err(|_| format!("{value:?} is not an IPv4 address"))
}

pub(super) fn ipv6(value: &str) -> Result<(), String> {
    value
        .parse::<std::net::Ipv6Addr>()
        .map(|_| ())
        .map_err(|_| format!("{value:?} is not an IPv6 address"))
}

pub(super) fn restart(value: &str) -> Result<(), String> {
    let known = match value.split_once(':') {
        Some(("on-failure", count)) => count.parse::<u32>().is_ok(),
        Some(_) => false,
        None => matches!(value, "" | "no" | "always" | "on-failure" | "unless-stopped"),
    };
    match known {
        true => Ok(()),
        false => Err(format!(
            "{value:?} is not a restart policy: no, always, on-failure[:N] or unless-stopped"
        )),
    }
}

pub(super) fn pull_policy(value: &str) -> Result<(), String> {
    let known = [
        "always",
        "never",
        "build",
        "if_not_present",
        "missing",
        "refresh",
        "daily",
        "weekly",
        "newer",
    ];
    let every = value
        .strip_prefix("every_")
        .is_some_and(|period| parse_duration(period).is_ok());
    match known.contains(&value) || every {
        true => Ok(()),
        false => Err(format!(
            "{value:?} is not a pull policy: always, never, missing, if_not_present, build, daily, weekly or every_<duration>"
        )),
    }
}
