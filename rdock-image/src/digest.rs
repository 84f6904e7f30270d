//! Digests: `sha256:` and 64 hexadecimal digits, and the readers and hashers that make them.
use crate::{Error, Result};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256, Sha384, Sha512};
use std::fmt;
use std::str::FromStr;

/// The name of some content: algorithm and hash, in the grammar of the OCI image specification (descriptor.md,
/// "Digests").
///
/// Only `sha256`, `sha384` and `sha512` with their exact number of lower-case digits exist here, so a value can
/// be used as a file name.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(String);

impl Digest {
    /// Parses `algorithm:hex`.
    pub fn parse(text: &str) -> Result<Self> {
        let invalid = |reason| Error::InvalidDigest {
            text: text.chars().take(200).collect(),
            reason,
        };
        let (algorithm, hex) = text.split_once(':').ok_or_else(|| invalid("no ':'"))?;
        let digits = match algorithm {
            "sha256" => 64,
            "sha384" => 96,
            "sha512" => 128,
            _ => return Err(invalid("the algorithm is not sha256, sha384 or sha512")),
        };
        if hex.len() != digits {
            return Err(invalid("wrong number of digits for the algorithm"));
        }
        if !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(invalid("only the digits 0-9 and a-f are allowed"));
        }
        Ok(Self(text.to_owned()))
    }

    /// Returns the sha256 digest of `bytes`.
    pub fn sha256_of(bytes: &[u8]) -> Self {
        Self::from_sha256(&Sha256::digest(bytes))
    }

    /// Returns the digest as `algorithm:hex`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the algorithm's name: `sha256`, `sha384` or `sha512`.
    pub fn algorithm(&self) -> &str {
        &self.0[..6]
    }

    /// Returns the hexadecimal part.
    pub fn hex(&self) -> &str {
        &self.0[7..]
    }

    /// Returns the first 12 hexadecimal digits, as docker prints ids.
    pub fn short(&self) -> &str {
        &self.0[7..19]
    }

    /// The digest whose hexadecimal part this is: its length says which algorithm.
    pub(crate) fn of_hex(hex: &str) -> Option<Self> {
        let algorithm = match hex.len() {
            64 => "sha256",
            96 => "sha384",
            128 => "sha512",
            _ => return None,
        };
        Self::parse(&format!("{algorithm}:{hex}")).ok()
    }

    pub(crate) fn from_sha256(hash: &[u8]) -> Self {
        Self(with_hex("sha256:", hash))
    }

    /// Returns the digest of `bytes` in the algorithm of `self`.
    pub fn of_same_kind(&self, bytes: &[u8]) -> Self {
        let mut hasher = Hasher::like(self);
        hasher.update(bytes);
        hasher.finish()
    }
}

fn with_hex(prefix: &str, hash: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(prefix.len() + hash.len() * 2);
    text.push_str(prefix);
    for byte in hash {
        text.push(DIGITS[usize::from(byte >> 4)] as char);
        text.push(DIGITS[usize::from(byte & 15)] as char);
    }
    text
}

/// The digest of bytes that come in parts.
#[derive(Clone, Debug)]
pub struct Hasher(Running);

#[derive(Clone, Debug)]
enum Running {
    Sha256(Sha256),
    Sha384(Sha384),
    Sha512(Sha512),
}

impl Hasher {
    /// Makes a hasher for sha256.
    pub fn sha256() -> Self {
        Self(Running::Sha256(Sha256::new()))
    }

    /// Makes a hasher for the algorithm of `digest`.
    pub fn like(digest: &Digest) -> Self {
        match digest.algorithm() {
            "sha384" => Self(Running::Sha384(Sha384::new())),
            "sha512" => Self(Running::Sha512(Sha512::new())),
            _ => Self::sha256(),
        }
    }

    /// Adds the next part.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            Running::Sha256(hasher) => hasher.update(bytes),
            Running::Sha384(hasher) => hasher.update(bytes),
            Running::Sha512(hasher) => hasher.update(bytes),
        }
    }

    /// Returns the digest of all parts.
    pub fn finish(self) -> Digest {
        Digest(match self.0 {
            Running::Sha256(hasher) => with_hex("sha256:", &hasher.finalize()),
            Running::Sha384(hasher) => with_hex("sha384:", &hasher.finalize()),
            Running::Sha512(hasher) => with_hex("sha512:", &hasher.finalize()),
        })
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Digest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sha256_of_the_empty_string_is_the_known_one() {
        let digest = Digest::sha256_of(b"");
        assert_eq!(
            digest.as_str(),
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        assert_eq!(digest.short(), "e3b0c44298fc");
        assert_eq!(Digest::parse(digest.as_str()).unwrap(), digest);
    }

    #[test]
    fn only_exact_digests_of_known_algorithms_parse() {
        let hex = "a".repeat(64);
        assert!(Digest::parse(&format!("sha256:{hex}")).is_ok());
        assert!(Digest::parse(&format!("sha512:{hex}{hex}")).is_ok());
        for bad in [
            "",
            "sha256:",
            "sha256:../../x",
            &format!("sha256:{}", "A".repeat(64)),
            &format!("sha1:{}", &hex[..40]),
            &format!("md5:{hex}"),
            &format!("sha256:{hex}a"),
            &format!("sha512:{hex}"),
            &hex,
            &format!("sha256:{}/", &hex[..63]),
            &format!(" sha256:{hex}"),
            &format!("sha256:{hex}\n"),
        ] {
            assert!(Digest::parse(bad).is_err(), "{bad:?}");
        }
    }
}
