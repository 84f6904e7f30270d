//! The networks of a root: create, look at, remove.

use super::attachment::{host_routes, lock_host};
use super::definition::{self, Definition, NetworkSpec};
use super::error::NetError;
use super::range::{Range4, Range6};
use super::state::{HolderRecord, NetworkDir};
use super::subnet::{self, Subnet};
use super::subnet6::Subnet6;
use crate::events::{EventAction, EventKind, Journal};
use serde::Serialize;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

/// The networks of a root. Any number of processes may have it open.
///
/// A network is only a definition until its first container runs, and again after its last one has ended.
#[derive(Debug, Clone)]
pub struct Networks {
    root: PathBuf,
}

/// A network as `network ls` and `network inspect` show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct NetworkInfo {
    /// Its name; `default`, `host` and `none` are always there.
    pub name: String,
    /// 64 hexadecimal digits.
    pub id: String,
    /// `bridge`, `host` or `null`, as Docker calls them.
    pub driver: String,
    /// When it was created, RFC 3339 in UTC; `None` for those that are always there.
    pub created: Option<String>,
    /// No way out.
    pub internal: bool,
    /// Its containers have IPv6 addresses.
    pub ipv6: bool,
    /// None of the default network before its first container.
    pub subnets: Vec<SubnetInfo>,
    /// As asked for, in bytes.
    pub mtu: Option<u32>,
    /// As given when it was created.
    pub labels: BTreeMap<String, String>,
    /// As given when it was created.
    pub options: BTreeMap<String, String>,
    /// The running containers by name.
    pub containers: BTreeMap<String, NetworkMember>,
}

/// A subnet of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SubnetInfo {
    /// In CIDR notation.
    pub subnet: String,
    /// The containers' default route.
    pub gateway: IpAddr,
    /// What addresses are chosen from, when it is not all of the subnet.
    pub ip_range: Option<String>,
    /// Addresses that are never chosen.
    pub auxiliary: BTreeMap<String, IpAddr>,
}

/// A running container of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct NetworkMember {
    /// The container's id.
    pub id: String,
    /// Its address.
    pub ip: Ipv4Addr,
    /// Its IPv6 address.
    pub ip6: Option<Ipv6Addr>,
    /// Its hardware address.
    pub mac: Option<String>,
    /// Its names beside its own.
    pub aliases: Vec<String>,
}

impl Networks {
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.into() }
    }

    /// Creates a network: chooses subnets where none are given, and keeps the definition.
    ///
    /// # Errors
    /// [`NetError::InvalidNetwork`], [`NetError::Exists`], [`NetError::Overlap`], [`NetError::NoFreeSubnet`].
    pub fn create(&self, spec: &NetworkSpec) -> Result<NetworkInfo, NetError> {
        let wanted = definition::check(spec)?;
        let (default, _) = NetworkDir::find(&self.root, super::DEFAULT)?;
        // A plain user's networks touch nothing of the host, and it may not lock it.
        let _host = match rustix::process::geteuid().is_root() {
            true => lock_host(&default)?,
            false => super::state::lock(&self.root.join("networks").join(".create"), &spec.name)?,
        };
        let others = NetworkDir::all(&self.root)?;
        if others.iter().any(|(dir, _)| dir.name == spec.name) {
            return Err(NetError::Exists {
                network: spec.name.clone(),
            });
        }
        // The default network gives way while nobody is in it.
        let default_subnet = match default.holders()?.is_empty() {
            true => None,
            false => default.read()?.and_then(|record| record.subnet()),
        };
        let overlap =
            |subnet: &dyn std::fmt::Display, other: &dyn std::fmt::Display, with: &str| NetError::Overlap {
                network: spec.name.clone(),
                subnet: subnet.to_string(),
                other: other.to_string(),
                with: with.into(),
            };
        let taken4: Vec<(Subnet, &str)> = others
            .iter()
            .filter_map(|(dir, definition)| Some((definition.ipv4.subnet()?, dir.name.as_str())))
            .chain(default_subnet.map(|subnet| (subnet, super::DEFAULT)))
            .collect();
        let none_free = || NetError::NoFreeSubnet {
            network: spec.name.clone(),
        };
        let ipv4 = match wanted.ipv4 {
            Some(range) => {
                let subnet = range.subnet().ok_or_else(none_free)?;
                if let Some((other, with)) = taken4.iter().find(|(other, _)| other.overlaps(subnet)) {
                    return Err(overlap(&subnet, other, with));
                }
                range
            }
            None => {
                let host = host_routes(&spec.name)?;
                let taken = |subnet: Subnet| taken4.iter().any(|(other, _)| other.overlaps(subnet));
                Range4::around(subnet::choose(&host, taken).ok_or_else(none_free)?)
            }
        };
        let taken6: Vec<(Subnet6, &str)> = others
            .iter()
            .filter_map(|(dir, definition)| Some((definition.ipv6.as_ref()?.subnet()?, dir.name.as_str())))
            .collect();
        let ipv6 = match wanted.ipv6 {
            Some(range) => {
                let subnet = range.subnet().ok_or_else(none_free)?;
                if let Some((other, with)) = taken6.iter().find(|(other, _)| other.overlaps(subnet)) {
                    return Err(overlap(&subnet, other, with));
                }
                Some(range)
            }
            None if spec.ipv6 => {
                let free = (0..16)
                    .filter_map(|_| Subnet6::random())
                    .find(|subnet| !taken6.iter().any(|(other, _)| other.overlaps(*subnet)));
                Some(free.and_then(Range6::around).ok_or_else(none_free)?)
            }
            None => None,
        };
        let id = crate::identity::random_id().map_err(|source| NetError::Kernel {
            network: spec.name.clone(),
            doing: "reading random numbers",
            source,
        })?;
        let definition = Definition {
            version: 1,
            id,
            name: spec.name.clone(),
            created: crate::state::now(),
            ipv4,
            ipv6,
            internal: spec.internal,
            mtu: wanted.mtu,
            labels: spec.labels.clone(),
            options: spec.options.clone(),
        };
        if !NetworkDir::create(&self.root, &definition)? {
            return Err(NetError::Exists {
                network: spec.name.clone(),
            });
        }
        self.tell(EventAction::Create, &definition.id, &definition.name);
        Ok(user_info(&definition, BTreeMap::new()))
    }

    fn tell(&self, action: EventAction, id: &str, name: &str) {
        let attributes = [("name", name), ("type", "bridge")];
        Journal::new(&self.root).record(EventKind::Network, action, id, &attributes);
    }

    /// The network with this name or id, or the unique beginning of an id.
    ///
    /// # Errors
    /// [`NetError::NoSuchNetwork`].
    pub fn get(&self, name: &str) -> Result<NetworkInfo, NetError> {
        for (fixed, driver) in [("host", "host"), ("none", "null")] {
            if name == fixed {
                return Ok(fixed_info(fixed, driver));
            }
        }
        let name = if name == "bridge" { super::DEFAULT } else { name };
        let (dir, definition) = NetworkDir::find(&self.root, name)?;
        let members = members(&dir)?;
        match definition {
            Some(definition) => Ok(user_info(&definition, members)),
            None => {
                let mut info = fixed_info(super::DEFAULT, "bridge");
                info.containers = members;
                if let Some(record) = dir.read()? {
                    info.subnets.push(SubnetInfo {
                        subnet: record.subnet,
                        gateway: record.gateway.into(),
                        ip_range: None,
                        auxiliary: BTreeMap::new(),
                    });
                    info.mtu = Some(record.mtu);
                }
                Ok(info)
            }
        }
    }

    /// Every network: `default`, `host` and `none` first, then the others by name.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub fn list(&self) -> Result<Vec<NetworkInfo>, NetError> {
        let mut all = Vec::new();
        for fixed in [super::DEFAULT, "host", "none"] {
            all.push(self.get(fixed)?);
        }
        for (dir, definition) in NetworkDir::all(&self.root)? {
            all.push(user_info(&definition, members(&dir)?));
        }
        Ok(all)
    }

    /// Removes a network that no running container is in.
    ///
    /// # Errors
    /// [`NetError::NoSuchNetwork`], [`NetError::InUse`], [`NetError::Predefined`].
    pub fn remove(&self, name: &str) -> Result<(), NetError> {
        if definition::PREDEFINED.contains(&name) {
            return Err(NetError::Predefined {
                network: name.into(),
                doing: "removed",
            });
        }
        let (dir, _) = NetworkDir::find(&self.root, name)?;
        let _lock = dir.lock()?;
        // It may have been removed while this waited.
        let (_, definition) = NetworkDir::find(&self.root, &dir.name)?;
        let mut containers: Vec<String> = dir
            .holders()?
            .into_iter()
            .filter_map(|(_, path)| HolderRecord::read(&path))
            .filter(HolderRecord::is_alive)
            .map(|holder| holder.name)
            .collect();
        if containers.is_empty() {
            dir.remove()?;
            let id = definition.map(|definition| definition.id).unwrap_or_default();
            self.tell(EventAction::Destroy, &id, &dir.name);
            return Ok(());
        }
        containers.sort();
        Err(NetError::InUse {
            network: dir.name,
            containers,
        })
    }

    /// Removes every network that `unwanted` holds for and no running container is in; their names.
    ///
    /// # Errors
    /// When the state cannot be read, or one cannot be removed.
    pub fn prune(&self, unwanted: impl Fn(&NetworkInfo) -> bool) -> Result<Vec<String>, NetError> {
        let mut removed = Vec::new();
        for (dir, definition) in NetworkDir::all(&self.root)? {
            let info = user_info(&definition, members(&dir)?);
            if !info.containers.is_empty() || !unwanted(&info) {
                continue;
            }
            match self.remove(&dir.name) {
                Ok(()) => removed.push(info.name),
                // Somebody was faster, one way or the other.
                Err(NetError::NoSuchNetwork { .. } | NetError::InUse { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(removed)
    }
}

/// The name of the network with this name or id.
pub(super) fn name_of(root: &Path, network: &str) -> Result<String, NetError> {
    Ok(NetworkDir::find(root, network)?.0.name)
}

fn members(dir: &NetworkDir) -> Result<BTreeMap<String, NetworkMember>, NetError> {
    let members = dir.holders()?.into_iter().filter_map(|(_, path)| {
        let holder = HolderRecord::read(&path).filter(HolderRecord::is_running)?;
        let member = NetworkMember {
            id: holder.container,
            ip: holder.address,
            ip6: holder.ipv6,
            mac: holder.mac,
            aliases: holder.aliases,
        };
        Some((holder.name, member))
    });
    Ok(members.collect())
}

fn fixed_info(name: &str, driver: &str) -> NetworkInfo {
    // The same for every root, as is the name.
    let digest = rdock_image::Digest::sha256_of(format!("rdock network {name}").as_bytes()).to_string();
    NetworkInfo {
        name: name.into(),
        id: digest.trim_start_matches("sha256:").to_owned(),
        driver: driver.into(),
        created: None,
        internal: false,
        ipv6: false,
        subnets: Vec::new(),
        mtu: None,
        labels: BTreeMap::new(),
        options: BTreeMap::new(),
        containers: BTreeMap::new(),
    }
}

fn user_info(definition: &Definition, containers: BTreeMap<String, NetworkMember>) -> NetworkInfo {
    let auxiliary4 = definition.ipv4.auxiliary.iter();
    let mut subnets = vec![SubnetInfo {
        subnet: definition.ipv4.subnet.clone(),
        gateway: definition.ipv4.gateway.into(),
        ip_range: definition.ipv4.ip_range.clone(),
        auxiliary: auxiliary4
            .map(|(name, ip)| (name.clone(), (*ip).into()))
            .collect(),
    }];
    subnets.extend(definition.ipv6.as_ref().map(|range| {
        SubnetInfo {
            subnet: range.subnet.clone(),
            gateway: range.gateway.into(),
            ip_range: range.ip_range.clone(),
            auxiliary: range
                .auxiliary
                .iter()
                .map(|(name, ip)| (name.clone(), (*ip).into()))
                .collect(),
        }
    }));
    NetworkInfo {
        name: definition.name.clone(),
        id: definition.id.clone(),
        driver: "bridge".into(),
        created: Some(definition.created.clone()),
        internal: definition.internal,
        ipv6: definition.ipv6.is_some(),
        subnets,
        mtu: definition.mtu,
        labels: definition.labels.clone(),
        options: definition.options.clone(),
        containers,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::SubnetSpec;

    #[test]
    fn networks_are_created_listed_and_removed() {
        let root = tempfile::tempdir().unwrap();
        let networks = Networks::new(root.path());
        let spec = NetworkSpec::new("backend")
            .subnet(SubnetSpec::new("10.9.0.0/16").gateway([10, 9, 0, 9]))
            .ipv6(true)
            .label("a", "b");
        let made = networks.create(&spec).unwrap();
        assert_eq!(made, networks.get("backend").unwrap());
        assert_eq!(made, networks.get(&made.id[..12]).unwrap());
        assert_eq!((made.subnets.len(), made.ipv6, made.internal), (2, true, false));
        let names: Vec<_> = networks
            .list()
            .unwrap()
            .into_iter()
            .map(|info| info.name)
            .collect();
        assert_eq!(names, ["default", "host", "none", "backend"]);
        assert!(matches!(networks.create(&spec), Err(NetError::Exists { .. })));
        let overlapping = NetworkSpec::new("other").subnet(SubnetSpec::new("10.9.128.0/20"));
        assert!(
            matches!(networks.create(&overlapping), Err(NetError::Overlap { with, .. }) if with == "backend")
        );
        let chosen = networks.create(&NetworkSpec::new("format")).unwrap();
        let chosen: Subnet = chosen.subnets[0].subnet.parse().unwrap();
        assert!(!chosen.overlaps("10.9.0.0/16".parse().unwrap()));
        networks.remove("format").unwrap();
        networks.remove("backend").unwrap();
        assert!(matches!(
            networks.remove("backend"),
            Err(NetError::NoSuchNetwork { .. })
        ));
        assert!(matches!(
            networks.get("backend"),
            Err(NetError::NoSuchNetwork { .. })
        ));
        for fixed in ["default", "bridge", "host", "none"] {
            assert!(matches!(networks.remove(fixed), Err(NetError::Predefined { .. })));
            networks.get(fixed).unwrap();
        }
        for bad in ["..", "../x", "a/b", ""] {
            assert!(
                matches!(networks.get(bad), Err(NetError::NoSuchNetwork { .. })),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn a_network_in_use_stays_and_prune_takes_the_rest() {
        use crate::process::ProcessIdentity;
        let root = tempfile::tempdir().unwrap();
        let networks = Networks::new(root.path());
        for name in ["used", "kept", "free"] {
            networks
                .create(&NetworkSpec::new(name).label("name", name))
                .unwrap();
        }
        let (dir, _) = NetworkDir::find(root.path(), "used").unwrap();
        let ip = Ipv4Addr::new(10, 0, 0, 2);
        let path = dir.holder_path(ip, "c");
        let own = ProcessIdentity::current().unwrap();
        let mut holder = HolderRecord::new("c", ip, own.clone());
        (holder.name, holder.helper) = ("web".into(), Some(own));
        dir.write_holder(&path, &holder).unwrap();
        let error = networks.remove("used").unwrap_err();
        assert!(error.to_string().contains("web"), "{error}");
        let removed = networks.prune(|info| info.labels["name"] != "kept").unwrap();
        assert_eq!(removed, ["free"]);
        assert!(networks.get("used").unwrap().containers.contains_key("web"));
        networks.get("kept").unwrap();
    }
}
