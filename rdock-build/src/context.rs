//! The files that a build reads: a directory, or an archive that is unpacked where nothing of the host can be reached.
use crate::builder::{Builder, DockerfileAt, read_bounded};
use crate::error::{BuildError, Result};
use crate::exec::{ContextDir, Inputs};
use crate::ignore::Patterns;
use crate::named_context::NamedContext;
use rdock_image::{ImageStore, MergedView, ScratchLayer};
use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// Where the main context comes from.
#[derive(Clone)]
#[non_exhaustive]
pub enum Context {
    /// No files.
    Empty,
    /// A directory of the host.
    Directory(PathBuf),
    /// A tar, plain or compressed. It is read once.
    Archive(Arc<Mutex<dyn Read + Send>>),
    /// An http or https address: of a tar, plain or compressed, or of a Dockerfile that is built without files. It is
    /// downloaded by each build, through the proxies that ADD uses.
    Url(String),
}

impl Context {
    /// A tar that is read from a stream.
    pub fn archive(stream: impl Read + Send + 'static) -> Self {
        Self::Archive(Arc::new(Mutex::new(stream)))
    }
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Empty => f.write_str("Empty"),
            Self::Directory(path) => f.debug_tuple("Directory").field(path).finish(),
            Self::Archive(_) => f.write_str("Archive(..)"),
            Self::Url(url) => f.debug_tuple("Url").field(url).finish(),
        }
    }
}

/// Contexts that were opened, and the Dockerfile.
pub(crate) struct Opened {
    pub(crate) inputs: Inputs,
    pub(crate) dockerfile: Vec<u8>,
    pub(crate) dockerfile_name: String,
    /// Holds an unpacked archive.
    _scratch: Option<ScratchLayer>,
}

/// Larger ones are no Dockerfiles.
const LARGEST: u64 = 16 << 20;

/// Downloads from an address.
pub(crate) type Fetch<'a> = dyn Fn(&str) -> Result<File> + 'a;

/// The forms by which git repositories are named.
fn is_git(url: &str) -> bool {
    let path = url.split(['#', '?']).next().unwrap_or_default();
    let forms = ["git@", "git://", "ssh://", "github.com/"];
    forms.iter().any(|form| url.starts_with(form)) || path.ends_with(".git")
}

/// Unpacks an archive. All of it, or the build fails: a part of a context is none.
fn unpack(store: &ImageStore, stream: &mut dyn Read) -> Result<ScratchLayer> {
    let made = store.scratch_layer(&[])?;
    store.unpack_archive("the build context", stream, &made)?;
    Ok(made)
}

pub(crate) fn open(builder: &Builder, store: &ImageStore, fetch: &Fetch<'_>) -> Result<Opened> {
    let mut scratch = None;
    let mut downloaded = None;
    let dir = match &builder.context {
        Context::Empty => None,
        Context::Directory(path) => {
            let path =
                std::fs::canonicalize(path).map_err(BuildError::files("open the build context", path))?;
            if !path.is_dir() {
                let error = std::io::ErrorKind::NotADirectory.into();
                return Err(BuildError::files("open the build context", path)(error));
            }
            Some(path)
        }
        Context::Archive(stream) => {
            let mut stream = stream.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            scratch = Some(unpack(store, &mut *stream)?);
            None
        }
        Context::Url(url) if is_git(url) => {
            return Err(BuildError::Option {
                option: "context",
                reason: format!("{url} is a git source, which is not supported yet"),
            });
        }
        Context::Url(url) => {
            let mut file = fetch(url)?;
            let is_archive = store.is_archive(&mut file)?;
            file.rewind().map_err(BuildError::files("read", url))?;
            match is_archive {
                true => scratch = Some(unpack(store, &mut file)?),
                false => downloaded = Some(bounded(file, url)?),
            }
            None
        }
    };
    let lasting = dir.is_some();
    let dir = dir.or_else(|| scratch.as_ref().map(|scratch| scratch.upper().to_owned()));
    // Links of a context are followed inside it only.
    let view = match &dir {
        Some(dir) => Some(MergedView::open(std::slice::from_ref(dir))?),
        None => None,
    };
    let in_context = |name: &Path| -> Result<Option<Vec<u8>>> {
        let Some(view) = &view else { return Ok(None) };
        if view.metadata(name)?.is_none() {
            return Ok(None);
        }
        bounded(view.open_file(name)?, name).map(Some)
    };
    let missing = |path: &Path| BuildError::NoDockerfile {
        path: path.to_owned(),
    };
    let (dockerfile, name, ignore) = match &builder.dockerfile {
        DockerfileAt::Graph(..) => (Vec::new(), "the graph".to_owned(), None),
        DockerfileAt::Text(text) => (text.clone().into_bytes(), "Dockerfile".to_owned(), None),
        DockerfileAt::Default if downloaded.is_some() => {
            (downloaded.unwrap_or_default(), "Dockerfile".to_owned(), None)
        }
        DockerfileAt::Default => {
            let path = Path::new("Dockerfile");
            let bytes = in_context(path)?.ok_or_else(|| missing(path))?;
            (
                bytes,
                "Dockerfile".to_owned(),
                in_context(Path::new("Dockerfile.dockerignore"))?,
            )
        }
        DockerfileAt::File(path) => {
            let beside = PathBuf::from(format!("{}.dockerignore", path.display()));
            match File::open(path).and_then(|file| read_bounded(file, LARGEST)) {
                Ok(bytes) => {
                    let ignore = if_there(&beside)?;
                    (bytes, path.display().to_string(), ignore)
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    let bytes = in_context(path)?.ok_or_else(|| missing(path))?;
                    (bytes, path.display().to_string(), in_context(&beside)?)
                }
                Err(error) => return Err(BuildError::files("read", path)(error)),
            }
        }
    };
    let ignore = match ignore {
        Some(text) => Some((format!("{name}.dockerignore"), text)),
        None => in_context(Path::new(".dockerignore"))?.map(|text| (".dockerignore".to_owned(), text)),
    };
    let mut inputs = Inputs::default();
    if let Some(path) = dir {
        let ignore = match ignore {
            Some((file, text)) => patterns(&file, &text)?,
            None => Patterns::default(),
        };
        let context = ContextDir {
            path,
            ignore,
            lasting,
        };
        inputs.0.insert("".into(), context);
    }
    for (name, context) in &builder.contexts {
        if let NamedContext::Directory(path) = context {
            let path =
                std::fs::canonicalize(path).map_err(BuildError::files("open the build context", path))?;
            let ignore = match if_there(&path.join(".dockerignore"))? {
                Some(text) => patterns(".dockerignore", &text)?,
                None => Patterns::default(),
            };
            let context = ContextDir {
                path,
                ignore,
                lasting: true,
            };
            inputs.0.insert(name.as_str().into(), context);
        }
    }
    Ok(Opened {
        inputs,
        dockerfile,
        dockerfile_name: name,
        _scratch: scratch,
    })
}

/// Reads a file that people write.
fn bounded(file: File, name: impl Into<PathBuf>) -> Result<Vec<u8>> {
    read_bounded(file, LARGEST).map_err(BuildError::files("read", name))
}

/// A file that leaves others out: one that is there and cannot be read is an error, since those would be seen.
fn if_there(path: &Path) -> Result<Option<Vec<u8>>> {
    match File::open(path).and_then(|file| read_bounded(file, LARGEST)) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(BuildError::files("read", path)(error)),
    }
}

fn patterns(file: &str, text: &[u8]) -> Result<Patterns> {
    Patterns::parse(file, &String::from_utf8_lossy(text)).map_err(|error| BuildError::Option {
        option: ".dockerignore",
        reason: error.to_string(),
    })
}
