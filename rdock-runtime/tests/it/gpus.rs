//! GPUs, described by specification files and by the files of a driver.

use crate::cdi::refused;
use crate::probe::{Place, probe};
use crate::{Cannot, Tested, needs_root, same, trial};
use libtest_mimic::Trial;
use rdock_runtime::{CdiError, Error, GpuRequest, Mount};
use rustix::fs::{CWD, FileType, Mode};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use std::path::Path;
use std::process::Command;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_request_for_gpus_is_a_described_device", requested),
        trial("without_a_gpu_there_is_no_container", no_gpu),
        trial("a_gpu_is_given_by_the_drivers_own_files", by_driver),
    ]
}

fn requested() -> Tested {
    let place = Place::new()?;
    let directory = place.root.path().join("cdi");
    std::fs::create_dir(&directory)?;
    let json = r#"{"cdiVersion": "0.6.0", "kind": "nvidia.com/gpu", "devices": [
        {"name": "0", "containerEdits": {"env": ["GPU0=yes"]}},
        {"name": "1", "containerEdits": {"env": ["GPU1=yes"]}},
        {"name": "all", "containerEdits": {"env": ["GPU0=yes", "GPU1=yes"]}}],
        "containerEdits": {"env": ["NVIDIA_VISIBLE_DEVICES=void"]}}"#;
    std::fs::write(directory.join("nvidia.json"), json)?;
    let says = |request: &str| -> Tested<Vec<String>> {
        let spec = probe(&["env"])?
            .cdi_directory(&directory)
            .gpus(GpuRequest::parse(request)?)
            .env("NVIDIA_VISIBLE_DEVICES", "all");
        let said = place.says(&spec)?;
        let ours = said
            .trim()
            .split(';')
            .filter(|one| one.starts_with("GPU") || one.starts_with("NVIDIA"));
        let mut ours: Vec<String> = ours.map(str::to_owned).collect();
        ours.sort();
        Ok(ours)
    };
    let void = "NVIDIA_VISIBLE_DEVICES=void";
    same(&says("all")?, &vec!["GPU0=yes", "GPU1=yes", void])?;
    same(&says("1")?, &vec!["GPU0=yes", void])?;
    same(&says("device=1")?, &vec!["GPU1=yes", void])?;
    // The variable alone, which images come with, gives nothing.
    let spec = probe(&["env"])?
        .cdi_directory(&directory)
        .env("NVIDIA_VISIBLE_DEVICES", "all");
    same(&place.says(&spec)?.contains("GPU0"), &false)?;
    let spec = probe(&["say ran"])?
        .cdi_directory(&directory)
        .gpus(GpuRequest::ids(["7"]));
    match refused(&place, &spec)? {
        Error::Cdi(CdiError::NoSuchGpu { id, .. }) => same(&id.as_str(), &"7"),
        other => Err(format!("{other:?}").into()),
    }
}

fn no_gpu() -> Tested {
    if Path::new("/proc/driver/nvidia/version").exists() {
        return Err(Cannot("this host has a GPU".into()).into());
    }
    let place = Place::new()?;
    let spec = probe(&["say ran"])?
        .cdi_directory(place.root.path().join("none"))
        .gpus(GpuRequest::all());
    let error = refused(&place, &spec)?;
    same(
        &error
            .to_string()
            .starts_with("could not select device driver \"\" with capabilities: [[gpu]]"),
        &true,
    )?;
    same(&error.hint().is_some_and(|hint| hint.contains("/etc/cdi")), &true)
}

/// A host of our own, in a mount namespace, with files such as those of NVIDIA's driver.
fn by_driver() -> Tested {
    needs_root()?;
    let output = Command::new(std::env::current_exe()?)
        .env("RDOCK_TEST_ROLE", "gpu-host")
        .output()?;
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    match text.trim().strip_prefix("failed: cannot: ") {
        Some(why) => Err(Cannot(why.to_owned()).into()),
        None if output.status.success() => Ok(()),
        None => Err(text.into()),
    }
}

pub(crate) fn play_host() -> Tested {
    let cannot = |what: &str| {
        let what = what.to_owned();
        move |error: std::io::Error| format!("cannot: {what}: {error}")
    };
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)
        .map_err(|error| format!("cannot: no mount namespace: {error}"))?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    let memory = |at: &str| {
        mount("tmpfs", at, "tmpfs", MountFlags::empty(), None::<&std::ffi::CStr>)
            .map_err(|error| cannot(at)(error.into()))
    };
    for place in ["/proc/driver", "/usr/local", "/dev"] {
        memory(place)?;
    }
    let node = |name: &str, major, minor| {
        let device = rustix::fs::makedev(major, minor);
        rustix::fs::mknodat(
            CWD,
            format!("/dev/{name}"),
            FileType::CharacterDevice,
            Mode::from_raw_mode(0o666),
            device,
        )
        .map_err(|error| cannot("no device can be made")(error.into()))
    };
    for (name, minor) in [
        ("null", 3),
        ("zero", 5),
        ("full", 7),
        ("random", 8),
        ("urandom", 9),
    ] {
        node(name, 1, minor)?;
    }
    // The numbers of devices that every container may use, so that they can be opened.
    for (name, minor) in [
        ("nvidiactl", 3),
        ("nvidia1", 5),
        ("nvidia0", 7),
        ("nvidia-uvm", 9),
    ] {
        node(name, 1, minor)?;
    }
    std::fs::create_dir_all("/dev/shm")?;
    for (address, uuid, minor) in [("0000:01:00.0", "GPU-aa", 1), ("0000:02:00.0", "GPU-bb", 0)] {
        let gpu = format!("/proc/driver/nvidia/gpus/{address}");
        std::fs::create_dir_all(&gpu)?;
        std::fs::write(
            format!("{gpu}/information"),
            format!("Model: \t\t a model\nGPU UUID: \t {uuid}\nDevice Minor: \t {minor}\n"),
        )?;
    }
    std::fs::write("/proc/driver/nvidia/version", "NVRM version: none\n")?;
    let libraries = "/usr/local/nvidia/lib64";
    std::fs::create_dir_all(libraries)?;
    std::fs::create_dir_all("/usr/local/nvidia/bin")?;
    std::fs::copy("/proc/self/exe", "/usr/local/nvidia/bin/nvidia-smi")?;
    // Any library of this machine will do.
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    let library = maps
        .lines()
        .filter_map(|line| line.split_whitespace().nth(5))
        .find(|path| path.contains("libgcc_s") || path.contains("libm"))
        .ok_or("cannot: this program has no library to copy")?;
    for name in [
        "libcuda.so.580.1",
        "libnvidia-ml.so.580.1",
        "libnvidia-encode.so.580.1",
    ] {
        std::fs::copy(library, format!("{libraries}/{name}"))?;
    }
    for name in ["libcuda", "libnvidia-ml"] {
        std::os::unix::fs::symlink(format!("{name}.so.580.1"), format!("{libraries}/{name}.so.1"))?;
    }
    // The image has another library under the name of a link.
    let place = Place::with(
        "{}",
        &[
            crate::probe::dir("usr/local/nvidia/lib64", 0o755),
            crate::probe::file("usr/local/nvidia/lib64/libcuda.so.1", 0o644, "a stub"),
        ],
    )?;
    let spec = probe(&[
        "list /usr/local/nvidia/lib64",
        "link /usr/local/nvidia/lib64/libcuda.so.1",
        "write /usr/local/nvidia/lib64/libcuda.so.580.1 x",
        "device /dev/nvidia1",
        "device /dev/nvidia0",
        "device /dev/nvidiactl",
        "device /dev/nvidia-uvm",
        "write /usr/bin/nvidia-smi x",
        "has /etc/ld.so.cache /usr/local/nvidia/lib64/lib",
        "env",
    ])?
    .cdi_directory(place.root.path().join("none"))
    .gpus(GpuRequest::count(1));
    let said = place.says(&spec)?;
    let lines: Vec<&str> = said.lines().collect();
    same(
        &lines[..8],
        &[
            "libcuda.so.1 libcuda.so.580.1 libnvidia-ml.so.1 libnvidia-ml.so.580.1",
            "libcuda.so.580.1",
            "errno 30",
            "1:5",
            // The other GPU is not there.
            "errno 2",
            "1:3",
            "1:9",
            "errno 30",
        ],
    )?;
    // Where this host has an ldconfig that needs no library, the loader inside finds them.
    let can = ["/sbin/ldconfig.real", "/sbin/ldconfig"]
        .iter()
        .any(|path| std::fs::read(path).is_ok_and(|bytes| bytes.starts_with(b"\x7fELF")));
    same(&lines[8], &if can { "true" } else { "errno 2" })?;
    for variable in [
        "NVIDIA_VISIBLE_DEVICES=0;",
        "NVIDIA_DRIVER_CAPABILITIES=compute,utility;",
    ] {
        same(&lines[9].contains(variable), &true)?;
    }
    // A directory of the host is not changed for a container.
    let etc = place.root.path().join("etc");
    std::fs::create_dir(&etc)?;
    std::fs::write(etc.join("passwd"), "root:x:0:0::/root:/bin/sh\n")?;
    let spec = probe(&["list /etc", "device /dev/nvidia1"])?
        .cdi_directory(place.root.path().join("none"))
        .mount(Mount::bind(&etc, "/etc"))
        .gpus(GpuRequest::count(1));
    let said = place.says(&spec)?;
    same(&said.contains("ld.so.cache"), &false)?;
    same(&said.lines().last(), &Some("1:5"))?;
    same(&etc.join("ld.so.cache").exists(), &false)?;
    let spec = probe(&["say ran"])?
        .cdi_directory(place.root.path().join("none"))
        .gpus(GpuRequest::count(3));
    match refused(&place, &spec)? {
        Error::Cdi(CdiError::NoSuchGpu { present, .. }) => same(&present.as_str(), &"2: GPU-aa, GPU-bb"),
        other => Err(format!("{other:?}").into()),
    }
}
