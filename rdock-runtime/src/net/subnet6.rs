//! IPv6 subnets of networks.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

/// An IPv6 network and its prefix length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Subnet6 {
    /// Host bits are zero.
    pub(super) base: Ipv6Addr,
    pub(super) prefix: u8,
}

impl Subnet6 {
    /// The subnet of this prefix length that `ip` is in.
    pub(super) fn around(ip: Ipv6Addr, prefix: u8) -> Self {
        let prefix = prefix.min(128);
        Self {
            base: Ipv6Addr::from_bits(ip.to_bits() & mask(prefix)),
            prefix,
        }
    }

    pub(super) fn contains(self, ip: Ipv6Addr) -> bool {
        ip.to_bits() & mask(self.prefix) == self.base.to_bits()
    }

    pub(super) fn overlaps(self, other: Self) -> bool {
        let mask = mask(self.prefix.min(other.prefix));
        self.base.to_bits() & mask == other.base.to_bits() & mask
    }

    /// The address `offset` above the base; `None` when that is outside.
    pub(super) fn nth(self, offset: u128) -> Option<Ipv6Addr> {
        let ip = Ipv6Addr::from_bits(self.base.to_bits().checked_add(offset)?);
        self.contains(ip).then_some(ip)
    }

    /// A random /64 of the range for private use (RFC 4193).
    pub(super) fn random() -> Option<Self> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes[1..8]).ok()?;
        bytes[0] = 0xfd;
        Some(Self::around(Ipv6Addr::from(bytes), 64))
    }
}

fn mask(prefix: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0)
}

impl fmt::Display for Subnet6 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

impl FromStr for Subnet6 {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (ip, prefix) = text.split_once('/').ok_or(())?;
        let prefix = prefix.parse().ok().filter(|prefix| *prefix <= 128).ok_or(())?;
        let ip = ip.parse().map_err(|_| ())?;
        let subnet = Self::around(ip, prefix);
        (subnet.base == ip).then_some(subnet).ok_or(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_stay_inside() {
        let subnet: Subnet6 = "fd00:1::/64".parse().unwrap();
        assert_eq!(subnet.nth(1), Some("fd00:1::1".parse().unwrap()));
        assert_eq!(subnet.nth(1 << 64), None);
        assert!("fd00:1::1/64".parse::<Subnet6>().is_err() && "fd00::/129".parse::<Subnet6>().is_err());
        assert!(subnet.overlaps("fd00::/8".parse().unwrap()));
        assert!(!subnet.overlaps("fd00:2::/64".parse().unwrap()));
        let random = Subnet6::random().unwrap();
        assert_eq!((random.prefix, random.base.octets()[0]), (64, 0xfd));
        assert_eq!(
            Subnet6::around(Ipv6Addr::LOCALHOST, 0).base,
            Ipv6Addr::UNSPECIFIED
        );
    }
}
