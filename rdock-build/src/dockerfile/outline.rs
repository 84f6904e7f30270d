//! What a Dockerfile offers to whoever builds it: its stages, and what a stage takes.
use super::error::{Fault, ParseError, Problem};
use super::instruction::Kind;
use super::mount::MountKind;
use super::scope::{BuildArgs, Globals, Scope};
use super::source::Span;
use super::{Dockerfile, Stage, StageNames};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A stage that can be built.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Target {
    /// Its name in lower case, if it has one.
    pub name: Option<String>,
    /// It is the one that is built unless another one is asked for.
    pub default: bool,
    /// The comment above FROM that begins with the name.
    pub description: Option<String>,
    /// What it stands on, as written.
    pub base: String,
    /// `--platform`, as written.
    pub platform: Option<String>,
    /// Where FROM is.
    pub span: Span,
}

/// What a build of one stage takes, itself and the stages that it needs included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outline {
    /// The stage's name in lower case, if it has one.
    pub name: Option<String>,
    /// The comment above FROM that begins with the name.
    pub description: Option<String>,
    /// Build arguments, in order of line.
    pub args: Vec<OutlineArgument>,
    /// Secrets, in order of line.
    pub secrets: Vec<OutlineMount>,
    /// Agents of ssh, in order of line.
    pub ssh: Vec<OutlineMount>,
}

/// A build argument of an [`Outline`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OutlineArgument {
    /// Its name.
    pub name: String,
    /// What it is in this build; none where nobody sets it.
    pub value: Option<String>,
    /// The comment above ARG that begins with the name.
    pub description: Option<String>,
    /// Where ARG is.
    pub span: Span,
}

/// A secret or an agent of an [`Outline`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OutlineMount {
    /// Its id.
    pub name: String,
    /// The build fails without it.
    pub required: bool,
    /// Where RUN is.
    pub span: Span,
}

/// Bytes of all stages' variables that are kept at a time.
const LARGEST: usize = 128 << 20;

/// The comment about a name: a line `name what it is`.
fn description(comments: &[String], name: &str) -> Option<String> {
    let mut lines = comments.iter();
    lines.find_map(|line| {
        Some(
            line.trim_start()
                .strip_prefix(name)?
                .strip_prefix(' ')?
                .trim()
                .to_owned(),
        )
    })
}

fn stage_description(stage: &Stage) -> Option<String> {
    let name = stage.from.alias.as_ref()?;
    description(&stage.from.comments, name)
}

/// What one stage says itself.
#[derive(Clone)]
struct Own {
    args: Vec<OutlineArgument>,
    /// Global arguments that it uses.
    globals: BTreeSet<String>,
    secrets: Vec<OutlineMount>,
    ssh: Vec<OutlineMount>,
    /// Stages that it needs, its base first.
    stages: Vec<usize>,
    scope: Scope,
}

impl Dockerfile {
    /// Lists the stages.
    pub fn targets(&self) -> Vec<Target> {
        let last = self.stages.len().saturating_sub(1);
        let stages = self.stages.iter().enumerate();
        stages
            .map(|(number, stage)| Target {
                name: stage.name(),
                default: number == last,
                description: stage_description(stage),
                base: stage.from.image.clone(),
                platform: stage.from.platform.clone(),
                span: stage.from.span,
            })
            .collect()
    }

    /// Returns the number of the stage that a target means: its name, or its number from 0; the last one for none.
    pub fn stage(&self, target: Option<&str>) -> Option<usize> {
        let Some(name) = target else {
            return self.stages.len().checked_sub(1);
        };
        let wanted = name.to_lowercase();
        let named = |stage: &Stage| stage.name().as_deref() == Some(&wanted);
        let found = self.stages.iter().rposition(named);
        found.or_else(|| name.parse().ok().filter(|number| *number < self.stages.len()))
    }

    /// Says what a build of the stage `number` takes. Values of base images are not known: nothing is looked up.
    ///
    /// # Errors
    /// For what cannot be expanded, and a stage that is not there.
    pub fn outline(&self, args: &BuildArgs, number: usize) -> Result<Outline, ParseError> {
        let globals = Arc::new(Globals::new(self, args)?);
        let names = StageNames::new(&self.stages);
        let mut known = BTreeMap::new();
        let mut size = 0;
        for stage in 0..=number {
            let own = self.own(&globals, &names, stage, &known)?;
            size += own.scope.size();
            if size > LARGEST {
                let reason = format!("makes the variables of all stages larger than {LARGEST} bytes");
                let span = self.stages.get(stage).map(|stage| stage.from.span);
                return Err(Fault::arguments("FROM", span.unwrap_or_default(), reason).at(&self.source));
            }
            known.insert(stage, own);
        }
        let Some(stage) = self.stages.get(number) else {
            let name = number.to_string();
            return Err(Fault::new(Problem::UnknownStage { name }, Span::default()).at(&self.source));
        };
        let mut outline = Outline {
            name: stage.name(),
            description: stage_description(stage),
            ..Outline::default()
        };
        let (mut used, mut seen) = (BTreeSet::new(), BTreeSet::new());
        let mut open = vec![number];
        // The stage itself, then what it stands on, then what it copies from: the first to say something counts.
        while let Some(next) = open.pop() {
            let Some(own) = known.get(&next).filter(|_| seen.insert(next)) else {
                continue;
            };
            for argument in &own.args {
                if outline.args.iter().all(|one| one.name != argument.name) {
                    outline.args.push(argument.clone());
                }
            }
            for (list, more) in [(&mut outline.secrets, &own.secrets), (&mut outline.ssh, &own.ssh)] {
                for mount in more {
                    if list.iter().all(|one| one.name != mount.name) {
                        list.push(mount.clone());
                    }
                }
            }
            used.extend(own.globals.iter().cloned());
            open.extend(own.stages.iter().rev());
        }
        for argument in self.used_globals(&globals, used) {
            if outline.args.iter().all(|one| one.name != argument.name) {
                outline.args.push(argument);
            }
        }
        outline.args.sort_by_key(|argument| argument.span.first_line);
        outline.secrets.sort_by_key(|mount| mount.span.first_line);
        outline.ssh.sort_by_key(|mount| mount.span.first_line);
        Ok(outline)
    }

    /// The global arguments of these names, and those in their defaults.
    fn used_globals(&self, globals: &Globals, mut used: BTreeSet<String>) -> Vec<OutlineArgument> {
        let mut found = Vec::new();
        for instruction in self.global_args.iter().rev() {
            let Kind::Arg(arguments) = &instruction.kind else {
                continue;
            };
            for argument in arguments.iter().rev() {
                if !used.contains(&argument.name) {
                    continue;
                }
                used.extend(globals.named_in(argument.default.as_deref().unwrap_or_default()));
                found.push(OutlineArgument {
                    name: argument.name.clone(),
                    value: globals.value(&argument.name).map(str::to_owned),
                    description: description(&instruction.comments, &argument.name),
                    span: instruction.span,
                });
            }
        }
        found.reverse();
        found
    }

    fn own(
        &self,
        globals: &Arc<Globals>,
        names: &StageNames,
        number: usize,
        known: &BTreeMap<usize, Own>,
    ) -> Result<Own, ParseError> {
        let stage = &self.stages[number.min(self.stages.len() - 1)];
        let from = globals.from(&self.source, stage)?;
        let named = |name: &str, indexed: bool| names.before(name, number, indexed);
        let base = named(&from.image, false);
        let scope = base
            .and_then(|base| known.get(&base))
            .map(|own| own.scope.clone());
        let words = globals.words_of(&stage.from);
        let mut own = Own {
            args: Vec::new(),
            globals: words.into_iter().flat_map(|word| word.matched).collect(),
            secrets: Vec::new(),
            ssh: Vec::new(),
            stages: base.into_iter().collect(),
            scope: scope.unwrap_or_else(|| Scope::new(globals.clone(), &[])),
        };
        for instruction in &stage.instructions {
            let written = &instruction.kind;
            let kind = own.scope.expand(&self.source, instruction)?;
            match (written, &kind) {
                (Kind::Arg(written), Kind::Arg(arguments)) => {
                    for (written, argument) in written.iter().zip(arguments) {
                        let name = &argument.name;
                        own.globals.insert(name.clone());
                        // One that only repeats a global argument is that one.
                        let repeats = written.default.is_none() && globals.given(name).is_none();
                        if repeats && globals.value(name).is_some() {
                            continue;
                        }
                        own.args.retain(|one| one.name != *name);
                        own.args.push(OutlineArgument {
                            name: name.clone(),
                            value: argument.default.clone(),
                            description: description(&instruction.comments, name),
                            span: instruction.span,
                        });
                    }
                }
                (_, Kind::Copy(copy)) => own
                    .stages
                    .extend(copy.from.as_deref().and_then(|name| named(name, true))),
                (_, Kind::Run(run)) => {
                    for mount in own.scope.mounts(&self.source, run)? {
                        own.stages
                            .extend(mount.from.as_deref().and_then(|name| named(name, true)));
                        let base_name = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
                        let list = match mount.kind {
                            MountKind::Secret => &mut own.secrets,
                            MountKind::Ssh => &mut own.ssh,
                            _ => continue,
                        };
                        let name = match (&mount.source, &mount.id, &mount.target) {
                            (Some(source), ..) if mount.kind == MountKind::Secret => source.clone(),
                            (_, Some(id), _) => id.clone(),
                            (_, None, Some(target)) if mount.kind == MountKind::Secret => base_name(target),
                            _ => "default".to_owned(),
                        };
                        if list.iter().all(|one| one.name != name) {
                            list.push(OutlineMount {
                                name,
                                required: mount.required,
                                span: instruction.span,
                            });
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "\
# syntax=docker/dockerfile:1
# VERSION of the base
ARG VERSION=3.${MINOR}
ARG MINOR=20
ARG UNUSED=1
# build makes it
FROM alpine:${VERSION} AS Build
# TOKEN is for the mirror
ARG TOKEN
ARG MINOR
ARG FLAGS=-O2
RUN --mount=type=secret,id=password,required --mount=type=ssh make $FLAGS
FROM scratch AS other
ARG ALONE=1
FROM --platform=linux/amd64 scratch
COPY --from=build /out /
RUN --mount=type=secret,target=/run/secrets/late true
";

    #[test]
    fn stages_are_listed_with_what_is_said_of_them() {
        let file = Dockerfile::parse("Dockerfile", FILE).unwrap();
        let targets = file.targets();
        let short = |target: &Target| (target.name.clone(), target.default, target.base.clone());
        assert_eq!(
            targets.iter().map(short).collect::<Vec<_>>(),
            [
                (Some("build".to_owned()), false, "alpine:${VERSION}".to_owned()),
                (Some("other".to_owned()), false, "scratch".to_owned()),
                (None, true, "scratch".to_owned()),
            ]
        );
        assert_eq!(targets[0].span.first_line, 7);
        assert_eq!(targets[2].platform.as_deref(), Some("linux/amd64"));
        assert_eq!(file.stage(None), Some(2));
        assert_eq!(file.stage(Some("BUILD")), Some(0));
        assert_eq!(file.stage(Some("1")), Some(1));
        assert_eq!(file.stage(Some("nothing")), None);
    }

    #[test]
    fn an_outline_has_what_the_stage_and_those_it_needs_take() {
        let file = Dockerfile::parse("Dockerfile", FILE).unwrap();
        let mut args = BuildArgs::default();
        args.values.insert("TOKEN".to_owned(), "given".to_owned());
        let outline = file.outline(&args, 2).unwrap();
        let found: Vec<_> = outline
            .args
            .iter()
            .map(|one| {
                (
                    one.name.as_str(),
                    one.value.as_deref(),
                    one.description.as_deref(),
                    one.span.first_line,
                )
            })
            .collect();
        assert_eq!(
            found,
            [
                // A default sees what stands before it.
                ("VERSION", Some("3."), Some("of the base"), 3),
                ("MINOR", Some("20"), None, 4),
                ("TOKEN", Some("given"), Some("is for the mirror"), 9),
                ("FLAGS", Some("-O2"), None, 11),
            ]
        );
        let names = |mounts: &[OutlineMount]| -> Vec<(String, bool)> {
            mounts
                .iter()
                .map(|one| (one.name.clone(), one.required))
                .collect()
        };
        assert_eq!(
            names(&outline.secrets),
            [("password".to_owned(), true), ("late".to_owned(), false)]
        );
        assert_eq!(names(&outline.ssh), [("default".to_owned(), false)]);
        let other = file.outline(&BuildArgs::default(), 1).unwrap();
        assert_eq!((other.name.as_deref(), other.args.len()), (Some("other"), 1));
        // Comments begin with the name as it is written.
        assert_eq!(file.outline(&args, 0).unwrap().description, None);
        assert!(file.outline(&args, 3).is_err());
    }
}
