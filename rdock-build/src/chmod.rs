//! The modes of `--chmod`: octal, or symbolic as chmod(1) reads them with a umask of 0.

/// A mode, or a change of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chmod(Form);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Form {
    Octal(u32),
    Symbolic(Vec<Change>),
}

/// One operator of a symbolic mode with what it works on.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Change {
    /// The bits that may change.
    who: u32,
    operator: Operator,
    /// The bits to add, remove or set.
    bits: Bits,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Add,
    Remove,
    Set,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Bits {
    /// For all of user, group and others; the who mask picks.
    plain: u32,
    /// `X`: execution, for directories and for files that somebody may execute.
    conditional: bool,
    /// `u`, `g`, `o`: the bits that this one has, as a shift.
    copied: Option<u32>,
}

const READ: u32 = 0o444;
const WRITE: u32 = 0o222;
const EXECUTE: u32 = 0o111;
const SET_ID: u32 = 0o6000;
const STICKY: u32 = 0o1000;
const ALL: u32 = 0o7777;

impl Chmod {
    /// Reads a mode: `0644`, `u=rwX,go=rX`. The error is the rule it breaks.
    pub fn parse(text: &str) -> Result<Self, String> {
        if !text.is_empty() && text.chars().all(|c| c.is_ascii_digit()) {
            let octal = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= ALL);
            return match octal {
                Some(mode) => Ok(Self(Form::Octal(mode))),
                None => Err(format!("{text:?} is not an octal mode from 0 to 07777")),
            };
        }
        let wrong = || {
            format!(
                "{text:?} is no mode: octal as 0644, or clauses [ugoa][+-=][rwxXst] with commas as u=rwX,go=rX"
            )
        };
        let mut changes = Vec::new();
        for clause in text.split(',') {
            let letters = clause.len() - clause.trim_start_matches(['u', 'g', 'o', 'a']).len();
            let (letters, mut rest) = clause.split_at(letters);
            let who = (letters.chars())
                .map(|letter| match letter {
                    'u' => 0o4700,
                    'g' => 0o2070,
                    'o' => 0o1007,
                    _ => ALL,
                })
                .reduce(|a, b| a | b)
                .unwrap_or(ALL);
            if rest.is_empty() {
                return Err(wrong());
            }
            while let Some(operator) = rest.chars().next() {
                let operator = match operator {
                    '+' => Operator::Add,
                    '-' => Operator::Remove,
                    '=' => Operator::Set,
                    _ => return Err(wrong()),
                };
                rest = &rest[1..];
                let end = rest.find(['+', '-', '=']).unwrap_or(rest.len());
                let (permissions, after) = rest.split_at(end);
                let bits = Bits::parse(permissions).ok_or_else(wrong)?;
                changes.push(Change { who, operator, bits });
                rest = after;
            }
        }
        Ok(Self(Form::Symbolic(changes)))
    }

    /// Is it a number, which says the whole mode?
    pub(crate) fn is_octal(&self) -> bool {
        matches!(self.0, Form::Octal(_))
    }

    /// Returns the permission bits (the lower 12) of a file or directory that has `mode` now.
    pub fn apply(&self, mode: u32, directory: bool) -> u32 {
        let changes = match &self.0 {
            Form::Octal(mode) => return *mode,
            Form::Symbolic(changes) => changes,
        };
        changes.iter().fold(mode & ALL, |mode, change| {
            let bits = change.bits.of(mode, directory) & change.who;
            match change.operator {
                Operator::Add => mode | bits,
                Operator::Remove => mode & !bits,
                Operator::Set => mode & !change.who | bits,
            }
        })
    }
}

impl Bits {
    fn parse(letters: &str) -> Option<Self> {
        let mut bits = Self::default();
        match letters {
            "u" => bits.copied = Some(6),
            "g" => bits.copied = Some(3),
            "o" => bits.copied = Some(0),
            letters => {
                for letter in letters.chars() {
                    match letter {
                        'r' => bits.plain |= READ,
                        'w' => bits.plain |= WRITE,
                        'x' => bits.plain |= EXECUTE,
                        'X' => bits.conditional = true,
                        's' => bits.plain |= SET_ID,
                        't' => bits.plain |= STICKY,
                        _ => return None,
                    }
                }
            }
        }
        Some(bits)
    }

    fn of(self, mode: u32, directory: bool) -> u32 {
        let conditional = match self.conditional && (directory || mode & EXECUTE != 0) {
            true => EXECUTE,
            false => 0,
        };
        let copied = self.copied.map_or(0, |shift| (mode >> shift & 7) * 0o111);
        self.plain | conditional | copied
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_change_as_chmod_changes_them() {
        for (text, mode, directory, expected) in [
            ("0644", 0o777, false, 0o644),
            ("4755", 0o644, false, 0o4755),
            ("u=rwX,go=rX", 0o600, false, 0o644),
            ("u=rwX,go=rX", 0o700, true, 0o755),
            ("u=rwX,go=rX", 0o711, false, 0o755),
            ("+x", 0o644, false, 0o755),
            ("a-w,u+s", 0o755, false, 0o4555),
            ("+t", 0o777, true, 0o1777),
            ("u+t", 0o777, true, 0o777),
            ("g=u", 0o740, false, 0o770),
            ("g=", 0o2770, false, 0o700),
            ("u+r-w", 0o200, false, 0o400),
            ("o=g-w", 0o660, false, 0o664),
        ] {
            let found = Chmod::parse(text).map(|chmod| chmod.apply(mode, directory));
            assert_eq!(found, Ok(expected), "{text} on {mode:o}");
        }
        for text in ["", "8", "10000", "u", "u+q", "u=rw,", "x+r", "+ug", "0x1"] {
            assert!(Chmod::parse(text).is_err(), "{text:?}");
        }
    }
}
