//! What an untrusted project may ask for. Nothing of the host by default.
//!
//! A compose file can mount the host's root, run privileged containers and publish ports: whoever may write the file
//! may do everything that the program which runs it may. [`Policy`] is the list of what such a file may have; all that
//! is not on it is refused, with the YAML path and the place.

use crate::error::{Error, Finding, FindingKind, Result};
use crate::load::LoadOptions;
use crate::model::{Project, Service};
use rdock_build::{CacheSource, CacheTarget};
use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

/// What an untrusted project may have. The default allows nothing of the host: no path, no device, no namespace, no
/// capability beyond the usual ones, no published port, no external network, no image from anywhere.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Policy {
    /// Folders of the host whose content may be mounted, read as configs or secrets, or built from. Absolute.
    pub host_paths: Vec<PathBuf>,
    /// Devices of the host, by their paths; CDI devices by their names; `gpus` for requests of GPUs.
    pub devices: BTreeSet<String>,
    /// `privileged` services, hooks and builds.
    pub privileged: bool,
    /// The host's namespaces: network, pid, ipc, uts, cgroup, user; and those of other containers (`container:`).
    pub host_namespaces: bool,
    /// Capabilities that may be added, without `CAP_`; `ALL` is one.
    pub capabilities: BTreeSet<String>,
    /// Networks of others that may be joined, by their real names.
    pub external_networks: BTreeSet<String>,
    /// Volumes of others that may be used, by their real names.
    pub external_volumes: BTreeSet<String>,
    /// Registries that images may come from (`docker.io`, `registry.example:5000`).
    pub registries: BTreeSet<String>,
    /// Ports may be published: none, those on the loopback addresses, or any.
    pub ports: PortPolicy,
    /// Other confinement may be turned off: `security_opt`, `sysctls`, `device_cgroup_rules`, `cgroup_parent`,
    /// `userns_mode`, `oom_score_adj` below 0, the engine's socket.
    pub weaker_confinement: bool,
    /// Programs of the host that may be run because a service names them as its provider, by their types.
    pub providers: BTreeSet<String>,
    /// Images may be built.
    pub builds: bool,
    /// Variables of the caller that may become the content of configs and secrets.
    pub variables: BTreeSet<String>,
}

/// Which ports may be published.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum PortPolicy {
    /// None.
    #[default]
    None,
    /// Those on a loopback address.
    Loopback,
    /// Any.
    Any,
}

impl Project {
    /// Loads a document of which nothing is known but its text, and refuses what the policy does not allow. No other
    /// file is read: `extends` and `include` of files, `env_file` and `label_file` are refused, and variables come only
    /// from `options`. The caller names the project: a name in the document could be that of another project.
    ///
    /// # Errors
    /// As [`Project::load`]; every refusal is a finding of the kind [`FindingKind::Refused`].
    pub fn load_untrusted(options: &LoadOptions, policy: &Policy) -> Result<Self> {
        let mut options = options.clone();
        options.other_files = false;
        options.resolve_env_files = false;
        options.dot_env = false;
        if options.project_name.is_none() {
            return Err(Error::ProjectName {
                name: String::new(),
                reason: "the caller of an untrusted document gives the name",
            });
        }
        let project = Self::load(&options)?;
        policy.check(&project)?;
        Ok(project)
    }
}

impl Policy {
    /// Nothing but what the lists allow: the same as the default.
    pub fn deny() -> Self {
        Self::default()
    }

    /// Looks at every service, active or not, and everything that is defined.
    ///
    /// # Errors
    /// [`Error::Invalid`] with all refusals.
    pub fn check(&self, project: &Project) -> Result<()> {
        let mut review = Review {
            policy: self,
            project,
            found: Vec::new(),
        };
        for (name, service) in project.services.iter().chain(&project.disabled_services) {
            review.service(name, service);
        }
        review.resources();
        match review.found {
            found if found.is_empty() => Ok(()),
            findings => Err(Error::Invalid { findings }),
        }
    }
}

struct Review<'a> {
    policy: &'a Policy,
    project: &'a Project,
    found: Vec<Finding>,
}

impl Review<'_> {
    fn refuse(&mut self, path: &[&str], message: impl Into<String>) {
        self.found.push(Finding {
            kind: FindingKind::Refused,
            path: path.join("."),
            place: self.project.place_of(path),
            message: message.into(),
            hint: None,
        });
    }

    fn refuse_if(&mut self, wrong: bool, path: &[&str], message: &str) {
        if wrong {
            self.refuse(path, message);
        }
    }

    /// A path of the host, as it stands in the file and as it is once links are followed.
    fn host_path(&mut self, path: &str, at: &[&str]) {
        let path = Path::new(path);
        let plain = !path.components().any(|part| part == Component::ParentDir);
        // What does not exist yet leads where its nearest parent leads; a link to nothing leads nowhere.
        let nearest = path.ancestors().find(|parent| parent.symlink_metadata().is_ok());
        let real = nearest.and_then(|parent| {
            let real = parent.canonicalize().ok()?;
            Some(real.join(path.strip_prefix(parent).ok()?))
        });
        let below = |path: &Path| {
            self.policy
                .host_paths
                .iter()
                .any(|allowed| path.starts_with(allowed))
        };
        let real_allowed = self
            .policy
            .host_paths
            .iter()
            .filter_map(|allowed| allowed.canonicalize().ok());
        let good = plain
            && path.is_absolute()
            && below(path)
            && real.is_some_and(|real| {
                below(&real) || real_allowed.clone().any(|allowed| real.starts_with(allowed))
            });
        if !good {
            self.refuse(
                at,
                format!("the path {} of the host is not allowed", path.display()),
            );
        }
    }

    fn namespaces(&mut self, name: &str, service: &Service) {
        let modes = [
            ("network_mode", &service.network_mode),
            ("pid", &service.pid),
            ("ipc", &service.ipc),
            ("uts", &service.uts),
            ("cgroup", &service.cgroup),
            ("userns_mode", &service.userns_mode),
        ];
        for (key, mode) in modes {
            let Some(mode) = mode else { continue };
            let own = ["", "private", "none", "bridge", "shareable"].contains(&mode.as_str())
                || mode.starts_with("service:");
            if !own && !self.policy.host_namespaces {
                self.refuse(
                    &["services", name, key],
                    format!("the namespace {mode:?} is not the service's own"),
                );
            }
        }
    }

    fn service(&mut self, name: &str, service: &Service) {
        let policy = self.policy;
        let at = |key| ["services", name, key];
        self.refuse_if(
            service.privileged && !policy.privileged,
            &at("privileged"),
            "privileged is not allowed",
        );
        self.namespaces(name, service);
        for (kind, hooks) in [
            ("pre_start", &service.pre_start),
            ("post_start", &service.post_start),
            ("pre_stop", &service.pre_stop),
        ] {
            for (index, hook) in hooks.iter().enumerate() {
                let index = index.to_string();
                let path = ["services", name, kind, &index];
                self.refuse_if(
                    hook.privileged && !policy.privileged,
                    &path,
                    "a privileged hook is not allowed",
                );
                if let Some(image) = &hook.image {
                    self.image(image, &path);
                }
            }
        }
        for (index, capability) in service.cap_add.iter().enumerate() {
            let plain = capability.to_ascii_uppercase();
            let plain = plain.strip_prefix("CAP_").unwrap_or(&plain);
            if !policy
                .capabilities
                .iter()
                .any(|allowed| allowed.eq_ignore_ascii_case(plain))
            {
                let path = ["services", name, "cap_add", &index.to_string()];
                self.refuse(&path, format!("the capability {capability} is not allowed"));
            }
        }
        for (index, device) in service.devices.iter().enumerate() {
            if !policy.devices.contains(&device.source) {
                let path = ["services", name, "devices", &index.to_string()];
                self.refuse(&path, format!("the device {} is not allowed", device.source));
            }
        }
        let reserved = service
            .deploy
            .as_ref()
            .and_then(|deploy| deploy.resources.as_ref());
        let reserved = reserved.and_then(|resources| resources.reservations.as_ref());
        let reserved = reserved
            .map(|reservations| reservations.devices.as_slice())
            .unwrap_or_default();
        let of_deploy: Vec<&str> = "services..deploy.resources.reservations.devices"
            .split('.')
            .map(|step| if step.is_empty() { name } else { step })
            .collect();
        for (requests, path) in [(&service.gpus[..], &at("gpus")[..]), (reserved, &of_deploy[..])] {
            for request in requests {
                let allowed = match request.driver.as_deref() {
                    Some("cdi") => request.device_ids.iter().all(|id| policy.devices.contains(id)),
                    _ => policy.devices.contains("gpus"),
                };
                self.refuse_if(!allowed, path, "GPUs and devices of drivers are not allowed");
            }
        }
        let weaker = [
            (
                "security_opt",
                service
                    .security_opt
                    .iter()
                    .any(|option| !option.starts_with("no-new-privileges")),
            ),
            ("sysctls", !service.sysctls.is_empty()),
            ("device_cgroup_rules", !service.device_cgroup_rules.is_empty()),
            ("cgroup_parent", service.cgroup_parent.is_some()),
            (
                "oom_score_adj",
                service.oom_score_adj.is_some_and(|score| score < 0),
            ),
            ("oom_kill_disable", service.oom_kill_disable),
            ("use_api_socket", service.use_api_socket),
            ("runtime", service.runtime.is_some()),
            ("credential_spec", service.credential_spec.is_some()),
            ("external_links", !service.external_links.is_empty()),
        ];
        for (key, wrong) in weaker {
            self.refuse_if(
                wrong && !policy.weaker_confinement,
                &at(key),
                "weaker confinement is not allowed",
            );
        }
        if let Some(provider) = &service.provider {
            self.refuse_if(
                !policy.providers.contains(&provider.r#type),
                &at("provider"),
                "programs of the host are not run for this project",
            );
        }
        // What they would read is not looked at, since it is not read.
        for (key, wrong) in [
            ("env_file", !service.env_file.is_empty()),
            ("label_file", !service.label_file.is_empty()),
        ] {
            self.refuse_if(wrong, &at(key), "files of the host are not read for this project");
        }
        self.mounts(name, service);
        for (index, port) in service.ports.iter().enumerate() {
            let address = port
                .host_ip
                .as_deref()
                .and_then(|address| address.parse::<std::net::IpAddr>().ok());
            let loopback = address.is_some_and(|address| address.is_loopback());
            let wrong = match policy.ports {
                PortPolicy::None => true,
                PortPolicy::Loopback => !loopback,
                PortPolicy::Any => false,
            };
            let path = ["services", name, "ports", &index.to_string()];
            self.refuse_if(wrong, &path, "publishing this port is not allowed");
        }
        if let Some(build) = &service.build {
            self.refuse_if(!policy.builds, &at("build"), "building images is not allowed");
            self.refuse_if(
                build.privileged && !policy.privileged,
                &at("build"),
                "a privileged build is not allowed",
            );
            self.refuse_if(
                !build.entitlements.is_empty() && !policy.privileged,
                &at("build"),
                "entitlements are not allowed",
            );
            self.refuse_if(
                !build.ssh.is_empty(),
                &at("build"),
                "SSH agents and keys are not given to this project",
            );
            let network = build.network.as_deref() == Some("host") && !policy.host_namespaces;
            self.refuse_if(network, &at("build"), "the host's network is not allowed");
            self.caches(build, &at("build"));
            self.build_sources(build, &at("build"));
        }
        if let Some(image) = &service.image {
            self.image(image, &at("image"));
        }
    }

    /// Caches that others read or write.
    fn caches(&mut self, build: &crate::model::Build, path: &[&str]) {
        let folder = |path: &Path| self.project.working_dir.join(path).to_string_lossy().into_owned();
        let mut folders = Vec::new();
        let mut names = Vec::new();
        let mut unknown = Vec::new();
        for text in &build.cache_from {
            match CacheSource::parse(text) {
                Ok(CacheSource::Local { path, .. }) => folders.push(folder(&path)),
                Ok(CacheSource::Registry(reference)) => names.push(reference.to_string()),
                _ => unknown.push(text),
            }
        }
        for text in &build.cache_to {
            match CacheTarget::parse(text) {
                Ok(CacheTarget::Inline) => {}
                Ok(CacheTarget::Local { path, .. }) => folders.push(folder(&path)),
                Ok(CacheTarget::Registry { reference, .. }) => names.push(reference.to_string()),
                _ => unknown.push(text),
            }
        }
        folders.iter().for_each(|folder| self.host_path(folder, path));
        names.iter().for_each(|name| self.image(name, path));
        for text in unknown {
            self.refuse(path, format!("the cache {text:?} is not known"));
        }
    }

    fn build_sources(&mut self, build: &crate::model::Build, path: &[&str]) {
        let contexts = build.additional_contexts.values();
        for context in contexts.chain([&build.context]) {
            if let Some(image) = context.strip_prefix("docker-image://") {
                self.image(image, path);
            } else if context.starts_with('/') {
                self.host_path(context, path);
            } else if !context.starts_with("service:") {
                self.refuse(path, format!("the build context {context} is not a folder"));
            }
        }
        if let Some(dockerfile) = &build.dockerfile {
            let file = crate::schema::clean(&Path::new(&build.context).join(dockerfile));
            if file.is_absolute() {
                self.host_path(&file.to_string_lossy(), path);
            }
        }
    }

    fn mounts(&mut self, name: &str, service: &Service) {
        for (index, volume) in service.volumes.iter().enumerate() {
            let index = index.to_string();
            let path = ["services", name, "volumes", &index];
            match (volume.r#type.as_str(), &volume.source) {
                ("bind", Some(source)) => self.host_path(source, &path),
                ("npipe" | "cluster", _) => self.refuse(&path, "this kind of mount is not allowed"),
                ("image", Some(image)) => self.image(image, &path),
                _ => {}
            }
        }
        for (index, source) in service.volumes_from.iter().enumerate() {
            let path = ["services", name, "volumes_from", &index.to_string()];
            let wrong = source.starts_with("container:") && !self.policy.host_namespaces;
            self.refuse_if(wrong, &path, "volumes of other containers are not allowed");
        }
        for (index, rule) in service
            .develop
            .iter()
            .flat_map(|develop| &develop.watch)
            .enumerate()
        {
            let index = index.to_string();
            self.host_path(&rule.path, &["services", name, "develop", "watch", &index]);
        }
    }

    fn image(&mut self, image: &str, path: &[&str]) {
        let registry = match image.split_once('/') {
            Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => first,
            _ => "docker.io",
        };
        if !self.policy.registries.contains(registry) {
            self.refuse(path, format!("images of {registry} are not allowed"));
        }
    }

    fn resources(&mut self) {
        let (project, policy) = (self.project, self.policy);
        for (key, network) in &project.networks {
            let path = ["networks", key.as_str()];
            let named = network.name != format!("{}_{key}", project.name);
            let wrong = (network.external || named) && !policy.external_networks.contains(&network.name);
            self.refuse_if(
                wrong,
                &path,
                &format!(
                    "the network {:?} is not the project's own, and is not allowed",
                    network.name
                ),
            );
            let driver = network.driver.as_deref().unwrap_or("bridge");
            let plain = matches!(driver, "bridge" | "default") && network.driver_opts.is_empty();
            self.refuse_if(
                !plain && !policy.weaker_confinement,
                &path,
                "drivers and their options are not allowed",
            );
        }
        for (key, volume) in &project.volumes {
            let path = ["volumes", key.as_str()];
            let named = volume.name != format!("{}_{key}", project.name);
            let wrong = (volume.external || named) && !policy.external_volumes.contains(&volume.name);
            self.refuse_if(
                wrong,
                &path,
                &format!(
                    "the volume {:?} is not the project's own, and is not allowed",
                    volume.name
                ),
            );
            // A local volume may be a mount of anything.
            match volume.driver_opts.get("device") {
                Some(device) if device.starts_with('/') => self.host_path(device, &path),
                _ => {
                    let plain = volume.driver_opts.is_empty()
                        && matches!(volume.driver.as_deref(), None | Some("local" | "default"));
                    self.refuse_if(
                        !plain && !policy.weaker_confinement,
                        &path,
                        "drivers and their options are not allowed",
                    );
                }
            }
        }
        let secrets = project
            .secrets
            .iter()
            .map(|(key, s)| ("secrets", key, &s.file, &s.environment, s.external));
        let configs = project
            .configs
            .iter()
            .map(|(key, c)| ("configs", key, &c.file, &c.environment, c.external));
        for (kind, key, file, variable, external) in secrets.chain(configs) {
            let path = [kind, key.as_str()];
            if let Some(file) = file {
                self.host_path(file, &path);
            }
            if let Some(variable) = variable
                .as_ref()
                .filter(|variable| !policy.variables.contains(*variable))
            {
                self.refuse(
                    &path,
                    format!("the variable {variable} is not given to this project"),
                );
            }
            self.refuse_if(external, &path, "what others keep is not allowed");
        }
    }
}
