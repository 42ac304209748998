//! Which nodes are peers, and which pod CIDRs and keys are accepted of them.
//!
//! A pod CIDR and a public key have one owner each: the older node. The younger one's claim is refused by name.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use warren_model::{AnnouncedKey, Epoch, Node, NodeName, PodCidr, PublicKey, Refusal};

use super::node_object;
use crate::input::{Cluster, Local};
use crate::lane::PeerConfig;
use crate::path_choice::{peer_address, shared_keys};

/// What is left of the cluster after refusing what cannot be.
pub(super) struct Accepted<'a> {
    /// This node's own pod CIDRs.
    pub(super) own_cidrs: Vec<PodCidr>,
    /// All other nodes, by name.
    pub(super) peers: Vec<AcceptedPeer<'a>>,
    /// Every pod CIDR that another node claims, accepted or not.
    pub(super) claimed: BTreeSet<IpNet>,
}

/// A node that is not this one.
pub(crate) struct AcceptedPeer<'a> {
    pub(crate) node: &'a Node,
    /// Its pod CIDRs that no older node has.
    pub(crate) cidrs: Vec<PodCidr>,
    /// Its keys of epochs this node shares, that no older node has.
    pub(crate) keys: Vec<AnnouncedKey>,
}

impl AcceptedPeer<'_> {
    /// Its key and configuration in the lane of that epoch.
    pub(crate) fn in_lane(
        &self,
        epoch: Option<Epoch>,
        own_ips: &[IpAddr],
    ) -> Option<(PublicKey, PeerConfig)> {
        let key = self.keys.iter().find(|key| Some(key.epoch) == epoch)?;
        let address = peer_address(own_ips, self.node)?;
        let allowed_ips = self.cidrs.iter().map(|cidr| cidr.net()).collect();
        Some((
            key.public_key,
            PeerConfig {
                endpoint: SocketAddr::new(address, key.port),
                allowed_ips,
                keepalive: 0,
            },
        ))
    }
}

pub(super) fn accept<'a>(cluster: &'a Cluster, local: &Local, refusals: &mut Vec<Refusal>) -> Accepted<'a> {
    let mut nodes: Vec<&Node> = cluster.nodes.values().collect();
    nodes.sort_by(|a, b| a.seniority().cmp(&b.seniority()));

    let mut owners = Owners::new(local);
    let mut accepted = Accepted {
        own_cidrs: Vec::new(),
        peers: Vec::new(),
        claimed: BTreeSet::new(),
    };
    for node in nodes {
        let cidrs = owners.cidrs_of(node, refusals);
        if node.name == local.node {
            accepted.own_cidrs = cidrs;
            continue;
        }
        accepted
            .claimed
            .extend(node.pod_cidrs.iter().map(|cidr| cidr.net()));
        let keys = owners.keys_of(node, local, refusals);
        accepted.peers.push(AcceptedPeer { node, cidrs, keys });
    }
    accepted.peers.sort_by(|a, b| a.node.name.cmp(&b.node.name));
    accepted
}

/// Who has what, filled from the oldest node on.
struct Owners<'a> {
    /// No two of them overlap.
    cidrs: BTreeMap<PodCidr, &'a NodeName>,
    keys: BTreeMap<PublicKey, &'a NodeName>,
    own_keys: BTreeSet<PublicKey>,
}

impl<'a> Owners<'a> {
    fn new(local: &Local) -> Self {
        let own_keys = local.keys.values().copied().collect();
        Self {
            cidrs: BTreeMap::new(),
            keys: BTreeMap::new(),
            own_keys,
        }
    }

    fn cidrs_of(&mut self, node: &'a Node, refusals: &mut Vec<Refusal>) -> Vec<PodCidr> {
        let mut cidrs = Vec::new();
        for cidr in &node.pod_cidrs {
            match self.overlapping(*cidr) {
                Some((taken, owner)) if owner == &node.name && taken == *cidr => {}
                Some((taken, owner)) => refusals.push(Refusal::new(
                    node_object(&node.name),
                    "overlapping-pod-cidr",
                    format!(
                        "pod CIDR {cidr} overlaps {taken} of the older node {owner} and is not used: \
                         give the node a range of its own"
                    ),
                )),
                None => {
                    self.cidrs.insert(*cidr, &node.name);
                    cidrs.push(*cidr);
                }
            }
        }
        cidrs
    }

    /// A range that is taken already and shares an address with this one. Ranges are ordered by their first address and
    /// those taken do not overlap: of those that begin before this one only the last can reach into it, and of those that
    /// begin within it the first is as good as any.
    fn overlapping(&self, cidr: PodCidr) -> Option<(PodCidr, &'a NodeName)> {
        let before = self.cidrs.range(..=cidr).next_back();
        let after = self.cidrs.range(cidr..).next();
        let found = before.into_iter().chain(after);
        found
            .map(|(taken, owner)| (*taken, *owner))
            .find(|(taken, _)| taken.overlaps(cidr))
    }

    fn keys_of(&mut self, node: &'a Node, local: &Local, refusals: &mut Vec<Refusal>) -> Vec<AnnouncedKey> {
        let object = node_object(&node.name);
        let announcement = match &node.announcement {
            Some(Ok(announcement)) => announcement,
            Some(Err(error)) => {
                let message = format!(
                    "the annotation {} {error}",
                    warren_model::announcement::ANNOTATION
                );
                refusals.push(Refusal::new(object, error.code(), message));
                return Vec::new();
            }
            None => return Vec::new(),
        };
        // All of a node's keys count as taken, those of epochs this node does not share as well.
        let mut refused = BTreeSet::new();
        for key in &announcement.keys {
            let owner = *self.keys.entry(key.public_key).or_insert(&node.name);
            let problem = if self.own_keys.contains(&key.public_key) {
                Some("this node's own".to_owned())
            } else if owner != &node.name {
                Some(format!("that of the older node {owner}"))
            } else {
                None
            };
            if let Some(whose) = problem {
                refused.insert(key.public_key);
                refusals.push(Refusal::new(
                    object.clone(),
                    "duplicate-public-key",
                    format!(
                        "public key {} is {whose} and is not used: delete the node's key files and restart its agent",
                        key.public_key
                    ),
                ));
            }
        }
        shared_keys(local, announcement)
            .filter(|key| !refused.contains(&key.public_key))
            .collect()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_found_taken_by_whatever_shares_an_address_with_it() {
        let older: NodeName = "older".parse().unwrap();
        let taken = ["10.1.4.0/22", "10.2.0.0/24", "10.2.1.0/24", "fd00:1::/64"];
        let owners = Owners {
            cidrs: taken.map(|it| (it.parse().unwrap(), &older)).into(),
            keys: BTreeMap::new(),
            own_keys: BTreeSet::new(),
        };
        let overlapping = |cidr: &str| {
            let found = owners.overlapping(cidr.parse().unwrap());
            found.map(|(taken, _)| taken.net().to_string())
        };
        for (cidr, taken) in [
            ("10.1.4.0/22", "10.1.4.0/22"),
            ("10.1.4.0/24", "10.1.4.0/22"),
            ("10.1.7.0/24", "10.1.4.0/22"),
            ("10.1.0.0/16", "10.1.4.0/22"),
            ("10.2.0.0/23", "10.2.0.0/24"),
            ("10.0.0.0/8", "10.1.4.0/22"),
            ("fd00:1::/80", "fd00:1::/64"),
            ("fd00::/16", "fd00:1::/64"),
        ] {
            assert_eq!(overlapping(cidr).as_deref(), Some(taken), "{cidr}");
        }
        for free in ["10.1.0.0/22", "10.1.8.0/22", "10.2.2.0/24", "fd00:2::/64"] {
            assert_eq!(overlapping(free), None, "{free}");
        }
    }
}
