//! Who asks: challenges, tokens, and where credentials do and do not go.

use crate::content::Content;
use crate::server::{Registry, Reply, Seen};
use crate::{Host, quick, trial};
use libtest_mimic::Trial;
use rdock_registry::{Credential, Error, RegistryConfig};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        trial(
            "an_anonymous_token_is_fetched_once",
            an_anonymous_token_is_fetched_once,
        ),
        trial(
            "a_password_is_exchanged_for_a_token",
            a_password_is_exchanged_for_a_token,
        ),
        trial("an_identity_token_is_posted", an_identity_token_is_posted),
        trial("an_expired_token_is_renewed", an_expired_token_is_renewed),
        trial(
            "a_new_scope_is_asked_for_in_mid_pull",
            a_new_scope_is_asked_for_in_mid_pull,
        ),
        trial("a_wrong_password_is_said", a_wrong_password_is_said),
        trial("reg_realm_host", reg_realm_host),
        trial("reg_redirect_auth", reg_redirect_auth),
    ]
}

fn with(registry: &Registry, credential: Credential) -> RegistryConfig {
    let mut config = quick();
    config.credentials.set(&registry.host(), credential);
    config
}

fn user() -> Credential {
    Credential::Basic {
        user: "u".into(),
        password: "p".into(),
    }
}

/// `u:p`
const BASIC: &str = "Basic dTpw";

/// A registry that gives and wants tokens; `token` says which one a request at the token server gets.
fn guarded(
    content: &Content,
    token: impl Fn(&Seen) -> Option<String> + Send + Sync + 'static,
    good: impl Fn(&Seen, &str) -> bool + Send + Sync + 'static,
) -> Registry {
    Registry::start(content, move |seen| {
        if seen.path.starts_with("/token") {
            return Some(match token(seen) {
                Some(token) => Reply::new(200, format!(r#"{{"token":"{token}","expires_in":300}}"#)),
                None => Reply::error(401, "UNAUTHORIZED", "as scripted"),
            });
        }
        let sent = seen
            .authorization
            .as_deref()
            .and_then(|header| header.strip_prefix("Bearer "));
        if sent.is_some_and(|sent| good(seen, sent)) {
            return None;
        }
        let scope = if seen.path.contains("/blobs/") {
            "repository:a:pull repository:base:pull"
        } else {
            "repository:a:pull"
        };
        Some(Reply::bearer(&format!("http://{}/token", seen.host), scope))
    })
}

fn tokens(registry: &Registry) -> Vec<Seen> {
    registry
        .seen()
        .into_iter()
        .filter(|seen| seen.path.starts_with("/token"))
        .collect()
}

fn an_anonymous_token_is_fetched_once() {
    let registry = guarded(
        &Content::new(3, 50),
        |_| Some("t".into()),
        |_, token| token == "t",
    );
    Host::new()
        .pull(quick(), &format!("{}/a", registry.host()))
        .expect("pulled");
    let tokens = tokens(&registry);
    assert_eq!(tokens.len(), 1);
    assert_eq!(tokens[0].path, "/token?service=rdock&scope=repository%3Aa%3Apull");
    assert_eq!(
        (tokens[0].method.as_str(), tokens[0].authorization.as_deref()),
        ("GET", None)
    );
}

fn a_password_is_exchanged_for_a_token() {
    let content = Content::new(1, 51);
    let give = |seen: &Seen| (seen.authorization.as_deref() == Some(BASIC)).then(|| "t".to_owned());
    let registry = guarded(&content, give, |_, token| token == "t");
    Host::new()
        .pull(with(&registry, user()), &format!("{}/a", registry.host()))
        .expect("pulled");
    let elsewhere = registry
        .seen()
        .into_iter()
        .filter(|seen| !seen.path.starts_with("/token"));
    assert!(
        elsewhere
            .into_iter()
            .all(|seen| seen.authorization.as_deref() != Some(BASIC)),
        "the password stays at the token server"
    );
}

fn an_identity_token_is_posted() {
    let give = |seen: &Seen| {
        (seen.method == "POST" && seen.body.contains("refresh_token=secret")).then(|| "t".to_owned())
    };
    let registry = guarded(&Content::new(1, 52), give, |_, token| token == "t");
    let config = with(&registry, Credential::IdentityToken("secret".into()));
    Host::new()
        .pull(config, &format!("{}/a", registry.host()))
        .expect("pulled");
    let posted = &tokens(&registry)[0];
    assert!(
        posted.body.contains("grant_type=refresh_token") && !posted.path.contains("secret"),
        "{posted:?}"
    );
}

fn an_expired_token_is_renewed() {
    let given = Arc::new(AtomicUsize::new(0));
    let counter = given.clone();
    let give = move |_: &Seen| Some(counter.fetch_add(1, Ordering::SeqCst).to_string());
    // The first token is good for the manifest alone.
    let registry = guarded(&Content::new(2, 53), give, |seen, token| {
        seen.is_manifest() || token != "0"
    });
    Host::new()
        .pull(quick(), &format!("{}/a", registry.host()))
        .expect("pulled");
    assert_eq!(given.load(Ordering::SeqCst), 2, "layers share the new token");
}

fn a_new_scope_is_asked_for_in_mid_pull() {
    let give = |seen: &Seen| {
        Some(if seen.path.contains("base") {
            "wide".to_owned()
        } else {
            "narrow".to_owned()
        })
    };
    let registry = guarded(&Content::new(2, 54), give, |seen, token| {
        seen.is_manifest() || token == "wide"
    });
    Host::new()
        .pull(quick(), &format!("{}/a", registry.host()))
        .expect("pulled");
    assert_eq!(tokens(&registry).len(), 2);
}

fn a_wrong_password_is_said() {
    // At the token server, and with Basic at the registry itself.
    let content = Content::new(1, 55);
    let by_token = guarded(&content, |_| None, |_, _| false);
    let by_basic = Registry::start(&content, |seen| {
        let right = seen.authorization.as_deref() == Some("Basic eDp5");
        (!right).then(|| {
            Reply::error(401, "UNAUTHORIZED", "as scripted").with("www-authenticate", "Basic realm=\"r\"")
        })
    });
    for registry in [&by_token, &by_basic] {
        let host = Host::new();
        let error = host
            .pull(with(registry, user()), &format!("{}/a", registry.host()))
            .expect_err("wrong");
        assert!(matches!(error, Error::Denied { .. }), "{error:?}");
        assert!(error.to_string().contains("wrong user or password"), "{error}");
        assert!(error.hint().is_some());
        host.assert_nothing_half_made();
    }
    let right = Credential::Basic {
        user: "x".into(),
        password: "y".into(),
    };
    Host::new()
        .pull(with(&by_basic, right), &format!("{}/a", by_basic.host()))
        .expect("the right one is taken");
}

fn reg_realm_host() {
    let content = Content::new(1, 56);
    // Plain http to another machine gets nothing, though the registry itself is trusted without TLS.
    let registry = Registry::start(&content, |_| {
        Some(Reply::bearer("http://tokens.invalid/token", "repository:a:pull"))
    });
    for credential in [user(), Credential::IdentityToken("secret".into())] {
        let host = Host::new();
        let error = host
            .pull(with(&registry, credential), &format!("{}/a", registry.host()))
            .expect_err("refused");
        assert!(
            matches!(&error, Error::UnsafeRealm { target, .. } if target.contains("tokens.invalid")),
            "{error:?}"
        );
        host.assert_nothing_half_made();
    }
    for realm in ["file:///etc/passwd", "ftp://127.0.0.1/x", "", "/relative"] {
        let registry = Registry::start(&content, move |_| Some(Reply::bearer(realm, "")));
        let result = Host::new().pull(with(&registry, user()), &format!("{}/a", registry.host()));
        assert!(
            matches!(
                result,
                Err(Error::UnsafeRealm { .. } | Error::Malformed { what: "realm", .. })
            ),
            "{realm}: {result:?}"
        );
    }
    // Another port of this machine is fine.
    let tokens = Registry::start(&content, |_| Some(Reply::new(200, r#"{"token":"t"}"#)));
    let realm = format!("http://{}/token", tokens.host());
    let registry = Registry::start(&content, move |seen| {
        (seen.authorization.as_deref() != Some("Bearer t")).then(|| Reply::bearer(&realm, ""))
    });
    Host::new()
        .pull(with(&registry, user()), &format!("{}/a", registry.host()))
        .expect("pulled");
    assert_eq!(tokens.seen()[0].authorization.as_deref(), Some(BASIC));
}

fn reg_redirect_auth() {
    let content = Content::new(2, 57);
    let storage = Registry::plain(&content);
    let elsewhere = storage.host();
    let registry = Registry::start(&content, move |seen| {
        if seen.authorization.as_deref() != Some(BASIC) {
            return Some(
                Reply::error(401, "UNAUTHORIZED", "as scripted")
                    .with("www-authenticate", "Basic realm=\"r\""),
            );
        }
        seen.path
            .contains("/blobs/")
            .then(|| Reply::new(307, "").with("location", format!("http://{elsewhere}{}", seen.path)))
    });
    Host::new()
        .pull(with(&registry, user()), &format!("{}/a", registry.host()))
        .expect("pulled");
    assert_eq!(storage.seen().len(), 3, "two layers and the config");
    assert!(
        storage.seen().iter().all(|seen| seen.authorization.is_none()),
        "{:?}",
        storage.seen()
    );
    // A refresh token in a form does not follow a redirect to another host either.
    let thief = Registry::start(&content, |_| Some(Reply::new(200, r#"{"token":"t"}"#)));
    let target = format!("http://{}/token", thief.host());
    let registry = Registry::start(&content, move |seen| {
        Some(match seen.path.starts_with("/token") {
            true => Reply::new(307, "").with("location", &target),
            false => Reply::bearer(&format!("http://{}/token", seen.host), ""),
        })
    });
    let config = with(&registry, Credential::IdentityToken("secret".into()));
    let error = Host::new()
        .pull(config, &format!("{}/a", registry.host()))
        .expect_err("refused");
    assert!(matches!(error, Error::UnsafeRealm { .. }), "{error:?}");
    assert!(thief.seen().is_empty());
}
