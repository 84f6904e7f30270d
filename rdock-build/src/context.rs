//! The files that a build reads: a directory, or an archive that is unpacked where nothing of the host can be reached.
use crate::builder::{Builder, DockerfileAt, read_bounded};
use crate::error::{BuildError, Result};
use crate::exec::{ContextDir, Inputs};
use crate::graph::NamedContext;
use crate::ignore::Patterns;
use rdock_image::{ImageStore, MergedView, ScratchLayer};
use std::io::Read;
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

pub(crate) fn open(builder: &Builder, store: &ImageStore) -> Result<Opened> {
    let mut scratch = None;
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
            let made = store.scratch_layer(&[])?;
            let mut stream = stream.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            // All of it, or the build fails: a part of a context is none.
            store.unpack_archive("the build context", &mut *stream, &made)?;
            let path = made.upper().to_owned();
            scratch = Some(made);
            Some(path)
        }
    };
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
        let mut bytes = Vec::new();
        view.open_file(name)?
            .take(LARGEST + 1)
            .read_to_end(&mut bytes)
            .map_err(BuildError::files("read", name))?;
        if bytes.len() as u64 > LARGEST {
            let error = std::io::Error::other(format!("it is larger than {LARGEST} bytes"));
            return Err(BuildError::files("read", name)(error));
        }
        Ok(Some(bytes))
    };
    let missing = |path: &Path| BuildError::NoDockerfile {
        path: path.to_owned(),
    };
    let (dockerfile, name, ignore) = match &builder.dockerfile {
        DockerfileAt::Graph(..) => (Vec::new(), "the graph".to_owned(), None),
        DockerfileAt::Text(text) => (text.clone().into_bytes(), "Dockerfile".to_owned(), None),
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
            match read_bounded(path, LARGEST) {
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
        inputs.0.insert("".into(), ContextDir { path, ignore });
    }
    for (name, context) in &builder.contexts {
        if let NamedContext::Directory(path) = context {
            let path =
                std::fs::canonicalize(path).map_err(BuildError::files("open the build context", path))?;
            let ignore = match if_there(&path.join(".dockerignore"))? {
                Some(text) => patterns(".dockerignore", &text)?,
                None => Patterns::default(),
            };
            inputs.0.insert(name.as_str().into(), ContextDir { path, ignore });
        }
    }
    Ok(Opened {
        inputs,
        dockerfile,
        dockerfile_name: name,
        _scratch: scratch,
    })
}

/// A file that leaves others out: one that is there and cannot be read is an error, since those would be seen.
fn if_there(path: &Path) -> Result<Option<Vec<u8>>> {
    match read_bounded(path, LARGEST) {
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
