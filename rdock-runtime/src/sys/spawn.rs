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
    /// For a new user namespace.
    pub(crate) id_maps: Option<&'a IdMaps>,
}

/// Contents of uid_map and gid_map.
#[derive(Debug)]
pub(crate) struct IdMaps {
    pub(crate) uids: String,
    pub(crate) gids: String,
    /// They are the caller's own ids alone, which the child may write itself. Others a process outside writes that has
    /// CAP_SETUID and CAP_SETGID (user_namespaces(7)); the caller's own must be 0 in both.
    pub(crate) by_child: bool,
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
    /// A user namespace that is there already, or -1.
    user_namespace: i32,
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
    let ready_made = match request.id_maps {
        Some(maps) if !maps.by_child => Some(user_namespace(maps)?),
        _ => None,
    };
    let namespaces = match &ready_made {
        Some(_) => request.namespaces & !libc::CLONE_NEWUSER,
        None => request.namespaces,
    };
    let (mut first, mut second) = (vec![0u128; STACK / 16], vec![0u128; STACK / 16]);
    let mut shared = Shared {
        program: request.program.as_raw_fd(),
        argv: [request.name.as_ptr(), std::ptr::null()],
        envp: [std::ptr::null()],
        sources: request.fds.iter().map(AsRawFd::as_raw_fd).collect(),
        copies: vec![-1; request.fds.len()],
        namespaces,
        user_namespace: ready_made.as_ref().map_or(-1, AsRawFd::as_raw_fd),
        maps: request
            .id_maps
            .filter(|maps| maps.by_child)
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

/// Makes a user namespace with these maps: of a process that does nothing and ends here.
fn user_namespace(maps: &IdMaps) -> io::Result<OwnedFd> {
    let mut stack = vec![0u128; 1024];
    let mut own = std::process::id();
    // SAFETY: `hold` runs on a stack of its own, changes no memory and makes system calls alone; it has ended before the
    // stack goes, and before `own` does. All signals are blocked in it.
    let pid = unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        let mut before: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
        let flags = libc::CLONE_VM | libc::CLONE_FILES | libc::CLONE_NEWUSER;
        let top = stack.as_mut_ptr_range().end.cast();
        let pid = libc::clone(hold, top, flags, (&raw mut own).cast());
        let error = io::Error::last_os_error();
        libc::pthread_sigmask(libc::SIG_SETMASK, &before, std::ptr::null_mut());
        if pid < 0 {
            return Err(error);
        }
        pid
    };
    let make = || -> io::Result<OwnedFd> {
        for (file, lines) in [("uid_map", &maps.uids), ("gid_map", &maps.gids)] {
            std::fs::write(format!("/proc/{pid}/{file}"), lines)?;
        }
        Ok(std::fs::File::open(format!("/proc/{pid}/ns/user"))?.into())
    };
    let made = make();
    // SAFETY: it is this process's own child until it is waited for here.
    unsafe {
        libc::kill(pid, libc::SIGKILL);
        let mut status = 0;
        while libc::waitpid(pid, &mut status, libc::__WALL) < 0 && *libc::__errno_location() == libc::EINTR {}
    }
    drop(stack);
    made
}

/// Waits to be killed: by its maker, or since that has ended.
extern "C" fn hold(maker: *mut libc::c_void) -> libc::c_int {
    // SAFETY: `user_namespace` passes the number of its process, which outlives this one; system calls on integers.
    unsafe {
        let maker = *maker.cast::<u32>();
        libc::syscall(libc::SYS_prctl, libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
        while libc::syscall(libc::SYS_getppid) == libc::c_long::from(maker) {
            libc::syscall(libc::SYS_ppoll, 0usize, 0usize, 0usize, 0usize, 0usize);
        }
        libc::syscall(libc::SYS_exit, 0);
    }
    0
}

extern "C" fn intermediate(shared: *mut libc::c_void) -> libc::c_int {
    // SAFETY: `spawn` passes its `Shared` and is suspended until this process ends.
    let shared = unsafe { &mut *shared.cast::<Shared>() };
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD | shared.namespaces;
    let stack = shared.child_stack;
    let pidfd = &raw mut shared.pidfd;
    let argument: *mut Shared = shared;
    if shared.user_namespace >= 0 {
        // SAFETY: system calls on integers. It is this process alone that enters it, and gets there what it has here: no
        // credential that the host program can see changes.
        unsafe {
            if libc::setns(shared.user_namespace, libc::CLONE_NEWUSER) < 0 {
                shared.errno = *libc::__errno_location();
                return 0;
            }
        }
    }
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
