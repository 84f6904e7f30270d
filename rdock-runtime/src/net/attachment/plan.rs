//! What makes a network, and a container's interface in it.

use super::{Attachment, Egress};
use crate::launch::{AttachMessage, BridgedPlan};
use crate::net::error::NetError;
use crate::net::host;
use crate::net::messages::{self, Interface};
use crate::net::netlink::Netlink;
use crate::net::{guard, namespace};
use crate::warning::Warning;
use std::os::fd::AsFd;
use std::path::Path;

/// The number of NETLINK_NETFILTER.
const NETFILTER: u32 = 12;

impl Attachment {
    /// What makes the network (when it has to be made) and the container's interface in it.
    ///
    /// # Errors
    /// When descriptors ran out.
    pub(in crate::net) fn plan(&self) -> Result<BridgedPlan, NetError> {
        let setting = |name: &str, value: &str| (name.to_string(), value.to_string());
        // A kernel without IPv6 has nothing to switch off.
        let has_ipv6 = Path::new("/proc/sys/net/ipv6").exists();
        let interface = self.interface();
        let name = self.interface.clone();
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
        for (parameter, value) in &self.endpoint.sysctls {
            let parts = parameter.split('.').map(|part| match part {
                "IFNAME" => name.as_str(),
                part => part,
            });
            configure_sysctls.push(setting(&parts.collect::<Vec<_>>().join("/"), value));
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

    pub(super) fn owner(&self) -> guard::Owner {
        guard::Owner {
            mac: self.mac,
            ip: self.ip,
            ip6: self.ip6,
            link_local: self.endpoint.link_local.clone(),
        }
    }

    /// Has the rules against containers that speak for others made in a network just made.
    pub(super) fn guard(&mut self) -> Result<Option<Warning>, NetError> {
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

    pub(super) fn interface(&self) -> Interface {
        let range6 = self.record.ipv6.as_ref();
        Interface {
            number: self.number,
            name: self.interface.clone(),
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
}
