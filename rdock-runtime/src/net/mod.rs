//! Networks: an address of its own for each container, a way out, published ports.
//!
//! A network is an anonymous network namespace that holds a bridge and the gateway's address; every
//! helper of a container in the network lives in it, and the last one's end is the network's end. One
//! veth pair leads from there to the host, where only that pair's address is known. This module
//! composes what the helper executes, and does the host's side itself.

mod error;
mod files;
mod forwarding;
mod host;
mod messages;
mod netlink;
mod nft;
pub(crate) mod publish;
mod state;
mod subnet;
mod sweep;

pub use error::NetError;
pub(crate) use files::{hosts, resolv_conf};

use crate::launch::BridgedPlan;
use crate::process::ProcessIdentity;
use crate::warning::{NoEgress, Warning};
use host::Masquerade;
use messages::HostRoutes;
use netlink::Netlink;
use serde::Serialize;
use state::{HolderRecord, Lock, NetworkDir, NetworkRecord, UplinkRecord};
use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use subnet::Subnet;

/// The name of the network that containers are in unless asked otherwise.
pub(crate) const DEFAULT: &str = "default";

/// The network a container is to join.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NetworkChoice {
    /// [`DEFAULT`].
    Default,
}

/// A network as `network ls` and `network inspect` show it.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct NetworkInfo {
    /// `default`, `host` or `none`.
    pub name: String,
    /// `bridge`, `host` or `null`, as Docker calls them.
    pub driver: String,
    /// In CIDR notation; `None` before the first container.
    pub subnet: Option<String>,
    /// The containers' default route.
    pub gateway: Option<String>,
    /// Names and addresses of the running containers.
    pub containers: BTreeMap<String, String>,
}

/// A container's place in a network, from before its launch until its end.
///
/// Dropping it frees the address. Nothing else is taken apart: the interface goes with the container's
/// namespace, the network with its last holder, the host's table with the last attachment of this process.
#[derive(Debug)]
pub(crate) struct Attachment {
    dir: NetworkDir,
    record: NetworkRecord,
    ip: Ipv4Addr,
    plan: Option<Box<BridgedPlan>>,
    holder: HolderRecord,
    holder_path: PathBuf,
    namespace: Option<(u64, u64)>,
    egress: Egress,
    /// While the network is being made, nobody else may make it, or take its subnet.
    making: Option<Making>,
}

#[derive(Debug)]
struct Making {
    _network: Lock,
    _host: Option<fs::File>,
}

/// How the network gets out.
#[derive(Debug)]
enum Egress {
    /// It does not; why.
    None(NoEgress),
    Masquerade {
        _table: Arc<Masquerade>,
        /// What may be in the way.
        doubt: Option<NoEgress>,
    },
}

/// Finds or chooses the network, and an address in it. Blocking: waits while another process makes the network.
///
/// `rootless` networks have no way out and are the container's own: a namespace that belongs to one user
/// namespace cannot be entered from another.
///
/// # Errors
/// When no subnet or address is free, the state cannot be read or written, or the lock is held for too long.
pub(crate) fn prepare(
    root: &Path,
    container: &str,
    network: &NetworkChoice,
    rootless: bool,
) -> Result<Attachment, NetError> {
    let name = match network {
        NetworkChoice::Default => DEFAULT,
    };
    let dir = NetworkDir::open(root, name)?;
    let mut lock = dir.lock()?;
    let holders = dir.holders()?;
    let recorded = dir.read()?;
    let joined = if rootless {
        None
    } else {
        living_namespace(&holders)
    };

    let (record, namespace, egress, host_lock) = match (recorded, joined) {
        (Some(record), Some(namespace)) => {
            let egress = match &record.uplink {
                Some(uplink) => masquerade(uplink, None),
                None => Egress::None(NoEgress::NoFreeAddress),
            };
            (record, Some(namespace), egress, None)
        }
        (recorded, _) => {
            let host_lock = if rootless { None } else { Some(lock_host(&dir)?) };
            let (record, egress) = choose(&dir, recorded, rootless)?;
            dir.write(&record)?;
            (record, None, egress, host_lock)
        }
    };
    let subnet = record
        .subnet()
        .ok_or_else(|| NetError::NoFreeSubnet { network: name.into() })?;
    let (ip, holder, holder_path) = take_address(&dir, &mut lock, subnet, holders, container)?;
    let identity = namespace.as_ref().and_then(state::identity);
    let new = namespace.is_none();
    let plan = compose(
        &record,
        subnet,
        ip,
        container,
        namespace,
        matches!(egress, Egress::Masquerade { .. }),
    );
    Ok(Attachment {
        dir,
        record,
        ip,
        plan: Some(Box::new(plan)),
        holder,
        holder_path,
        namespace: identity,
        egress,
        // A rootless network is never joined.
        making: (new && !rootless).then_some(Making {
            _network: lock,
            _host: host_lock,
        }),
    })
}

/// What is known of the networks of a root.
///
/// # Errors
/// When the state cannot be read.
pub(crate) fn list(root: &Path) -> Result<Vec<NetworkInfo>, NetError> {
    let record = NetworkDir::open(root, DEFAULT)?.read()?;
    let info = |name: &str, driver: &str, record: Option<NetworkRecord>| NetworkInfo {
        name: name.into(),
        driver: driver.into(),
        gateway: record.as_ref().map(|record| record.gateway.to_string()),
        subnet: record.map(|record| record.subnet),
        containers: BTreeMap::new(),
    };
    Ok(vec![
        info(DEFAULT, "bridge", record),
        info("host", "host", None),
        info("none", "null", None),
    ])
}

/// Removes what dead owners left: records of holders, rules on the host. What cannot be removed now stays for
/// the next time.
pub(crate) fn janitor(root: &Path) {
    if root.join("networks").join(DEFAULT).exists()
        && let Ok(dir) = NetworkDir::open(root, DEFAULT)
        // A network that is just being made is not held up.
        && let (Some(_lock), Ok(holders)) = (dir.try_lock(), dir.holders())
    {
        dir.sweep_unwritten();
        for (_, path) in holders {
            if !HolderRecord::read(&path).is_some_and(|holder| holder.is_alive()) {
                let _ = fs::remove_file(path);
            }
        }
    }
    if rustix::process::geteuid().is_root() {
        let _ = sweep::now();
    }
}

impl Attachment {
    /// What the helper does. The first call has it.
    pub(crate) fn take_plan(&mut self) -> Box<BridgedPlan> {
        self.plan.take().unwrap_or_default()
    }

    /// The container's address.
    pub(crate) fn ip(&self) -> Ipv4Addr {
        self.ip
    }

    /// Where the container's default route leads: also whom its servers see as their client.
    pub(crate) fn gateway(&self) -> Ipv4Addr {
        self.record.gateway
    }

    /// The hardware address of the container's `eth0`, as `02:42:...`.
    pub(crate) fn mac(&self) -> String {
        messages::hardware_address(self.ip)
            .map(|byte| format!("{byte:02x}"))
            .join(":")
    }

    /// Joins the network to the host. `namespace` is that of a network just made
    /// ([`crate::launch::Event::NetworkMade`], while the payload is held); `None` when an existing one was joined.
    ///
    /// # Errors
    /// When the kernel refuses the veth pair or its addresses. A missing way out is only a warning.
    pub(crate) fn connect_host(&mut self, namespace: Option<&OwnedFd>) -> Result<Vec<Warning>, NetError> {
        if let Some(namespace) = namespace {
            self.namespace = state::identity(namespace);
        }
        let warning = |reason: &NoEgress| Warning::NoEgress {
            network: self.dir.name.clone(),
            reason: reason.clone(),
        };
        let warnings = match (&self.egress, &self.record.uplink, namespace) {
            (Egress::None(reason), ..) => vec![warning(reason)],
            (Egress::Masquerade { doubt, .. }, Some(uplink), Some(namespace)) => {
                let mut warnings = host::connect(&self.dir.name, uplink, self.record.mtu, namespace.as_fd())?;
                warnings.extend(doubt.as_ref().map(warning));
                warnings
            }
            (Egress::Masquerade { .. }, ..) => Vec::new(),
        };
        if let Some(making) = &mut self.making {
            // The addresses are on the host now, where others see them.
            making._host = None;
        }
        Ok(warnings)
    }

    /// Says that the helper lives in the network from now on, so that newcomers can take it from there. A new
    /// network is locked until then.
    ///
    /// # Errors
    /// When the record cannot be written.
    pub(crate) fn record_holder(&mut self, helper: i32) -> Result<(), NetError> {
        let path = self.holder_path.clone();
        match ProcessIdentity::of(helper) {
            Ok(process) => self.holder.helper = Some(process),
            // A payload that ended at once: its helper, and with it this hold on the network, is gone already.
            Err(error) if crate::process::is_gone(&error) => {
                self.making = None;
                return Ok(());
            }
            Err(source) => return Err(self.dir.error("describe the holder", path, source)),
        }
        self.holder.namespace = self.namespace;
        self.dir.write_holder(&self.holder_path, &self.holder)?;
        self.making = None;
        Ok(())
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        // A file that stays behind names dead processes: the janitor removes it.
        let _ = fs::remove_file(&self.holder_path);
    }
}

/// The namespace of the network, from the first holder that lives.
fn living_namespace(holders: &[(Ipv4Addr, PathBuf)]) -> Option<OwnedFd> {
    holders
        .iter()
        .rev()
        .find_map(|(_, path)| HolderRecord::read(path)?.namespace())
}

fn masquerade(uplink: &UplinkRecord, doubt: Option<NoEgress>) -> Egress {
    match Masquerade::of(uplink) {
        Ok(_table) => Egress::Masquerade { _table, doubt },
        Err(error) => Egress::None(NoEgress::Kernel {
            reason: error.to_string(),
        }),
    }
}

/// Subnets and uplink addresses are chosen by one process of the host at a time, whatever its root.
fn lock_host(dir: &NetworkDir) -> Result<fs::File, NetError> {
    let path = host::lock_path();
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(|source| dir.error("make", parent.into(), source))?;
    }
    state::lock(&path, &dir.name)
}

/// Chooses subnet and uplink of a network that is to be made; those it had before when they are still free.
fn choose(
    dir: &NetworkDir,
    recorded: Option<NetworkRecord>,
    rootless: bool,
) -> Result<(NetworkRecord, Egress), NetError> {
    let error = |source| NetError::Kernel {
        network: dir.name.clone(),
        doing: "reading the host's routes",
        source,
    };
    let host = Netlink::route()
        .and_then(|mut socket| HostRoutes::read(&mut socket))
        .map_err(error)?;
    let before = recorded
        .and_then(|record| record.subnet())
        .filter(|subnet| host.is_free(*subnet));
    let subnet = before
        .or_else(|| subnet::choose(&host))
        .ok_or_else(|| NetError::NoFreeSubnet {
            network: dir.name.clone(),
        })?;
    let (uplink, egress) = if rootless {
        (None, Egress::None(NoEgress::Rootless))
    } else {
        match choose_uplink(&host, subnet) {
            Some(uplink) => {
                let forwards = host
                    .way_out()
                    .map_or(Ok(()), |(name, _)| forwarding::switch_on(name));
                let doubt = forwards.err().map(|(path, error)| NoEgress::Forwarding {
                    path,
                    reason: error.to_string(),
                });
                // The table comes first: it shows whether the kernel can do all this.
                match masquerade(&uplink, doubt) {
                    egress @ Egress::Masquerade { .. } => (Some(uplink), egress),
                    none @ Egress::None(_) => {
                        if !host.has_uplink() {
                            let _ = forwarding::switch_off();
                        }
                        (None, none)
                    }
                }
            }
            None => (None, Egress::None(NoEgress::NoFreeAddress)),
        }
    };
    let mtu = host.way_out().map_or(1500, |(_, mtu)| mtu.clamp(576, 65_535));
    Ok((NetworkRecord::new(subnet, subnet.nth(1), mtu, uplink), egress))
}

fn choose_uplink(host: &HostRoutes, network: Subnet) -> Option<UplinkRecord> {
    let pair = subnet::choose_uplink(host, network)?;
    // A fresh name each time: the kernel may still be taking away the interface of the network's former life.
    let interface = format!("{}{:08x}", host::PREFIX, getrandom::u32().ok()?);
    Some(UplinkRecord {
        interface,
        host: pair.nth(1),
        inside: pair.nth(2),
        prefix: pair.prefix,
    })
}

fn take_address(
    dir: &NetworkDir,
    lock: &mut Lock,
    subnet: Subnet,
    holders: Vec<(Ipv4Addr, PathBuf)>,
    container: &str,
) -> Result<(Ipv4Addr, HolderRecord, PathBuf), NetError> {
    let cursor = lock.cursor();
    let taken: std::collections::HashSet<_> = holders.iter().map(|(ip, _)| *ip).collect();
    let found = subnet.next_free(cursor, |ip| taken.contains(&ip)).or_else(|| {
        // Every address has a file; those of the dead are free.
        let (_, path) = holders
            .iter()
            .find(|(_, path)| !HolderRecord::read(path).is_some_and(|holder| holder.is_alive()))?;
        fs::remove_file(path).ok()?;
        holders.iter().find(|(_, is)| is == path).map(|(ip, _)| *ip)
    });
    let ip = found.ok_or_else(|| NetError::NoFreeAddress {
        network: dir.name.clone(),
        subnet: subnet.to_string(),
    })?;
    let path = dir.holder_path(ip, container);
    let owner = ProcessIdentity::of(std::process::id() as i32)
        .map_err(|source| dir.error("describe the owner for", path.clone(), source))?;
    let holder = HolderRecord::new(container, ip, owner);
    dir.write_holder(&path, &holder)?;
    lock.set_cursor(ip)
        .map_err(|source| dir.error("write", path.with_file_name("lock"), source))?;
    Ok((ip, holder, path))
}

/// The messages of a container's plan.
fn compose(
    record: &NetworkRecord,
    subnet: Subnet,
    ip: Ipv4Addr,
    container: &str,
    join: Option<OwnedFd>,
    egress: bool,
) -> BridgedPlan {
    let setting = |name: &str, value: &str| (name.to_string(), value.to_string());
    // A kernel without IPv6 has nothing to switch off.
    let ipv6: &[(&str, &str)] = match Path::new("/proc/sys/net/ipv6").exists() {
        true => &[("disable_ipv6", "1"), ("accept_ra", "0")],
        false => &[],
    };
    let mut plan = BridgedPlan {
        attach: vec![messages::attach(number(container), ip, record.mtu)],
        configure: messages::configure(ip, subnet, record.gateway),
        // No IPv6 where the network has none: it would take router advertisements from its neighbours.
        configure_sysctls: ["default", messages::CONTAINER_NAME]
            .iter()
            .flat_map(|interface| {
                ipv6.iter()
                    .map(move |(name, value)| setting(&format!("net/ipv6/conf/{interface}/{name}"), value))
            })
            .collect(),
        join,
        ..BridgedPlan::default()
    };
    if plan.join.is_none() {
        plan.setup = messages::setup(subnet, record.gateway, record.mtu);
        if !ipv6.is_empty() {
            plan.setup_sysctls
                .push(setting("net/ipv6/conf/all/disable_ipv6", "1"));
        }
        // Without a way out it is what makes the gateway answer "unreachable" instead of saying nothing.
        plan.setup_sysctls.push(setting("net/ipv4/ip_forward", "1"));
        if egress {
            plan.setup_nft = host::inner_rules();
        }
    }
    plan
}

/// Tells the containers' interfaces apart: the beginning of the random id.
fn number(container: &str) -> u32 {
    let digits: String = container
        .chars()
        .filter(char::is_ascii_hexdigit)
        .take(8)
        .collect();
    u32::from_str_radix(&digits, 16).unwrap_or(0) & 0x3fff_ffff
}
