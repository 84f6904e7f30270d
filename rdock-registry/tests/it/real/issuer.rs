//! The server of tokens that the registry trusts.

use super::certificates::openssl;
use crate::Cannot;
use crate::server::{Registry, Reply, Seen};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::json;
use std::path::Path;

/// Gives the tokens (JSON Web Tokens, RS256) that `docker-registry` trusts: to `tester` what it asks for, to others
/// nothing but pulling.
pub(super) struct Issuer {
    pub(super) server: Registry,
    pub(super) dir: std::sync::Arc<tempfile::TempDir>,
}

impl Issuer {
    pub(super) fn start() -> Result<Self, Cannot> {
        let dir = std::sync::Arc::new(tempfile::tempdir().expect("a temporary directory"));
        let make = [
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=signer",
            "-keyout",
            "token.key",
            "-out",
            "token.crt",
        ];
        openssl(dir.path(), &make, b"")?;
        let held = dir.clone();
        let server = Registry::with(|options| options.script(move |seen| Some(token(held.path(), seen))));
        Ok(Self { server, dir })
    }
}

fn token(dir: &Path, seen: &Seen) -> Reply {
    // `tester:secret`
    let known = match seen.authorization.as_deref() {
        None => false,
        Some("Basic dGVzdGVyOnNlY3JldA==") => true,
        Some(_) => return Reply::error(401, "UNAUTHORIZED", "wrong user or password"),
    };
    let url = url::Url::parse(&format!("http://issuer{}", seen.path)).expect("a path");
    let mut access = Vec::new();
    let mut service = String::new();
    for (name, value) in url.query_pairs() {
        match &*name {
            "service" => service = value.into_owned(),
            "scope" => {
                let (resource, actions) = value.rsplit_once(':').expect("a scope");
                let (kind, name) = resource.split_once(':').expect("a scope");
                let actions: Vec<_> = actions
                    .split(',')
                    .filter(|action| known || *action == "pull")
                    .collect();
                access.push(json!({"type": kind, "name": name, "actions": actions}));
            }
            _ => {}
        }
    }
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970")
        .as_secs();
    let certificate = std::fs::read_to_string(dir.join("token.crt")).expect("read");
    let chain: String = certificate
        .lines()
        .filter(|line| !line.contains("-----"))
        .collect();
    assert!(STANDARD.decode(&chain).is_ok());
    let encode = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let head = encode(&json!({"typ": "JWT", "alg": "RS256", "x5c": [chain]}));
    let claims = encode(&json!({
        "iss": "rdock-test-issuer", "sub": if known { "tester" } else { "" }, "aud": service, "exp": now + 60,
        "nbf": now - 10, "iat": now, "jti": format!("{now}-{}", seen.before), "access": access,
    }));
    let text = format!("{head}.{claims}");
    let Ok(signature) = openssl(dir, &["dgst", "-sha256", "-sign", "token.key"], text.as_bytes()) else {
        return Reply::error(500, "UNKNOWN", "openssl is gone");
    };
    let token = format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature));
    Reply::new(200, json!({"token": token, "expires_in": 60}).to_string())
}
