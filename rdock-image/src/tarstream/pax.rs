//! PAX extension records: `LENGTH KEY=VALUE\n` (POSIX.1-2001).
use super::header::until_nul;
use super::{EXTENSION_MAX, TarError, Xattrs};
use std::collections::BTreeMap;

/// Records by key. An empty value takes a record of a global header back.
#[derive(Clone, Debug, Default)]
pub(super) struct Records(BTreeMap<Vec<u8>, Vec<u8>>);

impl Records {
    /// Takes in the records of one more header. Together they are no larger than one header may be: global ones are
    /// kept until the end, however many headers there are.
    pub(super) fn merge(&mut self, newer: Self) -> Result<(), TarError> {
        self.0.extend(newer.0);
        let sizes = self.0.iter().map(|(key, value)| key.len() + value.len());
        match sizes.sum::<usize>() as u64 > EXTENSION_MAX {
            true => Err(TarError::malformed(format!(
                "extension headers of more than {EXTENSION_MAX} bytes together"
            ))),
            false => Ok(()),
        }
    }

    pub(super) fn get<'a>(&'a self, key: &[u8], global: &'a Self) -> Option<&'a [u8]> {
        self.0
            .get(key)
            .or_else(|| global.0.get(key))
            .map(Vec::as_slice)
            .filter(|value| !value.is_empty())
    }
}

/// How a sparse file's map is stored.
#[derive(Clone, Copy, Debug)]
pub(super) enum Sparse {
    /// As one record (GNU's formats 0.0 and 0.1).
    Map,
    /// Before the data (GNU's format 1.0).
    InData,
}

pub(super) fn parse(mut body: &[u8]) -> Result<Records, TarError> {
    let malformed = || TarError::malformed("a PAX header is malformed");
    let mut records = Records::default();
    // GNU's sparse format 0.0 repeats these two keys; joined they are the map of format 0.1.
    let mut map: Vec<u8> = Vec::new();
    while !body.is_empty() {
        if body.iter().all(|&b| b == 0) {
            break;
        }
        let blank = body
            .iter()
            .take(12)
            .position(|&b| b == b' ')
            .ok_or_else(malformed)?;
        let length = usize::try_from(number(&body[..blank], "a PAX length")?).map_err(|_| malformed())?;
        if length <= blank + 1 || length > body.len() || body[length - 1] != b'\n' {
            return Err(malformed());
        }
        let record = &body[blank + 1..length - 1];
        let equals = record
            .iter()
            .position(|&b| b == b'=')
            .filter(|&at| at > 0)
            .ok_or_else(malformed)?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        if matches!(
            key,
            b"path" | b"linkpath" | b"uname" | b"gname" | b"GNU.sparse.name"
        ) && until_nul(value) != value
        {
            return Err(TarError::malformed("a PAX record with a NUL byte"));
        }
        if matches!(key, b"GNU.sparse.offset" | b"GNU.sparse.numbytes") {
            if !map.is_empty() {
                map.push(b',');
            }
            map.extend_from_slice(value);
        } else {
            records.0.insert(key.to_vec(), value.to_vec());
        }
        body = &body[length..];
    }
    if !map.is_empty() {
        records.0.insert(b"GNU.sparse.map".to_vec(), map);
    }
    Ok(records)
}

pub(super) fn sparse_version<'a>(
    records: &impl Fn(&[u8]) -> Option<&'a [u8]>,
) -> Result<Option<Sparse>, TarError> {
    match (records(b"GNU.sparse.major"), records(b"GNU.sparse.minor")) {
        (Some(b"1"), Some(b"0")) => Ok(Some(Sparse::InData)),
        (None, None) | (Some(b"0"), Some(b"0" | b"1")) if records(b"GNU.sparse.map").is_some() => {
            Ok(Some(Sparse::Map))
        }
        (None, None) => Ok(None),
        _ => Err(TarError::malformed("an unknown version of GNU's sparse format")),
    }
}

pub(super) fn number(text: &[u8], what: &str) -> Result<u64, TarError> {
    let value = std::str::from_utf8(text)
        .ok()
        .filter(|t| t.bytes().all(|b| b.is_ascii_digit()));
    value
        .and_then(|t| t.parse().ok())
        .ok_or_else(|| TarError::malformed(format!("{what} is not a decimal number")))
}

/// Seconds, with a decimal fraction, perhaps negative.
pub(super) fn time(text: &[u8]) -> Result<(i64, u32), TarError> {
    let malformed = || TarError::malformed("a PAX time is malformed");
    let text = std::str::from_utf8(text).map_err(|_| malformed())?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().map_err(|_| malformed())?;
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return Err(malformed());
    }
    let mut nanos = 0;
    for at in 0..9 {
        nanos = nanos * 10 + fraction.as_bytes().get(at).map_or(0, |b| u32::from(b - b'0'));
    }
    if whole.starts_with('-') && nanos > 0 {
        return Ok((
            seconds.checked_sub(1).ok_or_else(malformed)?,
            1_000_000_000 - nanos,
        ));
    }
    Ok((seconds, nanos))
}

/// The extended attributes, as star (`SCHILY.xattr.`) or libarchive (base64) write them.
pub(super) fn xattrs(local: &Records, global: &Records) -> Result<Xattrs, TarError> {
    let mut found: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    for (key, value) in global.0.iter().chain(&local.0) {
        if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
            if name.is_empty() || name.contains(&0) {
                return Err(TarError::malformed("an extended attribute without a name"));
            }
            found.insert(name.to_vec(), value.clone());
        } else if let Some(name) = key.strip_prefix(b"LIBARCHIVE.xattr.")
            && !found.contains_key(name)
            && !name.contains(&0)
            && let Some(value) = base64(value)
        {
            found.insert(name.to_vec(), value);
        }
    }
    Ok(found.into_iter().collect())
}

fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let (mut bits, mut count) = (0_u32, 0);
    for &c in text {
        let value = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'=' => break,
            _ => return None,
        };
        bits = (bits << 6) | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_strictly() {
        let records = parse(b"8 path=a20 SCHILY.xattr.x=1\n").unwrap_err();
        assert!(matches!(records, TarError::Malformed(_)));
        let records = parse(b"9 path=a\n18 linkpath=b\nc=d\n").unwrap();
        assert_eq!(
            records.get(b"linkpath", &Records::default()),
            Some(&b"b\nc=d"[..])
        );
        for bad in [
            &b"7 a=b\n99 broken"[..],
            b"a=b\n",
            b"6 a=b",
            b"3 =",
            b"4 =b\n",
            b"0 a=b\n",
            b"99999999999999999999 a=b\n",
        ] {
            assert!(parse(bad).is_err(), "{:?}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn times_keep_their_nanoseconds() {
        assert_eq!(time(b"1.5").unwrap(), (1, 500_000_000));
        assert_eq!(time(b"-1.25").unwrap(), (-2, 750_000_000));
        assert_eq!(time(b"7").unwrap(), (7, 0));
        assert!(time(b"x").is_err() && time(b"1.x").is_err());
    }

    #[test]
    fn libarchive_attributes_are_decoded() {
        assert_eq!(base64(b"aGVsbG8").unwrap(), b"hello");
        assert_eq!(base64(b"aGVsbG8=").unwrap(), b"hello");
        assert!(base64(b"a b").is_none());
    }
}
