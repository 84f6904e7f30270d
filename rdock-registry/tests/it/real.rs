//! The distribution project's own registry, and the `oci-client` crate beside us.

pub(crate) mod certificates;
mod issuer;
mod process;
mod program;

use crate::content::Content;
use crate::pushes::make;
use crate::server::Registry;
use crate::{Cannot, Host, push_with, quick, runtime, trial_if};
use certificates::Certificates;
use issuer::Issuer;
use libtest_mimic::Trial;
use oci_distribution::client::{Client, ClientConfig, ClientProtocol};
use process::{Guard, Real};
use rdock_image::{Digest, Reference};
use rdock_registry::{Credential, Error, PushEvent, RegistryClient, RegistryConfig};
use std::io::Read;
use std::path::PathBuf;

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

/// Without a login nothing can be pushed.
fn refuses_strangers(address: &str, seed: u64) {
    let host = Host::new();
    let name = format!("{address}/made:2");
    make(&host.store, &name, seed);
    let (pushed, _) = push_with(&host.store, quick(), &name);
    assert!(matches!(pushed, Err(Error::Denied { .. })), "{pushed:?}");
}

/// A configuration whose `certs.d` has a folder for the registry, with its authority; and that folder.
fn trusting(certificates: &Certificates, port: u16) -> (RegistryConfig, tempfile::TempDir, PathBuf) {
    let dirs = tempfile::tempdir().expect("a temporary directory");
    let dir = dirs.path().join(format!("127.0.0.1:{port}"));
    std::fs::create_dir(&dir).expect("made");
    std::fs::copy(certificates.path("ca.crt"), dir.join("ca.crt")).expect("copied");
    let mut config = quick();
    config.certificate_dirs = vec![dirs.path().to_owned()];
    (config, dirs, dir)
}

/// The client of `oci-client`, and a name in its words.
fn theirs(reference: &Reference) -> (Client, oci_distribution::Reference) {
    // That client takes the process's TLS provider, which this program may set: it is not the library.
    rustls::crypto::ring::default_provider().install_default().ok();
    let client = Client::new(ClientConfig {
        protocol: ClientProtocol::Http,
        ..ClientConfig::default()
    });
    (
        client,
        rdock_registry::oci_reference(reference).expect("converts"),
    )
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
    refuses_strangers(&address, 77);
    Ok(())
}

fn the_real_registry_takes_pushes_with_tokens() -> Result<(), Cannot> {
    let issuer = Issuer::start()?;
    let registry = Real::empty(&Guard::Token(&issuer))?;
    let address = format!("127.0.0.1:{}", registry.port);
    let config = login(&address, quick());
    pushes(&address, &config, true);
    refuses_strangers(&address, 78);
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
    let (config, _dirs, _) = trusting(&certificates, registry.port);
    Host::new()
        .pull(config, &format!("{address}/team/app:1"))
        .expect("pulled");
    Ok(())
}

fn the_real_registry_knows_a_client_by_its_certificate() -> Result<(), Cannot> {
    let certificates = Certificates::make()?;
    let registry = Real::empty(&Guard::Mutual(&certificates))?;
    let address = format!("127.1:{}", registry.port);
    let (config, _dirs, dir) = trusting(&certificates, registry.port);
    let host = Host::new();
    let name = format!("{address}/made:1");
    make(&host.store, &name, 79);
    let (pushed, _) = push_with(&host.store, config.clone(), &name);
    assert!(
        // A server that hangs up at once may cut its own reason off.
        matches!(
            pushed,
            Err(Error::ClientCertificate { .. } | Error::Transport { .. })
        ),
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
    let (client, theirs) = theirs(&pushed.reference);
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

fn the_real_registry_gives_what_oci_client_sees() -> Result<(), Cannot> {
    let content = Content::new(3, 70);
    let registry = Real::start(&content, "lib/app", "1", &Guard::None)?;
    let name = format!("127.0.0.1:{}/lib/app:1", registry.port);
    let host = Host::new();
    let image = host.pull(quick(), &name).expect("pulled");
    assert_eq!(*image.manifest_digest(), content.digest());
    let (client, theirs) = theirs(&Reference::parse(&name).expect("reference"));
    let anonymous = oci_distribution::secrets::RegistryAuth::Anonymous;
    let (manifest, digest) = runtime()
        .block_on(client.pull_image_manifest(&theirs, &anonymous))
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
