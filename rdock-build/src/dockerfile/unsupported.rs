//! What is read but not built yet, told before anything runs.
use super::error::{Fault, ParseError, Problem};
use super::instruction::{Instruction, Kind, Security};
use super::mount::{Mount, MountKind};
use super::source::{Source, Span};
use super::{Dockerfile, Stage};

impl Dockerfile {
    /// Checks that all instructions of some stages can be built, and names the first one that cannot.
    pub fn supported<'a>(&self, stages: impl IntoIterator<Item = &'a Stage>) -> Result<(), ParseError> {
        (stages.into_iter().flat_map(|stage| &stage.instructions))
            .try_for_each(|instruction| instruction.supported(&self.source))
    }
}

impl Instruction {
    /// Checks that the instruction can be built. Call it again for what [`super::Scope::expand`] returns: a variable
    /// may hold a git address or a mount's type.
    pub fn supported(&self, source: &Source) -> Result<(), ParseError> {
        self.kind.supported(self.span, source)
    }
}

impl Kind {
    /// Checks that an expanded instruction at a place can be built.
    pub fn supported(&self, span: Span, source: &Source) -> Result<(), ParseError> {
        let unsupported = |feature: String, span: Span| {
            let instruction = self.name();
            Err(Fault::new(Problem::Unsupported { instruction, feature }, span).at(source))
        };
        match self {
            Self::Run(run) => {
                for flag in &run.mounts {
                    if let Ok(Mount {
                        kind: MountKind::Ssh, ..
                    }) = Mount::check(&flag.text)
                    {
                        return unsupported("--mount=type=ssh".to_owned(), flag.span);
                    }
                }
                if run.security == Security::Insecure {
                    return unsupported("--security=insecure".to_owned(), span);
                }
                if !run.devices.is_empty() {
                    return unsupported("--device".to_owned(), span);
                }
                Ok(())
            }
            Self::Add(add) => {
                if let Some(address) = add.files.sources.iter().find(|source| is_git(source)) {
                    return unsupported(format!("the git source {address:?}"), span);
                }
                if add.keep_git_dir.is_some() {
                    return unsupported("--keep-git-dir".to_owned(), span);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// Is a source of ADD a git repository? `git://`, `ssh://`, `user@host:path`, or a web address whose path ends in
/// `.git`.
pub fn is_git(source: &str) -> bool {
    if source.starts_with("git://") || source.starts_with("ssh://") {
        return true;
    }
    let before = source.split(['#', '?']).next().unwrap_or_default();
    if let Some(rest) = before
        .strip_prefix("https://")
        .or_else(|| before.strip_prefix("http://"))
    {
        return rest
            .split_once('/')
            .is_some_and(|(_, path)| path.ends_with(".git"));
    }
    // As scp writes it.
    let Some((user, rest)) = before.split_once('@') else {
        return false;
    };
    let word = |text: &str| {
        !text.is_empty()
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    };
    word(user)
        && rest
            .split_once(':')
            .is_some_and(|(host, path)| word(host) && !path.is_empty())
}
