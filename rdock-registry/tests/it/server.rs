//! A registry on loopback that misbehaves on demand.
//!
//! It serves one image under every name. A script sees each request first and may answer in its place; what it
//! leaves is answered as the distribution specification says.

use crate::content::Content;
use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) method: String,
    /// As the client calls this server.
    pub(crate) host: String,
    /// With the query.
    pub(crate) path: String,
    pub(crate) authorization: Option<String>,
    pub(crate) range: Option<String>,
    pub(crate) body: String,
    /// How often this path was asked for before.
    pub(crate) before: usize,
}

impl Seen {
    pub(crate) fn is_manifest(&self) -> bool {
        self.path.contains("/manifests/")
    }

    pub(crate) fn is_blob(&self, digest: &impl ToString) -> bool {
        self.path.ends_with(&format!("/blobs/{}", digest.to_string()))
    }

    /// First byte that `Range` asks for.
    pub(crate) fn from(&self) -> Option<usize> {
        self.range
            .as_deref()?
            .strip_prefix("bytes=")?
            .strip_suffix('-')?
            .parse()
            .ok()
    }
}

/// What a body does next.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Send(Vec<u8>),
    Wait(Duration),
    /// The connection ends here, whatever was announced.
    Cut,
    /// These bytes again and again.
    Forever(Vec<u8>),
}

#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) steps: Vec<Step>,
}

impl Answer {
    pub(crate) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            steps: vec![Step::Send(body.into())],
        }
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }

    pub(crate) fn steps(mut self, steps: impl Into<Vec<Step>>) -> Self {
        self.steps = steps.into();
        self
    }

    /// An error in the specification's envelope.
    pub(crate) fn error(status: u16, code: &str) -> Self {
        Self::new(
            status,
            format!(r#"{{"errors":[{{"code":"{code}","message":"as scripted","detail":""}}]}}"#),
        )
    }

    pub(crate) fn bearer(realm: &str, scope: &str) -> Self {
        let challenge = format!(r#"Bearer realm="{realm}",service="scripted",scope="{scope}""#);
        Self::error(401, "UNAUTHORIZED").with("www-authenticate", challenge)
    }
}

/// Only the first `count` bytes of a whole blob, though all of it is announced.
pub(crate) fn cut_after(blob: &[u8], count: usize) -> Answer {
    Answer::new(200, "").with("content-length", blob.len()).steps([
        Step::Send(blob[..count].to_vec()),
        Step::Wait(Duration::from_millis(50)),
        Step::Cut,
    ])
}

type Script = dyn Fn(&Seen) -> Option<Answer> + Send + Sync;

/// A running registry; it ends with this value.
pub(crate) struct Registry {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Registry {
    pub(crate) fn start(
        content: &Content,
        script: impl Fn(&Seen) -> Option<Answer> + Send + Sync + 'static,
    ) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("runtime");
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
            .expect("a port on loopback");
        let address = listener.local_addr().expect("bound");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let state = Arc::new((content.clone(), seen.clone(), Box::new(script) as Box<Script>));
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = state.clone();
                tokio::spawn(async move {
                    let service = service_fn(|request| {
                        let state = state.clone();
                        async move { Ok::<_, Infallible>(serve(&state.0, &state.1, &state.2, request).await) }
                    });
                    let connection = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service);
                    // A connection that a client or a script breaks is what these tests are about.
                    connection.await.ok();
                });
            }
        });
        Self {
            address,
            seen,
            runtime: Some(runtime),
        }
    }

    /// One that does nothing unusual.
    pub(crate) fn plain(content: &Content) -> Self {
        Self::start(content, |_| None)
    }

    /// `127.0.0.1:PORT`
    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Requests for a blob.
    pub(crate) fn seen_of(&self, digest: &impl ToString) -> Vec<Seen> {
        self.seen()
            .into_iter()
            .filter(|seen| seen.is_blob(digest))
            .collect()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn serve(
    content: &Content,
    log: &Mutex<Vec<Seen>>,
    script: &Script,
    request: hyper::Request<Incoming>,
) -> hyper::Response<UnsyncBoxBody<Bytes, io::Error>> {
    let header = |name| {
        request
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned)
    };
    let (authorization, range) = (header("authorization"), header("range"));
    let host = header("host").unwrap_or_default();
    let method = request.method().to_string();
    let path = request.uri().to_string();
    let body = request
        .into_body()
        .collect()
        .await
        .map(|body| body.to_bytes())
        .unwrap_or_default();
    let seen = {
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        let before = log.iter().filter(|one| one.path == path).count();
        let body = String::from_utf8_lossy(&body).into_owned();
        let seen = Seen {
            method,
            host,
            path,
            authorization,
            range,
            body,
            before,
        };
        log.push(seen.clone());
        seen
    };
    let answer = script(&seen).unwrap_or_else(|| usual(content, &seen));
    let mut response = hyper::Response::builder().status(answer.status);
    for (name, value) in &answer.headers {
        response = response.header(*name, value);
    }
    let body = StreamBody::new(futures_util::stream::unfold(answer.steps.into_iter(), next));
    response
        .body(body.boxed_unsync())
        .expect("a scripted answer is valid")
}

type Steps = std::vec::IntoIter<Step>;

async fn next(mut steps: Steps) -> Option<(Result<Frame<Bytes>, io::Error>, Steps)> {
    loop {
        match steps.next()? {
            Step::Send(bytes) if bytes.is_empty() => {}
            Step::Send(bytes) => return Some((Ok(Frame::data(bytes.into())), steps)),
            Step::Wait(time) => tokio::time::sleep(time).await,
            Step::Cut => return Some((Err(io::Error::other("cut")), steps)),
            Step::Forever(bytes) => {
                steps = vec![Step::Forever(bytes.clone())].into_iter();
                return Some((Ok(Frame::data(bytes.into())), steps));
            }
        }
    }
}

/// What the distribution specification says.
fn usual(content: &Content, seen: &Seen) -> Answer {
    if seen.is_manifest() {
        return Answer::new(200, content.manifest.clone())
            .with("content-type", rdock_image::manifest::media_type::DOCKER_MANIFEST)
            .with("docker-content-digest", content.digest());
    }
    let blob = seen
        .path
        .rsplit_once("/blobs/")
        .and_then(|(_, digest)| content.blobs().remove(digest));
    match (blob, seen.from()) {
        (None, _) => Answer::error(404, "BLOB_UNKNOWN"),
        (Some(blob), None) => Answer::new(200, "")
            .with("content-length", blob.len())
            .steps([Step::Send(blob)]),
        (Some(blob), Some(from)) => Answer::new(206, "")
            .with(
                "content-range",
                format!("bytes {from}-{}/{}", blob.len() - 1, blob.len()),
            )
            .with("content-length", blob.len() - from)
            .steps([Step::Send(blob[from..].to_vec())]),
    }
}
