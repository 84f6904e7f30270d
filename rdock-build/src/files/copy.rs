//! COPY and ADD: the sources are put below the destination.
use super::select::clean;
use super::target::Attributes;
use super::{Selected, SourceTree, Target, select, walk};
use crate::chmod::Chmod;
use crate::graph::Unpack;
use crate::ignore::Patterns;
use rdock_image::{FileInfo, FileKind, ImageStore, MergedView};
use std::fs::File;
use std::io::Seek;
use std::path::{Path, PathBuf};

/// Why files cannot be copied.
#[derive(Clone, Debug)]
pub(crate) struct CopyFailure {
    pub(crate) reason: String,
    pub(crate) hint: Option<String>,
}

impl From<String> for CopyFailure {
    fn from(reason: String) -> Self {
        Self { reason, hint: None }
    }
}

/// How one instruction copies.
#[derive(Debug)]
pub(crate) struct Copying<'a> {
    pub(crate) store: &'a ImageStore,
    /// Absolute; a slash at its end makes it a directory.
    pub(crate) destination: &'a str,
    /// More than one source, so that the destination is a directory.
    pub(crate) several: bool,
    pub(crate) owner: Option<(u32, u32)>,
    pub(crate) chmod: Option<&'a Chmod>,
    pub(crate) parents: bool,
    pub(crate) exclude: &'a Patterns,
    pub(crate) unpack: Unpack,
    /// Time of what is made anew, in seconds since 1970.
    pub(crate) now: i64,
}

/// A source split at its pivot: what `--parents` keeps begins behind `/./`.
fn pivot(pattern: &str) -> (PathBuf, String) {
    match pattern.split_once("/./") {
        Some((before, after)) => (clean(before), format!("{}/{after}", clean(before).display())),
        None => (PathBuf::new(), pattern.to_owned()),
    }
}

/// Finds what a source of COPY names. An empty result is an error unless the pattern has wildcards.
pub(crate) fn find(
    tree: &SourceTree,
    pattern: &str,
    parents: bool,
) -> Result<Vec<(Selected, PathBuf)>, CopyFailure> {
    let (base, pattern_whole) = if parents {
        pivot(pattern)
    } else {
        (PathBuf::new(), pattern.to_owned())
    };
    let (selected, wildcard) = select(tree, &pattern_whole, parents)?;
    if selected.is_empty() && !wildcard {
        let path = clean(&pattern_whole);
        let exists = tree.view.metadata(&path).is_ok_and(|info| info.is_some());
        let hint = match (exists, tree.is_context()) {
            (true, true) => Some("the .dockerignore file leaves it out".to_owned()),
            (false, true) if !tree.ignore.is_empty() => {
                Some("paths are relative to the build context; see also .dockerignore".to_owned())
            }
            (false, true) => Some("paths are relative to the build context".to_owned()),
            _ => None,
        };
        return Err(CopyFailure {
            reason: format!("/{} not found", path.display()),
            hint,
        });
    }
    Ok(selected
        .into_iter()
        .map(|selected| (selected, base.clone()))
        .collect())
}

impl Copying<'_> {
    fn attributes(&self, tree: &SourceTree, info: &FileInfo) -> Attributes {
        let own = if tree.is_context() {
            (0, 0)
        } else {
            (info.uid, info.gid)
        };
        let mode = match self.chmod {
            Some(chmod) if info.kind != FileKind::Symlink => {
                chmod.apply(info.mode, info.kind == FileKind::Dir)
            }
            _ => info.mode,
        };
        Attributes {
            mode,
            owner: self.owner.unwrap_or(own),
            time: (info.mtime, info.mtime_nsec),
        }
    }

    /// What directories get that no source has.
    fn above(&self) -> Attributes {
        Attributes {
            // As BuildKit has it, a change of modes is for what is copied alone.
            mode: self
                .chmod
                .filter(|chmod| chmod.is_octal())
                .map_or(0o755, |chmod| chmod.apply(0o755, true)),
            owner: self.owner.unwrap_or((0, 0)),
            time: (self.now, 0),
        }
    }

    fn is_directory(&self, target: &Target, resolved: &Path) -> Result<bool, CopyFailure> {
        let named = self.several || self.destination.ends_with('/') || self.destination.ends_with("/.");
        Ok(named || target.kind(resolved)? == Some(FileKind::Dir))
    }

    /// Copies what one source names; `number` tells the sources apart.
    pub(crate) fn source(
        &self,
        target: &mut Target,
        tree: &SourceTree,
        pattern: &str,
        number: usize,
    ) -> Result<(), CopyFailure> {
        for (selected, base) in find(tree, pattern, self.parents)? {
            let destination = target.resolve(self.destination)?;
            if self.parents {
                let kept = selected
                    .path
                    .strip_prefix(&base)
                    .unwrap_or(&selected.path)
                    .to_owned();
                self.parent_directories(target, tree, &selected, &base, &destination)?;
                let at = destination.join(kept);
                if selected.entry.info().kind == FileKind::Dir {
                    let attributes = self.attributes(tree, &selected.entry.info());
                    target.directory(&at, &selected.entry, attributes)?;
                    self.tree(target, tree, &selected, &at, number)?;
                } else {
                    let attributes = self.attributes(tree, &selected.entry.info());
                    target.file(&at, &selected.entry, attributes, self.above(), number)?;
                }
                continue;
            }
            match selected.entry.info().kind {
                FileKind::Dir => {
                    self.make(target, &destination)?;
                    self.tree(target, tree, &selected, &destination, number)?;
                }
                FileKind::File if self.unpack != Unpack::Never && self.is_archive(&selected)? => {
                    let file = selected.entry.open().map_err(|error| error.to_string())?;
                    self.archive(
                        target,
                        file,
                        &selected.path.display().to_string(),
                        &destination,
                        number,
                    )?;
                }
                _ => {
                    if !self.exclude.is_empty() {
                        let name = selected.path.file_name().unwrap_or_default();
                        if self.exclude.excludes(&name.to_string_lossy()) {
                            continue;
                        }
                    }
                    let at = match self.is_directory(target, &destination)? {
                        true => destination.join(selected.path.file_name().unwrap_or_default()),
                        false => destination,
                    };
                    // A link at the last name of the destination has been followed, one that the name of the source
                    // leads to is replaced.
                    let attributes = self.attributes(tree, &selected.entry.info());
                    target.file(&at, &selected.entry, attributes, self.above(), number)?;
                }
            }
        }
        Ok(())
    }

    fn make(&self, target: &mut Target, path: &Path) -> Result<(), CopyFailure> {
        target.directories(path, self.above())?;
        Ok(())
    }

    /// The directories that `--parents` keeps, as the source has them.
    fn parent_directories(
        &self,
        target: &mut Target,
        tree: &SourceTree,
        selected: &Selected,
        base: &Path,
        destination: &Path,
    ) -> Result<(), CopyFailure> {
        self.make(target, destination)?;
        let kept = selected.path.strip_prefix(base).unwrap_or(&selected.path);
        let mut at = PathBuf::new();
        for part in kept.parent().unwrap_or(Path::new("")).iter() {
            at.push(part);
            let from = base.join(&at);
            let entry = tree.view.entry(&from, true).map_err(|error| error.to_string())?;
            let Some(entry) = entry else { continue };
            let attributes = self.attributes(tree, &entry.info());
            target.directory(&destination.join(&at), &entry, attributes)?;
        }
        Ok(())
    }

    /// Copies what is in a directory.
    fn tree(
        &self,
        target: &mut Target,
        tree: &SourceTree,
        selected: &Selected,
        destination: &Path,
        number: usize,
    ) -> Result<(), CopyFailure> {
        walk(tree, selected, self.exclude, &mut |relative, entry| {
            if relative.as_os_str().is_empty() {
                return Ok(());
            }
            let at = destination.join(relative);
            let attributes = self.attributes(tree, &entry.info());
            match entry.info().kind {
                FileKind::Dir => target.directory(&at, entry, attributes),
                _ => target.file(&at, entry, attributes, self.above(), number),
            }
        })?;
        Ok(())
    }

    fn is_archive(&self, selected: &Selected) -> Result<bool, CopyFailure> {
        let mut file = selected.entry.open().map_err(|error| error.to_string())?;
        Ok(self
            .store
            .is_archive(&mut file)
            .map_err(|error| error.to_string())?)
    }

    /// Unpacks an archive into the destination.
    pub(crate) fn archive(
        &self,
        target: &mut Target,
        mut file: File,
        name: &str,
        destination: &Path,
        number: usize,
    ) -> Result<(), CopyFailure> {
        file.rewind().map_err(|error| error.to_string())?;
        let failed = |error: rdock_image::Error| CopyFailure {
            reason: match std::error::Error::source(&error) {
                Some(source) => format!("{error}: {source}"),
                None => error.to_string(),
            },
            hint: None,
        };
        let scratch = self.store.scratch_layer(&[]).map_err(failed)?;
        self.store
            .unpack_archive(name, &mut file, &scratch)
            .map_err(failed)?;
        let view = MergedView::open(&[scratch.upper().to_owned()]).map_err(failed)?;
        let tree = SourceTree::layers(view);
        let entry = tree.view.entry("", false).map_err(failed)?;
        let Some(entry) = entry else { return Ok(()) };
        let selected = Selected {
            path: PathBuf::new(),
            entry,
        };
        self.make(target, destination)?;
        // What the archive has takes the place of what is there, only directories become one.
        target.over_directories = true;
        let walked = walk(&tree, &selected, self.exclude, &mut |relative, entry| {
            if relative.as_os_str().is_empty() {
                return Ok(());
            }
            let attributes = self.attributes(&tree, &entry.info());
            let at = destination.join(relative);
            match entry.info().kind {
                FileKind::Dir => target.replace_by_directory(&at, entry, attributes),
                _ => target.file(&at, entry, attributes, self.above(), number),
            }
        });
        target.over_directories = false;
        Ok(walked?)
    }

    /// Writes a file that the Dockerfile holds.
    pub(crate) fn inline(&self, target: &mut Target, name: &str, data: &str) -> Result<(), CopyFailure> {
        self.stream(target, name, &mut data.as_bytes(), 0o644, (self.now, 0))
    }

    /// Writes a file from a stream, which has the name `name` when the destination is a directory.
    pub(crate) fn stream(
        &self,
        target: &mut Target,
        name: &str,
        input: &mut dyn std::io::Read,
        mode: u32,
        time: (i64, u32),
    ) -> Result<(), CopyFailure> {
        let destination = target.resolve(self.destination)?;
        let at = match self.is_directory(target, &destination)? {
            true => {
                // A name is one part of a path, whatever it came from.
                let name = Path::new(name)
                    .file_name()
                    .ok_or_else(|| format!("{name:?} is no file name"))?;
                destination.join(name)
            }
            false => destination,
        };
        let attributes = Attributes {
            mode: self.chmod.map_or(mode, |chmod| chmod.apply(mode, false)),
            owner: self.owner.unwrap_or((0, 0)),
            time,
        };
        target.contents(&at, input, attributes, self.above())?;
        Ok(())
    }
}
