//! Networks: addresses for each container, names, a way out, published ports.
//!
//! A network is an anonymous network namespace that holds a bridge and the gateway's address; every
//! helper of a container in the network lives in it or has it open, and the last one's end is the network's end. One
//! veth pair leads from there to the host, where only that pair's address is known. This module
//! composes what the helper executes, and does the host's side itself.

mod attachment;
mod attachments;
mod definition;
mod error;
mod files;
mod forwarding;
mod guard;
mod host;
mod interfaces;
mod messages;
mod namespace;
mod netlink;
mod networks;
mod nft;
pub(crate) mod publish;
mod range;
mod resolver;
mod state;
mod subnet;
mod subnet6;
mod sweep;
mod translation;

pub use attachment::EndpointInfo;
pub(crate) use attachment::Subject;
pub(crate) use attachments::{Attachments, Joined, Left, SocketKind, next_gateway};
pub(crate) use definition::is_network_name;
pub use definition::{NetworkSpec, SubnetSpec};
pub use error::NetError;
pub(crate) use files::{Resolving, Wishes, hosts, resolv_conf};
pub use networks::{NetworkInfo, NetworkMember, Networks, SubnetInfo};
pub(crate) use resolver::Resolver;
pub(crate) use translation::Published;

use state::{HolderRecord, NetworkDir};
use std::fs;
use std::path::Path;

/// The name of the network that containers are in unless asked otherwise.
pub(crate) const DEFAULT: &str = "default";

/// Removes what dead owners left: records of holders, rules on the host. What cannot be removed now stays for
/// the next time.
pub(crate) fn janitor(root: &Path) {
    let networks = root.join("networks");
    if networks.exists() {
        let mut dirs: Vec<NetworkDir> = NetworkDir::all(root)
            .unwrap_or_default()
            .into_iter()
            .map(|(dir, _)| dir)
            .collect();
        if networks.join(DEFAULT).exists() {
            dirs.extend(NetworkDir::open(root, DEFAULT));
        }
        for dir in dirs {
            // A network that is just being made is not held up.
            if let (Some(_lock), Ok(holders)) = (dir.try_lock(), dir.holders()) {
                dir.sweep_unwritten();
                for (_, path) in holders {
                    if !HolderRecord::read(&path).is_some_and(|holder| holder.is_alive()) {
                        let _ = fs::remove_file(path);
                    }
                }
            }
        }
        NetworkDir::sweep_unfinished(&networks);
    }
    if rustix::process::geteuid().is_root() {
        let _ = sweep::now();
    }
}
