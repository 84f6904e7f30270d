//! A folder with a Dockerfile becomes an image, and the image a container, in one program.
//!
//! `cargo run --release --example build_and_run -- FOLDER`, as root; base images are pulled when they are missing.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use rdock_build::{BuildEvent, Builder, StepOutcome};
use rdock_runtime::{ContainerSpec, Runtime};
use std::error::Error;
use std::io::Write;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args().nth(1).unwrap_or_else(|| ".".into());
    let runtime = Runtime::open_default()?;
    let built = Builder::new(folder)
        .tag("build-and-run:latest")
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
    let exit = container.wait().await?;
    let mut logs = container.logs();
    while let Some(line) = logs.next().await? {
        std::io::stdout().write_all(&line.bytes)?;
    }
    println!("ended: {:?}", exit.reason);
    Ok(())
}
