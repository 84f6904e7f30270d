//! What ADD downloads, and through whom.

use crate::bench::Bench;
use crate::{Tested, root_trial};
use libtest_mimic::Trial;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        root_trial("downloads", downloads),
        root_trial("a_download_goes_through_the_proxy_that_was_given", proxied),
        root_trial("a_dropped_build_ends_its_download", dropped),
    ]
}

/// Serves one file until the test ends: answers by tag, and counts whole answers.
fn serve(content: &'static str, tag: &'static str) -> Tested<(String, Arc<AtomicUsize>)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = format!("http://{}/dir/file.txt?x=y", listener.local_addr()?);
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().take(20) {
            let Ok(mut stream) = stream else { return };
            let mut known = false;
            let Ok(copy) = stream.try_clone() else { return };
            for line in BufReader::new(copy).lines().map_while(Result::ok) {
                known |= line.to_ascii_lowercase().starts_with("if-none-match:") && line.contains(tag);
                if line.is_empty() {
                    break;
                }
            }
            let answer = if known {
                "HTTP/1.1 304 Not Modified\r\nConnection: close\r\n\r\n".to_owned()
            } else {
                counted.fetch_add(1, Ordering::SeqCst);
                format!(
                    "HTTP/1.1 200 OK\r\nETag: {tag}\r\nLast-Modified: Sun, 09 Sep 2001 01:46:40 GMT\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{content}",
                    content.len()
                )
            };
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    Ok((address, count))
}

fn downloads() -> Tested {
    let bench = Bench::new()?;
    let (address, count) = serve("downloaded", "\"one\"")?;
    bench.file(
        "Dockerfile",
        &format!("FROM base\nADD {address} /d/\nRUN stat -c '%a %Y' /d/file.txt > /stat\n"),
    )?;
    let (built, _) = bench.build(|builder| builder)?;
    assert_eq!(bench.read(&built, "d/file.txt")?, "downloaded");
    assert_eq!(bench.read(&built, "stat")?, "600 1000000000\n");
    let before = count.load(Ordering::SeqCst);
    let (_, seen) = bench.build(|builder| builder)?;
    assert_eq!((seen.ran(), count.load(Ordering::SeqCst)), (0, before));
    for (algorithm, digits) in [("sha256", 64), ("sha384", 96), ("sha512", 128)] {
        let kind = rdock_image::Digest::parse(&format!("{algorithm}:{}", "0".repeat(digits)))?;
        let with = |content: &[u8]| {
            let checksum = kind.of_same_kind(content);
            format!("FROM base\nADD --checksum={checksum} {address} /f\n")
        };
        bench.file("Dockerfile", &with(b"downloaded"))?;
        let (built, _) = bench.build(|builder| builder)?;
        assert_eq!(bench.read(&built, "f")?, "downloaded");
        bench.file("Dockerfile", &with(b"other"))?;
        let error = bench.fails(|builder| builder)?.to_string();
        assert!(error.contains(&format!("has the digest {algorithm}:")), "{error}");
    }
    bench.file("Dockerfile", "FROM base\nADD http://127.0.0.1:1/f /f\n")?;
    assert!(
        bench
            .fails(|builder| builder)?
            .to_string()
            .contains("127.0.0.1:1")
    );
    bench.assert_clean()
}

/// A proxy for plain HTTP, which has every file itself. Returns its address, and what it is asked for.
fn proxy() -> Tested<(String, Arc<Mutex<Vec<String>>>)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = format!("http://user:hidden@{}", listener.local_addr()?);
    let asked = Arc::new(Mutex::new(Vec::new()));
    let noted = asked.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().take(20) {
            let Ok(mut stream) = stream else { return };
            let Ok(copy) = stream.try_clone() else { return };
            let mut lines = BufReader::new(copy).lines().map_while(Result::ok);
            let first = lines.next().unwrap_or_default();
            noted.lock().unwrap_or_else(PoisonError::into_inner).push(first);
            let _ = lines.find(String::is_empty);
            let answer = "HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\nproxied";
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    Ok((address, asked))
}

fn proxied() -> Tested {
    let bench = Bench::new()?;
    let (address, asked) = proxy()?;
    let asked = || asked.lock().unwrap_or_else(PoisonError::into_inner).clone();
    // No such name exists, so nobody else can have answered.
    bench.file("Dockerfile", "FROM base\nADD http://files.invalid/dir/one /\n")?;
    for name in ["HTTP_PROXY", "http_proxy", "all_proxy"] {
        let before = asked().len();
        let (built, seen) = bench.build(|builder| builder.build_arg(name, &*address).no_cache(true))?;
        assert_eq!(bench.read(&built, "one")?, "proxied");
        let new = asked().split_off(before);
        assert!(!new.is_empty(), "{name}");
        assert!(
            new.iter()
                .all(|line| line.starts_with("GET http://files.invalid/dir/one ")),
            "{new:?}"
        );
        // Its password is told to nobody, and it changes no step.
        assert!(!seen.all().contains("hidden"));
        let (_, seen) = bench.build(|builder| builder.build_arg(name, &*address))?;
        assert_eq!(seen.ran(), 0, "{name}");
    }
    // Addresses of this machine, and those that are named, are reached directly.
    let before = asked().len();
    let (here, count) = serve("direct", "\"one\"")?;
    bench.file("Dockerfile", &format!("FROM base\nADD {here} /f\n"))?;
    let (built, _) = bench.build(|builder| builder.build_arg("HTTP_PROXY", &*address))?;
    assert_eq!(bench.read(&built, "f")?, "direct");
    assert!(count.load(Ordering::SeqCst) > 0);
    bench.file("Dockerfile", "FROM base\nADD http://files.invalid/dir/two /\n")?;
    let direct = |builder: rdock_build::Builder| {
        builder
            .build_arg("HTTP_PROXY", &*address)
            .build_arg("NO_PROXY", ".example,files.invalid")
    };
    let error = bench.fails(direct)?;
    assert!(error.to_string().contains("files.invalid"), "{error}");
    assert_eq!(asked().len(), before);
    let error = bench.fails(|builder| builder.build_arg("HTTP_PROXY", "no address"))?;
    assert!(error.to_string().contains("proxy"), "{error}");
    Ok(())
}

fn dropped() -> Tested {
    let bench = Bench::new()?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let (tell, hear) = tokio::sync::oneshot::channel();
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        let Ok((stream, _)) = listener.accept() else {
            return;
        };
        // It never answers; the connection stays until the client ends it.
        let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
        let _ = lines.find(String::is_empty);
        let _ = tell.send(());
        while lines.next().is_some() {}
    });
    bench.file("Dockerfile", &format!("FROM base\nADD http://{address}/f /f\n"))?;
    bench.build_until_told(hear)?;
    bench.assert_clean_soon()
}
