//! A project of two services: up, a change and its causes, down. No network, no image and no root needed.
//!
//! `cargo run --release --example compose`

#![allow(clippy::print_stdout, clippy::print_stderr)]

#[path = "payload/image.rs"]
mod image;

use rdock_compose::plan::{DownOptions, UpOptions};
use rdock_compose::{ApplyEvent, ComposeProject, LoadOptions, Plan, Project};
use rdock_runtime::Runtime;
use rdock_runtime::image::Progress;
use std::error::Error;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::ExitCode;

const FILE: &str = r#"
name: tour
services:
  store:
    image: payload:latest
    command: ["trap", "15", "0", ",", "serve", "8080", "the store"]
    healthcheck:
      test: ["CMD", "/payload", "cat", "/data/file"]
      interval: 5s
  web:
    image: payload:latest
    command: ["trap", "15", "0", ",", "serve", "8080", "$$GREETING"]
    environment:
      GREETING: ${GREETING:-hello}
    ports: ["127.0.0.1::8080"]
    depends_on:
      store: { condition: service_healthy }
"#;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match tour().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("compose: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn tour() -> Result<(), Box<dyn Error>> {
    let scratch = tempfile::Builder::new().prefix("rdock-compose-").tempdir()?;
    let runtime = Runtime::open(scratch.path().join("root"))?;
    let archive = image::archive("payload:latest")?;
    runtime
        .images()
        .import_stream(&mut archive.as_slice(), &Progress::default())?;
    std::fs::write(scratch.path().join("compose.yaml"), FILE)?;

    let result = live(&runtime, scratch.path()).await;
    let down = ComposeProject::named(&runtime, "tour");
    down.down(&DownOptions::default()).await?;
    result?;
    let left = runtime.containers()?.len();
    if left > 0 {
        return Err(format!("{left} containers are left").into());
    }
    println!("down: nothing is left");
    Ok(())
}

async fn live(runtime: &Runtime, dir: &Path) -> Result<(), Box<dyn Error>> {
    let compose = ComposeProject::new(runtime, load(dir, "hello")?).on_event(|event| {
        if let ApplyEvent::Done { step, took } = event {
            println!("{:>9.1} ms  {}", took.as_secs_f64() * 1e3, step.operation);
        }
    });
    compose.up(&UpOptions::default()).await?;
    println!("the page: {:?}", page(runtime)?);

    let again = compose.up(&UpOptions::default()).await?;
    if !again.is_empty() {
        return Err(format!("there is something to do still: {again}").into());
    }
    println!("up a second time: nothing to do");

    let changed = ComposeProject::new(runtime, load(dir, "good bye")?);
    let plan = Plan::up(
        changed.project(),
        &changed.existing().await?,
        &UpOptions::default(),
    )?;
    print!("with another value, {plan}");
    changed.apply(&plan).await?;
    println!("the page: {:?}", page(runtime)?);
    Ok(())
}

fn load(dir: &Path, greeting: &str) -> Result<Project, Box<dyn Error>> {
    let options = LoadOptions::new(dir).variable("GREETING", greeting);
    Ok(Project::load(&options)?)
}

/// What `web` serves at its published port.
fn page(runtime: &Runtime) -> Result<String, Box<dyn Error>> {
    let address = runtime.container("tour-web-1")?.host_addr(8080)?;
    let mut stream = loop {
        match TcpStream::connect(address) {
            Ok(stream) => break stream,
            // Its server listens in a moment.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => std::thread::yield_now(),
            Err(error) => return Err(error.into()),
        }
    };
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.lines().last().unwrap_or_default().to_owned())
}
