//! The plan as text: for people, and for tests that compare it.

use super::{LaterSource, Planned, PlannedMount, PlannedSource};
use crate::launch::{MountFlags, Propagation};
use crate::spec::{NamespaceMode, NetworkMode};
use std::fmt;

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "container {}", self.id)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        for arg in &self.process.args {
            writeln!(f, "arg {:?}", text(arg))?;
        }
        for entry in &self.process.env {
            writeln!(f, "env {}", text(entry).escape_debug())?;
        }
        writeln!(f, "dir {}", self.process.cwd.display())?;
        writeln!(
            f,
            "user {:?} groups {:?}",
            self.process.user, self.process.additional_groups
        )?;
        if let Some(umask) = self.process.umask {
            writeln!(f, "umask {umask:04o}")?;
        }
        let sets = &self.process.capabilities;
        writeln!(f, "capabilities {:#x} ambient {:#x}", sets.bounding, sets.ambient)?;
        writeln!(f, "no_new_privileges {}", self.process.no_new_privileges)?;
        writeln!(
            f,
            "seccomp {}",
            match &self.seccomp {
                crate::spec::Seccomp::Default => "default",
                crate::spec::Seccomp::Unconfined => "unconfined",
                crate::spec::Seccomp::Profile(_) => "profile",
            }
        )?;
        for (limit, soft, hard) in &self.process.rlimits {
            writeln!(f, "rlimit {limit} {soft} {hard}")?;
        }
        if let Some(adjust) = self.process.oom_score_adj {
            writeln!(f, "oom_score_adj {adjust}")?;
        }
        if let Some(size) = &self.process.terminal {
            writeln!(f, "terminal {}x{}", size.columns, size.rows)?;
        }
        if let Some(maps) = &self.user_namespace {
            writeln!(
                f,
                "user namespace {:?} {:?} deny_setgroups {}",
                maps.uids, maps.gids, maps.deny_setgroups
            )?;
        }
        for (kind, mode) in [
            ("pid", &self.pid),
            ("ipc", &self.ipc),
            ("uts", &self.uts),
            ("cgroup", &self.cgroup_namespace),
        ] {
            match mode {
                NamespaceMode::Private => {}
                NamespaceMode::Host => writeln!(f, "{kind} namespace of the host")?,
                NamespaceMode::Container(name) => writeln!(f, "{kind} namespace of {name}")?,
            }
        }
        match &self.network {
            NetworkMode::Default => {
                for endpoint in &self.networks {
                    write!(f, "network {}", endpoint.network_name())?;
                    let addresses = [
                        endpoint.ip.map(Into::into),
                        endpoint.ip6.map(std::net::IpAddr::from),
                    ];
                    for address in addresses.into_iter().flatten() {
                        write!(f, " {address}")?;
                    }
                    writeln!(f)?;
                }
            }
            NetworkMode::Host => writeln!(f, "network of the host")?,
            NetworkMode::None => writeln!(f, "network none")?,
            NetworkMode::Container(name) => writeln!(f, "network of {name}")?,
        }
        for (kind, name) in [("hostname", &self.hostname), ("domainname", &self.domainname)] {
            if let Some(name) = name {
                writeln!(f, "{kind} {name}")?;
            }
        }
        let volatile = if self.snapshot.volatile { " volatile" } else { "" };
        writeln!(
            f,
            "root {}{volatile}",
            if self.root_read_only { "ro" } else { "rw" }
        )?;
        for mount in &self.mounts {
            writeln!(f, "mount {mount}")?;
        }
        for device in &self.devices {
            let (path, kind) = (device.path.display(), device.kind);
            writeln!(
                f,
                "device {path} {kind} {}:{} {:o}",
                device.major, device.minor, device.mode
            )?;
        }
        for path in &self.masked_paths {
            writeln!(f, "masked {path}")?;
        }
        for path in &self.readonly_paths {
            writeln!(f, "read-only {path}")?;
        }
        for (name, value) in &self.sysctls {
            writeln!(f, "sysctl {name}={value}")?;
        }
        for port in &self.ports {
            let host = match (port.host, port.host_end) {
                (None, _) => "free".to_owned(),
                (Some(first), None) => first.to_string(),
                (Some(first), Some(last)) => format!("{first}-{last}"),
            };
            let address = port
                .host_ip
                .map_or("every address".to_owned(), |ip| ip.to_string());
            writeln!(
                f,
                "port {}/{} at {host} of {address}",
                port.container, port.protocol
            )?;
        }
        writeln!(f, "stop {}", crate::signal::name(self.stop_signal))?;
        if self.init {
            writeln!(f, "init")?;
        }
        for warning in &self.warnings {
            writeln!(f, "warning {warning}")?;
        }
        Ok(())
    }
}

impl fmt::Display for PlannedMount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.target)?;
        match &self.source {
            PlannedSource::FileSystem { fstype, options } if options.is_empty() => f.write_str(fstype)?,
            PlannedSource::FileSystem { fstype, options } => write!(f, "{fstype} {}", options.join(","))?,
            PlannedSource::Host(path) => write!(f, "host {path}")?,
            PlannedSource::Later(LaterSource::CgroupV1) => f.write_str("cgroup1")?,
            PlannedSource::Later(LaterSource::OfIpcContainer(path)) => write!(f, "container's {path}")?,
            PlannedSource::Later(LaterSource::State(file)) => write!(f, "state {}", file.name())?,
            PlannedSource::Layers { number, subpath } => {
                write!(f, "layers of mounts[{number}]")?;
                if let Some(path) = subpath {
                    write!(f, " at {}", path.display())?;
                }
            }
            PlannedSource::Bind {
                path,
                create,
                propagation,
                recursive,
            } => {
                let recursive = if *recursive { "" } else { " nonrecursive" };
                let create = if *create { " create" } else { "" };
                let propagation = match propagation {
                    Propagation::Private => "",
                    Propagation::Slave => " slave",
                    Propagation::Shared => " shared",
                };
                write!(f, "bind {}{create}{propagation}{recursive}", path.display())?;
            }
            PlannedSource::Volume {
                name,
                no_copy,
                subpath,
                labels: _,
            } => {
                write!(f, "volume {}", name.as_deref().unwrap_or("anonymous"))?;
                if *no_copy {
                    f.write_str(" nocopy")?;
                }
                if let Some(path) = subpath {
                    write!(f, " subpath {}", path.display())?;
                }
            }
            PlannedSource::Tmpfs { options } if options.is_empty() => f.write_str("user's tmpfs")?,
            PlannedSource::Tmpfs { options } => write!(f, "user's tmpfs {}", options.join(","))?,
        }
        let MountFlags {
            read_only,
            no_suid,
            no_dev,
            no_exec,
            strict_atime,
            recursive_read_only,
        } = self.flags;
        for (set, name) in [
            (read_only, "ro"),
            (recursive_read_only, "rro"),
            (no_suid, "nosuid"),
            (no_dev, "nodev"),
            (no_exec, "noexec"),
            (strict_atime, "strictatime"),
        ] {
            if set {
                write!(f, " {name}")?;
            }
        }
        Ok(())
    }
}
