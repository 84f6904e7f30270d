//! From a challenge to an Authorization header: Basic, and the token flow of Docker Hub and its kind.

use crate::config::{Credential, Endpoint};
use crate::error::{Error, Result};
use crate::protocol::{Challenge, Token, merge_scopes, redacted, repository_scope};
use crate::transport::{Peer, Request, Transport};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::net::IpAddr;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;
use url::Url;

/// Bytes of a token server's answer.
const LARGEST_TOKEN: u64 = 1 << 20;
/// A token is used so much shorter than it lasts.
const MARGIN: Duration = Duration::from_secs(10);
/// As which program tokens are asked for.
const CLIENT: &str = "rdock";

/// What will be done with an authorization.
#[derive(Debug, Clone, Default)]
pub(crate) struct Access {
    /// The repository; none for a login.
    pub(crate) repository: Option<String>,
    pub(crate) rights: Rights,
    /// Repositories of the same registry that blobs are mounted from.
    pub(crate) sources: Vec<String>,
}

/// What is done at a registry, in the words of its tokens' scopes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Rights {
    #[default]
    Pull,
    Push,
    /// Of manifests and tags.
    Delete,
    /// Listing the repositories.
    Catalog,
}

impl Access {
    pub(crate) fn to(repository: &str, rights: Rights) -> Self {
        Self {
            repository: Some(repository.to_owned()),
            rights,
            sources: Vec::new(),
        }
    }
}

/// What is sent to one endpoint for one repository; renewed when the registry no longer takes it.
#[derive(Debug)]
pub(crate) struct Authorization {
    credential: Credential,
    access: Access,
    current: Mutex<Option<Current>>,
}

#[derive(Clone)]
struct Current {
    header: String,
    until: Option<Instant>,
    /// For further tokens.
    refresh: Option<String>,
}

impl std::fmt::Debug for Current {
    /// Without secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Current")
            .field("until", &self.until)
            .finish_non_exhaustive()
    }
}

impl Current {
    fn is_fresh(&self) -> bool {
        self.until.is_none_or(|until| until > Instant::now())
    }

    fn of(token: Token) -> Self {
        // Clocks differ, so only durations count.
        Self {
            header: format!("Bearer {}", token.text),
            until: Some(Instant::now() + token.lasts.saturating_sub(MARGIN)),
            refresh: token.refresh_token,
        }
    }

    fn fixed(header: String) -> Self {
        Self {
            header,
            until: None,
            refresh: None,
        }
    }
}

impl Authorization {
    pub(crate) fn new(credential: Credential, access: Access) -> Self {
        Self {
            credential,
            access,
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

    /// The refresh token that came with the last token.
    pub(crate) async fn refresh_token(&self) -> Option<String> {
        self.current.lock().await.as_ref()?.refresh.clone()
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
        let denied = |reason: &str| self.denied(endpoint, reason.to_owned());
        let challenges: Vec<Challenge> = challenges
            .iter()
            .filter_map(|text| Challenge::parse(text))
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
            Current::fixed(basic(user, password))
        } else {
            return Err(denied("it asks for no known kind of credentials"));
        };
        let header = made.header.clone();
        *current = Some(made);
        Ok(header)
    }

    fn denied(&self, endpoint: &Endpoint, reason: String) -> Error {
        Error::Denied {
            registry: endpoint.host.clone(),
            what: match &self.access.repository {
                Some(_) => endpoint.repository.clone(),
                None if self.access.rights == Rights::Catalog => "the list of repositories".to_owned(),
                None => "a login".to_owned(),
            },
            reason,
        }
    }

    async fn token(
        &self,
        transport: &Transport,
        endpoint: &Endpoint,
        challenge: &Challenge,
    ) -> Result<Current> {
        if let Credential::RegistryToken(token) = &self.credential {
            return Ok(Current::fixed(format!("Bearer {token}")));
        }
        let realm = self.realm(endpoint, challenge)?;
        let scopes = self.access.scopes(challenge.get("scope").unwrap_or_default());
        match self
            .token_for(transport, endpoint, challenge, &realm, &scopes)
            .await
        {
            // Some servers refuse a token for everything when one repository is out of bounds. Without a mount
            // the blob is sent.
            Err(Error::Denied { .. } | Error::Status { .. }) if !self.access.sources.is_empty() => {
                let own = Access {
                    sources: Vec::new(),
                    ..self.access.clone()
                };
                let scopes = own.scopes("");
                self.token_for(transport, endpoint, challenge, &realm, &scopes)
                    .await
            }
            other => other,
        }
    }

    async fn token_for(
        &self,
        transport: &Transport,
        endpoint: &Endpoint,
        challenge: &Challenge,
        realm: &Url,
        scopes: &[String],
    ) -> Result<Current> {
        let service = challenge.get("service").unwrap_or_default();
        let mut url = realm.clone();
        let mut request = Request::default();
        if let Credential::IdentityToken(token) = &self.credential {
            request = Request::form(&[
                ("grant_type", "refresh_token"),
                ("refresh_token", token),
                ("service", service),
                ("client_id", CLIENT),
                ("scope", &scopes.join(" ")),
            ]);
        } else {
            let mut query = url.query_pairs_mut();
            if !service.is_empty() {
                query.append_pair("service", service);
            }
            for scope in scopes {
                query.append_pair("scope", scope);
            }
            if let Credential::Basic { user, .. } = &self.credential {
                query.append_pair("account", user);
                // A login keeps a refresh token instead of the password, where it can have one.
                if self.access.repository.is_none() && self.access.rights != Rights::Catalog {
                    query
                        .append_pair("offline_token", "true")
                        .append_pair("client_id", CLIENT);
                }
            }
            drop(query);
            if let Credential::Basic { user, password } = &self.credential {
                request.authorization = Some(basic(user, password));
            }
        }
        let host = realm.host_str().unwrap_or_default().to_owned();
        // An insecure registry says nothing about the certificates of another host.
        let peer = Peer {
            name: &host,
            insecure: endpoint.insecure && may_have_plain(endpoint, realm),
            // Its certificates count where the registry itself gives the tokens; its headers are for its API alone.
            certificates: endpoint
                .options
                .as_ref()
                .filter(|_| realm.host_str() == endpoint.name())
                .and_then(|options| options.certificates.as_ref()),
            headers: &[],
        };
        let answer = transport.send(&peer, url, &request).await?;
        let (status, success) = (answer.status(), answer.is_success());
        let retry_after = answer.retry_after();
        let body = answer.body("the token", LARGEST_TOKEN).await?;
        if !success {
            // Servers of OAuth 2 say so with 400 (RFC 6749, section 5.2).
            let refused = matches!(status, 401 | 403) || (status == 400 && request.secret);
            return Err(match refused {
                true => self.denied(
                    endpoint,
                    format!("{host} answered {status}: wrong user or password, or no right to do this"),
                ),
                false => Error::Status {
                    registry: host,
                    status,
                    what: "a token".into(),
                    message: crate::session::error_text(&body),
                    retry_after,
                },
            });
        }
        Token::parse(&body)
            .map(Current::of)
            .map_err(|reason| Error::Malformed {
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
            reason: error.to_string(),
        })?;
        let refused = |reason| {
            Err(Error::UnsafeRealm {
                registry: endpoint.host.clone(),
                target: redacted(text),
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

impl Access {
    /// What a token is asked for: the own repository, pulling from those that blobs are mounted from and from those
    /// the registry names; never more.
    fn scopes(&self, asked: &str) -> Vec<String> {
        let own = match (&self.repository, self.rights) {
            (None, Rights::Catalog) => Some("registry:catalog:*".to_owned()),
            (None, _) => None,
            (Some(repository), Rights::Delete) => Some(format!("repository:{repository}:delete,pull")),
            (Some(repository), rights) => Some(repository_scope(repository, rights == Rights::Push)),
        };
        let sources = self.sources.iter().map(|source| repository_scope(source, false));
        let named = asked.split_whitespace().filter_map(|scope| {
            let (name, actions) = scope.strip_prefix("repository:")?.rsplit_once(':')?;
            let pulls = self.repository.is_some() && actions.split(',').any(|action| action == "pull");
            pulls.then(|| repository_scope(name, false))
        });
        let all: Vec<_> = own.into_iter().chain(sources).chain(named).collect();
        merge_scopes(all.iter().map(String::as_str), [])
    }
}

/// Plain http is allowed to the registry's own host, and on this machine.
fn may_have_plain(endpoint: &Endpoint, realm: &Url) -> bool {
    let host = realm.host_str().unwrap_or_default();
    Some(host) == endpoint.name()
        || host == "localhost"
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(host: &str, insecure: bool) -> Endpoint {
        Endpoint {
            host: host.into(),
            repository: "a/b".into(),
            insecure,
            stands_for_name: true,
            options: None,
        }
    }

    #[test]
    fn reg_realm_host() {
        let challenge = |realm: &str| Challenge {
            scheme: "bearer".into(),
            parameters: vec![("realm".into(), realm.into())],
        };
        let user = Credential::Basic {
            user: "u".into(),
            password: "p".into(),
        };
        let basic = Authorization::new(user, Access::default());
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
    fn a_token_is_asked_for_no_more_than_is_needed() {
        let pull = |repository: &str| Access {
            repository: Some(repository.into()),
            ..Access::default()
        };
        assert_eq!(pull("a/b").scopes(""), ["repository:a/b:pull"]);
        assert_eq!(
            pull("a/b").scopes("repository:a/b:pull,push registry:catalog:*"),
            ["repository:a/b:pull"]
        );
        assert_eq!(
            pull("a").scopes("repository:x/a:pull repository:y:push"),
            ["repository:a:pull", "repository:x/a:pull"]
        );
        let push = Access {
            rights: Rights::Push,
            sources: vec!["base".into()],
            ..pull("a")
        };
        assert_eq!(
            push.scopes("repository:a:pull,push"),
            ["repository:a:pull,push", "repository:base:pull"]
        );
        assert!(Access::default().scopes("repository:a:pull").is_empty());
        let catalog = Access {
            rights: Rights::Catalog,
            ..Access::default()
        };
        assert_eq!(catalog.scopes("registry:catalog:*"), ["registry:catalog:*"]);
        assert_eq!(
            Access::to("a", Rights::Delete).scopes("repository:a:delete"),
            ["repository:a:delete,pull"]
        );
    }
}
