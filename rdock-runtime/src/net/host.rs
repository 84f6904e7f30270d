//! The host's side of a network, as root: the uplink, its masquerade, forwarding, and who forbids it.
//!
//! The host never learns of the containers' subnet: the network masquerades its containers behind the
//! uplink, the host masquerades the uplink. What the host has to undo goes with a descriptor: the veth with
//! the network's namespace, the table with the socket that owns it.

use super::error::NetError;
use super::forwarding;
use super::messages::{self, HostRoutes, UPLINK_NAME};
use super::namespace;
use super::netlink::Netlink;
use super::nft::{self, Batch, Family, Hook, Interface, Rule, TABLE_OWNER, Verdict};
use super::state::UplinkRecord;
use super::{resolver, sweep};
use crate::warning::{NoEgress, Warning};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Names of our interfaces and tables on the host begin with this.
pub(super) const PREFIX: &str = "rdock-";
/// Docker keeps this chain for the rules of others, before its own.
pub(super) const DOCKER_TABLE: &str = "filter";
pub(super) const DOCKER_CHAIN: &str = "DOCKER-USER";
/// Before the rule's interface in a comment, so that the janitor finds it.
pub(super) const COMMENT: &str = "rdock uplink ";
/// The place of source NAT among the hooks (NF_IP_PRI_NAT_SRC).
pub(super) const SOURCE_NAT: i32 = 100;

/// The rules inside the network's namespace: containers leave masqueraded, nothing new comes in by the uplink.
pub(super) fn inner_rules() -> Vec<u8> {
    let (filter, nat) = ("rdock", "rdock-nat");
    let mut batch = Batch::new();
    batch.table(Family::Inet, filter, 0);
    for (name, hook) in [("input", Hook::Input), ("forward", Hook::Forward)] {
        batch.chain(Family::Inet, filter, name, "filter", (hook, 0), Verdict::Accept);
        let known = Rule::default()
            .interface(Interface::In, true, UPLINK_NAME)
            .known_connection();
        batch.append(Family::Inet, filter, name, &known.verdict(Verdict::Accept));
        // Published ports, by the tables of `translation`.
        let translated = Rule::default()
            .interface(Interface::In, true, UPLINK_NAME)
            .translated();
        batch.append(Family::Inet, filter, name, &translated.verdict(Verdict::Accept));
        let new = Rule::default().interface(Interface::In, true, UPLINK_NAME);
        batch.append(Family::Inet, filter, name, &new.verdict(Verdict::Drop));
    }
    batch.table(Family::Ipv4, nat, 0);
    batch.chain(
        Family::Ipv4,
        nat,
        "postrouting",
        "nat",
        (Hook::Postrouting, SOURCE_NAT),
        Verdict::Accept,
    );
    let out = Rule::default()
        .interface(Interface::Out, true, UPLINK_NAME)
        .masquerade();
    batch.append(Family::Ipv4, nat, "postrouting", &out);
    batch.finish()
}

/// The place of destination NAT among the hooks (NF_IP_PRI_NAT_DST).
pub(super) const DESTINATION_NAT: i32 = -100;

/// The rules inside a container that has a resolver: its port 53 is the resolver's own port.
pub(super) fn resolver_rules() -> Vec<u8> {
    let (table, chain) = ("rdock-dns", "output");
    let mut batch = Batch::new();
    batch.table(Family::Ipv4, table, 0);
    let at = (Hook::Output, DESTINATION_NAT);
    batch.chain(Family::Ipv4, table, chain, "nat", at, Verdict::Accept);
    for protocol in [6, 17] {
        let rule = Rule::default()
            .destination(resolver::ADDRESS)
            .port(protocol, 53)
            .destination_nat(resolver::ADDRESS, resolver::PORT);
        batch.append(Family::Ipv4, table, chain, &rule);
    }
    batch.finish()
}

/// This process's table that masquerades one uplink; every process with a container in the network has one, since
/// any of them may end first.
#[derive(Debug)]
pub(super) struct Masquerade {
    /// `None` once it is being dropped.
    socket: Option<Netlink>,
    /// Set when the kernel is older than the owner flag: the table has to be deleted.
    plain: Option<String>,
    /// The host's end.
    uplink: String,
}

/// The tables of this process that are in use.
static TABLES: Mutex<Vec<(UplinkRecord, Weak<Masquerade>)>> = Mutex::new(Vec::new());

impl Masquerade {
    /// The table for `uplink`, shared within the process.
    pub(super) fn of(uplink: &UplinkRecord) -> io::Result<Arc<Self>> {
        let mut tables = TABLES.lock().unwrap_or_else(PoisonError::into_inner);
        tables.retain(|(_, table)| table.strong_count() > 0);
        let found = tables
            .iter()
            .find(|(of, _)| of == uplink)
            .and_then(|(_, table)| table.upgrade());
        if let Some(table) = found {
            return Ok(table);
        }
        let table = Arc::new(Self::make(uplink)?);
        tables.push((uplink.clone(), Arc::downgrade(&table)));
        Ok(table)
    }

    fn make(uplink: &UplinkRecord) -> io::Result<Self> {
        let mut socket = Netlink::netfilter()?;
        let unique = getrandom::u32().map_err(io::Error::other)?;
        let name = format!("{}-{unique:08x}", uplink.interface);
        // What forwards only for us forwards only to us.
        let guarded = forwarding::switched_on();
        let batch = |flags| {
            let mut batch = Batch::new();
            batch.table(Family::Ipv4, &name, flags);
            let at = (Hook::Postrouting, SOURCE_NAT);
            batch.chain(Family::Ipv4, &name, "postrouting", "nat", at, Verdict::Accept);
            let rule = Rule::default()
                .source(uplink.inside)
                .interface(Interface::Out, false, &uplink.interface)
                .masquerade();
            batch.append(Family::Ipv4, &name, "postrouting", &rule);
            if !guarded.is_empty() {
                let at = (Hook::Forward, 0);
                batch.chain(Family::Ipv4, &name, "forward", "filter", at, Verdict::Accept);
            }
            for interface in &guarded {
                let rule = Rule::default().interface(Interface::In, true, interface);
                let rule = rule
                    .interface_prefix(Interface::Out, false, PREFIX)
                    .verdict(Verdict::Drop);
                batch.append(Family::Ipv4, &name, "forward", &rule);
            }
            batch.finish()
        };
        let owned = socket.batch(&batch(TABLE_OWNER));
        let plain = match owned {
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP)) => {
                socket.batch(&batch(0))?;
                Some(name)
            }
            other => {
                other?;
                None
            }
        };
        Ok(Self {
            socket: Some(socket),
            plain,
            uplink: uplink.interface.clone(),
        })
    }
}

impl Drop for Masquerade {
    fn drop(&mut self) {
        let (socket, plain) = (self.socket.take(), self.plain.take());
        let uplink = std::mem::take(&mut self.uplink);
        // The kernel takes milliseconds for a table, and more for the uplink of a network that has ended. Without a
        // thread the socket closes here, and the rest is the janitor's.
        let _ = std::thread::Builder::new()
            .name("rdock-net".into())
            .spawn(move || {
                if let (Some(mut socket), Some(name)) = (socket, plain) {
                    let mut batch = Batch::new();
                    batch.delete_table(Family::Ipv4, &name);
                    let _ = socket.batch(&batch.finish());
                }
                sweep::after(&uplink);
            });
    }
}

/// The lock of whoever changes the host's side of a network.
pub(super) fn lock_path() -> PathBuf {
    PathBuf::from("/run/rdock/network.lock")
}

/// Joins a network just made to the host.
pub(super) fn connect(
    network: &str,
    uplink: &UplinkRecord,
    mtu: u32,
    network_namespace: BorrowedFd<'_>,
) -> Result<Vec<Warning>, NetError> {
    let error = |doing| {
        move |source| NetError::Kernel {
            network: network.into(),
            doing,
            source,
        }
    };
    let mut socket = Netlink::route().map_err(error("opening a netlink socket"))?;
    let index = make_pair(&mut socket, uplink, mtu, network_namespace).map_err(error("making the uplink"))?;
    let address = messages::uplink_address(index, uplink.host, uplink.prefix);
    socket
        .request(&address)
        .map_err(error("giving the uplink its address"))?;
    let mut inside = namespace::inside(network_namespace, Netlink::route)
        .map_err(error("entering the network's namespace"))?;
    for message in messages::uplink_inside(uplink.inside, uplink.host, uplink.prefix) {
        inside
            .request(&message)
            .map_err(error("setting up the uplink inside the network"))?;
    }

    let mut warnings = Vec::new();
    let mut no_egress = |reason| {
        warnings.push(Warning::NoEgress {
            network: network.into(),
            reason,
        })
    };
    // Only the uplink's: a host without IPv6 has no such file.
    let _ = write_setting(&format!("ipv6/conf/{}/disable_ipv6", uplink.interface));
    let routes = HostRoutes::read(&mut socket).map_err(error("reading the host's routes"))?;
    let ways = [
        Some(uplink.interface.as_str()),
        routes.way_out().map(|(name, _)| name),
    ];
    for interface in ways.into_iter().flatten() {
        if let Err((path, source)) = write_setting(&format!("ipv4/conf/{interface}/forwarding")) {
            no_egress(NoEgress::Forwarding {
                path,
                reason: source.to_string(),
            });
        }
    }
    match open_firewall(uplink) {
        Ok(refusing) => {
            for chain in refusing {
                no_egress(NoEgress::Firewall { chain });
            }
        }
        Err(source) => no_egress(NoEgress::Kernel {
            reason: source.to_string(),
        }),
    }
    Ok(warnings)
}

/// The index is of our choice, since the one of the other end is; a number that is taken is drawn again.
fn make_pair(
    socket: &mut Netlink,
    uplink: &UplinkRecord,
    mtu: u32,
    namespace: BorrowedFd<'_>,
) -> io::Result<u32> {
    let mut tries = 8;
    loop {
        let index = 0x10_0000 + getrandom::u32().map_err(io::Error::other)? % 0xf0_0000;
        match socket.request(&messages::uplink(
            &uplink.interface,
            index,
            mtu,
            namespace.as_raw_fd(),
        )) {
            Ok(()) => return Ok(index),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && tries > 0 => tries -= 1,
            Err(error) => return Err(error),
        }
    }
}

/// Writes 1 to a file below `/proc/sys/net` that does not say so already.
fn write_setting(name: &str) -> Result<(), (PathBuf, io::Error)> {
    let path = PathBuf::from("/proc/sys/net").join(name);
    let result = match std::fs::read(&path) {
        Ok(now) if now.trim_ascii() == b"1" => Ok(()),
        _ => std::fs::write(&path, "1"),
    };
    result.map_err(|error| (path, error))
}

/// Lets the uplink's packets through Docker's chain where a policy would drop them. Returns the chains that still
/// drop them, as `family table chain`.
fn open_firewall(uplink: &UplinkRecord) -> io::Result<Vec<String>> {
    let mut socket = Netlink::netfilter()?;
    let chains = nft::chains(&mut socket)?;
    let ours = |chain: &&nft::Chain| chain.family == Family::Ipv4 as u8 && chain.table == DOCKER_TABLE;
    let docker = chains.iter().filter(ours).any(|chain| chain.name == DOCKER_CHAIN);
    let (behind_docker, others): (Vec<_>, Vec<_>) = chains
        .iter()
        .filter(|chain| chain.drops_forwarded())
        .partition(|chain| docker && ours(chain));
    if !behind_docker.is_empty() {
        let mut batch = Batch::new();
        for which in [Interface::Out, Interface::In] {
            // The expressions that iptables-nft itself writes: others would make it refuse the whole table.
            let rule = Rule::default()
                .interface(which, true, &uplink.interface)
                .counter()
                .verdict(Verdict::Accept)
                .comment(format!("{COMMENT}{}", uplink.interface));
            batch.insert(Family::Ipv4, DOCKER_TABLE, DOCKER_CHAIN, &rule);
        }
        socket.batch(&batch.finish())?;
    }
    let family = |chain: &nft::Chain| {
        if chain.family == Family::Inet as u8 {
            "inet"
        } else {
            "ip"
        }
    };
    Ok(others
        .iter()
        .map(|chain| format!("{} {} {}", family(chain), chain.table, chain.name))
        .collect())
}
