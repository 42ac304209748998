//! Pod CIDRs and address families.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// IPv4 or IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// The address of this family whose number is `bits`; IPv4 takes the low 32.
    pub fn address(self, bits: u128) -> IpAddr {
        match self {
            Self::V4 => IpAddr::V4(Ipv4Addr::from_bits(bits as u32)),
            Self::V6 => IpAddr::V6(Ipv6Addr::from_bits(bits)),
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// An address as a number, to count with.
pub fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// The node-local address of a range: its first host address (`.1`, `::1`); of a range of one address, that one. It is
/// carried by the node's tunnel interfaces, gives host-to-pod traffic a source inside the peer's allowed IPs, and is never
/// handed to a pod.
pub fn node_address(cidr: IpNet) -> IpAddr {
    let network = cidr.network();
    let offset = u128::from(cidr.prefix_len() < cidr.max_prefix_len());
    Family::of(network).address(bits(network) + offset)
}

/// A range of pod addresses that the control plane gave one node: canonical (no host bits), wide enough for a
/// node-local address and at least one pod, and neither loopback, link-local, multicast nor unspecified.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PodCidr(IpNet);

impl PodCidr {
    /// The range as an [`IpNet`].
    pub fn net(self) -> IpNet {
        self.0
    }

    /// IPv4 or IPv6.
    pub fn family(self) -> Family {
        Family::of(self.0.addr())
    }

    /// Whether an address lies in the range.
    pub fn contains(self, address: IpAddr) -> bool {
        self.0.contains(&address)
    }

    /// Whether two ranges share an address.
    pub fn overlaps(self, other: Self) -> bool {
        self.0.contains(&other.0) || other.0.contains(&self.0)
    }

    /// Its [`node_address`].
    pub fn node_address(self) -> IpAddr {
        node_address(self.0)
    }
}

impl TryFrom<IpNet> for PodCidr {
    type Error = PodCidrError;

    fn try_from(net: IpNet) -> Result<Self, Self::Error> {
        let address = net.addr();
        let link_local = match address {
            IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
            IpAddr::V6(v6) => v6.is_unicast_link_local(),
        };
        if net != net.trunc() {
            Err(PodCidrError::HostBits {
                given: net,
                canonical: net.trunc(),
            })
        } else if net.max_prefix_len() - net.prefix_len() < 2 {
            Err(PodCidrError::TooSmall { net })
        } else if net.prefix_len() == 0
            || link_local
            || address.is_loopback()
            || address.is_multicast()
            || address.is_unspecified()
        {
            Err(PodCidrError::NotForPods { net })
        } else {
            Ok(Self(net))
        }
    }
}

impl FromStr for PodCidr {
    type Err = PodCidrError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let net: IpNet = text.parse().map_err(|_| PodCidrError::NotACidr {
            text: text.chars().take(64).collect(),
        })?;
        net.try_into()
    }
}

impl TryFrom<String> for PodCidr {
    type Error = PodCidrError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<PodCidr> for String {
    fn from(cidr: PodCidr) -> Self {
        cidr.to_string()
    }
}

impl fmt::Display for PodCidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for PodCidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A range that cannot hold a node's pods.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PodCidrError {
    /// Not `address/length` at all.
    #[error("{text:?} is not a CIDR such as 10.244.1.0/24 or fd00:10:244:1::/64")]
    NotACidr {
        /// What was given, cut to 64 characters.
        text: String,
    },
    /// Bits to the right of the prefix are set.
    #[error("pod CIDR {given} has host bits set: use {canonical}")]
    HostBits {
        /// What was given.
        given: IpNet,
        /// What was probably meant.
        canonical: IpNet,
    },
    /// Fewer than four addresses.
    #[error("pod CIDR {net} is too small: a node needs at least a /30 or a /126")]
    TooSmall {
        /// What was given.
        net: IpNet,
    },
    /// A range that pods cannot live in, or that would take every route.
    #[error(
        "pod CIDR {net} is loopback, link-local, multicast or everything: give pods a range of their own"
    )]
    NotForPods {
        /// What was given.
        net: IpNet,
    },
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_cannot_hold_pods() {
        for bad in [
            "",
            "10.0.0.0",
            "10.0.0.0/33",
            "10.0.0.1/24",
            "10.0.0.0/31",
            "10.0.0.0/32",
            "0.0.0.0/0",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "224.0.0.0/8",
            "::/0",
            "fe80::/64",
            "fd00::/127",
            "ff00::/16",
        ] {
            assert!(bad.parse::<PodCidr>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn node_address_is_the_first_host_address() {
        let v4: PodCidr = "10.244.3.0/24".parse().unwrap();
        let v6: PodCidr = "fd00:10:244:3::/64".parse().unwrap();
        assert_eq!(v4.node_address().to_string(), "10.244.3.1");
        assert_eq!(v6.node_address().to_string(), "fd00:10:244:3::1");
    }
}
