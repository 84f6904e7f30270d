//! Lists of things, as `--format` asks for them.

use crate::streams::print;
use crate::template::Template;
use crate::{Failure, Outcome};
use serde_json::{Map, Value};

/// How a list is printed.
#[derive(Debug, Clone)]
pub(crate) enum Form {
    /// In columns, the usual ones unless a template says which.
    Table(Option<Template>),
    /// One JSON object a line.
    Json,
    /// One text a row.
    Text(Template),
}

impl Form {
    /// Reads `table`, `json`, `table TEMPLATE` or a template.
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        let template = |text: &str| Template::parse(text).map_err(Failure::of_template);
        Ok(match text.trim() {
            "" | "table" => Self::Table(None),
            "json" => Self::Json,
            text => match text
                .strip_prefix("table ")
                .or_else(|| text.strip_prefix("table\\t"))
            {
                Some(columns) => Self::Table(Some(template(columns.trim())?)),
                None => Self::Text(template(text)?),
            },
        })
    }
}

/// A kind of list: its fields with their headings, and those that are shown unless something else is asked for.
#[derive(Debug)]
pub(crate) struct Listing {
    pub(crate) fields: &'static [(&'static str, &'static str)],
    pub(crate) usual: &'static [&'static str],
}

impl Listing {
    /// Prints rows, each with all the fields.
    pub(crate) fn show(&self, form: &Form, rows: Vec<Map<String, Value>>) -> Outcome {
        let mut lines = Vec::new();
        match form {
            Form::Json => {
                for row in rows {
                    print(&Value::Object(row).to_string());
                }
            }
            Form::Text(template) => {
                for row in rows {
                    print(&template.render(&Value::Object(row)).map_err(failed)?);
                }
            }
            Form::Table(None) => {
                lines.push(
                    self.usual
                        .iter()
                        .map(|field| self.heading(field).to_owned())
                        .collect(),
                );
                for row in &rows {
                    lines.push(self.usual.iter().map(|field| cell(row.get(*field))).collect());
                }
            }
            Form::Table(Some(template)) => {
                let headings = self.fields.iter();
                let headings = headings.map(|(name, heading)| ((*name).to_owned(), Value::from(*heading)));
                let rows = std::iter::once(headings.collect()).chain(rows);
                for row in rows {
                    let text = template.render(&Value::Object(row)).map_err(failed)?;
                    lines.push(text.split('\t').map(str::to_owned).collect());
                }
            }
        }
        columns(&lines);
        Ok(0)
    }

    fn heading(&self, field: &str) -> &'static str {
        let found = self.fields.iter().find(|(name, _)| *name == field);
        found.map_or("", |(_, heading)| heading)
    }
}

fn failed(reason: String) -> Failure {
    Failure::new(format!("template: {reason}"))
}

fn cell(value: Option<&Value>) -> String {
    match value {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    }
}

/// Prints lines of cells below each other: at least ten letters and three blanks a column, as docker does.
pub(crate) fn columns(lines: &[Vec<String>]) {
    let mut widths: Vec<usize> = Vec::new();
    for line in lines {
        // The last cell of a line takes no part: nothing follows it.
        for (at, cell) in line.iter().enumerate().take(line.len().saturating_sub(1)) {
            let width = (cell.chars().count() + 3).max(10);
            match widths.get_mut(at) {
                Some(known) => *known = (*known).max(width),
                None => widths.push(width),
            }
        }
    }
    for line in lines {
        let mut text = String::new();
        for (at, cell) in line.iter().enumerate() {
            match widths.get(at).filter(|_| at + 1 < line.len()) {
                Some(width) => text.push_str(&format!("{cell:width$}")),
                None => text.push_str(cell),
            }
        }
        print(text.trim_end());
    }
}
