//! What the watches have shown of policy, and the snapshot made of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use warren_model::Refusal;
use warren_policy::{HostEndpoint, Invalid, Namespace, NetworkSet, Pod, Policy};

use super::decode::ReadPolicy;
use crate::contents::Contents;
use crate::decode::Decoded;

/// Everything that policies are compiled from, as the API has it at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PolicySnapshot {
    /// All pods of the cluster, by namespace and name.
    pub pods: Vec<Arc<Pod>>,
    /// All else. The same allocation for as long as nothing of it changes.
    pub objects: Arc<PolicyObjects>,
    /// Whether each kind has been listed at least once. Before that, what is not here may well exist.
    pub synced: bool,
}

/// Policies and what they are about, but for the pods.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PolicyObjects {
    /// Policies of all kinds that can be honoured.
    pub policies: Vec<Policy>,
    /// Those that cannot.
    pub invalid: Vec<Invalid>,
    /// All namespaces.
    pub namespaces: Vec<Namespace>,
    /// NetworkSets and GlobalNetworkSets.
    pub network_sets: Vec<NetworkSet>,
    /// Host endpoints.
    pub host_endpoints: Vec<HostEndpoint>,
}

/// An object as it was read, and its `metadata.uid`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct WithUid<T> {
    /// `metadata.uid`.
    pub(crate) uid: String,
    /// What was read.
    pub(crate) read: T,
}

/// All that the watches have shown of policy.
#[derive(Debug, Default)]
pub(crate) struct WatchedPolicy {
    pub(crate) pods: Contents<Arc<Pod>>,
    pub(crate) namespaces: Contents<Namespace>,
    pub(crate) kubernetes: Contents<WithUid<ReadPolicy>>,
    pub(crate) warren: Contents<WithUid<ReadPolicy>>,
    pub(crate) global: Contents<WithUid<ReadPolicy>>,
    pub(crate) sets: Contents<WithUid<Decoded<NetworkSet>>>,
    pub(crate) global_sets: Contents<WithUid<Decoded<NetworkSet>>>,
    pub(crate) host_endpoints: Contents<WithUid<Decoded<HostEndpoint>>>,
    objects: Arc<PolicyObjects>,
    refused: Refused,
}

/// What is refused of policies, sets and host endpoints.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Refused {
    pub(crate) refusals: Vec<Refusal>,
    /// The uids of the objects, by what refusals call them.
    pub(crate) uids: BTreeMap<String, String>,
}

impl WatchedPolicy {
    /// What is refused, as of the last [`Self::gather`].
    pub(crate) fn refused(&self) -> &Refused {
        &self.refused
    }

    /// Puts all but the pods together anew, after some of it has changed. Tells whether other things are refused than before.
    pub(crate) fn gather(&mut self) -> bool {
        let mut objects = PolicyObjects {
            namespaces: self.namespaces.current().values().cloned().collect(),
            ..PolicyObjects::default()
        };
        let mut refused = Refused::default();
        for contents in [&self.global, &self.warren, &self.kubernetes] {
            for WithUid { uid, read } in contents.current().values() {
                match read {
                    Ok(policy) => objects.policies.push(policy.clone()),
                    Err(invalid) => {
                        refused.add(uid, [invalid.refusal()]);
                        objects.invalid.push((**invalid).clone());
                    }
                }
            }
        }
        for contents in [&self.global_sets, &self.sets] {
            for WithUid { uid, read } in contents.current().values() {
                objects.network_sets.extend(read.value.clone());
                refused.add(uid, read.refusals.iter().cloned());
            }
        }
        for WithUid { uid, read } in self.host_endpoints.current().values() {
            objects.host_endpoints.extend(read.value.clone());
            refused.add(uid, read.refusals.iter().cloned());
        }
        self.objects = Arc::new(objects);
        let differs = self.refused != refused;
        self.refused = refused;
        differs
    }

    pub(crate) fn snapshot(&self) -> PolicySnapshot {
        PolicySnapshot {
            pods: self.pods.current().values().cloned().collect(),
            objects: Arc::clone(&self.objects),
            synced: self.is_synced(),
        }
    }

    fn is_synced(&self) -> bool {
        self.pods.is_synced()
            && self.namespaces.is_synced()
            && self.kubernetes.is_synced()
            && self.warren.is_synced()
            && self.global.is_synced()
            && self.sets.is_synced()
            && self.global_sets.is_synced()
            && self.host_endpoints.is_synced()
    }
}

impl Refused {
    fn add(&mut self, uid: &str, refusals: impl IntoIterator<Item = Refusal>) {
        for refusal in refusals {
            self.uids.insert(refusal.object.clone(), uid.to_owned());
            self.refusals.push(refusal);
        }
    }
}

#[cfg(test)]
#[path = "watched_tests.rs"]
mod tests;
