//! Work in other network namespaces, on threads that do only that: a thread's namespace cannot be lent to whoever
//! uses the thread next.

use super::netlink::Netlink;
use crate::launch::BridgedPlan;
use nix::sched::CloneFlags;
use rustix::fs::{Mode, OFlags};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

fn on_a_thread<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    std::thread::Builder::new()
        .name("rdock-net".into())
        .spawn(work)?
        .join()
        .unwrap_or_else(|_| Err(io::Error::other("the thread ended early")))
}

/// Does `work` in a network namespace.
pub(super) fn inside<T: Send + 'static>(
    namespace: BorrowedFd<'_>,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let namespace = namespace.try_clone_to_owned()?;
    on_a_thread(move || {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        work()
    })
}

/// A new network namespace with what the messages and settings make in it.
pub(super) fn make(setup: Vec<Vec<u8>>, sysctls: Vec<(String, String)>, nft: Vec<u8>) -> io::Result<OwnedFd> {
    on_a_thread(move || {
        nix::sched::unshare(CloneFlags::CLONE_NEWNET)?;
        let own = rustix::fs::open(
            "/proc/thread-self/ns/net",
            OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let mut route = Netlink::route()?;
        for message in &setup {
            route.request(message)?;
        }
        write(&sysctls)?;
        if !nft.is_empty() {
            Netlink::netfilter()?.batch(&nft)?;
        }
        Ok(own)
    })
}

/// Executes the part of a plan that the helper executes otherwise: the interface, and what it is given inside.
pub(super) fn attach(network: BorrowedFd<'_>, payload: BorrowedFd<'_>, plan: BridgedPlan) -> io::Result<()> {
    let there = payload.try_clone_to_owned()?;
    let messages = plan.attach;
    inside(network, move || {
        for mut message in messages {
            if let Some(at) = message.payload_namespace_at
                && let Some(place) = message.bytes.get_mut(at..at + 4)
            {
                place.copy_from_slice(&there.as_raw_fd().to_ne_bytes());
            }
            Netlink::of_protocol(message.protocol)?.request_all(&message.bytes)?;
        }
        Ok(())
    })?;
    let (settings, messages) = (plan.configure_sysctls, plan.configure);
    inside(payload, move || {
        write(&settings)?;
        let mut route = Netlink::route()?;
        messages.iter().try_for_each(|message| route.request(message))
    })
}

/// Sends rtnetlink messages in a namespace.
pub(super) fn configure(namespace: BorrowedFd<'_>, messages: Vec<Vec<u8>>) -> io::Result<()> {
    inside(namespace, move || {
        let mut route = Netlink::route()?;
        messages.iter().try_for_each(|message| route.request(message))
    })
}

fn write(settings: &[(String, String)]) -> io::Result<()> {
    for (name, value) in settings {
        std::fs::write(Path::new("/proc/sys").join(name), value)?;
    }
    Ok(())
}
