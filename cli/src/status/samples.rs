//! Meshes to render, made by hand.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::collections::BTreeSet;

use warren_model::status::{AgentStatus, DropCount, LaneStatus, MtuHole, PeerStatus, StewardStatus};
use warren_model::{AnnouncedKey, Announcement, Epoch, Lane, PathKind, PublicKey, Refusal};

use super::report::StatusReport;
use crate::answer::AgentError;
use crate::survey::{Survey, Surveyed};

/// A key that is made of the node's first letter and the epoch.
pub(crate) fn key(node: &str, epoch: u32) -> AnnouncedKey {
    let letter = node.bytes().next().unwrap();
    let epoch = Epoch::new(epoch).unwrap();
    let byte = letter
        .wrapping_mul(7)
        .wrapping_add(u8::try_from(epoch.number()).unwrap());
    AnnouncedKey {
        epoch,
        public_key: PublicKey::from_bytes([byte; 32]).unwrap(),
        port: 51820 + u16::try_from(epoch.lane().index()).unwrap(),
    }
}

fn lane(lane: Lane, up: bool) -> LaneStatus {
    LaneStatus {
        lane,
        interface: lane.interface().to_owned(),
        device: "userspace".to_owned(),
        reason: "the kernel has no WireGuard".to_owned(),
        up,
        public_key: None,
        port: 51820,
        drops: [("bad_source".to_owned(), 0)].into(),
    }
}

/// A peer reached through the lane of an epoch.
pub(crate) fn peer(node: &str, epoch: u32) -> PeerStatus {
    let key = key(node, epoch);
    PeerStatus {
        node: node.parse().unwrap(),
        path: Some(PathKind::Wireguard),
        lane: Some(key.epoch.lane()),
        reason: "handshake completed".to_owned(),
        public_key: Some(key.public_key),
        epoch: Some(key.epoch),
        endpoint: Some(
            format!("192.0.2.{}:{}", node.as_bytes()[0], key.port)
                .parse()
                .unwrap(),
        ),
        pod_cidrs: Vec::new(),
        internal_ips: Vec::new(),
        handshake_age_seconds: Some(12),
        mtu: Some(1420),
        mtu_hole: None,
        keys: Vec::new(),
        rx_bytes: 1536,
        tx_bytes: 3 << 20,
    }
}

/// A ready agent in epoch 3.
pub(crate) fn agent(node: &str, peers: Vec<PeerStatus>) -> AgentStatus {
    AgentStatus {
        node: node.parse().unwrap(),
        version: "0.1.0".to_owned(),
        ready: true,
        encryption: true,
        epoch: Epoch::new(3).unwrap(),
        settled: Epoch::new(3).unwrap(),
        keys: vec![key(node, 3)],
        pod_cidrs: Vec::new(),
        pods: 12,
        pod_mtu: 1420,
        lanes: vec![lane(Lane::Zero, false), lane(Lane::One, true)],
        peers,
        drops: vec![drops("plaintext-out", 0)],
        refusals: Vec::new(),
        last_error: None,
        rotation_waits_for: Vec::new(),
        key_changes: Vec::new(),
        steward: Some(StewardStatus {
            node: "a".to_owned(),
            term: 2,
        }),
    }
}

fn drops(reason: &str, packets: u64) -> DropCount {
    DropCount {
        reason: reason.to_owned(),
        packets,
        bytes: packets * 100,
    }
}

/// A node that publishes the key of epoch 3.
pub(crate) fn surveyed(node: &str, answer: Result<AgentStatus, AgentError>) -> Surveyed<AgentStatus> {
    let keys = vec![key(node, 3)];
    let announcement = Announcement::new(
        keys,
        Epoch::new(3).unwrap(),
        BTreeSet::from([PathKind::Wireguard]),
    );
    Surveyed {
        node: node.to_owned(),
        announcement: Some(announcement),
        answer,
    }
}

/// Three nodes, all well.
pub(super) fn mesh() -> StatusReport {
    let mut heard_last = agent("b", vec![peer("a", 3), peer("c", 3)]);
    heard_last.steward = Some(StewardStatus {
        node: "b".to_owned(),
        term: 3,
    });
    report(vec![
        surveyed("a", Ok(agent("a", vec![peer("b", 3), peer("c", 3)]))),
        surveyed("b", Ok(heard_last)),
        surveyed("c", Ok(agent("c", vec![peer("a", 3), peer("b", 3)]))),
    ])
}

/// Five nodes and everything that can be wrong with them.
pub(super) fn troubled() -> StatusReport {
    let refusal = Refusal::new(
        "Node/e",
        "overlapping-pod-cidr",
        "10.244.1.0/24 is node a's; delete Node e",
    );
    let mut silent = peer("b", 3);
    silent.handshake_age_seconds = None;
    let mut unreached = peer("e", 3);
    (unreached.path, unreached.public_key, unreached.epoch) = (None, None, None);
    (unreached.endpoint, unreached.handshake_age_seconds) = (None, None);
    (unreached.rx_bytes, unreached.tx_bytes) = (0, 0);
    unreached.reason = "publishes no key".to_owned();
    let mut clear = unreached.clone();
    (clear.path, clear.lane) = (Some(PathKind::Vxlan), None);
    clear.reason = "spec.fallback is vxlan, and it has no WireGuard".to_owned();

    let mut a = agent("a", vec![silent, peer("c", 3), unreached]);
    a.refusals = vec![refusal.clone()];
    a.last_error = Some("nft cannot change table inet warren: busy\u{1b}[2J".to_owned());
    let mut b = agent("b", vec![peer("a", 3), clear]);
    b.refusals = vec![refusal];
    b.drops = vec![drops("plaintext-out", 7), drops("spoofed", 0)];
    b.peers[0].mtu_hole = Some(MtuHole {
        lost: 1420,
        passes: 1376,
    });
    b.lanes[1].drops.insert("no_session".to_owned(), 5);
    let mut c = agent("c", vec![peer("a", 3)]);
    c.lanes = vec![lane(Lane::Zero, false), lane(Lane::One, false)];

    let mut silent = surveyed("d", Err(AgentError::TimedOut));
    silent.announcement = None;
    let not_in_sync = surveyed(
        "e",
        Ok(AgentStatus {
            ready: false,
            keys: Vec::new(),
            ..agent("e", Vec::new())
        }),
    );
    report(vec![
        surveyed("a", Ok(a)),
        surveyed("b", Ok(b)),
        surveyed("c", Ok(c)),
        silent,
        not_in_sync,
    ])
}

/// Three nodes: `c` has no WireGuard and is reached by the fallback; it has heard of `b` alone that encryption is on.
pub(super) fn in_the_clear() -> StatusReport {
    let clear = |node: &str, path, reason: &str| {
        let mut peer = peer(node, 3);
        (peer.path, peer.lane, peer.public_key, peer.epoch) = (Some(path), None, None, None);
        (peer.endpoint, peer.handshake_age_seconds) = (None, None);
        reason.clone_into(&mut peer.reason);
        peer
    };
    let fallback = || {
        let reason = "the peer cannot do WireGuard and spec.fallback allows vxlan";
        clear("c", PathKind::Vxlan, reason)
    };
    let direct = clear(
        "a",
        PathKind::Direct,
        "encryption is off and the peer is in this subnet",
    );
    report(vec![
        surveyed("a", Ok(agent("a", vec![peer("b", 3), fallback()]))),
        surveyed("b", Ok(agent("b", vec![peer("a", 3), fallback()]))),
        surveyed("c", Ok(agent("c", vec![direct, peer("b", 3)]))),
    ])
}

/// Two nodes on the way from epoch 3 to 4.
pub(super) fn rotating() -> StatusReport {
    let on_the_way = |node: &str, other: &str| {
        let mut agent = agent(node, vec![peer(other, 4)]);
        agent.keys.push(key(node, 4));
        agent.lanes = vec![lane(Lane::Zero, true), lane(Lane::One, true)];
        surveyed(node, Ok(agent))
    };
    report(vec![on_the_way("a", "b"), on_the_way("b", "a")])
}

/// So many nodes, of whose paths the first so many are none.
pub(super) fn large(nodes: usize, without_path: usize) -> StatusReport {
    let names: Vec<String> = (0..nodes)
        .map(|number| format!("{}{number}", char::from(b'a')))
        .collect();
    let mut left = without_path;
    let mut one = |name: &String| {
        let others = names.iter().filter(|other| *other != name);
        let mut peers: Vec<PeerStatus> = others.map(|other| peer(other, 3)).collect();
        for peer in &mut peers {
            if left > 0 {
                left -= 1;
                peer.path = None;
            }
        }
        surveyed(name, Ok(agent(name, peers)))
    };
    report(names.iter().map(&mut one).collect())
}

/// What `--local` sees on a machine that is called `this-host`.
pub(super) fn local(answer: Result<AgentStatus, AgentError>) -> StatusReport {
    let mut nodes = vec![surveyed("this-host", answer)];
    nodes[0].announcement = None;
    StatusReport::new(Survey {
        nodes,
        cluster_size: None,
    })
}

fn report(nodes: Vec<Surveyed<AgentStatus>>) -> StatusReport {
    let cluster_size = Some(nodes.len());
    StatusReport::new(Survey { nodes, cluster_size })
}
