//! What this program does when it is started again: the server or client in a container, or a host program.

use crate::{Cannot, Tested, chain};
use rdock_runtime::image::Progress;
use rdock_runtime::{ContainerSpec, Mount, PortMapping, Ready, Runtime, ScopedContainer};
use std::io::{BufRead, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// The port of [`serve`].
pub(crate) const PORT: u16 = 8080;
const PROGRAM: &str = "/test";

pub(crate) fn play(role: &str) -> ExitCode {
    let played = match role {
        "serve" => serve(),
        "fetch" => fetch(),
        "read" => read(),
        "dial" => dial(),
        "ask" => ask(),
        "usurp" => usurp(),
        "shout" => shout(),
        "lab" => crate::lab::play(),
        "host" => host(),
        "probe" => crate::probe::play(),
        "waits" => crate::children::waits(),
        "signalled" => crate::children::signalled(),
        "ignores" => crate::children::ignores(),
        "hook" => crate::hooks::play(),
        "gpu-host" => crate::gpus::play_host(),
        "terminal" => crate::attacks::with_terminal(),
        _ => Err(format!("no such role: {role}").into()),
    };
    match played {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stdout(), "failed: {}", chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn variable(name: &str) -> Tested<String> {
    Ok(std::env::var(name).map_err(|_| format!("{name} is not set"))?)
}

/// Both families where the container has IPv6.
fn any_address() -> IpAddr {
    match TcpListener::bind((std::net::Ipv6Addr::UNSPECIFIED, 0)) {
        Ok(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
        Err(_) => Ipv4Addr::UNSPECIFIED.into(),
    }
}

/// Tells each client who it is, by TCP and UDP, after `DELAY` milliseconds.
fn serve() -> Tested {
    std::thread::sleep(Duration::from_millis(
        variable("DELAY").unwrap_or_default().parse().unwrap_or(0),
    ));
    let any = any_address();
    let datagrams = UdpSocket::bind((any, PORT))?;
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, from)) = datagrams.recv_from(&mut buffer) {
            let _ = datagrams.send_to(format!("you are {}", from.ip().to_canonical()).as_bytes(), from);
        }
    });
    let listener = TcpListener::bind((any, PORT))?;
    loop {
        let (mut client, from) = listener.accept()?;
        // A client that has left is its own loss.
        let _ = client.write_all(format!("you are {}", from.ip().to_canonical()).as_bytes());
    }
}

/// Prints what a server at `ADDRESS` says.
fn fetch() -> Tested {
    writeln!(std::io::stdout(), "{}", get(variable("ADDRESS")?.parse()?)?)?;
    Ok(())
}

/// Prints what a server at `TO`, a name or an address with a port, says, if it answers in `PATIENCE` milliseconds.
fn dial() -> Tested {
    use std::net::ToSocketAddrs;
    let to = variable("TO")?;
    let address = to.to_socket_addrs()?.next().ok_or("no address")?;
    let patience = std::env::var("PATIENCE").map_or(Ok(2000), |text| text.parse())?;
    let answer = get_within(address, Duration::from_millis(patience))?;
    writeln!(std::io::stdout(), "{answer}")?;
    Ok(())
}

/// Takes the address `VICTIM` (or the hardware address `MAC`) and calls `PEER` with it; prints what comes back.
fn usurp() -> Tested {
    /// Of a container's first interface.
    const INTERFACE: u32 = 64;
    let socket = crate::host::Socket::open(None)?;
    let (victim, peer): (Ipv4Addr, Ipv4Addr) = (variable("VICTIM")?.parse()?, variable("PEER")?.parse()?);
    let mut from = victim;
    match std::env::var("MAC") {
        Ok(text) => {
            let mut mac = [0; 6];
            for (byte, text) in mac.iter_mut().zip(text.split(':')) {
                *byte = u8::from_str_radix(text, 16)?;
            }
            socket.hardware(INTERFACE, mac)?;
            from = variable("OWN")?.parse()?;
        }
        // More precise than the container's own, so that it is preferred.
        Err(_) => socket.address(INTERFACE, victim, 24)?,
    }
    let socket = UdpSocket::bind((from, 0))?;
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    let mut answer = [0; 64];
    for _ in 0..10 {
        socket.send_to(b"who am I", (peer, PORT))?;
        if let Ok((size, _)) = socket.recv_from(&mut answer) {
            let answer = String::from_utf8_lossy(&answer[..size]).into_owned();
            writeln!(std::io::stdout(), "{answer}")?;
            return Ok(());
        }
    }
    writeln!(std::io::stdout(), "no answer")?;
    Ok(())
}

/// Prints what a server at `TO` says by UDP, if it answers in `PATIENCE` milliseconds.
fn shout() -> Tested {
    let patience = Duration::from_millis(variable("PATIENCE")?.parse()?);
    writeln!(std::io::stdout(), "{}", call(variable("TO")?.parse()?, patience)?)?;
    Ok(())
}

/// Asks a server by UDP; the first datagram may be lost while addresses are found.
pub(crate) fn call(address: SocketAddr, patience: Duration) -> std::io::Result<String> {
    let any: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(address)?;
    socket.set_read_timeout(Some(patience / 3))?;
    let mut answer = [0; 64];
    let mut last = std::io::ErrorKind::TimedOut.into();
    for _ in 0..3 {
        socket.send(b"who am I")?;
        match socket.recv(&mut answer) {
            Ok(size) => return Ok(String::from_utf8_lossy(&answer[..size]).into_owned()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Prints the records of `NAME` that the container's resolver knows, of one `KIND`, by `BY` (udp or tcp); or its code.
fn ask() -> Tested {
    use simple_dns::rdata::RData;
    use simple_dns::{CLASS, Name, Packet, PacketFlag, Question, RCODE, TYPE};
    let (name, kind) = (variable("NAME")?, variable("KIND")?);
    let kind = match kind.as_str() {
        "A" => TYPE::A,
        "AAAA" => TYPE::AAAA,
        "PTR" => TYPE::PTR,
        other => return Err(format!("{other}?").into()),
    };
    let mut query = Packet::new_query(77);
    query.set_flags(PacketFlag::RECURSION_DESIRED);
    query.questions.push(Question::new(
        Name::new(&name)?,
        kind.into(),
        CLASS::IN.into(),
        false,
    ));
    let query = query.build_bytes_vec()?;
    let answer = if variable("BY")? == "tcp" {
        let mut stream = TcpStream::connect("127.0.0.11:53")?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(&(query.len() as u16).to_be_bytes())?;
        stream.write_all(&query)?;
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut answer)?;
        answer
    } else {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.set_read_timeout(Some(Duration::from_secs(10)))?;
        socket.connect("127.0.0.11:53")?;
        socket.send(&query)?;
        let mut answer = vec![0; 4096];
        let size = socket.recv(&mut answer)?;
        answer.truncate(size);
        answer
    };
    let packet = Packet::parse(&answer)?;
    if packet.rcode() != RCODE::NoError {
        writeln!(std::io::stdout(), "{:?}", packet.rcode())?;
        return Ok(());
    }
    let records: Vec<String> = packet
        .answers
        .iter()
        .map(|record| match &record.rdata {
            RData::A(a) => Ipv4Addr::from_bits(a.address).to_string(),
            RData::AAAA(a) => std::net::Ipv6Addr::from_bits(a.address).to_string(),
            RData::PTR(name) => name.0.to_string(),
            other => format!("{other:?}"),
        })
        .collect();
    writeln!(std::io::stdout(), "{}", records.join(" "))?;
    Ok(())
}

/// Prints the files named by `FILES`.
fn read() -> Tested {
    for file in variable("FILES")?.split(' ') {
        write!(
            std::io::stdout(),
            "{}",
            std::fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?
        )?;
    }
    Ok(())
}

pub(crate) fn get(address: SocketAddr) -> std::io::Result<String> {
    get_within(address, Duration::from_secs(2))
}

pub(crate) fn get_within(address: SocketAddr, patience: Duration) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, patience)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// A host program with one container: says where it is, then does what it is told, line by line.
fn host() -> Tested {
    let root = variable("RDOCK_TEST_ROOT")?;
    let tokio = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    tokio.block_on(async {
        let runtime = Runtime::open(&root)?;
        load(&runtime)?;
        let container = server()?
            .publish(PortMapping::tcp(PORT).on_every_address())
            .publish(PortMapping::tcp(PORT))
            .ready_when(Ready::port(PORT))
            .start(&runtime)
            .await?;
        let info = container.inspect()?;
        let port = |loopback| {
            let mut ports = info
                .ports
                .iter()
                .filter(|port| port.host.ip().is_loopback() == loopback);
            ports.next().map(|port| port.host.port()).ok_or("no such port")
        };
        let mut out = std::io::stdout();
        let address = info.ip_address.clone().ok_or("no address")?;
        writeln!(
            out,
            "{address} {} {} {}",
            port(false)?,
            port(true)?,
            info.warnings.len()
        )?;
        for line in std::io::stdin().lock().lines() {
            let line = line?;
            let answer = match line.split_once(' ') {
                Some(("fetch", address)) => run_inside(&container, "fetch", ("ADDRESS", address)).await?,
                Some(("read", files)) => run_inside(&container, "read", ("FILES", files)).await?,
                _ => format!("what? {line}"),
            };
            writeln!(out, "{}", answer.trim().replace('\n', "|"))?;
        }
        container.remove().await?;
        Ok(())
    })
}

/// Runs a role of this program in the container; its output, errors included.
pub(crate) async fn run_inside(
    container: &ScopedContainer,
    role: &str,
    variable: (&str, &str),
) -> Tested<String> {
    let exec = container
        .exec([PROGRAM])
        .env("RDOCK_TEST_ROLE", role)
        .env(variable.0, variable.1);
    let output = exec.output().await?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr))
}

/// A container that runs [`serve`]: an empty image, this program, and the host's libraries.
pub(crate) fn server() -> Tested<ContainerSpec> {
    let mut spec = ContainerSpec::new("empty")
        .args([PROGRAM])
        .env("RDOCK_TEST_ROLE", "serve")
        .mount(Mount::bind(std::env::current_exe()?, PROGRAM).read_only());
    for folder in ["/lib", "/lib64", "/usr/lib", "/usr/lib64"] {
        if let Ok(source) = Path::new(folder).canonicalize() {
            spec = spec.mount(Mount::bind(source, folder).read_only());
        }
    }
    Ok(spec)
}

/// Imports an image with one empty layer.
pub(crate) fn load(runtime: &Runtime) -> Tested {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => return Err(Cannot(format!("no image for {other}")).into()),
    };
    // The digest of an archive without members: 1,024 zero bytes.
    let empty = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef";
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
    runtime
        .images()
        .import_stream(&mut archive.into_inner()?.as_slice(), &Progress::default())?;
    Ok(())
}

/// The address on the loopback interface with a port.
pub(crate) fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}
