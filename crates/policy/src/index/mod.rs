//! Finds what queries select, without asking each thing for each query.

mod member;
mod update;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use warren_model::PodName;

use crate::labels::Labels;
use crate::query::{Query, Scope};
use crate::selector::Selector;

pub(crate) use member::{Member, What};
pub(crate) use update::Touched;

/// Position of a member in an [`Index`]; it keeps it for as long as it is there.
pub(crate) type Id = u32;

/// Members by label, by namespace and by address. Lists of members are in ascending order.
#[derive(Default)]
pub(crate) struct Index {
    members: Vec<Option<Member>>,
    /// Positions that nobody has.
    free: Vec<Id>,
    pods: BTreeMap<PodName, Id>,
    /// Network sets and host endpoints, by their positions in the cluster.
    sets: Vec<Id>,
    hosts: Vec<Id>,
    by_label: BTreeMap<String, ByValue>,
    by_namespace: BTreeMap<String, Vec<Id>>,
    /// Who claims an address.
    by_address: BTreeSet<(IpAddr, Id)>,
    /// Labels of the namespaces that the cluster names.
    namespaces: BTreeMap<String, Labels>,
}

#[derive(Default)]
struct ByValue {
    any: Vec<Id>,
    values: BTreeMap<String, Vec<Id>>,
}

impl Index {
    /// All members, in the order of their ids.
    pub(crate) fn members(&self) -> impl Iterator<Item = (Id, &Member)> {
        let members = self.members.iter().enumerate();
        members.filter_map(|(id, member)| Some((id as Id, member.as_ref()?)))
    }

    /// All ids are below this.
    pub(crate) fn end(&self) -> usize {
        self.members.len()
    }

    /// The one with this id, if there is one.
    pub(crate) fn member(&self, id: Id) -> Option<&Member> {
        self.members.get(id as usize)?.as_ref()
    }

    /// Who has an address.
    pub(crate) fn at(&self, address: IpAddr) -> impl Iterator<Item = &Member> {
        let claimants = self.claimants(address).map(|(_, member)| member);
        claimants.filter(move |member| member.addresses.contains(&address))
    }

    /// Who claims an address.
    fn claimants(&self, address: IpAddr) -> impl Iterator<Item = (Id, &Member)> {
        let there = self.by_address.range((address, 0)..=(address, Id::MAX));
        there.filter_map(|(_, id)| Some((*id, self.member(*id)?)))
    }

    /// What a query selects.
    pub(crate) fn select(&self, query: &Query) -> Vec<Id> {
        let mut candidates = self.candidates(&query.selector);
        if let Scope::Namespace(name) = &query.scope {
            let inside = self.by_namespace.get(name).map_or(&[][..], Vec::as_slice);
            if candidates.as_ref().is_none_or(|ids| inside.len() < ids.len()) {
                candidates = Some(inside.to_vec());
            }
        }
        let everything = || (0..self.members.len() as Id).collect();
        let mut ids = candidates.unwrap_or_else(everything);
        let namespaces = match &query.scope {
            Scope::Everywhere | Scope::Namespace(_) => None,
            Scope::Namespaces(selector) => Some(self.selected_namespaces(selector)),
        };
        ids.retain(|id| {
            self.member(*id).is_some_and(|member| {
                let in_scope = match (&query.scope, &namespaces) {
                    (Scope::Namespace(wanted), _) => member.namespace() == Some(wanted),
                    (_, Some(namespaces)) => namespaces.contains(&member.namespace()),
                    (Scope::Everywhere | Scope::Namespaces(_), None) => true,
                };
                in_scope && member.suits(query)
            })
        });
        ids
    }

    /// Whether a query selects a member, one that is or was here.
    pub(crate) fn selects(&self, query: &Query, member: &Member) -> bool {
        let in_scope = || match &query.scope {
            Scope::Everywhere => true,
            Scope::Namespace(wanted) => member.namespace() == Some(wanted),
            Scope::Namespaces(selector) => match member.namespace() {
                Some(name) => self.with_namespace(name, |labels| selector.matches_namespace(Some(labels))),
                None => selector.matches_namespace(None),
            },
        };
        member.suits(query) && in_scope()
    }

    /// The namespaces with matching labels that anything is in; `None` among them stands for what is in no namespace.
    fn selected_namespaces(&self, selector: &Selector) -> BTreeSet<Option<&str>> {
        let names = self.by_namespace.keys().map(String::as_str);
        let selected =
            names.filter(|name| self.with_namespace(name, |labels| selector.matches_namespace(Some(labels))));
        let nowhere = selector.matches_namespace(None).then_some(None);
        selected.map(Some).chain(nowhere).collect()
    }

    /// Asks something of a namespace's labels. One that the cluster does not name has none of its own.
    fn with_namespace<T>(&self, name: &str, ask: impl FnOnce(&Labels) -> T) -> T {
        match self.namespaces.get(name) {
            Some(labels) => ask(labels),
            None => ask(&namespace_labels(name, Labels::default())),
        }
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
mod tests;
