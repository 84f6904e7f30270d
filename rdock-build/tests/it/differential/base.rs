//! The base image: the distribution's static busybox under the names of its commands, and a few users.
use crate::Tested;
use crate::busybox::busybox;
use rdock_image::{Image, ImageStore, Progress};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::path::Path;
use std::process::Command;

/// The name under which Dockerfiles know it.
pub(super) const NAME: &str = "base";

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
    daemon:x:1:2:daemon:/srv:/bin/false\n\
    app:x:1000:1001:app:/home/app:/bin/sh\n";
const GROUP: &str = "root:x:0:\ndaemon:x:2:\nmail:x:8:app\napp:x:1001:\n";

/// Writes a `docker save` archive of the image.
fn archive(path: &Path) -> Tested {
    let busybox = busybox()?;
    let listed = Command::new(&busybox).arg("--list").output()?;
    let commands = String::from_utf8(listed.stdout)?;
    let mut layer = tar::Builder::new(Vec::new());
    let mut put = |name: &str, kind, mode, owner: (u64, u64), data: &[u8], link: &str| -> Tested {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(owner.0);
        header.set_gid(owner.1);
        header.set_mtime(1_000_000_000);
        header.set_size(data.len() as u64);
        match link {
            "" => layer.append_data(&mut header, name, data)?,
            link => layer.append_link(&mut header, name, link)?,
        }
        Ok(())
    };
    use tar::EntryType::{Directory, Regular, Symlink};
    for (name, mode, owner) in [
        ("bin/", 0o755, (0, 0)),
        ("dev/", 0o755, (0, 0)),
        ("etc/", 0o755, (0, 0)),
        ("proc/", 0o755, (0, 0)),
        ("run/", 0o755, (0, 0)),
        ("sys/", 0o755, (0, 0)),
        ("home/", 0o755, (0, 0)),
        ("home/app/", 0o750, (1000, 1001)),
        ("root/", 0o700, (0, 0)),
        ("srv/", 0o755, (0, 0)),
        ("tmp/", 0o1777, (0, 0)),
        ("var/", 0o755, (0, 0)),
    ] {
        put(name, Directory, mode, owner, &[], "")?;
    }
    put("etc/passwd", Regular, 0o644, (0, 0), PASSWD.as_bytes(), "")?;
    put("etc/group", Regular, 0o644, (0, 0), GROUP.as_bytes(), "")?;
    put(
        "bin/busybox",
        Regular,
        0o755,
        (0, 0),
        &std::fs::read(&busybox)?,
        "",
    )?;
    for command in commands.lines().filter(|command| *command != "busybox") {
        put(&format!("bin/{command}"), Symlink, 0o777, (0, 0), &[], "busybox")?;
    }
    let layer = layer.into_inner()?;
    let diff_id = format!("sha256:{}", hex(&layer));
    let config = serde_json::to_vec(&json!({
        "architecture": "amd64",
        "os": "linux",
        "created": "2001-09-09T01:46:40Z",
        "config": {
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "FROM_BASE=yes"],
            "Cmd": ["sh"],
            "Labels": {"from.base": "yes"},
        },
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "history": [{"created": "2001-09-09T01:46:40Z", "created_by": "the base"}],
    }))?;
    let name = format!("{}.json", hex(&config));
    let manifest = json!([{"Config": name, "RepoTags": [format!("{NAME}:latest")], "Layers": ["layer.tar"]}]);
    let mut out = tar::Builder::new(std::fs::File::create(path)?);
    for (name, data) in [
        (name.as_str(), &config),
        ("layer.tar", &layer),
        ("manifest.json", &manifest.to_string().into_bytes()),
    ] {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o644);
        header.set_size(data.len() as u64);
        out.append_data(&mut header, name, data.as_slice())?;
    }
    out.finish()?;
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Brings the image into a store.
pub(super) fn import(store: &ImageStore, scratch: &Path) -> Tested<Image> {
    let path = scratch.join("base.tar");
    archive(&path)?;
    let images = store.import(&path, &Progress::default())?;
    std::fs::remove_file(path)?;
    Ok(images.into_iter().next().ok_or("the archive has no image")?)
}
