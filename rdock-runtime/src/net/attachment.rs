//! A container's place in one network: found or chosen, made, recorded, given up.

use super::definition::{Definition, Range4, Range6};
use super::error::NetError;
use super::host::{self, Masquerade};
use super::messages::{self, HostRoutes, Interface};
use super::netlink::Netlink;
use super::state::{self, HolderRecord, Lock, NetworkDir, NetworkRecord, UplinkRecord};
use super::subnet::{self, Subnet};
use super::subnet6::Subnet6;
use super::{forwarding, guard, namespace};
use crate::launch::{AttachMessage, BridgedPlan};
use crate::process::ProcessIdentity;
use crate::spec::{EndpointSpec, parse_mac};
use crate::warning::{NoEgress, Warning};
use serde::{Deserialize, Serialize};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The number of NETLINK_NETFILTER.
const NETFILTER: u32 = 12;

/// Whose place it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject<'a> {
    pub(crate) root: &'a Path,
    /// The container's id.
    pub(crate) id: &'a str,
    pub(crate) name: &'a str,
    /// A network of one who is not root has no way out and is the container's own: a namespace that belongs to one
    /// user namespace cannot be entered from another.
    pub(crate) rootless: bool,
}

/// A container's address in a network, as `inspect` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct EndpointInfo {
    /// The network's name.
    pub network: String,
    /// The interface inside.
    pub interface: String,
    /// Its IPv4 address.
    pub ip: Ipv4Addr,
    /// Length of the network's prefix.
    pub prefix: u8,
    /// The network's gateway.
    pub gateway: Ipv4Addr,
    /// Its IPv6 address.
    #[serde(default)]
    pub ip6: Option<Ipv6Addr>,
    /// Length of the IPv6 prefix; 0 without an address.
    #[serde(default)]
    pub prefix6: u8,
    /// The network's IPv6 gateway.
    #[serde(default)]
    pub gateway6: Option<Ipv6Addr>,
    /// Its hardware address.
    pub mac: String,
    /// Names in this network beside the container's own.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// The default route leads into this network.
    #[serde(default)]
    pub default_route: bool,
}

/// A container's place in a network, from before its launch until its end.
///
/// Dropping it frees the address. Nothing else is taken apart: the interface goes with the container's
/// namespace, the network with its last holder, the host's table with the last attachment of this process.
#[derive(Debug)]
pub(crate) struct Attachment {
    pub(super) dir: NetworkDir,
    pub(super) record: NetworkRecord,
    definition: Option<Definition>,
    subnet: Subnet,
    endpoint: EndpointSpec,
    pub(super) ip: Ipv4Addr,
    pub(super) ip6: Option<Ipv6Addr>,
    mac: [u8; 6],
    /// The number in `eth0`.
    pub(super) number: u32,
    pub(super) default_route: bool,
    holder: HolderRecord,
    holder_path: PathBuf,
    /// The network's, once it is known. It keeps the network alive while no payload runs.
    namespace: Option<OwnedFd>,
    rootless: bool,
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
    /// As asked for.
    Closed,
    /// It does not; why.
    None(NoEgress),
    Masquerade {
        _table: Arc<Masquerade>,
        /// What may be in the way.
        doubt: Option<NoEgress>,
    },
}

impl Attachment {
    /// Finds or chooses the network, and an address in it. Blocking: waits while another process makes the network.
    ///
    /// A network that does not live is locked until [`Self::record_holder`].
    ///
    /// # Errors
    /// When there is no such network, no subnet or address is free, the state cannot be read or written, or the lock
    /// is held for too long.
    pub(super) fn prepare(
        subject: Subject<'_>,
        endpoint: &EndpointSpec,
        number: u32,
        default_route: bool,
    ) -> Result<Self, NetError> {
        let (dir, definition) = NetworkDir::find(subject.root, endpoint.network_name())?;
        let mut lock = match dir.lock() {
            // It was removed just now.
            Err(NetError::State { source, .. })
                if definition.is_some() && source.kind() == std::io::ErrorKind::NotFound =>
            {
                return Err(NetError::NoSuchNetwork { network: dir.name });
            }
            other => other?,
        };
        if definition.is_some() && NetworkDir::find(subject.root, &dir.name)?.1 != definition {
            return Err(NetError::NoSuchNetwork { network: dir.name });
        }
        let holders = dir.holders()?;
        let recorded = dir.read()?;
        let joined = if subject.rootless {
            None
        } else {
            living_namespace(&holders)
        };
        let (record, namespace, egress, host_lock) = match (recorded, joined) {
            (Some(record), Some(namespace)) => {
                let egress = match &record.uplink {
                    Some(uplink) => masquerade(uplink, None),
                    None if definition.as_ref().is_some_and(|is| !is.has_egress()) => Egress::Closed,
                    None => Egress::None(NoEgress::NoFreeAddress),
                };
                (record, Some(namespace), egress, None)
            }
            (recorded, _) => {
                let host_lock = if subject.rootless {
                    None
                } else {
                    Some(lock_host(&dir)?)
                };
                let (record, egress) = choose(subject, &dir, definition.as_ref(), recorded)?;
                dir.write(&record)?;
                (record, None, egress, host_lock)
            }
        };
        let subnet = record.subnet().ok_or_else(|| NetError::NoFreeSubnet {
            network: dir.name.clone(),
        })?;
        let range = definition
            .as_ref()
            .map_or_else(|| Range4::around(subnet), |definition| definition.ipv4.clone());
        let place = Place {
            dir: &dir,
            subject,
            range: &range,
            range6: record.ipv6.as_ref(),
            endpoint,
            interface: messages::interface_name(number),
        };
        let (holder, holder_path) = place.take(&mut lock, holders)?;
        let new = namespace.is_none();
        Ok(Self {
            ip: holder.address,
            ip6: holder.ipv6,
            mac: holder
                .mac
                .as_deref()
                .and_then(parse_mac)
                .unwrap_or_else(|| messages::hardware_address(holder.address)),
            dir,
            record,
            definition,
            subnet,
            endpoint: endpoint.clone(),
            number,
            default_route,
            holder,
            holder_path,
            namespace,
            rootless: subject.rootless,
            egress,
            // A rootless network is never joined.
            making: (new && !subject.rootless).then_some(Making {
                _network: lock,
                _host: host_lock,
            }),
        })
    }

    /// Takes over what a dead owner of a running container had. `None` when there is no record of it.
    ///
    /// # Errors
    /// When the state cannot be read or written.
    pub(super) fn adopt(
        subject: Subject<'_>,
        endpoint: &EndpointSpec,
        default_route: bool,
    ) -> Result<Option<Self>, NetError> {
        let (dir, definition) = NetworkDir::find(subject.root, endpoint.network_name())?;
        let _lock = dir.lock()?;
        let found = dir.holders()?.into_iter().find_map(|(_, path)| {
            let holder = HolderRecord::read(&path)?;
            (holder.container == subject.id).then_some((holder, path))
        });
        let (Some((mut holder, holder_path)), Some(record)) = (found, dir.read()?) else {
            return Ok(None);
        };
        let Some(subnet) = record.subnet() else {
            return Ok(None);
        };
        let namespace = holder.namespace();
        holder.owner = own_identity(&dir, &holder_path)?;
        dir.write_holder(&holder_path, &holder)?;
        let egress = match &record.uplink {
            Some(uplink) => masquerade(uplink, None),
            None => Egress::Closed,
        };
        Ok(Some(Self {
            ip: holder.address,
            ip6: holder.ipv6,
            mac: holder
                .mac
                .as_deref()
                .and_then(parse_mac)
                .unwrap_or_else(|| messages::hardware_address(holder.address)),
            number: messages::interface_number(&holder.interface).unwrap_or(0),
            dir,
            record,
            definition,
            subnet,
            endpoint: endpoint.clone(),
            default_route,
            holder,
            holder_path,
            namespace,
            rootless: subject.rootless,
            egress,
            making: None,
        }))
    }

    pub(super) fn name(&self) -> &str {
        &self.dir.name
    }

    /// Whether names are looked up outside for its containers.
    pub(super) fn is_internal(&self) -> bool {
        self.definition
            .as_ref()
            .is_some_and(|definition| definition.internal)
    }

    /// Whether it was created, and so has names.
    pub(super) fn is_user_defined(&self) -> bool {
        self.definition.is_some()
    }

    /// The host as containers reach it: its end of the uplink.
    pub(super) fn host_address(&self) -> Option<Ipv4Addr> {
        self.record.uplink.as_ref().map(|uplink| uplink.host)
    }

    pub(super) fn namespace(&self) -> Option<BorrowedFd<'_>> {
        self.namespace.as_ref().map(AsFd::as_fd)
    }

    pub(super) fn info(&self) -> EndpointInfo {
        let range6 = self.record.ipv6.as_ref().filter(|_| self.ip6.is_some());
        EndpointInfo {
            network: self.dir.name.clone(),
            interface: messages::interface_name(self.number),
            ip: self.ip,
            prefix: self.subnet.prefix,
            gateway: self.record.gateway,
            ip6: self.ip6,
            prefix6: range6.and_then(Range6::subnet).map_or(0, |subnet| subnet.prefix),
            gateway6: range6.map(|range| range.gateway),
            mac: hex(self.mac),
            aliases: self.endpoint.aliases.clone(),
            default_route: self.default_route,
        }
    }

    /// What makes the network (when it has to be made) and the container's interface in it.
    ///
    /// # Errors
    /// When descriptors ran out.
    pub(super) fn plan(&self) -> Result<BridgedPlan, NetError> {
        let setting = |name: &str, value: &str| (name.to_string(), value.to_string());
        // A kernel without IPv6 has nothing to switch off.
        let has_ipv6 = Path::new("/proc/sys/net/ipv6").exists();
        let interface = self.interface();
        let name = messages::interface_name(self.number);
        let mut configure_sysctls = Vec::new();
        if has_ipv6 {
            // No IPv6 where the network has none: it would take router advertisements from its neighbours.
            let off = if self.ip6.is_some() { "0" } else { "1" };
            let mut about = vec![(name.as_str(), off)];
            if self.number == 0 {
                about.insert(0, ("default", off));
            }
            for (which, off) in about {
                configure_sysctls.push(setting(&format!("net/ipv6/conf/{which}/disable_ipv6"), off));
                configure_sysctls.push(setting(&format!("net/ipv6/conf/{which}/accept_ra"), "0"));
            }
        }
        let join = match self.namespace.as_ref().filter(|_| !self.rootless) {
            Some(namespace) => Some(
                namespace
                    .try_clone()
                    .map_err(|source| self.kernel("copying a descriptor")(source))?,
            ),
            None => None,
        };
        let unique = getrandom::u32()
            .map_err(|error| self.kernel("drawing a number")(std::io::Error::other(error)))?;
        let mut plan = BridgedPlan {
            attach: vec![messages::attach(unique, &interface)],
            configure: messages::configure(&interface),
            configure_sysctls,
            join,
            ..BridgedPlan::default()
        };
        if self.record.guarded {
            plan.attach.push(AttachMessage {
                bytes: guard::newcomer(&self.owner()),
                payload_namespace_at: None,
                protocol: NETFILTER,
            });
        }
        if plan.join.is_none() {
            let gateway6 = self
                .record
                .ipv6
                .as_ref()
                .and_then(|range| Some((range.gateway, range.subnet()?.prefix)));
            plan.setup = messages::setup(self.subnet, self.record.gateway, gateway6, self.record.mtu);
            if has_ipv6 {
                plan.setup_sysctls = match gateway6 {
                    Some(_) => vec![
                        setting("net/ipv6/conf/all/accept_ra", "0"),
                        setting("net/ipv6/conf/default/accept_ra", "0"),
                        setting("net/ipv6/conf/all/forwarding", "1"),
                    ],
                    None => vec![setting("net/ipv6/conf/all/disable_ipv6", "1")],
                };
            }
            // Without a way out it is what makes the gateway answer "unreachable" instead of saying nothing.
            plan.setup_sysctls.push(setting("net/ipv4/ip_forward", "1"));
            if matches!(self.egress, Egress::Masquerade { .. }) {
                plan.setup_nft = host::inner_rules();
            }
        }
        Ok(plan)
    }

    fn owner(&self) -> guard::Owner {
        guard::Owner {
            mac: self.mac,
            ip: self.ip,
            ip6: self.ip6,
            link_local: self.endpoint.link_local.clone(),
        }
    }

    /// Has the rules against containers that speak for others made in a network just made.
    fn guard(&mut self) -> Result<Option<Warning>, NetError> {
        let Some(namespace) = self.namespace.as_ref().filter(|_| !self.rootless) else {
            return Ok(None);
        };
        let gateway = guard::Owner {
            mac: messages::hardware_address(self.record.gateway),
            ip: self.record.gateway,
            ip6: self.record.ipv6.as_ref().map(|range| range.gateway),
            link_local: Vec::new(),
        };
        let rules = guard::rules(&[gateway, self.owner()]);
        let made = namespace::inside(namespace.as_fd(), move || Netlink::netfilter()?.batch(&rules));
        if let Err(error) = made {
            return Ok(Some(Warning::NetworkUnguarded {
                network: self.dir.name.clone(),
                reason: error.to_string(),
            }));
        }
        self.record.guarded = true;
        self.dir.write(&self.record)?;
        Ok(None)
    }

    fn interface(&self) -> Interface {
        let range6 = self.record.ipv6.as_ref();
        Interface {
            number: self.number,
            mac: self.mac,
            mtu: self.record.mtu,
            ip: (self.ip, self.subnet.prefix),
            gateway: self
                .default_route
                .then_some(self.record.gateway)
                .filter(|_| !self.is_internal()),
            ip6: self.ip6.and_then(|ip| Some((ip, range6?.subnet()?.prefix))),
            gateway6: range6
                .map(|range| range.gateway)
                .filter(|_| self.default_route && self.ip6.is_some() && !self.is_internal()),
            link_local: self.endpoint.link_local.clone(),
            isolated: self
                .definition
                .as_ref()
                .is_some_and(|definition| !definition.neighbours_talk()),
        }
    }

    /// Joins the network to the host. `made` is the namespace of a network just made
    /// ([`crate::launch::Event::NetworkMade`], while the payload is held); `None` when an existing one was joined.
    ///
    /// # Errors
    /// When the kernel refuses the veth pair or its addresses. A missing way out is only a warning.
    pub(super) fn connect_host(&mut self, made: Option<OwnedFd>) -> Result<Vec<Warning>, NetError> {
        let new = made.is_some();
        if made.is_some() {
            self.namespace = made;
        }
        let unguarded = if new { self.guard()? } else { None };
        let warning = |reason: &NoEgress| Warning::NoEgress {
            network: self.dir.name.clone(),
            reason: reason.clone(),
        };
        let namespace = self.namespace.as_ref().filter(|_| new);
        let mut warnings = match (&self.egress, &self.record.uplink, namespace) {
            (Egress::None(reason), ..) => vec![warning(reason)],
            (Egress::Masquerade { doubt, .. }, Some(uplink), Some(namespace)) => {
                let mut warnings = host::connect(&self.dir.name, uplink, self.record.mtu, namespace.as_fd())?;
                warnings.extend(doubt.as_ref().map(warning));
                warnings
            }
            _ => Vec::new(),
        };
        warnings.extend(unguarded);
        if let Some(making) = &mut self.making {
            // The addresses are on the host now, where others see them.
            making._host = None;
        }
        Ok(warnings)
    }

    /// Makes the network in this process, when it does not live: for a network that the helper does not live in.
    ///
    /// # Errors
    /// When the kernel refuses a part of it.
    pub(super) fn make(&mut self) -> Result<Vec<Warning>, NetError> {
        if self.namespace.is_some() {
            return self.connect_host(None);
        }
        let plan = self.plan()?;
        let made = namespace::make(plan.setup, plan.setup_sysctls, plan.setup_nft)
            .map_err(self.kernel("making the network's namespace"))?;
        let warnings = self.connect_host(Some(made))?;
        self.record_owner()?;
        Ok(warnings)
    }

    /// Makes the container's interface from this process, for a network that the helper does not live in.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub(super) fn attach(&self, payload: BorrowedFd<'_>) -> Result<(), NetError> {
        let plan = self.plan()?;
        let Some(network) = self.namespace() else {
            return Err(self.kernel("looking for the network's namespace")(
                std::io::ErrorKind::NotFound.into(),
            ));
        };
        namespace::attach(network, payload, plan).map_err(self.kernel("making the container's interface"))
    }

    /// Takes the container's interface away. The kernel takes tens of milliseconds for it.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub(super) fn detach(&self, payload: BorrowedFd<'_>) -> Result<(), NetError> {
        let message = messages::delete(self.number);
        namespace::configure(payload, vec![message])
            .map_err(self.kernel("removing the container's interface"))
    }

    /// Makes the default route lead into this network from now on; the messages that do it inside.
    pub(super) fn take_default_route(&mut self) -> Vec<Vec<u8>> {
        self.default_route = true;
        messages::default_routes(&self.interface())
    }

    /// Whether `text` is the beginning of the network's id.
    pub(super) fn has_id(&self, text: &str) -> bool {
        text.len() >= 4
            && self
                .definition
                .as_ref()
                .is_some_and(|definition| definition.id.starts_with(text))
    }

    /// As it was asked for.
    pub(super) fn endpoint(&self) -> EndpointSpec {
        self.endpoint.clone()
    }

    /// Says that this process has the network open, so that newcomers can take it from there; a new network is
    /// locked until then.
    fn record_owner(&mut self) -> Result<(), NetError> {
        self.holder.namespace = self.namespace.as_ref().and_then(state::identity);
        self.dir.write_holder(&self.holder_path, &self.holder)?;
        self.making = None;
        Ok(())
    }

    /// Says that the helper lives in the network from now on, or has it open, so that newcomers can take it from
    /// there. A new network is locked until then.
    ///
    /// # Errors
    /// When the record cannot be written.
    pub(super) fn record_holder(&mut self, helper: i32) -> Result<(), NetError> {
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
        self.record_owner()
    }

    /// Gives the container another name in the network.
    ///
    /// # Errors
    /// When the record cannot be written.
    pub(super) fn rename(&mut self, name: &str) -> Result<(), NetError> {
        self.holder.name = name.to_owned();
        self.dir.write_holder(&self.holder_path, &self.holder)
    }

    pub(super) fn kernel(&self, doing: &'static str) -> impl FnOnce(std::io::Error) -> NetError {
        let network = self.dir.name.clone();
        move |source| NetError::Kernel {
            network,
            doing,
            source,
        }
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        // A file that stays behind names dead processes: the janitor removes it.
        let _ = fs::remove_file(&self.holder_path);
    }
}

fn hex(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
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
pub(super) fn lock_host(dir: &NetworkDir) -> Result<fs::File, NetError> {
    let path = host::lock_path();
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(|source| dir.error("make", parent.into(), source))?;
    }
    state::lock(&path, &dir.name)
}

/// What the host's routing looks like.
pub(super) fn host_routes(network: &str) -> Result<HostRoutes, NetError> {
    Netlink::route()
        .and_then(|mut socket| HostRoutes::read(&mut socket))
        .map_err(|source| NetError::Kernel {
            network: network.into(),
            doing: "reading the host's routes",
            source,
        })
}

/// Chooses subnet and uplink of a network that is to be made; those it had before when they are still free.
fn choose(
    subject: Subject<'_>,
    dir: &NetworkDir,
    definition: Option<&Definition>,
    recorded: Option<NetworkRecord>,
) -> Result<(NetworkRecord, Egress), NetError> {
    let host = host_routes(&dir.name)?;
    let no_subnet = || NetError::NoFreeSubnet {
        network: dir.name.clone(),
    };
    let (subnet, gateway) = match definition {
        Some(definition) => (
            definition.ipv4.subnet().ok_or_else(no_subnet)?,
            definition.ipv4.gateway,
        ),
        None => {
            let others: Vec<Subnet> = NetworkDir::all(subject.root)?
                .iter()
                .filter_map(|(_, definition)| definition.ipv4.subnet())
                .collect();
            let taken = |subnet: Subnet| others.iter().any(|other| other.overlaps(subnet));
            let before = recorded
                .and_then(|record| record.subnet())
                .filter(|subnet| host.is_free(*subnet) && !taken(*subnet));
            let subnet = before
                .or_else(|| subnet::choose(&host, taken))
                .ok_or_else(no_subnet)?;
            (subnet, subnet.nth(1))
        }
    };
    let (uplink, egress) = if definition.is_some_and(|definition| !definition.has_egress()) {
        (None, Egress::Closed)
    } else if subject.rootless {
        (None, Egress::None(NoEgress::Rootless))
    } else {
        choose_egress(&host, subnet)
    };
    let of_host = host.way_out().map_or(1500, |(_, mtu)| mtu.clamp(576, 65_535));
    let ipv6 = definition.and_then(|definition| definition.ipv6.clone());
    let least = if ipv6.is_some() { 1280 } else { 576 };
    let mtu = definition
        .and_then(|definition| definition.mtu)
        .unwrap_or(of_host)
        .max(least);
    let mut record = NetworkRecord::new(subnet, gateway, mtu, uplink);
    record.ipv6 = ipv6;
    Ok((record, egress))
}

fn choose_egress(host: &HostRoutes, subnet: Subnet) -> (Option<UplinkRecord>, Egress) {
    let Some(uplink) = choose_uplink(host, subnet) else {
        return (None, Egress::None(NoEgress::NoFreeAddress));
    };
    let forwards = host
        .way_out()
        .map_or(Ok(()), |(name, _)| forwarding::switch_on(name));
    let doubt = forwards.err().map(|(path, error)| NoEgress::Forwarding {
        path,
        reason: error.to_string(),
    });
    // The table comes first: it shows whether the kernel can do all this.
    match masquerade(&uplink, doubt) {
        Egress::None(reason) => {
            if !host.has_uplink() {
                let _ = forwarding::switch_off();
            }
            (None, Egress::None(reason))
        }
        egress => (Some(uplink), egress),
    }
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
        ipv6: None,
    })
}

fn own_identity(dir: &NetworkDir, path: &Path) -> Result<ProcessIdentity, NetError> {
    ProcessIdentity::current().map_err(|source| dir.error("describe the owner for", path.into(), source))
}

/// Where an address is taken.
struct Place<'a> {
    dir: &'a NetworkDir,
    subject: Subject<'a>,
    range: &'a Range4,
    range6: Option<&'a Range6>,
    endpoint: &'a EndpointSpec,
    interface: String,
}

impl Place<'_> {
    fn take(
        &self,
        lock: &mut Lock,
        holders: Vec<(Ipv4Addr, PathBuf)>,
    ) -> Result<(HolderRecord, PathBuf), NetError> {
        let dir = self.dir;
        let (ip, chosen) = match self.endpoint.ip {
            Some(ip) => (self.asked_for(ip, &holders)?, false),
            None => (self.free(lock, &holders)?, true),
        };
        let path = dir.holder_path(ip, self.subject.id);
        let mut holder = HolderRecord::new(self.subject.id, ip, own_identity(dir, &path)?);
        holder.name = self.subject.name.to_owned();
        holder.aliases.clone_from(&self.endpoint.aliases);
        holder.interface.clone_from(&self.interface);
        holder.ipv6 = self.ipv6(ip, &holders)?;
        holder.mac = Some(
            self.endpoint
                .mac
                .clone()
                .unwrap_or_else(|| hex(messages::hardware_address(ip))),
        );
        dir.write_holder(&path, &holder)?;
        if chosen {
            lock.set_cursor(ip)
                .map_err(|source| dir.error("write", path.with_file_name("lock"), source))?;
        }
        Ok((holder, path))
    }

    fn refused(&self, address: impl Into<IpAddr>, reason: impl Into<String>) -> NetError {
        NetError::Address {
            network: self.dir.name.clone(),
            address: address.into(),
            reason: reason.into(),
        }
    }

    fn asked_for(&self, ip: Ipv4Addr, holders: &[(Ipv4Addr, PathBuf)]) -> Result<Ipv4Addr, NetError> {
        if ip == self.range.gateway {
            return Err(self.refused(ip, "it is the gateway's"));
        }
        if self.range.subnet().is_none_or(|subnet| !subnet.holds(ip)) {
            return Err(self.refused(ip, format!("it is not in {}", self.range.subnet)));
        }
        for (_, path) in holders.iter().filter(|(taken, _)| *taken == ip) {
            match HolderRecord::read(path) {
                Some(holder) if holder.is_alive() => {
                    return Err(NetError::AddressInUse {
                        network: self.dir.name.clone(),
                        address: ip.into(),
                        container: holder.name,
                    });
                }
                _ => {
                    fs::remove_file(path).map_err(|source| self.dir.error("remove", path.clone(), source))?;
                }
            }
        }
        Ok(ip)
    }

    fn free(&self, lock: &mut Lock, holders: &[(Ipv4Addr, PathBuf)]) -> Result<Ipv4Addr, NetError> {
        let choice = self.range.choice();
        let taken: std::collections::HashSet<_> = holders.iter().map(|(ip, _)| *ip).collect();
        let cursor = lock.cursor();
        let found = choice
            .and_then(|choice| choice.next_free(cursor, |ip| taken.contains(&ip) || self.range.reserved(ip)));
        let found = found.or_else(|| {
            // Every address has a file; those of the dead are free.
            let (ip, path) = holders.iter().find(|(ip, path)| {
                choice.is_some_and(|choice| choice.contains(*ip))
                    && !HolderRecord::read(path).is_some_and(|holder| holder.is_alive())
            })?;
            fs::remove_file(path).ok()?;
            Some(*ip)
        });
        found.ok_or_else(|| NetError::NoFreeAddress {
            network: self.dir.name.clone(),
            subnet: choice.map_or_else(|| self.range.subnet.clone(), |choice| choice.to_string()),
        })
    }

    /// The IPv6 address: the one asked for, else that with the offset of the IPv4 address, or the next one free.
    fn ipv6(&self, ip: Ipv4Addr, holders: &[(Ipv4Addr, PathBuf)]) -> Result<Option<Ipv6Addr>, NetError> {
        let Some((range, subnet)) = self.range6.and_then(|range| Some((range, range.subnet()?))) else {
            return match self.endpoint.ip6 {
                Some(ip6) => Err(self.refused(ip6, "the network has no IPv6")),
                None => Ok(None),
            };
        };
        let others: Vec<HolderRecord> = holders
            .iter()
            .filter_map(|(_, path)| HolderRecord::read(path))
            .filter(|holder| holder.ipv6.is_some() && holder.is_alive())
            .collect();
        let whose = |ip6: Ipv6Addr| others.iter().find(|holder| holder.ipv6 == Some(ip6));
        if let Some(ip6) = self.endpoint.ip6 {
            if !subnet.contains(ip6) || ip6 == subnet.base {
                return Err(self.refused(ip6, format!("it is not in {subnet}")));
            }
            if ip6 == range.gateway {
                return Err(self.refused(ip6, "it is the gateway's"));
            }
            if let Some(holder) = whose(ip6) {
                return Err(NetError::AddressInUse {
                    network: self.dir.name.clone(),
                    address: ip6.into(),
                    container: holder.name.clone(),
                });
            }
            return Ok(Some(ip6));
        }
        let choice: Subnet6 = match &range.ip_range {
            Some(text) => text.parse().unwrap_or(subnet),
            None => subnet,
        };
        let base = self.range.subnet().map_or(0, |subnet| subnet.base.to_bits());
        let offset = u128::from(ip.to_bits().wrapping_sub(base));
        let reserved = |ip6: &Ipv6Addr| {
            *ip6 == range.gateway || *ip6 == subnet.base || range.auxiliary.values().any(|other| other == ip6)
        };
        // As many again as there are others is always enough, where there is room at all.
        let tries = others.len() as u128 + range.auxiliary.len() as u128 + 3;
        (offset..offset + tries)
            .chain(1..tries)
            .filter_map(|offset| choice.nth(offset))
            .find(|ip6| !reserved(ip6) && whose(*ip6).is_none())
            .map(Some)
            .ok_or_else(|| NetError::NoFreeAddress {
                network: self.dir.name.clone(),
                subnet: choice.to_string(),
            })
    }
}
