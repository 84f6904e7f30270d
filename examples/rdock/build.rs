//! `rdock build` and `rdock builder`.

use crate::build_call::{Call, Method};
use crate::build_host;
use crate::build_progress::Screen;
use crate::streams::{print, say};
use crate::table::size;
use crate::{Failure, Outcome, chain};
use clap::{Args, Subcommand, ValueEnum};
use rdock_build::{
    BuildError, BuildOutput, Builder, CacheFilter, CacheSource, CacheTarget, CacheUsage, Context,
    NamedContext, Output, PullPolicy, Secret,
};
use rdock_runtime::image::{Platform, Reference};
use rdock_runtime::{NetworkMode, Resources, Runtime, parse_size};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How a build is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProgressKind {
    /// tty on a terminal, else plain
    Auto,
    /// Lines
    Plain,
    /// Lines that are drawn anew
    Tty,
    /// One JSON object a line
    #[value(alias = "rawjson")]
    Json,
    /// Nothing
    Quiet,
}

#[derive(Debug, Args)]
pub(crate) struct Build {
    /// Name of the image, and its tag: name:tag
    #[arg(short, long)]
    tag: Vec<String>,
    /// The Dockerfile (default: PATH/Dockerfile); - reads it from standard input
    #[arg(short, long)]
    file: Option<PathBuf>,
    /// Build this stage
    #[arg(long)]
    target: Option<String>,
    /// Set a build argument: NAME=VALUE, or NAME for the value of this shell's variable
    #[arg(long)]
    build_arg: Vec<String>,
    /// Set a label of the image: NAME=VALUE
    #[arg(long)]
    label: Vec<String>,
    /// Take nothing from the cache
    #[arg(long)]
    no_cache: bool,
    /// Take nothing of these stages from the cache
    #[arg(long, value_delimiter = ',')]
    no_cache_filter: Vec<String>,
    /// Always look for newer base images
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pull: Option<bool>,
    /// How to show what happens
    #[arg(long, value_enum, default_value = "auto", env = "BUILDKIT_PROGRESS")]
    progress: ProgressKind,
    /// Write the image's id to a file
    #[arg(long)]
    iidfile: Option<PathBuf>,
    /// A secret: id=NAME,src=FILE or id=NAME,env=VARIABLE
    #[arg(long)]
    secret: Vec<String>,
    /// A context with a name: NAME=DIRECTORY, NAME=docker-image://IMAGE or NAME=oci-layout://DIRECTORY[:TAG][@DIGEST]
    #[arg(long)]
    build_context: Vec<String>,
    /// Where the result goes: type=local|tar|oci|docker|image,dest=PATH
    #[arg(short, long)]
    output: Vec<String>,
    /// Put the image into the store (the default)
    #[arg(long)]
    load: bool,
    /// Push the image under all its names
    #[arg(long)]
    push: bool,
    /// Write what came of it to a file, as JSON
    #[arg(long)]
    metadata_file: Option<PathBuf>,
    /// Docker's flags: there are no containers left to remove
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    rm: Option<bool>,
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    force_rm: Option<bool>,
    /// Attestations are not made, which is what false asks for
    #[arg(long, hide = true, value_parser = ["false"])]
    provenance: Option<String>,
    #[arg(long, hide = true, value_parser = ["false"])]
    sbom: Option<String>,
    /// Take steps from a cache elsewhere: NAME, type=registry,ref=NAME or type=local,src=DIRECTORY
    #[arg(long)]
    cache_from: Vec<String>,
    /// Write a cache for other machines: type=inline, type=registry,ref=NAME or type=local,dest=DIRECTORY; mode=max for all stages
    #[arg(long)]
    cache_to: Vec<String>,
    /// A context is never sent, so nothing is to be compressed
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    compress: Option<bool>,
    /// Print the image's id alone
    #[arg(short, long)]
    quiet: bool,
    /// os/architecture[/variant]
    #[arg(long)]
    platform: Option<String>,
    /// Network of RUN: default, host or none
    #[arg(long)]
    network: Option<String>,
    /// Allow what is dangerous: network.host
    #[arg(long)]
    allow: Vec<String>,
    /// A line of /etc/hosts of RUN: NAME:ADDRESS
    #[arg(long)]
    add_host: Vec<String>,
    /// Size of /dev/shm of RUN
    #[arg(long)]
    shm_size: Option<String>,
    /// A limit of RUN: NAME=SOFT[:HARD]
    #[arg(long)]
    ulimit: Vec<String>,
    #[command(flatten)]
    limits: Limits,
    /// The control group below which those of RUN are made
    #[arg(long)]
    cgroup_parent: Option<String>,
    /// Show the certificates of this host to RUN
    #[arg(long)]
    host_certificates: bool,
    /// Say for each step whether it is cached, and why not, without building
    #[arg(long)]
    explain: bool,
    /// Say something of the Dockerfile instead of building it: check, outline or targets; with ,format=json as JSON
    #[arg(long, default_value = "build")]
    call: Call,
    /// Say what the checks of the Dockerfile find, without building
    #[arg(long, conflicts_with = "call")]
    check: bool,
    /// The build context: a directory, an http address of a tar or a Dockerfile, or - for one of these on standard input
    path: String,
}

/// What each RUN may use, in docker's words.
#[derive(Debug, Args)]
struct Limits {
    /// Memory of each RUN
    #[arg(short, long)]
    memory: Option<String>,
    /// Memory and swap of each RUN together; -1 is no limit
    #[arg(long, allow_hyphen_values = true)]
    memory_swap: Option<String>,
    /// Relative weight of the processors
    #[arg(short = 'c', long)]
    cpu_shares: Option<u64>,
    /// Microseconds of processors in each period; -1 is no limit
    #[arg(long, allow_hyphen_values = true)]
    cpu_quota: Option<i64>,
    /// Length of a period in microseconds
    #[arg(long, default_value = "100000", value_parser = clap::value_parser!(u32).range(1000..=1_000_000))]
    cpu_period: u32,
    /// Processors that RUN may use: 0-2,4
    #[arg(long)]
    cpuset_cpus: Option<String>,
}

impl Limits {
    fn resources(&self) -> Result<Resources, Failure> {
        let size = |text: &String| parse_size(text).map_err(|error| Failure::new(error.to_string()));
        let mut resources = Resources::default();
        resources.memory = self.memory.as_ref().map(size).transpose()?;
        resources.memory_swap = match &self.memory_swap {
            Some(text) if text != "-1" => Some(size(text)?),
            _ => None,
        };
        resources.cpu_shares = self.cpu_shares;
        // Docker's zero is no limit, too.
        let quota = self.cpu_quota.filter(|quota| *quota > 0);
        resources.cpus = quota.map(|quota| quota as f64 / f64::from(self.cpu_period));
        resources.cpuset_cpus.clone_from(&self.cpuset_cpus);
        Ok(resources)
    }
}

fn pair<'a>(flag: &str, text: &'a str) -> Result<(&'a str, &'a str), Failure> {
    text.split_once('=')
        .filter(|(name, _)| !name.is_empty())
        .ok_or_else(|| Failure::new(format!("--{flag} {text:?} is not NAME=VALUE")))
}

impl Build {
    pub(crate) async fn execute(self, runtime: &Runtime) -> Outcome {
        if self.push && self.tag.is_empty() {
            return Err(Failure::new("--push needs a name to push: --tag NAME"));
        }
        let epoch = build_host::epoch()?;
        let mut builder = build_host::proxies(self.context()?);
        for tag in &self.tag {
            Reference::parse(tag)?;
            builder = builder.tag(tag);
        }
        if let Some(target) = &self.target {
            builder = builder.target(target);
        }
        for argument in &self.build_arg {
            builder = match argument.split_once('=') {
                Some((name, value)) => builder.build_arg(name, value),
                None => match std::env::var(argument) {
                    Ok(value) => builder.build_arg(argument, value),
                    Err(_) => builder,
                },
            };
        }
        for label in &self.label {
            let (name, value) = pair("label", label)?;
            builder = builder.label(name, value);
        }
        builder = builder.no_cache(self.no_cache);
        for stage in &self.no_cache_filter {
            builder = builder.no_cache_stage(stage);
        }
        for source in &self.cache_from {
            builder = builder.cache_from(CacheSource::parse(source).map_err(failure)?);
        }
        for target in &self.cache_to {
            builder = builder.cache_to(CacheTarget::parse(target).map_err(failure)?);
        }
        if self.pull == Some(true) {
            builder = builder.pull(PullPolicy::Always);
        }
        for secret in &self.secret {
            let (id, secret) = parse_secret(secret)?;
            builder = builder.secret(id, secret);
        }
        for context in &self.build_context {
            let (name, value) = pair("build-context", context)?;
            builder = builder.build_context(name, NamedContext::parse(value).map_err(failure)?);
        }
        for output in &self.output {
            builder = builder.output(Output::parse(output).map_err(failure)?);
        }
        if (self.load || self.push) && !self.output.is_empty() {
            builder = builder.output(Output::Store);
        }
        if let Some(platform) = &self.platform {
            builder = builder.platform(Platform::parse(platform)?);
        }
        if let Some(network) = &self.network {
            let network = NetworkMode::parse(network).map_err(|error| Failure::new(error.to_string()))?;
            builder = builder.network(network);
        }
        for allowed in &self.allow {
            match allowed.as_str() {
                "network.host" => builder = builder.allow_host_network(true),
                other => return Err(Failure::new(format!("--allow knows no {other:?}: network.host"))),
            }
        }
        for host in &self.add_host {
            let (name, address) = host
                .split_once([':', '='])
                .ok_or_else(|| Failure::new(format!("--add-host {host:?} is not NAME:ADDRESS")))?;
            builder = builder.add_host(name, address);
        }
        if let Some(size) = &self.shm_size {
            builder = builder.shm_size(parse_size(size).map_err(|error| Failure::new(error.to_string()))?);
        }
        for limit in &self.ulimit {
            let (name, values) = pair("ulimit", limit)?;
            let (soft, hard) = values.split_once(':').unwrap_or((values, values));
            let number = |text: &str| match text {
                "-1" | "unlimited" => Ok(u64::MAX),
                _ => text
                    .parse()
                    .map_err(|_| Failure::new(format!("--ulimit {limit:?}: {text:?} is no number"))),
            };
            builder = builder.ulimit(name, number(soft)?, number(hard)?);
        }
        builder = builder.resources(self.limits.resources()?);
        if let Some(group) = &self.cgroup_parent {
            builder = builder.cgroup_parent(group);
        }
        builder = builder.host_certificates(self.host_certificates);
        if let Some(seconds) = epoch {
            builder = builder.source_date_epoch(seconds);
        }
        let call = if self.check { Call::CHECK } else { self.call };
        if call.method != Method::Build {
            return call.answer(&builder, runtime).await;
        }
        if self.explain {
            let steps = builder.explain(runtime).await.map_err(failure)?;
            for step in steps {
                print(&crate::build_progress::explained(&step));
            }
            return Ok(0);
        }
        let kind = match self.progress {
            _ if self.quiet => ProgressKind::Quiet,
            ProgressKind::Auto if std::io::stderr().is_terminal() => ProgressKind::Tty,
            ProgressKind::Auto => ProgressKind::Plain,
            other => other,
        };
        let screen = Screen::new(kind);
        let shown = screen.clone();
        let builder = builder.progress(move |event| shown.show(&event));
        let built = tokio::select! {
            built = builder.build(runtime) => built,
            _ = tokio::signal::ctrl_c() => Err(BuildError::Cancelled),
        };
        screen.finish();
        let built = built.map_err(failure)?;
        if let Some(path) = &self.iidfile {
            std::fs::write(path, built.image_id().to_string())
                .map_err(|error| Failure::new(format!("cannot write {}: {error}", path.display())))?;
        }
        if let Some(path) = &self.metadata_file {
            write_metadata(path, &built)?;
        }
        if self.quiet {
            print(built.image_id().as_str());
        }
        if self.push {
            for name in &built.names {
                crate::push::push(runtime, name, self.quiet).await?;
            }
        }
        Ok(0)
    }

    /// The context and the Dockerfile.
    fn context(&self) -> Result<Builder, Failure> {
        let file_stdin_context = self.file.as_deref() == Some(Path::new("-"));
        let read = || std::io::read_to_string(std::io::stdin());
        if self.path == "-" {
            if file_stdin_context {
                return Err(Failure::new(
                    "the context and the Dockerfile cannot both come from standard input",
                ));
            }
            return self.stdin_context();
        }
        let path = &self.path;
        let repository = path.starts_with("github.com/") && !Path::new(path).exists();
        let builder = match path.contains("://") || path.starts_with("git@") || repository {
            true => Builder::from_context(Context::Url(path.clone())),
            false => Builder::new(path),
        };
        Ok(match &self.file {
            None => builder,
            Some(_) if file_stdin_context => builder.dockerfile_text(read()?),
            Some(path) => builder.dockerfile(path),
        })
    }

    /// A tar is a context; anything else is a Dockerfile without one.
    fn stdin_context(&self) -> Result<Builder, Failure> {
        use std::io::Read;
        let mut stdin = std::io::stdin();
        let mut start = vec![0; 512];
        let mut count = 0;
        while count < start.len() {
            match stdin.read(&mut start[count..])? {
                0 => break,
                more => count += more,
            }
        }
        start.truncate(count);
        let compressed = [&[0x1f, 0x8b][..], &[0x28, 0xb5, 0x2f, 0xfd], &[0xfd, b'7', b'z']];
        let is_tar =
            start.get(257..262) == Some(b"ustar") || compressed.iter().any(|magic| start.starts_with(magic));
        let mut whole = std::io::Cursor::new(start).chain(stdin);
        if !is_tar {
            let mut text = String::new();
            whole.read_to_string(&mut text)?;
            return Ok(Builder::from_text(text));
        }
        let builder = Builder::from_context(Context::archive(whole));
        Ok(match &self.file {
            Some(path) => builder.dockerfile(path),
            None => builder,
        })
    }
}

/// The keys are those of docker's own file.
fn write_metadata(path: &Path, built: &BuildOutput) -> Result<(), Failure> {
    let mut metadata = serde_json::Map::new();
    let mut put = |key: &str, value: String| metadata.insert(key.to_owned(), value.into());
    put("containerimage.config.digest", built.image_id().to_string());
    if let Some(image) = &built.image {
        put("containerimage.digest", image.manifest_digest().to_string());
    }
    if !built.names.is_empty() {
        let names: Vec<&str> = built.names.iter().map(Reference::as_str).collect();
        put("image.name", names.join(","));
    }
    let text = format!("{:#}\n", serde_json::Value::Object(metadata));
    std::fs::write(path, text)
        .map_err(|error| Failure::new(format!("cannot write {}: {error}", path.display())))
}

fn parse_secret(text: &str) -> Result<(String, Secret), Failure> {
    let wrong = |reason: &str| {
        Failure::new(format!(
            "--secret: {reason}; it is id=NAME,src=FILE or id=NAME,env=VARIABLE"
        ))
    };
    let (mut id, mut file, mut variable) = (None, None, None);
    for field in text.split(',') {
        match field.split_once('=') {
            Some(("id", value)) => id = Some(value.to_owned()),
            Some(("src" | "source", value)) => file = Some(PathBuf::from(value)),
            Some(("env", value)) => variable = Some(value.to_owned()),
            Some(("type", "file" | "env")) => {}
            _ => return Err(wrong(&format!("unknown field {field:?}"))),
        }
    }
    let id = id
        .or_else(|| variable.clone())
        .ok_or_else(|| wrong("id is missing"))?;
    let secret = match (file, variable) {
        (Some(_), Some(_)) => return Err(wrong("src and env are both given")),
        (Some(path), None) => Secret::File(path),
        (None, variable) => {
            let name = variable.unwrap_or_else(|| id.clone());
            match std::env::var_os(&name) {
                Some(value) => Secret::Value(value.into_encoded_bytes()),
                None => return Err(wrong(&format!("there is no variable {name}"))),
            }
        }
    };
    Ok((id, secret))
}

pub(crate) fn failure(error: BuildError) -> Failure {
    let message = chain(&error);
    Failure {
        // What the error says itself is not said again.
        hint: error.hint().filter(|hint| !message.contains(hint)),
        message,
        code: 1,
    }
}

/// Docker's newer name for all of it.
#[derive(Debug, Subcommand)]
pub(crate) enum Buildx {
    /// Build an image from a Dockerfile
    #[command(visible_alias = "b")]
    Build(Box<Build>),
    /// Remove the build cache
    Prune(Prune),
    /// Show what the build cache holds
    Du,
}

impl Buildx {
    pub(crate) async fn execute(self, runtime: &Runtime) -> Outcome {
        match self {
            Self::Build(verb) => verb.execute(runtime).await,
            Self::Prune(verb) => BuilderVerb::Prune(verb).execute(runtime).await,
            Self::Du => BuilderVerb::Du.execute(runtime).await,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum BuilderVerb {
    /// Remove the build cache
    Prune(Prune),
    /// Show what the build cache holds
    Du,
}

#[derive(Debug, Args)]
pub(crate) struct Prune {
    /// Also steps whose layer an image has
    #[arg(short, long)]
    all: bool,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Keep as much: 10GB
    #[arg(long)]
    keep_storage: Option<String>,
    /// until=24h: only what was not used for so long
    #[arg(long)]
    filter: Vec<String>,
}

impl BuilderVerb {
    pub(crate) async fn execute(self, runtime: &Runtime) -> Outcome {
        match self {
            Self::Du => {
                let usage = Builder::cache_usage(runtime).map_err(failure)?;
                for entry in &usage.entries {
                    let kind = if entry.mount { "mount" } else { "step" };
                    print(&format!(
                        "{}  {kind}  {}  {}",
                        short(&entry.id),
                        size(entry.size),
                        entry.name
                    ));
                }
                print(&format!("Reclaimable: {}", size(usage.reclaimable)));
                print(&format!("Total: {}", size(usage.bytes)));
                Ok(0)
            }
            Self::Prune(prune) => prune.execute(runtime),
        }
    }
}

impl Prune {
    fn execute(self, runtime: &Runtime) -> Outcome {
        let mut filter = CacheFilter {
            keep_shared: !self.all,
            ..CacheFilter::default()
        };
        if let Some(size) = &self.keep_storage {
            filter.keep_bytes = Some(parse_size(size).map_err(|error| Failure::new(error.to_string()))?);
        }
        for text in &self.filter {
            let hours = |text: &str| -> Option<Duration> {
                let (number, unit) = text.split_at(text.len().checked_sub(1)?);
                let factor = match unit {
                    "h" => 3600,
                    "m" => 60,
                    "s" => 1,
                    _ => return None,
                };
                Some(Duration::from_secs(number.parse::<u64>().ok()? * factor))
            };
            match text.split_once('=') {
                Some(("until" | "unused-for", time)) if hours(time).is_some() => {
                    filter.unused_for = hours(time)
                }
                _ => return Err(Failure::new(format!("--filter {text:?} is not until=24h"))),
            }
        }
        if !self.force && std::io::stdin().is_terminal() {
            say("This removes the build cache. Are you sure? [y/N]");
            let mut answer = String::new();
            std::io::stdin().read_line(&mut answer)?;
            if !answer.trim().eq_ignore_ascii_case("y") {
                return Ok(0);
            }
        }
        let removed = Builder::prune(runtime, &filter).map_err(failure)?;
        for entry in &removed.entries {
            print(short(&entry.id));
        }
        print(&format!("Total reclaimed space: {}", size(removed.bytes)));
        Ok(0)
    }
}

/// As much of an id as people need.
fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

/// The build cache, for `system df`.
pub(crate) fn usage(runtime: &Runtime) -> Result<CacheUsage, Failure> {
    Builder::cache_usage(runtime).map_err(failure)
}

/// Removes the build cache, for `system prune`.
pub(crate) fn prune(runtime: &Runtime, all: bool) -> Result<CacheUsage, Failure> {
    let filter = CacheFilter {
        keep_shared: !all,
        ..CacheFilter::default()
    };
    Builder::prune(runtime, &filter).map_err(failure)
}
