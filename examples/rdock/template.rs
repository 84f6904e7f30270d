//! `--format`: the part of Go's template language that people write for docker.
//!
//! Texts with actions in double braces: fields (`.State.Status`), `json`, `join`, `index`, `len`, `upper`,
//! `lower`, `title`, `split`, `truncate`, `pad`, `print`, `println`, `printf`, comparisons, `and`, `or`, `not`,
//! pipes, parentheses, variables, `if`, `else`, `range`, `with`, `break`-less loops, comments and trimming.

// By its place, so that the tests, which take this file from elsewhere, find it too.
#[path = "template/functions.rs"]
mod functions;

use functions::{FUNCTIONS, call, is_true, shown};
use serde_json::Value;
use std::collections::HashMap;

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
