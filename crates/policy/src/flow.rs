//! What policy judges: the packet that opens a connection.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use warren_model::Family;

use crate::protocol::{Icmp, Protocol};

/// The packet that opens a connection, as it is after DNAT: a Service's address has become a pod's. Both addresses are of
/// one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// Who opens it.
    pub source: IpAddr,
    /// With whom.
    pub destination: IpAddr,
    /// By which protocol.
    pub protocol: Protocol,
    /// What the protocol has beside addresses.
    pub detail: Detail,
}

/// What a protocol has beside addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// TCP, UDP, SCTP.
    Ports {
        /// Of the side that opens.
        source: u16,
        /// Of the other side.
        destination: u16,
    },
    /// ICMP and ICMPv6: type and code.
    Icmp {
        /// The type.
        kind: u8,
        /// The code.
        code: u8,
    },
    /// Nothing that rules could speak of.
    Nothing,
}

impl Flow {
    /// From an address, by an ephemeral port, to an address and port.
    pub fn to_port(source: IpAddr, destination: IpAddr, protocol: Protocol, port: u16) -> Self {
        /// First of the ephemeral ports (RFC 6335, section 6).
        const EPHEMERAL: u16 = 49152;
        Self {
            source,
            destination,
            protocol,
            detail: Detail::Ports {
                source: EPHEMERAL,
                destination: port,
            },
        }
    }

    /// An ICMP message, of the version that goes with the destination.
    pub fn icmp(source: IpAddr, destination: IpAddr, kind: u8, code: u8) -> Self {
        let protocol = match destination {
            IpAddr::V4(_) => Protocol::ICMP,
            IpAddr::V6(_) => Protocol::ICMPV6,
        };
        Self {
            source,
            destination,
            protocol,
            detail: Detail::Icmp { kind, code },
        }
    }

    /// IPv4 or IPv6.
    pub fn family(&self) -> Family {
        Family::of(self.destination)
    }

    /// The port it is opened from.
    pub fn source_port(&self) -> Option<u16> {
        match self.detail {
            Detail::Ports { source, .. } => Some(source),
            Detail::Icmp { .. } | Detail::Nothing => None,
        }
    }

    /// The port it is opened to.
    pub fn destination_port(&self) -> Option<u16> {
        match self.detail {
            Detail::Ports { destination, .. } => Some(destination),
            Detail::Icmp { .. } | Detail::Nothing => None,
        }
    }

    /// Whether it is an ICMP message of that type, and code if one is named.
    pub(crate) fn is_icmp(&self, wanted: Icmp) -> bool {
        match self.detail {
            Detail::Icmp { kind, code } => {
                kind == wanted.kind && wanted.code.is_none_or(|wanted| wanted == code)
            }
            Detail::Ports { .. } | Detail::Nothing => false,
        }
    }
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, to) = (self.source, self.destination);
        match self.detail {
            Detail::Ports { destination, .. } => {
                write!(
                    f,
                    "{} from {from} to {}",
                    self.protocol,
                    SocketAddr::new(to, destination)
                )
            }
            Detail::Icmp { kind, code } => {
                write!(f, "{} type {kind} code {code} from {from} to {to}", self.protocol)
            }
            Detail::Nothing => write!(f, "{} from {from} to {to}", self.protocol),
        }
    }
}
