//! Registries with TLS: which authorities count, and certificates of the client, shown to a server that demands them.

use crate::content::Content;
use crate::pushes::make;
use crate::real::certificates::Certificates;
use crate::resume::process;
use crate::server::Registry;
use crate::{Cannot, Host, push_with, quick, trial_if};
use libtest_mimic::Trial;
use rdock_registry::{Error, RegistryConfig};
use std::path::Path;

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        trial_if(
            "a_client_certificate_of_hosts_toml_is_shown",
            a_client_certificate_of_hosts_toml_is_shown,
        ),
        trial_if(
            "a_client_certificate_of_certs_d_is_shown",
            a_client_certificate_of_certs_d_is_shown,
        ),
        trial_if(
            "certificates_that_cannot_be_used_are_named",
            certificates_that_cannot_be_used_are_named,
        ),
        trial_if(
            "the_authorities_that_the_environment_names_count",
            the_authorities_that_the_environment_names_count,
        ),
    ]
}

fn read(certificates: &Certificates, name: &str) -> Vec<u8> {
    std::fs::read(certificates.path(name)).expect("read")
}

/// A registry with TLS over one image, `a:1`.
fn with_tls(certificates: &Certificates, content: &Content, demands_clients: bool) -> Registry {
    let registry = Registry::with(|mut options| {
        options.tls = Some((read(certificates, "server.crt"), read(certificates, "server.key")));
        options.client_authorities = demands_clients.then(|| read(certificates, "ca.crt"));
        options
    });
    registry.add(content, "a", "1");
    registry
}

/// A `certs.d` with these files in the folder of a host.
fn folder(host: &str, files: &[(&str, Vec<u8>)]) -> (RegistryConfig, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let own = dir.path().join(host);
    std::fs::create_dir(&own).expect("made");
    for (name, bytes) in files {
        std::fs::write(own.join(name), bytes).expect("written");
    }
    let mut config = quick();
    config.certificate_dirs = vec![dir.path().to_owned()];
    (config, dir)
}

/// Pulls and pushes are refused for the client's certificate, once and with the host's name.
fn is_refused(registry: &Registry, config: &RegistryConfig, name: &str, case: &str) {
    let before = registry.seen().len();
    let host = Host::new();
    let pulled = host
        .pull(config.clone(), name)
        .map(|image| image.manifest_digest().clone());
    make(&host.store, name, 91);
    let (pushed, _) = push_with(&host.store, config.clone(), name);
    for error in [pulled.expect_err(case), pushed.expect_err(case)] {
        let port = registry.address().port().to_string();
        assert!(
            matches!(&error, Error::ClientCertificate { registry, .. } if registry.ends_with(&port)),
            "{case}: {error:?}"
        );
        assert!(!error.is_transient(), "{case}: {error:?}");
        assert!(error.to_string().contains("certificate"), "{case}: {error}");
        assert!(
            error.hint().is_some_and(|hint| hint.contains("client.cert")),
            "{case}"
        );
    }
    assert_eq!(registry.seen().len(), before, "{case}: a request came through");
}

fn is_taken(config: &RegistryConfig, name: &str, content: &Content, case: &str) {
    let image = Host::new().pull(config.clone(), name).expect(case);
    assert_eq!(image.manifest_digest(), &content.digest(), "{case}");
    let host = Host::new();
    let other = name.replace("/a:1", "/b:1");
    make(&host.store, &other, 92);
    push_with(&host.store, config.clone(), &other).0.expect(case);
}

fn a_client_certificate_of_hosts_toml_is_shown() -> Result<(), Cannot> {
    let (certificates, others) = (Certificates::make()?, Certificates::make()?);
    let content = Content::new(1, 336);
    let registry = with_tls(&certificates, &content, true);
    let name = "r.example/a:1";
    let with = |client: &str, files: &[(&str, Vec<u8>)]| {
        let text = format!(
            "server = \"https://{}\"\nca = \"ca.crt\"\n{client}\n",
            registry.host()
        );
        let mut all = vec![
            ("hosts.toml", text.into_bytes()),
            ("ca.crt", read(&certificates, "ca.crt")),
        ];
        all.extend_from_slice(files);
        folder("r.example", &all)
    };
    let pair = |of: &Certificates| {
        [
            ("me.crt", read(of, "client.crt")),
            ("me.key", read(of, "client.key")),
        ]
    };
    let both = |of: &Certificates| {
        let bytes = [read(of, "client.crt"), read(of, "client.key")].concat();
        [("me.pem", bytes)]
    };
    let (config, _dir) = with("", &[]);
    is_refused(&registry, &config, name, "no certificate");
    let client = "client = [[\"me.crt\", \"me.key\"]]";
    let (config, _dir) = with(client, &pair(&certificates));
    is_taken(&config, name, &content, client);
    let (config, _dir) = with(client, &pair(&others));
    is_refused(&registry, &config, name, client);
    for client in ["client = \"me.pem\"", "client = [\"me.pem\"]"] {
        let (config, _dir) = with(client, &both(&certificates));
        is_taken(&config, name, &content, client);
        let (config, _dir) = with(client, &both(&others));
        is_refused(&registry, &config, name, client);
    }
    // A mirror's certificate is not shown to the registry, and the other way round.
    let text = format!(
        "server = \"https://127.0.0.1:1\"\nclient = [[\"me.crt\", \"me.key\"]]\n\
         [host.\"https://{}\"]\nca = \"ca.crt\"\n",
        registry.host()
    );
    let mut files = vec![
        ("hosts.toml", text.into_bytes()),
        ("ca.crt", read(&certificates, "ca.crt")),
    ];
    files.extend(pair(&certificates));
    let (config, _dir) = folder("r.example", &files);
    let before = registry.seen().len();
    let pulled = Host::new().pull(config, name).map(drop);
    assert!(pulled.is_err());
    assert_eq!(registry.seen().len(), before);
    Ok(())
}

fn a_client_certificate_of_certs_d_is_shown() -> Result<(), Cannot> {
    let (certificates, others) = (Certificates::make()?, Certificates::make()?);
    let content = Content::new(1, 337);
    let registry = with_tls(&certificates, &content, true);
    // An address of this machine that is not spelled as one, so that the server's certificate counts.
    let name = format!("127.1:{}/a:1", registry.address().port());
    let with = |client: Option<&Certificates>| {
        let mut files = vec![("ca.crt", read(&certificates, "ca.crt"))];
        if let Some(client) = client {
            files.push(("client.cert", read(client, "client.crt")));
            files.push(("client.key", read(client, "client.key")));
        }
        folder(&registry.host(), &files)
    };
    let (config, _dir) = with(None);
    is_refused(&registry, &config, &name, "no certificate");
    let (config, _dir) = with(Some(&others));
    is_refused(&registry, &config, &name, "another authority's");
    let (config, _dir) = with(Some(&certificates));
    is_taken(&config, &name, &content, "the right one");
    // One that nobody asks for does no harm.
    let open = with_tls(&certificates, &content, false);
    let files = [
        ("ca.crt", read(&certificates, "ca.crt")),
        ("client.cert", read(&others, "client.crt")),
        ("client.key", read(&others, "client.key")),
    ];
    let (config, _dir) = folder(&open.host(), &files);
    let name = format!("127.1:{}/a:1", open.address().port());
    is_taken(&config, &name, &content, "not asked for");
    Ok(())
}

fn certificates_that_cannot_be_used_are_named() -> Result<(), Cannot> {
    let (certificates, others) = (Certificates::make()?, Certificates::make()?);
    let registry = with_tls(&certificates, &Content::new(1, 338), true);
    let name = format!("127.1:{}/a:1", registry.address().port());
    let files = |certificate: Vec<u8>, key: Vec<u8>| {
        [
            ("ca.crt", read(&certificates, "ca.crt")),
            ("client.cert", certificate),
            ("client.key", key),
        ]
    };
    let (mine, key) = (
        read(&certificates, "client.crt"),
        read(&certificates, "client.key"),
    );
    for (case, files) in [
        ("no PEM", files(mine.clone(), b"nonsense".to_vec())),
        ("another key", files(mine, read(&others, "client.key"))),
        ("no certificate", files(Vec::new(), key)),
    ] {
        let (config, dir) = folder(&registry.host(), &files);
        let own = dir.path().join(registry.host());
        let error = Host::new().pull(config, &name).map(drop).expect_err(case);
        assert!(
            matches!(&error, Error::Config { path, .. } if path.starts_with(&own)),
            "{case}: {error:?}"
        );
        assert!(error.to_string().contains(&registry.host()), "{case}: {error}");
    }
    assert!(registry.seen().is_empty());
    Ok(())
}

fn the_authorities_that_the_environment_names_count() -> Result<(), Cannot> {
    let certificates = Certificates::make()?;
    let registry = with_tls(&certificates, &Content::new(1, 339), false);
    let name = format!("127.1:{}/a:1", registry.address().port());
    let pulls = |file: Option<&Path>| {
        let host = tempfile::tempdir().expect("a temporary directory");
        let mut process = process("pull", host.path(), &name);
        process.env_remove("SSL_CERT_DIR").env_remove("SSL_CERT_FILE");
        if let Some(file) = file {
            process.env("SSL_CERT_FILE", file);
        }
        process.status().expect("run").success()
    };
    assert!(!pulls(None), "no system knows this authority");
    assert!(registry.seen().is_empty());
    assert!(pulls(Some(&certificates.path("ca.crt"))));
    Ok(())
}
