//! A container's place in one network: found or chosen, made, recorded, given up.

mod address;
mod choice;
mod plan;

pub(super) use choice::{host_routes, lock_host};

use super::definition::Definition;
use super::error::NetError;
use super::host;
use super::messages;
use super::namespace;
use super::range::{Range4, Range6};
use super::state::{self, HolderRecord, Lock, NetworkDir, NetworkRecord};
use super::subnet::Subnet;
use crate::process::ProcessIdentity;
use crate::spec::{EndpointSpec, parse_mac};
use crate::warning::{NoEgress, Warning};
use address::Place;
use choice::{Egress, choose, masquerade};
use serde::{Deserialize, Serialize};
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

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
    /// What the container alone calls others of the network: their names, and its names for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<(String, String)>,
    /// The default route leads into this network.
    #[serde(default)]
    pub default_route: bool,
    /// Among several networks the default route leads into that of the highest one.
    #[serde(default)]
    pub gateway_priority: i32,
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
    /// Its place among the container's interfaces, from 0.
    pub(super) number: u32,
    /// The interface's name in the container.
    pub(super) interface: String,
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
        (number, interface): (u32, String),
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
            number,
            interface: interface.clone(),
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
            interface,
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
            number: holder
                .number
                .or_else(|| messages::interface_number(&holder.interface))
                .unwrap_or(0),
            interface: holder.interface.clone(),
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
            interface: self.interface.clone(),
            ip: self.ip,
            prefix: self.subnet.prefix,
            gateway: self.record.gateway,
            ip6: self.ip6,
            prefix6: range6.and_then(Range6::subnet).map_or(0, |subnet| subnet.prefix),
            gateway6: range6.map(|range| range.gateway),
            mac: hex(self.mac),
            aliases: self.endpoint.aliases.clone(),
            links: self.endpoint.links.clone(),
            default_route: self.default_route,
            gateway_priority: self.endpoint.gateway_priority,
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

    pub(super) fn gateway_priority(&self) -> i32 {
        self.endpoint.gateway_priority
    }

    pub(super) fn links(&self) -> &[(String, String)] {
        &self.endpoint.links
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

fn own_identity(dir: &NetworkDir, path: &Path) -> Result<ProcessIdentity, NetError> {
    ProcessIdentity::current().map_err(|source| dir.error("describe the owner for", path.into(), source))
}
