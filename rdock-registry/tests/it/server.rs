//! A registry in this process that misbehaves on demand.

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

type Body = BoxBody<Bytes, io::Error>;

/// What to do wrong. The default is a registry as it should be.
#[derive(Debug, Clone, Default)]
pub(crate) struct Behaviour {
    /// Ends the connection after so many bytes of a layer, this many times.
    pub(crate) cut: Option<(usize, usize)>,
    pub(crate) ignore_range: bool,
    pub(crate) wrong_content_range: bool,
    /// Flips a byte of every layer.
    pub(crate) lie: bool,
    /// Announces this digest for every manifest.
    pub(crate) announce: Option<String>,
    /// Refuses this many requests with 429 and this Retry-After.
    pub(crate) too_many: Option<(usize, &'static str)>,
    /// Wants this user and password.
    pub(crate) basic: Option<(&'static str, &'static str)>,
    /// Sends whoever has no token of the realm there.
    pub(crate) realm: Option<String>,
    /// Every token is good for so many requests.
    pub(crate) token_uses: Option<usize>,
    /// Sends whoever wants a layer to this host.
    pub(crate) layers_at: Option<String>,
    /// A manifest without an end.
    pub(crate) endless: bool,
    /// Says nothing after the headers of a layer.
    pub(crate) stall: bool,
}

/// One request that was made.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) path: String,
    pub(crate) authorization: Option<String>,
    pub(crate) range: Option<String>,
}

#[derive(Debug, Default)]
struct State {
    behaviour: Behaviour,
    contents: HashMap<String, (String, Vec<u8>)>,
    seen: Vec<Seen>,
    tokens: usize,
    uses: usize,
}

/// A running server; it ends with this process.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Server {
    pub(crate) fn start(behaviour: Behaviour) -> Self {
        let state = Arc::new(Mutex::new(State {
            behaviour,
            ..State::default()
        }));
        let (tell, told) = std::sync::mpsc::channel();
        let shared = state.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("runtime");
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
                tell.send(listener.local_addr().expect("address")).expect("tell");
                loop {
                    let Ok((stream, _)) = listener.accept().await else {
                        continue;
                    };
                    let state = shared.clone();
                    tokio::spawn(async move {
                        let service = service_fn(|request| answer(state.clone(), request));
                        // A client that leaves early is part of the tests.
                        let _ = hyper::server::conn::http1::Builder::new()
                            .serve_connection(TokioIo::new(stream), service)
                            .await;
                    });
                }
            });
        });
        Self {
            address: told.recv().expect("server"),
            state,
        }
    }

    pub(crate) fn put(&self, path: String, kind: &str, bytes: Vec<u8>) {
        self.state
            .lock()
            .expect("state")
            .contents
            .insert(path, (kind.to_owned(), bytes));
    }

    /// Changes what it does wrong.
    pub(crate) fn set(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut self.state.lock().expect("state").behaviour);
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.state.lock().expect("state").seen.clone()
    }
}

fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}

fn status(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(full(text));
    *response.status_mut() = status;
    response
}

/// Parts of a body; an error ends the connection in the middle.
fn parts(parts: Vec<Result<Bytes, io::Error>>, then_wait: bool) -> Body {
    let frames = futures_util::stream::unfold(parts.into_iter(), move |mut rest| async move {
        match rest.next() {
            Some(part) => {
                if part.is_err() {
                    // What came before it is on its way by then.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Some((part.map(Frame::data), rest))
            }
            None if then_wait => {
                tokio::time::sleep(Duration::from_secs(3600)).await;
                None
            }
            None => None,
        }
    });
    BodyExt::boxed(StreamBody::new(frames))
}

async fn answer(state: Arc<Mutex<State>>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    Ok(respond(&mut state.lock().expect("state"), &request))
}

fn respond(state: &mut State, request: &Request<Incoming>) -> Response<Body> {
    let header = |name: &str| {
        request
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned)
    };
    let path = request.uri().path().to_owned();
    let seen = Seen {
        path: path.clone(),
        authorization: header("authorization"),
        range: header("range"),
    };
    state.seen.push(seen.clone());
    let behaviour = state.behaviour.clone();
    if path == "/token" {
        state.tokens += 1;
        state.uses = 0;
        return Response::new(full(format!(r#"{{"token":"t{}"}}"#, state.tokens)));
    }
    if let Some((left, pause)) = behaviour.too_many.filter(|(left, _)| *left > 0) {
        state.behaviour.too_many = Some((left - 1, pause));
        let mut response = status(StatusCode::TOO_MANY_REQUESTS, "slow down");
        response
            .headers_mut()
            .insert("retry-after", pause.parse().expect("header"));
        return response;
    }
    let challenge = if let Some((user, password)) = behaviour.basic {
        use base64::Engine;
        let wanted = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        (seen.authorization != Some(format!("Basic {wanted}"))).then(|| "Basic realm=\"test\"".to_owned())
    } else if let Some(realm) = &behaviour.realm {
        let current = format!("Bearer t{}", state.tokens);
        state.uses += 1;
        let spent = behaviour.token_uses.is_some_and(|most| state.uses > most);
        (seen.authorization != Some(current) || spent)
            .then(|| format!("Bearer realm=\"{realm}\",service=\"test\""))
    } else {
        None
    };
    if let Some(challenge) = challenge {
        let mut response = status(
            StatusCode::UNAUTHORIZED,
            r#"{"errors":[{"code":"UNAUTHORIZED","message":"who are you"}]}"#,
        );
        response
            .headers_mut()
            .insert("www-authenticate", challenge.parse().expect("header"));
        return response;
    }
    let Some((kind, bytes)) = state.contents.get(&path).cloned() else {
        return status(
            StatusCode::NOT_FOUND,
            r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#,
        );
    };
    if kind == LAYER {
        return layer(state, &seen, bytes);
    }
    if path.contains("/manifests/") {
        return manifest(&behaviour, &kind, bytes);
    }
    Response::new(full(bytes))
}

/// Media type of the layers in these tests.
pub(crate) const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

fn manifest(behaviour: &Behaviour, kind: &str, bytes: Vec<u8>) -> Response<Body> {
    let body = if behaviour.endless {
        parts(
            (0..4096).map(|_| Ok(Bytes::from(vec![b' '; 64 << 10]))).collect(),
            true,
        )
    } else {
        full(bytes)
    };
    let mut response = Response::new(body);
    response
        .headers_mut()
        .insert("content-type", kind.parse().expect("header"));
    if let Some(digest) = &behaviour.announce {
        response
            .headers_mut()
            .insert("docker-content-digest", digest.parse().expect("header"));
    }
    response
}

fn layer(state: &mut State, seen: &Seen, mut bytes: Vec<u8>) -> Response<Body> {
    let behaviour = state.behaviour.clone();
    if let Some(host) = &behaviour.layers_at {
        let mut response = status(StatusCode::TEMPORARY_REDIRECT, "");
        let place = format!("http://{host}{}", seen.path);
        response
            .headers_mut()
            .insert("location", place.parse().expect("header"));
        return response;
    }
    if behaviour.lie {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    }
    let total = bytes.len();
    let from = seen
        .range
        .as_deref()
        .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    let from: usize = from.filter(|_| !behaviour.ignore_range).unwrap_or(0);
    let rest = bytes.split_off(from);
    let mut body = full(rest.clone());
    if let Some((at, times)) = behaviour.cut.filter(|(at, times)| *times > 0 && *at < rest.len()) {
        state.behaviour.cut = Some((at, times - 1));
        let part = rest[..at.min(rest.len())].to_vec();
        body = parts(
            vec![Ok(part.into()), Err(io::ErrorKind::ConnectionReset.into())],
            false,
        );
    }
    if behaviour.stall {
        body = parts(Vec::new(), true);
    }
    let mut response = Response::new(body);
    response.headers_mut().insert("content-length", rest.len().into());
    if from > 0 {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        let first = if behaviour.wrong_content_range {
            from + 1
        } else {
            from
        };
        let range = format!("bytes {first}-{}/{total}", total - 1);
        response
            .headers_mut()
            .insert("content-range", range.parse().expect("header"));
    }
    response
}
