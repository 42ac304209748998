//! Keys that change when they should and when they should not.

use std::collections::BTreeSet;

use warren_model::{AnnouncedKey, Mesh, PathKind};

use super::*;

const OWN: &str = "own";
const PEER: &str = "peer";

fn key(byte: u8) -> PublicKey {
    PublicKey::from_bytes([byte; 32]).unwrap()
}

fn epoch(number: u32) -> Epoch {
    Epoch::new(number).unwrap()
}

/// A node that publishes these keys, by epoch.
fn says(keys: &[(u32, u8)]) -> Announcement {
    let keys = keys.iter().map(|(number, byte)| AnnouncedKey {
        epoch: epoch(*number),
        public_key: key(*byte),
        port: 51820,
    });
    let keys: Vec<_> = keys.collect();
    let settled = keys[0].epoch;
    Announcement::new(keys, settled, BTreeSet::from([PathKind::Wireguard])).unwrap()
}

struct Scene {
    trust: Trust,
    keys: Keys,
    uid: String,
}

impl Scene {
    fn new(pinning: Pinning) -> Self {
        Self {
            trust: Trust::default(),
            keys: Keys {
                pinning,
                ..Mesh::default().keys
            },
            uid: "u1".to_owned(),
        }
    }

    fn in_epoch(mut self, number: u32) -> Self {
        self.keys.epoch = epoch(number);
        self
    }

    /// What is made of a peer that publishes this.
    fn judge(&mut self, published: &[(u32, u8)]) -> Judged {
        let node = |name: &str, announcement| Node {
            name: name.parse().unwrap(),
            uid: self.uid.clone(),
            created: 0,
            pod_cidrs: Vec::new(),
            internal_ips: Vec::new(),
            announcement,
            ready: true,
        };
        let nodes = [(OWN, None), (PEER, Some(Ok(says(published))))];
        let nodes = nodes.map(|(name, says)| (name.parse().unwrap(), node(name, says)));
        self.trust.judge(&nodes.into(), &OWN.parse().unwrap(), &self.keys)
    }

    /// The same after a restart.
    fn restarted(mut self) -> Self {
        let kept = serde_json::to_vec(&self.trust).unwrap();
        self.trust = serde_json::from_slice(&kept).unwrap();
        self
    }
}

fn held(judged: &Judged) -> Option<&Announcement> {
    judged.instead[PEER].as_ref()
}

#[test]
fn what_does_not_change_and_what_rotates_is_taken_as_it_is() {
    for pinning in [Pinning::None, Pinning::Strict] {
        let mut scene = Scene::new(pinning);
        for (mesh, published) in [
            (1, vec![(1, 1)]),
            (1, vec![(1, 1)]),
            (2, vec![(1, 1), (2, 2)]),
            (2, vec![(2, 2)]),
            // Carried over.
            (3, vec![(2, 2), (3, 2)]),
            (3, vec![(3, 2)]),
            // A node that was away for two rotations.
            (5, vec![(5, 9)]),
        ] {
            scene.keys.epoch = epoch(mesh);
            assert_eq!(scene.judge(&published), Judged::default(), "{published:?}");
        }
    }
}

#[test]
fn a_change_is_reported_and_taken_unless_keys_are_pinned() {
    let mut scene = Scene::new(Pinning::None);
    scene.judge(&[(1, 1)]);
    for judged in [scene.judge(&[(1, 6)]), scene.restarted().judge(&[(1, 6)])] {
        assert_eq!((judged.instead.len(), judged.refusals.len()), (0, 0));
        let [change] = judged.changes.as_slice() else {
            panic!("{judged:?}")
        };
        assert_eq!(
            (change.epoch, change.before, change.now, change.in_force),
            (epoch(1), key(1), key(6), true)
        );
        assert_eq!(notice(change).code, CHANGED);
    }
}

#[test]
fn a_pinned_key_stays_in_force_with_all_that_was_said_with_it() {
    let mut scene = Scene::new(Pinning::Strict);
    scene.judge(&[(1, 1)]);
    let mut scene = scene.restarted();
    for _ in 0..2 {
        let judged = scene.judge(&[(1, 6)]);
        assert_eq!(held(&judged), Some(&says(&[(1, 1)])));
        assert_eq!(judged.refusals[0].code, NOT_ACCEPTED);
        assert!(judged.refusals[0].message.contains("warren keys accept peer"));
        assert!(!judged.changes[0].in_force);
    }
    // The node's own agent puts it right.
    assert_eq!(scene.judge(&[(1, 1)]), Judged::default());
}

#[test]
fn an_accepted_key_is_taken_and_held_to_from_then_on() {
    for pinning in [Pinning::None, Pinning::Strict] {
        let mut scene = Scene::new(pinning);
        scene.judge(&[(1, 1)]);
        scene.judge(&[(1, 6)]);
        scene.keys.accepted = BTreeSet::from([key(6)]);
        assert_eq!(scene.judge(&[(1, 6)]), Judged::default());
        // The list need not name it for ever.
        scene.keys.accepted.clear();
        assert_eq!(scene.judge(&[(1, 6)]), Judged::default());
        assert_eq!(scene.judge(&[(1, 1)]).changes.len(), 1);
    }
}

#[test]
fn no_epoch_is_a_way_around_a_pinned_key() {
    // One that is over.
    let mut scene = Scene::new(Pinning::Strict).in_epoch(5);
    scene.judge(&[(5, 1)]);
    assert_eq!(held(&scene.judge(&[(3, 6)])), Some(&says(&[(5, 1)])));
    assert_eq!(held(&scene.judge(&[(4, 6), (5, 1)])), Some(&says(&[(5, 1)])));
    // One that has not been asked for: nobody uses it, and it is not held to once it is.
    assert_eq!(scene.judge(&[(5, 1), (6, 6)]), Judged::default());
    scene.keys.epoch = epoch(6);
    assert_eq!(scene.judge(&[(5, 1), (6, 2)]), Judged::default());
    assert_eq!(
        held(&scene.judge(&[(5, 1), (6, 6)])),
        Some(&says(&[(5, 1), (6, 2)]))
    );
    // One whose rotation is about others.
    scene.keys.epoch = epoch(7);
    scene.keys.nodes = vec!["another".to_owned()];
    assert_eq!(
        held(&scene.judge(&[(6, 2), (7, 6)])),
        Some(&says(&[(5, 1), (6, 2)]))
    );
    assert_eq!(scene.judge(&[(6, 2), (7, 2)]), Judged::default());
}

#[test]
fn a_revoked_key_is_nobodys_and_the_next_one_is_taken() {
    for pinning in [Pinning::None, Pinning::Strict] {
        let mut scene = Scene::new(pinning);
        scene.judge(&[(1, 1)]);
        scene.keys.revoked = BTreeSet::from([key(1)]);
        let judged = scene.judge(&[(1, 1)]);
        assert_eq!(held(&judged), None, "nothing is left");
        assert_eq!(judged.refusals[0].code, "revoked-key");
        assert_eq!(scene.judge(&[(1, 2)]), Judged::default());
        assert_eq!(scene.judge(&[(1, 6)]).changes.len(), 1);
        // In the midst of a rotation the other key counts.
        scene.keys.epoch = epoch(2);
        let judged = scene.judge(&[(1, 1), (2, 3)]);
        assert_eq!(held(&judged).unwrap().keys, says(&[(2, 3)]).keys);
    }
}

#[test]
fn a_pinned_key_that_is_revoked_is_not_in_force_any_more() {
    let mut scene = Scene::new(Pinning::Strict);
    scene.judge(&[(1, 1)]);
    assert_eq!(held(&scene.judge(&[(1, 6)])), Some(&says(&[(1, 1)])));
    scene.keys.revoked = BTreeSet::from([key(1)]);
    assert_eq!(scene.judge(&[(1, 6)]), Judged::default(), "the next one is taken");
}

#[test]
fn a_node_that_was_made_anew_is_another_and_one_that_is_gone_is_forgotten() {
    let mut scene = Scene::new(Pinning::Strict);
    scene.judge(&[(1, 1)]);
    scene.uid = "u2".to_owned();
    assert_eq!(scene.judge(&[(1, 6)]), Judged::default());
    scene
        .trust
        .judge(&BTreeMap::new(), &OWN.parse().unwrap(), &scene.keys.clone());
    assert_eq!(scene.trust, Trust::default());
}
