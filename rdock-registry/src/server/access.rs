//! Who may do what: basic authentication, and tokens from the server's own token address.

use super::reply::{Reply, Seen};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Who may use the server.
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum Access {
    /// Everyone, for everything.
    #[default]
    Open,
    /// Users with their passwords, sent with each request.
    Basic(BTreeMap<String, String>),
    /// Users with their passwords, exchanged for tokens that last so long. A token for nobody in particular may pull
    /// where `anonymous` says so.
    Token {
        /// User to password.
        users: BTreeMap<String, String>,
        /// How long a token is good.
        lifetime: Duration,
        /// Pulling needs no user.
        anonymous: bool,
    },
}

impl fmt::Debug for Access {
    /// Without secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "Open",
            Self::Basic(_) => "Basic(..)",
            Self::Token { .. } => "Token(..)",
        })
    }
}

/// Tokens that were given.
#[derive(Default)]
pub(super) struct Gate {
    access: Access,
    /// The server speaks TLS, and so does its token address.
    tls: bool,
    tokens: Mutex<BTreeMap<String, Grant>>,
    /// Refresh token to user.
    refresh: Mutex<BTreeMap<String, String>>,
}

#[derive(Clone)]
struct Grant {
    until: Instant,
    /// Repository and action.
    scopes: Vec<(String, String)>,
}

/// Listing the repositories, as an action and as what a token may be for.
pub(super) const CATALOG: &str = "registry:catalog";

/// What a request does to which repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted<'a> {
    /// None for the root of the API.
    pub(super) repository: Option<&'a str>,
    pub(super) action: &'static str,
}

impl Gate {
    pub(super) fn new(access: Access, tls: bool) -> Self {
        Self {
            access,
            tls,
            ..Self::default()
        }
    }

    /// The reply to a request that may not be made.
    pub(super) fn refuse(&self, seen: &Seen, wanted: &Wanted<'_>) -> Option<Reply> {
        let sent = seen.authorization.as_deref().unwrap_or_default();
        match &self.access {
            Access::Open => None,
            Access::Basic(users) => user(sent, users).is_none().then(|| {
                Reply::error(401, "UNAUTHORIZED", "authentication is required")
                    .with("www-authenticate", "Basic realm=\"rdock\"")
            }),
            Access::Token { .. } => {
                let token = sent.strip_prefix("Bearer ").unwrap_or_default();
                (!self.grants(token, wanted)).then(|| {
                    let actions = match wanted.action {
                        "push" => "pull,push",
                        other => other,
                    };
                    let scope = match wanted.repository {
                        Some(name) => format!("repository:{name}:{actions}"),
                        None if wanted.action == CATALOG => "registry:catalog:*".to_owned(),
                        None => String::new(),
                    };
                    let scheme = if self.tls { "https" } else { "http" };
                    Reply::bearer(&format!("{scheme}://{}/token", seen.host), &scope)
                })
            }
        }
    }

    /// Says whether the bearer of a request's token may also do this.
    pub(super) fn allows(&self, seen: &Seen, wanted: &Wanted<'_>) -> bool {
        self.refuse(seen, wanted).is_none()
    }

    fn grants(&self, token: &str, wanted: &Wanted<'_>) -> bool {
        let tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(grant) = tokens.get(token).filter(|grant| grant.until > Instant::now()) else {
            return false;
        };
        let wanted = match (wanted.repository, wanted.action) {
            (Some(repository), action) => (repository, action),
            (None, CATALOG) => (CATALOG, "*"),
            (None, _) => return true,
        };
        grant
            .scopes
            .iter()
            .any(|(name, action)| (name.as_str(), action.as_str()) == wanted)
    }

    /// Forgets all access tokens, as if their time was up.
    pub(super) fn expire(&self) {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The token address: GET with basic authentication, or POST of a form (OAuth 2).
    pub(super) fn token(&self, seen: &Seen) -> Reply {
        let Access::Token {
            users,
            lifetime,
            anonymous,
        } = &self.access
        else {
            return Reply::error(404, "UNSUPPORTED", "this registry gives no tokens");
        };
        let query = seen.path.split_once('?').map_or("", |(_, query)| query);
        let text = if seen.method == "POST" { &seen.body } else { query };
        let mut scopes = Vec::new();
        let mut fields = BTreeMap::new();
        for (name, value) in url::form_urlencoded::parse(text.as_bytes()) {
            if name == "scope" {
                scopes.extend(value.split(' ').map(str::to_owned));
            } else {
                fields.insert(name.into_owned(), value.into_owned());
            }
        }
        let field = |name: &str| fields.get(name).map(String::as_str).unwrap_or_default();
        let sent = seen.authorization.as_deref().unwrap_or_default();
        let user = match (seen.method.as_str(), field("grant_type")) {
            ("POST", "password") => users
                .get_key_value(field("username"))
                .filter(|(_, password)| *password == field("password"))
                .map(|(user, _)| user.clone()),
            ("POST", _) => {
                let refresh = self.refresh.lock().unwrap_or_else(PoisonError::into_inner);
                refresh.get(field("refresh_token")).cloned()
            }
            _ => self::user(sent, users),
        };
        let claims_a_user = seen.method == "POST" || !sent.is_empty();
        if user.is_none() && (claims_a_user || !anonymous) {
            return Reply::error(401, "UNAUTHORIZED", "wrong user or password");
        }
        let granted = scopes.iter().filter_map(|scope| {
            // No repository has a name with a colon.
            let scope = scope.strip_prefix("repository:").unwrap_or(scope);
            let (name, actions) = scope.rsplit_once(':')?;
            Some(
                actions
                    .split(',')
                    .map(|action| (name.to_owned(), action.to_owned())),
            )
        });
        let scopes = granted
            .flatten()
            .filter(|(_, action)| user.is_some() || action == "pull")
            .collect();
        let (Ok(token), Ok(refresh)) = (super::random(), super::random()) else {
            return Reply::error(500, "UNKNOWN", "no random numbers");
        };
        let grant = Grant {
            until: Instant::now() + *lifetime,
            scopes,
        };
        {
            let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
            // Those whose time is up are of no use; whoever asks again and again must not fill the memory.
            let now = Instant::now();
            tokens.retain(|_, grant| grant.until > now);
            tokens.insert(token.clone(), grant);
        }
        let mut answer =
            serde_json::json!({"token": token, "access_token": token, "expires_in": lifetime.as_secs()});
        if let Some(user) = user
            && (seen.method == "POST" || field("offline_token") == "true")
        {
            self.refresh
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(refresh.clone(), user);
            answer["refresh_token"] = refresh.into();
        }
        Reply::new(200, answer.to_string()).with("content-type", "application/json")
    }
}

/// The user that a Basic header names, if the password is right.
fn user(header: &str, users: &BTreeMap<String, String>) -> Option<String> {
    let bytes = STANDARD.decode(header.strip_prefix("Basic ")?).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (user, password) = text.split_once(':')?;
    users
        .get(user)
        .is_some_and(|known| known == password)
        .then(|| user.to_owned())
}
