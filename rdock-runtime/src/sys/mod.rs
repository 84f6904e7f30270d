//! The only place of this crate with `unsafe`: process creation and the monitor's entry.
//!
//! Rules: one concern a file, descriptors in and out as `OwnedFd` and `BorrowedFd`, each block with its
//! reason. Everything else of this crate is safe Rust over rustix.
#![allow(unsafe_code)]

pub(crate) mod entry;
mod helper;
mod spawn;

pub(crate) use helper::program as helper_program;
pub(crate) use spawn::{IdMaps, Spawn, spawn};

use std::io;
use std::os::fd::BorrowedFd;

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
