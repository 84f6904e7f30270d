//! The API of the OCI distribution specification 1.1 over the storage.

use super::access::{CATALOG, Gate, Wanted};
use super::range::Range;
use super::reply::{Reply, Seen, Step};
use super::storage::{Storage, StoredManifest};
use crate::protocol::decimal;
use bytes::Buf;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use rdock_image::{Digest, ManifestDocument};
use serde_json::json;
use std::collections::HashMap;
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes of a manifest.
const LARGEST_MANIFEST: usize = 4 << 20;
/// Names in one answer, unless fewer are asked for.
const PAGE: usize = 1000;

/// What a request is about.
pub(super) struct Api {
    pub(super) storage: Storage,
    pub(super) gate: Gate,
    /// One request at a time for each upload.
    uploads: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    pub(super) read_only: bool,
}

/// A path below `/v2/`.
#[derive(Debug, PartialEq, Eq)]
enum Route<'a> {
    Root,
    Catalog,
    Manifest(&'a str, &'a str),
    Blob(&'a str, Digest),
    Uploads(&'a str),
    Upload(&'a str, &'a str),
    Tags(&'a str),
    Referrers(&'a str, Digest),
}

fn route(path: &str) -> Option<Route<'_>> {
    let rest = path.strip_prefix("/v2")?;
    match rest {
        "" | "/" => return Some(Route::Root),
        "/_catalog" => return Some(Route::Catalog),
        _ => {}
    }
    let rest = rest.strip_prefix('/')?;
    if let Some(name) = rest.strip_suffix("/tags/list") {
        return is_name(name).then_some(Route::Tags(name));
    }
    if let Some((name, id)) = rest.split_once("/blobs/uploads") {
        let id = id.strip_prefix('/').unwrap_or(id);
        return match id {
            _ if !is_name(name) => None,
            "" => Some(Route::Uploads(name)),
            id => id
                .bytes()
                .all(|byte| byte.is_ascii_hexdigit())
                .then_some(Route::Upload(name, id)),
        };
    }
    let (rest, last) = rest.rsplit_once('/')?;
    let (name, kind) = rest.rsplit_once('/')?;
    if !is_name(name) {
        return None;
    }
    match kind {
        "manifests" if is_tag(last) || Digest::parse(last).is_ok() => Some(Route::Manifest(name, last)),
        "blobs" => Some(Route::Blob(name, Digest::parse(last).ok()?)),
        "referrers" => Some(Route::Referrers(name, Digest::parse(last).ok()?)),
        _ => None,
    }
}

/// The specification's grammar of names; nothing in it leaves the directory of repositories.
fn is_name(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    // Words, and between them `.`, `_`, `__` or any number of `-`.
    let component = |part: &str| {
        let ends = part.bytes().next().is_some_and(word) && part.bytes().last().is_some_and(word);
        let mut between = part.split(|c: char| c.is_ascii() && word(c as u8));
        ends && between
            .all(|text| matches!(text, "" | "." | "_" | "__") || text.bytes().all(|byte| byte == b'-'))
    };
    text.len() <= 255 && text.split('/').all(component)
}

fn is_tag(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.len() <= 128
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|byte| word(byte) || b".-".contains(&byte))
}

type Query = HashMap<String, String>;

impl Api {
    pub(super) fn new(storage: Storage, gate: Gate, read_only: bool) -> Self {
        Self {
            storage,
            gate,
            uploads: Mutex::default(),
            read_only,
        }
    }

    /// Answers a request. `cut` is after how many bytes of the body the connection breaks, for a fault; then there
    /// is no answer.
    pub(super) async fn answer(&self, seen: &Seen, body: Incoming, cut: Option<u64>) -> Option<Reply> {
        let (path, query) = seen.path.split_once('?').unwrap_or((&seen.path, ""));
        if path == "/token" {
            return Some(self.gate.token(seen));
        }
        let Some(route) = route(path) else {
            return Some(Reply::error(404, "NAME_INVALID", "there is nothing here"));
        };
        let query: Query = url::form_urlencoded::parse(query.as_bytes())
            .map(|(name, value)| (name.into_owned(), value.into_owned()))
            .collect();
        let wanted = Wanted {
            repository: match &route {
                Route::Root | Route::Catalog => None,
                Route::Manifest(name, _)
                | Route::Blob(name, _)
                | Route::Uploads(name)
                | Route::Upload(name, _)
                | Route::Tags(name)
                | Route::Referrers(name, _) => Some(name),
            },
            action: match (seen.method.as_str(), &route) {
                (_, Route::Catalog) => CATALOG,
                ("GET" | "HEAD", Route::Upload(..)) => "push",
                ("GET" | "HEAD", _) => "pull",
                ("DELETE", Route::Manifest(..) | Route::Blob(..)) => "delete",
                _ => "push",
            },
        };
        if let Some(refused) = self.gate.refuse(seen, &wanted) {
            return Some(refused);
        }
        if self.read_only && !matches!(seen.method.as_str(), "GET" | "HEAD") {
            return Some(Reply::error(405, "UNSUPPORTED", "this registry is read-only"));
        }
        let answered = self.routed(&route, seen, &query, body, cut).await;
        match answered {
            Ok(reply) => reply,
            Err(error) => Some(Reply::error(500, "UNKNOWN", &error.to_string())),
        }
    }

    async fn routed(
        &self,
        route: &Route<'_>,
        seen: &Seen,
        query: &Query,
        body: Incoming,
        cut: Option<u64>,
    ) -> io::Result<Option<Reply>> {
        let reply = match (seen.method.as_str(), route) {
            ("GET" | "HEAD", Route::Root) => {
                Reply::new(200, "{}").with("docker-distribution-api-version", "registry/2.0")
            }
            ("GET", Route::Catalog) => {
                let (names, link) = page(&self.storage.repositories(), query, "/v2/_catalog");
                listed(&json!({"repositories": names}), link)
            }
            ("GET", Route::Tags(name)) if self.storage.knows(name) => {
                let (tags, link) = page(&self.storage.tags(name), query, &format!("/v2/{name}/tags/list"));
                listed(&json!({"name": name, "tags": tags}), link)
            }
            ("GET", Route::Tags(_)) => Reply::error(404, "NAME_UNKNOWN", "no such repository"),
            ("GET", Route::Referrers(name, digest)) => self.referrers(name, digest, query),
            ("GET" | "HEAD", Route::Manifest(name, reference)) => {
                match self.storage.manifest(name, reference) {
                    Some(manifest) => Reply::new(200, "")
                        .with("content-type", &manifest.media_type)
                        .with("docker-content-digest", &manifest.digest)
                        .with("content-length", manifest.bytes.len())
                        .steps(match seen.method.as_str() {
                            "GET" => vec![Step::Send(manifest.bytes)],
                            _ => Vec::new(),
                        }),
                    None => Reply::error(404, "MANIFEST_UNKNOWN", "no such manifest"),
                }
            }
            ("PUT", Route::Manifest(name, reference)) => {
                self.put_manifest(name, reference, seen, body).await?
            }
            ("DELETE", Route::Manifest(name, reference)) => {
                match self.storage.delete_manifest(name, reference)? {
                    true => Reply::new(202, ""),
                    false => Reply::error(404, "MANIFEST_UNKNOWN", "no such manifest"),
                }
            }
            ("GET" | "HEAD", Route::Blob(name, digest)) => match self.storage.find(name, digest) {
                Some((path, size)) => blob(seen, digest, &path, size),
                None => Reply::error(404, "BLOB_UNKNOWN", "no such blob"),
            },
            ("DELETE", Route::Blob(name, digest)) => match self.storage.unlink(name, digest)? {
                true => Reply::new(202, ""),
                false => Reply::error(404, "BLOB_UNKNOWN", "no such blob"),
            },
            ("POST", Route::Uploads(name)) => self.begin(name, seen, query, body).await?,
            ("GET" | "PATCH" | "PUT" | "DELETE", Route::Upload(name, id)) => {
                return self.upload(name, id, seen, query, body, cut).await;
            }
            _ => Reply::error(405, "UNSUPPORTED", "not with this method"),
        };
        Ok(Some(reply))
    }

    fn referrers(&self, name: &str, digest: &Digest, query: &Query) -> Reply {
        let wanted = query.get("artifactType");
        let found: Vec<_> = self
            .storage
            .referrers(name, digest)
            .iter()
            .filter_map(|manifest| {
                let document: serde_json::Value = serde_json::from_slice(&manifest.bytes).ok()?;
                let kind = document["artifactType"]
                    .as_str()
                    .or(document["config"]["mediaType"].as_str())
                    .unwrap_or_default()
                    .to_owned();
                let fits = wanted.is_none_or(|wanted| *wanted == kind);
                fits.then(|| {
                    json!({
                        "mediaType": manifest.media_type, "digest": manifest.digest.as_str(),
                        "size": manifest.bytes.len(), "artifactType": kind,
                        "annotations": document.get("annotations").cloned().unwrap_or_else(|| json!({})),
                    })
                })
            })
            .collect();
        let index = rdock_image::manifest::media_type::OCI_INDEX;
        let body = json!({"schemaVersion": 2, "mediaType": index, "manifests": found}).to_string();
        let reply = Reply::new(200, body).with("content-type", index);
        match wanted {
            Some(_) => reply.with("oci-filters-applied", "artifactType"),
            None => reply,
        }
    }

    async fn put_manifest(
        &self,
        name: &str,
        reference: &str,
        seen: &Seen,
        body: Incoming,
    ) -> io::Result<Reply> {
        let limited = http_body_util::Limited::new(body, LARGEST_MANIFEST);
        let Ok(bytes) = limited.collect().await else {
            return Ok(Reply::error(
                413,
                "SIZE_INVALID",
                "the manifest is too large or incomplete",
            ));
        };
        let bytes = bytes.to_bytes().to_vec();
        let document = match ManifestDocument::parse(&bytes, seen.content_type.as_deref()) {
            Ok(document) => document,
            Err(error) => return Ok(Reply::error(400, "MANIFEST_INVALID", &error.to_string())),
        };
        let (tag, digest) = match Digest::parse(reference) {
            Ok(digest) => {
                let mut hasher = rdock_image::Hasher::like(&digest);
                hasher.update(&bytes);
                if hasher.finish() != digest {
                    return Ok(Reply::error(
                        400,
                        "DIGEST_INVALID",
                        "the manifest has another digest",
                    ));
                }
                (None, digest)
            }
            Err(_) => (Some(reference), Digest::sha256_of(&bytes)),
        };
        if let Some(missing) = self.storage.missing(name, &document) {
            return Ok(Reply::error(400, "MANIFEST_BLOB_UNKNOWN", &missing));
        }
        let (own, subject) = match &document {
            ManifestDocument::Manifest(manifest) => (&manifest.media_type, &manifest.subject),
            ManifestDocument::Index(index) => (&index.media_type, &index.subject),
        };
        let media_type = own
            .clone()
            .or_else(|| seen.content_type.clone())
            .unwrap_or_else(|| rdock_image::manifest::media_type::OCI_MANIFEST.to_owned());
        let manifest = StoredManifest {
            digest: digest.clone(),
            media_type,
            bytes,
        };
        self.storage.put_manifest(name, tag, &manifest)?;
        let reply = Reply::new(201, "")
            .with("location", format!("/v2/{name}/manifests/{digest}"))
            .with("docker-content-digest", &digest);
        Ok(match subject {
            Some(subject) => reply.with("oci-subject", &subject.digest),
            None => reply,
        })
    }

    /// A new upload; or a mount, or a whole blob in the first request.
    async fn begin(&self, name: &str, seen: &Seen, query: &Query, body: Incoming) -> io::Result<Reply> {
        if let (Some(digest), Some(from)) = (query.get("mount"), query.get("from"))
            && let Ok(digest) = Digest::parse(digest)
            && is_name(from)
            && self.storage.find(from, &digest).is_some()
            && self.gate.allows(
                seen,
                &Wanted {
                    repository: Some(from),
                    action: "pull",
                },
            )
        {
            self.storage.link(name, &digest)?;
            return Ok(created(name, &digest));
        }
        let id = super::random()?;
        let path = self.storage.upload(&id);
        fs::File::create(&path)?;
        if let Some(digest) = query.get("digest") {
            append(&path, body, None).await?;
            return self.close(name, &id, digest);
        }
        Ok(self.accepted(name, &id, 202))
    }

    async fn upload(
        &self,
        name: &str,
        id: &str,
        seen: &Seen,
        query: &Query,
        body: Incoming,
        cut: Option<u64>,
    ) -> io::Result<Option<Reply>> {
        let lock = {
            let mut uploads = self.uploads.lock().unwrap_or_else(PoisonError::into_inner);
            uploads.entry(id.to_owned()).or_default().clone()
        };
        let _one_at_a_time = lock.lock().await;
        let path = self.storage.upload(id);
        let Ok(meta) = fs::metadata(&path) else {
            // Whoever asks for what never was must not fill the memory.
            self.forget(id);
            return Ok(Some(Reply::error(404, "BLOB_UPLOAD_UNKNOWN", "no such upload")));
        };
        match seen.method.as_str() {
            "GET" => return Ok(Some(self.accepted(name, id, 204))),
            "DELETE" => {
                fs::remove_file(&path)?;
                self.forget(id);
                return Ok(Some(Reply::new(204, "")));
            }
            _ => {}
        }
        if let Some(range) = &seen.content_range {
            let first = range.split_once('-').and_then(|(first, _)| decimal(first));
            if first != Some(meta.len()) {
                let reply = self.accepted(name, id, 416);
                return Ok(Some(reply));
            }
        }
        if !append(&path, body, cut).await? {
            // The connection is gone; what came before stays.
            return Ok(None);
        }
        if seen.method == "PATCH" {
            return Ok(Some(self.accepted(name, id, 202)));
        }
        let Some(digest) = query.get("digest") else {
            return Ok(Some(Reply::error(400, "DIGEST_INVALID", "no digest is given")));
        };
        self.close(name, id, digest).map(Some)
    }

    /// Makes an upload a blob.
    fn close(&self, name: &str, id: &str, digest: &str) -> io::Result<Reply> {
        let Ok(digest) = Digest::parse(digest) else {
            return Ok(Reply::error(400, "DIGEST_INVALID", "no digest"));
        };
        let path = self.storage.upload(id);
        self.forget(id);
        if self.storage.publish(name, &path, &digest)? {
            return Ok(created(name, &digest));
        }
        fs::remove_file(&path)?;
        Ok(Reply::error(
            400,
            "DIGEST_INVALID",
            "the content has another digest",
        ))
    }

    fn forget(&self, id: &str) {
        self.uploads
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(id);
    }

    /// Loses an upload, for a fault.
    pub(super) fn lose(&self, seen: &Seen) {
        let path = seen.path.split('?').next().unwrap_or_default();
        if let Some(Route::Upload(_, id)) = route(path) {
            // One that is gone already is lost enough.
            let _ = fs::remove_file(self.storage.upload(id));
            self.forget(id);
        }
    }

    /// How far an upload is.
    fn accepted(&self, name: &str, id: &str, status: u16) -> Reply {
        let size = fs::metadata(self.storage.upload(id)).map_or(0, |meta| meta.len());
        Reply::new(status, "")
            .with("location", format!("/v2/{name}/blobs/uploads/{id}"))
            .with("docker-upload-uuid", id)
            .with("range", format!("0-{}", size.saturating_sub(1)))
    }
}

fn created(name: &str, digest: &Digest) -> Reply {
    Reply::new(201, "")
        .with("location", format!("/v2/{name}/blobs/{digest}"))
        .with("docker-content-digest", digest)
}

fn listed(body: &serde_json::Value, link: Option<String>) -> Reply {
    let reply = Reply::new(200, body.to_string()).with("content-type", "application/json");
    match link {
        Some(link) => reply.with("link", link),
        None => reply,
    }
}

/// The names after `last`, at most `n`, and where the next ones are.
fn page(names: &[String], query: &Query, path: &str) -> (Vec<String>, Option<String>) {
    let count = query
        .get("n")
        .and_then(|text| decimal(text))
        .map_or(PAGE, |count| count.min(PAGE as u64) as usize);
    let rest: Vec<_> = match query.get("last") {
        Some(last) => names.iter().filter(|name| *name > last).cloned().collect(),
        None => names.to_vec(),
    };
    let page: Vec<_> = rest.iter().take(count).cloned().collect();
    // Who asks for no names gets no way to go on either.
    let link = (rest.len() > page.len() && count > 0).then(|| {
        let last = page.last().map(String::as_str).unwrap_or_default();
        format!("<{path}?n={count}&last={last}>; rel=\"next\"")
    });
    (page, link)
}

fn blob(seen: &Seen, digest: &Digest, path: &Path, size: u64) -> Reply {
    let reply = Reply::new(200, "")
        .with("content-type", "application/octet-stream")
        .with("docker-content-digest", digest)
        .with("accept-ranges", "bytes");
    let file = |from: u64, length: u64| {
        let path = path.to_owned();
        match seen.method.as_str() {
            "GET" => vec![Step::File { path, from, length }],
            _ => Vec::new(),
        }
    };
    let Some(range) = seen.range.as_deref().and_then(Range::parse) else {
        return reply.with("content-length", size).steps(file(0, size));
    };
    match range.within(size) {
        Some((first, last)) => reply
            .status(206)
            .with("content-range", format!("bytes {first}-{last}/{size}"))
            .with("content-length", last - first + 1)
            .steps(file(first, last - first + 1)),
        None => Reply::error(416, "RANGE_INVALID", "not in the blob")
            .with("content-range", format!("bytes */{size}")),
    }
}

/// Adds a body to an upload as it comes; false when the connection broke, or was to break after `cut` bytes.
async fn append(path: &Path, mut body: Incoming, cut: Option<u64>) -> io::Result<bool> {
    let mut file = fs::OpenOptions::new().append(true).open(path)?;
    let mut taken = 0;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return Ok(false) };
        let Ok(mut data) = frame.into_data() else { continue };
        if let Some(cut) = cut
            && taken + data.len() as u64 > cut
        {
            data.truncate((cut - taken) as usize);
            file.write_all(data.chunk())?;
            return Ok(false);
        }
        taken += data.len() as u64;
        file.write_all(&data)?;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_stay_in_the_directory() {
        for path in [
            "/v2/../a/manifests/1",
            "/v2/a/../manifests/1",
            "/v2/_blobs/manifests/1",
            "/v2/A/manifests/1",
            "/v2/a/manifests/..",
            "/v2/a/blobs/uploads/../x",
            "/v2//manifests/1",
        ] {
            assert_eq!(route(path), None, "{path}");
        }
        assert_eq!(route("/v2/a/b/manifests/1"), Some(Route::Manifest("a/b", "1")));
        assert_eq!(route("/v2/a/blobs/uploads/"), Some(Route::Uploads("a")));
        assert_eq!(route("/v2/a/blobs/uploads/0f"), Some(Route::Upload("a", "0f")));
        assert_eq!(route("/v2/a/tags/list"), Some(Route::Tags("a")));
    }

    #[test]
    fn names_are_those_of_the_specification() {
        for name in ["a", "a1/b.c", "a_b", "a__b", "a-b", "a---b", "0", "a.b/c__d-e"] {
            assert!(is_name(name), "{name}");
        }
        for name in [
            "", "a..b", "a___b", "a._b", "a-_b", "-a", "a-", "a//b", "A", "ä", "a b", "a/",
        ] {
            assert!(!is_name(name), "{name}");
        }
    }

    #[test]
    fn a_page_of_nothing_leads_nowhere() {
        let names = ["a", "b", "c"].map(str::to_owned);
        let query = |n: &str| Query::from([("n".to_owned(), n.to_owned())]);
        assert_eq!(page(&names, &query("0"), "/x"), (Vec::new(), None));
        let (found, link) = page(&names, &query("2"), "/x");
        assert_eq!(
            (found.len(), link.as_deref()),
            (2, Some("</x?n=2&last=b>; rel=\"next\""))
        );
    }

    proptest! {
        #[test]
        fn foreign_paths_never_leave(path in "/v2/([a-z./_%A-Z0-9]|blobs|manifests|uploads|tags/list){0,30}") {
            if let Some(Route::Manifest(name, _) | Route::Tags(name) | Route::Uploads(name)) = route(&path) {
                prop_assert!(!name.split('/').any(|part| part.is_empty() || part.starts_with(['.', '_'])));
            }
        }
    }
}
