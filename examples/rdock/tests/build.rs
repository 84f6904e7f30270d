//! Dockerfiles, typed with `rdock`: the tutorial's application with the real pip, multi-stage, errors.

use crate::fixtures::Name;
use crate::program::{Cannot, Stage, Tested, needs_root, success};
use libtest_mimic::Trial;
use std::sync::Arc;

/// The tests of this file.
pub(crate) fn trials(stage: &Arc<Stage>) -> Vec<Trial> {
    vec![stage.trial(
        "the_tutorials_application_is_built_with_pip",
        tutorial_application,
    )]
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
    write(
        "Dockerfile",
        &broken().replacen("RUN", "COPY requirements.txt .\nRUN", 1),
    )?;
    let mut build = rdock.command(["build", "--host-certificates", "-q", "-t", "twostage", &folder]);
    let output = build.output()?;
    success(&build, &output)?;
    assert_eq!(
        rdock.run(["run", "--rm", "twostage"])?,
        "built with six and a module\n"
    );
    Ok(())
}
