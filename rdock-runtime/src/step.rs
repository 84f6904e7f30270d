//! The steps of a launch, so that a failure says where it happened.

/// What the helper was doing. The numbers are those of the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u16)]
#[allow(missing_docs)]
pub enum Step {
    Spawn = 1,
    ReceivePlan = 2,
    LockState = 3,
    UserNamespace = 4,
    NetworkNamespace = 5,
    NetworkSetup = 6,
    Clone = 7,
    JoinCgroup = 8,
    NetworkAttach = 9,
    NetworkConfigure = 10,
    Hostname = 11,
    MountPrivate = 12,
    MountRoot = 13,
    Mount = 14,
    CopyUp = 15,
    Device = 16,
    MaskPath = 17,
    ReadonlyPath = 18,
    PivotRoot = 19,
    Sysctl = 20,
    Rlimit = 21,
    OomScore = 22,
    Terminal = 23,
    User = 24,
    WorkingDirectory = 25,
    Capabilities = 26,
    NoNewPrivileges = 27,
    Seccomp = 28,
    Exec = 29,
    JoinNamespaces = 30,
}
