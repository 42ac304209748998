//! The addresses a node may hand to its pods.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use warren_model::Family;
use warren_model::cidr::bits;

/// The pod CIDRs of one node, of either family, in the order the node has them.
///
/// The order matters twice: addresses of an earlier CIDR are handed out first, and the family of the first CIDR is
/// the primary one, which comes first in what [`Allocations::allocate`](crate::Allocations::allocate) returns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pool {
    cidrs: Vec<IpNet>,
}

impl Pool {
    /// Builds the pool of `cidrs`, host bits cleared and repeated ones taken once.
    ///
    /// # Errors
    /// Two CIDRs that overlap without being equal are refused: one address would have two network addresses,
    /// and counting what is free would go wrong.
    pub fn new(cidrs: impl IntoIterator<Item = IpNet>) -> Result<Self, PoolError> {
        let mut pool = Self::default();
        for cidr in cidrs {
            let cidr = cidr.trunc();
            if pool.cidrs.contains(&cidr) {
                continue;
            }
            if let Some(&other) = pool
                .cidrs
                .iter()
                .find(|other| other.contains(&cidr) || cidr.contains(*other))
            {
                return Err(PoolError::Overlap {
                    first: other,
                    second: cidr,
                });
            }
            pool.cidrs.push(cidr);
        }
        Ok(pool)
    }

    /// The CIDRs, host bits cleared, in the order they were given.
    pub fn cidrs(&self) -> &[IpNet] {
        &self.cidrs
    }

    /// The families this pool has CIDRs of, the primary one first.
    pub fn families(&self) -> Vec<Family> {
        let mut families = Vec::with_capacity(2);
        for family in self.cidrs.iter().map(|cidr| Family::of(cidr.addr())) {
            if !families.contains(&family) {
                families.push(family);
            }
        }
        families
    }

    /// Whether `address` lies in one of the CIDRs, handed out to pods or not.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.cidrs.iter().any(|cidr| cidr.contains(&address))
    }

    /// Whether `address` is one that a pod of this node may be given.
    pub fn assignable(&self, address: IpAddr) -> bool {
        self.cidrs
            .iter()
            .filter(|cidr| cidr.contains(&address))
            .any(|cidr| {
                PodRange::of(*cidr).is_some_and(|range| (range.first..=range.last).contains(&bits(address)))
            })
    }
}

/// How full one pod CIDR is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CidrUsage {
    /// The pod CIDR.
    pub cidr: IpNet,
    /// How many pods it has addresses for, reserved addresses not counted.
    pub capacity: u128,
    /// How many of those are held.
    pub used: usize,
}

impl fmt::Display for CidrUsage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} has {} of {} pod addresses in use",
            self.cidr, self.used, self.capacity
        )
    }
}

/// Why pod CIDRs do not make a pool.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// Two CIDRs share addresses.
    #[error("pod CIDRs {first} and {second} of this node overlap; correct spec.podCIDRs of the Node")]
    Overlap {
        /// The one that came first.
        first: IpNet,
        /// The one that overlaps it.
        second: IpNet,
    },
}

/// The addresses of one CIDR that pods may have, as numbers, both ends included.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PodRange {
    pub(crate) first: u128,
    pub(crate) last: u128,
}

impl PodRange {
    /// `None` if the CIDR is too small to have any.
    ///
    /// Left out are the network address (for IPv6 the subnet-router anycast address, RFC 4291 section 2.6.1), the
    /// node's own address after it, and the IPv4 broadcast address at the end.
    pub(crate) fn of(cidr: IpNet) -> Option<Self> {
        let network = bits(cidr.network());
        let host_mask = u128::MAX.checked_shr(128 - u32::from(cidr.max_prefix_len() - cidr.prefix_len()));
        let end = network + host_mask.unwrap_or(0);
        let last = match cidr {
            IpNet::V4(_) => end.checked_sub(1)?,
            IpNet::V6(_) => end,
        };
        let first = network.checked_add(2)?;
        (first <= last).then_some(Self { first, last })
    }

    pub(crate) fn capacity(self) -> u128 {
        self.last - self.first + 1
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use warren_model::cidr::node_address;

    use super::*;

    fn pool(cidrs: &[&str]) -> Result<Pool, PoolError> {
        Pool::new(cidrs.iter().map(|cidr| cidr.parse::<IpNet>().unwrap()))
    }

    #[test]
    fn node_address_is_the_first_host_address() {
        for (cidr, expected) in [
            ("10.244.3.0/24", "10.244.3.1"),
            ("10.244.3.77/24", "10.244.3.1"),
            ("10.0.0.4/31", "10.0.0.5"),
            ("10.0.0.4/32", "10.0.0.4"),
            ("fd00:3::/64", "fd00:3::1"),
            ("fd00:3::9/128", "fd00:3::9"),
            ("255.255.255.254/31", "255.255.255.255"),
        ] {
            assert_eq!(
                node_address(cidr.parse().unwrap()),
                expected.parse::<IpAddr>().unwrap(),
                "{cidr}"
            );
        }
    }

    #[test]
    fn reserved_addresses_are_not_assignable() {
        let pool = pool(&["10.0.0.0/29", "fd00::/125"]).unwrap();
        let assignable = |text: &str| pool.assignable(text.parse().unwrap());
        for reserved in [
            "10.0.0.0", "10.0.0.1", "10.0.0.7", "fd00::", "fd00::1", "10.0.0.8", "fd00::8",
        ] {
            assert!(!assignable(reserved), "{reserved}");
        }
        for free in ["10.0.0.2", "10.0.0.6", "fd00::2", "fd00::7"] {
            assert!(assignable(free), "{free}");
        }
    }

    #[test]
    fn ranges_at_the_ends_of_the_address_space_do_not_overflow() {
        for (cidr, capacity) in [
            ("0.0.0.0/0", (1 << 32) - 3),
            ("255.255.255.248/29", 5),
            ("10.0.0.0/30", 1),
            ("::/0", u128::MAX - 1),
            ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:fff8/125", 6),
            ("fd00::/126", 2),
        ] {
            assert_eq!(
                PodRange::of(cidr.parse().unwrap()).unwrap().capacity(),
                capacity,
                "{cidr}"
            );
        }
        for none in [
            "10.0.0.0/31",
            "10.0.0.0/32",
            "0.0.0.0/32",
            "fd00::/127",
            "::/128",
            "255.255.255.255/32",
        ] {
            assert!(PodRange::of(none.parse().unwrap()).is_none(), "{none}");
        }
        let end = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128".parse().unwrap();
        assert!(PodRange::of(end).is_none());
    }

    #[test]
    fn overlapping_cidrs_are_refused_and_repeated_ones_taken_once() {
        assert_eq!(
            pool(&["10.0.0.0/16", "10.0.3.0/24"]),
            Err(PoolError::Overlap {
                first: "10.0.0.0/16".parse().unwrap(),
                second: "10.0.3.0/24".parse().unwrap()
            })
        );
        assert!(pool(&["10.0.3.0/24", "10.0.0.0/16"]).is_err());
        assert_eq!(pool(&["10.0.0.0/24", "10.0.0.9/24"]).unwrap().cidrs().len(), 1);
    }

    #[test]
    fn the_first_cidr_names_the_primary_family() {
        assert_eq!(
            pool(&["fd00::/64", "10.0.0.0/24"]).unwrap().families(),
            [Family::V6, Family::V4]
        );
        assert_eq!(
            pool(&["10.0.0.0/24", "10.0.1.0/24"]).unwrap().families(),
            [Family::V4]
        );
    }
}
