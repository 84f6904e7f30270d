//! The `rdock` program under test, with a root directory and a registry of its own.

use crate::fixtures::{Access, Cache, Error, Name, Registry};
use libtest_mimic::{Completion, Failed, Trial};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use tempfile::TempDir;

/// What a test returns.
pub(crate) type Tested = Result<(), Box<dyn std::error::Error>>;

/// What the tests of one process share: the cache, the registry, and one root into which each image is pulled once.
#[derive(Default)]
pub(crate) struct Stage {
    ready: Mutex<Option<Arc<Program>>>,
}

/// Why a test cannot run on this machine.
#[derive(Debug)]
pub(crate) struct Cannot(pub(crate) String);

impl std::fmt::Display for Cannot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Cannot {}

impl Stage {
    /// The program, over a root that has `images`.
    pub(crate) fn with(&self, images: &[Name]) -> Result<Arc<Program>, Box<dyn std::error::Error>> {
        let mut ready = self
            .ready
            .lock()
            .map_err(|_| "another test panicked while it set up")?;
        let program = match &*ready {
            Some(program) => Arc::clone(program),
            None => Arc::clone(ready.insert(Arc::new(Program::new()?))),
        };
        for image in images {
            program.pull(*image)?;
        }
        Ok(program)
    }

    /// A test that uses the stage. What cannot be had on this machine makes it ignored.
    pub(crate) fn trial(self: &Arc<Self>, name: &str, test: fn(&Self) -> Tested) -> Trial {
        let stage = Arc::clone(self);
        Trial::ignorable_test(name, move || match test(&stage) {
            Ok(()) => Ok(Completion::Completed),
            Err(error) => outcome(error.as_ref()),
        })
    }
}

fn outcome(error: &(dyn std::error::Error + 'static)) -> Result<Completion, Failed> {
    if let Some(Cannot(why)) = error.downcast_ref() {
        return Ok(Completion::ignored_with(why));
    }
    if let Some(Error::Unavailable(why)) = error.downcast_ref() {
        return Ok(Completion::ignored_with(why));
    }
    Err(error.to_string().into())
}

/// Fails as a reason to ignore when this process is not root.
pub(crate) fn needs_root(why: &str) -> Result<(), Cannot> {
    match rustix::process::geteuid().is_root() {
        true => Ok(()),
        false => Err(Cannot(format!("needs root: {why}"))),
    }
}

/// `rdock` with its environment.
pub(crate) struct Program {
    path: PathBuf,
    home: TempDir,
    conf: PathBuf,
    cache: Cache,
    pulled: Mutex<Vec<Name>>,
    // Ends last.
    _registry: Registry,
}

impl Program {
    /// A new root beside a new registry.
    pub(crate) fn new() -> Result<Self, Box<dyn std::error::Error>> {
        let cache = Cache::open()?;
        let registry = Registry::start(&cache, Access::Everyone)?;
        let home = TempDir::with_prefix("rdock-test-")?;
        let conf = registry.write_registries_conf()?;
        Ok(Self {
            path: path()?,
            home,
            conf,
            cache,
            pulled: Mutex::default(),
            _registry: registry,
        })
    }

    /// The root directory.
    pub(crate) fn root(&self) -> PathBuf {
        self.home.path().join("root")
    }

    /// The cache the images come from.
    pub(crate) fn cache(&self) -> &Cache {
        &self.cache
    }

    /// Makes the image and pulls it, once.
    pub(crate) fn pull(&self, image: Name) -> Tested {
        let mut pulled = self
            .pulled
            .lock()
            .map_err(|_| "another test panicked while it pulled")?;
        if !pulled.contains(&image) {
            let made = image.make(&self.cache)?;
            self.run(["pull", &made.reference])?;
            pulled.push(image);
        }
        Ok(())
    }

    /// `rdock` with `args`, not started.
    pub(crate) fn command<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = Command::new(&self.path);
        self.environment(&mut command);
        command.args(args).stdin(Stdio::null());
        command
    }

    /// Gives `command` the root and the registry.
    pub(crate) fn environment(&self, command: &mut Command) {
        command
            .env("RDOCK_ROOT", self.root())
            .env("CONTAINERS_REGISTRIES_CONF", &self.conf)
            .env("DOCKER_CONFIG", self.home.path())
            .env_remove("RUST_BACKTRACE");
    }

    /// Runs it; what it printed.
    pub(crate) fn run<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Result<String, String> {
        let mut command = self.command(args);
        let output = command
            .output()
            .map_err(|error| format!("{command:?}: {error}"))?;
        success(&command, &output)
    }

    /// This test program as a host program in `role`, with the same root.
    pub(crate) fn role(&self, role: &str) -> std::io::Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        self.environment(&mut command);
        command.env("RDOCK_TEST_ROLE", role).stdin(Stdio::null());
        Ok(command)
    }

    /// A container that is removed when this value goes out of scope, whatever became of it.
    pub(crate) fn guard<'a>(&'a self, name: &'a str) -> Guard<'a> {
        Guard { program: self, name }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Detached containers outlive the programs that made them; these must not outlive their root.
        let Ok(ids) = self.run(["ps", "-aq"]) else { return };
        for id in ids.split_whitespace() {
            self.run(["rm", "-f", id]).ok();
        }
    }
}

/// Removes a container at the end of a test.
pub(crate) struct Guard<'a> {
    program: &'a Program,
    name: &'a str,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        // Most tests have removed it by now.
        self.program.run(["rm", "-f", self.name]).ok();
    }
}

/// Standard output of a program that succeeded.
pub(crate) fn success(command: &Command, output: &Output) -> Result<String, String> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    let error = String::from_utf8_lossy(&output.stderr);
    Err(format!(
        "{:?} ended with {}\n{text}{error}",
        command.get_args().collect::<Vec<_>>(),
        output.status
    ))
}

/// A TCP port of 127.0.0.1 that nothing uses now.
pub(crate) fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// The example program, which `cargo test` builds beside this one.
pub(crate) fn path() -> Result<PathBuf, String> {
    static PATH: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let find = || {
        let me = std::env::current_exe().map_err(|error| error.to_string())?;
        let dir = me
            .parent()
            .and_then(Path::parent)
            .ok_or("no folder above the test program")?;
        let path = dir.join("examples/rdock");
        match path.exists() {
            true => Ok(path),
            false => Err(format!(
                "{} is missing: `cargo build --example rdock` makes it",
                path.display()
            )),
        }
    };
    PATH.get_or_init(find).clone()
}
