//! Programs that run on the way to the payload's exec: hooks of devices.

use crate::kernel::*;
use crate::plan::{At, Failure, Plan};
use crate::process::{Setup, pointers};
use crate::step::Step;
use crate::supervise::{decimal, report};
use crate::wire::{hook, tell};

type Done<T = ()> = core::result::Result<T, Failure>;

impl Setup {
    /// Runs one program to its end. What it reads is a state with this process's number in it.
    pub fn hook(&mut self, plan: &mut Plan<'static>) -> Done {
        let step = Step::Hook;
        let flags = plan.u32().at(step, b"")?;
        let name = plan.text().at(step, b"")?;
        let program = plan.u32().at(step, b"")?;
        let directory = plan.text().at(step, b"")?;
        let (bounding, milliseconds) = (plan.u64().at(step, b"")?, plan.u64().at(step, b"")?);
        let output = plan.u32().at(step, b"")?;
        let (before, after) = (plan.bytes().at(step, b"")?, plan.bytes().at(step, b"")?);
        let arguments = pointers(plan, None).at(step, b"")?;
        let variables = pointers(plan, None).at(step, b"")?;
        let output = self.descriptor(output).at(step, b"")?;
        let program = match program {
            0 => None,
            index => Some(self.descriptor(index - 1).at(step, b"")?),
        };
        let ran = (|| {
            let (input, ours) = pipe()?;
            let mut digits = [0u8; 12];
            // A state is far smaller than what a pipe holds.
            let wrote = write_all(ours, before)
                .and_then(|()| write_all(ours, decimal(getpid() as u32, &mut digits)))
                .and_then(|()| write_all(ours, after));
            close(ours);
            wrote?;
            let mut pidfd = -1;
            let child = match clone3(0, SIGCHLD as u64, None, &mut pidfd) {
                Err(ENOSYS | EPERM) => clone(0, SIGCHLD as u64, &mut pidfd),
                other => other,
            }?;
            if child == 0 {
                let errno = become_hook(input, output, program, directory, bounding, || match program {
                    Some(_) => execveat(3, arguments, variables),
                    None => execve(name.pointer(), arguments, variables),
                });
                let mut digits = [0u8; 12];
                let _ = write_all(2, b"it cannot be executed: errno ");
                let _ = write_all(2, decimal(errno as u32, &mut digits));
                exit(127)
            }
            close(input);
            let mut set = [Polled { fd: pidfd, wanted: 1, found: 0 }];
            let ended = loop {
                match poll_for(&mut set, milliseconds) {
                    Err(EINTR) => {}
                    other => break other,
                }
            };
            if !matches!(ended, Ok(1)) {
                let _ = kill(child, SIGKILL);
            }
            let mut status = 0;
            let waited = wait(child, &mut status, true);
            close(pidfd);
            waited?;
            match ended {
                Ok(1) if status == 0 => Ok(()),
                Ok(1) => Err(ECHILD),
                Ok(_) => Err(ETIMEDOUT),
                Err(errno) => Err(errno),
            }
        })();
        match ran {
            Err(errno) if flags & hook::OPTIONAL != 0 => {
                let _ = report(self.status, tell::WARNING, 0, step as i32, errno, name.bytes(), &[]);
                Ok(())
            }
            other => other.at(step, name.bytes()),
        }
    }
}

/// The child's way to its exec; an errno when it does not get there.
fn become_hook(
    input: i32,
    output: i32,
    program: Option<i32>,
    directory: Text<'_>,
    bounding: u64,
    exec: impl FnOnce() -> i32,
) -> i32 {
    const PR_CAPBSET_DROP: u32 = 24;
    let prepared = (|| {
        // Any of them may be among 0 to 3.
        let (input, output) = (dup_above(input, 4)?, dup_above(output, 4)?);
        let program = match program {
            Some(fd) => Some(dup_above(fd, 4)?),
            None => None,
        };
        dup3(input, 0, 0)?;
        dup3(output, 1, 0)?;
        dup3(output, 2, 0)?;
        if let Some(fd) = program {
            dup3(fd, 3, O_CLOEXEC)?;
        }
        close_from(if program.is_some() { 4 } else { 3 })?;
        chdir(directory)?;
        umask(0o022);
        if bounding != u64::MAX {
            for capability in 0..64 {
                if bounding & 1 << capability == 0 && prctl(PR_CAPBSET_DROP, capability, 0) == Err(EINVAL) {
                    break;
                }
            }
            // PR_SET_NO_NEW_PRIVS
            prctl(38, 1, 0)?;
        }
        block_signals(false);
        Ok(())
    })();
    match prepared {
        Ok(()) => exec(),
        Err(errno) => errno,
    }
}
