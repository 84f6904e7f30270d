//! System calls and terminals.

use super::{beside, inside, waiting};
use crate::probe::{Place, probe};
use crate::{Cannot, Tested, same};
use rdock_runtime::{Error, ExitReason, Mount, Seccomp, Step};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;

/// A program that makes one system call and exits with its error number; 32-bit by `int 0x80`.
struct Program<'a> {
    what: &'static str,
    code: &'a [u8],
    bits: u8,
}

const PROGRAMS: [Program<'static>; 3] = [
    Program {
        what: "socketcall(SYS_SOCKET, {AF_ALG, SOCK_SEQPACKET, 0}) of 32 bits",
        bits: 32,
        // push 0; push 5; push 38; mov ecx, esp; mov ebx, 1; mov eax, 102; int 0x80
        code: &[
            0x6a, 0, 0x6a, 5, 0x6a, 38, 0x89, 0xe1, 0xbb, 1, 0, 0, 0, 0xb8, 102, 0, 0, 0, 0xcd, 0x80,
        ],
    },
    Program {
        what: "socket(AF_ALG, SOCK_SEQPACKET, 0) of 32 bits",
        bits: 32,
        // xor edx, edx; mov ebx, 38; mov ecx, 5; mov eax, 359; int 0x80
        code: &[
            0x31, 0xd2, 0xbb, 38, 0, 0, 0, 0xb9, 5, 0, 0, 0, 0xb8, 0x67, 1, 0, 0, 0xcd, 0x80,
        ],
    },
    Program {
        what: "socket(AF_ALG, SOCK_SEQPACKET, 0) by its x32 number",
        bits: 64,
        // xor edx, edx; mov edi, 38; mov esi, 5; mov eax, 0x40000029; syscall
        code: &[
            0x31, 0xd2, 0xbf, 38, 0, 0, 0, 0xbe, 5, 0, 0, 0, 0xb8, 0x29, 0, 0, 0x40, 0x0f, 0x05,
        ],
    },
];

/// System calls that show much of the kernel: x86_64's numbers.
const CLASSICS: [(&str, u32); 9] = [
    ("io_uring_setup", 425),
    ("io_uring_enter", 426),
    ("io_uring_register", 427),
    ("add_key", 248),
    ("request_key", 249),
    ("keyctl", 250),
    ("perf_event_open", 298),
    ("bpf", 321),
    ("userfaultfd", 323),
];

impl Program<'_> {
    /// An executable of one segment that ends with `exit(-result)`.
    fn file(&self) -> Vec<u8> {
        // mov ebx, eax; neg ebx; mov eax, 1; int 0x80
        const EXIT_32: &[u8] = &[0x89, 0xc3, 0xf7, 0xdb, 0xb8, 1, 0, 0, 0, 0xcd, 0x80];
        // mov edi, eax; neg edi; mov eax, 60; syscall
        const EXIT_64: &[u8] = &[0x89, 0xc7, 0xf7, 0xdf, 0xb8, 60, 0, 0, 0, 0x0f, 0x05];
        const BASE: u64 = 0x40_0000;
        let wide = self.bits == 64;
        let code = [self.code, if wide { EXIT_64 } else { EXIT_32 }].concat();
        let headers: u64 = if wide { 64 + 56 } else { 52 + 32 };
        let size = headers + code.len() as u64;
        let (entry, mut file) = (
            BASE + headers,
            vec![0x7f, b'E', b'L', b'F', 1 + u8::from(wide), 1, 1],
        );
        file.resize(16, 0);
        let half = |file: &mut Vec<u8>, value: u16| file.extend(value.to_le_bytes());
        let word = |file: &mut Vec<u8>, value: u32| file.extend(value.to_le_bytes());
        let address = |file: &mut Vec<u8>, value: u64| match wide {
            true => file.extend(value.to_le_bytes()),
            false => file.extend(value.to_le_bytes().into_iter().take(4)),
        };
        half(&mut file, 2);
        half(&mut file, if wide { 62 } else { 3 });
        word(&mut file, 1);
        for value in [entry, headers - if wide { 56 } else { 32 }, 0] {
            address(&mut file, value);
        }
        word(&mut file, 0);
        for value in if wide {
            [64, 56, 1, 0, 0, 0]
        } else {
            [52, 32, 1, 0, 0, 0]
        } {
            half(&mut file, value);
        }
        // One loaded segment, readable and executable, with the whole file.
        word(&mut file, 1);
        if wide {
            word(&mut file, 5);
        }
        for value in [0, BASE, BASE, size, size] {
            address(&mut file, value);
        }
        if !wide {
            word(&mut file, 5);
        }
        address(&mut file, 0x1000);
        file.extend(code);
        file
    }
}

/// A call without arguments, by its number.
fn call(number: u32) -> Vec<u8> {
    // xor edi, edi; xor esi, esi; xor edx, edx; xor r10d, r10d; xor r8d, r8d; xor r9d, r9d; mov eax, ..; syscall
    let mut code = vec![
        0x31, 0xff, 0x31, 0xf6, 0x31, 0xd2, 0x45, 0x31, 0xd2, 0x45, 0x31, 0xc0, 0x45, 0x31, 0xc9, 0xb8,
    ];
    code.extend(number.to_le_bytes());
    code.extend([0x0f, 0x05]);
    code
}

/// Runs a program; its exit code, or `None` where this kernel does not run such programs.
fn exit_code(place: &Place, program: &Program<'_>, seccomp: Seccomp) -> Tested<Option<i32>> {
    let path = place.root.path().join("program");
    std::fs::write(&path, program.file())?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
    let spec = probe(&[])?
        .mount(Mount::bind(&path, "/program").read_only())
        .entrypoint(["/program"])
        .args(Vec::<String>::new())
        .seccomp(seccomp);
    match place.run(&spec) {
        Ok((_, exit)) => match exit.reason {
            ExitReason::Exited(code) => Ok(Some(code)),
            other => Err(format!("{} ends with {other:?}", program.what).into()),
        },
        Err(error) => match *error.downcast::<Error>()? {
            Error::Launch {
                step: Step::Exec,
                source,
                ..
            } if source.raw_os_error() == Some(8) => Ok(None),
            other => Err(format!("{}: {other:?}", program.what).into()),
        },
    }
}

fn needs_x86_64() -> Result<(), Cannot> {
    match cfg!(target_arch = "x86_64") {
        true => Ok(()),
        false => Err(Cannot("the programs of this test are for x86_64".into())),
    }
}

pub(super) fn classics() -> Tested {
    needs_x86_64()?;
    let place = Place::new()?;
    let mut open = Vec::new();
    for (what, number) in CLASSICS {
        let code = call(number);
        let program = Program {
            what,
            code: &code,
            bits: 64,
        };
        // EPERM or ENOSYS.
        let filtered = exit_code(&place, &program, Seccomp::Default)?;
        same(&matches!(filtered, Some(1 | 38)), &true).map_err(|_| format!("{what}: {filtered:?}"))?;
        let free = exit_code(&place, &program, Seccomp::Unconfined)?;
        if free != filtered {
            open.push(what);
        }
    }
    // Without the filter some of them are there, or this would be no test of it.
    same(&(open.len() >= 3), &true).map_err(|_| format!("only {open:?} are there without a filter").into())
}

pub(super) fn families() -> Tested {
    needs_x86_64()?;
    let place = Place::new()?;
    let mut unseen = Vec::new();
    for program in &PROGRAMS {
        let filtered = exit_code(&place, program, Seccomp::Default)?;
        let free = exit_code(&place, program, Seccomp::Unconfined)?;
        match filtered {
            // EPERM or ENOSYS.
            Some(1 | 38) => {}
            // A kernel without 32-bit programs.
            None => unseen.push(program.what),
            other => return Err(format!("{}: {other:?}, unconfined {free:?}", program.what).into()),
        }
    }
    match unseen.is_empty() {
        true => Ok(()),
        false => Err(Cannot(format!("this kernel does not run {}", unseen.join(", "))).into()),
    }
}

pub(super) fn terminal_of_the_caller() -> Tested {
    let output = std::process::Command::new("/proc/self/exe")
        .env("RDOCK_TEST_ROLE", "terminal")
        .output()?;
    let text = String::from_utf8(output.stdout)?;
    // The caller has a terminal; what runs for it does not, or has its own, as leader of its session.
    let expected = "caller opened\nrun errno 6|1 0\nexec errno 6|0\nterminal opened|1 34816\n";
    same(text.as_str(), expected)
}

/// A host program with a controlling terminal.
pub(crate) fn with_terminal() -> Tested {
    rustix::process::setsid()?;
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let name = ptsname(&master, Vec::new())?;
    let slave = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(name.to_str()?)?;
    rustix::process::ioctl_tiocsctty(&slave)?;
    let mut out = std::io::stdout();
    let tty = std::fs::File::open("/dev/tty");
    writeln!(
        out,
        "caller {}",
        if tty.is_ok() { "opened" } else { "has no terminal" }
    )?;
    let place = Place::new()?;
    let look = ["open /dev/tty", "session"];
    let joined = |said: String| said.lines().map(str::trim_end).collect::<Vec<_>>().join("|");
    writeln!(out, "run {}", joined(place.says(&probe(&look)?)?))?;
    beside(&place, &waiting()?, async |container| {
        let said = joined(inside(container, &look, |exec| exec).await?);
        // Its session has the number of whatever it is; the terminal is none.
        let terminal = said.rsplit(' ').next().unwrap_or_default();
        writeln!(
            std::io::stdout(),
            "exec {}|{terminal}",
            said.split('|').next().unwrap_or_default()
        )?;
        Ok(())
    })?;
    writeln!(
        out,
        "terminal {}",
        joined(place.says(&probe(&look)?.terminal(true))?)
    )?;
    Ok(())
}
