//! Stores, tars and images for the tests.
use rdock_image::{Descriptor, Digest, Error, Image, ImageStore, MergedView, Reference, StoreOptions};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

pub(crate) type Outcome = Result<(), Box<dyn std::error::Error>>;

/// Mode, owner, link count and content by path.
pub(crate) type State = BTreeMap<PathBuf, (u32, u32, u64, Vec<u8>)>;

/// A store in a directory of its own, with a directory beside it that nothing may touch.
pub(crate) struct Bed {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) store: ImageStore,
}

impl Bed {
    pub(crate) fn new() -> Result<Self, Box<dyn std::error::Error>> {
        Self::with(StoreOptions::default())
    }

    pub(crate) fn with(options: StoreOptions) -> Result<Self, Box<dyn std::error::Error>> {
        let dir = tempfile::tempdir()?;
        let store = ImageStore::open_with(dir.path().join("store"), options)?;
        fs::create_dir(dir.path().join("host"))?;
        fs::write(dir.path().join("host/secret"), "host")?;
        fs::create_dir(dir.path().join("host/dir"))?;
        Ok(Self { dir, store })
    }

    /// The absolute path of the directory that nothing may touch.
    pub(crate) fn host(&self) -> String {
        self.dir.path().join("host").display().to_string()
    }

    /// Content, mode, owner and link count of all below the host directory.
    pub(crate) fn host_state(&self) -> std::io::Result<State> {
        tree(&self.dir.path().join("host"))
    }

    /// Adds an image of `layers`, the base first, and opens its merged tree.
    pub(crate) fn image(&self, name: &str, layers: &[Vec<u8>]) -> Result<Image, Error> {
        add_image(&self.store, name, layers)
    }

    pub(crate) fn view(&self, layers: &[Vec<u8>]) -> Result<MergedView, Error> {
        self.store.view(&self.image("case", layers)?)
    }

    /// Brings one plain layer in.
    pub(crate) fn ingest(&self, tar: &[u8]) -> Result<Digest, Error> {
        let lease = self.store.lease()?;
        let digest = Digest::sha256_of(tar);
        self.store
            .ingest_layer(&lease, &descriptor(tar), &digest, None, &mut &tar[..])?;
        Ok(digest)
    }

    /// Names in a directory of the store.
    pub(crate) fn names(&self, dir: &str) -> std::io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.store.root().join(dir))? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }

    /// Nothing half-made is in the store.
    pub(crate) fn assert_clean(&self) -> Outcome {
        for dir in ["ingest", "trash", "leases"] {
            let names = self.names(dir)?;
            if !names.is_empty() {
                return Err(format!("left in {dir}: {names:?}").into());
            }
        }
        Ok(())
    }
}

pub(crate) fn descriptor(blob: &[u8]) -> Descriptor {
    Descriptor::new(
        "application/vnd.oci.image.layer.v1.tar",
        &Digest::sha256_of(blob),
        blob.len() as u64,
    )
}

pub(crate) fn tree(dir: &Path) -> std::io::Result<State> {
    let mut found = BTreeMap::new();
    let mut open = vec![dir.to_owned()];
    while let Some(path) = open.pop() {
        let meta = fs::symlink_metadata(&path)?;
        if meta.is_dir() {
            for entry in fs::read_dir(&path)? {
                open.push(entry?.path());
            }
        }
        let content = if meta.is_file() {
            fs::read(&path)?
        } else {
            Vec::new()
        };
        let links = if meta.is_file() { meta.nlink() } else { 0 };
        found.insert(path, (meta.mode(), meta.uid(), links, content));
    }
    Ok(found)
}

pub(crate) fn add_image(store: &ImageStore, name: &str, layers: &[Vec<u8>]) -> Result<Image, Error> {
    let lease = store.lease()?;
    let diff_ids: Vec<_> = layers.iter().map(|tar| Digest::sha256_of(tar)).collect();
    let config =
        json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}});
    let config = config.to_string().into_bytes();
    let id = Digest::sha256_of(&config);
    store.write_blob(&lease, &config, &id)?;
    for (tar, diff_id) in layers.iter().zip(&diff_ids) {
        if !store.has_layer(diff_id) {
            store.ingest_layer(&lease, &descriptor(tar), diff_id, None, &mut &tar[..])?;
        }
    }
    let manifest = json!({
        "schemaVersion": 2,
        "config": Descriptor::new("application/vnd.oci.image.config.v1+json", &id, config.len() as u64),
        "layers": layers.iter().map(|tar| descriptor(tar)).collect::<Vec<_>>(),
    });
    let manifest = manifest.to_string().into_bytes();
    let digest = Digest::sha256_of(&manifest);
    store.write_blob(&lease, &manifest, &digest)?;
    store.commit(&lease, &Reference::parse(name)?, &digest)
}

pub(crate) fn read(view: &MergedView, path: &str) -> Result<String, Box<dyn std::error::Error>> {
    let mut text = String::new();
    view.open_file(path)?.read_to_string(&mut text)?;
    Ok(text)
}

/// Writes tars as a hostile tool could: nothing is checked.
#[derive(Clone, Default)]
pub(crate) struct Tar(Vec<u8>);

impl Tar {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn file(self, name: &str, content: impl AsRef<[u8]>) -> Self {
        self.entry(name, b'0', "", 0o644, content.as_ref())
    }

    pub(crate) fn dir(self, name: &str, mode: u32) -> Self {
        self.entry(name, b'5', "", mode, b"")
    }

    pub(crate) fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(name, b'2', target, 0o777, b"")
    }

    pub(crate) fn hard_link(self, name: &str, target: &str) -> Self {
        self.entry(name, b'1', target, 0o777, b"")
    }

    pub(crate) fn entry(mut self, name: &str, flag: u8, link: &str, mode: u32, content: &[u8]) -> Self {
        self.header(name, flag, link, mode, content.len() as u64, |_| {});
        self.data(content);
        self
    }

    /// An entry whose header is changed before its checksum is made.
    pub(crate) fn changed(
        mut self,
        name: &str,
        flag: u8,
        content: &[u8],
        change: impl Fn(&mut [u8; 512]),
    ) -> Self {
        self.header(name, flag, "", 0o644, content.len() as u64, change);
        self.data(content);
        self
    }

    /// PAX records for the next entry.
    pub(crate) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut body = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let length = (rest + 1..)
                .find(|length| *length == rest + length.to_string().len())
                .unwrap_or(rest);
            body.extend(format!("{length} {key}=").bytes());
            body.extend_from_slice(value);
            body.push(b'\n');
        }
        self.entry("pax", b'x', "", 0o644, &body)
    }

    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// The tar as it is, without an end mark.
    pub(crate) fn no_end(self) -> Vec<u8> {
        self.0
    }

    /// The tar with its end mark.
    pub(crate) fn end(mut self) -> Vec<u8> {
        self.0.extend([0; 1024]);
        self.0
    }

    fn data(&mut self, content: &[u8]) {
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
    }

    fn header(
        &mut self,
        name: &str,
        flag: u8,
        link: &str,
        mode: u32,
        size: u64,
        change: impl Fn(&mut [u8; 512]),
    ) {
        let mut block = [0_u8; 512];
        let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &name.as_bytes()[..name.len().min(100)]);
        put(100, format!("{mode:07o}\0").as_bytes());
        put(108, b"0000000\x000000000\0");
        put(124, format!("{size:011o}\0").as_bytes());
        put(136, b"14000000000\0");
        put(156, &[flag]);
        put(157, &link.as_bytes()[..link.len().min(100)]);
        put(257, b"ustar\x0000");
        change(&mut block);
        block[148..156].copy_from_slice(b"        ");
        let sum: u32 = block.iter().map(|&b| u32::from(b)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend_from_slice(&block);
    }
}
