//! What the helper is asked to do, as plain data: every default filled in, every choice made.
//!
//! `crate::plan` makes a [`LaunchPlan`] out of a spec and an image config; `super::encode` turns
//! it into the flat buffer that the helper walks. Paths are bytes, since Linux paths are.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// Everything one container needs from clone to exec.
#[derive(Debug, Default)]
pub(crate) struct LaunchPlan {
    /// Directory of the container's state; the helper opens and `flock`s `lock` in it and holds it for life.
    pub(crate) state_dir: PathBuf,
    /// `Some` when the container has a user namespace of its own.
    pub(crate) user_namespace: Option<IdMappings>,
    pub(crate) pid: NamespacePlan,
    pub(crate) ipc: NamespacePlan,
    pub(crate) uts: NamespacePlan,
    pub(crate) cgroup_namespace: NamespacePlan,
    pub(crate) network: NetworkPlan,
    pub(crate) hostname: Option<String>,
    pub(crate) domainname: Option<String>,
    pub(crate) root: RootPlan,
    /// In order; each is attached below the new root, its target resolved inside the root.
    pub(crate) mounts: Vec<MountPlan>,
    /// Files in memory, bound after all mounts.
    pub(crate) secrets: Vec<SecretPlan>,
    /// Device nodes below `/dev`, made (or bound from the host where mknod is refused).
    pub(crate) devices: Vec<DevicePlan>,
    /// Those that the user asked for, wherever they are to be; made after all mounts.
    pub(crate) own_devices: Vec<DevicePlan>,
    /// Made after these, in the place of what is there.
    pub(crate) links: Vec<LinkPlan>,
    pub(crate) hooks: HooksPlan,
    /// Over-mounted with nothing: files by `/dev/null` (char 1:3 verified), directories by one shared empty read-only tmpfs. A missing path is skipped.
    pub(crate) masked_paths: Vec<String>,
    /// Bound onto themselves read-only. A missing path is skipped.
    pub(crate) readonly_paths: Vec<String>,
    /// `(name with dots, value)`; written through the helper's own procfs.
    pub(crate) sysctls: Vec<(String, String)>,
    /// `cgroup.procs` of every v1 hierarchy to join, open for writing (the payload writes "0").
    pub(crate) cgroup_procs: Vec<OwnedFd>,
    /// v2 cgroup directory for CLONE_INTO_CGROUP (falling back to a write of cgroup.procs).
    pub(crate) cgroup_dir: Option<OwnedFd>,
    pub(crate) process: ProcessPlan,
    /// The payload's stdio; unused with a terminal.
    pub(crate) stdio: Option<[OwnedFd; 3]>,
    /// The helper is pid 1 for the payload: forwards signals, reaps orphans (`--init`).
    pub(crate) init: bool,
    /// Die with the owner: the helper exits when this pidfd becomes readable or the control socket closes.
    pub(crate) owner: Option<OwnedFd>,
    /// The payload waits for [`super::Launch::go`] between the end of set-up and exec.
    pub(crate) hold: bool,
    /// Once settled ([`super::Helper::settle`]) the helper outlives its owner and waits for a new one.
    pub(crate) adopt: Option<AdoptPlan>,
}

/// What the helper keeps for an owner that comes after its first one.
#[derive(Debug)]
pub(crate) struct AdoptPlan {
    /// A listening socket, where the new owner connects.
    pub(crate) reunion: OwnedFd,
    /// An empty file: the payload's wait status is written into it, as a number.
    pub(crate) status: OwnedFd,
    /// The owner's ends of the payload's stdio, those that are there; a terminal's master the helper has anyway.
    pub(crate) stdio: Vec<OwnedFd>,
}

/// A look at the files of a container, running or not.
#[derive(Debug)]
pub(crate) struct ViewPlan {
    /// Directory of the container's state.
    pub(crate) state_dir: PathBuf,
    /// The container does not run, and does not start as long as its `lock` is held.
    pub(crate) lock: bool,
    /// That of the container, to mount in.
    pub(crate) user_namespace: Option<IdMappings>,
    /// Namespaces of the running payload, in order, with their CLONE_NEW* flags; nothing is mounted then.
    pub(crate) join: Vec<(OwnedFd, u64)>,
    pub(crate) root: RootPlan,
    pub(crate) mounts: Vec<MountPlan>,
    /// Without what is mounted below the root.
    pub(crate) bare: bool,
    /// The helper ends when this pidfd becomes readable, or the control socket closes.
    pub(crate) owner: OwnedFd,
}

/// A file in memory that the container sees read-only.
#[derive(Clone)]
pub(crate) struct SecretPlan {
    /// Absolute path inside the container; made when missing.
    pub(crate) target: PathBuf,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mode: u32,
    pub(crate) content: std::sync::Arc<[u8]>,
}

impl std::fmt::Debug for SecretPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SecretPlan")
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}

/// A symbolic link inside the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LinkPlan {
    /// Absolute.
    pub(crate) path: PathBuf,
    /// Where it leads, absolute or relative to the link.
    pub(crate) target: PathBuf,
}

/// Programs that run on the way to the payload's exec, in this order.
#[derive(Debug, Default)]
pub(crate) struct HooksPlan {
    /// Where all of them write; needed when there is any.
    pub(crate) output: Option<OwnedFd>,
    /// First the payload waits for [`super::Helper::go`], for those that the owner runs ([`super::Event::Paused`]).
    pub(crate) pause: bool,
    /// In the container's namespaces, with the paths of the host.
    pub(crate) before_root: Vec<HookPlan>,
    /// In the container's root, with every privilege that is not taken away.
    pub(crate) inside: Vec<HookPlan>,
    /// In the container, as the payload.
    pub(crate) before_exec: Vec<HookPlan>,
}

/// One of them.
#[derive(Debug)]
pub(crate) struct HookPlan {
    /// What is executed; for people when there is a descriptor.
    pub(crate) path: PathBuf,
    /// The program itself, which needs no loader.
    pub(crate) program: Option<OwnedFd>,
    pub(crate) args: Vec<String>,
    /// All that is in its environment.
    pub(crate) env: Vec<String>,
    pub(crate) directory: PathBuf,
    /// Its input, before and after the payload's number.
    pub(crate) input: (String, String),
    /// Then it is killed.
    pub(crate) timeout: std::time::Duration,
    /// The most it can have of capabilities; `None` is what this program has.
    pub(crate) bounding: Option<u64>,
    /// When it fails the container starts all the same, with a warning.
    pub(crate) optional: bool,
}

/// Contents of `uid_map` and `gid_map`; `setgroups` is denied when the maps are a single id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IdMappings {
    /// `(inside, outside, count)`.
    pub(crate) uids: Vec<(u32, u32, u32)>,
    pub(crate) gids: Vec<(u32, u32, u32)>,
    pub(crate) deny_setgroups: bool,
}

/// Where one namespace of the payload comes from.
#[derive(Debug, Default)]
pub(crate) enum NamespacePlan {
    #[default]
    New,
    /// The owner's own.
    Host,
    /// That of another container (an open `/proc/PID/ns/KIND`).
    Join(OwnedFd),
}

/// The payload's network.
#[derive(Debug, Default)]
pub(crate) enum NetworkPlan {
    /// A new namespace with `lo` up and nothing else.
    #[default]
    None,
    Host,
    Join(OwnedFd),
    /// The helper lives in the network's namespace; the payload has its own, joined by a veth.
    Bridged(Box<BridgedPlan>),
    /// The namespaces of an earlier run, with everything that is in them.
    Kept {
        /// The helper's.
        network: OwnedFd,
        /// The payload's.
        payload: OwnedFd,
    },
}

/// Messages are complete netlink messages (header included, `NLM_F_ACK` set); the helper only sends
/// them, in order, and checks each acknowledgement.
#[derive(Debug, Default)]
pub(crate) struct BridgedPlan {
    /// The network's namespace to enter; `None`: the helper makes it, runs `setup` in it and hands
    /// its descriptor to the owner ([`super::Event::NetworkMade`]).
    pub(crate) join: Option<OwnedFd>,
    /// NETLINK_ROUTE messages run in a network namespace just made (lo, bridge with ifindex 2, gateway address).
    pub(crate) setup: Vec<Vec<u8>>,
    /// One NETLINK_NETFILTER batch run after `setup` in a network namespace just made; may be empty. One message
    /// of it asks for an acknowledgement; the first NLMSG_ERROR that comes back decides (0 is success).
    pub(crate) setup_nft: Vec<u8>,
    /// `/proc/sys` writes in the network's namespace just made (`net/ipv4/...`, value).
    pub(crate) setup_sysctls: Vec<(String, String)>,
    /// Messages run in the network's namespace once the payload's exists (the veth pair).
    pub(crate) attach: Vec<AttachMessage>,
    /// NETLINK_ROUTE messages run in the payload's namespace (lo and eth0 up, address, default route).
    pub(crate) configure: Vec<Vec<u8>>,
    /// One NETLINK_NETFILTER batch run in the payload's namespace after `configure`; may be empty.
    pub(crate) configure_nft: Vec<u8>,
    /// `/proc/sys` writes in the payload's namespace, before `configure`.
    pub(crate) configure_sysctls: Vec<(String, String)>,
}

/// A message that names the payload's network namespace by descriptor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AttachMessage {
    pub(crate) bytes: Vec<u8>,
    /// Of the netlink socket: 0 is NETLINK_ROUTE, 12 NETLINK_NETFILTER.
    pub(crate) protocol: u32,
    /// Offset of the native-endian u32 that the helper replaces by its descriptor of the payload's namespace.
    pub(crate) payload_namespace_at: Option<usize>,
}

/// The root file system.
#[derive(Debug, Default)]
pub(crate) struct RootPlan {
    /// The last one is the root.
    pub(crate) mounts: Vec<RootMount>,
    pub(crate) read_only: bool,
    /// No device node in it can be opened.
    pub(crate) no_devices: bool,
}

/// An overlay, and where it is attached before the root changes.
#[derive(Debug)]
pub(crate) struct RootMount {
    /// `None`: at a directory that no container sees.
    pub(crate) point: Option<PathBuf>,
    pub(crate) mount: rdock_image::Mount,
}

impl RootMount {
    /// Where the root is in the payload's mount namespace before it is entered: a directory that every root has and no
    /// container needs.
    pub(crate) fn point_of_root(state_dir: &std::path::Path) -> PathBuf {
        let containers = state_dir.parent().unwrap_or(std::path::Path::new("/"));
        containers.join("names")
    }
}

impl From<rdock_image::Mount> for RootMount {
    fn from(mount: rdock_image::Mount) -> Self {
        Self { point: None, mount }
    }
}

/// One mount below the root.
#[derive(Debug, Clone)]
pub(crate) struct MountPlan {
    pub(crate) kind: MountKind,
    /// Absolute path inside the container; made when missing (a file for a file source).
    pub(crate) target: PathBuf,
    pub(crate) flags: MountFlags,
}

#[derive(Debug, Clone)]
pub(crate) enum MountKind {
    /// proc, sysfs, devpts, mqueue, tmpfs, cgroup2: options as `key[=value]`. A sysfs or mqueue that may
    /// not be mounted (no own network namespace, rootless) falls back to a recursive bind of the host's.
    FileSystem {
        fstype: &'static str,
        options: Vec<String>,
    },
    /// The whole v1 cgroup view of the payload, read-only, one directory per hierarchy.
    CgroupV1 {
        hierarchies: Vec<PathBuf>,
    },
    Bind(BindPlan),
    /// A file system in memory that another container has mounted at `path`.
    OfContainer {
        /// Its mount namespace.
        mounts: std::sync::Arc<OwnedFd>,
        path: PathBuf,
    },
    /// A tmpfs the user asked for, without a `mode` with that of the target (1777 where there is none);
    /// `copy_up`: starts with what the image has at the target.
    Tmpfs {
        options: Vec<String>,
        copy_up: bool,
    },
}

#[derive(Debug, Clone)]
pub(crate) struct BindPlan {
    /// Path on the host, opened by the payload before it changes its root.
    pub(crate) source: PathBuf,
    /// Device and inode the owner saw at `source`; anything else there is an error.
    pub(crate) expect: (u64, u64),
    pub(crate) recursive: bool,
    /// Subdirectory of the source, resolved beneath it.
    pub(crate) subpath: Option<PathBuf>,
    /// MS_* propagation: `Private` by default.
    pub(crate) propagation: Propagation,
    /// Fill the (empty, never used) source with what the image has at the target, then create this file;
    /// owner, mode and xattrs of the directory included.
    pub(crate) copy_up: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Propagation {
    #[default]
    Private,
    Slave,
    Shared,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct MountFlags {
    pub(crate) read_only: bool,
    pub(crate) no_suid: bool,
    pub(crate) no_dev: bool,
    pub(crate) no_exec: bool,
    pub(crate) strict_atime: bool,
    /// Apply `read_only` to mounts below the source too (mount_setattr AT_RECURSIVE).
    pub(crate) recursive_read_only: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DevicePlan {
    /// Its node on the host, for where no node can be made.
    pub(crate) source: PathBuf,
    /// Absolute path inside the container.
    pub(crate) path: PathBuf,
    /// 'c', 'b' or 'p'.
    pub(crate) kind: char,
    pub(crate) major: u32,
    pub(crate) minor: u32,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// A process inside the container: the payload, or one that `exec` adds.
#[derive(Debug, Clone, Default)]
pub(crate) struct ProcessPlan {
    /// `args[0]` is looked up in the container's `PATH` (from `env`) when it has no slash.
    pub(crate) args: Vec<Vec<u8>>,
    /// `NAME=value`. The helper adds `HOME` from the passwd entry when absent.
    pub(crate) env: Vec<Vec<u8>>,
    /// Resolved inside the root; made when missing (payload only).
    pub(crate) cwd: PathBuf,
    pub(crate) make_cwd: bool,
    /// `""`, `user`, `uid`, `user:group`, `uid:gid`...; looked up in the container's own passwd and group by the helper.
    pub(crate) user: String,
    /// More groups, by name or number.
    pub(crate) additional_groups: Vec<String>,
    pub(crate) umask: Option<u32>,
    pub(crate) capabilities: CapabilitySets,
    pub(crate) no_new_privileges: bool,
    /// An array of `struct sock_filter`; empty means none.
    pub(crate) seccomp: std::sync::Arc<[u8]>,
    /// `(RLIMIT_*, soft, hard)`. A refused raise is reported as a warning event, not a failure.
    pub(crate) rlimits: Vec<(u32, u64, u64)>,
    pub(crate) oom_score_adj: Option<i32>,
    /// A pseudo-terminal of the container's own devpts; its master comes back with the start event.
    pub(crate) terminal: Option<TerminalSize>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct TerminalSize {
    pub(crate) rows: u16,
    pub(crate) columns: u16,
}

impl ProcessPlan {
    /// Sets a variable, `NAME=value`, in the place of another value.
    pub(crate) fn set_variable(&mut self, entry: Vec<u8>) {
        let name = entry.iter().position(|&byte| byte == b'=').map_or(0, |at| at + 1);
        self.env.retain(|known| !known.starts_with(&entry[..name]));
        self.env.push(entry);
    }
}

/// Bit masks as in capset(2). For a user other than root the helper leaves effective, permitted and ambient empty unless `ambient` asks.
/// The inheritable set is always empty unless it is needed for `ambient`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct CapabilitySets {
    pub(crate) bounding: u64,
    pub(crate) permitted: u64,
    pub(crate) effective: u64,
    pub(crate) ambient: u64,
}

impl CapabilitySets {
    /// Takes the capabilities of a mask out of every set.
    pub(crate) fn remove(&mut self, mask: u64) {
        for set in [
            &mut self.bounding,
            &mut self.permitted,
            &mut self.effective,
            &mut self.ambient,
        ] {
            *set &= !mask;
        }
    }
}
