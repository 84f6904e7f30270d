//! `rdock login` and `logout`.

use crate::streams::{print, say};
use crate::{Failure, Outcome, chain};
use clap::Args;
use rdock_registry::{Login as Kept, RegistryClient};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use std::io::{BufRead, Read, Write};

/// Docker Hub, which is meant when no registry is named.
const HUB: &str = "docker.io";
/// Bytes of a password.
const LONGEST: u64 = 64 << 10;

#[derive(Debug, Args)]
pub(crate) struct Login {
    /// The user
    #[arg(short, long)]
    username: Option<String>,
    /// The password; other users of this machine may see it
    #[arg(short, long, conflicts_with = "password_stdin")]
    password: Option<String>,
    /// Read the password from stdin
    #[arg(long)]
    password_stdin: bool,
    /// The registry, host[:port]; Docker Hub otherwise
    server: Option<String>,
}

impl Login {
    pub(crate) async fn execute(self) -> Outcome {
        let mut client = RegistryClient::from_environment().map_err(Failure::from)?;
        let server = self.server.as_deref().unwrap_or(HUB);
        if self.password.is_some() {
            say("WARNING! Using --password via the CLI is insecure. Use --password-stdin.");
        }
        let mut password = self.password;
        if self.password_stdin {
            if self.username.is_none() {
                return Err(Failure::new("--password-stdin needs --username"));
            }
            password = Some(piped_password()?);
        }
        if self.username.is_none() && password.is_none() {
            match client.is_logged_in(server).await {
                Ok(true) => {
                    print("Authenticating with existing credentials...");
                    print("Login Succeeded");
                    return Ok(0);
                }
                Ok(false) => {}
                Err(error) => say(&format!("The known credentials do not work: {}", chain(&error))),
            }
        }
        let username = match self.username {
            Some(username) => username,
            None => prompt("Username: ")?,
        };
        let password = match password {
            Some(password) => password,
            None => hidden("Password: ")?,
        };
        if username.is_empty() || password.is_empty() {
            return Err(Failure::new("a login needs a user and a password"));
        }
        if let Kept::File(path) = client
            .login(server, &username, &password)
            .await
            .map_err(Failure::from)?
        {
            say(&format!(
                "WARNING! Your credentials are stored unencrypted in '{}'.\n\
                 Configure a credential helper (\"credsStore\" in that file) to remove this warning.",
                path.display()
            ));
        }
        print("Login Succeeded");
        Ok(0)
    }
}

#[derive(Debug, Args)]
pub(crate) struct Logout {
    /// The registry, host[:port]; Docker Hub otherwise
    server: Option<String>,
}

impl Logout {
    pub(crate) async fn execute(self) -> Outcome {
        let mut client = RegistryClient::from_environment().map_err(Failure::from)?;
        let server = self.server.as_deref().unwrap_or(HUB);
        print(&match client.logout(server).await.map_err(Failure::from)? {
            true => format!("Removing login credentials for {server}"),
            false => format!("Not logged in to {server}"),
        });
        Ok(0)
    }
}

/// All of stdin, without the end of its line.
fn piped_password() -> Result<String, Failure> {
    let mut text = String::new();
    std::io::stdin().lock().take(LONGEST).read_to_string(&mut text)?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
}

fn ask(question: &str) -> Result<(), Failure> {
    if !crate::streams::is_terminal() {
        return Err(Failure::new(
            "there is no terminal to ask on: use --username and --password-stdin",
        ));
    }
    let mut out = std::io::stdout().lock();
    out.write_all(question.as_bytes())?;
    Ok(out.flush()?)
}

fn prompt(question: &str) -> Result<String, Failure> {
    ask(question)?;
    let mut line = String::new();
    std::io::stdin().lock().take(LONGEST).read_line(&mut line)?;
    Ok(line.trim().to_owned())
}

/// The terminal shows nothing of what is typed until this is dropped.
struct Hidden(Termios);

impl Hidden {
    fn enter() -> std::io::Result<Self> {
        let before = tcgetattr(rustix::stdio::stdin())?;
        let mut hidden = before.clone();
        // Signals are keys here, or an interrupt would leave the terminal like this.
        hidden.local_modes &= !(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
        tcsetattr(rustix::stdio::stdin(), OptionalActions::Flush, &hidden)?;
        Ok(Self(before))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // A terminal that has gone away needs no settings.
        let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &self.0);
    }
}

fn hidden(question: &str) -> Result<String, Failure> {
    // Before the question: what is typed as soon as it shows must not show.
    if !crate::streams::is_terminal() {
        ask(question)?;
    }
    let mode = Hidden::enter()?;
    ask(question)?;
    let mut typed = Vec::new();
    let mut interrupted = false;
    for byte in std::io::stdin().lock().take(LONGEST).bytes() {
        match byte? {
            b'\n' | b'\r' | 4 => break,
            3 => {
                interrupted = true;
                break;
            }
            // Backspace takes one character, which may be several bytes.
            8 | 127 => while typed.pop().is_some_and(|byte: u8| byte & 0xc0 == 0x80) {},
            // Ctrl-U takes all.
            21 => typed.clear(),
            byte => typed.push(byte),
        }
    }
    drop(mode);
    print("");
    if interrupted {
        return Err(Failure {
            code: 130,
            ..Failure::new("interrupted")
        });
    }
    String::from_utf8(typed).map_err(|_| Failure::new("the password is not UTF-8"))
}
