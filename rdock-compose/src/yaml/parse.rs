//! Events of the YAML parser to trees, within limits.

use super::{Entry, Map, MergeTag, Node, Value, plain};
use crate::error::{FindingKind, nearest};
use crate::source::{Problem, Span};
use saphyr_parser::{Event, Parser, ScalarStyle, Tag};
use std::borrow::Cow;
use std::collections::HashMap;

/// What one text may cost. Aliases count as what they stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Bytes of a file.
    pub(crate) bytes: usize,
    /// Nodes of all documents of a file, with [`Self::before`].
    pub(crate) nodes: usize,
    /// Nodes that other files have used up.
    pub(crate) before: usize,
    /// Collections inside collections.
    pub(crate) depth: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes: 4 << 20,
            nodes: 40_000,
            before: 0,
            depth: 100,
        }
    }
}

/// What a subtree costs.
#[derive(Debug, Clone, Copy, Default)]
struct Cost {
    nodes: usize,
    bytes: usize,
    depth: usize,
}

impl Cost {
    fn add(&mut self, other: Self) {
        self.nodes += other.nodes;
        self.bytes += other.bytes;
        self.depth = self.depth.max(other.depth + 1);
    }
}

/// A collection that is not finished.
struct Open {
    node: Node,
    anchor: usize,
    cost: Cost,
    /// The key whose value comes next.
    key: Option<(String, Span)>,
    /// What `<<` brings, first wins.
    merged: Vec<(Map, Span)>,
    /// The place of the `<<`, when its value comes next.
    merging: Option<Span>,
}

/// Every document of the text.
pub(crate) fn parse(file: u32, text: &str, limits: &Limits) -> Result<Vec<Node>, Problem> {
    let start = Span {
        file,
        line: 1,
        column: 1,
    };
    if text.len() > limits.bytes {
        let message = format!("the file has {} bytes; {} are allowed", text.len(), limits.bytes);
        return Err(Problem::new(FindingKind::Limit, start, "", message));
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut builder = Builder {
        file,
        limits: *limits,
        used: Cost {
            nodes: limits.before,
            ..Cost::default()
        },
        stack: Vec::new(),
        anchors: HashMap::new(),
        documents: Vec::new(),
    };
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| {
            let span = builder.span(*error.marker());
            Problem::new(
                FindingKind::Syntax,
                span,
                "",
                format!("not YAML: {}", error.info()),
            )
        })?;
        builder.event(event, span.start)?;
    }
    Ok(builder.documents)
}

struct Builder {
    file: u32,
    limits: Limits,
    used: Cost,
    stack: Vec<Open>,
    anchors: HashMap<usize, (Node, Cost)>,
    documents: Vec<Node>,
}

impl Builder {
    fn span(&self, mark: saphyr_parser::Marker) -> Span {
        Span {
            file: self.file,
            line: u32::try_from(mark.line()).unwrap_or(u32::MAX),
            column: u32::try_from(mark.col() + 1).unwrap_or(u32::MAX),
        }
    }

    /// The YAML path of the value that comes next.
    fn path(&self) -> String {
        let steps = self
            .stack
            .iter()
            .filter_map(|open| match (&open.key, &open.node.value) {
                (Some((key, _)), _) => Some(key.clone()),
                (None, Value::List(list)) => Some(list.len().to_string()),
                _ => None,
            });
        steps.collect::<Vec<_>>().join(".")
    }

    fn problem(&self, kind: FindingKind, span: Span, message: impl Into<String>) -> Problem {
        Problem::new(kind, span, &self.path(), message)
    }

    fn event(&mut self, event: Event<'_>, mark: saphyr_parser::Marker) -> Result<(), Problem> {
        let span = self.span(mark);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let node = self.scalar(&text, style, tag.as_deref(), span)?;
                let cost = Cost {
                    nodes: 1,
                    bytes: text.len(),
                    depth: 0,
                };
                let merge = style == ScalarStyle::Plain && text == "<<" && tag.is_none();
                self.value(node, cost, anchor, merge, false)
            }
            Event::SequenceStart(anchor, tag) => self.open(Value::List(Vec::new()), anchor, tag, span),
            Event::MappingStart(anchor, tag) => self.open(Value::Map(Map::new()), anchor, tag, span),
            Event::SequenceEnd | Event::MappingEnd => match self.stack.pop() {
                Some(open) => {
                    let node = finish(open.node, open.merged);
                    self.value(node, open.cost, open.anchor, false, true)
                }
                None => Ok(()),
            },
            Event::Alias(anchor) => self.alias(anchor, span),
            Event::DocumentEnd => {
                self.anchors.clear();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn spend(&mut self, cost: Cost, span: Span) -> Result<(), Problem> {
        self.used.nodes += cost.nodes;
        self.used.bytes += cost.bytes;
        if self.used.nodes > self.limits.nodes {
            let message = format!("more than {} values, aliases counted", self.limits.nodes);
            return Err(self.problem(FindingKind::Limit, span, message));
        }
        if self.used.bytes > 2 * self.limits.bytes {
            let message = format!(
                "more than {} bytes of text, aliases counted",
                2 * self.limits.bytes
            );
            return Err(self.problem(FindingKind::Limit, span, message));
        }
        if self.stack.len() + cost.depth >= self.limits.depth {
            let message = format!("more than {} collections inside each other", self.limits.depth);
            return Err(self.problem(FindingKind::Limit, span, message));
        }
        Ok(())
    }

    fn open(
        &mut self,
        value: Value,
        anchor: usize,
        tag: Option<Cow<'_, Tag>>,
        span: Span,
    ) -> Result<(), Problem> {
        let tag = self.merge_tag(tag.as_deref(), span)?;
        self.spend(
            Cost {
                nodes: 1,
                bytes: 0,
                depth: 0,
            },
            span,
        )?;
        self.stack.push(Open {
            node: Node { span, tag, value },
            anchor,
            cost: Cost {
                nodes: 1,
                bytes: 0,
                depth: 1,
            },
            key: None,
            merged: Vec::new(),
            merging: None,
        });
        Ok(())
    }

    fn alias(&mut self, anchor: usize, span: Span) -> Result<(), Problem> {
        let Some(cost) = self.anchors.get(&anchor).map(|(_, cost)| *cost) else {
            let message = "the alias stands inside what it names";
            return Err(self.problem(FindingKind::Cycle, span, message));
        };
        // Counted before it is copied.
        self.spend(cost, span)?;
        match self.anchors.get(&anchor).map(|(node, _)| node.clone()) {
            Some(node) => self.place(node, cost, false),
            None => Ok(()),
        }
    }

    /// A finished value; those that are not aliases may have an anchor.
    fn value(
        &mut self,
        node: Node,
        cost: Cost,
        anchor: usize,
        merge: bool,
        counted: bool,
    ) -> Result<(), Problem> {
        if !counted {
            self.spend(cost, node.span)?;
        }
        if anchor != 0 {
            // The copy that aliases are made from counts like one.
            self.spend(Cost { depth: 0, ..cost }, node.span)?;
            self.anchors.insert(anchor, (node.clone(), cost));
        }
        self.place(node, cost, merge)
    }

    /// Puts a value where it belongs: a document, an element, a key or a key's value.
    fn place(&mut self, node: Node, cost: Cost, merge: bool) -> Result<(), Problem> {
        let Some(top) = self.stack.last_mut() else {
            self.documents.push(node);
            return Ok(());
        };
        top.cost.add(cost);
        match &mut top.node.value {
            Value::List(list) => {
                list.push(node);
                return Ok(());
            }
            Value::Map(map) => {
                if let Some(span) = top.merging.take() {
                    return self.merge(node, span);
                }
                if let Some((key, span)) = top.key.take() {
                    map.insert(key, Entry { key: span, node });
                    return Ok(());
                }
            }
            _ => return Ok(()),
        }
        if merge {
            top.merging = Some(node.span);
            return Ok(());
        }
        self.key(&node)
    }

    fn key(&mut self, node: &Node) -> Result<(), Problem> {
        let span = node.span;
        let key = match node.scalar_text() {
            Some(key) => key,
            None if node.is_null() => {
                return Err(self.problem(FindingKind::WrongType, span, "a key cannot be null"));
            }
            None => {
                let message = format!("a key must be a string, not {}", node.kind());
                return Err(self.problem(FindingKind::WrongType, span, message));
            }
        };
        let Some(top) = self.stack.last_mut() else {
            return Ok(());
        };
        if let Some(first) = top.node.as_map().and_then(|map| map.get(&key)) {
            let message = format!("the key {key:?} is there already, in line {}", first.key.line);
            return Err(self.problem(FindingKind::DuplicateKey, span, message));
        }
        top.key = Some((key, span));
        Ok(())
    }

    /// `<<` with a mapping, or a list of mappings.
    fn merge(&mut self, node: Node, span: Span) -> Result<(), Problem> {
        let wrong = |kind: &str| format!("<< needs a mapping or a list of mappings, not {kind}");
        let mut maps = Vec::new();
        match node.value {
            Value::Map(map) => maps.push((map, span)),
            Value::List(list) => {
                for node in list {
                    match node.value {
                        Value::Map(map) => maps.push((map, span)),
                        _ => return Err(self.problem(FindingKind::WrongType, span, wrong(node.kind()))),
                    }
                }
            }
            _ => return Err(self.problem(FindingKind::WrongType, span, wrong(node.kind()))),
        }
        if let Some(top) = self.stack.last_mut() {
            top.merged.extend(maps);
        }
        Ok(())
    }

    fn merge_tag(&self, tag: Option<&Tag>, span: Span) -> Result<Option<MergeTag>, Problem> {
        let Some(tag) = tag else { return Ok(None) };
        if tag.is_yaml_core_schema() || (tag.handle.is_empty() && tag.suffix == "!") {
            return Ok(None);
        }
        match tag.suffix.as_str() {
            "reset" => Ok(Some(MergeTag::Reset)),
            "override" => Ok(Some(MergeTag::Override)),
            "" => Ok(None),
            other => {
                let problem = self.problem(FindingKind::Syntax, span, format!("unknown tag !{other}"));
                Err(match nearest(other, ["reset", "override"].into_iter()) {
                    Some(near) => problem.hint(format!("did you mean !{near}?")),
                    None => problem.hint("!reset and !override are known"),
                })
            }
        }
    }

    fn scalar(&self, text: &str, style: ScalarStyle, tag: Option<&Tag>, span: Span) -> Result<Node, Problem> {
        let core = tag.filter(|tag| tag.is_yaml_core_schema());
        let plain_value = || match style {
            ScalarStyle::Plain => plain(text),
            _ => Value::Text(text.to_owned()),
        };
        let value = match core.map(|tag| tag.suffix.as_str()) {
            None => plain_value(),
            Some("str" | "binary" | "timestamp") => Value::Text(text.to_owned()),
            Some("float") => match plain(text) {
                Value::Int(number) => Value::Float(number as f64),
                other => other,
            },
            Some("null") => Value::Null,
            Some("int" | "bool") => plain(text),
            Some(_) => plain_value(),
        };
        Ok(Node {
            span,
            tag: self.merge_tag(tag, span)?,
            value,
        })
    }
}

/// A mapping with what its `<<` bring: its own keys win, then the first that has one.
fn finish(mut node: Node, merged: Vec<(Map, Span)>) -> Node {
    if let Value::Map(map) = &mut node.value {
        for (other, _) in merged {
            for (key, entry) in other {
                map.entry(key).or_insert(entry);
            }
        }
    }
    node
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn one(text: &str) -> Result<serde_json::Value, Problem> {
        parse(0, text, &Limits::default()).map(|documents| documents[0].to_json())
    }

    #[test]
    fn merge_keys_fill_in_what_is_not_there() {
        let text = "a: &a {x: 1, y: 2}\nb: &b {y: 3, z: 4}\nc:\n  <<: [*a, *b]\n  x: 0\n";
        assert_eq!(one(text).unwrap()["c"], json!({"x": 0, "y": 2, "z": 4}));
    }

    #[test]
    fn a_duplicate_key_is_named_with_both_places() {
        let problem = one("a:\n  b: 1\n  c: 2\n  b: 3\n").unwrap_err();
        assert_eq!(problem.kind, FindingKind::DuplicateKey);
        assert_eq!((problem.span.line, problem.span.column), (4, 3));
        assert!(problem.message.contains("line 2"), "{}", problem.message);
        assert_eq!(problem.path, "a");
    }

    #[test]
    fn an_alias_inside_its_anchor_is_a_cycle() {
        for text in ["a: &a\n  b: *a\n", "a: &a\n  b:\n    <<: *a\n", "&a [*a]"] {
            assert_eq!(one(text).unwrap_err().kind, FindingKind::Cycle, "{text}");
        }
    }

    #[test]
    fn cmp_alias_bomb_is_stopped_by_what_it_would_become() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
        for level in 1..9 {
            let inner = format!("*a{}, ", level - 1).repeat(9);
            text.push_str(&format!("a{level}: &a{level} [{inner}]\n"));
        }
        assert_eq!(one(&text).unwrap_err().kind, FindingKind::Limit);
        // The same with long texts instead of many nodes.
        let text = format!("a: &a {}\nb: [{}]\n", "x".repeat(1 << 20), "*a, ".repeat(100));
        assert_eq!(one(&text).unwrap_err().kind, FindingKind::Limit);
    }

    #[test]
    fn depth_and_size_have_limits() {
        for text in ["[".repeat(200), "a: {".repeat(200), "- ".repeat(200)] {
            assert!(one(&text).is_err());
        }
        let text = format!("a: {}", "x".repeat(5 << 20));
        assert_eq!(one(&text).unwrap_err().kind, FindingKind::Limit);
        let text = format!("a: [{}]", "1,".repeat(200_000));
        assert_eq!(one(&text).unwrap_err().kind, FindingKind::Limit);
    }

    #[test]
    fn tags_that_are_not_known_have_a_suggestion() {
        let problem = one("a: !overide [x]").unwrap_err();
        assert_eq!(problem.hint.as_deref(), Some("did you mean !override?"));
        assert_eq!(one("a: !!str 1").unwrap(), json!({"a": "1"}));
    }
}
