//! The digests of all that is in a directory of a context, made on several processors: nearly all of the time of a build
//! whose files did not change goes into asking the kernel for each of them.
use super::ContextFiles;
use super::digest::Headers;
use super::select::{DEEPEST, Filters, Judged, State, too_deep};
use rdock_image::{FileKind, MergedView};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// A directory to look into.
struct Task {
    /// Where its entries are noted.
    number: usize,
    /// Below the root of the context, and below the top of the scan.
    full: Vec<u8>,
    relative: Vec<u8>,
    depth: usize,
    state: State,
}

/// An entry of a directory.
struct Found {
    name: OsString,
    own: [u8; 32],
    /// It counts only with something below it.
    left_out: bool,
    /// Where its own entries are noted.
    below: Option<usize>,
}

#[derive(Default)]
struct Work {
    waiting: Vec<Task>,
    /// How many directories are looked into now.
    busy: usize,
    found: Vec<Vec<Found>>,
    failed: Option<String>,
}

struct Scan<'a> {
    context: &'a ContextFiles,
    filters: Filters<'a>,
    work: Mutex<Work>,
    changed: Condvar,
}

/// Calls `note` for everything below the directory `top` that the filters leave, in the order of
/// [`walk`](super::walk), with its path below `top` and its digest.
pub(super) fn scan(
    context: &ContextFiles,
    filters: Filters<'_>,
    top: &Path,
    note: &mut dyn FnMut(&[u8], [u8; 32]),
) -> Result<(), String> {
    let scan = Scan {
        context,
        filters,
        work: Mutex::default(),
        changed: Condvar::new(),
    };
    let first = Task {
        number: 0,
        full: top.as_os_str().as_bytes().to_vec(),
        relative: Vec::new(),
        depth: 0,
        state: State::of(filters.ignore, top),
    };
    {
        let mut work = scan.work();
        work.found.push(Vec::new());
        work.waiting.push(first);
    }
    std::thread::scope(|scope| {
        let mut alone = true;
        scan.take_part(&mut |waiting| {
            // One directory after the other is nothing to share.
            if alone && waiting > 1 {
                alone = false;
                let processors =
                    std::thread::available_parallelism().map_or(1, |count| count.get().min(MOST));
                for _ in 1..processors.min(waiting) {
                    let helper = std::thread::Builder::new().name("rdock-build-scan".to_owned());
                    // Without a thread more it only takes longer.
                    drop(helper.spawn_scoped(scope, || scan.take_part(&mut |_| {})));
                }
            }
        });
    });
    let work = scan.work.into_inner().unwrap_or_else(PoisonError::into_inner);
    match work.failed {
        Some(reason) => Err(reason),
        None => {
            gather(&work.found, 0, &mut Vec::new(), &mut Vec::new(), note);
            Ok(())
        }
    }
}

/// More threads wait for the same locks of the kernel.
const MOST: usize = 8;

impl Scan<'_> {
    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks into directories until there are none left. `more` is told how many wait.
    fn take_part(&self, more: &mut dyn FnMut(usize)) {
        // A view is one thread's own.
        let view = MergedView::open(std::slice::from_ref(&self.context.root));
        let mut headers = Headers::new(Some(self.context));
        while let Some(task) = self.take() {
            let busy = Busy(self);
            let listed = match &view {
                Ok(view) => self.list(view, &task, &mut headers),
                Err(error) => Err(error.to_string()),
            };
            let mut work = self.work();
            match listed {
                Err(reason) => work.failed = Some(reason),
                Ok((mut entries, tasks)) => {
                    let first = work.found.len();
                    for number in entries.iter_mut().filter_map(|entry| entry.below.as_mut()) {
                        *number += first;
                    }
                    work.found[task.number] = entries;
                    for mut task in tasks {
                        task.number += first;
                        work.found.push(Vec::new());
                        work.waiting.push(task);
                    }
                }
            }
            let waiting = work.waiting.len();
            drop(work);
            drop(busy);
            more(waiting);
        }
    }

    fn take(&self) -> Option<Task> {
        let mut work = self.work();
        loop {
            if work.failed.is_some() || (work.waiting.is_empty() && work.busy == 0) {
                return None;
            }
            if let Some(task) = work.waiting.pop() {
                work.busy += 1;
                return Some(task);
            }
            work = self.changed.wait(work).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The entries of a directory, and those of them to look into; both are numbered from 0.
    fn list(
        &self,
        view: &MergedView,
        task: &Task,
        headers: &mut Headers<'_>,
    ) -> Result<(Vec<Found>, Vec<Task>), String> {
        let failed = |error: rdock_image::Error| error.to_string();
        if task.depth > DEEPEST {
            return Err(too_deep(path(&task.full)));
        }
        let (mut entries, mut tasks) = (Vec::new(), Vec::new());
        // What the source names may be a link; what is below it is not followed.
        let Some(dir) = view.entry(path(&task.full), task.depth == 0).map_err(failed)? else {
            return Ok((entries, tasks));
        };
        let (mut full, mut relative) = (task.full.clone(), task.relative.clone());
        let ends = (full.len(), relative.len());
        for name in dir.names().map_err(failed)? {
            full.truncate(ends.0);
            relative.truncate(ends.1);
            let Some(info) = dir.child_info(&name).map_err(failed)? else {
                continue;
            };
            let is_dir = info.kind == FileKind::Dir;
            push(&mut full, &name);
            push(&mut relative, &name);
            let Judged {
                left_out,
                enter,
                below,
            } = self
                .filters
                .judge(path(&full), path(&relative), is_dir, &task.state);
            if !left_out || enter {
                let own = match headers.unchanged(&full, &info) {
                    Some(own) => own,
                    None => match dir.child(&name).map_err(failed)? {
                        Some(entry) => headers.of(&full, &entry)?,
                        // It went away since.
                        None => continue,
                    },
                };
                entries.push(Found {
                    name,
                    own,
                    left_out,
                    below: is_dir.then_some(tasks.len()),
                });
                if is_dir {
                    tasks.push(Task {
                        number: tasks.len(),
                        full: full.clone(),
                        relative: relative.clone(),
                        depth: task.depth + 1,
                        state: below,
                    });
                }
            }
        }
        Ok((entries, tasks))
    }
}

fn path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

/// Puts a name behind a path; returns where the path ended.
fn push(path: &mut Vec<u8>, name: &OsStr) -> usize {
    let end = path.len();
    if end > 0 {
        path.push(b'/');
    }
    path.extend_from_slice(name.as_bytes());
    end
}

/// A directory is looked into. Others are told when that ends, however it ends.
struct Busy<'a, 'b>(&'a Scan<'b>);

impl Drop for Busy<'_, '_> {
    fn drop(&mut self) {
        let mut work = self.0.work();
        work.busy -= 1;
        if std::thread::panicking() {
            work.failed = Some("looking at the files of the context failed".to_owned());
        }
        drop(work);
        self.0.changed.notify_all();
    }
}

/// Tells what was found in a directory and below it. `waiting` has the directories above that are left out so far.
fn gather(
    found: &[Vec<Found>],
    number: usize,
    path: &mut Vec<u8>,
    waiting: &mut Vec<(Vec<u8>, [u8; 32])>,
    note: &mut dyn FnMut(&[u8], [u8; 32]),
) {
    for entry in &found[number] {
        let end = push(path, &entry.name);
        match entry.left_out {
            true => waiting.push((path.clone(), entry.own)),
            false => {
                for (path, own) in waiting.drain(..) {
                    note(&path, own);
                }
                note(path, entry.own);
            }
        }
        if let Some(below) = entry.below {
            gather(found, below, path, waiting, note);
        }
        if entry.left_out {
            // Still waiting: nothing below came.
            waiting.retain(|(other, _)| other != path);
        }
        path.truncate(end);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Selected, SourceTree, StatCache, walk};
    use super::*;
    use crate::ignore::Patterns;
    use std::fs;

    /// Paths with their digests.
    type Told = Result<Vec<(String, [u8; 32])>, String>;

    /// What a scan and what a walk tells.
    fn both(root: &Path, top: &str, ignore: &str, exclude: &[&str]) -> [Told; 2] {
        let tree = SourceTree {
            view: MergedView::open(&[root.to_owned()]).unwrap(),
            ignore: Patterns::parse(".dockerignore", ignore).unwrap(),
            context: Some(ContextFiles {
                root: root.to_owned(),
                stats: StatCache::default(),
            }),
        };
        let context = tree.context.as_ref().unwrap();
        let exclude = Patterns::new(exclude).unwrap();
        let text = |path: &[u8]| String::from_utf8(path.to_vec()).unwrap();
        let mut scanned = Vec::new();
        let filters = Filters {
            ignore: &tree.ignore,
            exclude: &exclude,
        };
        let scanned = scan(context, filters, Path::new(top), &mut |path, own| {
            scanned.push((text(path), own));
        })
        .map(|()| scanned);
        let mut headers = Headers::new(Some(context));
        let mut walked = Vec::new();
        let selected = Selected {
            path: top.into(),
            entry: tree.view.entry(top, true).unwrap().unwrap(),
        };
        let walked = walk(&tree, &selected, &exclude, &mut |path, entry| {
            if !path.as_os_str().is_empty() {
                let whole = Path::new(top).join(path);
                let own = headers.of(whole.as_os_str().as_bytes(), entry)?;
                walked.push((text(path.as_os_str().as_bytes()), own));
            }
            Ok(())
        })
        .map(|()| walked);
        [scanned, walked]
    }

    #[test]
    fn a_scan_tells_what_a_walk_tells_in_its_order() {
        let dir = tempfile::tempdir().unwrap();
        for outer in ["a", "a.b", "b", "c", "empty"] {
            for inner in ["x/deep/er", "y", "z"] {
                let inner = dir.path().join("top").join(outer).join(inner);
                fs::create_dir_all(&inner).unwrap();
                if outer != "empty" {
                    for name in ["one", "two.txt", "three"] {
                        fs::write(inner.join(name), format!("{outer} {name}")).unwrap();
                    }
                }
            }
        }
        std::os::unix::fs::symlink("one", dir.path().join("top/a/y/link")).unwrap();
        std::os::unix::fs::symlink("top", dir.path().join("named")).unwrap();
        for (top, ignore, exclude) in [
            ("", "", &[][..]),
            ("top", "", &[]),
            ("named", "", &[]),
            ("top/a", "top/a/y\n", &["z"]),
            ("", "top\n!top/b/x/deep\n", &[]),
            (
                "top",
                "*/a\n!*/a/x/**/two.txt\n**/one\n",
                &["b", "!b/y/three", "**/er"],
            ),
            ("top", "**\n!**/nothing\n", &[]),
            ("top/a/y", "", &[]),
        ] {
            let [scanned, walked] = both(dir.path(), top, ignore, exclude);
            assert_eq!(scanned, walked, "{top} {ignore:?} {exclude:?}");
            let nothing = ignore.starts_with("**\n");
            assert_eq!(scanned.unwrap().is_empty(), nothing, "{top} {ignore:?}");
        }
    }

    #[test]
    fn directories_too_deep_are_an_error_for_all_who_look() {
        let dir = tempfile::tempdir().unwrap();
        for number in 0..20 {
            fs::create_dir(dir.path().join(number.to_string())).unwrap();
        }
        let mut deep = dir.path().join("7");
        for _ in 0..DEEPEST + 2 {
            deep.push("d");
        }
        fs::create_dir_all(deep).unwrap();
        let [scanned, walked] = both(dir.path(), "", "", &[]);
        assert!(
            scanned.clone().unwrap_err().contains("directories deep"),
            "{scanned:?}"
        );
        assert_eq!(scanned, walked);
    }
}
