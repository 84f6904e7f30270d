//! Patterns for paths, with Go's grammar: `*` and `?` do not cross a slash, `[a-z]`, `[^x]`, `\` escapes; in
//! `.dockerignore` also `**`.

/// A pattern, read. Matches in time linear in the path for each part of the pattern, whatever the input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob {
    tokens: Vec<Token>,
    /// Characters that every match begins with; spares most paths the rest.
    prefix: String,
    /// Has it no special part at all?
    plain: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Plain(char),
    /// `?`
    One,
    /// `*`
    Star,
    /// `**` at the end: everything.
    All,
    /// `**` and a slash: any number of directories, none included. Leads to `Inside`, which follows, and past it.
    Directories,
    /// Anything up to a slash.
    Inside,
    /// Begins a pattern such as `**name`: anything at all before it.
    Anything,
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

impl Glob {
    /// Reads a pattern of Go's `path.Match`, as in the sources of COPY. The error is the rule it breaks.
    pub fn path(text: &str) -> Result<Self, &'static str> {
        Self::read(text, false)
    }

    /// Reads a pattern of `.dockerignore`, where `**` crosses slashes.
    pub fn deep(text: &str) -> Result<Self, &'static str> {
        Self::read(text, true)
    }

    fn read(text: &str, deep: bool) -> Result<Self, &'static str> {
        let mut tokens = Vec::new();
        let mut rest = text.chars().peekable();
        // A pattern that begins with `**` and has nothing special behind it matches by its end.
        let tail = text.strip_prefix("**").unwrap_or_default();
        let by_end = deep && text.starts_with("**") && !tail.contains(['*', '?', '[', ']', '\\']);
        while let Some(c) = rest.next() {
            match c {
                '*' if deep && rest.peek() == Some(&'*') => {
                    rest.next();
                    if by_end && tokens.is_empty() && rest.peek() != Some(&'/') {
                        tokens.push(Token::Anything);
                        continue;
                    }
                    if rest.peek() == Some(&'/') {
                        rest.next();
                    }
                    match rest.peek() {
                        None => tokens.push(Token::All),
                        Some(_) => tokens.extend([Token::Directories, Token::Inside]),
                    }
                }
                '*' if tokens.last() == Some(&Token::Star) => {}
                '*' => tokens.push(Token::Star),
                '?' => tokens.push(Token::One),
                '\\' => tokens.push(Token::Plain(rest.next().ok_or("it ends in a backslash")?)),
                '[' => tokens.push(class(&mut rest)?),
                c => tokens.push(Token::Plain(c)),
            }
        }
        let plain = |token: &Token| match token {
            Token::Plain(c) => Some(*c),
            _ => None,
        };
        Ok(Self {
            prefix: tokens.iter().map_while(plain).collect(),
            plain: tokens.iter().all(|token| plain(token).is_some()),
            tokens,
        })
    }

    /// Does the pattern have parts that match more than one text?
    pub fn is_wildcard(&self) -> bool {
        !self.plain
    }

    /// Does the whole path match?
    pub fn matches(&self, path: &str) -> bool {
        if self.plain {
            return path == self.prefix;
        }
        path.starts_with(&self.prefix) && self.run(path).last() == Some(&true)
    }

    /// Does the path or one of its parents match? One pass, however many parents there are.
    pub fn matches_or_parent(&self, path: &str) -> bool {
        if self.plain {
            let rest = path.strip_prefix(self.prefix.as_str());
            return rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        }
        let mut found = false;
        let last = path.starts_with(&self.prefix).then(|| {
            self.follow(path, |c, active, at| {
                found |= c == '/' && at > 0 && active.last() == Some(&true)
            })
        });
        found || last.is_some_and(|active| active.last() == Some(&true))
    }

    /// Can any path match that begins with `directory` and a slash?
    pub fn may_match_below(&self, directory: &str) -> bool {
        self.run(&format!("{directory}/")).contains(&true)
    }

    /// Which parts of the pattern may come next after a text: entry `i` says that the first `i` tokens match it.
    fn run(&self, text: &str) -> Vec<bool> {
        self.follow(text, |_, _, _| {})
    }

    /// As `run`; `before` sees every character, its offset, and the state in front of it.
    fn follow(&self, text: &str, mut before: impl FnMut(char, &[bool], usize)) -> Vec<bool> {
        let tokens = &self.tokens;
        let mut active = vec![false; tokens.len() + 1];
        active[0] = true;
        self.skip(&mut active);
        for (at, c) in text.char_indices() {
            before(c, &active, at);
            for i in (0..=tokens.len()).rev() {
                // Parts that repeat.
                let stays = active[i]
                    && match tokens.get(i) {
                        Some(Token::Star) => c != '/',
                        Some(Token::All | Token::Anything | Token::Inside) => true,
                        _ => false,
                    };
                let comes = i > 0
                    && active[i - 1]
                    && match &tokens[i - 1] {
                        Token::Plain(plain) => *plain == c,
                        Token::One => c != '/',
                        Token::Class { negated, ranges } => {
                            ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != *negated
                        }
                        Token::Inside => c == '/',
                        Token::Star | Token::All | Token::Anything | Token::Directories => false,
                    };
                active[i] = stays || comes;
            }
            self.skip(&mut active);
            if !active.contains(&true) {
                break;
            }
        }
        active
    }

    /// Parts that may match nothing.
    fn skip(&self, active: &mut [bool]) {
        for (i, token) in self
            .tokens
            .iter()
            .enumerate()
            .filter(|(_, token)| !matches!(token, Token::Plain(_)))
        {
            match token {
                _ if !active[i] => {}
                Token::Star | Token::All | Token::Anything => active[i + 1] = true,
                Token::Directories => {
                    active[i + 1] = true;
                    active[i + 2] = true;
                }
                _ => {}
            }
        }
    }
}

/// Reads what stands between `[` and `]`.
fn class(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<Token, &'static str> {
    const OPEN: &str = "a '[' is not closed";
    let negated = rest.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        if !ranges.is_empty() && rest.next_if_eq(&']').is_some() {
            return Ok(Token::Class { negated, ranges });
        }
        let mut one = || match rest.next().ok_or(OPEN)? {
            '-' | ']' => Err("a '-' or ']' inside [...] needs a backslash"),
            '\\' => rest.next().ok_or(OPEN),
            c => Ok(c),
        };
        let low = one()?;
        let high = match rest.next_if_eq(&'-') {
            Some(_) => match rest.next().ok_or(OPEN)? {
                '-' | ']' => return Err("a '-' or ']' inside [...] needs a backslash"),
                '\\' => rest.next().ok_or(OPEN)?,
                c => c,
            },
            None => low,
        };
        ranges.push((low, high));
    }
}
