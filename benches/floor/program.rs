//! The least that a start of a container can cost on this kernel: what any runtime has to do, in one program that
//! decides nothing.
//!
//! `floor PID LOWER BASE GROUP`: takes the system call filter of process PID, writes the number of its instructions
//! as 8 bytes, and then answers every byte on its standard input with the nanoseconds of one start, as 8 bytes.
//! One start is: a control group below GROUP, namespaces, an overlay (volatile) of LOWER with fresh directories
//! below BASE, the mounts and devices of the OCI runtime specification, the loopback interface up, the filter,
//! the exec of `/payload`, its end, and the removal of everything. PID 0 is no filter, GROUP `-` no control group.
#![no_std]
#![no_main]
#![allow(unreachable_pub, missing_docs, dead_code)]

#[path = "../../rdock-runtime/helper/arch.rs"]
mod arch;
#[path = "../../rdock-runtime/helper/kernel.rs"]
mod kernel;
#[path = "../../rdock-runtime/src/launch/wire.rs"]
mod wire;

use kernel::{AT_FDCWD, AT_REMOVEDIR, O_DIRECTORY, Result, Text};

const MS_RDONLY: u64 = 1;
const MS_NOSUID: u64 = 2;
const MS_NODEV: u64 = 4;
const MS_NOEXEC: u64 = 8;
const MS_REMOUNT: u64 = 0x20;
const MS_BIND: u64 = 0x1000;
const MS_REC: u64 = 0x4000;
const MS_PRIVATE: u64 = 1 << 18;
const MS_STRICTATIME: u64 = 1 << 24;
/// Mount, control group, UTS, IPC, PID, network.
const NAMESPACES: u64 = 0x2_0000 | 0x200_0000 | 0x400_0000 | 0x800_0000 | 0x2000_0000 | 0x4000_0000;

/// A text put together, with room for its NUL.
struct Path {
    bytes: [u8; 4096],
    length: usize,
}

impl Path {
    fn of(parts: &[&[u8]]) -> Self {
        let mut path = Self {
            bytes: [0; 4096],
            length: 0,
        };
        for part in parts {
            if path.length + part.len() + 1 > path.bytes.len() {
                fail(b"a path is too long", 0);
            }
            path.bytes[path.length..path.length + part.len()].copy_from_slice(part);
            path.length += part.len();
        }
        path
    }

    fn text(&self) -> Text<'_> {
        Text::new(&self.bytes[..self.length + 1])
    }
}

fn decimal(mut number: u64, into: &mut [u8; 20]) -> &[u8] {
    let mut at = into.len();
    loop {
        at -= 1;
        into[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &into[at..];
        }
    }
}

fn fail(what: &[u8], errno: i32) -> ! {
    let mut digits = [0; 20];
    for part in [
        b"floor: ",
        what,
        b": errno ",
        decimal(errno as u64, &mut digits),
        b"\n",
    ] {
        // Nobody else can be told.
        let _ = kernel::write_all(2, part);
    }
    kernel::exit(1)
}

fn must<T>(what: &str, result: Result<T>) -> T {
    result.unwrap_or_else(|errno| fail(what.as_bytes(), errno))
}

/// What kernel.rs has no wrapper for, because the helper never does it.
fn system(x86: usize, arm: usize, args: [usize; 4]) -> Result<usize> {
    let number = if cfg!(target_arch = "x86_64") { x86 } else { arm };
    // SAFETY: the callers below pass pointers to live values of the right size.
    let result = unsafe { arch::syscall(number, [args[0], args[1], args[2], args[3], 0, 0]) };
    if result < 0 {
        Err(-result as i32)
    } else {
        Ok(result as usize)
    }
}

fn now() -> u64 {
    const MONOTONIC: usize = 1;
    let mut time = [0u64; 2];
    must(
        "clock_gettime",
        system(228, 113, [MONOTONIC, time.as_mut_ptr() as usize, 0, 0]),
    );
    time[0] * 1_000_000_000 + time[1]
}

/// The filter of a running process, as it was loaded.
fn filter_of(pid: i32) -> &'static [u8] {
    const SEIZE: usize = 0x4206;
    const INTERRUPT: usize = 0x4207;
    const DETACH: usize = 17;
    const GET_FILTER: usize = 0x420c;
    let ptrace = |request, data| system(101, 117, [request, pid as usize, 0, data]);
    must("PTRACE_SEIZE", ptrace(SEIZE, 0));
    must("PTRACE_INTERRUPT", ptrace(INTERRUPT, 0));
    let mut status = 0;
    must(
        "wait for the traced process",
        kernel::wait(pid, &mut status, true),
    );
    let count = must("PTRACE_SECCOMP_GET_FILTER", ptrace(GET_FILTER, 0));
    let filter = must("mmap", kernel::allocate(count * 8));
    must(
        "PTRACE_SECCOMP_GET_FILTER",
        ptrace(GET_FILTER, filter.as_mut_ptr() as usize),
    );
    must("PTRACE_DETACH", ptrace(DETACH, 0));
    filter
}

struct Floor {
    filter: &'static [u8],
    lower: &'static [u8],
    base: &'static [u8],
    group: Option<&'static [u8]>,
}

impl Floor {
    /// One start, from nothing to nothing.
    fn start(&self, count: u64) {
        let mut digits = [0; 20];
        let number = decimal(count, &mut digits);
        let upper = Path::of(&[self.base, b"/upper", number]);
        let work = Path::of(&[self.base, b"/work", number]);
        must("mkdir upper", kernel::mkdirat(AT_FDCWD, upper.text(), 0o755));
        must("mkdir work", kernel::mkdirat(AT_FDCWD, work.text(), 0o755));
        let mut pid_digits = [0; 20];
        let pid = decimal(kernel::getpid() as u64, &mut pid_digits);
        let group = self
            .group
            .map(|parent| Path::of(&[parent, b"/rdock-floor-", pid, b"-", number]));
        let group_fd = group.as_ref().map(|group| {
            must(
                "mkdir of the control group",
                kernel::mkdirat(AT_FDCWD, group.text(), 0o755),
            );
            must(
                "open the control group",
                kernel::openat(AT_FDCWD, group.text(), O_DIRECTORY, 0),
            )
        });
        let mut pidfd = -1;
        let child = must(
            "clone3",
            kernel::clone3(NAMESPACES, kernel::SIGCHLD as u64, group_fd, &mut pidfd),
        );
        if child == 0 {
            self.become_payload(&upper, &work);
        }
        let mut status = 0;
        must("wait", kernel::wait(child, &mut status, true));
        if status != 0 {
            fail(b"the payload failed", status >> 8);
        }
        kernel::close(pidfd);
        if let (Some(group), Some(fd)) = (&group, group_fd) {
            const EBUSY: i32 = 16;
            while let Err(errno) = kernel::unlinkat(AT_FDCWD, group.text(), AT_REMOVEDIR) {
                if errno != EBUSY {
                    fail(b"rmdir of the control group", errno);
                }
            }
            kernel::close(fd);
        }
        let inner = Path::of(&[self.base, b"/work", number, b"/work"]);
        let dirty = Path::of(&[inner.text().bytes(), b"/incompat/volatile/dirty"]);
        must("remove the mark", kernel::unlinkat(AT_FDCWD, dirty.text(), 0));
        for below in ["/incompat/volatile", "/incompat", ""] {
            let path = Path::of(&[inner.text().bytes(), below.as_bytes()]);
            must("rmdir", kernel::unlinkat(AT_FDCWD, path.text(), AT_REMOVEDIR));
        }
        must(
            "rmdir work",
            kernel::unlinkat(AT_FDCWD, work.text(), AT_REMOVEDIR),
        );
        must(
            "rmdir upper",
            kernel::unlinkat(AT_FDCWD, upper.text(), AT_REMOVEDIR),
        );
    }

    fn become_payload(&self, upper: &Path, work: &Path) -> ! {
        let none = text!("none");
        must(
            "make mounts private",
            kernel::mount(none, text!("/"), none, MS_REC | MS_PRIVATE, None),
        );
        let point = Path::of(&[self.base, b"/mnt"]);
        let options = Path::of(&[
            b"lowerdir=",
            self.lower,
            b",upperdir=",
            upper.text().bytes(),
            b",workdir=",
            work.text().bytes(),
            b",volatile",
        ]);
        let overlay = text!("overlay");
        must(
            "mount overlay",
            kernel::mount(overlay, point.text(), overlay, 0, Some(options.text())),
        );
        must("chdir", kernel::chdir(point.text()));
        mounts();
        must("pivot_root", kernel::pivot_root(text!("."), text!(".")));
        const MNT_DETACH: u32 = 2;
        must("umount", kernel::umount(text!("."), MNT_DETACH));
        must("chdir", kernel::chdir(text!("/")));
        must("sethostname", kernel::sethostname(b"c"));
        loopback_up();
        if !self.filter.is_empty() {
            const NO_NEW_PRIVS: u32 = 38;
            must("no_new_privs", kernel::prctl(NO_NEW_PRIVS, 1, 0));
            must("seccomp", kernel::seccomp(self.filter));
        }
        let program = text!("/payload").pointer();
        let arguments = [program, core::ptr::null()];
        let variables = [core::ptr::null()];
        fail(
            b"exec",
            kernel::execve(program, arguments.as_ptr(), variables.as_ptr()),
        )
    }
}

/// What the OCI runtime specification has in every container, below the working directory.
fn mounts() {
    let quiet = MS_NOSUID | MS_NODEV | MS_NOEXEC;
    let new = |kind, at, flags, data| must("mount", kernel::mount(kind, at, kind, flags, data));
    new(text!("proc"), text!("proc"), quiet, None);
    let dev = text!("mode=755,size=65536k");
    new(
        text!("tmpfs"),
        text!("dev"),
        MS_NOSUID | MS_STRICTATIME,
        Some(dev),
    );
    for (name, major, minor) in [
        (text!("dev/null"), 1, 3),
        (text!("dev/zero"), 1, 5),
        (text!("dev/full"), 1, 7),
        (text!("dev/random"), 1, 8),
        (text!("dev/urandom"), 1, 9),
        (text!("dev/tty"), 5, 0),
    ] {
        const CHARACTER: u32 = 0o020_000;
        let device = kernel::device_number(major, minor);
        must(
            "mknod",
            kernel::mknodat(AT_FDCWD, name, CHARACTER | 0o666, device),
        );
        must("chmod", kernel::fchmodat(AT_FDCWD, name, 0o666));
    }
    for name in [text!("dev/pts"), text!("dev/shm"), text!("dev/mqueue")] {
        must("mkdir", kernel::mkdirat(AT_FDCWD, name, 0o755));
    }
    let pts = text!("newinstance,ptmxmode=0666,mode=620");
    new(
        text!("devpts"),
        text!("dev/pts"),
        MS_NOSUID | MS_NOEXEC,
        Some(pts),
    );
    new(
        text!("tmpfs"),
        text!("dev/shm"),
        quiet,
        Some(text!("mode=1777,size=65536k")),
    );
    new(text!("mqueue"), text!("dev/mqueue"), quiet, None);
    for (target, name) in [
        (text!("pts/ptmx"), text!("dev/ptmx")),
        (text!("/proc/self/fd"), text!("dev/fd")),
        (text!("/proc/self/fd/0"), text!("dev/stdin")),
        (text!("/proc/self/fd/1"), text!("dev/stdout")),
        (text!("/proc/self/fd/2"), text!("dev/stderr")),
    ] {
        must("symlink", kernel::symlinkat(target, AT_FDCWD, name));
    }
    new(text!("sysfs"), text!("sys"), quiet | MS_RDONLY, None);
    let none = text!("none");
    for path in [
        text!("proc/bus"),
        text!("proc/fs"),
        text!("proc/irq"),
        text!("proc/sys"),
    ] {
        must("bind", kernel::mount(path, path, none, MS_BIND | MS_REC, None));
        let flags = MS_BIND | MS_REMOUNT | MS_RDONLY | quiet;
        must("make read-only", kernel::mount(none, path, none, flags, None));
    }
    // A kernel without one of these has nothing to mask there.
    for path in [text!("proc/kcore"), text!("proc/keys"), text!("proc/timer_list")] {
        let _ = kernel::mount(text!("dev/null"), path, none, MS_BIND, None);
    }
    let _ = kernel::mount(
        text!("tmpfs"),
        text!("sys/firmware"),
        text!("tmpfs"),
        MS_RDONLY,
        None,
    );
}

fn loopback_up() {
    const AF_INET: i32 = 2;
    const SOCK_DGRAM: i32 = 2;
    const SIOCSIFFLAGS: u32 = 0x8914;
    const UP_RUNNING: u16 = 0x41;
    let socket = must("socket", kernel::socket(AF_INET, SOCK_DGRAM, 0));
    let mut request = [0u8; 40];
    request[..2].copy_from_slice(b"lo");
    request[16..18].copy_from_slice(&UP_RUNNING.to_ne_bytes());
    must(
        "bring lo up",
        kernel::ioctl(socket, SIOCSIFFLAGS, request.as_mut_ptr() as usize),
    );
    kernel::close(socket);
}

/// Called by the entry code with the initial stack.
#[unsafe(no_mangle)]
extern "C" fn rdock_start(stack: *const usize) -> ! {
    let argument = |at: usize| {
        // SAFETY: the kernel puts the count first, then that many pointers to texts with a NUL.
        unsafe {
            if at >= *stack {
                fail(b"usage: floor PID LOWER BASE GROUP", 0);
            }
            let pointer = *stack.add(1 + at) as *const u8;
            core::slice::from_raw_parts(pointer, arch::strlen(pointer))
        }
    };
    let pid = argument(1)
        .iter()
        .fold(0, |sum, digit| sum * 10 + i32::from(digit - b'0'));
    let group = argument(4);
    let floor = Floor {
        filter: if pid == 0 { &[] } else { filter_of(pid) },
        lower: argument(2),
        base: argument(3),
        group: (group != b"-").then_some(group),
    };
    let answer = |number: u64| must("answer", kernel::write_all(1, &number.to_ne_bytes()));
    answer(floor.filter.len() as u64 / 8);
    let mut count = 0;
    let mut wanted = [0];
    while must("read", kernel::read(0, &mut wanted)) == 1 {
        count += 1;
        let begin = now();
        floor.start(count);
        answer(now() - begin);
    }
    kernel::exit(0)
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    kernel::exit(101)
}
