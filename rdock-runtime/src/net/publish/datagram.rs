//! Datagrams with the host's own address that they came to: an answer has to come from there, and a socket for every
//! address would answer from the one that the route to the client prefers.

use nix::cmsg_space;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, SockaddrIn6, SockaddrStorage, recvmsg,
    sendmsg, setsockopt, sockopt,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd};

/// Who sent a datagram, and to which of the host's addresses; `None` for a socket that has only one.
pub(super) type Client = (SocketAddr, Option<IpAddr>);

/// Has the kernel say where datagrams came to, on a socket for every address.
pub(super) fn prepare(socket: &impl AsFd, bound: SocketAddr) -> io::Result<()> {
    match bound.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => setsockopt(socket, sockopt::Ipv4PacketInfo, &true)?,
        IpAddr::V6(ip) if ip.is_unspecified() => setsockopt(socket, sockopt::Ipv6RecvPacketInfo, &true)?,
        _ => {}
    }
    Ok(())
}

/// The next datagram, without waiting.
pub(super) fn receive(socket: &impl AsFd, buffer: &mut [u8]) -> io::Result<(usize, Client)> {
    let mut space = cmsg_space!(libc::in6_pktinfo);
    let mut parts = [IoSliceMut::new(buffer)];
    let received = recvmsg::<SockaddrStorage>(
        socket.as_fd().as_raw_fd(),
        &mut parts,
        Some(&mut space),
        MsgFlags::MSG_DONTWAIT,
    )?;
    let from = received.address.and_then(|address| {
        let ipv4 = address.as_sockaddr_in().map(|is| SocketAddrV4::from(*is).into());
        ipv4.or_else(|| address.as_sockaddr_in6().map(|is| SocketAddrV6::from(*is).into()))
    });
    let at = received.cmsgs().ok().and_then(|mut all| {
        all.find_map(|message| match message {
            ControlMessageOwned::Ipv4PacketInfo(info) => {
                Some(IpAddr::V4(Ipv4Addr::from(u32::from_be(info.ipi_spec_dst.s_addr))))
            }
            ControlMessageOwned::Ipv6PacketInfo(info) => {
                Some(IpAddr::V6(Ipv6Addr::from(info.ipi6_addr.s6_addr)))
            }
            _ => None,
        })
    });
    let from: SocketAddr = from.ok_or(io::ErrorKind::InvalidData)?;
    Ok((received.bytes, (from, at)))
}

/// Sends a datagram to a client, from the address that it knows.
pub(super) fn send(socket: &impl AsFd, bytes: &[u8], (to, at): Client) -> io::Result<()> {
    let fd = socket.as_fd().as_raw_fd();
    let parts = [IoSlice::new(bytes)];
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    match (to, at) {
        (SocketAddr::V4(to), Some(IpAddr::V4(at))) => {
            let info = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr {
                    s_addr: at.to_bits().to_be(),
                },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            let from = [ControlMessage::Ipv4PacketInfo(&info)];
            sendmsg(fd, &parts, &from, flags, Some(&SockaddrIn::from(to)))?;
        }
        (SocketAddr::V6(to), Some(IpAddr::V6(at))) => {
            let info = libc::in6_pktinfo {
                ipi6_addr: libc::in6_addr { s6_addr: at.octets() },
                // That of a link-local address is in the client's.
                ipi6_ifindex: to.scope_id(),
            };
            let from = [ControlMessage::Ipv6PacketInfo(&info)];
            sendmsg(fd, &parts, &from, flags, Some(&SockaddrIn6::from(to)))?;
        }
        (SocketAddr::V4(to), _) => {
            sendmsg(fd, &parts, &[], flags, Some(&SockaddrIn::from(to)))?;
        }
        (SocketAddr::V6(to), _) => {
            sendmsg(fd, &parts, &[], flags, Some(&SockaddrIn6::from(to)))?;
        }
    }
    Ok(())
}
