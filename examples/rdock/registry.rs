//! `rdock registry serve` and `rdock registry copy`.

use crate::streams::{print, say};
use crate::{Failure, Outcome};
use clap::{Args, Subcommand};
use rdock_registry::image::Reference;
use rdock_registry::server::{Access, FaultRule, RegistryServer, ServerOptions};
use rdock_registry::{PushEvent, PushProgress, RegistryClient};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

#[derive(Debug, Subcommand)]
pub(crate) enum Registry {
    /// Serve a directory as a registry, until Ctrl-C
    Serve(Serve),
    /// Copy an image, or the images of all platforms, from one registry to another without keeping anything here
    #[command(visible_alias = "cp")]
    Copy(Copy),
}

#[derive(Debug, Args)]
pub(crate) struct Copy {
    /// What it is called
    source: String,
    /// What the copy is to be called
    target: String,
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
        match self {
            Self::Serve(serve) => serve.execute().await,
            Self::Copy(copy) => copy.execute().await,
        }
    }
}

impl Copy {
    async fn execute(self) -> Outcome {
        let (source, target) = (Reference::parse(&self.source)?, Reference::parse(&self.target)?);
        let client = RegistryClient::from_environment()?;
        let progress = PushProgress::new(|event| match event {
            PushEvent::Warning { text } => say(&text),
            PushEvent::LayerMounted { digest, from, .. } => {
                say(&format!("{}: Mounted from {from}", digest.short()));
            }
            PushEvent::LayerExists { digest, .. } => say(&format!("{}: Already exists", digest.short())),
            PushEvent::LayerDone { digest, .. } => say(&format!("{}: Copied", digest.short())),
            _ => {}
        });
        let copied = client.copy(&source, &target, &progress).await?;
        print(&format!(
            "{}: digest: {} size: {}",
            target.familiar(),
            copied.digest,
            copied.size
        ));
        Ok(0)
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
