//! Process creation that the host program cannot notice: clone(2), vfork style, twice.
//!
//! The intermediate shares memory and descriptors with the calling thread and has exit signal 0, so that
//! neither `wait(-1)` nor a SIGCHLD handler of the host program ever sees it; it is reaped here. The child
//! it makes is an orphan as soon as the intermediate ends, and is known by its pidfd alone. The host's
//! memory is never copied: a spawn from a large program costs what it costs from a small one.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// What to execute and what it gets.
#[derive(Debug)]
pub(crate) struct Spawn<'a> {
    pub(crate) program: BorrowedFd<'a>,
    /// `argv[0]`, the only argument; the environment is empty.
    pub(crate) name: &'a CStr,
    /// Its descriptors 3, 4, ...; 0 to 2 are /dev/null and nothing else is open.
    pub(crate) fds: &'a [BorrowedFd<'a>],
    /// CLONE_NEW* for the child.
    pub(crate) namespaces: i32,
    /// For a new user namespace whose maps the child may write itself (single ids).
    pub(crate) id_maps: Option<&'a IdMaps>,
}

/// Contents of uid_map and gid_map.
#[derive(Debug)]
pub(crate) struct IdMaps {
    pub(crate) uids: String,
    pub(crate) gids: String,
}

/// All that the two children use; nothing is allocated after the first clone.
struct Shared {
    program: i32,
    argv: [*const libc::c_char; 2],
    envp: [*const libc::c_char; 1],
    sources: Vec<i32>,
    /// Filled by the child.
    copies: Vec<i32>,
    namespaces: i32,
    maps: Option<(Vec<u8>, Vec<u8>)>,
    null: i32,
    child_stack: *mut u8,
    pid: i32,
    pidfd: i32,
    /// What failed in the intermediate or in the child before its exec.
    errno: i32,
}

const STACK: usize = 64 << 10;

/// Spawns it; returns once its exec has succeeded, with its pid and pidfd.
pub(crate) fn spawn(request: &Spawn<'_>) -> io::Result<(i32, OwnedFd)> {
    let null = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    let (mut first, mut second) = (vec![0u128; STACK / 16], vec![0u128; STACK / 16]);
    let mut shared = Shared {
        program: request.program.as_raw_fd(),
        argv: [request.name.as_ptr(), std::ptr::null()],
        envp: [std::ptr::null()],
        sources: request.fds.iter().map(AsRawFd::as_raw_fd).collect(),
        copies: vec![-1; request.fds.len()],
        namespaces: request.namespaces,
        maps: request
            .id_maps
            .map(|maps| (maps.uids.clone().into_bytes(), maps.gids.clone().into_bytes())),
        null: null.as_raw_fd(),
        child_stack: second.as_mut_ptr_range().end.cast(),
        pid: 0,
        pidfd: -1,
        errno: 0,
    };
    let stack = first.as_mut_ptr_range().end;
    // SAFETY: the signal masks are plain data; the intermediate runs `intermediate` on a stack of its own while
    // this thread is suspended (CLONE_VFORK), so `shared` and both stacks outlive it; no signal handler of the
    // host can run on it since all are blocked.
    let intermediate = unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        let mut before: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_FILES;
        let pid = libc::clone(intermediate, stack.cast(), flags, (&raw mut shared).cast());
        let error = io::Error::last_os_error();
        let mut status = 0;
        if pid >= 0 {
            // With exit signal 0 it is nobody's child for a plain wait; __WALL finds it.
            while libc::waitpid(pid, &mut status, libc::__WALL) < 0
                && *libc::__errno_location() == libc::EINTR
            {}
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, &before, std::ptr::null_mut());
        if pid < 0 { Err(error) } else { Ok(()) }
    };
    drop((first, second));
    intermediate?;
    let pidfd = (shared.pidfd >= 0).then(|| {
        // SAFETY: the kernel has just put it there for us, and the descriptor table is shared.
        unsafe { OwnedFd::from_raw_fd(shared.pidfd) }
    });
    match (shared.errno, pidfd) {
        (0, Some(pidfd)) => Ok((shared.pid, pidfd)),
        (errno, _) => Err(io::Error::from_raw_os_error(errno)),
    }
}

extern "C" fn intermediate(shared: *mut libc::c_void) -> libc::c_int {
    // SAFETY: `spawn` passes its `Shared` and is suspended until this process ends.
    let shared = unsafe { &mut *shared.cast::<Shared>() };
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD | shared.namespaces;
    let stack = shared.child_stack;
    let pidfd = &raw mut shared.pidfd;
    let argument: *mut Shared = shared;
    // SAFETY: as in `spawn`: the child has a stack of its own and this process is suspended until its exec.
    let pid = unsafe { libc::clone(child, stack.cast(), flags, argument.cast(), pidfd) };
    if pid < 0 {
        // SAFETY: the thread's own errno.
        shared.errno = unsafe { *libc::__errno_location() };
    }
    shared.pid = pid;
    0
}

extern "C" fn child(shared: *mut libc::c_void) -> libc::c_int {
    // SAFETY: as in `intermediate`.
    let shared = unsafe { &mut *shared.cast::<Shared>() };
    // SAFETY: `prepare` makes only system calls on plain data; the program is a descriptor, the arrays end with null.
    unsafe {
        shared.errno = match prepare(shared) {
            Ok(program) => {
                libc::syscall(
                    libc::SYS_execveat,
                    program,
                    c"".as_ptr(),
                    shared.argv.as_ptr(),
                    shared.envp.as_ptr(),
                    libc::AT_EMPTY_PATH,
                );
                *libc::__errno_location()
            }
            Err(errno) => errno,
        };
        // Not exit(3): the host's handlers are not ours to run.
        libc::syscall(libc::SYS_exit_group, 127);
    }
    127
}

/// Everything between clone and exec; returns the program's descriptor.
///
/// # Safety
/// Must run in the vfork child alone.
unsafe fn prepare(shared: &mut Shared) -> Result<i32, i32> {
    let check = |result: libc::c_long| {
        if result < 0 {
            // SAFETY: the thread's own errno.
            Err(unsafe { *libc::__errno_location() })
        } else {
            Ok(result as i32)
        }
    };
    // SAFETY: system calls on integers and on memory that `Shared` owns.
    unsafe {
        if let Some((uids, gids)) = &shared.maps {
            // The new namespace gives this process every capability until its exec; as 0 it keeps them over it.
            for (path, bytes) in [
                (c"/proc/self/setgroups", b"deny".as_slice()),
                (c"/proc/self/uid_map", uids),
                (c"/proc/self/gid_map", gids),
            ] {
                let fd = check(libc::syscall(
                    libc::SYS_openat,
                    libc::AT_FDCWD,
                    path.as_ptr(),
                    libc::O_WRONLY,
                    0,
                ))?;
                check(libc::syscall(libc::SYS_write, fd, bytes.as_ptr(), bytes.len()))?;
                libc::syscall(libc::SYS_close, fd);
            }
        }
        libc::syscall(libc::SYS_setsid);
        // Sources may be among the targets: copies above all of them first.
        let above = 3 + shared.sources.len() as i32 + 1;
        let high = |fd: i32| check(libc::syscall(libc::SYS_fcntl, fd, libc::F_DUPFD_CLOEXEC, above));
        let program = high(shared.program)?;
        let null = high(shared.null)?;
        for at in 0..shared.sources.len() {
            shared.copies[at] = high(shared.sources[at])?;
        }
        for (at, copy) in shared.copies.iter().enumerate() {
            check(libc::syscall(libc::SYS_dup3, *copy, 3 + at as i32, 0))?;
        }
        for target in 0..3 {
            check(libc::syscall(libc::SYS_dup3, null, target, 0))?;
        }
        // Everything but the program's own descriptor, which exec closes.
        let last = 3 + shared.sources.len() as u32;
        check(libc::syscall(libc::SYS_close_range, last, program as u32 - 1, 0))?;
        check(libc::syscall(
            libc::SYS_close_range,
            program as u32 + 1,
            u32::MAX,
            0,
        ))?;
        for signal in 1..=64 {
            // An ignored signal stays ignored over exec: the program starts with every default. A raw call:
            // the handlers are this process's own copy.
            let default = [0u64; 4];
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), 0usize, 8usize);
        }
        let none = 0u64;
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const none,
            0usize,
            8usize,
        );
        Ok(program)
    }
}
