//! What becomes of a build's result.
use crate::error::{BuildError, Result};
use crate::files::{Copying, SourceTree, Target};
use crate::graph::Unpack;
use crate::ignore::Patterns;
use rdock_image::{BoxError, Digest, ExportOptions, FileKind, Image, ImageStore, Reference};
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// Where a build's result goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Output {
    /// Into the image store, under its tags.
    #[default]
    Store,
    /// An archive that docker loads, which is an OCI image layout too; `-` is standard output.
    DockerArchive(PathBuf),
    /// A tar of an OCI image layout; `-` is standard output.
    OciArchive(PathBuf),
    /// The files, into a directory of the host; what is there already stays, or is replaced by files of the same name.
    Directory(PathBuf),
    /// The files as a tar; `-` is standard output.
    Tar(PathBuf),
    /// Nowhere: the build only fills the cache.
    Nothing,
}

impl Output {
    /// Reads docker's `--output`: `type=local,dest=DIR`, `type=tar,dest=FILE`, `type=oci|docker|image`, or a directory;
    /// `-` is a tar on standard output.
    ///
    /// # Errors
    /// [`BuildError::Option`].
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = |reason: String| BuildError::Option {
            option: "output",
            reason,
        };
        if text == "-" {
            return Ok(Self::Tar("-".into()));
        }
        if !text.contains('=') {
            return match text {
                "" => Err(wrong("is empty".to_owned())),
                path => Ok(Self::Directory(path.into())),
            };
        }
        let (mut kind, mut dest) = (None, None);
        for field in text.split(',') {
            match field.split_once('=') {
                Some(("type", value)) => kind = Some(value.to_owned()),
                Some(("dest" | "destination", value)) => dest = Some(PathBuf::from(value)),
                _ => return Err(wrong(format!("has no key {field:?}: there are type and dest"))),
            }
        }
        let kind = kind.ok_or_else(|| wrong("needs a type".to_owned()))?;
        let file = |dest: Option<PathBuf>| dest.unwrap_or_else(|| "-".into());
        match kind.as_str() {
            "local" => Ok(Self::Directory(
                dest.ok_or_else(|| wrong("of type local needs dest".to_owned()))?,
            )),
            "tar" => Ok(Self::Tar(file(dest))),
            "oci" => Ok(Self::OciArchive(file(dest))),
            "docker" if dest.is_some() => Ok(Self::DockerArchive(file(dest))),
            "docker" | "image" => Ok(Self::Store),
            "cacheonly" => Ok(Self::Nothing),
            other => Err(wrong(format!(
                "knows no type {other:?}: local, tar, oci, docker, image, cacheonly"
            ))),
        }
    }
}

fn failed(what: &Path) -> impl Fn(BoxError) -> BuildError + '_ {
    move |source| BuildError::Output {
        what: what.display().to_string(),
        source,
    }
}

/// Opens a file of the output. It appears complete; a device or a pipe that is there is written to.
fn write(path: &Path, work: impl FnOnce(&mut dyn Write) -> std::result::Result<(), BoxError>) -> Result<()> {
    let failed = failed(path);
    if path == Path::new("-") {
        let mut out = BufWriter::with_capacity(256 << 10, std::io::stdout().lock());
        work(&mut out).map_err(&failed)?;
        return out.flush().map_err(|error| failed(error.into()));
    }
    if std::fs::metadata(path).is_ok_and(|there| !there.is_file() && !there.is_dir()) {
        let written = (|| {
            let there = File::options().write(true).open(path)?;
            let mut out = BufWriter::with_capacity(256 << 10, there);
            work(&mut out)?;
            Ok(out.flush()?)
        })();
        return written.map_err(failed);
    }
    let scratch = path.with_file_name(format!(
        ".{}.{}",
        path.file_name().unwrap_or_default().to_string_lossy(),
        crate::cache::random_name()?
    ));
    let written = (|| {
        let mut out = BufWriter::with_capacity(256 << 10, File::create(&scratch)?);
        work(&mut out)?;
        out.flush()?;
        std::fs::rename(&scratch, path)?;
        Ok(())
    })();
    written.map_err(|error| {
        let _ = std::fs::remove_file(&scratch);
        failed(error)
    })
}

/// Writes an image as an archive.
pub(crate) fn archive(
    store: &ImageStore,
    image: &Image,
    names: &[Reference],
    oci: bool,
    path: &Path,
) -> Result<()> {
    let options = ExportOptions::default().oci_only(oci);
    write(path, |out| {
        store.export(&[(image.clone(), names.to_vec())], &options, out)?;
        Ok(())
    })
}

/// Writes the files of a stack into a directory.
pub(crate) fn directory(store: &ImageStore, stack: &[Digest], path: &Path) -> Result<()> {
    let failed = failed(path);
    std::fs::create_dir_all(path).map_err(|error| failed(error.into()))?;
    let tree = SourceTree::layers(store.view_layers(stack)?);
    let none = Patterns::default();
    let owner = (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    let mut target = Target::new(path, &[]).map_err(|reason| failed(reason.into()))?;
    let copying = Copying {
        store,
        destination: "/",
        several: false,
        // They belong to whoever builds.
        owner: Some(owner),
        chmod: None,
        parents: false,
        exclude: &none,
        unpack: Unpack::Never,
        now: 0,
    };
    copying
        .source(&mut target, &tree, "/", 0)
        .map_err(|failure| failed(failure.reason.into()))?;
    target.close().map_err(|reason| failed(reason.into()))
}

/// Writes the files of a stack as one tar.
pub(crate) fn tar(store: &ImageStore, stack: &[Digest], path: &Path) -> Result<()> {
    let tree = SourceTree::layers(store.view_layers(stack)?);
    write(path, |out| {
        let mut tar = tar::Builder::new(out);
        let mut links: HashMap<(u64, u64), PathBuf> = HashMap::new();
        let Some(entry) = tree.view.entry("", false)? else {
            return Ok(tar.finish()?);
        };
        let top = crate::files::Selected {
            path: PathBuf::new(),
            entry,
        };
        crate::files::walk(&tree, &top, &Patterns::default(), &mut |relative, entry| {
            if relative.as_os_str().is_empty() {
                return Ok(());
            }
            append(&mut tar, relative, entry, &mut links).map_err(|error| error.to_string())
        })?;
        Ok(tar.finish()?)
    })
}

fn append<W: Write>(
    tar: &mut tar::Builder<W>,
    path: &Path,
    entry: &rdock_image::ViewEntry,
    links: &mut HashMap<(u64, u64), PathBuf>,
) -> std::result::Result<(), BoxError> {
    let info = entry.info();
    let mut header = tar::Header::new_gnu();
    header.set_mode(info.mode);
    header.set_uid(info.uid.into());
    header.set_gid(info.gid.into());
    header.set_mtime(info.mtime.max(0).cast_unsigned());
    header.set_size(0);
    match info.kind {
        FileKind::Dir => {
            header.set_entry_type(tar::EntryType::Directory);
            tar.append_data(&mut header, path.join(""), std::io::empty())?;
        }
        FileKind::Symlink => {
            header.set_entry_type(tar::EntryType::Symlink);
            tar.append_link(&mut header, path, PathBuf::from(entry.read_link()?))?;
        }
        FileKind::File => {
            if info.links > 1 {
                if let Some(first) = links.get(&info.inode) {
                    header.set_entry_type(tar::EntryType::Link);
                    tar.append_link(&mut header, path, first)?;
                    return Ok(());
                }
                links.insert(info.inode, path.to_owned());
            }
            header.set_entry_type(tar::EntryType::Regular);
            header.set_size(info.size);
            tar.append_data(&mut header, path, entry.open()?)?;
        }
        _ => {
            let kind = match info.raw_mode & 0o170_000 {
                0o020_000 => tar::EntryType::Char,
                0o060_000 => tar::EntryType::Block,
                0o010_000 => tar::EntryType::Fifo,
                _ => return Ok(()),
            };
            header.set_entry_type(kind);
            header.set_device_major(info.device.0)?;
            header.set_device_minor(info.device.1)?;
            tar.append_data(&mut header, path, std::io::empty())?;
        }
    }
    Ok(())
}
