//! `RUN --mount`.
use super::error::Problem;
use super::suggest;

/// A mount of one RUN, its variables expanded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mount {
    /// `type`.
    pub kind: MountKind,
    /// `from`: stage, image or named context; none is the build context (for a cache: an empty directory).
    pub from: Option<String>,
    /// `source`: path in `from`, or a secret's id.
    pub source: Option<String>,
    /// `target`: path in the container; a relative one starts at WORKDIR, and none is WORKDIR.
    pub target: Option<String>,
    /// May the step only read it? By default yes for `bind` and `secret`, no for `cache` and `tmpfs`.
    pub read_only: bool,
    /// `size` of a tmpfs in bytes; none is unlimited.
    pub size: Option<u64>,
    /// `id` of a cache, secret or ssh agent.
    pub id: Option<String>,
    /// `sharing` of a cache.
    pub sharing: Sharing,
    /// `required`: does the step fail if the secret or agent is missing?
    pub required: bool,
    /// `env`: the variable that gets the secret's value.
    pub env: Option<String>,
    /// `mode`.
    pub mode: Option<u32>,
    /// `uid`.
    pub uid: Option<u32>,
    /// `gid`.
    pub gid: Option<u32>,
}

/// What a [`Mount`] shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MountKind {
    /// Files of the context, a stage or an image. What the step writes there is thrown away.
    #[default]
    Bind,
    /// A directory that later builds see again.
    Cache,
    /// An empty file system in memory.
    Tmpfs,
    /// A file with a secret.
    Secret,
    /// The socket of an ssh agent.
    Ssh,
}

impl MountKind {
    /// Returns its word in the file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bind => "bind",
            Self::Cache => "cache",
            Self::Tmpfs => "tmpfs",
            Self::Secret => "secret",
            Self::Ssh => "ssh",
        }
    }
}

/// Who may use a cache mount at one time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sharing {
    /// Any number of steps.
    #[default]
    Shared,
    /// One step; another one gets a directory of its own.
    Private,
    /// One step; another one waits.
    Locked,
}

const KINDS: [(&str, MountKind); 5] = [
    ("bind", MountKind::Bind),
    ("cache", MountKind::Cache),
    ("tmpfs", MountKind::Tmpfs),
    ("secret", MountKind::Secret),
    ("ssh", MountKind::Ssh),
];
const SHARINGS: [(&str, Sharing); 3] = [
    ("shared", Sharing::Shared),
    ("private", Sharing::Private),
    ("locked", Sharing::Locked),
];
const KEYS: [&str; 19] = [
    "type",
    "from",
    "source",
    "src",
    "target",
    "dst",
    "destination",
    "readonly",
    "ro",
    "readwrite",
    "rw",
    "required",
    "size",
    "id",
    "sharing",
    "mode",
    "uid",
    "gid",
    "env",
];

/// What is wrong with a mount, and what may have been meant.
pub(crate) type Wrong = (Problem, Option<String>);

fn wrong(reason: impl Into<String>) -> Wrong {
    let problem = Problem::FlagValue {
        instruction: "RUN",
        flag: "mount".to_owned(),
        reason: reason.into(),
    };
    (problem, None)
}

/// What is known of a value.
enum Value {
    /// Its text.
    Known(String),
    /// It holds variables that are not expanded yet.
    Later,
}

impl Mount {
    /// Reads a flag's value whose variables `expand` replaces.
    pub(crate) fn read(
        text: &str,
        mut expand: impl FnMut(&str) -> Result<String, Problem>,
    ) -> Result<Self, Wrong> {
        Self::fields(text, |value| {
            expand(value).map(Value::Known).map_err(|problem| (problem, None))
        })
        .map(|(mount, _)| mount)
    }

    /// Checks all that can be checked before variables are known, and returns the mount as far as it is known.
    pub(crate) fn check(text: &str) -> Result<Self, Wrong> {
        Self::fields(text, |value| {
            Ok(match value.contains(['$', '\'', '"', '\\', '`']) {
                true => Value::Later,
                false => Value::Known(value.to_owned()),
            })
        })
        .map(|(mount, _)| mount)
    }

    fn fields(
        text: &str,
        mut known: impl FnMut(&str) -> Result<Value, Wrong>,
    ) -> Result<(Self, bool), Wrong> {
        let mut mount = Self::default();
        let mut fields = Vec::new();
        for field in split_csv(text).map_err(wrong)? {
            let (key, value) = match field.split_once('=') {
                Some((key, value)) => (key, Some(value)),
                None => (field.as_str(), None),
            };
            let key = key.to_ascii_lowercase();
            if !KEYS.contains(&key.as_str()) {
                let (problem, _) = wrong(format!("unknown key {key:?} in {field:?}"));
                return Err((problem, suggest::closest_exact(&key, KEYS)));
            }
            if key == "from"
                && let Some(value) = value
                && value.find('$').is_some_and(|at| at + 1 != value.len())
            {
                return Err(wrong(
                    "'from' takes no variables: write a stage 'FROM $name AS alias' and use the alias",
                ));
            }
            fields.push((key, value.map(str::to_owned), field));
        }
        // The type decides which keys are right, wherever it stands.
        let mut open = false;
        for (_, value, _) in fields.iter().filter(|(key, ..)| key == "type") {
            match known(value.as_deref().ok_or_else(|| wrong("'type' needs a value"))?)? {
                Value::Known(word) => mount.kind = one_of("type", &word, &KINDS)?,
                Value::Later => open = true,
            }
        }
        let mut access = None;
        let mut sharing = None;
        for (key, value, field) in fields {
            let value = match value {
                Some(value) => match known(&value)? {
                    Value::Known(value) => Some(value),
                    Value::Later => {
                        open = true;
                        continue;
                    }
                },
                None => None,
            };
            let number = |radix| {
                let text = value.as_deref().unwrap_or_default();
                match text.is_empty() || text.starts_with(['+', '-']) {
                    true => Err(()),
                    false => u32::from_str_radix(text, radix).map_err(drop),
                }
                .map(Some)
                .map_err(|()| wrong(format!("{key:?} is no number of base {radix} in {field:?}")))
            };
            let only = |kinds: &[MountKind]| match open || kinds.contains(&mount.kind) {
                true => Ok(()),
                false => Err(wrong(format!(
                    "{key:?} is not allowed for type {}",
                    mount.kind.name()
                ))),
            };
            let flag = || match &value {
                None => Ok(true),
                Some(value) => match value.as_str() {
                    "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
                    "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
                    _ => Err(wrong(format!("{key:?} is true or false, not {value:?}"))),
                },
            };
            let with_value = || match &value {
                Some(value) => Ok(value.clone()),
                None => Err(wrong(format!("{field:?} needs a value: {key}=..."))),
            };
            match key.as_str() {
                "readonly" | "ro" => access = Some(flag()?),
                "readwrite" | "rw" => access = Some(!flag()?),
                "required" => {
                    only(&[MountKind::Secret, MountKind::Ssh])?;
                    mount.required = flag()?;
                }
                "type" => {}
                "from" => mount.from = Some(with_value()?).filter(|from| !from.is_empty()),
                "source" | "src" => mount.source = Some(with_value()?),
                "target" | "dst" | "destination" => mount.target = Some(with_value()?),
                "id" => mount.id = Some(with_value()?),
                "env" => mount.env = Some(with_value()?),
                "sharing" => sharing = Some(one_of("sharing", &with_value()?, &SHARINGS)?),
                "size" => {
                    only(&[MountKind::Tmpfs])?;
                    let text = with_value()?;
                    let size = super::values::size(&text);
                    mount.size = Some(size.ok_or_else(|| wrong(format!("'size' is no size: {text:?}")))?);
                }
                "mode" => mount.mode = number(8)?,
                "uid" => mount.uid = number(10)?,
                _ => mount.gid = number(10)?,
            }
        }
        let writable = matches!(mount.kind, MountKind::Cache | MountKind::Tmpfs);
        mount.read_only = access.unwrap_or(!writable);
        mount.sharing = sharing.unwrap_or_default();
        if !open {
            mount.complete(sharing.is_some())?;
        }
        Ok((mount, open))
    }

    /// What only the whole mount can tell.
    fn complete(&self, sharing: bool) -> Result<(), Wrong> {
        let kind = self.kind;
        let owned = matches!(kind, MountKind::Secret | MountKind::Ssh | MountKind::Cache);
        for (key, set) in [
            ("mode", self.mode.is_some() && !owned),
            ("uid", self.uid.is_some() && !owned),
            ("gid", self.gid.is_some() && !owned),
            ("sharing", sharing && kind != MountKind::Cache),
            ("from", self.from.is_some() && kind == MountKind::Secret),
        ] {
            if set {
                return Err(wrong(format!("{key:?} is not allowed for type {}", kind.name())));
            }
        }
        let given = |text: &Option<String>| text.as_deref().is_some_and(|text| !text.is_empty());
        match kind {
            MountKind::Secret if given(&self.source) && given(&self.id) => Err(wrong(
                "'source' and 'id' are the same thing for type secret: give one",
            )),
            MountKind::Secret if !given(&self.source) && !given(&self.target) && !given(&self.id) => {
                Err(wrong("type secret needs 'id' or 'target'"))
            }
            _ => Ok(()),
        }
    }

    /// Returns the id of a cache, secret or agent, with its default: a cache's is its target, a secret's its source
    /// or the last part of its target, an agent's `default`.
    pub fn identity(&self) -> &str {
        let given = |text: &'_ Option<String>| text.as_deref().is_some_and(|text| !text.is_empty());
        match self.kind {
            MountKind::Secret if given(&self.source) => self.source.as_deref().unwrap_or_default(),
            _ if given(&self.id) => self.id.as_deref().unwrap_or_default(),
            MountKind::Ssh => "default",
            MountKind::Secret => {
                let target = self.target.as_deref().unwrap_or_default().trim_end_matches('/');
                target.rsplit('/').next().unwrap_or_default()
            }
            _ => self.target.as_deref().unwrap_or_default(),
        }
    }
}

fn one_of<T: Copy>(key: &str, word: &str, known: &[(&'static str, T)]) -> Result<T, Wrong> {
    let lower = word.to_lowercase();
    match known.iter().find(|(name, _)| *name == lower) {
        Some((_, value)) => Ok(*value),
        None => {
            let (problem, _) = wrong(format!("{key:?} knows no {word:?}"));
            Err((
                problem,
                suggest::closest_exact(&lower, known.iter().map(|(name, _)| *name)),
            ))
        }
    }
}

/// Splits a line of comma-separated values; a field in double quotes may hold commas, and `""` for a quote.
pub(crate) fn split_csv(text: &str) -> Result<Vec<String>, String> {
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let (field, after) = match rest.strip_prefix('"') {
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                let field = &rest[..end];
                if field.contains('"') {
                    return Err(format!("a quote inside {field:?}: quote the whole field"));
                }
                (field.to_owned(), &rest[end..])
            }
            Some(mut quoted) => {
                let mut field = String::new();
                loop {
                    let end = quoted.find('"').ok_or("a quote is not closed")?;
                    field.push_str(&quoted[..end]);
                    quoted = &quoted[end + 1..];
                    match quoted.strip_prefix('"') {
                        Some(after) => {
                            field.push('"');
                            quoted = after;
                        }
                        None => break,
                    }
                }
                (field, quoted)
            }
        };
        fields.push(field);
        rest = match after.strip_prefix(',') {
            Some(after) => after,
            None if after.is_empty() => return Ok(fields),
            None => return Err(format!("{after:?} follows a quoted field")),
        };
    }
}
