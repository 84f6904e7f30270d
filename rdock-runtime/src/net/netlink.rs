//! A netlink socket: requests with their acknowledgement, dumps, nftables batches. See netlink(7).

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST};
use rustix::io::Errno;
use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};
use std::io;
use std::os::fd::OwnedFd;

/// Bytes of `struct nlmsghdr`.
pub(super) const HEADER: usize = 16;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const FLAGS: usize = 6;
const SEQUENCE: usize = 8;

/// A netlink socket bound to a port number of its own.
#[derive(Debug)]
pub(super) struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

/// One received message: its type and what follows the header.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Received {
    pub(super) kind: u16,
    pub(super) payload: Vec<u8>,
}

impl Netlink {
    /// NETLINK_ROUTE, in the calling thread's network namespace.
    pub(super) fn route() -> io::Result<Self> {
        // Its number is 0.
        Self::open(None)
    }

    /// NETLINK_NETFILTER, in the calling thread's network namespace.
    pub(super) fn netfilter() -> io::Result<Self> {
        Self::open(Some(NETFILTER))
    }

    /// Of a protocol by number: 0 is NETLINK_ROUTE, 12 NETLINK_NETFILTER.
    pub(super) fn of_protocol(protocol: u32) -> io::Result<Self> {
        Self::open(std::num::NonZeroU32::new(protocol).map(Protocol::from_raw))
    }

    fn open(protocol: Option<Protocol>) -> io::Result<Self> {
        let socket = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            protocol,
        )?;
        rustix::net::bind(&socket, &SocketAddrNetlink::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Sends one message that asks for an acknowledgement, and waits for it.
    pub(super) fn request(&mut self, message: &[u8]) -> io::Result<()> {
        let mut message = message.to_vec();
        let sequence = self.number(&mut message)?;
        self.send(&message)?;
        loop {
            for (received, number) in self.receive()? {
                if number == sequence && received.kind == NLMSG_ERROR {
                    return answer(&received.payload);
                }
            }
        }
    }

    /// Sends messages, some of which ask for an acknowledgement, and waits for all of these.
    pub(super) fn request_all(&mut self, messages: &[u8]) -> io::Result<()> {
        let mut wanted = 0;
        let mut rest = messages;
        while let (Some(length), Some(flags)) = (u32_at(rest, 0), u16_at(rest, FLAGS)) {
            wanted += u32::from(flags & netlink_packet_core::NLM_F_ACK != 0);
            rest = rest
                .get((length as usize).max(HEADER).next_multiple_of(4)..)
                .unwrap_or(&[]);
        }
        self.send(messages)?;
        while wanted > 0 {
            for (received, _) in self.receive()? {
                if received.kind == NLMSG_ERROR {
                    answer(&received.payload)?;
                    wanted -= 1;
                }
            }
        }
        Ok(())
    }

    /// Sends a batch of which exactly one message asks for an acknowledgement. The first answer decides: an
    /// error of any message comes before that acknowledgement.
    pub(super) fn batch(&mut self, batch: &[u8]) -> io::Result<()> {
        self.send(batch)?;
        loop {
            if let Some((received, _)) = self
                .receive()?
                .into_iter()
                .find(|(received, _)| received.kind == NLMSG_ERROR)
            {
                return answer(&received.payload);
            }
        }
    }

    /// Sends a dump request (its dump flag is set here) and collects every message of the answer.
    ///
    /// A dump that the kernel interrupted is repeated.
    pub(super) fn dump(&mut self, message: &[u8]) -> io::Result<Vec<Received>> {
        for _ in 0..8 {
            let mut message = message.to_vec();
            let sequence = self.number(&mut message)?;
            put_u16(&mut message, FLAGS, NLM_F_REQUEST | NLM_F_DUMP)?;
            self.send(&message)?;
            if let Some(all) = self.collect(sequence)? {
                return Ok(all);
            }
        }
        Err(Errno::AGAIN.into())
    }

    /// `None` when the kernel says that the dump is inconsistent.
    fn collect(&mut self, sequence: u32) -> io::Result<Option<Vec<Received>>> {
        let mut all = Vec::new();
        let mut interrupted = false;
        loop {
            for (received, number) in self.receive()? {
                if number != sequence {
                    continue;
                }
                interrupted |= received.kind & INTERRUPTED != 0;
                match received.kind & !INTERRUPTED {
                    NLMSG_DONE => return Ok((!interrupted).then_some(all)),
                    NLMSG_ERROR => {
                        answer(&received.payload)?;
                        return Ok((!interrupted).then_some(all));
                    }
                    kind => all.push(Received { kind, ..received }),
                }
            }
        }
    }

    fn number(&mut self, message: &mut [u8]) -> io::Result<u32> {
        self.sequence = self.sequence.wrapping_add(1);
        let sequence = self.sequence;
        message
            .get_mut(SEQUENCE..SEQUENCE + 4)
            .ok_or(Errno::INVAL)?
            .copy_from_slice(&sequence.to_ne_bytes());
        Ok(sequence)
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        let sent = rustix::net::send(&self.socket, bytes, SendFlags::empty())?;
        if sent == bytes.len() {
            Ok(())
        } else {
            Err(Errno::MSGSIZE.into())
        }
    }

    /// One datagram, split into its messages with their sequence numbers.
    fn receive(&self) -> io::Result<Vec<(Received, u32)>> {
        let mut buffer = Vec::new();
        let size = retry(|| {
            rustix::net::recv(
                &self.socket,
                &mut [0u8; 0][..],
                RecvFlags::PEEK | RecvFlags::TRUNC,
            )
            .map(|(_, size)| size)
        })?;
        buffer.resize(size.max(HEADER), 0);
        let (got, _) = retry(|| rustix::net::recv(&self.socket, &mut buffer[..], RecvFlags::empty()))?;
        buffer.truncate(got);
        Ok(split(&buffer))
    }
}

fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

/// Set in [`Received::kind`] while collecting when the message had NLM_F_DUMP_INTR.
const INTERRUPTED: u16 = 0x8000;

/// Splits a buffer of messages; a truncated tail is dropped.
fn split(buffer: &[u8]) -> Vec<(Received, u32)> {
    let mut messages = Vec::new();
    let mut rest = buffer;
    while rest.len() >= HEADER {
        let length = u32_at(rest, 0).unwrap_or(0) as usize;
        let Some(payload) = rest.get(HEADER..length) else {
            break;
        };
        let kind = u16_at(rest, 4).unwrap_or(0);
        let flags = u16_at(rest, FLAGS).unwrap_or(0);
        let interrupted = if flags & netlink_packet_core::NLM_F_DUMP_INTR != 0 {
            INTERRUPTED
        } else {
            0
        };
        let kind = if kind == NLMSG_ERROR {
            kind
        } else {
            kind | interrupted
        };
        messages.push((
            Received {
                kind,
                payload: payload.to_vec(),
            },
            u32_at(rest, SEQUENCE).unwrap_or(0),
        ));
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
    }
    messages
}

/// The `error` field of `struct nlmsgerr`: 0 or a negative errno.
fn answer(payload: &[u8]) -> io::Result<()> {
    match u32_at(payload, 0).map(|error| error as i32) {
        Some(0) => Ok(()),
        Some(error) => Err(io::Error::from_raw_os_error(-error)),
        None => Err(Errno::BADMSG.into()),
    }
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn put_u16(bytes: &mut [u8], at: usize, value: u16) -> io::Result<()> {
    bytes
        .get_mut(at..at + 2)
        .ok_or(Errno::INVAL)?
        .copy_from_slice(&value.to_ne_bytes());
    Ok(())
}

/// The attributes (`struct nlattr`) of `bytes`: type without its flag bits, and value. A truncated tail is dropped.
pub(super) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = u16_at(rest, 0)? as usize;
        let kind = u16_at(rest, 2)? & 0x3fff;
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind, value))
    })
}

/// The value of the first attribute of a type.
pub(super) fn attribute(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes)
        .find(|(kind, _)| *kind == wanted)
        .map(|(_, value)| value)
}

/// An attribute's string, without the closing zero.
pub(super) fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value.strip_suffix(&[0]).unwrap_or(value)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_lengths_end_the_walk() {
        assert!(split(&[0; 64]).is_empty());
        assert!(split(&[0xff; 40]).is_empty());
        assert_eq!(attributes(&[3, 0, 1, 0]).count(), 0);
        assert_eq!(attributes(&[0xff; 12]).count(), 0);
        let one = [5, 0, 7, 0, b'x', 0, 0, 0];
        assert_eq!(attributes(&one).collect::<Vec<_>>(), [(7, &b"x"[..])]);
    }
}
