//! Joining and leaving networks.

use crate::container::Container;
use crate::control::{Reply, Request};
use crate::error::{Error, Result};
use crate::net::NetError;
use crate::network_files::{keep_endpoints, kept_endpoints};
use crate::runtime::blocking;
use crate::spec::{ContainerSpec, EndpointSpec, NetworkMode};
use crate::state::{ChangeLock, Status};

impl Container {
    /// Joins one more network, by name or with aliases and addresses; a container that does not run joins it at its
    /// next start.
    ///
    /// # Errors
    /// [`NetError::NoSuchNetwork`], [`NetError::Connected`], [`NetError::Rootless`], those of addresses;
    /// [`NetError::Mode`] when its network is the host's, another container's, or none.
    pub async fn connect_network(&self, endpoint: impl Into<EndpointSpec>) -> Result<()> {
        let (this, endpoint) = (self.clone(), endpoint.into());
        blocking(move || {
            let network = this.runtime().networks().get(&endpoint.network)?.name;
            // A spec says what is wrong with an alias or an address.
            ContainerSpec::new("image").network(endpoint.clone()).validate()?;
            this.has_networks(&network)?;
            let Some(_change) = this.without_owner()? else {
                let connected = this.inspect()?.networks.iter().any(|is| is.network == network);
                if connected {
                    return Err(this.connected(network).into());
                }
                return this.ask_owner(&Request::Connect { endpoint });
            };
            let mut endpoints = this.endpoints()?;
            if endpoints.iter().any(|is| is.network_name() == network) {
                return Err(this.connected(network).into());
            }
            endpoints.push(endpoint);
            keep_endpoints(this.dir(), &endpoints)
        })
        .await
    }

    /// Leaves a network, by name or id; a container that does not run does not join it at its next start.
    ///
    /// # Errors
    /// [`NetError::NotConnected`], [`NetError::Rootless`].
    pub async fn disconnect_network(&self, network: impl Into<String>) -> Result<()> {
        let (this, network) = (self.clone(), network.into());
        blocking(move || {
            // A network that was removed can still be left.
            let name = match this.runtime().networks().get(&network) {
                Ok(info) => info.name,
                Err(NetError::NoSuchNetwork { .. }) => network,
                Err(error) => return Err(error.into()),
            };
            this.has_networks(&name)?;
            let missing = || NetError::NotConnected {
                container: this.name().to_owned(),
                network: name.clone(),
            };
            let Some(_change) = this.without_owner()? else {
                if !this.inspect()?.networks.iter().any(|is| is.network == name) {
                    return Err(missing().into());
                }
                return this.ask_owner(&Request::Disconnect { network: name });
            };
            let mut endpoints = this.endpoints()?;
            let before = endpoints.len();
            endpoints.retain(|is| is.network_name() != name);
            if endpoints.len() == before {
                return Err(missing().into());
            }
            keep_endpoints(this.dir(), &endpoints)
        })
        .await
    }

    /// The right to say what the next start joins; `None` when it runs, or is about to run again: its owner does it.
    fn without_owner(&self) -> Result<Option<ChangeLock>> {
        let owned = || {
            let status = self.status()?;
            Ok::<_, Error>(status.is_running() || matches!(status, Status::Restarting(_)))
        };
        self.see_end()?;
        if owned()? {
            return Ok(None);
        }
        let change = self.dir().lock_changes()?;
        // Somebody may have started it meanwhile.
        Ok((!owned()?).then_some(change))
    }

    fn connected(&self, network: String) -> NetError {
        NetError::Connected {
            container: self.name().to_owned(),
            network,
        }
    }

    fn has_networks(&self, network: &str) -> Result<()> {
        let refused = match (&self.record().spec.network, rustix::process::geteuid().is_root()) {
            (NetworkMode::Default, true) => return Ok(()),
            (NetworkMode::Default, false) => NetError::Rootless {
                network: network.to_owned(),
                what: "a container keeps its one network",
            },
            _ => NetError::Mode {
                container: self.name().to_owned(),
                network: network.to_owned(),
            },
        };
        Err(refused.into())
    }

    fn endpoints(&self) -> Result<Vec<EndpointSpec>> {
        let spec = &self.record().spec.networks;
        Ok(match kept_endpoints(self.dir())? {
            Some(kept) => kept,
            None if spec.is_empty() => vec![EndpointSpec::new(crate::net::DEFAULT)],
            None => spec.clone(),
        })
    }

    fn ask_owner(&self, request: &Request) -> Result<()> {
        match self.ask(request)? {
            (Reply::Done, _) => Ok(()),
            (reply, _) => Err(self.refused(reply)),
        }
    }
}

impl From<&str> for EndpointSpec {
    fn from(network: &str) -> Self {
        Self::new(network)
    }
}
