//! Waiting for a container that is played by this process: real sockets, scripted output and end.

use super::*;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::time::Instant;
use tokio::sync::watch;

/// What the container has done so far; tests change it while `wait` runs.
#[derive(Clone, Default)]
struct Script {
    output: Vec<&'static str>,
    exit: Option<i32>,
}

struct Fake {
    script: watch::Receiver<Script>,
    listening: Arc<dyn Fn() -> Listening + Send + Sync>,
    exec: Arc<dyn Fn() -> Result<i32, String> + Send + Sync>,
    address: Option<SocketAddr>,
}

impl Fake {
    fn new(script: &watch::Sender<Script>) -> Self {
        Self {
            script: script.subscribe(),
            listening: Arc::new(|| Listening::No),
            exec: Arc::new(|| Ok(1)),
            address: None,
        }
    }
}

struct FakeLines(watch::Receiver<Script>, usize);

impl Lines for FakeLines {
    async fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            {
                let script = self.0.borrow_and_update();
                if let Some(line) = script.output.get(self.1) {
                    self.1 += 1;
                    return Some(line.as_bytes().to_vec());
                }
                if script.exit.is_some() {
                    return None;
                }
            }
            self.0.changed().await.expect("the test holds the sender");
        }
    }
}

impl Target for Fake {
    type Exit = i32;
    async fn ended(&self) -> i32 {
        let mut script = self.script.clone();
        let ended = script
            .wait_for(|script| script.exit.is_some())
            .await
            .expect("the test holds the sender");
        ended.exit.expect("waited for")
    }
    fn lines(&self) -> impl Lines {
        FakeLines(self.script.clone(), 0)
    }
    async fn listening(&self, _: u16) -> Result<Listening, String> {
        Ok((self.listening)())
    }
    async fn exec(&self, _: &[String]) -> Result<i32, String> {
        (self.exec)()
    }
    async fn healthy(&self) -> Result<(), String> {
        (self.exec)().map(drop)
    }
    fn address(&self, _: u16) -> Option<SocketAddr> {
        self.address
    }
}

const LONG: Duration = Duration::from_secs(20);

fn late<T>(result: Result<(), NotReady<T>>) -> String {
    match result {
        Err(NotReady::Late(reason)) => reason,
        Err(NotReady::Ended(_)) => panic!("ended"),
        Ok(()) => panic!("ready"),
    }
}

#[tokio::test]
async fn lines_count_from_the_first_byte() {
    let (script, _) = watch::channel(Script {
        output: vec!["starting\n", "ready for a\n"],
        exit: None,
    });
    let fake = Fake::new(&script);
    assert_eq!(wait(&fake, &[Ready::log("ready for")], LONG).await, Ok(()));
    let twice = [Ready::Log {
        text: "ready".into(),
        times: 2,
    }];
    let reason = late(wait(&fake, &twice, Duration::from_millis(30)).await);
    assert_eq!(reason, "1 of 2 lines of its output contain \"ready\"");
    let (waited, ()) = tokio::join!(wait(&fake, &twice, LONG), async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        script.send_modify(|script| script.output.push("ready again"));
    });
    assert_eq!(waited, Ok(()));
}

#[tokio::test]
async fn a_container_that_ends_is_reported_at_once() {
    let (script, _) = watch::channel(Script::default());
    let mut fake = Fake::new(&script);
    fake.address = Some(([127, 0, 0, 1], 1).into());
    for condition in [
        Ready::log("never"),
        Ready::port(80),
        Ready::exec(["false"]),
        Ready::http(80, "/"),
    ] {
        script.send_replace(Script::default());
        let began = Instant::now();
        let (waited, ()) = tokio::join!(wait(&fake, std::slice::from_ref(&condition), LONG), async {
            tokio::time::sleep(Duration::from_millis(30)).await;
            script.send_modify(|script| script.exit = Some(3));
        });
        assert_eq!(waited, Err(NotReady::Ended(3)), "{condition:?}");
        assert!(
            began.elapsed() < Duration::from_secs(2),
            "{condition:?}: {:?}",
            began.elapsed()
        );
    }
}

#[tokio::test]
async fn the_last_line_of_a_container_that_ended_still_counts() {
    let (script, _) = watch::channel(Script {
        output: vec!["a\n", "done"],
        exit: Some(0),
    });
    let fake = Fake::new(&script);
    assert_eq!(wait(&fake, &[Ready::log("done")], LONG).await, Ok(()));
    assert_eq!(
        wait(&fake, &[Ready::log("other")], LONG).await,
        Err(NotReady::Ended(0))
    );
}

#[tokio::test]
async fn no_condition_is_no_waiting() {
    let (script, _) = watch::channel(Script {
        output: Vec::new(),
        exit: Some(1),
    });
    assert_eq!(wait(&Fake::new(&script), &[], Duration::ZERO).await, Ok(()));
}

#[tokio::test]
async fn a_port_needs_a_listener_inside_and_a_connection_that_stays_open() {
    let (script, _) = watch::channel(Script::default());
    let mut fake = Fake::new(&script);
    let port = [Ready::port(3306)];
    let short = Duration::from_millis(200);
    assert_eq!(
        late(wait(&fake, &port, short).await),
        "nothing listens on port 3306"
    );

    fake.listening = Arc::new(|| Listening::OnlyLoopback);
    let reason = late(wait(&fake, &port, short).await);
    assert!(reason.contains("of 127.0.0.1 only"), "{reason}");

    // Not published: the listener alone counts.
    fake.listening = Arc::new(|| Listening::Yes);
    assert_eq!(wait(&fake, &port, LONG).await, Ok(()));

    // A published port whose connections are closed at once is not ready; one that stays open is.
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    fake.address = Some(listener.local_addr().expect("address"));
    let closed = Arc::new(AtomicU32::new(0));
    let count = closed.clone();
    let server = std::thread::spawn(move || {
        let mut kept = Vec::new();
        for stream in listener.incoming().take(4) {
            if count.fetch_add(1, Ordering::SeqCst) < 3 {
                drop(stream);
            } else {
                kept.push(stream.expect("accept"));
            }
        }
        // Until the other side closes.
        let _ = kept[0].read(&mut [0]);
    });
    assert_eq!(wait(&fake, &port, LONG).await, Ok(()));
    assert_eq!(closed.load(Ordering::SeqCst), 4);
    server.join().expect("server");
}

#[tokio::test]
async fn a_command_is_tried_until_it_exits_with_0() {
    let (script, _) = watch::channel(Script::default());
    let mut fake = Fake::new(&script);
    let tries = Arc::new(AtomicI32::new(2));
    let left = tries.clone();
    fake.exec = Arc::new(move || Ok(left.fetch_sub(1, Ordering::SeqCst).max(0)));
    assert_eq!(
        wait(&fake, &[Ready::exec(["test", "-e", "/x"])], LONG).await,
        Ok(())
    );
    assert_eq!(tries.load(Ordering::SeqCst), -1);
    fake.exec = Arc::new(|| Err("no such file".into()));
    let reason = late(wait(&fake, &[Ready::exec(["test", "-e"])], Duration::from_millis(20)).await);
    assert_eq!(reason, "the command \"test -e\" cannot be run: no such file");
}

#[tokio::test]
async fn an_http_path_is_asked_until_the_status_fits() {
    let (script, _) = watch::channel(Script::default());
    let mut fake = Fake::new(&script);
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address");
    fake.address = Some(address);
    let server = std::thread::spawn(move || {
        let mut requests = Vec::new();
        for answer in [
            "",
            "HTTP/1.1 503 Busy\r\n\r\n",
            "HTTP/1.1 302 Found\r\nLocation: /y\r\n\r\n",
        ] {
            let (mut stream, _) = listener.accept().expect("accept");
            let mut request = [0; 1024];
            let length = stream.read(&mut request).expect("read");
            requests.push(String::from_utf8_lossy(&request[..length]).into_owned());
            stream.write_all(answer.as_bytes()).expect("write");
        }
        requests
    });
    assert_eq!(wait(&fake, &[Ready::http(80, "/x?y=1")], LONG).await, Ok(()));
    let requests = server.join().expect("server");
    assert_eq!(requests.len(), 3);
    assert!(
        requests[0].starts_with(&format!("GET /x?y=1 HTTP/1.1\r\nHost: {address}\r\n")),
        "{requests:?}"
    );
    assert!(requests[0].ends_with("\r\n\r\n"), "{requests:?}");

    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    fake.address = Some(listener.local_addr().expect("address"));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("accept");
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        }
    });
    let exactly = [Ready::Http {
        port: 80,
        path: "/".into(),
        status: Some(204),
    }];
    let reason = late(wait(&fake, &exactly, Duration::from_millis(100)).await);
    assert_eq!(reason, "GET / of port 80 is answered with status 200");
}

#[test]
fn waiting_can_move_to_another_thread() {
    fn is_send<T: Send>(_: &T) {}
    let (script, _) = watch::channel(Script::default());
    let fake = Fake::new(&script);
    is_send(&wait(&fake, &[], LONG));
}
