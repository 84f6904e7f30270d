//! A container that says what it sees: this program again, doing what its variable `PROBE` asks, line by line.

use crate::{Cannot, Tested};
use rdock_runtime::image::{Digest, Progress};
use rdock_runtime::{ContainerSpec, Exit, Mount, Runtime, blocking};
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

const PROGRAM: &str = "/test";

/// A runtime on a root of its own, with the image `probe`.
pub(crate) struct Place {
    pub(crate) root: tempfile::TempDir,
    pub(crate) runtime: Runtime,
}

/// One entry of the image's only layer.
#[derive(Clone)]
pub(crate) struct Entry<'a> {
    path: &'a str,
    mode: u32,
    gid: u64,
    kind: tar::EntryType,
    /// Of a file, or where a link leads.
    content: &'a str,
}

pub(crate) const fn dir(path: &str, mode: u32) -> Entry<'_> {
    Entry {
        path,
        mode,
        gid: 0,
        kind: tar::EntryType::Directory,
        content: "",
    }
}

pub(crate) const fn file<'a>(path: &'a str, mode: u32, content: &'a str) -> Entry<'a> {
    Entry {
        path,
        mode,
        gid: 0,
        kind: tar::EntryType::Regular,
        content,
    }
}

pub(crate) const fn link<'a>(path: &'a str, to: &'a str) -> Entry<'a> {
    Entry {
        path,
        mode: 0o777,
        gid: 0,
        kind: tar::EntryType::Symlink,
        content: to,
    }
}

pub(crate) const fn fifo(path: &str) -> Entry<'_> {
    Entry {
        path,
        mode: 0o666,
        gid: 0,
        kind: tar::EntryType::Fifo,
        content: "",
    }
}

impl Entry<'_> {
    /// Belongs to this group.
    pub(crate) const fn of_group(mut self, gid: u64) -> Self {
        self.gid = gid;
        self
    }
}

/// What the image holds unless a test wants more: a volume with something in it, directories with modes.
const ENTRIES: [Entry<'static>; 8] = [
    dir("etc", 0o755),
    file("etc/passwd", 0o644, "root:x:0:0::/root:/bin/sh\n"),
    dir("run", 0o750),
    dir("tmp", 0o1777),
    dir("seed", 0o2750),
    file("seed/file", 0o640, "from the image\n"),
    dir("seed/below", 0o700),
    file("seed/below/deep", 0o600, "deep\n"),
];

impl Place {
    pub(crate) fn new() -> Tested<Self> {
        Self::with("{}", &[])
    }

    /// With more in the `config` of the image, and more entries.
    pub(crate) fn with(config: &str, more: &[Entry<'_>]) -> Tested<Self> {
        let root = tempfile::tempdir()?;
        let runtime = Runtime::open(root.path())?;
        import(&runtime, config, more)?;
        Ok(Self { root, runtime })
    }

    /// Runs a probe to its end.
    pub(crate) fn run(&self, spec: &ContainerSpec) -> Tested<(String, Exit)> {
        let ran = blocking::wait(async {
            let container = spec.start(&self.runtime).await?;
            let exit = container.wait().await?;
            let mut logs = container.logs();
            let mut output = Vec::new();
            while let Some(line) = logs.next().await? {
                output.extend(line.bytes);
            }
            container.remove().await?;
            Ok::<_, rdock_runtime::Error>((String::from_utf8_lossy(&output).into_owned(), exit))
        });
        Ok(ran??)
    }

    /// Runs a probe that must succeed; its output.
    pub(crate) fn says(&self, spec: &ContainerSpec) -> Tested<String> {
        let (output, exit) = self.run(spec)?;
        if exit.success() {
            Ok(output)
        } else {
            Err(format!("ended with {exit}: {output}").into())
        }
    }
}

/// A container that does `lines`, with its own `lo` and nothing else.
pub(crate) fn probe(lines: &[&str]) -> Tested<ContainerSpec> {
    let mut spec = ContainerSpec::new("probe")
        .args([PROGRAM])
        .env("RDOCK_TEST_ROLE", "probe")
        .env("PROBE", lines.join("\n"))
        .network(rdock_runtime::NetworkMode::None)
        .mount(Mount::bind(std::env::current_exe()?, PROGRAM).read_only());
    for folder in ["/lib", "/lib64", "/usr/lib", "/usr/lib64"] {
        if let Ok(source) = Path::new(folder).canonicalize() {
            spec = spec.mount(Mount::bind(source, folder).read_only());
        }
    }
    Ok(spec)
}

/// Imports the image `probe`.
pub(crate) fn import(runtime: &Runtime, config: &str, more: &[Entry<'_>]) -> Tested {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => return Err(Cannot(format!("no image for {other}")).into()),
    };
    let mut layer = tar::Builder::new(Vec::new());
    // An entry of the test replaces the usual one of that path.
    let usual = ENTRIES
        .iter()
        .filter(|usual| !more.iter().any(|entry| entry.path == usual.path));
    for entry in usual.chain(more) {
        let mut header = tar::Header::new_gnu();
        header.set_mode(entry.mode);
        header.set_gid(entry.gid);
        header.set_entry_type(entry.kind);
        if entry.kind == tar::EntryType::Symlink {
            header.set_size(0);
            layer.append_link(&mut header, entry.path, entry.content)?;
        } else {
            header.set_size(entry.content.len() as u64);
            layer.append_data(&mut header, entry.path, entry.content.as_bytes())?;
        }
    }
    let layer = layer.into_inner()?;
    let digest = Digest::sha256_of(&layer);
    let config = format!(
        r#"{{"architecture":"{architecture}","os":"linux","config":{config},"rootfs":{{"type":"layers","diff_ids":["{digest}"]}}}}"#
    );
    let manifest = r#"[{"Config":"config.json","RepoTags":["probe:latest"],"Layers":["layer.tar"]}]"#;
    let mut archive = tar::Builder::new(Vec::new());
    let members = [
        ("config.json", config.as_bytes()),
        ("layer.tar", &layer),
        ("manifest.json", manifest.as_bytes()),
    ];
    for (name, bytes) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, bytes)?;
    }
    runtime
        .images()
        .import_stream(&mut archive.into_inner()?.as_slice(), &Progress::default())?;
    Ok(())
}

/// Inside: does what `PROBE` says. What fails is part of the answer.
pub(crate) fn play() -> Tested {
    // As a command of its own it inherits the variables: a condition of `Ready::exec`.
    let args: Vec<String> = std::env::args().collect();
    if let [_, option, path] = args.as_slice()
        && option == "--exists"
    {
        std::process::exit(i32::from(!Path::new(path).exists()));
    }
    for line in std::env::var("PROBE")?.lines() {
        let mut words = line.splitn(3, ' ');
        let (verb, first) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let second = words.next().unwrap_or_default();
        let done = match verb {
            "say" => Ok(format!("{first} {second}").trim_end().to_owned()),
            "cat" => std::fs::read_to_string(first).map(|text| text.trim_end().to_owned()),
            "write" => std::fs::write(first, second).map(|()| "written".into()),
            "fill" => std::fs::write(first, vec![0; second.parse()?]).map(|()| "filled".into()),
            "mkdir" => std::fs::create_dir(first).map(|()| "made".into()),
            "remove" => std::fs::remove_file(first).map(|()| "removed".into()),
            "stat" => std::fs::metadata(first)
                .map(|meta| format!("{:o} {}:{}", meta.mode(), meta.uid(), meta.gid())),
            "list" => list(first),
            "link" => std::fs::read_link(first).map(|to| to.to_string_lossy().into_owned()),
            "device" => std::fs::metadata(first).map(|meta| {
                format!(
                    "{}:{}",
                    rustix::fs::major(meta.rdev()),
                    rustix::fs::minor(meta.rdev())
                )
            }),
            "groups" => rustix::process::getgroups()
                .map(|groups| {
                    let groups: Vec<String> = groups.iter().map(|group| group.as_raw().to_string()).collect();
                    groups.join(" ")
                })
                .map_err(Into::into),
            "has" => std::fs::read(first).map(|bytes| {
                let found = bytes
                    .windows(second.len())
                    .any(|window| window == second.as_bytes());
                found.to_string()
            }),
            "cwd" => std::env::current_dir().map(|dir| dir.to_string_lossy().into_owned()),
            "fds" => list("/proc/self/fd"),
            "kind" => rustix::fs::statfs(first)
                .map(|kind| format!("{:x}", kind.f_type))
                .map_err(Into::into),
            "socket" => socket(first.parse()?).map(|()| "made".into()),
            "open" => std::fs::OpenOptions::new()
                .write(true)
                .open(first)
                .map(|_| "opened".into()),
            "seize" => Ok(crate::security::seize(first.parse()?)),
            "env" => Ok(environment()),
            "sleep" => {
                std::thread::sleep(Duration::from_millis(first.parse()?));
                continue;
            }
            "await" => {
                while !std::fs::exists(first)? {
                    std::thread::sleep(Duration::from_millis(5));
                }
                continue;
            }
            "spin" => {
                let end = std::time::Instant::now() + Duration::from_millis(first.parse()?);
                while std::time::Instant::now() < end {
                    std::hint::spin_loop();
                }
                continue;
            }
            "listen" => TcpListener::bind(first).map(|listener| {
                std::thread::spawn(move || serve(&listener));
                "listening".into()
            }),
            "exit" => std::process::exit(first.parse()?),
            _ => crate::attacks::verb(verb, first, second).ok_or_else(|| format!("what? {line}"))?,
        };
        let answer = done
            .unwrap_or_else(|error: std::io::Error| format!("errno {}", error.raw_os_error().unwrap_or(0)));
        writeln!(std::io::stdout(), "{answer}")?;
    }
    Ok(())
}

fn socket(family: u16) -> std::io::Result<()> {
    use rustix::net::{AddressFamily, SocketType};
    let kind = if family == 38 {
        SocketType::SEQPACKET
    } else {
        SocketType::STREAM
    };
    rustix::net::socket(AddressFamily::from_raw(family), kind, None)?;
    Ok(())
}

fn list(path: &str) -> std::io::Result<String> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(path)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names.join(" "))
}

/// All variables but those of the test itself.
fn environment() -> String {
    let mut text = String::new();
    for (name, value) in std::env::vars_os() {
        if name != "PROBE" && name != "RDOCK_TEST_ROLE" {
            // Writing to a String cannot fail.
            let _ = write!(text, "{}={};", name.to_string_lossy(), value.to_string_lossy());
        }
    }
    text
}

/// Answers every request with 204.
fn serve(listener: &TcpListener) {
    for client in listener.incoming().flatten() {
        std::thread::spawn(move || {
            let mut client = client;
            if client.read(&mut [0; 4096]).is_ok_and(|length| length > 0) {
                // A client that has left is its own loss.
                let _ = client.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
            }
        });
    }
}
