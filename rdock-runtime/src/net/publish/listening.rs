//! Who listens inside a container: sock_diag(7), asked on a socket of the container's namespace. A kernel may have no
//! part of it for TCP, and no way to load one; then /proc/PID/net/tcp tells (proc_pid_net(5)).

use super::SocketMaker;
use crate::launch::SocketPlace;
use crate::net::netlink::{attributes, u16_at, u32_at};
use crate::reactor::Loop;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::rc::Rc;

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST_DUMP: u16 = 1 | 0x300;
const TCP: u8 = 6;
/// The bit of TCP_LISTEN.
const LISTEN: u32 = 1 << 10;
/// Says whether an IPv6 socket is for IPv6 alone.
const INET_DIAG_SKV6ONLY: u16 = 11;
/// Bytes of `struct inet_diag_msg`.
const DIAG_MESSAGE: usize = 72;

/// Whether a server inside can be reached on a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ListenState {
    /// Nothing listens.
    No,
    /// Something listens, but only for clients inside the container.
    OnlyLoopback,
    /// On the container's address.
    Yes,
}

/// Tells `answer` whether something listens on a TCP port of the container.
///
/// `answer` is dropped uncalled when the helper is gone; what cannot be found out counts as [`ListenState::No`].
pub(crate) fn listening(
    _events: &mut Loop,
    sockets: Rc<dyn SocketMaker>,
    port: u16,
    answer: impl FnOnce(&mut Loop, ListenState) + 'static,
) {
    let payload = sockets.payload();
    request_socket(&*sockets, move |events, socket| {
        let found = match socket {
            Ok(socket) => listeners(&socket, payload),
            Err(_) => written(payload),
        };
        let state = found
            .ok()
            .and_then(|found| found.get(&port).copied())
            .unwrap_or(ListenState::No);
        answer(events, state);
    });
}

/// Asks for a NETLINK_SOCK_DIAG socket of the container's namespace.
pub(super) fn request_socket(
    sockets: &dyn SocketMaker,
    answer: impl FnOnce(&mut Loop, io::Result<OwnedFd>) + 'static,
) {
    let (domain, kind, protocol) = (libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_SOCK_DIAG);
    let one = move |events: &mut Loop, made: io::Result<Vec<OwnedFd>>| {
        answer(
            events,
            made.and_then(|mut made| made.pop().ok_or_else(|| Errno::BADMSG.into())),
        );
    };
    sockets.request(SocketPlace::Payload, domain, kind, protocol, 1, Box::new(one));
}

/// Every TCP port that something listens on.
pub(super) type Listeners = HashMap<u16, ListenState>;

/// Who listens in the namespace of a socket, which is that of the process `payload`.
pub(super) fn listeners(socket: &OwnedFd, payload: i32) -> io::Result<Listeners> {
    asked(socket).or_else(|_| written(payload))
}

/// The kernel answers at once: nothing here waits.
fn asked(socket: &OwnedFd) -> io::Result<Listeners> {
    let mut found = HashMap::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        rustix::net::send(socket, &request(family as u8), SendFlags::empty())?;
        let mut buffer = [0u8; 16 << 10];
        let mut done = false;
        while !done {
            let (size, _) = match rustix::net::recv(socket, &mut buffer[..], RecvFlags::DONTWAIT) {
                Err(Errno::INTR) => continue,
                other => other?,
            };
            done = take(&buffer[..size], &mut found)?;
        }
    }
    Ok(found)
}

/// As [`listeners`], from what the kernel writes of a process's namespace.
///
/// # Errors
/// When the process is gone.
pub(super) fn written(process: i32) -> io::Result<Listeners> {
    let mut found = Listeners::new();
    for (file, required) in [("tcp", true), ("tcp6", false)] {
        match std::fs::read_to_string(format!("/proc/{process}/net/{file}")) {
            Ok(text) => {
                for (port, state) in text.lines().filter_map(written_listener) {
                    let best = found.entry(port).or_insert(state);
                    *best = state.max(*best);
                }
            }
            Err(error) if required => return Err(error),
            // A kernel without IPv6.
            Err(_) => {}
        }
    }
    Ok(found)
}

/// Port and reach of one line: a number, the local address, the remote one, the state.
fn written_listener(line: &str) -> Option<(u16, ListenState)> {
    const LISTENS: &str = "0A";
    let mut words = line.split_whitespace().skip(1);
    let (local, state) = (words.next()?, words.nth(1)?);
    let (ip, port) = local.split_once(':').filter(|_| state == LISTENS)?;
    // Words of the machine's byte order, in network order each.
    let words: Vec<u32> = (0..ip.len() / 8)
        .map(|at| u32::from_str_radix(ip.get(at * 8..at * 8 + 8)?, 16).ok())
        .collect::<Option<_>>()?;
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let ip = match bytes.len() {
        4 => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?)),
        _ => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?)),
    };
    // Whether it is for IPv6 alone is not told.
    Some((u16::from_str_radix(port, 16).ok()?, reach(ip, false)))
}

/// A dump of the listening TCP sockets of a family: `struct nlmsghdr` and `struct inet_diag_req_v2`.
fn request(family: u8) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(72);
    bytes.extend(72u32.to_ne_bytes());
    bytes.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes.extend(NLM_F_REQUEST_DUMP.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend([family, TCP, 0, 0]);
    bytes.extend(LISTEN.to_ne_bytes());
    bytes.extend([0; 48]);
    bytes
}

/// Reads the messages of one datagram; true at the end of the dump.
fn take(mut bytes: &[u8], found: &mut HashMap<u16, ListenState>) -> io::Result<bool> {
    while let (Some(length), Some(kind)) = (u32_at(bytes, 0), u16_at(bytes, 4)) {
        let Some(payload) = bytes.get(16..length as usize) else {
            break;
        };
        match kind {
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => {
                let error = u32_at(payload, 0).map_or(libc::EBADMSG, |error| -(error as i32));
                return if error == 0 {
                    Ok(true)
                } else {
                    Err(io::Error::from_raw_os_error(error))
                };
            }
            _ => {
                if let Some((port, state)) = listener(payload) {
                    let best = found.entry(port).or_insert(state);
                    *best = state.max(*best);
                }
            }
        }
        bytes = bytes.get((length as usize).next_multiple_of(4)..).unwrap_or(&[]);
    }
    Ok(false)
}

/// Port and reach of one `struct inet_diag_msg`.
fn listener(message: &[u8]) -> Option<(u16, ListenState)> {
    let port = u16::from_be_bytes(message.get(4..6)?.try_into().ok()?);
    let source = message.get(8..24)?;
    let ip = if i32::from(*message.first()?) == libc::AF_INET {
        IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(&source[..4]).ok()?))
    } else {
        IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(source).ok()?))
    };
    let mut more = attributes(message.get(DIAG_MESSAGE..).unwrap_or(&[]));
    let v6_only = more.any(|(kind, value)| kind == INET_DIAG_SKV6ONLY && value.first() == Some(&1));
    Some((port, reach(ip, v6_only)))
}

/// For whom somebody listens at an address.
fn reach(ip: IpAddr, v6_only: bool) -> ListenState {
    match ip.to_canonical() {
        // The container's address is IPv4.
        IpAddr::V6(ip) if ip.is_unspecified() && v6_only => ListenState::OnlyLoopback,
        IpAddr::V6(ip) if !ip.is_unspecified() => ListenState::OnlyLoopback,
        IpAddr::V4(ip) if ip.is_loopback() => ListenState::OnlyLoopback,
        _ => ListenState::Yes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, netlink::SOCK_DIAG};
    use std::net::TcpListener;

    #[test]
    fn the_kernel_says_who_listens_and_for_whom() {
        let any = TcpListener::bind("0.0.0.0:0").unwrap();
        let loopback = TcpListener::bind("127.0.0.1:0").unwrap();
        let bound = super::super::bind(&[super::super::PortRequest {
            host_ip: None,
            host_port: None,
            container_port: 1,
            protocol: crate::spec::Protocol::Tcp,
        }])
        .unwrap();
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket =
            rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(SOCK_DIAG))
                .unwrap();
        let six = TcpListener::bind("[::1]:0");
        let process = std::process::id() as i32;
        for found in [asked(&socket).unwrap(), written(process).unwrap()] {
            let state = |listener: &TcpListener| found.get(&listener.local_addr().unwrap().port());
            assert_eq!(state(&any), Some(&ListenState::Yes));
            assert_eq!(state(&loopback), Some(&ListenState::OnlyLoopback));
            if let Ok(six) = &six {
                assert_eq!(state(six), Some(&ListenState::OnlyLoopback));
            }
            let bound = found.get(&bound[0].address.port());
            assert_eq!(bound, None, "a bound port does not listen");
        }
    }

    #[test]
    fn a_kernel_that_cannot_be_asked_has_it_written() {
        let any = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = any.local_addr().unwrap().port();
        // It is no socket that takes such a question.
        let (deaf, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let found = listeners(&deaf.into(), std::process::id() as i32).unwrap();
        assert_eq!(found.get(&port), Some(&ListenState::Yes));
        assert!(written(0).is_err());
    }

    #[test]
    fn an_ipv6_listener_counts_when_it_takes_ipv4_too() {
        let message = |source: Ipv6Addr, v6_only: u8| {
            let mut bytes = vec![0u8; DIAG_MESSAGE];
            bytes[0] = libc::AF_INET6 as u8;
            bytes[4..6].copy_from_slice(&3306u16.to_be_bytes());
            bytes[8..24].copy_from_slice(&source.octets());
            bytes.extend([5, 0, INET_DIAG_SKV6ONLY as u8, 0, v6_only, 0, 0, 0]);
            listener(&bytes).unwrap()
        };
        assert_eq!(message(Ipv6Addr::UNSPECIFIED, 0), (3306, ListenState::Yes));
        assert_eq!(
            message(Ipv6Addr::UNSPECIFIED, 1),
            (3306, ListenState::OnlyLoopback)
        );
        assert_eq!(message(Ipv6Addr::LOCALHOST, 0), (3306, ListenState::OnlyLoopback));
        assert_eq!(
            message("::ffff:10.0.0.2".parse().unwrap(), 0),
            (3306, ListenState::Yes)
        );
        assert_eq!(
            message("::ffff:127.0.0.1".parse().unwrap(), 0),
            (3306, ListenState::OnlyLoopback)
        );
        assert!(listener(&[2, 0, 0]).is_none());
    }
}
