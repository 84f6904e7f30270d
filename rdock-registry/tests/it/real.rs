//! The real `docker-registry`: found on PATH or in the cache of test programs, else reported as ignored.

use libtest_mimic::Trial;
use rdock_image::{Digest, ImageStore, Platform, Progress, Reference};
use rdock_registry::{RegistryClient, RegistryConfig};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Where other tests of this repository keep the programs they download.
fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let cache = std::env::var_os("RDOCK_TEST_CACHE")
        .map(PathBuf::from)
        .or_else(|| {
            let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"));
            let caches = std::env::var_os("XDG_CACHE_HOME")
                .map(PathBuf::from)
                .or_else(home);
            Some(caches?.join("rdock-tests"))
        });
    let cached = cache.map(|cache| cache.join("v1/registry-program/usr/bin"));
    std::env::split_paths(&path)
        .chain(cached)
        .map(|dir| dir.join("docker-registry"))
        .find(|path| path.is_file())
}

pub(crate) fn trials() -> Vec<Trial> {
    let found = program();
    let name = match &found {
        Some(_) => "a_real_registry_serves_the_same_image_to_us_and_to_oci_client".to_owned(),
        None => "a_real_registry_serves_the_same_image_to_us_and_to_oci_client (docker-registry is not here)"
            .to_owned(),
    };
    let ignored = found.is_none();
    vec![
        Trial::test(name, move || {
            if let Some(program) = found {
                same_image(&program);
            }
            Ok(())
        })
        .with_ignored_flag(ignored),
    ]
}

struct Registry(Child);

impl Drop for Registry {
    fn drop(&mut self) {
        // It may have ended by itself, which the test has noticed then.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts it on a free port.
fn start(program: &Path, directory: &Path) -> (Registry, String) {
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|socket| socket.local_addr())
        .expect("port")
        .port();
    let host = format!("127.0.0.1:{port}");
    let config = format!(
        "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: {host}}}\n",
        directory.join("data").display()
    );
    std::fs::write(directory.join("config.yml"), config).expect("write");
    let child = Command::new(program)
        .arg("serve")
        .arg(directory.join("config.yml"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("start the registry");
    let registry = Registry(child);
    let deadline = Instant::now() + Duration::from_secs(20);
    while std::net::TcpStream::connect(&host).is_err() {
        assert!(Instant::now() < deadline, "the registry does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }
    (registry, host)
}

fn same_image(program: &Path) {
    use oci_distribution::client::{Client, ClientConfig, ClientProtocol, Config, ImageLayer};
    use oci_distribution::secrets::RegistryAuth;
    // oci-client takes the process's default; ours never does. Another test may have set it already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let directory = tempfile::tempdir().expect("tempdir");
    let (registry, host) = start(program, directory.path());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("runtime");
    let layer = super::layer_of("file", &super::noise(300_000));
    let config = serde_json::json!({
        "architecture": Platform::host().architecture, "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [Digest::sha256_of(&layer).as_str()]},
    });
    let client = Client::new(ClientConfig {
        protocol: ClientProtocol::Http,
        ..ClientConfig::default()
    });
    let name: oci_distribution::Reference = format!("{host}/real/image:1").parse().expect("reference");
    let layers = [ImageLayer::new(layer, super::LAYER.to_owned(), None)];
    let config = Config::oci_v1(config.to_string().into_bytes(), None);
    runtime
        .block_on(client.push(&name, &layers, config, &RegistryAuth::Anonymous, None))
        .expect("pushed by oci-client");
    let theirs = runtime
        .block_on(client.fetch_manifest_digest(&name, &RegistryAuth::Anonymous))
        .expect("digest");

    let store = ImageStore::open(directory.path().join("store")).expect("store");
    let ours = RegistryClient::new(RegistryConfig::default()).expect("client");
    let reference = Reference::parse(&format!("{host}/real/image:1")).expect("reference");
    let image = runtime
        .block_on(ours.pull(&reference, &Platform::host(), &store, &Progress::default()))
        .expect("pulled by us");
    assert_eq!(image.manifest_digest().as_str(), theirs);
    // By digest too, and what does not have it is refused by the registry itself.
    let by_digest = Reference::parse(&format!("{host}/real/image@{theirs}")).expect("reference");
    runtime
        .block_on(ours.pull(&by_digest, &Platform::host(), &store, &Progress::default()))
        .expect("pulled by digest");
    drop(registry);
}
