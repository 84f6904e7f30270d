//! Dockerfiles, typed with `rdock`: the tutorial's application with the real pip, multi-stage, errors.

use crate::fixtures::Name;
use crate::program::{Cannot, Stage, Tested, needs_root, success};
use libtest_mimic::Trial;
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

/// A line is fitted to points: its loss falls.
const TRAINING: &str = r#"import six, torch
torch.manual_seed(0)
x = torch.linspace(-1, 1, 64).unsqueeze(1)
y = 3 * x + 0.5
model = torch.nn.Linear(1, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
losses = []
for _ in range(50):
    optimizer.zero_grad()
    loss = torch.nn.functional.mse_loss(model(x), y)
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
print('falls' if losses[-1] < losses[0] / 100 else 'stays', losses[0], losses[-1])
"#;

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

/// The course's Dockerfile word for word, with requirements that do not name the framework itself.
fn pytorch_application(stage: &Stage) -> Tested {
    needs_root("a plain user's containers have no way out yet")?;
    let rdock = stage.with(&[Name::Pytorch])?;
    let context = tempfile::tempdir()?;
    let write = |name: &str, text: &str| std::fs::write(context.path().join(name), text);
    write("requirements.txt", "six\n")?;
    write("main.py", TRAINING)?;
    let file = "FROM pytorch/pytorch:1.13.1-cuda11.6-cudnn8-runtime\n\
        COPY . /app\n\
        WORKDIR /app\n\
        ENV PYTHONPATH=/app\n\
        RUN pip install -r requirements.txt\n\
        CMD [\"python\",\"main.py\"]\n";
    write("Dockerfile", file)?;
    let folder = context.path().display().to_string();
    let mut build = rdock.command(["build", "--host-certificates", "-t", "training:latest", &folder]);
    let output = build.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("NewConnectionError") || said.contains("Temporary failure in name") {
        return Err(Cannot(format!("the Python package index cannot be reached: {said}")).into());
    }
    success(&build, &output)?;
    let printed = rdock.run(["run", "--rm", "training:latest"])?;
    assert!(printed.starts_with("falls "), "{printed}");
    Ok(())
}
