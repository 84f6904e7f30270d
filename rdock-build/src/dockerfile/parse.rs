//! Statements become typed instructions.
use super::error::{Fault, Problem};
use super::heredoc::Heredoc;
use super::instruction::{
    Add, Argument, Command, Copy, Files, From, Health, InlineFile, Instruction, Kind, MountFlag, Network,
    Onbuild, Run, Security,
};
use super::mount::Mount;
use super::source::Span;
use super::suggest;
use super::syntax::{Arguments, Flag, Statement};
use super::values;
use std::time::Duration;

/// A FROM, or an instruction of a stage.
pub(crate) enum Parsed {
    From(From),
    Instruction(Instruction),
}

/// Reads a statement.
pub(crate) fn statement(statement: &Statement) -> Result<Parsed, Fault> {
    if statement.instruction == "FROM" {
        return from(statement).map(Parsed::From);
    }
    Ok(Parsed::Instruction(Instruction {
        span: statement.span,
        keyword: statement.keyword.clone(),
        source: statement.text.clone(),
        comments: statement.comments.clone(),
        kind: kind(statement)?,
    }))
}

fn kind(statement: &Statement) -> Result<Kind, Fault> {
    let fault = |reason: &str| Fault::arguments(statement.instruction, statement.arguments_span, reason);
    Ok(match statement.instruction {
        "ADD" => Kind::Add(add(statement)?),
        "COPY" => Kind::Copy(copy(statement)?),
        "RUN" => Kind::Run(run(statement)?),
        "HEALTHCHECK" => Kind::Healthcheck(health(statement)?),
        "ONBUILD" => Kind::Onbuild(onbuild(statement)?),
        name => {
            Flags::read(statement, &[])?;
            match (name, &statement.arguments) {
                ("CMD", arguments) => Kind::Cmd(command(arguments)),
                ("ENTRYPOINT", arguments) => Kind::Entrypoint(command(arguments)),
                ("SHELL", Arguments::Json(words)) if !words.is_empty() => Kind::Shell(words.clone()),
                ("SHELL", Arguments::Text(_)) => {
                    return Err(fault("takes the JSON form alone: SHELL [\"program\"]"));
                }
                ("ENV", Arguments::Pairs(pairs)) | ("LABEL", Arguments::Pairs(pairs)) => {
                    if pairs.iter().any(|pair| pair.name.is_empty()) {
                        return Err(fault("has a blank name"));
                    }
                    match name {
                        "ENV" => Kind::Env(pairs.clone()),
                        _ => Kind::Label(pairs.clone()),
                    }
                }
                ("ARG", Arguments::Words(words)) => Kind::Arg(
                    (words.iter())
                        .map(|word| match word.split_once('=') {
                            Some(("", _)) => Err(fault("has a blank name")),
                            Some((name, default)) => Ok(Argument {
                                name: name.to_owned(),
                                default: Some(default.to_owned()),
                            }),
                            None => Ok(Argument {
                                name: word.clone(),
                                default: None,
                            }),
                        })
                        .collect::<Result<_, _>>()?,
                ),
                ("EXPOSE", Arguments::Words(words)) => {
                    let mut words = words.clone();
                    words.sort();
                    Kind::Expose(words)
                }
                ("VOLUME", Arguments::Words(words) | Arguments::Json(words)) if !words.is_empty() => {
                    let volumes: Vec<_> = words.iter().map(|word| word.trim().to_owned()).collect();
                    if volumes.iter().any(String::is_empty) {
                        return Err(fault("has an empty path"));
                    }
                    Kind::Volume(volumes)
                }
                ("MAINTAINER", Arguments::Text(text)) => Kind::Maintainer(text.clone()),
                ("STOPSIGNAL", Arguments::Text(text)) => Kind::Stopsignal(text.clone()),
                ("USER", Arguments::Text(text)) => Kind::User(text.clone()),
                ("WORKDIR", Arguments::Text(text)) => Kind::Workdir(text.clone()),
                ("MAINTAINER" | "STOPSIGNAL" | "USER" | "WORKDIR", _) => {
                    return Err(fault("requires exactly one argument"));
                }
                _ => return Err(fault("requires at least one argument")),
            }
        }
    })
}

fn command(arguments: &Arguments) -> Command {
    match arguments {
        Arguments::Json(words) => Command::Exec(words.clone()),
        Arguments::Text(text) => Command::Shell(text.clone()),
        _ => Command::Shell(String::new()),
    }
}

fn from(statement: &Statement) -> Result<From, Fault> {
    let mut flags = Flags::read(statement, &[("platform", Takes::One)])?;
    let fault = |reason: &str| Fault::arguments("FROM", statement.arguments_span, reason);
    let Arguments::Words(words) = &statement.arguments else {
        return Err(fault("requires an image, a stage or scratch"));
    };
    let (image, as_keyword, alias) = match words.as_slice() {
        [image] => (image, None, None),
        [image, word, alias] if word.eq_ignore_ascii_case("as") => (image, Some(word), Some(alias)),
        [_, word, _] => {
            return Err(fault("requires one argument, or three: FROM image AS name")
                .suggest(suggest::closest(word, ["AS"])));
        }
        _ => return Err(fault("requires one argument, or three: FROM image AS name")),
    };
    if let Some(alias) = alias {
        let lower = alias.to_lowercase();
        let right = lower.starts_with(|c: char| c.is_ascii_lowercase())
            && lower
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
        if !right {
            return Err(fault(&format!(
                "has no valid stage name in {alias:?}: a letter, then letters, digits, '-', '_', '.'"
            )));
        }
    }
    Ok(From {
        span: statement.span,
        keyword: statement.keyword.clone(),
        source: statement.text.clone(),
        comments: statement.comments.clone(),
        image: image.clone(),
        platform: flags.one("platform"),
        as_keyword: as_keyword.cloned(),
        alias: alias.cloned(),
    })
}

fn files(statement: &Statement) -> Result<Files, Fault> {
    let name = statement.instruction;
    let fault = |reason: &str| Fault::arguments(name, statement.arguments_span, reason);
    let words = match &statement.arguments {
        Arguments::Words(words) | Arguments::Json(words) => words.as_slice(),
        _ => &[],
    };
    let [first @ .., destination] = words else {
        return Err(fault(
            "requires at least two arguments: sources and a destination",
        ));
    };
    if first.is_empty() {
        return Err(fault(
            "requires at least two arguments, but only one was provided: the destination is missing",
        ));
    }
    let plain = matches!(statement.arguments, Arguments::Json(_));
    if !plain && Heredoc::from_word(destination).is_some() {
        return Err(fault("cannot have a here-document as its destination"));
    }
    let mut sources = Vec::new();
    let mut inline = Vec::new();
    let mut heredocs = statement.heredocs.iter();
    let mut words = first.iter();
    while let Some(word) = words.next() {
        // `<< EOF`: the lexer that found the here-documents takes both words as one.
        let open = !plain && word.trim_start_matches(|c: char| c.is_ascii_digit()) == "<<";
        let joined = match (open, words.as_slice().first()) {
            (true, Some(next)) => format!("{word}{next}"),
            _ => word.clone(),
        };
        let Some(opened) = Heredoc::from_word(&joined).filter(|_| !plain) else {
            sources.push(word.clone());
            continue;
        };
        if open {
            words.next();
        }
        if let Some(heredoc) = heredocs.by_ref().find(|heredoc| heredoc.name == opened.name) {
            inline.push(InlineFile {
                name: heredoc.name.clone(),
                data: heredoc.text(),
                expand: heredoc.expand,
            });
        }
    }
    Ok(Files {
        sources,
        inline,
        destination: destination.clone(),
    })
}

fn copy(statement: &Statement) -> Result<Copy, Fault> {
    let files = files(statement)?;
    let mut flags = Flags::read(
        statement,
        &[
            ("from", Takes::One),
            ("chown", Takes::One),
            ("chmod", Takes::One),
            ("link", Takes::Switch),
            ("parents", Takes::Switch),
            ("exclude", Takes::Many),
        ],
    )?;
    let from = flags.one("from");
    if let Some(from) = &from
        && from.find('$').is_some_and(|at| at + 1 != from.len())
    {
        return Err(flags.wrong(
            "from",
            "takes no variables: write a stage 'FROM $name AS alias' and copy from the alias",
        ));
    }
    Ok(Copy {
        files,
        from,
        chown: flags.one("chown"),
        chmod: flags.one("chmod"),
        link: flags.switch("link").unwrap_or_default(),
        parents: flags.switch("parents").unwrap_or_default(),
        exclude: flags.many("exclude"),
    })
}

fn add(statement: &Statement) -> Result<Add, Fault> {
    let files = files(statement)?;
    let mut flags = Flags::read(
        statement,
        &[
            ("chown", Takes::One),
            ("chmod", Takes::One),
            ("link", Takes::Switch),
            ("keep-git-dir", Takes::Switch),
            ("checksum", Takes::One),
            ("unpack", Takes::Switch),
            ("exclude", Takes::Many),
        ],
    )?;
    Ok(Add {
        files,
        chown: flags.one("chown"),
        chmod: flags.one("chmod"),
        link: flags.switch("link").unwrap_or_default(),
        exclude: flags.many("exclude"),
        checksum: flags.one("checksum"),
        unpack: flags.switch("unpack"),
        keep_git_dir: flags.switch("keep-git-dir"),
    })
}

fn run(statement: &Statement) -> Result<Run, Fault> {
    let mut flags = Flags::read(
        statement,
        &[
            ("mount", Takes::Many),
            ("network", Takes::One),
            ("security", Takes::One),
            ("device", Takes::Many),
        ],
    )?;
    let mounts: Vec<MountFlag> = (flags.values.iter())
        .filter(|value| value.name == "mount")
        .map(|value| MountFlag {
            text: value.text.clone(),
            span: value.span,
        })
        .collect();
    for mount in &mounts {
        Mount::check(&mount.text)
            .map_err(|(problem, meant)| Fault::new(problem, mount.span).suggest(meant))?;
    }
    let network = match flags.one("network").as_deref() {
        None | Some("default") => Network::Default,
        Some("none") => Network::None,
        Some("host") => Network::Host,
        Some(other) => {
            let meant = suggest::closest(other, ["default", "none", "host"]);
            return Err(flags.wrong("network", "is default, none or host").suggest(meant));
        }
    };
    let security = match flags.one("security").as_deref() {
        None | Some("sandbox") => Security::Sandbox,
        Some("insecure") => Security::Insecure,
        Some(other) => {
            let meant = suggest::closest(other, ["sandbox", "insecure"]);
            return Err(flags.wrong("security", "is sandbox or insecure").suggest(meant));
        }
    };
    let mut devices = Vec::new();
    for text in flags.many("device") {
        let read = values::device(&text);
        devices.push(read.map_err(|(reason, meant)| flags.wrong("device", &reason).suggest(meant))?);
    }
    if statement.arguments == Arguments::None {
        let reason = "requires a command";
        return Err(Fault::arguments("RUN", statement.arguments_span, reason));
    }
    Ok(Run {
        command: command(&statement.arguments),
        heredocs: statement.heredocs.clone(),
        mounts,
        network,
        security,
        devices,
    })
}

fn health(statement: &Statement) -> Result<Health, Fault> {
    let fault = |reason: &str| Fault::arguments("HEALTHCHECK", statement.arguments_span, reason);
    let Arguments::Typed(word, rest) = &statement.arguments else {
        return Err(fault(
            "requires at least one argument: NONE, or CMD and a command",
        ));
    };
    let none = word.eq_ignore_ascii_case("NONE");
    let names = ["interval", "timeout", "start-period", "start-interval", "retries"];
    let known = names.map(|name| (name, Takes::One));
    let mut flags = Flags::read(statement, if none { &[] } else { &known })?;
    if none {
        return match **rest {
            Arguments::None => Ok(Health {
                test: vec!["NONE".to_owned()],
                ..Health::default()
            }),
            _ => Err(fault("NONE takes no arguments")),
        };
    }
    if !word.eq_ignore_ascii_case("CMD") {
        return Err(fault(&format!("knows no {word:?}: NONE, or CMD and a command"))
            .suggest(suggest::closest(word, ["CMD", "NONE"])));
    }
    let test = match &**rest {
        Arguments::Json(words) if !words.is_empty() => std::iter::once("CMD".to_owned())
            .chain(words.iter().cloned())
            .collect(),
        Arguments::Text(text) => vec!["CMD-SHELL".to_owned(), text.clone()],
        _ => return Err(fault("CMD needs a command")),
    };
    let retries = match flags.one("retries") {
        Some(text) => Some(
            (text.parse::<u32>().ok().filter(|n| i32::try_from(*n).is_ok()))
                .ok_or_else(|| flags.wrong("retries", "is a number, not negative"))?,
        ),
        None => None,
    };
    let mut time = |name: &'static str| -> Result<Option<Duration>, Fault> {
        let Some(text) = flags.one(name) else {
            return Ok(None);
        };
        let found = values::duration(&text)
            .ok_or_else(|| flags.wrong(name, "is a duration such as 30s, 1m30s or 500ms"))?;
        match !found.is_zero() && found < Duration::from_millis(1) {
            true => Err(flags.wrong(name, "is at least 1ms")),
            false => Ok(Some(found)),
        }
    };
    Ok(Health {
        test,
        interval: time("interval")?,
        timeout: time("timeout")?,
        start_period: time("start-period")?,
        start_interval: time("start-interval")?,
        retries,
    })
}

fn onbuild(statement: &Statement) -> Result<Onbuild, Fault> {
    Flags::read(statement, &[])?;
    let fault = |reason: &str| Fault::arguments("ONBUILD", statement.arguments_span, reason);
    let Arguments::Nested(nested) = &statement.arguments else {
        return Err(fault("requires an instruction"));
    };
    if matches!(nested.instruction, "FROM" | "MAINTAINER" | "ONBUILD") {
        return Err(fault(&format!(
            "cannot have {} as its trigger",
            nested.instruction
        )));
    }
    let Parsed::Instruction(trigger) = self::statement(nested)? else {
        return Err(fault("cannot have FROM as its trigger"));
    };
    let mut expression = nested.text.clone();
    for heredoc in &nested.heredocs {
        expression.extend(["\n", &heredoc.content, &heredoc.name]);
    }
    Ok(Onbuild {
        expression,
        trigger: Box::new(trigger),
    })
}

/// What a flag takes.
#[derive(Clone, Copy, PartialEq)]
enum Takes {
    /// A value, once.
    One,
    /// A value, any number of times.
    Many,
    /// `true`, `false` or nothing, once.
    Switch,
}

/// The flags of a statement, checked against what its instruction knows.
struct Flags<'a> {
    instruction: &'static str,
    values: Vec<FlagValue<'a>>,
}

struct FlagValue<'a> {
    name: &'a str,
    text: String,
    span: Span,
}

impl<'a> Flags<'a> {
    fn read(statement: &'a Statement, known: &[(&'static str, Takes)]) -> Result<Self, Fault> {
        let instruction = statement.instruction;
        let mut values: Vec<FlagValue<'a>> = Vec::new();
        for Flag { text, span } in &statement.flags {
            let span = *span;
            let (name, value) = match text.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (text.as_str(), None),
            };
            let name = name.trim_start_matches("--");
            let flag = name.to_owned();
            let Some((_, takes)) = known.iter().find(|(known, _)| *known == name) else {
                let meant = suggest::closest_exact(name, known.iter().map(|(name, _)| *name));
                return Err(Fault::new(Problem::UnknownFlag { instruction, flag }, span)
                    .suggest(meant.map(|name| format!("--{name}"))));
            };
            if *takes != Takes::Many && values.iter().any(|value| value.name == name) {
                return Err(Fault::new(Problem::DuplicateFlag { instruction, flag }, span));
            }
            let wrong = |reason: &str| {
                let (flag, reason) = (name.to_owned(), reason.to_owned());
                Fault::new(
                    Problem::FlagValue {
                        instruction,
                        flag,
                        reason,
                    },
                    span,
                )
            };
            let text = match (takes, value) {
                (Takes::One | Takes::Many, Some(value)) => value.to_owned(),
                (Takes::One | Takes::Many, None) => {
                    return Err(wrong(&format!("needs a value: --{name}=...")));
                }
                (Takes::Switch, None) => "true".to_owned(),
                (Takes::Switch, Some(value)) => {
                    let lower = value.to_ascii_lowercase();
                    if !matches!(lower.as_str(), "true" | "false") {
                        return Err(wrong(&format!("is true or false, not {value:?}")));
                    }
                    lower
                }
            };
            values.push(FlagValue { name, text, span });
        }
        Ok(Self { instruction, values })
    }

    /// An empty value is as none.
    fn one(&mut self, name: &str) -> Option<String> {
        let value = self.values.iter().find(|value| value.name == name)?;
        Some(value.text.clone()).filter(|text| !text.is_empty())
    }

    fn many(&self, name: &str) -> Vec<String> {
        (self.values.iter().filter(|value| value.name == name))
            .map(|value| value.text.clone())
            .collect()
    }

    fn switch(&self, name: &str) -> Option<bool> {
        let value = self.values.iter().find(|value| value.name == name)?;
        Some(value.text == "true")
    }

    fn wrong(&self, name: &str, reason: &str) -> Fault {
        let span = self
            .values
            .iter()
            .find(|value| value.name == name)
            .map(|value| value.span);
        Fault::new(
            Problem::FlagValue {
                instruction: self.instruction,
                flag: name.to_owned(),
                reason: reason.to_owned(),
            },
            span.unwrap_or_default(),
        )
    }
}
