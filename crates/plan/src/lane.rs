//! WireGuard devices: how one should be, how one is, and the changes between the two.
//!
//! Both kinds of device, the kernel's and the userspace one, are observed and changed in these terms.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use ipnet::IpNet;
use serde::Serialize;
use warren_model::{Lane, PublicKey};

/// A handshake younger than this proves that the endpoint in use works: three minutes, after which WireGuard itself
/// gives a session up (REJECT_AFTER_TIME of the WireGuard paper, section 6.1).
pub const HANDSHAKE_FRESH: Duration = Duration::from_secs(180);

/// Where the peers of each lane are to be sent to until they roam.
pub type Endpoints = BTreeMap<Lane, BTreeMap<PublicKey, SocketAddr>>;

/// How one lane's device should be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct LaneConfig {
    /// The public half of the key it holds; `None` for a lane not in use. The private half never enters a plan.
    pub public_key: Option<PublicKey>,
    /// UDP port it listens on.
    pub port: u16,
    /// Its peers by public key.
    pub peers: BTreeMap<PublicKey, PeerConfig>,
    /// The endpoints that were wanted before, of peers that are wanted elsewhere now. A peer that is still sent there has
    /// not roamed: it was we who set that.
    pub endpoints_before: BTreeMap<PublicKey, SocketAddr>,
}

/// How one peer of a lane should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PeerConfig {
    /// Where its packets go until it roams.
    pub endpoint: SocketAddr,
    /// The prefixes it may send from and is sent to. No prefix belongs to two peers of one lane.
    pub allowed_ips: BTreeSet<IpNet>,
    /// Seconds between keepalives; 0: none.
    pub keepalive: u16,
}

/// How one lane's device is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LaneObserved {
    /// The public half of the key it holds, if any.
    pub public_key: Option<PublicKey>,
    /// UDP port it listens on; 0 if none.
    pub port: u16,
    /// Its peers by public key.
    pub peers: BTreeMap<PublicKey, PeerObserved>,
}

/// How one peer of a device is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerObserved {
    /// Where its packets go now.
    pub endpoint: Option<SocketAddr>,
    /// Its allowed IPs.
    pub allowed_ips: BTreeSet<IpNet>,
    /// Seconds between keepalives; 0: none.
    pub keepalive: u16,
    /// Time since the last completed handshake; `None`: never.
    pub handshake_age: Option<Duration>,
    /// Bytes received from it.
    pub rx_bytes: u64,
    /// Bytes sent to it.
    pub tx_bytes: u64,
}

impl PeerObserved {
    /// Whether a handshake completed lately, so that the endpoint in use worked then.
    pub fn is_proven(&self) -> bool {
        self.handshake_age.is_some_and(|age| age < HANDSHAKE_FRESH)
    }
}

/// One change to a device. Never "replace all": what is not named stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum LaneChange {
    /// Give it the private key whose public half this is, or take its key away.
    SetKey(Option<PublicKey>),
    /// Listen on this UDP port.
    SetPort(u16),
    /// Add a peer with all it needs. Allowed IPs that another peer holds move to it in the same instant.
    AddPeer(PublicKey, PeerConfig),
    /// Send the peer's packets there.
    SetEndpoint(PublicKey, SocketAddr),
    /// Send keepalives every so many seconds; 0: none.
    SetKeepalive(PublicKey, u16),
    /// Give the peer one more prefix, taken from whoever holds it, in the same instant.
    AddAllowedIp(PublicKey, IpNet),
    /// Take one prefix from the peer, without a gap for its others.
    RemoveAllowedIp(PublicKey, IpNet),
    /// Remove the peer.
    RemovePeer(PublicKey),
}

impl fmt::Display for LaneChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SetKey(Some(key)) => write!(f, "key {}", key.short()),
            Self::SetKey(None) => write!(f, "key none"),
            Self::SetPort(port) => write!(f, "listen-port {port}"),
            Self::AddPeer(key, peer) => {
                let nets: Vec<String> = peer.allowed_ips.iter().map(ToString::to_string).collect();
                write!(
                    f,
                    "peer {} endpoint {} allowed-ips {}",
                    key.short(),
                    peer.endpoint,
                    nets.join(",")
                )
            }
            Self::SetEndpoint(key, endpoint) => write!(f, "peer {} endpoint {endpoint}", key.short()),
            Self::SetKeepalive(key, seconds) => {
                write!(f, "peer {} persistent-keepalive {seconds}", key.short())
            }
            Self::AddAllowedIp(key, net) => write!(f, "peer {} allowed-ips +{net}", key.short()),
            Self::RemoveAllowedIp(key, net) => write!(f, "peer {} allowed-ips -{net}", key.short()),
            Self::RemovePeer(key) => write!(f, "peer {} remove", key.short()),
        }
    }
}

impl LaneConfig {
    /// The changes that make `observed` this configuration: key and port first, peers and prefixes added, then taken
    /// away what is too much. A peer that has roamed and shook hands lately keeps the endpoint it is using.
    pub fn changes_from(&self, observed: &LaneObserved) -> LaneChanges {
        let mut adds = Vec::new();
        let mut removes = Vec::new();
        if self.public_key != observed.public_key {
            adds.push(LaneChange::SetKey(self.public_key));
        }
        if self.port != observed.port {
            adds.push(LaneChange::SetPort(self.port));
        }
        for (key, wanted) in &self.peers {
            match observed.peers.get(key) {
                None => adds.push(LaneChange::AddPeer(*key, wanted.clone())),
                Some(found) => {
                    let before = self.endpoints_before.get(key).copied();
                    wanted.changes_from(*key, found, before, &mut adds);
                }
            }
        }
        for (key, found) in &observed.peers {
            let Some(wanted) = self.peers.get(key) else {
                removes.push(LaneChange::RemovePeer(*key));
                continue;
            };
            let stays_or_moves =
                |net: &&IpNet| self.peers.values().any(|peer| peer.allowed_ips.contains(*net));
            let surplus = found.allowed_ips.difference(&wanted.allowed_ips);
            removes.extend(
                surplus
                    .filter(|net| !stays_or_moves(net))
                    .map(|net| LaneChange::RemoveAllowedIp(*key, *net)),
            );
        }
        LaneChanges { adds, removes }
    }
}

impl PeerConfig {
    fn changes_from(
        &self,
        key: PublicKey,
        found: &PeerObserved,
        before: Option<SocketAddr>,
        adds: &mut Vec<LaneChange>,
    ) {
        // A fresh handshake proves where a peer was up to three minutes ago. Where it went by itself is believed for that
        // long. Where it only was because it was wanted there is no longer of interest once it is wanted elsewhere: its
        // Node has another address or port, or two nodes have swapped theirs.
        let has_roamed = found.is_proven() && found.endpoint != before;
        if found.endpoint != Some(self.endpoint) && !has_roamed {
            adds.push(LaneChange::SetEndpoint(key, self.endpoint));
        }
        if found.keepalive != self.keepalive {
            adds.push(LaneChange::SetKeepalive(key, self.keepalive));
        }
        let missing = self.allowed_ips.difference(&found.allowed_ips);
        adds.extend(missing.map(|net| LaneChange::AddAllowedIp(key, *net)));
    }
}

/// The changes to one device, apart so that routes can be moved between the two halves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LaneChanges {
    /// To make before any route uses the device.
    pub adds: Vec<LaneChange>,
    /// To make once no route needs what they take away.
    pub removes: Vec<LaneChange>,
}

impl LaneObserved {
    /// What the device is after a change: the model that tests and simulations run the steps on.
    pub fn apply(&mut self, change: &LaneChange) {
        match change {
            LaneChange::SetKey(key) => self.public_key = *key,
            LaneChange::SetPort(port) => self.port = *port,
            LaneChange::AddPeer(key, config) => {
                for net in &config.allowed_ips {
                    self.take(net);
                }
                self.peers.insert(
                    *key,
                    PeerObserved {
                        endpoint: Some(config.endpoint),
                        allowed_ips: config.allowed_ips.clone(),
                        keepalive: config.keepalive,
                        ..PeerObserved::default()
                    },
                );
            }
            LaneChange::SetEndpoint(key, endpoint) => self.peer(key).endpoint = Some(*endpoint),
            LaneChange::SetKeepalive(key, seconds) => self.peer(key).keepalive = *seconds,
            LaneChange::AddAllowedIp(key, net) => {
                self.take(net);
                self.peer(key).allowed_ips.insert(*net);
            }
            LaneChange::RemoveAllowedIp(key, net) => {
                self.peer(key).allowed_ips.remove(net);
            }
            LaneChange::RemovePeer(key) => {
                self.peers.remove(key);
            }
        }
    }

    fn peer(&mut self, key: &PublicKey) -> &mut PeerObserved {
        self.peers.entry(*key).or_default()
    }

    fn take(&mut self, net: &IpNet) {
        for peer in self.peers.values_mut() {
            peer.allowed_ips.remove(net);
        }
    }
}
