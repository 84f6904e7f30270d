//! Manifests and indexes of a registry: read and checked, or asked for by name alone; and the places of a name, one
//! after another.

use crate::auth::{Access, Rights};
use crate::config::{Capabilities, RegistryConfig};
use crate::error::{Error, Result};
use crate::session::{Attempts, LARGEST_DOCUMENT, Remarks, Session};
use crate::transport::{Answer, Request, Transport, Verb};
use rdock_image::{Digest, ManifestDocument, Reference, manifest::media_type};

/// What is asked for: of a name that has several, the registry may choose.
const ACCEPTED: [&str; 4] = [
    media_type::OCI_INDEX,
    media_type::DOCKER_LIST,
    media_type::OCI_MANIFEST,
    media_type::DOCKER_MANIFEST,
];

/// A session for reading with the registry itself.
pub(crate) async fn own(
    config: &RegistryConfig,
    transport: &Transport,
    reference: &Reference,
) -> Result<Session> {
    let endpoint = config.own(reference)?;
    let access = Access::to(&endpoint.repository, Rights::Pull);
    let name = format!("{}/{}", reference.domain(), reference.path());
    Session::open(config, transport, endpoint, &name, access, Remarks::new(|_| {})).await
}

/// Does the work at the places of a name in order, mirrors first, until one has it. Only those that can do what `can`
/// says are asked.
pub(crate) async fn at_places<T, Work>(
    config: &RegistryConfig,
    transport: &Transport,
    reference: &Reference,
    can: impl Fn(&Capabilities) -> bool,
    remarks: &Remarks,
    work: impl Fn(Session) -> Work,
) -> Result<T>
where
    Work: Future<Output = Result<T>>,
{
    let name = format!("{}/{}", reference.domain(), reference.path());
    let mut last = None;
    for endpoint in config.endpoints(reference)? {
        if endpoint
            .options
            .as_ref()
            .is_some_and(|options| !can(&options.capabilities))
        {
            continue;
        }
        let access = Access::to(&endpoint.repository, Rights::Pull);
        let session = Session::open(config, transport, endpoint, &name, access, remarks.clone()).await?;
        match work(session).await {
            Ok(done) => return Ok(done),
            Err(error) if error.is_about_the_endpoint() => {
                // What a mirror does not have says less than what the registry itself says, unless the
                // registry cannot be reached.
                last = match (last, error) {
                    (Some(earlier), Error::Transport { .. }) => Some(earlier),
                    (_, error) => Some(error),
                };
            }
            Err(error) => return Err(error),
        }
    }
    Err(last.unwrap_or_else(|| Error::NotFound {
        reference: reference.familiar(),
        registry: reference.domain().to_owned(),
    }))
}

/// What the registry calls a manifest: its tag or its digest.
pub(crate) fn wanted(reference: &Reference) -> String {
    match reference.digest() {
        Some(digest) => digest.to_string(),
        None => reference.tag().unwrap_or("latest").to_owned(),
    }
}

/// What a registry says of a manifest without sending it.
pub(crate) async fn head(session: &Session, reference: &Reference) -> Result<Answer> {
    let path = format!("{}/manifests/{}", session.endpoint.repository, wanted(reference));
    let request = Request {
        accept: ACCEPTED.to_vec(),
        ..Request::new(Verb::Head)
    };
    let what = format!("the manifest of {}", reference.familiar());
    session.ask(&path, &request, &what, Some(reference)).await
}

/// The digest that a name leads to, by HEAD, or by GET where the registry does not say it.
pub(crate) async fn digest(session: &Session, reference: &Reference) -> Result<Digest> {
    let announced = match head(session, reference).await {
        Ok(answer) => {
            session.heed(&answer);
            answer
                .header("docker-content-digest")
                .and_then(|text| Digest::parse(text).ok())
        }
        // A registry that has no HEAD.
        Err(Error::Status {
            status: 405 | 501, ..
        }) => None,
        Err(error) => return Err(error),
    };
    match (announced, reference.digest()) {
        (Some(found), Some(asked)) if found != *asked && found.algorithm() == asked.algorithm() => {
            Err(Error::WrongDigest {
                registry: session.endpoint.host.clone(),
                expected: asked.to_string(),
                found: found.to_string(),
            })
        }
        (Some(_), Some(asked)) => Ok(asked.clone()),
        (Some(found), None) => Ok(found),
        (None, _) => Ok(document(session, reference, &wanted(reference)).await?.0),
    }
}

/// A manifest or an index by tag or digest, its bytes checked against every digest that is known of it.
pub(crate) async fn document(
    session: &Session,
    reference: &Reference,
    wanted: &str,
) -> Result<(Digest, ManifestDocument, Vec<u8>)> {
    let path = format!("{}/manifests/{wanted}", session.endpoint.repository);
    let request = Request {
        accept: ACCEPTED.to_vec(),
        ..Request::default()
    };
    let what = format!("the manifest of {}", reference.familiar());
    let mut attempts = Attempts::new(session.retries);
    let (bytes, content_type, announced) = loop {
        match read(session, &path, &request, &what, reference).await {
            Ok(read) => break read,
            Err(error) => session.pause(&what, &mut attempts, error).await?,
        }
    };
    // What was asked for by digest must have it (no tag has a colon), and so must what is announced with one. An
    // announcement by an unknown algorithm says nothing.
    let asked = match wanted.contains(':') {
        true => Some(Digest::parse(wanted)?),
        false => None,
    };
    let announced = announced.and_then(|text| Digest::parse(&text).ok());
    for expected in [&asked, &announced].into_iter().flatten() {
        let found = expected.of_same_kind(&bytes);
        if found != *expected {
            return Err(Error::WrongDigest {
                registry: session.endpoint.host.clone(),
                expected: expected.to_string(),
                found: found.to_string(),
            });
        }
    }
    let document = ManifestDocument::parse(&bytes, content_type.as_deref())?;
    // By the digest that it is known by, whatever its algorithm.
    let digest = asked.or(announced);
    let digest = digest.unwrap_or_else(|| Digest::sha256_of(&bytes));
    Ok((digest, document, bytes))
}

/// A manifest's bytes, what they are announced as, and the digest that they are announced with.
async fn read(
    session: &Session,
    path: &str,
    request: &Request,
    what: &str,
    reference: &Reference,
) -> Result<(Vec<u8>, Option<String>, Option<String>)> {
    let answer = session.call(path, request, what, Some(reference)).await?;
    session.heed(&answer);
    let announced = answer.header("docker-content-digest").map(str::to_owned);
    let content_type = answer.media_type();
    let bytes = answer.body("the manifest", LARGEST_DOCUMENT).await?;
    Ok((bytes, content_type, announced))
}
