//! Maps of sparse files: which pieces of the file the tar holds.
use super::TarError;
use super::header::{BLOCK, unsigned};

/// More pieces than this are refused; each costs 16 bytes of memory.
const PIECES_MAX: usize = 1 << 18;

/// Reads the 24-byte pieces of GNU's old format; `false` when the list ended within `fields`.
pub(super) fn old_entries(fields: &[u8], map: &mut Vec<(u64, u64)>) -> Result<bool, TarError> {
    for piece in fields.chunks_exact(24) {
        if piece[0] == 0 {
            return Ok(false);
        }
        push(
            map,
            unsigned(&piece[..12], "offset")?,
            unsigned(&piece[12..], "length")?,
        )?;
    }
    Ok(true)
}

/// `offset,length,offset,length`
pub(super) fn from_list(text: &[u8]) -> Result<Vec<(u64, u64)>, TarError> {
    let mut map = Vec::new();
    let mut numbers = text
        .split(|&b| b == b',')
        .map(|text| super::pax::number(text, "a sparse map"));
    while let Some(offset) = numbers.next() {
        let length = numbers
            .next()
            .ok_or_else(|| TarError::malformed("a sparse map with an odd number of fields"))?;
        push(&mut map, offset?, length?)?;
    }
    Ok(map)
}

/// The lines of GNU's format 1.0: the number of pieces, then offset and length of each.
#[derive(Default)]
pub(super) struct Lines {
    rest: Vec<u8>,
    pieces: Option<u64>,
    offset: Option<u64>,
    map: Vec<(u64, u64)>,
}

impl Lines {
    /// Takes the next block; returns the map when it is complete.
    pub(super) fn feed(&mut self, block: &[u8; BLOCK]) -> Result<Option<Vec<(u64, u64)>>, TarError> {
        self.rest.extend_from_slice(block);
        let mut used = 0;
        while self.pieces != Some(self.map.len() as u64) {
            let Some(end) = self.rest[used..].iter().position(|&b| b == b'\n') else {
                if self.rest.len() - used > BLOCK {
                    return Err(TarError::malformed("a sparse map without line ends"));
                }
                self.rest.drain(..used);
                return Ok(None);
            };
            let number = super::pax::number(&self.rest[used..used + end], "a sparse map")?;
            used += end + 1;
            match (self.pieces, self.offset.take()) {
                (None, _) => {
                    if number > PIECES_MAX as u64 {
                        return Err(TarError::malformed(format!("a sparse file of {number} pieces")));
                    }
                    self.pieces = Some(number);
                }
                (Some(_), None) => self.offset = Some(number),
                (Some(_), Some(offset)) => push(&mut self.map, offset, number)?,
            }
        }
        Ok(Some(std::mem::take(&mut self.map)))
    }
}

fn push(map: &mut Vec<(u64, u64)>, offset: u64, length: u64) -> Result<(), TarError> {
    if map.len() >= PIECES_MAX {
        return Err(TarError::malformed(format!(
            "a sparse file of more than {PIECES_MAX} pieces"
        )));
    }
    map.push((offset, length));
    Ok(())
}

/// Pieces ascend, lie within the file, and make up the data in the tar.
pub(super) fn check(map: &[(u64, u64)], size: u64, real_size: u64) -> Result<(), TarError> {
    let malformed = || TarError::malformed("a sparse map that does not fit its file");
    let (mut end, mut total) = (0_u64, 0_u64);
    for &(offset, length) in map {
        if offset < end {
            return Err(malformed());
        }
        end = offset.checked_add(length).ok_or_else(malformed)?;
        total = total.checked_add(length).ok_or_else(malformed)?;
    }
    if end > real_size || total != size || real_size > i64::MAX as u64 {
        return Err(malformed());
    }
    Ok(())
}
