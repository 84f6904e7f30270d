//! What holds for any input: no panic, no time that grows faster than the input.
use crate::{Tested, trial};
use libtest_mimic::Trial;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use rdock_build::Chmod;
use rdock_build::dockerfile::{
    BuildArgs, Dockerfile, Globals, Instruction, Lexer, Scope, SyntaxTree, exposed_port,
};
use rdock_build::ignore::{Glob, Patterns};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("bld_malformed_input_any_bytes", any_bytes),
        trial("bld_malformed_input_any_words", any_words),
        trial("bld_malformed_input_small_grammars", small_grammars),
        trial("bld_malformed_input_hostile_sizes", hostile_sizes),
        trial(
            "a_pattern_of_plain_characters_matches_itself_alone",
            plain_patterns,
        ),
        trial("spans_lie_in_the_text_and_in_order", spans),
    ]
}

fn run<S: Strategy>(
    cases: u32,
    strategy: &S,
    test: impl Fn(S::Value) -> Result<(), TestCaseError>,
) -> Tested {
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    Ok(TestRunner::new(config)
        .run(strategy, test)
        .map_err(|error| error.to_string())?)
}

/// Reads a file as a build would, as far as the language goes.
fn digest(bytes: &[u8]) {
    let Ok(dockerfile) = Dockerfile::parse_bytes("Dockerfile", bytes) else {
        return;
    };
    let args = BuildArgs::default();
    let _ = dockerfile.check(&args, None);
    let _ = dockerfile.supported(&dockerfile.stages);
    let Ok(globals) = Globals::new(&dockerfile, &args) else {
        return;
    };
    let globals = Arc::new(globals);
    for stage in &dockerfile.stages {
        let _ = globals.from(&dockerfile.source, stage);
        let mut scope = Scope::new(globals.clone(), &["HOME".to_owned(), "A=b".to_owned()]);
        for instruction in &stage.instructions {
            if let Ok(rdock_build::dockerfile::Kind::Run(run)) = scope.expand(&dockerfile.source, instruction)
            {
                let _ = scope.mounts(&dockerfile.source, &run);
                let _ = run.script();
            }
        }
    }
}

fn any_bytes() -> Tested {
    run(400, &proptest::collection::vec(any::<u8>(), 0..400), |bytes| {
        digest(&bytes);
        Ok(())
    })
}

/// Words of the language in any order, so that most of the parser is reached.
fn any_words() -> Tested {
    let word = prop::sample::select(vec![
        "FROM",
        "RUN",
        "COPY",
        "ADD",
        "ENV",
        "ARG",
        "LABEL",
        "ONBUILD",
        "HEALTHCHECK",
        "CMD",
        "EXPOSE",
        "VOLUME",
        "SHELL",
        "STOPSIGNAL",
        "USER",
        "WORKDIR",
        "ENTRYPOINT",
        "MAINTAINER",
        "scratch",
        "AS",
        "a",
        "$A",
        "${A:-b}",
        "${A#*}",
        "${",
        "}",
        "\\",
        "`",
        "\"",
        "'",
        "[",
        "]",
        ",",
        "=",
        "--mount=type=cache,target=/x",
        "--from=",
        "--mount=",
        "--chmod=u+x",
        "--",
        "-",
        "<<EOF",
        "<<-\"E\"",
        "EOF",
        "E",
        "3<<X",
        "# escape=`",
        "#",
        "é",
        "\t",
        "NONE",
        "--interval=5s",
        "80/tcp",
        "--platform=$P",
        "\u{feff}",
        "\u{0}",
    ]);
    let gap = prop::sample::select(vec![" ", "\n", "\n", "", "\\\n", "\r\n", "  "]);
    let text = proptest::collection::vec((word, gap), 0..60);
    run(1500, &text, |parts| {
        let text: String = parts.into_iter().flat_map(|(word, gap)| [word, gap]).collect();
        digest(text.as_bytes());
        let _ = Instruction::parse("trigger", &text);
        let after = format!("FROM scratch\nARG A=${{A:-x}}\n{text}");
        digest(after.as_bytes());
        Ok(())
    })
}

fn small_grammars() -> Tested {
    run(
        1500,
        &("\\PC{0,40}", "[a-z*?/!\\[\\]\\\\^.-]{0,24}", "[a-z/.]{0,24}"),
        |(any, pattern, path)| {
            let _ = Chmod::parse(&any).map(|chmod| chmod.apply(0o644, false));
            let _ = Chmod::parse(&pattern);
            let _ = exposed_port(&any);
            let _ = Lexer::new('\\').word(&any, &BTreeMap::<String, String>::new());
            for pattern in [&any, &pattern] {
                let _ = Glob::path(pattern).map(|glob| glob.matches(&path));
                let _ = Patterns::new([pattern]).map(|patterns| {
                    patterns.may_include_below(&path);
                    patterns.excludes(&path)
                });
            }
            Ok(())
        },
    )
}

/// Inputs made to be slow: four times the input may not take more than a constant times four. The factor is far off
/// the linear one, so that a loaded machine does not matter, and far below the quadratic one of these sizes.
fn hostile_sizes() -> Tested {
    type Make = fn(usize) -> String;
    let makers: [(&str, Make); 16] = [
        ("continuations", |n| {
            format!("FROM scratch\nRUN {}", "x \\\n".repeat(n))
        }),
        ("comments in a continuation", |n| {
            format!("FROM scratch\nRUN x \\\n{}y", "# c\n".repeat(n))
        }),
        ("one long line", |n| {
            format!("FROM scratch\nRUN {}", "x ".repeat(n))
        }),
        ("flags", |n| {
            format!("FROM scratch\nCOPY {} a b", "--exclude=x ".repeat(n))
        }),
        ("here-documents", |n| {
            format!("FROM scratch\nCOPY {} /\n{}", "<<E ".repeat(n), "E\n".repeat(n))
        }),
        ("a long here-document", |n| {
            format!("FROM scratch\nRUN <<E\n{}E\n", "line\n".repeat(n))
        }),
        ("quotes", |n| format!("FROM scratch\nENV a={}", "\"'\"".repeat(n))),
        ("variables", |n| {
            format!("FROM scratch\nENV a={}", "$a${a}".repeat(n))
        }),
        ("open braces", |n| {
            format!("FROM scratch\nENV a={}", "${a:-".repeat(n))
        }),
        ("JSON", |n| {
            format!("FROM scratch\nCMD [{}]", vec!["\"x\""; n.max(1)].join(","))
        }),
        ("deep JSON", |n| format!("FROM scratch\nCMD {}", "[".repeat(n))),
        ("stars", |n| {
            format!(
                "FROM scratch\nENV a={}\nENV b=${{a#{}b}}",
                "a".repeat(200),
                "*a".repeat(n / 100)
            )
        }),
        ("many instructions", |n| {
            format!("FROM scratch\n{}", "ENV a=b\n".repeat(n))
        }),
        ("many variables", |n| {
            let lines: String = (0..n / 4).map(|i| format!("ENV a{i}=b\n")).collect();
            format!("FROM scratch\n{lines}")
        }),
        ("many arguments", |n| {
            let args: String = (0..n / 4).map(|i| format!("ARG a{i}=$a{}\n", i / 2)).collect();
            format!("FROM scratch\n{args}RUN x")
        }),
        ("many stages", |n| {
            (0..n / 20).map(|i| format!("FROM scratch AS s{i}\n")).collect()
        }),
    ];
    for (what, make) in makers {
        let time = |n| {
            let text = make(n);
            let start = Instant::now();
            digest(text.as_bytes());
            start.elapsed()
        };
        let (small, large) = (time(4_000), time(64_000));
        let bound = small.max(Duration::from_millis(20)) * 100;
        if large > bound {
            return Err(format!("{what}: {small:?} for 4,000 and {large:?} for 64,000").into());
        }
    }
    // Values that double, and patterns that try every split.
    let doubling = format!("FROM scratch\nENV a=xxxxxxxx\n{}", "ENV a=$a$a\n".repeat(64));
    let start = Instant::now();
    digest(doubling.as_bytes());
    let patterns = Patterns::new([format!("{}b", "**/*a".repeat(200))])?;
    patterns.excludes(&"a/".repeat(2_000));
    match start.elapsed() {
        spent if spent > Duration::from_secs(60) => Err(format!("doubling took {spent:?}").into()),
        _ => Ok(()),
    }
}

fn plain_patterns() -> Tested {
    run(
        1000,
        &("[a-z.+(){}|$ ]{1,12}", "[a-z.+(){}|$ ]{1,12}"),
        |(pattern, path)| {
            let glob = Glob::path(&pattern).map_err(TestCaseError::fail)?;
            prop_assert!(glob.matches(&pattern));
            prop_assert_eq!(glob.matches(&path), pattern == path);
            Ok(())
        },
    )
}

fn spans() -> Tested {
    let line = prop::sample::select(vec![
        "RUN --mount=type=cache,target=/c echo é\n",
        "COPY --chown=a:b x y \\\n  z /\n",
        "# note\n",
        "\n",
        "RUN <<E\nbody ☃\nE\n",
        "ENV a=b \\\n# comment\n c=d\n",
        "ONBUILD RUN --network=none x\r\n",
    ]);
    run(500, &proptest::collection::vec(line, 0..12), |lines| {
        let text = format!("\u{feff}FROM scratch\n{}", lines.concat());
        let tree = SyntaxTree::parse("f", &text).map_err(|error| TestCaseError::fail(error.to_string()))?;
        let mut end = 0;
        for statement in &tree.statements {
            let slice = tree.source.slice(statement.span);
            prop_assert!(slice.starts_with(&statement.keyword), "{slice:?}");
            prop_assert!(statement.span.start >= end);
            end = statement.span.end;
            let lines = text[..statement.span.start].matches('\n').count() + 1;
            prop_assert_eq!(statement.span.first_line as usize, lines);
            for flag in &statement.flags {
                prop_assert_eq!(tree.source.slice(flag.span), &flag.text);
            }
        }
        Ok(())
    })
}
