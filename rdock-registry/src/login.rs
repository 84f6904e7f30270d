//! Logging in and out.

use crate::config::{AuthEntry, Credential, RegistryConfig, SavedConfig, key, server_name};
use crate::error::{Error, Result};
use crate::session::{Remarks, Session, blocking};
use crate::transport::{Request, Transport};
use std::path::PathBuf;

/// Where the credentials of a login are now.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Login {
    /// In docker's configuration file, readable by its owner, not encrypted.
    File(PathBuf),
    /// With the credential helper of this name.
    Helper(String),
}

/// Verifies a user and keeps it.
pub(crate) async fn login(
    config: &RegistryConfig,
    transport: &Transport,
    registry: &str,
    user: &str,
    password: &str,
) -> Result<(Credential, Login)> {
    let name = key(registry);
    let given = Credential::Basic {
        user: user.to_owned(),
        password: password.to_owned(),
    };
    let refresh = verify(config, transport, &name, given.clone()).await?;
    let mut entry = AuthEntry {
        username: user.to_owned(),
        password: password.to_owned(),
        ..AuthEntry::default()
    };
    let credential = match refresh {
        None => given,
        Some(token) => {
            entry.password = String::new();
            entry.identity_token = Some(token.clone());
            Credential::IdentityToken(token)
        }
    };
    let file = SavedConfig::at(path(config)?);
    let (credentials, kept) = (config.credentials.clone(), credential.clone());
    let login = blocking(move || {
        let Some(helper) = credentials.helper(&name) else {
            file.set(&name, &entry)?;
            return Ok(Login::File(file.path().to_owned()));
        };
        helper
            .store(server_name(&name), &kept)
            .map_err(|reason| Error::Helper {
                registry: name.clone(),
                reason,
            })?;
        // The empty entry says that there is one.
        file.set(&name, &AuthEntry::default())?;
        Ok(Login::Helper(helper.name.to_owned()))
    })
    .await?;
    Ok((credential, login))
}

/// Verifies what is known.
pub(crate) async fn is_logged_in(
    config: &RegistryConfig,
    transport: &Transport,
    registry: &str,
) -> Result<bool> {
    let name = key(registry);
    let (credentials, wanted) = (config.credentials.clone(), name.clone());
    let (credential, failed) = blocking(move || Ok(credentials.find(&wanted))).await?;
    if let Some(reason) = failed {
        return Err(Error::Helper {
            registry: name,
            reason,
        });
    }
    if credential == Credential::Anonymous {
        return Ok(false);
    }
    verify(config, transport, &name, credential).await?;
    Ok(true)
}

/// Forgets a registry.
pub(crate) async fn logout(config: &RegistryConfig, registry: &str) -> Result<bool> {
    let name = key(registry);
    let file = SavedConfig::at(path(config)?);
    let credentials = config.credentials.clone();
    blocking(move || {
        let mut known = false;
        if let Some(helper) = credentials.helper(&name) {
            known = helper.erase(server_name(&name)).map_err(|reason| Error::Helper {
                registry: name.clone(),
                reason,
            })?;
        }
        Ok(file.remove(&name)? || known)
    })
    .await
}

fn path(config: &RegistryConfig) -> Result<&std::path::Path> {
    config.docker_config.as_deref().ok_or_else(|| Error::Config {
        path: "config.json".into(),
        source: "no configuration file is named, and there is no HOME".into(),
    })
}

/// Asks for the root of the API, which every registry guards as it guards its images. Returns a refresh token
/// where the registry gives one.
async fn verify(
    config: &RegistryConfig,
    transport: &Transport,
    name: &str,
    credential: Credential,
) -> Result<Option<String>> {
    let endpoint = config.host(name)?;
    let session = Session::with(config, transport, endpoint, credential, Remarks::new(|_| {}));
    let what = "a login";
    session.ask("", &Request::default(), what, None).await?;
    Ok(session.authorization.refresh_token().await)
}
