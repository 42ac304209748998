//! Finds what queries select, without asking each thing for each query.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::cluster::{Cluster, HostEndpoint, Pod};
use crate::labels::Labels;
use crate::query::{Members, Query, Scope};
use crate::selector::Selector;

/// Position of a member in an [`Index`].
pub(crate) type Id = u32;

/// One thing that selectors can find.
pub(crate) struct Member<'a> {
    pub(crate) what: What<'a>,
    namespace: Option<&'a str>,
    labels: Labels,
    /// Its addresses.
    pub(crate) addresses: &'a [IpAddr],
    /// Its networks.
    pub(crate) nets: &'a [IpNet],
}

/// Of what kind.
#[derive(Clone, Copy)]
pub(crate) enum What<'a> {
    Pod(&'a Pod),
    Host(&'a HostEndpoint),
    Set,
}

impl What<'_> {
    fn is_among(self, members: Members) -> bool {
        match members {
            Members::Pods => matches!(self, Self::Pod(_)),
            Members::Endpoints => !matches!(self, Self::Set),
            Members::All => true,
        }
    }
}

/// Members by label and by namespace. Lists of members are in ascending order.
pub(crate) struct Index<'a> {
    members: Vec<Member<'a>>,
    by_label: BTreeMap<String, ByValue>,
    by_namespace: BTreeMap<&'a str, Vec<Id>>,
    namespaces: BTreeMap<&'a str, Labels>,
}

#[derive(Default)]
struct ByValue {
    any: Vec<Id>,
    values: BTreeMap<String, Vec<Id>>,
}

impl<'a> Index<'a> {
    /// Of all pods that policy speaks of, network sets and host endpoints.
    pub(crate) fn new(cluster: &'a Cluster) -> Self {
        let mut index = Self {
            members: Vec::new(),
            by_label: BTreeMap::new(),
            by_namespace: BTreeMap::new(),
            namespaces: BTreeMap::new(),
        };
        for namespace in &cluster.namespaces {
            let labels = namespace_labels(&namespace.name, namespace.labels.clone());
            index.namespaces.insert(&namespace.name, labels);
        }
        for pod in cluster.pods.iter().filter(|pod| pod.is_subject()) {
            let mut labels = pod.labels.clone();
            labels.set("projectcalico.org/orchestrator", "k8s");
            index.add(Member {
                what: What::Pod(pod),
                namespace: Some(&pod.name.namespace),
                labels,
                addresses: &pod.addresses,
                nets: &[],
            });
        }
        for set in &cluster.network_sets {
            index.add(Member {
                what: What::Set,
                namespace: set.namespace.as_deref(),
                labels: set.labels.clone(),
                addresses: &[],
                nets: &set.nets,
            });
        }
        for host in &cluster.host_endpoints {
            index.add(Member {
                what: What::Host(host),
                namespace: None,
                labels: host.labels.clone(),
                addresses: host.addresses(&cluster.nodes),
                nets: &[],
            });
        }
        index
    }

    fn add(&mut self, mut member: Member<'a>) {
        let id = self.members.len() as Id;
        if let Some(namespace) = member.namespace {
            member.labels.set("projectcalico.org/namespace", namespace);
            self.by_namespace.entry(namespace).or_default().push(id);
            self.namespaces
                .entry(namespace)
                .or_insert_with(|| namespace_labels(namespace, Labels::default()));
        }
        for (key, value) in member.labels.iter() {
            // Looked up first: almost every label has been seen, and need not be copied.
            if !self.by_label.contains_key(key) {
                self.by_label.insert(key.to_owned(), ByValue::default());
            }
            if let Some(by_value) = self.by_label.get_mut(key) {
                by_value.any.push(id);
                match by_value.values.get_mut(value) {
                    Some(ids) => ids.push(id),
                    None => {
                        by_value.values.insert(value.to_owned(), vec![id]);
                    }
                }
            }
        }
        self.members.push(member);
    }

    /// All members, in the order of their ids.
    pub(crate) fn members(&self) -> &[Member<'a>] {
        &self.members
    }

    /// What a query selects.
    pub(crate) fn select(&self, query: &Query) -> Vec<Id> {
        let labelled = self.candidates(&query.selector);
        match &query.scope {
            Scope::Everywhere => self.filter(labelled, query, |_| true),
            Scope::Namespace(wanted) => {
                let inside = self
                    .by_namespace
                    .get(wanted.as_str())
                    .map_or(&[][..], Vec::as_slice);
                let fewer = match labelled {
                    Some(ids) if ids.len() < inside.len() => ids,
                    _ => inside.to_vec(),
                };
                self.filter(Some(fewer), query, |namespace| namespace == Some(wanted))
            }
            Scope::Namespaces(selector) => {
                let selected: BTreeSet<&str> = self
                    .namespaces
                    .iter()
                    .filter(|(_, labels)| selector.matches_namespace(Some(labels)))
                    .map(|(name, _)| *name)
                    .collect();
                let outside = selector.matches_namespace(None);
                self.filter(labelled, query, |namespace| match namespace {
                    Some(name) => selected.contains(name),
                    None => outside,
                })
            }
        }
    }

    fn filter(
        &self,
        candidates: Option<Vec<Id>>,
        query: &Query,
        in_scope: impl Fn(Option<&str>) -> bool,
    ) -> Vec<Id> {
        let mut ids = candidates.unwrap_or_else(|| (0..self.members.len() as Id).collect());
        ids.retain(|id| {
            let member = &self.members[*id as usize];
            member.what.is_among(query.members)
                && in_scope(member.namespace)
                && query.selector.matches(&member.labels)
        });
        ids
    }

    /// Members that a selector may select, as few as the labels tell; `None`: any.
    fn candidates(&self, selector: &Selector) -> Option<Vec<Id>> {
        let with_label = |key: &str| {
            let by_value = self.by_label.get(key);
            by_value.map(|by_value| by_value.any.clone()).unwrap_or_default()
        };
        let with_value = |key: &str, value: &str| {
            let by_value = self.by_label.get(key);
            let ids = by_value.and_then(|by_value| by_value.values.get(value));
            ids.cloned().unwrap_or_default()
        };
        match selector {
            Selector::All | Selector::Global | Selector::Not(_) => None,
            Selector::Has(key)
            | Selector::Contains(key, _)
            | Selector::StartsWith(key, _)
            | Selector::EndsWith(key, _) => Some(with_label(key)),
            Selector::Equals(key, value) => Some(with_value(key, value)),
            Selector::In(key, values) => Some(merged(values.iter().map(|value| with_value(key, value)))),
            Selector::And(parts) => parts
                .iter()
                .filter_map(|part| self.candidates(part))
                .min_by_key(Vec::len),
            Selector::Or(parts) => {
                let each: Option<Vec<_>> = parts.iter().map(|part| self.candidates(part)).collect();
                each.map(|each| merged(each.into_iter()))
            }
        }
    }
}

/// A namespace's own labels, and those by which policies name it: Kubernetes's and Calico's.
fn namespace_labels(name: &str, mut labels: Labels) -> Labels {
    labels.set("kubernetes.io/metadata.name", name);
    labels.set("projectcalico.org/name", name);
    labels
}

fn merged(lists: impl Iterator<Item = Vec<Id>>) -> Vec<Id> {
    let all: BTreeSet<Id> = lists.flatten().collect();
    all.into_iter().collect()
}
