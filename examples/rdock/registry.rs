//! `rdock registry serve`.

use crate::streams::{print, say};
use crate::{Failure, Outcome};
use clap::{Args, Subcommand};
use rdock_registry::server::{Access, FaultRule, RegistryServer, ServerOptions};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

#[derive(Debug, Subcommand)]
pub(crate) enum Registry {
    /// Serve a directory as a registry, until Ctrl-C
    Serve(Serve),
}

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:5000")]
    listen: SocketAddr,
    /// The directory that images are kept in
    #[arg(long, default_value = "registry")]
    dir: PathBuf,
    /// A file with a line USER:PASSWORD for each user; everyone otherwise
    #[arg(long)]
    users: Option<PathBuf>,
    /// Users get tokens for their passwords, and everyone may pull
    #[arg(long, requires = "users")]
    tokens: bool,
    /// Refuse pushes
    #[arg(long)]
    read_only: bool,
    /// A certificate chain, in PEM
    #[arg(long, requires = "tls_key")]
    tls_certificate: Option<PathBuf>,
    /// Its key, in PEM
    #[arg(long, requires = "tls_certificate")]
    tls_key: Option<PathBuf>,
    /// Misbehave, for tests: cut=1000, 429=2, slow=0.1, endless... with ,method= ,path= ,times=
    #[arg(long)]
    fault: Vec<String>,
}

impl Registry {
    pub(crate) async fn execute(self) -> Outcome {
        let Self::Serve(serve) = self;
        serve.execute().await
    }
}

impl Serve {
    async fn execute(self) -> Outcome {
        let mut options = ServerOptions::new(self.dir);
        options.listen = self.listen;
        options.read_only = self.read_only;
        if let Some(path) = &self.users {
            let users = users(path)?;
            options.access = match self.tokens {
                false => Access::Basic(users),
                true => Access::Token {
                    users,
                    lifetime: Duration::from_secs(300),
                    anonymous: true,
                },
            };
        }
        if let (Some(certificate), Some(key)) = (&self.tls_certificate, &self.tls_key) {
            options.tls = Some((read(certificate)?, read(key)?));
        }
        for text in &self.fault {
            let rule = FaultRule::parse(text).map_err(|reason| Failure::new(format!("--fault: {reason}")))?;
            options.faults.push(rule);
        }
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        let server = RegistryServer::start(options)?;
        print(&format!("Listening on {}", server.address()));
        if !server.address().ip().is_loopback() && self.users.is_none() && !self.read_only {
            say("WARNING! Everyone who reaches this address can push to it.");
        }
        tokio::select! {
            ended = tokio::signal::ctrl_c() => ended?,
            _ = terminate.recv() => {}
        }
        Ok(0)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|error| Failure::new(format!("{}: {error}", path.display())))
}

fn users(path: &Path) -> Result<BTreeMap<String, String>, Failure> {
    let text =
        String::from_utf8(read(path)?).map_err(|_| Failure::new(format!("{}: not UTF-8", path.display())))?;
    let mut users = BTreeMap::new();
    for (number, line) in text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
    {
        let (user, password) = line.split_once(':').ok_or_else(|| {
            // The line holds a password, perhaps.
            Failure::new(format!("{}:{}: not USER:PASSWORD", path.display(), number + 1))
        })?;
        users.insert(user.to_owned(), password.to_owned());
    }
    Ok(users)
}
