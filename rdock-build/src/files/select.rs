//! Which files a source of COPY names, and a walk over them that leaves out what is excluded.
use super::SourceTree;
use crate::ignore::{Glob, Matched, Patterns};
use rdock_image::{FileKind, ViewEntry};
use std::path::{Path, PathBuf};

/// A file or directory that a source names.
#[derive(Clone, Debug)]
pub(crate) struct Selected {
    /// The path as the source names it, relative to the tree, cleaned.
    pub(crate) path: PathBuf,
    pub(crate) entry: ViewEntry,
}

type Result<T> = std::result::Result<T, rdock_image::Error>;

/// Makes a path relative and free of `.` and `..`, which cannot leave the root.
pub(crate) fn clean(path: &str) -> PathBuf {
    let mut cleaned = PathBuf::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                cleaned.pop();
            }
            part => cleaned.push(part),
        }
    }
    cleaned
}

/// Returns what `pattern` names: one path, or all that match. The named ones are followed where they are symlinks. Empty
/// when there is none; the flag says whether the pattern has wildcards.
pub(crate) fn select(
    tree: &SourceTree,
    pattern: &str,
    deep: bool,
) -> std::result::Result<(Vec<Selected>, bool), String> {
    let failed = |error: rdock_image::Error| error.to_string();
    let wrong = |reason: &'static str| format!("invalid pattern {pattern:?}: {reason}");
    let cleaned = clean(pattern);
    let mut found: Vec<PathBuf> = vec![PathBuf::new()];
    let mut wildcard = false;
    let parts: Vec<String> = cleaned
        .iter()
        .map(|part| part.to_string_lossy().into_owned())
        .collect();
    for part in &parts {
        if deep && part == "**" {
            wildcard = true;
            let mut all = Vec::new();
            for at in &found {
                below(tree, at, &mut all).map_err(failed)?;
            }
            found.extend(all);
            found.sort();
            found.dedup();
            continue;
        }
        let glob = Glob::path(part).map_err(wrong)?;
        if !glob.is_wildcard() {
            let name = unescape(part);
            found.iter_mut().for_each(|at| at.push(&name));
            continue;
        }
        wildcard = true;
        let mut next = Vec::new();
        for at in &found {
            let Some(entry) = tree.view.entry(at, true).map_err(failed)? else {
                continue;
            };
            for name in entry.names().map_err(failed)? {
                if name.to_str().is_some_and(|name| glob.matches(name))
                    && entry.child(&name).map_err(failed)?.is_some()
                {
                    next.push(at.join(name));
                }
            }
        }
        found = next;
    }
    let mut selected = Vec::new();
    for path in found {
        let Some(entry) = tree.view.entry(&path, true).map_err(failed)? else {
            continue;
        };
        if is_seen(&tree.ignore, &path, entry.info().kind == FileKind::Dir) {
            selected.push(Selected { path, entry });
        }
    }
    Ok((selected, wildcard))
}

fn unescape(part: &str) -> String {
    let mut text = String::new();
    let mut chars = part.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => text.extend(chars.next()),
            c => text.push(c),
        }
    }
    text
}

/// All paths below a directory.
fn below(tree: &SourceTree, at: &Path, all: &mut Vec<PathBuf>) -> Result<()> {
    let Some(entry) = tree.view.entry(at, false)? else {
        return Ok(());
    };
    for name in entry.names()? {
        let path = at.join(&name);
        if let Some(child) = entry.child(&name)?
            && is_seen(&tree.ignore, &path, child.info().kind == FileKind::Dir)
        {
            if child.info().kind == FileKind::Dir {
                below(tree, &path, all)?;
            }
            all.push(path);
        }
    }
    Ok(())
}

/// Says whether a build sees a path of its context, or something below it.
fn is_seen(ignore: &Patterns, path: &Path, is_dir: bool) -> bool {
    if ignore.is_empty() || path.as_os_str().is_empty() {
        return true;
    }
    let text = path.to_string_lossy();
    !ignore.excludes(&text) || (is_dir && ignore.may_include_below(&text))
}

/// How patterns stand to a directory.
#[derive(Clone, Default)]
pub(super) struct State {
    ignored: Matched,
    excluded: Matched,
}

impl State {
    /// Of the directory that a walk begins with.
    pub(super) fn of(ignore: &Patterns, top: &Path) -> Self {
        let mut state = Self::default();
        let mut at = String::new();
        for part in top {
            if !at.is_empty() {
                at.push('/');
            }
            at.push_str(&part.to_string_lossy());
            state.ignored = ignore.decide(&at, &state.ignored).matched;
        }
        state
    }
}

/// What becomes of an entry.
pub(super) struct Judged {
    pub(super) left_out: bool,
    /// Is it a directory in which something may be left?
    pub(super) enter: bool,
    /// Of its entries.
    pub(super) below: State,
}

/// What the context leaves out and what one COPY excludes.
#[derive(Clone, Copy)]
pub(super) struct Filters<'a> {
    pub(super) ignore: &'a Patterns,
    pub(super) exclude: &'a Patterns,
}

impl Filters<'_> {
    /// Decides about the entry at `full` of the tree, `relative` to the top of the walk.
    pub(super) fn judge(&self, full: &Path, relative: &Path, is_dir: bool, parent: &State) -> Judged {
        let mut judged = Judged {
            left_out: false,
            enter: is_dir,
            below: State::default(),
        };
        let below = &mut judged.below;
        for (patterns, path, parent, matched) in [
            (self.ignore, full, &parent.ignored, &mut below.ignored),
            (self.exclude, relative, &parent.excluded, &mut below.excluded),
        ] {
            if patterns.is_empty() {
                continue;
            }
            let text = path.to_string_lossy();
            let decision = patterns.decide(&text, parent);
            judged.left_out |= decision.excluded;
            judged.enter &= !decision.excluded || patterns.may_include_below(&text);
            *matched = decision.matched;
        }
        judged
    }
}

/// More directories in each other than this are a mistake.
pub(super) const DEEPEST: usize = 400;

/// What is said of them.
pub(super) fn too_deep(path: &Path) -> String {
    format!("{} is more than {DEEPEST} directories deep", path.display())
}

/// Calls `visit` for everything below `top`, directories before what is in them, names in order; the path is relative to
/// `top`, which itself comes first with an empty path. A directory of which nothing is left does not come.
pub(crate) fn walk(
    tree: &SourceTree,
    top: &Selected,
    exclude: &Patterns,
    visit: &mut dyn FnMut(&Path, &ViewEntry) -> std::result::Result<(), String>,
) -> std::result::Result<(), String> {
    let state = State::of(&tree.ignore, &top.path);
    let mut walker = Walker {
        filters: Filters {
            ignore: &tree.ignore,
            exclude,
        },
        visit,
        waiting: Vec::new(),
        depth: 0,
        relative: PathBuf::new(),
        full: top.path.clone(),
    };
    (walker.visit)(Path::new(""), &top.entry)?;
    walker.directory(&top.entry, &state)
}

struct Walker<'a> {
    filters: Filters<'a>,
    visit: &'a mut dyn FnMut(&Path, &ViewEntry) -> std::result::Result<(), String>,
    /// Directories that are left out themselves and come only with something below them.
    waiting: Vec<(PathBuf, ViewEntry)>,
    depth: usize,
    /// Where the walk is, below its top and below the root of the tree.
    relative: PathBuf,
    full: PathBuf,
}

impl Walker<'_> {
    fn directory(&mut self, dir: &ViewEntry, state: &State) -> std::result::Result<(), String> {
        let failed = |error: rdock_image::Error| error.to_string();
        if self.depth > DEEPEST {
            return Err(too_deep(&self.full));
        }
        for name in dir.names().map_err(failed)? {
            let Some(entry) = dir.child(&name).map_err(failed)? else {
                continue;
            };
            self.relative.push(&name);
            self.full.push(&name);
            self.entry(&entry, state)?;
            self.relative.pop();
            self.full.pop();
        }
        Ok(())
    }

    fn entry(&mut self, entry: &ViewEntry, state: &State) -> std::result::Result<(), String> {
        let is_dir = entry.info().kind == FileKind::Dir;
        let Judged {
            left_out,
            enter,
            below,
        } = self.filters.judge(&self.full, &self.relative, is_dir, state);
        if left_out && !enter {
            return Ok(());
        }
        if left_out {
            self.waiting.push((self.relative.clone(), entry.clone()));
        } else {
            for (path, entry) in std::mem::take(&mut self.waiting) {
                (self.visit)(&path, &entry)?;
            }
            (self.visit)(&self.relative, entry)?;
        }
        if is_dir {
            self.depth += 1;
            self.directory(entry, &below)?;
            self.depth -= 1;
        }
        if left_out {
            // Still waiting: nothing below came.
            self.waiting.retain(|(path, _)| *path != self.relative);
        }
        Ok(())
    }
}
