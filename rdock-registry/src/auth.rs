//! From a challenge to an Authorization header: Basic, and the token flow of Docker Hub and its kind.

use crate::challenge::{self, Challenge};
use crate::config::{Credential, Endpoint};
use crate::error::{Error, Result};
use crate::transport::{Request, Transport};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use std::net::IpAddr;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;
use url::Url;

/// Bytes of a token server's answer.
const LARGEST_TOKEN: u64 = 1 << 20;
/// Docker's token protocol: how long a token lasts at least.
const SHORTEST: u64 = 60;

/// What is sent to one endpoint for one repository; renewed when the registry no longer takes it.
#[derive(Debug)]
pub(crate) struct Authorization {
    credential: Credential,
    current: Mutex<Option<Current>>,
}

#[derive(Debug, Clone)]
struct Current {
    header: String,
    until: Option<Instant>,
}

impl Current {
    fn is_fresh(&self) -> bool {
        self.until.is_none_or(|until| until > Instant::now())
    }
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
    #[serde(default)]
    expires_in: Option<u64>,
}

impl Authorization {
    pub(crate) fn new(credential: Credential) -> Self {
        Self {
            credential,
            current: Mutex::new(None),
        }
    }

    /// The header to send now, if any is known.
    pub(crate) async fn header(&self) -> Option<String> {
        let current = self.current.lock().await;
        current
            .as_ref()
            .filter(|current| current.is_fresh())
            .map(|current| current.header.clone())
    }

    /// Answers a 401. `sent` is what it was an answer to: when another task has renewed it meanwhile, theirs
    /// is used.
    pub(crate) async fn answer(
        &self,
        transport: &Transport,
        endpoint: &Endpoint,
        challenges: &[String],
        sent: Option<&str>,
    ) -> Result<String> {
        let mut current = self.current.lock().await;
        if let Some(known) = current
            .as_ref()
            .filter(|known| known.is_fresh() && Some(known.header.as_str()) != sent)
        {
            return Ok(known.header.clone());
        }
        let denied = |reason: &str| Error::Denied {
            registry: endpoint.host.clone(),
            what: endpoint.repository.clone(),
            reason: reason.to_owned(),
        };
        let challenges: Vec<Challenge> = challenges
            .iter()
            .filter_map(|text| challenge::parse(text))
            .flatten()
            .collect();
        let made = if let Some(bearer) = challenges.iter().find(|one| one.scheme == "bearer") {
            self.token(transport, endpoint, bearer).await?
        } else if challenges.iter().any(|one| one.scheme == "basic") {
            let Credential::Basic { user, password } = &self.credential else {
                return Err(denied("it wants a user and a password"));
            };
            // The same ones again would be refused again.
            if sent.is_some_and(|sent| sent.starts_with("Basic ")) {
                return Err(denied("wrong user or password"));
            }
            Current {
                header: basic(user, password),
                until: None,
            }
        } else {
            return Err(denied("it asks for no known kind of credentials"));
        };
        let header = made.header.clone();
        *current = Some(made);
        Ok(header)
    }

    async fn token(
        &self,
        transport: &Transport,
        endpoint: &Endpoint,
        challenge: &Challenge,
    ) -> Result<Current> {
        if let Credential::RegistryToken(token) = &self.credential {
            return Ok(Current {
                header: format!("Bearer {token}"),
                until: None,
            });
        }
        let realm = self.realm(endpoint, challenge)?;
        let scopes = scopes(&endpoint.repository, challenge.get("scope").unwrap_or_default());
        let service = challenge.get("service").unwrap_or_default().to_owned();
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut url = realm.clone();
        let mut request = Request::default();
        if let Credential::IdentityToken(token) = &self.credential {
            request.form = Some(vec![
                pair("grant_type", "refresh_token"),
                pair("refresh_token", token),
                pair("service", &service),
                pair("client_id", "rdock"),
                pair("scope", &scopes.join(" ")),
            ]);
        } else {
            let mut query = url.query_pairs_mut();
            if !service.is_empty() {
                query.append_pair("service", &service);
            }
            for scope in &scopes {
                query.append_pair("scope", scope);
            }
            if let Credential::Basic { user, .. } = &self.credential {
                query.append_pair("account", user);
            }
            drop(query);
            if let Credential::Basic { user, password } = &self.credential {
                request.authorization = Some(basic(user, password));
            }
        }
        let host = realm.host_str().unwrap_or_default().to_owned();
        // An insecure registry says nothing about the certificates of another host.
        let insecure = endpoint.insecure && may_have_plain(endpoint, &realm);
        let answer = transport.send(&host, url, &request, insecure).await?;
        let (status, success) = (answer.status(), answer.is_success());
        let retry_after = answer.retry_after();
        let body = answer.body("the token", LARGEST_TOKEN).await?;
        if !success {
            return Err(match status {
                401 | 403 => Error::Denied {
                    registry: endpoint.host.clone(),
                    what: endpoint.repository.clone(),
                    reason: format!("{host} answered {status}: wrong user or password, or no right to pull"),
                },
                _ => Error::Status {
                    registry: host,
                    status,
                    what: "a token".into(),
                    message: crate::pull::error_text(&body),
                    retry_after,
                },
            });
        }
        parse_token(&body).map_err(|reason| Error::Malformed {
            registry: host,
            what: "token",
            reason,
        })
    }

    /// Where tokens come from. Credentials go there only over TLS, or to where plain http is allowed.
    fn realm(&self, endpoint: &Endpoint, challenge: &Challenge) -> Result<Url> {
        let text = challenge.get("realm").unwrap_or_default();
        let realm = Url::parse(text).map_err(|error| Error::Malformed {
            registry: endpoint.host.clone(),
            what: "realm",
            reason: format!("{text:?}: {error}"),
        })?;
        let refused = |reason| {
            Err(Error::UnsafeRealm {
                registry: endpoint.host.clone(),
                target: text.to_owned(),
                reason,
            })
        };
        match realm.scheme() {
            "https" => Ok(realm),
            "http" if self.credential == Credential::Anonymous && endpoint.insecure => Ok(realm),
            "http" if endpoint.insecure && may_have_plain(endpoint, &realm) => Ok(realm),
            "http" => refused("plain http"),
            _ => refused("not an HTTP address"),
        }
    }
}

/// What a token is asked for: pulling, from the repository and from those the registry names; never more.
fn scopes(repository: &str, asked: &str) -> Vec<String> {
    let mut scopes = vec![format!("repository:{repository}:pull")];
    for one in asked.split_whitespace() {
        let named = one
            .strip_prefix("repository:")
            .and_then(|rest| rest.rsplit_once(':'));
        if let Some((name, actions)) = named
            && actions.split(',').any(|action| action == "pull")
        {
            let scope = format!("repository:{name}:pull");
            if !scopes.contains(&scope) {
                scopes.push(scope);
            }
        }
    }
    scopes
}

/// Plain http is allowed to the registry's own host, and on this machine.
fn may_have_plain(endpoint: &Endpoint, realm: &Url) -> bool {
    let host = realm.host_str().unwrap_or_default();
    let own = endpoint
        .host
        .rsplit_once(':')
        .map_or(endpoint.host.as_str(), |(name, _)| name);
    host == own || host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

fn parse_token(body: &[u8]) -> Result<Current, String> {
    let token: Token = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let text = token
        .token
        .or(token.access_token)
        .filter(|text| !text.is_empty())
        .ok_or("no token in it")?;
    // A token is used a little shorter than it lasts; clocks differ, so only durations count.
    let lasts = token.expires_in.unwrap_or(SHORTEST).max(SHORTEST);
    let until = Instant::now() + Duration::from_secs(lasts - SHORTEST / 6);
    Ok(Current {
        header: format!("Bearer {text}"),
        until: Some(until),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(host: &str, insecure: bool) -> Endpoint {
        Endpoint {
            host: host.into(),
            repository: "a/b".into(),
            insecure,
        }
    }

    #[test]
    fn reg_realm_host() {
        let challenge = |realm: &str| Challenge {
            scheme: "bearer".into(),
            parameters: vec![("realm".into(), realm.into())],
        };
        let basic = Authorization::new(Credential::Basic {
            user: "u".into(),
            password: "p".into(),
        });
        let allowed = |host: &str, insecure, realm: &str| {
            basic.realm(&endpoint(host, insecure), &challenge(realm)).is_ok()
        };
        assert!(allowed("r.example", false, "https://auth.example/token"));
        assert!(!allowed("r.example", false, "http://auth.example/token"));
        assert!(!allowed("r.example", false, "http://r.example/token"));
        assert!(!allowed("r.example", true, "http://auth.example/token"));
        assert!(allowed("r.example:5000", true, "http://r.example:5001/token"));
        assert!(allowed("127.0.0.1:5000", true, "http://127.0.0.1:5001/token"));
        assert!(!allowed("r.example", true, "file:///etc/passwd"));
        assert!(!allowed("r.example", true, "nonsense"));
    }

    #[test]
    fn a_token_is_asked_for_pulling_alone() {
        assert_eq!(scopes("a/b", ""), ["repository:a/b:pull"]);
        assert_eq!(
            scopes("a/b", "repository:a/b:pull,push registry:catalog:*"),
            ["repository:a/b:pull"]
        );
        assert_eq!(
            scopes("a", "repository:x/a:pull repository:y:push"),
            ["repository:a:pull", "repository:x/a:pull"]
        );
    }

    #[test]
    fn tokens_have_either_name_and_last_a_minute_at_least() {
        assert_eq!(
            parse_token(br#"{"token":"a","expires_in":1}"#)
                .expect("token")
                .header,
            "Bearer a"
        );
        assert_eq!(
            parse_token(br#"{"access_token":"b"}"#).expect("token").header,
            "Bearer b"
        );
        for wrong in ["", "{}", r#"{"token":""}"#, r#"{"token":5}"#] {
            assert!(parse_token(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
