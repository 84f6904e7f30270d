//! A folder with a Dockerfile becomes an image, and the image a container, in one program: a PyTorch training on the
//! processor, whose loss falls while one watches.
//!
//! `cargo run --release --example build_and_run [-- FOLDER]`, as root. FOLDER is `examples/training` when none is given;
//! `examples/multistage` is another one. Base images are pulled when they are missing.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use rdock_build::{BuildEvent, Builder, StepOutcome};
use rdock_runtime::{ContainerSpec, ExitReason, Runtime};
use std::error::Error;
use std::io::Write;
use std::path::PathBuf;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = match std::env::args_os().nth(1) {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples/training"),
    };
    let runtime = Runtime::open_default()?;
    let built = Builder::new(folder)
        .tag("build-and-run:latest")
        // pip fetches what it installs.
        .host_certificates(true)
        .progress(|event: BuildEvent| {
            if let BuildEvent::StepOutput { bytes, .. } = event {
                // Progress is for people; a closed terminal is no reason to stop.
                let _ = std::io::stderr().write_all(&bytes);
            }
        })
        .build(&runtime)
        .await?;
    for step in &built.steps {
        let how = match &step.outcome {
            StepOutcome::Cached { .. } => "cached",
            StepOutcome::Missed { .. } => "ran",
            _ => "base",
        };
        println!(
            "{how:>6} {:>7.1} ms  {}",
            step.took.as_secs_f64() * 1e3,
            step.name
        );
    }
    println!("image {}", built.image_id());

    let container = ContainerSpec::new("build-and-run:latest").start(&runtime).await?;
    // Each line as it is printed, until the container ends.
    let mut lines = container.logs().follow(true);
    let mut losses: Vec<f64> = Vec::new();
    while let Some(line) = lines.next().await? {
        std::io::stdout().write_all(&line.bytes)?;
        losses.extend(loss(&String::from_utf8_lossy(&line.bytes)));
    }
    let exit = container.wait().await?;
    if exit.reason != ExitReason::Exited(0) {
        return Err(format!("the container ended: {:?}", exit.reason).into());
    }
    // Another folder's program may train nothing.
    if let [first, .., last] = losses[..] {
        match last < first / 2.0 {
            true => println!("the loss fell from {first} to {last}"),
            false => return Err(format!("the loss went from {first} to {last}").into()),
        }
    }
    Ok(())
}

/// The number behind the word `loss`.
fn loss(line: &str) -> Option<f64> {
    let mut words = line.split_whitespace().skip_while(|word| *word != "loss");
    words.nth(1)?.parse().ok()
}
