//! How long an image of several layers takes from a registry to a tree of files, and back to a registry.
//!
//! `cargo bench --bench registry [-- --rounds N --megabytes N --server PROGRAM]`, as root. The image is made here: four
//! layers of small text files, so many megabytes unpacked (300) in all. The registry is this project's own, or the
//! `docker-registry` that PROGRAM names; all rows use the same one, over loopback. Other programs take part when they
//! are installed; those that only copy say so. A pushed image goes to a registry that has nothing of it.

#[allow(dead_code)]
mod support;

use flate2::{Compression, write::GzEncoder};
use rdock_registry::server::{RegistryServer, ServerOptions};
use rdock_registry::{PushProgress, RegistryClient, RegistryConfig};
use rdock_runtime::image::{Digest, ExportOptions, Image, ImageStore, Platform, Progress, Reference};
use serde_json::json;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};
use support::ground::{Ground, run};
use support::rows::{Row, View, report, serve, serve_commands, take_turns};
use support::{Outcome, installed, number, option, table};

const PULL: &str = "rdock pull";
const PUSH: &str = "rdock push, as it was pulled";
const PUSH_LOADED: &str = "rdock push, loaded: compressed on the way";
const PODMAN: [&str; 2] = ["podman pull", "podman push: compressed on the way"];
const DOCKER: [&str; 2] = ["docker pull", "docker push: compressed on the way"];
const SKOPEO: [&str; 2] = [
    "skopeo copy to a folder: nothing unpacked",
    "skopeo copy, registry to registry",
];
const LAYERS: usize = 4;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let texts: Vec<&str> = words.iter().map(String::as_str).collect();
    report(match texts.as_slice() {
        ["pull", base, name] => pull(Path::new(base), name),
        ["push", base, from, to, how] => push(Path::new(base), from, to, *how == "loaded"),
        ["command", prepare, timed] => {
            let shell = |line: &str| ["sh", "-c", line].map(str::to_owned);
            serve_commands(View::VersionOne, &shell(prepare), &shell(timed))
        }
        _ => compare(),
    })
}

fn compare() -> Outcome {
    let rounds = number("--rounds", 3)?;
    let megabytes = number("--megabytes", 300)?;
    let program = option("--server");
    let ground = Ground::fresh(10 + megabytes as u64 / 50)?;
    let base = ground.path();
    let (from, to) = (
        Served::start(base, "from", program.as_deref())?,
        Served::start(base, "to", program.as_deref())?,
    );
    let image = Made::new(megabytes * 1_000_000)?;
    image.put(base, &from)?;
    let (name, target) = (format!("{}/bench:1", from.host), format!("{}/bench:1", to.host));

    let folder = base.to_string_lossy().into_owned();
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let docker = run(Command::new("docker").arg("version")).is_ok();
    let title = |what: &str| {
        format!(
            "{what} of {LAYERS} layers, {} files, {} MB, {} MB as gzip, {} over loopback; {rounds} rounds in turns; {}",
            image.files,
            image.size / 1_000_000,
            image.compressed / 1_000_000,
            program.as_deref().unwrap_or("the own registry"),
            table::machine()
        )
    };
    let [pulls, pushes] = commands(&folder, &name, &target);

    let mut rows = vec![Row::of_role(PULL, &words(&["pull", &folder, &name]))?];
    let mut absent = add(&mut rows, pulls, docker)?;
    let (rows, left_out) = take_turns(rows, 1, rounds);
    absent.extend(left_out);
    table::print(
        &title("pulling an image"),
        &rows,
        &absent,
        &[PODMAN[0], DOCKER[0]],
    );
    for peer in [PODMAN[0], DOCKER[0]] {
        table::bar(&rows, PULL, 1.0, peer);
    }
    drop(rows);

    let mut rows = Vec::new();
    for (row, how) in [(PUSH, "origin"), (PUSH_LOADED, "loaded")] {
        rows.push(Row::of_role(
            row,
            &words(&["push", &folder, &name, &target, how]),
        )?);
    }
    let mut absent = add(&mut rows, pushes, docker)?;
    let (rows, left_out) = take_turns(rows, 1, rounds);
    absent.extend(left_out);
    let against = [SKOPEO[1], PODMAN[1], DOCKER[1]];
    table::print(&title("pushing an image"), &rows, &absent, &against);
    table::bar(&rows, PUSH, 1.0, SKOPEO[1]);
    for peer in [PODMAN[1], DOCKER[1]] {
        table::bar(&rows, PUSH_LOADED, 1.0, peer);
    }
    drop(rows);
    Ok(())
}

/// Name, the program, what is done before, and what is measured.
type Peer = (&'static str, &'static str, String, String);

/// Adds the peers that are here; names the others.
fn add(rows: &mut Vec<Row>, peers: Vec<Peer>, docker: bool) -> Outcome<Vec<String>> {
    let mut absent = Vec::new();
    for (name, program, prepare, timed) in peers {
        // The program docker alone says nothing: it needs its daemon.
        if installed(program).is_none() || (program == "docker" && !docker) {
            absent.push(format!("{name}: {program} is not here"));
            continue;
        }
        let words = ["command".to_owned(), prepare, timed];
        rows.push(Row::of_role(name, &words)?);
    }
    Ok(absent)
}

fn commands(base: &str, from: &str, to: &str) -> [Vec<Peer>; 2] {
    let podman = format!(
        "podman --root {base}/podman --runroot {base}/podman-run --cgroup-manager cgroupfs --events-backend file"
    );
    let empty = format!("{}; sync -f {base}", clear(Path::new(base)));
    let pulls = vec![
        (
            SKOPEO[0],
            "skopeo",
            format!("rm -rf {base}/copied && sync -f {base}"),
            format!("skopeo copy -q --src-tls-verify=false docker://{from} oci:{base}/copied:bench"),
        ),
        (
            PODMAN[0],
            "podman",
            format!("{podman} rmi --all --force && sync -f {base}"),
            format!("{podman} pull -q --tls-verify=false {from}"),
        ),
        (
            DOCKER[0],
            "docker",
            format!("docker rmi -f {from}; sync"),
            format!("docker pull -q {from}"),
        ),
    ];
    let pushes = vec![
        (
            SKOPEO[1],
            "skopeo",
            empty.clone(),
            format!(
                "skopeo copy -q --src-tls-verify=false --dest-tls-verify=false docker://{from} docker://{to}"
            ),
        ),
        (
            PODMAN[1],
            "podman",
            format!("{podman} pull -q --tls-verify=false {from} && {empty}"),
            format!("{podman} push -q --tls-verify=false {from} docker://{to}"),
        ),
        (
            DOCKER[1],
            "docker",
            format!("docker pull -q {from} && docker tag {from} {to} && {empty}"),
            format!("docker push -q {to}"),
        ),
    ];
    [pulls, pushes]
}

/// The command that makes the registry that is pushed to empty.
fn clear(base: &Path) -> String {
    let root = base.join("to").display().to_string();
    format!("rm -rf {root}/blobs/* {root}/repositories/* {root}/docker")
}

/// Removes what the last round made, and waits until the disk knows.
fn fresh_root(base: &Path, name: &str) -> Outcome<PathBuf> {
    let root = base.join(name);
    match std::fs::remove_dir_all(&root) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    sync(base)?;
    Ok(root)
}

fn sync(base: &Path) -> Outcome {
    Ok(rustix::fs::syncfs(std::fs::File::open(base)?)?)
}

fn client() -> Outcome<(RegistryClient, tokio::runtime::Runtime)> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    Ok((RegistryClient::new(RegistryConfig::default())?, runtime))
}

fn fetch(
    client: &RegistryClient,
    runtime: &tokio::runtime::Runtime,
    name: &Reference,
    store: &ImageStore,
) -> Outcome<Image> {
    let (platform, progress) = (Platform::host(), Progress::default());
    Ok(runtime.block_on(client.pull(name, &platform, store, &progress))?)
}

fn pull(base: &Path, name: &str) -> Outcome {
    let name = Reference::parse(name)?;
    serve(|| {
        let root = fresh_root(base, "rdock-pull")?;
        let begin = Instant::now();
        let store = ImageStore::open(&root)?;
        let (client, runtime) = client()?;
        let image = fetch(&client, &runtime, &name, &store)?;
        let took = begin.elapsed();
        match image.diff_ids().len() {
            LAYERS => Ok(Some(took)),
            other => Err(format!("the image has {other} layers").into()),
        }
    })
}

fn push(base: &Path, from: &str, to: &str, loaded: bool) -> Outcome {
    let (from, to) = (Reference::parse(from)?, Reference::parse(to)?);
    let (client, runtime) = client()?;
    let mut store = ImageStore::open(base.join("rdock-push"))?;
    let mut image = fetch(&client, &runtime, &from, &store)?;
    if loaded {
        let archive = base.join("saved.tar");
        let images = [(image, vec![from])];
        store.export(
            &images,
            &ExportOptions::default(),
            &mut std::fs::File::create(&archive)?,
        )?;
        store = ImageStore::open(base.join("rdock-loaded"))?;
        image = store.import(&archive, &Progress::default())?.remove(0);
        std::fs::remove_file(archive)?;
    }
    store.tag(&image, &to)?;
    serve(|| {
        run(Command::new("sh").args(["-c", &clear(base)]))?;
        sync(base)?;
        let begin = Instant::now();
        let pushed = runtime.block_on(client.push(&to, &store, &PushProgress::default()))?;
        let took = begin.elapsed();
        match pushed.id == *image.id() {
            true => Ok(Some(took)),
            false => Err("another image was pushed".into()),
        }
    })
}

/// A registry over a folder of the ground.
struct Served {
    host: String,
    own: Option<RegistryServer>,
    process: Option<Child>,
}

impl Served {
    fn start(base: &Path, name: &str, program: Option<&str>) -> Outcome<Self> {
        let root = base.join(name);
        let Some(program) = program else {
            let server = RegistryServer::start(ServerOptions::new(root))?;
            return Ok(Self {
                host: server.host(),
                own: Some(server),
                process: None,
            });
        };
        let host = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.to_string();
        let config = json!({
            "version": 0.1,
            "log": {"level": "error", "accesslog": {"disabled": true}},
            "storage": {"filesystem": {"rootdirectory": root}},
            "http": {"addr": host},
        });
        // JSON is YAML.
        let path = base.join(format!("{name}.yml"));
        std::fs::write(&path, config.to_string())?;
        let process = Command::new(program)
            .arg("serve")
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let served = Self {
            host,
            own: None,
            process: Some(process),
        };
        let until = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(&served.host).is_err() {
            if Instant::now() > until {
                return Err(format!("{program} does not listen").into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(served)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            // It has nothing to lose.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// The image.
struct Made {
    files: usize,
    size: usize,
    compressed: usize,
    layers: Vec<(Vec<u8>, Digest)>,
}

impl Made {
    fn new(bytes: usize) -> Outcome<Self> {
        let work = |number| move || layer(number, bytes / LAYERS);
        let layers = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..LAYERS).map(|number| scope.spawn(work(number))).collect();
            let made = threads.into_iter().map(|thread| {
                thread
                    .join()
                    .map_err(|_| "a layer could not be made".to_owned())
                    .and_then(|made| made.map_err(|error| error.to_string()))
            });
            made.collect::<Result<Vec<_>, _>>()
        })?;
        Ok(Self {
            files: layers.iter().map(|layer| layer.files).sum(),
            size: layers.iter().map(|layer| layer.size).sum(),
            compressed: layers.iter().map(|layer| layer.blob.len()).sum(),
            layers: layers
                .into_iter()
                .map(|layer| (layer.blob, layer.diff_id))
                .collect(),
        })
    }

    /// Puts it into a registry, as `bench:1`.
    fn put(&self, base: &Path, served: &Served) -> Outcome {
        let diff_ids: Vec<_> = self.layers.iter().map(|(_, diff_id)| diff_id.as_str()).collect();
        let config = json!({
            "architecture": Platform::host().architecture, "os": "linux", "config": {},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        })
        .to_string()
        .into_bytes();
        let descriptor = |kind: &str, bytes: &[u8]| json!({"mediaType": kind, "digest": Digest::sha256_of(bytes).as_str(), "size": bytes.len()});
        let layers: Vec<_> = self
            .layers
            .iter()
            .map(|(blob, _)| descriptor("application/vnd.oci.image.layer.v1.tar+gzip", blob))
            .collect();
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({
            "schemaVersion": 2, "mediaType": kind,
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": layers,
        })
        .to_string()
        .into_bytes();
        let blobs = self
            .layers
            .iter()
            .map(|(blob, _)| blob.as_slice())
            .chain([config.as_slice()]);
        if let Some(server) = &served.own {
            for blob in blobs {
                server.put_blob("bench", blob)?;
            }
            server.put_manifest("bench", "1", kind, &manifest)?;
            return Ok(());
        }
        // The other one gets it by a push.
        let layout = base.join("layout");
        let folder = layout.join("blobs/sha256");
        std::fs::create_dir_all(&folder)?;
        for blob in blobs.chain([manifest.as_slice()]) {
            std::fs::write(folder.join(Digest::sha256_of(blob).hex()), blob)?;
        }
        let index = json!({"schemaVersion": 2, "manifests": [descriptor(kind, &manifest)]});
        std::fs::write(layout.join("index.json"), index.to_string())?;
        std::fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
        let store = ImageStore::open(base.join("rdock-first"))?;
        let image = store.import(&layout, &Progress::default())?.remove(0);
        let name = Reference::parse(&format!("{}/bench:1", served.host))?;
        store.tag(&image, &name)?;
        let (client, runtime) = client()?;
        runtime.block_on(client.push(&name, &store, &PushProgress::default()))?;
        Ok(())
    }
}

struct Layer {
    blob: Vec<u8>,
    diff_id: Digest,
    files: usize,
    size: usize,
}

/// Small files of words, in folders of a hundred.
fn layer(number: usize, bytes: usize) -> std::io::Result<Layer> {
    let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ (number as u64 + 1));
    let words: Vec<Vec<u8>> = (0..4000).map(|_| word(&mut random)).collect();
    let mut tar = tar::Builder::new(Vec::with_capacity(bytes + bytes / 8));
    let (mut size, mut files) = (0, 0);
    while size < bytes {
        let length = 2000 + (random.next() % 20_000) as usize;
        let mut text = Vec::with_capacity(length + 16);
        while text.len() < length {
            // A few words are most of a text.
            let (a, b) = (
                random.next() as usize % words.len(),
                random.next() as usize % words.len(),
            );
            text.extend_from_slice(&words[a * b / words.len()]);
            text.push(if random.next().is_multiple_of(11) {
                b'\n'
            } else {
                b' '
            });
        }
        let mut header = tar::Header::new_ustar();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(1_700_000_000);
        let name = format!("srv/layer{number}/{}/file-{files}.txt", files / 100);
        tar.append_data(&mut header, name, text.as_slice())?;
        size += text.len();
        files += 1;
    }
    let tar = tar.into_inner()?;
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(6));
    encoder.write_all(&tar)?;
    Ok(Layer {
        blob: encoder.finish()?,
        diff_id: Digest::sha256_of(&tar),
        files,
        size,
    })
}

fn word(random: &mut Random) -> Vec<u8> {
    let length = 2 + random.next() % 9;
    (0..length).map(|_| b'a' + (random.next() % 26) as u8).collect()
}

/// xorshift64: the same in each run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}
