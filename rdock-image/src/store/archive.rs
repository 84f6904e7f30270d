//! Archives that are no layers: told apart by their contents, and unpacked as safely as a layer is.
use super::{ImageStore, ScratchLayer};
use crate::digest::Hasher;
use crate::layer::compression::{Compression, Inflater, archived};
use crate::layer::extract::{Form, extract};
use crate::layer::pipeline::{Chunks, pass};
use crate::layer::skeleton::Recorder;
use crate::tarstream::TarReader;
use crate::{Error, Result};
use std::io::{self, Cursor, Read};

/// How much of an archive is inflated to see whether it is one.
const PEEK: usize = 64 << 10;

impl ImageStore {
    /// Says whether a stream holds a tar, plain or compressed with gzip, zstd, xz or bzip2: its first entry can be read.
    /// Takes at most the first few hundred kilobytes.
    ///
    /// # Errors
    /// What the stream says.
    pub fn is_archive(&self, stream: &mut dyn Read) -> Result<bool> {
        let mut start = [0; 6];
        let count = fill(stream, &mut start).map_err(failed)?;
        let mut whole = Cursor::new(start[..count].to_vec()).chain(stream);
        let mut first = vec![0; PEEK];
        let mut stream = archived(Compression::detect(&start[..count]), &mut whole);
        let mut inflater = Inflater::new(&mut stream, Hasher::sha256(), u64::MAX);
        // What comes before an error counts: an archive that is damaged further on is one, and what only looks
        // compressed gives nothing.
        let mut count = 0;
        for part in first.chunks_mut(512) {
            let filled = inflater.fill(part).unwrap_or(0);
            count += filled;
            if filled < part.len() {
                break;
            }
        }
        Ok(matches!(
            TarReader::new(&first[..count]).next_entry(),
            Ok(Some(_))
        ))
    }

    /// Unpacks a tar, plain or compressed with gzip, zstd, xz or bzip2, into an empty scratch directory. No path of it
    /// leads out of there, whatever it says; names that would be whiteouts in a layer are plain names.
    ///
    /// # Errors
    /// When the archive is damaged, passes the store's limits, or cannot be written; the directory holds a part of it
    /// then.
    pub fn unpack_archive(&self, name: &str, stream: &mut dyn Read, to: &ScratchLayer) -> Result<()> {
        let mut start = [0; 6];
        let count = fill(stream, &mut start).map_err(failed)?;
        let compression = Compression::detect(&start[..count]);
        let mut whole = Cursor::new(start[..count].to_vec()).chain(stream);
        let ownership = self.ownership()?;
        let reader = |chunks: Chunks| {
            let mut tar = TarReader::new(Recorder::silent(chunks));
            extract(
                name,
                &mut tar,
                to.upper(),
                ownership,
                self.limits(),
                Form::Archive,
            )?;
            tar.into_inner().finish(name).map(drop)
        };
        let mut stream = archived(compression, &mut whole);
        pass(name, &mut stream, None, None, self.limits(), reader).map(drop)
    }
}

fn failed(source: io::Error) -> Error {
    Error::Stream {
        what: "the archive".to_owned(),
        source,
    }
}

fn fill(stream: &mut dyn Read, out: &mut [u8]) -> io::Result<usize> {
    let mut count = 0;
    while count < out.len() {
        match stream.read(&mut out[count..]) {
            Ok(0) => break,
            Ok(more) => count += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StoreOptions;
    use std::io::Write;

    /// `dir/file` with 17 bytes, mode 0640, by other programs: `bzip2` and `xz`.
    const BZIP2: &str = "425a68393141592653592eeeea53000074fb80ca1020004000ff8000407765de3008082000751147ea807a9901ea00da9a3d4124927908da130264d309e92c691c8410f084223f9f38d533d021945c75022fa190f64612916734842ba16f472034aa7306409d161a2c37a60cbe2c4050ccdf48bd241d8bb9229c28481777752980";
    const XZ: &str = "fd377a585a000004e6d6b4460200210116000000742fe5a3e027ff00755d00321a4aa7257991128e38af49bd5c362924d5a7bfc7129450cf4c7502d3b4998431dc1b47efbd25add67804966c39eb9f89a0262e85876dc5ae3ab9297b5c10ffd4ed94ec9cd6b271f01d417e96604bcb5543583ba357697c95052603b2690afdf3592cb8f0b79d6fb54710d26007635cb0d2be00000000000011c3434f2a347fee000191018050000000a0eaa9b1c467fb020000000004595a";

    fn bytes(hex: &str) -> Vec<u8> {
        let digits = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        (0..hex.len()).step_by(2).map(digits).collect()
    }

    fn tar(size: usize) -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(size as u64);
        header.set_mode(0o640);
        archive
            .append_data(&mut header, "dir/file", &vec![b'x'; size][..])
            .unwrap();
        archive.into_inner().unwrap()
    }

    fn bzip2(plain: &[u8]) -> Vec<u8> {
        let mut out = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::best());
        out.write_all(plain).unwrap();
        out.finish().unwrap()
    }

    fn unpacked(store: &ImageStore, archive: &[u8]) -> Result<String> {
        let to = store.scratch_layer(&[])?;
        store.unpack_archive("x", &mut &archive[..], &to)?;
        Ok(std::fs::read_to_string(to.upper().join("dir/file")).unwrap())
    }

    #[test]
    fn archives_of_every_compression_are_unpacked() {
        let dir = tempfile::tempdir().unwrap();
        let store = ImageStore::open(dir.path()).unwrap();
        let plain = tar(3);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&plain).unwrap();
        let (one, two) = plain.split_at(700);
        let streams = [bzip2(one), bzip2(two)].concat();
        for archive in [
            plain.clone(),
            gzip.finish().unwrap(),
            zstd::bulk::compress(&plain, 3).unwrap(),
            bzip2(&plain),
            streams,
        ] {
            assert!(store.is_archive(&mut &archive[..]).unwrap());
            assert_eq!(unpacked(&store, &archive).unwrap(), "xxx");
        }
        for archive in [bytes(BZIP2), bytes(XZ)] {
            assert!(store.is_archive(&mut &archive[..]).unwrap());
            assert_eq!(unpacked(&store, &archive).unwrap(), "by another bzip2\n");
            // Cut short it is damaged, and no half of it is good.
            assert!(unpacked(&store, &archive[..archive.len() - 20]).is_err());
        }
        for text in [&b"BZh9 is how it begins"[..], b"\xfd7zXZ\0 too", b"text", b""] {
            assert!(!store.is_archive(&mut &text[..]).unwrap());
        }
        assert!(!store.is_archive(&mut &bzip2(b"no tar")[..]).unwrap());
    }

    #[test]
    fn an_archive_that_unpacks_to_more_than_a_layer_may_have_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let mut options = StoreOptions::default();
        options.limits.layer_bytes = 1 << 20;
        let store = ImageStore::open_with(dir.path(), options).unwrap();
        let archive = bzip2(&tar(8 << 20));
        assert!(archive.len() < 10_000);
        let error = unpacked(&store, &archive).unwrap_err();
        assert!(
            error.to_string().contains("limit") || matches!(error, Error::Limit { .. }),
            "{error}"
        );
    }

    #[test]
    fn an_xz_stream_gets_no_more_memory_than_it_may() {
        let dir = tempfile::tempdir().unwrap();
        let store = ImageStore::open(dir.path()).unwrap();
        // The header of the block asks for 4 GiB, the most there is; its checksum is right.
        let archive = bytes(
            "fd377a585a000004e6d6b4460200210128000000e6a011b3e027ff00755d00321a4aa7257991128e38af49bd5c362924d5a7bfc7129450cf4c7502d3b4998431dc1b47efbd25add67804966c39eb9f89a0262e85876dc5ae3ab9297b5c10ffd4ed94ec9cd6b271f01d417e96604bcb5543583ba357697c95052603b2690afdf3592cb8f0b79d6fb54710d26007635cb0d2be00000000000011c3434f2a347fee000191018050000000a0eaa9b1c467fb020000000004595a",
        );
        assert!(!store.is_archive(&mut &archive[..]).unwrap());
        let error = unpacked(&store, &archive).unwrap_err();
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        assert!(cause.unwrap_or_default().contains("mem"), "{error}");
    }
}
