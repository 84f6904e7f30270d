//! A MySQL server for as long as this program runs, queried from the host.
//!
//! `cargo run --release --example mysql`

#![allow(clippy::print_stdout)]

use mysql::prelude::Queryable;
use rdock_runtime::{ContainerSpec, PortMapping, Ready, Runtime};
use std::time::Duration;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let runtime = Runtime::open_default()?;
    let server = ContainerSpec::new("mysql:8")
        .env("MYSQL_ROOT_PASSWORD", "1234")
        .publish(PortMapping::tcp(3306))
        .ready_when(Ready::port(3306))
        .ready_timeout(Duration::from_secs(120))
        .start(&runtime)
        .await?;
    let url = format!(
        "mysql://root:1234@{}/mysql?prefer_socket=false",
        server.host_addr(3306)?
    );
    println!("ready at {url}");

    let mut connection = mysql::Conn::new(url.as_str())?;
    let version: Option<String> = connection.query_first("select version()")?;
    println!("the server says it is {}", version.unwrap_or_default());
    drop(connection);

    println!("stopped: {}", server.stop(None).await?);
    server.remove().await?;
    Ok(())
}
