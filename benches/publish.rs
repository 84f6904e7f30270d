//! What a published port costs: throughput and latency of a TCP connection, on loopback and from another namespace.
//!
//! `cargo bench --bench publish [-- --rounds N --megabytes N]`, as root. All of it happens in network namespaces of
//! this program. Sender and receiver are this program too. docker-proxy, rootlesskit with slirp4netns, and nft for
//! the rules that docker sets take part when they are installed; `ip` lays their cables.
#![allow(clippy::print_stdout)]

#[allow(dead_code)]
mod support;

use nix::sched::{CloneFlags, unshare};
use rdock_runtime::image::Progress;
use rdock_runtime::{
    ContainerSpec, Mount, PortForwarding, PortMapping, Ready, Runtime, ScopedContainer, blocking,
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};
use support::ground::run;
use support::rows::report;
use support::{Outcome, installed, number};

/// Of the server, wherever it is.
const PORT: u16 = 8080;
const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const LAN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const CONTAINER: Ipv4Addr = Ipv4Addr::new(10, 50, 0, 2);
/// Bytes that go to and fro, and how often in a measurement.
const PING: usize = 64;
const PINGS: u32 = 2000;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    report(match words.first().map(String::as_str) {
        Some("serve") => serve(),
        _ => compare(),
    })
}

/// Counts what a client sends after `t`, gives back what it sends after anything else.
fn serve() -> Outcome {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT))?;
    loop {
        let (mut client, _) = listener.accept()?;
        std::thread::spawn(move || -> std::io::Result<()> {
            client.set_nodelay(true)?;
            let mut kind = [0];
            client.read_exact(&mut kind)?;
            let mut buffer = vec![0; 128 << 10];
            let mut count = 0u64;
            loop {
                let size = client.read(&mut buffer)?;
                if kind[0] == b't' {
                    count += size as u64;
                    if size == 0 {
                        return client.write_all(&count.to_be_bytes());
                    }
                } else if size == 0 {
                    return Ok(());
                } else {
                    client.write_all(&buffer[..size])?;
                }
            }
        });
    }
}

/// Seconds for `megabytes` from the first byte to the count that comes back.
fn throughput(to: SocketAddr, megabytes: usize) -> Outcome<f64> {
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(5))?;
    let chunk = vec![7; 1 << 20];
    let start = Instant::now();
    stream.write_all(b"t")?;
    for _ in 0..megabytes {
        stream.write_all(&chunk)?;
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut count = [0; 8];
    stream.read_exact(&mut count)?;
    let seconds = start.elapsed().as_secs_f64();
    match u64::from_be_bytes(count) == (megabytes as u64) << 20 {
        true => Ok(seconds),
        false => Err("bytes were lost".into()),
    }
}

/// Seconds of one round trip.
fn latency(to: SocketAddr) -> Outcome<f64> {
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(5))?;
    stream.set_nodelay(true)?;
    stream.write_all(b"l")?;
    let (ping, mut pong) = ([7; PING], [0; PING]);
    let mut start = Instant::now();
    for round in 0..PINGS + 100 {
        if round == 100 {
            start = Instant::now();
        }
        stream.write_all(&ping)?;
        stream.read_exact(&mut pong)?;
    }
    Ok(start.elapsed().as_secs_f64() / f64::from(PINGS))
}

struct Row {
    name: &'static str,
    to: SocketAddr,
    lan: bool,
    seconds: Vec<f64>,
    trips: Vec<f64>,
}

impl Row {
    fn new(name: &'static str, to: impl Into<SocketAddr>, lan: bool) -> Self {
        Self {
            name,
            to: to.into(),
            lan,
            seconds: Vec::new(),
            trips: Vec::new(),
        }
    }

    fn measure(&mut self, lan: &File, megabytes: usize) -> Outcome {
        let (to, there) = (self.to, self.lan);
        let work = move |lan: File| -> Result<(f64, f64), String> {
            if there {
                move_into_link_name_space(lan.as_fd(), Some(LinkNameSpaceType::Network))
                    .map_err(|error| error.to_string())?;
            }
            let text = |error: Box<dyn std::error::Error>| error.to_string();
            Ok((
                throughput(to, megabytes).map_err(text)?,
                latency(to).map_err(text)?,
            ))
        };
        let lan = lan.try_clone()?;
        let done = std::thread::spawn(move || work(lan)).join();
        let (seconds, trip) = done
            .map_err(|_| "a thread panicked")?
            .map_err(|error| format!("{}: {error}", self.name))?;
        self.seconds.push(seconds);
        self.trips.push(trip);
        Ok(())
    }
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Ends with this program.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn ip(words: &str) -> Outcome {
    run(Command::new("ip").args(words.split(' ')))
}

/// A program in a new network namespace, behind a cable to this one.
fn in_namespace(cable: &str, address: &str, command: &mut Command) -> Outcome<Running> {
    let child = Running(command.stdout(Stdio::null()).spawn()?);
    let pid = child.0.id();
    // It has entered its namespace once that is another one than ours.
    let deadline = Instant::now() + Duration::from_secs(5);
    let of = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/net"));
    while of("self")? == of(&pid.to_string())? {
        if Instant::now() > deadline {
            return Err("no network namespace".into());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    ip(&format!("link add {cable} type veth peer name eth0 netns {pid}"))?;
    ip(&format!("link set {cable} up"))?;
    for words in [
        "link set lo up",
        "link set eth0 up",
        &format!("addr add {address} dev eth0"),
    ] {
        run(Command::new("nsenter")
            .args(["-t", &pid.to_string(), "-n", "ip"])
            .args(words.split(' ')))?;
    }
    Ok(child)
}

fn server(
    runtime: &Runtime,
    ports: Vec<PortMapping>,
    forwarding: PortForwarding,
) -> Outcome<ScopedContainer> {
    let mut spec = ContainerSpec::new("empty")
        .args(["/bench", "serve"])
        .port_forwarding(forwarding)
        .ready_when(Ready::port(PORT))
        .mount(Mount::bind(std::env::current_exe()?, "/bench").read_only());
    spec.ports = ports;
    for folder in ["/lib", "/lib64", "/usr/lib", "/usr/lib64"] {
        if let Ok(source) = Path::new(folder).canonicalize() {
            spec = spec.mount(Mount::bind(source, folder).read_only());
        }
    }
    let container = blocking::wait(spec.start(runtime))??;
    for warning in container.inspect()?.warnings {
        println!("warning: {warning}");
    }
    Ok(container)
}

/// An image with one empty layer.
fn image() -> Outcome<Vec<u8>> {
    let empty = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef";
    let architecture = if cfg!(target_arch = "aarch64") {
        "arm64"
    } else {
        "amd64"
    };
    let config = format!(
        r#"{{"architecture":"{architecture}","os":"linux","config":{{}},"rootfs":{{"type":"layers","diff_ids":["{empty}"]}}}}"#
    );
    let manifest = r#"[{"Config":"config.json","RepoTags":["empty:latest"],"Layers":["layer.tar"]}]"#;
    let mut archive = tar::Builder::new(Vec::new());
    for (name, bytes) in [
        ("config.json", config.as_bytes()),
        ("layer.tar", &[0; 1024]),
        ("manifest.json", manifest.as_bytes()),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, bytes)?;
    }
    Ok(archive.into_inner()?)
}

fn compare() -> Outcome {
    let (rounds, megabytes) = (number("--rounds", 9)?, number("--megabytes", 512)?);
    // Before there is a second thread: this is "the host" from now on.
    unshare(CloneFlags::CLONE_NEWNET)?;
    ip("link set lo up")?;
    let lan_holder = in_namespace(
        "lan",
        &format!("{LAN}/24"),
        Command::new("unshare").args(["-n", "sleep", "3600"]),
    )?;
    ip(&format!("addr add {HOST}/24 dev lan"))?;
    ip(&format!("route add default via {LAN}"))?;
    // As on a host of docker, before rdock: a host that is no router would become none to docker either.
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
    let lan = File::open(format!("/proc/{}/ns/net", lan_holder.0.id()))?;

    let root = tempfile::tempdir()?;
    let runtime = Runtime::open(root.path())?;
    runtime
        .images()
        .import_stream(&mut image()?.as_slice(), &Progress::default())?;
    let exe = std::env::current_exe()?;
    let every = |port| {
        PortMapping::tcp(PORT)
            .on_host(port)
            .on_address(Ipv4Addr::UNSPECIFIED)
    };
    let _splice = server(&runtime, vec![every(9001)], PortForwarding::Splice)?;
    let _kernel = server(&runtime, vec![every(9002)], PortForwarding::Kernel)?;
    let mut rows = vec![
        Row::new("loopback: rdock, splice", (Ipv4Addr::LOCALHOST, 9001), false),
        Row::new("from outside: rdock, splice", (HOST, 9001), true),
        Row::new("from outside: rdock, kernel", (HOST, 9002), true),
    ];
    let mut absent = Vec::new();
    let mut running = vec![lan_holder];

    // What a container of docker is: behind a bridge.
    let mut command = Command::new("unshare");
    running.push(in_namespace(
        "port",
        &format!("{CONTAINER}/16"),
        command.arg("-n").arg(&exe).arg("serve"),
    )?);
    let peer = running.last().map_or(0, |peer| peer.0.id()).to_string();
    for words in [
        "link add docker0 type bridge",
        "link set port master docker0",
        "link set docker0 up",
        "addr add 10.50.0.1/16 dev docker0",
    ] {
        ip(words)?;
    }
    run(Command::new("nsenter").args([
        "-t",
        &peer,
        "-n",
        "ip",
        "route",
        "add",
        "default",
        "via",
        "10.50.0.1",
    ]))?;
    rows.push(Row::new(
        "loopback: no forwarding, a bridge",
        (CONTAINER, PORT),
        false,
    ));
    match installed("docker-proxy") {
        Some(program) => {
            // It tells its parent on descriptor 3 that it listens.
            let line = format!(
                "exec {} -proto tcp -host-ip 0.0.0.0 -host-port 9003 -container-ip {CONTAINER} \
                 -container-port {PORT} 3>/dev/null",
                program.display()
            );
            let child = Command::new("sh")
                .args(["-c", &line])
                .stdout(Stdio::null())
                .spawn()?;
            let deadline = Instant::now() + Duration::from_secs(5);
            while TcpStream::connect((Ipv4Addr::LOCALHOST, 9003)).is_err() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(10));
            }
            running.push(Running(child));
            rows.push(Row::new(
                "loopback: docker-proxy",
                (Ipv4Addr::LOCALHOST, 9003),
                false,
            ));
            rows.push(Row::new("from outside: docker-proxy", (HOST, 9003), true));
        }
        None => absent.push("docker-proxy is not installed"),
    }
    match installed("nft") {
        Some(program) => {
            let rules = format!(
                "add table ip docker\n\
                 add chain ip docker pre {{ type nat hook prerouting priority -100; }}\n\
                 add rule ip docker pre fib daddr type local tcp dport 9004 dnat to {CONTAINER}:{PORT}\n\
                 add chain ip docker post {{ type nat hook postrouting priority 100; }}\n\
                 add rule ip docker post ip saddr 10.50.0.0/16 oifname != \"docker0\" masquerade\n"
            );
            let file = root.path().join("rules");
            std::fs::write(&file, rules)?;
            run(Command::new(program).arg("-f").arg(file))?;
            rows.push(Row::new("from outside: docker's rules", (HOST, 9004), true));
        }
        None => absent.push("nft is not installed: no docker rules"),
    }
    match (installed("rootlesskit"), installed("slirp4netns")) {
        (Some(program), Some(_)) => {
            let child = Command::new(program)
                .args([
                    "--net=slirp4netns",
                    "--port-driver=builtin",
                    "--disable-host-loopback",
                ])
                .args(["-p", &format!("127.0.0.1:9005:{PORT}/tcp")])
                .arg(&exe)
                .arg("serve")
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()?;
            running.push(Running(child));
            std::thread::sleep(Duration::from_secs(2));
            let row = Row::new(
                "loopback: rootlesskit, builtin",
                (Ipv4Addr::LOCALHOST, 9005),
                false,
            );
            match latency(row.to) {
                Ok(_) => rows.push(row),
                Err(_) => absent.push("rootlesskit did not start here (it is made for users without root)"),
            }
        }
        _ => absent.push("rootlesskit or slirp4netns is not installed"),
    }

    for round in 0..=rounds {
        for row in &mut rows {
            row.measure(&lan, megabytes)?;
            if round == 0 {
                // Addresses are found, windows have grown.
                row.seconds.clear();
                row.trips.clear();
            }
        }
    }
    show(&rows, &absent, megabytes, rounds);
    Ok(())
}

fn show(rows: &[Row], absent: &[&str], megabytes: usize, rounds: usize) {
    println!(
        "\na published TCP port: medians of {rounds} rounds in turns, {megabytes} MiB and {PINGS} round trips each\n"
    );
    println!("{:<36} {:>12} {:>14}", "", "MiB/s", "us a trip");
    let value = |row: &Row| (megabytes as f64 / median(&row.seconds), median(&row.trips) * 1e6);
    for row in rows {
        let (speed, trip) = value(row);
        println!("{:<36} {speed:>12.0} {trip:>14.1}", row.name);
    }
    println!();
    let find = |name: &str| rows.iter().find(|row| row.name == name).map(value);
    for (ours, theirs) in [
        ("loopback: rdock, splice", "loopback: docker-proxy"),
        ("loopback: rdock, splice", "loopback: rootlesskit, builtin"),
        ("from outside: rdock, splice", "from outside: docker-proxy"),
        ("from outside: rdock, kernel", "from outside: docker's rules"),
    ] {
        if let (Some(our), Some(their)) = (find(ours), find(theirs)) {
            println!(
                "{ours} against {theirs}: throughput x {:.2}, latency x {:.2}",
                our.0 / their.0,
                our.1 / their.1
            );
        }
    }
    for absent in absent {
        println!("absent: {absent}");
    }
}
