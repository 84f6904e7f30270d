//! The build checks in a build.
use crate::{Tested, trial};
use libtest_mimic::Trial;
use rdock_build::runtime::Runtime;
use rdock_build::{BuildError, BuildOutput, Builder};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("findings_of_the_checks_reach_the_caller", reach_the_caller),
        trial("a_strict_file_with_findings_makes_no_image", strict),
    ]
}

fn build(dockerfile: &str) -> Tested<(Result<BuildOutput, BuildError>, usize)> {
    let dir = tempfile::tempdir()?;
    let runtime = Runtime::open(dir.path())?;
    let tokio = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let built = tokio.block_on(Builder::from_text(dockerfile).build(&runtime));
    Ok((built, runtime.images().info()?.images))
}

fn reach_the_caller() -> Tested {
    let (built, images) = build("FROM scratch\nARG known\nMAINTAINER me\nLABEL a=$unknown b=$known\n")?;
    let warnings: Vec<String> = built?.warnings.iter().map(ToString::to_string).collect();
    let expected = [
        "Dockerfile:3:1: MaintainerDeprecated: Maintainer instruction is deprecated in favor of using label",
        "Dockerfile:4:1: UndefinedVar: Usage of undefined variable '$unknown'",
    ];
    match warnings == expected && images == 1 {
        true => Ok(()),
        false => Err(format!("{images} images, {warnings:#?}").into()),
    }
}

fn strict() -> Tested {
    for (text, line) in [
        (
            "# check=error=true\nFROM scratch\nMAINTAINER me\n",
            "Dockerfile:3:1",
        ),
        (
            "# check=error=true;skip=MaintainerDeprecated\nFROM scratch\nMAINTAINER me\nLABEL a=$b\n",
            "Dockerfile:4:1",
        ),
    ] {
        let (built, images) = build(text)?;
        match built {
            Err(BuildError::Dockerfile(error)) if error.place.to_string() == line && images == 0 => {}
            other => return Err(format!("{text}: {images} images, {other:?}").into()),
        }
    }
    let (built, _) = build("# check=error=true;skip=all\nFROM scratch\nMAINTAINER me\n")?;
    Ok(built.map(drop)?)
}
