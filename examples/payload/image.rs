//! An image that holds the payload alone, made in memory.

use rdock_runtime::image::Digest;
use std::io;

/// The program itself.
pub(crate) const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/payload"));

/// An archive as `docker save` writes it, for `ImageStore::import_stream` and `rdock load`.
///
/// The image has `/payload` as its entry point, the users root and guest (1000:1000, with group 2000), and a
/// folder `/data` with one file.
pub(crate) fn archive(name: &str) -> io::Result<Vec<u8>> {
    archive_with(name, 15)
}

/// [`archive`] with a file of `size` bytes in `/data`.
pub(crate) fn archive_with(name: &str, size: usize) -> io::Result<Vec<u8>> {
    let file: Vec<u8> = b"from the image\n".iter().copied().cycle().take(size).collect();
    let mut layer = tar::Builder::new(Vec::new());
    for folder in ["data", "etc", "tmp"] {
        entry(
            &mut layer,
            folder,
            tar::EntryType::Directory,
            if folder == "tmp" { 0o1777 } else { 0o755 },
            b"",
        )?;
    }
    let passwd = b"root:x:0:0:root:/:/payload\nguest:x:1000:1000:guest:/tmp:/payload\n";
    let group = b"root:x:0:\nguest:x:1000:\nextra:x:2000:guest\n";
    for (path, mode, bytes) in [
        ("payload", 0o755, PROGRAM),
        ("etc/passwd", 0o644, passwd.as_slice()),
        ("etc/group", 0o644, group),
        ("data/file", 0o644, file.as_slice()),
    ] {
        entry(&mut layer, path, tar::EntryType::Regular, mode, bytes)?;
    }
    let layer = layer.into_inner()?;
    let architecture = if cfg!(target_arch = "aarch64") {
        "arm64"
    } else {
        "amd64"
    };
    let config = serde_json::json!({
        "architecture": architecture,
        "os": "linux",
        "created": "2026-01-01T00:00:00Z",
        "config": {
            "Entrypoint": ["/payload"],
            "Cmd": ["echo", "hello"],
            "Env": ["PATH=/", "FROM_IMAGE=yes"],
            "ExposedPorts": {"8080/tcp": {}},
        },
        "rootfs": {"type": "layers", "diff_ids": [Digest::sha256_of(&layer).to_string()]},
    });
    let config = config.to_string();
    let config_name = format!("{}.json", Digest::sha256_of(config.as_bytes()).hex());
    let manifest = serde_json::json!([{"Config": config_name, "RepoTags": [name], "Layers": ["layer.tar"]}]);
    let mut archive = tar::Builder::new(Vec::new());
    for (path, bytes) in [
        ("manifest.json", manifest.to_string().as_bytes()),
        (&config_name, config.as_bytes()),
        ("layer.tar", &layer),
    ] {
        entry(&mut archive, path, tar::EntryType::Regular, 0o644, bytes)?;
    }
    archive.into_inner()
}

fn entry(
    archive: &mut tar::Builder<Vec<u8>>,
    path: &str,
    kind: tar::EntryType,
    mode: u32,
    bytes: &[u8],
) -> io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(bytes.len() as u64);
    header.set_mtime(1_767_225_600);
    header.set_cksum();
    archive.append_data(&mut header, path, bytes)
}
