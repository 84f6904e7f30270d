//! The patterns of `${x#pattern}` and its kin: `*` and `?`, which do not match a line break, and plain characters.

/// How much work one pattern may be: its length times the text's.
const WORK: usize = 1 << 24;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Any,
    Star,
    Plain(char),
}

/// A pattern, read.
#[derive(Clone, Debug)]
pub(crate) struct Pattern(Vec<Token>);

/// Which of the matches at one place is wanted.
#[derive(Clone, Copy, PartialEq)]
enum Want {
    Shortest,
    Longest,
}

impl Pattern {
    /// Reads a pattern. `\` makes `*`, `?` and itself plain; before `}` and `/` it is dropped.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut tokens = Vec::new();
        let mut rest = text.chars();
        while let Some(c) = rest.next() {
            tokens.push(match c {
                '*' => Token::Star,
                '?' => Token::Any,
                '\\' => match rest.next() {
                    Some(c @ ('*' | '?' | '\\' | '}' | '/')) => Token::Plain(c),
                    Some(c) => return Err(format!("invalid escape '\\{c}' in pattern {text:?}")),
                    None => return Err(format!("pattern {text:?} ends in an escape")),
                },
                c => Token::Plain(c),
            });
        }
        tokens.dedup_by(|a, b| *a == Token::Star && *b == Token::Star);
        Ok(Self(tokens))
    }

    pub(crate) fn trim_start(&self, value: &str, longest: bool) -> Result<String, String> {
        let value: Vec<char> = value.chars().collect();
        let end = self
            .end(&value, 0, wanted(longest), &mut WORK.clone())?
            .unwrap_or(0);
        Ok(value[end..].iter().collect())
    }

    pub(crate) fn trim_end(&self, value: &str, longest: bool) -> Result<String, String> {
        let value: Vec<char> = value.chars().rev().collect();
        let reversed = Self(self.0.iter().rev().copied().collect());
        let end = reversed
            .end(&value, 0, wanted(longest), &mut WORK.clone())?
            .unwrap_or(0);
        Ok(value[end..].iter().rev().collect())
    }

    /// Replaces the first match or all of them, each the longest at its place. `room` bounds the result in bytes.
    pub(crate) fn replace(&self, value: &str, with: &str, all: bool, room: usize) -> Result<String, String> {
        let chars: Vec<char> = value.chars().collect();
        let mut result = String::new();
        let mut work = WORK;
        let (mut at, mut copied, mut last_end) = (0, 0, None);
        while at <= chars.len() {
            let Some(end) = self.end(&chars, at, Want::Longest, &mut work)? else {
                at += 1;
                continue;
            };
            // An empty match right behind another match is none.
            if !(end == at && last_end == Some(at)) {
                result.extend(&chars[copied..at]);
                result.push_str(with);
                if result.len() > room {
                    return Err(format!("the result is longer than {room} bytes"));
                }
                copied = end;
                last_end = Some(end);
                if !all {
                    break;
                }
            }
            at = end.max(at + 1);
            if end > copied {
                copied = end;
            }
        }
        result.extend(&chars[copied.min(chars.len())..]);
        Ok(result)
    }

    /// Where a match that begins at `from` ends.
    fn end(&self, text: &[char], from: usize, want: Want, work: &mut usize) -> Result<Option<usize>, String> {
        let tokens = &self.0;
        // active[i]: the first i tokens match what was read.
        let mut active = vec![false; tokens.len() + 1];
        active[0] = true;
        skip_stars(tokens, &mut active);
        let mut found = None;
        for at in from..=text.len() {
            if active[tokens.len()] {
                found = Some(at);
                if want == Want::Shortest {
                    break;
                }
            }
            let Some(c) = text.get(at) else { break };
            *work = work
                .checked_sub(active.len())
                .ok_or("the pattern is too long for so long a value")?;
            for i in (0..=tokens.len()).rev() {
                let stays = i < tokens.len() && tokens[i] == Token::Star && active[i] && *c != '\n';
                let comes = i > 0
                    && active[i - 1]
                    && match tokens[i - 1] {
                        Token::Plain(plain) => plain == *c,
                        Token::Any => *c != '\n',
                        Token::Star => false,
                    };
                active[i] = stays || comes;
            }
            skip_stars(tokens, &mut active);
            if !active.contains(&true) {
                break;
            }
        }
        Ok(found)
    }
}

fn wanted(longest: bool) -> Want {
    match longest {
        true => Want::Longest,
        false => Want::Shortest,
    }
}

/// A star also matches nothing.
fn skip_stars(tokens: &[Token], active: &mut [bool]) {
    for (i, token) in tokens.iter().enumerate() {
        if *token == Token::Star && active[i] {
            active[i + 1] = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_match_is_replaced_once() {
        let replace = |pattern: &str, value: &str, all| {
            Pattern::parse(pattern)
                .and_then(|found| found.replace(value, "X", all, 1000))
                .unwrap_or_default()
        };
        assert_eq!(replace("b", "abcb", true), "aXcX");
        assert_eq!(replace("b", "abcb", false), "aXcb");
        assert_eq!(replace("", "ab", true), "XaXbX");
        assert_eq!(replace("*", "ab", true), "X");
        assert_eq!(replace("b*", "abcb", true), "aX");
        assert_eq!(replace("z", "ab", true), "ab");
    }

    #[test]
    fn the_shortest_and_the_longest_end_are_found() {
        let pattern = Pattern::parse("*.").unwrap_or(Pattern(Vec::new()));
        assert_eq!(pattern.trim_start("a.b.c", false).as_deref(), Ok("b.c"));
        assert_eq!(pattern.trim_start("a.b.c", true).as_deref(), Ok("c"));
        let pattern = Pattern::parse(".*").unwrap_or(Pattern(Vec::new()));
        assert_eq!(pattern.trim_end("a.b.c", false).as_deref(), Ok("a.b"));
        assert_eq!(pattern.trim_end("a.b.c", true).as_deref(), Ok("a"));
    }
}
