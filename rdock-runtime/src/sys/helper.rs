//! The helper program, in a sealed memfd that is made once per process.

use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::OnceLock;

static BYTES: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/rdock-helper"));

/// Returns the executable helper. `fallback` is a directory of ours for machines that refuse to execute memfds.
pub(crate) fn program(fallback: &Path) -> io::Result<BorrowedFd<'static>> {
    static PROGRAM: OnceLock<OwnedFd> = OnceLock::new();
    if let Some(program) = PROGRAM.get() {
        return Ok(program.as_fd());
    }
    let made = match sealed(MemfdFlags::EXEC) {
        // Before 6.3 there is no such flag, and every memfd is executable.
        Err(Errno::INVAL) => sealed(MemfdFlags::empty()),
        other => other,
    };
    let program = match made {
        Ok(program) => program,
        // vm.memfd_noexec=2
        Err(Errno::ACCESS | Errno::PERM | Errno::NOSYS) => file(fallback)?,
        Err(errno) => return Err(errno.into()),
    };
    // Two threads may both have made one; the second is closed.
    Ok(PROGRAM.get_or_init(|| program).as_fd())
}

fn sealed(flags: MemfdFlags) -> rustix::io::Result<OwnedFd> {
    let memfd = rustix::fs::memfd_create(
        "rdock-helper",
        MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | flags,
    )?;
    write_all(&memfd, BYTES)?;
    rustix::fs::fcntl_add_seals(
        &memfd,
        SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE,
    )?;
    Ok(memfd)
}

/// A nameless file, opened again for reading alone: one that is open for writing cannot be executed.
fn file(directory: &Path) -> io::Result<OwnedFd> {
    use std::os::fd::AsRawFd;
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let written = rustix::fs::open(directory, flags, Mode::from_raw_mode(0o700))?;
    write_all(&written, BYTES)?;
    let path = format!("/proc/self/fd/{}", written.as_raw_fd());
    Ok(rustix::fs::open(
        path,
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

fn write_all(fd: &OwnedFd, mut bytes: &[u8]) -> rustix::io::Result<()> {
    while !bytes.is_empty() {
        let written = rustix::io::retry_on_intr(|| rustix::io::write(fd, bytes))?;
        bytes = &bytes[written..];
    }
    Ok(())
}
