//! The payload's way from clone to exec, and the same for a process that exec adds.

use crate::kernel::{self, *};
use crate::mounts::Root;
use crate::netlink::netlink;
use crate::passwd::{self, MOST_GROUPS};
use crate::plan::{At, Failure, Plan};
use crate::step::Step;
use crate::supervise::report;
use crate::wire::{MOST_FDS, op, tell};

type Done<T = ()> = core::result::Result<T, Failure>;

/// Bytes of a passwd or group file; more is an error.
const LARGEST_FILE: usize = 1 << 20;

/// Where the process stands.
pub struct Setup {
    /// To the helper; closed by the exec.
    pub status: i32,
    fds: [i32; MOST_FDS],
    fd_count: usize,
    pub root: Root,
    stdio: [i32; 3],
    terminal: i32,
    uid: u32,
    gid: u32,
    groups: [u32; MOST_GROUPS + 1],
    group_count: usize,
    home: &'static [u8],
    late_directory: bool,
}

impl Setup {
    pub fn new(status: i32, fds: [i32; MOST_FDS], fd_count: usize) -> Self {
        Self {
            status,
            fds,
            fd_count,
            root: Root::none(),
            stdio: [-1; 3],
            terminal: -1,
            uid: 0,
            gid: 0,
            groups: [0; MOST_GROUPS + 1],
            group_count: 0,
            home: b"/",
            late_directory: false,
        }
    }

    pub fn descriptor(&self, index: u32) -> Result<i32> {
        if (index as usize) < self.fd_count { Ok(self.fds[index as usize]) } else { Err(EPROTO) }
    }

    /// Walks the operations up to the exec.
    pub fn walk(&mut self, plan: &mut Plan<'static>) -> ! {
        setsid();
        umask(0);
        let failure = loop {
            match self.step(plan) {
                Ok(()) => {}
                Err(failure) => break failure,
            }
        };
        let detail = &failure.detail[..failure.length];
        let _ = report(self.status, tell::FAILED, 0, failure.step as i32, failure.errno, detail, &[]);
        exit(1)
    }

    /// An exec session: joins the payload's namespaces and becomes a child of the helper inside them.
    pub fn enter(&mut self, payload: i32, plan: &mut Plan<'static>) -> ! {
        let joined = self.join(payload, plan);
        if let Err(failure) = joined {
            let detail = &failure.detail[..failure.length];
            let _ = report(self.status, tell::FAILED, 0, failure.step as i32, failure.errno, detail, &[]);
            exit(1)
        }
        self.walk(plan)
    }

    /// Returns in the process inside; the joiner itself reports it and ends.
    fn join(&mut self, payload: i32, plan: &mut Plan<'static>) -> Done {
        let step = Step::JoinNamespaces;
        if plan.u32().at(step, b"")? != op::ENTER {
            return Err(EPROTO).at(step, b"");
        }
        let flags = plan.u64().at(step, b"")?;
        // Only what this process needs may be open when it becomes visible inside.
        let keep = self.fd_count + 2;
        let mut moved = [-1; MOST_FDS + 2];
        for (at, slot) in moved.iter_mut().enumerate().take(keep) {
            let from = match at {
                0 => self.status,
                1 => payload,
                _ => self.fds[at - 2],
            };
            *slot = dup_above(from, 3 + keep as i32).at(step, b"")?;
        }
        for (at, fd) in moved.iter().enumerate().take(keep) {
            dup3(*fd, 3 + at as i32, O_CLOEXEC).at(step, b"")?;
        }
        close_from(3 + keep as i32).at(step, b"")?;
        self.status = 3;
        for at in 0..self.fd_count {
            self.fds[at] = 5 + at as i32;
        }
        setns(4, flags).at(step, b"")?;
        close(4);
        let mut pidfd = -1;
        // CLONE_PARENT: the helper is its parent and sees its end.
        const PARENT: u64 = 0x8000;
        let pid = match clone3(PARENT, 0, None, &mut pidfd) {
            Err(ENOSYS | EPERM) => clone(PARENT, 0, &mut pidfd),
            other => other,
        };
        let pid = pid.at(step, b"")?;
        if pid != 0 {
            let _ = report(self.status, tell::PROCESS, 0, pid, 0, b"", &[pidfd]);
            exit(0);
        }
        // The helper must know this process before it can fail or end: it reaps only those it knows, and
        // the container's pid namespace ends only when all of its processes are reaped.
        self.wait_for(b'p').at(step, b"")
    }

    fn warn(&self, step: Step, errno: i32, detail: &[u8]) {
        let _ = report(self.status, tell::WARNING, 0, step as i32, errno, detail, &[]);
    }

    fn wait_for(&self, byte: u8) -> Result<()> {
        let mut got = [0u8; 8];
        loop {
            if receive(self.status, &mut got)? == 0 {
                // The helper is gone, and this process about to be.
                exit(1);
            }
            if got[0] == byte {
                return Ok(());
            }
        }
    }

    fn step(&mut self, plan: &mut Plan<'static>) -> Done {
        let bad = Step::ReceivePlan;
        let tag = plan.u32().at(bad, b"")?;
        match tag {
            op::JOIN => {
                let (fd, kind) = (plan.u32().at(bad, b"")?, plan.u64().at(bad, b"")?);
                setns(self.descriptor(fd).at(bad, b"")?, kind).at(Step::JoinNamespaces, b"")
            }
            op::UNSHARE => {
                let flags = plan.u64().at(bad, b"")?;
                unshare(flags).at(Step::Clone, b"")
            }
            op::JOIN_CGROUP => {
                let fd = plan.u32().at(bad, b"")?;
                write_all(self.descriptor(fd).at(bad, b"")?, b"0").at(Step::JoinCgroup, b"")
            }
            op::HOSTNAME => {
                let name = plan.bytes().at(bad, b"")?;
                sethostname(name).at(Step::Hostname, name)
            }
            op::DOMAINNAME => {
                let name = plan.bytes().at(bad, b"")?;
                setdomainname(name).at(Step::Hostname, name)
            }
            op::NETWORK_WAIT => self.wait_for(b'n').at(Step::NetworkAttach, b""),
            op::NETLINK => {
                let (protocol, message) = (plan.u32().at(bad, b"")?, plan.bytes().at(bad, b"")?);
                netlink(protocol as i32, message).at(Step::NetworkConfigure, b"")
            }
            op::LOOPBACK_UP => loopback_up().at(Step::NetworkConfigure, b"lo"),
            op::HOLD => {
                report(self.status, tell::HELD, 0, 0, 0, b"", &[]).at(bad, b"")?;
                self.wait_for(b'g').at(bad, b"")
            }
            op::RLIMIT => {
                let resource = plan.u32().at(bad, b"")?;
                let (soft, hard) = (plan.u64().at(bad, b"")?, plan.u64().at(bad, b"")?);
                match setrlimit(resource, soft, hard) {
                    // Raising takes CAP_SYS_RESOURCE, which root need not have.
                    Err(EPERM) => {
                        self.warn(Step::Rlimit, EPERM, b"");
                        Ok(())
                    }
                    other => other.at(Step::Rlimit, b""),
                }
            }
            op::OOM_SCORE => {
                let value = plan.bytes().at(bad, b"")?;
                match crate::supervise::write_own_proc(text!("/proc/self/oom_score_adj"), value) {
                    Err(EACCES | EPERM) => {
                        self.warn(Step::OomScore, EACCES, value);
                        Ok(())
                    }
                    other => other.at(Step::OomScore, value),
                }
            }
            op::STDIO => {
                let first = plan.u32().at(bad, b"")?;
                for at in 0..3 {
                    self.stdio[at as usize] = self.descriptor(first + at).at(bad, b"")?;
                }
                Ok(())
            }
            op::TERMINAL => {
                let (rows, columns) = (plan.u32().at(bad, b"")?, plan.u32().at(bad, b"")?);
                let console = plan.u32().at(bad, b"")? != 0;
                self.make_terminal(rows as u16, columns as u16, console)
            }
            op::USER => self.look_up_user(plan),
            op::DIRECTORY_WORKING => {
                let (path, make) = (plan.text().at(bad, b"")?, plan.u32().at(bad, b"")? != 0);
                self.enter_directory(path, make)
            }
            op::UMASK => {
                umask(plan.u32().at(bad, b"")?);
                Ok(())
            }
            op::SECCOMP => {
                let filter = plan.bytes().at(bad, b"")?;
                kernel::seccomp(filter).at(Step::Seccomp, b"")
            }
            op::CREDENTIALS => {
                let bounding = plan.u64().at(bad, b"")?;
                let (permitted, effective) = (plan.u64().at(bad, b"")?, plan.u64().at(bad, b"")?);
                let ambient = plan.u64().at(bad, b"")?;
                self.take_credentials(bounding, permitted, effective, ambient)
            }
            op::NO_NEW_PRIVILEGES => prctl(38, 1, 0).at(Step::NoNewPrivileges, b"").map(drop),
            op::EXEC => self.exec(plan),
            op::HOOK => self.hook(plan),
            op::PAUSE => {
                report(self.status, tell::PAUSED, 0, 0, 0, b"", &[]).at(bad, b"")?;
                self.wait_for(b'g').at(bad, b"")
            }
            op::MOUNT_OF => {
                let fd = plan.u32().at(bad, b"")?;
                let fd = self.descriptor(fd).at(bad, b"")?;
                self.root.mount_of(fd, plan)
            }
            op::SHARE_ROOT => {
                let bare = plan.u32().at(bad, b"")? != 0;
                self.share_root(bare)
            }
            _ => self.root.step(tag, plan, self.status),
        }
    }

    /// A view of a container's files has no payload: this process holds the mounts until the owner is gone.
    fn share_root(&mut self, bare: bool) -> Done {
        let step = Step::MountRoot;
        let root = match self.root.descriptor() {
            Some(root) => root,
            None => openat(AT_FDCWD, text!("/"), O_PATH | O_DIRECTORY, 0).at(step, b"/")?,
        };
        let shared = if bare { open_tree(root, text!(""), false, true).at(step, b"/")? } else { root };
        report(self.status, tell::ROOT, 0, 0, 0, b"", &[shared]).at(step, b"/")?;
        self.wait_for(b'g').at(step, b"/")?;
        exit(0)
    }

    fn make_terminal(&mut self, rows: u16, columns: u16, console: bool) -> Done {
        const TIOCGPTPEER: u32 = 0x5441;
        const TIOCSPTLCK: u32 = 0x4004_5431;
        const TIOCSWINSZ: u32 = 0x5414;
        const TIOCSCTTY: u32 = 0x540e;
        let step = Step::Terminal;
        let path = text!("/dev/pts/ptmx");
        let master = openat(AT_FDCWD, path, O_RDWR | O_NOCTTY, 0).at(step, path.bytes())?;
        let unlock = 0i32;
        ioctl(master, TIOCSPTLCK, &raw const unlock as usize).at(step, b"unlock")?;
        // The other end comes from the master itself: no path can be swapped in between.
        let slave = ioctl(master, TIOCGPTPEER, (O_RDWR | O_NOCTTY | O_CLOEXEC) as usize).at(step, b"")? as i32;
        let size = [rows, columns, 0, 0];
        if rows > 0 && columns > 0 {
            ioctl(master, TIOCSWINSZ, size.as_ptr() as usize).at(step, b"size")?;
        }
        if console {
            self.root.bind_console(slave).at(step, b"/dev/console")?;
        }
        report(self.status, tell::TERMINAL, 0, 0, 0, b"", &[master]).at(step, b"")?;
        close(master);
        ioctl(slave, TIOCSCTTY, 0).at(step, b"")?;
        self.terminal = slave;
        self.stdio = [slave; 3];
        Ok(())
    }

    fn look_up_user(&mut self, plan: &mut Plan<'static>) -> Done {
        let bad = Step::ReceivePlan;
        let user = plan.bytes().at(bad, b"")?;
        let count = plan.u32().at(bad, b"")?;
        let mut more: [&[u8]; MOST_GROUPS] = [&[]; MOST_GROUPS];
        if count as usize > MOST_GROUPS {
            return Err(E2BIG).at(Step::User, b"more than 64 groups");
        }
        for slot in more.iter_mut().take(count as usize) {
            *slot = plan.bytes().at(bad, b"")?;
        }
        let passwd = read_small(text!("/etc/passwd")).at(Step::User, b"/etc/passwd")?;
        let group = read_small(text!("/etc/group")).at(Step::User, b"/etc/group")?;
        let found = match passwd::resolve(user, more.into_iter().take(count as usize), passwd, group) {
            Ok(found) => found,
            Err(unknown) => return Err(ENOENT).at(Step::User, unknown.name()),
        };
        (self.uid, self.gid) = (found.uid, found.gid);
        // The primary group counts among the supplementary ones: leaving it out would let a program drop
        // it and pass a mode that denies the group.
        self.groups[0] = found.gid;
        self.group_count = 1;
        for gid in &found.groups[..found.group_count] {
            if *gid != found.gid {
                self.groups[self.group_count] = *gid;
                self.group_count += 1;
            }
        }
        // A home that could forge another line or variable is not used.
        if !found.home.is_empty() && found.home.iter().all(|&byte| byte >= b' ') {
            self.home = found.home;
        }
        Ok(())
    }

    fn enter_directory(&mut self, path: Text<'static>, make: bool) -> Done {
        let step = Step::WorkingDirectory;
        let root = openat(AT_FDCWD, text!("/"), O_PATH | O_DIRECTORY, 0).at(step, b"/")?;
        if make {
            self.root.make_directories(root, path.bytes()).at(step, path.bytes())?;
        }
        close(root);
        match chdir(path) {
            // The user may be the only one who can enter it.
            Err(EACCES) => {
                self.late_directory = true;
                DIRECTORY.set(path);
                Ok(())
            }
            other => {
                other.at(step, path.bytes())?;
                check_inside().at(step, path.bytes())
            }
        }
    }

    fn take_credentials(&mut self, bounding: u64, permitted: u64, effective: u64, ambient: u64) -> Done {
        const PR_CAPBSET_DROP: u32 = 24;
        const PR_SET_KEEPCAPS: u32 = 8;
        const PR_CAP_AMBIENT: u32 = 47;
        let step = Step::Capabilities;
        for fd in self.stdio {
            // A payload that reopens /dev/stdout as another user may do so. Not for a file of the host's.
            if fd >= 0 {
                let stat = fstat(fd).at(step, b"stdio")?;
                let pipe_or_terminal = stat.kind() == 0o010000 || fd == self.terminal;
                if pipe_or_terminal && stat.uid != self.uid {
                    let gid = if fd == self.terminal { stat.gid } else { self.gid };
                    let _ = fchown(fd, self.uid, gid);
                }
            }
        }
        for capability in 0..64 {
            if bounding & 1 << capability == 0 {
                match prctl(PR_CAPBSET_DROP, capability, 0) {
                    Ok(_) => {}
                    // One that this kernel does not have.
                    Err(EINVAL) => break,
                    Err(errno) => return Err(errno).at(step, b"bounding set"),
                }
            }
        }
        prctl(PR_SET_KEEPCAPS, 1, 0).at(step, b"")?;
        match setgroups(&self.groups[..self.group_count]) {
            // A single-id user namespace denies it, and has no other group to give.
            Err(EPERM) if self.group_count <= 1 => {}
            other => other.at(Step::User, b"setgroups")?,
        }
        setresgid(self.gid).at(Step::User, b"setresgid")?;
        setresuid(self.uid).at(Step::User, b"setresuid")?;
        if self.late_directory {
            let path = DIRECTORY.get();
            chdir(path).at(Step::WorkingDirectory, path.bytes())?;
            check_inside().at(Step::WorkingDirectory, path.bytes())?;
        }
        let root = self.uid == 0;
        let (permitted, effective) = if root { (permitted, effective) } else { (ambient, ambient) };
        capset(effective, permitted, ambient).at(step, b"capset")?;
        prctl(PR_CAP_AMBIENT, 4, 0).at(step, b"ambient set")?;
        for capability in 0..64 {
            if ambient & 1 << capability != 0 {
                // PR_CAP_AMBIENT_RAISE
                ambient_raise(capability).at(step, b"ambient set")?;
            }
        }
        prctl(PR_SET_KEEPCAPS, 0, 0).at(step, b"").map(drop)
    }

    fn exec(&mut self, plan: &mut Plan<'static>) -> Done {
        let step = Step::Exec;
        let init = plan.u32().at(step, b"")? != 0;
        let arguments = pointers(plan, None).at(step, b"")?;
        let mut home = [0u8; 1024];
        home[..5].copy_from_slice(b"HOME=");
        let length = self.home.len().min(home.len() - 6);
        home[5..5 + length].copy_from_slice(&self.home[..length]);
        let variables = pointers(plan, Some(home.as_ptr())).at(step, b"")?;
        // Descriptors 0 to 2 go through other numbers, since sources may be among them; the lowest ones, since
        // the limit on descriptors holds already.
        let mut high = [-1; 3];
        for (at, fd) in self.stdio.iter().enumerate() {
            if *fd >= 0 {
                high[at] = dup_above(*fd, 3).at(step, b"stdio")?;
            }
        }
        for (at, fd) in high.iter().enumerate() {
            if *fd >= 0 {
                dup3(*fd, at as i32, 0).at(step, b"stdio")?;
            }
        }
        let status = dup_above(self.status, 4).at(step, b"")?;
        dup3(status, 3, O_CLOEXEC).at(step, b"")?;
        self.status = 3;
        close_from(4).at(step, b"")?;
        if init {
            self.become_init()?;
        }
        block_signals(false);
        // SAFETY: `pointers` ends its array with a null pointer and puts the program's name first.
        let program = unsafe { *arguments };
        let name = bytes_at(program);
        if name.contains(&b'/') {
            return Err(execve(program, arguments, variables)).at(step, name);
        }
        let mut found = ENOENT;
        for directory in search_path(variables).split(|&byte| byte == b':') {
            let mut path = [0u8; 4096];
            let directory = if directory.is_empty() { b"." } else { directory };
            if directory.len() + name.len() + 2 > path.len() {
                continue;
            }
            path[..directory.len()].copy_from_slice(directory);
            path[directory.len()] = b'/';
            path[directory.len() + 1..directory.len() + 1 + name.len()].copy_from_slice(name);
            match execve(path.as_ptr(), arguments, variables) {
                ENOENT | ENOTDIR => {}
                // Something of that name is there and cannot be executed; a later one may be.
                EACCES => found = EACCES,
                other => return Err(other).at(step, name),
            }
        }
        Err(found).at(step, name)
    }

    /// Stays as pid 1 and returns in the child: forwards signals, reaps whatever loses its parent.
    fn become_init(&mut self) -> Done {
        block_signals(true);
        let mut pidfd = -1;
        let child = match clone3(0, SIGCHLD as u64, None, &mut pidfd) {
            Err(ENOSYS | EPERM) => clone(0, SIGCHLD as u64, &mut pidfd),
            other => other,
        };
        let child = child.at(Step::Exec, b"init")?;
        if child == 0 {
            setsid();
            if self.terminal >= 0 {
                const TIOCSCTTY: u32 = 0x540e;
                // With 1 the terminal may be taken from the init, which is of the same user.
                let _ = ioctl(0, TIOCSCTTY, 1);
            }
            return Ok(());
        }
        let _ = close_from(0);
        loop {
            let Ok(signal) = wait_signal() else { continue };
            if signal != SIGCHLD {
                let _ = kill(child, signal);
                continue;
            }
            loop {
                let mut status = 0;
                match wait(-1, &mut status, false) {
                    Ok(pid) if pid == child => {
                        let signal = status & 0x7f;
                        exit(if signal == 0 { status >> 8 & 0xff } else { 128 + signal });
                    }
                    Ok(pid) if pid > 0 => {}
                    _ => break,
                }
            }
        }
    }
}

/// The one path kept between two operations of a process.
struct Kept(core::cell::UnsafeCell<Option<Text<'static>>>);
// SAFETY: the helper has one thread.
unsafe impl Sync for Kept {}
static DIRECTORY: Kept = Kept(core::cell::UnsafeCell::new(None));

impl Kept {
    fn set(&self, path: Text<'static>) {
        // SAFETY: one thread, and no reference into the cell is kept.
        unsafe { *self.0.get() = Some(path) };
    }
    fn get(&self) -> Text<'static> {
        // SAFETY: one thread, and no reference into the cell is kept.
        unsafe { *self.0.get() }.unwrap_or(text!("/"))
    }
}

fn ambient_raise(capability: u64) -> Result<usize> {
    prctl(47, 2, capability)
}

/// The working directory must be inside the root: a path that leads through a leaked descriptor is not.
fn check_inside() -> Result<()> {
    let mut path = [0u8; 4096];
    let length = getcwd(&mut path)?;
    if length > 1 && path[0] == b'/' { Ok(()) } else { Err(ENOENT) }
}

fn bytes_at(text: *const u8) -> &'static [u8] {
    // SAFETY: texts of the plan end with a NUL and live as long as the process.
    unsafe { core::slice::from_raw_parts(text, crate::arch::strlen(text)) }
}

/// Reads a count and that many texts into an array of pointers that ends with null. With `home` that
/// variable is added when there is none.
pub fn pointers(plan: &mut Plan<'static>, home: Option<*const u8>) -> Result<*const *const u8> {
    let count = plan.u32()? as usize;
    let size = count.checked_add(2).and_then(|count| count.checked_mul(8)).ok_or(EPROTO)?;
    let array = allocate(size)?;
    let mut has_home = false;
    let mut put = |at: usize, pointer: usize| array[at * 8..at * 8 + 8].copy_from_slice(&pointer.to_ne_bytes());
    for at in 0..count {
        let text = plan.text()?;
        has_home |= text.bytes().starts_with(b"HOME=");
        put(at, text.pointer() as usize);
    }
    if let Some(home) = home.filter(|_| !has_home) {
        put(count, home as usize);
    }
    Ok(array.as_ptr().cast())
}

fn search_path(variables: *const *const u8) -> &'static [u8] {
    let mut at = variables;
    loop {
        // SAFETY: the array ends with a null pointer.
        let variable = unsafe { *at };
        if variable.is_null() {
            return b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        }
        if let Some(path) = bytes_at(variable).strip_prefix(b"PATH=") {
            return path;
        }
        // SAFETY: not past the null pointer.
        at = unsafe { at.add(1) };
    }
}

/// A small regular file of the container; empty when it is missing. FIFOs, devices and large files are refused.
fn read_small(path: Text<'_>) -> Result<&'static [u8]> {
    let root = openat(AT_FDCWD, text!("/"), O_PATH | O_DIRECTORY, 0)?;
    let opened = open_in(root, path, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS);
    close(root);
    let fd = match opened {
        Err(ENOENT | ENOTDIR) => return Ok(b""),
        other => other?,
    };
    let stat = fstat(fd)?;
    if stat.kind() != 0o100000 || stat.size > LARGEST_FILE as u64 {
        close(fd);
        return Err(if stat.kind() == 0o100000 { E2BIG } else { EINVAL });
    }
    let file = allocate(stat.size as usize)?;
    let mut filled = 0;
    while filled < file.len() {
        match read(fd, &mut file[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    close(fd);
    Ok(&file[..filled])
}

fn loopback_up() -> Result<()> {
    const SIOCSIFFLAGS: u32 = 0x8914;
    let socket = kernel::socket(2, 2 | 0o2000000, 0)?;
    let mut request = [0u8; 40];
    request[..2].copy_from_slice(b"lo");
    // IFF_UP | IFF_RUNNING
    request[16..18].copy_from_slice(&0x41u16.to_ne_bytes());
    let done = ioctl(socket, SIOCSIFFLAGS, request.as_ptr() as usize).map(drop);
    close(socket);
    done
}
