//! In place of downloads, in a program that was built without them.
use super::Execution;
use crate::builder::Proxies;
use crate::error::{BuildError, Result};
use crate::files::{Copying, Target};
use crate::graph::{CopyStep, StepId};
use rdock_image::{Digest, Stop};
use std::fs::File;
use std::path::Path;

/// The content of an address.
pub(crate) fn content(url: &str, _: &Path, _: &Proxies, _: &Stop) -> Result<File> {
    Err(BuildError::Option {
        option: "context",
        reason: without(url),
    })
}

fn without(url: &str) -> String {
    format!("{url} cannot be downloaded: this program was built without the feature `registry`")
}

impl Execution<'_> {
    pub(super) fn download_state(&self, id: StepId, url: &str) -> Result<String> {
        Err(self.no_downloads(id, url))
    }

    #[allow(clippy::too_many_arguments, reason = "as with downloads")]
    pub(super) fn add_download(
        &self,
        id: StepId,
        _: &CopyStep,
        url: &str,
        _: Option<&Digest>,
        _: usize,
        _: &Copying<'_>,
        _: &mut Target,
    ) -> Result<()> {
        Err(self.no_downloads(id, url))
    }

    fn no_downloads(&self, id: StepId, url: &str) -> BuildError {
        self.failed(id, without(url), None, None)
    }
}
