//! Dockerfiles, typed with `rdock`: the tutorial's application with the real pip, multi-stage, errors.

use crate::fixtures::Name;
use crate::program::{Cannot, Stage, Tested, needs_root, path, success};
use libtest_mimic::Trial;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

/// The tests of this file.
pub(crate) fn trials(stage: &Arc<Stage>) -> Vec<Trial> {
    vec![
        stage.trial(
            "the_tutorials_application_is_built_with_pip",
            tutorial_application,
        ),
        stage.trial("the_courses_pytorch_application_trains", pytorch_application),
    ]
}

const APPLICATION: &str = "FROM python:3.11-slim\n\
    COPY . /app\n\
    WORKDIR /app\n\
    ENV PYTHONPATH=/app\n\
    RUN pip install --root-user-action=ignore -r requirements.txt\n\
    CMD [\"python\",\"main.py\"]\n";

/// The two-stage file as it is often printed: nothing is copied before pip wants it.
fn broken() -> String {
    let home = "/root";
    format!(
        "FROM python:3.11-slim AS builder\n\
        RUN pip install --root-user-action=ignore --user -r requirements.txt\n\
        FROM python:3.11-slim\n\
        COPY --from=builder {home}/.local {home}/.local\n\
        COPY . /app\n\
        WORKDIR /app\n\
        CMD [\"python\",\"main.py\"]\n"
    )
}

fn tutorial_application(stage: &Stage) -> Tested {
    needs_root("a plain user's containers have no way out yet")?;
    let rdock = stage.with(&[Name::Python])?;
    let context = tempfile::tempdir()?;
    let write = |name: &str, text: &str| std::fs::write(context.path().join(name), text);
    write("requirements.txt", "six\n")?;
    write(
        "main.py",
        "import six, helper\nprint('built with', six.__name__, helper.WORD)\n",
    )?;
    write("helper.py", "WORD = 'and a module'\n")?;
    write("Dockerfile", APPLICATION)?;
    let folder = context.path().display().to_string();
    let mut build = rdock.command(["build", "--host-certificates", "-t", "myapp:latest", &folder]);
    let output = build.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    let unreachable = [
        "NewConnectionError",
        "No matching distribution",
        "Temporary failure in name",
    ];
    if unreachable.iter().any(|why| said.contains(why)) {
        return Err(Cannot(format!("the Python package index cannot be reached: {said}")).into());
    }
    success(&build, &output)?;
    assert_eq!(
        rdock.run(["run", "--rm", "myapp:latest"])?,
        "built with six and a module\n"
    );
    assert!(rdock.run(["images"])?.contains("myapp"));
    // Again: nothing runs.
    let again = rdock
        .command(["build", "--host-certificates", "-t", "myapp:latest", &folder])
        .output()?;
    let said = String::from_utf8_lossy(&again.stderr);
    assert!(
        again.status.success() && said.matches("CACHED").count() == 3,
        "{said}"
    );

    write("Dockerfile", &broken())?;
    let output = rdock
        .command(["build", "--host-certificates", "-t", "broken", &folder])
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && said.contains("Dockerfile:2:1"),
        "{said}"
    );
    assert!(
        said.contains("requirements.txt") && said.contains("exit code 1"),
        "{said}"
    );
    // Its corrected form is an example of this project.
    let folder = example("multistage").display().to_string();
    let mut build = rdock.command(["build", "--host-certificates", "-q", "-t", "twostage", &folder]);
    let output = build.output()?;
    success(&build, &output)?;
    assert_eq!(
        rdock.run(["run", "--rm", "twostage"])?,
        "built with six and a module from the second stage alone\n"
    );
    Ok(())
}

/// A folder of the examples.
fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name)
}

/// The course's Dockerfile word for word, with requirements that do not name the framework itself: the example's.
fn pytorch_application(stage: &Stage) -> Tested {
    needs_root("a plain user's containers have no way out yet")?;
    let rdock = stage.with(&[Name::Pytorch])?;
    let folder = example("training").display().to_string();
    let mut build = rdock.command(["build", "--host-certificates", "-t", "training:latest", &folder]);
    let output = build.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("NewConnectionError") || said.contains("Temporary failure in name") {
        return Err(Cannot(format!("the Python package index cannot be reached: {said}")).into());
    }
    success(&build, &output)?;
    let printed = rdock.run(["run", "--rm", "training:latest"])?;
    let losses: Vec<f64> = printed
        .lines()
        .filter_map(|line| line.rsplit_once(" loss ")?.1.parse().ok())
        .collect();
    assert_eq!(losses.len(), 9, "{printed}");
    assert!(losses[8] < losses[0] / 2.0, "{printed}");
    // The same in one program of the library, which finds the steps done.
    let program = path()?.with_file_name("build_and_run");
    if !program.exists() {
        return Err(format!(
            "{} is missing: `cargo build --examples` makes it",
            program.display()
        )
        .into());
    }
    let mut shown = Command::new(program);
    rdock.environment(&mut shown);
    let output = shown.stdin(Stdio::null()).output()?;
    let printed = success(&shown, &output)?;
    assert!(
        printed.contains("cached")
            && printed.contains("epoch 200 loss")
            && printed.contains("the loss fell from"),
        "{printed}"
    );
    Ok(())
}
