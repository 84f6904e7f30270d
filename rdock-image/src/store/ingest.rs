//! Layers come in: one pass from the compressed stream to `layers/<diffID>`, which appears by rename.
use super::ImageStore;
use crate::layer::extract::{Extracted, Form, extract};
use crate::layer::meta::owners_to_lines;
use crate::layer::pipeline::{Chunks, Expected, Passed, pass};
use crate::layer::remove::remove_tree;
use crate::layer::skeleton::Recorder;
use crate::layer::{Layer, synced_mark};
use crate::layout::{Durability, boot_id, make_dir_all};
use crate::lock::OwnedLock;
use crate::tarstream::TarReader;
use crate::{Descriptor, Digest, Error, Lease, Result};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{Read, Write};
use std::path::Path;

/// One place a layer was seen at; `origins` has one per line. A push can name the blob without compressing anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Of the compressed blob.
    pub digest: String,
    /// Of the compressed blob, in bytes.
    pub size: u64,
    /// Of the compressed blob.
    pub media_type: String,
    /// Registry and repository; `None` for an archive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
}

impl ImageStore {
    /// Brings a layer in, in one pass: reads the (compressed) blob from `stream`, verifies `descriptor.digest`,
    /// `descriptor.size` and `diff_id` while it is unpacked, and publishes the layer by rename.
    ///
    /// Concurrent calls for one layer, in any process, do the work once: the others wait and then leave their
    /// stream unread. `origin` is the registry and repository the blob comes from (`docker.io/library/busybox`).
    /// When this fails nothing is left.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a layer that its type calls a file system image (EROFS): the kernel would have to be
    /// trusted with its bytes. [`Error::SizeMismatch`], [`Error::DigestMismatch`], [`Error::LayerMalformed`],
    /// [`Error::Limit`] for what is wrong with the bytes.
    pub fn ingest_layer(
        &self,
        lease: &Lease,
        descriptor: &Descriptor,
        diff_id: &Digest,
        origin: Option<&str>,
        stream: &mut dyn Read,
    ) -> Result<()> {
        let expected = Expected {
            digest: descriptor.digest()?,
            size: descriptor.size,
        };
        if descriptor.media_type.to_ascii_lowercase().contains("erofs") {
            return Err(Error::Unsupported {
                what: format!("a layer of the type {}", descriptor.media_type),
                on: String::new(),
            });
        }
        let origin = Origin {
            digest: descriptor.digest.clone(),
            size: descriptor.size,
            media_type: descriptor.media_type.clone(),
            repository: origin.map(str::to_owned),
        };
        lease.pin(diff_id)?;
        if Layer::open(self.layout(), diff_id).is_ok() {
            return self.add_place(diff_id, &origin);
        }
        let lock = self.layout().ingest().join(format!("{}.lock", diff_id.hex()));
        let lock = OwnedLock::acquire(self.layout(), &lock)?;
        if Layer::open(self.layout(), diff_id).is_ok() {
            return self.add_place(diff_id, &origin);
        }
        self.unpack(diff_id.as_str(), stream, Some(&expected), Some(diff_id), |_| {
            origin
        })?;
        drop(lock);
        Ok(())
    }

    /// Brings a layer of an archive in, whose compressed digest nobody announces. Returns digest and size of the
    /// blob and its diffID.
    pub(crate) fn ingest_unnamed(
        &self,
        lease: &Lease,
        wanted: &Digest,
        stream: &mut dyn Read,
    ) -> Result<(Digest, u64)> {
        lease.pin(wanted)?;
        let lock = self.layout().ingest().join(format!("{}.lock", wanted.hex()));
        let lock = OwnedLock::acquire(self.layout(), &lock)?;
        let passed = self.unpack(wanted.as_str(), stream, None, Some(wanted), |passed| Origin {
            digest: passed.digest.to_string(),
            size: passed.size,
            media_type: String::new(),
            repository: None,
        })?;
        drop(lock);
        Ok((passed.digest, passed.size))
    }

    fn unpack(
        &self,
        name: &str,
        stream: &mut dyn Read,
        expected: Option<&Expected>,
        diff_id: Option<&Digest>,
        origin: impl FnOnce(&Passed<Extracted>) -> Origin,
    ) -> Result<Passed<Extracted>> {
        let ownership = self.ownership()?;
        // Named after the layer, so that a sweep finds what a dead process left behind.
        let scratch = self.layout().scratch(".layer")?;
        let _own = OwnedLock::acquire(self.layout(), &scratch.with_extension("layer-lock"))?;
        let made = (|| {
            make_dir_all(&scratch.join("fs"))?;
            let fs = scratch.join("fs");
            let passed = pass(
                name,
                stream,
                expected,
                diff_id,
                self.limits(),
                |chunks: Chunks| {
                    let mut tar = TarReader::new(Recorder::new(chunks, &scratch)?);
                    let mut extracted = extract(name, &mut tar, &fs, ownership, self.limits(), Form::Layer)?;
                    // Bytes after the end mark belong to the digest.
                    extracted.meta.tar_size = tar.into_inner().finish(name)?;
                    Ok(extracted)
                },
            )?;
            if let Some(wanted) = diff_id
                && passed.diff_id != *wanted
            {
                return Err(Error::DigestMismatch {
                    what: format!("the unpacked layer {}", wanted.short()),
                    expected: wanted.clone(),
                    found: passed.diff_id,
                });
            }
            self.describe(&scratch, &passed, &origin(&passed))?;
            self.publish_layer(&scratch, &passed.diff_id)?;
            Ok(passed)
        })();
        match &made {
            Ok(passed) if self.layout().durability == Durability::Layer => {
                self.sync_layers(std::slice::from_ref(&passed.diff_id))?;
            }
            Ok(_) => {}
            Err(_) => remove_tree(&scratch)?,
        }
        made
    }

    fn describe(&self, scratch: &Path, passed: &Passed<Extracted>, origin: &Origin) -> Result<()> {
        let write = |name: &str, bytes: &[u8]| {
            let path = scratch.join(name);
            fs::write(&path, bytes).map_err(|e| Error::io("write", path, e))
        };
        if !passed.made.owners.is_empty() {
            write("owners", &owners_to_lines(&passed.made.owners)?)?;
        }
        write("origins", &line(origin)?)?;
        let mut meta = passed.made.meta.clone();
        meta.boot = boot_id().to_owned();
        write("meta.json", &meta.to_json()?)
    }

    pub(super) fn publish_layer(&self, scratch: &Path, diff_id: &Digest) -> Result<()> {
        let name = self.layout().layer(diff_id);
        if self.layout().publish(scratch, &name)? {
            return Ok(());
        }
        if Layer::open(self.layout(), diff_id).is_ok() {
            return remove_tree(scratch);
        }
        // A leftover that is not a layer (or one not trusted after a power loss) gives way.
        let trash = self.layout().trash().join(crate::layout::random_name()?);
        fs::rename(&name, &trash).map_err(|e| Error::io("rename", &name, e))?;
        let published = self.layout().publish(scratch, &name)?;
        remove_tree(&trash)?;
        if published { Ok(()) } else { remove_tree(scratch) }
    }

    /// Remembers one more place of a layer that is in the store, where its blob is known to be that layer. A manifest's
    /// claim that another blob is it too says nothing, as long as nobody has unpacked that blob: whoever believed it
    /// would push somebody else's content as this layer.
    ///
    /// # Errors
    /// When the note cannot be written.
    pub fn add_place(&self, diff_id: &Digest, origin: &Origin) -> Result<()> {
        let known = self.origins(diff_id)?;
        match known.iter().any(|known| known.digest == origin.digest) {
            true => self.add_origin(diff_id, origin),
            false => Ok(()),
        }
    }

    /// Remembers one more blob of a layer that is in the store, which the caller has seen to be the layer: by making it
    /// of the layer's tar, or by unpacking it.
    ///
    /// # Errors
    /// When the note cannot be written.
    pub fn add_origin(&self, diff_id: &Digest, origin: &Origin) -> Result<()> {
        if self.origins(diff_id)?.contains(origin) {
            return Ok(());
        }
        let path = self.layout().layer(diff_id).join("origins");
        let line = line(origin)?;
        // One write call per line: concurrent writers do not mix.
        fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(&path)
            .and_then(|mut file| file.write_all(&line))
            .map_err(|e| Error::io("write", path, e))
    }

    /// Returns where a layer was seen: its compressed blobs, and the repositories that have them.
    pub fn origins(&self, diff_id: &Digest) -> Result<Vec<Origin>> {
        let path = self.layout().layer(diff_id).join("origins");
        match fs::read_to_string(&path) {
            // A line cut by a crash is of no use; the others are.
            Ok(text) => Ok(text
                .lines()
                .filter_map(|line| serde_json::from_str(line).ok())
                .collect()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(Error::io("read", path, error)),
        }
    }

    /// Forces layers that are not yet known to be on the disk there, by one `syncfs`.
    pub(super) fn sync_layers(&self, diff_ids: &[Digest]) -> Result<()> {
        let marks = diff_ids
            .iter()
            .map(|diff_id| synced_mark(&self.layout().layer(diff_id)));
        let missing: Vec<_> = marks.filter(|mark| !mark.exists()).collect();
        if missing.is_empty() {
            return Ok(());
        }
        self.layout().sync_all()?;
        for mark in missing {
            fs::File::create(&mark).map_err(|e| Error::io("create", mark, e))?;
        }
        Ok(())
    }
}

fn line(origin: &Origin) -> Result<Vec<u8>> {
    let mut line = serde_json::to_vec(origin).map_err(|e| Error::document("a layer's origins", e))?;
    line.push(b'\n');
    Ok(line)
}
