//! What the server keeps, in a directory: blobs by digest, and for each repository the names that lead to them. A
//! thing is there if and only if its final name exists; it gets that by a rename.
//!
//! ```text
//! blobs/<algorithm>/<hex>             content, shared by all repositories
//! repositories/<name>/_blobs/<hex>    the repository has this blob
//! repositories/<name>/_manifests/<hex>  media type of a manifest
//! repositories/<name>/_tags/<tag>     digest of a manifest
//! repositories/<name>/_referrers/<subject's hex>/<hex>  digest of a manifest that refers to the subject
//! uploads/<id>                        bytes received so far
//! ```

use rdock_image::{Digest, Hasher, Index, ManifestDocument};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// An upload that nobody went on with for so long is removed at the next start.
const UPLOAD_AGE: Duration = Duration::from_secs(7 * 24 * 3600);

/// A directory of repositories.
#[derive(Debug, Clone)]
pub(super) struct Storage {
    root: PathBuf,
}

/// A manifest as it is kept.
#[derive(Debug, Clone)]
pub(super) struct StoredManifest {
    pub(super) digest: Digest,
    pub(super) media_type: String,
    pub(super) bytes: Vec<u8>,
}

impl Storage {
    pub(super) fn open(root: &Path) -> io::Result<Self> {
        for dir in ["blobs", "repositories", "uploads"] {
            fs::create_dir_all(root.join(dir))?;
        }
        let storage = Self {
            root: root.to_owned(),
        };
        storage.sweep();
        Ok(storage)
    }

    /// Removes uploads that nobody went on with, as other registries do, and what a crash left of a write.
    fn sweep(&self) {
        let entries = fs::read_dir(self.root.join("uploads")).into_iter().flatten();
        for entry in entries.flatten() {
            let changed = entry.metadata().and_then(|meta| meta.modified());
            let age = changed.ok().and_then(|time| time.elapsed().ok());
            if age.is_some_and(|age| age > UPLOAD_AGE) {
                // One that cannot be removed takes room, and no more.
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    fn blob(&self, digest: &Digest) -> PathBuf {
        self.root
            .join("blobs")
            .join(digest.algorithm())
            .join(digest.hex())
    }

    fn repository(&self, name: &str) -> PathBuf {
        self.root.join("repositories").join(name)
    }

    pub(super) fn upload(&self, id: &str) -> PathBuf {
        self.root.join("uploads").join(id)
    }

    /// The file of a blob that the repository has, and its size.
    pub(super) fn find(&self, repository: &str, digest: &Digest) -> Option<(PathBuf, u64)> {
        let known = self.repository(repository).join("_blobs").join(digest.hex());
        let path = self.blob(digest);
        let size = fs::metadata(&path).ok()?.len();
        known.exists().then_some((path, size))
    }

    /// Makes the repository have a blob that is there.
    pub(super) fn link(&self, repository: &str, digest: &Digest) -> io::Result<()> {
        self.write(
            &self.repository(repository).join("_blobs").join(digest.hex()),
            b"",
        )
    }

    pub(super) fn unlink(&self, repository: &str, digest: &Digest) -> io::Result<bool> {
        removed(&self.repository(repository).join("_blobs").join(digest.hex()))
    }

    /// Makes an upload a blob, if it has this digest; says whether it had.
    pub(super) fn publish(&self, repository: &str, upload: &Path, digest: &Digest) -> io::Result<bool> {
        let mut hasher = Hasher::like(digest);
        let mut file = File::open(upload)?;
        let mut buffer = vec![0; 256 << 10];
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                count => hasher.update(&buffer[..count]),
            }
        }
        if hasher.finish() != *digest {
            return Ok(false);
        }
        file.sync_data()?;
        let path = self.blob(digest);
        fs::create_dir_all(path.parent().unwrap_or(&self.root))?;
        fs::rename(upload, &path)?;
        self.link(repository, digest)?;
        Ok(true)
    }

    /// Adds a whole blob.
    pub(super) fn add(&self, repository: &str, bytes: &[u8]) -> io::Result<Digest> {
        let digest = Digest::sha256_of(bytes);
        self.write(&self.blob(&digest), bytes)?;
        self.link(repository, &digest)?;
        Ok(digest)
    }

    /// Keeps a manifest under its digest, and under a tag.
    pub(super) fn put_manifest(
        &self,
        repository: &str,
        tag: Option<&str>,
        manifest: &StoredManifest,
    ) -> io::Result<()> {
        let dir = self.repository(repository);
        let digest = &manifest.digest;
        self.write(&self.blob(digest), &manifest.bytes)?;
        self.write(
            &dir.join("_manifests").join(digest.hex()),
            format!("{digest} {}", manifest.media_type).as_bytes(),
        )?;
        if let Some(subject) = subject(&manifest.bytes) {
            let path = dir.join("_referrers").join(subject.hex()).join(digest.hex());
            self.write(&path, digest.as_str().as_bytes())?;
        }
        match tag {
            Some(tag) => self.write(&dir.join("_tags").join(tag), digest.as_str().as_bytes()),
            None => Ok(()),
        }
    }

    /// A manifest by tag or digest.
    pub(super) fn manifest(&self, repository: &str, reference: &str) -> Option<StoredManifest> {
        let dir = self.repository(repository);
        let digest = match Digest::parse(reference) {
            Ok(digest) => digest,
            Err(_) => Digest::parse(&fs::read_to_string(dir.join("_tags").join(reference)).ok()?).ok()?,
        };
        let note = fs::read_to_string(dir.join("_manifests").join(digest.hex())).ok()?;
        let (_, media_type) = note.split_once(' ')?;
        Some(StoredManifest {
            bytes: fs::read(self.blob(&digest)).ok()?,
            media_type: media_type.to_owned(),
            digest,
        })
    }

    /// Removes a tag, or a manifest with its tags; says whether it was there.
    pub(super) fn delete_manifest(&self, repository: &str, reference: &str) -> io::Result<bool> {
        let dir = self.repository(repository);
        let Ok(digest) = Digest::parse(reference) else {
            return removed(&dir.join("_tags").join(reference));
        };
        for tag in self.tags(repository) {
            let path = dir.join("_tags").join(&tag);
            if fs::read_to_string(&path).is_ok_and(|text| text == digest.as_str()) {
                removed(&path)?;
            }
        }
        if let Some(subject) = self
            .manifest(repository, reference)
            .and_then(|manifest| subject(&manifest.bytes))
        {
            removed(&dir.join("_referrers").join(subject.hex()).join(digest.hex()))?;
        }
        removed(&dir.join("_manifests").join(digest.hex()))
    }

    /// Says whether something was ever pushed there.
    pub(super) fn knows(&self, repository: &str) -> bool {
        self.repository(repository).is_dir()
    }

    /// Sorted.
    pub(super) fn tags(&self, repository: &str) -> Vec<String> {
        names(&self.repository(repository).join("_tags"))
    }

    /// Manifests whose subject is `digest`.
    pub(super) fn referrers(&self, repository: &str, digest: &Digest) -> Vec<StoredManifest> {
        let dir = self.repository(repository).join("_referrers").join(digest.hex());
        names(&dir)
            .iter()
            .filter_map(|hex| fs::read_to_string(dir.join(hex)).ok())
            .filter_map(|digest| self.manifest(repository, &digest))
            .collect()
    }

    /// Names of all repositories with a manifest, sorted.
    pub(super) fn repositories(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut waiting = vec![String::new()];
        while let Some(name) = waiting.pop() {
            let dir = self.repository(&name);
            for child in names(&dir) {
                if child == "_manifests" {
                    found.push(name.clone());
                } else if !child.starts_with('_') {
                    waiting.push(if name.is_empty() {
                        child
                    } else {
                        format!("{name}/{child}")
                    });
                }
            }
        }
        found.sort();
        found
    }

    /// The first blob or manifest that the document names and the repository does not have.
    pub(super) fn missing(&self, repository: &str, document: &ManifestDocument) -> Option<String> {
        let (blobs, manifests) = match document {
            ManifestDocument::Manifest(manifest) => {
                let layers = manifest.layers.iter().filter(|layer| layer.urls.is_empty());
                (layers.chain([&manifest.config]).collect(), Vec::new())
            }
            ManifestDocument::Index(Index { manifests, .. }) => (Vec::new(), manifests.iter().collect()),
        };
        let lacks = |descriptor: &&rdock_image::Descriptor, manifest: bool| match descriptor.digest() {
            Ok(digest) if manifest => self.manifest(repository, digest.as_str()).is_none(),
            Ok(digest) => self.find(repository, &digest).is_none(),
            Err(_) => true,
        };
        let blob = blobs.into_iter().find(|blob| lacks(blob, false));
        let manifest = manifests.into_iter().find(|manifest| lacks(manifest, true));
        blob.or(manifest).map(|descriptor| descriptor.digest.clone())
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        fs::create_dir_all(path.parent().unwrap_or(&self.root))?;
        let scratch = self.upload(&format!(".{}", super::random()?));
        let mut file = File::create(&scratch)?;
        let written = file
            .write_all(bytes)
            .and_then(|()| file.sync_data())
            .and_then(|()| fs::rename(&scratch, path));
        if written.is_err() {
            // The first error says why.
            let _ = fs::remove_file(&scratch);
        }
        written
    }
}

fn subject(bytes: &[u8]) -> Option<Digest> {
    let subject = match ManifestDocument::parse(bytes, None).ok()? {
        ManifestDocument::Manifest(manifest) => manifest.subject,
        ManifestDocument::Index(index) => index.subject,
    };
    subject?.digest().ok()
}

fn removed(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Names in a directory, sorted; none when there is no such directory.
fn names(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut names: Vec<_> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_uploads_are_swept_and_young_ones_stay() {
        let dir = tempfile::tempdir().unwrap();
        let storage = Storage::open(dir.path()).unwrap();
        for (id, age) in [("01", 8), ("02", 6)] {
            let file = File::create(storage.upload(id)).unwrap();
            let then = std::time::SystemTime::now() - Duration::from_secs(age * 24 * 3600);
            file.set_modified(then).unwrap();
        }
        let storage = Storage::open(dir.path()).unwrap();
        assert!(!storage.upload("01").exists() && storage.upload("02").exists());
    }
}
