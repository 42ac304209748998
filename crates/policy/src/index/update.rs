//! How an index follows the cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::net::IpAddr;
use std::sync::Arc;

use crate::cluster::{Cluster, Namespace, Pod};
use crate::labels::Labels;

use super::{ByValue, Id, Index, Member, What, namespace_labels};

/// What has become different in an index.
#[derive(Default)]
pub(crate) struct Touched {
    /// Members that came, went or changed, and what they were.
    pub(crate) members: Vec<(Id, Option<Member>)>,
    /// Labels of namespaces, before and now.
    pub(crate) namespaces: Vec<(Labels, Labels)>,
}

impl Index {
    /// Takes over what a cluster holds now.
    pub(crate) fn update(&mut self, cluster: &Cluster) -> Touched {
        let mut touched = Touched {
            namespaces: self.update_namespaces(&cluster.namespaces),
            ..Touched::default()
        };
        self.update_pods(&cluster.pods, &mut touched);
        self.give_out_addresses(&mut touched);
        let sets = mem::take(&mut self.sets);
        self.sets = self.update_list(&cluster.network_sets, sets, &mut touched, |set, known| {
            let same = matches!(known.map(|it| &it.what), Some(What::Set(known)) if known == set);
            (!same).then(|| Member::set(set))
        });
        let hosts = mem::take(&mut self.hosts);
        self.hosts = self.update_list(&cluster.host_endpoints, hosts, &mut touched, |host, known| {
            let same = known.is_some_and(|known| {
                matches!(&known.what, What::Host(known) if known == host)
                    && known.addresses == host.addresses(&cluster.nodes)
            });
            (!same).then(|| Member::host(host, &cluster.nodes))
        });
        touched
    }

    fn update_namespaces(&mut self, now: &[Namespace]) -> Vec<(Labels, Labels)> {
        let with_names = |it: &Namespace| namespace_labels(&it.name, it.labels.clone());
        let now: BTreeMap<String, Labels> = now.iter().map(|it| (it.name.clone(), with_names(it))).collect();
        let before = mem::replace(&mut self.namespaces, now);
        let of = |all: &BTreeMap<String, Labels>, name: &str| {
            let known = all.get(name).cloned();
            known.unwrap_or_else(|| namespace_labels(name, Labels::default()))
        };
        let gone = before.keys().filter(|name| !self.namespaces.contains_key(*name));
        let different = self
            .namespaces
            .iter()
            .filter(|(name, labels)| before.get(*name) != Some(labels));
        let names = different.map(|(name, _)| name).chain(gone);
        names
            .map(|name| (of(&before, name), of(&self.namespaces, name)))
            .collect()
    }

    /// Pods are told apart by name. Of two with one name, which the API does not have, the last counts.
    fn update_pods(&mut self, pods: &[Arc<Pod>], touched: &mut Touched) {
        let mut seen = vec![false; self.members.len()];
        let mut new = BTreeMap::new();
        for pod in pods.iter().filter(|pod| pod.is_subject()) {
            let Some(id) = self.pods.get(&pod.name).copied() else {
                new.insert(&pod.name, pod);
                continue;
            };
            seen[id as usize] = true;
            let known = self.member(id).map(|member| &member.what);
            // Mostly it is the very same.
            let is_same = |known: &Arc<Pod>| Arc::ptr_eq(known, pod) || known == pod;
            if !matches!(known, Some(What::Pod(known)) if is_same(known)) {
                touched.members.push((id, self.take(id)));
                self.put(id, Member::pod(pod));
            }
        }
        let gone: Vec<Id> = self
            .pods
            .values()
            .copied()
            .filter(|id| !seen[*id as usize])
            .collect();
        for id in gone {
            self.remove(id, touched);
        }
        // By address, so that addresses of members in their order need hardly any sorting.
        let mut new: Vec<&Arc<Pod>> = new.into_values().collect();
        new.sort_by(|a, b| a.addresses.cmp(&b.addresses));
        for pod in new {
            let id = self.add(Member::pod(pod), touched);
            self.pods.insert(pod.name.clone(), id);
        }
    }

    /// Sees to it that each address is had by one pod of those that claim it, by the latest. Asks only for those of pods that have
    /// changed.
    fn give_out_addresses(&mut self, touched: &mut Touched) {
        let changed = touched.members.iter();
        let members = changed.flat_map(|(id, before)| before.iter().chain(self.member(*id)));
        let addresses: BTreeSet<IpAddr> = members.flat_map(|member| member.claimed()).copied().collect();
        for address in addresses {
            let claims = self
                .claimants(address)
                .filter_map(|(id, member)| match &member.what {
                    What::Pod(pod) => Some(((pod.since, &pod.name), id)),
                    What::Host(_) | What::Set(_) => None,
                });
            let mut claims: Vec<_> = claims.collect();
            claims.sort_unstable();
            let ids: Vec<Id> = claims.into_iter().map(|(_, id)| id).collect();
            for id in &ids {
                let held = ids.last() == Some(id);
                let Some(member) = &mut self.members[*id as usize] else {
                    continue;
                };
                if member.addresses.contains(&address) != held {
                    touched.members.push((*id, Some(member.clone())));
                    member.hold(address, held);
                }
            }
        }
    }

    /// Things that are few, by position. `changed` makes a member unless the one there is the same.
    fn update_list<T>(
        &mut self,
        now: &[T],
        mut ids: Vec<Id>,
        touched: &mut Touched,
        changed: impl Fn(&T, Option<&Member>) -> Option<Member>,
    ) -> Vec<Id> {
        for id in ids.drain(now.len().min(ids.len())..) {
            self.remove(id, touched);
        }
        for (position, thing) in now.iter().enumerate() {
            let id = ids.get(position).copied();
            let Some(member) = changed(thing, id.and_then(|id| self.member(id))) else {
                continue;
            };
            match id {
                Some(id) => {
                    touched.members.push((id, self.take(id)));
                    self.put(id, member);
                }
                None => ids.push(self.add(member, touched)),
            }
        }
        ids
    }

    fn add(&mut self, member: Member, touched: &mut Touched) -> Id {
        let id = self.free.pop().unwrap_or_else(|| {
            self.members.push(None);
            (self.members.len() - 1) as Id
        });
        touched.members.push((id, None));
        self.put(id, member);
        id
    }

    fn remove(&mut self, id: Id, touched: &mut Touched) {
        let member = self.take(id);
        if let Some(What::Pod(pod)) = member.as_ref().map(|member| &member.what) {
            self.pods.remove(&pod.name);
        }
        self.free.push(id);
        touched.members.push((id, member));
    }

    /// Puts a member where none is.
    fn put(&mut self, id: Id, member: Member) {
        if let Some(namespace) = member.namespace() {
            listed(&mut self.by_namespace, namespace, id);
        }
        self.by_address
            .extend(member.claimed().iter().map(|address| (*address, id)));
        for (key, value) in member.labels.iter() {
            // Looked up first: almost every label has been seen, and need not be copied.
            if !self.by_label.contains_key(key) {
                self.by_label.insert(key.to_owned(), ByValue::default());
            }
            if let Some(by_value) = self.by_label.get_mut(key) {
                insert(&mut by_value.any, id);
                listed(&mut by_value.values, value, id);
            }
        }
        self.members[id as usize] = Some(member);
    }

    /// Takes a member from its place.
    fn take(&mut self, id: Id) -> Option<Member> {
        let member = self.members[id as usize].take()?;
        if let Some(namespace) = member.namespace() {
            unlisted(&mut self.by_namespace, namespace, id);
        }
        for address in member.claimed() {
            self.by_address.remove(&(*address, id));
        }
        for (key, value) in member.labels.iter() {
            if let Some(by_value) = self.by_label.get_mut(key) {
                remove(&mut by_value.any, id);
                unlisted(&mut by_value.values, value, id);
                if by_value.any.is_empty() {
                    self.by_label.remove(key);
                }
            }
        }
        Some(member)
    }
}

fn listed(lists: &mut BTreeMap<String, Vec<Id>>, key: &str, id: Id) {
    match lists.get_mut(key) {
        Some(ids) => insert(ids, id),
        None => {
            lists.insert(key.to_owned(), vec![id]);
        }
    }
}

fn unlisted(lists: &mut BTreeMap<String, Vec<Id>>, key: &str, id: Id) {
    if let Some(ids) = lists.get_mut(key) {
        remove(ids, id);
        if ids.is_empty() {
            lists.remove(key);
        }
    }
}

fn insert(ids: &mut Vec<Id>, id: Id) {
    if let Err(position) = ids.binary_search(&id) {
        ids.insert(position, id);
    }
}

fn remove(ids: &mut Vec<Id>, id: Id) {
    if let Ok(position) = ids.binary_search(&id) {
        ids.remove(position);
    }
}
