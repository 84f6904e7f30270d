//! The monitor of a detached container: this same program, executed again, that owns one container.
//!
//! The starter writes a request into a sealed memfd and executes `/proc/self/exe` with it as descriptor 3
//! and a socket as descriptor 4. A hook that runs before `main` (`sys::entry`) recognises the memfd by its
//! seals and first bytes, and calls [`run`], which never returns. The request is JSON behind a magic and
//! a version; optional sections may be added, since a monitor is always as old as its starter.

use crate::container::{Attached, Container, KnownExit};
use crate::create::{self, Ownership};
use crate::error::{Cause, Error, Result};
use crate::image::Image;
use crate::owner::{self, Started};
use crate::reactor::Loop;
use crate::remove::describe;
use crate::runtime::Runtime;
use crate::spec::ContainerSpec;
use crate::start;
use crate::state::{Exit, Happened, Status};
use crate::step::Step;
use crate::sys;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

/// What the starter asks for.
#[derive(Debug, Serialize, Deserialize)]
struct Request {
    root: PathBuf,
    id: String,
    task: Task,
    /// Descriptors 5 and 6 are sockets for stdout and stderr, 7 is the payload's stdin.
    attach: bool,
    /// Rows and columns of the starter's terminal.
    #[serde(default)]
    terminal: Option<(u16, u16)>,
}

/// How the monitor comes to its container.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Task {
    /// It makes it and starts it.
    Run { image: String, spec: Box<ContainerSpec> },
    /// It starts one that exists; by the restart policy, or because somebody asks.
    Start { by_policy: bool },
    /// It takes over one that runs and whose monitor has died.
    Adopt,
}

/// What the monitor answers, once.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    /// With the container's record, open: one that is removed at its end may be gone before the starter looks. Then
    /// the terminal's master when the starter attaches to one.
    Started,
    Failed(Failure),
    /// The last message, at the container's end.
    Exited(Exit),
}

/// Waits for the end that a monitor reports to its starter; `None` when it ended without a word.
pub(crate) fn last_answer(answers: &OwnedFd) -> Option<Exit> {
    match crate::control::receive::<Answer>(answers) {
        Ok(Some((Answer::Exited(exit), _))) => Some(exit),
        _ => None,
    }
}

/// An error that crosses a process boundary.
#[derive(Debug, Serialize, Deserialize)]
struct Failure {
    messages: Vec<String>,
    exit_code: i32,
    hint: Option<String>,
    name_in_use: Option<(String, String)>,
    launch: Option<LaunchFailure>,
    #[serde(default)]
    already_running: Option<String>,
    #[serde(default)]
    no_such_container: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct LaunchFailure {
    what: String,
    step: u16,
    /// 0 when the cause is no system error; then it is in the text.
    errno: i32,
    cause: String,
    detail: String,
    log: Vec<String>,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let messages = describe(&error);
        let (exit_code, hint) = (error.exit_code(), error.hint());
        let mut failure = Self {
            messages,
            exit_code,
            hint,
            name_in_use: None,
            launch: None,
            already_running: None,
            no_such_container: None,
        };
        match error {
            Error::NameInUse { name, id } => failure.name_in_use = Some((name, id)),
            Error::AlreadyRunning { name } => failure.already_running = Some(name),
            Error::NoSuchContainer { name } => failure.no_such_container = Some(name),
            Error::Launch {
                what,
                step,
                detail,
                log,
                source,
            } => {
                let (errno, cause) = (source.raw_os_error().unwrap_or(0), source.to_string());
                failure.launch = Some(LaunchFailure {
                    what,
                    step: step as u16,
                    errno,
                    cause,
                    detail,
                    log,
                });
            }
            _ => {}
        }
        failure
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        if let Some((name, id)) = failure.name_in_use {
            return Self::NameInUse { name, id };
        }
        if let Some(name) = failure.already_running {
            return Self::AlreadyRunning { name };
        }
        if let Some(name) = failure.no_such_container {
            return Self::NoSuchContainer { name };
        }
        if let Some(launch) = failure.launch {
            return Self::Launch {
                what: launch.what,
                step: Step::from_wire(launch.step).unwrap_or(Step::Spawn),
                detail: launch.detail,
                log: launch.log,
                source: match launch.errno {
                    0 => std::io::Error::other(launch.cause),
                    errno => std::io::Error::from_raw_os_error(errno),
                },
            };
        }
        let mut messages = failure.messages.into_iter();
        Self::Monitor {
            message: messages.next().unwrap_or_default(),
            exit_code: failure.exit_code,
            hint: failure.hint,
            source: Cause::chain(&messages.collect::<Vec<_>>()),
        }
    }
}

/// Makes a container and starts it under a monitor. Blocks.
pub(crate) fn run_new(
    runtime: &Runtime,
    spec: &ContainerSpec,
    image: &Image,
    attach: bool,
) -> Result<(Container, Attached)> {
    // What is wrong with the spec is said by this process, before anything is made.
    create::check(spec, image)?;
    let id = crate::identity::random_id().map_err(Error::system("read random numbers"))?;
    // The request has their names alone; the monitor, and every later one, finds them here.
    crate::secrets::keep(runtime, &id, spec)?;
    let task = Task::Run {
        image: image.id().to_string(),
        spec: Box::new(spec.clone()),
    };
    ask(runtime, &id, task, attach.then_some(spec)).inspect_err(|_| {
        // What stays is forgotten by the next open.
        let _ = crate::secrets::forget(runtime, &id);
    })
}

/// Starts a monitor for container `id` and waits for its answer. `attach` connects the container's streams to
/// the caller; it is the container's spec. Blocks.
pub(crate) fn ask(
    runtime: &Runtime,
    id: &str,
    task: Task,
    attach: Option<&ContainerSpec>,
) -> Result<(Container, Attached)> {
    let program = match sys::entry::own_program() {
        Ok(program) => program,
        Err(reason) => match runtime.monitor() {
            Some(path) => File::open(path).map_err(Error::state("open", path))?.into(),
            None => return Err(Error::NoMonitor { reason }),
        },
    };
    let terminal = attach
        .filter(|spec| spec.terminal)
        .and_then(|_| caller_terminal());
    let request = Request {
        root: runtime.root().to_owned(),
        id: id.to_owned(),
        task,
        attach: attach.is_some(),
        terminal,
    };
    let failed = Error::system("start a monitor");
    let bytes = serde_json::to_vec(&request)
        .map_err(|error| Error::system("write the monitor's request")(error.into()))?;
    let make = || -> std::io::Result<_> {
        let memfd = sys::entry::sealed_request(&bytes)?;
        let (ours, theirs) = control_pair()?;
        let mut given: Vec<OwnedFd> = vec![memfd, theirs];
        let mut attached = Attached::default();
        if let Some(spec) = attach {
            let (stdout, to_stdout) = owner::stream_pair()?;
            let (stderr, to_stderr) = owner::stream_pair()?;
            let (from_stdin, stdin) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
            given.extend([to_stdout, to_stderr, from_stdin]);
            attached = Attached {
                stdin: spec.interactive.then_some(stdin),
                stdout: Some(stdout),
                stderr: (!spec.terminal).then_some(stderr),
            };
        }
        let name = format!("rdock-monitor {}", &id[..12]);
        let fds: Vec<_> = given.iter().map(AsFd::as_fd).collect();
        sys::spawn_program(&program, &name, &fds)?;
        Ok((ours, attached))
    };
    let (answers, mut attached) = make().map_err(failed)?;
    match crate::control::receive::<Answer>(&answers) {
        Ok(Some((Answer::Started, fds))) => {
            let mut fds = fds.into_iter();
            let (dir, record) = runtime.state().loaded(id, fds.next().map(File::from))?;
            if attach.is_some_and(|spec| spec.terminal) {
                attached.stdin = fds.next();
            }
            let exit = Arc::new(KnownExit::from_monitor(answers));
            Ok((Container::started(runtime.clone(), dir, record, exit), attached))
        }
        Ok(Some((Answer::Failed(failure), _))) => Err(failure.into()),
        Ok(Some((Answer::Exited(_), _)) | None) | Err(_) => Err(Error::NoMonitor {
            reason: "this program, executed again, ended without an answer".into(),
        }),
    }
}

fn control_pair() -> std::io::Result<(OwnedFd, OwnedFd)> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType};
    Ok(rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

/// The size of the terminal that this program runs on.
fn caller_terminal() -> Option<(u16, u16)> {
    let size = rustix::termios::tcgetwinsize(rustix::stdio::stdin()).ok()?;
    Some((size.ws_row, size.ws_col))
}

/// The monitor's whole life. Returns its exit code; the hook ends the process with it.
pub(crate) fn run(request: OwnedFd, mut given: Vec<OwnedFd>) -> i32 {
    // A monitor keeps no directory of its starter busy; this is a process of ours alone.
    let _ = rustix::process::chdir("/");
    if given.is_empty() {
        return 1;
    }
    let answers = given.remove(0);
    match supervise(request, given, &answers) {
        Ok(()) => 0,
        Err(error) => {
            // The starter may be gone; then there is nobody to tell.
            let _ = crate::control::send(&answers, &Answer::Failed(error.into()), &[]);
            1
        }
    }
}

fn supervise(request: OwnedFd, given: Vec<OwnedFd>, answers: &OwnedFd) -> Result<()> {
    let read = || -> std::io::Result<Request> {
        let mut file = File::from(request);
        file.seek(std::io::SeekFrom::Start(sys::entry::MAGIC.len() as u64))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(serde_json::from_slice(&bytes)?)
    };
    let request = read().map_err(Error::system("read the monitor's request"))?;
    let runtime = Runtime::open_only(&request.root)?;
    let mut given = given.into_iter();
    let mut attached = None;
    if request.attach
        && let (Some(stdout), Some(stderr), Some(stdin)) = (given.next(), given.next(), given.next())
    {
        attached = Some(start::AttachedFrom {
            stdout,
            stderr,
            stdin,
        });
    }
    let started = begin(&runtime, &request, attached)?;
    let mut events = Loop::new().map_err(Error::system("make an event loop"))?;
    let terminal = started.run.streams.terminal.as_ref().filter(|_| request.attach);
    let record = started.dir.open_record()?;
    let fds: Vec<_> = [record.as_fd()]
        .into_iter()
        .chain(terminal.map(AsFd::as_fd))
        .collect();
    let told = crate::control::send(answers, &Answer::Started, &fds);
    drop(record);
    if told.is_err() {
        // The starter was killed before it knew: an unnamed container nobody asked for any more would be a
        // leak, a named one is found again. Both go on; `docker run -d` killed at this moment does the same.
    }
    let starter = answers.try_clone().map_err(Error::system("copy a descriptor"))?;
    let on_end = Box::new(move |events: &mut Loop, ended: owner::Ended| {
        // A starter that has gone on with its life does not listen any more.
        let _ = crate::control::send(&starter, &Answer::Exited(ended.exit), &[]);
        events.stop();
    });
    owner::adopt(&mut events, started, on_end).map_err(Error::system("watch the container"))?;
    events.run().map_err(Error::system("wait for events"))
}

/// Comes to the container as the starter asks.
fn begin(runtime: &Runtime, request: &Request, attached: Option<start::AttachedFrom>) -> Result<Started> {
    let owner = |mut attached: Option<start::AttachedFrom>, spec: &ContainerSpec| -> Result<start::Owner> {
        if let Some(attached) = attached.as_mut().filter(|_| !spec.interactive) {
            attached.stdin = null()?;
        }
        Ok(start::Owner::Monitor {
            attached,
            terminal: request.terminal,
        })
    };
    match &request.task {
        Task::Run { image, spec } => {
            let image = runtime.images().get(image)?;
            let image = image.ok_or_else(|| Error::NoSuchImage {
                reference: spec.image.clone(),
            })?;
            let owner = owner(attached, spec)?;
            let host = owner.host_facts(spec);
            let owned = Ownership {
                detached: true,
                owned: true,
            };
            let made = create::create(runtime, &request.id, spec, &image, owned, &host)?;
            start::first(runtime, made, owner)
        }
        Task::Start { by_policy } => {
            let (dir, record) = runtime.state().load(&request.id)?;
            // Who had the lock before may have removed it.
            let gone = |error: Error| match error {
                Error::State { ref source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                    Error::NoSuchContainer {
                        name: record.name.clone(),
                    }
                }
                other => other,
            };
            let _change = dir.lock_changes().map_err(gone)?;
            let record = dir.record()?;
            // Who began to remove it was killed; the next open finishes that.
            if crate::remove::is_begun(&dir) {
                return Err(Error::NoSuchContainer { name: record.name });
            }
            if matches!(
                dir.status()?,
                Status::Running | Status::Paused | Status::Restarting(_)
            ) {
                return Err(Error::AlreadyRunning { name: record.name });
            }
            // Somebody may look at its files for a moment; the helper does not wait for that.
            crate::remove::helper_has_ended(&dir.file("lock"));
            crate::recover::settle(runtime, &dir, &record)?;
            dir.claim_owner()?;
            let owner = owner(attached, &record.spec)?;
            let host = owner.host_facts(&record.spec);
            let begun = || {
                let made = create::reopen(runtime, dir.clone(), record, &host)?;
                start::start(runtime, made, owner, *by_policy)
            };
            begun().inspect_err(|error| {
                // The error itself is what the starter needs.
                let _ = dir.append(&Happened::Exited {
                    exit: Exit::now(owner::set_up_failed(error)),
                });
            })
        }
        Task::Adopt => crate::recover::adopt(runtime, &request.id),
    }
}

fn null() -> Result<OwnedFd> {
    let opened = rustix::fs::open(
        "/dev/null",
        rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    );
    opened.map_err(|errno| Error::state("open", "/dev/null")(errno.into()))
}
