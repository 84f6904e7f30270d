//! `compose config`: the project as it is understood.

use super::{Files, warn};
use crate::{Failure, Outcome, streams};
use clap::{Args, ValueEnum};
use rdock_compose::{Dependencies, Document, Format, Project, service_hash};
use rdock_registry::RegistryClient;
use std::path::PathBuf;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Yaml,
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct Config {
    /// The form of the output: yaml if absent, for --variables a table
    #[arg(long, value_enum)]
    format: Option<Output>,
    /// Print the names of the services, one a line, each after those it needs
    #[arg(long)]
    services: bool,
    /// Print the keys of the volumes, one a line
    #[arg(long)]
    volumes: bool,
    /// Print the keys of the networks, one a line
    #[arg(long)]
    networks: bool,
    /// Print the models, one a line
    #[arg(long)]
    models: bool,
    /// Print the images, one a line
    #[arg(long)]
    images: bool,
    /// Print the profiles, one a line
    #[arg(long)]
    profiles: bool,
    /// Print the hash of these services, with commas between them; * for all
    #[arg(long)]
    hash: Option<String>,
    /// Print the variables that are filled in
    #[arg(long)]
    environment: bool,
    /// Print the variables that the files use
    #[arg(long)]
    variables: bool,
    /// Images by the digests that their registries have for them now
    #[arg(long, conflicts_with_all = ["no_interpolate", "variables"])]
    resolve_image_digests: bool,
    /// Print a file that holds the services to the images of now, and nothing else
    #[arg(long, conflicts_with_all = ["no_interpolate", "variables"])]
    lock_image_digests: bool,
    /// Leave variables as they are
    #[arg(long)]
    no_interpolate: bool,
    /// Leave out what is only implied
    #[arg(long)]
    no_normalize: bool,
    /// Leave relative paths as they are
    #[arg(long)]
    no_path_resolution: bool,
    /// Do not check that names lead somewhere
    #[arg(long)]
    no_consistency: bool,
    /// Leave env_file as it is
    #[arg(long)]
    no_env_resolution: bool,
    /// Only check
    #[arg(short, long)]
    quiet: bool,
    /// Write into this file
    #[arg(short, long)]
    output: Option<PathBuf>,
    /// Only these services and what they need
    services_only: Vec<String>,
}

impl Config {
    pub(crate) async fn execute(self, files: &Files) -> Outcome {
        let text = self.text(files).await?;
        if self.quiet {
            return Ok(0);
        }
        match &self.output {
            Some(path) => std::fs::write(path, text)
                .map_err(|error| Failure::new(format!("{}: {error}", path.display())))?,
            None if text.is_empty() => {}
            None => streams::print(text.trim_end_matches('\n')),
        }
        Ok(0)
    }

    async fn text(&self, files: &Files) -> Result<String, Failure> {
        let mut options = files.options()?;
        options.normalize = !self.no_normalize;
        options.resolve_paths = !self.no_path_resolution;
        options.consistency = !self.no_consistency;
        options.resolve_env_files = !self.no_env_resolution;
        let format = match self.format {
            Some(Output::Json) => Format::Json,
            _ => Format::Yaml,
        };
        if self.variables {
            options.interpolate = false;
            let document = Document::load(&options)?;
            return match self.format {
                None => variables(&document),
                Some(_) => Ok(document.variables_as(format)?),
            };
        }
        if self.no_interpolate {
            options.interpolate = false;
            let document = Document::load(&options)?;
            warn(&document.warnings);
            return match self.keys_of(&document)? {
                Some(list) => Ok(list),
                None => Ok(document.config(format)),
            };
        }
        let project = Project::load(&options)?;
        warn(&project.warnings);
        let mut project = project.select(&self.services_only, Dependencies::Include)?;
        if !files.all_resources {
            project.remove_unused();
        }
        if self.resolve_image_digests || self.lock_image_digests {
            let registry = RegistryClient::from_environment()?;
            let digest = |image: String| {
                let registry = &registry;
                async move {
                    Ok::<_, rdock_registry::Error>(
                        registry.resolve_digest(&image.parse()?).await?.to_string(),
                    )
                }
            };
            project.resolve_image_digests(digest).await?;
        }
        if self.lock_image_digests {
            return Ok(project.image_lock(format));
        }
        self.list(&project)
            .map(|list| list.unwrap_or_else(|| project.config(format)))
    }

    /// What was asked for of a document that is not filled in: keys, since values say nothing yet.
    fn keys_of(&self, document: &Document) -> Result<Option<String>, Failure> {
        let others = [
            (self.images, "--images"),
            (self.profiles, "--profiles"),
            (self.environment, "--environment"),
            (self.hash.is_some(), "--hash"),
            (!self.services_only.is_empty(), "a service"),
        ];
        if let Some((_, flag)) = others.into_iter().find(|(given, _)| *given) {
            return Err(Failure::new(format!(
                "--no-interpolate cannot be combined with {flag}"
            )));
        }
        let kinds = [
            (self.services, "services"),
            (self.volumes, "volumes"),
            (self.networks, "networks"),
            (self.models, "models"),
        ];
        let kind = kinds.into_iter().find(|(given, _)| *given);
        Ok(kind.map(|(_, key)| {
            let map = document.tree[key].as_object();
            map.into_iter()
                .flat_map(|map| map.keys())
                .map(|key| format!("{key}\n"))
                .collect()
        }))
    }

    /// What was asked for instead of the whole.
    fn list(&self, project: &Project) -> Result<Option<String>, Failure> {
        let lines = |names: Vec<String>| Some(names.iter().map(|name| format!("{name}\n")).collect());
        let keys = |names: &mut dyn Iterator<Item = &String>| lines(names.cloned().collect());
        Ok(match () {
            () if self.services => lines(project.in_order().into_iter().map(str::to_owned).collect()),
            () if self.volumes => keys(&mut project.volumes.keys()),
            () if self.networks => keys(&mut project.networks.keys()),
            () if self.models => keys(&mut project.models.values().map(|model| &model.model)),
            () if self.images => lines(project.images().into_iter().collect()),
            () if self.profiles => lines(project.all_profiles().into_iter().collect()),
            () if self.environment => lines(
                project
                    .environment
                    .iter()
                    .map(|(name, value)| format!("{name}={value}"))
                    .collect(),
            ),
            () => match &self.hash {
                None => None,
                Some(names) if names == "*" => {
                    lines(project.services.keys().map(|name| hash(project, name)).collect())
                }
                Some(names) => {
                    let names: Vec<&str> = names.split(',').filter(|name| !name.is_empty()).collect();
                    for name in &names {
                        project.service(name)?;
                    }
                    lines(names.into_iter().map(|name| hash(project, name)).collect())
                }
            },
        })
    }
}

fn hash(project: &Project, service: &str) -> String {
    format!("{service} {}", service_hash(project, service))
}

/// The variables as a table.
fn variables(document: &Document) -> Result<String, Failure> {
    let mut rows = vec![["NAME", "REQUIRED", "DEFAULT VALUE", "ALTERNATE VALUE"].map(str::to_owned)];
    for (name, variable) in document.variables()? {
        let text = |value: Option<String>| value.unwrap_or_default();
        rows.push([
            name,
            variable.required.to_string(),
            text(variable.default),
            text(variable.presence),
        ]);
    }
    let mut widths = [0; 4];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count() + 3);
        }
    }
    let line = |row: &[String; 4]| {
        let cells: String = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        cells.trim_end().to_owned() + "\n"
    };
    Ok(rows.iter().map(line).collect())
}
