//! What a container could leave on its host.

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// A variable in the environment of every payload; its value is the root, so that another run of this test
/// at the same time is not taken for this one.
pub(crate) const MARK: &str = "RDOCK_TEST_LEAK";

/// The state of the host before the first container.
pub(crate) struct Before {
    root: PathBuf,
    files: BTreeSet<PathBuf>,
}

impl Before {
    pub(crate) fn look(root: &Path) -> io::Result<Self> {
        Ok(Self {
            root: root.into(),
            files: files(root)?,
        })
    }

    /// Everything that is there now and was not there before. `ids` are those of the containers that were started.
    pub(crate) fn remains(&self, ids: &BTreeSet<String>) -> io::Result<Vec<String>> {
        let mut left = Vec::new();
        let root = self.root.to_string_lossy();
        left.extend(processes(&root)?);
        for whose in ["self".into(), nix::unistd::getppid().to_string()] {
            let mounts = fs::read_to_string(format!("/proc/{whose}/mountinfo"))?;
            left.extend(
                mounts
                    .lines()
                    .filter(|line| line.contains(&*root))
                    .map(|line| format!("mount: {line}")),
            );
        }
        let interfaces = fs::read_to_string("/proc/self/net/dev")?;
        let names = interfaces
            .lines()
            .filter_map(|line| Some(line.split_once(':')?.0.trim()));
        left.extend(
            names
                .filter(|name| *name != "lo")
                .map(|name| format!("interface: {name}")),
        );
        left.extend((0..nft_tables()?).map(|_| "nftables table".to_owned()));
        for table in ["tcp", "tcp6", "udp", "udp6"] {
            // Nothing else is in this network namespace: any socket counts, but for what the kernel keeps a while of
            // connections that are closed (TIME_WAIT is 6).
            let sockets = fs::read_to_string(format!("/proc/self/net/{table}"))?;
            for line in sockets.lines().skip(1) {
                let words: Vec<&str> = line.split_whitespace().take(4).collect();
                if let [_, address, _, state] = words[..]
                    && state != "06"
                {
                    left.push(format!("{table} socket at {address}"));
                }
            }
        }
        let named = |name: &str| ids.iter().any(|id| name.contains(&id[..12]));
        for (place, depth) in [("/sys/fs/cgroup", 8), ("/run", 3), ("/dev/shm", 2), ("/tmp", 2)] {
            find(Path::new(place), depth, &mut |path| {
                if path
                    .file_name()
                    .is_some_and(|name| named(&name.to_string_lossy()))
                {
                    left.push(path.display().to_string());
                }
            });
        }
        let now = files(&self.root)?;
        left.extend(
            now.difference(&self.files)
                .map(|path| format!("file: {}", path.display())),
        );
        let scratch = fs::read_dir(std::env::temp_dir())?;
        left.extend(
            scratch
                .flatten()
                .map(|entry| format!("file: {}", entry.path().display())),
        );
        Ok(left)
    }
}

/// Processes with the mark of a payload, or that have anything of `root` open or mounted.
fn processes(root: &str) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if pid == std::process::id() {
            continue;
        }
        let path = entry.path();
        // What cannot be read has ended meanwhile.
        let text = |file: &str| fs::read(path.join(file)).unwrap_or_default();
        let has = |bytes: &[u8], word: &str| bytes.windows(word.len()).any(|part| part == word.as_bytes());
        let open = fs::read_dir(path.join("fd")).into_iter().flatten().flatten();
        let mut links = open.filter_map(|fd| fs::read_link(fd.path()).ok());
        if has(&text("environ"), &format!("{MARK}={root}"))
            || has(&text("mountinfo"), root)
            || links.any(|link| link.to_string_lossy().starts_with(root))
        {
            found.push(format!(
                "process {pid}: {}",
                String::from_utf8_lossy(&text("comm")).trim()
            ));
        }
    }
    Ok(found)
}

/// Everything under a root but its images.
fn files(root: &Path) -> io::Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    let mut error = None;
    for part in fs::read_dir(root)? {
        let part = part?.path();
        // The journal of what happened is kept, in files of a limited size and number.
        if part.ends_with("events") {
            continue;
        }
        let below = if part.ends_with("image") {
            part.join("snapshots")
        } else {
            part
        };
        match fs::symlink_metadata(&below) {
            Ok(_) => find(&below, 16, &mut |path| {
                let _ = found.insert(path.to_owned());
            }),
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => {}
            Err(other) => error = Some(other),
        }
    }
    error.map_or(Ok(found), Err)
}

/// Calls `visit` with everything below `dir`, links not followed.
fn find(dir: &Path, depth: u32, visit: &mut dyn FnMut(&Path)) {
    // A directory that vanishes is not left.
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        visit(&path);
        if depth > 1 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            find(&path, depth - 1, visit);
        }
    }
}

/// Brings `lo` up in a new network namespace: rtnetlink(7), RTM_NEWLINK.
pub(crate) fn loopback_up() -> io::Result<()> {
    const NEW_LINK: u16 = 16;
    const REQUEST_ACK: u16 = 5;
    const UP: u32 = 1;
    let mut body = vec![0; 4];
    body.extend(1_u32.to_ne_bytes());
    body.extend(UP.to_ne_bytes());
    body.extend(UP.to_ne_bytes());
    let answer = ask(&netlink_socket(None)?, NEW_LINK, REQUEST_ACK, &body)?;
    match answer.get(16..20) {
        Some(&[0, 0, 0, 0]) => Ok(()),
        Some(&[a, b, c, d]) => Err(io::Error::from_raw_os_error(-i32::from_ne_bytes([a, b, c, d]))),
        _ => Err(io::Error::other("rtnetlink answered too little")),
    }
}

/// `None` is rtnetlink.
fn netlink_socket(protocol: Option<rustix::net::Protocol>) -> io::Result<OwnedFd> {
    let kind = (AddressFamily::NETLINK, SocketType::RAW);
    Ok(rustix::net::socket_with(
        kind.0,
        kind.1,
        SocketFlags::CLOEXEC,
        protocol,
    )?)
}

/// Sends one message; the first answers.
fn ask(socket: &OwnedFd, kind: u16, flags: u16, body: &[u8]) -> io::Result<Vec<u8>> {
    let mut request = Vec::new();
    request.extend((16 + body.len() as u32).to_ne_bytes());
    request.extend(kind.to_ne_bytes());
    request.extend(flags.to_ne_bytes());
    // Sequence and port.
    request.extend([0; 8]);
    request.extend(body);
    rustix::net::send(socket, &request, SendFlags::empty())?;
    receive(socket)
}

fn receive(socket: &OwnedFd) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; 1 << 16];
    let (_, length) = rustix::net::recv(socket, &mut buffer[..], RecvFlags::empty())?;
    buffer.truncate(length);
    Ok(buffer)
}

/// How many nftables tables this network namespace has.
fn nft_tables() -> io::Result<usize> {
    const GET_TABLE: u16 = (10 << 8) | 1;
    const NEW_TABLE: u16 = 10 << 8;
    const REQUEST_DUMP: u16 = 0x301;
    const DONE: u16 = 3;
    const ERROR: u16 = 2;
    let socket = netlink_socket(Some(netlink::NETFILTER))?;
    // The family (0: all), the version and the resource.
    let mut answer = ask(&socket, GET_TABLE, REQUEST_DUMP, &[0; 4])?;
    let mut tables = 0;
    loop {
        let mut rest = &answer[..];
        while let Some((head, _)) = rest.split_at_checked(16) {
            let size = u32::from_ne_bytes([head[0], head[1], head[2], head[3]]) as usize;
            match u16::from_ne_bytes([head[4], head[5]]) {
                DONE => return Ok(tables),
                ERROR => return Err(io::Error::other("the kernel refuses to list nftables tables")),
                NEW_TABLE => tables += 1,
                _ => {}
            }
            rest = rest.get(size.next_multiple_of(4)..).unwrap_or_default();
        }
        answer = receive(&socket)?;
    }
}
