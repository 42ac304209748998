//! Which of the keys that other nodes publish are believed.
//!
//! A key belongs to a node and an epoch, and within an epoch it stays. So what is published is held against what was published
//! before: a rotation brings the key of a new epoch, and every other change has not been asked for by anybody. It is reported;
//! with `spec.keys.pinning: strict` it also waits for an operator, and until then what the node said before counts, all of it.
//!
//! | a key of a node that is | is |
//! |---|---|
//! | in `spec.keys.revoked` | nobody's: taken out of what the node says |
//! | in `spec.keys.accepted` | taken |
//! | of an epoch that the Mesh has not asked for | left alone: nobody sends by it, and it counts once the epoch does |
//! | of an epoch that the node had another key in | a change |
//! | of an epoch before those that the node had keys in | a change |
//! | of the Mesh's epoch, another than before, where the rotation to it does not name the node | a change |
//! | anything else: a new node's, or a new epoch's | taken, and held to from then on |
//!
//! A revocation is an operator's word that the key changes: what such a node publishes next is taken. A Node that was deleted and
//! made anew is another node. Nothing is kept of the own node.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use warren_model::announcement::MAX_KEYS;
use warren_model::mesh::{Keys, Pinning};
use warren_model::status::KeyChange;
use warren_model::{Announcement, Epoch, Node, NodeName, PublicKey, Refusal};

/// The code of a refusal of a key that waits for an operator.
pub const NOT_ACCEPTED: &str = "key-not-accepted";

/// The code of a notice of a key that changed outside a rotation and was taken.
pub const CHANGED: &str = "key-changed";

/// What is known of the keys of other nodes. It must survive a restart: what is forgotten is learnt anew from whatever is published
/// then.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Trust {
    nodes: BTreeMap<NodeName, Known>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    /// Of the Node.
    uid: String,
    /// Of the two newest epochs that it had a key in.
    keys: BTreeMap<Epoch, PublicKey>,
    /// What it published last that is believed: the annotation, without its progress.
    said: String,
    /// Changes that were taken and that no operator has accepted: the key before, and the one after.
    changed: BTreeMap<Epoch, (PublicKey, PublicKey)>,
}

/// What is to be made of what nodes publish.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Judged {
    /// What counts instead of what these nodes publish; `None`: nothing.
    pub instead: BTreeMap<NodeName, Option<Announcement>>,
    /// What is not acted on, and why.
    pub refusals: Vec<Refusal>,
    /// The changes that no operator has accepted.
    pub changes: Vec<KeyChange>,
}

impl Trust {
    /// Judges what all nodes publish, and learns what is new. `nodes`: all there are.
    pub fn judge(&mut self, nodes: &BTreeMap<NodeName, Node>, own: &NodeName, keys: &Keys) -> Judged {
        self.nodes.retain(|name, _| nodes.contains_key(name));
        let mut judged = Judged::default();
        for (name, node) in nodes.iter().filter(|(name, _)| *name != own) {
            // What cannot be read says nothing about keys, and is refused elsewhere.
            let Some(Ok(says)) = &node.announcement else {
                continue;
            };
            let known = self.nodes.entry(name.clone()).or_insert_with(|| Known::new(node));
            if known.uid != node.uid {
                *known = Known::new(node);
            }
            let counts = known.judge(name, says, keys, &mut judged);
            if counts.as_ref() != Some(says) {
                judged.instead.insert(name.clone(), counts);
            }
        }
        judged
    }
}

impl Known {
    fn new(node: &Node) -> Self {
        Self {
            uid: node.uid.clone(),
            keys: BTreeMap::new(),
            said: String::new(),
            changed: BTreeMap::new(),
        }
    }

    /// What counts of what the node says.
    fn judge(
        &mut self,
        name: &NodeName,
        says: &Announcement,
        keys: &Keys,
        judged: &mut Judged,
    ) -> Option<Announcement> {
        self.keys.retain(|_, key| !keys.revoked.contains(key));
        let offered = says.with_keys(|key| !keys.revoked.contains(&key.public_key));
        if offered.as_ref() != Some(says) {
            judged.refusals.push(Refusal::new(
                format!("Node/{name}"),
                "revoked-key",
                "publishes a key that spec.keys.revoked of the Mesh names, which is not used: its agent makes a new one; if it \
                 does not, see that it runs",
            ));
        }
        let offered = offered?;
        let changes = self.changes(name, &offered, keys);
        let counts = if changes.is_empty() {
            self.learn(&offered, keys);
            Some(offered)
        } else if keys.pinning == Pinning::None {
            for change in &changes {
                self.changed.insert(change.epoch, (change.before, change.now));
            }
            self.learn(&offered, keys);
            Some(offered)
        } else {
            judged.refusals.extend(changes.iter().map(not_accepted));
            judged.changes.extend(changes);
            let before = Announcement::parse(&self.said).ok();
            before.and_then(|before| before.with_keys(|key| !keys.revoked.contains(&key.public_key)))
        };
        let known = &self.keys;
        self.changed
            .retain(|epoch, _| known.get(epoch).is_some_and(|now| !keys.accepted.contains(now)));
        let taken = self.changed.iter().map(|(epoch, (before, now))| KeyChange {
            node: name.clone(),
            epoch: *epoch,
            before: *before,
            now: *now,
            in_force: true,
        });
        judged.changes.extend(taken);
        counts
    }

    /// The keys that nobody asked the node to change.
    fn changes(&self, name: &NodeName, offered: &Announcement, keys: &Keys) -> Vec<KeyChange> {
        let newest = self.keys.last_key_value();
        let is_named = keys.nodes.is_empty() || keys.nodes.iter().any(|named| named == name.as_str());
        let expected = |epoch: Epoch| match (self.keys.get(&epoch), newest) {
            (Some(key), _) => Some(*key),
            (None, Some((known, key))) if epoch < *known || (epoch == keys.epoch && !is_named) => Some(*key),
            (None, _) => None,
        };
        let asked_for = offered.keys.iter().filter(|key| key.epoch <= keys.epoch);
        asked_for
            .filter(|key| !keys.accepted.contains(&key.public_key))
            .filter_map(|key| {
                let before = expected(key.epoch).filter(|before| *before != key.public_key)?;
                Some(KeyChange {
                    node: name.clone(),
                    epoch: key.epoch,
                    before,
                    now: key.public_key,
                    in_force: false,
                })
            })
            .collect()
    }

    fn learn(&mut self, offered: &Announcement, keys: &Keys) {
        let asked_for = offered.keys.iter().filter(|key| key.epoch <= keys.epoch);
        self.keys.extend(asked_for.map(|key| (key.epoch, key.public_key)));
        while self.keys.len() > MAX_KEYS {
            self.keys.pop_first();
        }
        // How far a node has come is not what it is held to, and would have this written for each change of the Mesh.
        self.said = offered.clone().without_progress().to_json();
    }
}

fn not_accepted(change: &KeyChange) -> Refusal {
    let KeyChange {
        node,
        epoch,
        before,
        now,
        ..
    } = change;
    Refusal::new(
        format!("Node/{node}"),
        NOT_ACCEPTED,
        format!(
            "its key of epoch {epoch} changed from {before} to {now} outside a rotation, and what it published before stays in \
             force: find out who changed it; if it was to be, `warren keys accept {node}`"
        ),
    )
}

/// What people are told of a change that was taken.
pub fn notice(change: &KeyChange) -> Refusal {
    let KeyChange {
        node,
        epoch,
        before,
        now,
        ..
    } = change;
    Refusal::new(
        format!("Node/{node}"),
        CHANGED,
        format!(
            "its key of epoch {epoch} changed from {before} to {now} outside a rotation, and was taken: find out who changed it; if \
             it was not to be, `warren keys revoke {node}`; with spec.keys.pinning: strict such a change waits for an operator"
        ),
    )
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests;
