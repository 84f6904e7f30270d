//! The distribution project's own registry, and the `oci-client` crate beside us.

use crate::content::Content;
use crate::{Cannot, Host, quick, trial_if};
use libtest_mimic::Trial;
use oci_distribution::client::{Client, ClientConfig, ClientProtocol};
use rdock_image::{Digest, Reference};
use rdock_registry::{Credential, Error};
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
    ]
}

fn the_real_registry_gives_what_oci_client_sees() -> Result<(), Cannot> {
    let content = Content::new(3, 70);
    let registry = Real::start(&content, "lib/app", "1", false)?;
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
    let registry = Real::start(&content, "app", "1", true)?;
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
    fn start(content: &Content, repository: &str, tag: &str, password: bool) -> Result<Self, Cannot> {
        let program = program()?;
        let dir = tempfile::tempdir().expect("a temporary directory");
        write_storage(
            &dir.path().join("data/docker/registry/v2"),
            content,
            repository,
            tag,
        )
        .expect("written");
        // The port may be taken between this and the start; then the wait below fails.
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a port")
            .port();
        let mut config = format!(
            "version: 0.1\nlog: {{level: warn}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\n\
             http: {{addr: \"127.0.0.1:{port}\", secret: test}}\n",
            dir.path().join("data").display()
        );
        if password {
            let users = dir.path().join("htpasswd");
            std::fs::write(&users, HTPASSWD).expect("written");
            config += &format!("auth:\n  htpasswd: {{realm: test, path: {}}}\n", users.display());
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
    ask().is_ok_and(|answer| {
        answer.starts_with("HTTP/1.0 200")
            || answer.starts_with("HTTP/1.0 401")
            || answer.starts_with("HTTP/1.1 ")
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
