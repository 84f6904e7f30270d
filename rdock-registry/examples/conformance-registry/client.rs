//! Cases about what a client does: a real one, and a registry on loopback that misbehaves.

use super::{Outcome, compare, text_of};
use crate::content::Content;
use rdock_image::manifest::media_type;
use rdock_image::{ImageStore, Platform, Progress, Reference};
use rdock_registry::server::{Fault, FaultRule, RegistryServer, Reply, ServerOptions, Step};
use rdock_registry::{Error, RegistryClient, RegistryConfig};
use serde_json::{Value, json};
use std::io::{self, Read, Write};
use std::net::TcpListener;
use std::time::Duration;

/// The client's own limit in these cases.
const RETRIES: u32 = 2;
/// More, and less, than what counts as progress.
const LARGE: usize = 128 << 10;
const SMALL: usize = 1 << 10;

fn failed(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn pull(name: &str, retries: u32) -> Result<Result<(), Error>, String> {
    let dir = tempfile::tempdir().map_err(failed)?;
    let store = ImageStore::open(dir.path()).map_err(failed)?;
    let mut config = RegistryConfig::default();
    (config.retries, config.idle_timeout) = (retries, Duration::from_secs(10));
    let client = RegistryClient::new(config).map_err(failed)?;
    let reference = Reference::parse(name).map_err(failed)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(failed)?;
    let (platform, progress) = (Platform::host(), Progress::default());
    let pull = client.pull(&reference, &platform, &store, &progress);
    Ok(runtime.block_on(pull).map(drop))
}

/// A registry with one image, `a:1`.
fn serve(
    content: &Content,
    options: impl FnOnce(ServerOptions) -> ServerOptions,
) -> Result<(RegistryServer, tempfile::TempDir), String> {
    let dir = tempfile::tempdir().map_err(failed)?;
    let server = RegistryServer::start(options(ServerOptions::new(dir.path()))).map_err(failed)?;
    for blob in content.blobs().values() {
        server.put_blob("a", blob).map_err(failed)?;
    }
    server
        .put_manifest("a", "1", media_type::DOCKER_MANIFEST, &content.manifest)
        .map_err(failed)?;
    Ok((server, dir))
}

/// Whether an image whose bodies are all encoded so arrives.
pub(crate) fn encoded(codings: &str) -> Result<bool, String> {
    let content = Content::new(2, 1);
    // The fault lives as long as the server, which lives as long as this program may.
    let codings: &'static str = Box::leak(codings.to_owned().into_boxed_str());
    let rule = FaultRule::new(Fault::Encoded(codings)).on_method("GET");
    let (server, _dir) = serve(&content, |options| match codings {
        "" => options,
        _ => options.fault(rule),
    })?;
    pull(&format!("{}/a:1", server.host()), 0)?.map_err(failed)?;
    Ok(true)
}

pub(crate) fn retry(input: &Value, expect: &Value) -> Outcome {
    let found = match text_of(&input["op"]) {
        "transient" => transient(input),
        "open" => open(input),
        "status" => status(input),
        "manifest_unknown" => unknown(text_of(&input["response"])),
        "reconnect" => reconnect(input),
        other => Err(format!("unknown op {other}")),
    };
    compare(found, expect)
}

fn transient(input: &Value) -> Result<Value, String> {
    let kind = match text_of(&input["error"]) {
        "timeout" => io::ErrorKind::TimedOut,
        "eof" | "unexpected_eof" => io::ErrorKind::UnexpectedEof,
        _ => io::ErrorKind::Other,
    };
    let mut source = io::Error::new(kind, text_of(&input["error"]));
    if input["wrapped"].as_bool().unwrap_or_default() {
        source = io::Error::other(source);
    }
    let error = Error::Transport {
        registry: "r.example".to_owned(),
        what: "a blob".to_owned(),
        source: source.into(),
    };
    Ok(json!({"transient": error.is_transient()}))
}

fn open(input: &Value) -> Result<Value, String> {
    let status = input["status"].as_u64().unwrap_or_default() as u16;
    let message = text_of(&input["server_error"]["message"]).to_owned();
    let body = match input["server_error"].is_null() {
        true => "not an error of a registry".to_owned(),
        false => json!({"errors": [input["server_error"]]}).to_string(),
    };
    let (server, _dir) = serve(&Content::new(1, 2), |options| {
        options.script(move |seen| seen.is_manifest().then(|| Reply::new(status, body.as_bytes())))
    })?;
    let error = match pull(&format!("{}/a:1", server.host()), RETRIES)? {
        Ok(()) => return Err("the call succeeded".to_owned()),
        Err(error) => error.to_string(),
    };
    let tries = server.seen().len().saturating_sub(1);
    let retries = match tries {
        tries if tries == RETRIES as usize => json!("all"),
        tries => json!(tries),
    };
    Ok(json!({"retries": retries, "server_message": !message.is_empty() && error.contains(&message)}))
}

fn status(input: &Value) -> Result<Value, String> {
    let status = input["status"].as_u64().unwrap_or_default() as u16;
    let (server, _dir) = serve(&Content::new(1, 3), |options| {
        options.fault(FaultRule::new(Fault::Status(status, None)))
    })?;
    match pull(&format!("{}/a:1", server.host()), 0)? {
        Err(Error::Status { status, .. }) => Ok(json!({"status": status})),
        other => Err(format!("{other:?}")),
    }
}

/// A whole answer, word for word.
fn unknown(response: &str) -> Result<Value, String> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let response = response.to_owned();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut request = [0; 4096];
            // A connection that speaks TLS gets the same answer, which it takes for an error.
            let read = stream.read(&mut request).unwrap_or_default();
            if read > 0 {
                stream.write_all(response.as_bytes()).ok();
            }
        }
    });
    let pulled = pull(&format!("{address}/a:1"), 0)?;
    Ok(json!({"manifest_unknown": matches!(pulled, Err(Error::NotFound { .. }))}))
}

/// A download that broke off before, and breaks off again after so much: is there another request?
fn reconnect(input: &Value) -> Result<Value, String> {
    let large = |name: &str| input[name] == "large";
    let progress = if large("progress") { LARGE } else { SMALL };
    let pause = Duration::from_millis(if large("elapsed") { 2000 } else { 0 });
    let content = Content::new(1, 4);
    let (layer, blob) = (content.layer(0), content.layers[0].clone());
    let (server, _dir) = serve(&content, |options| {
        options.script(move |seen| {
            let from = seen.from().unwrap_or(0);
            let part = match seen.before {
                0 => SMALL,
                1 => progress,
                _ => return None,
            };
            let reply = match from {
                0 => Reply::new(200, ""),
                from => Reply::new(206, "").with(
                    "content-range",
                    format!("bytes {from}-{}/{}", blob.len() - 1, blob.len()),
                ),
            };
            seen.is_blob(&layer).then(|| {
                reply.with("content-length", blob.len() - from).steps([
                    Step::Wait(pause),
                    Step::Send(blob[from..from + part].to_vec()),
                    // Time for it to arrive before the end does.
                    Step::Wait(Duration::from_millis(50)),
                    Step::Cut,
                ])
            })
        })
    })?;
    let pulled = pull(&format!("{}/a:1", server.host()), 1)?;
    let again = server.seen_of(&content.layer(0)).len() > 2;
    if again != pulled.is_ok() {
        return Err(format!("{pulled:?}"));
    }
    Ok(json!({"reconnect": again}))
}
