//! Taking ports of the host, before anything listens on them.

use crate::net::NetError;
use crate::spec::{PortMapping, Protocol};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;

/// How often a free port is drawn again when its IPv6 half is taken.
const DRAWS: u32 = 32;

/// One published port as it is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PortRequest {
    /// All of IPv4 and IPv6 when `None`.
    pub(crate) host_ip: Option<IpAddr>,
    /// The first free one of a range; any free one when `None`.
    pub(crate) host_port: Option<RangeInclusive<u16>>,
    pub(crate) container_port: u16,
    pub(crate) protocol: Protocol,
}

impl From<&PortMapping> for PortRequest {
    fn from(mapping: &PortMapping) -> Self {
        Self {
            host_ip: mapping.host_ip,
            host_port: mapping
                .host
                .filter(|port| *port != 0)
                .map(|port| port..=mapping.host_end.unwrap_or(port)),
            container_port: mapping.container,
            protocol: mapping.protocol,
        }
    }
}

/// A port of the host that is ours: bound, not yet listening.
#[derive(Debug)]
pub(crate) struct BoundPort {
    pub(crate) container_port: u16,
    pub(crate) protocol: Protocol,
    /// Where it is bound.
    pub(crate) address: SocketAddr,
    pub(super) socket: OwnedFd,
}

impl BoundPort {
    pub(crate) fn published(&self) -> crate::net::Published {
        crate::net::Published {
            host: self.address,
            protocol: self.protocol,
            container: self.container_port,
        }
    }
}

/// Binds every port, or none.
///
/// A request without an address gives two: `0.0.0.0` and, where the host has IPv6, `[::]`, on one port number.
///
/// # Errors
/// [`NetError::PortInUse`], [`NetError::RangeInUse`] or [`NetError::Bind`], with the address.
pub(crate) fn bind(requests: &[PortRequest]) -> Result<Vec<BoundPort>, NetError> {
    let mut bound = Vec::with_capacity(requests.len());
    for request in requests {
        bound.extend(bind_one(request)?);
    }
    Ok(bound)
}

fn bind_one(request: &PortRequest) -> Result<Vec<BoundPort>, NetError> {
    let Some(range) = &request.host_port else {
        let mut draws = DRAWS;
        loop {
            match bind_addresses(request, 0) {
                Err(NetError::PortInUse { .. }) if draws > 0 => draws -= 1,
                other => return other,
            }
        }
    };
    for port in range.clone() {
        match bind_addresses(request, port) {
            Err(NetError::PortInUse { .. }) if range.start() != range.end() => {}
            other => return other,
        }
    }
    Err(NetError::RangeInUse {
        first: *range.start(),
        last: *range.end(),
        protocol: request.protocol,
    })
}

/// All addresses of a request on one port; 0 is any that is free.
fn bind_addresses(request: &PortRequest, port: u16) -> Result<Vec<BoundPort>, NetError> {
    let all = [
        IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    ];
    let ips = request.host_ip.as_ref().map_or(&all[..], std::slice::from_ref);
    let mut bound: Vec<BoundPort> = Vec::new();
    for ip in ips {
        let port = bound.first().map_or(port, |first| first.address.port());
        let address = SocketAddr::new(*ip, port);
        match bind_socket(address, request.protocol) {
            Ok((socket, address)) => bound.push(BoundPort {
                container_port: request.container_port,
                protocol: request.protocol,
                address,
                socket,
            }),
            // A host without IPv6 is reached by IPv4.
            Err(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL) if !bound.is_empty() => {}
            Err(Errno::ADDRINUSE) => {
                let (protocol, source) = (request.protocol, Errno::ADDRINUSE.into());
                return Err(NetError::PortInUse {
                    address,
                    protocol,
                    source,
                });
            }
            Err(errno) => {
                let (protocol, source) = (request.protocol, errno.into());
                return Err(NetError::Bind {
                    address,
                    protocol,
                    source,
                });
            }
        }
    }
    Ok(bound)
}

fn bind_socket(address: SocketAddr, protocol: Protocol) -> Result<(OwnedFd, SocketAddr), Errno> {
    let family = if address.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let kind = match protocol {
        Protocol::Tcp => SocketType::STREAM,
        Protocol::Udp => SocketType::DGRAM,
    };
    let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    if family == AddressFamily::INET6 {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    if address.port() == 0 {
        // A port that the kernel chose at bind is given back when the socket stops listening, one that was asked
        // for is not: so it is asked for.
        rustix::net::bind(&socket, &address)?;
        let chosen: SocketAddr = rustix::net::getsockname(&socket)?.try_into()?;
        drop(socket);
        return bind_socket(SocketAddr::new(address.ip(), chosen.port()), protocol);
    }
    match rustix::net::bind(&socket, &address) {
        // Connections of a former listener may linger in TIME_WAIT, which only SO_REUSEADDR overlooks. It is taken
        // back, or else another program could bind the port too until one of us listens.
        Err(Errno::ADDRINUSE) if protocol == Protocol::Tcp => {
            sockopt::set_socket_reuseaddr(&socket, true)?;
            rustix::net::bind(&socket, &address)?;
            sockopt::set_socket_reuseaddr(&socket, false)?;
        }
        other => other?,
    }
    if protocol == Protocol::Udp {
        super::datagram::prepare(&socket, address)
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    }
    Ok((socket, address))
}

/// Lets the socket accept connections.
pub(super) fn listen(socket: &OwnedFd) -> io::Result<()> {
    // The kernel checks the port once more, lingering connections included.
    sockopt::set_socket_reuseaddr(socket, true)?;
    rustix::net::listen(socket, 4096)?;
    Ok(())
}

/// Back to bound and not listening: clients are refused again.
pub(super) fn unlisten(socket: &OwnedFd) -> io::Result<()> {
    rustix::net::shutdown(socket, rustix::net::Shutdown::Read)?;
    sockopt::set_socket_reuseaddr(socket, false)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::ErrorKind;
    use std::net::{TcpListener, TcpStream};

    fn request(port: Option<RangeInclusive<u16>>) -> PortRequest {
        let host_ip = Some(IpAddr::V4(Ipv4Addr::LOCALHOST));
        PortRequest {
            host_ip,
            host_port: port,
            container_port: 80,
            protocol: Protocol::Tcp,
        }
    }

    #[test]
    fn a_bound_port_refuses_until_it_listens_and_again_afterwards() {
        let bound = bind(&[request(None)]).unwrap();
        let (address, socket) = (bound[0].address, &bound[0].socket);
        let refused = || TcpStream::connect(address).is_err_and(|e| e.kind() == ErrorKind::ConnectionRefused);
        assert!(refused());
        listen(socket).unwrap();
        TcpStream::connect(address).unwrap();
        unlisten(socket).unwrap();
        assert!(refused());
        assert!(bind(&[request(Some(address.port()..=address.port()))]).is_err());
        listen(socket).unwrap();
        TcpStream::connect(address).unwrap();
    }

    #[test]
    fn a_port_in_use_is_named() {
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = other.local_addr().unwrap().port();
        let error = bind(&[request(Some(port..=port))]).unwrap_err();
        assert!(matches!(error, NetError::PortInUse { .. }), "{error:?}");
        assert_eq!(
            error.to_string(),
            format!("port 127.0.0.1:{port}/tcp of the host is already in use")
        );
        assert!(error.hint().unwrap().contains(&port.to_string()));
        // A range goes on to the next.
        let first = port.min(u16::MAX - 50);
        let bound = bind(&[request(Some(first..=first + 50))]).unwrap();
        assert!(bound[0].address.port() != port && bound[0].address.port() >= first);
    }

    #[test]
    fn nobody_else_can_bind_a_port_that_does_not_listen_yet() {
        let bound = bind(&[request(None)]).unwrap();
        let again = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        sockopt::set_socket_reuseaddr(&again, true).unwrap();
        assert_eq!(
            rustix::net::bind(&again, &bound[0].address),
            Err(Errno::ADDRINUSE)
        );
    }

    #[test]
    fn a_port_with_lingering_connections_can_be_taken_and_listens() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let client = TcpStream::connect(address).unwrap();
        let (server, _) = listener.accept().unwrap();
        // The side that closes first keeps the port in TIME_WAIT.
        drop((listener, server, client));
        let bound = bind(&[request(Some(address.port()..=address.port()))]).unwrap();
        listen(&bound[0].socket).unwrap();
        TcpStream::connect(address).unwrap();
    }

    #[test]
    fn every_address_means_both_families_on_one_port() {
        let bound = bind(&[PortRequest {
            host_ip: None,
            ..request(None)
        }])
        .unwrap();
        assert!(
            bound
                .iter()
                .all(|port| port.address.port() == bound[0].address.port())
        );
        assert!(bound[0].address.is_ipv4());
    }
}
