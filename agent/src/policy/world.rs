//! What policies are compiled against here: the cluster as the watches show it, with this node's pods as they are attached.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::IpAddr;
use std::sync::Arc;

use warren_cluster::Snapshot;
use warren_cluster::policy::{PolicyObjects, PolicySnapshot};
use warren_ipam::Owner;
use warren_model::{NodeName, PodName};
use warren_policy::{Cluster, Labels, Pod, Since};

/// The cluster as policy sees it, kept from one time to the next so that what has not changed need not be made again.
#[derive(Debug)]
pub(super) struct World {
    node: NodeName,
    cluster: Cluster,
    objects: Arc<PolicyObjects>,
}

/// An attachment: whose it is, `namespace/name` where that is known, and its addresses.
pub(super) type Attached = (Owner, Option<String>, Vec<IpAddr>);

impl World {
    /// An empty one, seen from a node.
    pub(super) fn new(node: NodeName) -> Self {
        Self {
            node,
            cluster: Cluster::default(),
            objects: Arc::default(),
        }
    }

    /// The cluster as of the last update.
    pub(super) fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Brings it up to date. `own` are the node's own addresses.
    pub(super) fn update(
        &mut self,
        policy: &PolicySnapshot,
        mesh: &Snapshot,
        attached: &[Attached],
        own: &[IpAddr],
    ) {
        self.cluster.pods.clone_from(&policy.pods);
        self.attach(attached);
        if !Arc::ptr_eq(&self.objects, &policy.objects) {
            self.objects = Arc::clone(&policy.objects);
            self.cluster.namespaces.clone_from(&self.objects.namespaces);
            self.cluster.network_sets.clone_from(&self.objects.network_sets);
            self.cluster
                .host_endpoints
                .clone_from(&self.objects.host_endpoints);
        }
        let nodes = mesh.nodes.values();
        self.cluster.nodes = nodes
            .map(|it| (it.name.clone(), it.internal_ips.clone()))
            .collect();
        let here = self.cluster.nodes.entry(self.node.clone()).or_default();
        for address in own {
            if !address.is_loopback() && !here.contains(address) {
                here.push(*address);
            }
        }
    }

    /// Gives this node's pods the addresses of their attachments, whatever the API says: it says so later. An attachment that is no
    /// pod's of Kubernetes is a pod without labels, in no namespace that there is.
    fn attach(&mut self, attached: &[Attached]) {
        let here = self.cluster.pods.iter_mut();
        let here = here.filter(|pod| pod.node.as_ref() == Some(&self.node));
        let here = here.map(Arc::make_mut);
        let mut by_name: BTreeMap<String, &mut Pod> = BTreeMap::new();
        let mut by_address: BTreeMap<IpAddr, (Since, String)> = BTreeMap::new();
        for pod in here {
            let name = pod.name.to_string();
            for address in std::mem::take(&mut pod.addresses) {
                let claim = (pod.since, name.clone());
                // Of two with the same address the older is gone, and only its object is not.
                match by_address.entry(address) {
                    Entry::Occupied(mut known) if *known.get() < claim => drop(known.insert(claim)),
                    Entry::Occupied(_) => {}
                    Entry::Vacant(free) => drop(free.insert(claim)),
                }
            }
            by_name.insert(name, pod);
        }
        let mut others = Vec::new();
        for (owner, name, addresses) in attached {
            // A record that was made anew from its veth does not say whose it is.
            let found = || {
                let of_address = addresses.iter().find_map(|address| by_address.get(address));
                of_address.map(|(_, name)| name)
            };
            match name.as_ref().or_else(found) {
                Some(name) => {
                    // Without an object its veth stays closed.
                    if let Some(pod) = by_name.get_mut(name) {
                        pod.addresses.extend(addresses);
                        pod.since = Since::Attached;
                    }
                }
                None => others.push(self::unnamed(owner, addresses, &self.node)),
            }
        }
        self.cluster.pods.extend(others.into_iter().map(Arc::new));
    }
}

fn unnamed(owner: &Owner, addresses: &[IpAddr], node: &NodeName) -> Pod {
    Pod {
        name: PodName {
            namespace: String::new(),
            name: owner.to_string(),
        },
        uid: String::new(),
        labels: Labels::default(),
        addresses: addresses.to_vec(),
        ports: Vec::new(),
        host_network: false,
        finished: false,
        node: Some(node.clone()),
        since: Since::Attached,
    }
}

#[cfg(test)]
#[path = "world_tests.rs"]
mod tests;
