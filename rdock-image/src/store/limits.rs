//! Bounds on what a hostile or broken image can cost.
use crate::{Error, Result};

/// What an image may cost at most. The defaults are generous: no known image reaches them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Unpacked size of one layer in bytes. Default: 256 GiB.
    pub layer_bytes: u64,
    /// Unpacked bytes per compressed byte. Counted beyond [`Limits::ratio_free_bytes`]. Default: 200.
    pub ratio: u64,
    /// A layer may unpack to this many bytes at any ratio: empty files compress well. Default: 4 GiB.
    pub ratio_free_bytes: u64,
    /// Entries of one layer. Default: 4,000,000.
    pub entries: u64,
    /// Directories within each other. Default: 1000.
    pub depth: u64,
    /// Bytes of a manifest, index or config. Default: 4 MiB.
    pub json_bytes: u64,
    /// Layers of one image. Default: 127, as in Docker.
    pub layers: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            layer_bytes: 256 << 30,
            ratio: 200,
            ratio_free_bytes: 4 << 30,
            entries: 4_000_000,
            depth: 1000,
            json_bytes: 4 << 20,
            layers: 127,
        }
    }
}

impl Limits {
    pub(crate) fn check_ratio(&self, unpacked: u64, compressed: u64) -> Result<()> {
        // The tar itself is a little larger than the files in it.
        if unpacked
            > self
                .layer_bytes
                .saturating_add(self.layer_bytes / 2)
                .saturating_add(1 << 20)
        {
            return Err(Error::Limit {
                what: "the unpacked size of a layer in bytes".to_owned(),
                limit: self.layer_bytes,
            });
        }
        if unpacked > self.ratio_free_bytes && unpacked / self.ratio > compressed {
            return Err(Error::Limit {
                what: "the compression ratio of a layer".to_owned(),
                limit: self.ratio,
            });
        }
        Ok(())
    }
}
