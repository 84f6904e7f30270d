//! The system calls of the payload.

use crate::arch::syscall;

/// An errno.
pub type Result<T> = core::result::Result<T, i32>;

macro_rules! numbers {
    ($($name:ident $x86:literal $arm:literal;)*) => {
        $(
            #[cfg(target_arch = "x86_64")]
            const $name: usize = $x86;
            #[cfg(target_arch = "aarch64")]
            const $name: usize = $arm;
        )*
    };
}

numbers! {
    NR_READ 0 63; NR_WRITE 1 64; NR_CLOSE 3 57; NR_MMAP 9 222; NR_SIGACTION 13 134; NR_IOCTL 16 29;
    NR_NANOSLEEP 35 101; NR_SOCKET 41 198; NR_SENDTO 44 206; NR_RECVFROM 45 207; NR_BIND 49 200; NR_LISTEN 50 201;
    NR_SETSOCKOPT 54 208; NR_CLONE 56 220; NR_EXIT_GROUP 231 94; NR_GETCWD 79 17; NR_GETUID 102 174;
    NR_GETGID 104 176; NR_SETSID 112 157; NR_GETGROUPS 115 158; NR_SETGROUPS 116 159; NR_SETRESUID 117 147;
    NR_SETRESGID 119 149; NR_GETDENTS64 217 61; NR_OPENAT 257 56; NR_ACCEPT4 288 242;
}

fn call(number: usize, args: [usize; 6]) -> Result<usize> {
    // SAFETY: every wrapper below passes what its call expects, with pointers to live values.
    let result = unsafe { syscall(number, args) };
    if result < 0 {
        Err(-result as i32)
    } else {
        Ok(result as usize)
    }
}

/// Bytes that are followed by a NUL.
#[derive(Clone, Copy)]
pub struct Text(&'static [u8]);

impl Text {
    pub const EMPTY: Self = Self(b"");

    /// # Safety
    /// `pointer` is a text that ends with a NUL and stays.
    pub unsafe fn from_pointer(pointer: *const u8) -> Self {
        // SAFETY: the caller vouches for it; the slice ends before the NUL.
        unsafe {
            let mut length = 0;
            while *pointer.add(length) != 0 {
                length += 1;
            }
            Self(core::slice::from_raw_parts(pointer, length))
        }
    }

    /// Without the NUL.
    pub fn bytes(self) -> &'static [u8] {
        self.0
    }

    /// Without its first bytes.
    pub fn after(self, count: usize) -> Self {
        Self(&self.0[count..])
    }

    pub fn number(self) -> Option<u64> {
        let digit = |sum: u64, byte: &u8| match byte {
            b'0'..=b'9' => sum.checked_mul(10)?.checked_add(u64::from(byte - b'0')),
            _ => None,
        };
        if self.0.is_empty() {
            None
        } else {
            self.0.iter().try_fold(0, digit)
        }
    }
}

pub fn exit(code: i32) -> ! {
    loop {
        let _ = call(NR_EXIT_GROUP, [code as usize, 0, 0, 0, 0, 0]);
    }
}

pub const READ: usize = 0;
/// O_WRONLY, O_CREAT, O_TRUNC.
pub const REPLACE: usize = 0o1101;
/// O_WRONLY, O_CREAT, O_APPEND.
pub const APPEND: usize = 0o2101;

pub fn open(path: Text, flags: usize) -> Result<i32> {
    let here = -100isize as usize;
    call(NR_OPENAT, [here, path.0.as_ptr() as usize, flags, 0o644, 0, 0]).map(|fd| fd as i32)
}

pub fn close(fd: i32) {
    let _ = call(NR_CLOSE, [fd as usize, 0, 0, 0, 0, 0]);
}

pub fn read(fd: i32, into: &mut [u8]) -> Result<usize> {
    call(
        NR_READ,
        [fd as usize, into.as_mut_ptr() as usize, into.len(), 0, 0, 0],
    )
}

pub fn write_all(fd: i32, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        let count = call(
            NR_WRITE,
            [fd as usize, bytes.as_ptr() as usize, bytes.len(), 0, 0, 0],
        )?;
        bytes = &bytes[count..];
    }
    Ok(())
}

/// Writes to an output; one that nobody reads any more ends the program.
pub fn print(fd: i32, bytes: &[u8]) {
    if write_all(fd, bytes).is_err() {
        exit(1);
    }
}

pub fn print_number(fd: i32, mut number: u64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return print(fd, &digits[at..]);
        }
    }
}

pub fn each_chunk(fd: i32, seen: &mut dyn FnMut(&[u8])) {
    let mut buffer = [0u8; 4096];
    while let Ok(count @ 1..) = read(fd, &mut buffer) {
        seen(&buffer[..count]);
    }
}

/// `uid=0 gid=0 groups=0,1`
pub fn print_ids() {
    let number = |nr| call(nr, [0; 6]).unwrap_or(0) as u64;
    print(1, b"uid=");
    print_number(1, number(NR_GETUID));
    print(1, b" gid=");
    print_number(1, number(NR_GETGID));
    print(1, b" groups=");
    let mut groups = [0u32; 64];
    let count = call(
        NR_GETGROUPS,
        [groups.len(), groups.as_mut_ptr() as usize, 0, 0, 0, 0],
    )
    .unwrap_or(0);
    for (at, group) in groups[..count].iter().enumerate() {
        if at > 0 {
            print(1, b",");
        }
        print_number(1, (*group).into());
    }
    print(1, b"\n");
}

/// Names in a folder, without `.` and `..`.
pub fn print_names(fd: i32) {
    let mut buffer = [0u8; 8192];
    while let Ok(count @ 1..) = call(
        NR_GETDENTS64,
        [fd as usize, buffer.as_mut_ptr() as usize, buffer.len(), 0, 0, 0],
    ) {
        let mut at = 0;
        while at < count {
            let length = usize::from(u16::from_le_bytes([buffer[at + 16], buffer[at + 17]]));
            let name = &buffer[at + 19..at + length];
            let name = &name[..name.iter().position(|byte| *byte == 0).unwrap_or(name.len())];
            if name != b"." && name != b".." {
                print(1, name);
                print(1, b"\n");
            }
            at += length;
        }
    }
}

pub fn print_directory() {
    let mut buffer = [0u8; 4096];
    if let Ok(count @ 1..) = call(
        NR_GETCWD,
        [buffer.as_mut_ptr() as usize, buffer.len(), 0, 0, 0, 0],
    ) {
        print(1, &buffer[..count - 1]);
        print(1, b"\n");
    }
}

/// Rows and columns.
pub fn terminal_size(fd: i32) -> Result<(u16, u16)> {
    const TIOCGWINSZ: usize = 0x5413;
    let mut size = [0u16; 4];
    call(
        NR_IOCTL,
        [fd as usize, TIOCGWINSZ, size.as_mut_ptr() as usize, 0, 0, 0],
    )?;
    Ok((size[0], size[1]))
}

pub fn sleep(seconds: u64) {
    let mut left = [seconds, 0];
    // What is left is written back when a signal was handled.
    let time = left.as_mut_ptr() as usize;
    while call(NR_NANOSLEEP, [time, time, 0, 0, 0, 0]).is_err() {}
}

/// As the kernel has it.
#[repr(C)]
struct SignalAction {
    handler: usize,
    flags: usize,
    restorer: usize,
    mask: u64,
}

static mut EXIT_CODES: [i32; 65] = [0; 65];

extern "C" fn on_signal(signal: i32) {
    // SAFETY: this process has one thread, and the handler was set after the value.
    let code = unsafe { EXIT_CODES[signal as usize] };
    print(1, b"payload: signal ");
    print_number(1, signal as u64);
    print(1, b"\n");
    exit(code)
}

fn set_action(signal: usize, handler: usize) -> Result<usize> {
    // The handler never returns; x86_64 wants a restorer all the same.
    const SA_RESTORER: usize = 0x0400_0000;
    let flags = if cfg!(target_arch = "x86_64") {
        SA_RESTORER
    } else {
        0
    };
    let action = SignalAction {
        handler,
        flags,
        restorer: handler,
        mask: 0,
    };
    call(NR_SIGACTION, [signal, &raw const action as usize, 0, 8, 0, 0])
}

/// The signal prints its number and ends the program with `code`.
pub fn exit_on(signal: usize, code: i32) -> Result<usize> {
    const EINVAL: i32 = 22;
    if signal > 64 {
        return Err(EINVAL);
    }
    // SAFETY: this process has one thread, and no handler for the signal yet.
    unsafe { EXIT_CODES[signal] = code };
    set_action(signal, on_signal as *const () as usize)
}

pub fn ignore(signal: usize) -> Result<usize> {
    set_action(signal, 1)
}

/// User and group of one number, no further groups.
pub fn set_ids(id: usize) -> Result<usize> {
    call(NR_SETGROUPS, [0; 6])?;
    call(NR_SETRESGID, [id, id, id, 0, 0, 0])?;
    call(NR_SETRESUID, [id, id, id, 0, 0, 0])
}

/// What comes next is done by a grandchild in a session of its own; the others wait forever.
pub fn daemon() {
    const SIGCHLD: usize = 17;
    for _ in 0..2 {
        match call(NR_CLONE, [SIGCHLD, 0, 0, 0, 0, 0]) {
            Ok(0) => drop(call(NR_SETSID, [0; 6])),
            _ => loop {
                sleep(3600);
            },
        }
    }
}

/// Uses that much memory.
pub fn touch(bytes: usize) -> Result<usize> {
    const READ_WRITE: usize = 3;
    const PRIVATE_ANONYMOUS: usize = 0x22;
    let start = call(NR_MMAP, [0, bytes, READ_WRITE, PRIVATE_ANONYMOUS, usize::MAX, 0])?;
    for at in (0..bytes).step_by(4096) {
        // SAFETY: within the mapping just made.
        unsafe { core::ptr::write_volatile((start + at) as *mut u8, 1) };
    }
    Ok(start)
}

/// A socket for IPv4 on every address.
pub fn bound(port: u16, kind: usize) -> Result<i32> {
    const AF_INET: usize = 2;
    const SOL_SOCKET: usize = 1;
    const SO_REUSEADDR: usize = 2;
    let fd = call(NR_SOCKET, [AF_INET, kind, 0, 0, 0, 0])?;
    let on = 1u32;
    call(
        NR_SETSOCKOPT,
        [fd, SOL_SOCKET, SO_REUSEADDR, &raw const on as usize, 4, 0],
    )?;
    let mut address = [0u8; 16];
    address[..2].copy_from_slice(&(AF_INET as u16).to_ne_bytes());
    address[2..4].copy_from_slice(&port.to_be_bytes());
    call(NR_BIND, [fd, address.as_ptr() as usize, address.len(), 0, 0, 0])?;
    Ok(fd as i32)
}

pub fn listen(fd: i32) -> Result<usize> {
    call(NR_LISTEN, [fd as usize, 16, 0, 0, 0, 0])
}

pub fn accept(fd: i32) -> Result<i32> {
    call(NR_ACCEPT4, [fd as usize, 0, 0, 0, 0, 0]).map(|fd| fd as i32)
}

/// A datagram and where it came from.
pub fn receive(fd: i32, into: &mut [u8], from: &mut [u8; 16]) -> Result<usize> {
    let mut length = from.len() as u32;
    let args = [
        into.as_mut_ptr() as usize,
        into.len(),
        0,
        from.as_mut_ptr() as usize,
        &raw mut length as usize,
    ];
    call(
        NR_RECVFROM,
        [fd as usize, args[0], args[1], args[2], args[3], args[4]],
    )
}

pub fn send(fd: i32, bytes: &[u8], to: &[u8; 16]) -> Result<usize> {
    call(
        NR_SENDTO,
        [
            fd as usize,
            bytes.as_ptr() as usize,
            bytes.len(),
            0,
            to.as_ptr() as usize,
            to.len(),
        ],
    )
}
