//! Names inside a layer: how an entry's name becomes a path below the layer's root, and how bytes that are not
//! UTF-8 are kept in JSON.

/// Prefix of a whiteout, as every image format since AUFS writes it (OCI layer specification, "Whiteouts").
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// AUFS's own files, of no meaning here.
const AUFS: &[u8] = b".wh..wh.";

/// Returns the path below the root, without `.` and `..`, without a leading slash; empty for the root itself.
/// A name that leaves the root is an error.
pub(crate) fn normalize(name: &[u8]) -> Result<Vec<u8>, &'static str> {
    let mut path: Vec<u8> = Vec::with_capacity(name.len());
    for part in name.split(|&b| b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                if path.is_empty() {
                    return Err("the name leaves the layer");
                }
                path.truncate(split(&path).0.len());
            }
            part => {
                if part.len() > 255 {
                    return Err("a part of the name is longer than 255 bytes");
                }
                if !path.is_empty() {
                    path.push(b'/');
                }
                path.extend_from_slice(part);
            }
        }
    }
    if path.len() > 4000 {
        return Err("the name is longer than 4000 bytes");
    }
    Ok(path)
}

/// Splits a normalised path into its parent and its last part.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&b| b == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&[], path),
    }
}

pub(crate) fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(parent.len() + 1 + name.len());
    if !parent.is_empty() {
        path.extend_from_slice(parent);
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}

/// What the last part of a name says about layers below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark<'a> {
    /// An ordinary name.
    None,
    /// The named sibling does not exist any more.
    Whiteout(&'a [u8]),
    /// Nothing of the directory in layers below is visible.
    Opaque,
    /// To be passed over.
    Ignored,
}

pub(crate) fn mark(name: &[u8]) -> Result<Mark<'_>, &'static str> {
    if name == OPAQUE {
        return Ok(Mark::Opaque);
    }
    let Some(hidden) = name.strip_prefix(WHITEOUT) else {
        return Ok(Mark::None);
    };
    match hidden {
        b"" | b"." | b".." => Err("a whiteout without a name"),
        _ if name.starts_with(AUFS) => Ok(Mark::Ignored),
        hidden => Ok(Mark::Whiteout(hidden)),
    }
}

/// Says whether some directory on the way has a whiteout's name.
pub(crate) fn has_marked_parent(parent: &[u8]) -> bool {
    parent
        .split(|&b| b == b'/')
        .any(|part| part.starts_with(WHITEOUT))
}

/// Bytes as text for JSON: what is not UTF-8, and `%`, as `%XX`.
pub(crate) fn to_text(path: &[u8]) -> String {
    let mut text = String::with_capacity(path.len());
    for chunk in path.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '%' => text.push_str("%25"),
                c => text.push(c),
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("%{byte:02x}"));
        }
    }
    text
}

/// The reverse of [`to_text`].
pub(crate) fn from_text(text: &str) -> Option<Vec<u8>> {
    let mut path = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            path.push(byte);
            continue;
        }
        let digit = |b: Option<u8>| (b? as char).to_digit(16);
        let (high, low) = (digit(bytes.next())?, digit(bytes.next())?);
        path.push((high * 16 + low) as u8);
    }
    Some(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_stay_below_the_root() {
        assert_eq!(normalize(b"/a/./b//c/").unwrap(), b"a/b/c");
        assert_eq!(normalize(b"a/../b").unwrap(), b"b");
        assert_eq!(normalize(b"./").unwrap(), b"");
        assert!(normalize(b"../a").is_err());
        assert!(normalize(b"a/../../b").is_err());
        assert!(normalize(&[b'a'; 256]).is_err());
    }

    #[test]
    fn marks_are_read_from_names() {
        assert_eq!(mark(b".wh.a"), Ok(Mark::Whiteout(b"a")));
        assert_eq!(mark(b".wh..wh..opq"), Ok(Mark::Opaque));
        assert_eq!(mark(b".wh..wh.plnk"), Ok(Mark::Ignored));
        assert_eq!(mark(b"a.wh.b"), Ok(Mark::None));
        for bad in [&b".wh."[..], b".wh..", b".wh..."] {
            assert!(mark(bad).is_err());
        }
        assert!(has_marked_parent(b"a/.wh.b/c") && !has_marked_parent(b"a/b"));
    }

    proptest! {
        #[test]
        fn any_name_normalises_to_plain_parts(name in prop::collection::vec(prop::sample::select(b"a./b".to_vec()), 0..40)) {
            if let Ok(path) = normalize(&name) {
                prop_assert!(path.is_empty() || path.split(|&b| b == b'/').all(|p| !p.is_empty() && p != b"." && p != b".."));
            }
        }

        #[test]
        fn text_keeps_every_byte(path in prop::collection::vec(any::<u8>(), 0..40)) {
            prop_assert_eq!(from_text(&to_text(&path)).unwrap(), path);
        }
    }
}
