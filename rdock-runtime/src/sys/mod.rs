//! The only place of this crate with `unsafe`: process creation, the monitor's entry, and a few calls of the kernel that
//! no safe crate has.
//!
//! Rules: one concern a file, descriptors in and out as `OwnedFd` and `BorrowedFd`, each block with its
//! reason. Everything else of this crate is safe Rust over rustix.
#![allow(unsafe_code)]

pub(crate) mod bpf;
pub(crate) mod entry;
mod helper;
mod spawn;

pub(crate) use helper::program as helper_program;
pub(crate) use spawn::{IdMaps, Spawn, spawn};

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Executes a program of ours as an invisible child, its descriptors from 3 on.
pub(crate) fn spawn_program(
    program: impl std::os::fd::AsFd,
    name: &str,
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let name = std::ffi::CString::new(name)?;
    spawn(&Spawn {
        program: program.as_fd(),
        name: &name,
        fds,
        namespaces: 0,
        id_maps: None,
    })
    .map(drop)
}

/// Waits until `fd` can be read, on the caller's runtime.
pub(crate) async fn readable(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the registration lives in this future, which the borrow of the descriptor outlives.
    let watched =
        unsafe { tokio::io::unix::AsyncFd::register_with_interest(fd, tokio::io::Interest::READABLE) };
    watched?.readable().await?.retain_ready();
    Ok(())
}

/// The network namespace that a socket was made in. Takes CAP_NET_ADMIN there.
pub(crate) fn network_of_socket(socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    /// `linux/sockios.h`
    const SIOCGSKNS: libc::c_ulong = 0x894c;
    // SAFETY: the call reads no memory of ours; the descriptor is open during it.
    let found = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCGSKNS as _) };
    if found < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us alone; it is close-on-exec.
    Ok(unsafe { OwnedFd::from_raw_fd(found) })
}
