//! Ids and names: the only two things that become parts of paths, so their grammar is checked here.

/// Length of an id in hexadecimal digits.
const ID_LENGTH: usize = 64;

/// Longest name of a container or volume, in bytes. It becomes a file name and a host name in DNS answers.
const NAME_LIMIT: usize = 128;

/// A new id: 64 hexadecimal digits. Its first 12, which become the default host name, are never all
/// decimal, so that no resolver takes them for an address.
///
/// # Errors
/// When the kernel has no random numbers (before its pool is ready, or a filtered system call).
pub(crate) fn random_id() -> std::io::Result<String> {
    loop {
        let mut bytes = [0_u8; ID_LENGTH / 2];
        fill(&mut bytes)?;
        let id = hex(&bytes);
        if id.bytes().take(12).any(|digit| digit.is_ascii_alphabetic()) {
            return Ok(id);
        }
    }
}

/// A name for a container that was given none: an adjective and a noun.
///
/// # Errors
/// As [`random_id`].
pub(crate) fn random_name() -> std::io::Result<String> {
    let mut bytes = [0_u8; 4];
    fill(&mut bytes)?;
    let pick = |words: &[&'static str], low: u8, high: u8| {
        words[usize::from(u16::from_le_bytes([low, high])) % words.len()]
    };
    Ok(format!(
        "{}_{}",
        pick(&ADJECTIVES, bytes[0], bytes[1]),
        pick(&NOUNS, bytes[2], bytes[3])
    ))
}

fn fill(bytes: &mut [u8]) -> std::io::Result<()> {
    getrandom::fill(bytes).map_err(|error| match error.raw_os_error() {
        Some(errno) => std::io::Error::from_raw_os_error(errno),
        None => std::io::Error::other(error.to_string()),
    })
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// Whether `text` is a whole id: 64 lower-case hexadecimal digits.
pub(crate) fn is_id(text: &str) -> bool {
    text.len() == ID_LENGTH && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether `text` may name a container or a volume: `[a-zA-Z0-9][a-zA-Z0-9_.-]+`, docker's grammar, at
/// most 128 bytes. Such a name is never `.` or `..` and holds no separator.
pub(crate) fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    (2..=NAME_LIMIT).contains(&text.len())
        && bytes.next().is_some_and(|first| first.is_ascii_alphanumeric())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

/// The grammar in words, for messages.
pub(crate) const NAME_GRAMMAR: &str =
    "a letter or digit, then one or more of letters, digits, '_', '.' and '-', 128 bytes at most";

const ADJECTIVES: [&str; 64] = [
    "able", "amber", "apt", "bold", "brave", "brief", "bright", "brisk", "calm", "candid", "civil", "clear",
    "clever", "coral", "crisp", "daring", "deft", "dry", "eager", "early", "easy", "exact", "fair", "fine",
    "firm", "fleet", "fresh", "gentle", "glad", "golden", "grand", "green", "hardy", "honest", "humble",
    "ideal", "jolly", "keen", "kind", "large", "light", "lively", "loyal", "lucky", "mellow", "merry",
    "mild", "modest", "neat", "noble", "patient", "plain", "proud", "quick", "quiet", "ready", "sharp",
    "silent", "smart", "steady", "sunny", "swift", "tidy", "warm",
];

const NOUNS: [&str; 64] = [
    "acorn", "anchor", "aspen", "badger", "barge", "beacon", "birch", "bison", "bridge", "brook", "canyon",
    "cedar", "cliff", "clover", "comet", "condor", "coral", "crane", "creek", "delta", "dolphin", "dune",
    "eagle", "elm", "ember", "falcon", "fern", "finch", "fjord", "forest", "galaxy", "garden", "glacier",
    "harbor", "hazel", "heron", "island", "juniper", "lagoon", "lantern", "lark", "lynx", "maple", "marten",
    "meadow", "meteor", "oak", "orchid", "osprey", "otter", "pebble", "pine", "planet", "prairie", "quartz",
    "raven", "reef", "river", "sparrow", "summit", "thistle", "tulip", "valley", "willow",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_random_and_never_all_decimal_at_their_start() {
        let (first, second) = (random_id().expect("id"), random_id().expect("id"));
        assert_ne!(first, second);
        for id in [first, second] {
            assert!(is_id(&id) && is_name(&id), "{id}");
            assert!(id[..12].parse::<u64>().is_err(), "{id}");
        }
    }

    #[test]
    fn random_names_are_names() {
        for _ in 0..200 {
            let name = random_name().expect("name");
            assert!(is_name(&name), "{name}");
        }
        for word in ADJECTIVES.iter().chain(&NOUNS) {
            assert!(word.bytes().all(|byte| byte.is_ascii_lowercase()), "{word}");
        }
    }

    #[test]
    fn rt_id_path_only_plain_file_names_pass() {
        let long = "a".repeat(129);
        for bad in [
            "", ".", "..", "../x", "a/b", "/", "a/../b", "a\0b", "-a", "_a", ".hidden", "a", "a b", "ä1",
            "a\n", "a:b", &long,
        ] {
            assert!(!is_name(bad), "{bad:?}");
            assert!(!is_id(bad), "{bad:?}");
        }
        for good in ["ab", "a..", "db-1", "A_b.c", "0x", &long[1..]] {
            assert!(is_name(good), "{good:?}");
        }
        let id = "0123456789abcdef".repeat(4);
        assert!(is_id(&id));
        assert!(!is_id(&id.to_uppercase()) && !is_id(&id[1..]) && !is_id(&format!("{id}0")));
    }
}
