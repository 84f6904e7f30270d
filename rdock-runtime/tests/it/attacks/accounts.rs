//! What counts against a container's limits, and plans of any size.

use crate::probe::{Place, probe};
use crate::{Cannot, Tested, needs_root, same};
use rdock_runtime::{ContainerSpec, Error, ExitReason, Mount, NamespaceMode, Step, blocking};

/// A container whose memory has a limit far below what its shared memory may hold.
fn small(lines: &[&str]) -> Tested<ContainerSpec> {
    let mut spec = probe(lines)?.memory(48 << 20).shm_size(512 << 20);
    // Without swap there is nowhere to go.
    spec.resources.memory_swap = Some(48 << 20);
    Ok(spec)
}

pub(super) fn shared_memory() -> Tested {
    needs_root()?;
    let place = Place::new()?;
    blocking::wait(async {
        let holder = probe(&["sleep 600000"])?
            .name("holder")
            .shm_size(512 << 20)
            .start(&place.runtime)
            .await?;
        let tested = async {
            let mut joined = small(&["fill /dev/shm/x 201326592", "say survived"])?;
            joined.ipc = NamespaceMode::Container("holder".into());
            for spec in [small(&["fill /dev/shm/x 201326592", "say survived"])?, joined] {
                let container = spec.start(&place.runtime).await?;
                let warnings = container.inspect()?.warnings;
                let exit = container.wait().await?;
                container.remove().await?;
                if warnings
                    .iter()
                    .any(|warning| warning.starts_with("memory is not"))
                {
                    return Err(Cannot(warnings.join("; ")).into());
                }
                same(&exit.reason, &ExitReason::OomKilled)?;
            }
            // Who only holds the namespace pays for nothing.
            same(&holder.status()?.is_running(), &true)
        };
        let tested: Tested = tested.await;
        holder.remove().await?;
        tested
    })?
}

/// The container runs, or the error is one of those that a spec or a launch may have.
fn ran(place: &Place, what: &str, spec: &ContainerSpec) -> Tested<Option<String>> {
    match place.run(spec) {
        Ok((said, _)) => Ok(Some(said)),
        Err(error) => match error.downcast_ref::<Error>() {
            Some(Error::Spec(_) | Error::Launch { .. }) => Ok(None),
            _ => Err(format!("{what}: {error:?}").into()),
        },
    }
}

pub(super) fn plans() -> Tested {
    let place = Place::new()?;
    let long = "x".repeat(70_000);
    // Up to the kernel's own bounds everything arrives whole.
    let said = ran(&place, "a long variable", &probe(&["env"])?.env("LONG", &long))?;
    same(
        &said.is_some_and(|said| said.contains(&format!("LONG={long};"))),
        &true,
    )?;
    let mut many = probe(&["env"])?;
    for number in 0..5000 {
        many = many.env(format!("V{number}"), "v");
    }
    let said = ran(&place, "many variables", &many)?.ok_or("many variables were refused")?;
    same(&said.matches("=v;").count(), &5000)?;
    let tree = format!("/{}", "directory/".repeat(380));
    same(
        &ran(
            &place,
            "a deep directory",
            &probe(&["say up"])?.working_dir(&tree),
        )?
        .is_some(),
        &true,
    )?;
    // Beyond, there is a typed error: nothing is cut off, and nothing wraps around.
    let beyond = [
        (
            "a variable beyond the kernel's",
            probe(&["env"])?.env("LONG", "x".repeat(140_000)),
        ),
        (
            "an argument beyond the kernel's",
            probe(&["say up"])?.arg("x".repeat(140_000)),
        ),
        (
            "a plan beyond 16 MiB",
            probe(&["say up"])?.arg("x".repeat(17 << 20)),
        ),
        (
            "a directory of 64 KiB",
            probe(&["say up"])?.working_dir(format!("/{}", "a/".repeat(33_000))),
        ),
        (
            "one name of 64 KiB",
            probe(&["say up"])?.working_dir(format!("/{long}")),
        ),
        (
            "a target of 64 KiB",
            probe(&["say up"])?.mount(Mount::tmpfs(format!("/{}", "a/".repeat(33_000)))),
        ),
        (
            "one target of 64 KiB",
            probe(&["say up"])?.mount(Mount::tmpfs(format!("/{long}"))),
        ),
        (
            "a target of 256 bytes",
            probe(&["say up"])?.mount(Mount::tmpfs(format!("/{}", &long[..256]))),
        ),
        ("a host name of 64 KiB", probe(&["say up"])?.hostname(&long)),
        ("a user of 64 KiB", probe(&["say up"])?.user(&long)),
        ("a NUL", probe(&["say up"])?.env("A", "b\0c")),
    ];
    for (what, spec) in beyond {
        same(&ran(&place, what, &spec)?, &None).map_err(|error| format!("{what}: {error}"))?;
    }
    let mut groups = probe(&["say up"])?;
    groups.groups = (0..10_000).map(|number| number.to_string()).collect();
    ran(&place, "ten thousand groups", &groups)?;
    let mut mounts = probe(&["say up"])?;
    for number in 0..600 {
        mounts = mounts.mount(Mount::tmpfs(format!("/m/{number}")));
    }
    same(
        &ran(&place, "six hundred mounts", &mounts)?.as_deref(),
        &Some("up\n"),
    )?;
    let mut options = probe(&["say up"])?;
    let list = (0..40).map(|_| "exec").collect::<Vec<_>>().join(",");
    options = options.mount(Mount::parse_tmpfs_flag(&format!("/o:{list}"))?);
    ran(&place, "forty options", &options)?;
    // An exec is planned too.
    blocking::wait(async {
        let container = probe(&["sleep 600000"])?.start(&place.runtime).await?;
        let tested = async {
            let exec = container.exec(["/test"]).env("PROBE", "env").env("LONG", &long);
            let output = exec.output().await?;
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            same(&said.contains(&format!("LONG={long};")), &true)?;
            let exec = container.exec(["/test"]).env("LONG", "x".repeat(140_000));
            match exec.output().await {
                Err(Error::Launch { step: Step::Exec, .. }) => Ok(()),
                other => Err(format!("{other:?}").into()),
            }
        };
        let tested: Tested = tested.await;
        container.remove().await?;
        tested
    })?
}
