//! A container's places in all of its networks.
//!
//! The helper lives in the network that the default route leads into, and makes the interface there itself. The
//! interfaces of the others are made from this process while the payload is held, or while it runs.

use super::attachment::{Attachment, EndpointInfo, Subject};
use super::error::NetError;
use super::interfaces;
use super::publish::SocketMaker;
use super::resolver::{Config, Names, Resolver};
use super::translation::{Published, Translation};
use crate::launch::{BridgedPlan, Helper};
use crate::reactor::Loop;
use crate::spec::EndpointSpec;
use crate::warning::Warning;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// In the order of the interfaces.
#[derive(Debug, Default)]
pub(crate) struct Attachments {
    all: Vec<Attachment>,
    /// Found while making networks, for the container.
    warnings: Vec<Warning>,
    /// The container's own name servers.
    dns: Vec<IpAddr>,
    /// Bound, until the owner takes them.
    resolver: Option<[OwnedFd; 2]>,
    /// The payload has one, whether it has names now or not.
    has_resolver: bool,
    /// One more network is being joined.
    joining: bool,
    /// Ports that the kernel translates, and the rules that do it.
    translated: Vec<Published>,
    translation: Option<Translation>,
}

/// A socket of the payload's namespace: domain, type, protocol.
pub(crate) type SocketKind = (i32, i32, i32);

impl Attachments {
    /// Finds or makes the networks, and takes an address in each. Blocking: waits while others make a network.
    ///
    /// # Errors
    /// When there is no such network, an address cannot be had, or the kernel refuses to make a network. Nothing is
    /// left then.
    pub(crate) fn prepare(subject: Subject<'_>, endpoints: &[EndpointSpec]) -> Result<Self, NetError> {
        let mut this = Self::default();
        let Some(first) = gateway_of(endpoints) else {
            return Ok(this);
        };
        if let (true, Some(second)) = (subject.rootless, endpoints.get(1)) {
            return Err(NetError::Rootless {
                network: second.network.clone(),
                what: "a container has one network",
            });
        }
        // One after the other: no two networks are locked at a time. The helper's own comes last, since it stays
        // locked until the helper lives in it.
        let others = (0..endpoints.len()).filter(|index| *index != first);
        let names = interfaces::names(endpoints)?;
        for index in others.chain([first]) {
            let endpoint = &endpoints[index];
            let interface = (index as u32, names[index].clone());
            let mut attachment = Attachment::prepare(subject, endpoint, interface, index == first)?;
            if index != first {
                this.warnings.extend(attachment.make()?);
            } else if subject.rootless && attachment.is_user_defined() {
                let network = attachment.name().to_owned();
                this.warnings.push(Warning::NetworkNotShared { network });
            }
            this.all.push(attachment);
        }
        this.all.sort_by_key(|attachment| attachment.number);
        Ok(this)
    }

    /// Takes over what a dead owner of a running container had.
    ///
    /// # Errors
    /// When the state cannot be read or written.
    pub(crate) fn adopt(subject: Subject<'_>, endpoints: &[EndpointSpec]) -> Result<Self, NetError> {
        let mut this = Self::default();
        let first = gateway_of(endpoints);
        for (index, endpoint) in endpoints.iter().enumerate() {
            match Attachment::adopt(subject, endpoint, Some(index) == first) {
                Ok(found) => this.all.extend(found),
                // A network that was removed by force has nothing to take over.
                Err(NetError::NoSuchNetwork { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        this.all.sort_by_key(|attachment| attachment.number);
        Ok(this)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The one that the default route leads into, and the helper lives in.
    fn first(&self) -> Option<&Attachment> {
        let default = self.all.iter().find(|attachment| attachment.default_route);
        default.or(self.all.first())
    }

    fn position(&self) -> Option<usize> {
        let default = self.all.iter().position(|attachment| attachment.default_route);
        default.or((!self.all.is_empty()).then_some(0))
    }

    /// What the helper does, at the first launch and at every later one of the same container.
    ///
    /// # Errors
    /// When descriptors ran out.
    pub(crate) fn plan(&self) -> Result<Option<Box<BridgedPlan>>, NetError> {
        let Some(first) = self.first() else {
            return Ok(None);
        };
        let mut plan = Box::new(first.plan()?);
        if self.have_names() {
            plan.configure_nft = super::host::resolver_rules();
        }
        Ok(Some(plan))
    }

    /// Says which name servers the container has instead of the host's.
    pub(crate) fn set_name_servers(&mut self, servers: &[IpAddr]) {
        self.dns = servers.to_vec();
    }

    /// Starts the container's resolver, if it has one and its sockets were made in [`Self::connect`].
    ///
    /// # Errors
    /// When descriptors ran out.
    pub(crate) fn start_resolver(
        &mut self,
        events: &mut Loop,
        sockets: Rc<dyn SocketMaker>,
    ) -> std::io::Result<Option<Resolver>> {
        let Some(bound) = self.resolver.take() else {
            return Ok(None);
        };
        Resolver::start(events, bound, self.resolver_config(), sockets).map(Some)
    }

    /// Has the kernel translate published ports, to the network that the default route leads into.
    ///
    /// # Errors
    /// When there is no way from the host into it, or the kernel refuses; the event loop serves all clients then.
    pub(crate) fn translate(&mut self, ports: Vec<Published>) -> Result<(), NetError> {
        // The earlier rules have the ports.
        self.translation = None;
        self.translated = ports;
        if let (Some(first), false) = (self.first(), self.translated.is_empty()) {
            self.translation = Some(Translation::make(first, &self.translated)?);
        }
        Ok(())
    }

    /// What the container's resolver answers from now.
    pub(crate) fn resolver_config(&self) -> Config {
        let mut names = Names::default();
        for attachment in self.all.iter().filter(|attachment| attachment.is_user_defined()) {
            let at = names.networks.len();
            let links = attachment.links().iter();
            names
                .links
                .extend(links.map(|(target, alias)| (at, target.clone(), alias.clone())));
            names.networks.push(attachment.dir.clone());
        }
        Config {
            names,
            servers: self.dns.clone(),
            // Servers of the container's own are asked over its networks, which may be internal.
            closed: self.are_internal() && self.dns.is_empty(),
        }
    }

    /// Takes sockets of the payload's namespace for the resolver of a container that runs and has a new owner: for
    /// datagrams and for streams.
    ///
    /// # Errors
    /// When they cannot be bound.
    pub(crate) fn resume_resolver(&mut self, datagrams: OwnedFd, streams: OwnedFd) -> std::io::Result<()> {
        self.resolver = Some(super::resolver::bind(datagrams, streams)?);
        Ok(())
    }

    /// The sockets of the payload's namespace that [`Self::connect`] needs, in their order.
    pub(crate) fn wanted_sockets(&self) -> Vec<SocketKind> {
        let mut wanted = Vec::new();
        if self.all.len() > 1 {
            wanted.push((libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE));
        }
        if self.have_names() {
            wanted.push((libc::AF_INET, libc::SOCK_DGRAM, 0));
            wanted.push((libc::AF_INET, libc::SOCK_STREAM, 0));
        }
        wanted
    }

    /// Joins new networks to the host and makes the interfaces that the helper did not make, while the payload is
    /// held. `made` is the namespace of the helper's network if it was just made, `sockets` what
    /// [`Self::wanted_sockets`] asks for.
    ///
    /// # Errors
    /// When the kernel refuses an interface or its addresses. A missing way out is only a warning.
    pub(crate) fn connect(
        &mut self,
        helper: &Helper,
        made: Option<OwnedFd>,
        sockets: Vec<OwnedFd>,
    ) -> Result<Vec<Warning>, NetError> {
        let mut sockets = sockets.into_iter();
        let mut warnings = std::mem::take(&mut self.warnings);
        let Some(first) = self.position() else {
            return Ok(warnings);
        };
        warnings.extend(self.all[first].connect_host(made)?);
        let payload = if self.all.len() > 1 { sockets.next() } else { None };
        if let (Some(datagrams), Some(streams)) = (sockets.next(), sockets.next()) {
            let bound = super::resolver::bind(datagrams, streams);
            self.has_resolver = true;
            self.resolver =
                Some(bound.map_err(self.all[first].kernel("listening for the container's queries"))?);
        }
        let Some(socket) = payload else {
            return Ok(warnings);
        };
        for (_, attachment) in self.all.iter().enumerate().filter(|(index, _)| *index != first) {
            let payload = crate::sys::network_of_socket(socket.as_fd())
                .map_err(attachment.kernel("looking for the container's namespace"))?;
            attachment.attach(payload.as_fd())?;
            keep(attachment, helper)?;
        }
        Ok(warnings)
    }

    /// Says that the helper lives in the networks from now on.
    ///
    /// # Errors
    /// When a record cannot be written.
    pub(crate) fn record_holder(&mut self, helper: i32) -> Result<(), NetError> {
        self.all
            .iter_mut()
            .try_for_each(|attachment| attachment.record_holder(helper))
    }

    /// Gives the networks to the helper of the container's next run, which has its first network already.
    ///
    /// # Errors
    /// When a record cannot be written. A helper that has ended is none.
    pub(crate) fn hand_over(&mut self, helper: &Helper, pid: i32) -> Result<(), NetError> {
        let first = self.position();
        for (_, attachment) in self
            .all
            .iter()
            .enumerate()
            .filter(|(index, _)| Some(*index) != first)
        {
            // One that has ended already is seen by its pidfd.
            let _ = keep(attachment, helper);
        }
        self.record_holder(pid)
    }

    /// As `inspect` shows them.
    pub(crate) fn infos(&self) -> Vec<EndpointInfo> {
        self.all.iter().map(Attachment::info).collect()
    }

    /// The address that published ports lead to.
    pub(crate) fn ip(&self) -> Option<Ipv4Addr> {
        self.first().map(|first| first.ip)
    }

    /// Every address, with IPv6 ones after the IPv4 one of the same network.
    pub(crate) fn addresses(&self) -> Vec<IpAddr> {
        self.all
            .iter()
            .flat_map(|attachment| [Some(attachment.ip.into()), attachment.ip6.map(IpAddr::from)])
            .flatten()
            .collect()
    }

    /// The host as the container reaches it; the gateway where there is no way to it.
    pub(crate) fn host_address(&self) -> Option<Ipv4Addr> {
        let host = self.all.iter().find_map(Attachment::host_address);
        host.or_else(|| self.first().map(|first| first.record.gateway))
    }

    /// Whether none of the networks has a way out on purpose.
    pub(crate) fn are_internal(&self) -> bool {
        !self.all.is_empty() && self.all.iter().all(Attachment::is_internal)
    }

    /// Whether containers of a network find each other by name.
    pub(crate) fn have_names(&self) -> bool {
        self.all.iter().any(Attachment::is_user_defined)
    }

    /// Gives the container another name in its networks.
    ///
    /// # Errors
    /// When a record cannot be written.
    pub(crate) fn rename(&mut self, name: &str) -> Result<(), NetError> {
        self.all
            .iter_mut()
            .try_for_each(|attachment| attachment.rename(name))
    }
}

/// A helper that ends before it knows is seen by its pidfd.
fn keep(attachment: &Attachment, helper: &Helper) -> Result<(), NetError> {
    match attachment.namespace() {
        Some(namespace) => helper
            .keep_network(namespace, false)
            .map_err(attachment.kernel("handing the network to the helper")),
        None => Ok(()),
    }
}

/// The network that the default route leads into: of the highest priority, the first on a tie.
fn gateway_of(endpoints: &[EndpointSpec]) -> Option<usize> {
    next_gateway(endpoints.iter().map(|endpoint| endpoint.gateway_priority))
}

/// Which of these priorities is the highest; the first on a tie.
pub(crate) fn next_gateway(priorities: impl Iterator<Item = i32>) -> Option<usize> {
    let all = priorities.enumerate();
    all.max_by_key(|(index, priority)| (*priority, std::cmp::Reverse(*index)))
        .map(|(index, _)| index)
}

/// A network that a running container is about to join.
#[derive(Debug)]
pub(crate) struct Newcomer {
    root: PathBuf,
    id: String,
    name: String,
    endpoint: EndpointSpec,
    /// Its number and its name.
    interface: (u32, String),
    default_route: bool,
    /// The container has no resolver yet.
    first: bool,
    /// Becomes one with names.
    named: bool,
}

/// A network that a running container has joined.
#[derive(Debug)]
pub(crate) struct Joined {
    attachment: Attachment,
    resolver: Option<[OwnedFd; 2]>,
}

/// A network that a running container is about to leave.
#[derive(Debug)]
pub(crate) struct Leaving {
    attachment: Attachment,
    /// Messages that make the default route lead elsewhere.
    routes: Vec<Vec<u8>>,
}

/// A network that a running container has left.
#[derive(Debug)]
pub(crate) struct Left {
    namespace: Option<OwnedFd>,
}

impl Left {
    pub(crate) fn namespace(&self) -> Option<&OwnedFd> {
        self.namespace.as_ref()
    }
}

impl Newcomer {
    /// As [`Attachments::wanted_sockets`], of the running payload.
    pub(crate) fn wanted_sockets(&self) -> Vec<SocketKind> {
        let mut wanted = vec![(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE)];
        if self.first && self.named {
            wanted.push((libc::AF_INET, libc::SOCK_DGRAM, 0));
            wanted.push((libc::AF_INET, libc::SOCK_STREAM, 0));
        }
        wanted
    }

    /// Finds or makes the network, takes an address, makes the interface. Blocking.
    ///
    /// # Errors
    /// As [`Attachments::prepare`].
    pub(crate) fn join(self, sockets: Vec<OwnedFd>) -> Result<Joined, NetError> {
        let subject = Subject {
            root: &self.root,
            id: &self.id,
            name: &self.name,
            rootless: false,
        };
        let mut attachment =
            Attachment::prepare(subject, &self.endpoint, self.interface, self.default_route)?;
        attachment.make()?;
        let mut sockets = sockets.into_iter();
        let route = sockets.next().ok_or_else(|| missing(&attachment))?;
        let payload = crate::sys::network_of_socket(route.as_fd())
            .map_err(attachment.kernel("looking for the container's namespace"))?;
        attachment.attach(payload.as_fd())?;
        let mut resolver = None;
        if let (Some(datagrams), Some(streams)) = (sockets.next(), sockets.next()) {
            let rules = super::host::resolver_rules();
            super::namespace::inside(payload.as_fd(), move || {
                super::netlink::Netlink::netfilter()?.batch(&rules)
            })
            .map_err(attachment.kernel("redirecting the container's queries"))?;
            let bound = super::resolver::bind(datagrams, streams);
            resolver = Some(bound.map_err(attachment.kernel("listening for the container's queries"))?);
        }
        Ok(Joined { attachment, resolver })
    }
}

fn missing(attachment: &Attachment) -> NetError {
    attachment.kernel("looking for a socket inside the container")(std::io::ErrorKind::NotFound.into())
}

impl Leaving {
    pub(crate) fn network(&self) -> &str {
        self.attachment.name()
    }

    /// Takes the interface away, and then gives the address up. Blocking: the kernel takes tens of milliseconds.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub(crate) fn leave(self, sockets: &[OwnedFd]) -> Result<Left, NetError> {
        let route = sockets.first().ok_or_else(|| missing(&self.attachment))?;
        let payload = crate::sys::network_of_socket(route.as_fd())
            .map_err(self.attachment.kernel("looking for the container's namespace"))?;
        self.attachment.detach(payload.as_fd())?;
        if !self.routes.is_empty() {
            super::namespace::configure(payload.as_fd(), self.routes)
                .map_err(self.attachment.kernel("setting the default route"))?;
        }
        let namespace = self
            .attachment
            .namespace()
            .and_then(|namespace| namespace.try_clone_to_owned().ok());
        Ok(Left { namespace })
    }
}

impl Attachments {
    /// Prepares to join one more network; one at a time.
    ///
    /// # Errors
    /// When the container is in the network already, there is no such network, or it is not root's.
    pub(crate) fn newcomer(
        &mut self,
        root: &Path,
        id: &str,
        name: &str,
        endpoint: EndpointSpec,
    ) -> Result<Newcomer, NetError> {
        let network = super::networks::name_of(root, endpoint.network_name())?;
        if !rustix::process::geteuid().is_root() {
            return Err(NetError::Rootless {
                network,
                what: "a running container keeps its one network",
            });
        }
        if self.joining || self.all.iter().any(|attachment| attachment.name() == network) {
            return Err(NetError::Connected {
                container: name.to_owned(),
                network,
            });
        }
        let number = (0..)
            .find(|number| !self.all.iter().any(|attachment| attachment.number == *number))
            .unwrap_or_default();
        let names: Vec<&str> = self.all.iter().map(|other| other.interface.as_str()).collect();
        let interface = match &endpoint.interface {
            Some(name) if names.contains(&name.as_str()) => {
                return Err(NetError::InterfaceTaken {
                    network,
                    interface: name.clone(),
                });
            }
            Some(name) => name.clone(),
            None => interfaces::free(|name| names.contains(&name)),
        };
        // As docker: the default route leads into the network of the highest priority, and stays where it is on a tie.
        let highest = self.first().map(Attachment::gateway_priority);
        let default_route = highest.is_none_or(|highest| endpoint.gateway_priority > highest);
        self.joining = true;
        Ok(Newcomer {
            root: root.to_owned(),
            id: id.to_owned(),
            name: name.to_owned(),
            interface: (number, interface),
            default_route,
            first: !self.has_resolver,
            named: network != super::DEFAULT,
            endpoint,
        })
    }

    /// The newcomer did not come.
    pub(crate) fn newcomer_is_gone(&mut self) {
        self.joining = false;
    }

    /// Takes a network that was joined.
    ///
    /// # Errors
    /// When it cannot be recorded that the helper has it open.
    pub(crate) fn add(&mut self, joined: Joined, helper: &Helper) -> Result<EndpointInfo, NetError> {
        self.joining = false;
        let mut attachment = joined.attachment;
        if attachment.default_route {
            // An internal network has no gateway to lead to.
            if attachment.is_internal() && !self.all.is_empty() {
                attachment.default_route = false;
            } else {
                self.all.iter_mut().for_each(|other| other.default_route = false);
            }
        }
        keep(&attachment, helper)?;
        attachment.record_holder(helper.pid())?;
        let info = attachment.info();
        self.has_resolver |= joined.resolver.is_some();
        self.resolver = joined.resolver.or(self.resolver.take());
        self.all.push(attachment);
        self.all.sort_by_key(|attachment| attachment.number);
        Ok(info)
    }

    /// Prepares to leave a network, by name or id.
    ///
    /// # Errors
    /// When the container is not in it.
    pub(crate) fn take(&mut self, network: &str, container: &str) -> Result<Leaving, NetError> {
        let network = if network == "bridge" {
            super::DEFAULT
        } else {
            network
        };
        let at = self
            .all
            .iter()
            .position(|attachment| attachment.name() == network || attachment.has_id(network))
            .ok_or_else(|| NetError::NotConnected {
                container: container.to_owned(),
                network: network.to_owned(),
            })?;
        let attachment = self.all.remove(at);
        let mut routes = Vec::new();
        if attachment.default_route
            && let Some(next) = next_gateway(self.all.iter().map(Attachment::gateway_priority))
        {
            routes = self.all[next].take_default_route();
        }
        Ok(Leaving { attachment, routes })
    }

    /// Has the helper live in the network that published ports lead to; on the host when there is none.
    pub(crate) fn settle(&mut self, helper: &Helper) {
        let host = || std::fs::File::open("/proc/thread-self/ns/net").map(OwnedFd::from);
        let namespace = match self.first() {
            Some(first) => first
                .namespace()
                .and_then(|namespace| namespace.try_clone_to_owned().ok()),
            None => host().ok(),
        };
        if let Some(namespace) = namespace {
            // A helper that is gone lives nowhere.
            let _ = helper.release_network(namespace.as_fd());
            let _ = helper.keep_network(namespace.as_fd(), true);
        }
        let ports = std::mem::take(&mut self.translated);
        // Without rules the event loop serves all clients.
        let _ = self.translate(ports);
    }

    /// What the networks were asked for as, for a later start.
    pub(crate) fn endpoints(&self) -> Vec<EndpointSpec> {
        self.all.iter().map(Attachment::endpoint).collect()
    }
}
