//! Programs that devices have run when a container starts.

use crate::cdi::{described, refused, with};
use crate::probe::Place;
use crate::{Tested, needs_root, same, trial};
use libtest_mimic::Trial;
use rdock_runtime::{Error, blocking};
use std::io::Read;
use std::path::{Path, PathBuf};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("rt_hook_env_hooks_see_their_own_variables_and_the_bundle", hooks),
        trial("a_hook_that_fails_fails_the_start_with_what_it_said", failing),
        trial("a_hook_that_does_not_end_is_killed", stuck),
        trial("a_hook_after_the_start_that_fails_is_a_warning", late),
    ]
}

/// A hook: this program in the role of one, with what it is to do as its arguments.
fn hook(name: &str, program: &str, args: &[&str], more: &str) -> String {
    format!(
        "{{hookName: {name}, path: \"{program}\", args: [hook, {}], env: [RDOCK_TEST_ROLE=hook, OF=description]{more}}}",
        args.join(", ")
    )
}

fn this_program() -> Tested<String> {
    Ok(std::env::current_exe()?.display().to_string())
}

/// What hooks do: `report FILE` what they see, `touch PATH` in the container's root by its `config.json`, `say TEXT` and
/// fail, `stay` for ever.
pub(crate) fn play() -> Tested {
    let mut state = String::new();
    std::io::stdin().read_to_string(&mut state)?;
    let args: Vec<String> = std::env::args().collect();
    let root = || -> Tested<PathBuf> {
        let state: serde_json::Value = serde_json::from_str(&state)?;
        let bundle = state["bundle"].as_str().ok_or("no bundle")?;
        let config = std::fs::read(Path::new(bundle).join("config.json"))?;
        let config: serde_json::Value = serde_json::from_slice(&config)?;
        Ok(config["root"]["path"].as_str().ok_or("no root")?.into())
    };
    match &args[1..] {
        [verb, file] if verb == "report" => {
            let mut variables: Vec<String> = std::env::vars()
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            variables.sort();
            let text = format!(
                "{}\n{}\n{}\n{state}\n",
                args[0],
                variables.join(" "),
                std::env::current_dir()?.display()
            );
            Ok(std::fs::write(file, text)?)
        }
        [verb, path] if verb == "touch" => Ok(std::fs::write(root()?.join(path), "of a hook")?),
        [verb, text] if verb == "say" => Err(text.clone().into()),
        [verb] if verb == "stay" => loop {
            std::thread::park();
        },
        other => Err(format!("what? {other:?}").into()),
    }
}

fn hooks() -> Tested {
    needs_root()?;
    let config = r#"{"Env": ["LD_PRELOAD=/evil.so", "PATH=/evil", "OF=image", "LD_LIBRARY_PATH=/evil"]}"#;
    let place = Place::with(config, &[])?;
    let program = this_program()?;
    let at = |name: &str| place.root.path().join(name).display().to_string();
    let all = [
        hook("createRuntime", &program, &["report", &at("runtime")], ""),
        hook(
            "createContainer",
            &program,
            &["report", &at("container")],
            ", timeout: 100",
        ),
        hook("createContainer", &program, &["touch", "etc/of-a-hook"], ""),
        // In the container, where this program has another name.
        hook("startContainer", "/test", &["report", "/tmp/start"], ""),
        hook("poststart", &program, &["report", &at("started")], ""),
    ];
    let directory = described(
        &place,
        "{env: [A=b]}",
        &format!("{{hooks: [{}]}}", all.join(", ")),
    )?;
    let spec = with(
        &["cat /tmp/start", "cat /etc/of-a-hook", "sleep 600000"],
        &directory,
    )?
    .env("LD_PRELOAD", "")
    .env("OF", "container")
    .annotation("a", "of \"the\" container");
    blocking::wait(async {
        let container = spec.start(&place.runtime).await?;
        let tested = async {
            let info = container.inspect()?;
            same(&info.warnings, &Vec::<String>::new())?;
            let mut said = Vec::new();
            let mut logs = container.logs().follow(true);
            while said.len() < 5 {
                let line = logs.next().await?.ok_or("the output ended")?;
                said.push(String::from_utf8_lossy(&line.bytes).trim_end().to_owned());
            }
            same(&said[4].as_str(), &"of a hook")?;
            let bundle = info.state_dir.display().to_string();
            for (text, inside, status) in [
                (std::fs::read_to_string(at("runtime"))?, false, "creating"),
                (std::fs::read_to_string(at("container"))?, true, "creating"),
                (said[..4].join("\n"), true, "created"),
                (std::fs::read_to_string(at("started"))?, false, "running"),
            ] {
                let lines: Vec<&str> = text.lines().collect();
                // Nothing of the container's, nor of the image's, nor of this program's.
                same(&lines[0], &"hook")?;
                same(&lines[1], &"OF=description RDOCK_TEST_ROLE=hook")?;
                let expected = if status == "created" { "/" } else { bundle.as_str() };
                same(&lines[2], &expected)?;
                let state: serde_json::Value = serde_json::from_str(lines[3])?;
                same(&state["id"].as_str(), &Some(info.id.as_str()))?;
                same(&state["status"].as_str(), &Some(status))?;
                same(&state["bundle"].as_str(), &Some(bundle.as_str()))?;
                same(&state["annotations"]["a"].as_str(), &Some("of \"the\" container"))?;
                let pid = if inside { Some(1) } else { info.pid.map(i64::from) };
                same(&state["pid"].as_i64(), &pid)?;
            }
            Ok(())
        };
        let tested: Tested = tested.await;
        container.remove().await?;
        tested
    })?
}

fn failing() -> Tested {
    let place = Place::new()?;
    let program = this_program()?;
    for name in ["createRuntime", "createContainer", "startContainer"] {
        let program = if name == "startContainer" {
            "/test"
        } else {
            &program
        };
        let one = hook(name, program, &["say", "because of that"], "");
        let directory = described(&place, &format!("{{hooks: [{one}]}}"), "{}")?;
        let error = refused(&place, &with(&["say ran"], &directory)?)?;
        let text = crate::chain(&error);
        for part in ["running a hook", program, "failed: because of that"] {
            same(&text.contains(part), &true).map_err(|error| format!("{name}: {part}: {error}: {text}"))?;
        }
    }
    // One that is no program at all.
    let broken = place.root.path().join("broken");
    std::fs::write(&broken, "no program")?;
    std::fs::set_permissions(&broken, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    for name in ["createRuntime", "createContainer"] {
        let one = hook(name, &broken.display().to_string(), &["x"], "");
        let directory = described(&place, &format!("{{hooks: [{one}]}}"), "{}")?;
        let error = refused(&place, &with(&["say ran"], &directory)?)?;
        same(&matches!(error, Error::Launch { .. }), &true)?;
    }
    Ok(())
}

fn stuck() -> Tested {
    let place = Place::new()?;
    let program = this_program()?;
    for name in ["createRuntime", "createContainer"] {
        let one = hook(name, &program, &["stay"], ", timeout: 1");
        let directory = described(&place, &format!("{{hooks: [{one}]}}"), "{}")?;
        match refused(&place, &with(&["say ran"], &directory)?)? {
            Error::Launch { source, .. } => same(&source.kind(), &std::io::ErrorKind::TimedOut)?,
            other => return Err(format!("{other:?}").into()),
        }
    }
    Ok(())
}

fn late() -> Tested {
    let place = Place::new()?;
    let one = hook("poststart", &this_program()?, &["say", "too late"], "");
    let directory = described(&place, &format!("{{hooks: [{one}]}}"), "{}")?;
    blocking::wait(async {
        let container = with(&["sleep 600000"], &directory)?.start(&place.runtime).await?;
        let warnings = container.inspect()?.warnings;
        container.remove().await?;
        let found = warnings
            .iter()
            .any(|warning| warning.contains("failed: too late"));
        same(&found, &true).map_err(|error| format!("{error}: {warnings:?}").into())
    })?
}
