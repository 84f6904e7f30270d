//! Rules to BPF: one search tree over system call numbers for each architecture that the processor runs.

use super::{Action, Compare, Condition, Filter, Rule, SeccompError};
use std::collections::BTreeMap;

/// Name, then its number on x86_64, i386 and aarch64.
const NUMBERS: &str = include_str!("numbers.txt");

/// The kernel's limit.
const MOST: usize = 4096;
const ENOSYS: u16 = 38;

// Classic BPF (linux/bpf_common.h).
const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_GREATER_EQUAL: u16 = 0x35;
const RETURN: u16 = 0x06;

// Offsets in struct seccomp_data.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

/// An architecture: AUDIT_ARCH_*, its column in the table.
pub(super) struct Architecture {
    pub(super) audit: u32,
    column: usize,
}

/// Those of this build: the native one first.
#[cfg(target_arch = "x86_64")]
pub(super) const ARCHITECTURES: &[Architecture] = &[
    Architecture {
        audit: 0xc000_003e,
        column: 1,
    },
    Architecture {
        audit: 0x4000_0003,
        column: 2,
    },
];
/// Those of this build. 32-bit programs are answered ENOSYS.
#[cfg(target_arch = "aarch64")]
pub(super) const ARCHITECTURES: &[Architecture] = &[Architecture {
    audit: 0xc000_00b7,
    column: 3,
}];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Instruction {
    pub(super) code: u16,
    pub(super) yes: u8,
    pub(super) no: u8,
    pub(super) k: u32,
}

const fn op(code: u16, k: u32) -> Instruction {
    Instruction {
        code,
        yes: 0,
        no: 0,
        k,
    }
}

/// What happens to one number: rules with conditions in order, then the rest.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Leaf {
    conditional: Vec<(Vec<Condition>, Action)>,
    otherwise: Action,
}

pub(super) fn compile(default: Action, rules: &[Rule]) -> Result<Filter, SeccompError> {
    let program = program(default, rules);
    if program.len() > MOST {
        return Err(SeccompError::TooLarge {
            instructions: program.len(),
        });
    }
    let mut bytes = Vec::with_capacity(program.len() * 8);
    for instruction in program {
        bytes.extend_from_slice(&instruction.code.to_ne_bytes());
        bytes.extend_from_slice(&[instruction.yes, instruction.no]);
        bytes.extend_from_slice(&instruction.k.to_ne_bytes());
    }
    Ok(bytes.into())
}

pub(super) fn program(default: Action, rules: &[Rule]) -> Vec<Instruction> {
    let mut code = vec![op(LOAD, ARCHITECTURE)];
    for architecture in ARCHITECTURES {
        let mut body = vec![op(LOAD, NUMBER)];
        body.extend(tree(&ranges(architecture, default, rules)));
        code.push(Instruction {
            code: JUMP_EQUAL,
            yes: 1,
            no: 0,
            k: architecture.audit,
        });
        code.push(op(JUMP, body.len() as u32));
        code.extend(body);
    }
    code.push(op(RETURN, Action::Errno(ENOSYS).value()));
    code
}

/// Number of a call on an architecture; `None` where it has none.
fn numbers(architecture: &Architecture) -> BTreeMap<&'static str, u32> {
    NUMBERS
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ');
            let name = fields.next()?;
            Some((name, fields.nth(architecture.column - 1)?.parse().ok()?))
        })
        .collect()
}

/// Ascending first numbers, each with what holds from there on; neighbours differ.
fn ranges(architecture: &Architecture, default: Action, rules: &[Rule]) -> Vec<(u32, Leaf)> {
    let numbers = numbers(architecture);
    let plain = |action| Leaf {
        conditional: Vec::new(),
        otherwise: action,
    };
    let mut leaves: BTreeMap<u32, Leaf> = BTreeMap::new();
    for rule in rules {
        for number in rule.names.iter().filter_map(|name| numbers.get(name.as_str())) {
            let leaf = leaves.entry(*number).or_insert_with(|| plain(default));
            if rule.conditions.is_empty() {
                leaf.otherwise = rule.action;
            } else {
                leaf.conditional.push((rule.conditions.clone(), rule.action));
            }
        }
    }
    let mut ranges: Vec<(u32, Leaf)> = vec![(0, plain(default))];
    let mut add = |from: u32, leaf: Leaf| {
        if let Some(last) = ranges.last_mut().filter(|(first, _)| *first == from) {
            last.1 = leaf;
        } else {
            ranges.push((from, leaf));
        }
    };
    for (number, leaf) in leaves {
        add(number, leaf);
        add(number + 1, plain(default));
    }
    if cfg!(target_arch = "x86_64") && architecture.column == 1 {
        // The x32 numbers, which share the architecture's id.
        add(0x4000_0000, plain(Action::Errno(ENOSYS)));
    }
    ranges.dedup_by(|next, previous| next.1 == previous.1);
    ranges
}

fn tree(ranges: &[(u32, Leaf)]) -> Vec<Instruction> {
    if let [(_, only)] = ranges {
        return leaf(only);
    }
    let middle = ranges.len() / 2;
    let (low, high) = (tree(&ranges[..middle]), tree(&ranges[middle..]));
    let mut code = Vec::with_capacity(low.len() + high.len() + 2);
    match u8::try_from(low.len()) {
        Ok(distance) => {
            code.push(Instruction {
                code: JUMP_GREATER_EQUAL,
                yes: distance,
                no: 0,
                k: ranges[middle].0,
            });
        }
        // A conditional jump reaches 255 instructions.
        Err(_) => {
            code.push(Instruction {
                code: JUMP_GREATER_EQUAL,
                yes: 0,
                no: 1,
                k: ranges[middle].0,
            });
            code.push(op(JUMP, low.len() as u32));
        }
    }
    code.extend(low);
    code.extend(high);
    code
}

fn leaf(leaf: &Leaf) -> Vec<Instruction> {
    let mut code = Vec::new();
    for (conditions, action) in &leaf.conditional {
        code.extend(conditional(conditions, *action));
    }
    code.push(op(RETURN, leaf.otherwise.value()));
    code
}

/// Returns the action when every condition holds, else falls through.
fn conditional(conditions: &[Condition], action: Action) -> Vec<Instruction> {
    let mut code = vec![op(RETURN, action.value())];
    for condition in conditions.iter().rev() {
        let mut test = test(condition, code.len() as u8);
        test.extend(code);
        code = test;
    }
    code
}

/// Falls through when the condition holds, else jumps over the `rest` instructions after it.
fn test(condition: &Condition, rest: u8) -> Vec<Instruction> {
    let low = op(LOAD, ARGUMENTS + 8 * u32::from(condition.argument));
    let high = op(LOAD, low.k + 4);
    let (value_low, value_high) = (condition.value as u32, (condition.value >> 32) as u32);
    let jump = |code, k, yes, no| Instruction { code, yes, no, k };
    match condition.compare {
        Compare::Equal => vec![
            high,
            jump(JUMP_EQUAL, value_high, 0, rest + 2),
            low,
            jump(JUMP_EQUAL, value_low, 0, rest),
        ],
        Compare::NotEqual => {
            vec![
                high,
                jump(JUMP_EQUAL, value_high, 0, 2),
                low,
                jump(JUMP_EQUAL, value_low, rest, 0),
            ]
        }
        Compare::MaskedEqual => vec![
            high,
            op(AND, (condition.mask >> 32) as u32),
            jump(JUMP_EQUAL, value_high, 0, rest + 3),
            low,
            op(AND, condition.mask as u32),
            jump(JUMP_EQUAL, value_low, 0, rest),
        ],
        Compare::Greater | Compare::GreaterOrEqual => {
            let last = if condition.compare == Compare::Greater {
                JUMP_GREATER
            } else {
                JUMP_GREATER_EQUAL
            };
            vec![
                high,
                jump(JUMP_GREATER, value_high, 3, 0),
                jump(JUMP_EQUAL, value_high, 0, rest + 2),
                low,
                jump(last, value_low, 0, rest),
            ]
        }
        Compare::Less | Compare::LessOrEqual => {
            let last = if condition.compare == Compare::Less {
                JUMP_GREATER_EQUAL
            } else {
                JUMP_GREATER
            };
            vec![
                high,
                jump(JUMP_GREATER, value_high, rest + 3, 0),
                jump(JUMP_EQUAL, value_high, 0, 2),
                low,
                jump(last, value_low, rest, 0),
            ]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::profile::default_rules;
    use super::*;

    /// Runs a program as the kernel does.
    fn run(program: &[Instruction], number: u32, audit: u32, arguments: [u64; 6]) -> u32 {
        let mut data = Vec::new();
        data.extend(number.to_le_bytes());
        data.extend(audit.to_le_bytes());
        data.extend(0u64.to_le_bytes());
        arguments
            .iter()
            .for_each(|argument| data.extend(argument.to_le_bytes()));
        let (mut at, mut a) = (0, 0u32);
        loop {
            let Instruction { code, yes, no, k } = program[at];
            at += 1;
            let mut branch = |taken: bool| at += usize::from(if taken { yes } else { no });
            match code {
                LOAD => {
                    let raw = &data[k as usize..k as usize + 4];
                    a = u32::from_le_bytes(raw.try_into().expect("four bytes"));
                }
                AND => a &= k,
                JUMP => at += k as usize,
                JUMP_EQUAL => branch(a == k),
                JUMP_GREATER => branch(a > k),
                JUMP_GREATER_EQUAL => branch(a >= k),
                RETURN => return k,
                other => panic!("unknown instruction {other:#x}"),
            }
        }
    }

    fn holds(condition: &Condition, arguments: &[u64; 6]) -> bool {
        let argument = arguments[usize::from(condition.argument)];
        match condition.compare {
            Compare::Equal => argument == condition.value,
            Compare::NotEqual => argument != condition.value,
            Compare::Less => argument < condition.value,
            Compare::LessOrEqual => argument <= condition.value,
            Compare::Greater => argument > condition.value,
            Compare::GreaterOrEqual => argument >= condition.value,
            Compare::MaskedEqual => argument & condition.mask == condition.value,
        }
    }

    /// The rules themselves, without any tree.
    fn expected(rules: &[Rule], name: &str, arguments: &[u64; 6]) -> Action {
        let own: Vec<_> = rules
            .iter()
            .filter(|rule| rule.names.iter().any(|one| one == name))
            .collect();
        let conditional = own
            .iter()
            .filter(|rule| !rule.conditions.is_empty())
            .find(|rule| {
                rule.conditions
                    .iter()
                    .all(|condition| holds(condition, arguments))
            });
        let plain = own.iter().rev().find(|rule| rule.conditions.is_empty());
        conditional.or(plain).map_or(Action::Errno(1), |rule| rule.action)
    }

    #[test]
    fn the_tree_answers_as_the_rules_do_for_every_call() {
        for bounding in [0, 0xa804_25fb, u64::MAX] {
            let rules = default_rules(bounding);
            let program = program(Action::Errno(1), &rules);
            assert!(program.len() < 1000, "{} instructions", program.len());
            for architecture in ARCHITECTURES {
                let by_number: BTreeMap<u32, &str> = numbers(architecture)
                    .into_iter()
                    .map(|(name, number)| (number, name))
                    .collect();
                for number in 0..600 {
                    for first in [0, 8, 38, 40, 0x2000_0000, 0xffff_ffff, 1 << 40, (1 << 40) + 38] {
                        let arguments = [first, 0, 0, 0, 0, 0];
                        let wanted = by_number
                            .get(&number)
                            .map_or(Action::Errno(1), |name| expected(&rules, name, &arguments));
                        assert_eq!(
                            run(&program, number, architecture.audit, arguments),
                            wanted.value(),
                            "{number}"
                        );
                    }
                }
            }
            assert_eq!(run(&program, 39, 0x1234, [0; 6]), Action::Errno(ENOSYS).value());
        }
    }

    #[test]
    fn every_comparison_is_of_64_bits() {
        let values = [0, 1, 5, u64::from(u32::MAX), 1 << 32, (1 << 32) + 5, u64::MAX];
        for compare in [
            Compare::Equal,
            Compare::NotEqual,
            Compare::Less,
            Compare::LessOrEqual,
            Compare::Greater,
            Compare::GreaterOrEqual,
            Compare::MaskedEqual,
        ] {
            for value in values {
                let condition = Condition {
                    argument: 1,
                    compare,
                    value,
                    mask: 0xff_0000_00ff,
                };
                let second = Condition {
                    argument: 0,
                    compare: Compare::Equal,
                    value: 7,
                    mask: 0,
                };
                let conditions = vec![condition, second];
                let rule = Rule {
                    names: vec!["read".into()],
                    action: Action::Log,
                    conditions,
                };
                let program = program(Action::Allow, std::slice::from_ref(&rule));
                let native = &ARCHITECTURES[0];
                let number = numbers(native)["read"];
                for argument in values {
                    for first in [7, 8] {
                        let arguments = [first, argument, 0, 0, 0, 0];
                        let all = rule
                            .conditions
                            .iter()
                            .all(|condition| holds(condition, &arguments));
                        let wanted = if all { Action::Log } else { Action::Allow };
                        assert_eq!(run(&program, number, native.audit, arguments), wanted.value());
                    }
                }
            }
        }
    }

    #[test]
    fn the_default_profile_knows_only_real_calls() {
        let names: Vec<&str> = NUMBERS
            .lines()
            .filter_map(|line| line.split(' ').next())
            .collect();
        for rule in default_rules(u64::MAX).iter().chain(&default_rules(0)) {
            for name in &rule.names {
                // Calls of other processors alone are not in the table.
                assert!(names.contains(&name.as_str()), "{name}");
            }
        }
    }
}
