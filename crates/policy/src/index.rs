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
        // By address, so that addresses of members in their order need hardly any sorting.
        let mut pods: Vec<&Pod> = cluster.pods.iter().filter(|pod| pod.is_subject()).collect();
        pods.sort_by(|a, b| a.addresses.cmp(&b.addresses));
        for pod in pods {
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
        let mut candidates = self.candidates(&query.selector);
        if let Scope::Namespace(name) = &query.scope {
            let inside = self
                .by_namespace
                .get(name.as_str())
                .map_or(&[][..], Vec::as_slice);
            if candidates.as_ref().is_none_or(|ids| inside.len() < ids.len()) {
                candidates = Some(inside.to_vec());
            }
        }
        let everything = || (0..self.members.len() as Id).collect();
        self.select_among(candidates.unwrap_or_else(everything), query)
    }

    /// What a query selects of these.
    pub(crate) fn select_among(&self, mut ids: Vec<Id>, query: &Query) -> Vec<Id> {
        let namespaces = match &query.scope {
            Scope::Everywhere | Scope::Namespace(_) => None,
            Scope::Namespaces(selector) => Some(self.selected_namespaces(selector)),
        };
        ids.retain(|id| {
            let member = &self.members[*id as usize];
            let in_scope = match (&query.scope, &namespaces) {
                (Scope::Namespace(wanted), _) => member.namespace == Some(wanted),
                (_, Some(namespaces)) => namespaces.contains(&member.namespace),
                (Scope::Everywhere | Scope::Namespaces(_), None) => true,
            };
            member.what.is_among(query.members) && in_scope && query.selector.matches(&member.labels)
        });
        ids
    }

    /// The namespaces with matching labels; `None` among them stands for what is in no namespace.
    fn selected_namespaces(&self, selector: &Selector) -> BTreeSet<Option<&str>> {
        let namespaces = self
            .namespaces
            .iter()
            .map(|(name, labels)| (Some(*name), Some(labels)));
        namespaces
            .chain([(None, None)])
            .filter(|(_, labels)| selector.matches_namespace(*labels))
            .map(|(name, _)| name)
            .collect()
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

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_set, vec};
    use proptest::prelude::*;
    use proptest::sample::select;
    use warren_model::PodName;

    use super::*;
    use crate::cluster::{Namespace, NetworkSet};

    const NAMES: [&str; 3] = ["one", "two", "three"];

    fn name() -> impl Strategy<Value = String> {
        select(&NAMES[..]).prop_map(str::to_owned)
    }

    fn labels() -> impl Strategy<Value = Labels> {
        vec((name(), name()), 0..4).prop_map(Labels::from_iter)
    }

    fn selector() -> impl Strategy<Value = Selector> {
        let leaf = prop_oneof![
            Just(Selector::All),
            name().prop_map(Selector::Has),
            (name(), name()).prop_map(|(key, value)| Selector::Equals(key, value)),
            (name(), btree_set(name(), 0..3)).prop_map(|(key, values)| Selector::In(key, values)),
            (name(), select(vec!["o", "t"])).prop_map(|(key, part)| Selector::StartsWith(key, part.into())),
        ];
        leaf.prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                inner.clone().prop_map(|inner| Selector::Not(Box::new(inner))),
                vec(inner.clone(), 2..4).prop_map(Selector::And),
                vec(inner, 2..4).prop_map(Selector::Or),
            ]
        })
    }

    fn scope() -> impl Strategy<Value = Scope> {
        prop_oneof![
            Just(Scope::Everywhere),
            name().prop_map(Scope::Namespace),
            selector().prop_map(Scope::Namespaces),
            Just(Scope::Namespaces(Selector::Global)),
        ]
    }

    fn cluster() -> impl Strategy<Value = Cluster> {
        let pods = vec((name(), labels()), 0..40);
        let sets = vec((proptest::option::of(name()), labels()), 0..10);
        (pods, sets, vec(labels(), 0..3)).prop_map(|(pods, sets, namespaces)| Cluster {
            pods: pods
                .into_iter()
                .enumerate()
                .map(|(index, (namespace, labels))| Pod {
                    name: PodName {
                        namespace,
                        name: format!("pod-{index}"),
                    },
                    labels,
                    addresses: Vec::new(),
                    ports: Vec::new(),
                    host_network: false,
                    finished: false,
                    node: None,
                })
                .collect(),
            network_sets: sets
                .into_iter()
                .map(|(namespace, labels)| NetworkSet {
                    namespace,
                    name: "set".into(),
                    labels,
                    nets: Vec::new(),
                })
                .collect(),
            namespaces: NAMES
                .iter()
                .zip(namespaces)
                .map(|(name, labels)| Namespace {
                    name: (*name).into(),
                    labels,
                })
                .collect(),
            ..Cluster::default()
        })
    }

    proptest! {
        #[test]
        fn what_is_selected_is_what_asking_each_member_selects(
            cluster in cluster(),
            queries in vec((scope(), selector(), select(vec![Members::Pods, Members::All])), 8),
        ) {
            let index = Index::new(&cluster);
            for (scope, selector, members) in queries {
                let query = Query { scope, members, selector };
                let asked = index.members().iter().enumerate().filter(|(_, member)| {
                    let in_scope = match &query.scope {
                        Scope::Everywhere => true,
                        Scope::Namespace(name) => member.namespace == Some(name),
                        Scope::Namespaces(selector) => {
                            selector.matches_namespace(member.namespace.map(|name| &index.namespaces[name]))
                        }
                    };
                    in_scope && member.what.is_among(query.members) && query.selector.matches(&member.labels)
                });
                let asked: Vec<Id> = asked.map(|(id, _)| id as Id).collect();
                prop_assert_eq!(index.select(&query), asked, "{}", query);
            }
        }
    }
}
