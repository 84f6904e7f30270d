//! What refers to an image: signatures, attestations and other artifacts, by the referrers API or the tag that stands
//! for it (OCI distribution specification 1.1, "Listing Referrers" and "Referrers Tag Schema").

use crate::config::RegistryConfig;
use crate::error::{Error, Result};
use crate::listing;
use crate::manifests;
use crate::session::Session;
use crate::transport::Transport;
use rdock_image::{Descriptor, Digest, Index, ManifestDocument, Reference};

/// Pages that are read.
const MOST_PAGES: usize = 1000;
/// Entries that are kept.
const MOST_ENTRIES: usize = 100_000;

pub(crate) async fn referrers(
    config: &RegistryConfig,
    transport: &Transport,
    reference: &Reference,
    artifact_type: Option<&str>,
) -> Result<Vec<Descriptor>> {
    let session = manifests::own(config, transport, reference).await?;
    let digest = manifests::digest(&session, reference).await?;
    let found = match api(&session, &digest, artifact_type).await {
        // A registry of the specification's version 1.0.
        Err(Error::Status { status: 404, .. }) => tag(&session, reference, &digest).await?,
        other => other?,
    };
    // A registry need not filter.
    let fits = |entry: &Descriptor| {
        artifact_type.is_none_or(|wanted| {
            entry.other.get("artifactType").and_then(|value| value.as_str()) == Some(wanted)
        })
    };
    Ok(found.into_iter().filter(fits).collect())
}

async fn api(session: &Session, digest: &Digest, artifact_type: Option<&str>) -> Result<Vec<Descriptor>> {
    let what = "list of referrers";
    let mut path = format!("{}/referrers/{digest}", session.endpoint.repository);
    if let Some(wanted) = artifact_type {
        let query = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("artifactType", wanted)
            .finish();
        path = format!("{path}?{query}");
    }
    let mut found = Vec::new();
    for _ in 0..MOST_PAGES {
        let (page, next): (Index, _) = listing::page(session, &path, what, None).await?;
        found.extend(page.manifests);
        if found.len() > MOST_ENTRIES {
            return Err(session.malformed(what, format!("more than {MOST_ENTRIES} entries")));
        }
        match next {
            None => return Ok(found),
            Some(next) => path = next,
        }
    }
    Err(session.malformed(what, format!("more than {MOST_PAGES} pages")))
}

/// The index that clients keep under a tag made of the digest, where the registry has no API for it.
async fn tag(session: &Session, reference: &Reference, digest: &Digest) -> Result<Vec<Descriptor>> {
    match manifests::document(session, reference, &fallback_tag(digest)).await {
        Ok((_, ManifestDocument::Index(index), _)) => Ok(index.manifests),
        Ok(_) => Err(session.malformed("list of referrers", "the tag is not that of an index".into())),
        Err(Error::NotFound { .. }) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// `ALGORITHM-HEX`, at most 32 and 64 characters of each.
fn fallback_tag(digest: &Digest) -> String {
    let hex = digest.hex();
    format!("{}-{}", digest.algorithm(), &hex[..hex.len().min(64)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tag_is_the_digest_cut() {
        let digest = Digest::parse(&format!("sha512:{}", "a".repeat(128))).expect("a digest");
        assert_eq!(fallback_tag(&digest), format!("sha512-{}", "a".repeat(64)));
    }
}
