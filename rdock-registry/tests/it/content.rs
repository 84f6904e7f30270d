//! Images made in memory, for a registry to serve.

use rdock_image::Digest;
use rdock_image::manifest::media_type;
use serde_json::json;
use std::collections::BTreeMap;
use std::io::Write;

/// Bytes of the file in each layer; noise, so that compressing does not make it small.
pub(crate) const LAYER_SIZE: usize = 300 << 10;

/// One image and everything it consists of.
#[derive(Debug, Clone)]
pub(crate) struct Content {
    pub(crate) manifest: Vec<u8>,
    pub(crate) config: Vec<u8>,
    /// Compressed.
    pub(crate) layers: Vec<Vec<u8>>,
    pub(crate) diff_ids: Vec<Digest>,
}

impl Content {
    /// An image of `count` layers; `seed` makes them differ.
    pub(crate) fn new(count: usize, seed: u64) -> Self {
        Self::sized(count, seed, LAYER_SIZE)
    }

    /// With so many bytes in the file of each layer.
    pub(crate) fn sized(count: usize, seed: u64, size: usize) -> Self {
        let (mut layers, mut diff_ids) = (Vec::new(), Vec::new());
        for number in 0..count {
            let file = noise_of(seed * 100 + number as u64, size);
            let tar = tar(&format!("file-{number}"), &file);
            diff_ids.push(Digest::sha256_of(&tar));
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gzip.write_all(&tar).expect("to memory");
            layers.push(gzip.finish().expect("to memory"));
        }
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let config = json!({
            "architecture": architecture, "os": "linux", "config": {"Cmd": ["/x"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids.iter().map(Digest::as_str).collect::<Vec<_>>()},
        });
        let config = config.to_string().into_bytes();
        let descriptor = |kind: &str, bytes: &[u8]| json!({"mediaType": kind, "digest": Digest::sha256_of(bytes).as_str(), "size": bytes.len()});
        let manifest = json!({
            "schemaVersion": 2, "mediaType": media_type::DOCKER_MANIFEST,
            "config": descriptor(media_type::DOCKER_CONFIG, &config),
            "layers": layers.iter().map(|layer| descriptor(media_type::DOCKER_LAYER, layer)).collect::<Vec<_>>(),
        });
        Self {
            manifest: manifest.to_string().into_bytes(),
            config,
            layers,
            diff_ids,
        }
    }

    pub(crate) fn digest(&self) -> Digest {
        Digest::sha256_of(&self.manifest)
    }

    /// Digest of a compressed layer.
    pub(crate) fn layer(&self, number: usize) -> Digest {
        Digest::sha256_of(&self.layers[number])
    }

    /// Every blob by its digest; the manifest is not one.
    pub(crate) fn blobs(&self) -> BTreeMap<String, Vec<u8>> {
        let all = self.layers.iter().chain([&self.config]);
        all.map(|bytes| (Digest::sha256_of(bytes).to_string(), bytes.clone()))
            .collect()
    }
}

fn tar(name: &str, data: &[u8]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(data.len() as u64);
    header.set_mode(0o644);
    header.set_cksum();
    builder.append_data(&mut header, name, data).expect("to memory");
    builder.into_inner().expect("to memory")
}

/// The file of a layer of the usual size.
pub(crate) fn noise(seed: u64) -> Vec<u8> {
    noise_of(seed, LAYER_SIZE)
}

/// Reproducible bytes (xorshift64) that do not compress.
fn noise_of(seed: u64, size: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.take(size / 8).flatten().collect()
}
