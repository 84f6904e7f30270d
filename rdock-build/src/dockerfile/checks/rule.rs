//! The rules and how a file turns them off.
use super::super::source::Span;
use std::collections::BTreeSet;
use std::fmt;

macro_rules! rules {
    ($($(#[doc = $doc:literal])+ $name:ident),+ $(,)?) => {
        /// A rule of the build checks, by BuildKit's name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Rule {
            $($(#[doc = $doc])+ $name),+
        }

        impl Rule {
            /// Returns the rule's name.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name)),+
                }
            }
        }
    };
}

rules! {
    /// A stage's name has capitals.
    StageNameCasing,
    /// `FROM` and `as` differ in case.
    FromAsCasing,
    /// A continuation line with nothing on it.
    NoEmptyContinuation,
    /// An instruction's case differs from that of most.
    ConsistentInstructionCasing,
    /// Two stages have one name.
    DuplicateStageName,
    /// A stage is called `scratch` or `context`.
    ReservedStageName,
    /// CMD or ENTRYPOINT in shell form: signals reach the shell, not the program.
    JSONArgsRecommended,
    /// MAINTAINER.
    MaintainerDeprecated,
    /// FROM names a variable that no ARG declares.
    UndefinedArgInFrom,
    /// A relative WORKDIR with no absolute one before it.
    WorkdirRelativePath,
    /// An instruction names a variable that is not set.
    UndefinedVar,
    /// A second CMD, ENTRYPOINT or HEALTHCHECK makes the first one void.
    MultipleInstructionsDisallowed,
    /// `ENV name value` without `=`.
    LegacyKeyValueFormat,
    /// The base image is for another platform than asked for.
    InvalidBaseImagePlatform,
    /// `--platform=$TARGETPLATFORM`, which is the default.
    RedundantTargetPlatform,
    /// ARG or ENV has the name of a secret.
    SecretsUsedInArgOrEnv,
    /// FROM has no valid image when no build argument is given.
    InvalidDefaultArgInFrom,
    /// `FROM --platform` with a constant.
    FromPlatformFlagConstDisallowed,
    /// A source of COPY or ADD is left out by `.dockerignore`.
    CopyIgnoredFile,
    /// A comment above ARG or FROM does not begin with its name. Off unless asked for.
    InvalidDefinitionDescription,
    /// A protocol of EXPOSE has capitals.
    ExposeProtoCasing,
    /// EXPOSE with an address or a host port.
    ExposeInvalidFormat,
}

impl Rule {
    /// Must it be asked for?
    fn is_experimental(self) -> bool {
        self == Self::InvalidDefinitionDescription
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A finding of the build checks: it does not stop a build unless the file says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The rule.
    pub rule: Rule,
    /// Where.
    pub span: Span,
    /// What was found.
    pub detail: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.detail)
    }
}

/// Options of the checks: `skip=A,B;experimental=C;error=true`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    skip_all: bool,
    skip: BTreeSet<String>,
    experimental_all: bool,
    experimental: BTreeSet<String>,
    pub(super) error: bool,
}

impl Options {
    /// Reads options. The error is the rule they break.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut options = Self::default();
        if text.trim().is_empty() {
            return Ok(options);
        }
        for part in text.splitn(3, ';') {
            let (key, value) = (part.split_once('='))
                .map(|(key, value)| (key.trim(), value.trim()))
                .ok_or_else(|| format!("invalid option {part:?}: key=value"))?;
            let names = || value.split(',').map(|name| name.trim().to_owned()).collect();
            match key {
                "skip" if value == "all" => options.skip_all = true,
                "skip" => options.skip = names(),
                "experimental" if value == "all" => options.experimental_all = true,
                "experimental" => options.experimental = names(),
                "error" => {
                    options.error = match value {
                        "1" | "t" | "T" | "true" | "TRUE" | "True" => true,
                        "0" | "f" | "F" | "false" | "FALSE" | "False" => false,
                        _ => return Err(format!("error is true or false, not {value:?}")),
                    }
                }
                _ => return Err(format!("unknown option {key:?}: skip, experimental or error")),
            }
        }
        Ok(options)
    }

    /// Adds what a comment right above an instruction says: `# check=skip=A`.
    pub(super) fn with_comments(&self, comments: &[String]) -> Self {
        let mut options = self.clone();
        let found = (comments.iter())
            .filter_map(|comment| super::super::directives::split(comment))
            .find(|(name, _)| name.eq_ignore_ascii_case("check"));
        let value = found.and_then(|(_, value)| value.split(' ').next());
        if let Some(Ok(more)) = value.map(Self::parse) {
            options.skip_all |= more.skip_all;
            options.skip.extend(more.skip);
            options.experimental_all |= more.experimental_all;
            options.experimental.extend(more.experimental);
        }
        options
    }

    pub(super) fn reports(&self, rule: Rule) -> bool {
        match rule.is_experimental() {
            true => self.experimental_all || self.experimental.contains(rule.name()),
            false => !(self.skip_all || self.skip.contains(rule.name())),
        }
    }
}
