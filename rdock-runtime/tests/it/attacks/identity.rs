//! Users, groups and capabilities.

use super::{beside, inside, waiting};
use crate::identities::needs_users;
use crate::probe::{Entry, Place, file, probe};
use crate::{Cannot, Tested, same};
use rdock_runtime::{Error, Mount, Step};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

/// Hostile where it can be: a number as login, ids that are none, a comment.
const PASSWD: &str = "root:x:0:0::/root:\n1000:x:0:0::/evil:\nmember:x:1001:100::/:\nbig:x:4294967296:0::/:\n\
    minus:x:-1:0::/:\n#ghost:x:0:0::/:\n";
const GROUP: &str = "root:x:0:\nusers:x:100:\nextra:x:77:other,member\n";
const FILES: [Entry<'static>; 2] = [file("etc/passwd", 0o644, PASSWD), file("etc/group", 0o644, GROUP)];

const NONE: &str = "0000000000000000";
/// Docker's capabilities.
const DEFAULT: &str = "00000000a80425fb";

const SETS: [&str; 5] = [
    "status CapInh",
    "status CapPrm",
    "status CapEff",
    "status CapBnd",
    "status CapAmb",
];

pub(super) fn inheritable() -> Tested {
    let place = Place::with("{}", &FILES)?;
    let all: &[&str] = if rustix::process::geteuid().is_root() {
        &["0", "1000"]
    } else {
        &["0"]
    };
    for user in all {
        for add in [None, Some("SYS_TIME"), Some("ALL")] {
            let mut spec = probe(&SETS)?.user(*user);
            let mut stays = waiting()?.user(*user);
            if let Some(name) = add {
                (spec, stays) = (spec.cap_add(name), stays.cap_add(name));
            }
            let check = |said: &str, of: &str| {
                let lines: Vec<&str> = said.lines().collect();
                same(&(lines.first(), lines.last()), &(Some(&NONE), Some(&NONE)))
                    .map_err(|error| format!("{of} as {user} with {add:?}: {error}"))
            };
            check(&place.says(&spec)?, "run")?;
            beside(&place, &stays, async |container| {
                for user in all {
                    check(&inside(container, &SETS, |exec| exec.user(*user)).await?, "exec")?;
                }
                Ok(())
            })?;
        }
    }
    Ok(())
}

/// A program that carries every capability gives none beyond the bounding set.
pub(super) fn file_capabilities() -> Tested {
    needs_users()?;
    let place = Place::new()?;
    let program = place.root.path().join("carrier");
    std::fs::copy(std::env::current_exe()?, &program)?;
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755))?;
    // vfs_cap_data, revision 3, with the effective bit: capabilities(7).
    let words = [0x0300_0001u32, u32::MAX, 0, 0x1ff, 0, 0];
    let value: Vec<u8> = words.into_iter().flat_map(u32::to_le_bytes).collect();
    rustix::fs::setxattr(
        &program,
        "security.capability",
        &value,
        rustix::fs::XattrFlags::empty(),
    )
    .map_err(|error| Cannot(format!("no file capabilities here: {error}")))?;
    let spec = probe(&SETS)?
        .user("1000")
        .mount(Mount::bind(&program, "/carrier").read_only())
        .entrypoint(["/carrier"])
        .args(Vec::<String>::new());
    // The effective bit asks for all of them: execve fails, or only what is in the bounding set is there.
    match place.run(&spec) {
        Err(error) => {
            let error = error.downcast::<Error>()?;
            super::failed_in::<()>(Err(*error), Step::Exec).map(drop)
        }
        Ok((said, exit)) => {
            same(&exit.success(), &true)?;
            let lines: Vec<&str> = said.lines().collect();
            let set = |line: usize| u64::from_str_radix(lines.get(line).copied().unwrap_or("-"), 16);
            let bounding = u64::from_str_radix(DEFAULT, 16)?;
            same(
                &(set(0)?, set(1)? & !bounding, set(2)? & !bounding, set(3)?),
                &(0, 0, 0, bounding),
            )
        }
    }
}

pub(super) fn groups() -> Tested {
    needs_users()?;
    let place = Place::with("{}", &FILES)?;
    // Everybody may read it but the members of group 77.
    let denied = place.root.path().join("denied");
    std::fs::write(&denied, "read")?;
    std::os::unix::fs::chown(&denied, Some(0), Some(77))?;
    std::fs::set_permissions(&denied, std::fs::Permissions::from_mode(0o705))?;
    let look = ["ids", "cat /denied"];
    let with = |lines: &[&str]| {
        Ok::<_, Box<dyn std::error::Error>>(probe(lines)?.mount(Mount::bind(&denied, "/denied")))
    };
    for (user, more, expected) in [
        ("member", None, "1001:100 [77 100]\nerrno 13\n"),
        ("member", Some("4242"), "1001:100 [77 100 4242]\nerrno 13\n"),
        ("1001", None, "1001:100 [77 100]\nerrno 13\n"),
        ("1001:100", None, "1001:100 [100]\nread\n"),
        ("1001:77", None, "1001:77 [77]\nerrno 13\n"),
        ("5000", None, "5000:0 [0]\nread\n"),
        ("5000", Some("extra"), "5000:0 [0 77]\nerrno 13\n"),
    ] {
        let mut spec = with(&look)?.user(user);
        if let Some(group) = more {
            spec = spec.group(group);
        }
        same(place.says(&spec)?.as_str(), expected).map_err(|error| format!("{user} {more:?} {error}"))?;
    }
    beside(
        &place,
        &waiting()?.mount(Mount::bind(&denied, "/denied")),
        async |container| {
            let said = inside(container, &look, |exec| exec.user("member")).await?;
            same(said.as_str(), "1001:100 [77 100]\nerrno 13\n")
        },
    )
}

/// Texts that name no user.
const NOBODY: [&str; 15] = [
    ":",
    "-1",
    "+1",
    " 1",
    "1 ",
    "0x0",
    "1e3",
    "2147483648",
    "4294967295",
    "4294967296",
    "18446744073709551616",
    "big",
    "minus",
    "#ghost",
    "\u{ff11}",
];

pub(super) fn users() -> Tested {
    needs_users()?;
    let place = Place::with("{}", &FILES)?;
    let known = [
        ("1000", "1000:0"),
        ("1:1", "1:1"),
        ("1000:100", "1000:100"),
        ("2147483647", "2147483647:0"),
        ("0001", "1:0"),
        ("member", "1001:100"),
        ("member:extra", "1001:77"),
    ];
    let is = |said: &str, expected: &str, user: &str| match said.starts_with(&format!("{expected} [")) {
        true => Ok(()),
        false => Err(format!("{user} is {said} instead of {expected}")),
    };
    for (user, expected) in known {
        is(&place.says(&probe(&["ids"])?.user(user))?, expected, user)?;
    }
    for user in NOBODY {
        match place.run(&probe(&["ids"])?.user(user)) {
            Err(error) => refused(*error.downcast::<Error>()?, user)?,
            Ok((said, _)) => return Err(format!("{user:?} runs as {said}").into()),
        }
    }
    beside(&place, &waiting()?, async |container| {
        for (user, expected) in known {
            is(
                &inside(container, &["ids"], |exec| exec.user(user)).await?,
                expected,
                user,
            )?;
        }
        for user in NOBODY {
            match inside(container, &["ids"], |exec| exec.user(user)).await {
                Err(error) => refused(error, user)?,
                Ok(said) => return Err(format!("{user:?} runs as {said}").into()),
            }
        }
        Ok(())
    })
}

fn refused(error: Error, user: &str) -> Tested {
    match error {
        Error::Spec(_) | Error::Launch { step: Step::User, .. } => Ok(()),
        other => Err(format!("{user:?}: {other:?}").into()),
    }
}

pub(super) fn newlines() -> Tested {
    // Files of an image may say what they like; it stays one field.
    let passwd = "root:x:0:0::/root:\nodd:x:1001:100::/a\rb\u{1}c:\n";
    let place = Place::with("{}", &[file("etc/passwd", 0o644, passwd)])?;
    for bad in ["/root\nevil::0:0::/:/bin/sh", "/a:b"] {
        let specs = [
            probe(&["env"])?.env("HOME", bad),
            probe(&["env"])?.user(bad),
            probe(&["env"])?.hostname(bad),
        ];
        for spec in specs {
            match place.run(&spec) {
                Err(error) => refused(*error.downcast::<Error>()?, bad)?,
                Ok((said, _)) => return Err(format!("{bad:?} is taken: {said}").into()),
            }
        }
    }
    same(&place.runtime.containers()?.len(), &0)?;
    needs_users()?;
    let said = place.says(&probe(&["env"])?.user("odd"))?;
    same(&said.contains("HOME=/;"), &true).map_err(|error| format!("{said}: {error}").into())
}

pub(super) fn special_files() -> Tested {
    let place = Place::new()?;
    let below = |name: &str| place.root.path().join(name);
    let (fifo, sparse, line) = (below("fifo"), below("sparse"), below("line"));
    let mode = rustix::fs::Mode::from_raw_mode(0o644);
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0)?;
    std::fs::File::create(&sparse)?.set_len(1 << 30)?;
    std::fs::write(&line, "group:x:1:".to_owned() + &"a,".repeat(1 << 20))?;
    let quick = |began: Instant, what: &str| match began.elapsed() < Duration::from_secs(60) {
        true => Ok(()),
        false => Err(format!("{what} took {:?}", began.elapsed())),
    };
    for target in ["/etc/passwd", "/etc/group"] {
        for source in [fifo.as_path(), &sparse, &line, std::path::Path::new("/dev/zero")] {
            let began = Instant::now();
            match place.run(&probe(&["ids"])?.user("0").mount(Mount::bind(source, target))) {
                Err(error) => drop(super::failed_in::<()>(
                    Err(*error.downcast::<Error>()?),
                    Step::User,
                )?),
                Ok((said, _)) => return Err(format!("{source:?} as {target}: {said}").into()),
            }
            quick(began, &format!("{source:?} as {target}"))?;
        }
    }
    // The same by the container itself, before an exec.
    for change in [
        "fifo /etc/passwd",
        "symlink /dev/zero /etc/passwd",
        "fill /etc/passwd 1048577",
    ] {
        beside(&place, &waiting()?, async |container| {
            let said = inside(container, &["remove /etc/passwd", change], |exec| exec).await?;
            same(&said.contains("errno"), &false).map_err(|error| format!("{said}: {error}"))?;
            let began = Instant::now();
            super::failed_in(
                inside(container, &["ids"], |exec| exec.user("nobody")).await,
                Step::User,
            )?;
            quick(began, change)?;
            Ok(())
        })?;
    }
    Ok(())
}
