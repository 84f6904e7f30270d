//! Which files change: inotify(7) on a thread of its own.

use super::WatchError;
use super::rules::Rule;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// Events that are looked at together.
const AT_ONCE: usize = 10_000;

/// What is known and was not asked for yet.
#[derive(Default)]
struct Changes {
    seen: Mutex<Seen>,
    more: Notify,
}

#[derive(Debug, Default)]
struct Seen {
    paths: BTreeSet<PathBuf>,
    failed: Option<WatchError>,
}

impl Changes {
    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, paths: impl IntoIterator<Item = PathBuf>) {
        self.lock().paths.extend(paths);
        self.more.notify_one();
    }

    fn fail(&self, error: WatchError) {
        self.lock().failed = Some(error);
        self.more.notify_one();
    }
}

/// Watches until it is dropped.
pub(super) struct Watcher {
    changes: Arc<Changes>,
    /// Closing it ends the thread.
    _stop: OwnedFd,
}

impl Watcher {
    /// Watches the paths of the rules and all that is below them, but for what every rule leaves out.
    pub(super) fn start(rules: &[Rule]) -> Result<Self, WatchError> {
        let first = rules
            .first()
            .map(|rule| rule.path().to_owned())
            .unwrap_or_default();
        let failed = |error: Errno| WatchError::file("watch", &first)(error.into());
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).map_err(failed)?;
        let (stopped, stop) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
            .map_err(|error| WatchError::file("watch", &first)(error.into()))?;
        let changes = Arc::<Changes>::default();
        let mut tree = Tree {
            inotify,
            folders: BTreeMap::new(),
            roots: rules.iter().map(Root::of).collect(),
        };
        for root in rules.iter().map(|rule| rule.path().to_owned()) {
            // A file is known by its folder, since editors put another one in its place.
            match root.is_dir() {
                true => tree.add(&root).map(drop)?,
                false => tree.folder(root.parent().unwrap_or(Path::new("/")))?,
            }
        }
        let told = changes.clone();
        std::thread::Builder::new()
            .name("rdock-watch".to_owned())
            .spawn(move || {
                if let Err(error) = tree.listen(&stopped, &told) {
                    told.fail(error);
                }
            })
            .map_err(WatchError::file("start a thread for", &first))?;
        Ok(Self { changes, _stop: stop })
    }

    /// Waits for changes, and then until nothing has changed for `quiet`, but no longer than `longest`.
    pub(super) async fn changed(
        &mut self,
        quiet: Duration,
        longest: Duration,
    ) -> Result<BTreeSet<PathBuf>, WatchError> {
        loop {
            {
                let mut seen = self.changes.lock();
                if let Some(error) = seen.failed.take() {
                    return Err(error);
                }
                if !seen.paths.is_empty() {
                    break;
                }
            }
            self.changes.more.notified().await;
        }
        let end = Instant::now() + longest;
        while timeout_at(end.min(Instant::now() + quiet), self.changes.more.notified())
            .await
            .is_ok()
        {}
        Ok(std::mem::take(&mut self.changes.lock().paths))
    }
}

/// What of a rule the thread has to know.
struct Root {
    path: PathBuf,
    leaves_out: Box<dyn Fn(&Path) -> bool + Send>,
}

impl Root {
    fn of(rule: &Rule) -> Self {
        Self {
            path: rule.path().to_owned(),
            leaves_out: rule.left_out(),
        }
    }
}

struct Tree {
    inotify: OwnedFd,
    folders: BTreeMap<i32, PathBuf>,
    roots: Vec<Root>,
}

impl Tree {
    /// One folder.
    fn folder(&mut self, path: &Path) -> Result<(), WatchError> {
        let flags = WatchFlags::CREATE
            | WatchFlags::MODIFY
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::DELETE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::ONLYDIR;
        match inotify::add_watch(&self.inotify, path, flags) {
            Ok(number) => {
                self.folders.insert(number, path.to_owned());
                Ok(())
            }
            // It went away meanwhile, or is something else by now.
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(()),
            Err(error) => Err(WatchError::file("watch", path)(error.into())),
        }
    }

    /// A folder and those below it. What is there: it may have come before the folder was watched.
    fn add(&mut self, path: &Path) -> Result<Vec<PathBuf>, WatchError> {
        let mut files = Vec::new();
        let mut open = vec![path.to_owned()];
        while let Some(dir) = open.pop() {
            let is_root = self.roots.iter().any(|root| root.path == dir);
            if !is_root && self.roots.iter().all(|root| (root.leaves_out)(&dir)) {
                continue;
            }
            self.folder(&dir)?;
            let Ok(entries) = std::fs::read_dir(&dir) else {
                continue;
            };
            for entry in entries.flatten() {
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() => open.push(entry.path()),
                    Ok(_) => files.push(entry.path()),
                    Err(_) => {}
                }
            }
        }
        Ok(files)
    }

    /// Tells of changes until `stopped` is closed.
    fn listen(&mut self, stopped: &OwnedFd, changes: &Changes) -> Result<(), WatchError> {
        let mut buffer = [MaybeUninit::uninit(); 64 << 10];
        loop {
            let mut waits = [
                PollFd::new(&self.inotify, PollFlags::IN),
                PollFd::new(stopped, PollFlags::IN),
            ];
            match poll(&mut waits, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(self.failed(error)),
            }
            if !waits[1].revents().is_empty() {
                return Ok(());
            }
            let mut found = Vec::new();
            let mut lost = false;
            let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
            while found.len() < AT_ONCE {
                match reader.next() {
                    Ok(event) => {
                        lost |= event.events().contains(ReadFlags::QUEUE_OVERFLOW);
                        let name = event.file_name().map(|name| name.to_bytes().to_vec());
                        found.push((event.wd(), event.events(), name));
                    }
                    Err(Errno::AGAIN) => break,
                    Err(Errno::INTR) => {}
                    Err(error) => return Err(self.failed(error)),
                }
            }
            let mut paths = Vec::new();
            for (number, events, name) in found {
                if events.contains(ReadFlags::IGNORED) {
                    self.folders.remove(&number);
                    continue;
                }
                let (Some(folder), Some(name)) = (self.folders.get(&number), name) else {
                    continue;
                };
                let path = folder.join(std::ffi::OsStr::from_bytes(&name));
                let came = events.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO);
                let watched = self.roots.iter().any(|root| path.starts_with(&root.path));
                if events.contains(ReadFlags::ISDIR) && came {
                    let files = match watched {
                        true => self.add(&path)?,
                        false => continue,
                    };
                    // One that has files comes with them.
                    match files.is_empty() {
                        true => paths.push(path),
                        false => paths.extend(files),
                    }
                } else if watched {
                    paths.push(path);
                }
            }
            if lost {
                // The kernel could not keep up: everything may have changed.
                for root in self
                    .roots
                    .iter()
                    .map(|root| root.path.clone())
                    .collect::<Vec<_>>()
                {
                    match root.is_dir() {
                        true => paths.extend(self.add(&root)?),
                        false => paths.push(root),
                    }
                }
            }
            if !paths.is_empty() {
                changes.add(paths);
            }
        }
    }

    fn failed(&self, error: Errno) -> WatchError {
        let path = self.roots.first().map(|root| root.path.clone());
        WatchError::file("watch", path.unwrap_or_default())(error.into())
    }
}
