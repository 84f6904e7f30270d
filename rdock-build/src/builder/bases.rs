//! Base images: what they are is asked before anything is planned, their layers come when a step needs them.

use super::{Builder, PullPolicy};
use crate::event::BuildEvent;
use crate::exec::Cancel;
use crate::front::BaseImage;
use rdock_image::{
    BoxError, Digest, Image, ImageStore, LayoutName, Lease, OciLayout, Platform, Progress, Reference,
    ResolvedImage,
};
use rdock_runtime::Runtime;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

type Result<T> = std::result::Result<T, BoxError>;

/// The base images of one build.
pub(super) struct Bases<'a> {
    pub(super) builder: &'a Builder,
    pub(super) runtime: &'a Runtime,
    pub(super) lease: &'a Lease,
    pub(super) cancel: &'a Cancel,
    /// Nothing is brought into the store.
    pub(super) dry: bool,
    /// Images that are in layouts, by what the plan calls them.
    pub(super) layouts: Layouts,
    /// What looking a name up gave. An error stays until the name is asked for, which ends the build.
    pub(super) found: Mutex<BTreeMap<String, Result<Arc<Known>>>>,
}

/// Layouts and which image of them is meant, by a reference that leads nowhere else.
pub(super) type Layouts = BTreeMap<String, (OciLayout, LayoutName)>;

/// What a name led to when the build began. It means that for the whole build.
pub(super) struct Known {
    image: Found,
    /// Held while its layers come, so that two steps bring them once.
    one: Mutex<()>,
}

/// Where it was found.
enum Found {
    Stored(Image),
    Resolved(Box<ResolvedImage>),
    Layout(OciLayout, Box<ResolvedImage>),
}

impl Known {
    fn layers(&self) -> &[Digest] {
        match &self.image {
            Found::Stored(image) => image.diff_ids(),
            Found::Resolved(resolved) | Found::Layout(_, resolved) => resolved.diff_ids(),
        }
    }
}

impl Bases<'_> {
    /// Looks images up, all at once.
    pub(super) fn ahead(&self, mut references: Vec<Reference>) {
        references.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        references.dedup();
        if references.len() < 2 {
            return;
        }
        std::thread::scope(|scope| {
            for reference in &references {
                scope.spawn(move || {
                    let found = self.look_up(reference);
                    self.map().insert(reference.to_string(), found);
                });
            }
        });
    }

    /// What an image is, without its layers.
    pub(super) fn resolve(&self, reference: &Reference) -> Result<BaseImage> {
        let ahead = self.map().remove(reference.as_str());
        let known = ahead.unwrap_or_else(|| self.look_up(reference))?;
        self.map().insert(reference.to_string(), Ok(known.clone()));
        let config = match &known.image {
            Found::Stored(image) => image.config(),
            Found::Resolved(resolved) | Found::Layout(_, resolved) => resolved.config(),
        };
        Ok(BaseImage {
            layers: known.layers().to_vec(),
            config: config.clone(),
        })
    }

    fn look_up(&self, reference: &Reference) -> Result<Arc<Known>> {
        Ok(Arc::new(Known {
            image: self.find(reference)?,
            one: Mutex::default(),
        }))
    }

    fn find(&self, reference: &Reference) -> Result<Found> {
        if let Some((layout, name)) = self.layouts.get(reference.as_str()) {
            let resolved = layout.resolve(name, reference, &Platform::host())?;
            for layer in resolved.diff_ids() {
                self.lease.pin(layer)?;
            }
            return Ok(Found::Layout(layout.clone(), Box::new(resolved)));
        }
        let store = self.store();
        let stored = match self.builder.pull {
            PullPolicy::Always => {
                let resolved = self.ask(reference)?;
                // One that is damaged is fetched again.
                let stored = store.get(reference.as_str()).ok().flatten();
                match stored.filter(|image| image.manifest_digest() == resolved.manifest_digest()) {
                    Some(image) => Some(image),
                    None => return self.adopt(resolved),
                }
            }
            PullPolicy::Missing | PullPolicy::Never => store.get(reference.as_str())?,
        };
        if let Some(image) = stored {
            // What its documents lead to is pinned with it.
            self.lease.pin(image.manifest_digest())?;
            return Ok(Found::Stored(image));
        }
        if self.builder.pull == PullPolicy::Never {
            return Err("it is not in the store, and nothing may be pulled".into());
        }
        self.adopt(self.ask(reference)?)
    }

    /// An image that the store does not have under this name.
    fn adopt(&self, resolved: ResolvedImage) -> Result<Found> {
        for layer in resolved.diff_ids() {
            self.lease.pin(layer)?;
        }
        // All that there is to fetch is here: it becomes an image, as if it had been pulled.
        let here = |layer: &Digest| self.store().has_layer(layer);
        if !self.dry && resolved.diff_ids().iter().all(here) {
            self.bring(&resolved, self.cancel)?;
        }
        Ok(Found::Resolved(Box::new(resolved)))
    }

    /// Brings the layers of an image that was resolved into the store, unless they are there.
    pub(super) fn fetch(&self, reference: &Reference, cancel: &Cancel) -> Result<()> {
        let known = match self.map().get(reference.as_str()) {
            Some(Ok(known)) => known.clone(),
            _ => return Err("it was not looked up".into()),
        };
        let _one = known.one.lock().unwrap_or_else(PoisonError::into_inner);
        if known.layers().iter().all(|layer| self.store().has_layer(layer)) {
            return Ok(());
        }
        match &known.image {
            Found::Resolved(resolved) => self.bring(resolved, cancel),
            Found::Layout(layout, resolved) => {
                let progress = self.progress(cancel);
                Ok(layout.fetch_layers(resolved, resolved.diff_ids(), self.store(), &progress)?)
            }
            // Somebody took its layers out of the store by other means than ours.
            Found::Stored(_) if self.builder.pull == PullPolicy::Never => {
                Err("layers of it are missing from the store, and nothing may be pulled".into())
            }
            Found::Stored(image) => self.bring(&ResolvedImage::of(reference, image)?, cancel),
        }
    }

    /// What people call an image.
    pub(super) fn title(&self, reference: &Reference) -> String {
        match self.layouts.get(reference.as_str()) {
            Some((layout, name)) => format!("oci-layout://{}:{name}", layout.path().display()),
            None => reference.familiar(),
        }
    }

    fn ask(&self, reference: &Reference) -> Result<ResolvedImage> {
        let wait = tokio::runtime::Builder::new_current_thread().build()?;
        Ok(wait.block_on(self.runtime.resolve(reference, &self.progress(self.cancel)))?)
    }

    fn bring(&self, resolved: &ResolvedImage, cancel: &Cancel) -> Result<()> {
        let wait = tokio::runtime::Builder::new_current_thread().build()?;
        wait.block_on(self.runtime.pull_resolved(resolved, &self.progress(cancel)))?;
        Ok(())
    }

    fn progress(&self, cancel: &Cancel) -> Progress {
        let progress = self.builder.progress.clone();
        Progress::new(move |event| progress.emit(BuildEvent::Pull(event))).stopped_by(cancel.stop().clone())
    }

    fn store(&self) -> &ImageStore {
        self.runtime.images()
    }

    fn map(&self) -> MutexGuard<'_, BTreeMap<String, Result<Arc<Known>>>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
