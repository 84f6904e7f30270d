//! TLS with rustls and ring, set on our own clients and never as the process's default; certificates of hosts
//! from `certs.d`.

use crate::config::{HostCertificates, RegistryConfig};
use crate::error::{Error, Result};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use std::collections::HashMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use url::Url;

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(15);

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// HTTP clients: one for registries that must show a good certificate, one for those that need not, and one for
/// each host with certificates of its own.
#[derive(Debug)]
pub(super) struct Clients {
    strict: reqwest::Client,
    lenient: reqwest::Client,
    roots: Arc<rustls::RootCertStore>,
    provider: Arc<CryptoProvider>,
    proxies: Vec<reqwest::Proxy>,
    dirs: Vec<PathBuf>,
    /// `None` for a host without any.
    own: Mutex<HashMap<String, Option<Pair>>>,
    /// For certificates that hosts.toml names.
    named: Mutex<Vec<(Arc<HostCertificates>, Pair)>>,
}

/// Strict and lenient.
#[derive(Debug, Clone)]
struct Pair(reqwest::Client, reqwest::Client);

fn failed(source: impl Into<Cause>) -> Error {
    Error::Client {
        source: source.into(),
    }
}

impl Clients {
    pub(super) fn new(config: &RegistryConfig) -> Result<Self> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = system_roots();
        for pem in &config.certificate_authorities {
            trust(Arc::make_mut(&mut roots), pem)?;
        }
        let proxies = proxies(config)?;
        let Pair(strict, lenient) = pair(&provider, &roots, None, &proxies)?;
        Ok(Self {
            strict,
            lenient,
            roots,
            provider,
            proxies,
            dirs: config.certificate_dirs.clone(),
            own: Mutex::default(),
            named: Mutex::default(),
        })
    }

    /// The client for a host: with these certificates, else with those of its folder in `certs.d`, which is looked
    /// for once.
    pub(super) fn for_host(
        &self,
        url: &Url,
        lenient: bool,
        certificates: Option<&Arc<HostCertificates>>,
    ) -> Result<reqwest::Client> {
        if let Some(certificates) = certificates {
            let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
            let known = named.iter().find(|(known, _)| known == certificates);
            let Pair(strict, any) = match known {
                Some((_, pair)) => pair.clone(),
                None => {
                    let pair = self.with(certificates)?;
                    named.push((certificates.clone(), pair.clone()));
                    pair
                }
            };
            return Ok(if lenient { any } else { strict });
        }
        let shared = if lenient { &self.lenient } else { &self.strict };
        let Some(host) = url
            .host_str()
            .filter(|_| url.scheme() == "https" && !self.dirs.is_empty())
        else {
            return Ok(shared.clone());
        };
        let host = match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        if !own.contains_key(&host) {
            let found = HostCertificates::read(&self.dirs, &host)?;
            let made = match found {
                None => None,
                Some(found) => Some(self.with(&found)?),
            };
            own.insert(host.clone(), made);
        }
        Ok(match own.get(&host).and_then(Option::as_ref) {
            Some(Pair(_, client)) if lenient => client.clone(),
            Some(Pair(client, _)) => client.clone(),
            None => shared.clone(),
        })
    }

    /// # Errors
    /// [`Error::Config`] that names where the certificates are from, when they cannot be used.
    fn with(&self, found: &HostCertificates) -> Result<Pair> {
        let made = || {
            let mut roots = self.roots.clone();
            for pem in &found.authorities {
                trust(Arc::make_mut(&mut roots), pem)?;
            }
            pair(&self.provider, &roots, found.client.as_ref(), &self.proxies)
        };
        made().map_err(|error| match error {
            Error::Client { source } => Error::Config {
                path: found.from.clone(),
                source,
            },
            other => other,
        })
    }
}

/// The variables by which a process names other authorities than the system's (as OpenSSL has them).
const PLACES: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];

/// The authorities of the system, or those that the environment names. They are read once in a process for each value
/// of the variables: there are hundreds of files, which cost more than a whole small pull.
fn system_roots() -> Arc<rustls::RootCertStore> {
    type Known = Vec<([Option<OsString>; 2], Arc<rustls::RootCertStore>)>;
    static KNOWN: Mutex<Known> = Mutex::new(Vec::new());
    let place = PLACES.map(std::env::var_os);
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, roots)) = known.iter().find(|(other, _)| *other == place) {
        return roots.clone();
    }
    let mut roots = rustls::RootCertStore::empty();
    // Certificates of the system that cannot be parsed are of no use to anyone else either.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    let roots = Arc::new(roots);
    known.push((place, roots.clone()));
    roots
}

fn trust(roots: &mut rustls::RootCertStore, pem: &[u8]) -> Result<()> {
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| failed(error.to_string()))?;
        roots.add(certificate).map_err(failed)?;
    }
    Ok(())
}

fn pair(
    provider: &Arc<CryptoProvider>,
    roots: &Arc<rustls::RootCertStore>,
    client: Option<&(Vec<u8>, Vec<u8>)>,
    proxies: &[reqwest::Proxy],
) -> Result<Pair> {
    let tls = || {
        rustls::ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(failed)
    };
    let identity = |config: rustls::ConfigBuilder<rustls::ClientConfig, rustls::client::WantsClientCert>| {
        let Some((chain, key)) = client else {
            return Ok(config.with_no_client_auth());
        };
        let chain = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| failed(format!("a client certificate: {error}")))?;
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|error| failed(format!("the key of a client certificate: {error}")))?;
        config.with_client_auth_cert(chain, key).map_err(failed)
    };
    let strict = identity(tls()?.with_root_certificates(roots.clone()))?;
    let any = Arc::new(AnyServer(provider.clone()));
    let lenient = identity(tls()?.dangerous().with_custom_certificate_verifier(any))?;
    let http = |tls: rustls::ClientConfig| {
        // Its own look at the environment is switched off.
        let mut builder = reqwest::Client::builder().no_proxy();
        for proxy in proxies {
            builder = builder.proxy(proxy.clone());
        }
        builder
            .tls_backend_preconfigured(tls)
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT)
            .user_agent(concat!("rdock/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(failed)
    };
    Ok(Pair(http(strict)?, http(lenient)?))
}

fn proxies(config: &RegistryConfig) -> Result<Vec<reqwest::Proxy>> {
    // A proxy knows nothing of this machine's own addresses.
    let direct = format!(
        "{},localhost,127.0.0.0/8,::1",
        config.proxies.none.as_deref().unwrap_or_default()
    );
    let parts = [
        config.proxies.http.as_ref().map(reqwest::Proxy::http),
        config.proxies.https.as_ref().map(reqwest::Proxy::https),
    ];
    let mut proxies = Vec::new();
    for proxy in parts.into_iter().flatten() {
        let proxy = proxy.map_err(failed)?;
        proxies.push(proxy.no_proxy(reqwest::NoProxy::from_string(&direct)));
    }
    Ok(proxies)
}

/// For registries that are marked insecure: any certificate will do, signatures are still checked.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_authorities_are_read_once() {
        let clients = |config: &RegistryConfig| Clients::new(config).expect("clients");
        let plain = RegistryConfig::default();
        let (first, second) = (clients(&plain), clients(&plain));
        assert!(!first.roots.is_empty());
        assert!(Arc::ptr_eq(&first.roots, &second.roots));
        // What one client trusts beside them is its own affair.
        let own = clients(&RegistryConfig {
            certificate_authorities: vec![Vec::new()],
            ..RegistryConfig::default()
        });
        assert!(!Arc::ptr_eq(&own.roots, &first.roots));
    }
}
