//! Writing of tar members: ustar, with PAX records for what does not fit.

use std::io::{self, Write};

const BLOCK: u64 = 512;
/// Octal numbers of 7 and 11 digits.
const ID_MAX: u64 = 0o7_777_777;
const SIZE_MAX: u64 = 0o77_777_777_777;

/// One member.
#[derive(Debug, Default)]
pub(super) struct Member<'a> {
    pub(super) path: &'a [u8],
    /// Type flag of ustar.
    pub(super) kind: u8,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) size: u64,
    pub(super) mtime: (i64, u32),
    pub(super) link: &'a [u8],
    pub(super) device: (u32, u32),
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Writes the header of a member.
pub(super) fn header(out: &mut dyn Write, member: &Member<'_>) -> io::Result<()> {
    let mut records = Vec::new();
    let plain = |text: &[u8]| text.len() <= 100 && text.is_ascii();
    if !plain(member.path) {
        record(&mut records, b"path", member.path);
    }
    if !plain(member.link) {
        record(&mut records, b"linkpath", member.link);
    }
    for (name, value, most) in [
        (&b"uid"[..], u64::from(member.uid), ID_MAX),
        (b"gid", member.gid.into(), ID_MAX),
        (b"size", member.size, SIZE_MAX),
    ] {
        if value > most {
            record(&mut records, name, value.to_string().as_bytes());
        }
    }
    let (seconds, nanos) = member.mtime;
    if nanos != 0 && seconds >= 0 {
        record(&mut records, b"mtime", format!("{seconds}.{nanos:09}").as_bytes());
    } else if seconds < 0 {
        record(&mut records, b"mtime", seconds.to_string().as_bytes());
    }
    for (name, value) in &member.xattrs {
        record(&mut records, &[b"SCHILY.xattr.", &name[..]].concat(), value);
    }
    if !records.is_empty() {
        block(
            out,
            &Member {
                path: b"PaxHeaders.0/member",
                kind: b'x',
                mode: 0o644,
                size: records.len() as u64,
                ..Member::default()
            },
        )?;
        out.write_all(&records)?;
        pad(out, records.len() as u64)?;
    }
    block(out, member)
}

/// Fills up the last block of a member's data.
pub(super) fn pad(out: &mut dyn Write, size: u64) -> io::Result<()> {
    let padding = (BLOCK - size % BLOCK) % BLOCK;
    out.write_all(&[0; BLOCK as usize][..padding as usize])
}

/// Ends the archive.
pub(super) fn end(out: &mut dyn Write) -> io::Result<()> {
    out.write_all(&[0; 2 * BLOCK as usize])
}

fn block(out: &mut dyn Write, member: &Member<'_>) -> io::Result<()> {
    let mut block = tar::Header::new_ustar();
    let put = |field: &mut [u8], text: &[u8]| {
        let count = text.len().min(field.len());
        field[..count].copy_from_slice(&text[..count]);
    };
    {
        let old = block.as_old_mut();
        put(&mut old.name, member.path);
        put(&mut old.linkname, member.link);
        old.linkflag = [member.kind];
    }
    let fitting = |value: u64, most: u64| if value > most { 0 } else { value };
    block.set_mode(member.mode);
    block.set_uid(fitting(member.uid.into(), ID_MAX));
    block.set_gid(fitting(member.gid.into(), ID_MAX));
    block.set_size(fitting(member.size, SIZE_MAX));
    block.set_mtime(fitting(u64::try_from(member.mtime.0).unwrap_or(0), SIZE_MAX));
    let (major, minor) = member.device;
    block.set_device_major(fitting(major.into(), ID_MAX) as u32)?;
    block.set_device_minor(fitting(minor.into(), ID_MAX) as u32)?;
    block.set_cksum();
    out.write_all(block.as_bytes())
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
