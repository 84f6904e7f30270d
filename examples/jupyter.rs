//! A Jupyter server over a folder of the host, until Ctrl-C.
//!
//! `cargo run --release --example jupyter -- [FOLDER]`

#![allow(clippy::print_stdout)]

use rdock_runtime::{ContainerSpec, Mount, PortMapping, Runtime};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::path::absolute(std::env::args_os().nth(1).unwrap_or_else(|| ".".into()))?;
    let runtime = Runtime::open_default()?;
    let server = ContainerSpec::new("jupyter/minimal-notebook")
        .mount(Mount::bind(&folder, "/home/jovyan/workspace"))
        .publish(PortMapping::tcp(8888))
        .start(&runtime)
        .await?;

    let mut logs = server.logs().follow(true);
    while let Some(line) = logs.next().await? {
        let text = String::from_utf8_lossy(&line.bytes);
        if let Some((_, token)) = text.trim_end().split_once("?token=") {
            println!(
                "{} is open at http://{}/lab?token={token}",
                folder.display(),
                server.host_addr(8888)?
            );
            tokio::signal::ctrl_c().await?;
            break;
        }
        print!("{text}");
    }
    println!("ended: {}", server.stop(None).await?);
    server.remove().await?;
    Ok(())
}
