//! An orchestrator in one file: three web workers behind one port, kept alive, and rolled over to a new image
//! while clients go on asking. Not one request fails.
//!
//! `cargo run --release --example orchestrator`; with `--serve` it goes on until its input ends.
//!
//! It is made of the public API alone. *Health* says when a worker may get requests, *events* say when one has
//! died or fallen ill, and *wait* says when one that was sent home has gone. The workers die with this program,
//! however it ends.

#![allow(clippy::print_stdout, clippy::print_stderr)]

#[allow(dead_code)]
#[path = "payload/image.rs"]
mod image;

use rdock_runtime::image::Progress;
use rdock_runtime::{
    ContainerSpec, EventAction, HealthCheck, HealthStatus, PortMapping, Ready, Runtime, ScopedContainer,
};
use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

const WORKERS: usize = 3;
const CLIENTS: usize = 4;
const PORT: u16 = 8080;
/// Finds our workers among all containers of a root.
const LABEL: (&str, &str) = ("orchestrator", "web");
/// How long a request, a start or an end may take before it counts as failed.
const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let tasks = tokio::task::LocalSet::new();
    match tasks.run_until(tour()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut text = error.to_string();
            let mut next = error.source();
            while let Some(cause) = next {
                text.push_str(&format!(": {cause}"));
                next = cause.source();
            }
            eprintln!("orchestrator: {text}");
            if let Some(hint) = error
                .downcast_ref::<rdock_runtime::Error>()
                .and_then(rdock_runtime::Error::hint)
            {
                eprintln!("hint: {hint}");
            }
            ExitCode::FAILURE
        }
    }
}

async fn tour() -> Outcome {
    let scratch = tempfile::Builder::new().prefix("rdock-orchestrator-").tempdir()?;
    let runtime = Runtime::open(scratch.path().join("root"))?;
    // The page of the second image is twice as long: 30 bytes and a newline.
    for (name, size) in [("web:1", 15), ("web:2", 30)] {
        let archive = image::archive_with(name, size)?;
        runtime
            .images()
            .import_stream(&mut archive.as_slice(), &Progress::default())?;
    }

    let web = Orchestrator::start(runtime.clone(), "web:1").await?;
    println!("{WORKERS} workers serve at http://{}", web.address);
    let clients = Clients::start(web.address);
    clients.answers(20).await?;

    web.kill_one().await?;
    println!("a worker was killed, and another one came");
    web.roll("web:2").await?;
    println!("all workers run web:2");
    let pages = clients.answers(20).await?;
    if pages.iter().any(|page| page.len() != 31) {
        return Err(format!("old pages after the roll-over: {pages:?}").into());
    }
    for _ in 0..WORKERS {
        web.kill_one().await?;
    }
    println!("every worker was killed once more, and {WORKERS} others came");
    clients.answers(20).await?;

    if std::env::args().any(|word| word == "--serve") {
        println!("close the input to end");
        let mut input =
            tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink()));
        (&mut input).await??;
    }
    let (answered, failed) = clients.stop().await;
    println!(
        "{answered} requests were answered, {failed} failed; {} workers came back",
        web.came_back()
    );
    web.stop().await?;
    let left = runtime.containers()?.len();
    if failed > 0 || left > 0 {
        return Err(format!("{failed} requests failed, {left} containers are left").into());
    }
    Ok(())
}

/// One container that serves.
struct Worker {
    id: String,
    name: String,
    address: SocketAddr,
    /// Taken by who sends it home.
    container: Mutex<Option<ScopedContainer>>,
    requests: AtomicUsize,
    idle: Notify,
}

/// Who may get requests.
#[derive(Default)]
struct Rotation {
    workers: Mutex<Vec<Arc<Worker>>>,
    turn: AtomicUsize,
    changed: Notify,
}

/// A request that a worker answers now.
struct Turn(Arc<Worker>);

impl Drop for Turn {
    fn drop(&mut self) {
        if self.0.requests.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.idle.notify_waiters();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Rotation {
    fn add(&self, worker: Arc<Worker>) {
        lock(&self.workers).push(worker);
        self.changed.notify_waiters();
    }

    /// Takes a worker out; `None` when it is out already.
    fn take(&self, id: &str) -> Option<Arc<Worker>> {
        let mut workers = lock(&self.workers);
        let at = workers.iter().position(|worker| worker.id == id)?;
        Some(workers.remove(at))
    }

    fn all(&self) -> Vec<Arc<Worker>> {
        lock(&self.workers).clone()
    }

    /// The next in turn.
    fn next(&self) -> Option<Turn> {
        let workers = lock(&self.workers);
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let worker = workers.get(turn.checked_rem(workers.len())?)?.clone();
        worker.requests.fetch_add(1, Ordering::Relaxed);
        Some(Turn(worker))
    }

    /// Waits until enough workers, none of them among `former`, may get requests.
    async fn filled(&self, former: &[String]) -> Outcome {
        let wait = async {
            loop {
                let changed = self.changed.notified();
                let workers = self.all();
                if workers.len() >= WORKERS && !workers.iter().any(|worker| former.contains(&worker.id)) {
                    return;
                }
                changed.await;
            }
        };
        tokio::time::timeout(PATIENCE, wait)
            .await
            .map_err(|_| "workers did not come back".into())
    }
}

#[derive(Clone)]
struct Orchestrator(Arc<Inner>);

struct Inner {
    runtime: Runtime,
    rotation: Arc<Rotation>,
    /// What new workers run.
    image: Mutex<String>,
    number: AtomicUsize,
    came_back: AtomicUsize,
    address: SocketAddr,
    stopped: AtomicBool,
}

impl std::ops::Deref for Orchestrator {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Orchestrator {
    async fn start(runtime: Runtime, image: &str) -> Outcome<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        // Before the first worker, so that the end of none is missed.
        let events = runtime.events().label(LABEL.0, Some(LABEL.1));
        let this = Self(Arc::new(Inner {
            runtime,
            rotation: Arc::default(),
            image: Mutex::new(image.to_owned()),
            number: AtomicUsize::new(1),
            came_back: AtomicUsize::new(0),
            address: listener.local_addr()?,
            stopped: AtomicBool::new(false),
        }));
        for _ in 0..WORKERS {
            let worker = this.hire().await?;
            this.rotation.add(worker);
        }
        tokio::task::spawn_local(this.clone().watch(events));
        tokio::task::spawn_local(front(listener, this.rotation.clone()));
        Ok(this)
    }

    /// A new worker that is healthy.
    async fn hire(&self) -> Result<Arc<Worker>, rdock_runtime::Error> {
        let name = format!("web-{}", self.number.fetch_add(1, Ordering::Relaxed));
        let image = lock(&self.image).clone();
        let check = HealthCheck::command(["/payload", "cat", "/tmp/up"]).interval(Duration::from_secs(1));
        let container = ContainerSpec::new(image)
            .name(&name)
            .label(LABEL.0, LABEL.1)
            .args(["write", "/tmp/up", "yes", ",", "serve", "8080", "@/data/file"])
            .publish(PortMapping::tcp(PORT))
            .ready_when(Ready::port(PORT))
            .health(check)
            .start(&self.runtime)
            .await?;
        container.wait_health(Some(HealthStatus::Healthy)).await?;
        Ok(Arc::new(Worker {
            id: container.id().to_owned(),
            name,
            address: container.host_addr(PORT)?,
            container: Mutex::new(Some(container)),
            requests: AtomicUsize::new(0),
            idle: Notify::new(),
        }))
    }

    /// Replaces every worker that dies or falls ill while it is in the rotation.
    async fn watch(self, mut events: rdock_runtime::Events) {
        while let Ok(Some(event)) = events.next().await {
            let lost = match &event.action {
                EventAction::Die => true,
                EventAction::HealthStatus(status) => status == HealthStatus::Unhealthy.name(),
                _ => false,
            };
            let Some(worker) = lost.then(|| self.rotation.take(&event.id)).flatten() else {
                // Sent home on purpose, or never in the rotation.
                continue;
            };
            let this = self.clone();
            tokio::task::spawn_local(async move {
                this.dismiss(&worker).await?;
                if !this.stopped.load(Ordering::Relaxed) {
                    let worker = this.hire().await?;
                    this.came_back.fetch_add(1, Ordering::Relaxed);
                    this.rotation.add(worker);
                }
                Ok::<(), rdock_runtime::Error>(())
            });
        }
    }

    /// Ends a worker that gets no new requests, once it has answered those it has.
    async fn dismiss(&self, worker: &Worker) -> Result<(), rdock_runtime::Error> {
        let Some(container) = lock(&worker.container).take() else {
            return Ok(());
        };
        if container.status()?.is_running() {
            let idle = async {
                loop {
                    let idle = worker.idle.notified();
                    if worker.requests.load(Ordering::Relaxed) == 0 {
                        return;
                    }
                    idle.await;
                }
            };
            // One that never comes to an end must not hold up the others for ever.
            let _ = tokio::time::timeout(PATIENCE, idle).await;
            container.stop(Some(Duration::ZERO)).await?;
        }
        container.wait().await?;
        container.remove().await
    }

    /// Replaces the workers one by one: the new one comes first, then an old one goes.
    async fn roll(&self, image: &str) -> Outcome {
        *lock(&self.image) = image.to_owned();
        for old in self.rotation.all() {
            let new = self.hire().await?;
            self.rotation.add(new);
            if let Some(old) = self.rotation.take(&old.id) {
                self.dismiss(&old).await?;
            }
        }
        Ok(())
    }

    /// Kills a worker as a fault would, and waits until there are enough again.
    async fn kill_one(&self) -> Outcome {
        let workers = self.rotation.all();
        let victim = workers.first().ok_or("no worker")?;
        self.runtime.container(&victim.name)?.kill("KILL").await?;
        self.rotation.filled(std::slice::from_ref(&victim.id)).await
    }

    fn came_back(&self) -> usize {
        self.came_back.load(Ordering::Relaxed)
    }

    async fn stop(&self) -> Outcome {
        self.stopped.store(true, Ordering::Relaxed);
        for worker in self.rotation.all() {
            if let Some(worker) = self.rotation.take(&worker.id) {
                self.dismiss(&worker).await?;
            }
        }
        Ok(())
    }
}

/// The one port: every request goes to the next worker, and to another one when that has died over it.
async fn front(listener: TcpListener, rotation: Arc<Rotation>) {
    while let Ok((client, _)) = listener.accept().await {
        let rotation = rotation.clone();
        tokio::task::spawn_local(async move {
            // A client that has left needs no answer.
            let _ = tokio::time::timeout(PATIENCE, answer(client, &rotation)).await;
        });
    }
}

async fn answer(mut client: TcpStream, rotation: &Rotation) -> std::io::Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        if client.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    loop {
        let changed = rotation.changed.notified();
        let Some(turn) = rotation.next() else {
            changed.await;
            continue;
        };
        // Asking twice is no harm for what is only read.
        if let Ok(page) = forward(turn.0.address, &request).await {
            return client.write_all(&page).await;
        }
    }
}

/// The whole answer of a worker; one without a body was cut off.
async fn forward(worker: SocketAddr, request: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(worker).await?;
    stream.write_all(request).await?;
    let mut page = Vec::new();
    stream.read_to_end(&mut page).await?;
    match page.windows(4).position(|end| end == b"\r\n\r\n") {
        Some(at) if at + 4 < page.len() && page.ends_with(b"\n") => Ok(page),
        _ => Err(std::io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Clients that ask one request after the other.
struct Clients {
    counts: Arc<Counts>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

#[derive(Default)]
struct Counts {
    answered: AtomicUsize,
    failed: AtomicUsize,
    stop: AtomicBool,
    /// Bodies of the last answers.
    pages: Mutex<Vec<String>>,
}

impl Clients {
    fn start(address: SocketAddr) -> Self {
        let counts = Arc::<Counts>::default();
        let tasks = (0..CLIENTS)
            .map(|_| tokio::task::spawn_local(ask(address, counts.clone())))
            .collect();
        Self { counts, tasks }
    }

    /// The next answers.
    async fn answers(&self, count: usize) -> Outcome<Vec<String>> {
        // What was asked before is not meant.
        tokio::task::yield_now().await;
        let from = self.counts.answered.load(Ordering::Relaxed);
        let deadline = Instant::now() + PATIENCE;
        while self.counts.answered.load(Ordering::Relaxed) < from + CLIENTS + count {
            if Instant::now() > deadline {
                return Err("no answers come".into());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let pages = lock(&self.counts.pages);
        Ok(pages[pages.len().saturating_sub(count)..].to_vec())
    }

    async fn stop(self) -> (usize, usize) {
        self.counts.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            // A client that panicked counts as one failure.
            if task.await.is_err() {
                self.counts.failed.fetch_add(1, Ordering::Relaxed);
            }
        }
        let count = |number: &AtomicUsize| number.load(Ordering::Relaxed);
        (count(&self.counts.answered), count(&self.counts.failed))
    }
}

async fn ask(address: SocketAddr, counts: Arc<Counts>) {
    while !counts.stop.load(Ordering::Relaxed) {
        let page = tokio::time::timeout(PATIENCE, forward(address, b"GET / HTTP/1.0\r\n\r\n")).await;
        match page {
            Ok(Ok(page)) => {
                let text = String::from_utf8_lossy(&page);
                let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
                let mut pages = lock(&counts.pages);
                pages.push(body.to_owned());
                let old = pages.len().saturating_sub(100);
                pages.drain(..old);
                counts.answered.fetch_add(1, Ordering::Relaxed);
            }
            _ => drop(counts.failed.fetch_add(1, Ordering::Relaxed)),
        }
        // Four busy clients would leave the workers no processor.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
