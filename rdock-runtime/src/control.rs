//! The owner's control socket: how any process talks to the owner of a container.
//!
//! A SOCK_SEQPACKET socket named `control` in the container's directory (mode 0700); each message is one
//! JSON object, descriptors travel beside it. Unknown fields are ignored on both sides, and a request
//! that an owner does not know is answered with an error: a monitor is a frozen old program.

use crate::error::{Error, Result};
use crate::health::HealthStatus;
use crate::spec::Resources;
use crate::state::Exit;
use crate::step::Step;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use serde::{Deserialize, Serialize};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Bytes of one message; Linux's default socket buffer takes a little more.
const LARGEST: usize = 160 << 10;
/// Descriptors of one message.
const MOST_FDS: usize = 8;

/// What a client asks for.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub(crate) enum Request {
    /// Answered by [`Reply::Exited`] once the exit is recorded.
    Wait,
    Kill {
        signal: i32,
    },
    /// The signal, SIGKILL after the timeout; answered as `Wait`.
    Stop {
        signal: i32,
        timeout_ms: u64,
        /// It is killed to be removed, which is no stop.
        #[serde(default)]
        removal: bool,
    },
    /// Stdio descriptors come with it unless a terminal is asked for. The session ends with the connection.
    Exec(ExecRequest),
    Resize {
        rows: u16,
        columns: u16,
    },
    /// Answered by [`Reply::Attached`] with descriptors.
    Attach,
    /// Whether something listens on a TCP port inside.
    Listening {
        port: u16,
    },
    /// Answered by [`Reply::Done`] once the container is in the network.
    Connect {
        endpoint: crate::spec::EndpointSpec,
    },
    /// Answered by [`Reply::Done`] once the interface is gone.
    Disconnect {
        network: String,
    },
    /// Sent on the connection of an exec.
    KillSession {
        signal: i32,
    },
    /// The container's own end: kill, remove everything, then answer [`Reply::Removed`].
    Remove,
    /// As `Stop`, then runs the payload again; answered by [`Reply::Done`] once it runs.
    Restart {
        signal: i32,
        timeout_ms: u64,
    },
    /// Freezes the payload, or lets it go on.
    Pause {
        frozen: bool,
    },
    /// Applies limits to the running payload.
    Limits {
        resources: Box<Resources>,
    },
    /// The record was replaced: read it again.
    Reload,
    /// Answered by [`Reply::Health`] once the health is so; with `None` once it is known.
    Health {
        wanted: Option<HealthStatus>,
    },
}

/// No time limit.
pub(crate) const FOREVER: u64 = u64::MAX;

/// Milliseconds of a timeout.
pub(crate) fn milliseconds(timeout: std::time::Duration) -> u64 {
    u64::try_from(timeout.as_millis()).unwrap_or(FOREVER)
}

/// A process to add.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ExecRequest {
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) user: Option<String>,
    pub(crate) working_dir: Option<String>,
    /// Rows and columns.
    pub(crate) terminal: Option<(u16, u16)>,
    pub(crate) privileged: bool,
    /// Goes on when the connection closes.
    pub(crate) detach: bool,
}

/// What the owner answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub(crate) enum Reply {
    Done,
    Exited {
        exit: Exit,
    },
    /// Comes with the terminal's master when there is one.
    ExecStarted {
        pid: i32,
    },
    ExecFailed {
        step: u16,
        errno: i32,
        detail: String,
    },
    /// As waitpid(2) gives it.
    ExecExited {
        status: i32,
    },
    /// Comes with `[stdin] stdout [stderr]`, those that are named.
    Attached {
        stdin: bool,
        stdout: bool,
        stderr: bool,
    },
    Listening {
        state: Listening,
    },
    Removed {
        remains: Vec<String>,
    },
    Health {
        status: HealthStatus,
    },
    /// The payload is frozen, or is not, and so cannot do what was asked.
    Frozen {
        frozen: bool,
    },
    /// This machine cannot freeze it.
    CannotFreeze {
        reason: String,
    },
    /// The payload has ended already.
    NotRunning,
    /// Not understood, or refused.
    Refused {
        reason: String,
    },
}

/// What listens on a port of the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Listening {
    No,
    OnlyLoopback,
    Yes,
}

impl Reply {
    pub(crate) fn exec_failed(step: Step, errno: i32, detail: String) -> Self {
        Self::ExecFailed {
            step: step as u16,
            errno,
            detail,
        }
    }
}

/// Listens at `<dir>/<name>`, in the place of one that is gone.
pub(crate) fn listen(dir: &Path, name: &str) -> io::Result<OwnedFd> {
    let socket = seqpacket(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
    let place = open_dir(dir)?;
    match rustix::fs::unlinkat(&place, name, rustix::fs::AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => {}
        Err(errno) => return Err(errno.into()),
    }
    rustix::net::bind(&socket, &short_address(&place, name)?)?;
    rustix::net::listen(&socket, 64)?;
    Ok(socket)
}

/// Connects to `<dir>/<name>`; the socket is blocking.
pub(crate) fn connect(dir: &Path, name: &str) -> io::Result<OwnedFd> {
    let socket = seqpacket(SocketFlags::CLOEXEC)?;
    rustix::net::connect(&socket, &short_address(&open_dir(dir)?, name)?)?;
    Ok(socket)
}

fn seqpacket(flags: SocketFlags) -> io::Result<OwnedFd> {
    Ok(rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        flags,
        None,
    )?)
}

fn open_dir(dir: &Path) -> io::Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    Ok(rustix::fs::open(
        dir,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

/// A root of any length fits: sun_path takes 108 bytes only.
fn short_address(dir: &OwnedFd, name: &str) -> io::Result<SocketAddrUnix> {
    use std::os::fd::AsRawFd;
    Ok(SocketAddrUnix::new(format!(
        "/proc/self/fd/{}/{name}",
        dir.as_raw_fd()
    ))?)
}

/// Whether the other side of a connection is this user or root.
pub(crate) fn peer_is_trusted(socket: impl AsFd) -> bool {
    rustix::net::sockopt::socket_peercred(socket)
        .is_ok_and(|peer| peer.uid.is_root() || peer.uid == rustix::process::geteuid())
}

/// Sends one message.
pub(crate) fn send(socket: impl AsFd, message: &impl Serialize, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let bytes = serde_json::to_vec(message)?;
    if bytes.len() > LARGEST {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the request is larger than 160 KiB",
        ));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "too many descriptors",
        ));
    }
    rustix::io::retry_on_intr(|| {
        rustix::net::sendmsg(
            &socket,
            &[IoSlice::new(&bytes)],
            &mut ancillary,
            SendFlags::NOSIGNAL,
        )
    })?;
    Ok(())
}

/// The next message and its descriptors; `None` when the other side has closed.
pub(crate) fn receive<T: for<'de> Deserialize<'de>>(
    socket: impl AsFd,
) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut bytes = vec![0u8; LARGEST];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(
            &socket,
            &mut [IoSliceMut::new(&mut bytes)],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC,
        )
    })?;
    let mut fds = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            fds.extend(received);
        }
    }
    if received.bytes == 0 {
        return Ok(None);
    }
    Ok(Some((serde_json::from_slice(&bytes[..received.bytes])?, fds)))
}

/// A client's connection, named after its container for errors.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: OwnedFd,
    name: String,
}

impl Connection {
    /// `None` when nobody listens any more: the owner is gone.
    pub(crate) fn open(dir: &Path, name: &str) -> Result<Option<Self>> {
        match connect(dir, "control") {
            Ok(socket) => Ok(Some(Self {
                socket,
                name: name.to_owned(),
            })),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                ) =>
            {
                Ok(None)
            }
            Err(error) => Err(Error::state("connect to", dir.join("control"))(error)),
        }
    }

    pub(crate) fn send(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<()> {
        send(&self.socket, request, fds).map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Error::OwnerGone {
                name: self.name.clone(),
            },
            _ => Error::System {
                action: "send a request to the container's owner",
                source: error,
            },
        })
    }

    /// Blocks for the next reply.
    pub(crate) fn receive(&self) -> Result<(Reply, Vec<OwnedFd>)> {
        match receive(&self.socket) {
            Ok(Some(reply)) => Ok(reply),
            Ok(None) => Err(Error::OwnerGone {
                name: self.name.clone(),
            }),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Err(Error::OwnerGone {
                name: self.name.clone(),
            }),
            Err(source) => Err(Error::System {
                action: "read the reply of the container's owner",
                source,
            }),
        }
    }

    /// One request, one reply.
    pub(crate) fn ask(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<(Reply, Vec<OwnedFd>)> {
        self.send(request, fds)?;
        self.receive()
    }

    /// Waits for the next reply without a thread.
    pub(crate) async fn receive_async(&self) -> Result<(Reply, Vec<OwnedFd>)> {
        crate::sys::readable(self.socket.as_fd())
            .await
            .map_err(Error::system("wait for a reply"))?;
        // A whole message is there, or the end of the connection.
        self.receive()
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
