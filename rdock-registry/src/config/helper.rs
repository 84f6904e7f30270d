//! Credential helpers: programs named `docker-credential-<name>` that keep secrets, one call for each question
//! (the protocol of docker-credential-helpers).

use super::Credential;
use serde::{Deserialize, Serialize};
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Bytes of an answer that are read.
const LARGEST_ANSWER: u64 = 1 << 20;
/// The user name by which a helper says that its secret is a refresh token.
const TOKEN: &str = "<token>";

/// One helper.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Helper<'a> {
    pub(crate) name: &'a str,
    pub(crate) path: Option<&'a OsStr>,
    pub(crate) timeout: Duration,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Entry<'a> {
    #[serde(rename = "ServerURL")]
    server_url: &'a str,
    username: &'a str,
    secret: &'a str,
}

impl Helper<'_> {
    /// What it keeps for a server; `None` when that is nothing.
    pub(crate) fn get(&self, server: &str) -> Result<Option<Credential>, String> {
        let Some(output) = self.call("get", server.as_bytes())? else {
            return Ok(None);
        };
        // The text of the error may not repeat the answer.
        let answer: Answer = serde_json::from_slice(&output)
            .map_err(|error| self.failed(&format!("malformed answer at column {}", error.column())))?;
        Ok(Some(match answer.username.as_str() {
            TOKEN => Credential::IdentityToken(answer.secret),
            _ => Credential::Basic {
                user: answer.username,
                password: answer.secret,
            },
        }))
    }

    /// Hands it a secret to keep.
    pub(crate) fn store(&self, server: &str, credential: &Credential) -> Result<(), String> {
        let (username, secret) = match credential {
            Credential::Basic { user, password } => (user.as_str(), password.as_str()),
            Credential::IdentityToken(token) | Credential::RegistryToken(token) => (TOKEN, token.as_str()),
            Credential::Anonymous => return Ok(()),
        };
        let entry = Entry {
            server_url: server,
            username,
            secret,
        };
        let entry = serde_json::to_vec(&entry).map_err(|error| error.to_string())?;
        self.call("store", &entry).map(drop)
    }

    /// Makes it forget a server; `false` when it knew none.
    pub(crate) fn erase(&self, server: &str) -> Result<bool, String> {
        self.call("erase", server.as_bytes())
            .map(|output| output.is_some())
    }

    /// Its answer; `None` when it says that it knows no such server.
    fn call(&self, action: &str, input: &[u8]) -> Result<Option<Vec<u8>>, String> {
        let mut child = self
            .spawn(action)
            .map_err(|error| self.failed(&error.to_string()))?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take();
        let input = input.to_vec();
        let (answers, answer) = mpsc::channel();
        // On a thread of its own, which ends with the helper: a helper that hangs holds up nobody.
        std::thread::spawn(move || {
            if let Some(mut stdin) = stdin {
                // A helper that does not read has no answer either.
                let _ = stdin.write_all(&input);
            }
            let mut output = Vec::new();
            let read = match stdout {
                Some(stdout) => stdout.take(LARGEST_ANSWER).read_to_end(&mut output),
                None => Ok(0),
            };
            // Nobody waits any more when the time is up.
            let _ = answers.send(read.map(|_| output));
        });
        let began = Instant::now();
        let output = match answer.recv_timeout(self.timeout) {
            Ok(Ok(output)) => output,
            other => {
                // It may have ended meanwhile.
                let _ = child.kill();
                let _ = child.wait();
                return Err(self.failed(&match other {
                    Ok(Err(error)) => error.to_string(),
                    _ => format!("no answer in {} s", self.timeout.as_secs_f32()),
                }));
            }
        };
        // It has closed its output, so it ends within a moment; one that does not is given up.
        let mut pause = Duration::from_millis(1);
        let status = loop {
            let ended = child
                .try_wait()
                .map_err(|error| self.failed(&error.to_string()))?;
            if let Some(status) = ended {
                break status;
            }
            if began.elapsed() > self.timeout {
                let _ = child.kill();
                let _ = child.wait();
                let seconds = self.timeout.as_secs_f32();
                return Err(self.failed(&format!("it does not end in {seconds} s")));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(50));
        };
        if status.success() {
            return Ok(Some(output));
        }
        let text = String::from_utf8_lossy(&output);
        if text.contains("not found") {
            return Ok(None);
        }
        let text: String = text.chars().filter(|c| !c.is_control()).take(200).collect();
        Err(self.failed(if text.trim().is_empty() {
            "it failed and did not say why"
        } else {
            text.trim()
        }))
    }

    fn spawn(&self, action: &str) -> std::io::Result<Child> {
        // A name of a program, not a path: the file that names it may not choose what is run from elsewhere.
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if self.name.is_empty() || !self.name.bytes().all(is_name) {
            return Err(std::io::Error::other("not a name of a helper"));
        }
        let name = format!("docker-credential-{}", self.name);
        let program = match self.path {
            None => PathBuf::from(name),
            Some(path) => std::env::split_paths(path)
                .map(|dir| dir.join(&name))
                .find(|path| path.is_file())
                .ok_or_else(|| std::io::Error::from(std::io::ErrorKind::NotFound))?,
        };
        Command::new(program)
            .arg(action)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
    }

    fn failed(&self, reason: &str) -> String {
        format!("docker-credential-{}: {reason}", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(script: &str, work: impl FnOnce(Helper<'_>)) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let program = dir.path().join("docker-credential-test");
        // Written by another process: a file that a child forked meanwhile still has open for writing cannot be run.
        let mut writer = Command::new("sh")
            .args(["-c", "cat >\"$0\" && chmod 755 \"$0\""])
            .arg(&program)
            .stdin(Stdio::piped())
            .spawn()
            .expect("sh");
        let mut stdin = writer.stdin.take().expect("a pipe");
        stdin
            .write_all(format!("#!/bin/sh\n{script}\n").as_bytes())
            .expect("written");
        drop(stdin);
        assert!(writer.wait().expect("waited").success());
        work(Helper {
            name: "test",
            path: Some(dir.path().as_os_str()),
            timeout: Duration::from_secs(20),
        });
    }

    #[test]
    fn a_helper_answers_with_a_password_or_a_token() {
        with(
            r#"[ "$1" = get ]; read -r server; echo "{\"Username\":\"$server\",\"Secret\":\"p\"}""#,
            |helper| {
                let expected = Credential::Basic {
                    user: "a.example".into(),
                    password: "p".into(),
                };
                assert_eq!(helper.get("a.example"), Ok(Some(expected)));
            },
        );
        with(r#"echo '{"Username":"<token>","Secret":"t"}'"#, |helper| {
            let expected = Credential::IdentityToken("t".into());
            assert_eq!(helper.get("a.example"), Ok(Some(expected)));
        });
    }

    #[test]
    fn what_goes_wrong_is_said_without_secrets() {
        with(
            "echo credentials not found in native keychain; exit 1",
            |helper| {
                assert_eq!(helper.get("a"), Ok(None));
                assert_eq!(helper.erase("a"), Ok(false));
            },
        );
        with("echo the vault is locked; exit 3", |helper| {
            let error = helper.get("a").expect_err("locked");
            assert_eq!(error, "docker-credential-test: the vault is locked");
        });
        with("echo '{\"Secret\": \"abc\" oops'", |helper| {
            let error = helper.get("a").expect_err("malformed");
            assert!(!error.contains("abc"), "{error}");
        });
        let helper = Helper {
            name: "../evil",
            path: None,
            timeout: Duration::from_secs(1),
        };
        assert!(helper.get("a").is_err());
    }

    #[test]
    fn a_helper_that_hangs_is_given_up() {
        with("exec sleep 60", |helper| {
            let started = Instant::now();
            let hurried = Helper {
                timeout: Duration::from_millis(200),
                ..helper
            };
            let error = hurried.get("a").expect_err("hangs");
            assert!(error.contains("no answer"), "{error}");
            assert!(started.elapsed() < Duration::from_secs(30));
        });
        // One that has closed its output already.
        with("exec sleep 60 >&-", |helper| {
            let started = Instant::now();
            let hurried = Helper {
                timeout: Duration::from_millis(200),
                ..helper
            };
            let error = hurried.get("a").expect_err("hangs");
            assert!(error.contains("does not end"), "{error}");
            assert!(started.elapsed() < Duration::from_secs(30));
        });
    }
}
