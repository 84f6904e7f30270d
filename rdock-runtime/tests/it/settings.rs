//! What the spec says is what the payload has.

use crate::probe::{Place, probe};
use crate::{Tested, same, trial};
use libtest_mimic::Trial;
use rdock_runtime::{ContainerSpec, Error, Mount, MountSource};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("limits_parameters_and_names_are_the_specs", settings),
        trial("rt_env_host_leak_inside", environment),
        trial("a_tmpfs_has_its_size_and_the_mode_of_the_images_directory", tmpfs),
        trial("a_read_only_root_is_written_only_in_its_mounts", read_only),
        trial("binds_are_of_files_and_directories_and_may_be_read_only", binds),
        trial("a_missing_source_leaves_nothing", missing_source),
        trial("what_is_wrong_with_a_spec_leaves_nothing", wrong_spec),
        trial("two_containers_of_an_image_do_not_see_each_other", apart),
        trial("an_image_is_mounted_with_what_is_in_it", image_mount),
        trial("a_joined_ipc_namespace_comes_with_its_shared_memory", joined_ipc),
        trial(
            "masked_paths_are_there_where_the_spec_wants_them",
            unconfined_paths,
        ),
    ]
}

fn settings() -> Tested {
    let place = Place::new()?;
    let spec = probe(&[
        "cat /proc/sys/kernel/hostname",
        "cat /proc/sys/kernel/domainname",
        "cat /proc/sys/kernel/shmmni",
        "cat /proc/self/oom_score_adj",
        "cat /proc/self/limits",
        "cat /proc/self/status",
        "write /made x",
        "stat /made",
        "stat /srv/dir",
        "cat /etc/hostname",
    ])?
    .hostname("web")
    .domainname("example.org")
    .sysctl("kernel.shmmni", "123")
    .oom_score_adj(321)
    .ulimit("nofile", 77, 99)
    .ulimit("core", 0, 4096)
    .umask(0o027)
    .working_dir("/srv/dir")
    .cap_drop("ALL")
    .cap_add("CHOWN");
    let said = place.says(&spec)?;
    let lines: Vec<&str> = said.lines().collect();
    same(&lines[..4], &["web", "example.org", "123", "321"])?;
    let limit = |name: &str| {
        lines
            .iter()
            .find(|line| line.starts_with(name))
            .map(|line| fields(line, name))
    };
    same(&limit("Max open files"), &Some(vec!["77", "99", "files"]))?;
    same(&limit("Max core file size"), &Some(vec!["0", "4096", "bytes"]))?;
    for (name, value) in [
        ("Umask:", "0027"),
        ("CapInh:", "0000000000000000"),
        ("CapPrm:", "0000000000000001"),
        ("CapEff:", "0000000000000001"),
        ("CapBnd:", "0000000000000001"),
        ("CapAmb:", "0000000000000000"),
        ("Seccomp:", "2"),
        ("NoNewPrivs:", "0"),
    ] {
        same(&limit(name), &Some(vec![value])).map_err(|error| format!("{name} {error}"))?;
    }
    let last = &lines[lines.len() - 4..];
    same(last, &["written", "100640 0:0", "40755 0:0", "web"])
}

fn fields<'a>(line: &'a str, name: &str) -> Vec<&'a str> {
    line[name.len()..].split_ascii_whitespace().collect()
}

fn environment() -> Tested {
    let place = Place::with(
        r#"{"Env":["*","PATH=/image","=x","PWD","HOME_SECRET","USER","A=image","B=image"]}"#,
        &[],
    )?;
    let spec = probe(&["env"])?.env("A", "own").hostname("web");
    let mut said: Vec<String> = place.says(&spec)?.trim().split(';').map(str::to_owned).collect();
    said.retain(|entry| !entry.is_empty());
    said.sort();
    same(
        &said,
        &["A=own", "B=image", "HOME=/root", "HOSTNAME=web", "PATH=/image"]
            .map(str::to_owned)
            .to_vec(),
    )
}

fn tmpfs() -> Tested {
    let place = Place::new()?;
    let small = MountSource::Tmpfs {
        size: Some(8192),
        mode: Some(0o711),
        options: Vec::new(),
    };
    let spec = probe(&[
        "stat /run",
        "stat /fresh",
        "stat /small",
        "fill /small/a 4096",
        "fill /small/b 65536",
        "cat /proc/self/mounts",
    ])?
    .mount(Mount::tmpfs("/run"))
    .mount(Mount::tmpfs("/fresh"))
    .mount(Mount::new(small, "/small"))
    .mount(Mount::parse_tmpfs_flag("/programs:exec,size=1m")?);
    let said = place.says(&spec)?;
    let lines: Vec<&str> = said.lines().collect();
    same(
        &lines[..5],
        &["40750 0:0", "41777 0:0", "40711 0:0", "filled", "errno 28"],
    )?;
    let options = |target: &str| {
        let line = lines.iter().find(|line| line.split(' ').nth(1) == Some(target))?;
        line.split(' ')
            .nth(3)
            .map(|options| options.split(',').collect::<Vec<_>>())
    };
    let flags = options("/run").ok_or("/run is not mounted")?;
    same(
        &["nosuid", "nodev", "noexec"].map(|flag| flags.contains(&flag)),
        &[true; 3],
    )?;
    let flags = options("/programs").ok_or("/programs is not mounted")?;
    same(
        &["nosuid", "nodev", "noexec"].map(|flag| flags.contains(&flag)),
        &[true, true, false],
    )
}

fn read_only() -> Tested {
    let place = Place::new()?;
    let spec = probe(&[
        "write /x x",
        "write /etc/hosts x",
        "write /dev/shm/x x",
        "write /tmp/x x",
        "write /data/x x",
        "write /sys/x x",
    ])?
    .read_only(true)
    .mount(Mount::tmpfs("/tmp"))
    .mount(Mount::volume("data", "/data"));
    let said = place.says(&spec)?;
    same(
        &said.lines().collect::<Vec<_>>(),
        &vec![
            "errno 30", "errno 30", "written", "written", "written", "errno 30",
        ],
    )
}

fn binds() -> Tested {
    let place = Place::new()?;
    let outside = place.root.path().join("outside");
    std::fs::create_dir(&outside)?;
    std::fs::write(outside.join("file"), "of the host")?;
    let spec = probe(&[
        "cat /dir/file",
        "write /dir/new x",
        "cat /ro/file",
        "write /ro/file x",
        "cat /one",
        "write /one changed",
        "list /made/by/flag",
    ])?
    .mount(Mount::bind(&outside, "/dir"))
    .mount(Mount::bind(&outside, "/ro").read_only())
    .mount(Mount::bind(outside.join("file"), "/one"))
    .mount(Mount::parse_volume_flag(&format!(
        "{}:/made/by/flag",
        outside.join("a/b").display()
    ))?);
    let said = place.says(&spec)?;
    let expected = vec![
        "of the host",
        "written",
        "of the host",
        "errno 30",
        "of the host",
        "written",
        "",
    ];
    same(&said.lines().collect::<Vec<_>>(), &expected)?;
    same(&std::fs::read_to_string(outside.join("new"))?, &"x".to_owned())?;
    same(
        &std::fs::read_to_string(outside.join("file"))?,
        &"changed".to_owned(),
    )?;
    same(&outside.join("a/b").is_dir(), &true)
}

/// Neither container, snapshot, volume without a name nor name is left.
fn nothing_is_left(place: &Place) -> Tested {
    same(&place.runtime.containers()?.len(), &0)?;
    same(&place.runtime.volumes().list()?.len(), &0)?;
    same(&place.runtime.images().snapshots()?.len(), &0)?;
    let names = std::fs::read_dir(place.root.path().join("containers/names"))?.count();
    same(&names, &0)
}

fn missing_source() -> Tested {
    let place = Place::new()?;
    let missing = place.root.path().join("missing");
    let spec = probe(&[])?
        .name("probe")
        .mount(Mount::anonymous("/a"))
        .mount(Mount::bind(&missing, "/b"));
    let Err(error) = rdock_runtime::blocking::wait(spec.start(&place.runtime))? else {
        return Err("it started".into());
    };
    same(&matches!(&error, Error::Volume(_)), &true)?;
    same(&error.to_string().contains(&*missing.to_string_lossy()), &true)?;
    same(&error.hint().is_some(), &true)?;
    same(&missing.exists(), &false)?;
    nothing_is_left(&place)
}

fn wrong_spec() -> Tested {
    let place = Place::new()?;
    let spec = ContainerSpec::new("probe")
        .name("../x")
        .hostname("-")
        .user("-1")
        .mount(Mount::tmpfs("/proc"));
    let Err(Error::Spec(error)) = rdock_runtime::blocking::wait(spec.start(&place.runtime))? else {
        return Err("no error about the spec".into());
    };
    let fields: Vec<_> = error
        .findings
        .iter()
        .map(|finding| finding.field.as_str())
        .collect();
    // The image has no command either.
    same(
        &fields,
        &vec!["name", "hostname", "args", "user", "mounts[0].target"],
    )?;
    same(&spec.validate().is_err(), &true)?;
    nothing_is_left(&place)
}

fn apart() -> Tested {
    let place = Place::new()?;
    let first = place.says(&probe(&[
        "list /",
        "write /left x",
        "remove /seed/file",
        "list /",
    ])?)?;
    let second = place.says(&probe(&["list /", "cat /left", "cat /seed/file"])?)?;
    let (first, second): (Vec<_>, Vec<_>) = (first.lines().collect(), second.lines().collect());
    same(&second, &vec![first[0], "errno 2", "from the image"])?;
    same(&(first[0] == first[3]), &false)
}

fn joined_ipc() -> Tested {
    // Namespaces of another user's containers are closed to those in a user namespace of their own.
    crate::needs_root()?;
    let place = Place::new()?;
    rdock_runtime::blocking::wait(async {
        let holder = probe(&["write /dev/shm/first here", "say up", "sleep 600000"])?
            .name("holder")
            .ready_when(rdock_runtime::Ready::log("up"))
            .shm_size(1 << 20)
            .start(&place.runtime)
            .await?;
        let tested = async {
            let mut spec = probe(&[
                "cat /dev/shm/first",
                "write /dev/shm/second too",
                "fill /dev/shm/large 2097152",
            ])?;
            spec.ipc = rdock_runtime::NamespaceMode::Container("holder".into());
            let container = spec.start(&place.runtime).await?;
            let own = std::fs::read_link(format!("/proc/{}/ns/ipc", holder.inspect()?.pid.unwrap_or(0)))?;
            container.wait().await?;
            let mut logs = container.logs();
            let mut said = String::new();
            while let Some(line) = logs.next().await? {
                said += &String::from_utf8_lossy(&line.bytes);
            }
            container.remove().await?;
            // Of the size that its owner gave it.
            same(said.as_str(), "here\nwritten\nerrno 28\n")?;
            let exec = holder
                .exec(["/test"])
                .env("PROBE", "cat /dev/shm/second\nlink /proc/self/ns/ipc");
            let output = exec.output().await?;
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            same(said.as_str(), format!("too\n{}\n", own.display()).as_str())
        };
        let tested: Tested = tested.await;
        holder.remove().await?;
        tested
    })?
}

fn unconfined_paths() -> Tested {
    let place = Place::new()?;
    let lines = [
        "kind /proc/sys",
        "kind /proc/acpi",
        "open /proc/sys/kernel/shmmni",
    ];
    let said = place.says(&probe(&lines)?)?;
    same(said.lines().last().unwrap_or_default(), "errno 30")?;
    let said = place.says(&probe(&lines)?.system_paths_unconfined(true))?;
    // Its own ipc namespace's; others ask for more than it has.
    same(said.lines().last().unwrap_or_default(), "opened")
}

fn image_mount() -> Tested {
    let place = Place::new()?;
    let spec = probe(&[
        "list /whole/seed",
        "cat /part/file",
        "write /part/new x",
        "cat /deep",
        "write /closed/new x",
    ])?
    .mount(Mount::parse_mount_flag("type=image,source=probe,target=/whole")?)
    .mount(Mount::parse_mount_flag(
        "type=image,src=probe:latest,dst=/part,image-subpath=seed",
    )?)
    .mount(Mount::parse_mount_flag(
        "type=image,source=probe,target=/deep,image-subpath=seed/below/deep",
    )?)
    .mount(Mount::parse_mount_flag(
        "type=image,source=probe,target=/closed,readonly",
    )?);
    let expected = "below file\nfrom the image\nwritten\ndeep\nerrno 30\n";
    same(place.says(&spec)?.as_str(), expected)?;
    // What was written is gone.
    same(place.says(&spec)?.as_str(), expected)?;
    let spec = probe(&[])?.mount(Mount::parse_mount_flag("type=image,source=none:1,target=/x")?);
    match place.run(&spec) {
        Err(error) => match *error.downcast::<Error>()? {
            Error::NoSuchImage { .. } | Error::Pull { .. } => Ok(()),
            other => Err(format!("{other:?}").into()),
        },
        Ok(ran) => Err(format!("{ran:?}").into()),
    }
}
