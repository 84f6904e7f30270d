//! Variables in values: `$NAME`, `${NAME}` and the forms with defaults, errors and replacements.
//!
//! Source: "Interpolation" of the Compose Specification. What is not taken is not looked at: a default that is not
//! needed asks for no variable.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Bytes that one text may become.
const LONGEST: usize = 4 << 20;

/// Why a template has no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// `${` that is not followed by a name and one of the known forms, or has no end.
    #[error("invalid template {template:?}{}", escape(template))]
    Invalid {
        /// From the `$` on.
        template: String,
    },
    /// `${NAME?message}` or `${NAME:?message}` without a value.
    #[error("required variable {name} is missing a value{}{message}", if message.is_empty() { "" } else { ": " })]
    Required {
        /// The variable.
        name: String,
        /// What the template says about it.
        message: String,
    },
    /// The value would be longer than any that makes sense.
    #[error("with its variables the text has more than {limit} bytes")]
    TooLong {
        /// The most bytes that it may have.
        limit: usize,
    },
}

fn escape(template: &str) -> &'static str {
    if template.starts_with("${") {
        "; a $ that is meant is written $$"
    } else {
        ""
    }
}

/// A variable that a document uses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// What is taken when it is unset (`-`) or empty too (`:-`).
    pub default: Option<String>,
    /// What is taken when it is set (`+`, `:+`).
    pub presence: Option<String>,
    /// Without it the document does not load (`?`, `:?`).
    pub required: bool,
}

/// The four forms with an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Plain,
    Default,
    Required,
    Presence,
}

/// One piece of a template.
enum Piece<'a> {
    Text(&'a str),
    Dollar,
    Variable {
        name: &'a str,
        form: Form,
        /// With a colon: empty is like unset.
        empty: bool,
        word: &'a str,
    },
}

/// Puts values in; `unset` collects the names that had none and no default.
///
/// # Errors
/// A template that is not one, a required variable without a value, a value that is too long.
pub(crate) fn substitute(
    template: &str,
    lookup: &dyn Fn(&str) -> Option<String>,
    unset: &mut BTreeSet<String>,
) -> Result<String, TemplateError> {
    let mut out = String::new();
    let mut rest = template;
    while let Some((piece, after)) = next(rest)? {
        rest = after;
        if out.len() > LONGEST {
            return Err(TemplateError::TooLong { limit: LONGEST });
        }
        match piece {
            Piece::Text(text) => out.push_str(text),
            Piece::Dollar => out.push('$'),
            Piece::Variable {
                name,
                form,
                empty,
                word,
            } => {
                let value = lookup(name);
                let usable = value.as_ref().filter(|value| !(empty && value.is_empty()));
                match form {
                    Form::Plain => match value {
                        Some(value) => out.push_str(&value),
                        None => {
                            unset.insert(name.to_owned());
                        }
                    },
                    Form::Default => match usable {
                        Some(value) => out.push_str(value),
                        None => out.push_str(&substitute(word, lookup, unset)?),
                    },
                    Form::Presence => {
                        if usable.is_some() {
                            out.push_str(&substitute(word, lookup, unset)?);
                        }
                    }
                    Form::Required => match usable {
                        Some(value) => out.push_str(value),
                        None => {
                            return Err(TemplateError::Required {
                                name: name.to_owned(),
                                message: substitute(word, lookup, unset)?,
                            });
                        }
                    },
                }
            }
        }
    }
    Ok(out)
}

/// Puts values in, by the rules for compose files; an unset variable becomes nothing.
///
/// # Errors
/// A template that is not one, a required variable without a value, a value that is too long.
pub fn interpolate(template: &str, environment: &BTreeMap<String, String>) -> Result<String, TemplateError> {
    substitute(
        template,
        &|name| environment.get(name).cloned(),
        &mut BTreeSet::new(),
    )
}

/// Every variable of a template, those inside defaults too, into `found`.
pub(crate) fn variables(template: &str, found: &mut BTreeMap<String, Variable>) -> Result<(), TemplateError> {
    let mut rest = template;
    while let Some((piece, after)) = next(rest)? {
        rest = after;
        if let Piece::Variable { name, form, word, .. } = piece {
            let variable = found.entry(name.to_owned()).or_default();
            name.clone_into(&mut variable.name);
            match form {
                Form::Plain => {}
                Form::Default => variable.default = Some(word.to_owned()),
                Form::Presence => variable.presence = Some(word.to_owned()),
                Form::Required => variable.required = true,
            }
            variables(word, found)?;
        }
    }
    Ok(())
}

/// The first piece of a text and what follows it.
fn next(text: &str) -> Result<Option<(Piece<'_>, &str)>, TemplateError> {
    if text.is_empty() {
        return Ok(None);
    }
    let Some(at) = text.find('$') else {
        return Ok(Some((Piece::Text(text), "")));
    };
    if at > 0 {
        return Ok(Some((Piece::Text(&text[..at]), &text[at..])));
    }
    let after = &text[1..];
    if let Some(rest) = after.strip_prefix('$') {
        return Ok(Some((Piece::Dollar, rest)));
    }
    let length = name_length(after);
    if length > 0 {
        let (name, rest) = after.split_at(length);
        let (form, empty, word) = (Form::Plain, false, "");
        return Ok(Some((
            Piece::Variable {
                name,
                form,
                empty,
                word,
            },
            rest,
        )));
    }
    if !after.starts_with('{') {
        return Ok(Some((Piece::Text("$"), after)));
    }
    let invalid = || TemplateError::Invalid {
        template: text.chars().take(80).collect(),
    };
    let end = closing_brace(after).ok_or_else(invalid)?;
    let (inner, rest) = (&after[1..end], &after[end + 1..]);
    let length = name_length(inner);
    let (name, operator) = inner.split_at(length);
    if name.is_empty() {
        return Err(invalid());
    }
    let (empty, operator) = match operator.strip_prefix(':') {
        Some(operator) => (true, operator),
        None => (false, operator),
    };
    let form = match operator.chars().next() {
        None if !empty => Form::Plain,
        Some('-') => Form::Default,
        Some('?') => Form::Required,
        Some('+') => Form::Presence,
        _ => return Err(invalid()),
    };
    let word = operator.get(1..).unwrap_or("");
    Ok(Some((
        Piece::Variable {
            name,
            form,
            empty,
            word,
        },
        rest,
    )))
}

/// The bytes of `[A-Za-z_][A-Za-z0-9_]*` at the start.
fn name_length(text: &str) -> usize {
    if !text.starts_with(|letter: char| letter.is_ascii_alphabetic() || letter == '_') {
        return 0;
    }
    text.bytes()
        .take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
        .count()
}

/// The brace that closes the one the text begins with.
fn closing_brace(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => {
                depth -= 1;
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
        // Deeper than anyone writes, and each level is a call.
        if depth > 50 {
            return None;
        }
    }
    None
}

impl fmt::Display for Variable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn environment() -> BTreeMap<String, String> {
        [("FOO", "first"), ("EMPTY", "")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into()
    }

    #[test]
    fn every_form_takes_what_it_says() {
        for (template, expected) in [
            ("$FOO ${FOO} $$FOO", "first first $FOO"),
            ("${EMPTY:-d} ${EMPTY-d} ${NONE-d}", "d  d"),
            ("${FOO:+r} ${EMPTY:+r} ${EMPTY+r}", "r  r"),
            ("^RE$ $ $} $1", "^RE$ $ $} $1"),
            ("${NONE:-${FOO}-${NONE:-x}}", "first-x"),
            ("${NONE:-{\"a\":1}}", "{\"a\":1}"),
            ("${EMPTY?no} ${FOO:?no}", " first"),
        ] {
            assert_eq!(
                interpolate(template, &environment()).as_deref(),
                Ok(expected),
                "{template}"
            );
        }
        for template in [
            "${",
            "${}",
            "${ x}",
            "${x }",
            "${x!}",
            "${x:}",
            "${NONE:?}",
            "${v/a/b}",
            "${v#p}",
        ] {
            assert!(interpolate(template, &environment()).is_err(), "{template}");
        }
    }

    #[test]
    fn a_branch_that_is_not_taken_asks_for_nothing() {
        let mut unset = BTreeSet::new();
        let lookup = |name: &str| environment().get(name).cloned();
        let text = substitute("${FOO:-${GONE:?never}} ${EMPTY:+$GONE}", &lookup, &mut unset);
        assert_eq!(text.as_deref(), Ok("first "));
        assert!(unset.is_empty());
        substitute("$GONE", &lookup, &mut unset).unwrap();
        assert!(unset.contains("GONE"));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in any::<String>(), dollars in "[${}:?+a-]{0,40}") {
            let _ = interpolate(&text, &environment());
            let _ = interpolate(&dollars, &environment());
            let _ = variables(&dollars, &mut BTreeMap::new());
        }

        #[test]
        fn text_without_dollars_stays(text in "[^$]*") {
            let same = interpolate(&text, &environment());
            prop_assert_eq!(same, Ok(text));
        }
    }
}
