//! Runs one suite of registry conformance cases: `conformance-registry DIR` prints `N passed, M failed`.
//!
//! DIR holds `cases.jsonl` (one case per line: `id`, `input`, `expect`); the folder's name says which suite it is; of a
//! folder of suites all are run.
//! What a client does, not only what it parses, is asked of a real client and a registry on loopback. Failing rows
//! that are meant are argued in `conformance-registry.md`.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line program")]

#[path = "conformance-registry/client.rs"]
mod client;
#[path = "../tests/it/content.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod content;
// One driver's frame serves both crates; nothing of it is in the library.
#[path = "../../rdock-image/examples/conformance/suite.rs"]
#[expect(dead_code, reason = "the driver of rdock-image uses more of it")]
mod suite;

use rdock_registry::protocol::{
    Challenge, ContentRange, Schemes, Token, content_length, decimal, is_loopback, link, media_type,
    merge_scopes, redacted, repository_scope, schemes, warning,
};
use rdock_registry::{AuthEntry, Credential, Credentials};
use serde_json::{Map, Value, json};
use std::process::ExitCode;
use suite::{Outcome, text_of};

fn main() -> ExitCode {
    suite::run("conformance-registry", |suite, input, expect| {
        let header = text_of(&input["header"]);
        Some(match suite.name.as_str() {
            "www-authenticate" => compare(challenges(header), expect),
            "tokens" => tokens(input, expect),
            "credentials" => credentials(input, expect),
            "link-header" => links(input, expect),
            "warning-header" => compare(Ok(json!({"text": warning(header)})), expect),
            "retry" => client::retry(input, expect),
            "headers" => headers(input, expect),
            "hosts" => hosts(input, expect),
            _ => return None,
        })
    })
}

fn texts(value: &Value) -> Vec<&str> {
    value
        .as_array()
        .map(|all| all.iter().map(text_of).collect())
        .unwrap_or_default()
}

/// Compares the whole of what was found; an expected error must be one.
fn compare(found: Result<Value, String>, expect: &Value) -> Outcome {
    let fails = !expect["error"].is_null();
    match found {
        Err(_) if fails => Ok(()),
        Err(error) => Err(format!("unexpected error: {error}")),
        Ok(found) if fails => Err(format!("an error was expected, found {found}")),
        Ok(found) if found == *expect => Ok(()),
        Ok(found) => Err(format!("expected {expect}, found {found}")),
    }
}

fn challenges(header: &str) -> Result<Value, String> {
    let challenges = Challenge::parse(header).ok_or("malformed")?;
    let shown: Vec<_> = challenges
        .iter()
        .map(|challenge| {
            let parameters: Map<_, _> = challenge
                .parameters
                .iter()
                .map(|(name, value)| (name.clone(), value.clone().into()))
                .collect();
            json!({"scheme": challenge.scheme, "params": parameters})
        })
        .collect();
    Ok(json!({"challenges": shown}))
}

fn entry(entry: &AuthEntry) -> Value {
    let mut shown = Map::new();
    let identity = entry.identity_token.clone().unwrap_or_default();
    let registry = entry.registry_token.clone().unwrap_or_default();
    for (name, text) in [
        ("username", &entry.username),
        ("password", &entry.password),
        ("identitytoken", &identity),
        ("registrytoken", &registry),
    ] {
        if !text.is_empty() {
            shown.insert(name.to_owned(), text.clone().into());
        }
    }
    shown.into()
}

fn tokens(input: &Value, expect: &Value) -> Outcome {
    let found = match text_of(&input["op"]) {
        "token_response" => Token::parse(text_of(&input["body"]).as_bytes()).and_then(|token| {
            let issued: jiff::Timestamp = token
                .issued_at
                .as_deref()
                .ok_or("no time of issue")?
                .parse()
                .map_err(|error: jiff::Error| error.to_string())?;
            let until = issued.as_second() + token.lasts.as_secs().cast_signed();
            Ok(json!({"token": token.text, "expires_at": until}))
        }),
        "repository_scope" => {
            let push = input["push"].as_bool().unwrap_or_default();
            Ok(json!({"scope": repository_scope(text_of(&input["repository"]), push)}))
        }
        "merge_scopes" => {
            let merged = merge_scopes(texts(&input["wanted"]), texts(&input["common"]));
            Ok(json!({"scopes": merged}))
        }
        "auth_entry" => AuthEntry::parse(text_of(&input["json"]).as_bytes()).map(|found| entry(&found)),
        "auth_entry_write" => {
            let mut fields = input.clone();
            // What was there before does not count; user and password do.
            if let Some(fields) = fields.as_object_mut() {
                fields.remove("auth");
                fields.remove("op");
            }
            AuthEntry::parse(fields.to_string().as_bytes()).map(|entry| json!({"json": entry.to_json()}))
        }
        other => Err(format!("unknown op {other}")),
    };
    compare(found, expect)
}

fn credentials(input: &Value, expect: &Value) -> Outcome {
    let target = text_of(&input["target"]);
    if input["op"] == "lookup_order" {
        return compare(Ok(json!({"keys": Credentials::lookup_order(target)})), expect);
    }
    let legacy = input["legacy"].as_bool().unwrap_or_default();
    let found = Credentials::parse(text_of(&input["config"]).as_bytes(), legacy).and_then(|credentials| {
        match credentials.find(target) {
            (_, Some(warning)) => Err(warning),
            (Credential::Anonymous, _) => Ok(json!({"anonymous": true})),
            (Credential::Basic { user, password }, _) => Ok(json!({"username": user, "password": password})),
            (Credential::IdentityToken(token), _) => Ok(json!({"identitytoken": token})),
            (other, _) => Err(format!("{other:?}")),
        }
    });
    compare(found, expect)
}

fn links(input: &Value, expect: &Value) -> Outcome {
    let (parameter, value) = match input["param"].as_str() {
        Some(parameter) => (parameter, text_of(&input["value"])),
        None => ("rel", "next"),
    };
    let found = link(texts(&input["headers"]), parameter, value)
        .map(|found| match found {
            Some(uri) => json!({"uri": uri}),
            None => json!({"missing": true}),
        })
        .map_err(str::to_owned);
    compare(found, expect)
}

fn headers(input: &Value, expect: &Value) -> Outcome {
    let value = text_of(&input["value"]);
    let found = match text_of(&input["op"]) {
        "content_range" => ContentRange::parse(value)
            .map(|range| json!({"first": range.first, "last": range.last, "complete_length": range.complete}))
            .ok_or_else(|| "not a range".to_owned()),
        "decimal" => decimal(text_of(&input["text"]))
            .map(|number| json!({"value": number}))
            .ok_or_else(|| "not a number".to_owned()),
        "content_length" => Ok(json!({"size": content_length(texts(&input["values"]))})),
        "content_type" => Ok(json!({"media_type": media_type(value).unwrap_or_default()})),
        "content_encoding" => client::encoded(value).map(|plain| json!({"plain": plain})),
        other => Err(format!("unknown op {other}")),
    };
    compare(found, expect)
}

fn hosts(input: &Value, expect: &Value) -> Outcome {
    let host = text_of(&input["host"]);
    let found = match text_of(&input["op"]) {
        "scheme" => {
            let insecure = input["insecure"].as_bool().unwrap_or_default();
            let (scheme, fallback) = match schemes(host, insecure) {
                Schemes::Https => ("https", false),
                Schemes::HttpsThenHttp => ("https", true),
                Schemes::Http => ("http", false),
            };
            Ok(json!({"scheme": scheme, "http_fallback": fallback}))
        }
        "localhost" => Ok(json!({"match": is_loopback(host)})),
        "redact" => Ok(json!({"url": redacted(text_of(&input["url"]))})),
        other => Err(format!("unknown op {other}")),
    };
    compare(found, expect)
}
