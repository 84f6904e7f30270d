//! How many pulls a registry allows.

use crate::config::RegistryConfig;
use crate::error::Result;
use crate::manifests;
use crate::protocol::decimal;
use crate::transport::Transport;
use rdock_image::Reference;
use std::time::Duration;

/// What a registry says of its limit (Docker Hub's `RateLimit-Limit` and `RateLimit-Remaining`).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PullLimit {
    /// Pulls that are left for now.
    pub remaining: u64,
    /// Pulls in all, where it is said.
    pub limit: Option<u64>,
    /// The time that the pulls are for, where it is said.
    pub window: Option<Duration>,
    /// Whom they are counted for: an address or a user, where it is said.
    pub counted_for: Option<String>,
}

impl PullLimit {
    /// Reads `COUNT[;w=SECONDS]` headers.
    pub(crate) fn of(
        remaining: Option<&str>,
        limit: Option<&str>,
        counted_for: Option<&str>,
    ) -> Option<Self> {
        let (remaining, own) = count(remaining?)?;
        let limit = limit.and_then(count);
        Some(Self {
            remaining,
            limit: limit.map(|(count, _)| count),
            window: limit.and_then(|(_, window)| window).or(own),
            counted_for: counted_for.map(str::to_owned),
        })
    }
}

fn count(text: &str) -> Option<(u64, Option<Duration>)> {
    let mut words = text.split(';').map(str::trim);
    let count = decimal(words.next().filter(|text| !text.is_empty())?)?;
    let window = words.find_map(|word| word.strip_prefix("w=")).and_then(decimal);
    Some((count, window.map(Duration::from_secs)))
}

pub(crate) async fn pull_limit(
    config: &RegistryConfig,
    transport: &Transport,
    reference: &Reference,
) -> Result<Option<PullLimit>> {
    let session = manifests::own(config, transport, reference).await?;
    let answer = manifests::head(&session, reference).await?;
    Ok(PullLimit::of(
        answer.header("ratelimit-remaining"),
        answer.header("ratelimit-limit"),
        answer.header("docker-ratelimit-source"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn limits_are_read_as_they_are_written() {
        let found = PullLimit::of(Some("76;w=21600"), Some("100;w=21600"), Some("192.0.2.1")).expect("one");
        assert_eq!((found.remaining, found.limit), (76, Some(100)));
        assert_eq!(found.window, Some(Duration::from_secs(6 * 3600)));
        assert_eq!(found.counted_for.as_deref(), Some("192.0.2.1"));
        let bare = PullLimit::of(Some("0"), None, None).expect("one");
        assert_eq!((bare.remaining, bare.limit, bare.window), (0, None, None));
        for bad in ["", ";w=1", "-1", "many", "1e3"] {
            assert_eq!(PullLimit::of(Some(bad), Some("100"), None), None, "{bad:?}");
        }
        assert_eq!(PullLimit::of(None, Some("100"), None), None);
    }

    proptest! {
        #[test]
        fn foreign_headers_never_panic(text in any::<String>()) {
            PullLimit::of(Some(&text), Some(&text), None);
        }
    }
}
