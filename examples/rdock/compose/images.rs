//! `compose build`, `pull`, `push` and `images`.

use super::progress::Quiet;
use super::session::Session;
use crate::build_host;
use crate::table::{ago, size};
use crate::{Failure, Outcome, streams};
use clap::Args;
use rdock_compose::plan::{Build as When, Pull as Policy, PullOptions, UpOptions};
use rdock_compose::{Dependencies, Plan};
use rdock_runtime::image::Reference;
use serde_json::{Value, json};
use std::collections::BTreeSet;

fn dependencies(whole: bool) -> Dependencies {
    match whole {
        true => Dependencies::Include,
        false => Dependencies::Leave,
    }
}

/// Says what is done for images that have no step of their own.
async fn bring(session: &Session, project: &rdock_compose::ComposeProject, options: &UpOptions) -> Outcome {
    // Naming no service would mean all.
    if options.services.is_empty() {
        return Ok(0);
    }
    let plan = Plan::images(project.project(), &project.existing().await?, options)?;
    session.apply(project, &plan).await?;
    Ok(0)
}

#[derive(Debug, Args)]
pub(super) struct Build {
    /// Use nothing that was built before
    #[arg(long)]
    no_cache: bool,
    /// Look for newer base images
    #[arg(long)]
    pull: bool,
    /// NAME=VALUE: an argument of the build
    #[arg(long)]
    build_arg: Vec<String>,
    /// Build what services need too
    #[arg(long)]
    with_dependencies: bool,
    /// Trust in RUN whom this host trusts
    #[arg(long)]
    host_certificates: bool,
    /// Tell nothing of what is done
    #[arg(short, long)]
    quiet: bool,
    /// Upload the images afterwards
    #[arg(long)]
    push: bool,
    #[command(flatten)]
    others: Others,
    /// Services; all without any
    services: Vec<String>,
}

/// Flags of docker's that change nothing, and such as nothing comes of yet.
#[derive(Debug, Args)]
struct Others {
    #[arg(long, hide = true)]
    compress: bool,
    #[arg(long, hide = true)]
    force_rm: bool,
    #[arg(long, hide = true)]
    no_rm: bool,
    #[arg(short, long, hide = true)]
    memory: Option<String>,
    /// Not supported yet
    #[arg(long)]
    ssh: Option<String>,
    /// Not supported yet
    #[arg(long)]
    builder: Option<String>,
    /// Not supported yet
    #[arg(long)]
    provenance: Option<String>,
    /// Not supported yet
    #[arg(long)]
    sbom: Option<String>,
    /// Not supported yet
    #[arg(long)]
    check: bool,
    /// Not supported yet
    #[arg(long)]
    print: bool,
}

impl Others {
    /// Says which of the flags that were given does nothing; an error for one that would have to do something.
    fn tell(&self) -> Result<(), Failure> {
        let missing = [
            (self.ssh.is_some(), "--ssh"),
            (self.builder.is_some(), "--builder"),
            (self.provenance.is_some(), "--provenance"),
            (self.sbom.is_some(), "--sbom"),
            (self.check, "--check"),
            (self.print, "--print"),
        ];
        if let Some((_, flag)) = missing.into_iter().find(|(given, _)| *given) {
            return Err(Failure::new(format!("{flag} is not supported yet")));
        }
        let idle = [
            (self.compress, "--compress"),
            (self.force_rm, "--force-rm"),
            (self.no_rm, "--no-rm"),
            (self.memory.is_some(), "--memory"),
        ];
        for (_, flag) in idle.into_iter().filter(|(given, _)| *given) {
            streams::say(&format!("WARNING: {flag} has no effect on this builder"));
        }
        Ok(())
    }
}

impl Build {
    pub(super) async fn execute(self, session: &Session) -> Outcome {
        self.others.tell()?;
        let mut arguments = Vec::new();
        for text in &self.build_arg {
            match text.split_once('=') {
                Some((name, value)) => arguments.push((name.to_owned(), value.to_owned())),
                // As docker: the variable of this name, if there is one.
                None => arguments.extend(std::env::var(text).ok().map(|value| (text.clone(), value))),
            }
        }
        let quiet = Quiet {
            all: self.quiet,
            ..Quiet::default()
        };
        let (no_cache, pull, certificates) = (self.no_cache, self.pull, self.host_certificates);
        let project = session.load_quietly(quiet)?.builds(move |mut builder| {
            for (name, value) in &arguments {
                builder = builder.build_arg(name, value);
            }
            if pull {
                builder = builder.pull(rdock_build::PullPolicy::Always);
            }
            builder = build_host::of_host(builder).host_certificates(certificates);
            if no_cache { builder.no_cache(true) } else { builder }
        });
        let wanted = dependencies(self.with_dependencies);
        let files = project.project().select(&self.services, wanted)?;
        let mut options = UpOptions::default();
        options.build = When::Always;
        options.dependencies = Dependencies::Leave;
        options.services = files
            .services
            .iter()
            .filter(|(_, service)| service.build.is_some())
            .map(|(name, _)| name.clone())
            .collect();
        if options.services.is_empty() {
            streams::say("No services to build");
        }
        bring(session, &project, &options).await?;
        if self.push {
            let images = files.pushed_images::<String>(&[], Dependencies::Leave)?;
            push(session, images, self.quiet, false).await?;
        }
        Ok(0)
    }
}

#[derive(Debug, Args)]
pub(super) struct Pull {
    /// Say nothing of what is done
    #[arg(short, long)]
    quiet: bool,
    /// Leave images that can be built here
    #[arg(long)]
    ignore_buildable: bool,
    /// Go on when an image cannot be had
    #[arg(long)]
    ignore_pull_failures: bool,
    /// Pull what services need too
    #[arg(long)]
    include_deps: bool,
    /// always, or missing; as services say otherwise
    #[arg(long)]
    policy: Option<String>,
    /// Services; all without any
    services: Vec<String>,
}

impl Pull {
    pub(super) async fn execute(self, session: &Session) -> Outcome {
        let project = session.load_quietly(Quiet {
            all: self.quiet,
            ..Quiet::default()
        })?;
        let mut options = PullOptions::default();
        options.services = self.services;
        options.dependencies = dependencies(self.include_deps);
        options.ignore_buildable = self.ignore_buildable;
        options.ignore_failures = self.ignore_pull_failures;
        options.policy = match self.policy.as_deref() {
            None => None,
            Some("always") => Some(Policy::Always),
            Some("missing") => Some(Policy::Missing),
            Some(other) => {
                return Err(Failure::new(format!("--policy {other}: it is always or missing")));
            }
        };
        let plan = Plan::pull(project.project(), &project.existing().await?, &options)?;
        session.apply(&project, &plan).await?;
        Ok(0)
    }
}

#[derive(Debug, Args)]
pub(super) struct Push {
    /// Say nothing of what is done
    #[arg(short, long)]
    quiet: bool,
    /// Go on when an image cannot be uploaded
    #[arg(long)]
    ignore_push_failures: bool,
    /// Push the images of what services need too
    #[arg(long)]
    include_deps: bool,
    /// Services; all without any
    services: Vec<String>,
}

impl Push {
    pub(super) async fn execute(self, session: &Session) -> Outcome {
        let project = session.load()?;
        let images = project
            .project()
            .pushed_images(&self.services, dependencies(self.include_deps))?;
        push(session, images, self.quiet, self.ignore_push_failures).await?;
        Ok(0)
    }
}

async fn push(session: &Session, images: BTreeSet<String>, quiet: bool, go_on: bool) -> Result<(), Failure> {
    for image in images {
        if session.is_dry_run() {
            streams::print(&format!("push image {image}"));
            continue;
        }
        let push = crate::push::Push {
            all_tags: false,
            quiet,
            image: image.clone(),
        };
        match push.execute(session.runtime()).await {
            Ok(_) => {}
            Err(failure) if go_on => {
                streams::say(&format!("WARNING: {image}: {}", failure.message));
            }
            Err(failure) => {
                return Err(Failure {
                    message: format!("{image}: {}", failure.message),
                    ..failure
                });
            }
        }
    }
    Ok(())
}

/// When the image was made, as far as it says.
fn created(image: Option<&rdock_runtime::image::Image>) -> String {
    let created = image.and_then(|image| image.config().created.clone());
    created.unwrap_or_default()
}

/// What the image is for: `linux/arm64/v8`.
fn platform(image: &rdock_runtime::image::Image) -> String {
    let config = image.config();
    let variant = config.variant.iter().map(|variant| format!("/{variant}"));
    format!(
        "{}/{}{}",
        config.os,
        config.architecture,
        variant.collect::<String>()
    )
}

#[derive(Debug, Args)]
pub(super) struct Images {
    /// Only ids
    #[arg(short, long)]
    quiet: bool,
    /// table or json
    #[arg(long, default_value = "table")]
    format: String,
    /// Services; all without any
    services: Vec<String>,
}

impl Images {
    pub(super) fn execute(self, session: &Session) -> Outcome {
        let project = session.known()?;
        let mut rows = Vec::new();
        for info in session.containers(&project, &self.services, false)? {
            let image = session.runtime().images().get(&info.image_id)?;
            let reference = Reference::parse(&info.image).ok();
            let repository = reference.as_ref().map(Reference::familiar).unwrap_or_default();
            let repository = repository.split(['@']).next().unwrap_or_default();
            let (repository, tag) = match repository.rsplit_once(':') {
                Some((repository, tag)) if !tag.contains('/') => (repository.to_owned(), tag.to_owned()),
                _ => (repository.to_owned(), "<none>".to_owned()),
            };
            let id = info.image_id.strip_prefix("sha256:").unwrap_or(&info.image_id);
            let bytes = image.as_ref().map_or(0, rdock_runtime::image::Image::size);
            rows.push((
                info.name.clone(),
                repository,
                tag,
                id.to_owned(),
                bytes,
                created(image.as_ref()),
                image.as_ref().map(platform).unwrap_or_default(),
            ));
        }
        if self.quiet {
            let ids: BTreeSet<&String> = rows.iter().map(|row| &row.3).collect();
            ids.into_iter().for_each(|id| streams::print(id));
            return Ok(0);
        }
        match self.format.as_str() {
            "json" => {
                let rows: Vec<Value> = rows
                    .into_iter()
                    .map(|(name, repository, tag, id, bytes, created, platform)| {
                        let mut row = json!({
                            "ID": format!("sha256:{id}"),
                            "ContainerName": name,
                            "Repository": repository,
                            "Tag": tag,
                            "Platform": platform,
                            "Size": bytes,
                        });
                        if !created.is_empty() {
                            row["Created"] = json!(created);
                        }
                        row
                    })
                    .collect();
                streams::print(&Value::Array(rows).to_string());
            }
            "table" => {
                let heads = ["CONTAINER", "REPOSITORY", "TAG", "IMAGE ID", "SIZE", "CREATED"];
                let mut lines = vec![heads.map(str::to_owned).to_vec()];
                lines.extend(
                    rows.into_iter()
                        .map(|(name, repository, tag, id, bytes, created, _)| {
                            let id = id.chars().take(12).collect();
                            vec![
                                name,
                                repository,
                                tag,
                                id,
                                size(bytes),
                                match created.is_empty() {
                                    true => "N/A".to_owned(),
                                    false => format!("{} ago", ago(&created)),
                                },
                            ]
                        }),
                );
                crate::listing::columns(&lines);
            }
            other => {
                return Err(Failure::new(format!(
                    "unknown format {other:?}: it is table or json"
                )));
            }
        }
        Ok(0)
    }
}
