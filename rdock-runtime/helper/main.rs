//! The helper: the only code that runs between the host program and the payload.
//!
//! A freestanding static program that is executed from a sealed memfd. It is pid 1 of a pid namespace of
//! its own and parent of the payload, which is pid 1 of one nested in it: when the helper dies the kernel
//! kills everything. It gets a flat plan over a socket, walks it, supervises, and reports.
#![no_std]
#![no_main]
#![allow(unreachable_pub, missing_docs, dead_code)]

mod arch;
#[macro_use]
mod kernel;
mod copy;
mod hook;
mod mounts;
mod netlink;
#[path = "../src/launch/passwd.rs"]
mod passwd;
mod plan;
mod process;
#[path = "../src/step.rs"]
mod step;
mod supervise;
#[path = "../src/launch/wire.rs"]
mod wire;

/// Called by the entry code with the initial stack.
#[unsafe(no_mangle)]
extern "C" fn rdock_start(_stack: *const usize) -> ! {
    supervise::run()
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    kernel::exit(200)
}
