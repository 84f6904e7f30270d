//! What the caller says about a project that is to be loaded.

use crate::error::{Error, Result};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// How a project is loaded. Nothing is read from the process but what stands here, and the working directory if
/// [`Self::current_dir`] is relative to it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LoadOptions {
    /// The folder that relative names of the caller begin at; discovery begins here. One that is relative itself
    /// begins at the process's working directory.
    pub current_dir: PathBuf,
    /// The files (`-f`); `-` is [`Self::stdin`]. Empty: `COMPOSE_FILE`, then discovery.
    pub files: Vec<PathBuf>,
    /// The text for the file `-`.
    pub stdin: Option<String>,
    /// The folder that relative paths in the files begin at (`--project-directory`); that of the first file if absent.
    pub project_directory: Option<PathBuf>,
    /// The project's name (`-p`).
    pub project_name: Option<String>,
    /// Active profiles (`--profile`); `*` is all. `COMPOSE_PROFILES` counts too.
    pub profiles: Vec<String>,
    /// Files of variables instead of `.env` (`--env-file`).
    pub env_files: Vec<PathBuf>,
    /// The variables of the caller. They win over those of files.
    pub environment: BTreeMap<String, String>,
    /// Variables are filled in.
    pub interpolate: bool,
    /// Names, default networks and implied dependencies are filled in.
    pub normalize: bool,
    /// Relative paths become absolute.
    pub resolve_paths: bool,
    /// References are checked: services, networks, volumes, secrets, configs.
    pub consistency: bool,
    /// The files of `env_file` are read into `environment`.
    pub resolve_env_files: bool,
    /// `.env` of the project's folder is read.
    pub dot_env: bool,
    /// Names of containers and images have `_` between their parts (`--compatibility`).
    pub compatibility: bool,
    /// Files that the documents name may be read: of `extends`, `include` and `label_file`.
    pub other_files: bool,
}

impl LoadOptions {
    /// The files found from a folder on, with no variables.
    pub fn new(current_dir: impl Into<PathBuf>) -> Self {
        Self {
            current_dir: current_dir.into(),
            files: Vec::new(),
            stdin: None,
            project_directory: None,
            project_name: None,
            profiles: Vec::new(),
            env_files: Vec::new(),
            environment: BTreeMap::new(),
            interpolate: true,
            normalize: true,
            resolve_paths: true,
            consistency: true,
            resolve_env_files: true,
            dot_env: true,
            compatibility: false,
            other_files: true,
        }
    }

    /// The same with an absolute folder: what a project is called and made from does not depend on how its folder
    /// was named.
    pub(super) fn rooted(&self) -> Result<Cow<'_, Self>> {
        if self.current_dir.is_absolute() {
            return Ok(Cow::Borrowed(self));
        }
        let dir = match self.current_dir.as_os_str().is_empty() {
            true => ".".as_ref(),
            false => self.current_dir.as_path(),
        };
        let dir = std::path::absolute(dir).map_err(|source| Error::Read {
            path: self.current_dir.clone(),
            source,
        })?;
        Ok(Cow::Owned(Self {
            current_dir: dir,
            ..self.clone()
        }))
    }

    /// One file, relative to the folder.
    #[must_use]
    pub fn file(mut self, file: impl Into<PathBuf>) -> Self {
        self.files.push(file.into());
        self
    }

    /// The project's name.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.project_name = Some(name.into());
        self
    }

    /// An active profile.
    #[must_use]
    pub fn profile(mut self, profile: impl Into<String>) -> Self {
        self.profiles.push(profile.into());
        self
    }

    /// A variable of the caller.
    #[must_use]
    pub fn variable(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.environment.insert(name.into(), value.into());
        self
    }

    /// The text of the only file, as if it stood in the folder.
    #[must_use]
    pub fn text(mut self, text: impl Into<String>) -> Self {
        self.stdin = Some(text.into());
        self.files = vec![PathBuf::from("-")];
        self
    }
}
