//! Writing docker's `config.json`: what login and logout change there.

use super::docker::{AuthEntry, key, server_name};
use crate::error::{Error, Result};
use serde_json::{Map, Value};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A docker configuration file that is written by renaming, so that no reader meets half of one. Fields that
/// this library does not know stay.
#[derive(Debug)]
pub(crate) struct SavedConfig {
    /// Where a symlink leads.
    path: PathBuf,
}

impl SavedConfig {
    pub(crate) fn at(path: &Path) -> Self {
        // docker writes through a symlink; a file that is not there yet has its own name.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        Self { path }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Sets the entry of a registry. An empty one says that a helper has it.
    pub(crate) fn set(&self, registry: &str, entry: &AuthEntry) -> Result<()> {
        self.change(|auths| {
            let wanted = key(registry);
            auths.retain(|name, _| key(name) != wanted);
            auths.insert(server_name(&wanted).to_owned(), entry.to_json());
            true
        })
        .map(drop)
    }

    /// Removes the entry of a registry, however it is spelled; says whether there was one.
    pub(crate) fn remove(&self, registry: &str) -> Result<bool> {
        if !self.path.exists() {
            return Ok(false);
        }
        let wanted = key(registry);
        self.change(|auths| {
            let before = auths.len();
            auths.retain(|name, _| key(name) != wanted);
            auths.len() != before
        })
    }

    fn change(&self, change: impl FnOnce(&mut Map<String, Value>) -> bool) -> Result<bool> {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| Error::Config {
            path: self.path.clone(),
            source,
        };
        let dir = match self.path.parent() {
            Some(dir) if dir != Path::new("") => dir,
            _ => Path::new("."),
        };
        let work = || -> io::Result<bool> {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
            // Two programs that log in at once both count.
            let lock = File::open(dir)?;
            lock.lock()?;
            let mut document = match fs::read(&self.path) {
                Ok(bytes) if bytes.trim_ascii().is_empty() => Value::Object(Map::new()),
                Ok(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::other)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => Value::Object(Map::new()),
                Err(error) => return Err(error),
            };
            let object = document
                .as_object_mut()
                .ok_or_else(|| io::Error::other("it is not a JSON object"))?;
            let auths = object.entry("auths").or_insert_with(|| Value::Object(Map::new()));
            if auths.is_null() {
                *auths = Value::Object(Map::new());
            }
            let auths = auths
                .as_object_mut()
                .ok_or_else(|| io::Error::other("its auths are not a JSON object"))?;
            if !change(auths) {
                return Ok(false);
            }
            self.write(dir, &document)?;
            Ok(true)
        };
        work().map_err(|error| failed(error.into()))
    }

    fn write(&self, dir: &Path, document: &Value) -> io::Result<()> {
        let mut text = Vec::new();
        let formatter = serde_json::ser::PrettyFormatter::with_indent(b"\t");
        let mut serializer = serde_json::Serializer::with_formatter(&mut text, formatter);
        serde::Serialize::serialize(document, &mut serializer).map_err(io::Error::other)?;
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        // The directory is locked: nobody else writes here under this process's number.
        let scratch = dir.join(format!(".{name}.{}", std::process::id()));
        // What a killed process of the same number left.
        if let Err(error) = fs::remove_file(&scratch)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error);
        }
        let write = || {
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&scratch)?;
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&scratch, &self.path)?;
            File::open(dir)?.sync_all()
        };
        let written = write();
        if written.is_err() {
            // The first error says why.
            let _ = fs::remove_file(&scratch);
        }
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Credentials;
    use std::os::unix::fs::PermissionsExt;

    fn entry(user: &str) -> AuthEntry {
        let json = format!(r#"{{"username":"{user}","password":"p"}}"#);
        AuthEntry::parse(json.as_bytes()).expect("an entry")
    }

    fn user(path: &Path, registry: &str) -> String {
        let mut credentials = Credentials::default();
        credentials.read(path).expect("valid");
        format!("{:?}", credentials.find(registry).0)
    }

    #[test]
    fn other_fields_stay_and_nobody_else_reads_the_file() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("new/config.json");
        let file = SavedConfig::at(&path);
        file.set("a.example:5000", &entry("a")).expect("set");
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o7777;
        assert_eq!((mode(&path), mode(&dir.path().join("new"))), (0o600, 0o700));
        let text = r#"{"psFormat":"x","auths":{"b.example":{"auth":"dTpw","email":"e"},"index.docker.io":{}},"n":1.50}"#;
        fs::write(&path, text).expect("written");
        file.set("docker.io", &entry("hub")).expect("set");
        let found: Value = serde_json::from_slice(&fs::read(&path).expect("there")).expect("JSON");
        assert_eq!((&found["psFormat"], &found["n"]), (&"x".into(), &1.5.into()));
        assert_eq!(found["auths"]["b.example"]["email"], "e");
        assert_eq!(found["auths"]["https://index.docker.io/v1/"]["auth"], "aHViOnA=");
        assert_eq!(
            found["auths"]["index.docker.io"],
            Value::Null,
            "one entry a registry"
        );
        assert_eq!(user(&path, "docker.io"), "Basic(hub)");
        assert!(file.remove("https://b.example/v2/").expect("removed"));
        assert!(!file.remove("b.example").expect("nothing to remove"));
        assert_eq!(user(&path, "b.example"), "Anonymous");
        assert_eq!(
            fs::read_dir(path.parent().expect("a parent"))
                .expect("a list")
                .count(),
            1
        );
    }

    #[test]
    fn a_symlink_stays_one_and_a_malformed_file_stays_as_it_is() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (real, link) = (dir.path().join("real.json"), dir.path().join("config.json"));
        fs::write(&real, "{}").expect("written");
        std::os::unix::fs::symlink(&real, &link).expect("linked");
        SavedConfig::at(&link).set("a.example", &entry("a")).expect("set");
        assert!(fs::symlink_metadata(&link).expect("there").is_symlink());
        assert_eq!(user(&real, "a.example"), "Basic(a)");
        for text in ["{", "[]", r#"{"auths":5}"#] {
            fs::write(&real, text).expect("written");
            let error = SavedConfig::at(&link)
                .set("a.example", &entry("a"))
                .expect_err(text);
            assert!(matches!(error, Error::Config { .. }), "{error:?}");
            assert_eq!(fs::read_to_string(&real).expect("there"), text);
        }
    }

    #[test]
    fn logins_at_once_all_count() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("config.json");
        std::thread::scope(|scope| {
            for number in 0..8 {
                let path = &path;
                scope.spawn(move || {
                    let file = SavedConfig::at(path);
                    file.set(&format!("r{number}.example"), &entry("u")).expect("set");
                });
            }
        });
        for number in 0..8 {
            assert_eq!(user(&path, &format!("r{number}.example")), "Basic(u)");
        }
    }
}
