//! Programs that provide services: docker compose's protocol for them.
//!
//! The program is a plug-in of docker's command line (`docker-TYPE`) or one of that name in `PATH`. It is called as
//! `TYPE compose --project-name=NAME up|down|stop --OPTION=VALUE... SERVICE` and says on its output, one JSON object
//! after the other, how far it is, which variables the services that need it get, or why it fails.

use super::event::{ApplyEvent, ProviderMessage};
use super::{ComposeProject, StepError};
use crate::model::{Project, Provider};
use crate::plan::{ProviderAction, Step};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::io::{BufReader, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;

/// Bytes that a program may say; what is behind them is not JSON any more.
const LONGEST: u64 = 16 << 20;
/// Bytes of its error output that an error shows.
const TAIL: usize = 4096;
/// Folders of docker's plug-ins, below the home and of the host.
const PLUGINS: [&str; 4] = [
    "/usr/local/lib/docker/cli-plugins",
    "/usr/local/libexec/docker/cli-plugins",
    "/usr/lib/docker/cli-plugins",
    "/usr/libexec/docker/cli-plugins",
];
/// How long a program may take to say which options it knows.
const METADATA: Duration = Duration::from_secs(10);

/// How long its error output may stay open after its end.
const LINGER: Duration = Duration::from_secs(1);

/// Variables that a program gives to the services that need it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Provided {
    /// Their names get the service's in capital letters before them.
    prefixed: BTreeMap<String, String>,
    raw: BTreeMap<String, String>,
}

/// What a program says of itself: which options its actions know.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Metadata {
    description: String,
    up: Parameters,
    down: Parameters,
    stop: Option<Parameters>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Parameters {
    parameters: Option<Vec<Parameter>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Parameter {
    name: String,
    required: bool,
}

#[derive(Debug, Deserialize)]
struct Message {
    r#type: String,
    #[serde(default)]
    message: String,
}

impl Metadata {
    fn is_empty(&self) -> bool {
        self.description.is_empty() && self.up.parameters.is_none() && self.down.parameters.is_none()
    }
}

/// Asks the program of a service.
pub(super) async fn run(
    compose: &ComposeProject,
    step: &Step,
    service: &str,
    action: ProviderAction,
) -> Result<(), StepError> {
    let project = compose.project();
    let provider = project
        .any_service(service)
        .and_then(|service| service.provider.as_ref());
    let Some(provider) = provider else {
        return Ok(());
    };
    let failed = |message: String| StepError::Provider {
        service: service.to_owned(),
        provider: provider.r#type.clone(),
        message,
    };
    let program = find(project, &provider.r#type).map_err(failed)?;
    let metadata = metadata(project, &program).await;
    let known = match action {
        ProviderAction::Up => &metadata.up,
        ProviderAction::Down => &metadata.down,
        ProviderAction::Stop => match &metadata.stop {
            Some(known) => known,
            // It does not know that verb.
            None => return Ok(()),
        },
    };
    let options = options(provider, known, metadata.is_empty()).map_err(failed)?;
    let mut command = command(project, &program);
    command.arg(format!("--project-name={}", project.name));
    command.arg(action.verb()).args(options).arg(service);
    let mut program = Program::<Message>::start(command).map_err(|error| failed(error.to_string()))?;
    let mut provided = Provided::default();
    let ended = loop {
        let Message { r#type, message } = match program.said.recv().await {
            Some(Said::Message(message)) => message,
            Some(Said::Wrong(reason)) => return Err(failed(reason)),
            Some(Said::Ended(ended)) => break ended,
            None => return Err(StepError::Cancelled),
        };
        let tell = |message: ProviderMessage<'_>| {
            compose.receiver.send(ApplyEvent::Provider { step, message });
        };
        match r#type.as_str() {
            "info" => tell(ProviderMessage::Info(message.trim_end_matches('\n'))),
            "debug" => tell(ProviderMessage::Debug(message.trim_end_matches('\n'))),
            "error" => return Err(failed(message)),
            "setenv" | "rawsetenv" => {
                let (name, value) = message
                    .split_once('=')
                    .filter(|(name, _)| !name.is_empty())
                    .ok_or_else(|| failed(format!("it said {type}, and {message:?} is not NAME=VALUE")))?;
                let variables = match r#type.as_str() {
                    "setenv" => &mut provided.prefixed,
                    _ => &mut provided.raw,
                };
                variables.insert(name.to_owned(), value.to_owned());
            }
            other => return Err(failed(format!("it said {other:?}, which means nothing"))),
        }
    };
    let status = ended.map_err(|error| failed(error.to_string()))?;
    if !status.success() {
        let said = match program.complaint() {
            said if said.is_empty() => said,
            said => format!(": {said}"),
        };
        return Err(failed(format!("{} failed, {status}{said}", action.verb())));
    }
    if action == ProviderAction::Up {
        for (service, name) in overridden(project, service, &provided) {
            let message = format!("the provider overrides {name} of the service {service}");
            compose.receiver.send(ApplyEvent::Warning {
                step,
                message: &message,
            });
        }
        compose.provided().insert(service.to_owned(), provided);
    }
    Ok(())
}

/// Variables of services that have another value from the file.
fn overridden(project: &Project, provider: &str, provided: &Provided) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (name, service) in &project.services {
        if !service.depends_on.contains_key(provider) {
            continue;
        }
        let others = provided.raw.iter().filter(|(variable, value)| {
            let known = service.environment.get(*variable);
            known.is_some_and(|known| known.as_ref() != Some(*value))
        });
        found.extend(others.map(|(variable, _)| (name.clone(), variable.clone())));
    }
    found
}

/// Gives the services that need providers what those said.
pub(super) fn fill(project: &mut Project, provided: &BTreeMap<String, Provided>) {
    for service in project.services.values_mut() {
        for (provider, given) in provided {
            if !service.depends_on.contains_key(provider) {
                continue;
            }
            let prefix = provider.to_uppercase();
            let prefixed = given
                .prefixed
                .iter()
                .map(|(name, value)| (format!("{prefix}_{name}"), value));
            let raw = given.raw.iter().map(|(name, value)| (name.clone(), value));
            for (name, value) in prefixed.chain(raw) {
                service.environment.insert(name, Some(value.clone()));
            }
        }
    }
}

/// The program of a type: a plug-in of docker's, else in `PATH`; with a slash a path from the project's folder.
fn find(project: &Project, name: &str) -> Result<PathBuf, String> {
    use std::os::unix::fs::PermissionsExt;
    let runs = |path: &Path| {
        std::fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    let variable = |name: &str| project.environment.get(name).filter(|value| !value.is_empty());
    if name.is_empty() || name == "compose" {
        return Err(format!("{name:?} is not the type of a provider"));
    }
    if name.contains('/') {
        let path = project.working_dir.join(name);
        return match runs(&path) {
            true => Ok(path),
            false => Err(format!("{} is not a program", path.display())),
        };
    }
    let of_docker = variable("DOCKER_CONFIG")
        .map(PathBuf::from)
        .or_else(|| variable("HOME").map(|home| Path::new(home).join(".docker")));
    let of_docker = of_docker.map(|folder| folder.join("cli-plugins"));
    let plugins = of_docker.into_iter().chain(PLUGINS.map(PathBuf::from));
    let plugin = plugins
        .map(|folder| folder.join(format!("docker-{name}")))
        .find(|path| runs(path));
    let path = variable("PATH").map(String::as_str).unwrap_or_default();
    let in_path = || {
        std::env::split_paths(path)
            .filter(|folder| folder.is_absolute())
            .map(|folder| folder.join(name))
            .find(|path| runs(path))
    };
    plugin
        .or_else(in_path)
        .ok_or_else(|| format!("there is neither a plug-in docker-{name} nor a program {name} in PATH"))
}

/// With the project's variables, in its folder.
fn command(project: &Project, program: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .envs(&project.environment)
        .arg("compose")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if project.working_dir.is_dir() {
        command.current_dir(&project.working_dir);
    }
    command
}

/// What it says of itself; nothing when it does not know that question.
async fn metadata(project: &Project, program: &Path) -> Metadata {
    let mut command = command(project, program);
    command.arg("metadata");
    let asked = async {
        let mut program = Program::<Metadata>::start(command).ok()?;
        let mut found = None;
        loop {
            match program.said.recv().await? {
                Said::Message(metadata) if found.is_none() => found = Some(metadata),
                Said::Ended(Ok(status)) if status.success() => return found,
                // More than one answer is none.
                _ => return None,
            }
        }
    };
    let asked = tokio::time::timeout(METADATA, asked).await;
    asked.ok().flatten().unwrap_or_default()
}

/// The options as flags: those that the program knows, or all if it does not say.
fn options(provider: &Provider, known: &Parameters, all: bool) -> Result<Vec<String>, String> {
    let known = known.parameters.as_deref().unwrap_or_default();
    let missing = known
        .iter()
        .find(|parameter| parameter.required && !provider.options.contains_key(&parameter.name));
    if let Some(parameter) = missing {
        return Err(format!("its option {:?} is missing", parameter.name));
    }
    let taken = provider
        .options
        .iter()
        .filter(|(name, _)| all || known.iter().any(|parameter| parameter.name == **name));
    let flags = taken.flat_map(|(name, values)| values.iter().map(move |value| format!("--{name}={value}")));
    Ok(flags.collect())
}

/// What comes of a program that runs.
enum Said<T> {
    Message(T),
    /// No message.
    Wrong(String),
    Ended(std::io::Result<ExitStatus>),
}

/// A program that runs; dropping it kills it.
struct Program<T> {
    pidfd: OwnedFd,
    said: mpsc::Receiver<Said<T>>,
    errors: Arc<Mutex<Vec<u8>>>,
}

impl<T: DeserializeOwned + Send + 'static> Program<T> {
    /// Its output is read, and its end waited for, on threads of their own, which end with it.
    fn start(mut command: Command) -> std::io::Result<Self> {
        let mut child = command.spawn()?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let pidfd = match pid.map(|pid| pidfd_open(pid, PidfdFlags::empty())) {
            Some(Ok(pidfd)) => pidfd,
            other => {
                let _ = child.kill();
                let _ = child.wait();
                let gone = std::io::ErrorKind::NotFound;
                return Err(other.map_or(gone.into(), |error| {
                    error.map_or_else(Into::into, |_| gone.into())
                }));
            }
        };
        let (sender, said) = mpsc::channel(16);
        let program = Self {
            pidfd,
            said,
            errors: Arc::default(),
        };
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let errors = program.errors.clone();
        let thread = || std::thread::Builder::new().name("rdock-provider".to_owned());
        let (over, complained) = std::sync::mpsc::channel::<()>();
        thread().spawn(move || {
            // Dropped at the end.
            let _over = over;
            let Some(mut stderr) = stderr else { return };
            let mut buffer = [0; 1024];
            while let Ok(size @ 1..) = stderr.read(&mut buffer) {
                let mut errors = errors.lock().unwrap_or_else(PoisonError::into_inner);
                errors.extend(&buffer[..size]);
                let more = errors.len().saturating_sub(TAIL);
                errors.drain(..more);
            }
        })?;
        thread().spawn(move || {
            if let Some(stdout) = stdout {
                read(stdout, &sender);
            }
            let ended = child.wait();
            // A child of its own that has it open may never close it.
            let _ = complained.recv_timeout(LINGER);
            // Nobody wants to know any more.
            let _ = sender.blocking_send(Said::Ended(ended));
        })?;
        Ok(program)
    }
}

/// Passes on what the program says, until it says no more or what is no message.
fn read<T: DeserializeOwned>(stdout: ChildStdout, sender: &mpsc::Sender<Said<T>>) {
    let reader = BufReader::new(stdout.take(LONGEST));
    for message in serde_json::Deserializer::from_reader(reader).into_iter() {
        let (said, wrong) = match message {
            Ok(message) => (Said::Message(message), false),
            Err(error) => (Said::Wrong(format!("it said what is no message: {error}")), true),
        };
        if sender.blocking_send(said).is_err() || wrong {
            return;
        }
    }
}

impl<T> Program<T> {
    /// The end of what it wrote to its error output.
    fn complaint(&self) -> String {
        let errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&errors).trim().to_owned()
    }
}

impl<T> Drop for Program<T> {
    fn drop(&mut self) {
        // One that has ended takes no signal.
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
    }
}
