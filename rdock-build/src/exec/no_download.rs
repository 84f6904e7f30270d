//! In place of downloads, in a program that was built without them.
use super::Execution;
use crate::error::{BuildError, Result};
use crate::files::{Copying, Target};
use crate::graph::{CopyStep, StepId};
use rdock_image::Digest;

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
        let reason =
            format!("{url} cannot be downloaded: this program was built without the feature `registry`");
        self.failed(id, reason, None, None)
    }
}
