//! Downloads of ADD: over http and https, with a look at what was downloaded last.
use super::Execution;
use crate::builder::Proxies;
use crate::cache::Key;
use crate::error::{BuildError, Result};
use crate::files::{Copying, Target};
use crate::graph::{CopyStep, StepId, Unpack};
use rdock_image::{Digest, Hasher, Stop};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::path::Path;

/// A file that was downloaded.
#[derive(Debug)]
struct Download {
    file: File,
    /// From the address.
    name: String,
    /// `Last-Modified`, in seconds since 1970.
    modified: Option<i64>,
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

    /// Downloads a source of ADD and puts it into the layer.
    #[allow(clippy::too_many_arguments, reason = "all of one source of one step")]
    pub(super) fn add_download(
        &self,
        id: StepId,
        copy: &CopyStep,
        url: &str,
        checksum: Option<&Digest>,
        number: usize,
        copying: &Copying<'_>,
        target: &mut Target,
    ) -> Result<()> {
        let failed = |reason: String| self.failed(id, reason, None, None);
        let mut download = self.download(id, url, checksum)?;
        let done = if copy.unpack == Unpack::Always && self.store.is_archive(&mut download.file)? {
            let to = target.resolve(&copy.destination).map_err(failed)?;
            copying.archive(target, download.file, url, &to, number)
        } else {
            std::io::Seek::rewind(&mut download.file).map_err(|error| failed(error.to_string()))?;
            let time = (download.modified.unwrap_or(0), 0);
            copying.stream(target, &download.name, &mut download.file, 0o600, time)
        };
        done.map_err(|failure| self.failed(id, failure.reason, failure.hint, None))
    }

    fn download(&self, id: StepId, url: &str, checksum: Option<&Digest>) -> Result<Download> {
        let Got::File { mut file, known } = self.get(id, url, None)? else {
            return Err(self.failed(id, format!("{url} gave no content"), None, None));
        };
        if let Some(checksum) = checksum {
            // A file may have several digests; the one that is asked for counts.
            let found = match checksum.algorithm() {
                "sha256" => known.digest.clone(),
                _ => digest_like(checksum, &mut file)
                    .map_err(|error| self.failed(id, error.to_string(), None, None))?
                    .to_string(),
            };
            if found != checksum.as_str() {
                let reason = format!("{url} has the digest {found}, not {checksum}");
                return Err(self.failed(id, reason, None, None));
            }
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

    fn get(&self, id: StepId, url: &str, known: Option<&Known>) -> Result<Got> {
        let dir = self.cache.dir("tmp");
        let failed = |reason| self.failed(id, reason, None, None);
        get(
            url,
            known,
            &dir,
            &self.settings.proxies,
            self.cancel.stop(),
            &failed,
        )
    }
}

/// The digest of a file's content in another one's algorithm. The file is at its beginning before and after.
fn digest_like(other: &Digest, file: &mut File) -> std::io::Result<Digest> {
    let mut hasher = Hasher::like(other);
    let mut buffer = vec![0; 64 << 10];
    loop {
        match std::io::Read::read(file, &mut buffer)? {
            0 => break,
            count => hasher.update(&buffer[..count]),
        }
    }
    std::io::Seek::rewind(file)?;
    Ok(hasher.finish())
}

/// The content of an address, in a file without a name that is made in `dir`.
pub(crate) fn content(url: &str, dir: &Path, proxies: &Proxies, stop: &Stop) -> Result<File> {
    let failed = |reason| BuildError::Option {
        option: "context",
        reason,
    };
    match get(url, None, dir, proxies, stop, &failed)? {
        Got::File { file, .. } => Ok(file),
        Got::Unchanged => Err(failed(format!("{url} gave no content"))),
    }
}

fn get(
    url: &str,
    known: Option<&Known>,
    dir: &Path,
    proxies: &Proxies,
    stop: &Stop,
    failed: &dyn Fn(String) -> BuildError,
) -> Result<Got> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let got = match runtime {
        Ok(runtime) => runtime.block_on(async {
            tokio::select! {
                biased;
                () = stop.stopped() => None,
                got = http::get(url, known, dir, proxies) => Some(got),
            }
        }),
        Err(error) => Some(Err(error.to_string())),
    };
    match got {
        None => Err(BuildError::Cancelled),
        Some(got) => got.map_err(|reason| failed(format!("cannot download {url}: {reason}"))),
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

mod http {
    use super::{Got, Known};
    use crate::builder::Proxies;
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

    fn client(proxies: &Proxies) -> Result<reqwest::Client, String> {
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
        let mut builder = reqwest::Client::builder().no_proxy();
        // A proxy knows nothing of this machine's own addresses.
        let direct = format!(
            "{},localhost,127.0.0.0/8,::1",
            proxies.none.as_deref().unwrap_or_default()
        );
        let ways = [
            proxies.http.as_ref().map(reqwest::Proxy::http),
            proxies.https.as_ref().map(reqwest::Proxy::https),
        ];
        for proxy in ways.into_iter().flatten() {
            let proxy = proxy.map_err(|error| format!("the proxy: {error}"))?;
            builder = builder.proxy(proxy.no_proxy(reqwest::NoProxy::from_string(&direct)));
        }
        builder
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
        proxies: &Proxies,
    ) -> Result<Got, String> {
        let client = client(proxies)?;
        let mut tries = 0;
        loop {
            match once(&client, url, known, dir).await {
                Err((_, true)) if tries + 1 < TRIES => {
                    tries += 1;
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
