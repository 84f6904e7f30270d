//! What a hostile file costs: an error with a place, little time and little memory.
//!
//! Each document is loaded in a process of its own, so that the memory is its alone.

use rdock_compose::{Error, FindingKind, LoadOptions, Project};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// The bar, beyond what the process has before it loads anything.
const MEMORY: u64 = 64 << 20;

/// The bar is half a second in a release build on a quiet machine; this is only against what never ends.
const TIME: Duration = Duration::from_secs(20);

const NAME: &str =
    "hostile::cmp_alias_bomb_and_other_hostile_files_end_in_an_error_soon_and_in_little_memory";

/// The case that a process of its own loads.
const CASE: &str = "RDOCK_HOSTILE_CASE";

/// Files of a project, `compose.yaml` among them, and what is wrong with it.
type Case = (&'static str, fn(&Path), &'static [FindingKind]);

use FindingKind::{
    BadValue, Conflict, Cycle, DuplicateKey, Interpolation, Limit, Refused, Syntax, Undefined, WrongType,
};

const CASES: &[Case] = &[
    (
        "nine times nine aliases",
        |dir| compose(dir, &bomb("x, ")),
        &[Limit],
    ),
    (
        "merge keys of merge keys",
        |dir| {
            let mut text = String::from("x-a0: &a0 {k: v}\n");
            for level in 1..40 {
                let _ = writeln!(
                    text,
                    "x-a{level}: &a{level} {{<<: [*a{0}, *a{0}], k{level}: *a{0}}}",
                    level - 1
                );
            }
            compose(dir, &text);
        },
        &[Limit],
    ),
    (
        "an anchor in itself",
        |dir| compose(dir, "x-a: &a [*a]\n"),
        &[Cycle, Syntax],
    ),
    (
        "long texts behind aliases",
        |dir| {
            let long = "y".repeat(1 << 20);
            let many = "*a, ".repeat(5000);
            compose(dir, &format!("x-a: &a {long}\nx-b: [{many}]\n"));
        },
        &[Limit],
    ),
    (
        "services that extend each other",
        |dir| compose(dir, "services: {a: {extends: b}, b: {extends: a}}"),
        &[Cycle],
    ),
    (
        "files that extend each other",
        |dir| {
            compose(dir, "services: {a: {extends: {file: b.yaml, service: b}}}");
            write(
                dir,
                "b.yaml",
                "services: {b: {extends: {file: compose.yaml, service: a}}}",
            );
        },
        &[Cycle],
    ),
    (
        "a long chain of extends",
        |dir| {
            let mut text = String::from("services:\n  s0: {image: x}\n");
            for n in 1..10_000 {
                let _ = writeln!(text, "  s{n}: {{extends: s{}}}", n - 1);
            }
            compose(dir, &text);
        },
        &[Limit, Cycle],
    ),
    (
        "one service of many values in many services",
        |dir| {
            let labels: String = (0..5000).map(|n| format!("l{n}: v, ")).collect();
            write(
                dir,
                "b.yaml",
                &format!("services: {{b: {{image: x, labels: {{{labels}}}}}}}"),
            );
            let services: String = (0..2000)
                .map(|n| format!("  s{n}: {{extends: {{file: b.yaml, service: b}}}}\n"))
                .collect();
            compose(dir, &format!("services:\n{services}"));
        },
        &[Limit],
    ),
    (
        "many files of many values",
        |dir| {
            let labels: String = (0..30_000).map(|n| format!("l{n}: v, ")).collect();
            let mut names = String::new();
            for n in 0..100 {
                write(dir, &format!("f{n}.yaml"), &format!("x-a: {{{labels}}}"));
                let _ = write!(names, "f{n}.yaml, ");
            }
            compose(dir, &format!("include: [{names}]"));
        },
        &[Limit],
    ),
    (
        "many files of long texts",
        |dir| {
            let mut names = String::new();
            for n in 0..100 {
                write(
                    dir,
                    &format!("f{n}.yaml"),
                    &format!("x-a: '{}'", "x".repeat(4_000_000)),
                );
                let _ = write!(names, "f{n}.yaml, ");
            }
            compose(dir, &format!("include: [{names}]"));
        },
        &[Limit],
    ),
    (
        "files that include each other",
        |dir| {
            compose(dir, "include: [b.yaml]");
            write(dir, "b.yaml", "include: [compose.yaml]");
        },
        &[Cycle],
    ),
    (
        "a thousand includes",
        |dir| {
            let names: String = (0..1000).map(|n| format!("f{n}.yaml, ")).collect();
            for n in 0..1000 {
                write(
                    dir,
                    &format!("f{n}.yaml"),
                    &format!("services: {{s{n}: {{image: x}}}}"),
                );
            }
            compose(dir, &format!("include: [{names}]"));
        },
        &[Limit],
    ),
    (
        "includes that double",
        |dir| {
            for n in 0..40 {
                let next = n + 1;
                write(
                    dir,
                    &format!("f{n}.yaml"),
                    &format!("include: [f{next}.yaml, g{next}.yaml]"),
                );
                write(
                    dir,
                    &format!("g{n}.yaml"),
                    &format!("include: [f{next}.yaml, g{next}.yaml]"),
                );
            }
            write(dir, "f40.yaml", "services: {a: {image: x}}");
            write(dir, "g40.yaml", "services: {b: {image: x}}");
            compose(dir, "include: [f0.yaml]");
        },
        &[Limit],
    ),
    (
        "a ring of two thousand services",
        |dir| {
            let ring: String = (0..1900)
                .map(|n| format!("  s{n}: {{image: x, depends_on: [s{}]}}\n", (n + 1) % 1900))
                .collect();
            compose(dir, &format!("services:\n{ring}"));
        },
        &[Cycle, Limit],
    ),
    (
        "ten thousand services",
        |dir| {
            let services: String = (0..10_000).map(|n| format!("  s{n}: {{image: x}}\n")).collect();
            compose(dir, &format!("services:\n{services}"));
        },
        &[Limit],
    ),
    (
        "wrong types everywhere",
        |dir| {
            let services: String = (0..2000)
                .map(|n| format!("  s{n}: {{image: [], ports: {{}}, build: 3, volumes: 7, deploy: []}}\n"))
                .collect();
            compose(dir, &format!("services:\n{services}"));
        },
        &[WrongType],
    ),
    (
        "the same key again and again",
        |dir| compose(dir, &format!("services:\n{}", "  a: {image: x}\n".repeat(30_000))),
        &[DuplicateKey],
    ),
    (
        "ten megabytes of text",
        |dir| {
            compose(
                dir,
                &format!("services: {{a: {{image: '{}'}}}}", "x".repeat(10 << 20)),
            )
        },
        &[Limit],
    ),
    (
        "ten megabytes of services",
        |dir| {
            let services: String = (0..500_000).map(|n| format!("  s{n}: {{image: x}}\n")).collect();
            compose(dir, &format!("services:\n{services}"));
        },
        &[Limit],
    ),
    (
        "ten megabytes of brackets",
        |dir| compose(dir, &"[".repeat(10 << 20)),
        &[Limit],
    ),
    (
        "three megabytes of short services",
        |dir| {
            let services: String = (0..250_000).map(|n| format!("  s{n}: {{}}\n")).collect();
            compose(dir, &format!("services:\n{services}"));
        },
        &[Limit],
    ),
    (
        "a megabyte of brackets",
        |dir| compose(dir, &format!("x-a: {}", "[".repeat(1 << 20))),
        &[Limit, Syntax],
    ),
    (
        "two thousand mappings in each other",
        |dir| {
            let deep: String = (0..2000)
                .map(|depth| format!("{}a:\n", " ".repeat(depth)))
                .collect();
            compose(dir, &deep);
        },
        &[Limit],
    ),
    (
        "a hundred times all ports",
        |dir| {
            let ports = "'1-65535:1-65535', ".repeat(100);
            compose(dir, &format!("services: {{a: {{image: x, ports: [{ports}]}}}}"));
        },
        &[Limit],
    ),
    (
        "all ports of many services",
        |dir| {
            let services: String = (0..3000)
                .map(|n| format!("  s{n}: {{image: x, ports: ['1-16000:1-16000']}}\n"))
                .collect();
            compose(dir, &format!("services:\n{services}"));
        },
        &[Limit],
    ),
    (
        "all exposed ports of many services",
        |dir| {
            let services: String = (0..3000)
                .map(|n| format!("  s{n}: {{image: x, expose: ['1-65535']}}\n"))
                .collect();
            compose(dir, &format!("services:\n{services}x-end: ${{\n"));
        },
        &[Limit, Interpolation],
    ),
    (
        "variables that are never closed",
        |dir| {
            compose(
                dir,
                &format!("services: {{a: {{image: '{}'}}}}", "${A:-".repeat(100_000)),
            )
        },
        &[Interpolation, Limit],
    ),
    (
        "a long variable many times in one text",
        |dir| {
            write(dir, ".env", &format!("A={}\n", "x".repeat(1_000_000)));
            compose(
                dir,
                &format!("services: {{a: {{image: '{}'}}}}", "$A".repeat(1_000_000)),
            );
        },
        &[Limit, Interpolation],
    ),
    (
        "a long variable in many texts",
        |dir| {
            write(dir, ".env", &format!("A={}\n", "x".repeat(1_000_000)));
            let labels: String = (0..10_000).map(|n| format!("l{n}: $A, ")).collect();
            compose(
                dir,
                &format!("services: {{a: {{image: x, labels: {{{labels}}}}}}}"),
            );
        },
        &[Limit],
    ),
    (
        "variables that double in .env",
        |dir| {
            write(dir, ".env", &doubling());
            compose(dir, "services: {a: {image: '$V60'}}");
        },
        &[Limit, Syntax],
    ),
    (
        "variables that double in an env_file",
        |dir| {
            write(dir, "e", &doubling());
            compose(dir, "services: {a: {image: x, env_file: e}}");
        },
        &[Limit, Syntax],
    ),
    (
        "an env_file of a hundred megabytes",
        |dir| {
            write(dir, "e", &"A=b\n".repeat(25 << 20));
            compose(dir, "services: {a: {image: x, env_file: e}}");
        },
        &[Limit, Syntax],
    ),
    (
        "a .env of a hundred megabytes",
        |dir| {
            write(dir, ".env", &"A=b\n".repeat(25 << 20));
            compose(dir, "services: {a: {image: x}}");
        },
        &[Limit],
    ),
    (
        "one env_file of two thousand services",
        |dir| {
            write(
                dir,
                "e",
                &(0..20_000).map(|n| format!("A{n}=b\n")).collect::<String>(),
            );
            let services: String = (0..1900)
                .map(|n| format!("  s{n}: {{image: x, env_file: e}}\n"))
                .collect();
            compose(dir, &format!("services:\n{services}"));
        },
        &[Limit],
    ),
    (
        "a file of variables that is a device",
        |dir| compose(dir, "services: {a: {image: x, env_file: /dev/zero}}"),
        &[Refused],
    ),
    (
        "a file of variables of a terabyte",
        |dir| {
            let file = std::fs::File::create(dir.join("long")).expect("a file");
            file.set_len(1 << 40).expect("a hole");
            compose(dir, "services: {a: {image: x, env_file: long}}");
        },
        &[Limit],
    ),
    (
        "a document without an end",
        |dir| {
            std::os::unix::fs::symlink("/dev/zero", dir.join("compose.yaml")).expect("a link");
        },
        &[Limit],
    ),
    (
        "not UTF-8",
        |dir| std::fs::write(dir.join("compose.yaml"), b"services: {a: {image: \xff\xfe}}").expect("written"),
        &[Syntax],
    ),
    (
        "numbers without an end",
        |dir| {
            let digits = "9".repeat(1 << 20);
            compose(
                dir,
                &format!("services: {{a: {{image: x, cpu_shares: {digits}, scale: 1e{digits}}}}}"),
            );
        },
        &[WrongType, BadValue],
    ),
    (
        "more replicas than there are numbers",
        |dir| compose(dir, "services: {a: {image: x, scale: 99999999999999999999}}"),
        &[WrongType, BadValue, Limit],
    ),
    (
        "thirty-five thousand unknown dependencies",
        |dir| {
            let needs: String = (0..35_000).map(|n| format!("d{n}, ")).collect();
            compose(
                dir,
                &format!("services: {{a: {{image: x, depends_on: [{needs}]}}}}"),
            );
        },
        &[Undefined, Limit],
    ),
    (
        "unknown names among many near ones",
        |dir| {
            let volumes: String = (0..12_000).map(|n| format!("  volume{n}: {{}}\n")).collect();
            let mounts: String = (0..3000).map(|n| format!("'volumf{n}:/m{n}', ")).collect();
            compose(
                dir,
                &format!("services: {{a: {{image: x, volumes: [{mounts}]}}}}\nvolumes:\n{volumes}"),
            );
        },
        &[Undefined, Limit],
    ),
    (
        "everything excludes everything",
        |dir| {
            let secrets: String = (0..6000)
                .map(|n| format!("  s{n}: {{file: x, environment: y}}\n"))
                .collect();
            compose(
                dir,
                &format!("services: {{a: {{image: x}}}}\nsecrets:\n{secrets}"),
            );
        },
        &[Conflict, Limit],
    ),
];

fn write(dir: &Path, name: &str, text: &str) {
    std::fs::write(dir.join(name), text).expect("a file is written");
}

fn compose(dir: &Path, text: &str) {
    write(dir, "compose.yaml", text);
}

fn bomb(leaf: &str) -> String {
    let mut bomb = format!("x-a0: &a0 [{}]\n", leaf.repeat(9));
    for level in 1..10 {
        let _ = writeln!(
            bomb,
            "x-a{level}: &a{level} [{}]",
            format!("*a{}, ", level - 1).repeat(9)
        );
    }
    bomb
}

/// Each variable is the one before it twice.
fn doubling() -> String {
    let mut text = String::from("V0=xxxxxxxx\n");
    for n in 1..61 {
        let _ = writeln!(text, "V{n}=${{V{0}}}${{V{0}}}", n - 1);
    }
    text
}

#[test]
fn cmp_alias_bomb_and_other_hostile_files_end_in_an_error_soon_and_in_little_memory() {
    if let Ok(case) = std::env::var(CASE) {
        return load(&case);
    }
    let mut table = String::new();
    let mut wrong = Vec::new();
    for (name, make, kinds) in CASES {
        let dir = tempfile::tempdir().unwrap();
        make(dir.path());
        // What goes beyond all measure ends itself and not the machine.
        let child = Command::new("sh")
            .args(["-c", "ulimit -v 4000000; ulimit -t 60; exec \"$@\"", "sh"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", NAME, "--nocapture"])
            .env(CASE, dir.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&child.stdout).into_owned();
        let Some(line) = said.lines().find_map(|line| line.split_once("measured: ")) else {
            wrong.push(format!(
                "{name}: ended with {}: {said}{}",
                child.status,
                String::from_utf8_lossy(&child.stderr)
            ));
            continue;
        };
        let words: Vec<&str> = line.1.splitn(4, ' ').collect();
        let [micros, bytes, kind, message] = words[..] else {
            panic!("{line:?}")
        };
        let (time, memory) = (
            Duration::from_micros(micros.parse().unwrap()),
            bytes.parse::<u64>().unwrap(),
        );
        let message: String = message.chars().take(100).collect();
        let _ = writeln!(
            table,
            "{:>7.1} ms {:>6.1} MiB  {name}: {kind}: {message}",
            time.as_secs_f64() * 1e3,
            memory as f64 / f64::from(1 << 20)
        );
        if memory >= MEMORY || time >= TIME || !kinds.iter().any(|known| format!("{known:?}") == kind) {
            wrong.push(format!(
                "{name}: {kind} in {time:?} and {memory} bytes: {message}"
            ));
        }
    }
    // The figures are wanted even from a run that passes.
    std::io::stderr().write_all(table.as_bytes()).unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// In a process of its own: loads the project and says what that took.
fn load(dir: &str) {
    // From here on the peak is counted anew: proc(5), clear_refs.
    let anew = std::fs::write("/proc/self/clear_refs", "5").is_ok();
    let before = memory(if anew { "VmRSS:" } else { "VmHWM:" });
    let began = Instant::now();
    let error = Project::load(&LoadOptions::new(dir).file("compose.yaml"))
        .map(|_| ())
        .unwrap_err();
    let took = began.elapsed();
    // Also what it says is made.
    let said = error.to_string();
    let peak = memory("VmHWM:").saturating_sub(before);
    let kind = match &error {
        Error::Invalid { findings } => format!("{:?}", findings[0].kind),
        other => format!("not typed: {other:?}"),
    };
    let line = said.lines().next().unwrap_or_default();
    let line = format!(
        "\nmeasured: {} {peak} {} {line}\n",
        took.as_micros(),
        kind.replace(' ', "_")
    );
    std::io::stdout().write_all(line.as_bytes()).unwrap();
}

/// A line of proc_pid_status(5), in bytes.
fn memory(key: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}
