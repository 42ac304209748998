//! The ways a packet can reach a peer node.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::epoch::Lane;

/// A kind of path, as nodes publish what they can do and as the `Mesh` names what is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PathKind {
    /// Encrypted, through a lane.
    Wireguard,
    /// VXLAN (RFC 7348), in the clear.
    Vxlan,
    /// IP in IP (RFC 2003), in the clear, IPv4 only.
    Ipip,
    /// No encapsulation, in the clear, same subnet only.
    Direct,
}

impl PathKind {
    /// Whether a packet on it is encrypted between the nodes.
    pub fn is_encrypted(self) -> bool {
        self == Self::Wireguard
    }
}

impl fmt::Display for PathKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Wireguard => "wireguard",
            Self::Vxlan => "vxlan",
            Self::Ipip => "ipip",
            Self::Direct => "direct",
        })
    }
}

/// The path chosen towards one peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Path {
    /// Encrypted, sending through this lane.
    Wireguard(Lane),
    /// VXLAN, in the clear.
    Vxlan,
    /// IP in IP, in the clear.
    Ipip,
    /// The bare underlay, in the clear.
    Direct,
}

impl Path {
    /// Its kind.
    pub fn kind(self) -> PathKind {
        match self {
            Self::Wireguard(_) => PathKind::Wireguard,
            Self::Vxlan => PathKind::Vxlan,
            Self::Ipip => PathKind::Ipip,
            Self::Direct => PathKind::Direct,
        }
    }

    /// The lane that sends, on a WireGuard path.
    pub fn lane(self) -> Option<Lane> {
        match self {
            Self::Wireguard(lane) => Some(lane),
            Self::Vxlan | Self::Ipip | Self::Direct => None,
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind().fmt(f)
    }
}
