//! The orchestrator example, asked from outside while it kills and rolls over its own workers.

use crate::program::{Cannot, Tested, path};
use libtest_mimic::{Completion, Failed, Trial};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The test of this file.
pub(crate) fn trials() -> Vec<Trial> {
    vec![Trial::ignorable_test(
        "orchestrator_fails_no_request_while_workers_die_and_change",
        || match orchestrate() {
            Ok(()) => Ok(Completion::Completed),
            Err(error) => match error.downcast_ref() {
                Some(Cannot(why)) => Ok(Completion::ignored_with(why)),
                None => Err(Failed::from(error.to_string())),
            },
        },
    )]
}

fn orchestrate() -> Tested {
    let program = path()?.with_file_name("orchestrator");
    if !program.exists() {
        return Err(format!(
            "{} is missing: `cargo build --example orchestrator` makes it",
            program.display()
        )
        .into());
    }
    let mut child = Command::new(program)
        .arg("--serve")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let input = child.stdin.take();
    let mut lines = BufReader::new(child.stdout.take().ok_or("no stdout")?).lines();
    let mut said = Vec::new();
    let mut hammer: Option<Hammer> = None;
    for line in lines.by_ref() {
        let line = line?;
        if let Some((_, address)) = line.split_once("http://") {
            hammer = Some(Hammer::start(address.parse()?));
        }
        let last = line == "close the input to end";
        said.push(line);
        if last {
            break;
        }
    }
    let seen = hammer.map(Hammer::stop);
    drop(input);
    said.extend(lines.map_while(Result::ok));
    let mut errors = String::new();
    child
        .stderr
        .take()
        .ok_or("no stderr")?
        .read_to_string(&mut errors)?;
    let status = child.wait()?;
    if !status.success() && errors.contains("hint: user namespaces") && !rustix::process::geteuid().is_root()
    {
        return Err(Cannot(errors).into());
    }
    assert!(status.success(), "{status}: {said:#?}\n{errors}");
    let (answered, failures, old, new) = seen.ok_or("it never said where it serves")??;
    assert!(
        failures.is_empty(),
        "{} of {answered} failed: {failures:?}",
        failures.len()
    );
    assert!(
        old > 0 && new > 0,
        "{old} pages of the old image, {new} of the new one"
    );
    let sums = said.last().ok_or("it said nothing")?;
    assert!(
        sums.contains(" 0 failed") && sums.contains("4 workers came back"),
        "{sums}"
    );
    Ok(())
}

/// A client of our own, in a thread.
struct Hammer {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<(usize, Vec<String>, usize, usize)>,
}

impl Hammer {
    fn start(address: SocketAddr) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let told = stop.clone();
        let thread = std::thread::spawn(move || {
            let (mut answered, mut failures, mut old, mut new) = (0, Vec::new(), 0, 0);
            while !told.load(Ordering::Relaxed) {
                match fetch(address) {
                    Ok(page) if page.ends_with("\r\n\r\nfrom the image\n\n") => old += 1,
                    Ok(page) if page.ends_with("\r\n\r\nfrom the image\nfrom the image\n\n") => new += 1,
                    Ok(page) => failures.push(page),
                    Err(error) => failures.push(error.to_string()),
                }
                answered += 1;
                // One of several clients on two processors.
                std::thread::sleep(Duration::from_millis(2));
            }
            (answered, failures, old, new)
        });
        Self { stop, thread }
    }

    fn stop(self) -> Result<(usize, Vec<String>, usize, usize), String> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| "the client panicked".to_owned())
    }
}

fn fetch(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(20))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut page = String::new();
    stream.read_to_string(&mut page)?;
    Ok(page)
}
