//! The root directory of a container, by descriptor: of a running one in its own mount namespace, of another one
//! mounted anew in a namespace that nobody else sees.
//!
//! Nothing of the container runs for this. A helper without a payload enters or mounts, hands over one descriptor,
//! and goes away with this process; all work on files is done here, relative to that descriptor.

use super::FilesError;
use crate::container::Container;
use crate::error::{Error, Result};
use crate::launch::{Event, Helper, IdMappings, MountFlags, MountKind, MountPlan, RootPlan, ViewPlan};
use crate::plan;
use crate::state::MountInfo;
use crate::step::Step;
use crate::volume::{Backing, VolumeError};
use rustix::fs::{Mode, OFlags};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a look at a stopped container waits for another one, or for its helper to be gone.
const PATIENCE: Duration = Duration::from_secs(30);

/// An open root directory, and the ids of what is in it.
#[derive(Debug)]
pub(super) struct View {
    root: OwnedFd,
    helper: Helper,
    pub(super) ids: Ids,
}

impl View {
    /// Opens the root of a container, with its volumes and binds unless `bare`. Blocks.
    pub(super) fn open(container: &Container, bare: bool) -> Result<Self> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let running = container.status()?.is_running();
            let plan = match running {
                true => running_plan(container, bare),
                false => stopped_plan(container, bare),
            };
            let opened = plan.and_then(|plan| {
                let ids = Ids(plan.user_namespace.clone());
                Self::launch(container, plan, ids)
            });
            match opened {
                // It starts or ends just now, or another copy is under way.
                Err(error) if is_passing(&error) && Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                other => return other,
            }
        }
    }

    fn launch(container: &Container, plan: ViewPlan, ids: Ids) -> Result<Self> {
        let failed = |step, errno, detail| Error::Launch {
            what: format!("opening the files of container {}", container.name()),
            step,
            detail,
            log: Vec::new(),
            source: std::io::Error::from_raw_os_error(errno),
        };
        let helper = Helper::view(plan).map_err(Error::system("start a helper"))?;
        loop {
            let event = helper
                .wait_event(Some(Instant::now() + PATIENCE))
                .map_err(Error::system("read from the helper"))?;
            match event {
                Some(Event::Root { directory }) => {
                    return Ok(Self {
                        root: directory,
                        helper,
                        ids,
                    });
                }
                Some(Event::Failed { step, errno, detail }) => return Err(failed(step, errno, detail)),
                Some(Event::Gone) => return Err(failed(Step::Spawn, libc::ESRCH, "the helper ended".into())),
                None => {
                    return Err(failed(
                        Step::Spawn,
                        libc::ETIMEDOUT,
                        "the helper does not answer".into(),
                    ));
                }
                Some(_) => {}
            }
        }
    }
}

impl AsFd for View {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }
}

impl Drop for View {
    fn drop(&mut self) {
        // Whoever mounts the same layers next finds them unmounted; the kernel ends the helper within a moment.
        self.helper.end();
        self.helper.wait_end(Instant::now() + Duration::from_secs(5));
    }
}

/// An end that was not seen yet, or a lock that is held for a moment.
fn is_passing(error: &Error) -> bool {
    match error {
        Error::Launch { step, source, .. } => {
            let errno = source.raw_os_error().unwrap_or(0);
            (*step == Step::LockState && errno == libc::EAGAIN)
                || (*step == Step::JoinNamespaces && matches!(errno, libc::ESRCH | libc::EINVAL))
        }
        Error::NotRunning { .. } => true,
        _ => false,
    }
}

fn this_process() -> Result<OwnedFd> {
    rustix::process::pidfd_open(rustix::process::getpid(), rustix::process::PidfdFlags::empty())
        .map_err(|errno| Error::system("open a pidfd of this process")(errno.into()))
}

/// Joins the mount namespace of the payload, through its user namespace where it has one.
fn running_plan(container: &Container, bare: bool) -> Result<ViewPlan> {
    let gone = || Error::NotRunning {
        name: container.name().to_owned(),
    };
    let pid = payload(container)?.ok_or_else(gone)?;
    let user_namespace = plan::id_mappings(&container.record().spec);
    let open = |kind: &str| {
        let path = format!("/proc/{pid}/ns/{kind}");
        rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(
            |errno| match errno {
                rustix::io::Errno::NOENT | rustix::io::Errno::SRCH => gone(),
                errno => Error::state("open", &path)(errno.into()),
            },
        )
    };
    let mut join = Vec::new();
    // Root enters a mount namespace of any user namespace; others have that right only inside theirs.
    if user_namespace.is_some() && !rustix::process::geteuid().is_root() {
        join.push((open("user")?, libc::CLONE_NEWUSER as u64));
    }
    join.push((open("mnt")?, libc::CLONE_NEWNS as u64));
    // The pid could have ended and been used again between the look at the state and the open.
    if !container.status()?.is_running() || payload(container)? != Some(pid) {
        return Err(gone());
    }
    Ok(ViewPlan {
        state_dir: container.dir().path().to_owned(),
        lock: false,
        user_namespace,
        join,
        root: RootPlan::default(),
        mounts: Vec::new(),
        bare,
        owner: this_process()?,
    })
}

/// The payload's pid as it was started last.
pub(super) fn payload(container: &Container) -> Result<Option<i32>> {
    Ok(container.dir().history()?.started.map(|start| start.pid))
}

/// Mounts the snapshot and what the container has below it.
fn stopped_plan(container: &Container, bare: bool) -> Result<ViewPlan> {
    let record = container.record();
    let no_files = |reason: &str| FilesError::NoFiles {
        container: record.name.clone(),
        reason: reason.to_owned(),
    };
    let images = container.runtime().images();
    let snapshot = images
        .open_snapshot(&record.id)?
        .ok_or_else(|| no_files("it was removed, or is not set up yet"))?;
    // It was thrown away with its container, or is mounted as before.
    snapshot.clear_volatile_mark()?;
    let mut mounts = Vec::new();
    if !bare {
        let volumes = container.runtime().volumes();
        for info in &record.mounts {
            mounts.extend(mount_of(info, |name| volumes.get(name)?.backing())?);
        }
    }
    mounts.sort_by_key(|mount| mount.target.components().count());
    Ok(ViewPlan {
        state_dir: container.dir().path().to_owned(),
        lock: true,
        user_namespace: plan::id_mappings(&record.spec),
        join: Vec::new(),
        root: RootPlan {
            mounts: snapshot.mounts().into_iter().map(Into::into).collect(),
            read_only: false,
            no_devices: false,
        },
        mounts,
        bare,
        owner: this_process()?,
    })
}

/// A bind or volume as the container had it. Memory is gone with the container.
fn mount_of(
    info: &MountInfo,
    backing: impl Fn(&str) -> std::result::Result<Backing, VolumeError>,
) -> Result<Option<MountPlan>> {
    let source = match (info.kind.as_str(), &info.name) {
        ("bind", _) => PathBuf::from(&info.source),
        ("volume", Some(name)) => match backing(name)? {
            Backing::Own => PathBuf::from(&info.source),
            Backing::Bind { path, .. } => path,
            Backing::Tmpfs { .. } => return Ok(None),
        },
        _ => return Ok(None),
    };
    let mut kind = plan::bind(source)?;
    if let MountKind::Bind(bind) = &mut kind {
        bind.subpath.clone_from(&info.subpath);
    }
    Ok(Some(MountPlan {
        kind,
        target: Path::new(&info.target).to_owned(),
        flags: MountFlags {
            read_only: info.read_only,
            ..MountFlags::default()
        },
    }))
}

/// Ids of the host and what they are inside.
#[derive(Debug, Clone, Default)]
pub(super) struct Ids(Option<IdMappings>);

/// What an id without a meaning inside is shown as there (`/proc/sys/kernel/overflowuid`).
const OVERFLOW: u32 = 65534;

impl Ids {
    /// Owner and group inside, of a file's on the host.
    pub(super) fn inside(&self, uid: u32, gid: u32) -> (u32, u32) {
        let Some(maps) = &self.0 else {
            return (uid, gid);
        };
        let look_up = |maps: &[(u32, u32, u32)], id: u32| {
            maps.iter()
                .find_map(|(inside, outside, count)| {
                    let offset = id.checked_sub(*outside)?;
                    (offset < *count).then(|| inside + offset)
                })
                .unwrap_or(OVERFLOW)
        };
        (look_up(&maps.uids, uid), look_up(&maps.gids, gid))
    }

    /// Owner and group on the host, for those inside; `None` for one that does not exist there.
    pub(super) fn outside(&self, uid: u32, gid: u32) -> (Option<u32>, Option<u32>) {
        let Some(maps) = &self.0 else {
            return (Some(uid), Some(gid));
        };
        let look_up = |maps: &[(u32, u32, u32)], id: u32| {
            maps.iter().find_map(|(inside, outside, count)| {
                let offset = id.checked_sub(*inside)?;
                (offset < *count).then(|| outside + offset)
            })
        };
        (look_up(&maps.uids, uid), look_up(&maps.gids, gid))
    }
}
