//! `Content-Encoding`: some servers encode what nobody asked them to. It is undone in small steps, so that a
//! little input cannot become a lot of memory.

use bytes::Bytes;
use std::collections::VecDeque;
use std::fmt;
use std::io::Write;

/// Input is decoded in steps of so many bytes: a step of gzip makes at most 1,032 times as much.
const STEP: usize = 64;

/// Undoes codings, the last applied first.
pub(super) struct Decoder {
    stages: Vec<Stage>,
    input: VecDeque<Bytes>,
}

enum Stage {
    Gzip(flate2::write::MultiGzDecoder<Vec<u8>>),
    Zlib(flate2::write::ZlibDecoder<Vec<u8>>),
    /// What its first byte says is not known yet: some servers send raw deflate for `deflate`.
    Deflate,
    Raw(flate2::write::DeflateDecoder<Vec<u8>>),
    Zstd(Box<zstd::stream::write::Decoder<'static, Vec<u8>>>),
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Decoder(..)")
    }
}

impl Decoder {
    /// The codings of a header that change the body, in the order they were applied.
    pub(super) fn codings(header: &str) -> impl Iterator<Item = &str> {
        header
            .split(',')
            .map(str::trim)
            .filter(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case("identity"))
    }

    pub(super) fn new(header: &str) -> Result<Self, String> {
        let mut stages = Vec::new();
        for coding in Self::codings(header) {
            stages.push(match coding.to_ascii_lowercase().as_str() {
                "gzip" | "x-gzip" => Stage::Gzip(flate2::write::MultiGzDecoder::new(Vec::new())),
                "deflate" => Stage::Deflate,
                "zstd" => {
                    let decoder =
                        zstd::stream::write::Decoder::new(Vec::new()).map_err(|error| error.to_string())?;
                    Stage::Zstd(Box::new(decoder))
                }
                other => return Err(format!("unknown coding {other:?}")),
            });
        }
        if stages.len() > 4 {
            return Err(format!("{} codings on one another", stages.len()));
        }
        stages.reverse();
        Ok(Self {
            stages,
            input: VecDeque::new(),
        })
    }

    pub(super) fn feed(&mut self, input: Bytes) {
        self.input.push_back(input);
    }

    /// Decoded bytes; `None` when more input is needed.
    pub(super) fn next(&mut self) -> Result<Option<Bytes>, String> {
        while let Some(mut front) = self.input.pop_front() {
            let step = front.split_to(front.len().min(STEP));
            if !front.is_empty() {
                self.input.push_front(front);
            }
            let mut bytes = step.to_vec();
            for stage in &mut self.stages {
                bytes = stage.decode(&bytes)?;
            }
            if !bytes.is_empty() {
                return Ok(Some(bytes.into()));
            }
        }
        Ok(None)
    }

    /// The rest, when the input has ended.
    pub(super) fn finish(&mut self) -> Result<Option<Bytes>, String> {
        let mut bytes = Vec::new();
        for stage in &mut self.stages {
            bytes = stage.decode(&bytes)?;
            bytes.extend(stage.finish()?);
        }
        Ok((!bytes.is_empty()).then(|| bytes.into()))
    }
}

impl Stage {
    fn decode(&mut self, input: &[u8]) -> Result<Vec<u8>, String> {
        if matches!(self, Self::Deflate) {
            match input.first() {
                None => return Ok(Vec::new()),
                // RFC 1950: the low four bits of the first byte are 8.
                Some(first) if first & 0x0f == 8 => {
                    *self = Self::Zlib(flate2::write::ZlibDecoder::new(Vec::new()));
                }
                Some(_) => *self = Self::Raw(flate2::write::DeflateDecoder::new(Vec::new())),
            }
        }
        let written = match self {
            Self::Gzip(decoder) => decoder.write_all(input).and_then(|()| decoder.flush()),
            Self::Zlib(decoder) => decoder.write_all(input).and_then(|()| decoder.flush()),
            Self::Raw(decoder) => decoder.write_all(input).and_then(|()| decoder.flush()),
            Self::Zstd(decoder) => decoder.write_all(input).and_then(|()| decoder.flush()),
            Self::Deflate => Ok(()),
        };
        written.map_err(|error| error.to_string())?;
        Ok(self.taken())
    }

    fn taken(&mut self) -> Vec<u8> {
        match self {
            Self::Gzip(decoder) => std::mem::take(decoder.get_mut()),
            Self::Zlib(decoder) => std::mem::take(decoder.get_mut()),
            Self::Raw(decoder) => std::mem::take(decoder.get_mut()),
            Self::Zstd(decoder) => std::mem::take(decoder.get_mut()),
            Self::Deflate => Vec::new(),
        }
    }

    fn finish(&mut self) -> Result<Vec<u8>, String> {
        let finished = match self {
            Self::Gzip(decoder) => decoder.try_finish(),
            Self::Zlib(decoder) => decoder.try_finish(),
            Self::Raw(decoder) => decoder.try_finish(),
            Self::Zstd(decoder) => decoder.flush(),
            Self::Deflate => Ok(()),
        };
        finished.map_err(|error| error.to_string())?;
        Ok(self.taken())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encode(coding: &str, plain: &[u8]) -> Vec<u8> {
        let level = flate2::Compression::fast();
        match coding {
            "gzip" => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
                encoder.write_all(plain).expect("to memory");
                encoder.finish().expect("to memory")
            }
            "deflate" => {
                let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), level);
                encoder.write_all(plain).expect("to memory");
                encoder.finish().expect("to memory")
            }
            _ => zstd::encode_all(plain, 1).expect("to memory"),
        }
    }

    fn decode(header: &str, encoded: &[u8]) -> Result<Vec<u8>, String> {
        let mut decoder = Decoder::new(header)?;
        let mut plain = Vec::new();
        for part in encoded.chunks(1000) {
            decoder.feed(Bytes::copy_from_slice(part));
            while let Some(bytes) = decoder.next()? {
                plain.extend_from_slice(&bytes);
            }
        }
        plain.extend(decoder.finish()?.unwrap_or_default());
        Ok(plain)
    }

    #[test]
    fn codings_are_undone_in_reverse() {
        let plain = b"some content, some content, and some more".repeat(500);
        for codings in [
            &["gzip"][..],
            &["deflate"],
            &["zstd"],
            &["gzip", "zstd"],
            &["gzip", "deflate"],
        ] {
            let encoded = codings
                .iter()
                .fold(plain.clone(), |bytes, coding| encode(coding, &bytes));
            assert_eq!(
                decode(&codings.join(", "), &encoded).as_ref(),
                Ok(&plain),
                "{codings:?}"
            );
        }
        assert!(decode("br", b"").is_err());
    }

    #[test]
    fn a_bomb_comes_in_small_pieces() {
        let bomb = encode("gzip", &vec![0; 8 << 20]);
        let mut decoder = Decoder::new("gzip").expect("known");
        decoder.feed(bomb.into());
        let mut total = 0;
        while let Some(bytes) = decoder.next().expect("valid") {
            assert!(bytes.len() <= 2 * 1032 * STEP, "{}", bytes.len());
            total += bytes.len();
        }
        assert!(total >= 7 << 20);
    }

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300),
                                     header in "(gzip|deflate|zstd|br|,|identity| ){0,4}") {
            decode(&header, &bytes).ok();
        }
    }
}
