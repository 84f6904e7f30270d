//! nftables messages: the few tables, chains, rules and expressions that a network needs.
//!
//! Numbers and layouts are those of the kernel's `nfnetlink.h` and `nf_tables.h`: attributes are
//! big-endian numbers, zero-ended strings or nested lists.

use super::netlink::{HEADER, Netlink, attribute, text};
use netlink_packet_core::{NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST};
use std::io;
use std::net::Ipv4Addr;

const SUBSYSTEM: u16 = 10 << 8;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const NEW_TABLE: u16 = SUBSYSTEM;
const GET_TABLE: u16 = SUBSYSTEM | 1;
const DEL_TABLE: u16 = SUBSYSTEM | 2;
const NEW_CHAIN: u16 = SUBSYSTEM | 3;
const GET_CHAIN: u16 = SUBSYSTEM | 4;
const NEW_RULE: u16 = SUBSYSTEM | 6;
const NEW_SET: u16 = SUBSYSTEM | 9;
const NEW_ELEMENT: u16 = SUBSYSTEM | 12;
const GET_RULE: u16 = SUBSYSTEM | 7;
const DEL_RULE: u16 = SUBSYSTEM | 8;
const NESTED: u16 = 0x8000;
/// Bases of a payload expression.
const LINK_HEADER: u32 = 0;
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
/// The first register of four bytes; the others follow.
const SHORT_REGISTER: u32 = 8;

/// The protocol family of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    Any = 0,
    Inet = 1,
    Ipv4 = 2,
    Bridge = 7,
}

/// Hooks of the IP families.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hook {
    Prerouting = 0,
    Input = 1,
    Forward = 2,
    Output = 3,
    Postrouting = 4,
}

/// Accept or drop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Drop = 0,
    Accept = 1,
}

/// The interface a packet came in by or leaves by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Interface {
    In = 6,
    Out = 7,
}

/// The table goes when the socket that made it closes (Linux 5.12).
pub(super) const TABLE_OWNER: u32 = 2;

/// A batch of changes, applied together or not at all.
#[derive(Debug)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    last: usize,
}

impl Batch {
    pub(super) fn new() -> Self {
        let mut batch = Self {
            bytes: Vec::new(),
            last: 0,
        };
        batch.message(BATCH_BEGIN, NLM_F_REQUEST, 0, SUBSYSTEM >> 8, &[]);
        batch
    }

    pub(super) fn table(&mut self, family: Family, name: &str, flags: u32) {
        let mut body = string(1, name);
        if flags != 0 {
            body.extend(number(2, flags));
        }
        self.change(NEW_TABLE, NLM_F_CREATE | NLM_F_EXCL, family, &body);
    }

    pub(super) fn delete_table(&mut self, family: Family, name: &str) {
        self.change(DEL_TABLE, 0, family, &string(1, name));
    }

    /// A base chain of type `filter` or `nat`.
    pub(super) fn chain(
        &mut self,
        family: Family,
        table: &str,
        name: &str,
        kind: &str,
        hook: (Hook, i32),
        policy: Verdict,
    ) {
        let at = [number(1, hook.0 as u32), number(2, hook.1 as u32)].concat();
        let body = [
            string(1, table),
            string(3, name),
            nested(4, &at),
            number(5, policy as u32),
            string(7, kind),
        ]
        .concat();
        self.change(NEW_CHAIN, NLM_F_CREATE | NLM_F_EXCL, family, &body);
    }

    /// A set of keys with this number of bytes.
    pub(super) fn set(&mut self, family: Family, table: &str, set: Set) {
        let body = [
            string(1, table),
            string(2, set.name),
            number(3, 0),
            number(4, set.kind),
            number(5, set.length),
            // A number within the batch.
            number(10, set.number),
        ]
        .concat();
        self.change(NEW_SET, NLM_F_CREATE | NLM_F_EXCL, family, &body);
    }

    /// Adds a key, which may be there already.
    pub(super) fn element(&mut self, family: Family, table: &str, set: Set, key: &[u8]) {
        let element = nested(1, &nested(1, &raw(1, key)));
        let body = [string(1, table), string(2, set.name), nested(3, &element)].concat();
        self.change(NEW_ELEMENT, NLM_F_CREATE, family, &body);
    }

    /// A rule at the end of a chain.
    pub(super) fn append(&mut self, family: Family, table: &str, chain: &str, rule: &Rule) {
        self.change(
            NEW_RULE,
            NLM_F_CREATE | NLM_F_APPEND,
            family,
            &rule.body(table, chain),
        );
    }

    /// A rule before all others of a chain.
    pub(super) fn insert(&mut self, family: Family, table: &str, chain: &str, rule: &Rule) {
        self.change(NEW_RULE, NLM_F_CREATE, family, &rule.body(table, chain));
    }

    pub(super) fn delete_rule(&mut self, family: Family, table: &str, chain: &str, handle: u64) {
        let body = [string(1, table), string(2, chain), raw(3, &handle.to_be_bytes())].concat();
        self.change(DEL_RULE, 0, family, &body);
    }

    /// The bytes to send. The last change asks for the one acknowledgement, which comes after the commit.
    pub(super) fn finish(mut self) -> Vec<u8> {
        let at = self.last + 6;
        if let Some(flags) = self.bytes.get_mut(at..at + 2) {
            let with = u16::from_ne_bytes([flags[0], flags[1]]) | NLM_F_ACK;
            flags.copy_from_slice(&with.to_ne_bytes());
        }
        self.message(BATCH_END, NLM_F_REQUEST, 0, SUBSYSTEM >> 8, &[]);
        self.bytes
    }

    fn change(&mut self, kind: u16, flags: u16, family: Family, body: &[u8]) {
        self.last = self.bytes.len();
        self.message(kind, NLM_F_REQUEST | flags, family as u8, 0, body);
    }

    fn message(&mut self, kind: u16, flags: u16, family: u8, resource: u16, body: &[u8]) {
        self.bytes.extend(message(kind, flags, family, resource, body));
    }
}

/// A named set.
#[derive(Debug, Clone, Copy)]
pub(super) struct Set {
    pub(super) name: &'static str,
    /// Within the batch that makes it.
    pub(super) number: u32,
    /// What nft(8) shows the keys as: the number of their type.
    pub(super) kind: u32,
    /// Bytes of a key.
    pub(super) length: u32,
}

/// Where the sender of a frame says who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sender {
    /// Addresses in an ARP packet.
    Arp,
    /// The frame's source and the IPv4 packet's.
    Ipv4,
    /// The frame's source and the IPv6 packet's.
    Ipv6,
    /// The frame's source and the target of a neighbour advertisement.
    Advertisement,
}

impl Sender {
    /// Header, offset and length of the address.
    fn address(self) -> (u32, u32, u32) {
        match self {
            Self::Arp => (NETWORK_HEADER, 14, 4),
            Self::Ipv4 => (NETWORK_HEADER, 12, 4),
            Self::Ipv6 => (NETWORK_HEADER, 8, 16),
            Self::Advertisement => (TRANSPORT_HEADER, 8, 16),
        }
    }

    /// Header and offset of the hardware address.
    fn hardware(self) -> (u32, u32) {
        match self {
            Self::Arp => (NETWORK_HEADER, 8),
            _ => (LINK_HEADER, 6),
        }
    }

    fn ether_type(self) -> u16 {
        match self {
            Self::Arp => 0x0806,
            Self::Ipv4 => 0x0800,
            Self::Ipv6 | Self::Advertisement => 0x86dd,
        }
    }
}

/// What a rule looks for and does, in order.
#[derive(Debug, Default)]
pub(super) struct Rule {
    expressions: Vec<u8>,
    comment: Option<String>,
}

impl Rule {
    /// Matches when the packet's interface is (`equal`) or is not the named one.
    pub(super) fn interface(mut self, which: Interface, equal: bool, name: &str) -> Self {
        let mut padded = [0u8; 16];
        for (to, from) in padded.iter_mut().zip(name.bytes().take(15)) {
            *to = from;
        }
        self.expression("meta", &[number(1, 1), number(2, which as u32)].concat());
        self.compare(equal, &padded);
        self
    }

    /// As [`Self::interface`], for every name that begins so.
    pub(super) fn interface_prefix(mut self, which: Interface, equal: bool, prefix: &str) -> Self {
        self.expression("meta", &[number(1, 1), number(2, which as u32)].concat());
        self.compare(equal, &prefix.as_bytes()[..prefix.len().min(15)]);
        self
    }

    /// Matches the packet's source address.
    pub(super) fn source(mut self, ip: Ipv4Addr) -> Self {
        // Base 1: the network header; the source is 4 bytes at 12.
        let body = [number(1, 1), number(2, 1), number(3, 12), number(4, 4)].concat();
        self.expression("payload", &body);
        self.compare(true, &ip.octets());
        self
    }

    /// Matches frames of this kind.
    pub(super) fn ether_type(mut self, sender: Sender) -> Self {
        // Key 1 is the protocol above the link.
        self.expression("meta", &[number(1, 1), number(2, 1)].concat());
        self.compare(true, &sender.ether_type().to_be_bytes());
        self
    }

    /// Matches ICMPv6 messages of a type, in frames of IPv6.
    pub(super) fn icmpv6(mut self, kind: u8) -> Self {
        self.expression("meta", &[number(1, 1), number(2, 16)].concat());
        self.compare(true, &[58]);
        self.load(1, TRANSPORT_HEADER, 0, 1);
        self.compare(true, &[kind]);
        self
    }

    /// Matches when the sender's address is one of `owned` and, with its hardware address, none of `pairs`.
    pub(super) fn usurps(mut self, sender: Sender, owned: Set, pairs: Set) -> Self {
        let (header, offset, length) = sender.address();
        self.load(1, header, offset, length);
        self.lookup(owned, 1, false);
        // Both in registers that follow each other: eight bytes for the hardware address.
        let (hardware_header, hardware_offset) = sender.hardware();
        self.load(SHORT_REGISTER, hardware_header, hardware_offset, 6);
        self.load(SHORT_REGISTER + 2, header, offset, length);
        self.lookup(pairs, SHORT_REGISTER, true);
        self
    }

    fn lookup(&mut self, set: Set, register: u32, absent: bool) {
        let body = [
            string(1, set.name),
            number(2, register),
            number(4, set.number),
            number(5, u32::from(absent)),
        ]
        .concat();
        self.expression("lookup", &body);
    }

    /// Matches the packet's destination address.
    pub(super) fn destination(mut self, ip: Ipv4Addr) -> Self {
        self.load(1, NETWORK_HEADER, 16, 4);
        self.compare(true, &ip.octets());
        self
    }

    /// Matches a transport protocol (6 is TCP, 17 UDP) and its destination port.
    pub(super) fn port(mut self, protocol: u8, port: u16) -> Self {
        // Key 16 is the number of the transport protocol.
        self.expression("meta", &[number(1, 1), number(2, 16)].concat());
        self.compare(true, &[protocol]);
        self.load(1, TRANSPORT_HEADER, 2, 2);
        self.compare(true, &port.to_be_bytes());
        self
    }

    /// Sends the packet's connection to another address and port.
    pub(super) fn destination_nat(mut self, ip: Ipv4Addr, port: u16) -> Self {
        let data = |value: &[u8]| nested(2, &raw(1, value));
        self.expression("immediate", &[number(1, 1), data(&ip.octets())].concat());
        self.expression("immediate", &[number(1, 2), data(&port.to_be_bytes())].concat());
        // Type 1 is the destination; family, registers of address and port.
        let body = [
            number(1, 1),
            number(2, Family::Ipv4 as u32),
            number(3, 1),
            number(4, 1),
            number(5, 2),
            number(6, 2),
        ]
        .concat();
        self.expression("nat", &body);
        self
    }

    /// Matches packets of connections that are established, or related to one.
    pub(super) fn known_connection(self) -> Self {
        // Key 0 is the state: bit 1 established, bit 2 related.
        self.connection(0, 6)
    }

    /// Matches packets of connections whose destination was translated here.
    pub(super) fn translated(self) -> Self {
        // Key 2 is the status: IPS_DST_NAT.
        self.connection(2, 1 << 5)
    }

    /// Matches when one of the bits is set in what connection tracking says.
    fn connection(mut self, key: u32, bits: u32) -> Self {
        let (bits, none) = (bits.to_ne_bytes(), 0u32.to_ne_bytes());
        self.expression("ct", &[number(1, 1), number(2, key)].concat());
        let body = [
            number(1, 1),
            number(2, 1),
            number(3, 4),
            nested(4, &raw(1, &bits)),
            nested(5, &raw(1, &none)),
        ]
        .concat();
        self.expression("bitwise", &body);
        self.compare(false, &none);
        self
    }

    /// Matches packets for an address of this host.
    pub(super) fn for_this_host(mut self) -> Self {
        // The type (3) of the destination address (flag 2), RTN_LOCAL.
        self.expression("fib", &[number(1, 1), number(2, 3), number(3, 2)].concat());
        self.compare(true, &2u32.to_ne_bytes());
        self
    }

    pub(super) fn counter(mut self) -> Self {
        self.expression("counter", &[raw(1, &[0; 8]), raw(2, &[0; 8])].concat());
        self
    }

    pub(super) fn masquerade(mut self) -> Self {
        self.expression("masq", &[]);
        self
    }

    pub(super) fn verdict(mut self, verdict: Verdict) -> Self {
        let code = nested(2, &number(1, verdict as u32));
        self.expression("immediate", &[number(1, 0), nested(2, &code)].concat());
        self
    }

    /// What `nft list` shows as `comment "..."`.
    pub(super) fn comment(mut self, comment: String) -> Self {
        self.comment = Some(comment);
        self
    }

    /// Loads bytes of a header into a register.
    fn load(&mut self, register: u32, header: u32, offset: u32, length: u32) {
        let body = [
            number(1, register),
            number(2, header),
            number(3, offset),
            number(4, length),
        ]
        .concat();
        self.expression("payload", &body);
    }

    fn compare(&mut self, equal: bool, with: &[u8]) {
        let body = [
            number(1, 1),
            number(2, u32::from(!equal)),
            nested(3, &raw(1, with)),
        ]
        .concat();
        self.expression("cmp", &body);
    }

    fn expression(&mut self, name: &str, data: &[u8]) {
        let body = [string(1, name), nested(2, data)].concat();
        self.expressions.extend(nested(1, &body));
    }

    fn body(&self, table: &str, chain: &str) -> Vec<u8> {
        let mut body = [string(1, table), string(2, chain), nested(4, &self.expressions)].concat();
        if let Some(comment) = &self.comment {
            body.extend(raw(7, &comment_data(comment)));
        }
        body
    }
}

/// User data as nft(8) writes a comment: type 0, length, zero-ended text.
fn comment_data(comment: &str) -> Vec<u8> {
    let text = &comment.as_bytes()[..comment.len().min(200)];
    let mut data = vec![0, text.len() as u8 + 1];
    data.extend(text);
    data.push(0);
    data
}

/// A base chain as the kernel lists it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Chain {
    pub(super) family: u8,
    pub(super) table: String,
    pub(super) name: String,
    /// Hook number and policy of a base chain.
    pub(super) base: Option<(u32, u32)>,
}

/// Every chain of every family.
pub(super) fn chains(socket: &mut Netlink) -> io::Result<Vec<Chain>> {
    let all = socket.dump(&message(GET_CHAIN, NLM_F_REQUEST, Family::Any as u8, 0, &[]))?;
    Ok(all
        .iter()
        .filter_map(|received| parse_chain(&received.payload))
        .collect())
}

fn parse_chain(payload: &[u8]) -> Option<Chain> {
    let (family, body) = (*payload.first()?, payload.get(4..)?);
    let base = attribute(body, 4)
        .and_then(|hook| attribute(hook, 1))
        .and_then(be32)
        .map(|hook| (hook, attribute(body, 5).and_then(be32).unwrap_or(1)));
    Some(Chain {
        family,
        table: text(attribute(body, 1)?),
        name: text(attribute(body, 3)?),
        base,
    })
}

impl Chain {
    /// Whether a packet that no rule of this chain decides on is not forwarded. firewalld's chain has the policy accept
    /// and ends with a rule that rejects what comes by an interface of no zone, as ours are.
    pub(super) fn drops_forwarded(&self) -> bool {
        let of_firewalld = self.table == "firewalld" && self.name == "filter_FORWARD" && self.base.is_some();
        if of_firewalld {
            return true;
        }
        let ip = self.family == Family::Inet as u8 || self.family == Family::Ipv4 as u8;
        ip && self.base == Some((Hook::Forward as u32, Verdict::Drop as u32))
    }
}

/// Names and flags of the IPv4 tables.
pub(super) fn tables(socket: &mut Netlink) -> io::Result<Vec<(String, u32)>> {
    let all = socket.dump(&message(GET_TABLE, NLM_F_REQUEST, Family::Ipv4 as u8, 0, &[]))?;
    let parse = |payload: &[u8]| {
        let body = payload.get(4..)?;
        Some((
            text(attribute(body, 1)?),
            attribute(body, 2).and_then(be32).unwrap_or(0),
        ))
    };
    Ok(all
        .iter()
        .filter_map(|received| parse(&received.payload))
        .collect())
}

/// Handles and comments of the rules of one IPv4 chain.
pub(super) fn comments(socket: &mut Netlink, table: &str, chain: &str) -> io::Result<Vec<(u64, String)>> {
    let body = [string(1, table), string(2, chain)].concat();
    let all = socket.dump(&message(GET_RULE, NLM_F_REQUEST, Family::Ipv4 as u8, 0, &body))?;
    let parse = |payload: &[u8]| {
        let body = payload.get(4..)?;
        // Older kernels ignore the filter of the request.
        let here = text(attribute(body, 1)?) == table && text(attribute(body, 2)?) == chain;
        let handle = u64::from_be_bytes(attribute(body, 3)?.try_into().ok()?);
        let comment = parse_comment(attribute(body, 7)?)?;
        here.then_some((handle, comment))
    };
    Ok(all
        .iter()
        .filter_map(|received| parse(&received.payload))
        .collect())
}

fn parse_comment(mut data: &[u8]) -> Option<String> {
    while let [kind, length, rest @ ..] = data {
        let value = rest.get(..usize::from(*length))?;
        if *kind == 0 {
            return Some(text(value));
        }
        data = &rest[usize::from(*length)..];
    }
    None
}

fn be32(value: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(value.get(..4)?.try_into().ok()?))
}

fn message(kind: u16, flags: u16, family: u8, resource: u16, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + 4 + body.len());
    bytes.extend(((HEADER + 4 + body.len()) as u32).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend([family, 0]);
    bytes.extend(resource.to_be_bytes());
    bytes.extend(body);
    bytes
}

fn raw(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(4 + value.len().next_multiple_of(4));
    bytes.extend(((4 + value.len()) as u16).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn nested(kind: u16, value: &[u8]) -> Vec<u8> {
    raw(kind | NESTED, value)
}

fn number(kind: u16, value: u32) -> Vec<u8> {
    raw(kind, &value.to_be_bytes())
}

fn string(kind: u16, value: &str) -> Vec<u8> {
    let mut bytes = value.as_bytes().to_vec();
    bytes.push(0);
    raw(kind, &bytes)
}

#[cfg(test)]
mod tests;
