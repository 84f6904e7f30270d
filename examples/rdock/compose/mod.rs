//! `rdock compose`: docker compose's verbs, one file a verb.

mod config;

use crate::{Failure, Outcome, streams};
use clap::{Args, Subcommand};
use rdock_compose::{LoadOptions, Warning};
use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};

/// A project of containers, from a compose file
#[derive(Debug, Args)]
pub(crate) struct Compose {
    #[command(flatten)]
    pub(crate) files: Files,
    #[command(subcommand)]
    verb: Verb,
}

/// Which project, and with which variables.
#[derive(Debug, Args)]
pub(crate) struct Files {
    /// A compose file; - is the standard input
    #[arg(short, long = "file")]
    file: Vec<PathBuf>,
    /// The project's name
    #[arg(short, long)]
    project_name: Option<String>,
    /// A profile that is active; * for all
    #[arg(long)]
    profile: Vec<String>,
    /// A file of variables, instead of .env
    #[arg(long)]
    env_file: Vec<PathBuf>,
    /// The folder that relative paths begin at
    #[arg(long)]
    project_directory: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Print the project as it is understood
    #[command(alias = "convert")]
    Config(config::Config),
}

impl Compose {
    /// Does what was asked.
    pub(crate) fn execute(self) -> Outcome {
        match self.verb {
            Verb::Config(verb) => verb.execute(&self.files),
        }
    }
}

/// The words of a program that is called through a link named docker-compose, as those of `rdock compose`.
pub(crate) fn words(words: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut words: Vec<OsString> = words.collect();
    let name = words.first().map(Path::new).and_then(Path::file_name);
    if name.is_some_and(|name| name == "docker-compose" || name == "rdock-compose") {
        words.insert(1, "compose".into());
    }
    words
}

impl Files {
    /// What the loader is told: these flags, and this program's folder and environment.
    pub(crate) fn options(&self) -> Result<LoadOptions, Failure> {
        let mut options = LoadOptions::new(std::env::current_dir()?);
        options.files.clone_from(&self.file);
        if self.file.iter().any(|file| file == Path::new("-")) {
            let mut text = String::new();
            // More than any document may have is refused by the loader.
            std::io::stdin().take(64 << 20).read_to_string(&mut text)?;
            options.stdin = Some(text);
        }
        options.project_name.clone_from(&self.project_name);
        options.profiles.clone_from(&self.profile);
        options.env_files.clone_from(&self.env_file);
        options.project_directory.clone_from(&self.project_directory);
        // Variables that are not text cannot be put into text.
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        options.environment = variables.collect();
        Ok(options)
    }
}

/// Says warnings for people.
pub(crate) fn warn(warnings: &[Warning]) {
    for warning in warnings {
        streams::say(&format!("WARNING: {warning}"));
    }
}

impl From<rdock_compose::Error> for Failure {
    fn from(error: rdock_compose::Error) -> Self {
        Self {
            hint: error.hint(),
            ..Self::new(crate::chain(&error))
        }
    }
}
