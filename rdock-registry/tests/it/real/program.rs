//! Where the program `docker-registry` comes from.

use crate::Cannot;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// `docker-registry`: of the host, of the cache directory, or downloaded into that.
pub(super) fn program() -> Result<PathBuf, Cannot> {
    let in_path = std::env::var_os("PATH")
        .into_iter()
        .flat_map(|path| std::env::split_paths(&path).collect::<Vec<_>>());
    if let Some(found) = in_path
        .map(|dir| dir.join("docker-registry"))
        .find(|path| path.is_file())
    {
        return Ok(found);
    }
    let variable = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let cache = variable("RDOCK_TEST_CACHE")
        .or_else(|| variable("XDG_CACHE_HOME").map(|dir| dir.join("rdock-tests")))
        .or_else(|| variable("HOME").map(|dir| dir.join(".cache/rdock-tests")))
        .ok_or_else(|| Cannot("no docker-registry, and no HOME for a cache".into()))?;
    // Where the tests of the example program keep theirs.
    let kept = cache.join("v1/registry-program/usr/bin/docker-registry");
    if kept.is_file() {
        return Ok(kept);
    }
    let tree = cache.join("docker-registry");
    let program = tree.join("usr/bin/docker-registry");
    if !program.is_file() {
        download(&cache, &tree)?;
    }
    Ok(program)
}

/// Fetches Debian's package with apt, in a private state: nothing is installed and no privilege is needed.
fn download(cache: &Path, tree: &Path) -> Result<(), Cannot> {
    let failed =
        |what: &str, why: &dyn std::fmt::Display| Cannot(format!("no docker-registry here; {what}: {why}"));
    std::fs::create_dir_all(cache).map_err(|error| failed("the cache directory", &error))?;
    let work = tempfile::tempdir_in(cache).map_err(|error| failed("the cache directory", &error))?;
    let run = |program: &str, arguments: &[&std::ffi::OsStr]| {
        let output = Command::new(program)
            .args(arguments)
            .current_dir(work.path())
            .stdin(Stdio::null())
            .output()
            .map_err(|error| failed(program, &error))?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() {
            Ok(())
        } else {
            Err(failed(program, &text.lines().next().unwrap_or("failed")))
        }
    };
    let path = work.path().display();
    for dir in ["lists/partial", "cache/archives/partial"] {
        std::fs::create_dir_all(work.path().join(dir))
            .map_err(|error| failed("the cache directory", &error))?;
    }
    let options = [
        format!("Dir::State::Lists={path}/lists"),
        format!("Dir::Cache={path}/cache"),
        "APT::Sandbox::User=".into(),
    ];
    let mut arguments: Vec<&std::ffi::OsStr> = Vec::new();
    for option in &options {
        arguments.push("-o".as_ref());
        arguments.push(option.as_ref());
    }
    run("apt-get", &[arguments.as_slice(), &["update".as_ref()]].concat())?;
    run(
        "apt-get",
        &[
            arguments.as_slice(),
            &["download".as_ref(), "docker-registry".as_ref()],
        ]
        .concat(),
    )?;
    let package = std::fs::read_dir(work.path())
        .map_err(|error| failed("the cache directory", &error))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .ok_or_else(|| failed("apt-get", &"it brought no package"))?;
    let unpacked = work.path().join("tree");
    run("dpkg", &["-x".as_ref(), package.as_ref(), unpacked.as_ref()])?;
    // Another run may have been faster; then its tree is as good.
    if let Err(error) = std::fs::rename(&unpacked, tree)
        && !tree.is_dir()
    {
        return Err(failed("the cache directory", &error));
    }
    Ok(())
}
