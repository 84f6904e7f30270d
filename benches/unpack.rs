//! How long a layer takes from a gzip file to a tree of files.
//!
//! `cargo bench --bench unpack [-- --rounds N --from FOLDER --megabytes N]`, as root. The layer is made of files of
//! this machine: those of at most 1 MiB below FOLDER (`/usr`) in the order of their names, until there are so many
//! megabytes (400). Other programs take part when they are installed. Nothing but what a program forces to the disk itself is.

#[allow(dead_code)]
mod support;

use flate2::{Compression, write::GzEncoder};
use rdock_runtime::image::{Descriptor, Digest, ImageStore, Progress};
use sha2::Digest as _;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;
use support::ground::{Ground, run};
use support::rows::{Row, View, report, serve, serve_commands, take_turns};
use support::{Outcome, installed, number, option, table};

const FILES: &str = "rdock, a layer into fs/";
const IMPORT: &str = "rdock load, an OCI layout, synced";
const IGZIP: &str = "igzip | tar";
const PEERS: [&str; 3] = ["umoci unpack", "podman load", "docker load"];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let texts: Vec<&str> = words.iter().map(String::as_str).collect();
    report(match texts.as_slice() {
        ["layer", folder, digest, diff_id] => layer(Path::new(folder), digest, diff_id),
        ["import", folder] => import(Path::new(folder)),
        ["command", prepare, timed] => {
            let shell = |line: &str| ["sh", "-c", line].map(str::to_owned);
            serve_commands(View::VersionOne, &shell(prepare), &shell(timed))
        }
        _ => compare(),
    })
}

fn compare() -> Outcome {
    let rounds = number("--rounds", 3)?;
    let megabytes = number("--megabytes", 400)? as u64;
    let from = option("--from").unwrap_or_else(|| "/usr".into());
    let ground = Ground::fresh(8 + megabytes / 100)?;
    let base = ground.path();
    let made = Made::new(base, Path::new(&from), megabytes * 1_000_000)?;

    let folder = base.to_string_lossy().into_owned();
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let (digest, diff_id) = (made.blob.to_string(), made.diff_id.to_string());
    let mut rows = vec![
        Row::of_role(FILES, &words(&["layer", &folder, &digest, &diff_id]))?,
        Row::of_role(IMPORT, &words(&["import", &folder]))?,
    ];
    for (name, programs, prepare, timed) in commands(&folder) {
        // The program docker alone says nothing: it needs its daemon.
        let served = name != PEERS[2] || run(Command::new("docker").arg("version")).is_ok();
        if served && programs.iter().all(|program| installed(program).is_some()) {
            rows.push(Row::of_role(name, &words(&["command", &prepare, &timed]))?);
        }
    }
    let (rows, left_out) = take_turns(rows, 1, rounds);

    let title = format!(
        "unpacking a layer of {} entries, {} MB, {} MB as gzip; {rounds} rounds in turns; {}",
        made.entries,
        made.size / 1_000_000,
        made.compressed / 1_000_000,
        table::machine()
    );
    table::print(&title, &rows, &left_out, &[IGZIP]);
    table::bar(&rows, FILES, 1.0, IGZIP);
    for peer in PEERS {
        table::bar(&rows, IMPORT, 0.25, peer);
    }
    drop(rows);
    Ok(())
}

/// Name, what must be installed, what is done before, and what is measured.
fn commands(base: &str) -> Vec<(&'static str, &'static [&'static str], String, String)> {
    let out = format!("{base}/out");
    let fresh = format!("rm -rf {out} && mkdir {out} && sync -f {out}");
    let podman = format!(
        "podman --root {base}/podman --runroot {base}/podman-run --cgroup-manager cgroupfs --events-backend file"
    );
    let layer = format!("{base}/layer.tar.gz");
    let archive = format!("{base}/archive.tar");
    let tar = format!("tar --numeric-owner -xp -C {out} -f -");
    vec![
        (
            "floor: igzip alone",
            &["igzip"],
            "true".into(),
            format!("igzip -dc {layer} > /dev/null"),
        ),
        (
            IGZIP,
            &["igzip", "tar"],
            fresh.clone(),
            format!("igzip -dc {layer} | {tar}"),
        ),
        (
            "gzip | tar",
            &["gzip", "tar"],
            fresh.clone(),
            format!("gzip -dc {layer} | {tar}"),
        ),
        (
            PEERS[0],
            &["umoci"],
            fresh,
            format!("umoci unpack --image {base}/layout:bench {out}/bundle"),
        ),
        (
            PEERS[1],
            &["podman"],
            format!("{podman} rmi --all --force && sync -f {base}"),
            format!("{podman} load -q -i {archive}"),
        ),
        (
            PEERS[2],
            &["docker"],
            "docker rmi -f rdock-bench-unpack; sync".into(),
            format!("docker load -q -i {archive}"),
        ),
    ]
}

/// Removes what the last round made, and waits until the disk knows.
fn fresh_root(base: &Path, name: &str) -> Outcome<PathBuf> {
    let root = base.join(name);
    match std::fs::remove_dir_all(&root) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    rustix::fs::syncfs(File::open(base)?)?;
    Ok(root)
}

fn layer(base: &Path, digest: &str, diff_id: &str) -> Outcome {
    let (digest, diff_id) = (Digest::parse(digest)?, Digest::parse(diff_id)?);
    serve(|| {
        let root = fresh_root(base, "rdock-layer")?;
        let begin = Instant::now();
        let store = ImageStore::open(&root)?;
        let mut blob = File::open(base.join("layer.tar.gz"))?;
        let descriptor = Descriptor::new(LAYER, &digest, blob.metadata()?.len());
        store.ingest_layer(&store.lease()?, &descriptor, &diff_id, None, &mut blob)?;
        Ok(Some(begin.elapsed()))
    })
}

fn import(base: &Path) -> Outcome {
    serve(|| {
        let root = fresh_root(base, "rdock-import")?;
        let begin = Instant::now();
        let images = ImageStore::open(&root)?.import(&base.join("layout"), &Progress::default())?;
        let took = begin.elapsed();
        match images.len() {
            1 => Ok(Some(took)),
            count => Err(format!("the layout has one image, {count} were imported").into()),
        }
    })
}

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// The layer, in every form that somebody takes.
struct Made {
    entries: usize,
    size: u64,
    compressed: u64,
    blob: Digest,
    diff_id: Digest,
}

impl Made {
    fn new(base: &Path, from: &Path, bytes: u64) -> Outcome<Self> {
        let tar = base.join("layer.tar");
        let entries = collect(base, from, bytes, &tar)?;
        let blob_file = base.join("layer.tar.gz");
        let mut encoder = GzEncoder::new(File::create(&blob_file)?, Compression::new(6));
        std::io::copy(&mut File::open(&tar)?, &mut encoder)?;
        encoder.finish()?;
        let made = Self {
            entries,
            size: tar.metadata()?.len(),
            compressed: blob_file.metadata()?.len(),
            blob: digest(&blob_file)?,
            diff_id: digest(&tar)?,
        };
        let architecture = match std::env::consts::ARCH {
            "aarch64" => "arm64",
            _ => "amd64",
        };
        let config = serde_json::json!({
            "architecture": architecture,
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [made.diff_id.to_string()]},
        })
        .to_string();
        made.layout(&base.join("layout"), &blob_file, config.as_bytes())?;
        docker_archive(&base.join("archive.tar"), &tar, config.as_bytes())?;
        Ok(made)
    }

    fn layout(&self, layout: &Path, blob: &Path, config: &[u8]) -> Outcome {
        let blobs = layout.join("blobs/sha256");
        std::fs::create_dir_all(&blobs)?;
        std::fs::hard_link(blob, blobs.join(self.blob.hex()))?;
        let store = |bytes: &[u8]| -> Outcome<Digest> {
            let digest = Digest::sha256_of(bytes);
            std::fs::write(blobs.join(digest.hex()), bytes)?;
            Ok(digest)
        };
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor("application/vnd.oci.image.config.v1+json", &store(config)?, config.len() as u64),
            "layers": [descriptor(LAYER, &self.blob, self.compressed)],
        })
        .to_string();
        let mut entry = descriptor(MANIFEST, &store(manifest.as_bytes())?, manifest.len() as u64);
        entry["annotations"] = serde_json::json!({"org.opencontainers.image.ref.name": "bench"});
        let index = serde_json::json!({"schemaVersion": 2, "manifests": [entry]});
        std::fs::write(layout.join("index.json"), index.to_string())?;
        std::fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
        Ok(())
    }
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

fn descriptor(media_type: &str, digest: &Digest, size: u64) -> serde_json::Value {
    serde_json::json!({"mediaType": media_type, "digest": digest.to_string(), "size": size})
}

/// Packs the first files below `from`; how many entries there are.
fn collect(base: &Path, from: &Path, bytes: u64, tar: &Path) -> Outcome<usize> {
    let mut names = Vec::new();
    let mut left = bytes;
    walk(from, &mut left, &mut names)?;
    let list = base.join("list");
    let mut file = std::io::BufWriter::new(File::create(&list)?);
    for name in &names {
        use std::os::unix::ffi::OsStrExt;
        file.write_all(name.strip_prefix("/").unwrap_or(name).as_os_str().as_bytes())?;
        file.write_all(b"\0")?;
    }
    file.flush()?;
    let mut pack = Command::new("tar");
    pack.args(["-C", "/", "--null", "--no-recursion", "--numeric-owner", "-T"]);
    run(pack.arg(&list).arg("-cf").arg(tar))?;
    Ok(names.len())
}

/// A few huge files would say little about the many that an image has.
const LARGEST: u64 = 1 << 20;

fn walk(folder: &Path, left: &mut u64, names: &mut Vec<PathBuf>) -> Outcome {
    names.push(folder.to_owned());
    let mut entries = std::fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let (path, data) = (entry.path(), entry.metadata()?);
        if *left == 0 {
            break;
        }
        if data.is_dir() {
            walk(&path, left, names)?;
        } else if (data.is_file() && data.len() <= LARGEST) || data.is_symlink() {
            *left = left.saturating_sub(data.len());
            names.push(path);
        }
    }
    Ok(())
}

fn digest(path: &Path) -> Outcome<Digest> {
    let (mut file, mut hasher) = (File::open(path)?, sha2::Sha256::new());
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            count => hasher.update(&buffer[..count]),
        }
    }
    let hex: String = hasher
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    Ok(Digest::parse(&format!("sha256:{hex}"))?)
}

fn docker_archive(archive: &Path, layer: &Path, config: &[u8]) -> Outcome {
    let mut builder = tar::Builder::new(File::create(archive)?);
    let manifest = serde_json::json!(
        [{"Config": "config.json", "RepoTags": ["rdock-bench-unpack:latest"], "Layers": ["layer.tar"]}]
    );
    for (name, bytes) in [
        ("manifest.json", manifest.to_string().as_bytes()),
        ("config.json", config),
    ] {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o644);
        header.set_size(bytes.len() as u64);
        header.set_cksum();
        builder.append_data(&mut header, name, bytes)?;
    }
    builder.append_path_with_name(layer, "layer.tar")?;
    builder.finish()?;
    Ok(())
}
