//! The specification files of a host.
//!
//! Of two directories that describe the same device the later one counts; two files of one directory that do are a
//! conflict, and nobody can have the device.

use super::CdiError;
use super::file::{DeviceEntry, SpecFile};
use crate::spec::CdiDevice;
use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Where these files are unless a container says otherwise.
const DIRECTORIES: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];

/// Bytes of one file; that of a host with many GPUs has some hundred thousand.
const LARGEST: u64 = 4 << 20;

/// Files that are read of one directory.
const MOST: usize = 1024;

/// Everything that the files of a host describe.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    directories: Vec<PathBuf>,
    files: Vec<Found>,
    /// Files that cannot be used.
    broken: Vec<CdiError>,
}

/// A file that can be used.
#[derive(Debug)]
struct Found {
    path: PathBuf,
    /// The number of its directory.
    priority: usize,
    spec: SpecFile,
}

/// A described device, with what is common to all of its file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Described<'a> {
    pub(crate) path: &'a Path,
    pub(crate) spec: &'a SpecFile,
    pub(crate) device: &'a DeviceEntry,
}

impl Registry {
    /// Reads every file. One that cannot be read or used is not an error here: it is one for a container that wants a
    /// device which no other file describes.
    pub(crate) fn read(directories: &[PathBuf]) -> Self {
        let mut registry = Self {
            directories: match directories {
                [] => DIRECTORIES.iter().map(PathBuf::from).collect(),
                own => own.to_vec(),
            },
            ..Self::default()
        };
        for (priority, directory) in registry.directories.clone().iter().enumerate() {
            for path in registry.list(directory) {
                match read(&path).and_then(|text| SpecFile::parse(&path, &text)) {
                    Ok(spec) => registry.files.push(Found { path, priority, spec }),
                    Err(error) => registry.broken.push(error),
                }
            }
        }
        registry
    }

    /// The files of a directory, by name. A missing directory has none.
    fn list(&mut self, directory: &Path) -> Vec<PathBuf> {
        let is_spec = |path: &PathBuf| {
            path.extension()
                .is_some_and(|extension| extension == "json" || extension == "yaml")
        };
        let entries = match std::fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) => {
                let absent = [std::io::ErrorKind::NotFound, std::io::ErrorKind::NotADirectory];
                if !absent.contains(&error.kind()) {
                    self.broken.push(unreadable(directory, error.to_string()));
                }
                return Vec::new();
            }
        };
        let mut paths: Vec<PathBuf> = entries
            .flatten()
            .map(|entry| entry.path())
            .filter(is_spec)
            .collect();
        paths.sort();
        if paths.len() > MOST {
            let reason = format!("there are {} files; {MOST} are read", paths.len());
            self.broken.push(unreadable(directory, reason));
            paths.truncate(MOST);
        }
        paths
    }

    /// Whether any device of the kind is described.
    pub(crate) fn has_kind(&self, kind: &str) -> bool {
        self.files.iter().any(|file| file.spec.kind == kind)
    }

    /// The names of a kind's devices, each once.
    pub(crate) fn names(&self, kind: &str) -> Vec<String> {
        let mut names: Vec<String> = self
            .files
            .iter()
            .filter(|file| file.spec.kind == kind)
            .flat_map(|file| file.spec.devices.iter().map(|device| device.name.clone()))
            .collect();
        names.sort();
        names.dedup();
        names
    }

    /// What is said of a device.
    ///
    /// # Errors
    /// [`CdiError::NoSuchDevice`], and [`CdiError::Conflict`] when two files of the same directory describe it.
    pub(crate) fn find(&self, wanted: &CdiDevice) -> Result<Described<'_>, CdiError> {
        let kind = wanted.kind();
        let mut found: Vec<(usize, Described<'_>)> = Vec::new();
        for file in self.files.iter().filter(|file| file.spec.kind == kind) {
            let device = file
                .spec
                .devices
                .iter()
                .find(|device| device.name == wanted.name());
            if let Some(device) = device {
                let described = Described {
                    path: &file.path,
                    spec: &file.spec,
                    device,
                };
                found.push((file.priority, described));
            }
        }
        let Some(highest) = found.iter().map(|(priority, _)| *priority).max() else {
            return Err(CdiError::NoSuchDevice {
                device: wanted.clone(),
                directories: self.directories.clone(),
                known: self.names(kind),
                broken: self.broken.iter().map(ToString::to_string).collect(),
            });
        };
        found.retain(|(priority, _)| *priority == highest);
        match found[..] {
            [(_, described)] => Ok(described),
            _ => Err(CdiError::Conflict {
                device: wanted.clone(),
                files: found
                    .iter()
                    .map(|(_, described)| described.path.to_owned())
                    .collect(),
            }),
        }
    }
}

fn unreadable(path: &Path, reason: String) -> CdiError {
    CdiError::File {
        path: path.to_owned(),
        place: None,
        reason,
    }
}

/// A regular file of a bounded size; nothing that could hold this program up is opened for long.
fn read(path: &Path) -> Result<String, CdiError> {
    let error = |reason: String| unreadable(path, reason);
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| error(errno.to_string()))?;
    let file = File::from(file);
    let meta = file.metadata().map_err(|cause| error(cause.to_string()))?;
    if !meta.is_file() {
        return Err(error("it is not a regular file".into()));
    }
    let mut bytes = Vec::new();
    file.take(LARGEST + 1)
        .read_to_end(&mut bytes)
        .map_err(|cause| error(cause.to_string()))?;
    if bytes.len() as u64 > LARGEST {
        return Err(error(format!("it has more than {} MiB", LARGEST >> 20)));
    }
    String::from_utf8(bytes).map_err(|_| error("it is not UTF-8".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(kind: &str, name: &str, variable: &str) -> String {
        format!(
            "cdiVersion: 0.6.0\nkind: {kind}\ndevices: [{{name: \"{name}\", containerEdits: {{env: [{variable}]}}}}]\n"
        )
    }

    fn env<'a>(described: &Described<'a>) -> &'a [String] {
        &described.device.container_edits.env
    }

    #[test]
    fn a_later_directory_counts_and_two_files_of_one_are_a_conflict() {
        let (low, high) = (
            tempfile::tempdir().expect("dir"),
            tempfile::tempdir().expect("dir"),
        );
        let write = |dir: &tempfile::TempDir, name: &str, text: &str| {
            std::fs::write(dir.path().join(name), text).expect("write");
        };
        write(&low, "a.yaml", &spec("v.com/c", "x", "FROM=low"));
        write(&low, "b.yaml", &spec("v.com/c", "y", "FROM=low"));
        write(&high, "c.yaml", &spec("v.com/c", "x", "FROM=high"));
        write(&high, "ignored.yml", "not read");
        let directories = [low.path().to_owned(), high.path().to_owned(), "/no/where".into()];
        let registry = Registry::read(&directories);
        assert!(registry.broken.is_empty(), "{:?}", registry.broken);
        let find = |registry: &Registry, name: &str| {
            let device = CdiDevice::parse(name).expect("name");
            registry.find(&device).map(|found| env(&found).to_vec())
        };
        assert_eq!(find(&registry, "v.com/c=x").expect("x"), ["FROM=high"]);
        assert_eq!(find(&registry, "v.com/c=y").expect("y"), ["FROM=low"]);
        assert_eq!(registry.names("v.com/c"), ["x", "y"]);

        write(
            &high,
            "d.json",
            &spec("v.com/c", "x", "FROM=other").replace("cdiVersion", "bad"),
        );
        write(&high, "e.yaml", &spec("v.com/c", "x", "FROM=other"));
        let registry = Registry::read(&directories);
        match find(&registry, "v.com/c=x") {
            Err(CdiError::Conflict { files, .. }) => {
                assert_eq!(files, [high.path().join("c.yaml"), high.path().join("e.yaml")]);
            }
            other => panic!("{other:?}"),
        }
        // The broken one is named when it may be the reason, and not before.
        assert!(find(&registry, "v.com/c=y").is_ok());
        match find(&registry, "v.com/c=z") {
            Err(CdiError::NoSuchDevice { known, broken, .. }) => {
                assert_eq!(known, ["x", "y"]);
                assert!(broken[0].contains("d.json"), "{broken:?}");
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn rt_hook_env_a_specification_is_a_regular_file_of_a_bounded_size() {
        let dir = tempfile::tempdir().expect("dir");
        let at = |name: &str| dir.path().join(name);
        rustix::fs::mknodat(
            rustix::fs::CWD,
            at("fifo.json"),
            rustix::fs::FileType::Fifo,
            Mode::from_raw_mode(0o600),
            0,
        )
        .expect("fifo");
        std::os::unix::fs::symlink("/dev/zero", at("zero.yaml")).expect("link");
        File::create(at("sparse.json"))
            .and_then(|file| file.set_len(1 << 40))
            .expect("sparse");
        std::fs::create_dir(at("dir.yaml")).expect("dir");
        std::fs::write(at("latin.yaml"), b"kind: \xe9\n").expect("latin");
        let registry = Registry::read(&[dir.path().to_owned()]);
        assert_eq!(registry.broken.len(), 5, "{:?}", registry.broken);
        assert!(registry.files.is_empty());
    }
}
