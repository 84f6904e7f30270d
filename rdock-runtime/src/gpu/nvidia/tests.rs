//! The driver of a host that is made here.

use super::*;

const INFORMATION: &str = "Model: \t\t NVIDIA H100 80GB HBM3\nIRQ:   \t\t 58\nGPU UUID: \t GPU-UUID\n\
                           Video BIOS: \t 96.00\nBus Location: \t 0000:01:00.0\nDevice Minor: \t MINOR\n";

/// A host with the driver for two GPUs, of which the second on the bus has the first node.
fn host() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("dir");
    let at = |path: &str| dir.path().join(path);
    for (address, uuid, minor) in [("0000:01:00.0", "aa-1", "1"), ("0000:0a:00.0", "ab-2", "0")] {
        let gpu = at(&format!("proc/driver/nvidia/gpus/{address}"));
        std::fs::create_dir_all(&gpu).expect("dir");
        let text = INFORMATION
            .replace("UUID\n", &format!("{uuid}\n"))
            .replace("MINOR", minor);
        std::fs::write(gpu.join("information"), text).expect("information");
    }
    std::fs::write(at("proc/driver/nvidia/version"), "NVRM version: ...\n").expect("version");
    for folder in [
        "dev",
        "etc",
        "usr/lib/deep/current",
        "usr/bin",
        "usr/local/nvidia/bin",
        "usr/lib32",
    ] {
        std::fs::create_dir_all(at(folder)).expect("dir");
    }
    std::fs::write(at("dev/nvidiactl"), "").expect("node");
    let elf = std::fs::read("/proc/self/exe").expect("elf")[..64].to_vec();
    let mut old = elf.clone();
    old[4] = 1;
    std::fs::write(at("usr/lib/deep/libcuda.so.580.1"), &elf).expect("library");
    std::fs::write(at("usr/lib/deep/current/libnvidia-ml.so.580.1"), &elf).expect("library");
    std::fs::write(at("usr/lib/deep/libnvidia-ngx.so.580.1"), &elf).expect("library");
    std::fs::write(at("usr/lib/deep/libcudart.so.12"), &elf).expect("library");
    std::fs::write(at("usr/lib32/libcuda.so.580.1"), &old).expect("library");
    std::os::unix::fs::symlink("libcuda.so.580.1", at("usr/lib/deep/libcuda.so.1")).expect("link");
    std::os::unix::fs::symlink(
        "current/libnvidia-ml.so.580.1",
        at("usr/lib/deep/libnvidia-ml.so.1"),
    )
    .expect("link");
    // Some hosts have a script in front of the program.
    std::fs::write(
        at("usr/bin/nvidia-smi"),
        "#!/bin/sh\nexec /usr/local/nvidia/bin/nvidia-smi\n",
    )
    .expect("script");
    std::fs::write(at("usr/local/nvidia/bin/nvidia-smi"), &elf).expect("program");
    std::os::unix::fs::symlink("deep/libcuda.so.580.1", at("usr/lib/libcuda.so.1")).expect("link");
    let cache = b"ld.so-1.7.0\0glibc-ld.so.cache1.1\x01\xff\0libcuda.so.1\0/usr/lib32/libcuda.so.1\0\
                  libcuda.so.1\0/usr/lib/deep/libcuda.so.1\0/usr/lib/deep/libc.so.6\0";
    std::fs::write(at("etc/ld.so.cache"), cache).expect("cache");
    dir
}

#[test]
fn the_driver_is_found_by_its_own_files() {
    let host = host();
    let driver = Driver::find(host.path()).expect("usable").expect("there");
    let names: Vec<_> = driver
        .gpus
        .iter()
        .map(|gpu| (gpu.uuid.as_str(), gpu.minor))
        .collect();
    assert_eq!(names, [("GPU-aa-1", 1), ("GPU-ab-2", 0)]);
    let mut edited = Edited::default();
    let parts = ["compute".to_owned(), "utility".to_owned()];
    driver.add_libraries(&mut edited, &parts);
    driver.add_programs(&mut edited, &parts);
    let mut targets: Vec<_> = edited
        .mounts
        .iter()
        .map(|mount| mount.target.display().to_string())
        .collect();
    targets.sort();
    assert_eq!(
        targets,
        [
            "/usr/bin/nvidia-smi",
            "/usr/lib/deep/current/libnvidia-ml.so.580.1",
            "/usr/lib/deep/libcuda.so.580.1"
        ]
    );
    let links: Vec<_> = edited
        .links
        .iter()
        .map(|link| {
            (
                link.path.to_str().expect("path"),
                link.target.to_str().expect("target"),
            )
        })
        .collect();
    assert_eq!(
        links,
        [
            ("/usr/lib/deep/libcuda.so.1", "libcuda.so.580.1"),
            (
                "/usr/lib/deep/libnvidia-ml.so.1",
                "/usr/lib/deep/current/libnvidia-ml.so.580.1"
            ),
            ("/usr/lib/libcuda.so.1", "/usr/lib/deep/libcuda.so.580.1"),
        ]
    );
    assert!(edited.mounts.iter().all(|mount| mount.flags.read_only));
    let libraries = ["/usr/lib/deep", "/usr/lib/deep/current", "/usr/lib"];
    assert_eq!(edited.libraries, libraries.map(PathBuf::from));
    let smi = edited
        .mounts
        .iter()
        .find(|mount| mount.target == Path::new("/usr/bin/nvidia-smi"));
    let source = smi.map(|mount| match &mount.kind {
        MountKind::Bind(bind) => bind.source.clone(),
        other => panic!("{other:?}"),
    });
    assert_eq!(source, Some(host.path().join("usr/local/nvidia/bin/nvidia-smi")));
    assert!(edited.warnings.is_empty());
}

#[test]
fn gpus_are_chosen_by_index_and_by_uuid() {
    let host = host();
    let driver = Driver::find(host.path()).expect("usable").expect("there");
    let minors = |request: &GpuRequest| -> Result<(Vec<u32>, String), String> {
        let (chosen, visible) = driver.choose(request).map_err(|error| error.to_string())?;
        Ok((chosen.iter().map(|gpu| gpu.minor).collect(), visible))
    };
    let table = [
        (GpuRequest::all(), vec![1, 0], "all"),
        (GpuRequest::default(), vec![1], "0"),
        (GpuRequest::count(2), vec![1, 0], "0,1"),
        (GpuRequest::ids(["1"]), vec![0], "1"),
        (GpuRequest::ids(["GPU-ab"]), vec![0], "GPU-ab"),
        (GpuRequest::ids(["1", "GPU-ab-2"]), vec![0], "1,GPU-ab-2"),
        (GpuRequest::ids(["all"]), vec![1, 0], "all"),
    ];
    for (request, expected, word) in table {
        assert_eq!(minors(&request).expect("found"), (expected, word.to_owned()));
    }
    for request in [
        GpuRequest::count(3),
        GpuRequest::ids(["2"]),
        GpuRequest::ids(["GPU-a"]),
        GpuRequest::ids([""]),
        GpuRequest::ids(["MIG-x"]),
    ] {
        let error = minors(&request).expect_err("none");
        assert!(error.contains("2: GPU-aa-1, GPU-ab-2"), "{error}");
    }
}

#[test]
fn a_host_without_the_driver_or_its_node_says_so() {
    let empty = tempfile::tempdir().expect("dir");
    assert!(matches!(Driver::find(empty.path()), Ok(None)));
    let host = host();
    std::fs::remove_file(host.path().join("dev/nvidiactl")).expect("remove");
    assert!(
        Driver::find(host.path())
            .expect_err("no node")
            .contains("nvidiactl")
    );
}

#[test]
fn any_bytes_are_a_cache() {
    assert_eq!(
        directories_in_cache(b"/a/libcuda.so\0libcuda.so.1\0/b/libcuda.so.1"),
        [Path::new("/a"), Path::new("/b")]
    );
    assert!(directories_in_cache(&[0xff; 100]).is_empty());
}
