//! The system calls the helper makes. Texts come from the plan and end with a NUL (see [`Text`]).

use crate::arch::{nr, syscall};

/// An errno.
pub type Result<T> = core::result::Result<T, i32>;

/// Bytes that are followed by a NUL.
#[derive(Clone, Copy)]
pub struct Text<'a>(&'a [u8]);

impl<'a> Text<'a> {
    /// `bytes` must end with its NUL.
    pub const fn new(bytes: &'a [u8]) -> Self {
        assert!(!bytes.is_empty() && bytes[bytes.len() - 1] == 0);
        Self(bytes)
    }
    /// Without the NUL.
    pub fn bytes(self) -> &'a [u8] {
        &self.0[..self.0.len() - 1]
    }
    pub fn pointer(self) -> *const u8 {
        self.0.as_ptr()
    }
    fn arg(self) -> usize {
        self.0.as_ptr() as usize
    }
}

/// A text known at compile time.
#[macro_export]
macro_rules! text {
    ($text:literal) => {
        $crate::kernel::Text::new(concat!($text, "\0").as_bytes())
    };
}

pub const AT_FDCWD: i32 = -100;
pub const O_RDONLY: u32 = 0;
pub const O_WRONLY: u32 = 1;
pub const O_RDWR: u32 = 2;
pub const O_CREAT: u32 = 0o100;
pub const O_EXCL: u32 = 0o200;
pub const O_NOCTTY: u32 = 0o400;
pub const O_NONBLOCK: u32 = 0o4000;
#[cfg(target_arch = "x86_64")]
pub const O_DIRECTORY: u32 = 0o200000;
#[cfg(target_arch = "x86_64")]
pub const O_NOFOLLOW: u32 = 0o400000;
#[cfg(target_arch = "aarch64")]
pub const O_DIRECTORY: u32 = 0o40000;
#[cfg(target_arch = "aarch64")]
pub const O_NOFOLLOW: u32 = 0o100000;
pub const O_CLOEXEC: u32 = 0o2000000;
pub const O_PATH: u32 = 0o10000000;
pub const AT_EMPTY_PATH: u32 = 0x1000;
pub const AT_SYMLINK_NOFOLLOW: u32 = 0x100;
pub const AT_RECURSIVE: u32 = 0x8000;
pub const AT_REMOVEDIR: u32 = 0x200;
pub const RESOLVE_NO_MAGICLINKS: u64 = 0x02;
pub const RESOLVE_NO_SYMLINKS: u64 = 0x04;
pub const RESOLVE_BENEATH: u64 = 0x08;
pub const RESOLVE_IN_ROOT: u64 = 0x10;

pub const EPERM: i32 = 1;
pub const ENOENT: i32 = 2;
pub const EINTR: i32 = 4;
pub const ECHILD: i32 = 10;
pub const E2BIG: i32 = 7;
pub const EAGAIN: i32 = 11;
pub const EACCES: i32 = 13;
pub const EEXIST: i32 = 17;
pub const ENOTDIR: i32 = 20;
pub const EXDEV: i32 = 18;
pub const EINVAL: i32 = 22;
pub const ENOSYS: i32 = 38;
pub const ELOOP: i32 = 40;
pub const EPROTO: i32 = 71;
pub const EOPNOTSUPP: i32 = 95;
pub const ETIMEDOUT: i32 = 110;

pub const SIGKILL: i32 = 9;
pub const SIGCHLD: i32 = 17;

fn call(number: usize, args: [usize; 6]) -> Result<usize> {
    // SAFETY: every wrapper below passes what its call expects, with pointers into live slices.
    let result = unsafe { syscall(number, args) };
    if result < 0 { Err(-result as i32) } else { Ok(result as usize) }
}

macro_rules! sys {
    ($number:ident $(, $arg:expr)* $(,)?) => {{
        let given = [$($arg as usize),*];
        let mut args = [0usize; 6];
        let mut at = 0;
        while at < given.len() {
            args[at] = given[at];
            at += 1;
        }
        call(nr::$number, args)
    }};
}

pub fn exit(code: i32) -> ! {
    loop {
        let _ = sys!(EXIT_GROUP, code);
    }
}

pub fn read(fd: i32, into: &mut [u8]) -> Result<usize> {
    retry(|| sys!(READ, fd, into.as_mut_ptr(), into.len()))
}
pub fn write(fd: i32, bytes: &[u8]) -> Result<usize> {
    retry(|| sys!(WRITE, fd, bytes.as_ptr(), bytes.len()))
}
fn retry(mut call: impl FnMut() -> Result<usize>) -> Result<usize> {
    loop {
        match call() {
            Err(EINTR) => {}
            other => return other,
        }
    }
}
pub fn write_all(fd: i32, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        let written = write(fd, bytes)?;
        bytes = &bytes[written..];
    }
    Ok(())
}
pub fn close(fd: i32) {
    let _ = sys!(CLOSE, fd);
}
pub fn close_from(first: i32) -> Result<()> {
    sys!(CLOSE_RANGE, first, u32::MAX, 0).map(drop)
}
pub fn openat(dir: i32, path: Text<'_>, flags: u32, mode: u32) -> Result<i32> {
    retry(|| sys!(OPENAT, dir, path.arg(), flags | O_CLOEXEC, mode)).map(|fd| fd as i32)
}
pub fn open_in(dir: i32, path: Text<'_>, flags: u32, mode: u32, resolve: u64) -> Result<i32> {
    let how = [u64::from(flags | O_CLOEXEC), u64::from(mode), resolve];
    loop {
        // EAGAIN: something was renamed meanwhile.
        match sys!(OPENAT2, dir, path.arg(), how.as_ptr(), 24) {
            Err(EAGAIN | EINTR) => {}
            other => return other.map(|fd| fd as i32),
        }
    }
}
pub fn mkdirat(dir: i32, path: Text<'_>, mode: u32) -> Result<()> {
    sys!(MKDIRAT, dir, path.arg(), mode).map(drop)
}
pub fn mknodat(dir: i32, path: Text<'_>, mode: u32, device: u64) -> Result<()> {
    sys!(MKNODAT, dir, path.arg(), mode, device).map(drop)
}
pub fn symlinkat(target: Text<'_>, dir: i32, path: Text<'_>) -> Result<()> {
    sys!(SYMLINKAT, target.arg(), dir, path.arg()).map(drop)
}
pub fn linkat(old_dir: i32, old: Text<'_>, dir: i32, path: Text<'_>) -> Result<()> {
    sys!(LINKAT, old_dir, old.arg(), dir, path.arg(), 0).map(drop)
}
pub fn unlinkat(dir: i32, path: Text<'_>, flags: u32) -> Result<()> {
    sys!(UNLINKAT, dir, path.arg(), flags).map(drop)
}
pub fn readlinkat(dir: i32, path: Text<'_>, into: &mut [u8]) -> Result<usize> {
    sys!(READLINKAT, dir, path.arg(), into.as_mut_ptr(), into.len())
}
pub fn fchownat(dir: i32, path: Text<'_>, uid: u32, gid: u32, flags: u32) -> Result<()> {
    sys!(FCHOWNAT, dir, path.arg(), uid, gid, flags).map(drop)
}
pub fn fchown(fd: i32, uid: u32, gid: u32) -> Result<()> {
    sys!(FCHOWN, fd, uid, gid).map(drop)
}
pub fn fchmodat(dir: i32, path: Text<'_>, mode: u32) -> Result<()> {
    sys!(FCHMODAT, dir, path.arg(), mode).map(drop)
}
pub fn fchmod(fd: i32, mode: u32) -> Result<()> {
    sys!(FCHMOD, fd, mode).map(drop)
}
pub fn futimens(fd: i32, times: &[i64; 4]) -> Result<()> {
    sys!(UTIMENSAT, fd, 0, times.as_ptr(), 0).map(drop)
}
pub fn utimensat(dir: i32, path: Text<'_>, times: &[i64; 4]) -> Result<()> {
    sys!(UTIMENSAT, dir, path.arg(), times.as_ptr(), AT_SYMLINK_NOFOLLOW).map(drop)
}

/// What statx(2) says.
#[derive(Clone, Copy, Default)]
pub struct Stat {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub links: u32,
    pub inode: u64,
    pub size: u64,
    pub device: u64,
    pub rdev: (u32, u32),
    /// Access and modification, seconds and nanoseconds.
    pub times: [i64; 4],
}

impl Stat {
    pub fn kind(&self) -> u32 {
        self.mode & 0o170000
    }
    pub fn is_dir(&self) -> bool {
        self.kind() == 0o040000
    }
}

#[repr(C, align(8))]
struct Statx([u8; 256]);

pub fn statat(dir: i32, path: Text<'_>, flags: u32) -> Result<Stat> {
    let mut raw = Statx([0; 256]);
    sys!(STATX, dir, path.arg(), flags, 0x7ffu32, raw.0.as_mut_ptr())?;
    let u32_at = |at: usize| u32::from_ne_bytes([raw.0[at], raw.0[at + 1], raw.0[at + 2], raw.0[at + 3]]);
    let u64_at = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&raw.0[at..at + 8]);
        u64::from_ne_bytes(bytes)
    };
    Ok(Stat {
        links: u32_at(16),
        uid: u32_at(20),
        gid: u32_at(24),
        mode: u32::from(u16::from_ne_bytes([raw.0[28], raw.0[29]])),
        inode: u64_at(32),
        size: u64_at(40),
        times: [u64_at(64) as i64, i64::from(u32_at(72)), u64_at(112) as i64, i64::from(u32_at(120))],
        rdev: (u32_at(128), u32_at(132)),
        device: device_number(u32_at(136), u32_at(140)),
    })
}
pub fn fstat(fd: i32) -> Result<Stat> {
    statat(fd, text!(""), AT_EMPTY_PATH)
}
/// As makedev(3).
pub fn device_number(major: u32, minor: u32) -> u64 {
    let (major, minor) = (u64::from(major), u64::from(minor));
    (minor & 0xff) | ((major & 0xfff) << 8) | ((minor & !0xff) << 12) | ((major & !0xfff) << 32)
}
/// That of procfs.
pub const PROC_MAGIC: u64 = 0x9fa0;
/// Magic number of the file system behind `fd`.
pub fn fs_magic(fd: i32) -> Result<u64> {
    let mut raw = [0u64; 16];
    sys!(FSTATFS, fd, raw.as_mut_ptr())?;
    Ok(raw[0])
}

pub fn mount(source: Text<'_>, target: Text<'_>, kind: Text<'_>, flags: u64, data: Option<Text<'_>>) -> Result<()> {
    sys!(MOUNT, source.arg(), target.arg(), kind.arg(), flags, data.map_or(0, Text::arg)).map(drop)
}
pub fn umount(target: Text<'_>, flags: u32) -> Result<()> {
    sys!(UMOUNT2, target.arg(), flags).map(drop)
}
pub fn pivot_root(new: Text<'_>, old: Text<'_>) -> Result<()> {
    sys!(PIVOT_ROOT, new.arg(), old.arg()).map(drop)
}
pub fn chroot(path: Text<'_>) -> Result<()> {
    sys!(CHROOT, path.arg()).map(drop)
}
pub fn chdir(path: Text<'_>) -> Result<()> {
    sys!(CHDIR, path.arg()).map(drop)
}
pub fn fchdir(fd: i32) -> Result<()> {
    sys!(FCHDIR, fd).map(drop)
}
pub fn getcwd(into: &mut [u8]) -> Result<usize> {
    sys!(GETCWD, into.as_mut_ptr(), into.len())
}
pub fn fsopen(kind: Text<'_>) -> Result<i32> {
    sys!(FSOPEN, kind.arg(), 1).map(|fd| fd as i32)
}
/// `FSCONFIG_SET_STRING`.
pub fn fsconfig(fd: i32, key: Text<'_>, value: Text<'_>) -> Result<()> {
    sys!(FSCONFIG, fd, 1, key.arg(), value.arg(), 0).map(drop)
}
/// `FSCONFIG_SET_FLAG`.
pub fn fsconfig_flag(fd: i32, key: Text<'_>) -> Result<()> {
    sys!(FSCONFIG, fd, 0, key.arg(), 0, 0).map(drop)
}
/// `FSCONFIG_CMD_CREATE`.
pub fn fsconfig_create(fd: i32) -> Result<()> {
    sys!(FSCONFIG, fd, 6, 0, 0, 0).map(drop)
}
pub fn fsmount(fd: i32, attributes: u32) -> Result<i32> {
    sys!(FSMOUNT, fd, 1, attributes).map(|fd| fd as i32)
}
pub fn open_tree(dir: i32, path: Text<'_>, recursive: bool, empty: bool) -> Result<i32> {
    let flags = 1 | O_CLOEXEC | if recursive { AT_RECURSIVE } else { 0 } | if empty { AT_EMPTY_PATH } else { 0 };
    sys!(OPEN_TREE, dir, path.arg(), flags).map(|fd| fd as i32)
}
/// Attaches the mount `from` on the path behind the descriptor `to`.
pub fn move_mount(from: i32, to: i32) -> Result<()> {
    let none = text!("");
    sys!(MOVE_MOUNT, from, none.arg(), to, none.arg(), 0x04 | 0x40).map(drop)
}
pub fn mount_setattr(fd: i32, recursive: bool, set: u64, propagation: u64) -> Result<()> {
    let attributes = [set, 0, propagation, 0];
    let flags = AT_EMPTY_PATH | if recursive { AT_RECURSIVE } else { 0 };
    sys!(MOUNT_SETATTR, fd, text!("").arg(), flags, attributes.as_ptr(), 32).map(drop)
}

pub fn sethostname(name: &[u8]) -> Result<()> {
    sys!(SETHOSTNAME, name.as_ptr(), name.len()).map(drop)
}
pub fn setdomainname(name: &[u8]) -> Result<()> {
    sys!(SETDOMAINNAME, name.as_ptr(), name.len()).map(drop)
}
pub fn unshare(flags: u64) -> Result<()> {
    sys!(UNSHARE, flags).map(drop)
}
pub fn setns(fd: i32, flags: u64) -> Result<()> {
    sys!(SETNS, fd, flags).map(drop)
}
/// fork(2) with namespaces; `pidfd` receives a descriptor. Zero in the child.
pub fn clone3(flags: u64, exit_signal: u64, cgroup: Option<i32>, pidfd: &mut i32) -> Result<i32> {
    const PIDFD: u64 = 0x1000;
    const INTO_CGROUP: u64 = 0x2_0000_0000;
    let flags = flags | PIDFD | if cgroup.is_some() { INTO_CGROUP } else { 0 };
    let pidfd: *mut i32 = pidfd;
    let mut args = [flags, pidfd as u64, 0, 0, exit_signal, 0, 0, 0, 0, 0, 0];
    args[10] = cgroup.unwrap_or(0) as u64;
    sys!(CLONE3, args.as_ptr(), if cgroup.is_some() { 88 } else { 64 }).map(|pid| pid as i32)
}
/// The same by clone(2), where clone3 is refused.
pub fn clone(flags: u64, exit_signal: u64, pidfd: &mut i32) -> Result<i32> {
    const PIDFD: u64 = 0x1000;
    let pidfd: *mut i32 = pidfd;
    // With CLONE_PIDFD the descriptor is stored where parent_tid points to, the third argument here.
    sys!(CLONE, flags | PIDFD | exit_signal, 0, pidfd, 0, 0).map(|pid| pid as i32)
}
pub fn wait(pid: i32, status: &mut i32, block: bool) -> Result<i32> {
    const WNOHANG: u32 = 1;
    const WALL: u32 = 0x4000_0000;
    let options = WALL | if block { 0 } else { WNOHANG };
    let status: *mut i32 = status;
    retry(|| sys!(WAIT4, pid, status, options, 0)).map(|pid| pid as i32)
}
pub fn kill(pid: i32, signal: i32) -> Result<()> {
    sys!(KILL, pid, signal).map(drop)
}
pub fn getpid() -> i32 {
    sys!(GETPID).map_or(0, |pid| pid as i32)
}
pub fn pidfd_send_signal(pidfd: i32, signal: i32) -> Result<()> {
    sys!(PIDFD_SEND_SIGNAL, pidfd, signal, 0, 0).map(drop)
}
pub fn setsid() {
    let _ = sys!(SETSID);
}
pub fn umask(mask: u32) {
    let _ = sys!(UMASK, mask);
}
pub fn setgroups(groups: &[u32]) -> Result<()> {
    sys!(SETGROUPS, groups.len(), groups.as_ptr()).map(drop)
}
pub fn setresgid(gid: u32) -> Result<()> {
    sys!(SETRESGID, gid, gid, gid).map(drop)
}
pub fn setresuid(uid: u32) -> Result<()> {
    sys!(SETRESUID, uid, uid, uid).map(drop)
}
pub fn capset(effective: u64, permitted: u64, inheritable: u64) -> Result<()> {
    let header: [u32; 2] = [0x2008_0522, 0];
    let low = |set: u64| set as u32;
    let high = |set: u64| (set >> 32) as u32;
    let data =
        [low(effective), low(permitted), low(inheritable), high(effective), high(permitted), high(inheritable)];
    sys!(CAPSET, header.as_ptr(), data.as_ptr()).map(drop)
}
pub fn prctl(option: u32, a: u64, b: u64) -> Result<usize> {
    sys!(PRCTL, option, a, b, 0, 0)
}
pub fn seccomp(filter: &[u8]) -> Result<()> {
    #[repr(C)]
    struct Program {
        count: u16,
        filter: *const u8,
    }
    let program = Program { count: (filter.len() / 8) as u16, filter: filter.as_ptr() };
    sys!(SECCOMP, 1, 0, &raw const program).map(drop)
}
pub fn setrlimit(resource: u32, soft: u64, hard: u64) -> Result<()> {
    let limit = [soft, hard];
    sys!(PRLIMIT64, 0, resource, limit.as_ptr(), 0).map(drop)
}
pub fn flock_exclusive(fd: i32) -> Result<()> {
    sys!(FLOCK, fd, 2 | 4).map(drop)
}
pub fn ioctl(fd: i32, request: u32, argument: usize) -> Result<usize> {
    sys!(IOCTL, fd, request, argument)
}
pub fn dup3(from: i32, to: i32, flags: u32) -> Result<()> {
    if from == to {
        // dup3 refuses it; the descriptor only has to lose its close-on-exec mark.
        return sys!(FCNTL, to, 2, if flags & O_CLOEXEC != 0 { 1 } else { 0 }).map(drop);
    }
    sys!(DUP3, from, to, flags).map(drop)
}
pub fn dup_above(fd: i32, least: i32) -> Result<i32> {
    const F_DUPFD_CLOEXEC: u32 = 1030;
    sys!(FCNTL, fd, F_DUPFD_CLOEXEC, least).map(|fd| fd as i32)
}
pub fn accept(socket: i32) -> Result<i32> {
    // SOCK_CLOEXEC
    retry(|| sys!(ACCEPT4, socket, 0, 0, 0o2000000)).map(|fd| fd as i32)
}
/// An option of a few u32.
pub fn getsockopt(socket: i32, level: i32, name: i32, into: &mut [u32]) -> Result<()> {
    let mut length = (into.len() * 4) as u32;
    sys!(GETSOCKOPT, socket, level, name, into.as_mut_ptr(), &raw mut length).map(drop)
}
pub fn geteuid() -> u32 {
    sys!(GETEUID).map_or(u32::MAX, |uid| uid as u32)
}
pub fn socket(domain: i32, kind: i32, protocol: i32) -> Result<i32> {
    sys!(SOCKET, domain, kind, protocol).map(|fd| fd as i32)
}
pub fn socketpair() -> Result<(i32, i32)> {
    const SEQPACKET_CLOEXEC: u32 = 5 | 0o2000000;
    let mut pair = [0i32; 2];
    sys!(SOCKETPAIR, 1, SEQPACKET_CLOEXEC, 0, pair.as_mut_ptr())?;
    Ok((pair[0], pair[1]))
}
pub fn send(fd: i32, bytes: &[u8]) -> Result<usize> {
    const NOSIGNAL: u32 = 0x4000;
    retry(|| sys!(SENDTO, fd, bytes.as_ptr(), bytes.len(), NOSIGNAL, 0, 0))
}
pub fn receive(fd: i32, into: &mut [u8]) -> Result<usize> {
    retry(|| sys!(RECVFROM, fd, into.as_mut_ptr(), into.len(), 0, 0, 0))
}

#[repr(C)]
struct Message {
    name: usize,
    name_length: u32,
    vector: *mut [usize; 2],
    vector_count: usize,
    control: *mut u8,
    control_length: usize,
    flags: i32,
}

#[repr(C, align(8))]
struct Control([u8; 16 + 4 * crate::wire::MOST_FDS]);

/// Sends one message with descriptors.
pub fn send_fds(socket: i32, bytes: &[u8], fds: &[i32]) -> Result<()> {
    let mut control = Control([0; 16 + 4 * crate::wire::MOST_FDS]);
    let length = 16 + 4 * fds.len();
    control.0[..8].copy_from_slice(&length.to_ne_bytes());
    // SOL_SOCKET, SCM_RIGHTS
    control.0[8..12].copy_from_slice(&1i32.to_ne_bytes());
    control.0[12..16].copy_from_slice(&1i32.to_ne_bytes());
    for (at, fd) in fds.iter().enumerate() {
        control.0[16 + 4 * at..20 + 4 * at].copy_from_slice(&fd.to_ne_bytes());
    }
    let mut vector = [bytes.as_ptr() as usize, bytes.len()];
    let message = Message {
        name: 0,
        name_length: 0,
        vector: &mut vector,
        vector_count: 1,
        control: if fds.is_empty() { core::ptr::null_mut() } else { control.0.as_mut_ptr() },
        control_length: if fds.is_empty() { 0 } else { length.next_multiple_of(8) },
        flags: 0,
    };
    const NOSIGNAL: u32 = 0x4000;
    retry(|| sys!(SENDMSG, socket, &raw const message, NOSIGNAL)).map(drop)
}

/// Receives one message: its length (0 at the end) and how many descriptors came with it.
pub fn receive_fds(socket: i32, bytes: &mut [u8], fds: &mut [i32; crate::wire::MOST_FDS]) -> Result<(usize, usize)> {
    let mut control = Control([0; 16 + 4 * crate::wire::MOST_FDS]);
    let mut vector = [bytes.as_mut_ptr() as usize, bytes.len()];
    let mut message = Message {
        name: 0,
        name_length: 0,
        vector: &mut vector,
        vector_count: 1,
        control: control.0.as_mut_ptr(),
        control_length: control.0.len(),
        flags: 0,
    };
    const CMSG_CLOEXEC: u32 = 0x4000_0000;
    let received = retry(|| sys!(RECVMSG, socket, &raw mut message, CMSG_CLOEXEC))?;
    let mut count = 0;
    if message.control_length >= 16 {
        let mut length = [0; 8];
        length.copy_from_slice(&control.0[..8]);
        let length = usize::from_ne_bytes(length).min(control.0.len());
        for at in (16..length).step_by(4) {
            if let (Some(slot), Some(raw)) = (fds.get_mut(count), control.0.get(at..at + 4)) {
                *slot = i32::from_ne_bytes([raw[0], raw[1], raw[2], raw[3]]);
                count += 1;
            }
        }
    }
    Ok((received, count))
}

/// `(fd, events, returned events)` as poll(2) has it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Polled {
    pub fd: i32,
    pub wanted: i16,
    pub found: i16,
}
pub fn poll(set: &mut [Polled]) -> Result<usize> {
    sys!(PPOLL, set.as_mut_ptr(), set.len(), 0, 0, 0)
}
/// The same for so long at most; 0 when nothing happened.
pub fn poll_for(set: &mut [Polled], milliseconds: u64) -> Result<usize> {
    let time = [(milliseconds / 1000) as i64, (milliseconds % 1000 * 1_000_000) as i64];
    sys!(PPOLL, set.as_mut_ptr(), set.len(), time.as_ptr(), 0, 0)
}
/// The end to read from, and the end to write to.
pub fn pipe() -> Result<(i32, i32)> {
    let mut pair = [0i32; 2];
    sys!(PIPE2, pair.as_mut_ptr(), O_CLOEXEC)?;
    Ok((pair[0], pair[1]))
}

/// Memory for the life of the process.
pub fn allocate(size: usize) -> Result<&'static mut [u8]> {
    // PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS
    let address = sys!(MMAP, 0, size.max(1), 3, 0x22, -1isize, 0)?;
    // SAFETY: a fresh mapping of that size, never unmapped.
    Ok(unsafe { core::slice::from_raw_parts_mut(address as *mut u8, size) })
}
/// A sealed memfd as memory.
pub fn map(fd: i32, size: usize) -> Result<&'static [u8]> {
    // PROT_READ, MAP_PRIVATE
    let address = sys!(MMAP, 0, size.max(1), 1, 2, fd, 0)?;
    // SAFETY: a mapping of that size of a file that is sealed against change, never unmapped.
    Ok(unsafe { core::slice::from_raw_parts(address as *const u8, size) })
}

pub fn execve(path: *const u8, arguments: *const *const u8, variables: *const *const u8) -> i32 {
    sys!(EXECVE, path, arguments, variables).err().unwrap_or(0)
}
/// Executes what the descriptor is of.
pub fn execveat(fd: i32, arguments: *const *const u8, variables: *const *const u8) -> i32 {
    sys!(EXECVEAT, fd, text!("").arg(), arguments, variables, AT_EMPTY_PATH).err().unwrap_or(0)
}
pub fn getdents(fd: i32, into: &mut [u8]) -> Result<usize> {
    sys!(GETDENTS64, fd, into.as_mut_ptr(), into.len())
}
pub fn copy_range(from: i32, to: i32, count: usize) -> Result<usize> {
    sys!(COPY_FILE_RANGE, from, 0, to, 0, count, 0)
}
pub fn list_xattrs(fd: i32, into: &mut [u8]) -> Result<usize> {
    sys!(FLISTXATTR, fd, into.as_mut_ptr(), into.len())
}
pub fn get_xattr(fd: i32, name: Text<'_>, into: &mut [u8]) -> Result<usize> {
    sys!(FGETXATTR, fd, name.arg(), into.as_mut_ptr(), into.len())
}
pub fn set_xattr(fd: i32, name: Text<'_>, value: &[u8]) -> Result<()> {
    sys!(FSETXATTR, fd, name.arg(), value.as_ptr(), value.len(), 0).map(drop)
}
/// Blocks or unblocks every signal.
pub fn block_signals(block: bool) {
    let set = [if block { u64::MAX } else { 0 }];
    let _ = sys!(RT_SIGPROCMASK, 2, set.as_ptr(), 0, 8);
}
/// Waits for any blocked signal.
pub fn wait_signal() -> Result<i32> {
    let set = [u64::MAX];
    sys!(RT_SIGTIMEDWAIT, set.as_ptr(), 0, 0, 8).map(|signal| signal as i32)
}
