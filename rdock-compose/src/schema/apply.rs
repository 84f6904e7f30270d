//! Checks a tree against its shape and brings it to the canonical form, in one walk.

use super::merge::unique;
use super::service::PORT;
use super::{Alone, Long, Object, Same, Shape, by_keys};
use crate::error::{FindingKind, WarningKind, nearest};
use crate::forms::{PortForm, parse_host, parse_port};
use crate::source::{Problem, Span};
use crate::yaml::{Entry, Map, MergeTag, Node, Value};

/// Ports that all ranges of a project may come to.
const MOST_PORTS: usize = 16_384;

/// What a walk finds.
pub(crate) struct Check {
    /// Mistakes.
    pub(crate) problems: Vec<Problem>,
    /// What is legal and should be known: kind, place, path, text.
    pub(crate) warnings: Vec<(WarningKind, Span, String, String)>,
    /// Everything is merged: what must be there is there, null is a value.
    complete: bool,
    /// Variables were not filled in: texts with a `$` are let through.
    templates: bool,
    pub(super) path: Vec<String>,
    ports: usize,
}

impl Check {
    /// For one file, which others may complete.
    pub(crate) fn part(templates: bool) -> Self {
        Self {
            problems: Vec::new(),
            warnings: Vec::new(),
            complete: false,
            templates,
            path: Vec::new(),
            ports: 0,
        }
    }

    /// For the whole, after merging.
    pub(crate) fn whole(templates: bool) -> Self {
        Self {
            complete: true,
            ..Self::part(templates)
        }
    }

    pub(super) fn add(
        &mut self,
        kind: FindingKind,
        span: Span,
        message: impl Into<String>,
    ) -> Option<&mut Problem> {
        // Enough to work with; a file of a million mistakes is one mistake.
        if self.problems.len() >= 100 {
            return None;
        }
        self.problems
            .push(Problem::new(kind, span, &self.path.join("."), message));
        self.problems.last_mut()
    }

    pub(super) fn wrong_type(&mut self, node: &Node, expected: &str) {
        let message = format!("must be {expected}, not {}", node.kind());
        let hint = match (&node.value, expected.starts_with("a string")) {
            (Value::Bool(_) | Value::Int(_) | Value::Float(_), true) => Some("put it in quotes"),
            _ => None,
        };
        if let Some(problem) = self.add(FindingKind::WrongType, node.span, message) {
            problem.hint = hint.map(str::to_owned);
        }
    }

    pub(super) fn bad(&mut self, span: Span, message: impl Into<String>) {
        self.add(FindingKind::BadValue, span, message);
    }

    fn below(&mut self, step: impl Into<String>, work: impl FnOnce(&mut Self)) {
        self.path.push(step.into());
        work(self);
        self.path.pop();
    }

    /// Checks and converts.
    pub(crate) fn apply(&mut self, shape: &Shape, node: &mut Node) {
        if node.tag == Some(MergeTag::Reset) {
            return;
        }
        if node.is_null() && !takes_null(shape) {
            if self.complete {
                self.wrong_type(node, expected(shape));
            }
            return;
        }
        if self.templates && node.as_text().is_some_and(|text| text.contains('$')) && !takes_text(shape) {
            return;
        }
        match shape {
            Shape::Any => {}
            Shape::Nullable(inner) | Shape::Replaced(inner) => {
                if !node.is_null() {
                    self.apply(inner, node);
                }
            }
            Shape::Text | Shape::Path | Shape::PathOrUrl => {
                if node.as_text().is_none() {
                    self.wrong_type(node, "a string");
                }
            }
            Shape::Checked(_) | Shape::Choice(_) | Shape::Scalar => self.string(shape, node),
            Shape::Bool => self.boolean(node),
            Shape::Int(..)
            | Shape::Number
            | Shape::Bytes(_)
            | Shape::Count
            | Shape::Micros
            | Shape::Duration => {
                self.number(shape, node);
            }
            Shape::Command => self.command(node),
            Shape::HealthTest => self.health_test(node),
            Shape::List(inner, same) => self.list(inner, *same, node),
            Shape::OneOrMany(inner, same) => {
                if node.as_list().is_none() {
                    let (span, tag) = (node.span, node.tag.take());
                    let only = std::mem::replace(node, Node::new(span, Value::Null));
                    *node = Node {
                        tag,
                        ..Node::new(span, Value::List(vec![only]))
                    };
                }
                self.list(inner, *same, node);
            }
            Shape::Ports => self.ports(node),
            Shape::Keyed(inner) => self.keyed(inner, node, false),
            Shape::Named(inner) => self.keyed(inner, node, true),
            Shape::Names(inner, value) => {
                self.names(*value, node);
                self.keyed(inner, node, false);
            }
            Shape::Pairs(alone) => self.pairs(*alone, node),
            Shape::Hosts => self.hosts(node),
            Shape::Object(object) => self.object(object, node),
            Shape::Short(long, object) => {
                self.long(*long, node);
                if node.as_text().is_none() {
                    self.object(object, node);
                }
            }
            Shape::Ulimit(object) => match &node.value {
                Value::Map(_) => self.object(object, node),
                _ => self.number(&Shape::Int(-1, i64::MAX), node),
            },
            Shape::Mode => self.mode(node),
            Shape::External => match &node.value {
                Value::Map(_) => {}
                _ => self.boolean(node),
            },
        }
    }

    pub(super) fn list(&mut self, inner: &Shape, same: Same, node: &mut Node) {
        let Value::List(list) = &mut node.value else {
            self.wrong_type(node, "a list");
            return;
        };
        for (index, node) in list.iter_mut().enumerate() {
            self.below(index.to_string(), |check| {
                if node.is_null() && !takes_null(inner) {
                    check.wrong_type(node, expected(inner));
                }
                check.apply(inner, node);
            });
        }
        unique(list, same);
    }

    fn ports(&mut self, node: &mut Node) {
        let Value::List(list) = &mut node.value else {
            self.wrong_type(node, "a list");
            return;
        };
        let mut ports = Vec::new();
        for (index, mut node) in std::mem::take(list).into_iter().enumerate() {
            self.below(index.to_string(), |check| match &node.value {
                Value::Map(_) => {
                    check.object(&PORT, &mut node);
                    if let Some(text) = node.get("published").and_then(Node::as_text)
                        && !text.is_empty()
                        && !text.contains('$')
                        && (text.contains([':', '/']) || parse_port(text).is_err())
                    {
                        check.bad(
                            node.span,
                            format!("published {text:?} is not a port or a range of ports"),
                        );
                    }
                    ports.push(node);
                }
                Value::Text(text) if check.templates && text.contains('$') => ports.push(node),
                // It has been told already.
                Value::Text(_) | Value::Int(_) | Value::Float(_) if check.ports > MOST_PORTS => {}
                Value::Text(_) | Value::Int(_) | Value::Float(_) => {
                    let text = node.scalar_text().unwrap_or_default();
                    match parse_port(&text) {
                        Ok(found) => {
                            check.ports += found.len();
                            if check.ports > MOST_PORTS {
                                let message = format!("more than {MOST_PORTS} ports, ranges counted");
                                check.add(FindingKind::Limit, node.span, message);
                            } else {
                                ports.extend(found.into_iter().map(|port| long_port(port, node.span)));
                            }
                        }
                        Err(message) => check.bad(node.span, message),
                    }
                }
                _ => check.wrong_type(&node, "a string, a number or a mapping"),
            });
        }
        unique(&mut ports, Same::Key(port_key));
        node.value = Value::List(ports);
    }

    fn names(&mut self, value: fn(Span) -> Node, node: &mut Node) {
        let Value::List(list) = &node.value else { return };
        let mut map = Map::new();
        for (index, name) in list.iter().enumerate() {
            match name.as_text() {
                Some(text) => {
                    let entry = Entry {
                        key: name.span,
                        node: value(name.span),
                    };
                    map.insert(text.to_owned(), entry);
                }
                None => self.below(index.to_string(), |check| check.wrong_type(name, "a string")),
            }
        }
        node.value = Value::Map(map);
    }

    fn keyed(&mut self, inner: &Shape, node: &mut Node, named: bool) {
        let Value::Map(map) = &mut node.value else {
            self.wrong_type(node, "a mapping");
            return;
        };
        for (key, entry) in map.iter_mut() {
            self.below(key.clone(), |check| {
                let allowed = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
                if named && (key.is_empty() || !key.chars().all(allowed)) {
                    let message = format!("{key:?} is not a name: letters, digits, '.', '_' and '-' only");
                    check.add(FindingKind::BadValue, entry.key, message);
                }
                check.apply(inner, &mut entry.node);
            });
        }
    }

    fn pairs(&mut self, alone: Alone, node: &mut Node) {
        let lonely = |span| match alone {
            Alone::Null => Node::new(span, Value::Null),
            Alone::Empty => Node::text(span, ""),
        };
        match &mut node.value {
            Value::List(list) => {
                let mut map = Map::new();
                for (index, item) in list.iter().enumerate() {
                    let Some(text) = item.as_text() else {
                        self.below(index.to_string(), |check| {
                            check.wrong_type(item, "a string like KEY=value")
                        });
                        continue;
                    };
                    let (key, value) = match text.split_once('=') {
                        Some((key, value)) => (key, Node::text(item.span, value)),
                        None => (text, lonely(item.span)),
                    };
                    if key.is_empty() {
                        self.below(index.to_string(), |check| {
                            check.bad(item.span, "a name is missing before the =")
                        });
                        continue;
                    }
                    map.insert(
                        key.to_owned(),
                        Entry {
                            key: item.span,
                            node: value,
                        },
                    );
                }
                node.value = Value::Map(map);
            }
            Value::Map(map) => {
                for (key, entry) in map.iter_mut() {
                    if entry.node.tag == Some(MergeTag::Reset) {
                        continue;
                    }
                    let span = entry.node.span;
                    match entry.node.scalar_text() {
                        Some(text) => entry.node.value = Value::Text(text),
                        None if entry.node.is_null() => entry.node.value = lonely(span).value,
                        None => self.below(key.clone(), |check| {
                            check.wrong_type(&entry.node, "a string, a number, a boolean or null");
                        }),
                    }
                }
            }
            _ => self.wrong_type(node, "a mapping or a list of KEY=value"),
        }
    }

    fn hosts(&mut self, node: &mut Node) {
        let mut map = Map::new();
        let mut add = |name: String, addresses: Vec<String>, span: Span| {
            let entry = map.entry(name).or_insert_with(|| Entry {
                key: span,
                node: Node::new(span, Value::List(Vec::new())),
            });
            if let Value::List(list) = &mut entry.node.value {
                list.extend(addresses.into_iter().map(|address| Node::text(span, address)));
                unique(list, Same::Value);
            }
        };
        match &node.value {
            Value::List(list) => {
                for (index, item) in list.iter().enumerate() {
                    let Some(text) = item.as_text() else {
                        self.below(index.to_string(), |check| {
                            check.wrong_type(item, "a string like name=address")
                        });
                        continue;
                    };
                    match parse_host(text) {
                        Ok((name, addresses)) => add(name, addresses, item.span),
                        Err(message) => self.below(index.to_string(), |check| check.bad(item.span, message)),
                    }
                }
            }
            Value::Map(hosts) => {
                for (name, entry) in hosts {
                    let span = entry.node.span;
                    let texts: Option<Vec<&str>> = match &entry.node.value {
                        Value::Text(text) => Some(vec![text]),
                        Value::List(list) => list.iter().map(Node::as_text).collect(),
                        _ => None,
                    };
                    match texts.map(|texts| parse_host(&format!("{name}={}", texts.join(",")))) {
                        Some(Ok((_, addresses))) => add(name.clone(), addresses, span),
                        Some(Err(message)) => self.below(name.clone(), |check| check.bad(span, message)),
                        None => self.below(name.clone(), |check| {
                            check.wrong_type(&entry.node, "an address or a list of addresses");
                        }),
                    }
                }
            }
            _ => {
                self.wrong_type(node, "a mapping or a list of name=address");
                return;
            }
        }
        node.value = Value::Map(map);
    }

    fn long(&mut self, long: Long, node: &mut Node) {
        if let Value::Text(text) = &node.value {
            match long(text, node.span) {
                Ok(full) => node.value = full.value,
                Err(message) => self.bad(node.span, message),
            }
        }
    }

    fn object(&mut self, object: &Object, node: &mut Node) {
        let span = node.span;
        let Value::Map(map) = &mut node.value else {
            self.wrong_type(node, "a mapping");
            return;
        };
        let mut external = false;
        for (key, entry) in map.iter_mut() {
            match object.field(key) {
                Some(shape) => {
                    external |= matches!(shape, Shape::External) && entry.node.as_map().is_some();
                    self.below(key.clone(), |check| check.apply(shape, &mut entry.node));
                }
                None if object.extensions && key.starts_with("x-") => {}
                None => self.below(key.clone(), |check| {
                    let near = nearest(key, object.fields.iter().map(|(name, _)| *name));
                    let hint = near.map(|near| format!("did you mean {near:?}?"));
                    if let Some(problem) = check.add(FindingKind::UnknownKey, entry.key, "unknown key") {
                        problem.hint = hint;
                    }
                }),
            }
        }
        if external {
            self.old_external(map);
        }
        if self.complete {
            for key in object.required.iter().filter(|key| !map.contains_key(**key)) {
                self.add(FindingKind::Missing, span, format!("the key {key:?} is missing"));
            }
        }
    }

    /// `external: {name: x}` is `external: true` and `name: x`.
    fn old_external(&mut self, map: &mut Map) {
        let Some(entry) = map.get_mut("external") else {
            return;
        };
        let (span, key) = (entry.node.span, entry.key);
        let inner = std::mem::replace(&mut entry.node.value, Value::Bool(true));
        let mut name = None;
        if let Value::Map(inner) = inner {
            for (key, entry) in inner {
                match (key.as_str(), entry.node.as_text().is_some()) {
                    ("name", true) => name = Some(entry.node),
                    ("name", false) => self.wrong_type(&entry.node, "a string"),
                    (other, _) if other.starts_with("x-") => {}
                    (other, _) => {
                        self.add(
                            FindingKind::UnknownKey,
                            entry.key,
                            format!("unknown key {other:?} of external"),
                        );
                    }
                }
            }
        }
        let Some(name) = name else { return };
        let path = self.path.join(".");
        let message = "external.name is obsolete; write external: true and name".to_owned();
        self.warnings.push((WarningKind::Obsolete, span, path, message));
        if map.contains_key("name") {
            self.add(
                FindingKind::Conflict,
                key,
                "name and external.name conflict; only use name",
            );
        } else {
            map.insert("name".to_owned(), Entry { key, node: name });
        }
    }
}

fn long_port(port: PortForm, span: Span) -> Node {
    let text = |text: String| Value::Text(text);
    let mut node = Node::object(span, [("mode", text("ingress".to_owned()))]);
    if let Some(address) = port.host_ip {
        node.set("host_ip", Node::text(span, address));
    }
    node.set("target", Node::new(span, Value::Int(i64::from(port.target))));
    if let Some(published) = port.published {
        node.set("published", Node::text(span, published));
    }
    node.set("protocol", Node::text(span, port.protocol));
    node
}

/// What makes two ports the same.
pub(super) fn port_key(node: &Node) -> String {
    let protocol = node.get("protocol").and_then(Node::as_text).unwrap_or("tcp");
    format!(
        "{}|{protocol}",
        by_keys(node, &["host_ip", "published", "target"])
    )
}

fn takes_null(shape: &Shape) -> bool {
    matches!(shape, Shape::Any | Shape::Nullable(_) | Shape::Command)
}

/// Whether any text is right, so that a template needs no exception.
fn takes_text(shape: &Shape) -> bool {
    matches!(
        shape,
        Shape::Any | Shape::Text | Shape::Path | Shape::PathOrUrl | Shape::Scalar | Shape::OneOrMany(..)
    )
}

pub(super) fn expected(shape: &Shape) -> &'static str {
    match shape {
        Shape::Bool | Shape::External => "a boolean",
        Shape::Int(..) | Shape::Number | Shape::Count | Shape::Micros | Shape::Mode | Shape::Ulimit(_) => {
            "a number"
        }
        Shape::Bytes(_) => "a size",
        Shape::Duration => "a string like 1m30s",
        Shape::List(..) | Shape::Ports => "a list",
        Shape::OneOrMany(..) => "a string or a list",
        Shape::Keyed(_) | Shape::Named(_) | Shape::Object(_) => "a mapping",
        Shape::Names(..) => "a mapping or a list of names",
        Shape::Pairs(_) => "a mapping or a list of KEY=value",
        Shape::Hosts => "a mapping or a list of name=address",
        Shape::Short(..) => "a string or a mapping",
        Shape::Replaced(inner) | Shape::Nullable(inner) => expected(inner),
        _ => "a string",
    }
}
