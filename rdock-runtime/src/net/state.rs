//! What is kept on disk of a network, and who is alive in it.
//!
//! ```text
//! <root>/networks/
//!   format                    version of this layout
//!   <name>/
//!     lock                    flock; holds the address given last
//!     definition.json         what a user network is; the default one has none
//!     network.json            subnet, gateway, uplink: chosen when the network is made
//!     holders/<address>_<id>  one file per container that has an address
//! ```
//!
//! A network exists as long as a process lives in its namespace. The files only say where to look: a holder counts
//! when its process has the recorded start time in the same boot and the namespace the recorded inode.

mod holder;

pub(super) use holder::HolderRecord;

use super::definition::Definition;
use super::error::NetError;
use super::range::Range6;
use super::subnet::Subnet;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{self, Read, Seek, Write};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The layout that this version writes.
const FORMAT: u32 = 1;

/// How the name of a directory begins that is being removed.
const GONE: &str = ".gone-";
/// How long a newcomer waits for one that is just making the network.
const PATIENCE: Duration = Duration::from_secs(30);

/// The directory of one network.
#[derive(Debug, Clone)]
pub(super) struct NetworkDir {
    pub(super) name: String,
    pub(super) path: PathBuf,
}

/// `network.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NetworkRecord {
    pub(super) version: u32,
    pub(super) subnet: String,
    pub(super) gateway: Ipv4Addr,
    pub(super) mtu: u32,
    /// Missing where the network has no way out.
    #[serde(default)]
    pub(super) uplink: Option<UplinkRecord>,
    /// Missing where it has no IPv6.
    #[serde(default)]
    pub(super) ipv6: Option<Range6>,
    /// It has rules against containers that speak for others.
    #[serde(default)]
    pub(super) guarded: bool,
}

/// The veth pair between the host and the network.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct UplinkRecord {
    /// Name of the host's end.
    pub(super) interface: String,
    pub(super) host: Ipv4Addr,
    pub(super) inside: Ipv4Addr,
    pub(super) prefix: u8,
    /// Of the host's end and the network's, with the prefix length 126; missing where the host has no IPv6.
    #[serde(default)]
    pub(super) ipv6: Option<(Ipv6Addr, Ipv6Addr)>,
}

/// The network's lock, held.
#[derive(Debug)]
#[must_use]
pub(super) struct Lock {
    file: fs::File,
}

impl NetworkDir {
    /// The default network's, made when missing.
    pub(super) fn open(root: &Path, name: &str) -> Result<Self, NetError> {
        let dir = Self::at(root, name)?;
        let holders = dir.path.join("holders");
        private_dir(&holders).map_err(|source| dir.error("make", holders, source))?;
        Ok(dir)
    }

    /// That of the default network or of one that was created.
    pub(super) fn find(root: &Path, name: &str) -> Result<(Self, Option<Definition>), NetError> {
        if name == super::DEFAULT {
            return Ok((Self::open(root, name)?, None));
        }
        let missing = || NetError::NoSuchNetwork { network: name.into() };
        if !super::is_network_name(name) {
            return Err(missing());
        }
        let dir = Self::at(root, name)?;
        match dir.definition()? {
            Some(definition) => Ok((dir, Some(definition))),
            None => {
                // Perhaps an id, or the beginning of one.
                let mut found = Self::all(root)?
                    .into_iter()
                    .filter(|(_, definition)| name.len() >= 4 && definition.id.starts_with(name));
                match (found.next(), found.next()) {
                    (Some((dir, definition)), None) => Ok((dir, Some(definition))),
                    _ => Err(missing()),
                }
            }
        }
    }

    /// Every network that was created.
    pub(super) fn all(root: &Path) -> Result<Vec<(Self, Definition)>, NetError> {
        let mut all = Vec::new();
        let networks = root.join("networks");
        let entries = match fs::read_dir(&networks) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(all),
            Err(source) => {
                return Err(NetError::State {
                    network: "of this root".into(),
                    doing: "list",
                    path: networks,
                    source,
                });
            }
        };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name == super::DEFAULT || name.starts_with('.') || !entry.path().is_dir() {
                continue;
            }
            let dir = Self {
                name: name.trim_start_matches('%').to_owned(),
                path: entry.path(),
            };
            // One that is being removed has none any more.
            if let Some(definition) = dir.definition()? {
                all.push((dir, definition));
            }
        }
        all.sort_by(|a, b| a.0.name.cmp(&b.0.name));
        Ok(all)
    }

    fn at(root: &Path, name: &str) -> Result<Self, NetError> {
        let networks = root.join("networks");
        // The layout has a file of its own beside the networks.
        let file = if name == "format" { "%format" } else { name };
        let dir = Self {
            name: name.into(),
            path: networks.join(file),
        };
        private_dir(&networks).map_err(|source| dir.error("make", networks.clone(), source))?;
        let format = networks.join("format");
        match fs::read_to_string(&format) {
            Ok(found) if found.trim().parse::<u32>().is_ok_and(|found| found <= FORMAT) => Ok(dir),
            Ok(found) => Err(NetError::Format {
                path: format,
                found: found.trim().chars().take(40).collect(),
                known: FORMAT,
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                replace(&format, format!("{FORMAT}\n").as_bytes())
                    .map_err(|source| dir.error("write", format, source))?;
                Ok(dir)
            }
            Err(source) => Err(dir.error("read", format, source)),
        }
    }

    /// Makes the directory of a network that is created, in one step; false when there is one.
    pub(super) fn create(root: &Path, definition: &Definition) -> Result<bool, NetError> {
        let dir = Self::at(root, &definition.name)?;
        let new = dir
            .path
            .with_file_name(format!(".new-{}-{}", std::process::id(), crate::state::unique()));
        let fill = || -> io::Result<bool> {
            private_dir(&new.join("holders"))?;
            fs::write(
                new.join("definition.json"),
                serde_json::to_vec_pretty(definition)?,
            )?;
            fs::write(new.join("lock"), "")?;
            match fs::rename(&new, &dir.path) {
                // A directory that is not empty is never replaced.
                Err(error)
                    if matches!(
                        error.raw_os_error(),
                        Some(libc::ENOTEMPTY | libc::EEXIST | libc::ENOTDIR)
                    ) =>
                {
                    Ok(false)
                }
                other => other.map(|()| true),
            }
        };
        let created = fill();
        if !matches!(created, Ok(true)) {
            let _ = fs::remove_dir_all(&new);
        }
        created.map_err(|source| dir.error("create", dir.path.clone(), source))
    }

    /// Takes the directory away. The caller holds the lock, and nobody is in the network.
    pub(super) fn remove(&self) -> Result<(), NetError> {
        // In one step: whoever waits for the lock finds none then, and whoever is killed in the middle leaves nothing
        // that has the name.
        let gone =
            self.path
                .with_file_name(format!("{GONE}{}-{}", std::process::id(), crate::state::unique()));
        fs::rename(&self.path, &gone).map_err(|source| self.error("remove", self.path.clone(), source))?;
        match fs::remove_dir_all(&gone) {
            // The janitor of another process may have helped.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(|source| self.error("remove", gone, source)),
        }
    }

    /// Removes what creators left that died before their rename, and removers that died after theirs.
    pub(super) fn sweep_unfinished(networks: &Path) {
        for entry in fs::read_dir(networks).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(GONE) {
                // Whoever removes one now does not mind help.
                let _ = fs::remove_dir_all(entry.path());
            }
            let creator = name.strip_prefix(".new-").and_then(|name| name.split('-').next());
            if creator.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }

    fn definition(&self) -> Result<Option<Definition>, NetError> {
        let path = self.path.join("definition.json");
        match fs::read(&path) {
            Ok(bytes) => {
                let definition: Definition = serde_json::from_slice(&bytes)
                    .map_err(|error| self.error("read", path.clone(), error.into()))?;
                if definition.version > FORMAT {
                    return Err(NetError::Format {
                        path,
                        found: definition.version.to_string(),
                        known: FORMAT,
                    });
                }
                Ok(Some(definition))
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                Ok(None)
            }
            Err(source) => Err(self.error("read", path, source)),
        }
    }

    pub(super) fn lock(&self) -> Result<Lock, NetError> {
        lock(&self.path.join("lock"), &self.name).map(|file| Lock { file })
    }

    /// `None` when somebody has it, or there is none.
    pub(super) fn try_lock(&self) -> Option<Lock> {
        try_lock(&self.path.join("lock")).map(|file| Lock { file })
    }

    /// `None` when the network was never made. One that cannot be read counts as never made: it only says what was
    /// chosen last.
    pub(super) fn read(&self) -> Result<Option<NetworkRecord>, NetError> {
        let path = self.path.join("network.json");
        match fs::read(&path) {
            Ok(bytes) => {
                let Ok(record) = serde_json::from_slice::<NetworkRecord>(&bytes) else {
                    return Ok(None);
                };
                if record.version > FORMAT {
                    return Err(NetError::Format {
                        path,
                        found: record.version.to_string(),
                        known: FORMAT,
                    });
                }
                Ok(record.subnet().is_some().then_some(record))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(self.error("read", path, source)),
        }
    }

    pub(super) fn write(&self, record: &NetworkRecord) -> Result<(), NetError> {
        let path = self.path.join("network.json");
        let bytes = serde_json::to_vec_pretty(record)
            .map_err(|source| self.error("write", path.clone(), source.into()))?;
        replace(&path, &bytes).map_err(|source| self.error("write", path, source))
    }

    /// Removes what writers left that died before their rename. Those of `network.json` hold the lock, which is
    /// held here; a holder's file is written without it, so there the writer's number says whether it is gone,
    /// and a file of this very moment is left alone.
    pub(super) fn sweep_unwritten(&self) {
        let files = |directory: &Path| fs::read_dir(directory).into_iter().flatten().flatten();
        // What stays is tried again at the next open.
        for entry in files(&self.path) {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with('.') && name.ends_with("-network.json") {
                let _ = fs::remove_file(entry.path());
            }
        }
        for entry in files(&self.path.join("holders")) {
            let name = entry.file_name().to_string_lossy().into_owned();
            let writer = name.strip_prefix('.').and_then(|name| name.split('-').next());
            let ended = writer.is_some_and(|pid| !Path::new("/proc").join(pid).exists());
            let age = entry
                .metadata()
                .ok()
                .and_then(|meta| meta.modified().ok()?.elapsed().ok());
            if ended && age.is_some_and(|age| age.as_millis() > 500) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// Address and path of every holder file, by its name alone.
    pub(super) fn holders(&self) -> Result<Vec<(Ipv4Addr, PathBuf)>, NetError> {
        let path = self.path.join("holders");
        let entries = fs::read_dir(&path).map_err(|source| self.error("list", path.clone(), source))?;
        let mut holders = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|source| self.error("list", path.clone(), source))?;
            let name = entry.file_name();
            let address = name
                .to_str()
                .and_then(|name| name.split_once('_'))
                .and_then(|(ip, _)| ip.parse().ok());
            holders.extend(address.map(|address| (address, entry.path())));
        }
        Ok(holders)
    }

    pub(super) fn holder_path(&self, address: Ipv4Addr, container: &str) -> PathBuf {
        let id: String = container
            .chars()
            .filter(char::is_ascii_alphanumeric)
            .take(64)
            .collect();
        self.path.join("holders").join(format!("{address}_{id}"))
    }

    pub(super) fn write_holder(&self, path: &Path, record: &HolderRecord) -> Result<(), NetError> {
        let bytes =
            serde_json::to_vec(record).map_err(|source| self.error("write", path.into(), source.into()))?;
        replace(path, &bytes).map_err(|source| self.error("write", path.into(), source))
    }

    pub(super) fn error(&self, doing: &'static str, path: PathBuf, source: io::Error) -> NetError {
        NetError::State {
            network: self.name.clone(),
            doing,
            path,
            source,
        }
    }
}

impl NetworkRecord {
    pub(super) fn new(subnet: Subnet, gateway: Ipv4Addr, mtu: u32, uplink: Option<UplinkRecord>) -> Self {
        Self {
            version: FORMAT,
            subnet: subnet.to_string(),
            gateway,
            mtu,
            uplink,
            ipv6: None,
            guarded: false,
        }
    }

    /// `None` when the file was tampered with.
    pub(super) fn subnet(&self) -> Option<Subnet> {
        self.subnet.parse().ok()
    }
}

impl Lock {
    /// The address given last.
    pub(super) fn cursor(&mut self) -> Option<Ipv4Addr> {
        let mut text = String::new();
        self.file.rewind().ok()?;
        (&mut self.file).take(64).read_to_string(&mut text).ok()?;
        text.trim().parse().ok()
    }

    pub(super) fn set_cursor(&mut self, ip: Ipv4Addr) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        self.file.write_all(ip.to_string().as_bytes())
    }
}

fn private_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Device and inode of an open namespace.
pub(super) fn identity(namespace: impl std::os::fd::AsFd) -> Option<(u64, u64)> {
    let stat = rustix::fs::fstat(namespace).ok()?;
    Some((stat.st_dev, stat.st_ino))
}

/// Opens and locks `path`, waiting as long as it takes somebody to make a network.
pub(super) fn lock(path: &Path, network: &str) -> Result<fs::File, NetError> {
    match lock_within(path, PATIENCE) {
        Ok(Some(file)) => Ok(file),
        Ok(None) => Err(NetError::Locked {
            network: network.into(),
            path: path.into(),
        }),
        Err(source) => Err(NetError::State {
            network: network.into(),
            doing: "lock",
            path: path.into(),
            source,
        }),
    }
}

/// Opens and locks `path`; `None` when that takes too long: flock(2) has no time limit of its own.
pub(super) fn lock_within(path: &Path, patience: Duration) -> io::Result<Option<fs::File>> {
    let file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    let deadline = Instant::now() + patience;
    let mut pause = Duration::from_micros(200);
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Some(file)),
            Err(Errno::WOULDBLOCK) if Instant::now() >= deadline => return Ok(None),
            Err(Errno::WOULDBLOCK) => {
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(10));
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// The lock when nobody has it; `None` too when it cannot be opened.
pub(super) fn try_lock(path: &Path) -> Option<fs::File> {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).ok()?;
    flock(&file, FlockOperation::NonBlockingLockExclusive).ok()?;
    Some(file)
}

/// Writes a file that is there completely or not at all. Nothing here has to survive a power cut.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // The dot keeps it out of the listing of holders.
    let new = path.with_file_name(format!(
        ".{}-{}-{name}",
        std::process::id(),
        crate::state::unique()
    ));
    let written = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)
        .and_then(|mut file| file.write_all(bytes))
        .and_then(|()| fs::rename(&new, path));
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::ProcessIdentity;

    #[test]
    fn a_process_is_told_from_a_later_one_with_its_number() {
        let own = ProcessIdentity::of(std::process::id() as i32).unwrap();
        assert!(own.is_alive());
        assert!(
            !ProcessIdentity {
                start: own.start + 1,
                ..own.clone()
            }
            .is_alive()
        );
        assert!(
            !ProcessIdentity {
                boot: "another".into(),
                ..own.clone()
            }
            .is_alive()
        );
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id() as i32;
        let record = ProcessIdentity::of(pid);
        child.wait().unwrap();
        assert!(!record.is_ok_and(|record| record.is_alive()));
    }

    #[test]
    fn a_newer_format_is_refused() {
        let root = tempfile::tempdir().unwrap();
        NetworkDir::open(root.path(), "default").unwrap();
        NetworkDir::open(root.path(), "default").unwrap();
        fs::write(root.path().join("networks/format"), "2\n").unwrap();
        let error = NetworkDir::open(root.path(), "default").unwrap_err();
        assert!(matches!(error, NetError::Format { known: 1, .. }), "{error:?}");
    }

    #[test]
    fn holders_are_found_by_address() {
        let root = tempfile::tempdir().unwrap();
        let dir = NetworkDir::open(root.path(), "default").unwrap();
        let ip = Ipv4Addr::new(10, 0, 0, 2);
        let path = dir.holder_path(ip, "../../abc");
        let own = ProcessIdentity::of(std::process::id() as i32).unwrap();
        dir.write_holder(&path, &HolderRecord::new("abc", ip, own))
            .unwrap();
        assert_eq!(dir.holders().unwrap(), [(ip, path.clone())]);
        assert!(HolderRecord::read(&path).unwrap().is_alive());
        let mut lock = dir.lock().unwrap();
        assert_eq!(lock.cursor(), None);
        lock.set_cursor(ip).unwrap();
        assert_eq!(lock.cursor(), Some(ip));
    }
}
