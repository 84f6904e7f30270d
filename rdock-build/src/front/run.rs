//! RUN becomes a step.
use super::{At, Front, HistoryLine, StageState, config, join};
use crate::dockerfile::{
    Command, Heredoc, Instruction, Kind, Mount, MountKind, Network, Problem, Run, Script,
};
use crate::error::Result;
use crate::graph::{Input, Operation, RunMount, RunMountSource, RunStep};

/// An instruction's text for people: of a script that is a here-document, with its first line.
pub(super) fn shown(instruction: &Instruction) -> String {
    let source = &instruction.source;
    let Kind::Run(Run {
        command: Command::Shell(text),
        heredocs,
        ..
    }) = &instruction.kind
    else {
        return source.clone();
    };
    let [heredoc] = &heredocs[..] else {
        return source.clone();
    };
    let script = heredoc.text();
    let mut lines = script.trim().lines();
    match (Heredoc::from_word(text), lines.next()) {
        (Some(_), Some(first)) => {
            let more = if lines.next().is_some() { "..." } else { "" };
            format!("{source} ({first}{more})")
        }
        _ => source.clone(),
    }
}

impl Front<'_> {
    pub(super) fn run(&mut self, state: &mut StageState, at: &At<'_>, run: &Run) -> Result<()> {
        let mut args = Vec::new();
        let mut script = None;
        match (run.script(), &run.command) {
            (None, Command::Exec(exec)) => args.clone_from(exec),
            (None, Command::Shell(text)) => {
                args = config::shell(&state.config.config);
                args.push(text.clone());
            }
            (Some(Script::Shell(text)), _) => {
                args = config::shell(&state.config.config);
                args.push(text);
            }
            (Some(Script::File { name, data }), _) => {
                // A name is one part of a path, whatever it is written as.
                let name: String = name
                    .chars()
                    .map(|c| if c == '/' || c == '\0' { '_' } else { c })
                    .collect();
                let path = format!("/dev/pipes/{name}");
                args = config::shell(&state.config.config);
                args.push(path.clone());
                script = Some((path, data));
            }
        }
        if run.network == Network::Host && !self.wishes.host_network {
            let problem = Problem::Unsupported {
                instruction: "RUN",
                feature: "--network=host in a build that does not allow it (--allow network.host)".to_owned(),
            };
            return Err(self.problem(at.source, at.span, problem));
        }
        let working_dir = join("/", &state.config.config.working_dir);
        let mut mounts = Vec::new();
        for mount in state.scope.mounts(at.source, run)? {
            mounts.push(self.mount(at, &mount, &working_dir)?);
        }
        let operation = Operation::Run(Box::new(RunStep {
            base: state.step,
            args: args.clone(),
            env: (state.scope.environment())
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            unkeyed_env: self.globals.proxies(),
            working_dir,
            user: state.config.config.user.clone(),
            mounts,
            network: run.network,
            script,
        }));
        state.step = self.step(at, operation);
        let given = state.scope.history_args();
        let arguments = match given.len() {
            0 => String::new(),
            count => format!("|{count} {} ", given.join(" ")),
        };
        state.history.push(HistoryLine {
            created_by: format!("RUN {arguments}{} # buildkit", args.join(" ")),
            layer: Some(state.step),
        });
        Ok(())
    }

    fn mount(&mut self, at: &At<'_>, mount: &Mount, working_dir: &str) -> Result<RunMount> {
        let given = mount.target.as_deref().filter(|target| !target.is_empty());
        let mut target = join(working_dir, given.unwrap_or("."));
        let from = match mount.from.as_deref().filter(|from| !from.is_empty()) {
            Some(name) => Some(self.input(at, name)?),
            None => None,
        };
        let path = mount.source.clone().unwrap_or_default();
        let source = match mount.kind {
            MountKind::Bind => RunMountSource::Bind {
                from: from.unwrap_or_else(|| Input::Context("".into())),
                source: path,
            },
            MountKind::Cache => RunMountSource::Cache {
                id: match mount.id.as_deref().filter(|id| !id.is_empty()) {
                    Some(id) => id.to_owned(),
                    None => target.clone(),
                },
                from,
                source: path,
                sharing: mount.sharing,
                mode: mount.mode.unwrap_or(0o755),
                uid: mount.uid.unwrap_or(0),
                gid: mount.gid.unwrap_or(0),
            },
            MountKind::Tmpfs => RunMountSource::Tmpfs { size: mount.size },
            MountKind::Secret => {
                let id = mount.identity().to_owned();
                if given.is_none() {
                    let name = id.rsplit('/').next().unwrap_or(&id);
                    target = format!("/run/secrets/{name}");
                }
                RunMountSource::Secret {
                    required: mount.required,
                    env: mount.env.clone(),
                    file: mount.env.is_none() || given.is_some(),
                    mode: mount.mode.unwrap_or(0o400),
                    uid: mount.uid.unwrap_or(0),
                    gid: mount.gid.unwrap_or(0),
                    id,
                }
            }
            MountKind::Ssh => {
                let problem = Problem::Unsupported {
                    instruction: "RUN",
                    feature: "--mount=type=ssh".to_owned(),
                };
                return Err(self.problem(at.source, at.span, problem));
            }
        };
        Ok(RunMount {
            target,
            source,
            read_only: mount.read_only,
        })
    }
}
