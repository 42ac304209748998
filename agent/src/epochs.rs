//! Which key epoch a node begins in, and what this release does not do yet about a later one.

use std::collections::BTreeMap;

use warren_cluster::Snapshot;
use warren_keymgr::KeyStore;
use warren_model::{Epoch, NodeName, Refusal};
use warren_plan::Cluster;

/// The epoch of a node's first key: the one most of its peers live in (of several, the latest), else the Mesh's. Not the
/// latest of all: one node that claims an absurd epoch would cut off every node that joins after it.
pub fn first_epoch(snapshot: &Snapshot, own: &NodeName) -> Epoch {
    let peers = snapshot.nodes.values().filter(|node| node.name != *own);
    let mut settled = BTreeMap::new();
    for announcement in peers.filter_map(|peer| peer.announcement.as_ref()?.as_ref().ok()) {
        *settled.entry(announcement.settled).or_insert(0) += 1;
    }
    // Where one stands against one, the Mesh's own epoch decides.
    let mesh = snapshot.mesh.keys.epoch;
    let most = settled
        .into_iter()
        .max_by_key(|(epoch, count)| (*count, *epoch == mesh, *epoch));
    most.map_or(mesh, |(epoch, _)| epoch)
}

/// This release makes the first epoch's keys and does not yet rotate them: a later epoch is refused by name rather than
/// half done.
pub fn refuse_rotation(keys: &KeyStore, cluster: &mut Cluster) {
    let Some(newest) = keys.public_keys().into_iter().map(|(epoch, _)| epoch).max() else {
        return;
    };
    if cluster.mesh.keys.epoch > newest {
        cluster.refusals.push(Refusal::new(
            "Mesh/default",
            "rotation-not-available",
            format!(
                "spec.keys.epoch is {}, this node's key is of epoch {newest}, and this release does not rotate keys, so \
                 {newest} stays in use: to be rid of this, create the Mesh anew with spec.keys.epoch {newest}",
                cluster.mesh.keys.epoch
            ),
        ));
        cluster.mesh.keys.epoch = newest;
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use std::collections::BTreeSet;

    use warren_model::{AnnouncedKey, Announcement, Node, PublicKey};

    use super::*;

    fn epoch(number: u32) -> Epoch {
        Epoch::new(number).unwrap()
    }

    /// A cluster of this node and of peers that have settled in these epochs.
    fn cluster(settled: &[u32]) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for (index, number) in settled.iter().enumerate() {
            let name: NodeName = format!("peer{index}").parse().unwrap();
            let public_key = PublicKey::from_bytes([u8::try_from(index).unwrap() + 2; 32]).unwrap();
            let key = AnnouncedKey {
                epoch: epoch(*number),
                public_key,
                port: 51820,
            };
            let node = Node {
                name: name.clone(),
                uid: String::new(),
                created: 0,
                pod_cidrs: Vec::new(),
                internal_ips: Vec::new(),
                announcement: Some(Announcement::new(vec![key], epoch(*number), BTreeSet::new())),
                ready: true,
            };
            snapshot.nodes.insert(name, node);
        }
        snapshot
    }

    #[test]
    fn a_node_begins_where_most_of_its_peers_are_and_alone_where_the_mesh_is() {
        let own: NodeName = "own".parse().unwrap();
        let first = |settled: &[u32]| first_epoch(&cluster(settled), &own).number();
        assert_eq!(first(&[]), 1);
        assert_eq!(first(&[3, 3, 2]), 3);
        assert_eq!(first(&[3, 2, 2]), 2);
        assert_eq!(first(&[1, u32::MAX]), 1, "one against one: the Mesh's");
        assert_eq!(first(&[2, 2, u32::MAX]), 2, "an absurd claim cuts nobody off");
    }
}
