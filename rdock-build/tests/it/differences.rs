//! Where rdock does on purpose otherwise than BuildKit; `tests/data/differential/README.md` lists them.
use crate::bench::Bench;
use crate::{Tested, root_trial};
use libtest_mimic::Trial;
use rdock_build::BuildError;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        root_trial(
            "chown_to_a_name_that_the_image_does_not_know_fails",
            unknown_owner,
        ),
        root_trial("several_sources_make_a_directory", several_sources),
    ]
}

fn unknown_owner() -> Tested {
    let bench = Bench::new()?;
    bench.file("a", "a")?;
    // The host has the first; the image has none of them.
    for (owner, what) in [
        ("daemon", "user \"daemon\""),
        ("nobody-here", "user \"nobody-here\""),
        ("root:nothing", "group \"nothing\""),
        ("0:nothing", "group \"nothing\""),
    ] {
        for instruction in [
            format!("COPY --chown={owner} a /a"),
            format!("ADD --chown={owner} a /a"),
            format!("COPY --from=base --chown={owner} /etc/passwd /a"),
        ] {
            bench.file("Dockerfile", &format!("FROM base\n# A comment.\n{instruction}\n"))?;
            let error = bench.fails(|builder| builder.tag("half"))?;
            let BuildError::Step {
                place, step, reason, ..
            } = &error
            else {
                return Err(format!("{instruction}: {error:?}").into());
            };
            assert_eq!((place.line, place.text.as_str()), (3, instruction.as_str()));
            assert!(step.contains(owner), "{step}");
            assert!(reason.contains(what), "{reason}");
            assert!(error.to_string().contains("Dockerfile:3"), "{error}");
            assert!(bench.runtime.images().get("half")?.is_none());
        }
    }
    // Numbers need no entry, and names are those of the image as it is at that instruction.
    bench.file(
        "Dockerfile",
        "FROM base\nCOPY --chown=1234:5678 a /numbers\nRUN echo late:x:7:8::/:/bin/sh >> /etc/passwd\n\
         COPY --chown=late a /names\nRUN stat -c %u:%g /numbers /names > /owners\n",
    )?;
    let (built, _) = bench.build(|builder| builder)?;
    assert_eq!(bench.read(&built, "owners")?, "1234:5678\n7:8\n");
    bench.assert_clean()
}

fn several_sources() -> Tested {
    let bench = Bench::new()?;
    bench.file("a", "of a")?;
    bench.file("b", "of b")?;
    for name in ["COPY", "ADD", "COPY --link"] {
        bench.file("Dockerfile", &format!("FROM base\n{name} a b /x\n"))?;
        let (built, _) = bench.build(|builder| builder)?;
        assert_eq!(bench.read(&built, "x/a")?, "of a", "{name}");
        assert_eq!(bench.read(&built, "x/b")?, "of b", "{name}");
    }
    // One source without a slash is a file, as everywhere.
    bench.file("Dockerfile", "FROM base\nCOPY a /x\n")?;
    let (built, _) = bench.build(|builder| builder)?;
    assert_eq!(bench.read(&built, "x")?, "of a");
    // A file that is there is not replaced by a directory.
    bench.file("Dockerfile", "FROM base\nCOPY a /x\nCOPY a b /x\n")?;
    let error = bench.fails(|builder| builder)?;
    assert_eq!(error.place().map(|place| place.line), Some(3), "{error}");
    assert!(error.to_string().contains("/x"), "{error}");
    bench.assert_clean()
}
