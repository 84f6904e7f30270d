//! Copies between a container and this host.

use super::paths::{self, Written};
use super::read::{Owner, unpack};
use super::stream::{Archive, Cancel, PieceReader, pair};
use super::tree::{Item, Tree};
use super::view::View;
use super::{FilesError, write};
use crate::container::Container;
use crate::error::{Error, Result};
use crate::events::EventAction;
use crate::image::archive::decompressed;
use crate::launch::passwd;
use crate::runtime::blocking;
use rustix::fs::{FileType, Mode, OFlags};
use std::ffi::OsString;
use std::io::{BufReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use tokio::io::{AsyncRead, AsyncReadExt};

/// How files are copied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CopyOptions {
    /// A link that is copied itself otherwise: what it leads to (docker's `-L`). Links below it stay links.
    pub follow_link: bool,
    /// Into a container: files belong to the user that its image or spec names, where there is one. Out of it: they
    /// keep their owners, as far as the caller may give files away (docker's `-a`).
    ///
    /// Without it files in a container keep the numbers of their owners here, and files of this host belong to the
    /// caller, without set-id bits and device nodes.
    pub archive: bool,
}

impl CopyOptions {
    /// Sets [`Self::follow_link`].
    pub fn follow_link(mut self, follow_link: bool) -> Self {
        self.follow_link = follow_link;
        self
    }
    /// Sets [`Self::archive`].
    pub fn archive(mut self, archive: bool) -> Self {
        self.archive = archive;
        self
    }
}

/// What a copy did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Copied {
    /// Bytes of the tar stream that the files went through.
    pub bytes: u64,
}

/// One file of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileStat {
    /// Its last component; `/` for the root.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// Kind and permissions as in stat(2).
    pub mode: u32,
    /// Owner, as the container numbers it.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Seconds since 1970 and nanoseconds.
    pub modified: (i64, u32),
    /// Where a symbolic link leads, as it is written.
    pub link_target: Option<PathBuf>,
}

impl FileStat {
    fn of(side: &Tree<'_>, path: &Path, item: &Item) -> Result<Self, FilesError> {
        let stat = &item.stat;
        let (uid, gid) = side.ids.inside(stat.st_uid, stat.st_gid);
        let link_target = match item.kind() {
            FileType::Symlink => Some(PathBuf::from(OsString::from_vec(
                item.link().map_err(|errno| side.failure(path, errno))?,
            ))),
            _ => None,
        };
        Ok(Self {
            name: path.file_name().map_or_else(
                || "/".to_owned(),
                |name| String::from_utf8_lossy(name.as_bytes()).into_owned(),
            ),
            size: stat.st_size.cast_unsigned(),
            mode: stat.st_mode,
            uid,
            gid,
            modified: (stat.st_mtime, stat.st_mtime_nsec as u32),
            link_target,
        })
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        FileType::from_raw_mode(self.mode) == FileType::Directory
    }
}

/// Runs work that may take as long as it wants on a thread of its own.
pub(super) async fn apart<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let (tell, told) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .name("rdock-files".into())
        .spawn(move || {
            // A caller that is gone is told nothing.
            let _ = tell.send(work());
        })
        .map_err(Error::system("start a thread"))?;
    told.await
        .map_err(|_| Error::system("copy files")(std::io::Error::other("the thread ended early")))?
}

fn host_root() -> Result<OwnedFd, FilesError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open("/", flags, Mode::empty()).map_err(FilesError::errno("open", "/"))
}

/// As the caller meant it: relative to its working directory, its end kept.
fn absolute(path: &Path) -> Result<PathBuf, FilesError> {
    let ends = path.as_os_str().as_bytes();
    let mut whole = std::path::absolute(path)
        .map_err(FilesError::io("find", path))?
        .into_os_string();
    if ends == b"." || ends.ends_with(b"/.") {
        whole.push("/.");
    } else if ends.ends_with(b"/") {
        whole.push("/");
    }
    Ok(whole.into())
}

impl Container {
    /// Looks at one path of the container, running or not. A link is looked at itself, unless the path ends with a
    /// slash.
    ///
    /// # Errors
    /// [`FilesError::NoSuchPath`], and when the files cannot be opened.
    pub async fn stat(&self, path: impl AsRef<Path>) -> Result<FileStat> {
        let (this, path) = (self.clone(), path.as_ref().to_owned());
        blocking(move || {
            let view = View::open(&this, false)?;
            let side = Tree::container(view.as_fd(), this.name(), view.ids.clone());
            let written = Written::new(&path);
            let item = side.open(&written.path, written.directory)?;
            Ok(FileStat::of(&side, &written.path, &item)?)
        })
        .await
    }

    /// Returns a file or tree of the container as a tar stream, running or not. Its first member is named as the last
    /// component of the path; `path/.` names the contents alone. A link is archived itself, unless the path ends
    /// with a slash or the options follow it.
    ///
    /// # Errors
    /// [`FilesError::NoSuchPath`], and when the files cannot be opened.
    pub async fn archive(&self, path: impl AsRef<Path>, options: &CopyOptions) -> Result<Archive> {
        let (this, path, options) = (self.clone(), path.as_ref().to_owned(), *options);
        let archive = apart(move || {
            let view = View::open(&this, false)?;
            let side = Tree::container(view.as_fd(), this.name(), view.ids.clone());
            let source = paths::source(&side, &path, options.follow_link)?;
            let stat = FileStat::of(&side, &Written::new(&path).path, &source.item)?;
            let (mut writer, reader) = pair();
            std::thread::Builder::new()
                .name("rdock-files".into())
                .spawn(move || {
                    let ids = view.ids.clone();
                    let done = write::archive(
                        &source.item,
                        &source.name,
                        &ids,
                        &source.shown,
                        false,
                        &mut writer,
                    );
                    writer.end(done);
                    drop(view);
                })
                .map_err(Error::system("start a thread"))?;
            this.happened(EventAction::ArchivePath);
            Ok(Archive::new(reader, Some(stat)))
        });
        archive.await
    }

    /// Unpacks a tar stream (plain, gzip or zstd) into a directory of the container, running or not. Returns its
    /// length in bytes.
    ///
    /// # Errors
    /// [`FilesError::NotADirectory`]; [`FilesError::KindsDiffer`] where a directory would replace something else or
    /// the other way round; what was unpacked before an error stays.
    pub async fn extract(
        &self,
        path: impl AsRef<Path>,
        mut archive: impl AsyncRead + Unpin,
        options: &CopyOptions,
    ) -> Result<Copied> {
        let (this, path, options) = (self.clone(), path.as_ref().to_owned(), *options);
        let (mut writer, reader) = pair();
        let cancel = Cancel::default();
        let reader = reader.until(cancel.0.clone());
        let unpacked = apart(move || {
            let view = View::open(&this, false)?;
            let side = Tree::container(view.as_fd(), this.name(), view.ids.clone());
            let read = this.unpack_into(&side, &Written::new(&path).path, reader, options, true)?;
            this.happened(EventAction::ExtractToDir);
            Ok(Copied { bytes: read })
        });
        let given = async {
            loop {
                let mut piece = Vec::with_capacity(64 << 10);
                match archive.read_buf(&mut piece).await {
                    Ok(0) => return drop(writer),
                    Ok(_) if writer.give(piece).await => {}
                    Ok(_) => return,
                    Err(error) => return writer.fail(FilesError::io("read", "the archive")(error)).await,
                }
            }
        };
        let (unpacked, ()) = tokio::join!(unpacked, given);
        drop(cancel);
        unpacked
    }

    /// Copies a file or tree of the container to this host, as `docker cp CONTAINER:from to`.
    ///
    /// Where `to` is a directory the copy goes into it under its own name (`from/.` means the contents alone); where
    /// nothing is, `to` becomes the copy's name; a file replaces a file. Nothing of the container can lead the copy
    /// out of `to`.
    ///
    /// # Errors
    /// [`FilesError`]: what is missing, or in the way. What was copied before an error stays.
    pub async fn copy_from(
        &self,
        from: impl AsRef<Path>,
        to: impl AsRef<Path>,
        options: &CopyOptions,
    ) -> Result<Copied> {
        let (this, from, to, options) = (
            self.clone(),
            from.as_ref().to_owned(),
            absolute(to.as_ref())?,
            *options,
        );
        let cancel = Cancel::default();
        let cancelled = cancel.0.clone();
        let copied = apart(move || {
            let view = View::open(&this, false)?;
            let side = Tree::container(view.as_fd(), this.name(), view.ids.clone());
            let host = host_root()?;
            let here = Tree::local(host.as_fd());
            let source = paths::source(&side, &from, options.follow_link)?;
            let goes = paths::destination(&here, &to, &source.name, source.item.is_dir())?;
            let into = here.open(&goes.directory, true)?.fd;
            let owner = match options.archive {
                true => Owner::Archive,
                false => Owner::Caller,
            };
            let ids = view.ids.clone();
            let bytes = piped(
                |mut writer| {
                    let done =
                        write::archive(&source.item, &goes.name, &ids, &source.shown, true, &mut writer);
                    writer.end(done);
                },
                |reader| {
                    let mut reader = BufReader::with_capacity(128 << 10, reader.until(cancelled));
                    unpack(&mut reader, &here, &goes.directory, into, owner)?;
                    Ok(reader.into_inner().read)
                },
            )?;
            this.happened(EventAction::ArchivePath);
            Ok(Copied { bytes })
        })
        .await;
        drop(cancel);
        copied
    }

    /// Copies a file or tree of this host into the container, running or not, as `docker cp from CONTAINER:to`.
    /// Paths as in [`Self::copy_from`].
    ///
    /// # Errors
    /// [`FilesError`]: what is missing, or in the way. What was copied before an error stays.
    pub async fn copy_to(
        &self,
        from: impl AsRef<Path>,
        to: impl AsRef<Path>,
        options: &CopyOptions,
    ) -> Result<Copied> {
        let (this, from, to, options) = (
            self.clone(),
            absolute(from.as_ref())?,
            to.as_ref().to_owned(),
            *options,
        );
        let cancel = Cancel::default();
        let cancelled = cancel.0.clone();
        let copied = apart(move || {
            let host = host_root()?;
            let here = Tree::local(host.as_fd());
            let source = paths::source(&here, &from, options.follow_link)?;
            let view = View::open(&this, false)?;
            let side = Tree::container(view.as_fd(), this.name(), view.ids.clone());
            let goes = paths::destination(&side, &to, &source.name, source.item.is_dir())?;
            let bytes = piped(
                |mut writer| {
                    let done = write::archive(
                        &source.item,
                        &goes.name,
                        &here.ids,
                        &source.shown,
                        true,
                        &mut writer,
                    );
                    writer.end(done);
                },
                |reader| this.unpack_into(&side, &goes.directory, reader.until(cancelled), options, false),
            )?;
            this.happened(EventAction::ExtractToDir);
            Ok(Copied { bytes })
        })
        .await;
        drop(cancel);
        copied
    }

    fn unpack_into(
        &self,
        side: &Tree<'_>,
        path: &Path,
        mut reader: PieceReader,
        options: CopyOptions,
        foreign: bool,
    ) -> Result<u64> {
        let into = side.open(path, true)?;
        if !into.is_dir() {
            return Err(FilesError::NotADirectory {
                path: side.shown(path).display().to_string(),
            }
            .into());
        }
        // Mounted for this copy alone, the root could be written; in the container it cannot.
        let root = side.open(Path::new("/"), true)?;
        if self.record().spec.read_only && into.stat.st_dev == root.stat.st_dev {
            return Err(FilesError::errno("write to", side.shown(path))(rustix::io::Errno::ROFS).into());
        }
        let owner = match options.archive {
            true => self.user(side)?,
            false => Owner::Archive,
        };
        if foreign {
            let unpacked = decompressed(&mut reader, |archive| unpack(archive, side, path, into.fd, owner));
            unpacked.map_err(FilesError::io("read", "the archive"))??;
            // An archive ends before its stream does.
            std::io::copy(&mut reader, &mut std::io::sink())
                .map_err(FilesError::io("read", "the archive"))?;
            return Ok(reader.read);
        }
        let mut reader = BufReader::with_capacity(128 << 10, reader);
        unpack(&mut reader, side, path, into.fd, owner)?;
        Ok(reader.into_inner().read)
    }

    /// Who the payload runs as, by the container's own files, read as data.
    fn user(&self, side: &Tree<'_>) -> Result<Owner> {
        let record = self.record();
        let of_image = || -> Result<Option<String>> {
            let image = self.runtime().images().get(&record.image_id)?;
            Ok(image.map(|image| image.config().config.user.clone()))
        };
        let user = match &record.spec.user {
            Some(user) => Some(user.clone()),
            None => of_image()?,
        };
        let Some(user) = user.filter(|user| !user.is_empty()) else {
            return Ok(Owner::Archive);
        };
        let (passwd, group) = (small(side, "/etc/passwd")?, small(side, "/etc/group")?);
        match passwd::resolve(user.as_bytes(), std::iter::empty(), &passwd, &group) {
            Ok(found) => Ok(Owner::User(found.uid, found.gid)),
            Err(unknown) => Err(FilesError::NoFiles {
                container: record.name.clone(),
                reason: format!(
                    "it has no user or group {:?}",
                    String::from_utf8_lossy(unknown.name())
                ),
            }
            .into()),
        }
    }

    pub(super) fn happened(&self, action: EventAction) {
        self.runtime().journal().container(self.record(), action, &[]);
    }
}

/// A passwd or group file: a regular one of at most 1 MiB, or nothing.
fn small(side: &Tree<'_>, path: &str) -> Result<Vec<u8>, FilesError> {
    const LARGEST: u64 = 1 << 20;
    let path = Path::new(path);
    let item = match side.find(path, true) {
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(Vec::new()),
        other => other.map_err(|errno| side.failure(path, errno))?,
    };
    let unfit = |errno| FilesError::errno("read", side.shown(path))(errno);
    if item.kind() != FileType::RegularFile {
        return Err(unfit(rustix::io::Errno::INVAL));
    }
    let open = item.reopen(OFlags::RDONLY).map_err(unfit)?;
    let mut bytes = Vec::new();
    let read = std::fs::File::from(open)
        .take(LARGEST + 1)
        .read_to_end(&mut bytes);
    read.map_err(FilesError::io("read", side.shown(path)))?;
    if bytes.len() as u64 > LARGEST {
        return Err(unfit(rustix::io::Errno::FBIG));
    }
    Ok(bytes)
}

/// Runs both ends of an archive at once.
fn piped(
    write: impl FnOnce(super::stream::PieceWriter) + Send,
    read: impl FnOnce(PieceReader) -> Result<u64>,
) -> Result<u64> {
    let (writer, reader) = pair();
    std::thread::scope(|scope| {
        scope.spawn(move || write(writer));
        read(reader)
    })
}
