//! Each project goes through its life: up, up again, one value changed, scaled, down.

use crate::fixtures::Name;
use crate::program::{Program, Stage, Tested, needs_root};
use crate::tutorial::OTHER_USER;
use libtest_mimic::Trial;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

type Ids = BTreeSet<String>;

type Test = fn(&Stage) -> Tested;

/// The tests of this file.
pub(crate) fn trials(stage: &Arc<Stage>) -> Vec<Trial> {
    let tests: [(&str, Test); 10] = [
        ("page", |stage| live(stage, "page", &[Name::Nginx, Name::Redis])),
        ("mysql", |stage| live(stage, "mysql", &[Name::Mysql])),
        ("postgres", |stage| live(stage, "postgres", &[Name::Postgres])),
        ("replicas", |stage| live(stage, "replicas", &[Name::Redis])),
        ("profiles", |stage| live(stage, "profiles", &[Name::Redis])),
        ("secrets", |stage| live(stage, "secrets", &[Name::Mysql])),
        ("configs", |stage| live(stage, "configs", &[Name::Nginx])),
        ("networks", |stage| live(stage, "networks", &[Name::Redis])),
        ("volumes", |stage| live(stage, "volumes", &[Name::Debian])),
        ("parts", |stage| live(stage, "parts", &[Name::Redis])),
    ];
    tests
        .into_iter()
        .map(|(name, test)| stage.trial(&format!("project_of_{name}_lives_and_leaves_nothing"), test))
        .collect()
}

/// What is to be seen of a project.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Steps {
    probes: Vec<Probe>,
    /// Services that have no container.
    #[serde(default)]
    absent: Vec<String>,
    profile: Option<Profile>,
    /// Bytes that no file of a container's state has.
    #[serde(default)]
    hidden: Vec<String>,
    change: Change,
    scale: Option<Scale>,
}

/// A command in a container of a service, and what it prints.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Probe {
    service: String,
    command: Vec<String>,
    stdout: String,
}

/// A profile, and a probe of a service that exists with it alone.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Profile {
    name: String,
    service: String,
    command: Vec<String>,
    stdout: String,
}

/// A text of the project's files that becomes another, and the services that this concerns.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    from: String,
    to: String,
    recreated: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Scale {
    service: String,
    to: usize,
}

/// A project of its own name, in a folder of its own.
struct Project<'a> {
    rdock: &'a Program,
    dir: tempfile::TempDir,
    name: String,
}

impl<'a> Project<'a> {
    fn of(rdock: &'a Program, folder: &str) -> Result<Self, Box<dyn std::error::Error>> {
        let from = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("examples/rdock/tests/projects")
            .join(folder);
        let dir = tempfile::TempDir::with_prefix("rdock-project-")?;
        copy(&from, dir.path())?;
        let name = format!("{folder}-{}", std::process::id());
        Ok(Self { rdock, dir, name })
    }

    fn run<'b>(&self, arguments: impl IntoIterator<Item = &'b str>) -> Result<String, String> {
        let dir = self.dir.path().to_string_lossy();
        let arguments: Vec<&str> = arguments.into_iter().collect();
        let first = ["compose", "-p", &self.name, "--project-directory", &dir];
        self.rdock.run(first.into_iter().chain(arguments))
    }

    fn ids(&self, service: Option<&str>) -> Result<Ids, String> {
        let ids = self.run(["ps", "-a", "-q"].into_iter().chain(service))?;
        Ok(ids.split_whitespace().map(str::to_owned).collect())
    }

    fn check(&self, service: &str, command: &[String], stdout: &str) -> Tested {
        let words = ["exec", "-T", service].into_iter();
        let said = self.run(words.chain(command.iter().map(String::as_str)))?;
        if said.trim_end() != stdout {
            return Err(format!("{service}: {command:?} printed {said:?}, not {stdout:?}").into());
        }
        Ok(())
    }

    fn services(&self) -> Result<Vec<String>, String> {
        let services = self.run(["config", "--services"])?;
        Ok(services.lines().map(str::to_owned).collect())
    }

    /// What exists with the project's label.
    fn remains(&self) -> Result<String, String> {
        let label = format!("label=com.docker.compose.project={}", self.name);
        let containers = self.rdock.run(["ps", "-aq", "--filter", &label])?;
        let networks = self.rdock.run(["network", "ls", "-q", "--filter", &label])?;
        let volumes = self.rdock.run(["volume", "ls", "-q", "--filter", &label])?;
        Ok(containers + &networks + &volumes)
    }
}

impl Drop for Project<'_> {
    fn drop(&mut self) {
        // A test that failed in the middle leaves nothing to the next one either.
        self.run(["--profile", "*", "down", "-v", "-t", "0"]).ok();
    }
}

fn live(stage: &Stage, folder: &str, images: &[Name]) -> Tested {
    needs_root(OTHER_USER)?;
    let rdock = stage.with(images)?;
    let project = Project::of(&rdock, folder)?;
    let steps: Steps = serde_json::from_slice(&fs::read(project.dir.path().join("steps.json"))?)?;

    project.run(["up", "-d"])?;
    for probe in &steps.probes {
        project.check(&probe.service, &probe.command, &probe.stdout)?;
    }
    for service in &steps.absent {
        assert_eq!(project.ids(Some(service))?, Ids::new(), "{service} runs");
    }
    let containers = rdock.root().join("containers");
    for hidden in &steps.hidden {
        assert_eq!(files_with(&containers, hidden.as_bytes())?, Vec::<PathBuf>::new());
    }

    let before = project.ids(None)?;
    assert!(!before.is_empty());
    project.run(["up", "-d"])?;
    assert_eq!(project.ids(None)?, before, "up a second time is no change");

    if let Some(profile) = &steps.profile {
        project.run(["--profile", &profile.name, "up", "-d"])?;
        project.check(&profile.service, &profile.command, &profile.stdout)?;
    }

    changed(&project, &steps.change)?;
    if let Some(Scale { service, to }) = &steps.scale {
        let scale = format!("{service}={to}");
        project.run(["up", "-d", "--scale", &scale])?;
        assert_eq!(project.ids(Some(service))?.len(), *to, "{scale}");
        project.run(["up", "-d"])?;
        assert!(
            project.ids(Some(service))?.len() < *to,
            "back to what the file says"
        );
    }

    project.run(["--profile", "*", "down", "-v", "-t", "2"])?;
    assert_eq!(project.remains()?, "");
    Ok(())
}

/// Changes a value; only the services that have it get new containers.
fn changed(project: &Project<'_>, change: &Change) -> Tested {
    let services = project.services()?;
    let mut before = Vec::new();
    for service in &services {
        before.push(project.ids(Some(service))?);
    }
    let mut edited = 0;
    for file in files(project.dir.path())? {
        let Ok(text) = fs::read_to_string(&file) else {
            continue;
        };
        if text.contains(&change.from) && !file.ends_with("steps.json") {
            fs::write(&file, text.replace(&change.from, &change.to))?;
            edited += 1;
        }
    }
    assert_eq!(edited, 1, "{:?} is in one file", change.from);
    project.run(["up", "-d"])?;
    for (service, before) in services.iter().zip(before) {
        let after = project.ids(Some(service))?;
        if change.recreated.contains(service) {
            assert!(
                after.is_disjoint(&before) && after.len() == before.len(),
                "{service} is made anew: {before:?} {after:?}"
            );
        } else {
            assert_eq!(after, before, "{service} stays");
        }
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            fs::create_dir(&target)?;
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// All regular files below `dir`.
fn files(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            found.extend(files(&entry.path())?);
        } else if kind.is_file() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// The files below `dir` that have these bytes. A file that goes away meanwhile has none.
fn files_with(dir: &Path, bytes: &[u8]) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in files(dir)? {
        let content = fs::read(&path).unwrap_or_default();
        if content.windows(bytes.len()).any(|window| window == bytes) {
            found.push(path);
        }
    }
    Ok(found)
}
