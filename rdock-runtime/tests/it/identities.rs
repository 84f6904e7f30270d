//! Known attacks on who a payload is: capabilities, users, groups. Named after the project's table of them.

use crate::probe::{Entry, Place, dir, fifo, file, link, probe};
use crate::{Cannot, Tested, same, trial};
use libtest_mimic::Trial;
use rdock_runtime::{ContainerSpec, Error, Mount, Step, UserNamespace, blocking};
use std::time::{Duration, Instant};

/// No refusal takes as long; to read such a file to its end would never be done.
const LONG: Duration = Duration::from_secs(60);

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("rt_caps_inheritable", inheritable),
        trial("rt_caps_nonroot", nonroot),
        trial("rt_supplementary_groups", groups),
        trial("rt_user_numeric", numeric_users),
        trial("rt_passwd_special_file", special_passwd),
        trial("root_maps_many_ids_into_a_container", many_ids),
    ]
}

/// Values of `/proc/self/status` lines, in the order asked for.
fn status(text: &str, names: &[&str]) -> Vec<String> {
    let value = |name: &&str| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(*name)?.strip_prefix(':'));
        line.unwrap_or("missing")
            .split_ascii_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    };
    names.iter().map(value).collect()
}

pub(crate) fn needs_users() -> Result<(), Cannot> {
    match rustix::process::geteuid().is_root() {
        true => Ok(()),
        false => Err(Cannot(
            "needs root: only then there are users other than 0".into(),
        )),
    }
}

const NONE: &str = "0000000000000000";

pub(crate) fn exec_output(
    place: &Place,
    spec: &ContainerSpec,
    change: impl Fn(rdock_runtime::Exec) -> rdock_runtime::Exec,
) -> Tested<String> {
    blocking::wait(async {
        let container = spec.start(&place.runtime).await?;
        let output = change(container.exec(["/test"])).output().await?;
        container.remove().await?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr))
    })?
}

fn inheritable() -> Tested {
    let place = Place::new()?;
    let sets = ["CapInh", "CapAmb"];
    let all = || Ok::<_, Box<dyn std::error::Error>>(probe(&["cat /proc/self/status"])?.cap_add("ALL"));
    for spec in [
        probe(&["cat /proc/self/status"])?,
        all()?,
        all()?.privileged(true),
    ] {
        same(&status(&place.says(&spec)?, &sets), &vec![NONE.to_owned(); 2])?;
    }
    let sleeper = probe(&["sleep 20000"])?.cap_add("ALL");
    for privileged in [false, true] {
        let said = exec_output(&place, &sleeper, |exec| {
            exec.env("PROBE", "cat /proc/self/status").privileged(privileged)
        })?;
        same(&status(&said, &sets), &vec![NONE.to_owned(); 2])?;
    }
    Ok(())
}

fn nonroot() -> Tested {
    needs_users()?;
    let place = Place::new()?;
    let sets = ["CapInh", "CapPrm", "CapEff", "CapAmb"];
    for spec in [
        probe(&["cat /proc/self/status"])?,
        probe(&["cat /proc/self/status"])?.cap_add("ALL"),
    ] {
        let said = place.says(&spec.user("1000"))?;
        same(&status(&said, &sets), &vec![NONE.to_owned(); 4])?;
        same(&status(&said, &["Uid"]), &vec!["1000 1000 1000 1000".to_owned()])?;
    }
    let said = exec_output(&place, &probe(&["sleep 20000"])?, |exec| {
        exec.env("PROBE", "cat /proc/self/status").user("1000")
    })?;
    same(&status(&said, &sets), &vec![NONE.to_owned(); 4])
}

const USERS: [Entry<'static>; 2] = [
    file(
        "etc/passwd",
        0o644,
        "root:x:0:0::/root:/bin/sh\nalice:x:1000:100::/home/alice:/bin/sh\n1001:x:0:0::/:/bin/sh\n\
         huge:x:4294967296:0::/:/bin/sh\nhigh:x:4294967295:0::/:/bin/sh\nminus:x:-1:0::/:/bin/sh\n\
         hex:x:0x0:0::/:/bin/sh\nempty:x::0::/:/bin/sh\nshort:x\n",
    ),
    file(
        "etc/group",
        0o644,
        "root:x:0:\nusers:x:100:\naudio:x:63:alice,bob\nvideo:x:44:bob\nlocked:x:70:alice\n",
    ),
];

fn groups() -> Tested {
    needs_users()?;
    let denied = [file("denied", 0o705, "secret").of_group(70)];
    let place = Place::with("{}", &[&USERS[..], &denied].concat())?;
    let lines = ["cat /proc/self/status", "cat /denied"];
    let said = place.says(&probe(&lines)?.user("alice").group("44").group("video"))?;
    same(
        &status(&said, &["Uid", "Gid"]),
        &vec!["1000 1000 1000 1000".to_owned(), "100 100 100 100".to_owned()],
    )?;
    let mut ids: Vec<u32> = status(&said, &["Groups"])[0]
        .split(' ')
        .filter_map(|id| id.parse().ok())
        .collect();
    ids.sort_unstable();
    ids.dedup();
    // The primary group is among them, or its members would get what the group is denied.
    same(&ids, &vec![44, 63, 70, 100])?;
    same(&said.lines().last(), &Some("errno 13"))?;
    // By number a user has no groups of the image's file but its entry's.
    let said = place.says(&probe(&lines)?.user("4000:63"))?;
    same(
        &status(&said, &["Uid", "Gid"]),
        &vec!["4000 4000 4000 4000".to_owned(), "63 63 63 63".to_owned()],
    )
}

/// The step at which a start fails, if it fails in the helper.
pub(crate) fn fails_at(place: &Place, spec: &ContainerSpec) -> Tested<Step> {
    match place.run(spec) {
        Ok((said, exit)) => Err(format!("it ran ({exit}): {said}").into()),
        Err(error) => match error.downcast_ref::<Error>() {
            Some(Error::Launch { step, .. }) => Ok(*step),
            _ => Err(error),
        },
    }
}

fn numeric_users() -> Tested {
    needs_users()?;
    let place = Place::with("{}", &USERS)?;
    for (user, expected) in [
        ("1001", "1001 0"),
        ("1:1", "1 1"),
        ("", "0 0"),
        ("2147483647:5", "2147483647 5"),
        ("007", "7 0"),
    ] {
        let said = place.says(&probe(&["cat /proc/self/status"])?.user(user))?;
        let ids = status(&said, &["Uid", "Gid"]);
        let first: Vec<&str> = ids.iter().filter_map(|ids| ids.split(' ').next()).collect();
        same(&first.join(" ").as_str(), &expected).map_err(|error| format!("{user:?}: {error}"))?;
    }
    for user in [
        "huge",
        "high",
        "minus",
        "hex",
        "empty",
        "short",
        "nobody",
        "alice:nogroup",
        "0x0",
    ] {
        same(
            &fails_at(&place, &probe(&["cat /proc/self/status"])?.user(user))?,
            &Step::User,
        )
        .map_err(|error| format!("{user:?}: {error}"))?;
    }
    for user in [
        ":",
        "-1",
        "2147483648",
        "4294967295",
        "4294967296",
        "1:4294967296",
    ] {
        let refused = place.run(&probe(&[])?.user(user));
        let Err(error) = &refused else {
            return Err(format!("{user:?} ran").into());
        };
        same(
            &matches!(error.downcast_ref::<Error>(), Some(Error::Spec(_))),
            &true,
        )?;
    }
    // The same for exec.
    let said = exec_output(&place, &probe(&["sleep 20000"])?, |exec| {
        exec.env("PROBE", "cat /proc/self/status").user("1001")
    })?;
    same(&status(&said, &["Uid"]), &vec!["1001 1001 1001 1001".to_owned()])
}

fn special_passwd() -> Tested {
    let sparse = tempfile::tempdir()?;
    let giant = sparse.path().join("passwd");
    std::fs::File::create(&giant)?.set_len(1 << 30)?;
    let endless = "g:x:5:".to_owned() + &"a,".repeat(2 << 20);
    let fifos = [fifo("etc/passwd"), fifo("etc/group")];
    let links = [link("etc/passwd", "/dev/zero"), link("etc/group", "/dev/zero")];
    let directories = [dir("etc/passwd", 0o755), dir("etc/group", 0o755)];
    let lines = [file("etc/group", 0o644, &endless)];
    for (what, entries) in [
        ("fifos", &fifos[..]),
        ("links", &links),
        ("directories", &directories),
        ("lines", &lines),
    ] {
        let place = Place::with("{}", entries)?;
        let began = Instant::now();
        same(&fails_at(&place, &probe(&[])?.user("someone"))?, &Step::User)
            .map_err(|error| format!("{what}: {error}"))?;
        same(&(began.elapsed() < LONG), &true).map_err(|_| format!("{what} took too long"))?;
    }
    let place = Place::new()?;
    let began = Instant::now();
    let spec = probe(&[])?
        .user("someone")
        .mount(Mount::bind(&giant, "/etc/passwd"));
    same(&fails_at(&place, &spec)?, &Step::User)?;
    same(&(began.elapsed() < LONG), &true)
}

fn many_ids() -> Tested {
    needs_users()?;
    let place = Place::with("{}", &[dir("home", 0o777)])?;
    let mapped = |mut spec: ContainerSpec| {
        spec.user_namespace = UserNamespace::Mapped {
            uids: vec![(0, 0, 1000), (1000, 7000, 1)],
            gids: vec![(0, 0, 1001)],
        };
        spec
    };
    let orders = [
        "cat /proc/self/uid_map",
        "cat /proc/self/gid_map",
        "stat /seed/file",
        "write /home/new x",
        "stat /home/new",
    ];
    let words = |text: &str| {
        let line = |line: &str| line.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
        text.lines().map(line).collect::<Vec<_>>()
    };
    let maps = ["0 0 1000", "1000 7000 1", "0 0 1001"];
    let said = words(&place.says(&mapped(probe(&orders)?))?);
    same(&said[..3], &maps[..])?;
    same(&said[3..], &["100640 0:0", "written", "100644 0:0"][..])?;
    let said = words(&place.says(&mapped(probe(&orders)?.user("1000:1000")))?);
    same(&said[3..], &["errno 13", "written", "100644 1000:1000"][..])?;
    // One more process is in it too, and there is nobody to be that is not mapped.
    let inside = |user: &'static str| {
        let spec = mapped(probe(&["sleep 600000"])?);
        exec_output(&place, &spec, |exec| {
            exec.user(user).env("PROBE", "cat /proc/self/uid_map")
        })
    };
    same(&words(&inside("1000")?), &maps[..2].to_vec())?;
    let refused = place.run(&mapped(probe(&["say ran"])?.user("1001")));
    same(&refused.is_err(), &true)?;
    // The program that made it has the maps it had, and no child.
    same(
        &std::fs::read_to_string("/proc/self/uid_map")?.contains("4294967295"),
        &true,
    )?;
    Ok(())
}
