//! `certs.d`: a folder for each host with certificates of its own (dockerd(8), containers-certs.d(5)).

use crate::error::{Error, Result};
use std::path::{Path, PathBuf};

/// What the folders of one host hold, in PEM.
#[derive(Default, Clone, PartialEq, Eq)]
pub(crate) struct HostCertificates {
    /// `*.crt`: authorities that are trusted for this host beside the others.
    pub(crate) authorities: Vec<Vec<u8>>,
    /// `*.cert` and the `*.key` of the same name: who this client is.
    pub(crate) client: Option<(Vec<u8>, Vec<u8>)>,
    /// The folder or the file that they are from.
    pub(crate) from: PathBuf,
}

impl std::fmt::Debug for HostCertificates {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostCertificates").finish_non_exhaustive()
    }
}

impl HostCertificates {
    /// Reads the folders that `host[:port]` has below `dirs`; `None` when it has none.
    pub(crate) fn read(dirs: &[PathBuf], host: &str) -> Result<Option<Self>> {
        let mut found = Self::default();
        for dir in dirs.iter().map(|dir| dir.join(host)) {
            found.add(&dir).map_err(|(path, error)| Error::Config {
                path,
                source: error.into(),
            })?;
            // Of several folders the first with something is named in errors.
            if found.from.as_os_str().is_empty() && found.has_any() {
                found.from = dir;
            }
        }
        Ok(found.has_any().then_some(found))
    }

    pub(crate) fn has_any(&self) -> bool {
        !self.authorities.is_empty() || self.client.is_some()
    }

    fn add(&mut self, dir: &Path) -> Result<(), (PathBuf, std::io::Error)> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |error| (path, error)
        };
        let entries = match std::fs::read_dir(dir) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(at(dir))?,
        };
        let mut paths = Vec::new();
        for entry in entries {
            paths.push(entry.map_err(at(dir))?.path());
        }
        paths.sort();
        for path in paths {
            let read = |path: &Path| std::fs::read(path).map_err(at(path));
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("crt") => self.authorities.push(read(&path)?),
                Some("cert") if self.client.is_none() => {
                    self.client = Some((read(&path)?, read(&path.with_extension("key"))?));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_its_own_folder() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let host = dir.path().join("r.example:5000");
        std::fs::create_dir(&host).expect("made");
        for (name, text) in [
            ("ca.crt", "ca"),
            ("me.cert", "cert"),
            ("me.key", "key"),
            ("notes", "x"),
        ] {
            std::fs::write(host.join(name), text).expect("written");
        }
        let dirs = [dir.path().to_owned(), dir.path().join("missing")];
        let found = HostCertificates::read(&dirs, "r.example:5000")
            .expect("read")
            .expect("some");
        assert_eq!(found.authorities, [b"ca"]);
        assert_eq!(found.client, Some((b"cert".to_vec(), b"key".to_vec())));
        assert_eq!(found.from, host);
        assert!(
            HostCertificates::read(&dirs, "r.example")
                .expect("read")
                .is_none()
        );
        std::fs::remove_file(host.join("me.key")).expect("removed");
        let error = HostCertificates::read(&dirs, "r.example:5000").expect_err("no key");
        assert!(error.to_string().contains("me.key"), "{error}");
    }
}
