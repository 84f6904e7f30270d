//! Downloads of ADD.
use super::Execution;
use crate::error::Result;
use crate::graph::StepId;
use rdock_image::Digest;
use std::fs::File;

/// A file that was downloaded.
#[derive(Debug)]
pub(crate) struct Download {
    pub(crate) file: File,
    /// From the address.
    pub(crate) name: String,
    /// `Last-Modified`, in seconds since 1970.
    pub(crate) modified: Option<i64>,
}

impl Execution<'_> {
    /// What the server says of an address now, for a cache key.
    pub(super) fn download_state(&self, id: StepId, url: &str) -> Result<String> {
        let _ = url;
        Err(self.failed(id, "downloads are not supported yet", None, None))
    }

    pub(super) fn download(&self, id: StepId, url: &str, checksum: Option<&Digest>) -> Result<Download> {
        let _ = (url, checksum);
        Err(self.failed(id, "downloads are not supported yet", None, None))
    }
}
