//! `rdock cp`.

use crate::streams;
use crate::{Failure, Outcome};
use clap::Args;
use rdock_runtime::{CopyOptions, Runtime};
use std::io::{IsTerminal, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

#[derive(Debug, Args)]
pub(crate) struct Cp {
    /// Keep owners: in a container its user's, on this host those of the container
    #[arg(short, long)]
    pub(crate) archive: bool,
    /// Copy what the link SOURCE leads to
    #[arg(short = 'L', long)]
    pub(crate) follow_link: bool,
    /// Say nothing; without a terminal nothing is said anyway
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// CONTAINER:PATH, a path of this host, or - for a tar archive from stdin
    #[arg(allow_hyphen_values = true)]
    pub(crate) source: String,
    /// CONTAINER:PATH, a path of this host, or - for a tar archive to stdout
    #[arg(allow_hyphen_values = true)]
    pub(crate) destination: String,
}

/// The container and the path in it; `None` for a path of this host, as docker tells them apart.
fn of_container(text: &str) -> Option<(&str, &str)> {
    if text.starts_with('/') {
        return None;
    }
    text.split_once(':')
        .filter(|(container, _)| !container.starts_with('.'))
}

impl Cp {
    pub(crate) async fn execute(self, runtime: &Runtime) -> Outcome {
        let options = CopyOptions::default()
            .archive(self.archive)
            .follow_link(self.follow_link);
        let (bytes, to) = match (of_container(&self.source), of_container(&self.destination)) {
            (Some(_), Some(_)) => {
                return Err(Failure::new("copying between containers is not supported"));
            }
            (None, None) => return Err(Failure::new("must specify at least one container source")),
            (Some((_, "")), _) | (_, Some((_, ""))) => {
                return Err(Failure::new("no path is given: it is CONTAINER:PATH"));
            }
            (Some((container, path)), None) => {
                let container = runtime.container(container)?;
                if self.destination == "-" {
                    if std::io::stdout().is_terminal() {
                        return Err(Failure::new(
                            "cowardly refusing to save to a terminal. Use the -o flag or redirect",
                        ));
                    }
                    let mut archive = container.archive(path, &options).await?;
                    write_out(&mut archive).await?;
                    return Ok(0);
                }
                let copied = container.copy_from(path, &self.destination, &options).await?;
                (copied.bytes, self.destination.clone())
            }
            (None, Some((container, path))) => {
                let container = runtime.container(container)?;
                if self.source == "-" {
                    container.extract(path, Stdin, &options).await?;
                    return Ok(0);
                }
                let copied = container.copy_to(&self.source, path, &options).await?;
                (copied.bytes, self.destination.clone())
            }
        };
        if !self.quiet && std::io::stderr().is_terminal() {
            streams::say(&format!(
                "Successfully copied {} to {to}",
                crate::table::size(bytes)
            ));
        }
        Ok(0)
    }
}

/// Writes an archive to stdout; what went wrong on the way is the error.
pub(crate) async fn write_out(archive: &mut rdock_runtime::Archive) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    let mut buffer = vec![0; 256 << 10];
    loop {
        let count = archive
            .read(&mut buffer)
            .await
            .map_err(|error| Failure::new(reason(&error)))?;
        if count == 0 {
            return Ok(out.flush()?);
        }
        out.write_all(&buffer[..count])?;
    }
}

fn reason(error: &std::io::Error) -> String {
    match error.get_ref() {
        Some(inner) => crate::chain(inner),
        None => error.to_string(),
    }
}

/// This program's input. It has nothing else to do while it waits for that.
#[derive(Debug)]
pub(crate) struct Stdin;

impl AsyncRead for Stdin {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let count = std::io::stdin().lock().read(out.initialize_unfilled())?;
        out.advance(count);
        Poll::Ready(Ok(()))
    }
}
