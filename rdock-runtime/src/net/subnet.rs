//! IPv4 subnets: which one a network gets, and which address in it a container.

use super::messages::HostRoutes;
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// An IPv4 network and its prefix length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Subnet {
    /// Host bits are zero.
    pub(super) base: Ipv4Addr,
    pub(super) prefix: u8,
}

impl Subnet {
    /// The subnet of this prefix length that `ip` is in.
    pub(super) fn around(ip: Ipv4Addr, prefix: u8) -> Self {
        let prefix = prefix.min(32);
        Self {
            base: Ipv4Addr::from_bits(ip.to_bits() & mask(prefix)),
            prefix,
        }
    }

    pub(super) fn overlaps(self, other: Self) -> bool {
        let mask = mask(self.prefix.min(other.prefix));
        self.base.to_bits() & mask == other.base.to_bits() & mask
    }

    /// The broadcast address.
    pub(super) fn last(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.base.to_bits() | !mask(self.prefix))
    }

    /// The address `offset` above the base.
    pub(super) fn nth(self, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.base.to_bits().wrapping_add(offset))
    }

    pub(super) fn contains(self, ip: Ipv4Addr) -> bool {
        ip.to_bits() & mask(self.prefix) == self.base.to_bits()
    }

    /// Whether an interface can have the address: neither the base nor the broadcast address.
    pub(super) fn holds(self, ip: Ipv4Addr) -> bool {
        self.contains(ip) && ip != self.base && ip != self.last()
    }

    /// The next free address after `previous`, going round: an address is not given again while the kernel or a
    /// neighbour may still remember who had it. `taken` includes what no container may have.
    pub(super) fn next_free(
        self,
        previous: Option<Ipv4Addr>,
        taken: impl Fn(Ipv4Addr) -> bool,
    ) -> Option<Ipv4Addr> {
        let end = u64::from(!mask(self.prefix)) + 1;
        let after = previous
            .filter(|ip| self.contains(*ip))
            .map_or(0, |ip| u64::from(ip.to_bits() - self.base.to_bits()) + 1);
        (after..end)
            .chain(0..after)
            .map(|offset| self.nth(offset as u32))
            .find(|ip| !taken(*ip))
    }
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

impl FromStr for Subnet {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (ip, prefix) = text.split_once('/').ok_or(())?;
        let prefix = prefix.parse().ok().filter(|prefix| *prefix <= 32).ok_or(())?;
        let ip = ip.parse().map_err(|_| ())?;
        let subnet = Self::around(ip, prefix);
        (subnet.base == ip).then_some(subnet).ok_or(())
    }
}

/// Chooses the containers' subnet: private ranges that Docker's and Podman's defaults reach last, then smaller ones.
/// None that `taken` says is another network's.
pub(super) fn choose(host: &HostRoutes, taken: impl Fn(Subnet) -> bool) -> Option<Subnet> {
    let wide = (20..=30u8)
        .rev()
        .map(|b| Subnet::around(Ipv4Addr::new(172, b, 0, 0), 16));
    let ten = (205..=235u8).map(|b| Subnet::around(Ipv4Addr::new(10, b, 0, 0), 16));
    let small = (0..16u8)
        .rev()
        .map(|c| Subnet::around(Ipv4Addr::new(192, 168, c << 4, 0), 20));
    wide.chain(ten)
        .chain(small)
        .find(|subnet| host.is_free(*subnet) && !taken(*subnet))
}

/// Chooses the two addresses (host, inside) of an uplink.
pub(super) fn choose_uplink(host: &HostRoutes, network: Subnet) -> Option<Subnet> {
    let bases = [
        Ipv4Addr::new(172, 31, 255, 0),
        Ipv4Addr::new(10, 254, 255, 0),
        Ipv4Addr::new(192, 168, 222, 0),
        Ipv4Addr::new(172, 19, 255, 0),
    ];
    bases
        .iter()
        .flat_map(|base| {
            (0..64).map(move |n| Subnet::around(Ipv4Addr::from_bits(base.to_bits() + n * 4), 30))
        })
        .find(|pair| host.is_free(*pair) && !pair.overlaps(network))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_go_round_and_skip_gateway_and_broadcast() {
        let subnet = Subnet::around(Ipv4Addr::new(10, 0, 0, 0), 29);
        let gateway = subnet.nth(1);
        let free = |previous, taken: &dyn Fn(Ipv4Addr) -> bool| {
            subnet.next_free(previous, |ip| ip == gateway || !subnet.holds(ip) || taken(ip))
        };
        let first = free(None, &|_| false).unwrap();
        assert_eq!(first, Ipv4Addr::new(10, 0, 0, 2));
        let last = Ipv4Addr::new(10, 0, 0, 6);
        assert_eq!(free(Some(last), &|_| false), Some(first));
        assert_eq!(
            free(Some(last), &|ip| ip == first),
            Some(Ipv4Addr::new(10, 0, 0, 3))
        );
        assert_eq!(free(None, &|_| true), None);
        // A cursor of another subnet is ignored.
        assert_eq!(free(Some(Ipv4Addr::new(172, 1, 1, 1)), &|_| false), Some(first));
    }

    #[test]
    fn prefix_edges() {
        assert_eq!(
            Subnet::around(Ipv4Addr::new(1, 2, 3, 4), 0).base,
            Ipv4Addr::UNSPECIFIED
        );
        assert_eq!(
            Subnet::around(Ipv4Addr::new(1, 2, 3, 4), 32).last(),
            Ipv4Addr::new(1, 2, 3, 4)
        );
        assert!("10.0.0.1/8".parse::<Subnet>().is_err());
        assert!("10.0.0.0/33".parse::<Subnet>().is_err());
        assert_eq!("10.0.0.0/8".parse::<Subnet>().unwrap().to_string(), "10.0.0.0/8");
    }

    #[test]
    fn a_subnet_of_the_host_is_never_chosen() {
        let mut host = HostRoutes::default();
        let first = choose(&host, |_| false).unwrap();
        host.addresses.push(Subnet::around(first.nth(9), 24));
        let second = choose(&host, |_| false).unwrap();
        assert!(!first.overlaps(second));
        host.addresses
            .push(Subnet::around(Ipv4Addr::new(172, 16, 0, 0), 12));
        host.addresses.push(Subnet::around(Ipv4Addr::new(10, 0, 0, 0), 8));
        assert_eq!(choose(&host, |_| false).unwrap().to_string(), "192.168.240.0/20");
        assert_eq!(
            choose_uplink(&host, choose(&host, |_| false).unwrap())
                .unwrap()
                .base,
            Ipv4Addr::new(192, 168, 222, 0)
        );
    }
}
