//! Compressed streams: gzip, zstd or plain, told apart by their first bytes as every engine does, since media types
//! are often wrong. Archives that are no layers may be xz and bzip2 as well.
use crate::digest::Hasher;
use flate2::{Decompress, FlushDecompress, Status};
use std::io::{self, BufReader, Read};
use zstd::stream::raw::{DParameter, InBuffer, Operation, OutBuffer};

/// 2^27 bytes, what `zstd --long` needs; a frame that asks for a larger window is refused.
const ZSTD_WINDOW_LOG: u32 = 27;
/// What an xz stream may want of memory, in KiB: thrice what the highest preset of xz wants.
const XZ_MEMORY: u32 = 192 << 10;
const INPUT: usize = 256 * 1024;

/// Why a stream cannot be inflated.
#[derive(Debug)]
pub(crate) enum InflateError {
    /// The reader failed.
    Stream(io::Error),
    /// The bytes are not what their first ones announce.
    Corrupt(String),
    /// More bytes came than were announced.
    TooLong,
    /// A known compression that layers do not use.
    Unsupported(&'static str),
}

/// What the first bytes of a stream say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    Plain,
    Gzip,
    Zstd,
    Xz,
    Bzip2,
}

impl Compression {
    pub(crate) fn detect(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Self::Bzip2,
            _ => Self::Plain,
        }
    }
}

/// Inflates a stream of a compression that archives have and layers have not; others stay as they are, for
/// [`Inflater`]. Its memory is bounded, whatever the stream says.
pub(crate) fn archived<'a>(compression: Compression, stream: impl Read + 'a) -> Box<dyn Read + 'a> {
    match compression {
        Compression::Xz => {
            let stream = BufReader::with_capacity(INPUT, stream);
            Box::new(lzma_rust2::XzReader::new_mem_limit(stream, true, XZ_MEMORY))
        }
        Compression::Bzip2 => Box::new(bzip2::read::MultiBzDecoder::new(stream)),
        Compression::Plain | Compression::Gzip | Compression::Zstd => Box::new(stream),
    }
}

/// Reads a compressed stream, hashing what it reads, and inflates it.
pub(crate) struct Inflater<'a> {
    stream: &'a mut dyn Read,
    hasher: Hasher,
    /// Bytes read from `stream`, and how many may be.
    taken: u64,
    limit: u64,
    input: Vec<u8>,
    start: usize,
    end: usize,
    at_end: bool,
    decoder: Option<Decoder>,
}

enum Decoder {
    Plain,
    Gzip(Gzip),
    Zstd {
        decoder: zstd::stream::raw::Decoder<'static>,
        in_frame: bool,
    },
}

struct Gzip {
    member: Decompress,
    /// Bytes of the member read so far; 0 between members.
    member_bytes: u64,
    /// Zero padding after the last member was seen.
    padded: bool,
}

impl<'a> Inflater<'a> {
    /// At most `limit` bytes are read from `stream`, and one more to see that there is no further one.
    pub(crate) fn new(stream: &'a mut dyn Read, hasher: Hasher, limit: u64) -> Self {
        let input = vec![0; INPUT];
        Self {
            stream,
            hasher,
            taken: 0,
            limit,
            input,
            start: 0,
            end: 0,
            at_end: false,
            decoder: None,
        }
    }

    /// Compressed bytes read so far.
    pub(crate) fn taken(&self) -> u64 {
        self.taken
    }

    /// How many bytes may be read.
    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    /// The hash of all that was read; complete after the end or after [`Inflater::drain`].
    pub(crate) fn into_hasher(self) -> Hasher {
        self.hasher
    }

    /// Reads on to the stream's end without inflating.
    pub(crate) fn drain(&mut self) -> Result<(), InflateError> {
        while !self.at_end {
            self.start = self.end;
            self.refill()?;
        }
        Ok(())
    }

    /// Fills `out` and returns how much was written; less than its length only at the clean end.
    pub(crate) fn fill(&mut self, out: &mut [u8]) -> Result<usize, InflateError> {
        let mut filled = 0;
        while filled < out.len() {
            let count = self.step(&mut out[filled..])?;
            if count == 0 {
                break;
            }
            filled += count;
        }
        Ok(filled)
    }

    fn step(&mut self, out: &mut [u8]) -> Result<usize, InflateError> {
        if self.decoder.is_none() {
            self.refill()?;
            self.decoder = Some(match Compression::detect(&self.input[..self.end]) {
                Compression::Plain => Decoder::Plain,
                Compression::Gzip => Decoder::Gzip(Gzip {
                    member: Decompress::new_gzip(15),
                    member_bytes: 0,
                    padded: false,
                }),
                Compression::Zstd => {
                    let corrupt = |e: io::Error| InflateError::Corrupt(e.to_string());
                    let mut decoder = zstd::stream::raw::Decoder::new().map_err(corrupt)?;
                    decoder
                        .set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG))
                        .map_err(corrupt)?;
                    Decoder::Zstd {
                        decoder,
                        in_frame: false,
                    }
                }
                Compression::Xz => return Err(InflateError::Unsupported("xz")),
                Compression::Bzip2 => return Err(InflateError::Unsupported("bzip2")),
            });
        }
        loop {
            if self.start == self.end && !self.at_end {
                self.refill()?;
            }
            let Some(decoder) = &mut self.decoder else {
                return Ok(0);
            };
            let input = &self.input[self.start..self.end];
            let (used, made, finished) = match decoder {
                Decoder::Plain => {
                    let count = input.len().min(out.len());
                    out[..count].copy_from_slice(&input[..count]);
                    (count, count, true)
                }
                Decoder::Gzip(gzip) => gzip.step(input, out, self.at_end)?,
                Decoder::Zstd { decoder, in_frame } => {
                    if input.is_empty() && !*in_frame {
                        (0, 0, true)
                    } else {
                        let mut source = InBuffer::around(input);
                        let mut target = OutBuffer::around(&mut *out);
                        let hint = decoder
                            .run(&mut source, &mut target)
                            .map_err(|e| InflateError::Corrupt(e.to_string()))?;
                        let (used, made) = (source.pos(), target.pos());
                        if used > 0 || made > 0 {
                            *in_frame = hint != 0;
                        } else if self.at_end {
                            return Err(InflateError::Corrupt("the zstd stream is cut short".to_owned()));
                        }
                        (used, made, false)
                    }
                }
            };
            self.start += used;
            if made > 0 {
                return Ok(made);
            }
            if finished && self.start == self.end && self.at_end {
                return Ok(0);
            }
        }
    }

    fn refill(&mut self) -> Result<(), InflateError> {
        self.start = 0;
        self.end = 0;
        // A small first read would hide the magic bytes.
        loop {
            match self.stream.read(&mut self.input[self.end..]) {
                Ok(0) => {
                    self.at_end = true;
                    break;
                }
                Ok(count) => {
                    self.hasher.update(&self.input[self.end..self.end + count]);
                    self.end += count;
                    self.taken += count as u64;
                    if self.taken > self.limit {
                        return Err(InflateError::TooLong);
                    }
                    if self.taken >= 6 {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(InflateError::Stream(error)),
            }
        }
        Ok(())
    }
}

impl Gzip {
    /// Returns bytes used, bytes made, and whether a member just ended. Members may follow each other; after the
    /// last one only zero padding is allowed.
    fn step(
        &mut self,
        input: &[u8],
        out: &mut [u8],
        at_end: bool,
    ) -> Result<(usize, usize, bool), InflateError> {
        let corrupt = |reason: &str| InflateError::Corrupt(reason.to_owned());
        if self.member_bytes == 0 && (self.padded || input.first() == Some(&0)) {
            self.padded = true;
            return match input.iter().all(|&b| b == 0) {
                true => Ok((input.len(), 0, true)),
                false => Err(corrupt("bytes after the end of the gzip stream")),
            };
        }
        if input.is_empty() && at_end {
            return match self.member_bytes {
                0 => Ok((0, 0, true)),
                _ => Err(corrupt("the gzip stream is cut short")),
            };
        }
        let (before_in, before_out) = (self.member.total_in(), self.member.total_out());
        let status = self
            .member
            .decompress(input, out, FlushDecompress::None)
            .map_err(|error| InflateError::Corrupt(format!("gzip: {error}")))?;
        let used = (self.member.total_in() - before_in) as usize;
        let made = (self.member.total_out() - before_out) as usize;
        self.member_bytes += used as u64;
        if status == Status::StreamEnd {
            self.member = Decompress::new_gzip(15);
            self.member_bytes = 0;
            return Ok((used, made, true));
        }
        if used == 0 && made == 0 && at_end {
            return Err(corrupt("the gzip stream is cut short"));
        }
        Ok((used, made, false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn inflate(bytes: &[u8], out_size: usize) -> Result<Vec<u8>, InflateError> {
        let mut source: &[u8] = bytes;
        let mut inflater = Inflater::new(&mut source, Hasher::sha256(), u64::MAX - 1);
        let (mut all, mut out) = (Vec::new(), vec![0; out_size]);
        loop {
            let count = inflater.fill(&mut out)?;
            all.extend_from_slice(&out[..count]);
            if count < out.len() {
                assert_eq!(inflater.taken(), bytes.len() as u64);
                return Ok(all);
            }
        }
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn all_forms_give_the_same_bytes() {
        let text: Vec<u8> = (0..700_000_u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        let (first, second) = text.split_at(100_001);
        let members = [gzip(first), gzip(second)].concat();
        let mut skippable = vec![0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];
        skippable.extend(zstd::bulk::compress(first, 3).unwrap());
        skippable.extend([0x5f, 0x2a, 0x4d, 0x18, 0, 0, 0, 0]);
        skippable.extend(zstd::bulk::compress(second, 3).unwrap());
        for form in [text.clone(), gzip(&text), members, skippable] {
            for size in [1000, 65_536, 4 << 20] {
                assert!(inflate(&form, size).unwrap() == text);
            }
        }
        assert!(inflate(b"", 10).unwrap().is_empty());
    }

    #[test]
    fn cut_streams_are_errors_and_padding_is_not() {
        let text = vec![7; 100_000];
        for form in [gzip(&text), zstd::bulk::compress(&text, 3).unwrap()] {
            for keep in [form.len() - 1, form.len() / 2, 8] {
                assert!(
                    inflate(&form[..keep], 65_536).is_err(),
                    "{keep} of {}",
                    form.len()
                );
            }
        }
        let padded = [gzip(&text), vec![0; 512]].concat();
        assert_eq!(inflate(&padded, 65_536).unwrap(), text);
        let garbage = [gzip(&text), vec![0xaa; 512]].concat();
        assert!(inflate(&garbage, 65_536).is_err());
    }
}
