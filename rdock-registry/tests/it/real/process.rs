//! A process of `docker-registry` on a port of its own.

use super::certificates::Certificates;
use super::issuer::Issuer;
use super::program::program;
use crate::Cannot;
use crate::content::Content;
use rdock_image::Digest;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Who may use a registry, and how.
pub(super) enum Guard<'a> {
    None,
    /// `tester` with `secret`.
    Password,
    Token(&'a Issuer),
    Tls(&'a Certificates),
    /// Clients show a certificate, too.
    Mutual(&'a Certificates),
}

/// `tester:secret`, as htpasswd(1) writes it with bcrypt.
const HTPASSWD: &str = "tester:$2y$05$rdockrdockrdockrdockre6SqiB7.qL5Ltfkk0Yfo7PMh7HeloeOS\n";

/// A running `docker-registry`.
pub(super) struct Real {
    pub(super) port: u16,
    child: Child,
    _dir: tempfile::TempDir,
}

impl Real {
    /// One that has the image, as if it had been pushed.
    pub(super) fn start(
        content: &Content,
        repository: &str,
        tag: &str,
        guard: &Guard<'_>,
    ) -> Result<Self, Cannot> {
        Self::with(guard, |root| {
            write_storage(root, content, repository, tag).expect("written")
        })
    }

    pub(super) fn empty(guard: &Guard<'_>) -> Result<Self, Cannot> {
        Self::with(guard, |_| {})
    }

    fn with(guard: &Guard<'_>, fill: impl FnOnce(&Path)) -> Result<Self, Cannot> {
        let program = program()?;
        let dir = tempfile::tempdir().expect("a temporary directory");
        fill(&dir.path().join("data/docker/registry/v2"));
        // The port may be taken between this and the start; then the wait below fails.
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a port")
            .port();
        let mut config = format!(
            "version: 0.1\nlog: {{level: warn}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\n\
             http:\n  addr: \"127.0.0.1:{port}\"\n  secret: test\n",
            dir.path().join("data").display()
        );
        match guard {
            Guard::None => {}
            Guard::Password => {
                let users = dir.path().join("htpasswd");
                std::fs::write(&users, HTPASSWD).expect("written");
                config += &format!("auth:\n  htpasswd: {{realm: test, path: {}}}\n", users.display());
            }
            Guard::Token(issuer) => {
                config += &format!(
                    "auth:\n  token:\n    realm: http://{}/token\n    service: rdock-test\n    \
                     issuer: rdock-test-issuer\n    rootcertbundle: {}\n",
                    issuer.server.host(),
                    issuer.dir.path().join("token.crt").display()
                );
            }
            Guard::Tls(certificates) | Guard::Mutual(certificates) => {
                let clients = match guard {
                    Guard::Mutual(_) => format!(", clientcas: [{}]", certificates.path("ca.crt").display()),
                    _ => String::new(),
                };
                config += &format!(
                    "  tls: {{certificate: {}, key: {}{clients}}}\n",
                    certificates.path("server.crt").display(),
                    certificates.path("server.key").display()
                );
            }
        }
        let path = dir.path().join("config.yml");
        std::fs::write(&path, config).expect("written");
        let child = Command::new(&program)
            .arg("serve")
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| Cannot(format!("{} does not start: {error}", program.display())))?;
        let mut registry = Self {
            port,
            child,
            _dir: dir,
        };
        let until = Instant::now() + Duration::from_secs(30);
        while !answers(port) {
            let ended = registry.child.try_wait().expect("waited");
            assert!(
                ended.is_none() && Instant::now() < until,
                "docker-registry does not answer: {ended:?}"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(registry)
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn answers(port: u16) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET /v2/ HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    // One that wants TLS says so with 400.
    ask().is_ok_and(|answer| {
        ["HTTP/1.0 ", "HTTP/1.1 "]
            .iter()
            .any(|start| answer.starts_with(start))
    })
}

/// What a push would have left: the registry's own layout of files.
fn write_storage(root: &Path, content: &Content, repository: &str, tag: &str) -> std::io::Result<()> {
    let write = |path: PathBuf, bytes: &[u8]| {
        std::fs::create_dir_all(path.parent().unwrap_or(root))?;
        std::fs::write(path, bytes)
    };
    let repository = root.join("repositories").join(repository);
    let manifest = content.digest();
    let mut blobs = content.blobs();
    for digest in blobs.keys() {
        let hex = digest.trim_start_matches("sha256:");
        write(
            repository.join("_layers/sha256").join(hex).join("link"),
            digest.as_bytes(),
        )?;
    }
    blobs.insert(manifest.to_string(), content.manifest.clone());
    for (digest, bytes) in &blobs {
        assert_eq!(Digest::sha256_of(bytes).as_str(), digest);
        let hex = digest.trim_start_matches("sha256:");
        write(
            root.join("blobs/sha256").join(&hex[..2]).join(hex).join("data"),
            bytes,
        )?;
    }
    let link = manifest.as_str().as_bytes();
    let manifests = repository.join("_manifests");
    write(
        manifests
            .join("revisions/sha256")
            .join(manifest.hex())
            .join("link"),
        link,
    )?;
    write(manifests.join("tags").join(tag).join("current/link"), link)?;
    write(
        manifests
            .join("tags")
            .join(tag)
            .join("index/sha256")
            .join(manifest.hex())
            .join("link"),
        link,
    )
}
