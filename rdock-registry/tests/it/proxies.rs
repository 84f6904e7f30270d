//! Registries behind a proxy: for plain HTTP, by CONNECT for TLS, and by SOCKS.

use crate::content::Content;
use crate::real::certificates::Certificates;
use crate::server::Registry;
use crate::{Cannot, Host, quick, trial, trial_if};
use libtest_mimic::Trial;
use rdock_registry::RegistryConfig;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        trial("a_proxy_is_asked_for_plain_http", a_proxy_is_asked_for_plain_http),
        trial_if("a_proxy_connects_for_tls", a_proxy_connects_for_tls),
        trial("a_socks_proxy_connects", a_socks_proxy_connects),
    ]
}

/// A proxy for one registry, whatever its name: it lasts as long as the test program.
struct Proxy {
    address: SocketAddr,
    /// What it was asked for: first lines and headers, or the name that SOCKS has.
    asked: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    fn start(registry: SocketAddr, socks: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = asked.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let log = log.clone();
                // A client that hangs up early ends its own thread alone.
                std::thread::spawn(move || match socks {
                    true => socks_connection(stream, registry, &log).ok(),
                    false => http_connection(stream, registry, &log).ok(),
                });
            }
        });
        Self { address, asked }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("not poisoned").clone()
    }
}

/// Hands everything on in both directions, until one side ends.
fn joined(client: TcpStream, registry: TcpStream) -> io::Result<()> {
    let (mut from_client, mut to_client) = (client.try_clone()?, client);
    let (mut from_registry, mut to_registry) = (registry.try_clone()?, registry);
    let back = std::thread::spawn(move || {
        io::copy(&mut from_registry, &mut to_client).ok();
        to_client.shutdown(std::net::Shutdown::Write).ok();
    });
    io::copy(&mut from_client, &mut to_registry)?;
    to_registry.shutdown(std::net::Shutdown::Write)?;
    back.join().ok();
    Ok(())
}

fn http_connection(mut client: TcpStream, registry: SocketAddr, log: &Mutex<Vec<String>>) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    log.lock().expect("not poisoned").push(text.clone());
    let mut server = TcpStream::connect(registry)?;
    match text.starts_with("CONNECT ") {
        true => client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?,
        // The registry takes a whole address in place of a path, as every server must (RFC 9112, section 3.2.2).
        false => server.write_all(&head)?,
    }
    joined(client, server)
}

/// RFC 1928, without authentication, by name.
fn socks_connection(mut client: TcpStream, registry: SocketAddr, log: &Mutex<Vec<String>>) -> io::Result<()> {
    let mut start = [0; 2];
    client.read_exact(&mut start)?;
    let mut methods = vec![0; start[1].into()];
    client.read_exact(&mut methods)?;
    client.write_all(&[5, 0])?;
    let mut request = [0; 5];
    client.read_exact(&mut request)?;
    let mut name = vec![0; usize::from(request[4]) + 2];
    client.read_exact(&mut name)?;
    name.truncate(name.len() - 2);
    let shown = format!("{:?} {}", &request[..4], String::from_utf8_lossy(&name));
    log.lock().expect("not poisoned").push(shown);
    let server = TcpStream::connect(registry)?;
    client.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0])?;
    joined(client, server)
}

/// A configuration by which `r.example` is there, and nowhere else.
fn at(server: &str, change: impl FnOnce(&mut RegistryConfig)) -> (RegistryConfig, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let own = dir.path().join("r.example");
    std::fs::create_dir(&own).expect("made");
    let text = format!("server = \"{server}\"\nskip_verify = true\n");
    std::fs::write(own.join("hosts.toml"), text).expect("written");
    let mut config = quick();
    config.retries = 0;
    config.certificate_dirs = vec![dir.path().to_owned()];
    change(&mut config);
    (config, dir)
}

/// Pulls by the proxy; not where `NO_PROXY` has the registry.
fn is_used(server: &str, content: &Content, proxy: &Proxy, set: impl Fn(&mut RegistryConfig)) {
    let (config, _dir) = at(server, &set);
    let image = Host::new().pull(config, "r.example/a:1").expect("pulled");
    assert_eq!(image.manifest_digest(), &content.digest());
    assert!(!proxy.asked().is_empty());
    let before = proxy.asked().len();
    for none in ["r.example", ".example", "other, R.EXAMPLE"] {
        let (config, _dir) = at(server, |config| {
            set(config);
            config.proxies.none = Some(none.to_owned());
        });
        // Nobody else knows this name.
        let direct = Host::new().pull(config, "r.example/a:1").map(drop);
        assert!(direct.is_err(), "{none}");
    }
    assert_eq!(proxy.asked().len(), before, "{:?}", proxy.asked());
}

fn a_proxy_is_asked_for_plain_http() {
    let content = Content::new(1, 420);
    let registry = Registry::plain(&content);
    let proxy = Proxy::start(registry.address(), false);
    let url = format!("http://me:secret@{}", proxy.address);
    is_used("http://r.example", &content, &proxy, |config| {
        config.proxies.http = Some(url.clone());
    });
    for asked in proxy.asked() {
        assert!(asked.starts_with("GET http://r.example/v2/"), "{asked}");
        // me:secret
        assert!(
            asked
                .to_lowercase()
                .contains("proxy-authorization: basic bwu6c2vjcmv0"),
            "{asked}"
        );
    }
    // This machine's own registries are reached directly.
    let before = proxy.asked().len();
    let mut config = quick();
    config.proxies.http = Some(url);
    let name = format!("{}/a:1", registry.host());
    Host::new().pull(config, &name).expect("pulled");
    assert_eq!(proxy.asked().len(), before);
}

fn a_proxy_connects_for_tls() -> Result<(), Cannot> {
    let certificates = Certificates::make()?;
    let read = |name: &str| std::fs::read(certificates.path(name)).expect("read");
    let content = Content::new(1, 421);
    let registry = Registry::with(|mut options| {
        options.tls = Some((read("server.crt"), read("server.key")));
        options
    });
    registry.add(&content, "a", "1");
    let proxy = Proxy::start(registry.address(), false);
    let url = format!("http://{}", proxy.address);
    is_used("https://r.example", &content, &proxy, |config| {
        config.proxies.https = Some(url.clone());
    });
    for asked in proxy.asked() {
        assert!(asked.starts_with("CONNECT r.example:443 "), "{asked}");
    }
    Ok(())
}

fn a_socks_proxy_connects() {
    let content = Content::new(1, 422);
    let registry = Registry::plain(&content);
    let proxy = Proxy::start(registry.address(), true);
    // The name is the proxy's to look up.
    let url = format!("socks5h://{}", proxy.address);
    is_used("http://r.example", &content, &proxy, |config| {
        config.proxies.http = Some(url.clone());
    });
    for asked in proxy.asked() {
        assert_eq!(asked, "[5, 1, 0, 3] r.example");
    }
}
