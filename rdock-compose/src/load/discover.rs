//! Which files a project has, and which variables.

use super::Loader;
use crate::dotenv::parse_dotenv;
use crate::error::{Error, FindingKind, Result, WarningKind};
use crate::schema::clean;
use crate::source::{Problem, Span};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// In the order of preference.
const NAMES: [&str; 4] = [
    "compose.yaml",
    "compose.yml",
    "docker-compose.yaml",
    "docker-compose.yml",
];

/// Override files, which are added to a file that was found.
const OVERRIDES: [&str; 4] = [
    "compose.override.yaml",
    "compose.override.yml",
    "docker-compose.override.yaml",
    "docker-compose.override.yml",
];

/// What a project begins with.
pub(super) struct Found {
    pub(super) files: Vec<PathBuf>,
    pub(super) dir: PathBuf,
    pub(super) environment: BTreeMap<String, String>,
}

impl Loader<'_> {
    /// The files, the project's folder, and the variables with those of `.env`.
    pub(super) fn discover(&mut self) -> Result<Found> {
        let options = self.options;
        let mut environment = options.environment.clone();
        let mut files = options.files.clone();
        // `.env` of the folder that is known before the files are may name the files.
        let first_dir = match (&options.project_directory, files.first()) {
            (Some(dir), _) => clean(&options.current_dir.join(dir)),
            (None, Some(file)) => self.folder(file),
            (None, None) => clean(&options.current_dir),
        };
        self.add_env_files(&mut environment, &first_dir)?;
        if files.is_empty()
            && let Some(list) = environment.get("COMPOSE_FILE").filter(|list| !list.is_empty())
        {
            let separator = environment
                .get("COMPOSE_PATH_SEPARATOR")
                .map_or(":", String::as_str);
            let names = list.split(if separator.is_empty() { ":" } else { separator });
            files = names.filter(|name| !name.is_empty()).map(PathBuf::from).collect();
        }
        let given = files.iter().map(|file| self.absolute(file)).collect::<Vec<_>>();
        self.given.extend(given);
        if files.is_empty() {
            files = self.search(&first_dir)?;
        }
        let dir = match &options.project_directory {
            Some(dir) => clean(&options.current_dir.join(dir)),
            None => files
                .first()
                .map_or_else(|| first_dir.clone(), |file| self.folder(file)),
        };
        if dir != first_dir && options.env_files.is_empty() {
            self.add_env_files(&mut environment, &dir)?;
        }
        Ok(Found {
            files,
            dir,
            environment,
        })
    }

    fn folder(&self, file: &Path) -> PathBuf {
        if file == Path::new("-") {
            return clean(&self.options.current_dir);
        }
        let file = self.absolute(file);
        file.parent().map_or_else(|| PathBuf::from("/"), Path::to_owned)
    }

    /// The first default name in the folder or one above, with its override file.
    fn search(&mut self, from: &Path) -> Result<Vec<PathBuf>> {
        for dir in from.ancestors() {
            let found: Vec<&str> = NAMES
                .into_iter()
                .filter(|name| dir.join(name).is_file())
                .collect();
            let Some(first) = found.first() else { continue };
            if found.len() > 1 {
                let message = format!(
                    "{} are all in {}; {first} is used",
                    found.join(", "),
                    dir.display()
                );
                self.warn(WarningKind::SeveralFiles, Span::default(), "", message);
            }
            let mut files = vec![dir.join(first)];
            let extra: Vec<&str> = OVERRIDES
                .into_iter()
                .filter(|name| dir.join(name).is_file())
                .collect();
            if let Some(first) = extra.first() {
                if extra.len() > 1 {
                    let message = format!(
                        "{} are all in {}; {first} is used",
                        extra.join(", "),
                        dir.display()
                    );
                    self.warn(WarningKind::SeveralFiles, Span::default(), "", message);
                }
                files.push(dir.join(first));
            }
            return Ok(files);
        }
        Err(Error::NoComposeFile { dir: from.to_owned() })
    }

    /// Variables of `--env-file`, of `COMPOSE_ENV_FILES`, or of `.env` in the folder; what is there already stays.
    fn add_env_files(&mut self, environment: &mut BTreeMap<String, String>, dir: &Path) -> Result<()> {
        let options = self.options;
        let truth = |name: &str| {
            let value = options.environment.get(name);
            value.is_some_and(|value| {
                matches!(
                    value.to_ascii_lowercase().as_str(),
                    "1" | "true" | "yes" | "on" | "y"
                )
            })
        };
        let mut named: Vec<PathBuf> = options
            .env_files
            .iter()
            .map(|file| options.current_dir.join(file))
            .collect();
        if named.is_empty()
            && let Some(list) = options.environment.get("COMPOSE_ENV_FILES")
        {
            let names = list.split(',').filter(|name| !name.is_empty());
            named = names.map(|name| options.current_dir.join(name)).collect();
        }
        if named.is_empty() {
            let default = dir.join(".env");
            if !options.dot_env || truth("COMPOSE_DISABLE_ENV_FILE") || !default.exists() || default.is_dir()
            {
                return Ok(());
            }
            named.push(default);
        } else {
            self.given.extend(named.iter().cloned());
        }
        // A later file wins over an earlier one; the caller's variables win over both.
        let mut together = BTreeMap::new();
        for file in named {
            let found = self.env_file(&file, &|name| {
                environment.get(name).or_else(|| together.get(name)).cloned()
            })?;
            together.extend(found);
        }
        for (name, value) in together {
            environment.entry(name).or_insert(value);
        }
        Ok(())
    }

    /// The variables of one file with the dotenv grammar.
    pub(super) fn env_file(
        &mut self,
        file: &Path,
        lookup: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Vec<(String, String)>> {
        let (source, text) = self.read(file)?;
        parse_dotenv(&text, lookup).map_err(|error| {
            let line = u32::try_from(error.line).unwrap_or(u32::MAX);
            let span = Span {
                file: source,
                line,
                column: 1,
            };
            self.sources
                .error(Problem::new(FindingKind::Syntax, span, "", error.reason))
        })
    }
}
