//! What the agent answers on `/status`.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use warren_model::status::{AgentStatus, HeldKey, LaneStatus, PeerStatus, StewardStatus};
use warren_model::{Encryption, Lane, Node, NodeName, Path, PublicKey};
use warren_plan::{Desired, PeerObserved};

use crate::devices::Devices;
use crate::view::View;

/// The agent's view of its node and of all its peers. `None` until the watches are in sync.
pub fn status(
    node: &NodeName,
    ready: bool,
    devices: &Devices,
    view: &View,
    steward: Option<StewardStatus>,
) -> Option<AgentStatus> {
    let desired = view.desired.as_ref()?;
    let own = view.snapshot.nodes.get(node);
    let mesh = &view.snapshot.mesh;
    let attached: BTreeSet<&str> = desired
        .guard
        .pods
        .iter()
        .map(|pod| pod.interface.as_str())
        .collect();
    let announcement = desired.announcement.as_ref();
    Some(AgentStatus {
        node: node.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ready,
        encryption: mesh.encryption == Encryption::Wireguard,
        epoch: mesh.keys.epoch,
        settled: announcement.map_or(mesh.keys.epoch, |announcement| announcement.settled),
        keys: announcement
            .map(|announcement| announcement.keys.clone())
            .unwrap_or_default(),
        pod_cidrs: own.map(|own| own.pod_cidrs.clone()).unwrap_or_default(),
        pods: attached.len(),
        pod_mtu: desired.pod_mtu,
        lanes: Lane::ALL
            .into_iter()
            .map(|lane| lane_status(lane, devices, desired, view))
            .collect(),
        peers: peers(view, desired),
        drops: view.drops.clone(),
        refusals: desired.refusals.clone(),
        last_error: view.first_error(),
        rotation_waits_for: view.rotation_waits_for.clone(),
        steward,
        key_changes: view.key_changes.clone(),
    })
}

fn lane_status(lane: Lane, devices: &Devices, desired: &Desired, view: &View) -> LaneStatus {
    let device = view.observed.lanes.get(&lane);
    LaneStatus {
        lane,
        interface: lane.interface().to_owned(),
        device: devices.kind().to_owned(),
        reason: devices.reason().to_owned(),
        up: device.is_some()
            && view
                .observed
                .links
                .get(lane.interface())
                .is_some_and(|link| link.up),
        public_key: device.and_then(|device| device.public_key),
        port: desired.lanes.get(&lane).map_or(0, |lane| lane.port),
        drops: view.lane_drops.get(&lane).cloned().unwrap_or_default(),
    }
}

fn peers(view: &View, desired: &Desired) -> Vec<PeerStatus> {
    let held = held_keys(view);
    let peer = |(name, plan): (&NodeName, &warren_plan::PeerPlan)| {
        let node = view.snapshot.nodes.get(name);
        let devices = node.map(|node| observed_of(view, node)).unwrap_or_default();
        let sending = plan
            .key
            .and_then(|(_, key)| devices.iter().find(|(other, _)| *other == key));
        let ages = devices.iter().filter_map(|(_, peer)| peer.handshake_age);
        PeerStatus {
            node: name.clone(),
            path: plan.path.map(Path::kind),
            lane: plan.path.and_then(Path::lane),
            reason: plan.reason.clone(),
            public_key: plan.key.map(|(_, key)| key),
            epoch: plan.key.map(|(epoch, _)| epoch),
            endpoint: sending.and_then(|(_, peer)| peer.endpoint).or(plan.endpoint),
            pod_cidrs: node.map(|node| node.pod_cidrs.clone()).unwrap_or_default(),
            internal_ips: node.map(|node| node.internal_ips.clone()).unwrap_or_default(),
            handshake_age_seconds: ages.min().map(|age| age.as_secs()),
            keys: node.map(|node| keys_of(&held, node)).unwrap_or_default(),
            mtu: plan.mtu,
            mtu_hole: plan.mtu_hole,
            rx_bytes: devices.iter().map(|(_, peer)| peer.rx_bytes).sum(),
            tx_bytes: devices.iter().map(|(_, peer)| peer.tx_bytes).sum(),
        }
    };
    desired.peers.iter().map(peer).collect()
}

/// The keys that the devices hold, by each network that they carry. Not by what nodes publish: that they agree is for others to
/// find out.
fn held_keys(view: &View) -> BTreeMap<IpNet, Vec<HeldKey>> {
    let mut held: BTreeMap<IpNet, Vec<HeldKey>> = BTreeMap::new();
    for (lane, device) in &view.observed.lanes {
        for (public_key, peer) in &device.peers {
            for net in &peer.allowed_ips {
                held.entry(*net).or_default().push(HeldKey {
                    lane: *lane,
                    public_key: *public_key,
                });
            }
        }
    }
    held
}

fn keys_of(held: &BTreeMap<IpNet, Vec<HeldKey>>, node: &Node) -> Vec<HeldKey> {
    let nets = node.pod_cidrs.iter().map(|cidr| cidr.net());
    let mut keys: Vec<HeldKey> = nets.filter_map(|net| held.get(&net)).flatten().copied().collect();
    keys.sort_by_key(|key| (key.lane, key.public_key));
    keys.dedup();
    keys
}

/// What the lanes say of a node, by each of its keys.
fn observed_of<'a>(view: &'a View, node: &Node) -> Vec<(PublicKey, &'a PeerObserved)> {
    let Some(Ok(announcement)) = &node.announcement else {
        return Vec::new();
    };
    let of_key = |key: &warren_model::AnnouncedKey| {
        let device = view.observed.lanes.get(&key.epoch.lane())?;
        Some((key.public_key, device.peers.get(&key.public_key)?))
    };
    announcement.keys.iter().filter_map(of_key).collect()
}
