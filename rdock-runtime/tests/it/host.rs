//! An imitated host: network namespaces of a host, which may have Docker's firewall, and of its neighbour in the LAN.

use crate::{Cannot, Tested};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::{Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// The host's address in the LAN.
pub(crate) const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// Both in IPv6.
pub(crate) const HOST6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
pub(crate) const NEIGHBOUR6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
/// The neighbour's.
pub(crate) const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// "The outside": an address behind the neighbour, with a server that tells clients who they are.
pub(crate) const OUTSIDE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7)), 80);

/// A host program in a host of its own.
pub(crate) struct Host {
    /// The host's namespace.
    pub(crate) here: OwnedFd,
    /// The neighbour's.
    pub(crate) lan: OwnedFd,
    root: PathBuf,
    program: Program,
}

/// A host program with one container.
pub(crate) struct Program {
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    /// The container's address.
    pub(crate) container: Ipv4Addr,
    /// Its port on every address of the host.
    pub(crate) port: u16,
    /// Its port on the host's loopback interface alone.
    pub(crate) loopback_port: u16,
    pub(crate) warnings: usize,
}

/// What the host's firewall is like.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Firewall {
    None,
    /// FORWARD drops, after Docker's chain for the rules of others.
    Docker,
    /// FORWARD drops, and there is no such chain.
    Drop,
}

/// The namespaces of a host and of its neighbour in the LAN, with "the outside" behind it.
pub(crate) fn lay_host(firewall: Firewall) -> Tested<(OwnedFd, OwnedFd)> {
    crate::needs_root()?;
    let (here, lan) = (new_namespace()?, new_namespace()?);
    let neighbour = lan.try_clone()?;
    inside(&here, move || lay_cable(neighbour))??;
    inside(&lan, || {
        let route = Socket::open(None)?;
        route.up(1)?;
        route.up(INDEX)?;
        route.address(1, Ipv4Addr::new(198, 51, 100, 7), 32)?;
        route.address(INDEX, NEIGHBOUR, 24)?;
        route.address(INDEX, NEIGHBOUR6, 64)?;
        let listener = TcpListener::bind(OUTSIDE)?;
        std::thread::spawn(move || {
            while let Ok((mut client, from)) = listener.accept() {
                let _ = client.write_all(format!("you are {}", from.ip()).as_bytes());
            }
        });
        std::io::Result::Ok(())
    })??;
    if firewall != Firewall::None {
        inside(&here, move || {
            Socket::open(Some(NETFILTER))?.batch(&docker(firewall))
        })?
        .map_err(|error| Cannot(format!("nftables: {error}")))?;
    }
    Ok((here, lan))
}

impl Host {
    pub(crate) fn start(root: &Path, firewall: Firewall) -> Tested<Self> {
        let (here, lan) = lay_host(firewall)?;
        let program = Program::start(&here, root)?;
        Ok(Self {
            here,
            lan,
            root: root.into(),
            program,
        })
    }

    /// One more program with the same root.
    pub(crate) fn another(&self) -> Tested<Program> {
        Program::start(&self.here, &self.root)
    }

    /// Addresses of the host's and the network's end of the uplink.
    pub(crate) fn uplink(&self) -> Tested<(Ipv4Addr, Ipv4Addr)> {
        let file = std::fs::read(self.root.join("networks/default/network.json"))?;
        let record: serde_json::Value = serde_json::from_slice(&file)?;
        let field = |name: &str| record["uplink"][name].as_str().unwrap_or_default().parse();
        Ok((field("host")?, field("inside")?))
    }

    /// What a client in the LAN gets.
    pub(crate) fn get_from_lan(&self, address: impl Into<SocketAddr>) -> Tested<std::io::Result<String>> {
        let address = address.into();
        inside(&self.lan, move || crate::payload::get(address))
    }

    /// Makes the LAN send packets for the container by the host, and the host by the uplink.
    pub(crate) fn route_everything_to_the_container(&self) -> Tested {
        let (container, (_, inner)) = (self.container, self.uplink()?);
        inside(&self.lan, move || Socket::open(None)?.route(container, 32, HOST))??;
        inside(&self.lan, move || Socket::open(None)?.route(inner, 32, HOST))??;
        inside(&self.here, move || {
            Socket::open(None)?.route(container, 32, inner)
        })??;
        Ok(())
    }

    /// `nft flush ruleset`.
    pub(crate) fn flush_ruleset(&self) -> Tested {
        Ok(inside(&self.here, || {
            Socket::open(Some(NETFILTER))?.batch(&[(DEL_TABLE, 0, 0, Vec::new())])
        })??)
    }

    /// How many rules Docker's chain for others has.
    pub(crate) fn docker_user_rules(&self) -> Tested<usize> {
        Ok(inside(&self.here, || {
            let rules = Socket::open(Some(NETFILTER))?.dump(&nft(GET_RULE, NLM_F_DUMP, IPV4, &[]))?;
            let in_chain = |rule: &&Vec<u8>| rule.windows(12).any(|bytes| bytes == b"DOCKER-USER\0");
            // The rule that jumps there is of another chain.
            let of_forward = |rule: &Vec<u8>| rule.windows(8).any(|bytes| bytes == b"FORWARD\0");
            std::io::Result::Ok(
                rules
                    .iter()
                    .filter(in_chain)
                    .filter(|rule| !of_forward(rule))
                    .count(),
            )
        })??)
    }

    /// Whether packets that come in by the host's `eth0` may go on.
    pub(crate) fn forwards(&self) -> Tested<bool> {
        let setting = "/proc/sys/net/ipv4/conf/eth0/forwarding";
        Ok(inside(&self.here, move || std::fs::read(setting))??.starts_with(b"1"))
    }

    /// A network that only the host is in, by its `eth1`.
    pub(crate) fn network_behind(&self) -> Tested<OwnedFd> {
        let there = new_namespace()?;
        let end = there.try_clone()?;
        inside(&self.here, move || {
            let route = Socket::open(None)?;
            route.cable(BEHIND, "eth1", &end)?;
            route.address(BEHIND, Ipv4Addr::new(203, 0, 113, 1), 24)
        })??;
        inside(&there, || {
            let route = Socket::open(None)?;
            route.up(BEHIND)?;
            route.address(BEHIND, SECRET, 24)
        })??;
        inside(&self.lan, || Socket::open(None)?.route(SECRET, 32, HOST))??;
        Ok(there)
    }

    /// Whether a datagram of the LAN gets to the network behind the host.
    pub(crate) fn lan_reaches(&self, behind: &OwnedFd) -> Tested<bool> {
        let listener = inside(behind, || {
            let socket = std::net::UdpSocket::bind((SECRET, 0))?;
            socket.set_read_timeout(Some(std::time::Duration::from_millis(200)))?;
            std::io::Result::Ok(socket)
        })??;
        let to = listener.local_addr()?;
        // The first ones may be lost while addresses are being resolved.
        for _ in 0..5 {
            inside(&self.lan, move || {
                std::net::UdpSocket::bind((NEIGHBOUR, 0))?
                    .send_to(b"hello", to)
                    .map(drop)
            })??;
            if listener.recv(&mut [0; 9]).is_ok() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Makes the host a router.
    pub(crate) fn forward(&self) -> Tested {
        Ok(inside(&self.here, || {
            std::fs::write("/proc/sys/net/ipv4/conf/eth0/forwarding", "1")
        })??)
    }

    /// Ends the program in an orderly way.
    pub(crate) fn end(&mut self) -> Tested {
        self.program.orders = None;
        self.program.child.wait()?;
        Ok(())
    }

    /// Opens the root again, as a program that comes later does.
    pub(crate) fn open_again(&self) -> Tested {
        let root = self.root.clone();
        inside(&self.here, move || rdock_runtime::Runtime::open(root).map(drop))??;
        Ok(())
    }
}

impl std::ops::Deref for Host {
    type Target = Program;

    fn deref(&self) -> &Program {
        &self.program
    }
}

impl std::ops::DerefMut for Host {
    fn deref_mut(&mut self) -> &mut Program {
        &mut self.program
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // A program that ends at once leaves the end of its network to the next one: here that is this one, so that
        // nothing stays noted for a host that is gone.
        for _ in 0..20 {
            let ended = self.end().and_then(|()| self.open_again()).is_err();
            if ended || !self.forwards().unwrap_or(false) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(25));
        }
    }
}

impl Program {
    fn start(here: &OwnedFd, root: &Path) -> Tested<Self> {
        let mut child = spawn(here, root)?;
        let orders = child.stdin.take();
        let mut answers = BufReader::new(child.stdout.take().ok_or("no output")?);
        let mut line = String::new();
        answers.read_line(&mut line)?;
        let words: Vec<_> = line.split_whitespace().collect();
        let [container, port, loopback_port, warnings] = words[..] else {
            return Err(format!("the host program says {line:?}").into());
        };
        Ok(Self {
            container: container.parse()?,
            port: port.parse()?,
            loopback_port: loopback_port.parse()?,
            warnings: warnings.parse()?,
            child,
            orders,
            answers,
        })
    }

    /// Has the host program do something in the container.
    pub(crate) fn order(&mut self, order: &str) -> Tested<String> {
        let orders = self.orders.as_mut().ok_or("no input")?;
        writeln!(orders, "{order}")?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        Ok(line.trim().into())
    }

    /// kill -9 for the host program.
    pub(crate) fn kill(&mut self) -> Tested {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // The end of its input ends it, and its container in an orderly way.
        self.orders = None;
        let _ = self.child.wait();
    }
}

fn spawn(here: &OwnedFd, root: &Path) -> Tested<Child> {
    let (program, root) = (std::env::current_exe()?, root.to_owned());
    // A child begins in the namespace of the thread that makes it.
    Ok(inside(here, move || {
        Command::new(program)
            .env("RDOCK_TEST_ROLE", "host")
            .env("RDOCK_TEST_ROOT", root)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
    })??)
}

fn new_namespace() -> Tested<OwnedFd> {
    let made = std::thread::spawn(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)?;
        std::fs::File::open("/proc/thread-self/ns/net")
    });
    let namespace = made.join().map_err(|_| "the thread panicked")?;
    Ok(namespace
        .map_err(|error| Cannot(format!("no network namespace: {error}")))?
        .into())
}

/// Runs `work` on a thread in the namespace.
pub(crate) fn inside<T: Send + 'static>(
    namespace: &OwnedFd,
    work: impl FnOnce() -> T + Send + 'static,
) -> Tested<T> {
    let namespace = namespace.try_clone()?;
    let thread = std::thread::spawn(move || {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).map(|()| work())
    });
    Ok(thread.join().map_err(|_| "the thread panicked")??)
}

/// `eth0` of the host and its other end in the LAN, addresses and the default route.
fn lay_cable(lan: OwnedFd) -> std::io::Result<()> {
    let route = Socket::open(None)?;
    route.up(1)?;
    route.cable(INDEX, "eth0", &lan)?;
    route.address(INDEX, HOST, 24)?;
    route.address(INDEX, HOST6, 64)?;
    route.route(Ipv4Addr::UNSPECIFIED, 0, NEIGHBOUR)
}

/// Of `eth0` and of its other end.
const INDEX: u32 = 20;
/// Of `eth1`.
const BEHIND: u32 = 21;
/// An address behind the host.
const SECRET: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);

/// A netlink socket.
pub(crate) struct Socket(OwnedFd);

impl Socket {
    pub(crate) fn open(protocol: Option<Protocol>) -> std::io::Result<Self> {
        let family = rustix::net::AddressFamily::NETLINK;
        let socket = rustix::net::socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
        rustix::net::bind(&socket, &SocketAddrNetlink::new(0, 0))?;
        Ok(Self(socket))
    }

    fn request(&self, message: RouteNetlinkMessage) -> std::io::Result<()> {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.send(&bytes)
    }

    /// Sends, and takes the one answer.
    fn send(&self, bytes: &[u8]) -> std::io::Result<()> {
        rustix::net::send(&self.0, bytes, SendFlags::empty())?;
        let mut answer = [0; 4096];
        rustix::net::recv(&self.0, &mut answer[..], RecvFlags::empty())?;
        match i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]]) {
            0 => Ok(()),
            error => Err(std::io::Error::from_raw_os_error(-error)),
        }
    }

    fn dump(&self, bytes: &[u8]) -> std::io::Result<Vec<Vec<u8>>> {
        rustix::net::send(&self.0, bytes, SendFlags::empty())?;
        let mut all = Vec::new();
        loop {
            let mut buffer = vec![0; 64 << 10];
            let (size, _) = rustix::net::recv(&self.0, &mut buffer[..], RecvFlags::empty())?;
            let mut rest = &buffer[..size];
            while rest.len() >= 16 {
                let length = u32::from_ne_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
                // NLMSG_DONE ends it, NLMSG_ERROR too.
                if u16::from_ne_bytes([rest[4], rest[5]]) < 16 {
                    return Ok(all);
                }
                all.push(rest[16..length].to_vec());
                rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
            }
        }
    }

    /// A veth pair; both ends have the index, the other one is in `there` and down.
    fn cable(&self, index: u32, name: &str, there: &OwnedFd) -> std::io::Result<()> {
        let mut end = LinkMessage::default();
        end.header.index = index;
        let mut other = end.clone();
        other.attributes = vec![
            LinkAttribute::IfName("lan0".into()),
            LinkAttribute::NetNsFd(there.as_raw_fd()),
        ];
        end.attributes = vec![
            LinkAttribute::IfName(name.into()),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Veth),
                LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(other))),
            ]),
        ];
        self.request(RouteNetlinkMessage::NewLink(end))?;
        // Not before the other end exists.
        self.up(index)
    }

    fn up(&self, index: u32) -> std::io::Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.header.flags = LinkFlags::Up;
        link.header.change_mask = LinkFlags::Up;
        self.request(RouteNetlinkMessage::SetLink(link))
    }

    /// Gives an interface another hardware address.
    pub(crate) fn hardware(&self, index: u32, mac: [u8; 6]) -> std::io::Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.attributes = vec![LinkAttribute::Address(mac.to_vec())];
        self.request(RouteNetlinkMessage::SetLink(link))
    }

    pub(crate) fn address(&self, index: u32, ip: impl Into<IpAddr>, prefix: u8) -> std::io::Result<()> {
        let ip = ip.into();
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        if ip.is_ipv6() {
            message.header.family = AddressFamily::Inet6;
            message.header.flags = AddressHeaderFlags::Nodad;
        }
        message.header.prefix_len = prefix;
        message.header.index = index;
        message.attributes = vec![AddressAttribute::Local(ip), AddressAttribute::Address(ip)];
        self.request(RouteNetlinkMessage::NewAddress(message))
    }

    fn route(&self, to: Ipv4Addr, prefix: u8, via: Ipv4Addr) -> std::io::Result<()> {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.destination_prefix_length = prefix;
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::Static;
        message.header.scope = RouteScope::Universe;
        message.header.kind = RouteType::Unicast;
        message.attributes = vec![RouteAttribute::Gateway(RouteAddress::Inet(via))];
        if prefix > 0 {
            message
                .attributes
                .push(RouteAttribute::Destination(RouteAddress::Inet(to)));
        }
        self.request(RouteNetlinkMessage::NewRoute(message))
    }

    /// Sends changes of nftables as one batch; the last one asks for the answer.
    fn batch(&self, changes: &[(u16, u16, u8, Vec<u8>)]) -> std::io::Result<()> {
        let mut bytes = nft(16, 0, 0, &[]);
        // The batch names its subsystem, nftables.
        bytes[18..20].copy_from_slice(&10u16.to_be_bytes());
        for (number, (kind, flags, family, body)) in changes.iter().enumerate() {
            let last = if number + 1 == changes.len() { NLM_F_ACK } else { 0 };
            bytes.extend(nft(*kind, flags | last, *family, body));
        }
        let mut end = nft(17, 0, 0, &[]);
        end[18..20].copy_from_slice(&10u16.to_be_bytes());
        bytes.extend(end);
        self.send(&bytes)
    }
}

const NEW_TABLE: u16 = 10 << 8;
const DEL_TABLE: u16 = NEW_TABLE + 2;
const NEW_CHAIN: u16 = NEW_TABLE + 3;
const NEW_RULE: u16 = NEW_TABLE + 6;
const GET_RULE: u16 = NEW_TABLE + 7;
const IPV4: u8 = 2;

/// Table `filter` with a FORWARD chain that drops, which first asks DOCKER-USER.
fn docker(firewall: Firewall) -> Vec<(u16, u16, u8, Vec<u8>)> {
    let (filter, chain) = (text(1, "filter"), |name| text(3, name));
    // The forward hook at priority 0, policy drop.
    let hook = nest(4, &[number(1, 2), number(2, 0)].concat());
    let forward = [
        filter.clone(),
        chain("FORWARD"),
        hook,
        number(5, 0),
        text(7, "filter"),
    ]
    .concat();
    let mut changes = vec![
        (NEW_TABLE, NLM_F_CREATE, IPV4, filter.clone()),
        (NEW_CHAIN, NLM_F_CREATE, IPV4, forward),
    ];
    if firewall == Firewall::Docker {
        let user = [filter.clone(), chain("DOCKER-USER")].concat();
        let jump = nest(2, &[number(1, -3i32 as u32), text(2, "DOCKER-USER")].concat());
        let data = nest(2, &[number(1, 0), nest(2, &jump)].concat());
        let expression = nest(1, &[text(1, "immediate"), data].concat());
        let rule = [filter, text(2, "FORWARD"), nest(4, &expression)].concat();
        changes.push((NEW_CHAIN, NLM_F_CREATE, IPV4, user));
        changes.push((NEW_RULE, NLM_F_CREATE, IPV4, rule));
    }
    changes
}

/// A message of nfnetlink.
fn nft(kind: u16, flags: u16, family: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::from((20 + body.len() as u32).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend([family, 0, 0, 0]);
    bytes.extend(body);
    bytes
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::from((4 + value.len() as u16).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn nest(kind: u16, value: &[u8]) -> Vec<u8> {
    attribute(kind | 0x8000, value)
}

fn number(kind: u16, value: u32) -> Vec<u8> {
    attribute(kind, &value.to_be_bytes())
}

fn text(kind: u16, value: &str) -> Vec<u8> {
    attribute(kind, format!("{value}\0").as_bytes())
}
