//! Headers of members that are written: ustar, with PAX records for what does not fit there. The same member always
//! gives the same bytes, and digests of layers depend on them.
use super::header::BLOCK;

/// Fields of an ustar header that hold octal numbers of 7 and 11 digits.
const ID_MAX: u64 = 0o7_777_777;
const SIZE_MAX: u64 = 0o77_777_777_777;

/// What ends an archive.
pub const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

/// One member of an archive to write. Its data follows the header, and [`padding`] the data.
#[derive(Clone, Debug, Default)]
pub struct Member<'a> {
    /// Its name; a directory's ends in a slash.
    pub path: &'a [u8],
    /// The type flag of ustar: `b'0'` is a file, `b'5'` a directory.
    pub kind: u8,
    /// Permission bits, including set-id and sticky.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Bytes of data.
    pub size: u64,
    /// Seconds since 1970 and nanoseconds.
    pub mtime: (i64, u32),
    /// Target of a hard link or symlink.
    pub link: &'a [u8],
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Its extended attributes: names and values.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Member<'_> {
    /// The header, whole blocks: that of ustar, and before it a PAX header where something is too large, too long, not
    /// ASCII, or not known to ustar (POSIX.1-2001, pax).
    pub fn header(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(BLOCK);
        let records = self.records();
        if !records.is_empty() {
            let last = self.path.rsplit(|&b| b == b'/').find(|part| !part.is_empty());
            let mut name = b"PaxHeaders.0/".to_vec();
            let shown = last.unwrap_or_default().iter().copied();
            name.extend(shown.filter(u8::is_ascii).take(80));
            let extended = Member {
                path: &name,
                kind: b'x',
                mode: 0o644,
                size: records.len() as u64,
                ..Member::default()
            };
            extended.block(&mut out);
            out.extend_from_slice(&records);
            out.extend_from_slice(padding(records.len() as u64));
        }
        self.block(&mut out);
        out
    }

    fn records(&self) -> Vec<u8> {
        let mut records = Vec::new();
        let plain = |text: &[u8]| text.len() <= 100 && text.is_ascii();
        if !plain(self.path) {
            record(&mut records, b"path", self.path);
        }
        if !plain(self.link) {
            record(&mut records, b"linkpath", self.link);
        }
        for (name, value, most) in [
            (&b"uid"[..], self.uid.into(), ID_MAX),
            (b"gid", self.gid.into(), ID_MAX),
            (b"size", self.size, SIZE_MAX),
        ] {
            if value > most {
                record(&mut records, name, value.to_string().as_bytes());
            }
        }
        let (seconds, nanos) = self.mtime;
        if nanos != 0 || seconds < 0 || seconds.cast_unsigned() > SIZE_MAX {
            record(&mut records, b"mtime", time(seconds, nanos).as_bytes());
        }
        for (name, value) in &self.xattrs {
            record(&mut records, &[b"SCHILY.xattr.", &name[..]].concat(), value);
        }
        records
    }

    fn block(&self, out: &mut Vec<u8>) {
        let mut block = tar::Header::new_ustar();
        let put = |field: &mut [u8], text: &[u8]| {
            let count = text.len().min(field.len());
            field[..count].copy_from_slice(&text[..count]);
        };
        {
            let old = block.as_old_mut();
            put(&mut old.name, self.path);
            put(&mut old.linkname, self.link);
            old.linkflag = [self.kind];
        }
        let fitting = |value: u64, most: u64| if value > most { 0 } else { value };
        block.set_mode(self.mode);
        block.set_uid(fitting(self.uid.into(), ID_MAX));
        block.set_gid(fitting(self.gid.into(), ID_MAX));
        block.set_size(fitting(self.size, SIZE_MAX));
        block.set_mtime(fitting(u64::try_from(self.mtime.0).unwrap_or(0), SIZE_MAX));
        let (major, minor) = self.device;
        // An ustar header, which this is, has both fields.
        let _ = block.set_device_major(fitting(major.into(), ID_MAX) as u32);
        let _ = block.set_device_minor(fitting(minor.into(), ID_MAX) as u32);
        block.set_cksum();
        out.extend_from_slice(block.as_bytes());
    }
}

/// The zeros that fill up the last block of so many bytes.
pub fn padding(size: u64) -> &'static [u8] {
    let used = (size % BLOCK as u64) as usize;
    &END[..(BLOCK - used) % BLOCK]
}

/// Seconds with a decimal fraction, perhaps negative; nanoseconds count forward from the second.
fn time(seconds: i64, nanos: u32) -> String {
    match (seconds, nanos) {
        (seconds, 0) => seconds.to_string(),
        (0.., nanos) => format!("{seconds}.{nanos:09}"),
        // One and a half before 1970 is the second -2 and half a second more.
        (-1, nanos) => format!("-0.{:09}", 1_000_000_000 - nanos),
        (seconds, nanos) => format!("{}.{:09}", seconds + 1, 1_000_000_000 - nanos),
    }
}

/// A PAX record: its own length in decimal digits, the name, the value.
fn record(records: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    let rest = name.len() + value.len() + 3;
    let mut length = rest + rest.to_string().len();
    if length.to_string().len() != rest.to_string().len() {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(length.to_string().as_bytes());
    records.push(b' ');
    records.extend_from_slice(name);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tarstream::{Kind, TarReader};
    use proptest::prelude::*;

    #[test]
    fn the_length_of_a_record_counts_itself() {
        for value in [0, 1, 80, 86, 87, 88, 89, 90, 980, 985, 990, 9970, 9985, 9990] {
            let mut records = Vec::new();
            record(&mut records, b"path", &vec![b'x'; value]);
            let text = String::from_utf8(records.clone()).unwrap();
            let length: usize = text.split(' ').next().unwrap().parse().unwrap();
            assert_eq!(length, records.len());
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            path in "[a-zé/]{1,150}[a-z]", link in "[a-zé]{0,150}", data in prop::collection::vec(any::<u8>(), 0..1500),
            mtime in (-5_i64..1 << 40, prop_oneof![Just(0_u32), 0..1_000_000_000_u32]),
            ids in (0..u32::MAX, 0..u32::MAX), value in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let member = Member {
                path: path.as_bytes(), kind: b'0', mode: 0o4751, uid: ids.0, gid: ids.1, size: data.len() as u64, mtime,
                link: link.as_bytes(), xattrs: vec![(b"user.x".to_vec(), value.clone())], ..Member::default()
            };
            let mut tar = member.header();
            tar.extend_from_slice(&data);
            tar.extend_from_slice(padding(data.len() as u64));
            tar.extend_from_slice(&END);
            prop_assert_eq!(tar.len() % BLOCK, 0);
            let mut reader = TarReader::new(&tar[..]);
            let entry = reader.next_entry().unwrap().unwrap();
            prop_assert_eq!(&entry.name, path.as_bytes());
            prop_assert_eq!(&entry.link, link.as_bytes());
            prop_assert_eq!((entry.kind, entry.mode, entry.uid, entry.gid), (Kind::File, 0o4751, ids.0, ids.1));
            prop_assert_eq!(entry.mtime, mtime);
            prop_assert_eq!(&entry.xattrs, &member.xattrs);
            prop_assert_eq!(reader.data().unwrap(), &data[..]);
            prop_assert!(reader.next_entry().unwrap().is_none());
        }
    }
}
