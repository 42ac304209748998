//! The configuration of the whole mesh: the parsed form of the `Mesh` object named `default`.

use std::collections::BTreeSet;
use std::time::Duration;

use ipnet::IpNet;

use crate::epoch::{Epoch, Lane};
use crate::key::PublicKey;

/// The name of the one `Mesh` object that counts.
pub const MESH_NAME: &str = "default";

/// What the `Mesh` object says, every field with its default filled in. [`Mesh::default`] is what holds without one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mesh {
    /// `spec.encryption`: the one setting.
    pub encryption: Encryption,
    /// `spec.fallback`: what may carry pod packets to a peer that cannot do WireGuard, with encryption on.
    pub fallback: Fallback,
    /// `spec.overlay`: how packets travel with encryption off.
    pub overlay: Overlay,
    /// `spec.mtu`: the MTU of pods and tunnels in bytes; `None` (0 in the object) finds it out.
    pub mtu: Option<u16>,
    /// `spec.mtuProbe`: what is done about paths that lose packets of full size.
    pub mtu_probe: MtuProbe,
    /// `spec.ports`.
    pub ports: Ports,
    /// `spec.keys`.
    pub keys: Keys,
    /// `spec.natOutgoing`: masquerade what pods send outside the pod network.
    pub nat_outgoing: bool,
    /// `spec.policy`.
    pub policy: PolicySettings,
    /// `spec.podNetworks`: ranges that hold pods of any node, known or not yet known. With encryption on nothing to or
    /// from them ever crosses in the clear, not even before the node that owns a part of them is known.
    pub pod_networks: Vec<IpNet>,
    /// `metadata.generation`: rises with each change of the spec, so that nodes can tell which of two equal ones they speak
    /// of. 0 without the object.
    pub generation: i64,
}

impl Default for Mesh {
    fn default() -> Self {
        Self {
            encryption: Encryption::Wireguard,
            fallback: Fallback::None,
            overlay: Overlay {
                mode: OverlayMode::Vxlan,
                cross_subnet: false,
            },
            mtu: None,
            mtu_probe: MtuProbe::Report,
            ports: Ports {
                wireguard: [51820, 51821],
                vxlan: 4789,
            },
            keys: Keys {
                epoch: Epoch::FIRST,
                nodes: Vec::new(),
                rotation_interval: None,
                pinning: Pinning::None,
                accepted: BTreeSet::new(),
                revoked: BTreeSet::new(),
            },
            nat_outgoing: true,
            policy: PolicySettings::default(),
            pod_networks: Vec::new(),
            generation: 0,
        }
    }
}

/// `spec.encryption`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encryption {
    /// Every pod packet between nodes goes through WireGuard.
    Wireguard,
    /// No encryption.
    None,
}

/// `spec.fallback`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fallback {
    /// Nothing: a peer that cannot do WireGuard is not reached.
    None,
    /// VXLAN, in the clear.
    Vxlan,
    /// IP in IP, in the clear.
    Ipip,
}

/// `spec.mtuProbe`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MtuProbe {
    /// Paths are not probed.
    Off,
    /// A path that loses packets of full size is named in status and metrics.
    Report,
    /// And the pods' MTU is lowered to what comes through, until full size does.
    Lower,
}

/// `spec.overlay`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overlay {
    /// The encapsulation used with encryption off.
    pub mode: OverlayMode,
    /// Leave traffic inside one subnet without encapsulation.
    pub cross_subnet: bool,
}

/// `spec.overlay.mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OverlayMode {
    /// VXLAN.
    Vxlan,
    /// IP in IP.
    Ipip,
    /// Plain routes through the underlay; all nodes must be in one subnet.
    None,
}

/// `spec.ports`: UDP ports, none of them 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// One a lane, by [`Lane::index`].
    pub wireguard: [u16; 2],
    /// Of VXLAN.
    pub vxlan: u16,
}

impl Ports {
    /// The port a lane listens on.
    pub fn of(&self, lane: Lane) -> u16 {
        self.wireguard[lane.index()]
    }
}

/// `spec.keys`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    /// The epoch the cluster lives in, or moves to.
    pub epoch: Epoch,
    /// The nodes whose keys the last rotation renews; empty: all.
    pub nodes: Vec<String>,
    /// How often keys are rotated by schedule; `None`: never.
    pub rotation_interval: Option<Duration>,
    /// What becomes of a key that changes outside a rotation.
    pub pinning: Pinning,
    /// Keys that an operator has accepted although they came outside a rotation.
    pub accepted: BTreeSet<PublicKey>,
    /// Keys that nobody believes in, whoever publishes them.
    pub revoked: BTreeSet<PublicKey>,
}

/// `spec.keys.pinning`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pinning {
    /// It is taken, and reported.
    None,
    /// The one before stays in force until an operator accepts it.
    Strict,
}

/// `spec.policy`: how network policy is enforced.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PolicySettings {
    /// What becomes of the pods that a policy selects which cannot be honoured.
    pub on_invalid: OnInvalid,
    /// What becomes of connections that a change of policy forbids.
    pub established: Established,
    /// Whether agents log the flows that policy denies, as far as limits let them.
    pub log_denied: bool,
}

/// `spec.policy.onInvalid`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnInvalid {
    /// Nothing passes that the policy, had it been understood, might have kept from passing.
    #[default]
    Closed,
    /// As if there were no such policy.
    Open,
}

/// `spec.policy.established`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Established {
    /// They go on until they end.
    Keep,
    /// They are cut.
    #[default]
    Cut,
}
