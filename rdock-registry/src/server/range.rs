//! Parts of a blob that a client asks for.

use crate::protocol::decimal;

/// One range of bytes (RFC 9110, "Range"). Forms that this does not know are ignored, as the RFC allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Range {
    /// The first byte, and the last one where one is named.
    From(u64, Option<u64>),
    /// So many bytes at the end.
    Last(u64),
}

impl Range {
    /// Reads the header's value.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
        match (first, last) {
            ("", last) => Some(Self::Last(decimal(last)?)),
            (first, "") => Some(Self::From(decimal(first)?, None)),
            (first, last) => {
                let (first, last) = (decimal(first)?, decimal(last)?);
                (first <= last).then_some(Self::From(first, Some(last)))
            }
        }
    }

    /// First and last byte in a content of this size; `None` where it has none of them.
    pub(super) fn within(self, size: u64) -> Option<(u64, u64)> {
        let end = size.checked_sub(1)?;
        match self {
            Self::From(first, last) => {
                (first <= end).then(|| (first, last.map_or(end, |last| last.min(end))))
            }
            Self::Last(0) => None,
            Self::Last(count) => Some((size.saturating_sub(count), end)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_those_of_the_rfc() {
        let within = |text: &str, size| Range::parse(text).map(|range| range.within(size));
        assert_eq!(within("bytes=0-", 10), Some(Some((0, 9))));
        assert_eq!(within("bytes=3-4", 10), Some(Some((3, 4))));
        assert_eq!(within("bytes=3-99", 10), Some(Some((3, 9))));
        assert_eq!(within("bytes=-4", 10), Some(Some((6, 9))));
        assert_eq!(within("bytes=-40", 10), Some(Some((0, 9))));
        // Right, and not in the content.
        assert_eq!(within("bytes=10-", 10), Some(None));
        assert_eq!(within("bytes=-0", 10), Some(None));
        assert_eq!(within("bytes=0-", 0), Some(None));
        // Not known, or wrong: as if there were none.
        for text in [
            "bytes=4-3",
            "bytes=0-1,4-5",
            "lines=0-1",
            "bytes=-",
            "bytes=x-1",
            "0-1",
            "",
        ] {
            assert_eq!(within(text, 10), None, "{text}");
        }
    }
}
