//! `--format`: the part of Go's template language that people write for docker.
//!
//! Texts with actions in double braces: fields (`.State.Status`), `json`, `join`, `index`, `len`, `upper`,
//! `lower`, `title`, `split`, `truncate`, `pad`, `print`, `println`, `printf`, comparisons, `and`, `or`, `not`,
//! pipes, parentheses, variables, `if`, `else`, `range`, `with`, `break`-less loops, comments and trimming.

use serde_json::Value;
use std::collections::HashMap;
use std::fmt::Write;

/// A parsed template.
#[derive(Debug, Clone)]
pub(crate) struct Template(Vec<Node>);

#[derive(Debug, Clone)]
enum Node {
    Text(String),
    Output(Pipeline),
    Assign(String, Pipeline),
    If(Vec<(Pipeline, Vec<Node>)>, Vec<Node>),
    With(Pipeline, Vec<Node>, Vec<Node>),
    Range(Loop),
}

#[derive(Debug, Clone)]
struct Loop {
    /// Names for the key and the value.
    names: Vec<String>,
    over: Pipeline,
    body: Vec<Node>,
    otherwise: Vec<Node>,
}

/// Commands; the result of each is the last argument of the next.
type Pipeline = Vec<Vec<Operand>>;

#[derive(Debug, Clone)]
enum Operand {
    /// The value at hand, and fields of it.
    Dot(Vec<String>),
    Variable(String, Vec<String>),
    Group(Pipeline, Vec<String>),
    Literal(Value),
    Function(String),
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Field(String),
    Dot,
    Variable(String),
    Word(String),
    Literal(Value),
    Symbol(&'static str),
}

/// Nesting beyond this is refused: it would only cost stack.
const DEEPEST: usize = 64;

impl Template {
    /// Reads a template. `\t` and `\n` stand for a tab and a new line, as in docker.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let text = text.replace("\\t", "\t").replace("\\n", "\n");
        let mut parser = Parser {
            pieces: pieces(&text)?,
            at: 0,
        };
        let (nodes, end) = parser.block(0)?;
        match end {
            None => Ok(Self(nodes)),
            Some(word) => Err(format!("unexpected {{{{{}}}}}", word.join(" "))),
        }
    }

    /// Fills it in.
    pub(crate) fn render(&self, data: &Value) -> Result<String, String> {
        let mut out = String::new();
        let mut scope = Scope {
            root: data,
            variables: HashMap::new(),
        };
        scope.nodes(&self.0, data, &mut out)?;
        Ok(out)
    }
}

/// Texts and actions.
#[derive(Debug)]
enum Piece {
    Text(String),
    Action(Vec<Token>),
}

fn pieces(text: &str) -> Result<Vec<Piece>, String> {
    let mut found = Vec::new();
    let mut rest = text;
    let mut trim = false;
    while let Some(start) = rest.find("{{") {
        let (before, after) = rest.split_at(start);
        let mut before = if trim { before.trim_start() } else { before };
        let mut inside = &after[2..];
        if inside.starts_with("- ") || inside.starts_with("-\t") || inside.starts_with("-\n") {
            before = before.trim_end();
            inside = &inside[1..];
        }
        if !before.is_empty() {
            found.push(Piece::Text(before.to_owned()));
        }
        let blank = inside.trim_start();
        if let Some(comment) = blank.strip_prefix("/*") {
            let end = comment.find("*/").ok_or("unclosed comment")?;
            let after = comment[end + 2..].trim_start();
            (rest, trim) = match after.strip_prefix("-}}") {
                Some(rest) => (rest, true),
                None => (after.strip_prefix("}}").ok_or("unclosed comment")?, false),
            };
            continue;
        }
        let (tokens, after, trims) = tokens(inside)?;
        found.push(Piece::Action(tokens));
        (rest, trim) = (after, trims);
    }
    let rest = if trim { rest.trim_start() } else { rest };
    if !rest.is_empty() {
        found.push(Piece::Text(rest.to_owned()));
    }
    Ok(found)
}

/// The tokens of an action, what follows its closing braces, and whether they trim.
fn tokens(text: &str) -> Result<(Vec<Token>, &str, bool), String> {
    let mut found = Vec::new();
    let mut rest = text;
    loop {
        let trimmed = rest.trim_start();
        if let Some(after) = trimmed.strip_prefix("}}") {
            return Ok((found, after, false));
        }
        if trimmed.len() < rest.len()
            && let Some(after) = trimmed.strip_prefix("-}}")
        {
            return Ok((found, after, true));
        }
        let Some(first) = trimmed.chars().next() else {
            return Err("unclosed action".to_owned());
        };
        let name = |text: &str| {
            let end = text.find(|letter: char| !letter.is_alphanumeric() && letter != '_');
            let end = end.unwrap_or(text.len());
            (text[..end].to_owned(), end)
        };
        let (token, taken) = match first {
            '.' => match name(&trimmed[1..]) {
                (field, _) if field.is_empty() => (Token::Dot, 1),
                (field, length) => (Token::Field(field), length + 1),
            },
            '$' => {
                let (name, length) = name(&trimmed[1..]);
                (Token::Variable(name), length + 1)
            }
            '"' => string(trimmed)?,
            '`' => {
                let end = trimmed[1..].find('`').ok_or("unterminated raw string")?;
                (Token::Literal(Value::from(&trimmed[1..=end])), end + 2)
            }
            '|' => (Token::Symbol("|"), 1),
            '(' => (Token::Symbol("("), 1),
            ')' => (Token::Symbol(")"), 1),
            ',' => (Token::Symbol(","), 1),
            ':' if trimmed.starts_with(":=") => (Token::Symbol(":="), 2),
            '=' => (Token::Symbol(":="), 1),
            '0'..='9' | '-' | '+' => {
                let end = trimmed[1..].find(|letter: char| !letter.is_alphanumeric() && letter != '.');
                let end = end.map_or(trimmed.len(), |end| end + 1);
                let digits = trimmed[..end].trim_start_matches('+');
                let number: Value = serde_json::from_str(digits)
                    .map_err(|_| format!("bad number syntax: {:?}", &trimmed[..end]))?;
                (Token::Literal(number), end)
            }
            letter if letter.is_alphabetic() || letter == '_' => {
                let (word, length) = name(trimmed);
                let token = match word.as_str() {
                    "true" => Token::Literal(Value::Bool(true)),
                    "false" => Token::Literal(Value::Bool(false)),
                    "nil" => Token::Literal(Value::Null),
                    _ => Token::Word(word),
                };
                (token, length)
            }
            other => return Err(format!("unexpected {other:?} in an action")),
        };
        // A blank ends a chain of fields: `.A .B` are two operands.
        let blank = trimmed.len() < rest.len();
        if blank && matches!(token, Token::Field(_)) && !found.is_empty() {
            found.push(Token::Symbol(" "));
        }
        found.push(token);
        rest = &trimmed[taken..];
    }
}

/// An interpreted string, with Go's escapes.
fn string(text: &str) -> Result<(Token, usize), String> {
    let mut value = String::new();
    let mut letters = text.char_indices().skip(1);
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Ok((Token::Literal(Value::String(value)), at + 1)),
            '\\' => match letters.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, 't')) => value.push('\t'),
                Some((_, 'r')) => value.push('\r'),
                Some((_, other @ ('"' | '\\' | '\''))) => value.push(other),
                _ => return Err("unknown escape in a string".to_owned()),
            },
            other => value.push(other),
        }
    }
    Err("unterminated quoted string".to_owned())
}

struct Parser {
    pieces: Vec<Piece>,
    at: usize,
}

/// The words that end a block: `end`, or `else` with what follows it.
type End = Option<Vec<String>>;

impl Parser {
    /// Nodes up to an `end` or `else`, whose remaining tokens stay in [`Self::tail`].
    fn block(&mut self, depth: usize) -> Result<(Vec<Node>, End), String> {
        let (nodes, end, _) = self.block_with_tail(depth)?;
        Ok((nodes, end))
    }

    fn block_with_tail(&mut self, depth: usize) -> Result<(Vec<Node>, End, Vec<Token>), String> {
        if depth > DEEPEST {
            return Err("nested too deep".to_owned());
        }
        let mut nodes = Vec::new();
        while self.at < self.pieces.len() {
            self.at += 1;
            let tokens = match &self.pieces[self.at - 1] {
                Piece::Text(text) => {
                    nodes.push(Node::Text(text.clone()));
                    continue;
                }
                Piece::Action(tokens) => tokens.clone(),
            };
            let word = match tokens.first() {
                Some(Token::Word(word)) => word.as_str(),
                Some(_) => "",
                None => return Err("missing value for command".to_owned()),
            };
            match word {
                "end" | "else" => {
                    let mut words = vec![word.to_owned()];
                    if let Some(Token::Word(more)) = tokens.get(1) {
                        words.push(more.clone());
                    }
                    return Ok((nodes, Some(words), tokens));
                }
                "if" => nodes.push(self.branches(&tokens[1..], depth)?),
                "with" => {
                    let on = pipeline(&tokens[1..])?;
                    let (body, otherwise) = self.body(depth)?;
                    nodes.push(Node::With(on, body, otherwise));
                }
                "range" => {
                    let (names, over) = assigned(&tokens[1..]);
                    let over = pipeline(over)?;
                    let (body, otherwise) = self.body(depth)?;
                    nodes.push(Node::Range(Loop {
                        names,
                        over,
                        body,
                        otherwise,
                    }));
                }
                "define" | "template" | "block" | "break" | "continue" => {
                    return Err(format!("{{{{{word}}}}} is not understood here"));
                }
                _ => {
                    let (names, value) = assigned(&tokens);
                    let value = pipeline(value)?;
                    nodes.push(match names.into_iter().next() {
                        Some(name) => Node::Assign(name, value),
                        None => Node::Output(value),
                    });
                }
            }
        }
        if depth > 0 {
            return Err("unexpected end of the template: {{end}} is missing".to_owned());
        }
        Ok((nodes, None, Vec::new()))
    }

    /// A body, and what follows `else`.
    fn body(&mut self, depth: usize) -> Result<(Vec<Node>, Vec<Node>), String> {
        let (body, end) = self.block(depth + 1)?;
        match end.as_deref() {
            Some([word]) if word == "else" => {
                let (otherwise, end) = self.block(depth + 1)?;
                match end.as_deref() {
                    Some([word]) if word == "end" => Ok((body, otherwise)),
                    _ => Err("expected {{end}}".to_owned()),
                }
            }
            Some([word]) if word == "end" => Ok((body, Vec::new())),
            _ => Err("expected {{end}}".to_owned()),
        }
    }

    fn branches(&mut self, condition: &[Token], depth: usize) -> Result<Node, String> {
        let mut condition = pipeline(condition)?;
        let mut branches = Vec::new();
        loop {
            let (body, end, tail) = self.block_with_tail(depth + 1)?;
            branches.push((condition, body));
            match end.as_deref() {
                Some([word]) if word == "end" => return Ok(Node::If(branches, Vec::new())),
                Some([_, word]) if word == "if" => condition = pipeline(&tail[2..])?,
                Some([word]) if word == "else" => {
                    let (otherwise, end) = self.block(depth + 1)?;
                    return match end.as_deref() {
                        Some([word]) if word == "end" => Ok(Node::If(branches, otherwise)),
                        _ => Err("expected {{end}}".to_owned()),
                    };
                }
                _ => return Err("expected {{end}}".to_owned()),
            }
        }
    }
}

/// Variables before `:=`, and what follows it.
fn assigned(tokens: &[Token]) -> (Vec<String>, &[Token]) {
    let Some(at) = tokens.iter().position(|token| *token == Token::Symbol(":=")) else {
        return (Vec::new(), tokens);
    };
    let mut names = Vec::new();
    for token in &tokens[..at] {
        match token {
            Token::Variable(name) => names.push(name.clone()),
            Token::Symbol(",") => {}
            _ => return (Vec::new(), tokens),
        }
    }
    (names, &tokens[at + 1..])
}

fn pipeline(tokens: &[Token]) -> Result<Pipeline, String> {
    let mut at = 0;
    let pipeline = piped(tokens, &mut at, 0)?;
    match tokens.get(at) {
        None => Ok(pipeline),
        Some(_) => Err("unexpected right parenthesis".to_owned()),
    }
}

fn piped(tokens: &[Token], at: &mut usize, depth: usize) -> Result<Pipeline, String> {
    if depth > DEEPEST {
        return Err("nested too deep".to_owned());
    }
    let mut commands = vec![Vec::new()];
    while let Some(token) = tokens.get(*at) {
        *at += 1;
        let base = match token {
            Token::Symbol(")") => {
                *at -= 1;
                break;
            }
            Token::Symbol("|") => {
                commands.push(Vec::new());
                continue;
            }
            Token::Symbol(" ") => continue,
            Token::Symbol("(") => {
                let inner = piped(tokens, at, depth + 1)?;
                if tokens.get(*at) != Some(&Token::Symbol(")")) {
                    return Err("unclosed left parenthesis".to_owned());
                }
                *at += 1;
                Operand::Group(inner, fields(tokens, at))
            }
            Token::Symbol(symbol) => return Err(format!("unexpected {symbol:?}")),
            Token::Dot => Operand::Dot(fields(tokens, at)),
            Token::Field(name) => {
                let mut path = vec![name.clone()];
                path.extend(fields(tokens, at));
                Operand::Dot(path)
            }
            Token::Variable(name) => Operand::Variable(name.clone(), fields(tokens, at)),
            Token::Word(word) => Operand::Function(word.clone()),
            Token::Literal(value) => Operand::Literal(value.clone()),
        };
        if let Some(command) = commands.last_mut() {
            command.push(base);
        }
    }
    if commands.iter().any(Vec::is_empty) {
        return Err("missing value for command".to_owned());
    }
    for command in &commands {
        for (place, operand) in command.iter().enumerate() {
            let Operand::Function(name) = operand else {
                continue;
            };
            if !FUNCTIONS.contains(&name.as_str()) {
                return Err(format!("function {name:?} not defined"));
            }
            if place > 0 {
                return Err(format!("function {name:?} as an argument needs parentheses"));
            }
        }
    }
    Ok(commands)
}

/// Fields that follow directly.
fn fields(tokens: &[Token], at: &mut usize) -> Vec<String> {
    let mut path = Vec::new();
    while let Some(Token::Field(name)) = tokens.get(*at) {
        path.push(name.clone());
        *at += 1;
    }
    path
}

const FUNCTIONS: [&str; 24] = [
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

struct Scope<'a> {
    root: &'a Value,
    variables: HashMap<String, Value>,
}

impl Scope<'_> {
    fn nodes(&mut self, nodes: &[Node], dot: &Value, out: &mut String) -> Result<(), String> {
        for node in nodes {
            match node {
                Node::Text(text) => out.push_str(text),
                Node::Output(pipeline) => out.push_str(&shown(&self.pipeline(pipeline, dot)?)),
                Node::Assign(name, pipeline) => {
                    let value = self.pipeline(pipeline, dot)?;
                    self.variables.insert(name.clone(), value);
                }
                Node::If(branches, otherwise) => {
                    let mut chosen = otherwise;
                    for (condition, body) in branches {
                        if is_true(&self.pipeline(condition, dot)?) {
                            chosen = body;
                            break;
                        }
                    }
                    self.nodes(chosen, dot, out)?;
                }
                Node::With(on, body, otherwise) => {
                    let value = self.pipeline(on, dot)?;
                    match is_true(&value) {
                        true => self.nodes(body, &value, out)?,
                        false => self.nodes(otherwise, dot, out)?,
                    }
                }
                Node::Range(each) => self.range(each, dot, out)?,
            }
        }
        Ok(())
    }

    fn range(&mut self, each: &Loop, dot: &Value, out: &mut String) -> Result<(), String> {
        let items: Vec<(Value, Value)> = match self.pipeline(&each.over, dot)? {
            Value::Array(items) => (0..).map(Value::from).zip(items).collect(),
            Value::Object(map) => map
                .into_iter()
                .map(|(key, value)| (Value::String(key), value))
                .collect(),
            Value::Null => Vec::new(),
            other => return Err(format!("range can't iterate over {}", shown(&other))),
        };
        if items.is_empty() {
            return self.nodes(&each.otherwise, dot, out);
        }
        for (key, value) in items {
            match each.names.as_slice() {
                [first, second, ..] => {
                    self.variables.insert(first.clone(), key);
                    self.variables.insert(second.clone(), value.clone());
                }
                [only] => drop(self.variables.insert(only.clone(), value.clone())),
                [] => {}
            }
            self.nodes(&each.body, &value, out)?;
        }
        Ok(())
    }

    fn pipeline(&self, pipeline: &Pipeline, dot: &Value) -> Result<Value, String> {
        let mut result = None;
        for command in pipeline {
            result = Some(self.command(command, dot, result)?);
        }
        result.ok_or_else(|| "missing value for command".to_owned())
    }

    fn command(&self, command: &[Operand], dot: &Value, piped: Option<Value>) -> Result<Value, String> {
        let (Some(first), rest) = (command.first(), command.get(1..).unwrap_or_default()) else {
            return Err("missing value for command".to_owned());
        };
        if let Operand::Function(name) = first {
            let mut arguments = Vec::new();
            for operand in rest {
                arguments.push(self.operand(operand, dot)?);
            }
            arguments.extend(piped);
            return call(name, arguments);
        }
        if !rest.is_empty() || piped.is_some() {
            return Err("can't give argument to non-function".to_owned());
        }
        self.operand(first, dot)
    }

    fn operand(&self, operand: &Operand, dot: &Value) -> Result<Value, String> {
        match operand {
            Operand::Dot(path) => field(dot, path),
            Operand::Variable(name, path) if name.is_empty() => field(self.root, path),
            Operand::Variable(name, path) => match self.variables.get(name) {
                Some(value) => field(value, path),
                None => Err(format!("undefined variable \"${name}\"")),
            },
            Operand::Group(pipeline, path) => field(&self.pipeline(pipeline, dot)?, path),
            Operand::Literal(value) => Ok(value.clone()),
            Operand::Function(name) => call(name, Vec::new()),
        }
    }
}

fn field(value: &Value, path: &[String]) -> Result<Value, String> {
    let mut value = value;
    for name in path {
        value = match value {
            Value::Object(map) => map
                .get(name)
                .ok_or_else(|| format!("map has no entry for key {name:?}"))?,
            Value::Null => return Err(format!("nil pointer evaluating {name:?}")),
            _ => return Err(format!("can't evaluate field {name}")),
        };
    }
    Ok(value.clone())
}

fn call(name: &str, arguments: Vec<Value>) -> Result<Value, String> {
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
fn is_true(value: &Value) -> bool {
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
fn shown(value: &Value) -> String {
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
