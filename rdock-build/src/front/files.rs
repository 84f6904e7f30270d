//! COPY and ADD become steps.
use super::{At, Front, HistoryLine, StageState, join};
use crate::chmod::Chmod;
use crate::dockerfile::{Add, Copy, Files, Problem};
use crate::error::{BuildError, Result};
use crate::graph::{CopySource, CopyStep, Input, Operation, Unpack};
use rdock_image::Digest;

/// What COPY and ADD have in common.
struct Flags<'a> {
    instruction: &'static str,
    chown: &'a Option<String>,
    chmod: &'a Option<String>,
    link: bool,
    parents: bool,
    exclude: &'a [String],
    unpack: Unpack,
}

impl Front<'_> {
    pub(super) fn copy(&mut self, state: &mut StageState, at: &At<'_>, copy: &Copy) -> Result<()> {
        let from = match copy.from.as_deref() {
            Some(name) => self.input(at, name)?,
            None => Input::Context("".into()),
        };
        let sources = copy.files.sources.iter().map(|pattern| CopySource::Path {
            from: from.clone(),
            pattern: pattern.clone(),
        });
        let flags = Flags {
            instruction: "COPY",
            chown: &copy.chown,
            chmod: &copy.chmod,
            link: copy.link,
            parents: copy.parents,
            exclude: &copy.exclude,
            unpack: Unpack::Never,
        };
        let sources = sources.collect();
        self.files(state, at, &copy.files, sources, &flags)
    }

    pub(super) fn add(&mut self, state: &mut StageState, at: &At<'_>, add: &Add) -> Result<()> {
        let checksum = match &add.checksum {
            Some(text) => Some(
                Digest::parse(text).map_err(|error| self.flag(at, "ADD", "checksum", &error.to_string()))?,
            ),
            None => None,
        };
        let mut sources = Vec::new();
        for pattern in &add.files.sources {
            let is_url = pattern.starts_with("http://") || pattern.starts_with("https://");
            if !is_url && checksum.is_some() {
                return Err(self.flag(at, "ADD", "checksum", "only a download can have one"));
            }
            sources.push(match is_url {
                true => CopySource::Url {
                    url: pattern.clone(),
                    checksum: checksum.clone(),
                },
                false => CopySource::Path {
                    from: Input::Context("".into()),
                    pattern: pattern.clone(),
                },
            });
        }
        if checksum.is_some() && sources.len() > 1 {
            return Err(self.flag(at, "ADD", "checksum", "is for one source"));
        }
        let flags = Flags {
            instruction: "ADD",
            chown: &add.chown,
            chmod: &add.chmod,
            link: add.link,
            parents: false,
            exclude: &add.exclude,
            unpack: match add.unpack {
                None => Unpack::Local,
                Some(true) => Unpack::Always,
                Some(false) => Unpack::Never,
            },
        };
        self.files(state, at, &add.files, sources, &flags)
    }

    fn flag(&self, at: &At<'_>, instruction: &'static str, flag: &str, reason: &str) -> BuildError {
        let problem = Problem::FlagValue {
            instruction,
            flag: flag.to_owned(),
            reason: reason.to_owned(),
        };
        self.problem(at.source, at.span, problem)
    }

    fn files(
        &mut self,
        state: &mut StageState,
        at: &At<'_>,
        files: &Files,
        mut sources: Vec<CopySource>,
        flags: &Flags<'_>,
    ) -> Result<()> {
        sources.extend(files.inline.iter().map(|file| CopySource::Inline {
            name: file.name.clone(),
            data: file.data.clone(),
        }));
        let chmod = match flags.chmod {
            Some(text) => Some(
                Chmod::parse(text).map_err(|reason| self.flag(at, flags.instruction, "chmod", &reason))?,
            ),
            None => None,
        };
        let written = &files.destination;
        let mut destination = join(&state.config.config.working_dir, written);
        let is_directory =
            written.ends_with('/') || written == "." || written.ends_with("/.") || written.ends_with("..");
        if is_directory && !destination.ends_with('/') {
            destination.push('/');
        }
        let operation = Operation::Copy(Box::new(CopyStep {
            base: state.step,
            sources,
            destination,
            chown: flags.chown.clone(),
            chmod,
            link: flags.link,
            parents: flags.parents,
            exclude: flags.exclude.to_vec(),
            unpack: flags.unpack,
        }));
        state.step = self.step(at, operation);
        state.history.push(HistoryLine {
            created_by: history(files, flags),
            layer: Some(state.step),
        });
        Ok(())
    }
}

/// The line of history, as BuildKit writes it: tools that show history know its mark.
fn history(files: &Files, flags: &Flags<'_>) -> String {
    let mut text = flags.instruction.to_owned();
    for (flag, value) in [("chown", flags.chown), ("chmod", flags.chmod)] {
        if let Some(value) = value {
            text.push_str(&format!(" --{flag}={value}"));
        }
    }
    if flags.parents {
        text.push_str(" --parents");
    }
    for source in &files.sources {
        text.push_str(&format!(" {source}"));
    }
    for file in &files.inline {
        text.push_str(&format!(" <<{}", file.name));
    }
    format!("{text} {} # buildkit", files.destination)
}
