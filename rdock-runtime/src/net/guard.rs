//! Nobody speaks for another container of its network.
//!
//! A port of the bridge passes frames with its container's own hardware address alone (a locked port, since Linux 5.16).
//! What they may say is checked by rules inside the network's namespace: an address of a container or of the gateway
//! goes with its own hardware address, in ARP, IPv4 and IPv6. Addresses that nobody has may be claimed by anyone, as
//! containers that share a virtual address do. Router advertisements and redirects come from nobody.

use super::nft::{Batch, Family, Hook, Rule, Sender, Set, Verdict};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const TABLE: &str = "rdock";
const CHAIN: &str = "prerouting";
/// Before everything else.
const FIRST: i32 = -300;
/// Numbers of nft(8)'s types: an IPv4 address is 7, an IPv6 one 8, a hardware address 9; six bits each.
const IPV4: u32 = 7;
const IPV6: u32 = 8;
const HARDWARE: u32 = 9 << 6;
const OWNED4: Set = Set {
    name: "owned4",
    number: 1,
    kind: IPV4,
    length: 4,
};
const PAIRS4: Set = Set {
    name: "pairs4",
    number: 2,
    kind: HARDWARE | IPV4,
    length: 12,
};
const OWNED6: Set = Set {
    name: "owned6",
    number: 3,
    kind: IPV6,
    length: 16,
};
const PAIRS6: Set = Set {
    name: "pairs6",
    number: 4,
    kind: HARDWARE | IPV6,
    length: 24,
};
/// ICMPv6.
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;

/// A hardware address with the addresses that go with it.
#[derive(Debug, Clone)]
pub(super) struct Owner {
    pub(super) mac: [u8; 6],
    pub(super) ip: Ipv4Addr,
    pub(super) ip6: Option<Ipv6Addr>,
    pub(super) link_local: Vec<IpAddr>,
}

/// The rules, in a network's namespace just made.
pub(super) fn rules(owners: &[Owner]) -> Vec<u8> {
    let mut batch = Batch::new();
    batch.table(Family::Bridge, TABLE, 0);
    for set in [OWNED4, PAIRS4, OWNED6, PAIRS6] {
        batch.set(Family::Bridge, TABLE, set);
    }
    let at = (Hook::Prerouting, FIRST);
    batch.chain(Family::Bridge, TABLE, CHAIN, "filter", at, Verdict::Accept);
    let of = |sender| Rule::default().ether_type(sender);
    let rules = [
        of(Sender::Arp).usurps(Sender::Arp, OWNED4, PAIRS4),
        of(Sender::Ipv4).usurps(Sender::Ipv4, OWNED4, PAIRS4),
        of(Sender::Ipv6).icmpv6(ROUTER_ADVERTISEMENT),
        of(Sender::Ipv6).icmpv6(REDIRECT),
        of(Sender::Ipv6).usurps(Sender::Ipv6, OWNED6, PAIRS6),
        of(Sender::Ipv6)
            .icmpv6(NEIGHBOUR_ADVERTISEMENT)
            .usurps(Sender::Advertisement, OWNED6, PAIRS6),
    ];
    for rule in rules {
        batch.append(Family::Bridge, TABLE, CHAIN, &rule.verdict(Verdict::Drop));
    }
    for owner in owners {
        add(&mut batch, owner);
    }
    batch.finish()
}

/// One more container.
pub(super) fn newcomer(owner: &Owner) -> Vec<u8> {
    let mut batch = Batch::new();
    add(&mut batch, owner);
    batch.finish()
}

fn add(batch: &mut Batch, owner: &Owner) {
    let all = [Some(IpAddr::from(owner.ip)), owner.ip6.map(IpAddr::from)];
    for ip in all.into_iter().flatten().chain(owner.link_local.iter().copied()) {
        let (owned, pairs, bytes) = match ip {
            IpAddr::V4(ip) => (OWNED4, PAIRS4, ip.octets().to_vec()),
            IpAddr::V6(ip) => (OWNED6, PAIRS6, ip.octets().to_vec()),
        };
        let pair = [&owner.mac[..], &[0, 0], &bytes].concat();
        batch.element(Family::Bridge, TABLE, owned, &bytes);
        batch.element(Family::Bridge, TABLE, pairs, &pair);
    }
}
