//! Here-documents: `RUN <<EOF`.
use super::expand::{Lexer, Nothing};
use super::source::Span;

/// A here-document of a RUN, COPY or ADD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heredoc {
    /// The word that closes it, without quotes.
    pub name: String,
    /// The file descriptor written before `<<`; none means 0.
    pub descriptor: Option<u32>,
    /// Are variables in it expanded? No, if any part of the word was quoted. RUN leaves it to its shell.
    pub expand: bool,
    /// Written as `<<-`: leading tabs are stripped from each line, and from the closing line.
    pub strip_tabs: bool,
    /// The lines as written, each with its line break.
    pub content: String,
    /// Where the content is.
    pub span: Span,
}

impl Heredoc {
    /// Returns the content with leading tabs stripped, if `<<-` asks for it.
    pub fn text(&self) -> String {
        match self.strip_tabs {
            true => (self.content.split_inclusive('\n'))
                .map(|line| line.trim_start_matches('\t'))
                .collect(),
            false => self.content.clone(),
        }
    }

    /// Reads a word such as `3<<-"EOF"`: its here-document with no content yet, or `None` for any other word.
    pub fn from_word(word: &str) -> Option<Self> {
        let digits = word.len() - word.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, rest) = word.split_at(digits);
        let rest = rest.strip_prefix("<<")?;
        let (strip_tabs, rest) = match rest.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        let rest = rest.trim_start_matches([' ', '\t', '\n', '\r', '\x0b', '\x0c']);
        if rest.is_empty() || rest.contains('<') {
            return None;
        }
        // One part with quotes removed and one with quotes kept: they differ where something was quoted.
        let one = |keep_quotes| {
            let mut words = Lexer::new('\\')
                .keep_quotes(keep_quotes)
                .keep_unset(true)
                .words(rest, &Nothing)
                .ok()?;
            match words.len() {
                1 => words.pop(),
                _ => None,
            }
        };
        let (plain, quoted) = (one(false)?, one(true)?);
        let quotes = |text: &str| text.chars().filter(|c| matches!(c, '\'' | '"')).count();
        Some(Self {
            expand: quotes(&plain) == quotes(&quoted),
            name: plain,
            descriptor: number.parse().ok(),
            strip_tabs,
            content: String::new(),
            span: Span::default(),
        })
    }

    /// Returns the here-documents that a line opens, in order.
    pub fn in_line(line: &str) -> Vec<Self> {
        if !line.contains("<<") {
            return Vec::new();
        }
        let lexer = Lexer::new('\\')
            .keep_quotes(true)
            .keep_escapes(true)
            .keep_unset(true);
        // Quotes that are not closed belong to a shell that may read them otherwise: no here-document then.
        let words = lexer.words(line, &Nothing).unwrap_or_default();
        words.iter().filter_map(|word| Self::from_word(word)).collect()
    }
}
