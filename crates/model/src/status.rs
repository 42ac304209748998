//! What an agent answers on `/status` and `/plan`: read by `warren status` and `warren plan`, on this node or, through
//! the API server, on any.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::announcement::AnnouncedKey;
use crate::cidr::PodCidr;
use crate::epoch::{Epoch, Lane};
use crate::key::PublicKey;
use crate::name::NodeName;
use crate::path::PathKind;
use crate::refusal::Refusal;

/// An agent's view of its node and of all its peers. Holds no secret.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentStatus {
    /// The node it runs on.
    pub node: NodeName,
    /// The agent's release.
    pub version: String,
    /// Whether it is ready to attach pods.
    pub ready: bool,
    /// Whether the Mesh asks for encryption.
    pub encryption: bool,
    /// The epoch the Mesh asks for.
    pub epoch: Epoch,
    /// The newest epoch in which the node has reached all its peers.
    pub settled: Epoch,
    /// What it publishes.
    pub keys: Vec<AnnouncedKey>,
    /// Its pod CIDRs.
    pub pod_cidrs: Vec<PodCidr>,
    /// How many pods are attached.
    pub pods: usize,
    /// MTU of its pods, bytes.
    pub pod_mtu: u32,
    /// Its WireGuard devices.
    pub lanes: Vec<LaneStatus>,
    /// Its peers, by name.
    pub peers: Vec<PeerStatus>,
    /// What the guard has dropped.
    pub drops: Vec<DropCount>,
    /// Objects that are not acted on, and why.
    pub refusals: Vec<Refusal>,
    /// The last pass that failed: what the kernel refused; `None` when the last pass went through.
    pub last_error: Option<String>,
    /// What a rotation of keys that is under way waits for on this node, for people; empty without one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rotation_waits_for: Vec<String>,
    /// Who reports for the whole mesh, as far as this agent knows; of several answers the one of the latest term counts.
    #[serde(default)]
    pub steward: Option<StewardStatus>,
    /// Keys of other nodes that changed outside a rotation, and that no operator has accepted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub key_changes: Vec<KeyChange>,
}

/// A key that changed outside a rotation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyChange {
    /// Whose.
    pub node: NodeName,
    /// Of which epoch.
    pub epoch: Epoch,
    /// The key before.
    pub before: PublicKey,
    /// What it was changed to.
    pub now: PublicKey,
    /// Whether the change is in force, and not held back by `spec.keys.pinning`.
    pub in_force: bool,
}

/// A key of a peer that a device holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HeldKey {
    /// In which device.
    pub lane: Lane,
    /// The key.
    pub public_key: PublicKey,
}

/// The agent that writes the Mesh's status and Events, in one term of the Lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StewardStatus {
    /// Its node, as the Lease names it.
    pub node: String,
    /// How often the Lease has gone from one holder to another.
    pub term: i32,
}

/// One WireGuard device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LaneStatus {
    /// Which.
    pub lane: Lane,
    /// Name of its interface.
    pub interface: String,
    /// `kernel` or `userspace`.
    pub device: String,
    /// Why that kind was chosen.
    pub reason: String,
    /// Whether the device exists and is up.
    pub up: bool,
    /// Its public key, once it has one.
    pub public_key: Option<PublicKey>,
    /// UDP port it listens on.
    pub port: u16,
    /// Packets that the device has dropped since it started, by reason. Empty for the kernel's, which does not say.
    #[serde(default)]
    pub drops: BTreeMap<String, u64>,
}

/// One peer node, as this node sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerStatus {
    /// The peer's name.
    pub node: NodeName,
    /// The path in force; `None`: it is not reached, and `reason` says why.
    pub path: Option<PathKind>,
    /// The lane that sends, on a WireGuard path.
    pub lane: Option<Lane>,
    /// Why this path, in a few words.
    pub reason: String,
    /// Its key in the sending lane.
    pub public_key: Option<PublicKey>,
    /// The epoch of that key.
    pub epoch: Option<Epoch>,
    /// Where its packets go.
    pub endpoint: Option<SocketAddr>,
    /// Its pod CIDRs.
    pub pod_cidrs: Vec<PodCidr>,
    /// Its InternalIPs.
    pub internal_ips: Vec<IpAddr>,
    /// Seconds since the last completed handshake; `None`: never.
    pub handshake_age_seconds: Option<u64>,
    /// What its path leaves for packets of pods, bytes, as far as the node's routes tell.
    #[serde(default)]
    pub mtu: Option<u32>,
    /// What was found to be lost on its path, if anything.
    #[serde(default)]
    pub mtu_hole: Option<MtuHole>,
    /// The keys by which the devices take and send its pods' packets, as they say it.
    #[serde(default)]
    pub keys: Vec<HeldKey>,
    /// Bytes received from it, both lanes.
    pub rx_bytes: u64,
    /// Bytes sent to it, both lanes.
    pub tx_bytes: u64,
}

/// An MTU black hole: packets of some length do not come through to a peer, without a word, although shorter ones do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MtuHole {
    /// Length of those that are lost, bytes.
    pub lost: u32,
    /// The longest of those tried that come through.
    pub passes: u32,
}

/// One reason the guard drops packets for, and how many it has dropped since the node booted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DropCount {
    /// A short stable word, e.g. `plaintext-out`.
    pub reason: String,
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// What the agent would change now, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlanReport {
    /// The node it is about.
    pub node: NodeName,
    /// The steps; empty when the kernel is as it should be.
    pub steps: Vec<PlannedStep>,
    /// Objects that are not acted on, and why.
    pub refusals: Vec<Refusal>,
}

/// One step of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlannedStep {
    /// What would be done, e.g. `route add 10.244.2.0/24 dev warren1`.
    pub action: String,
    /// Why.
    pub reason: String,
}
