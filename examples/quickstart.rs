//! The whole life of an image and of a container, on any machine: no network, no image, no root needed.
//!
//! `cargo run --release --example quickstart`

#![allow(clippy::print_stdout, clippy::print_stderr)]

use rdock_build::{Builder, CacheFilter};
use rdock_image::{Platform, Progress, Reference};
use rdock_registry::server::{RegistryServer, ServerOptions};
use rdock_registry::{PushProgress, RegistryClient, RegistryConfig};
use rdock_runtime::{ContainerSpec, Mount, PortMapping, Ready, Runtime};
use std::error::Error;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// The program of the image; nothing else is in there.
const PAYLOAD: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/payload"));

const DOCKERFILE: &str = r#"
FROM scratch
COPY --chmod=755 payload /payload
COPY <<EOF /etc/passwd
root:x:0:0:root:/:/payload
EOF
RUN ["/payload", "write", "/made", "a", "file", "of", "the", "build"]
EXPOSE 8080
ENTRYPOINT ["/payload"]
"#;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match tour().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let hint = error
                .downcast_ref::<rdock_runtime::Error>()
                .and_then(rdock_runtime::Error::hint);
            let mut causes = String::new();
            let mut next = error.source();
            while let Some(cause) = next {
                causes.push_str(&format!(": {cause}"));
                next = cause.source();
            }
            eprintln!("quickstart: {error}{causes}");
            if let Some(hint) = hint {
                eprintln!("hint: {hint}");
            }
            ExitCode::FAILURE
        }
    }
}

/// Prints each step with the time it took.
struct Steps(Instant);

impl Steps {
    fn done(&mut self, text: &str) {
        println!("{:>9.1} ms  {text}", self.0.elapsed().as_secs_f64() * 1e3);
        self.0 = Instant::now();
    }
}

async fn tour() -> Result<(), Box<dyn Error>> {
    let scratch = tempfile::Builder::new().prefix("rdock-quickstart-").tempdir()?;
    let folder = scratch.path().join("folder");
    std::fs::create_dir(&folder)?;
    std::fs::write(folder.join("page"), "a folder of the host")?;
    let mut steps = Steps(Instant::now());

    let runtime = Runtime::open(scratch.path().join("root"))?;
    steps.done("opened a new root: no daemon, no configuration");

    let name = build_and_share(&runtime, scratch.path(), &mut steps).await?;

    let container = ContainerSpec::new(name)
        .name("quickstart")
        .env("GREETING", "Hello from")
        .mount(Mount::bind(&folder, "/folder"))
        .publish(PortMapping::tcp(8080))
        .args([
            "trap",
            "15",
            "0",
            ",",
            "serve",
            "8080",
            "$GREETING",
            "@/folder/page",
        ])
        .ready_when(Ready::port(8080))
        .start_detached(&runtime)
        .await?;
    let outcome = look_at(&container, &mut steps).await;
    let info = container.inspect()?;
    let address = outcome.as_ref().ok().copied();
    if outcome.is_err() {
        container.remove_with(true, true).await?;
    }
    outcome?;

    let exit = container.stop(None).await?;
    steps.done(&format!("stopped it: {exit}"));
    container.remove_with(false, true).await?;
    steps.done("removed it");

    nothing_left(&runtime, &[info.pid, info.helper_pid], address)?;
    steps.done("nothing is left: no container, process, mount or port");
    drop(runtime);
    let path = scratch.path().to_owned();
    scratch.close()?;
    if path.exists() {
        return Err(format!("{} is still there", path.display()).into());
    }
    steps.done("removed the root with its image, and the registry");
    Ok(())
}

/// Builds the image, pushes it to a registry, and takes it back from there; returns its name.
async fn build_and_share(
    runtime: &Runtime,
    scratch: &Path,
    steps: &mut Steps,
) -> Result<String, Box<dyn Error>> {
    let registry = RegistryServer::start(ServerOptions::new(scratch.join("registry")))?;
    let name = format!("{}/quickstart:latest", registry.host());
    let context = scratch.join("context");
    std::fs::create_dir(&context)?;
    std::fs::write(context.join("payload"), PAYLOAD)?;
    std::fs::write(context.join("Dockerfile"), DOCKERFILE)?;
    let built = Builder::new(&context).tag(&name).build(runtime).await?;
    steps.done(&format!(
        "built an image in {} steps from a Dockerfile",
        built.steps.len()
    ));

    let (client, reference) = (
        RegistryClient::new(RegistryConfig::default())?,
        Reference::parse(&name)?,
    );
    let pushed = client
        .push(&reference, runtime.images(), &PushProgress::default())
        .await?;
    steps.done(&format!(
        "pushed it to a registry in this process: {}",
        pushed.digest.short()
    ));

    // What the build keeps for the next one would make the pull short.
    Builder::prune(runtime, &CacheFilter::default())?;
    runtime.images().remove(&name, false)?;
    let mut layers = built.config.rootfs.diff_ids.iter();
    if let Some(layer) = layers.find(|layer| runtime.images().has_layer(layer)) {
        return Err(format!("the layer {layer} is still there").into());
    }
    let pulled = client
        .pull(
            &reference,
            &Platform::host(),
            runtime.images(),
            &Progress::default(),
        )
        .await?;
    if pulled.id() != built.image_id() {
        return Err(format!("{} came back as {}", built.image_id(), pulled.id()).into());
    }
    steps.done("removed it, and pulled it back");
    Ok(name)
}

async fn look_at(
    container: &rdock_runtime::Container,
    steps: &mut Steps,
) -> Result<SocketAddr, Box<dyn Error>> {
    steps.done("started a container with -e, -v and -p; its server listens");
    for warning in container.inspect()?.warnings {
        println!("{:>12}  warning: {warning}", "");
    }

    let address = container.host_addr(8080)?;
    let page = fetch(address)?;
    if !page.ends_with("Hello from a folder of the host\n") {
        return Err(format!("the page is not what was asked for: {page:?}").into());
    }
    steps.done(&format!("fetched its page from http://{address}"));

    let output = container.exec(["/payload", "id"]).output().await?;
    let id = String::from_utf8(output.stdout)?;
    if !output.status.success() || !id.starts_with("uid=0") {
        return Err(format!("exec ended with {}: {id:?}", output.status).into());
    }
    steps.done(&format!("ran one more process inside: {}", id.trim_end()));

    let mut logs = container.logs();
    let (mut lines, mut last) = (0, Vec::new());
    while let Some(line) = logs.next().await? {
        (lines, last) = (lines + 1, line.bytes);
    }
    let last = String::from_utf8(last)?;
    if !last.starts_with("GET /") {
        return Err(format!("the log does not end with the request: {last:?}").into());
    }
    steps.done(&format!(
        "read {lines} lines of its log, the last is {:?}",
        last.trim_end()
    ));
    Ok(address)
}

fn fetch(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut page = String::new();
    stream.read_to_string(&mut page)?;
    Ok(page)
}

/// Looks for what a container consists of.
fn nothing_left(
    runtime: &Runtime,
    pids: &[Option<i32>],
    address: Option<SocketAddr>,
) -> Result<(), Box<dyn Error>> {
    let containers = runtime.containers()?.len();
    let snapshots = std::fs::read_dir(runtime.root().join("image/snapshots")).map_or(0, Iterator::count);
    if containers + snapshots > 0 {
        return Err(format!("{containers} containers and {snapshots} snapshots are left").into());
    }
    for pid in pids.iter().flatten() {
        let deadline = Instant::now() + Duration::from_secs(1);
        // One that has ended may still wait for the machine's init to look at it.
        while std::fs::read_to_string(format!("/proc/{pid}/status"))
            .is_ok_and(|text| !text.contains("State:\tZ"))
        {
            if Instant::now() > deadline {
                return Err(format!("process {pid} is still there").into());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    let root = runtime.root().display().to_string();
    if std::fs::read_to_string("/proc/self/mountinfo")?.contains(&root) {
        return Err(format!("something is mounted below {root}").into());
    }
    if let Some(address) = address
        && TcpStream::connect(address).is_ok()
    {
        return Err(format!("something still answers at {address}").into());
    }
    Ok(())
}
