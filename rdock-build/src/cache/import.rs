//! Caches of other machines during a build: what they have is a hit, and their layers come when something needs them.
use super::Cache;
use super::place::CacheSource;
use super::portable::{self, Exported};
use super::record::{Key, Record};
use crate::error::{BuildError, Result};
use rdock_image::{BoxError, Digest, ImageStore, OciLayout, Platform, Progress, Reference, ResolvedImage};
use rdock_runtime::Runtime;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// All that a build may take steps from.
#[derive(Debug, Default)]
pub(crate) struct Imports {
    caches: Vec<Imported>,
    /// Caches that were given up while the build ran.
    lost: AtomicUsize,
    /// Hits whose layers are not here yet, by layer: they become hits of this root's own cache.
    waiting: Mutex<BTreeMap<Digest, Vec<(Key, Record)>>>,
}

/// One cache, as it was when the build began.
#[derive(Debug)]
pub(crate) struct Imported {
    source: CacheSource,
    image: ResolvedImage,
    records: BTreeMap<Key, Exported>,
    /// Something of it could not be had: it is not asked again.
    gone: AtomicBool,
    /// Held while layers come, so that two steps bring them once.
    one: Mutex<()>,
}

impl Imported {
    /// Reads what a cache has, without a layer of it.
    pub(crate) fn open(
        source: &CacheSource,
        runtime: &Runtime,
        progress: &Progress,
    ) -> std::result::Result<Self, BoxError> {
        let image = match source {
            CacheSource::Registry(reference) => {
                let wait = tokio::runtime::Builder::new_current_thread().build()?;
                wait.block_on(runtime.resolve(reference, progress))?
            }
            CacheSource::Local { path, name } => {
                let label = Reference::parse("local-cache.invalid/cache")?;
                OciLayout::new(path).resolve(name, &label, &Platform::host())?
            }
        };
        // Keys say nothing of processors where no base image does.
        let (platform, host) = (image.config().platform(), Platform::host());
        if host.rank(&platform).is_none() {
            return Err(format!("it is for {platform}, this host is {host}").into());
        }
        let records = portable::records(image.config()).ok_or("it has no build cache of this kind")?;
        Ok(Self {
            source: source.clone(),
            records: portable::by_key(&records),
            image,
            gone: AtomicBool::new(false),
            one: Mutex::default(),
        })
    }

    /// How many steps it has.
    pub(crate) fn len(&self) -> usize {
        let keys: BTreeSet<&Key> = self.records.values().map(|record| &record.key).collect();
        keys.len()
    }

    fn is_gone(&self) -> bool {
        self.gone.load(Ordering::SeqCst)
    }

    fn fetch(
        &self,
        layers: &[Digest],
        runtime: &Runtime,
        progress: &Progress,
    ) -> std::result::Result<(), BoxError> {
        match &self.source {
            CacheSource::Registry(_) => {
                let wait = tokio::runtime::Builder::new_current_thread().build()?;
                wait.block_on(runtime.pull_layers(&self.image, layers, progress))?;
            }
            CacheSource::Local { path, .. } => {
                OciLayout::new(path).fetch_layers(&self.image, layers, runtime.images(), progress)?;
            }
        }
        Ok(())
    }
}

impl Imports {
    pub(crate) fn new(caches: Vec<Imported>) -> Self {
        Self {
            caches,
            ..Self::default()
        }
    }

    /// How many caches were given up so far.
    pub(crate) fn lost(&self) -> usize {
        self.lost.load(Ordering::SeqCst)
    }

    /// Returns a step's result that one of the caches has.
    pub(crate) fn find(&self, key: &Key) -> Option<Exported> {
        let mut caches = self.caches.iter().filter(|cache| !cache.is_gone());
        caches.find_map(|cache| cache.records.get(key).cloned())
    }

    /// Does one of the caches have exactly these records, under this name?
    pub(crate) fn has_all(&self, source: &CacheSource, records: &[Exported]) -> bool {
        let mut caches = self.caches.iter().filter(|cache| !cache.is_gone());
        caches.any(|cache| cache.source == *source && cache.records == portable::by_key(records))
    }

    /// Notes a hit: it goes into this root's cache as soon as its layer is here.
    pub(crate) fn note(&self, cache: &Cache, store: &ImageStore, key: &Key, record: &Record) -> Result<()> {
        let content = record.content.iter().filter(|content| *content != key);
        for key in std::iter::once(key).chain(content) {
            if store.has_layer(&record.layer) {
                keep(cache, store, key, record.clone())?;
                continue;
            }
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            let hits = waiting.entry(record.layer.clone()).or_default();
            hits.push((key.clone(), record.clone()));
        }
        Ok(())
    }

    /// Brings layers that caches have; those of `missing` that none has are somebody else's. A cache that cannot give
    /// what it says it has is given up, and the build has to begin again: its hits are none.
    ///
    /// # Errors
    /// [`rdock_image::Error::MissingBlob`] when a cache was given up.
    pub(crate) fn bring(
        &self,
        missing: &[Digest],
        cache: &Cache,
        runtime: &Runtime,
        progress: &Progress,
        tell: &dyn Fn(String),
    ) -> Result<()> {
        let store = runtime.images();
        for import in self.caches.iter().filter(|import| !import.is_gone()) {
            let _one = import.one.lock().unwrap_or_else(PoisonError::into_inner);
            let layers: Vec<Digest> = missing
                .iter()
                .filter(|layer| import.image.diff_ids().contains(layer) && !store.has_layer(layer))
                .cloned()
                .collect();
            if layers.is_empty() {
                continue;
            }
            let missing = rdock_image::Error::MissingBlob {
                what: "layer",
                digest: layers[0].clone(),
            };
            // Whoever fetched meanwhile may have given it up.
            if import.is_gone() {
                return Err(missing.into());
            }
            if let Err(error) = import.fetch(&layers, runtime, progress) {
                if progress.stop().is_stopped() {
                    return Err(BuildError::Cancelled);
                }
                if !import.gone.swap(true, Ordering::SeqCst) {
                    self.lost.fetch_add(1, Ordering::SeqCst);
                    let why = chain(error.as_ref());
                    tell(format!("the cache {} is not used: {why}", import.source));
                }
                return Err(missing.into());
            }
            for layer in &layers {
                let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                let hits = waiting.remove(layer).unwrap_or_default();
                drop(waiting);
                for (key, record) in hits {
                    keep(cache, store, &key, record)?;
                }
            }
        }
        Ok(())
    }
}

/// Puts a hit into this root's cache; its layer is here.
fn keep(cache: &Cache, store: &ImageStore, key: &Key, mut record: Record) -> Result<()> {
    record.size = store.layer(&record.layer)?.size;
    let own = record.layer.clone();
    cache.put(key, &record, &[own])
}

/// An error and what is below it, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut below = error.source();
    while let Some(error) = below {
        text.push_str(&format!(": {error}"));
        below = error.source();
    }
    text
}
