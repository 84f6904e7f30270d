//! The owner's side of a launch: spawn the helper, hand it the plan, follow what it reports.
mod encode;
// The helper's too; the owner needs only a part.
#[allow(dead_code)]
pub(crate) mod passwd;
mod plan;
// Half of it is the helper's alone.
#[allow(dead_code)]
mod wire;

pub(crate) use plan::*;

use crate::process::ProcessIdentity;
use crate::step::Step;
use crate::sys;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use std::ffi::CStr;
use std::io::{self, IoSlice, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Instant;
use wire::{HEADER, MOST_FDS, ask, tell};

/// What the helper reports, in the order it can come.
#[derive(Debug)]
pub(crate) enum Event {
    /// The network's namespace was made and set up; only with [`BridgedPlan::join`] `None`.
    NetworkMade {
        namespace: OwnedFd,
    },
    /// Something optional was refused; the container goes on.
    Warning {
        step: Step,
        errno: i32,
        detail: String,
    },
    /// Set-up is done and the payload waits for [`Helper::go`]; only with [`LaunchPlan::hold`].
    Held {
        pid: i32,
    },
    /// The root is made and the payload waits for [`Helper::go`] before it enters it; only with
    /// [`HooksPlan::pause`].
    Paused {
        pid: i32,
    },
    /// The payload's exec succeeded. `pid` is in the owner's pid namespace.
    Started {
        pid: i32,
        terminal: Option<OwnedFd>,
    },
    /// Set-up failed at a step; the helper has ended everything and exits.
    Failed {
        step: Step,
        errno: i32,
        detail: String,
    },
    /// `status` as waitpid(2) gives it. The helper exits after this.
    Exited {
        status: i32,
    },
    ExecStarted {
        session: u32,
        pid: i32,
        terminal: Option<OwnedFd>,
    },
    ExecFailed {
        session: u32,
        step: Step,
        errno: i32,
        detail: String,
    },
    ExecExited {
        session: u32,
        status: i32,
    },
    /// Answer to [`Helper::request_sockets`].
    Sockets {
        tag: u32,
        sockets: Vec<OwnedFd>,
        errno: i32,
    },
    /// The root directory of a view.
    Root {
        directory: OwnedFd,
    },
    /// The first one after [`Helper::adopt`].
    Adopted(Adopted),
    /// The control socket closed: the helper is gone.
    Gone,
}

/// What the helper has kept for its new owner.
#[derive(Debug)]
pub(crate) struct Adopted {
    /// -1 when the payload has ended.
    pub(crate) pid: i32,
    pub(crate) terminal: Option<OwnedFd>,
    /// Where the helper listens.
    pub(crate) reunion: OwnedFd,
    pub(crate) stdio: Vec<OwnedFd>,
}

/// Which namespace a socket is made in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SocketPlace {
    /// The network's (the helper's own).
    Network,
    /// The payload's.
    Payload,
}

/// A running helper: a SOCK_SEQPACKET control socket and a pidfd. Dropping it closes the socket: a scoped
/// container's helper ends then.
#[derive(Debug)]
pub(crate) struct Helper {
    control: OwnedFd,
    pidfd: OwnedFd,
    pid: i32,
}

impl Helper {
    /// Spawns the invisible helper and sends it `plan`. Blocks for a millisecond or so; the events follow
    /// on the control socket.
    pub(crate) fn launch(plan: LaunchPlan) -> io::Result<Self> {
        let mut namespaces = 0;
        if matches!(plan.pid, NamespacePlan::New) {
            namespaces |= libc::CLONE_NEWPID;
        }
        let id_maps = plan.user_namespace.as_ref().map(id_maps);
        if id_maps.is_some() {
            namespaces |= libc::CLONE_NEWUSER;
        }
        let program = sys::helper_program(&plan.state_dir)?;
        let encoded = encode::launch(plan)?;
        Self::spawn(c"rdock-helper", program, namespaces, id_maps.as_ref(), &encoded)
    }

    /// Spawns a helper without a payload, which shows the files of a container: [`Event::Root`] follows. What it
    /// mounted is there as long as it is.
    pub(crate) fn view(plan: ViewPlan) -> io::Result<Self> {
        // Namespaces of a running container are joined from where this process is.
        let mut namespaces = 0;
        let id_maps = plan
            .user_namespace
            .as_ref()
            .filter(|_| plan.join.is_empty())
            .map(id_maps);
        if plan.join.is_empty() {
            namespaces |= libc::CLONE_NEWPID;
        }
        if id_maps.is_some() {
            namespaces |= libc::CLONE_NEWUSER;
        }
        let program = sys::helper_program(&plan.state_dir)?;
        let encoded = encode::view(plan)?;
        Self::spawn(c"rdock-view", program, namespaces, id_maps.as_ref(), &encoded)
    }

    fn spawn(
        name: &CStr,
        program: BorrowedFd<'_>,
        namespaces: i32,
        id_maps: Option<&sys::IdMaps>,
        encoded: &encode::Encoded,
    ) -> io::Result<Self> {
        let (ours, theirs) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        let memory = memory(&encoded.bytes)?;
        let (pid, pidfd) = sys::spawn(&sys::Spawn {
            program,
            name,
            fds: &[theirs.as_fd()],
            namespaces,
            id_maps,
        })?;
        drop(theirs);
        let helper = Self {
            control: ours,
            pidfd,
            pid,
        };
        let fds: Vec<_> = std::iter::once(memory.as_fd())
            .chain(encoded.fds.iter().map(AsFd::as_fd))
            .collect();
        helper.ask([ask::PLAN, 0, 0, 0, 0, 0], &fds)?;
        Ok(helper)
    }

    /// Connects to the helper of a container whose owner has gone. [`Event::Adopted`] follows.
    pub(crate) fn adopt(dir: &std::path::Path, process: &ProcessIdentity) -> io::Result<Self> {
        let gone = || io::Error::from(Errno::SRCH);
        let pid = rustix::process::Pid::from_raw(process.pid).ok_or_else(gone)?;
        let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?;
        // Its number could have been used again before it was opened.
        if !process.is_alive() {
            return Err(gone());
        }
        let control = crate::control::connect(dir, "helper")?;
        Ok(Self {
            control,
            pidfd,
            pid: process.pid,
        })
    }

    /// The start is recorded: from now on the helper of an adoptable container outlives its owner.
    pub(crate) fn settle(&self) -> io::Result<()> {
        self.ask([ask::SETTLED, 0, 0, 0, 0, 0], &[])
    }

    fn ask(&self, header: [u32; 6], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut bytes = [0u8; HEADER];
        for (slot, value) in bytes.chunks_mut(4).zip(header) {
            slot.copy_from_slice(&value.to_le_bytes());
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && (fds.len() > MOST_FDS || !ancillary.push(SendAncillaryMessage::ScmRights(fds)))
        {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "too many descriptors for one container",
            ));
        }
        rustix::io::retry_on_intr(|| {
            rustix::net::sendmsg(
                &self.control,
                &[IoSlice::new(&bytes)],
                &mut ancillary,
                SendFlags::NOSIGNAL,
            )
        })?;
        Ok(())
    }

    /// Blocks until the next event, or `None` at the deadline.
    pub(crate) fn wait_event(&self, deadline: Option<Instant>) -> io::Result<Option<Event>> {
        loop {
            if let Some(event) = self.try_event()? {
                return Ok(Some(event));
            }
            let wait = deadline.map(|deadline| {
                let left = deadline.saturating_duration_since(Instant::now());
                Timespec {
                    tv_sec: left.as_secs() as _,
                    tv_nsec: left.subsec_nanos() as _,
                }
            });
            let mut polled = [PollFd::new(&self.control, PollFlags::IN)];
            match rustix::event::poll(&mut polled, wait.as_ref()) {
                Ok(0) => return Ok(None),
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// The next event without blocking; `None` when there is none now.
    pub(crate) fn try_event(&self) -> io::Result<Option<Event>> {
        let mut bytes = [0u8; HEADER + wire::DETAIL];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let received = rustix::io::retry_on_intr(|| {
            rustix::net::recvmsg(
                &self.control,
                &mut [IoSliceMut::new(&mut bytes)],
                &mut ancillary,
                flags,
            )
        });
        let received = match received {
            Ok(received) => received.bytes,
            Err(Errno::AGAIN) => return Ok(None),
            Err(Errno::CONNRESET) => 0,
            Err(errno) => return Err(errno.into()),
        };
        let mut fds = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = message {
                fds.extend(received);
            }
        }
        if received < HEADER {
            return Ok(Some(Event::Gone));
        }
        decode(&bytes[..received], fds).map(Some)
    }

    /// Lets a held payload exec.
    pub(crate) fn go(&self) -> io::Result<()> {
        self.ask([ask::GO, 0, 0, 0, 0, 0], &[])
    }

    /// Signals the payload (pid 1 of the container), or the process of an exec session.
    pub(crate) fn kill(&self, session: Option<u32>, signal: i32) -> io::Result<()> {
        self.ask([ask::KILL, session.unwrap_or(0), signal as u32, 0, 0, 0], &[])
    }

    /// Starts one more process inside; `session` is the owner's number for it, not 0. It joins `groups` (open
    /// `cgroup.procs`), and is killed when the owner goes away unless it `outlives` it.
    pub(crate) fn exec(
        &self,
        session: u32,
        process: &ProcessPlan,
        stdio: Option<[OwnedFd; 3]>,
        groups: &[OwnedFd],
        outlives: bool,
    ) -> io::Result<()> {
        let memory = memory(&encode::exec(process, stdio.is_some(), groups.len())?)?;
        let fds: Vec<_> = std::iter::once(memory.as_fd())
            .chain(stdio.iter().flatten().map(AsFd::as_fd))
            .chain(groups.iter().map(AsFd::as_fd))
            .collect();
        self.ask([ask::EXEC, session, outlives.into(), 0, 0, 0], &fds)
    }

    /// Asks for `count` (at most 16) close-on-exec, non-blocking sockets; answered by [`Event::Sockets`].
    pub(crate) fn request_sockets(
        &self,
        tag: u32,
        place: SocketPlace,
        domain: i32,
        kind: i32,
        protocol: i32,
        count: u8,
    ) -> io::Result<()> {
        let place = match place {
            SocketPlace::Network => 0,
            SocketPlace::Payload => 1,
        };
        let last = (protocol as u32) << 8 | u32::from(count);
        self.ask([ask::SOCKETS, tag, place, domain as u32, kind as u32, last], &[])
    }

    /// Has the helper keep the namespace of a network open, and live in it when `enter`.
    pub(crate) fn keep_network(&self, namespace: BorrowedFd<'_>, enter: bool) -> io::Result<()> {
        self.ask([ask::NAMESPACE, 0, enter.into(), 0, 0, 0], &[namespace])
    }

    /// Takes [`Self::keep_network`] back.
    pub(crate) fn release_network(&self, namespace: BorrowedFd<'_>) -> io::Result<()> {
        let inode = rustix::fs::fstat(namespace)?.st_ino;
        self.ask([ask::RELEASE, 0, inode as u32, (inode >> 32) as u32, 0, 0], &[])
    }

    /// The helper's pid in the owner's pid namespace.
    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// Readable when the helper has ended, and with it every process of the container.
    pub(crate) fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// SIGKILL for the helper: the kernel ends everything below it.
    pub(crate) fn end(&self) {
        // One that has ended already is what is asked for. The payload first: it may share a pid namespace.
        let _ = self.kill(None, libc::SIGKILL);
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, rustix::process::Signal::KILL);
    }

    /// Waits until the helper has ended; false at the deadline.
    pub(crate) fn wait_end(&self, deadline: Instant) -> bool {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let wait = Timespec {
                tv_sec: left.as_secs() as _,
                tv_nsec: left.subsec_nanos() as _,
            };
            let mut polled = [PollFd::new(&self.pidfd, PollFlags::IN)];
            match rustix::event::poll(&mut polled, Some(&wait)) {
                Ok(0) => return false,
                Err(Errno::INTR) => {}
                _ => return true,
            }
        }
    }
}

impl AsFd for Helper {
    /// The control socket.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.control.as_fd()
    }
}

fn id_maps(mappings: &IdMappings) -> sys::IdMaps {
    let lines = |maps: &[(u32, u32, u32)]| {
        maps.iter()
            .map(|(inside, outside, count)| format!("{inside} {outside} {count}\n"))
            .collect()
    };
    sys::IdMaps {
        uids: lines(&mappings.uids),
        gids: lines(&mappings.gids),
        by_child: mappings.is_single_id(),
    }
}

/// Bytes in a sealed memfd: they cannot change under the helper.
fn memory(bytes: &[u8]) -> io::Result<OwnedFd> {
    let memfd = rustix::fs::memfd_create("rdock-plan", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut file = std::fs::File::from(memfd);
    file.write_all(bytes)?;
    let memfd = OwnedFd::from(file);
    rustix::fs::fcntl_add_seals(
        &memfd,
        SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE,
    )?;
    Ok(memfd)
}

fn decode(message: &[u8], fds: Vec<OwnedFd>) -> io::Result<Event> {
    let value = |at: usize| {
        let raw = &message[at * 4..at * 4 + 4];
        u32::from_le_bytes([raw[0], raw[1], raw[2], raw[3]])
    };
    let (kind, tag, a, errno) = (value(0), value(1), value(2) as i32, value(3) as i32);
    let detail = String::from_utf8_lossy(&message[HEADER..]).into_owned();
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, "the helper sent a malformed event");
    let step = || Step::from_wire(a as u16).ok_or_else(malformed);
    let mut fds = fds.into_iter();
    Ok(match kind {
        tell::NETWORK => Event::NetworkMade {
            namespace: fds.next().ok_or_else(malformed)?,
        },
        tell::WARNING => Event::Warning {
            step: step()?,
            errno,
            detail,
        },
        tell::HELD => Event::Held {
            pid: pid_of(&fds.next().ok_or_else(malformed)?)?,
        },
        tell::PAUSED => Event::Paused {
            pid: pid_of(&fds.next().ok_or_else(malformed)?)?,
        },
        tell::ADOPTED => {
            let payload = fds.next().ok_or_else(malformed)?;
            let terminal = if a == 1 { fds.next() } else { None };
            Event::Adopted(Adopted {
                // -1 when it has ended already.
                pid: pid_of(&payload)?,
                terminal,
                reunion: fds.next().ok_or_else(malformed)?,
                stdio: fds.collect(),
            })
        }
        tell::STARTED => {
            let payload = fds.next().ok_or_else(malformed)?;
            Event::Started {
                pid: pid_of(&payload)?,
                terminal: fds.next(),
            }
        }
        tell::FAILED => Event::Failed {
            step: step()?,
            errno,
            detail,
        },
        tell::EXITED => Event::Exited { status: a },
        tell::EXEC_STARTED => {
            let process = fds.next().ok_or_else(malformed)?;
            Event::ExecStarted {
                session: tag,
                pid: pid_of(&process)?,
                terminal: fds.next(),
            }
        }
        tell::EXEC_FAILED => Event::ExecFailed {
            session: tag,
            step: step()?,
            errno,
            detail,
        },
        tell::EXEC_EXITED => Event::ExecExited {
            session: tag,
            status: a,
        },
        tell::ROOT => Event::Root {
            directory: fds.next().ok_or_else(malformed)?,
        },
        tell::SOCKETS => Event::Sockets {
            tag,
            sockets: fds.collect(),
            errno,
        },
        _ => return Err(malformed()),
    })
}

/// The pid behind a pidfd, as this process numbers it; -1 when it has ended.
fn pid_of(pidfd: &OwnedFd) -> io::Result<i32> {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()))?;
    let line = info.lines().find_map(|line| line.strip_prefix("Pid:"));
    line.and_then(|pid| pid.trim().parse().ok())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no Pid in fdinfo"))
}

/// Removes a directory tree. Entries of a user namespace may be in directories that even their owner may
/// not enter: those get their permissions first.
pub(crate) fn remove_tree(path: &std::path::Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => return other,
    }
    let mut pending = vec![path.to_owned()];
    while let Some(directory) = pending.pop() {
        std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o700))?;
        for entry in std::fs::read_dir(&directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                pending.push(entry.path());
            }
        }
    }
    std::fs::remove_dir_all(path)
}

#[cfg(test)]
mod tests;
