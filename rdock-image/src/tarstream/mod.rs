//! A streaming tar reader: ustar, PAX (local and global), GNU long names, GNU sparse files, base-256 numbers.
//!
//! It never allocates by a header's claim, treats a malformed header as an error instead of skipping it, and lets
//! a PAX size win over the header's own (parsers that disagree about a size see different entries).
mod header;
mod member;
mod pax;
mod sparse;

use header::{BLOCK, Header};
pub use member::{END, Member, padding};
use pax::Records;
use std::io::{self, BufRead};

/// Extension headers (PAX bodies, long names) beyond this many bytes are refused, one or all that hold at a time.
const EXTENSION_MAX: u64 = 1 << 20;

/// Why a tar cannot be read.
#[derive(Debug)]
pub enum TarError {
    /// The bytes are not a tar, or not one that may be trusted.
    Malformed(String),
    /// The stream below failed.
    Io(io::Error),
}

impl TarError {
    fn malformed(reason: impl Into<String>) -> Self {
        Self::Malformed(reason.into())
    }
}

impl From<io::Error> for TarError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Extended attributes: names and values.
pub type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// What an entry makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// Another name of a file that came before.
    HardLink,
    /// A symbolic link.
    Symlink,
    /// A character device.
    Char,
    /// A block device.
    Block,
    /// A directory.
    Dir,
    /// A named pipe.
    Fifo,
}

/// One entry, all its extension headers applied.
#[derive(Clone, Debug)]
pub struct Entry {
    /// As written: not yet checked for anything but NUL bytes.
    pub name: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Target of a hard link or symlink.
    pub link: Vec<u8>,
    /// Bytes of data in the tar; less than `real_size` for a sparse file.
    pub size: u64,
    /// Bytes of the file.
    pub real_size: u64,
    /// Offset and length of each piece of a sparse file, ascending.
    pub sparse: Option<Vec<(u64, u64)>>,
    /// Permission bits, including set-id and sticky.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Seconds since 1970 and nanoseconds.
    pub mtime: (i64, u32),
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Its extended attributes.
    pub xattrs: Xattrs,
    /// Where the data starts in the tar.
    pub offset: u64,
}

/// Reads entries from `R`. After the last one, bytes beyond the end marker are left unread.
#[derive(Debug)]
pub struct TarReader<R> {
    input: R,
    /// Bytes taken from `input`.
    position: u64,
    data_left: u64,
    padding: u64,
    global: Records,
    done: bool,
}

impl<R: BufRead> TarReader<R> {
    /// Reads the tar that begins here.
    pub fn new(input: R) -> Self {
        Self {
            input,
            position: 0,
            data_left: 0,
            padding: 0,
            global: Records::default(),
            done: false,
        }
    }

    /// Gives the stream back.
    pub fn into_inner(self) -> R {
        self.input
    }

    /// Returns the next entry, skipping what is left of the last one's data.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        self.skip(self.data_left)?;
        self.data_left = 0;
        self.skip(self.padding)?;
        self.padding = 0;
        if self.done {
            return Ok(None);
        }
        let mut local = Records::default();
        let (mut long_name, mut long_link) = (None, None);
        let mut extended = false;
        loop {
            let Some(block) = self.block()? else {
                if extended {
                    return Err(TarError::malformed("the tar ends after an extension header"));
                }
                self.done = true;
                return Ok(None);
            };
            if block.iter().all(|&b| b == 0) {
                match self.block()? {
                    Some(second) if second.iter().any(|&b| b != 0) => {
                        return Err(TarError::malformed("a single zero block within the tar"));
                    }
                    _ if extended => {
                        return Err(TarError::malformed("the tar ends after an extension header"));
                    }
                    _ => {}
                }
                self.done = true;
                return Ok(None);
            }
            let header = Header(&block);
            header.check()?;
            match header.kind() {
                b'x' => local.merge(pax::parse(&self.extension(header.size()?)?)?)?,
                b'g' => {
                    let records = pax::parse(&self.extension(header.size()?)?)?;
                    self.global.merge(records)?;
                    continue;
                }
                b'L' => long_name = Some(header::until_nul(&self.extension(header.size()?)?).to_vec()),
                b'K' => long_link = Some(header::until_nul(&self.extension(header.size()?)?).to_vec()),
                kind => return self.entry(&block, kind, &local, long_name, long_link).map(Some),
            }
            extended = true;
        }
    }

    fn entry(
        &mut self,
        block: &[u8; BLOCK],
        type_flag: u8,
        local: &Records,
        long_name: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> Result<Entry, TarError> {
        let header = Header(block);
        let records = |key: &[u8]| local.get(key, &self.global);
        let sparse_pax = pax::sparse_version(&records)?;
        let name = match records(b"GNU.sparse.name")
            .filter(|_| sparse_pax.is_some())
            .or_else(|| records(b"path"))
        {
            Some(path) => path.to_vec(),
            None => long_name.unwrap_or_else(|| header.name()),
        };
        let link = match records(b"linkpath") {
            Some(path) => path.to_vec(),
            None => long_link.unwrap_or_else(|| header.link().to_vec()),
        };
        if name.contains(&0) || link.contains(&0) {
            return Err(TarError::malformed("a name with a NUL byte"));
        }
        let kind = match type_flag {
            b'0' | b'7' | b'S' => Kind::File,
            0 if name.ends_with(b"/") => Kind::Dir,
            0 => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::Char,
            b'4' => Kind::Block,
            b'5' => Kind::Dir,
            b'6' => Kind::Fifo,
            other => {
                return Err(TarError::malformed(format!(
                    "unknown entry type {:?}",
                    char::from(other)
                )));
            }
        };
        let size = match records(b"size") {
            Some(text) => pax::number(text, "size")?,
            None => header.size()?,
        };
        // Links, directories and devices have no data, whatever their size field says.
        let mut size = if kind == Kind::File { size } else { 0 };
        let mode = header.mode()?;
        let uid = self.id(records(b"uid"), header.uid()?)?;
        let gid = self.id(records(b"gid"), header.gid()?)?;
        let mtime = match records(b"mtime") {
            Some(text) => pax::time(text)?,
            None => (header.mtime()?, 0),
        };
        let xattrs = pax::xattrs(local, &self.global)?;
        let mut real_size = size;
        let mut sparse = None;
        let stored = size;
        if kind == Kind::File {
            if type_flag == b'S' {
                real_size = header.sparse_real_size()?;
                let mut map = Vec::new();
                let mut more = sparse::old_entries(&block[386..482], &mut map)? && block[482] != 0;
                while more {
                    let block = self
                        .block()?
                        .ok_or_else(|| TarError::malformed("the tar ends in a sparse map"))?;
                    more = sparse::old_entries(&block[..504], &mut map)? && block[504] != 0;
                }
                sparse = Some(map);
            } else if let Some(version) = sparse_pax {
                real_size = match records(b"GNU.sparse.realsize").or_else(|| records(b"GNU.sparse.size")) {
                    Some(text) => pax::number(text, "GNU.sparse.realsize")?,
                    None => return Err(TarError::malformed("a sparse file without its real size")),
                };
                let map = match version {
                    pax::Sparse::Map => sparse::from_list(records(b"GNU.sparse.map").unwrap_or_default())?,
                    pax::Sparse::InData => {
                        self.data_left = size;
                        self.padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
                        let (map, used) = self.sparse_map_in_data()?;
                        size -= used;
                        map
                    }
                };
                sparse = Some(map);
            }
            if let Some(map) = &sparse {
                sparse::check(map, size, real_size)?;
            }
        }
        self.data_left = size;
        self.padding = (BLOCK as u64 - stored % BLOCK as u64) % BLOCK as u64;
        Ok(Entry {
            name,
            kind,
            link,
            size,
            real_size,
            sparse,
            mode,
            uid,
            gid,
            mtime,
            device: header.device()?,
            xattrs,
            offset: self.position,
        })
    }

    fn id(&self, record: Option<&[u8]>, header: u64) -> Result<u32, TarError> {
        let id = match record {
            Some(text) => pax::number(text, "an id")?,
            None => header,
        };
        // The last one means "unchanged" to chown.
        match u32::try_from(id) {
            Ok(id) if id != u32::MAX => Ok(id),
            _ => Err(TarError::malformed(format!(
                "the user or group id {id} is too large"
            ))),
        }
    }

    /// GNU's sparse format 1.0: decimal lines at the start of the data, padded to a block.
    fn sparse_map_in_data(&mut self) -> Result<(Vec<(u64, u64)>, u64), TarError> {
        let mut lines = sparse::Lines::default();
        let mut used = 0;
        loop {
            if self.data_left < BLOCK as u64 {
                return Err(TarError::malformed("a sparse map longer than the file"));
            }
            let block = self
                .block()?
                .ok_or_else(|| TarError::malformed("the tar ends in a sparse map"))?;
            self.data_left -= BLOCK as u64;
            used += BLOCK as u64;
            if let Some(map) = lines.feed(&block)? {
                return Ok((map, used));
            }
        }
    }

    /// The stream below.
    pub(crate) fn input_mut(&mut self) -> &mut R {
        &mut self.input
    }

    /// Lets `jump` move the input past what is left of the current entry, where that is faster than reading.
    pub fn jump(&mut self, jump: impl FnOnce(&mut R, u64) -> io::Result<()>) -> io::Result<()> {
        let count = self.data_left + self.padding;
        jump(&mut self.input, count)?;
        self.position += count;
        self.data_left = 0;
        self.padding = 0;
        Ok(())
    }

    /// Returns some of the current entry's data; nothing at its end.
    pub fn data(&mut self) -> Result<&[u8], TarError> {
        if self.data_left == 0 {
            return Ok(&[]);
        }
        let left = usize::try_from(self.data_left).unwrap_or(usize::MAX);
        let chunk = self.input.fill_buf()?;
        if chunk.is_empty() {
            return Err(TarError::malformed("the tar ends within a file"));
        }
        Ok(&chunk[..chunk.len().min(left)])
    }

    /// Says that `count` bytes of what [`TarReader::data`] returned are used up.
    pub fn consume(&mut self, count: usize) {
        self.input.consume(count);
        self.position += count as u64;
        self.data_left -= count as u64;
    }

    /// The next block; `None` at a clean end of the stream.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, TarError> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            let chunk = self.input.fill_buf()?;
            if chunk.is_empty() {
                if filled == 0 {
                    return Ok(None);
                }
                return Err(TarError::malformed("the tar ends within a header"));
            }
            let count = chunk.len().min(BLOCK - filled);
            block[filled..filled + count].copy_from_slice(&chunk[..count]);
            self.input.consume(count);
            filled += count;
        }
        self.position += BLOCK as u64;
        Ok(Some(block))
    }

    /// The body of an extension header.
    fn extension(&mut self, size: u64) -> Result<Vec<u8>, TarError> {
        if size > EXTENSION_MAX {
            return Err(TarError::malformed(format!(
                "an extension header of {size} bytes"
            )));
        }
        let mut body = Vec::new();
        while (body.len() as u64) < size {
            let block = self
                .block()?
                .ok_or_else(|| TarError::malformed("the tar ends in an extension header"))?;
            let wanted = usize::try_from(size).unwrap_or(usize::MAX) - body.len();
            body.extend_from_slice(&block[..wanted.min(BLOCK)]);
        }
        Ok(body)
    }

    fn skip(&mut self, mut count: u64) -> Result<(), TarError> {
        while count > 0 {
            let chunk = self.input.fill_buf()?;
            if chunk.is_empty() {
                return Err(TarError::malformed("the tar ends within a file"));
            }
            let step = chunk.len().min(usize::try_from(count).unwrap_or(usize::MAX));
            self.input.consume(step);
            self.position += step as u64;
            count -= step as u64;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
