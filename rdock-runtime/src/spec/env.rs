//! Environment variables as `-e` and `--env-file` write them.

use super::ParseError;

/// Parses one `-e`: `NAME=value`, or `NAME` alone, which takes its value from `lookup` (the caller's
/// environment) and is nothing when that has none.
///
/// # Errors
/// When there is no name.
pub fn parse_env_flag(
    text: &str,
    lookup: impl FnOnce(&str) -> Option<String>,
) -> Result<Option<(String, String)>, ParseError> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (text, lookup(text)),
    };
    if name.is_empty() {
        return Err(ParseError::new("an environment variable", text, "it has no name"));
    }
    if text.contains('\0') {
        return Err(ParseError::new(
            "an environment variable",
            text,
            "it holds a NUL byte",
        ));
    }
    Ok(value.map(|value| (name.to_owned(), value)))
}

/// Parses an env file by docker's rules: one `NAME=value` a line, the value as it is (no quotes, no
/// comments behind it); lines that are empty or begin with `#` are nothing; `NAME` alone takes its value
/// from `lookup` and is left out when that has none. A byte order mark at the start is skipped.
///
/// # Errors
/// The first line without a name, with white space in its name, or that is not UTF-8.
pub fn parse_env_file(
    text: &[u8],
    mut lookup: impl FnMut(&str) -> Option<String>,
) -> Result<Vec<(String, String)>, ParseError> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let mut variables = Vec::new();
    for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
        let what = "a line of an env file";
        let lossy = String::from_utf8_lossy(line);
        let error = |reason: &str| ParseError::new(what, &lossy, format!("line {}: {reason}", index + 1));
        let line = std::str::from_utf8(line).map_err(|_| error("it is not UTF-8"))?;
        let line = line.strip_suffix('\r').unwrap_or(line).trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let name = line.split_once('=').map_or(line, |(name, _)| name);
        if name.is_empty() {
            return Err(error("it has no name"));
        }
        if name.contains(char::is_whitespace) {
            return Err(error("white space in a name"));
        }
        variables.extend(parse_env_flag(line, &mut lookup)?);
    }
    Ok(variables)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lookup(name: &str) -> Option<String> {
        (name == "HOME").then(|| "/home/me".to_owned())
    }

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn a_flag_is_a_pair_or_a_name_of_the_caller() {
        assert_eq!(parse_env_flag("A=b", lookup), Ok(Some(("A".into(), "b".into()))));
        assert_eq!(
            parse_env_flag("A=b=c", lookup),
            Ok(Some(("A".into(), "b=c".into())))
        );
        assert_eq!(
            parse_env_flag("A=", lookup),
            Ok(Some(("A".into(), String::new())))
        );
        assert_eq!(
            parse_env_flag("HOME", lookup),
            Ok(Some(("HOME".into(), "/home/me".into())))
        );
        assert_eq!(parse_env_flag("MISSING", lookup), Ok(None));
        for bad in ["", "=", "=x", "A=\0"] {
            assert!(parse_env_flag(bad, lookup).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn files_as_docker_reads_them() {
        let table: [(&str, &[(&str, &str)]); 10] = [
            ("", &[]),
            ("A=1\nB=2\n", &[("A", "1"), ("B", "2")]),
            ("A=1\r\nB=2\r\n", &[("A", "1"), ("B", "2")]),
            ("# comment\n\n   \n  # another\n", &[]),
            ("A=1 # kept", &[("A", "1 # kept")]),
            ("A=\"quoted\"", &[("A", "\"quoted\"")]),
            ("   A=  spaces  ", &[("A", "  spaces  ")]),
            ("HOME\nMISSING\n", &[("HOME", "/home/me")]),
            ("A=b=c\nA=", &[("A", "b=c"), ("A", "")]),
            ("\u{feff}A=1", &[("A", "1")]),
        ];
        for (text, expected) in table {
            assert_eq!(
                parse_env_file(text.as_bytes(), lookup),
                Ok(pairs(expected)),
                "{text:?}"
            );
        }
    }

    #[test]
    fn a_bad_line_is_named() {
        for (text, line) in [
            (&b"A=1\n=2"[..], "line 2"),
            (b"A B=1", "line 1"),
            (b"\nA =1", "line 2"),
            (b"some words", "line 1"),
            (b"A=1\n\nB=\xff", "line 3"),
        ] {
            let error = parse_env_file(text, lookup).expect_err("bad line");
            assert!(error.to_string().contains(line), "{error}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_env_file(&bytes, |_| None);
        }

        #[test]
        fn what_is_written_is_read(pairs in proptest::collection::vec(("[A-Za-z_][A-Za-z0-9_.-]{0,8}", "[^\\r\\n\\x00]{0,20}"), 0..8)) {
            let text: String = pairs.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
            prop_assert_eq!(parse_env_file(text.as_bytes(), |_| None), Ok(pairs));
        }
    }
}
