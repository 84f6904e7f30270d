//! What this program does when a test runs it as another process: `it --child VERB ROOT ...`.
use crate::support::{Tar, add_image, descriptor};
use rdock_image::{Digest, Error, ImageStore, Mount, PruneFilter};
use rustix::mount::{MountFlags, MountPropagationFlags};
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// A user without rights.
const NOBODY: u32 = 65534;

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

/// This program as a child that runs `verb`.
pub(crate) fn command(verb: &str, arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .arg("--child")
        .arg(verb)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    Ok(command)
}

/// Runs the child's verb, if this is a child.
pub(crate) fn run() -> Option<ExitCode> {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.get(1).map(String::as_str) != Some("--child") {
        return None;
    }
    let argument = |at: usize| arguments.get(at).cloned().unwrap_or_default();
    let result = match argument(2).as_str() {
        "pull" => pull(&argument(3), &argument(4)),
        "slow" => slow(&argument(3)),
        "prune" => prune(&argument(3), argument(4).parse().unwrap_or(0)),
        "mounted" => mounted(&argument(3), &argument(4)),
        "full" => full(&argument(3)),
        "exact-as-nobody" => exact_as_nobody(&argument(3)),
        "remove-as-nobody" => remove_as_nobody(&argument(3), &argument(4)),
        other => Err(format!("unknown verb {other}").into()),
    };
    Some(match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The parent shows it.
            let _ = writeln!(io::stderr(), "{error}: {:?}", error.source());
            ExitCode::FAILURE
        }
    })
}

/// A layer of many small files, the same in every process.
pub(crate) fn layer(files: usize, salt: &str) -> Vec<u8> {
    (0..files)
        .fold(Tar::new(), |tar, n| {
            tar.file(&format!("d{}/{salt}{n}", n / 50), n.to_string().repeat(200))
        })
        .end()
}

/// Pulls images of two layers in a row, as a registry client does.
fn pull(root: &str, salt: &str) -> Result {
    let store = ImageStore::open(root)?;
    for round in 0..10 {
        let layers = [layer(100, "base"), layer(60, &format!("{salt}-{round}-"))];
        let image = add_image(&store, &format!("pulled-{salt}:{round}"), &layers)?;
        // Everything that the commit promised is there.
        store.view(&image)?.walk()?;
    }
    Ok(())
}

/// Ingests one layer from a stream that takes its time.
fn slow(root: &str) -> Result {
    struct Slow<'a>(&'a [u8]);
    impl Read for Slow<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            std::thread::sleep(Duration::from_millis(20));
            let count = out.len().min(100_000);
            self.0.read(&mut out[..count])
        }
    }
    let store = ImageStore::open(root)?;
    let tar = layer(4000, "slow");
    let lease = store.lease()?;
    store.ingest_layer(
        &lease,
        &descriptor(&tar),
        &Digest::sha256_of(&tar),
        None,
        &mut Slow(&tar),
    )?;
    Ok(())
}

fn prune(root: &str, millis: u64) -> Result {
    let store = ImageStore::open(root)?;
    let end = Instant::now() + Duration::from_millis(millis);
    let mut rounds = 0;
    while Instant::now() < end {
        store.prune(&PruneFilter::default())?;
        rounds += 1;
    }
    writeln!(io::stdout(), "{rounds}")?;
    Ok(())
}

/// Leaves the mounts of this process to this process.
fn own_mounts() -> Result {
    // Nothing else runs in this process yet.
    #[expect(deprecated, reason = "the safe call; no descriptors are unshared")]
    rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNS)?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private)?;
    Ok(())
}

/// Mounts a snapshot as its data says, and prints what the kernel shows: path, mode, owner, size or target.
fn mounted(root: &str, id: &str) -> Result {
    let store = ImageStore::open(root)?;
    let snapshot = store.open_snapshot(id)?.ok_or("no snapshot")?;
    own_mounts()?;
    let at = Path::new(root).join("mounted");
    fs::create_dir(&at)?;
    for mount in snapshot.mounts() {
        let Mount::Overlay {
            lower,
            upper,
            work,
            volatile,
            userxattr,
        } = mount
        else {
            return Err("another form of mount".into());
        };
        let lower: Vec<_> = lower.iter().map(|path| path.display().to_string()).collect();
        let options = format!(
            "lowerdir={},upperdir={},workdir={},redirect_dir=off,metacopy=off,index=off{}{}",
            lower.join(":"),
            upper.display(),
            work.display(),
            if volatile { ",volatile" } else { "" },
            if userxattr { ",userxattr" } else { "" },
        );
        rustix::mount::mount(
            "overlay",
            &at,
            "overlay",
            MountFlags::empty(),
            &*std::ffi::CString::new(options)?,
        )?;
    }
    let mut open = vec![at.clone()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir)? {
            let path = entry?.path();
            let meta = fs::symlink_metadata(&path)?;
            let shown = path.strip_prefix(&at)?.display().to_string();
            let content = if meta.is_file() {
                fs::read_to_string(&path)?
            } else {
                String::new()
            };
            writeln!(
                io::stdout(),
                "{shown} {:o} {}:{} {content}",
                meta.mode(),
                meta.uid(),
                meta.gid()
            )?;
            if meta.is_dir() {
                open.push(path);
            }
        }
    }
    let meta = fs::metadata(&at)?;
    writeln!(io::stdout(), "/ {:o} {}:{} ", meta.mode(), meta.uid(), meta.gid())?;
    Ok(())
}

/// Removes a snapshot as a plain user who owns all of the store but a directory called `foreign`.
fn remove_as_nobody(root: &str, id: &str) -> Result {
    let mut open = vec![Path::new(root).to_owned()];
    while let Some(path) = open.pop() {
        if path.ends_with("foreign") {
            continue;
        }
        std::os::unix::fs::lchown(&path, Some(NOBODY), Some(NOBODY))?;
        if path.is_dir() {
            for entry in fs::read_dir(&path)? {
                open.push(entry?.path());
            }
        }
    }
    let nobody = rustix::thread::Uid::from_raw(NOBODY);
    rustix::thread::set_thread_res_uid(nobody, nobody, nobody)?;
    let store = ImageStore::open(root)?;
    let result = store.open_snapshot(id)?.ok_or("no snapshot")?.remove();
    match result {
        Err(Error::NeedsUserNamespace { path }) if path.ends_with(format!("snapshots/{id}/upper")) => Ok(()),
        other => {
            writeln!(io::stdout(), "{other:?}")?;
            Err("another result was expected".into())
        }
    }
}

/// A store whose user may neither set owners nor look past modes.
fn exact_as_nobody(root: &str) -> Result {
    fs::create_dir(root)?;
    std::os::unix::fs::chown(root, Some(NOBODY), Some(NOBODY))?;
    rustix::process::chdir(root)?;
    let nobody = rustix::thread::Uid::from_raw(NOBODY);
    rustix::thread::set_thread_res_uid(nobody, nobody, nobody)?;
    // The threads of a pull begin with what this one may do.
    let store = ImageStore::open(root)?;
    if store.info()?.ownership != "single-id" {
        return Err("this user may set owners".into());
    }
    crate::exact::all(&store)?;
    crate::exact::many(&store)
}

/// A store on a small file system of its own that fills up.
fn full(root: &str) -> Result {
    own_mounts()?;
    rustix::mount::mount("tmpfs", root, "tmpfs", MountFlags::empty(), c"size=4m,mode=700")?;
    let store = ImageStore::open(root)?;
    let free = || -> Result<u64> { Ok(rustix::fs::statfs(root)?.f_bfree) };
    let small = layer(10, "small");
    add_image(&store, "small:1", &[small])?;
    let before = free()?;
    let large = Tar::new().file("large", vec![7; 16 << 20]).end();
    match add_image(&store, "large:1", &[large]) {
        Err(Error::NoSpace { .. }) => {}
        other => return Err(format!("a full disk gave {other:?}").into()),
    }
    let left = fs::read_dir(store.root().join("ingest"))?.count();
    if left > 0 {
        return Err(format!("{left} files are left in ingest").into());
    }
    // The config of the failed image is a small file that prune takes.
    store.prune(&PruneFilter::default())?;
    if free()? < before {
        return Err(format!("{} of {before} blocks are free", free()?).into());
    }
    add_image(&store, "small:2", &[layer(20, "other")])?;
    if store.images()?.len() == 2 {
        Ok(())
    } else {
        Err("the other images are not there".into())
    }
}
