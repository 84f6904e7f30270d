//! Single headers of answers.

/// `Content-Range` of a part (RFC 9110, section 14.4): `bytes FIRST-LAST/COMPLETE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ContentRange {
    /// Position of the first byte.
    pub first: u64,
    /// Position of the last byte.
    pub last: u64,
    /// Bytes of the whole, where the server knows.
    pub complete: Option<u64>,
}

impl ContentRange {
    /// Parses the header; `None` for one that is not a range of bytes, or that contradicts itself.
    pub fn parse(header: &str) -> Option<Self> {
        let (range, complete) = header.strip_prefix("bytes ")?.trim().split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let range = Self {
            first: decimal(first)?,
            last: decimal(last)?,
            complete: match complete {
                "*" => None,
                number => Some(decimal(number)?),
            },
        };
        let fits = range.first <= range.last && range.complete.is_none_or(|whole| range.last < whole);
        fits.then_some(range)
    }
}

/// A text of decimal digits alone.
pub fn decimal(text: &str) -> Option<u64> {
    // `parse` would take a sign.
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())?
}

/// The size that `Content-Length` announces; `None` when no header, several different ones, or no number says it.
pub fn content_length<'a>(values: impl IntoIterator<Item = &'a str>) -> Option<u64> {
    let mut found = None;
    for value in values {
        let size = decimal(value.trim())?;
        if found.is_some_and(|other| other != size) {
            return None;
        }
        found = Some(size);
    }
    found
}

/// The media type of a `Content-Type` header, without parameters, in lower case; `None` for an unusable one.
pub fn media_type(header: &str) -> Option<String> {
    let (kind, subtype) = header.split(';').next()?.trim().split_once('/')?;
    (is_token(kind) && is_token(subtype)).then(|| format!("{kind}/{subtype}").to_ascii_lowercase())
}

/// The text of a registry's warning (distribution specification, "Warnings"): `299 - "TEXT"`, percent sequences
/// decoded. `None` for everything else, and for a text with control characters, which could draw on a terminal.
pub fn warning(header: &str) -> Option<String> {
    let quoted = header.strip_prefix("299 - \"")?;
    let mut text = String::new();
    let mut characters = quoted.chars();
    loop {
        match characters.next()? {
            '"' => break,
            '\\' => text.push(characters.next()?),
            other => text.push(other),
        }
    }
    if characters.next().is_some() {
        return None;
    }
    let harmless = |text: &str| !text.chars().any(|c| c.is_control() && c != '\t');
    if !harmless(&text) {
        return None;
    }
    let decoded = percent_decoded(&text);
    let added = |c: char| decoded.matches(c).count() > text.matches(c).count();
    (harmless(&decoded) && !added('"')).then_some(decoded)
}

/// What is not a percent sequence, or would not be UTF-8, stays as it is.
fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digits = text.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        let byte = digits
            .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        decoded.push(byte.unwrap_or(bytes[at]));
        at += if byte.is_some() { 3 } else { 1 };
    }
    String::from_utf8(decoded).unwrap_or_else(|_| text.to_owned())
}

/// The target of the first link whose `parameter` is `value` (for `rel`: has it among its words) in `Link` headers
/// (RFC 8288). A target without angle brackets is taken too.
///
/// # Errors
/// The header that is malformed.
pub fn link<'a>(
    headers: impl IntoIterator<Item = &'a str>,
    parameter: &str,
    value: &str,
) -> Result<Option<String>, &'a str> {
    let mut found = None;
    for header in headers {
        let mut rest = header.trim();
        while !rest.is_empty() {
            let target;
            (target, rest) = link_target(rest).ok_or(header)?;
            let mut matches = false;
            while let Some(after) = rest.trim_start().strip_prefix(';') {
                let (name, text, after) = link_parameter(after).ok_or(header)?;
                rest = after;
                matches |= name.eq_ignore_ascii_case(parameter)
                    && match name.eq_ignore_ascii_case("rel") {
                        true => text
                            .split_whitespace()
                            .any(|word| word.eq_ignore_ascii_case(value)),
                        false => text == value,
                    };
            }
            rest = rest.trim_start();
            if !rest.is_empty() {
                rest = rest.strip_prefix(',').ok_or(header)?.trim_start();
            }
            if matches && found.is_none() {
                found = Some(target.to_owned());
            }
        }
    }
    Ok(found)
}

fn link_target(text: &str) -> Option<(&str, &str)> {
    if let Some(bracketed) = text.strip_prefix('<') {
        return bracketed.split_once('>');
    }
    let end = text
        .find(|c: char| c == ',' || c == ';' || c.is_whitespace())
        .unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

/// Name, value and what follows.
fn link_parameter(text: &str) -> Option<(&str, String, &str)> {
    let text = text.trim_start();
    let end = text.find(['=', ';', ',']).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let name = name.trim_end();
    let Some(rest) = rest.strip_prefix('=') else {
        return (!name.is_empty()).then(|| (name, String::new(), rest));
    };
    let rest = rest.trim_start();
    let Some(quoted) = rest.strip_prefix('"') else {
        let end = rest.find([';', ',']).unwrap_or(rest.len());
        return Some((name, rest[..end].trim_end().to_owned(), &rest[end..]));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((name, value, &quoted[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            other => value.push(other),
        }
    }
    None
}

/// RFC 9110, section 5.6.2.
fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges_that_contradict_themselves_are_none() {
        for text in [
            "bytes 5-4/9",
            "bytes 0-9/9",
            "bytes +1-2/3",
            "bits 0-1/2",
            "bytes 1-2/",
        ] {
            assert_eq!(ContentRange::parse(text), None, "{text}");
        }
        let range = ContentRange::parse("bytes 3-8/9").expect("a range");
        assert_eq!((range.first, range.last, range.complete), (3, 8, Some(9)));
    }

    #[test]
    fn warnings_show_no_control_characters() {
        assert_eq!(warning("299 - \"old%20image\"").as_deref(), Some("old image"));
        for text in [
            "299 - \"a%1b[2J\"",
            "299 agent \"a\"",
            "299 - \"a%22b\"",
            "299 - \"a\" x",
        ] {
            assert_eq!(warning(text), None, "{text}");
        }
    }

    #[test]
    fn the_next_page_is_found() {
        let next = |text| link([text], "rel", "next");
        assert_eq!(
            next("</v2/a?n=2>; rel=\"next\""),
            Ok(Some("/v2/a?n=2".to_owned()))
        );
        assert_eq!(next("</v2/a>; rel=\"prev next\""), Ok(Some("/v2/a".to_owned())));
        assert_eq!(next("</v2/a>; rel=prev"), Ok(None));
        assert_eq!(next("</v2/a>; rel=\"next"), Err("</v2/a>; rel=\"next"));
    }

    proptest! {
        #[test]
        fn foreign_headers_never_panic(text in any::<String>()) {
            ContentRange::parse(&text);
            media_type(&text);
            link([text.as_str()], "rel", "next").ok();
            super::super::Challenge::parse(&text);
            if let Some(text) = warning(&text) {
                prop_assert!(!text.chars().any(|c| c.is_control() && c != '\t'));
            }
        }

        #[test]
        fn headers_of_the_right_letters_never_panic(text in "(299 - |bytes |<|>|\"|\\\\|%|;|,|=|-|/|[a-f0-9]| ){0,24}") {
            ContentRange::parse(&text);
            media_type(&text);
            warning(&text);
            link([text.as_str()], "rel", "next").ok();
            super::super::Challenge::parse(&text);
        }
    }
}
