//! Docker's default profile as data: what every container may call, and what takes a capability.
//!
//! The lists are those of Docker's profile of 2026: AF_ALG and AF_VSOCK sockets are refused, the 32-bit
//! `socketcall` that would hide its family is not there, io_uring, keyrings and userfaultfd are not in it.

use super::{Action, Compare, Condition, Rule};

/// What every container may call.
pub(super) const ALLOWED: &str = "
accept accept4 access adjtimex alarm arch_prctl bind brk cachestat capget capset chdir chmod chown chown32
clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep
clock_nanosleep_time64 close close_range connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1
epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve execveat exit
exit_group faccessat faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2
fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat
fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futex futex_requeue futex_time64 futex_wait
futex_waitv futex_wake futimesat get_robust_list get_thread_area getcpu getcwd getdents getdents64 getegid
getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getitimer getpeername getpgid getpgrp getpid
getppid getpriority getrandom getresgid getresgid32 getresuid getresuid32 getrlimit getrusage getsid getsockname
getsockopt gettid gettimeofday getuid getuid32 getxattr getxattrat inotify_add_watch inotify_init inotify_init1
inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit ioctl
ioprio_get ioprio_set ipc kill landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lchown32
lgetxattr link linkat listen listmount listxattr listxattrat llistxattr _llseek lremovexattr lseek lsetxattr
lstat lstat64 madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat
mlock mlock2 mlockall mmap mmap2 modify_ldt mprotect mq_getsetattr mq_notify mq_open mq_timedreceive
mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync
munlock munlockall munmap name_to_handle_at nanosleep newfstatat _newselect open openat openat2 pause pidfd_open
pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll ppoll_time64 prctl pread64 preadv
preadv2 prlimit64 process_mrelease process_vm_readv process_vm_writev pselect6 pselect6_time64 ptrace pwrite64
pwritev pwritev2 read readahead readlink readlinkat readv recvfrom recvmmsg recvmmsg_time64 recvmsg
remap_file_pages removexattr removexattrat rename renameat renameat2 restart_syscall rmdir rseq rt_sigaction
rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64
rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam
sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr
sched_setparam sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop semtimedop_time64
sendfile sendfile64 sendmmsg sendmsg sendto set_robust_list set_thread_area set_tid_address setfsgid setfsgid32
setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setitimer setpgid setpriority setregid setregid32
setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit setsid setsockopt setuid setuid32
setxattr setxattrat shmat shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4 sigprocmask sigreturn
socketpair splice stat stat64 statfs statfs64 statmount statx symlink symlinkat sync sync_file_range syncfs
sysinfo tee tgkill time timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime
timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times tkill
truncate truncate64 ugetrlimit umask uname unlink unlinkat uretprobe utime utimensat utimensat_time64 utimes
vfork vmsplice wait4 waitid waitpid write writev";

/// Number of a capability, and what it opens.
pub(super) const BY_CAPABILITY: [(u32, &str); 14] = [
    (2, "open_by_handle_at"),
    (16, "delete_module finit_module init_module"),
    (17, "ioperm iopl"),
    (18, "chroot"),
    (
        19,
        "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace",
    ),
    (20, "acct"),
    (
        21,
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr \
         lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl \
         quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare",
    ),
    (22, "reboot"),
    (23, "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    (25, "clock_settime clock_settime64 settimeofday stime"),
    (26, "vhangup"),
    (34, "syslog"),
    (38, "perf_event_open"),
    (39, "bpf"),
];

const ENOSYS: u16 = 38;
const SYS_ADMIN: u64 = 1 << 21;

/// The default profile for a container with these capabilities.
pub(super) fn default_rules(bounding: u64) -> Vec<Rule> {
    let mut rules = vec![Rule::plain(names(ALLOWED), Action::Allow)];
    for (capability, calls) in BY_CAPABILITY {
        if bounding & 1 << capability != 0 {
            rules.push(Rule::plain(names(calls), Action::Allow));
        }
    }
    let equal = |value| Condition {
        argument: 0,
        compare: Compare::Equal,
        value,
        mask: 0,
    };
    // Allowing "not this one" twice would allow both: what is refused comes first.
    for family in [38, 40] {
        let action = Action::Errno(1);
        rules.push(Rule {
            names: names("socket"),
            action,
            conditions: vec![equal(family)],
        });
    }
    rules.push(Rule::plain(names("socket"), Action::Allow));
    for persona in [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff] {
        rules.push(Rule {
            names: names("personality"),
            action: Action::Allow,
            conditions: vec![equal(persona)],
        });
    }
    rules.push(Rule::plain(names("socketcall"), Action::Errno(ENOSYS)));
    if bounding & SYS_ADMIN == 0 {
        // No CLONE_NEW* but the time namespace's bit, which clone(2) cannot have.
        let plain = Condition {
            argument: 0,
            compare: Compare::MaskedEqual,
            value: 0,
            mask: 0x7e02_0000,
        };
        rules.push(Rule {
            names: names("clone"),
            action: Action::Allow,
            conditions: vec![plain],
        });
        // Its flags are in memory, out of a filter's sight: the C library then uses clone.
        rules.push(Rule::plain(names("clone3"), Action::Errno(ENOSYS)));
    }
    rules
}

fn names(list: &str) -> Vec<String> {
    list.split_whitespace().map(str::to_owned).collect()
}
