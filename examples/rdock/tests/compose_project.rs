//! A compose project of the small image, and the program in its foreground.

use crate::tiny::{Done, Tiny};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long anything may take.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// A service that needs another; both stay until they are stopped.
pub(crate) const PAIR: &str = r#"
services:
  db:
    image: tiny
    command: [trap, "15", "0", ",", echo, db ready, ",", sleep, "100"]
  web:
    image: tiny
    command: [trap, "15", "0", ",", echo, web ready, ",", sleep, "100"]
    depends_on: [db]
"#;

type Error = Box<dyn std::error::Error>;

/// A project in a folder of its own. What it made is gone with this value.
pub(crate) struct Project<'a> {
    pub(crate) tiny: &'a Tiny,
    dir: TempDir,
}

impl<'a> Project<'a> {
    /// The project `shop` of this file, which `rdock` can run here.
    pub(crate) fn new(tiny: &'a Tiny, file: &str) -> Result<Self, Error> {
        // Says so where a plain user can run nothing.
        tiny.start(&["run", "--rm", "tiny"])?;
        let project = Self {
            tiny,
            dir: TempDir::with_prefix("rdock-shop-")?,
        };
        project.write("compose.yaml", &format!("name: shop\n{file}"))?;
        Ok(project)
    }

    /// A path in its folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> std::io::Result<()> {
        std::fs::write(self.path(name), text)
    }

    /// `rdock compose` in its folder, not started.
    pub(crate) fn command(&self, words: &[&str]) -> Result<Command, Error> {
        self.command_in(self.dir.path(), words)
    }

    /// `rdock compose` in another folder.
    pub(crate) fn command_in(&self, dir: &Path, words: &[&str]) -> Result<Command, Error> {
        let words: Vec<&str> = ["compose"].iter().chain(words).copied().collect();
        let mut command = self.tiny.command(&words)?;
        command.current_dir(dir);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("COMPOSE_") {
                command.env_remove(name);
            }
        }
        Ok(command)
    }

    /// Runs it, whatever comes of it.
    pub(crate) fn run(&self, words: &[&str]) -> Result<Done, Error> {
        Ok(self.command(words)?.output()?.into())
    }

    /// What it printed; it must succeed.
    pub(crate) fn ok(&self, words: &[&str]) -> Result<String, Error> {
        let done = self.run(words)?;
        match done.code {
            Some(0) => Ok(done.stdout),
            _ => Err(format!("{words:?}: {done:?}").into()),
        }
    }

    /// It fails with this code and says all of these words.
    pub(crate) fn fails(&self, words: &[&str], code: i32, said: &[&str]) -> Result<(), Error> {
        let done = self.run(words)?;
        let told = said.iter().all(|word| done.stderr.contains(word));
        match done.code == Some(code) && told {
            true => Ok(()),
            false => Err(format!("{words:?}: expected {code} and {said:?}: {done:?}").into()),
        }
    }

    /// `NAME STATE` of its containers, sorted.
    pub(crate) fn states(&self) -> Result<Vec<String>, Error> {
        let shown = self.ok(&["ps", "-a", "--format", "{{.Name}} {{.State}}"])?;
        let mut lines: Vec<String> = shown.lines().map(str::to_owned).collect();
        lines.sort();
        Ok(lines)
    }

    /// The id of a container.
    pub(crate) fn id(&self, name: &str) -> Result<String, Error> {
        let shown = self.tiny.run(&["inspect", "--format", "{{.Id}}", name])?;
        match shown.code {
            Some(0) => Ok(shown.stdout.trim().to_owned()),
            _ => Err(format!("{name}: {shown:?}").into()),
        }
    }

    /// Starts it and listens to it.
    pub(crate) fn listen(&self, words: &[&str]) -> Result<Voice, Error> {
        Voice::of(self.command(words)?)
    }
}

impl Drop for Project<'_> {
    fn drop(&mut self) {
        // A test that failed in the middle leaves nothing either.
        self.run(&["--profile", "*", "down", "-v", "-t", "0", "--remove-orphans"])
            .ok();
    }
}

/// A program that talks.
pub(crate) struct Voice {
    child: Child,
    lines: Receiver<String>,
    heard: Vec<String>,
}

impl Voice {
    /// Starts it; both outputs are heard together.
    pub(crate) fn of(mut command: Command) -> Result<Self, Error> {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let (tell, lines) = channel();
        let outputs: [Option<Box<dyn std::io::Read + Send>>; 2] = [
            child.stdout.take().map(|out| Box::new(out) as _),
            child.stderr.take().map(|out| Box::new(out) as _),
        ];
        for output in outputs.into_iter().flatten() {
            let tell = tell.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    if tell.send(line).is_err() {
                        return;
                    }
                }
            });
        }
        Ok(Self {
            child,
            lines,
            heard: Vec::new(),
        })
    }

    /// Waits for a line with this text.
    pub(crate) fn until(&mut self, text: &str) -> Result<String, Error> {
        let deadline = Instant::now() + SOON;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    self.heard.push(line.clone());
                    if line.contains(text) {
                        return Ok(line);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    return Err(format!("no {text:?} within {SOON:?}: {:#?}", self.heard).into());
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(format!("it ended without {text:?}: {:#?}", self.heard).into());
                }
            }
        }
    }

    /// Waits for a line with this text, unless one was heard already.
    pub(crate) fn until_heard(&mut self, text: &str) -> Result<(), Error> {
        match self.heard.iter().any(|line| line.contains(text)) {
            true => Ok(()),
            false => self.until(text).map(drop),
        }
    }

    /// Types; its input must be a pipe.
    pub(crate) fn say(&mut self, text: &str) -> Result<(), Error> {
        let stdin = self.child.stdin.as_mut().ok_or("no stdin")?;
        Ok(stdin.write_all(text.as_bytes())?)
    }

    /// Sends a signal to it.
    pub(crate) fn signal(&self, signal: rustix::process::Signal) -> Result<(), Error> {
        let pid = rustix::process::Pid::from_child(&self.child);
        Ok(rustix::process::kill_process(pid, signal)?)
    }

    /// Waits for its end: the code, and everything it said.
    pub(crate) fn end(mut self) -> Result<(Option<i32>, String), Error> {
        let deadline = Instant::now() + SOON;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => self.heard.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    return Err(format!("still there after {SOON:?}: {:#?}", self.heard).into());
                }
            }
        }
        let code = self.child.wait()?.code();
        Ok((code, self.heard.join("\n")))
    }
}

impl Drop for Voice {
    fn drop(&mut self) {
        // One that has ended is reaped by now.
        if let Ok(None) = self.child.try_wait() {
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}
