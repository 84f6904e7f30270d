//! Scalars and commands: checked and converted.

use super::apply::{Check, expected};
use super::{Same, Shape};
use crate::error::{FindingKind, WarningKind, nearest};
use crate::forms::{format_duration, parse_duration, parse_size, split_words};
use crate::yaml::{Node, Value};

impl Check {
    pub(super) fn string(&mut self, shape: &Shape, node: &mut Node) {
        let Some(text) = node.scalar_text().filter(|_| match shape {
            Shape::Scalar => true,
            Shape::Checked(_) => !matches!(node.value, Value::Bool(_)),
            _ => node.as_text().is_some(),
        }) else {
            self.wrong_type(node, "a string");
            return;
        };
        match shape {
            Shape::Checked(rule) => {
                if let Err(message) = rule(&text) {
                    self.bad(node.span, message);
                }
            }
            Shape::Choice(choices) if !choices.contains(&text.as_str()) => {
                let near =
                    nearest(&text, choices.iter().copied()).map(|near| format!("did you mean {near:?}?"));
                let message = format!("{text:?} is not one of {}", choices.join(", "));
                if let Some(problem) = self.add(FindingKind::BadValue, node.span, message) {
                    problem.hint = near;
                }
            }
            _ => {}
        }
        node.value = Value::Text(text);
    }

    pub(super) fn boolean(&mut self, node: &mut Node) {
        let Some(text) = node.as_text() else {
            if !matches!(node.value, Value::Bool(_)) {
                self.wrong_type(node, "a boolean");
            }
            return;
        };
        let value = match text.to_ascii_lowercase().as_str() {
            "true" | "1" => true,
            "false" | "0" => false,
            old @ ("y" | "yes" | "on" | "n" | "no" | "off") => {
                let value = matches!(old, "y" | "yes" | "on");
                let message = format!("{text:?} is a string in YAML 1.2; write {value}");
                self.warnings
                    .push((WarningKind::OldBoolean, node.span, self.path.join("."), message));
                value
            }
            _ => {
                self.wrong_type(node, "a boolean");
                return;
            }
        };
        node.value = Value::Bool(value);
    }

    pub(super) fn number(&mut self, shape: &Shape, node: &mut Node) {
        let value = match (shape, &node.value) {
            (Shape::Duration, Value::Text(text)) => {
                parse_duration(text).map(|time| Value::Text(format_duration(time)))
            }
            (Shape::Duration, _) => {
                self.wrong_type(node, "a string like 1m30s");
                return;
            }
            (_, Value::Float(value)) if !matches!(shape, Shape::Number) => {
                match value.fract() == 0.0 && value.abs() < 9.0e15 {
                    true => Ok(Value::Int(*value as i64)),
                    false => Err(format!("{value} is not a whole number")),
                }
            }
            (_, Value::Int(_) | Value::Float(_)) => Ok(node.value.clone()),
            (Shape::Bytes(_), Value::Text(text)) => parse_size(text).map(Value::Int),
            (Shape::Count, Value::Text(text)) if text == "all" => Ok(Value::Int(-1)),
            (Shape::Micros, Value::Text(text)) if text.parse::<i64>().is_err() => {
                parse_duration(text).map(|nanoseconds| Value::Int(nanoseconds / 1000))
            }
            (Shape::Number, Value::Text(text)) => match text.trim().parse::<f64>() {
                Ok(value) if value.is_finite() => Ok(Value::Float(value)),
                _ => Err(format!("{text:?} is not a number")),
            },
            (_, Value::Text(text)) => text
                .trim()
                .parse()
                .map(Value::Int)
                .map_err(|_| format!("{text:?} is not a whole number")),
            _ => {
                self.wrong_type(node, expected(shape));
                return;
            }
        };
        let bounds = match shape {
            Shape::Int(least, most) => (*least, *most),
            Shape::Bytes(least) => (*least, i64::MAX),
            Shape::Count => (-1, i64::MAX),
            _ => (i64::MIN, i64::MAX),
        };
        match value {
            Ok(Value::Int(value)) if value < bounds.0 => {
                self.bad(
                    node.span,
                    format!("{value} is too small; the least is {}", bounds.0),
                );
            }
            Ok(Value::Int(value)) if value > bounds.1 => {
                self.bad(
                    node.span,
                    format!("{value} is too large; the most is {}", bounds.1),
                );
            }
            Ok(value) => node.value = value,
            Err(message) => self.bad(node.span, message),
        }
    }

    pub(super) fn mode(&mut self, node: &mut Node) {
        let mode = match &node.value {
            Value::Int(mode) => Ok(*mode),
            Value::Text(text) => i64::from_str_radix(text.trim_start_matches("0o"), 8)
                .map_err(|_| format!("{text:?} is not an octal number like 0440")),
            _ => {
                self.wrong_type(node, "an octal number like 0440");
                return;
            }
        };
        match mode {
            Ok(mode) if (0..=0o7777).contains(&mode) => node.value = Value::Text(format!("0{mode:o}")),
            Ok(mode) => self.bad(node.span, format!("{mode:o} (octal) is not a file's mode")),
            Err(message) => self.bad(node.span, message),
        }
    }

    pub(super) fn command(&mut self, node: &mut Node) {
        match &node.value {
            Value::Null => {}
            Value::Text(text) => match split_words(text) {
                Ok(words) => {
                    let words = words.into_iter().map(|word| Node::text(node.span, word));
                    node.value = Value::List(words.collect());
                }
                Err(message) => self.bad(node.span, message),
            },
            Value::List(_) => self.list(&Shape::Text, Same::Never, node),
            _ => self.wrong_type(node, "a string or a list of strings"),
        }
    }

    pub(super) fn health_test(&mut self, node: &mut Node) {
        match &node.value {
            Value::Text(text) => {
                let parts = ["CMD-SHELL", text].map(|part| Node::text(node.span, part));
                node.value = Value::List(parts.into());
            }
            Value::List(_) => {
                self.list(&Shape::Text, Same::Never, node);
                let first = node
                    .as_list()
                    .and_then(|list| list.first())
                    .and_then(Node::as_text);
                if first.is_some_and(|first| !["NONE", "CMD", "CMD-SHELL"].contains(&first)) {
                    self.bad(node.span, "must begin with NONE, CMD or CMD-SHELL");
                }
            }
            _ => self.wrong_type(node, "a string or a list of strings"),
        }
    }
}
