//! What depends on the processor: entry, system calls, memory functions, numbers.

use core::arch::{asm, global_asm};

#[cfg(target_arch = "x86_64")]
global_asm!(
    ".globl _start",
    "_start:",
    "xor %ebp, %ebp",
    "mov %rsp, %rdi",
    "and $-16, %rsp",
    "call rdock_start",
    "ud2",
    options(att_syntax)
);

#[cfg(target_arch = "aarch64")]
global_asm!(".globl _start", "_start:", "mov x29, #0", "mov x30, #0", "mov x0, sp", "bl rdock_start", "brk #1");

/// One system call.
///
/// # Safety
/// The arguments must be what the call expects; pointers must be valid for it.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub unsafe fn syscall(number: usize, args: [usize; 6]) -> isize {
    let result: isize;
    // SAFETY: the caller vouches for the arguments; rcx and r11 are what the instruction clobbers.
    unsafe {
        asm!("syscall", inlateout("rax") number as isize => result,
            in("rdi") args[0], in("rsi") args[1], in("rdx") args[2], in("r10") args[3], in("r8") args[4],
            in("r9") args[5], lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result
}

/// One system call.
///
/// # Safety
/// The arguments must be what the call expects; pointers must be valid for it.
#[cfg(target_arch = "aarch64")]
#[inline(always)]
pub unsafe fn syscall(number: usize, args: [usize; 6]) -> isize {
    let result: isize;
    // SAFETY: the caller vouches for the arguments.
    unsafe {
        asm!("svc 0", in("x8") number, inlateout("x0") args[0] as isize => result,
            in("x1") args[1], in("x2") args[2], in("x3") args[3], in("x4") args[4], in("x5") args[5],
            options(nostack));
    }
    result
}

macro_rules! numbers {
    ($($name:ident $x86:literal $arm:literal;)*) => {
        /// System call numbers.
        #[allow(missing_docs)]
        pub mod nr {
            $(
                #[cfg(target_arch = "x86_64")]
                pub const $name: usize = $x86;
                #[cfg(target_arch = "aarch64")]
                pub const $name: usize = $arm;
            )*
        }
    };
}

numbers! {
    READ 0 63; WRITE 1 64; CLOSE 3 57; MMAP 9 222; IOCTL 16 29; DUP3 292 24; SENDTO 44 206; RECVFROM 45 207;
    SENDMSG 46 211; RECVMSG 47 212; SOCKET 41 198; SOCKETPAIR 53 199; BIND 49 200; EXECVE 59 221; EXIT_GROUP 231 94;
    WAIT4 61 260; KILL 62 129; FCNTL 72 25; FLOCK 73 32; FTRUNCATE 77 46; GETCWD 79 17; CHDIR 80 49; FCHDIR 81 50;
    UMASK 95 166; GETPID 39 172; SETSID 112 157; SETGROUPS 116 159; SETRESUID 117 147; SETRESGID 119 149;
    CAPSET 126 91; FSTATFS 138 44; PRCTL 157 167; CHROOT 161 51; MOUNT 165 40; UMOUNT2 166 39; PIVOT_ROOT 155 41;
    SETHOSTNAME 170 161; SETDOMAINNAME 171 162; GETDENTS64 217 61; UNSHARE 272 97; OPENAT 257 56; MKDIRAT 258 34;
    MKNODAT 259 33; FCHOWNAT 260 54; FSTATAT 262 79; UNLINKAT 263 35; SYMLINKAT 266 36; READLINKAT 267 78;
    FCHMODAT 268 53; PPOLL 271 73; UTIMENSAT 280 88; PRLIMIT64 302 261; SETNS 308 268; SECCOMP 317 277;
    COPY_FILE_RANGE 326 285; STATX 332 291; PIDFD_SEND_SIGNAL 424 424; OPEN_TREE 428 428; MOVE_MOUNT 429 429;
    FSOPEN 430 430; FSCONFIG 431 431; FSMOUNT 432 432; PIDFD_OPEN 434 434; CLONE3 435 435; CLOSE_RANGE 436 436;
    OPENAT2 437 437; MOUNT_SETATTR 442 442; RT_SIGACTION 13 134; RT_SIGPROCMASK 14 135; RT_SIGTIMEDWAIT 128 137;
    FSETXATTR 190 7; FGETXATTR 193 10; FLISTXATTR 196 13; CLONE 56 220; LINKAT 265 37; FCHOWN 93 55; FCHMOD 91 52;
    ACCEPT4 288 242; GETSOCKOPT 55 209; GETEUID 107 175; PIPE2 293 59; EXECVEAT 322 281;
}

/// For the compiler, which emits calls to it.
///
/// # Safety
/// As memcpy(3).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the caller vouches for both ranges.
    unsafe {
        asm!("rep movsb", inout("rcx") count => _, inout("rdi") to => _, inout("rsi") from => _,
            options(nostack, preserves_flags));
    }
    #[cfg(target_arch = "aarch64")]
    for at in 0..count {
        // SAFETY: the caller vouches for both ranges. Volatile keeps the loop from becoming a call to itself.
        unsafe { core::ptr::write_volatile(to.add(at), core::ptr::read_volatile(from.add(at))) };
    }
    to
}

/// For the compiler, which emits calls to it.
///
/// # Safety
/// As memmove(3).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    if (to as usize).wrapping_sub(from as usize) >= count {
        // SAFETY: nothing is overwritten before it is read in ascending order.
        return unsafe { memcpy(to, from, count) };
    }
    for at in (0..count).rev() {
        // SAFETY: the caller vouches for both ranges.
        unsafe { core::ptr::write_volatile(to.add(at), core::ptr::read_volatile(from.add(at))) };
    }
    to
}

/// For the compiler, which emits calls to it.
///
/// # Safety
/// As memset(3).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memset(to: *mut u8, byte: i32, count: usize) -> *mut u8 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the caller vouches for the range.
    unsafe {
        asm!("rep stosb", inout("rcx") count => _, inout("rdi") to => _, in("al") byte as u8,
            options(nostack, preserves_flags));
    }
    #[cfg(target_arch = "aarch64")]
    for at in 0..count {
        // SAFETY: the caller vouches for the range.
        unsafe { core::ptr::write_volatile(to.add(at), byte as u8) };
    }
    to
}

/// For the compiler, which emits calls to it.
///
/// # Safety
/// As memcmp(3).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, count: usize) -> i32 {
    for at in 0..count {
        // SAFETY: the caller vouches for both ranges.
        let (a, b) = unsafe { (core::ptr::read_volatile(a.add(at)), core::ptr::read_volatile(b.add(at))) };
        if a != b {
            return i32::from(a) - i32::from(b);
        }
    }
    0
}

/// For the compiler, which emits calls to it.
///
/// # Safety
/// As bcmp(3).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, count: usize) -> i32 {
    // SAFETY: the same contract.
    unsafe { memcmp(a, b, count) }
}

/// For the compiler, which emits calls to it.
///
/// # Safety
/// As strlen(3).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn strlen(text: *const u8) -> usize {
    let mut count = 0;
    // SAFETY: the caller vouches for a NUL.
    while unsafe { core::ptr::read_volatile(text.add(count)) } != 0 {
        count += 1;
    }
    count
}
