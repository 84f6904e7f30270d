//! What a real overlayfs makes of a change; the conformance driver uses it too.
use rdock_image::{Digest, ImageStore, LayerOptions, MadeLayer, Mount, SnapshotOptions};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use std::error::Error;
use std::ffi::CString;
use std::path::Path;

/// Runs `change` in the mounted root of a snapshot over `below`, and makes a layer of it.
pub(crate) fn changed(
    store: &ImageStore,
    below: &[Digest],
    options: &LayerOptions,
    change: impl FnOnce(&Path) -> Result<(), Box<dyn Error>> + Send,
) -> Result<MadeLayer, Box<dyn Error>> {
    let lease = store.lease()?;
    let id = format!("t{}", rustix::process::getpid().as_raw_nonzero().get());
    let volatile = SnapshotOptions {
        volatile: true,
        user_namespace: false,
    };
    let snapshot = store.snapshot_layers(below, &id, &volatile)?;
    let point = tempfile::tempdir()?;
    let run = || -> Result<(), String> {
        // Mounts of this thread's own: nobody else sees them.
        #[expect(
            deprecated,
            reason = "the safe call; CLONE_NEWNS has no memory or descriptor effects"
        )]
        rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNS).map_err(|e| e.to_string())?;
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        rustix::mount::mount_change("/", private).map_err(|e| e.to_string())?;
        let [
            Mount::Overlay {
                lower, upper, work, ..
            },
        ] = &snapshot.mounts()[..]
        else {
            return Err("not an overlay".into());
        };
        let lower: Vec<String> = lower.iter().map(|path| path.display().to_string()).collect();
        let options = format!(
            "lowerdir={},upperdir={},workdir={},redirect_dir=off,metacopy=off,index=off,volatile",
            lower.join(":"),
            upper.display(),
            work.display()
        );
        let options = CString::new(options).map_err(|e| e.to_string())?;
        rustix::mount::mount(
            "overlay",
            point.path(),
            "overlay",
            MountFlags::empty(),
            Some(&*options),
        )
        .map_err(|e| format!("mount: {e}"))?;
        let done = change(point.path()).map_err(|e| e.to_string());
        rustix::mount::unmount(point.path(), UnmountFlags::empty()).map_err(|e| e.to_string())?;
        done
    };
    std::thread::scope(|scope| scope.spawn(run).join().map_err(|_| "a panic".to_owned())?)?;
    let made = store.adopt_snapshot(&lease, &snapshot, options)?;
    snapshot.remove()?;
    store.keep_layers("test", &[below, std::slice::from_ref(&made.diff_id)].concat())?;
    Ok(made)
}
