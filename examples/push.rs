//! Pushes an image to a registry and pulls it back: `cargo run --example push -- IMAGE [REGISTRY]`.
//!
//! Without a registry (`host[:port]`) one is started in this process, over a temporary directory. The image must be in
//! the store; credentials come from docker's configuration, as `rdock login` writes it.
#![expect(clippy::print_stdout, reason = "a command line program")]

use rdock_image::{Event, ImageStore, Platform, Progress, Reference};
use rdock_registry::server::{RegistryServer, ServerOptions};
use rdock_registry::{PushEvent, PushProgress, RegistryClient};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().ok_or("usage: push IMAGE [REGISTRY]")?;
    let store = ImageStore::open_default()?;
    let image = store
        .get(&name)?
        .ok_or_else(|| format!("no such image: {name}"))?;

    let folder = tempfile::tempdir()?;
    let mut server = None;
    let registry = match arguments.next() {
        Some(registry) => registry,
        None => server
            .insert(RegistryServer::start(ServerOptions::new(folder.path()))?)
            .host(),
    };

    // The name says where: tag, then push.
    let source = Reference::parse(&name)?;
    let target = Reference::parse(&format!(
        "{registry}/{}:{}",
        source.path(),
        source.tag().unwrap_or("latest")
    ))?;
    store.tag(&image, &target)?;
    let client = RegistryClient::from_environment()?;
    let progress = PushProgress::new(|event| match event {
        PushEvent::LayerDone { diff_id, digest } => {
            println!("{}: pushed as {}", diff_id.short(), digest.short())
        }
        PushEvent::LayerExists { diff_id, .. } => println!("{}: already there", diff_id.short()),
        PushEvent::LayerMounted { diff_id, from, .. } => println!("{}: taken from {from}", diff_id.short()),
        PushEvent::Warning { text } => println!("warning: {text}"),
        _ => {}
    });
    let pushed = client.push(&target, &store, &progress).await?;
    println!("{}: {} ({} bytes)", target.familiar(), pushed.digest, pushed.size);

    // Another machine has an empty store.
    let elsewhere = ImageStore::open(folder.path().join("elsewhere"))?;
    let progress = Progress::new(|event| {
        if let Event::LayerDone { digest } = event {
            println!("{}: pulled", digest.short());
        }
    });
    let back = client
        .pull(&target, &Platform::host(), &elsewhere, &progress)
        .await?;
    println!("pulled back: {}", back.id());
    drop(server);
    Ok(())
}
