//! The payload of quickstart and of the tests: a freestanding static program that needs nothing in its image.
//!
//! Its arguments are commands, separated by `,`. In texts `$NAME` is a variable of the environment and `@PATH`
//! the contents of a file.
//!
//! ```text
//! echo TEXT...        err TEXT...         write PATH TEXT...  append PATH TEXT...   cat [PATH]
//! env                 id                  ls PATH             size                  pwd
//! exit CODE           sleep SECONDS       trap SIGNAL CODE    ignore SIGNAL         setuid ID
//! daemon              memory BYTES        serve PORT TEXT...  udp PORT
//! ```
#![no_std]
#![no_main]
#![allow(unreachable_pub, missing_docs, dead_code)]

#[path = "../../rdock-runtime/helper/arch.rs"]
mod arch;
mod calls;
mod serve;

use calls::{Text, exit, print};

/// What the kernel put on the stack: the arguments and the environment.
#[derive(Clone, Copy)]
pub struct Start {
    arguments: &'static [*const u8],
    environment: *const *const u8,
}

impl Start {
    /// # Safety
    /// `stack` is the initial stack of this process.
    unsafe fn new(stack: *const usize) -> Self {
        // SAFETY: the count comes first, then that many pointers, a null, and the environment.
        unsafe {
            let count = *stack;
            let first = stack.add(1).cast::<*const u8>();
            Self {
                arguments: core::slice::from_raw_parts(first, count),
                environment: first.add(count + 1),
            }
        }
    }

    fn argument(self, at: usize) -> Text {
        // SAFETY: the kernel ends every argument with a NUL.
        unsafe { Text::from_pointer(self.arguments[at]) }
    }

    fn each_variable(self, mut seen: impl FnMut(Text)) {
        let mut at = self.environment;
        // SAFETY: a null ends the list, a NUL each of its texts.
        unsafe {
            while !(*at).is_null() {
                seen(Text::from_pointer(*at));
                at = at.add(1);
            }
        }
    }

    /// Writes a word, with what it stands for.
    pub fn expand(self, word: Text, out: &mut dyn FnMut(&[u8])) {
        match word.bytes() {
            [b'$', name @ ..] => self.each_variable(|variable| {
                let bytes = variable.bytes();
                if bytes.len() > name.len() && bytes.starts_with(name) && bytes[name.len()] == b'=' {
                    out(&bytes[name.len() + 1..]);
                }
            }),
            [b'@', ..] => match calls::open(word.after(1), calls::READ) {
                Ok(fd) => {
                    calls::each_chunk(fd, out);
                    calls::close(fd);
                }
                Err(errno) => fail("cannot read", word.after(1), errno),
            },
            bytes => out(bytes),
        }
    }

    /// Writes words with blanks between, and a new line.
    pub fn line(self, words: Words, out: &mut dyn FnMut(&[u8])) {
        for at in words.from..words.to {
            if at > words.from {
                out(b" ");
            }
            self.expand(self.argument(at), out);
        }
        out(b"\n");
    }
}

/// A range of arguments.
#[derive(Clone, Copy)]
pub struct Words {
    from: usize,
    to: usize,
}

fn fail(what: &str, about: Text, errno: i32) -> ! {
    print(2, b"payload: ");
    print(2, what.as_bytes());
    print(2, b" ");
    print(2, about.bytes());
    print(2, b": errno ");
    calls::print_number(2, errno as u64);
    print(2, b"\n");
    exit(1)
}

/// Called by the entry code with the initial stack.
#[unsafe(no_mangle)]
extern "C" fn rdock_start(stack: *const usize) -> ! {
    // SAFETY: the entry code passes the stack as the kernel made it.
    let start = unsafe { Start::new(stack) };
    let count = start.arguments.len();
    let mut from = 1;
    while from < count {
        let to = (from..count)
            .find(|at| start.argument(*at).bytes() == b",")
            .unwrap_or(count);
        if to > from {
            command(start, start.argument(from), Words { from: from + 1, to });
        }
        from = to + 1;
    }
    exit(0)
}

fn command(start: Start, name: Text, words: Words) {
    let word = |at: usize| match words.from + at < words.to {
        true => start.argument(words.from + at),
        false => fail("an argument is missing for", name, 0),
    };
    let number = |at: usize| {
        word(at)
            .number()
            .unwrap_or_else(|| fail("not a number:", word(at), 0))
    };
    let checked = |what: &str, result: calls::Result<usize>| match result {
        Ok(value) => value,
        Err(errno) => fail(what, name, errno),
    };
    let into_file = |flags| match calls::open(word(0), flags) {
        Ok(fd) => {
            start.line(
                Words {
                    from: words.from + 1,
                    ..words
                },
                &mut |bytes| {
                    if let Err(errno) = calls::write_all(fd, bytes) {
                        fail("cannot write", word(0), errno);
                    }
                },
            );
            calls::close(fd);
        }
        Err(errno) => fail("cannot open", word(0), errno),
    };
    match name.bytes() {
        b"echo" => start.line(words, &mut |bytes| print(1, bytes)),
        b"err" => start.line(words, &mut |bytes| print(2, bytes)),
        b"write" => into_file(calls::REPLACE),
        b"append" => into_file(calls::APPEND),
        b"cat" if words.from == words.to => calls::each_chunk(0, &mut |bytes| print(1, bytes)),
        b"cat" => match calls::open(word(0), calls::READ) {
            Ok(fd) => calls::each_chunk(fd, &mut |bytes| print(1, bytes)),
            Err(errno) => fail("cannot open", word(0), errno),
        },
        b"env" => start.each_variable(|variable| {
            print(1, variable.bytes());
            print(1, b"\n");
        }),
        b"id" => calls::print_ids(),
        b"ls" => match calls::open(word(0), calls::READ) {
            Ok(fd) => calls::print_names(fd),
            Err(errno) => fail("cannot open", word(0), errno),
        },
        b"size" => match calls::terminal_size(0) {
            Ok((rows, columns)) => {
                calls::print_number(1, rows.into());
                print(1, b" ");
                calls::print_number(1, columns.into());
                print(1, b"\n");
            }
            Err(errno) => fail("no terminal for", name, errno),
        },
        b"pwd" => calls::print_directory(),
        b"exit" => exit(number(0) as i32),
        b"sleep" => calls::sleep(number(0)),
        b"trap" => drop(checked(
            "cannot",
            calls::exit_on(number(0) as usize, number(1) as i32),
        )),
        b"ignore" => drop(checked("cannot", calls::ignore(number(0) as usize))),
        b"setuid" => drop(checked("cannot", calls::set_ids(number(0) as usize))),
        b"daemon" => calls::daemon(),
        b"memory" => drop(checked("cannot", calls::touch(number(0) as usize))),
        b"serve" => serve::http(
            start,
            number(0) as u16,
            Words {
                from: words.from + 1,
                ..words
            },
        ),
        b"udp" => serve::udp(number(0) as u16),
        _ => fail("no such command:", name, 0),
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    exit(101)
}
