//! A static busybox, from the distribution's package: what base images of tests are made of.
#[allow(
    dead_code,
    unreachable_pub,
    reason = "the root package's tests use more of it"
)]
#[path = "../../../examples/rdock/tests/fixtures/apt.rs"]
mod apt;
#[allow(
    dead_code,
    unreachable_pub,
    reason = "the root package's tests use more of it"
)]
#[path = "../../../examples/rdock/tests/fixtures/cache.rs"]
mod cache;

use std::path::PathBuf;
use std::process::Command;

/// Returns the program's path: a file of the cache, fetched once from the distribution's mirror.
pub(crate) fn busybox() -> cache::Result<PathBuf> {
    let cache = cache::Cache::open()?;
    let dir = cache.make("busybox", |dir| {
        let apt = apt::Apt::open(&cache, &apt::Family::of_host()?.1)?;
        let packages = apt.resolve(&["busybox-static"])?;
        let wanted = (packages.into_iter())
            .filter(|package| package.name == "busybox-static")
            .collect();
        for package in apt.fetch(&wanted)? {
            cache::run(Command::new("dpkg-deb").arg("-x").arg(package).arg(dir))?;
        }
        Ok(())
    })?;
    let found = ["bin/busybox", "usr/bin/busybox"].map(|name| dir.join(name));
    let found = found.into_iter().find(|path| path.is_file());
    found.ok_or_else(|| cache::Error::Failed("busybox-static has no busybox".to_owned()))
}
