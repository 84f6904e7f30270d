//! Downloads of ADD: over http and https, with a look at what was downloaded last.
use super::Execution;
use crate::cache::Key;
use crate::error::Result;
use crate::graph::StepId;
use rdock_image::Digest;
use serde::{Deserialize, Serialize};
use std::fs::File;

/// A file that was downloaded.
#[derive(Debug)]
pub(crate) struct Download {
    pub(crate) file: File,
    /// From the address.
    pub(crate) name: String,
    /// `Last-Modified`, in seconds since 1970.
    pub(crate) modified: Option<i64>,
}

/// What is known of an address.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Known {
    /// Of the content.
    digest: String,
    etag: Option<String>,
    modified: Option<String>,
}

impl Execution<'_> {
    /// The content of an address now, for a cache key: asked for by its tag, downloaded only when that is another one.
    pub(super) fn download_state(&self, id: StepId, url: &str) -> Result<String> {
        let path = self.cache.dir("downloads").join(Key::of(url.as_bytes()).as_str());
        let known: Option<Known> = std::fs::read(&path)
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let got = self.get(id, url, known.as_ref())?;
        let known = match got {
            Got::Unchanged => known.unwrap_or_default(),
            Got::File { known, .. } => {
                let bytes = serde_json::to_vec(&known).unwrap_or_default();
                self.cache.write(&path, &bytes)?;
                known
            }
        };
        Ok(format!("{} {}", known.digest, known.modified.unwrap_or_default()))
    }

    pub(super) fn download(&self, id: StepId, url: &str, checksum: Option<&Digest>) -> Result<Download> {
        let Got::File { file, known } = self.get(id, url, None)? else {
            return Err(self.failed(id, format!("{url} gave no content"), None, None));
        };
        if let Some(checksum) = checksum
            && checksum.as_str() != known.digest
        {
            let reason = format!("{url} has the digest {}, not {checksum}", known.digest);
            return Err(self.failed(id, reason, None, None));
        }
        let path = url.split(['?', '#']).next().unwrap_or_default();
        let name = path
            .split_once("://")
            .and_then(|(_, rest)| rest.split_once('/'))
            .map(|(_, path)| path);
        let name = name
            .and_then(|path| path.rsplit('/').next())
            .unwrap_or_default()
            .to_owned();
        let modified = known.modified.as_deref().and_then(|text| {
            jiff::fmt::rfc2822::DateTimeParser::new()
                .parse_timestamp(text)
                .ok()
                .map(|time| time.as_second())
        });
        Ok(Download { file, name, modified })
    }

    #[cfg(not(feature = "registry"))]
    fn get(&self, id: StepId, url: &str, known: Option<&Known>) -> Result<Got> {
        let _ = known;
        let reason =
            format!("{url} cannot be downloaded: this program was built without the feature `registry`");
        Err(self.failed(id, reason, None, None))
    }

    #[cfg(feature = "registry")]
    fn get(&self, id: StepId, url: &str, known: Option<&Known>) -> Result<Got> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let got = match runtime {
            Ok(runtime) => runtime.block_on(http::get(url, known, &self.cache.dir("tmp"), &|| {
                self.cancel.is_cancelled()
            })),
            Err(error) => Err(error.to_string()),
        };
        got.map_err(|reason| self.failed(id, format!("cannot download {url}: {reason}"), None, None))
    }
}

/// What a server sent.
enum Got {
    /// What is known is still so.
    Unchanged,
    File {
        file: File,
        known: Known,
    },
}

#[cfg(feature = "registry")]
mod http {
    use super::{Got, Known};
    use sha2::{Digest as _, Sha256};
    use std::fs::File;
    use std::io::{Seek, Write};
    use std::path::Path;
    use std::sync::Arc;
    use std::time::Duration;

    /// How long a connection may bring nothing.
    const IDLE: Duration = Duration::from_secs(60);
    const REDIRECTS: usize = 10;
    const TRIES: u32 = 3;

    fn client() -> Result<reqwest::Client, String> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        // On this client alone; the program's own choice of a provider stays.
        let tls =
            rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .map_err(|error| error.to_string())?
                .with_root_certificates(roots)
                .with_no_client_auth();
        // Its own look at the environment is switched off.
        reqwest::Client::builder()
            .no_proxy()
            .tls_backend_preconfigured(tls)
            .redirect(reqwest::redirect::Policy::limited(REDIRECTS))
            .connect_timeout(Duration::from_secs(30))
            .read_timeout(IDLE)
            .user_agent(concat!("rdock/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| error.to_string())
    }

    pub(super) async fn get(
        url: &str,
        known: Option<&Known>,
        dir: &Path,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Got, String> {
        let client = client()?;
        let mut tries = 0;
        loop {
            match once(&client, url, known, dir, cancelled).await {
                Err((error, true)) if tries + 1 < TRIES && !cancelled() => {
                    tries += 1;
                    drop(error);
                    tokio::time::sleep(Duration::from_millis(200 << tries)).await;
                }
                other => return other.map_err(|(error, _)| error),
            }
        }
    }

    /// The flag of an error says whether another try can help.
    async fn once(
        client: &reqwest::Client,
        url: &str,
        known: Option<&Known>,
        dir: &Path,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Got, (String, bool)> {
        let text = |error: reqwest::Error| {
            let mut text = error.to_string();
            let mut source = std::error::Error::source(&error);
            while let Some(inner) = source {
                text.push_str(&format!(": {inner}"));
                source = inner.source();
            }
            (text, true)
        };
        let mut request = client.get(url);
        if let Some(etag) = known.and_then(|known| known.etag.as_deref()) {
            request = request.header("If-None-Match", etag);
        }
        let mut response = request.send().await.map_err(text)?;
        let status = response.status();
        if status.as_u16() == 304 && known.is_some() {
            return Ok(Got::Unchanged);
        }
        if !status.is_success() {
            return Err((format!("the server says {status}"), status.is_server_error()));
        }
        let header = |name: &str| {
            response
                .headers()
                .get(name)
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned)
        };
        let (etag, modified) = (header("etag"), header("last-modified"));
        let io = |error: std::io::Error| (error.to_string(), false);
        let mut file = nameless(dir).map_err(io)?;
        let mut hash = Sha256::new();
        while let Some(chunk) = response.chunk().await.map_err(text)? {
            if cancelled() {
                return Err(("the build was cancelled".to_owned(), false));
            }
            hash.update(&chunk);
            file.write_all(&chunk).map_err(io)?;
        }
        file.rewind().map_err(io)?;
        let digest = hash
            .finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>();
        let known = Known {
            digest: format!("sha256:{digest}"),
            etag,
            modified,
        };
        Ok(Got::File { file, known })
    }

    /// A file without a name.
    fn nameless(dir: &Path) -> std::io::Result<File> {
        use rustix::fs::{Mode, OFlags};
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        match rustix::fs::open(dir, flags, Mode::from_raw_mode(0o600)) {
            Ok(fd) => Ok(fd.into()),
            Err(_) => Ok(rustix::fs::memfd_create("download", rustix::fs::MemfdFlags::CLOEXEC)?.into()),
        }
    }
}
