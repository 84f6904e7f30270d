//! The context of all cases.
use crate::Tested;
use flate2::{Compression, write::GzEncoder};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

/// Files: path, mode, content.
const FILES: [(&str, u32, &str); 15] = [
    ("a.txt", 0o644, "a\n"),
    ("b.txt", 0o600, "b\n"),
    ("c d.txt", 0o644, "blank\n"),
    ("run.sh", 0o755, "#!/bin/sh\necho \"ran $*\"\n"),
    ("setuid", 0o4755, "setuid\n"),
    ("dir/one.txt", 0o644, "one\n"),
    ("dir/two.md", 0o664, "two\n"),
    ("dir/.hidden", 0o644, "hidden\n"),
    ("dir/sub/three.txt", 0o640, "three\n"),
    ("dir/sub/deep/four.txt", 0o644, "four\n"),
    ("other/five.txt", 0o644, "five\n"),
    ("other/one.txt", 0o644, "other one\n"),
    ("logs/app.log", 0o644, "log\n"),
    ("logs/keep.log", 0o644, "keep\n"),
    ("node/pkg/index.js", 0o644, "js\n"),
];

/// Symlinks: path, target.
const LINKS: [(&str, &str); 6] = [
    ("link.txt", "a.txt"),
    ("dirlink", "dir"),
    ("chain", "dirlink/sub"),
    ("dir/up", "../a.txt"),
    ("absolute", "/dir/one.txt"),
    ("outside", "../../../../etc/passwd"),
];

/// Directories with modes of their own; the others are 0755.
const DIRECTORIES: [(&str, u32); 3] = [("empty", 0o700), ("sticky", 0o1777), ("dir/sub", 0o750)];

/// Writes it; modes do not depend on the umask.
pub(super) fn write(dir: &Path) -> Tested {
    let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode));
    for (name, bits, content) in FILES {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap_or(dir))?;
        fs::write(&path, content)?;
        mode(&path, bits)?;
    }
    for (name, target) in LINKS {
        symlink(target, dir.join(name))?;
    }
    fs::create_dir_all(dir.join("hard"))?;
    fs::write(dir.join("hard/1"), "hard\n")?;
    mode(&dir.join("hard/1"), 0o644)?;
    fs::hard_link(dir.join("hard/1"), dir.join("hard/2"))?;
    let archive = archive()?;
    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    std::io::Write::write_all(&mut packed, &archive)?;
    let mut text = GzEncoder::new(Vec::new(), Compression::default());
    std::io::Write::write_all(&mut text, b"no archive\n")?;
    for (name, data) in [
        ("archive.tar", archive),
        ("archive.tar.gz", packed.finish()?),
        ("text.gz", text.finish()?),
    ] {
        fs::write(dir.join(name), data)?;
        mode(&dir.join(name), 0o644)?;
    }
    for name in [
        "dir",
        "dir/sub/deep",
        "other",
        "logs",
        "node",
        "node/pkg",
        "hard",
        "",
    ] {
        mode(&dir.join(name), 0o755)?;
    }
    for (name, bits) in DIRECTORIES {
        fs::create_dir_all(dir.join(name))?;
        mode(&dir.join(name), bits)?;
    }
    Ok(())
}

/// A tar with owners, modes, a symlink and a hard link.
fn archive() -> Tested<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, kind, mode, data, link) in [
        ("packed/", tar::EntryType::Directory, 0o750, "", ""),
        ("packed/file", tar::EntryType::Regular, 0o4640, "packed\n", ""),
        ("packed/again", tar::EntryType::Link, 0o4640, "", "packed/file"),
        ("packed/link", tar::EntryType::Symlink, 0o777, "", "file"),
        ("top", tar::EntryType::Regular, 0o644, "top\n", ""),
    ] {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(12);
        header.set_gid(34);
        header.set_mtime(1_000_000_000);
        header.set_size(data.len() as u64);
        match link {
            "" => tar.append_data(&mut header, name, data.as_bytes())?,
            link => tar.append_link(&mut header, name, link)?,
        }
    }
    Ok(tar.into_inner()?)
}
