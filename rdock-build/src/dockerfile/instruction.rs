//! Typed instructions: what a Dockerfile says, before variables are expanded.
use super::heredoc::Heredoc;
use super::source::Span;
use std::time::Duration;

/// One instruction of a stage.
#[derive(Clone, Debug, PartialEq)]
pub struct Instruction {
    /// Where it is, here-documents included.
    pub span: Span,
    /// The instruction's word as written.
    pub keyword: String,
    /// Its text on one line: continuation lines joined, comments gone, here-document bodies left out.
    pub source: String,
    /// The comment lines right above it, without `#`.
    pub comments: Vec<String>,
    /// What it says.
    pub kind: Kind,
}

/// What an instruction says. Texts still hold their variables and quotes; [`crate::dockerfile::Scope::expand`]
/// replaces them.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Kind {
    /// ADD: copies files, archives and URLs.
    Add(Add),
    /// ARG: declares build arguments.
    Arg(Vec<Argument>),
    /// CMD: the image's default arguments.
    Cmd(Command),
    /// COPY: copies files.
    Copy(Copy),
    /// ENTRYPOINT: the image's program.
    Entrypoint(Command),
    /// ENV: sets environment variables.
    Env(Vec<Pair>),
    /// EXPOSE: ports, one word each.
    Expose(Vec<String>),
    /// HEALTHCHECK.
    Healthcheck(Health),
    /// LABEL.
    Label(Vec<Pair>),
    /// MAINTAINER: the image's author.
    Maintainer(String),
    /// ONBUILD: an instruction for the images built on this one.
    Onbuild(Onbuild),
    /// RUN.
    Run(Run),
    /// SHELL: what shell forms run in from here on.
    Shell(Vec<String>),
    /// STOPSIGNAL.
    Stopsignal(String),
    /// USER: `name`, `uid`, `name:group`, `uid:gid`.
    User(String),
    /// VOLUME.
    Volume(Vec<String>),
    /// WORKDIR.
    Workdir(String),
}

impl Kind {
    /// Returns the instruction's word in upper case.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Add(_) => "ADD",
            Self::Arg(_) => "ARG",
            Self::Cmd(_) => "CMD",
            Self::Copy(_) => "COPY",
            Self::Entrypoint(_) => "ENTRYPOINT",
            Self::Env(_) => "ENV",
            Self::Expose(_) => "EXPOSE",
            Self::Healthcheck(_) => "HEALTHCHECK",
            Self::Label(_) => "LABEL",
            Self::Maintainer(_) => "MAINTAINER",
            Self::Onbuild(_) => "ONBUILD",
            Self::Run(_) => "RUN",
            Self::Shell(_) => "SHELL",
            Self::Stopsignal(_) => "STOPSIGNAL",
            Self::User(_) => "USER",
            Self::Volume(_) => "VOLUME",
            Self::Workdir(_) => "WORKDIR",
        }
    }
}

impl Kind {
    /// Bytes of its texts, as far as they grow when variables are replaced.
    pub(crate) fn size(&self) -> usize {
        let pairs = |pairs: &[Pair]| pairs.iter().map(|pair| pair.name.len() + pair.value.len()).sum();
        let words = |words: &[String]| words.iter().map(String::len).sum();
        let files = |files: &Files| {
            let inline = files.inline.iter().map(|file| file.name.len() + file.data.len());
            let sources = files.sources.iter().map(String::len);
            inline.chain(sources).sum::<usize>() + files.destination.len()
        };
        match self {
            Self::Add(add) => files(&add.files),
            Self::Copy(copy) => files(&copy.files),
            Self::Env(list) | Self::Label(list) => pairs(list),
            Self::Expose(list) | Self::Volume(list) => words(list),
            Self::Arg(list) => (list.iter())
                .map(|argument| argument.name.len() + argument.default.as_ref().map_or(0, String::len))
                .sum(),
            Self::User(text) | Self::Workdir(text) | Self::Stopsignal(text) => text.len(),
            _ => 0,
        }
    }
}

/// FROM: how a stage begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct From {
    /// Where it is.
    pub span: Span,
    /// FROM as written.
    pub keyword: String,
    /// The line's text.
    pub source: String,
    /// The comment lines right above it, without `#`.
    pub comments: Vec<String>,
    /// Image, stage or `scratch`; may hold global ARGs.
    pub image: String,
    /// `--platform`; may hold global ARGs.
    pub platform: Option<String>,
    /// `AS`, as written.
    pub as_keyword: Option<String>,
    /// Name of the stage as written; compare it without regard to case.
    pub alias: Option<String>,
}

/// A name of ARG with its default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argument {
    /// Name.
    pub name: String,
    /// Default value; none for a bare name.
    pub default: Option<String>,
}

/// A name and value of ENV or LABEL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Name.
    pub name: String,
    /// Value.
    pub value: String,
    /// Written in the old form `ENV name value`.
    pub legacy: bool,
}

/// A command in one of its two forms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// `CMD text`: the text is given to the shell. Empty for an instruction without arguments.
    Shell(String),
    /// `CMD ["program", "argument"]`: run as it is.
    Exec(Vec<String>),
}

/// COPY.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// What is copied where.
    pub files: Files,
    /// `--from`: stage, index, image or named context. Never holds variables.
    pub from: Option<String>,
    /// `--chown`.
    pub chown: Option<String>,
    /// `--chmod`.
    pub chmod: Option<String>,
    /// `--link`.
    pub link: bool,
    /// `--parents`.
    pub parents: bool,
    /// `--exclude`, in the grammar of `.dockerignore`; never expanded.
    pub exclude: Vec<String>,
}

/// ADD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Add {
    /// What is copied where.
    pub files: Files,
    /// `--chown`.
    pub chown: Option<String>,
    /// `--chmod`.
    pub chmod: Option<String>,
    /// `--link`.
    pub link: bool,
    /// `--exclude`, in the grammar of `.dockerignore`; never expanded.
    pub exclude: Vec<String>,
    /// `--checksum`: digest of a URL's content, or a git commit.
    pub checksum: Option<String>,
    /// `--unpack`; by default local archives are unpacked and downloads are not.
    pub unpack: Option<bool>,
    /// `--keep-git-dir`.
    pub keep_git_dir: Option<bool>,
}

/// Sources and destination of COPY and ADD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// Paths, patterns and URLs.
    pub sources: Vec<String>,
    /// Files given as here-documents.
    pub inline: Vec<InlineFile>,
    /// Where they go.
    pub destination: String,
}

/// A file whose content stands in the Dockerfile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InlineFile {
    /// Name of the file: the here-document's word.
    pub name: String,
    /// Its content; `<<-` has taken the leading tabs away.
    pub data: String,
    /// Are variables in it expanded?
    pub expand: bool,
}

/// RUN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// What runs.
    pub command: Command,
    /// Here-documents of a shell form, in order. [`Run::script`] puts them together with the command.
    pub heredocs: Vec<Heredoc>,
    /// `--mount`, in order. [`crate::dockerfile::Scope::mounts`] expands and reads them.
    pub mounts: Vec<MountFlag>,
    /// `--network`.
    pub network: Network,
    /// `--security`.
    pub security: Security,
    /// `--device`.
    pub devices: Vec<Device>,
}

/// What a shell-form RUN gives to its shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Script {
    /// The text for the shell; here-documents that the shell itself reads are in it.
    Shell(String),
    /// One here-document with a `#!` line: an executable file, run as it is.
    File {
        /// Its name, for `/dev/pipes/<name>`.
        name: String,
        /// Its content.
        data: String,
    },
}

impl Run {
    /// Returns what the shell gets, or `None` for the exec form.
    pub fn script(&self) -> Option<Script> {
        let Command::Shell(text) = &self.command else {
            return None;
        };
        let Some(first) = self.heredocs.first() else {
            return Some(Script::Shell(text.clone()));
        };
        if Heredoc::from_word(text).is_none() {
            // The shell reads the here-documents itself.
            let mut script = text.clone();
            for heredoc in &self.heredocs {
                script.extend(["\n", &heredoc.content, &heredoc.name]);
            }
            return Some(Script::Shell(script));
        }
        let data = first.text();
        Some(match data.starts_with("#!") {
            true => Script::File {
                name: first.name.clone(),
                data,
            },
            false => Script::Shell(data),
        })
    }
}

/// A `--mount` as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountFlag {
    /// Its value.
    pub text: String,
    /// Where it is.
    pub span: Span,
}

/// `RUN --network`.
#[derive(Clone, std::marker::Copy, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// The build's network.
    #[default]
    Default,
    /// No network, only loopback.
    None,
    /// The host's network; the build must allow it.
    Host,
}

/// `RUN --security`.
#[derive(Clone, std::marker::Copy, Debug, Default, PartialEq, Eq)]
pub enum Security {
    /// Confined as any container.
    #[default]
    Sandbox,
    /// With all privileges; the build must allow it.
    Insecure,
}

/// `RUN --device`: a device of the Container Device Interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// `vendor/class=name`, or `vendor/class` for the default one.
    pub name: String,
    /// Does the step fail without it?
    pub required: bool,
}

/// HEALTHCHECK. A value of zero, or none, inherits the default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// In the form of the image config: `NONE`, or `CMD` and arguments, or `CMD-SHELL` and one text.
    pub test: Vec<String>,
    /// `--interval`.
    pub interval: Option<Duration>,
    /// `--timeout`.
    pub timeout: Option<Duration>,
    /// `--start-period`.
    pub start_period: Option<Duration>,
    /// `--start-interval`.
    pub start_interval: Option<Duration>,
    /// `--retries`.
    pub retries: Option<u32>,
}

/// ONBUILD.
#[derive(Clone, Debug, PartialEq)]
pub struct Onbuild {
    /// The instruction's text as the image config keeps it.
    pub expression: String,
    /// The instruction.
    pub trigger: Box<Instruction>,
}
