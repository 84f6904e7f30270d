//! The distribution project's own registry, and the `oci-client` crate beside us.

use crate::content::Content;
use crate::pushes::make;
use crate::server::{Registry, Reply, Seen};
use crate::{Cannot, Host, push_with, quick, runtime, trial_if};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use libtest_mimic::Trial;
use oci_distribution::client::{Client, ClientConfig, ClientProtocol};
use rdock_image::{Digest, Reference};
use rdock_registry::{Credential, Error, PushEvent, RegistryClient, RegistryConfig};
use serde_json::json;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        trial_if(
            "the_real_registry_gives_what_oci_client_sees",
            the_real_registry_gives_what_oci_client_sees,
        ),
        trial_if(
            "the_real_registry_checks_passwords",
            the_real_registry_checks_passwords,
        ),
        trial_if(
            "the_real_registry_takes_pushes_of_everyone",
            the_real_registry_takes_pushes_of_everyone,
        ),
        trial_if(
            "the_real_registry_takes_pushes_with_a_password",
            the_real_registry_takes_pushes_with_a_password,
        ),
        trial_if(
            "the_real_registry_takes_pushes_with_tokens",
            the_real_registry_takes_pushes_with_tokens,
        ),
        trial_if(
            "the_real_registry_takes_pushes_by_tls",
            the_real_registry_takes_pushes_by_tls,
        ),
        trial_if(
            "the_real_registry_knows_a_client_by_its_certificate",
            the_real_registry_knows_a_client_by_its_certificate,
        ),
        trial_if("oci_client_reads_what_is_pushed", oci_client_reads_what_is_pushed),
    ]
}

/// Logs in, pushes, and pulls: what came from elsewhere and what was made here.
fn pushes(address: &str, config: &RegistryConfig, mounts: bool) {
    let content = Content::sized(2, 75, 5 << 20);
    let from = Registry::plain(&content);
    let host = Host::new();
    let base = format!("{}/a:1", from.host());
    let image = host.pull(quick(), &base).expect("pulled");
    let name = |path: &str| format!("{address}/{path}");
    let tag = |path: &str| {
        let name = name(path);
        host.store
            .tag(&image, &Reference::parse(&name).expect("a name"))
            .expect("tagged");
        name
    };
    let whole = tag("team/app:1");
    let (pushed, _) = push_with(&host.store, config.clone(), &whole);
    assert_eq!(pushed.expect("pushed").digest, content.digest());
    let (pushed, events) = push_with(&host.store, config.clone(), &whole);
    pushed.expect("pushed again");
    assert!(
        events
            .iter()
            .any(|event| matches!(event, PushEvent::LayerExists { .. })),
        "{events:?}"
    );
    let (pushed, events) = push_with(&host.store, config.clone(), &tag("team/copy:1"));
    pushed.expect("pushed to a neighbour");
    let mounted = events
        .iter()
        .any(|event| matches!(event, PushEvent::LayerMounted { from, .. } if from == "team/app"));
    assert_eq!(mounted, mounts, "{events:?}");
    // In chunks, to a repository that has nothing, by a store that does not know the others.
    let other = Host::new();
    let image = other.pull(quick(), &base).expect("pulled");
    let chunked = name("chunked:1");
    other
        .store
        .tag(&image, &Reference::parse(&chunked).expect("a name"))
        .expect("tagged");
    let mut pieces = config.clone();
    pieces.chunk_size = Some(1 << 20);
    let (pushed, _) = push_with(&other.store, pieces, &chunked);
    assert_eq!(pushed.expect("pushed in chunks").digest, content.digest());
    let made = name("made:1");
    let image = make(&host.store, &made, 76);
    let (pushed, _) = push_with(&host.store, config.clone(), &made);
    let pushed = pushed.expect("pushed");
    let back = Host::new();
    for name in [&whole, &chunked] {
        let pulled = back.pull(config.clone(), name).expect("pulled back");
        assert_eq!(*pulled.manifest_digest(), content.digest());
    }
    let pulled = back.pull(config.clone(), &made).expect("pulled back");
    assert_eq!(
        (pulled.id(), pulled.manifest_digest()),
        (image.id(), &pushed.digest)
    );
}

/// A login is refused with a wrong password, and nothing is kept; with the right one the registry can be used.
fn login(address: &str, mut config: RegistryConfig) -> RegistryConfig {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("config.json");
    config.docker_config = Some(file.clone());
    let mut client = RegistryClient::new(config.clone()).expect("a client");
    let error = runtime()
        .block_on(client.login(address, "tester", "wrong"))
        .expect_err("refused");
    assert!(matches!(error, Error::Denied { .. }), "{error:?}");
    assert!(!file.exists());
    runtime()
        .block_on(client.login(address, "tester", "secret"))
        .expect("logged in");
    let kept = RegistryConfig::load(None, Some(&file), None).expect("valid");
    config.credentials = kept.credentials;
    config
}

fn the_real_registry_takes_pushes_of_everyone() -> Result<(), Cannot> {
    let registry = Real::empty(&Guard::None)?;
    pushes(&format!("127.0.0.1:{}", registry.port), &quick(), true);
    Ok(())
}

fn the_real_registry_takes_pushes_with_a_password() -> Result<(), Cannot> {
    let registry = Real::empty(&Guard::Password)?;
    let address = format!("127.0.0.1:{}", registry.port);
    let config = login(&address, quick());
    pushes(&address, &config, true);
    let (pushed, _) = {
        let host = Host::new();
        let name = format!("{address}/made:2");
        make(&host.store, &name, 77);
        push_with(&host.store, quick(), &name)
    };
    assert!(matches!(pushed, Err(Error::Denied { .. })), "{pushed:?}");
    Ok(())
}

fn the_real_registry_takes_pushes_with_tokens() -> Result<(), Cannot> {
    let issuer = Issuer::start()?;
    let registry = Real::empty(&Guard::Token(&issuer))?;
    let address = format!("127.0.0.1:{}", registry.port);
    let config = login(&address, quick());
    pushes(&address, &config, true);
    let (pushed, _) = {
        let host = Host::new();
        let name = format!("{address}/made:2");
        make(&host.store, &name, 78);
        push_with(&host.store, quick(), &name)
    };
    assert!(matches!(pushed, Err(Error::Denied { .. })), "{pushed:?}");
    Ok(())
}

fn the_real_registry_takes_pushes_by_tls() -> Result<(), Cannot> {
    let certificates = Certificates::make()?;
    let registry = Real::empty(&Guard::Tls(&certificates))?;
    // An address of this machine that is not spelled as one, so that its certificate counts.
    let address = format!("127.1:{}", registry.port);
    let unknown = Host::new()
        .pull(quick(), &format!("{address}/a:1"))
        .expect_err("unknown authority");
    assert!(
        matches!(&unknown, Error::Transport { .. }) && !unknown.is_transient(),
        "{unknown:?}"
    );
    let mut config = quick();
    config.certificate_authorities = vec![std::fs::read(certificates.path("ca.crt")).expect("read")];
    pushes(&address, &config, true);
    // The same by a folder for the host.
    let dirs = tempfile::tempdir().expect("a temporary directory");
    let dir = dirs.path().join(format!("127.0.0.1:{}", registry.port));
    std::fs::create_dir(&dir).expect("made");
    std::fs::copy(certificates.path("ca.crt"), dir.join("ca.crt")).expect("copied");
    let mut config = quick();
    config.certificate_dirs = vec![dirs.path().to_owned()];
    Host::new()
        .pull(config, &format!("{address}/team/app:1"))
        .expect("pulled");
    Ok(())
}

fn the_real_registry_knows_a_client_by_its_certificate() -> Result<(), Cannot> {
    let certificates = Certificates::make()?;
    let registry = Real::empty(&Guard::Mutual(&certificates))?;
    let address = format!("127.1:{}", registry.port);
    let dirs = tempfile::tempdir().expect("a temporary directory");
    let dir = dirs.path().join(format!("127.0.0.1:{}", registry.port));
    std::fs::create_dir(&dir).expect("made");
    std::fs::copy(certificates.path("ca.crt"), dir.join("ca.crt")).expect("copied");
    let mut config = quick();
    config.certificate_dirs = vec![dirs.path().to_owned()];
    let host = Host::new();
    let name = format!("{address}/made:1");
    make(&host.store, &name, 79);
    let (pushed, _) = push_with(&host.store, config.clone(), &name);
    assert!(
        matches!(pushed, Err(Error::Transport { .. })),
        "without a certificate: {pushed:?}"
    );
    std::fs::copy(certificates.path("client.crt"), dir.join("client.cert")).expect("copied");
    std::fs::copy(certificates.path("client.key"), dir.join("client.key")).expect("copied");
    let (pushed, _) = push_with(&host.store, config.clone(), &name);
    let pushed = pushed.expect("pushed");
    let back = Host::new().pull(config, &name).expect("pulled back");
    assert_eq!(*back.manifest_digest(), pushed.digest);
    Ok(())
}

fn oci_client_reads_what_is_pushed() -> Result<(), Cannot> {
    let registry = Real::empty(&Guard::None)?;
    let host = Host::new();
    let name = format!("127.0.0.1:{}/made:1", registry.port);
    let image = make(&host.store, &name, 80);
    let (pushed, _) = push_with(&host.store, quick(), &name);
    let pushed = pushed.expect("pushed");
    // That client takes the process's TLS provider, which this program may set: it is not the library.
    rustls::crypto::ring::default_provider().install_default().ok();
    let theirs = rdock_registry::oci_reference(&pushed.reference).expect("converts");
    let client = Client::new(ClientConfig {
        protocol: ClientProtocol::Http,
        ..ClientConfig::default()
    });
    let anonymous = oci_distribution::secrets::RegistryAuth::Anonymous;
    let kinds = vec!["application/vnd.oci.image.layer.v1.tar+gzip"];
    let pulled = runtime()
        .block_on(client.pull(&theirs, &anonymous, kinds))
        .expect("oci-client pulls it");
    assert_eq!(pulled.digest.as_deref(), Some(pushed.digest.as_str()));
    assert_eq!(Digest::sha256_of(&pulled.config.data), *image.id());
    let mut tar = Vec::new();
    flate2::read::GzDecoder::new(&pulled.layers[0].data[..])
        .read_to_end(&mut tar)
        .expect("gzip");
    assert_eq!(Digest::sha256_of(&tar), image.diff_ids()[0]);
    Ok(())
}

/// Who may use a registry, and how.
enum Guard<'a> {
    None,
    /// `tester` with `secret`.
    Password,
    Token(&'a Issuer),
    Tls(&'a Certificates),
    /// Clients show a certificate, too.
    Mutual(&'a Certificates),
}

fn openssl(dir: &Path, arguments: &[&str], input: &[u8]) -> Result<Vec<u8>, Cannot> {
    let mut child = Command::new("openssl")
        .args(arguments)
        .current_dir(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| Cannot(format!("openssl: {error}")))?;
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(input).expect("written");
    drop(stdin);
    let output = child.wait_with_output().expect("waited");
    assert!(output.status.success(), "openssl {arguments:?}");
    Ok(output.stdout)
}

/// An authority of our own, and a certificate for 127.0.0.1.
struct Certificates(tempfile::TempDir);

impl Certificates {
    fn make() -> Result<Self, Cannot> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let key = [
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
        ];
        let authority = [
            "req",
            "-x509",
            "-days",
            "2",
            "-subj",
            "/CN=rdock test CA",
            "-addext",
            "basicConstraints=critical,CA:TRUE",
            "-keyout",
            "ca.key",
            "-out",
            "ca.crt",
        ];
        openssl(dir.path(), &[&authority[..], &key[..]].concat(), b"")?;
        let request = [
            "req",
            "-subj",
            "/CN=registry",
            "-keyout",
            "server.key",
            "-out",
            "server.csr",
        ];
        openssl(dir.path(), &[&request[..], &key[..]].concat(), b"")?;
        let extensions = "subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\n";
        std::fs::write(dir.path().join("extensions"), extensions).expect("written");
        let sign = [
            "x509",
            "-req",
            "-in",
            "server.csr",
            "-CA",
            "ca.crt",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-days",
            "2",
            "-extfile",
            "extensions",
            "-out",
            "server.crt",
        ];
        openssl(dir.path(), &sign, b"")?;
        let request = [
            "req",
            "-subj",
            "/CN=client",
            "-keyout",
            "client.key",
            "-out",
            "client.csr",
        ];
        openssl(dir.path(), &[&request[..], &key[..]].concat(), b"")?;
        std::fs::write(
            dir.path().join("client-extensions"),
            "extendedKeyUsage=clientAuth\n",
        )
        .expect("written");
        let sign = [
            "x509",
            "-req",
            "-in",
            "client.csr",
            "-CA",
            "ca.crt",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-days",
            "2",
            "-extfile",
            "client-extensions",
            "-out",
            "client.crt",
        ];
        openssl(dir.path(), &sign, b"")?;
        Ok(Self(dir))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

/// Gives the tokens (JSON Web Tokens, RS256) that `docker-registry` trusts: to `tester` what it asks for, to others
/// nothing but pulling.
struct Issuer {
    server: Registry,
    dir: std::sync::Arc<tempfile::TempDir>,
}

impl Issuer {
    fn start() -> Result<Self, Cannot> {
        let dir = std::sync::Arc::new(tempfile::tempdir().expect("a temporary directory"));
        let make = [
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=signer",
            "-keyout",
            "token.key",
            "-out",
            "token.crt",
        ];
        openssl(dir.path(), &make, b"")?;
        let held = dir.clone();
        let server = Registry::with(|options| options.script(move |seen| Some(token(held.path(), seen))));
        Ok(Self { server, dir })
    }
}

fn token(dir: &Path, seen: &Seen) -> Reply {
    // `tester:secret`
    let known = match seen.authorization.as_deref() {
        None => false,
        Some("Basic dGVzdGVyOnNlY3JldA==") => true,
        Some(_) => return Reply::error(401, "UNAUTHORIZED", "wrong user or password"),
    };
    let url = url::Url::parse(&format!("http://issuer{}", seen.path)).expect("a path");
    let mut access = Vec::new();
    let mut service = String::new();
    for (name, value) in url.query_pairs() {
        match &*name {
            "service" => service = value.into_owned(),
            "scope" => {
                let (resource, actions) = value.rsplit_once(':').expect("a scope");
                let (kind, name) = resource.split_once(':').expect("a scope");
                let actions: Vec<_> = actions
                    .split(',')
                    .filter(|action| known || *action == "pull")
                    .collect();
                access.push(json!({"type": kind, "name": name, "actions": actions}));
            }
            _ => {}
        }
    }
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970")
        .as_secs();
    let certificate = std::fs::read_to_string(dir.join("token.crt")).expect("read");
    let chain: String = certificate
        .lines()
        .filter(|line| !line.contains("-----"))
        .collect();
    assert!(STANDARD.decode(&chain).is_ok());
    let encode = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let head = encode(&json!({"typ": "JWT", "alg": "RS256", "x5c": [chain]}));
    let claims = encode(&json!({
        "iss": "rdock-test-issuer", "sub": if known { "tester" } else { "" }, "aud": service, "exp": now + 60,
        "nbf": now - 10, "iat": now, "jti": format!("{now}-{}", seen.before), "access": access,
    }));
    let text = format!("{head}.{claims}");
    let Ok(signature) = openssl(dir, &["dgst", "-sha256", "-sign", "token.key"], text.as_bytes()) else {
        return Reply::error(500, "UNKNOWN", "openssl is gone");
    };
    let token = format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature));
    Reply::new(200, json!({"token": token, "expires_in": 60}).to_string())
}

fn the_real_registry_gives_what_oci_client_sees() -> Result<(), Cannot> {
    let content = Content::new(3, 70);
    let registry = Real::start(&content, "lib/app", "1", &Guard::None)?;
    let name = format!("127.0.0.1:{}/lib/app:1", registry.port);
    let host = Host::new();
    let image = host.pull(quick(), &name).expect("pulled");
    assert_eq!(*image.manifest_digest(), content.digest());
    // That client takes the process's TLS provider, which this program may set: it is not the library.
    rustls::crypto::ring::default_provider().install_default().ok();
    let reference = Reference::parse(&name).expect("reference");
    let theirs = rdock_registry::oci_reference(&reference).expect("converts");
    let config = ClientConfig {
        protocol: ClientProtocol::Http,
        ..ClientConfig::default()
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("runtime");
    let anonymous = oci_distribution::secrets::RegistryAuth::Anonymous;
    let (manifest, digest) = runtime
        .block_on(Client::new(config).pull_image_manifest(&theirs, &anonymous))
        .expect("oci-client pulls too");
    assert_eq!(digest, image.manifest_digest().to_string());
    let layers: Vec<_> = image
        .manifest()
        .layers
        .iter()
        .map(|layer| layer.digest.clone())
        .collect();
    assert_eq!(
        manifest
            .layers
            .iter()
            .map(|layer| layer.digest.clone())
            .collect::<Vec<_>>(),
        layers
    );
    assert_eq!(manifest.config.digest, image.id().to_string());
    let unknown = host
        .pull(quick(), &format!("127.0.0.1:{}/lib/app:none", registry.port))
        .expect_err("no such tag");
    assert!(matches!(unknown, Error::NotFound { .. }), "{unknown:?}");
    Ok(())
}

fn the_real_registry_checks_passwords() -> Result<(), Cannot> {
    let content = Content::new(1, 71);
    let registry = Real::start(&content, "app", "1", &Guard::Password)?;
    let address = format!("127.0.0.1:{}", registry.port);
    let with = |password: &str| {
        let mut config = quick();
        config.credentials.set(
            &address,
            Credential::Basic {
                user: "tester".into(),
                password: password.into(),
            },
        );
        config
    };
    let host = Host::new();
    for config in [quick(), with("wrong")] {
        let error = host
            .pull(config, &format!("{address}/app:1"))
            .expect_err("denied");
        assert!(matches!(error, Error::Denied { .. }), "{error:?}");
        host.assert_nothing_half_made();
    }
    host.pull(with("secret"), &format!("{address}/app:1"))
        .expect("pulled");
    Ok(())
}

/// `tester:secret`, as htpasswd(1) writes it with bcrypt.
const HTPASSWD: &str = "tester:$2y$05$rdockrdockrdockrdockre6SqiB7.qL5Ltfkk0Yfo7PMh7HeloeOS\n";

/// A running `docker-registry`.
struct Real {
    port: u16,
    child: Child,
    _dir: tempfile::TempDir,
}

impl Real {
    /// One that has the image, as if it had been pushed.
    fn start(content: &Content, repository: &str, tag: &str, guard: &Guard<'_>) -> Result<Self, Cannot> {
        Self::with(guard, |root| {
            write_storage(root, content, repository, tag).expect("written")
        })
    }

    fn empty(guard: &Guard<'_>) -> Result<Self, Cannot> {
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

/// `docker-registry`: of the host, of the cache directory, or downloaded into that.
fn program() -> Result<PathBuf, Cannot> {
    let in_path = std::env::var_os("PATH")
        .into_iter()
        .flat_map(|path| std::env::split_paths(&path).collect::<Vec<_>>());
    if let Some(found) = in_path
        .map(|dir| dir.join("docker-registry"))
        .find(|path| path.is_file())
    {
        return Ok(found);
    }
    let variable = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let cache = variable("RDOCK_TEST_CACHE")
        .or_else(|| variable("XDG_CACHE_HOME").map(|dir| dir.join("rdock-tests")))
        .or_else(|| variable("HOME").map(|dir| dir.join(".cache/rdock-tests")))
        .ok_or_else(|| Cannot("no docker-registry, and no HOME for a cache".into()))?;
    // Where the tests of the example program keep theirs.
    let kept = cache.join("v1/registry-program/usr/bin/docker-registry");
    if kept.is_file() {
        return Ok(kept);
    }
    let tree = cache.join("docker-registry");
    let program = tree.join("usr/bin/docker-registry");
    if !program.is_file() {
        download(&cache, &tree)?;
    }
    Ok(program)
}

/// Fetches Debian's package with apt, in a private state: nothing is installed and no privilege is needed.
fn download(cache: &Path, tree: &Path) -> Result<(), Cannot> {
    let failed =
        |what: &str, why: &dyn std::fmt::Display| Cannot(format!("no docker-registry here; {what}: {why}"));
    std::fs::create_dir_all(cache).map_err(|error| failed("the cache directory", &error))?;
    let work = tempfile::tempdir_in(cache).map_err(|error| failed("the cache directory", &error))?;
    let run = |program: &str, arguments: &[&std::ffi::OsStr]| {
        let output = Command::new(program)
            .args(arguments)
            .current_dir(work.path())
            .stdin(Stdio::null())
            .output()
            .map_err(|error| failed(program, &error))?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() {
            Ok(())
        } else {
            Err(failed(program, &text.lines().next().unwrap_or("failed")))
        }
    };
    let path = work.path().display();
    for dir in ["lists/partial", "cache/archives/partial"] {
        std::fs::create_dir_all(work.path().join(dir))
            .map_err(|error| failed("the cache directory", &error))?;
    }
    let options = [
        format!("Dir::State::Lists={path}/lists"),
        format!("Dir::Cache={path}/cache"),
        "APT::Sandbox::User=".into(),
    ];
    let mut arguments: Vec<&std::ffi::OsStr> = Vec::new();
    for option in &options {
        arguments.push("-o".as_ref());
        arguments.push(option.as_ref());
    }
    run("apt-get", &[arguments.as_slice(), &["update".as_ref()]].concat())?;
    run(
        "apt-get",
        &[
            arguments.as_slice(),
            &["download".as_ref(), "docker-registry".as_ref()],
        ]
        .concat(),
    )?;
    let package = std::fs::read_dir(work.path())
        .map_err(|error| failed("the cache directory", &error))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .ok_or_else(|| failed("apt-get", &"it brought no package"))?;
    let unpacked = work.path().join("tree");
    run("dpkg", &["-x".as_ref(), package.as_ref(), unpacked.as_ref()])?;
    // Another run may have been faster; then its tree is as good.
    if let Err(error) = std::fs::rename(&unpacked, tree)
        && !tree.is_dir()
    {
        return Err(failed("the cache directory", &error));
    }
    Ok(())
}
