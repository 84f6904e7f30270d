//! Which devices a container may use: a program of version 2, or the lists of version 1.

use crate::spec::{DeviceAccess, DeviceKind, DeviceRule};
use crate::sys::bpf;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::OnceLock;

/// What `bpf_cgroup_dev_ctx` calls them (linux/bpf.h).
const BLOCK: i32 = 1;
const CHARACTER: i32 = 2;
const MKNOD: i32 = 1;
const READ: i32 = 2;
const WRITE: i32 = 4;

/// Allows the version 2 group `rules` and nothing else.
///
/// # Errors
/// When the kernel takes no such programs, or not from this process.
pub(super) fn restrict_by_program(group: BorrowedFd<'_>, rules: &[DeviceRule]) -> io::Result<()> {
    /// What most containers have: loading takes the kernel longer than everything else here.
    static LAST: OnceLock<(Vec<DeviceRule>, OwnedFd)> = OnceLock::new();
    if let Some((known, program)) = LAST.get()
        && known == rules
    {
        return bpf::attach_device_program(group, program.as_fd());
    }
    let program = bpf::load_device_program(&compile(rules))?;
    bpf::attach_device_program(group, program.as_fd())?;
    // A second thread's program is closed; the group keeps it.
    let _ = LAST.set((rules.to_vec(), program));
    Ok(())
}

/// Allows the version 1 group at `path` `rules` and nothing else.
///
/// # Errors
/// When the kernel refuses.
pub(super) fn restrict_by_lists(path: &Path, rules: &[DeviceRule]) -> io::Result<()> {
    let write = |file: &str, text: &str| {
        let mut file = fs::OpenOptions::new().write(true).open(path.join(file))?;
        io::Write::write_all(&mut file, text.as_bytes())
    };
    write("devices.deny", "a")?;
    for rule in rules.iter().flat_map(single) {
        match write("devices.allow", &rule.to_string()) {
            // The group above does not have it either, so there is nothing to allow.
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => {}
            other => other?,
        }
    }
    Ok(())
}

/// The kernel takes `a` for everything, whatever follows.
fn single(rule: &DeviceRule) -> Vec<DeviceRule> {
    match rule.kind {
        DeviceKind::Any => [DeviceKind::Block, DeviceKind::Character]
            .map(|kind| DeviceRule { kind, ..*rule })
            .to_vec(),
        _ => vec![*rule],
    }
}

/// A program that returns 1 for what a rule allows, and 0 otherwise.
fn compile(rules: &[DeviceRule]) -> Vec<u64> {
    let mut program = Program::default();
    // r2: kind, r3: access, r4: major, r5: minor.
    program.push(LOAD_WORD, 2, 1, 0, 0);
    program.push(MOVE_REGISTER, 3, 2, 0, 0);
    program.push(AND, 2, 0, 0, 0xffff);
    program.push(SHIFT_RIGHT, 3, 0, 0, 16);
    program.push(LOAD_WORD, 4, 1, 4, 0);
    program.push(LOAD_WORD, 5, 1, 8, 0);
    for rule in rules {
        let mut skips = Vec::new();
        match rule.kind {
            DeviceKind::Any => {}
            DeviceKind::Block => skips.push(program.push(JUMP_UNEQUAL, 2, 0, 0, BLOCK)),
            DeviceKind::Character => skips.push(program.push(JUMP_UNEQUAL, 2, 0, 0, CHARACTER)),
        }
        let DeviceAccess { read, write, mknod } = rule.access;
        let given = [(read, READ), (write, WRITE), (mknod, MKNOD)]
            .iter()
            .fold(0, |all, (given, bit)| if *given { all | bit } else { all });
        if given != MKNOD | READ | WRITE {
            // What is asked for beyond what is given.
            program.push(MOVE_REGISTER, 1, 3, 0, 0);
            program.push(AND, 1, 0, 0, !given);
            skips.push(program.push(JUMP_UNEQUAL, 1, 0, 0, 0));
        }
        for (register, number) in [(4, rule.major), (5, rule.minor)] {
            if let Some(number) = number {
                skips.push(program.push(JUMP_UNEQUAL, register, 0, 0, number.cast_signed()));
            }
        }
        program.push(MOVE, 0, 0, 0, 1);
        program.push(EXIT, 0, 0, 0, 0);
        if skips.is_empty() {
            // Everything is allowed, and the kernel refuses instructions that nothing leads to.
            return program.0;
        }
        program.land(&skips);
    }
    program.push(MOVE, 0, 0, 0, 0);
    program.push(EXIT, 0, 0, 0, 0);
    program.0
}

// Operations of 32 bits where there is a choice (linux/bpf.h): numbers of devices have no sign.
const LOAD_WORD: u8 = 0x61;
const AND: u8 = 0x54;
const SHIFT_RIGHT: u8 = 0x74;
const MOVE: u8 = 0xb4;
const MOVE_REGISTER: u8 = 0xbc;
const JUMP_UNEQUAL: u8 = 0x56;
const EXIT: u8 = 0x95;

/// Instructions as `struct bpf_insn`, little-endian as every architecture here.
#[derive(Debug, Default)]
struct Program(Vec<u64>);

impl Program {
    /// Returns the instruction's place.
    fn push(&mut self, code: u8, to: u8, from: u8, offset: i16, value: i32) -> usize {
        let registers = to | from << 4;
        self.0.push(
            u64::from(code)
                | u64::from(registers) << 8
                | u64::from(offset.cast_unsigned()) << 16
                | u64::from(value.cast_unsigned()) << 32,
        );
        self.0.len() - 1
    }

    /// Has the jumps lead behind the last instruction.
    fn land(&mut self, jumps: &[usize]) {
        let here = self.0.len();
        for at in jumps {
            // A rule is a handful of instructions.
            let distance = (here - at - 1) as u64 & 0x7fff;
            self.0[*at] |= distance << 16;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Runs a program as the kernel would.
    fn run(program: &[u64], kind: i32, access: i32, major: u32, minor: u32) -> bool {
        let context = [(access << 16 | kind).cast_unsigned(), major, minor];
        let mut registers = [0u32; 11];
        let mut at = 0;
        loop {
            let instruction = program[at];
            let code = instruction as u8;
            let (to, from) = (instruction >> 8 & 0xf, instruction >> 12 & 0xf);
            let (to, from) = (to as usize, from as usize);
            let offset = (instruction >> 16) as u16 as i16;
            let value = (instruction >> 32) as u32;
            at += 1;
            match code {
                LOAD_WORD => registers[to] = context[offset as usize / 4],
                AND => registers[to] &= value,
                SHIFT_RIGHT => registers[to] >>= value,
                MOVE => registers[to] = value,
                MOVE_REGISTER => registers[to] = registers[from],
                JUMP_UNEQUAL if registers[to] != value => at += offset as usize,
                JUMP_UNEQUAL => {}
                EXIT => return registers[0] == 1,
                other => panic!("{other:x}"),
            }
        }
    }

    fn rule() -> impl Strategy<Value = DeviceRule> {
        let number = || prop_oneof![Just(None), (0u32..3).prop_map(Some), Just(Some(u32::MAX))];
        let kind = prop_oneof![
            Just(DeviceKind::Any),
            Just(DeviceKind::Block),
            Just(DeviceKind::Character)
        ];
        (kind, number(), number(), 1u8..8).prop_map(|(kind, major, minor, access)| {
            let text: String = [(1, 'r'), (2, 'w'), (4, 'm')]
                .iter()
                .filter(|(bit, _)| access & bit != 0)
                .map(|(_, letter)| letter)
                .collect();
            DeviceRule::new(kind, major, minor, DeviceAccess::parse(&text).expect("access"))
        })
    }

    proptest! {
        #[test]
        fn a_program_allows_what_one_of_its_rules_allows(
            rules in proptest::collection::vec(rule(), 0..6),
            block: bool,
            access in 1i32..8,
            major in prop_oneof![0u32..3, Just(u32::MAX)],
            minor in prop_oneof![0u32..3, Just(u32::MAX)],
        ) {
            let kind = if block { BLOCK } else { CHARACTER };
            let allowed = rules.iter().any(|rule| {
                let of_kind = match rule.kind {
                    DeviceKind::Any => true,
                    DeviceKind::Block => block,
                    DeviceKind::Character => !block,
                };
                let DeviceAccess { read, write, mknod } = rule.access;
                of_kind
                    && rule.major.is_none_or(|number| number == major)
                    && rule.minor.is_none_or(|number| number == minor)
                    && (access & READ == 0 || read)
                    && (access & WRITE == 0 || write)
                    && (access & MKNOD == 0 || mknod)
            });
            prop_assert_eq!(run(&compile(&rules), kind, access, major, minor), allowed);
        }
    }

    #[test]
    fn a_rule_for_any_kind_is_two_for_the_lists() {
        let rule = DeviceRule::parse("a 8:1 r").expect("rule");
        let texts: Vec<_> = single(&rule).iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["b 8:1 r", "c 8:1 r"]);
    }
}
