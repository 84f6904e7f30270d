//! The tags of a repository, page by page.

use crate::auth::Access;
use crate::config::RegistryConfig;
use crate::error::{Error, Result};
use crate::protocol::link;
use crate::session::{Attempts, LARGEST_DOCUMENT, Remarks, Session};
use crate::transport::{Request, Transport, same_origin};
use rdock_image::Reference;
use serde::Deserialize;

/// Pages that are read; a registry that always has a next one is given up.
const MOST_PAGES: usize = 10_000;

#[derive(Deserialize)]
struct Page {
    /// `null` in place of none.
    tags: Option<Vec<String>>,
}

pub(crate) async fn tags(
    config: &RegistryConfig,
    transport: &Transport,
    reference: &Reference,
) -> Result<Vec<String>> {
    let endpoint = config.registries.own(reference)?;
    let name = format!("{}/{}", reference.domain(), reference.path());
    let access = Access {
        repository: Some(endpoint.repository.clone()),
        ..Access::default()
    };
    let remarks = Remarks::new(|_| {});
    let session = Session::open(config, transport, endpoint, &name, access, remarks).await?;
    let mut path = format!("{}/tags/list", session.endpoint.repository);
    let mut tags = Vec::new();
    for _ in 0..MOST_PAGES {
        let mut attempts = Attempts::new(config.retries);
        let (page, next) = loop {
            match read(&session, &path, reference).await {
                Ok(read) => break read,
                Err(error) => session.pause("the tags", &mut attempts, error).await?,
            }
        };
        tags.extend(page.tags.unwrap_or_default());
        match next {
            None => return Ok(tags),
            Some(next) => path = next,
        }
    }
    Err(session.malformed("list of tags", format!("more than {MOST_PAGES} pages")))
}

/// One page, and the path of the next one.
async fn read(session: &Session, path: &str, reference: &Reference) -> Result<(Page, Option<String>)> {
    let answer = session
        .call(path, &Request::default(), "the tags", Some(reference))
        .await?;
    let malformed = |reason: &str| session.malformed("list of tags", reason.to_owned());
    let headers = answer.headers("link");
    let next =
        link(headers.iter().map(String::as_str), "rel", "next").map_err(|_| malformed("its Link header"))?;
    let next = match next {
        None => None,
        Some(target) => {
            let url = answer
                .url()
                .join(&target)
                .map_err(|_| malformed("its Link header"))?;
            let own = session.transport.address(&session.endpoint, "")?;
            // Another host would get the credentials.
            let rest = url
                .path()
                .strip_prefix("/v2/")
                .filter(|_| same_origin(&url, &own));
            let rest = rest.ok_or_else(|| malformed("the next page is not in this registry"))?;
            Some(match url.query() {
                Some(query) => format!("{rest}?{query}"),
                None => rest.to_owned(),
            })
        }
    };
    let body = answer.body("the list of tags", LARGEST_DOCUMENT).await?;
    let page: Page = serde_json::from_slice(&body).map_err(|error| Error::Malformed {
        registry: session.endpoint.host.clone(),
        what: "list of tags",
        reason: error.to_string(),
    })?;
    Ok((page, next))
}
