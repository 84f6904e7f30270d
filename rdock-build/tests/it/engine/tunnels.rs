//! Downloads by HTTPS, through a proxy that makes tunnels. The server's certificate is signed by an authority of the
//! test's own, which only a process of its own trusts: the variable that names it is a process's.

use crate::attacks::holds;
use crate::bench::{Bench, wait};
use crate::{Tested, root_trial};
use libtest_mimic::Trial;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rdock_build::dockerfile::PROXY_ARGS;
use rdock_build::runtime::{NetworkMode, Runtime};
use rdock_build::{BuildEvent, Builder};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

pub(super) fn trials() -> Vec<Trial> {
    vec![root_trial(
        "an_https_download_is_tunnelled_through_the_proxy",
        tunnelled,
    )]
}

/// The variable that makes this program a build: root and context.
const CHILD: &str = "RDOCK_TEST_DOWNLOAD";

/// Runs as that build, if it is one, and prints everything that it is told.
pub(super) fn child() -> Option<Tested> {
    let told = std::env::var(CHILD).ok()?;
    let (root, context) = told.split_once('\n')?;
    let say = |text: String| std::io::stdout().write_all(text.as_bytes());
    let build = || -> Tested {
        let builder = Builder::new(context)
            .network(NetworkMode::None)
            .tag("fetched")
            .proxies_from_environment()
            .progress(move |event: BuildEvent| say(format!("{event:?}\n")).expect("the test reads"));
        say(format!("{builder:?}\n"))?;
        if let Err(error) = wait(builder.build(&Runtime::open(root)?))? {
            say(format!("{error}\n{error:?}\n"))?;
            return Err(error.into());
        }
        Ok(())
    };
    Some(build())
}

/// What a server was sent, one head of a request each.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<String>>>);

impl Heard {
    /// Reads the head of a request, and not a byte more.
    fn hear(&self, from: &mut impl Read) -> std::io::Result<String> {
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") {
            from.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(head.clone());
        Ok(head)
    }

    /// What has come since this was asked last.
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Serves each connection in a thread until the test ends.
fn serve(of: impl Fn(TcpStream) -> std::io::Result<()> + Send + Sync + 'static) -> Tested<u16> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    let of = Arc::new(of);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let of = of.clone();
            // A client that goes away is its own affair.
            std::thread::spawn(move || drop(of(stream)));
        }
    });
    Ok(port)
}

/// A server for `names`; its authority is written to `authority`.
fn origin(names: &[&str], authority: &Path) -> Tested<(u16, Heard)> {
    let (ca_key, key) = (KeyPair::generate()?, KeyPair::generate()?);
    let mut ca = CertificateParams::new(Vec::new())?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.distinguished_name
        .push(DnType::CommonName, "authority of a test");
    std::fs::write(authority, ca.self_signed(&ca_key)?.pem())?;
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let certificate = CertificateParams::new(names)?.signed_by(&key, &Issuer::new(ca, ca_key))?;
    let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)?;
    let config = Arc::new(config);
    let heard = Heard::default();
    let noted = heard.clone();
    let port = serve(move |stream| {
        let connection = rustls::ServerConnection::new(config.clone()).map_err(std::io::Error::other)?;
        let mut stream = rustls::StreamOwned::new(connection, stream);
        noted.hear(&mut stream)?;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\nencrypted")?;
        stream.conn.send_close_notify();
        stream.flush()
    })?;
    Ok((port, heard))
}

/// Name and password of the proxy, and how they are sent.
const LOGIN: &str = "user:hidden-word";
const SENT: &str = "dXNlcjpoaWRkZW4td29yZA==";

/// A proxy that makes tunnels for who knows the password: whatever host is asked for, they lead to `origin`.
fn proxy(origin: u16) -> Tested<(u16, Heard)> {
    let heard = Heard::default();
    let noted = heard.clone();
    let port = serve(move |mut client| {
        let head = noted.hear(&mut client)?;
        if !head.contains(SENT) {
            return client.write_all(
                b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"x\"\r\n\
                  Content-Length: 0\r\nConnection: close\r\n\r\n",
            );
        }
        let server = TcpStream::connect(("127.0.0.1", origin))?;
        client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
        let (mut from, mut to) = (client.try_clone()?, server.try_clone()?);
        let up = std::thread::spawn(move || {
            let done = std::io::copy(&mut from, &mut to);
            to.shutdown(Shutdown::Write).and(done)
        });
        let (mut from, mut to) = (server, client);
        let done = std::io::copy(&mut from, &mut to);
        to.shutdown(Shutdown::Write).and(done)?;
        up.join().map_or(Ok(()), |done| done.map(drop))
    })?;
    Ok((port, heard))
}

fn tunnelled() -> Tested {
    let bench = Bench::new()?;
    let authority = bench.outside("authority.pem");
    // No such name exists: who asks for it has not looked it up. The address is this machine, and is not called so.
    let (port, server) = origin(&["files.invalid", "0.0.0.0"], &authority)?;
    let (through, tunnels) = proxy(port)?;
    let by = |login: &str| format!("http://{login}@127.0.0.1:{through}");
    let build = |path: &str, variables: &[(&str, &str)]| -> Tested<(bool, String)> {
        bench.file("Dockerfile", &format!("FROM base\nADD https://{path} /\n"))?;
        let told = format!("{}\n{}", bench.runtime.root().display(), bench.path("").display());
        let mut command = Command::new("/proc/self/exe");
        for name in PROXY_ARGS {
            command.env_remove(name);
        }
        let command = command.env(CHILD, told).env_remove("SSL_CERT_DIR");
        let output = command.envs(variables.iter().copied()).output()?;
        let said = [output.stdout, output.stderr].concat();
        Ok((
            output.status.success(),
            String::from_utf8_lossy(&said).into_owned(),
        ))
    };
    let trusted = ("SSL_CERT_FILE", &*authority.display().to_string());
    let hidden = |said: &str| {
        for word in ["hidden-word", SENT] {
            assert!(!said.contains(word), "{said}");
        }
    };

    let proxy = ("HTTPS_PROXY", &*by(LOGIN));
    let (done, said) = build(&format!("files.invalid:{port}/dir/one"), &[trusted, proxy])?;
    assert!(done, "{said}");
    let image = bench
        .runtime
        .images()
        .get("fetched")?
        .ok_or("there is no image")?;
    let view = bench.runtime.images().view_layers(image.diff_ids())?;
    let mut text = String::new();
    view.open_file("one")?.read_to_string(&mut text)?;
    assert_eq!(text, "encrypted");
    // The proxy was told the password and where to, and nothing of what was said inside.
    let heard = tunnels.take();
    assert!(!heard.is_empty());
    for head in heard {
        assert!(
            head.starts_with(&format!("CONNECT files.invalid:{port} ")) && head.contains(SENT),
            "{head}"
        );
        assert!(!head.contains("/dir/one"), "{head}");
    }
    // The server was told nothing of the proxy, and nobody else anything of its password.
    let heard = server.take();
    assert!(!heard.is_empty());
    for head in heard {
        assert!(head.starts_with("GET /dir/one "), "{head}");
        assert!(!head.to_ascii_lowercase().contains("proxy"), "{head}");
        hidden(&head);
    }
    hidden(&said);
    for word in ["hidden-word", SENT] {
        if let Some(path) = holds(bench.runtime.root(), word.as_bytes())? {
            return Err(format!("the password is in {path}").into());
        }
    }

    // What is to be reached directly is.
    let none = ("NO_PROXY", ".example,files.invalid,0.0.0.0");
    let (done, said) = build(&format!("0.0.0.0:{port}/two"), &[trusted, proxy, none])?;
    assert!(done, "{said}");
    let (done, said) = build(&format!("files.invalid:{port}/three"), &[trusted, proxy, none])?;
    assert!(!done && said.contains("files.invalid"), "{said}");
    assert_eq!(tunnels.take(), Vec::<String>::new());
    assert!(server.take().iter().all(|head| head.starts_with("GET /two ")));
    let (done, said) = build(&format!("0.0.0.0:{port}/four"), &[trusted, proxy])?;
    assert!(done, "{said}");
    assert!(!tunnels.take().is_empty());

    // A tunnel is no reason to trust whoever is at its end.
    let (done, said) = build(&format!("files.invalid:{port}/five"), &[proxy])?;
    assert!(!done && said.contains("certificate"), "{said}");
    hidden(&said);
    // A proxy that refuses is said, without the password that it refuses.
    let wrong = ("https_proxy", &*by("user:hidden-words"));
    let (done, said) = build(&format!("files.invalid:{port}/six"), &[trusted, wrong])?;
    assert!(!done && said.contains("proxy"), "{said}");
    hidden(&said);
    bench.assert_clean()
}
