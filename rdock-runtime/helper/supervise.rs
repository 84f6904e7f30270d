//! The helper's own life: take the plan, clone the payload, then answer the owner until the end.

mod reunion;
mod sessions;

use crate::kernel::*;
use crate::netlink::netlink;
use crate::plan::{At, Failure, Plan};
use crate::process::Setup;
use crate::step::Step;
use crate::wire::{self, CONTROL, DETAIL, HEADER, MOST_FDS, ask, op, tell};
use reunion::Reunion;
use sessions::Session;

const POLLIN: i16 = 1;
/// Networks that a container is in beside its first.
const MOST_NETWORKS: usize = 32;
const NEWNET: u64 = 0x4000_0000;

struct Helper {
    /// Descriptors that came with the plan.
    fds: [i32; MOST_FDS],
    fd_count: usize,
    /// The control socket; -1 once it has closed on a container without a lifeline.
    control: i32,
    owner: i32,
    payload: i32,
    payload_pid: i32,
    /// The payload's status socket until its exec succeeded.
    status: i32,
    terminal: i32,
    sessions: [Session; wire::MOST_SESSIONS],
    session_count: usize,
    /// Namespaces of networks that live as long as this process.
    networks: [i32; MOST_NETWORKS],
    reunion: Option<Reunion>,
    /// The start is recorded: with a reunion, the end of the owner is not the container's.
    settled: bool,
    /// The payload's wait status, once it has ended and while nobody has been told.
    ended: Option<i32>,
    payload_ended: bool,
}

/// Sends one event to the owner (or, in a child, to the helper).
pub fn report(socket: i32, kind: u32, tag: u32, a: i32, b: i32, detail: &[u8], fds: &[i32]) -> Result<()> {
    let mut message = [0u8; HEADER + DETAIL];
    for (at, value) in [kind, tag, a as u32, b as u32, 0, 0].into_iter().enumerate() {
        message[at * 4..at * 4 + 4].copy_from_slice(&value.to_le_bytes());
    }
    let length = detail.len().min(DETAIL);
    message[HEADER..HEADER + length].copy_from_slice(&detail[..length]);
    send_fds(socket, &message[..HEADER + length], fds)
}

fn header(message: &[u8]) -> [u32; 6] {
    let mut values = [0; 6];
    for (at, value) in values.iter_mut().enumerate() {
        let raw = &message[at * 4..at * 4 + 4];
        *value = u32::from_le_bytes([raw[0], raw[1], raw[2], raw[3]]);
    }
    values
}

/// The whole life of the helper.
pub fn run() -> ! {
    // PR_SET_DUMPABLE: nobody reads this process through /proc or ptrace.
    let _ = prctl(4, 0, 0);
    let mut helper = Helper {
        fds: [-1; MOST_FDS],
        fd_count: 0,
        control: CONTROL,
        owner: -1,
        payload: -1,
        payload_pid: 0,
        status: -1,
        terminal: -1,
        sessions: [Session { number: 0, pidfd: -1, pid: 0, status: -1, terminal: -1, outlives: false }; wire::MOST_SESSIONS],
        session_count: 0,
        networks: [-1; MOST_NETWORKS],
        reunion: None,
        settled: false,
        ended: None,
        payload_ended: false,
    };
    if let Err(failure) = helper.start() {
        fail(&failure);
    }
    loop {
        helper.turn();
    }
}

fn fail(failure: &Failure) -> ! {
    let detail = &failure.detail[..failure.length];
    // An owner that is gone needs no report.
    let _ = report(CONTROL, tell::FAILED, 0, failure.step as i32, failure.errno, detail, &[]);
    exit(1)
}

impl Helper {
    fn descriptor(&self, index: u32) -> Result<i32> {
        if (index as usize) < self.fd_count { Ok(self.fds[index as usize]) } else { Err(EPROTO) }
    }

    fn start(&mut self) -> core::result::Result<(), Failure> {
        let step = Step::ReceivePlan;
        let mut message = [0u8; HEADER];
        let (length, count) = receive_fds(CONTROL, &mut message, &mut self.fds).at(step, b"")?;
        if length == 0 {
            exit(0);
        }
        if length != HEADER || header(&message)[0] != ask::PLAN || count == 0 {
            return Err(EPROTO).at(step, b"");
        }
        self.fd_count = count;
        let plan = read_plan(self.fds[0]).at(step, b"")?;
        let mut plan = Plan::new(plan);
        let mut before = plan.nested().at(step, b"")?;
        let mut payload = plan.nested().at(step, b"")?;
        let mut after = plan.nested().at(step, b"")?;
        let mut flags = 0;
        let mut cgroup = None;
        loop {
            match before.u32().at(step, b"")? {
                op::END => break,
                op::CLONE => {
                    flags = before.u64().at(step, b"")?;
                    let index = before.u32().at(step, b"")?;
                    if index > 0 {
                        cgroup = Some(self.descriptor(index - 1).at(step, b"")?);
                    }
                }
                tag => self.prepare(tag, &mut before)?,
            }
        }
        let (ours, theirs) = socketpair().at(Step::Clone, b"")?;
        let pid = self.clone_payload(flags, cgroup).at(Step::Clone, b"")?;
        if pid == 0 {
            close(ours);
            close(CONTROL);
            let mut setup = Setup::new(theirs, self.fds, self.fd_count);
            setup.walk(&mut payload);
        }
        close(theirs);
        self.payload_pid = pid;
        self.status = ours;
        self.attach(&mut after)?;
        // What only the payload needed: the network's other end, stdio, cgroups.
        for index in 0..self.fd_count {
            if self.fds[index] != self.owner && !self.is_kept(index) {
                close(self.fds[index]);
            }
        }
        Ok(())
    }

    fn is_kept(&self, index: usize) -> bool {
        let fd = self.fds[index];
        self.reunion.is_some_and(|kept| {
            fd == kept.socket || fd == kept.status || (kept.first..kept.first + kept.count).contains(&index)
        })
    }

    /// Operations of the helper itself, before the payload exists.
    fn prepare(&mut self, tag: u32, plan: &mut Plan<'_>) -> core::result::Result<(), Failure> {
        let bad = Step::ReceivePlan;
        match tag {
            op::LOCK => {
                let path = plan.text().at(bad, b"")?;
                let lock = openat(AT_FDCWD, path, O_RDONLY, 0).at(Step::LockState, path.bytes())?;
                flock_exclusive(lock).at(Step::LockState, path.bytes())
            }
            op::OWNER => {
                self.owner = self.descriptor(plan.u32().at(bad, b"")?).at(bad, b"")?;
                Ok(())
            }
            op::ADOPT => {
                let (socket, status) = (plan.u32().at(bad, b"")?, plan.u32().at(bad, b"")?);
                let (first, count) = (plan.u32().at(bad, b"")? as usize, plan.u32().at(bad, b"")? as usize);
                if count > 0 && (first >= self.fd_count || count > self.fd_count - first) {
                    return Err(EPROTO).at(bad, b"");
                }
                self.reunion = Some(Reunion {
                    socket: self.descriptor(socket).at(bad, b"")?,
                    status: self.descriptor(status).at(bad, b"")?,
                    first,
                    count,
                });
                Ok(())
            }
            op::NETWORK => {
                let index = plan.u32().at(bad, b"")?;
                if index == 0 {
                    return unshare(NEWNET).at(Step::NetworkNamespace, b"");
                }
                let fd = self.descriptor(index - 1).at(bad, b"")?;
                setns(fd, NEWNET).at(Step::NetworkNamespace, b"")
            }
            op::NETLINK => {
                let (protocol, message) = (plan.u32().at(bad, b"")?, plan.bytes().at(bad, b"")?);
                netlink(protocol as i32, message).at(Step::NetworkSetup, b"")
            }
            op::HOST_SYSCTL => {
                let (path, value) = (plan.text().at(bad, b"")?, plan.bytes().at(bad, b"")?);
                if let Err(errno) = write_file(AT_FDCWD, path, value) {
                    let _ = report(CONTROL, tell::WARNING, 0, Step::Sysctl as i32, errno, path.bytes(), &[]);
                }
                Ok(())
            }
            op::NETWORK_MADE => {
                let own = openat(AT_FDCWD, text!("/proc/self/ns/net"), O_RDONLY, 0).at(Step::NetworkNamespace, b"")?;
                let told = report(CONTROL, tell::NETWORK, 0, 0, 0, b"", &[own]);
                close(own);
                told.at(Step::NetworkNamespace, b"")
            }
            op::JOIN => {
                let (fd, kind) = (plan.u32().at(bad, b"")?, plan.u64().at(bad, b"")?);
                setns(self.descriptor(fd).at(bad, b"")?, kind).at(Step::JoinNamespaces, b"")
            }
            _ => Err(EPROTO).at(bad, b""),
        }
    }

    fn clone_payload(&mut self, flags: u64, cgroup: Option<i32>) -> Result<i32> {
        let made = clone3(flags, SIGCHLD as u64, cgroup, &mut self.payload);
        match made {
            // A filter around this program: seccomp answers clone3 with either.
            Err(ENOSYS | EPERM) if cgroup.is_none() => {}
            Err(errno) if cgroup.is_some() && errno != EAGAIN => {}
            other => return other,
        }
        let pid = clone(flags & 0xffff_ffff, SIGCHLD as u64, &mut self.payload)?;
        if pid == 0 {
            if let Some(cgroup) = cgroup {
                // The payload joins by itself; a refusal shows as a missing limit in the owner's check.
                let _ = write_file(cgroup, text!("cgroup.procs"), b"0");
            }
        }
        Ok(pid)
    }

    /// Once the payload's namespaces exist: its end of the network.
    fn attach(&mut self, plan: &mut Plan<'_>) -> core::result::Result<(), Failure> {
        let step = Step::NetworkAttach;
        let mut any = false;
        loop {
            match plan.u32().at(step, b"")? {
                op::END => break,
                op::ATTACH => {
                    any = true;
                    let message = plan.bytes().at(step, b"")?;
                    let offset = plan.u32().at(step, b"")? as usize;
                    let protocol = plan.u32().at(step, b"")? as i32;
                    let mut copy = [0u8; 2048];
                    if message.len() > copy.len() {
                        return Err(E2BIG).at(step, b"");
                    }
                    copy[..message.len()].copy_from_slice(message);
                    let mut namespace = -1;
                    if offset > 0 {
                        if offset - 1 + 4 > message.len() {
                            return Err(EPROTO).at(step, b"");
                        }
                        namespace = self.payload_namespace().at(step, b"")?;
                        copy[offset - 1..offset + 3].copy_from_slice(&namespace.to_ne_bytes());
                    }
                    let sent = netlink(protocol, &copy[..message.len()]);
                    if namespace >= 0 {
                        close(namespace);
                    }
                    sent.at(step, b"")?;
                }
                _ => return Err(EPROTO).at(step, b""),
            }
        }
        if any {
            send(self.status, b"n").at(step, b"")?;
        }
        Ok(())
    }

    /// A descriptor of the payload's network namespace. /proc here numbers processes as the host does, so
    /// the way leads through /proc/self: in, open, and back.
    fn payload_namespace(&self) -> Result<i32> {
        let own = openat(AT_FDCWD, text!("/proc/self/ns/net"), O_RDONLY, 0)?;
        let entered = setns(self.payload, NEWNET);
        let found = entered.and_then(|()| openat(AT_FDCWD, text!("/proc/self/ns/net"), O_RDONLY, 0));
        let back = setns(own, NEWNET);
        close(own);
        back.and(found)
    }

    /// One round: wait for anything, handle it.
    fn turn(&mut self) {
        let mut set = [Polled { fd: -1, wanted: POLLIN, found: 0 }; 4 + 2 * wire::MOST_SESSIONS];
        set[0].fd = self.control;
        set[1].fd = if self.payload_ended { -1 } else { self.payload };
        set[2].fd = if self.control < 0 { self.listening() } else { self.owner };
        set[3].fd = self.status;
        for at in 0..self.session_count {
            set[4 + 2 * at].fd = self.sessions[at].pidfd;
            set[5 + 2 * at].fd = self.sessions[at].status;
        }
        let used = 4 + 2 * self.session_count;
        if poll(&mut set[..used]).is_err() {
            return;
        }
        // Sessions first: the payload's end waits for them to be reaped.
        for at in (0..self.session_count).rev() {
            if set[5 + 2 * at].found != 0 {
                self.session_status(at);
            }
            if set[4 + 2 * at].found != 0 {
                self.session_ended(at);
            }
        }
        if set[3].found != 0 {
            self.payload_status();
        }
        if set[1].found != 0 {
            self.payload_ended();
        }
        // What the owner said before its end comes first.
        if set[0].found != 0 {
            self.request();
        } else if set[2].found != 0 {
            if self.control < 0 {
                self.welcome();
            } else {
                self.owner_gone();
            }
        }
    }

    /// Everything is to end now.
    fn end(&self) -> ! {
        if self.payload >= 0 {
            // Needed when the payload shares a pid namespace; otherwise this process's end is enough.
            let _ = pidfd_send_signal(self.payload, SIGKILL);
        }
        exit(0)
    }

    fn payload_status(&mut self) {
        let mut message = [0u8; HEADER + DETAIL];
        let mut fds = [-1; MOST_FDS];
        let Ok((length, count)) = receive_fds(self.status, &mut message, &mut fds) else { return };
        if length < HEADER {
            // Closed by exec, or by the payload's end before it.
            close(self.status);
            self.status = -1;
            let told = [self.payload, self.terminal];
            let told = if self.terminal >= 0 { &told[..] } else { &told[..1] };
            if report(CONTROL, tell::STARTED, 0, self.payload_pid, 0, b"", told).is_err() {
                self.owner_gone();
            }
            if self.terminal >= 0 && self.reunion.is_none() {
                close(self.terminal);
                self.terminal = -1;
            }
            return;
        }
        let [kind, _, a, b, ..] = header(&message);
        match kind {
            tell::TERMINAL if count == 1 => self.terminal = fds[0],
            tell::ROOT if count == 1 => {
                let _ = report(CONTROL, tell::ROOT, 0, 0, 0, b"", &fds[..1]);
                close(fds[0]);
            }
            tell::FAILED => {
                let _ = report(CONTROL, tell::FAILED, 0, a as i32, b as i32, &message[HEADER..length], &[]);
                self.end();
            }
            tell::HELD | tell::PAUSED => {
                let _ = report(CONTROL, kind, 0, 0, 0, b"", &[self.payload]);
            }
            // WARNING passes through.
            _ => {
                let _ = report(CONTROL, kind, 0, a as i32, b as i32, &message[HEADER..length], &[]);
            }
        }
    }

    fn payload_ended(&mut self) {
        // What it said before its end comes first: a failure must not look like an exit.
        while self.status >= 0 {
            self.payload_status();
        }
        let mut status = 0;
        let _ = wait(self.payload_pid, &mut status, true);
        if let Some(kept) = self.reunion {
            let mut text = [0u8; 12];
            // Whatever becomes of this process and of its owner, somebody reads it here.
            let _ = write_all(kept.status, decimal(status as u32, &mut text));
        }
        // No longer waited for. Its pidfd stays, since a new owner wants one.
        self.payload_ended = true;
        self.tell_end(status);
    }

    fn request(&mut self) {
        let mut message = [0u8; HEADER];
        let mut fds = [-1; MOST_FDS];
        let received = receive_fds(CONTROL, &mut message, &mut fds);
        let (length, count) = match received {
            Ok(received) => received,
            Err(_) => (0, 0),
        };
        if length == 0 {
            self.owner_gone();
            return;
        }
        let [kind, tag, a, b, c, d] = header(&message);
        match kind {
            ask::GO => {
                let _ = send(self.status, b"g");
            }
            ask::KILL => {
                let target = if tag == 0 { Some(self.payload) } else { self.session(tag).map(|at| self.sessions[at].pidfd) };
                if let Some(target) = target {
                    let _ = pidfd_send_signal(target, a as i32);
                }
            }
            ask::EXEC => self.exec(tag, a != 0, &fds, count),
            ask::SETTLED => self.settled = true,
            ask::SOCKETS => self.sockets(tag, a, b, c, d),
            ask::NAMESPACE if count == 1 => {
                if let Some(free) = self.networks.iter_mut().find(|held| **held < 0) {
                    *free = fds[0];
                    fds[0] = -1;
                    if a == 1 {
                        // One that is refused stays where it is: the namespace is open all the same.
                        let _ = setns(*free, NEWNET);
                    }
                }
            }
            ask::RELEASE => {
                let inode = u64::from(a) | u64::from(b) << 32;
                for held in &mut self.networks {
                    if *held >= 0 && fstat(*held).is_ok_and(|found| found.inode == inode) {
                        close(*held);
                        *held = -1;
                    }
                }
            }
            _ => {}
        }
        for fd in &fds[..count] {
            if *fd >= 0 {
                close(*fd);
            }
        }
    }

    fn sockets(&self, tag: u32, place: u32, domain: u32, kind: u32, rest: u32) {
        let (protocol, count) = ((rest >> 8) as i32, (rest & 0xff).min(16) as usize);
        let mut made = [-1; 16];
        let mut errno = 0;
        let mut own = -1;
        let mut entered = true;
        if place == 1 {
            own = openat(AT_FDCWD, text!("/proc/self/ns/net"), O_RDONLY, 0).unwrap_or(-1);
            entered = own >= 0 && setns(self.payload, NEWNET).is_ok();
        }
        let mut ready = 0;
        if entered {
            for slot in made.iter_mut().take(count) {
                // SOCK_CLOEXEC | SOCK_NONBLOCK
                match socket(domain as i32, kind as i32 | 0o2004000, protocol) {
                    Ok(fd) => {
                        *slot = fd;
                        ready += 1;
                    }
                    Err(error) => {
                        errno = error;
                        break;
                    }
                }
            }
        } else {
            errno = EPERM;
        }
        if place == 1 && own >= 0 {
            let _ = setns(own, NEWNET);
            close(own);
        }
        let fds = if errno == 0 { &made[..ready] } else { &[] };
        let _ = report(CONTROL, tell::SOCKETS, tag, 0, errno, b"", fds);
        for fd in &made[..ready] {
            close(*fd);
        }
    }
}

/// The digits of a number.
pub fn decimal(mut value: u32, text: &mut [u8; 12]) -> &[u8] {
    let mut at = text.len();
    loop {
        at -= 1;
        text[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            return &text[at..];
        }
    }
}

fn read_plan(memfd: i32) -> Result<&'static [u8]> {
    let size = fstat(memfd)?.size as usize;
    map(memfd, size)
}

/// Writes a whole small file.
pub fn write_file(dir: i32, path: Text<'_>, value: &[u8]) -> Result<()> {
    let fd = openat(dir, path, O_WRONLY, 0)?;
    let written = write_all(fd, value);
    close(fd);
    written
}

/// Writes a file of the container's own procfs, and nothing that a mount of the user's has put in its place.
pub fn write_own_proc(path: Text<'_>, value: &[u8]) -> Result<()> {
    let fd = openat(AT_FDCWD, path, O_WRONLY, 0)?;
    let done = if fs_magic(fd)? == PROC_MAGIC { write_all(fd, value) } else { Err(EINVAL) };
    close(fd);
    done
}
