//! Certificates as openssl(1) makes them.

use crate::Cannot;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub(crate) fn openssl(dir: &Path, arguments: &[&str], input: &[u8]) -> Result<Vec<u8>, Cannot> {
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
pub(crate) struct Certificates(tempfile::TempDir);

impl Certificates {
    pub(crate) fn make() -> Result<Self, Cannot> {
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

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}
