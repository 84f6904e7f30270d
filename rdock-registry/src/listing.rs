//! What a registry lists: the tags of a repository, and its repositories; page by page, within bounds.

use crate::auth::{Access, Rights};
use crate::config::{Endpoint, RegistryConfig};
use crate::error::{Error, Result};
use crate::protocol::link;
use crate::session::{Attempts, LARGEST_DOCUMENT, Remarks, Session};
use crate::transport::{Answer, Request, Transport, same_origin};
use rdock_image::Reference;
use serde::de::DeserializeOwned;

/// Pages that are read; a registry that always has a next one is given up.
const MOST_PAGES: usize = 10_000;
/// Names that are kept without a limit of the caller's.
const MOST_NAMES: usize = 1_000_000;

/// Which part of a list is wanted. The default is all of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Listing {
    /// So many names in one answer; the registry's own choice by default. It may give fewer.
    pub page_size: Option<usize>,
    /// Begin behind this name.
    pub after: Option<String>,
    /// No more names than this; a million by default, and more is an error then.
    pub most: Option<usize>,
}

impl Listing {
    /// Asks for so many names in one answer.
    #[must_use]
    pub fn page_size(mut self, count: usize) -> Self {
        self.page_size = Some(count);
        self
    }

    /// Begins behind this name.
    #[must_use]
    pub fn after(mut self, name: impl Into<String>) -> Self {
        self.after = Some(name.into());
        self
    }

    /// Ends after so many names.
    #[must_use]
    pub fn most(mut self, count: usize) -> Self {
        self.most = Some(count);
        self
    }

    fn query(&self) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        if let Some(count) = self.page_size {
            query.append_pair("n", &count.to_string());
        }
        if let Some(after) = &self.after {
            query.append_pair("last", after);
        }
        match query.finish() {
            query if query.is_empty() => query,
            query => format!("?{query}"),
        }
    }
}

#[derive(serde::Deserialize)]
struct Tags {
    /// `null` in place of none.
    tags: Option<Vec<String>>,
}

#[derive(serde::Deserialize)]
struct Repositories {
    repositories: Option<Vec<String>>,
}

pub(crate) async fn tags(
    config: &RegistryConfig,
    transport: &Transport,
    reference: &Reference,
    listing: &Listing,
) -> Result<Vec<String>> {
    let endpoint = config.own(reference)?;
    let name = format!("{}/{}", reference.domain(), reference.path());
    let access = Access::to(&endpoint.repository, Rights::Pull);
    let path = format!("{}/tags/list{}", endpoint.repository, listing.query());
    let session = Session::open(config, transport, endpoint, &name, access, Remarks::new(|_| {})).await?;
    let names = |page: Tags| page.tags.unwrap_or_default();
    all(&session, path, "list of tags", Some(reference), listing, names).await
}

pub(crate) async fn repositories(
    config: &RegistryConfig,
    transport: &Transport,
    registry: &str,
    listing: &Listing,
) -> Result<Vec<String>> {
    let name = crate::config::key(registry);
    let endpoint = Endpoint {
        repository: String::new(),
        ..config.host(&name)?
    };
    let access = Access {
        rights: Rights::Catalog,
        ..Access::default()
    };
    let path = format!("_catalog{}", listing.query());
    let session = Session::open(config, transport, endpoint, &name, access, Remarks::new(|_| {})).await?;
    let names = |page: Repositories| page.repositories.unwrap_or_default();
    all(&session, path, "list of repositories", None, listing, names).await
}

async fn all<Page: DeserializeOwned>(
    session: &Session,
    mut path: String,
    what: &'static str,
    reference: Option<&Reference>,
    listing: &Listing,
    names: impl Fn(Page) -> Vec<String>,
) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for _ in 0..MOST_PAGES {
        let (page, next) = page(session, &path, what, reference).await?;
        found.extend(names(page));
        match (listing.most, next) {
            (Some(most), _) if found.len() >= most => {
                found.truncate(most);
                return Ok(found);
            }
            (_, None) => return Ok(found),
            (None, _) if found.len() > MOST_NAMES => {
                return Err(session.malformed(what, format!("more than {MOST_NAMES} names")));
            }
            // A registry that sends the same page for ever gets on by nothing.
            (_, Some(next)) if next == path => {
                return Err(session.malformed(what, "a page that is its own next one".into()));
            }
            (_, Some(next)) => path = next,
        }
    }
    Err(session.malformed(what, format!("more than {MOST_PAGES} pages")))
}

/// One page, and the path of the next one, asked for again while that may help.
pub(crate) async fn page<Page: DeserializeOwned>(
    session: &Session,
    path: &str,
    what: &'static str,
    reference: Option<&Reference>,
) -> Result<(Page, Option<String>)> {
    let mut attempts = Attempts::new(session.retries);
    loop {
        match read(session, path, what, reference).await {
            Ok(read) => return Ok(read),
            Err(error) => session.pause(what, &mut attempts, error).await?,
        }
    }
}

async fn read<Page: DeserializeOwned>(
    session: &Session,
    path: &str,
    what: &'static str,
    reference: Option<&Reference>,
) -> Result<(Page, Option<String>)> {
    let answer = session
        .call(path, &Request::default(), &format!("the {what}"), reference)
        .await?;
    let next = next(session, &answer, what)?;
    let body = answer.body(what, LARGEST_DOCUMENT).await?;
    let page = serde_json::from_slice(&body).map_err(|error| Error::Malformed {
        registry: session.endpoint.host.clone(),
        what,
        reason: error.to_string(),
    })?;
    Ok((page, next))
}

/// Where the next page is, below the API's root (RFC 8288; distribution specification, "Content Discovery").
fn next(session: &Session, answer: &Answer, what: &'static str) -> Result<Option<String>> {
    let malformed = |reason: &str| session.malformed(what, reason.to_owned());
    let headers = answer.headers("link");
    let next =
        link(headers.iter().map(String::as_str), "rel", "next").map_err(|_| malformed("its Link header"))?;
    let Some(target) = next else { return Ok(None) };
    let url = answer
        .url()
        .join(&target)
        .map_err(|_| malformed("its Link header"))?;
    let own = session.transport.address(&session.endpoint, "")?;
    // Another host would get the credentials.
    let rest = url
        .path()
        .strip_prefix(own.path())
        .filter(|_| same_origin(&url, &own));
    let rest = rest.ok_or_else(|| malformed("the next page is not in this registry"))?;
    Ok(Some(match url.query() {
        Some(query) => format!("{rest}?{query}"),
        None => rest.to_owned(),
    }))
}
