//! Where the values of secrets are between the making of a container and its end.
//!
//! A scoped container's are in this process alone. A detached one's must be there for every later start, by whatever
//! process: they are in a file system in memory, outside rdock's root, so that no byte of them is ever on the disk:
//!
//! ```text
//! <memory>/rdock-<uid>/<root>/<container id>/maker  the process that made it
//!                                            <n>    what the n-th secret holds
//! ```
//! `<memory>` is the first of `/run`, `/run/user/<uid>` and `/dev/shm` that is a tmpfs this user can write; `<root>` is
//! device and inode of the directory of containers. Directories are 0700, files 0600. They go with the container; a reboot
//! takes them too, and then a start says that they are gone.

use crate::error::{Error, Result};
use crate::launch::SecretPlan;
use crate::process::ProcessIdentity;
use crate::runtime::Runtime;
use crate::spec::{ContainerSpec, SECRET_MAX, Secret, SecretSource, SecretTarget};
use rustix::fs::FlockOperation;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const TMPFS: u64 = 0x0102_1994;

impl ContainerSpec {
    /// Reads what the secrets hold; from then on the spec has it.
    pub(crate) fn read_secrets(&mut self) -> Result<()> {
        for secret in &mut self.secrets {
            let bytes: Vec<u8> = match &secret.source {
                SecretSource::Kept | SecretSource::Bytes(_) => continue,
                SecretSource::File(path) => {
                    let mut bytes = Vec::new();
                    fs::File::open(path)
                        .and_then(|file| file.take(SECRET_MAX as u64 + 1).read_to_end(&mut bytes))
                        .map_err(Error::state("read", path))?;
                    bytes
                }
                SecretSource::Environment(variable) => {
                    use std::os::unix::ffi::OsStringExt;
                    let value = std::env::var_os(variable).ok_or_else(|| Error::Secret {
                        name: secret.name.clone(),
                        reason: format!("the variable {variable} is not set"),
                    })?;
                    value.into_vec()
                }
            };
            secret.source = SecretSource::Bytes(bytes.into());
        }
        for secret in &self.secrets {
            let SecretSource::Bytes(bytes) = &secret.source else {
                continue;
            };
            let reason = match &secret.target {
                _ if bytes.len() > SECRET_MAX => "it is longer than 1 MiB",
                SecretTarget::Variable { .. } if bytes.contains(&0) => "a variable cannot hold a NUL byte",
                _ => continue,
            };
            return Err(Error::Secret {
                name: secret.name.clone(),
                reason: reason.into(),
            });
        }
        Ok(())
    }
}

/// Keeps what the secrets of a detached container hold until the container is removed.
pub(crate) fn keep(runtime: &Runtime, id: &str, spec: &ContainerSpec) -> Result<()> {
    let held = |secret: &&Secret| matches!(secret.source, SecretSource::Bytes(_));
    let Some(first) = spec.secrets.iter().find(held) else {
        return Ok(());
    };
    let store = place(runtime)?.ok_or_else(|| Error::Secret {
        name: first.name.clone(),
        reason: "there is no file system in memory to keep it in: neither /run nor /dev/shm is a tmpfs that this user can write"
            .into(),
    })?;
    private(&store)?;
    // Until its maker stands in it, the directory would look like one that was left.
    let _made = lock(&store, FlockOperation::LockShared)?;
    let dir = store.join(id);
    private(&dir)?;
    let maker = ProcessIdentity::current().map_err(Error::system("read the identity of this process"))?;
    let maker = serde_json::to_vec(&maker).map_err(|error| Error::state("write", &dir)(error.into()))?;
    write(&dir.join("maker"), &maker)?;
    for (at, secret) in spec.secrets.iter().enumerate() {
        if let SecretSource::Bytes(bytes) = &secret.source {
            write(&dir.join(at.to_string()), bytes)?;
        }
    }
    Ok(())
}

/// What the launch of a container puts into files, and the variables it adds, `NAME=value`.
pub(crate) fn for_launch(
    runtime: &Runtime,
    id: &str,
    spec: &ContainerSpec,
) -> Result<(Vec<SecretPlan>, Vec<Vec<u8>>)> {
    let (mut files, mut variables) = (Vec::new(), Vec::new());
    for (at, secret) in spec.secrets.iter().enumerate() {
        let bytes = match &secret.source {
            SecretSource::Bytes(bytes) => Arc::clone(bytes),
            _ => kept(runtime, id, at, secret)?,
        };
        match &secret.target {
            SecretTarget::File { path, uid, gid, mode } => files.push(SecretPlan {
                target: PathBuf::from(path),
                uid: *uid,
                gid: *gid,
                mode: *mode,
                content: bytes,
            }),
            SecretTarget::Variable { name } => {
                variables.push([name.as_bytes(), b"=", &bytes[..]].concat());
            }
        }
    }
    Ok((files, variables))
}

fn kept(runtime: &Runtime, id: &str, at: usize, secret: &Secret) -> Result<Arc<[u8]>> {
    let gone = || Error::Secret {
        name: secret.name.clone(),
        reason:
            "what it holds was in memory and is gone, by a reboot of the machine: make the container again"
                .into(),
    };
    let path = place(runtime)?.ok_or_else(gone)?.join(id).join(at.to_string());
    match fs::read(&path) {
        Ok(bytes) => Ok(bytes.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(gone()),
        Err(error) => Err(Error::state("read", path)(error)),
    }
}

/// Forgets the secrets of a container that is gone.
pub(crate) fn forget(runtime: &Runtime, id: &str) -> Result<()> {
    let Some(store) = place(runtime)? else {
        return Ok(());
    };
    let dir = store.join(id);
    match fs::remove_dir_all(&dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::state("remove", dir)(error)),
        _ => {
            // The directory of the root goes with its last container.
            let _ = fs::remove_dir(&store);
            Ok(())
        }
    }
}

/// Forgets the secrets of containers that were never finished. What cannot be removed is tried again at the next open.
pub(crate) fn sweep(runtime: &Runtime) {
    let Ok(Some(store)) = place(runtime) else { return };
    let Ok(_swept) = lock(&store, FlockOperation::NonBlockingLockExclusive) else {
        return;
    };
    for entry in fs::read_dir(&store).into_iter().flatten().flatten() {
        let Some(id) = entry.file_name().to_str().map(str::to_owned) else {
            continue;
        };
        let maker = fs::read(entry.path().join("maker"))
            .ok()
            .and_then(|bytes| serde_json::from_slice::<ProcessIdentity>(&bytes).ok());
        // Its maker first: the container may appear while we look.
        let alive = maker.is_some_and(|maker| maker.is_alive());
        if !alive && !runtime.state().path(&id).exists() {
            let _ = forget(runtime, &id);
        }
    }
}

/// The directory of this root's secrets, which need not exist; `None` on a machine without a place for it.
fn place(runtime: &Runtime) -> Result<Option<PathBuf>> {
    let containers = runtime.root().join("containers");
    let meta = fs::metadata(&containers).map_err(Error::state("look at", &containers))?;
    let user = rustix::process::geteuid().as_raw();
    let own = format!("/run/user/{user}");
    for memory in ["/run", own.as_str(), "/dev/shm"] {
        let is_memory = rustix::fs::statfs(memory).is_ok_and(|kind| kind.f_type as u64 == TMPFS);
        let writable = rustix::fs::access(memory, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK);
        if is_memory && writable.is_ok() {
            let base = Path::new(memory).join(format!("rdock-{user}"));
            return Ok(Some(base.join(format!("{:x}-{:x}", meta.dev(), meta.ino()))));
        }
    }
    Ok(None)
}

/// Makes a directory, and the one above it, that are this user's alone. Another user may have made one of the name in a
/// directory that everybody may write: that is an error.
fn private(dir: &Path) -> Result<()> {
    let above = dir.parent().unwrap_or(dir);
    for dir in [above, dir] {
        match DirBuilder::new().mode(0o700).create(dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(Error::state("create", dir)(error));
            }
            _ => {}
        }
        let meta = fs::symlink_metadata(dir).map_err(Error::state("look at", dir))?;
        let own =
            meta.is_dir() && meta.uid() == rustix::process::geteuid().as_raw() && meta.mode() & 0o077 == 0;
        if !own {
            let error = io::Error::new(io::ErrorKind::PermissionDenied, "it is not this user's alone");
            return Err(Error::state("use", dir)(error));
        }
    }
    Ok(())
}

/// Holds a lock on a directory until it is dropped.
fn lock(dir: &Path, kind: FlockOperation) -> Result<fs::File> {
    let file = fs::File::open(dir).map_err(Error::state("open", dir))?;
    rustix::fs::flock(&file, kind).map_err(|error| Error::state("lock", dir)(error.into()))?;
    Ok(file)
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(bytes));
    written.map_err(Error::state("write", path))
}
