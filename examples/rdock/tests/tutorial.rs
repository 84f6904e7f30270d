//! A real database from a real registry, end to end.

use crate::fixtures::{Access, Cache, Error, Name, Registry};
use libtest_mimic::{Completion, Failed, Trial};
use std::io::{Read, Write};
use std::net::TcpStream;

type Outcome = Result<Completion, Failed>;

/// The tests of this file.
pub(crate) fn trials() -> Vec<Trial> {
    vec![Trial::ignorable_test("registry_serves_what_was_made", || {
        with_fixtures(registry_serves_what_was_made)
    })]
}

/// Runs a test; what cannot be made on this machine makes it ignored, what should have worked makes it fail.
fn with_fixtures(test: impl FnOnce(&Cache) -> Result<(), Box<dyn std::error::Error>>) -> Outcome {
    let cache = match Cache::open() {
        Ok(cache) => cache,
        Err(error) => return Ok(Completion::ignored_with(error)),
    };
    match test(&cache) {
        Ok(()) => Ok(Completion::Completed),
        Err(error) => match error.downcast_ref::<Error>() {
            Some(Error::Unavailable(why)) => Ok(Completion::ignored_with(why)),
            _ => Err(error.to_string().into()),
        },
    }
}

fn registry_serves_what_was_made(cache: &Cache) -> Result<(), Box<dyn std::error::Error>> {
    let image = Name::Mysql.make(cache)?;
    let registry = Registry::start(cache, Access::Everyone)?;
    let mut stream = TcpStream::connect(registry.address())?;
    write!(
        stream,
        "HEAD /v2/library/mysql/manifests/8 HTTP/1.0\r\nHost: {}\r\nAccept: application/vnd.oci.image.index.v1+json\r\n\r\n",
        registry.address()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let digest = answer
        .lines()
        .find_map(|line| line.strip_prefix("Docker-Content-Digest: "));
    assert_eq!(digest, Some(image.digest.as_str()), "{answer}");
    assert_eq!(image.reference, "mysql:8");
    Ok(())
}
