//! What is watched, and what comes of a change.

use super::batch::Change;
use super::{WatchError, WatchOptions};
use crate::model::{Build, Dependencies, Hook, Project, Service, Watch};
use crate::plan::PlanError;
use rdock_build::ignore::Patterns;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What no rule is for: git's own files, and what editors keep while they work.
const EPHEMERAL: [&str; 15] = [
    "**/.git",
    "**/*___jb_old___",
    "**/*___jb_tmp___",
    "**/.idea/**",
    "**/.#*",
    "**/#*#",
    "**/4913",
    "**/*~",
    "**/.*.swp",
    "**/.*.swx",
    "**/.*.swo",
    "**/.*.swn",
    "**/.*.kate-swp",
    "**/*-go-tmp-umask",
    "**/.goutputstream-*",
];

/// What is done for a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Action {
    pub(super) rebuild: bool,
    pub(super) sync: bool,
    pub(super) restart: bool,
    pub(super) exec: bool,
}

impl Action {
    fn parse(text: &str) -> Option<Self> {
        let none = Self {
            rebuild: false,
            sync: false,
            restart: false,
            exec: false,
        };
        Some(match text {
            "rebuild" => Self {
                rebuild: true,
                ..none
            },
            "restart" => Self {
                restart: true,
                ..none
            },
            "sync" => Self { sync: true, ..none },
            "sync+restart" => Self {
                sync: true,
                restart: true,
                ..none
            },
            "sync+exec" => Self {
                sync: true,
                exec: true,
                ..none
            },
            _ => return None,
        })
    }
}

/// Patterns, and the folder that they are relative to.
#[derive(Debug)]
struct Below {
    base: PathBuf,
    patterns: Patterns,
}

impl Below {
    /// The path as the patterns see it; none for one that is elsewhere.
    fn relative<'a>(&self, path: &'a Path) -> Option<&'a str> {
        path.strip_prefix(&self.base).ok()?.to_str()
    }

    fn matches(&self, path: &Path) -> bool {
        self.relative(path)
            .is_some_and(|path| self.patterns.excludes(path))
    }

    /// Whether it matches a folder and everything below it.
    fn matches_all(&self, dir: &Path) -> bool {
        self.relative(dir)
            .is_some_and(|dir| self.patterns.excludes(dir) && !self.patterns.may_include_below(dir))
    }
}

/// A rule of a service.
#[derive(Debug)]
pub(crate) struct Rule {
    service: String,
    watch: Watch,
    pub(super) action: Action,
    /// What is watched, without links.
    path: PathBuf,
    include: Option<Below>,
    ignore: Arc<Vec<Below>>,
}

impl Rule {
    pub(super) fn service(&self) -> &str {
        &self.service
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn initial_sync(&self) -> bool {
        self.watch.initial_sync && self.action.sync
    }

    pub(super) fn exec(&self) -> Option<&Hook> {
        self.watch.exec.as_ref().filter(|_| self.action.exec)
    }

    /// As the file has it.
    #[cfg(test)]
    pub(crate) fn written(&self) -> &Watch {
        &self.watch
    }

    /// The change of a file, if the rule is for it.
    pub(super) fn change(&self, file: &Path) -> Option<Change> {
        let below = file.strip_prefix(&self.path).ok()?;
        let included = self.include.as_ref().is_none_or(|include| include.matches(file));
        if !included || self.ignore.iter().any(|ignore| ignore.matches(file)) {
            return None;
        }
        let target = self.watch.target.as_deref().unwrap_or_default();
        let to = match below.as_os_str().is_empty() {
            // A file may go into a folder.
            true if target.ends_with('/') && !file.is_dir() => {
                Path::new(target).join(file.file_name().unwrap_or_default())
            }
            true => PathBuf::from(target),
            false => Path::new(target).join(below),
        };
        Some(Change {
            from: file.to_owned(),
            // A name that is not text cannot be told to a container's rm.
            to: to.to_str()?.to_owned(),
        })
    }

    /// Whether nothing below the folder is for the rule.
    pub(super) fn leaves_out(&self, dir: &Path) -> bool {
        self.left_out()(dir)
    }

    /// The same, for a thread.
    pub(super) fn left_out(&self) -> Box<dyn Fn(&Path) -> bool + Send> {
        let (path, ignore) = (self.path.clone(), self.ignore.clone());
        Box::new(move |dir| !dir.starts_with(&path) || ignore.iter().any(|ignore| ignore.matches_all(dir)))
    }

    /// Every file that the rule is for.
    pub(super) fn files(&self) -> io::Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        let mut open = vec![self.path.clone()];
        while let Some(path) = open.pop() {
            let meta = match path.symlink_metadata() {
                // It went away meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound && path != self.path => continue,
                other => other?,
            };
            if !meta.is_dir() {
                found.push(path);
            } else if path == self.path || !self.leaves_out(&path) {
                for entry in std::fs::read_dir(&path)? {
                    open.push(entry?.path());
                }
            }
        }
        found.sort();
        Ok(found)
    }
}

/// The rules of the services that are meant. `mounted` is told what is not watched since it is mounted.
pub(crate) fn rules(
    project: &Project,
    options: &WatchOptions,
    mounted: &mut dyn FnMut(&Path),
) -> Result<Vec<Rule>, WatchError> {
    let selected = project
        .select(&options.services, Dependencies::Leave)
        .map_err(PlanError::from)?;
    let mut rules = Vec::new();
    for (name, service) in &selected.services {
        for watch in service.develop.iter().flat_map(|develop| &develop.watch) {
            // The loader knows the words.
            let Some(action) = Action::parse(&watch.action) else {
                continue;
            };
            if action.rebuild {
                if service.build.is_none() {
                    return Err(WatchError::NoBuild(name.clone()));
                }
                if !options.build {
                    return Err(WatchError::BuildForbidden(name.clone()));
                }
            }
            let path = Path::new(&watch.path);
            if action.sync && is_mounted(service, path) {
                mounted(path);
                continue;
            }
            let path = path.canonicalize().map_err(WatchError::file("watch", path))?;
            let pattern = |error: &dyn std::fmt::Display| WatchError::Pattern {
                service: name.clone(),
                reason: error.to_string(),
            };
            let below = |base: &Path, patterns: &[String]| -> Result<Below, WatchError> {
                Ok(Below {
                    base: base.to_owned(),
                    patterns: Patterns::parse("a pattern", &patterns.join("\n"))
                        .map_err(|error| pattern(&error))?,
                })
            };
            let include = match watch.include.is_empty() {
                true => None,
                false => Some(below(&path, &watch.include)?),
            };
            let ephemeral = EPHEMERAL.map(str::to_owned);
            let mut ignore = vec![below(&path, &watch.ignore)?, below(&path, &ephemeral)?];
            if let Some(build) = &service.build {
                ignore.extend(of_context(build).map_err(|error| match error {
                    Ok(error) => pattern(&error),
                    Err((path, error)) => WatchError::file("read", path)(error),
                })?);
            }
            rules.push(Rule {
                service: name.clone(),
                watch: watch.clone(),
                action,
                path,
                include,
                ignore: Arc::new(ignore),
            });
        }
    }
    Ok(rules)
}

/// Whether a change would be seen in the container anyway.
fn is_mounted(service: &Service, path: &Path) -> bool {
    service.volumes.iter().any(|volume| {
        let source = volume.source.as_deref().unwrap_or_default();
        volume.r#type == "bind" && !source.is_empty() && path.starts_with(source)
    })
}

type IgnoreError = Result<rdock_build::ignore::PatternError, (PathBuf, io::Error)>;

/// What the build leaves out of its context.
fn of_context(build: &Build) -> Result<Option<Below>, IgnoreError> {
    let context = Path::new(&build.context);
    let Ok(base) = context.canonicalize() else {
        return Ok(None);
    };
    let dockerfile = base.join(build.dockerfile.as_deref().unwrap_or("Dockerfile"));
    for file in Patterns::files(&dockerfile, &base) {
        let text = match std::fs::read(&file) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(Err((file, error))),
        };
        let patterns = Patterns::parse(&file.to_string_lossy(), &text).map_err(Ok)?;
        return Ok(Some(Below { base, patterns }));
    }
    Ok(None)
}
