//! A check that reads everything in the store, and the repair of what it finds.
use super::ImageStore;
use super::names;
use crate::layer::remove::remove_tree;
use crate::layer::{Layer, chain};
use crate::lock::StoreLock;
use crate::manifest::ManifestDocument;
use crate::{
    BoxError, Digest, Error, ImageConfig, ImageSource, Lease, Platform, Progress, Reference, Result, snapshot,
};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What a check of the whole store found.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct FsckReport {
    /// Manifests, indexes and configs that were read.
    pub blobs: u64,
    /// Layers that were read.
    pub layers: u64,
    /// Layers among them that a version brought in which kept nothing to check them by; see
    /// [`ImageStore::write_layer_tar`].
    pub unchecked: Vec<Digest>,
    /// What is wrong, in no particular order.
    pub findings: Vec<Finding>,
}

impl FsckReport {
    /// Says whether nothing is wrong. What was left behind does no harm.
    pub fn is_sound(&self) -> bool {
        !self.findings.iter().any(Finding::is_fault)
    }
}

/// One thing that is wrong with a store.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Finding {
    /// A manifest, index or config is not what its name says.
    BadBlob {
        /// Its name.
        digest: Digest,
        /// What is wrong.
        reason: String,
    },
    /// An image names a manifest or config that is not there.
    MissingBlob {
        /// `manifest` or `config`.
        what: &'static str,
        /// Its digest.
        digest: Digest,
        /// The image's names; its manifest's digest where it has none.
        images: Vec<String>,
    },
    /// A layer's files no longer give the tar that its diffID is of.
    BadLayer {
        /// The layer.
        diff_id: Digest,
        /// The file that was changed (lossy); empty where no single one is known.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// An image, a container or a kept stack names a layer that is not there.
    MissingLayer {
        /// The layer.
        diff_id: Digest,
        /// Who names it.
        users: Vec<String>,
    },
    /// A tag's file cannot be read, so the name leads nowhere.
    BadReference {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Something that the store does not know; it does no harm.
    Leftover {
        /// Where it is.
        path: PathBuf,
    },
}

impl Finding {
    /// Says whether something that was there is lost or wrong.
    pub fn is_fault(&self) -> bool {
        !matches!(self, Self::Leftover { .. })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadBlob { digest, reason } => write!(f, "blob {digest} is damaged: {reason}"),
            Self::MissingBlob { what, digest, images } => {
                write!(f, "{what} {digest} is missing, which {} needs", images.join(", "))
            }
            Self::BadLayer {
                diff_id,
                path,
                reason,
            } if path.is_empty() => write!(f, "layer {diff_id} is damaged: {reason}"),
            Self::BadLayer {
                diff_id,
                path,
                reason,
            } => write!(f, "layer {diff_id} is damaged at {path:?}: {reason}"),
            Self::MissingLayer { diff_id, users } => {
                write!(f, "layer {diff_id} is missing, which {} needs", users.join(", "))
            }
            Self::BadReference { path, reason } => {
                write!(f, "the tag in {} cannot be read: {reason}", path.display())
            }
            Self::Leftover { path } => write!(f, "{} belongs to nothing", path.display()),
        }
    }
}

/// What a repair did.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct RepairReport {
    /// Images that were fetched again, as far as they were damaged.
    pub repaired: Vec<Reference>,
    /// Images that could not be fetched again, and why.
    pub failed: Vec<(Reference, String)>,
    /// Damaged layers that stay, since a container is made of them: it must be removed first.
    pub in_use: Vec<Digest>,
    /// What a check finds afterwards.
    pub after: FsckReport,
}

/// Who names what.
#[derive(Default)]
struct Users {
    /// Names by manifest.
    manifests: BTreeMap<Digest, Vec<String>>,
    configs: BTreeMap<Digest, Vec<String>>,
    layers: BTreeMap<Digest, BTreeSet<String>>,
}

impl ImageStore {
    /// Reads everything that is in the store: every manifest and config is hashed, every layer's tar is made and
    /// hashed, every name followed. Of a layer that came from elsewhere the content of every file is compared; one made
    /// here is compared with names, modes, owners and times too. Pulls, containers and prunes may go on meanwhile.
    ///
    /// # Errors
    /// When a directory of the store cannot be listed. What is wrong with the contents is in the report.
    pub fn fsck(&self) -> Result<FsckReport> {
        let lease = self.lease()?;
        let mut report = FsckReport::default();
        let users = self.users(&lease, &mut report)?;
        self.check_blobs(&users, &mut report)?;
        self.check_layers(&users, &mut report)?;
        Ok(report)
    }

    /// Everything that is named, pinned so that nobody takes it away during the check.
    fn users(&self, lease: &Lease, report: &mut FsckReport) -> Result<Users> {
        let mut users = Users::default();
        for path in children(&self.layout().refs())? {
            match names::check(&path) {
                Ok(()) => {}
                Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                Err(error) => report.findings.push(Finding::BadReference {
                    reason: chain_of(&error),
                    path,
                }),
            }
        }
        for (manifest, found) in names::all(self.layout())? {
            lease.pin(&manifest)?;
            let mut names: Vec<_> = found.tags.iter().map(Reference::familiar).collect();
            if names.is_empty() {
                names.push(manifest.to_string());
            }
            if let Some((config, diff_ids)) = self.named_by(&manifest) {
                lease.pin(&config)?;
                users
                    .configs
                    .entry(config)
                    .or_default()
                    .extend(names.iter().cloned());
                for diff_id in diff_ids {
                    lease.pin(&diff_id)?;
                    users
                        .layers
                        .entry(diff_id)
                        .or_default()
                        .extend(names.iter().cloned());
                }
            }
            users.manifests.insert(manifest, names);
        }
        for id in self.snapshots()? {
            let Some(record) = snapshot::read_record(self.layout(), &id)? else {
                continue;
            };
            for diff_id in record.diff_ids {
                lease.pin(&diff_id)?;
                users
                    .layers
                    .entry(diff_id)
                    .or_default()
                    .insert(format!("container {id}"));
            }
        }
        for stack in super::made::kept(self.layout())? {
            for diff_id in stack {
                lease.pin(&diff_id)?;
                users
                    .layers
                    .entry(diff_id)
                    .or_default()
                    .insert("a build's cache".to_owned());
            }
        }
        Ok(users)
    }

    /// The config that a manifest names, and its layers as far as the config says them.
    fn named_by(&self, manifest: &Digest) -> Option<(Digest, Vec<Digest>)> {
        let bytes = self.read_blob(manifest).ok()?;
        let ManifestDocument::Manifest(document) = ManifestDocument::parse(&bytes, None).ok()? else {
            return None;
        };
        let config = document.config.digest().ok()?;
        let parsed = self
            .read_blob(&config)
            .ok()
            .and_then(|bytes| ImageConfig::parse(&bytes).ok());
        Some((
            config,
            parsed.map(|config| config.rootfs.diff_ids).unwrap_or_default(),
        ))
    }

    fn check_blobs(&self, users: &Users, report: &mut FsckReport) -> Result<()> {
        for algorithm in children(&self.layout().blobs())? {
            for path in children(&algorithm)? {
                let Some(digest) = digest_of(&path, &algorithm) else {
                    report.findings.push(Finding::Leftover { path });
                    continue;
                };
                report.blobs += 1;
                match self.read_blob(&digest) {
                    Ok(_) | Err(Error::MissingBlob { .. }) => {}
                    Err(error) => report.findings.push(Finding::BadBlob {
                        digest,
                        reason: chain_of(&error),
                    }),
                }
            }
        }
        for (what, named) in [("manifest", &users.manifests), ("config", &users.configs)] {
            for (digest, images) in named {
                if !self.has_blob(digest) {
                    report.findings.push(Finding::MissingBlob {
                        what,
                        digest: digest.clone(),
                        images: images.clone(),
                    });
                }
            }
        }
        Ok(())
    }

    fn check_layers(&self, users: &Users, report: &mut FsckReport) -> Result<()> {
        for path in children(&self.layout().layers())? {
            let name = path.file_name().and_then(|name| name.to_str());
            let Some(diff_id) = name.and_then(Digest::of_hex) else {
                report.findings.push(Finding::Leftover { path });
                continue;
            };
            let bad = |path: String, reason: String| Finding::BadLayer {
                diff_id: diff_id.clone(),
                path,
                reason,
            };
            report.layers += 1;
            let size = match self.layer(&diff_id) {
                Ok(layer) => layer.tar_size,
                // Not one that is trusted after a power loss, or pruned since: the same as missing.
                Err(Error::MissingBlob { .. }) => {
                    report.layers -= 1;
                    if path.exists() && !users.layers.contains_key(&diff_id) {
                        report.findings.push(Finding::Leftover { path });
                    }
                    continue;
                }
                Err(error) => {
                    report.findings.push(bad(String::new(), chain_of(&error)));
                    continue;
                }
            };
            match self.write_layer_tar(&diff_id, &mut io::sink()) {
                Ok((found, _)) if found == diff_id => {}
                Ok(_) if size == 0 => report.unchecked.push(diff_id),
                Ok(_) => report
                    .findings
                    .push(bad(String::new(), "its files give another tar".to_owned())),
                Err(Error::LayerChanged { path, reason, .. }) => report.findings.push(bad(path, reason)),
                Err(_) if !path.exists() => report.layers -= 1,
                Err(error) => report.findings.push(bad(String::new(), chain_of(&error))),
            }
        }
        for (diff_id, users) in &users.layers {
            if matches!(
                Layer::open(self.layout(), diff_id),
                Err(Error::MissingBlob { .. })
            ) {
                report.findings.push(Finding::MissingLayer {
                    diff_id: diff_id.clone(),
                    users: users.iter().cloned().collect(),
                });
            }
        }
        Ok(())
    }

    /// Checks the store, takes damaged blobs and layers out, and has every damaged image that has a name fetched again:
    /// what is sound stays, so only what is damaged comes over the network. Names and ids stay as they are. A layer
    /// that a container is made of is not touched, and what was made here cannot be fetched.
    ///
    /// # Errors
    /// As [`ImageStore::fsck`], and when something damaged cannot be moved away. What could not be fetched is in the
    /// report.
    pub fn repair(&self, source: &dyn ImageSource, progress: &Progress) -> Result<RepairReport> {
        let before = self.fsck()?;
        let mut report = RepairReport::default();
        let mut images: BTreeMap<Digest, Vec<Reference>> = BTreeMap::new();
        for (manifest, found) in names::all(self.layout())? {
            images.insert(manifest, found.tags);
        }
        let mut damaged: BTreeSet<Digest> = BTreeSet::new();
        let mut gone = BTreeSet::new();
        for finding in &before.findings {
            match finding {
                Finding::BadBlob { digest, .. } => {
                    self.take_out(&self.layout().blob(digest))?;
                    gone.insert(digest.clone());
                }
                Finding::MissingBlob { digest, .. } => drop(gone.insert(digest.clone())),
                Finding::BadLayer { diff_id, .. } => match self.is_stacked(diff_id)? {
                    true => report.in_use.push(diff_id.clone()),
                    false => {
                        self.take_out(&self.layout().layer(diff_id))?;
                        gone.insert(diff_id.clone());
                    }
                },
                Finding::MissingLayer { diff_id, .. } => drop(gone.insert(diff_id.clone())),
                Finding::BadReference { .. } | Finding::Leftover { .. } => {}
            }
        }
        for manifest in images.keys() {
            let named = self.named_by(manifest);
            let needs = |digest: &Digest| gone.contains(digest);
            let broken = needs(manifest)
                || named.is_none_or(|(config, layers)| {
                    needs(&config) || layers.is_empty() || layers.iter().any(needs)
                });
            if broken {
                damaged.insert(manifest.clone());
            }
        }
        for manifest in damaged {
            // Any of its names will do, since what they mean is known.
            let names = images.remove(&manifest).unwrap_or_default();
            let Some(name) = names.first() else { continue };
            let fetched = self.fetch_again(source, name, &manifest, progress);
            match fetched {
                Ok(()) => report.repaired.push(name.clone()),
                Err(error) => report.failed.push((name.clone(), chain_of(&*error))),
            }
        }
        super::prune::sweep(self.layout())?;
        report.after = self.fsck()?;
        Ok(report)
    }

    fn fetch_again(
        &self,
        source: &dyn ImageSource,
        name: &Reference,
        manifest: &Digest,
        progress: &Progress,
    ) -> Result<(), BoxError> {
        let wanted = Reference::parse(&format!("{}@{manifest}", name.name()))?;
        let file = self.layout().reference(&wanted.canonical());
        let had = file.exists();
        source.fetch(&wanted, &Platform::host(), self, progress)?;
        if !had {
            // The image has its own names, which still lead to it.
            fs::remove_file(&file).map_err(|e| Error::io("remove", file, e))?;
        }
        Ok(())
    }

    /// Whether a snapshot is made of the layer: a layer under a mount must not move.
    fn is_stacked(&self, diff_id: &Digest) -> Result<bool> {
        for id in self.snapshots()? {
            if snapshot::read_record(self.layout(), &id)?
                .is_some_and(|record| record.diff_ids.contains(diff_id))
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Moves something damaged away, with the chains that may have links to its files.
    fn take_out(&self, path: &Path) -> Result<()> {
        let mut moved = Vec::new();
        {
            let _guard = StoreLock::exclusive(self.layout())?;
            let live: BTreeSet<_> = self
                .snapshots()?
                .iter()
                .filter_map(|id| snapshot::read_record(self.layout(), id).ok().flatten())
                .flat_map(|record| {
                    (0..=record.diff_ids.len())
                        .map(|count| chain::chain_id(&record.diff_ids[..count]).hex().to_owned())
                        .collect::<Vec<_>>()
                })
                .collect();
            let chains = match path.starts_with(self.layout().layers()) {
                true => children(&self.layout().chains())?,
                false => Vec::new(),
            };
            for chain in chains {
                let name = chain.file_name().and_then(|name| name.to_str());
                if !name.is_some_and(|name| live.contains(name)) {
                    moved.push(super::prune::discard(self.layout(), &chain)?);
                }
            }
            if path.exists() {
                moved.push(super::prune::discard(self.layout(), path)?);
            }
        }
        moved.iter().try_for_each(|path| remove_tree(path))
    }
}

fn children(path: &Path) -> Result<Vec<PathBuf>> {
    let mut paths: Vec<_> = super::prune::children(path)?;
    paths.sort();
    Ok(paths)
}

/// The digest that a file is named after; `algorithm` is the directory's name.
fn digest_of(path: &Path, algorithm: &Path) -> Option<Digest> {
    let algorithm = algorithm.file_name()?.to_str()?;
    Digest::parse(&format!("{algorithm}:{}", path.file_name()?.to_str()?)).ok()
}

fn chain_of(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
