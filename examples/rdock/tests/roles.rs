//! Host programs: what this test program does when a test starts it again.

use crate::{client, compose_kills, leaks};
use mysql::prelude::Queryable;
use rdock_runtime::{ContainerSpec, PortMapping, Ready, Runtime};
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

type Played = Result<(), Box<dyn std::error::Error>>;

/// Plays `role` to its end.
pub(crate) fn play(role: &str) -> ExitCode {
    let played = match role {
        "current-thread-mysql" => current_thread_mysql(),
        "leaks-host" => leaks::host(),
        "leaks-open" => leaks::open(),
        "leaks-watch" => leaks::watch(),
        "leaks-crowd" => leaks::crowd(),
        "leaks-work" => leaks::work(),
        "leaks-hands" => leaks::hands(),
        "leaks-hand-starter" => leaks::start_by_hand(),
        "compose-kills" => compose_kills::kills(),
        _ => Err(format!("no such role: {role}").into()),
    };
    match played {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // What a test reads when the role fails.
            let mut stderr = std::io::stderr().lock();
            let mut cause: Option<&dyn std::error::Error> = Some(error.as_ref());
            while let Some(error) = cause {
                if writeln!(stderr, "{error}").is_err() {
                    break;
                }
                cause = error.source();
            }
            ExitCode::FAILURE
        }
    }
}

/// What a `#[tokio::test]` does: the only thread of the runtime waits in a client that is not async.
fn current_thread_mysql() -> Played {
    let tokio = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    tokio.block_on(async {
        let runtime = Runtime::open_default()?;
        let database = ContainerSpec::new("mysql:8")
            .env("MYSQL_ROOT_PASSWORD", "1234")
            .publish(PortMapping::tcp(3306))
            .ready_when(Ready::port(3306))
            .ready_timeout(Duration::from_secs(120))
            .start(&runtime)
            .await?;
        let port = database.host_addr(3306)?.port();
        let sum: Option<u32> = client::mysql(port, "1234")?.query_first("select 40 + 2")?;
        writeln!(std::io::stdout(), "answer {}", sum.ok_or("no row")?)?;
        database.remove().await?;
        Ok(())
    })
}
