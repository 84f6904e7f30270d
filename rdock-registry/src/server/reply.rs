//! Requests as they came, replies as they go out, and faults: ways in which a registry may misbehave.

use bytes::Bytes;
use http_body_util::StreamBody;
use http_body_util::{BodyExt, combinators::UnsyncBoxBody};
use hyper::body::Frame;
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read, Seek};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Bytes of a file that go out at a time.
const PART: usize = 256 << 10;

/// A request as it came.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Seen {
    /// In capitals.
    pub method: String,
    /// As the client calls this server.
    pub host: String,
    /// With the query.
    pub path: String,
    /// The Authorization header.
    pub authorization: Option<String>,
    /// The Range header.
    pub range: Option<String>,
    /// The Content-Range header.
    pub content_range: Option<String>,
    /// The Content-Type header.
    pub content_type: Option<String>,
    /// All headers, names in lower case.
    pub headers: BTreeMap<String, String>,
    /// Of a form; other bodies are not kept.
    pub body: String,
    /// How often this method was used on this path before.
    pub before: usize,
}

impl Seen {
    /// What it takes in memory, about.
    pub(super) fn bytes(&self) -> usize {
        let texts = [
            &self.authorization,
            &self.range,
            &self.content_range,
            &self.content_type,
        ];
        let texts = texts.into_iter().flatten().map(String::len).sum::<usize>();
        let headers = self
            .headers
            .iter()
            .map(|(name, value)| name.len() + value.len() + 48);
        self.path.len() + self.host.len() + self.body.len() + texts + headers.sum::<usize>() + 256
    }

    /// Says whether it is about a manifest.
    pub fn is_manifest(&self) -> bool {
        self.path.contains("/manifests/")
    }

    /// Says whether it is about the blob of this digest.
    pub fn is_blob(&self, digest: &impl ToString) -> bool {
        self.path.ends_with(&format!("/blobs/{}", digest.to_string()))
    }

    /// First byte that `Range` asks for.
    pub fn from(&self) -> Option<usize> {
        let range = self.range.as_deref()?.strip_prefix("bytes=")?;
        range.split_once('-')?.0.parse().ok()
    }
}

/// What holds replies until it is opened, once and for all. Clones are the same barrier.
#[derive(Debug, Clone)]
pub struct Barrier(Arc<tokio::sync::Semaphore>);

impl Default for Barrier {
    /// A closed one.
    fn default() -> Self {
        Self(Arc::new(tokio::sync::Semaphore::new(0)))
    }
}

impl Barrier {
    /// Opens it.
    pub fn open(&self) {
        self.0.close();
    }

    async fn opened(&self) {
        // Nobody ever gets a permit: the wait ends when the barrier is opened.
        drop(self.0.acquire().await);
    }
}

/// What a body does next.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Step {
    /// These bytes go out.
    Send(Vec<u8>),
    /// These bytes of a file go out.
    File {
        /// The file.
        path: PathBuf,
        /// Position of the first byte.
        from: u64,
        /// Bytes in all.
        length: u64,
    },
    /// Nothing happens.
    Wait(Duration),
    /// Nothing happens until the barrier is opened.
    Hold(Barrier),
    /// The connection ends here, whatever was announced.
    Cut,
    /// These bytes again and again.
    Forever(Vec<u8>),
}

/// What the server says.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Reply {
    /// HTTP status code.
    pub status: u16,
    /// In order.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub steps: Vec<Step>,
}

impl Reply {
    /// A reply with this body.
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        Self {
            status,
            headers: Vec::new(),
            steps: if body.is_empty() {
                Vec::new()
            } else {
                vec![Step::Send(body)]
            },
        }
    }

    /// Adds a header.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn steps(mut self, steps: impl Into<Vec<Step>>) -> Self {
        self.steps = steps.into();
        self
    }

    /// Sets the status.
    #[must_use]
    pub fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// An error in the specification's envelope.
    pub fn error(status: u16, code: &str, message: &str) -> Self {
        let body = serde_json::json!({"errors": [{"code": code, "message": message, "detail": ""}]});
        Self::new(status, body.to_string()).with("content-type", "application/json")
    }

    /// A challenge for a token from `realm`.
    pub fn bearer(realm: &str, scope: &str) -> Self {
        let scope = match scope {
            "" => String::new(),
            scope => format!(r#",scope="{scope}""#),
        };
        Self::error(401, "UNAUTHORIZED", "authentication is required").with(
            "www-authenticate",
            format!(r#"Bearer realm="{realm}",service="rdock"{scope}"#),
        )
    }

    pub(super) fn into_response(self) -> hyper::Response<UnsyncBoxBody<Bytes, io::Error>> {
        let mut response = hyper::Response::builder().status(self.status);
        for (name, value) in &self.headers {
            response = response.header(*name, value);
        }
        let body = StreamBody::new(futures_util::stream::unfold(VecDeque::from(self.steps), next));
        response.body(body.boxed_unsync()).unwrap_or_else(|_| {
            // A script's header that HTTP does not allow.
            let mut response = hyper::Response::new(
                http_body_util::Empty::new()
                    .map_err(io::Error::other)
                    .boxed_unsync(),
            );
            *response.status_mut() = hyper::StatusCode::INTERNAL_SERVER_ERROR;
            response
        })
    }

    /// The body's bytes, as far as they are finite.
    fn bytes(&self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        for step in &self.steps {
            match step {
                Step::Send(part) => bytes.extend_from_slice(part),
                Step::File { path, from, length } => {
                    let mut file = std::fs::File::open(path)?;
                    file.seek(io::SeekFrom::Start(*from))?;
                    file.take(*length).read_to_end(&mut bytes)?;
                }
                Step::Wait(_) | Step::Hold(_) | Step::Cut | Step::Forever(_) => {}
            }
        }
        Ok(bytes)
    }
}

type Steps = VecDeque<Step>;

async fn next(mut steps: Steps) -> Option<(Result<Frame<Bytes>, io::Error>, Steps)> {
    loop {
        match steps.pop_front()? {
            Step::Send(bytes) if bytes.is_empty() => {}
            Step::Send(bytes) => return Some((Ok(Frame::data(bytes.into())), steps)),
            Step::File { length: 0, .. } => {}
            Step::File { path, from, length } => {
                let count = length.min(PART as u64);
                let part = read(&path, from, count);
                steps.push_front(Step::File {
                    path,
                    from: from + count,
                    length: length - count,
                });
                return Some((part.map(|part| Frame::data(part.into())), steps));
            }
            Step::Wait(time) => tokio::time::sleep(time).await,
            Step::Hold(barrier) => barrier.opened().await,
            Step::Cut => return Some((Err(io::Error::other("cut")), steps)),
            Step::Forever(bytes) => {
                steps.push_front(Step::Forever(bytes.clone()));
                return Some((Ok(Frame::data(bytes.into())), steps));
            }
        }
    }
}

/// A short read from a local disk, on the server's own threads.
fn read(path: &PathBuf, from: u64, count: u64) -> io::Result<Vec<u8>> {
    let mut file = std::fs::File::open(path)?;
    file.seek(io::SeekFrom::Start(from))?;
    let mut part = vec![0; count as usize];
    file.read_exact(&mut part)?;
    Ok(part)
}

/// A way in which a registry may misbehave.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The connection ends after so many bytes of the body, though all of it was announced.
    Cut(u64),
    /// The connection ends after so many bytes of an upload were taken.
    CutUpload(u64),
    /// The upload is forgotten before the request is looked at.
    LoseUpload,
    /// One byte of the body is another one.
    WrongBytes,
    /// `Docker-Content-Digest` names other content.
    WrongDigest,
    /// `Range` is ignored: the whole comes with 200.
    IgnoreRange,
    /// `Content-Range` begins at the first byte, whatever follows.
    WrongContentRange,
    /// This status instead, with `Retry-After` in seconds.
    Status(u16, Option<u64>),
    /// A challenge instead, for credentials that are not known to be wrong.
    Unauthorized,
    /// One byte of the body at a time, with such a pause before each.
    Slow(Duration),
    /// No answer for so long; then the connection ends.
    Silent(Duration),
    /// A redirect to the same path on another host (`http://host:port`).
    Redirect(String),
    /// The body never ends.
    Endless,
    /// The body is encoded on its way (`Content-Encoding`), which nobody asked for.
    Encoded(&'static str),
}

impl Fault {
    /// A fault by its name; [`FaultRule::parse`] has them all.
    fn parse(text: &str) -> Option<Self> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (text, None),
        };
        let number = || value.and_then(crate::protocol::decimal);
        let time = || {
            let seconds: f64 = value?.parse().ok()?;
            Duration::try_from_secs_f64(seconds).ok()
        };
        Some(match name {
            "cut" => Self::Cut(number()?),
            "cut-upload" => Self::CutUpload(number()?),
            "lose-upload" => Self::LoseUpload,
            "wrong-bytes" => Self::WrongBytes,
            "wrong-digest" => Self::WrongDigest,
            "ignore-range" => Self::IgnoreRange,
            "wrong-content-range" => Self::WrongContentRange,
            "unauthorized" => Self::Unauthorized,
            "slow" => Self::Slow(time()?),
            "silent" => Self::Silent(time()?),
            "redirect" => Self::Redirect(value?.to_owned()),
            "endless" => Self::Endless,
            "gzip" => Self::Encoded("gzip"),
            "zstd" => Self::Encoded("zstd"),
            "deflate" => Self::Encoded("deflate"),
            status => {
                let status = crate::protocol::decimal(status)?;
                (400..600)
                    .contains(&status)
                    .then_some(Self::Status(status as u16, number()))?
            }
        })
    }

    /// What is said in place of the usual, for faults that do not need it.
    pub(super) fn instead(&self, seen: &Seen) -> Option<Reply> {
        Some(match self {
            Self::Status(status, retry) => {
                let reply = Reply::error(*status, "UNAVAILABLE", "as asked for");
                match retry {
                    Some(seconds) => reply.with("retry-after", seconds),
                    None => reply,
                }
            }
            Self::Unauthorized => Reply::error(401, "UNAUTHORIZED", "as asked for")
                .with("www-authenticate", "Basic realm=\"rdock\""),
            Self::Redirect(to) => Reply::new(307, "").with("location", format!("{to}{}", seen.path)),
            _ => return None,
        })
    }

    /// Spoils a reply.
    pub(super) fn spoil(&self, mut reply: Reply) -> io::Result<Reply> {
        let set = |reply: &mut Reply, name: &'static str, value: String| {
            reply.headers.retain(|(known, _)| *known != name);
            reply.headers.push((name, value));
        };
        match self {
            Self::Cut(after) => {
                let mut bytes = reply.bytes()?;
                bytes.truncate(*after as usize);
                // Time for the client to read what came before the connection breaks.
                let pause = Step::Wait(Duration::from_millis(50));
                reply.steps = vec![Step::Send(bytes), pause, Step::Cut];
            }
            Self::WrongBytes => {
                let mut bytes = reply.bytes()?;
                let middle = bytes.len() / 2;
                if let Some(byte) = bytes.get_mut(middle) {
                    *byte ^= 1;
                }
                reply.steps = vec![Step::Send(bytes)];
            }
            Self::WrongDigest => {
                let other = rdock_image::Digest::sha256_of(b"other content").to_string();
                set(&mut reply, "docker-content-digest", other);
            }
            Self::WrongContentRange => {
                if let Some((_, range)) = reply
                    .headers
                    .iter_mut()
                    .find(|(name, _)| *name == "content-range")
                {
                    let rest = range.split_once('-').map_or("0/1", |(_, rest)| rest);
                    *range = format!("bytes 0-{rest}");
                }
            }
            Self::Slow(pause) => {
                let bytes = reply.bytes()?;
                reply.steps = bytes
                    .iter()
                    .flat_map(|byte| [Step::Wait(*pause), Step::Send(vec![*byte])])
                    .collect();
            }
            Self::Endless => {
                reply.headers.retain(|(name, _)| *name != "content-length");
                reply.steps = vec![Step::Forever(vec![b' '; 64 << 10])];
            }
            Self::Encoded(coding) => {
                let bytes = encoded(coding, &reply.bytes()?)?;
                set(&mut reply, "content-length", bytes.len().to_string());
                set(&mut reply, "content-encoding", (*coding).to_owned());
                reply.steps = vec![Step::Send(bytes)];
            }
            _ => {}
        }
        Ok(reply)
    }
}

/// The codings of a list, one after the other.
fn encoded(codings: &str, plain: &[u8]) -> io::Result<Vec<u8>> {
    use io::Write;
    let mut bytes = plain.to_vec();
    for coding in codings
        .split(',')
        .map(str::trim)
        .filter(|coding| !coding.is_empty())
    {
        bytes = match coding {
            "gzip" => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(&bytes)?;
                encoder.finish()?
            }
            "deflate" => {
                let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(&bytes)?;
                encoder.finish()?
            }
            _ => zstd::encode_all(&bytes[..], 1)?,
        };
    }
    Ok(bytes)
}

/// When a fault happens.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct FaultRule {
    /// What happens.
    pub fault: Fault,
    /// The method it happens to; every one by default.
    pub method: Option<String>,
    /// A part of the path it happens to; every one by default.
    pub path: String,
    /// So many times, for each path and method; always by default.
    pub times: Option<usize>,
}

impl FaultRule {
    /// Always, to everything.
    pub fn new(fault: Fault) -> Self {
        Self {
            fault,
            method: None,
            path: String::new(),
            times: None,
        }
    }

    /// A rule as a text: the fault by its name (`cut=BYTES`, `cut-upload=BYTES`, `lose-upload`, `wrong-bytes`,
    /// `wrong-digest`, `ignore-range`, `wrong-content-range`, `unauthorized`, `slow=SECONDS`, `silent=SECONDS`,
    /// `redirect=http://HOST:PORT`, `endless`, `gzip`, `zstd`, `deflate`, or a status as `429` or `429=SECONDS` with
    /// `Retry-After`), then `,method=METHOD`, `,path=PART` and `,times=NUMBER` as needed.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = text.split(',');
        let name = parts.next().unwrap_or_default();
        let fault = Fault::parse(name).ok_or_else(|| format!("unknown fault {name:?}"))?;
        let mut rule = Self::new(fault);
        for part in parts {
            match part.split_once('=') {
                Some(("method", method)) => rule.method = Some(method.to_ascii_uppercase()),
                Some(("path", path)) => path.clone_into(&mut rule.path),
                Some(("times", times)) => {
                    let times = times.parse().map_err(|_| format!("{times:?} is not a number"))?;
                    rule.times = Some(times);
                }
                _ => return Err(format!("{part:?} is none of method=, path=, times=")),
            }
        }
        Ok(rule)
    }

    /// Only to requests with this method.
    #[must_use]
    pub fn on_method(mut self, method: &str) -> Self {
        self.method = Some(method.to_owned());
        self
    }

    /// Only to paths that contain this.
    #[must_use]
    pub fn on_path(mut self, part: &str) -> Self {
        self.path = part.to_owned();
        self
    }

    /// Only so many times for each path and method.
    #[must_use]
    pub fn times(mut self, times: usize) -> Self {
        self.times = Some(times);
        self
    }

    pub(super) fn applies(&self, seen: &Seen) -> bool {
        self.method.as_ref().is_none_or(|method| *method == seen.method)
            && seen.path.contains(&self.path)
            && self.times.is_none_or(|times| seen.before < times)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rules_are_texts() {
        let rule = FaultRule::parse("cut=1000,method=get,path=/blobs/,times=2").expect("a rule");
        assert_eq!(
            (rule.fault, rule.method.as_deref(), rule.path.as_str(), rule.times),
            (Fault::Cut(1000), Some("GET"), "/blobs/", Some(2))
        );
        let rule = FaultRule::parse("429=3").expect("a rule");
        assert_eq!(rule.fault, Fault::Status(429, Some(3)));
        for wrong in [
            "",
            "cut",
            "cut=x",
            "200",
            "slow=-1",
            "endless,times=x",
            "endless,often",
        ] {
            assert!(FaultRule::parse(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn foreign_texts_never_panic(text in "(cut|slow|429|endless|=|,|times|-|[0-9.e]|path){0,10}") {
            FaultRule::parse(&text).ok();
        }
    }
}
