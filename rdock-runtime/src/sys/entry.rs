//! The monitor's way in: a hook that runs before `main` and recognises a monitor's request.
//!
//! A recognised request never returns to `main`. A program only asks for it when its own hook has run at
//! start-up, when it was not started with raised privileges, and when the code of the hook is the
//! executable's own: an interpreter that loads this library, or a program started through the dynamic
//! loader, would come up as something else and start itself for ever.

use rustix::fs::{MemfdFlags, SealFlags};
use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// First bytes of a request, with its version.
pub(crate) const MAGIC: &[u8] = b"rdock monitor request 1\n";

/// The request, the answers, and what an attached start adds.
const REQUEST: i32 = 3;
const MOST: i32 = 8;

const SEALS: SealFlags = SealFlags::SEAL
    .union(SealFlags::SHRINK)
    .union(SealFlags::GROW)
    .union(SealFlags::WRITE);

static RAN: AtomicBool = AtomicBool::new(false);

#[used]
#[unsafe(link_section = ".init_array")]
static HOOK: extern "C" fn() = hook;

extern "C" fn hook() {
    // SAFETY: only asked for its seals; a number that is not open is an error.
    let first = unsafe { BorrowedFd::borrow_raw(REQUEST) };
    let seals = rustix::fs::fcntl_get_seals(first);
    let mut start = [0u8; MAGIC.len()];
    let is_request = seals.is_ok_and(|seals| seals.contains(SEALS))
        && rustix::io::pread(first, &mut start, 0).is_ok_and(|count| count == MAGIC.len())
        && start == MAGIC
        && own_program_is_this();
    if !is_request {
        RAN.store(true, Ordering::Relaxed);
        return;
    }
    // SAFETY: a process that was executed for this request alone owns these descriptors, and nothing of the
    // program has run yet.
    let (request, given) = unsafe {
        // Rust's own start-up code would ignore it, and is not reached.
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
        let given = (REQUEST + 1..MOST)
            .filter(|fd| libc::fcntl(*fd, libc::F_GETFD) >= 0)
            .map(|fd| {
                libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
                OwnedFd::from_raw_fd(fd)
            })
            .collect();
        (OwnedFd::from_raw_fd(REQUEST), given)
    };
    let code = std::panic::catch_unwind(|| crate::monitor::run(request, given)).unwrap_or(101);
    // SAFETY: ends the process; its exit handlers belong to a `main` that never ran.
    unsafe { libc::_exit(code) }
}

/// A memfd with a request in it.
pub(crate) fn sealed_request(bytes: &[u8]) -> io::Result<OwnedFd> {
    use std::io::Write;
    let memfd = rustix::fs::memfd_create(
        "rdock-monitor-request",
        MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING,
    )?;
    let mut file = std::fs::File::from(memfd);
    file.write_all(MAGIC)?;
    file.write_all(bytes)?;
    let memfd = OwnedFd::from(file);
    rustix::fs::fcntl_add_seals(&memfd, SEALS)?;
    Ok(memfd)
}

/// Opens this program for another execution, or says why that would not come up as a monitor.
pub(crate) fn own_program() -> Result<OwnedFd, String> {
    if !RAN.load(Ordering::Relaxed) {
        return Err("the hook that recognises a monitor's request did not run in this program".into());
    }
    // SAFETY: reads a value of the process's auxiliary vector.
    if unsafe { libc::getauxval(libc::AT_SECURE) } != 0 {
        return Err("this program was started with raised privileges (setuid or file capabilities)".into());
    }
    if !own_program_is_this() {
        return Err("this library's code does not belong to the program's executable".into());
    }
    // Not current_exe: the file may have been replaced or deleted.
    rustix::fs::open(
        "/proc/self/exe",
        rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )
    .map_err(|errno| format!("/proc/self/exe: {errno}"))
}

/// Whether the file mapped at the hook's address is the executable, by device and inode.
fn own_program_is_this() -> bool {
    use std::os::unix::fs::MetadataExt;
    let address = hook as *const () as usize;
    let Ok(executable) = std::fs::metadata("/proc/self/exe") else {
        return false;
    };
    let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else {
        return false;
    };
    maps.lines().any(|line| {
        // START-END PERMISSIONS OFFSET MAJOR:MINOR INODE PATH
        let mut fields = line.split_ascii_whitespace();
        let range = fields.next().and_then(|range| range.split_once('-'));
        let (Some((start, end)), Some(device), Some(inode)) = (range, fields.nth(2), fields.next()) else {
            return false;
        };
        let hex = |text| usize::from_str_radix(text, 16).ok();
        let (Some(start), Some(end)) = (hex(start), hex(end)) else {
            return false;
        };
        let device = device
            .split_once(':')
            .and_then(|(major, minor)| Some((hex(major)?, hex(minor)?)));
        let own = executable.dev();
        let own_device = (rustix::fs::major(own) as usize, rustix::fs::minor(own) as usize);
        (start..end).contains(&address) && device == Some(own_device) && inode.parse() == Ok(executable.ino())
    })
}
