//! The `rdock` program over a small image that is made here: no network, no registry, no package.

use crate::program::{Cannot, Tested, path};
use libtest_mimic::{Completion, Failed, Trial};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

#[path = "../../payload/image.rs"]
mod image;

pub(crate) use image::archive_with;

/// A root of its own that holds the image `tiny`.
pub(crate) struct Tiny {
    home: TempDir,
}

/// A test that uses its own root. What cannot be had on this machine makes it ignored.
pub(crate) fn trial(name: &str, test: fn(&Tiny) -> Tested) -> Trial {
    Trial::ignorable_test(name, move || {
        let tried = Tiny::new().and_then(|tiny| test(&tiny));
        match tried {
            Ok(()) => Ok(Completion::Completed),
            Err(error) => match error.downcast_ref() {
                Some(Cannot(why)) => Ok(Completion::ignored_with(why)),
                None => Err(Failed::from(error.to_string())),
            },
        }
    })
}

/// What a command did.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Tiny {
    fn new() -> Result<Self, Box<dyn std::error::Error>> {
        let tiny = Self {
            home: TempDir::with_prefix("rdock-tiny-")?,
        };
        std::fs::write(tiny.file("registries.conf"), "")?;
        std::fs::write(tiny.file("tiny.tar"), image::archive("tiny:latest")?)?;
        let loaded = tiny.run(&["load", "-i", &tiny.file("tiny.tar").display().to_string()])?;
        if loaded.stdout != "Loaded image: tiny:latest\n" {
            return Err(format!("{loaded:?}").into());
        }
        Ok(tiny)
    }

    /// A path beside the root.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// `rdock` with its environment, not started.
    pub(crate) fn command(&self, args: &[&str]) -> Result<Command, Box<dyn std::error::Error>> {
        let mut command = Command::new(path()?);
        command
            .args(args)
            .env("RDOCK_ROOT", self.file("root"))
            .env("CONTAINERS_REGISTRIES_CONF", self.file("registries.conf"))
            .env("DOCKER_CONFIG", self.home.path())
            .stdin(Stdio::null());
        Ok(command)
    }

    /// Runs it, whatever comes of it.
    pub(crate) fn run(&self, args: &[&str]) -> Result<Done, Box<dyn std::error::Error>> {
        Ok(self.command(args)?.output()?.into())
    }

    /// Runs a container. A machine that refuses user namespaces to a plain user cannot.
    pub(crate) fn start(&self, args: &[&str]) -> Result<Done, Box<dyn std::error::Error>> {
        let done = self.run(args)?;
        let refused = done.code == Some(125) && done.stderr.contains("hint: user namespaces");
        if refused && !rustix::process::geteuid().is_root() {
            return Err(Cannot(done.stderr).into());
        }
        Ok(done)
    }

    /// Fails when a container, a name of one, a snapshot or an unfinished layer is in the root.
    pub(crate) fn nothing_left(&self) -> Tested {
        let containers = self.run(&["ps", "-aq"])?;
        assert_eq!(containers.stdout, "", "containers are left");
        let volumes = self.run(&["volume", "ls", "-q"])?;
        assert_eq!(volumes.stdout, "", "volumes are left");
        for (folder, allowed) in [
            ("containers", ["format", "names"].as_slice()),
            ("containers/names", &[]),
            ("image/snapshots", &[]),
            ("image/ingest", &[]),
            ("image/leases", &[]),
        ] {
            // What was never needed was never made.
            for entry in std::fs::read_dir(self.file("root").join(folder))
                .into_iter()
                .flatten()
            {
                let name = entry?.file_name();
                let name = name.to_string_lossy();
                assert!(allowed.contains(&&*name), "{folder}/{name} is left");
            }
        }
        Ok(())
    }
}

impl Drop for Tiny {
    fn drop(&mut self) {
        // Detached containers outlive the programs that made them; these must not outlive their root.
        let Ok(left) = self.run(&["ps", "-aq"]) else {
            return;
        };
        for id in left.stdout.split_whitespace() {
            self.run(&["rm", "-f", id]).ok();
        }
    }
}

impl From<Output> for Done {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Done {
    /// It failed so, with one line of message that has all the words, and a hint that has its words, or none.
    pub(crate) fn failed(&self, code: i32, words: &[&str], hint: Option<&str>) {
        assert_eq!(self.code, Some(code), "{self:?}");
        let mut lines = self.stderr.lines();
        let line = lines.find(|line| line.starts_with("rdock: ")).unwrap_or_default();
        for word in words {
            assert!(line.contains(word), "{word:?} is not in {self:?}");
        }
        match (lines.next(), hint) {
            (None, None) => {}
            (Some(found), Some(hint)) if found.starts_with("hint: ") && found.contains(hint) => {}
            _ => panic!("expected the hint {hint:?}: {self:?}"),
        }
        assert_eq!(lines.next(), None, "{self:?}");
        assert!(!self.stderr.contains("panicked"), "{self:?}");
    }
}
