//! RUN: a scoped container over the layers so far; its upper directory is the new layer.
use super::step::StackOf;
use super::{Execution, secrets::SecretFiles};
use crate::cache::{CacheMount, Key};
use crate::dockerfile::{Network, Sharing};
use crate::error::{BuildError, Result};
use crate::event::{BuildEvent, OutputStream};
use crate::graph::{Input, RunMountSource, RunStep, StepId};
use rdock_image::{Digest, ImageConfig, MadeLayer, ScratchLayer};
use rdock_runtime::{ContainerSpec, Exit, ExitReason, Mount, MountSource, NetworkMode};
use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Lines that an error repeats.
const LAST_LINES: usize = 40;
/// The longest part of a line that an error repeats, in bytes.
const LINE: usize = 4096;
/// Where certificates of the host are in a container.
const CERTIFICATES: &str = "/run/rdock/ca-certificates.crt";
/// The variables by which programs are told of certificates.
const CERTIFICATE_VARIABLES: [&str; 7] = [
    "SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "PIP_CERT",
    "NODE_EXTRA_CA_CERTS",
    "GIT_SSL_CAINFO",
    "CARGO_HTTP_CAINFO",
];
/// Where distributions keep all certificates in one file.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// What must live as long as the container.
#[derive(Default)]
struct Held {
    caches: BTreeMap<Key, CacheMount>,
    _scripts: Vec<ScratchLayer>,
}

impl Execution<'_> {
    /// Runs the command. `unchanged` is asked when everything that it sees is there; what it says comes back.
    pub(super) fn run(
        &self,
        id: StepId,
        run: &RunStep,
        below: &[Digest],
        stack_of: &StackOf<'_>,
        unchanged: &dyn Fn() -> Result<bool>,
    ) -> Result<(MadeLayer, bool)> {
        let mut held = Held {
            caches: self.cache_mounts(id, run, stack_of)?,
            _scripts: Vec::new(),
        };
        let secrets = SecretFiles::new()?;
        let mut spec = ContainerSpec::new("build")
            .entrypoint(run.args.clone())
            .working_dir(run.working_dir.clone())
            .user(run.user.clone());
        spec.env = run.env.clone();
        spec.env.extend(run.unkeyed_env.iter().cloned());
        spec.network = match run.network {
            Network::None => NetworkMode::None,
            Network::Host => NetworkMode::Host,
            Network::Default => self.settings.network.clone(),
        };
        spec.extra_hosts = self.settings.extra_hosts.clone();
        spec.hostname = self.settings.hostname.clone();
        spec.no_hostname_file = true;
        spec.ulimits = self.settings.ulimits.clone();
        spec.resources = self.settings.resources.clone();
        spec.cgroup_parent = self.settings.cgroup_parent.clone();
        if let Some(size) = self.settings.shm_size {
            spec.shm_size = size;
        }
        for (number, mount) in run.mounts.iter().enumerate() {
            let source = match &mount.source {
                RunMountSource::Bind { from, source } => Some(self.bind(id, from, source, stack_of)?),
                RunMountSource::Cache { .. } => {
                    let cache = held.caches.get(&cache_identity(&mount.source, stack_of));
                    cache.map(|cache| MountSource::Bind {
                        path: cache.path.clone(),
                        create: false,
                        propagation: None,
                    })
                }
                RunMountSource::Tmpfs { size } => Some(MountSource::Tmpfs {
                    size: *size,
                    mode: None,
                    options: vec!["exec".to_owned()],
                }),
                RunMountSource::Secret {
                    id: name,
                    required,
                    env,
                    file,
                    mode,
                    uid,
                    gid,
                } => match self.settings.secrets.get(name) {
                    None if *required => {
                        let reason = format!("the secret {name:?} is required and not given");
                        return Err(self.failed(
                            id,
                            reason,
                            Some(format!("--secret id={name},src=FILE")),
                            None,
                        ));
                    }
                    None => None,
                    Some(secret) => {
                        let bytes = secret.read(name)?;
                        if let Some(variable) = env {
                            let text = String::from_utf8(bytes.clone()).map_err(|_| {
                                self.failed(
                                    id,
                                    format!("the secret {name:?} is no text, as a variable must be"),
                                    None,
                                    None,
                                )
                            })?;
                            spec.secret_env.push((variable.clone(), text));
                        }
                        file.then(|| secrets.add(number, &bytes, (*mode, *uid, *gid)))
                            .transpose()?
                            .map(|path| MountSource::Bind {
                                path,
                                create: false,
                                propagation: None,
                            })
                    }
                },
            };
            if let Some(source) = source {
                let mut made = Mount::new(source, mount.target.clone());
                made.read_only = mount.read_only;
                spec.mounts.push(made);
            }
        }
        if let Some((path, data)) = &run.script {
            let scratch = self.store.scratch_layer(&[])?;
            let file = scratch.upper().join("script");
            std::fs::write(&file, data).map_err(BuildError::files("write", &file))?;
            let mode = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o755);
            std::fs::set_permissions(&file, mode).map_err(BuildError::files("write", &file))?;
            spec.mounts.push(Mount::bind(file, path.clone()).read_only());
            held._scripts.push(scratch);
        }
        if self.settings.host_certificates {
            self.certificates(&mut spec);
        }
        let unchanged = unchanged()?;
        Ok((self.in_container(id, run, &spec, below, secrets)?, unchanged))
    }

    fn in_container(
        &self,
        id: StepId,
        run: &RunStep,
        spec: &ContainerSpec,
        below: &[Digest],
        secrets: SecretFiles,
    ) -> Result<MadeLayer> {
        let config = ImageConfig::default();
        let started = spec.start_over_layers(self.runtime, below, &config);
        let (container, attached) = started.map_err(|error| self.start_failed(id, error))?;
        // The container has its own hold on them.
        drop(secrets);
        for text in container.warnings()? {
            self.warn(text);
        }
        let container = Arc::new(container);
        let output = Mutex::new(Tail::default());
        let exit = self.cancel.watch(&container, || {
            std::thread::scope(|scope| {
                let pump = |stream, from: Option<OwnedFd>| {
                    let output = &output;
                    if let Some(from) = from {
                        scope.spawn(move || self.pump(id, stream, from, output));
                    }
                };
                pump(OutputStream::Stdout, attached.stdout);
                pump(OutputStream::Stderr, attached.stderr);
                loop {
                    if let Some(exit) = container.wait(Duration::from_secs(3600)) {
                        return exit;
                    }
                }
            })
        });
        let made = if self.cancel.is_cancelled() {
            Err(BuildError::Cancelled)
        } else {
            self.result(id, run, &container, &exit, &output)
        };
        if let Ok(container) = Arc::try_unwrap(container) {
            let removed = container.remove();
            if made.is_ok() {
                removed?;
            }
        }
        made
    }

    fn result(
        &self,
        id: StepId,
        run: &RunStep,
        container: &rdock_runtime::LayeredContainer,
        exit: &Exit,
        output: &Mutex<Tail>,
    ) -> Result<MadeLayer> {
        if exit.reason != ExitReason::Exited(0) {
            return Err(BuildError::Run {
                place: self.place(id),
                command: command_text(&run.args),
                exit: exit.reason.clone(),
                output: output.lock().unwrap_or_else(PoisonError::into_inner).lines(),
            });
        }
        let options = self
            .layer_options()
            .mount_points(container.mount_points().iter().cloned());
        Ok(self
            .store
            .adopt_snapshot(self.lease, &container.snapshot()?, &options)?)
    }

    fn start_failed(&self, id: StepId, error: rdock_runtime::Error) -> BuildError {
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(inner) = source {
            text.push_str(&format!(": {inner}"));
            source = inner.source();
        }
        let hint = error.hint();
        self.failed(id, text, hint, Some(error.into()))
    }

    /// Reads an output to its end.
    fn pump(&self, id: StepId, stream: OutputStream, from: OwnedFd, tail: &Mutex<Tail>) {
        let mut from = File::from(from);
        let mut buffer = vec![0; 32 << 10];
        loop {
            let count = match from.read(&mut buffer) {
                Ok(0) => return,
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(_) => return,
            };
            tail.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(&buffer[..count]);
            self.progress.emit(BuildEvent::StepOutput {
                id: id.0,
                stream,
                bytes: buffer[..count].to_vec(),
            });
        }
    }

    /// The layers and the path in them that a bind mount shows.
    fn bind(&self, id: StepId, from: &Input, source: &str, stack_of: &StackOf<'_>) -> Result<MountSource> {
        let (diff_ids, subpath) = match from {
            Input::Context(name) => self.context_layers(id, name, source)?,
            Input::Step(step) => {
                let tree = self.tree_of(*step, stack_of)?;
                // Links are followed inside the image; the mount itself follows none.
                let entry = tree.view.entry(source, true)?;
                let Some(entry) = entry else {
                    return Err(self.failed(
                        id,
                        format!("/{} not found", source.trim_start_matches('/')),
                        None,
                        None,
                    ));
                };
                let path = entry.path().to_owned();
                let subpath = (!path.as_os_str().is_empty()).then_some(path);
                (stack_of(*step).unwrap_or_default(), subpath)
            }
        };
        Ok(MountSource::Layers { diff_ids, subpath })
    }

    /// Takes the caches that a command uses, each once, in an order that is the same for all: two that want the same two
    /// never wait for each other.
    fn cache_mounts(
        &self,
        id: StepId,
        run: &RunStep,
        stack_of: &StackOf<'_>,
    ) -> Result<BTreeMap<Key, CacheMount>> {
        let mut wanted: BTreeMap<Key, (&RunMountSource, Sharing)> = BTreeMap::new();
        for mount in &run.mounts {
            if let RunMountSource::Cache { sharing, .. } = &mount.source {
                let identity = cache_identity(&mount.source, stack_of);
                let (_, strictest) = wanted.entry(identity).or_insert((&mount.source, *sharing));
                if *strictest == Sharing::Shared {
                    *strictest = *sharing;
                }
            }
        }
        let mut taken = BTreeMap::new();
        for (identity, (source, sharing)) in wanted {
            if let RunMountSource::Cache {
                id: name,
                from,
                source,
                mode,
                uid,
                gid,
                ..
            } = source
            {
                let fill = |to: &std::path::Path| -> Result<()> {
                    match from {
                        Some(from) => self.fill_cache(id, from, source, to, stack_of),
                        None => Ok(()),
                    }
                };
                let (owner, stop) = ((*mode, *uid, *gid), self.cancel.stop());
                let mount = self.cache.mount(&identity, sharing, owner, stop, &fill)?;
                if let Some(dir) = mount.path.parent() {
                    let note = dir.join("name");
                    if !note.exists() {
                        // For people alone.
                        let _ = std::fs::write(note, name);
                    }
                }
                taken.insert(identity, mount);
            }
        }
        Ok(taken)
    }

    /// Copies what a cache holds at first.
    fn fill_cache(
        &self,
        id: StepId,
        from: &Input,
        source: &str,
        to: &std::path::Path,
        stack_of: &StackOf<'_>,
    ) -> Result<()> {
        let failed = |reason: String| self.failed(id, reason, None, None);
        let tree = match from {
            Input::Step(step) => self.tree_of(*step, stack_of)?,
            Input::Context(name) => self.settings.inputs.open(self.cache, name)?,
        };
        let empty = self.store.layer_directories(&[])?;
        let mut target = crate::files::Target::new(to, &empty).map_err(failed)?;
        let none = crate::ignore::Patterns::default();
        let copying = crate::files::Copying {
            store: self.store,
            destination: "/",
            several: false,
            owner: None,
            chmod: None,
            parents: false,
            exclude: &none,
            unpack: crate::graph::Unpack::Never,
            now: self.now(),
        };
        copying
            .source(&mut target, &tree, source, 0)
            .map_err(|failure| self.failed(id, failure.reason, failure.hint, None))?;
        target.close().map_err(failed)
    }

    /// Shows the host's certificates to the command.
    fn certificates(&self, spec: &mut ContainerSpec) {
        let Some(bundle) = BUNDLES.iter().map(PathBuf::from).find(|path| path.is_file()) else {
            return;
        };
        spec.mounts.push(Mount::bind(bundle, CERTIFICATES).read_only());
        for name in CERTIFICATE_VARIABLES {
            if !spec.env.iter().any(|(known, _)| known == name) {
                spec.env.push((name.to_owned(), CERTIFICATES.to_owned()));
            }
        }
    }
}

/// Which cache is meant: id, source, owner and mode together. Whatever the id is, it never becomes part of a path.
fn cache_identity(source: &RunMountSource, stack_of: &StackOf<'_>) -> Key {
    let RunMountSource::Cache {
        id,
        from,
        source,
        mode,
        uid,
        gid,
        ..
    } = source
    else {
        return Key::of(b"");
    };
    let origin = match from {
        Some(Input::Step(step)) => format!("{:?}", stack_of(*step)),
        Some(Input::Context(context)) => format!("context {context}"),
        None => String::new(),
    };
    Key::of(format!("{id:?} {origin:?} {source:?} {mode:o} {uid} {gid}").as_bytes())
}

/// A command as people write it.
pub(crate) fn command_text(args: &[String]) -> String {
    match args {
        [_, flag, text] if flag == "-c" => text.clone(),
        args => args.join(" "),
    }
}

/// The last lines of an output.
#[derive(Debug, Default)]
struct Tail {
    lines: VecDeque<String>,
    open: Vec<u8>,
}

impl Tail {
    fn push(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if *byte == b'\n' {
                self.close();
            } else if self.open.len() < LINE {
                self.open.push(*byte);
            }
        }
    }

    fn close(&mut self) {
        let line = std::mem::take(&mut self.open);
        let text = String::from_utf8_lossy(&line);
        // A progress bar draws over itself.
        let text = text
            .trim_end_matches('\r')
            .rsplit('\r')
            .next()
            .unwrap_or_default()
            .to_owned();
        self.lines.push_back(text);
        if self.lines.len() > LAST_LINES {
            self.lines.pop_front();
        }
    }

    fn lines(&mut self) -> Vec<String> {
        if !self.open.is_empty() {
            self.close();
        }
        self.lines.iter().cloned().collect()
    }
}
