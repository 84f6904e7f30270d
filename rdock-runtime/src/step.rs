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
    Hook = 31,
    Link = 32,
}

impl Step {
    /// The step of a number on the wire.
    pub(crate) fn from_wire(number: u16) -> Option<Self> {
        ALL.iter().copied().find(|step| *step as u16 == number)
    }

    /// What was being done, to follow "failed while".
    pub fn doing(self) -> &'static str {
        match self {
            Self::Spawn => "starting the helper",
            Self::ReceivePlan => "reading the plan",
            Self::LockState => "locking the state directory",
            Self::UserNamespace => "setting up the user namespace",
            Self::NetworkNamespace => "entering the network",
            Self::NetworkSetup => "setting up the network",
            Self::Clone => "creating the container's namespaces",
            Self::JoinCgroup => "joining the control group",
            Self::NetworkAttach => "connecting to the network",
            Self::NetworkConfigure => "configuring the network interface",
            Self::Hostname => "setting the host name",
            Self::MountPrivate => "making the mounts private",
            Self::MountRoot => "mounting the root file system",
            Self::Mount => "mounting",
            Self::CopyUp => "filling a volume from the image",
            Self::Device => "making a device node",
            Self::MaskPath => "masking a path",
            Self::ReadonlyPath => "making a path read-only",
            Self::PivotRoot => "changing the root",
            Self::Sysctl => "setting a kernel parameter",
            Self::Rlimit => "setting a resource limit",
            Self::OomScore => "setting the OOM score",
            Self::Terminal => "making the terminal",
            Self::User => "looking up the user",
            Self::WorkingDirectory => "entering the working directory",
            Self::Capabilities => "setting capabilities",
            Self::NoNewPrivileges => "setting no_new_privs",
            Self::Seccomp => "loading the system call filter",
            Self::Exec => "executing the program",
            Self::JoinNamespaces => "joining the container",
            Self::Hook => "running a hook",
            Self::Link => "making a link",
        }
    }
}

const ALL: [Step; 32] = [
    Step::Spawn,
    Step::ReceivePlan,
    Step::LockState,
    Step::UserNamespace,
    Step::NetworkNamespace,
    Step::NetworkSetup,
    Step::Clone,
    Step::JoinCgroup,
    Step::NetworkAttach,
    Step::NetworkConfigure,
    Step::Hostname,
    Step::MountPrivate,
    Step::MountRoot,
    Step::Mount,
    Step::CopyUp,
    Step::Device,
    Step::MaskPath,
    Step::ReadonlyPath,
    Step::PivotRoot,
    Step::Sysctl,
    Step::Rlimit,
    Step::OomScore,
    Step::Terminal,
    Step::User,
    Step::WorkingDirectory,
    Step::Capabilities,
    Step::NoNewPrivileges,
    Step::Seccomp,
    Step::Exec,
    Step::JoinNamespaces,
    Step::Hook,
    Step::Link,
];
