//! The numbers that the owner and the helper share. Compiled into both; `core` only.
//!
//! A plan is a flat buffer of operations: a u32 tag, then its arguments. A number is little-endian; a
//! text is a u32 length, the bytes and a NUL, so that the helper can hand it to the kernel in place.

/// Descriptor of the control socket in the helper.
pub(crate) const CONTROL: i32 = 3;
/// Bytes of a message header: six u32.
pub(crate) const HEADER: usize = 24;
/// Longest detail in an event.
pub(crate) const DETAIL: usize = 512;
/// Most descriptors beside one message.
pub(crate) const MOST_FDS: usize = 64;
/// Most exec sessions at a time.
pub(crate) const MOST_SESSIONS: usize = 128;

/// Owner to helper: `kind, tag, a, b, c, d`.
pub(crate) mod ask {
    /// Descriptors: the plan, then those it names by index.
    pub(crate) const PLAN: u32 = 1;
    pub(crate) const GO: u32 = 2;
    /// `tag`: session, 0 for the payload; `a`: signal.
    pub(crate) const KILL: u32 = 3;
    /// `tag`: session; `a`: 1 when it outlives the owner. Descriptors: the operations, then stdio, then groups to join.
    pub(crate) const EXEC: u32 = 4;
    /// `a`: place, `b`: domain, `c`: type, `d`: protocol << 8 | count.
    pub(crate) const SOCKETS: u32 = 5;
    /// `a`: 1 to live in it too. Descriptor: a network namespace, which stays open.
    pub(crate) const NAMESPACE: u32 = 6;
    /// `a`, `b`: lower and upper half of the inode of a network namespace that need not stay open.
    pub(crate) const RELEASE: u32 = 7;
    /// The start is recorded: from now on the payload outlives the owner, if the plan said so.
    pub(crate) const SETTLED: u32 = 8;
}

/// Helper to owner: `kind, tag, a, b, c, d`, then a detail.
pub(crate) mod tell {
    pub(crate) const NETWORK: u32 = 1;
    /// `a`: step, `b`: errno.
    pub(crate) const WARNING: u32 = 2;
    /// Descriptor: the payload's pidfd.
    pub(crate) const HELD: u32 = 3;
    /// Descriptors: pidfd, then the terminal if any.
    pub(crate) const STARTED: u32 = 4;
    pub(crate) const FAILED: u32 = 5;
    /// `a`: wait status.
    pub(crate) const EXITED: u32 = 6;
    pub(crate) const EXEC_STARTED: u32 = 7;
    pub(crate) const EXEC_FAILED: u32 = 8;
    pub(crate) const EXEC_EXITED: u32 = 9;
    /// `b`: errno. Descriptors: the sockets.
    pub(crate) const SOCKETS: u32 = 10;
    /// Inside the helper only: the terminal's master.
    pub(crate) const TERMINAL: u32 = 11;
    /// Inside the helper only: the pidfd of an exec session's process.
    pub(crate) const PROCESS: u32 = 12;
    /// Descriptor: the root directory of a view.
    pub(crate) const ROOT: u32 = 13;
    /// To a new owner. `a`: 1 with a terminal. Descriptors: the payload's pidfd, its terminal if any, the listening
    /// socket, the owner's ends of its stdio.
    pub(crate) const ADOPTED: u32 = 14;
    /// The root is made and not entered yet. Descriptor: the payload's pidfd.
    pub(crate) const PAUSED: u32 = 15;
}

/// Operations.
pub(crate) mod op {
    pub(crate) const END: u32 = 0;
    /// slave: u32
    pub(crate) const PRIVATE: u32 = 1;
    /// mount point, upper, work, flags, count, lower...
    pub(crate) const OVERLAY: u32 = 2;
    /// type, target, attributes, flags, source (for a fall-back bind), count, option...
    pub(crate) const FILE_SYSTEM: u32 = 3;
    /// source, target, device: u64, inode: u64, attributes, flags, propagation, subpath, mark of a copy
    pub(crate) const BIND: u32 = 4;
    /// path, mode
    pub(crate) const DIRECTORY: u32 = 5;
    /// path, target
    pub(crate) const SYMLINK: u32 = 6;
    /// path, path on the host, mode with type, major, minor, uid, gid, bind: u32
    pub(crate) const DEVICE: u32 = 7;
    /// path
    pub(crate) const MASK: u32 = 8;
    /// path
    pub(crate) const READONLY: u32 = 9;
    /// path below proc/sys of the new root, value
    pub(crate) const SYSCTL: u32 = 10;
    pub(crate) const PIVOT: u32 = 11;
    pub(crate) const READONLY_ROOT: u32 = 12;
    /// name
    pub(crate) const HOSTNAME: u32 = 13;
    /// name
    pub(crate) const DOMAINNAME: u32 = 14;
    /// Waits until the veth is there.
    pub(crate) const NETWORK_WAIT: u32 = 15;
    /// step, protocol, message
    pub(crate) const NETLINK: u32 = 16;
    pub(crate) const LOOPBACK_UP: u32 = 17;
    /// descriptor
    pub(crate) const JOIN_CGROUP: u32 = 18;
    /// resource, soft: u64, hard: u64
    pub(crate) const RLIMIT: u32 = 19;
    /// value
    pub(crate) const OOM_SCORE: u32 = 20;
    /// rows, columns, console: u32
    pub(crate) const TERMINAL: u32 = 21;
    /// user, count, group...
    pub(crate) const USER: u32 = 22;
    /// path, make: u32
    pub(crate) const DIRECTORY_WORKING: u32 = 23;
    /// mask
    pub(crate) const UMASK: u32 = 24;
    /// filter
    pub(crate) const SECCOMP: u32 = 25;
    /// bounding, permitted, effective, ambient: u64
    pub(crate) const CREDENTIALS: u32 = 26;
    pub(crate) const NO_NEW_PRIVILEGES: u32 = 27;
    pub(crate) const HOLD: u32 = 28;
    /// init: u32, count, argument..., count, variable...
    pub(crate) const EXEC: u32 = 29;
    /// index of the first of three descriptors
    pub(crate) const STDIO: u32 = 30;
    /// descriptor, kind of namespace
    pub(crate) const JOIN: u32 = 31;
    /// path
    pub(crate) const LOCK: u32 = 32;
    /// (descriptor + 1) to join, 0 to make
    pub(crate) const NETWORK: u32 = 33;
    /// path below /proc/sys of the host, value
    pub(crate) const HOST_SYSCTL: u32 = 34;
    /// Hands the network's namespace to the owner.
    pub(crate) const NETWORK_MADE: u32 = 35;
    /// flags: u64, cgroup descriptor + 1
    pub(crate) const CLONE: u32 = 36;
    /// message, offset + 1 of the payload's namespace, protocol
    pub(crate) const ATTACH: u32 = 37;
    /// descriptor
    pub(crate) const OWNER: u32 = 38;
    /// Joins the namespaces of the payload (exec): flags
    pub(crate) const ENTER: u32 = 39;
    /// flags
    pub(crate) const UNSHARE: u32 = 40;
    /// Hands the root directory to the owner and keeps it mounted until the owner leaves. bare: u32, without what is
    /// mounted below it.
    pub(crate) const SHARE_ROOT: u32 = 60;
    /// mount point outside the root, target, uid, gid, mode, content
    pub(crate) const SECRET: u32 = 61;
    /// descriptor of another mount namespace, path of a tmpfs there, target, attributes
    pub(crate) const MOUNT_OF: u32 = 62;
    /// path, target: a symbolic link, in the place of what is there
    pub(crate) const LINK: u32 = 63;
    /// flags, path, descriptor of the program + 1 or 0 for the path, working directory, capabilities: u64,
    /// milliseconds: u64, descriptor for its output, two halves of its input between which this process's number
    /// stands, count, argument..., count, variable...
    pub(crate) const HOOK: u32 = 64;
    /// Waits for the owner before the root is entered.
    pub(crate) const PAUSE: u32 = 65;
    /// descriptors of the listening socket and of the status file, of the first kept one, count of those
    pub(crate) const ADOPT: u32 = 41;
}

/// Flags of [`op::OVERLAY`].
pub(crate) mod overlay {
    pub(crate) const VOLATILE: u32 = 1;
    pub(crate) const USERXATTR: u32 = 2;
    /// No device node in it can be opened.
    pub(crate) const NO_DEVICES: u32 = 4;
}

/// Flags of [`op::FILE_SYSTEM`].
pub(crate) mod file_system {
    /// No component of the target may be a symbolic link.
    pub(crate) const NO_SYMLINKS: u32 = 1;
    /// Where the mount is refused, bind the source instead.
    pub(crate) const OR_BIND: u32 = 2;
    /// Start with what the root has at the target.
    pub(crate) const COPY_UP: u32 = 4;
    /// A refusal is a warning.
    pub(crate) const OPTIONAL: u32 = 8;
    /// The root directory gets the mode that the target has, 1777 when it is made for this.
    pub(crate) const KEEP_MODE: u32 = 16;
}

/// Flags of [`op::HOOK`].
pub(crate) mod hook {
    /// A failure is a warning.
    pub(crate) const OPTIONAL: u32 = 1;
}

/// Flags of [`op::BIND`].
pub(crate) mod bind {
    pub(crate) const RECURSIVE: u32 = 1;
    pub(crate) const COPY_UP: u32 = 2;
    pub(crate) const RECURSIVE_READ_ONLY: u32 = 4;
}
