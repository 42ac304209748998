//! What selectors have found, kept from one compilation to the next and brought up to date by what has changed since.

mod made;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use warren_model::fnv::fnv1a;

use crate::index::{Id, Index, Member, Touched};
use crate::protocol::Protocol;
use crate::query::{Query, Scope};
use crate::reach::{Reach, is_in_reach};
use crate::ruleset::{AddressSet, PortSet, PortSetId, SetId};

/// How many members' changes are followed one by one. Each is asked of every query; of more it takes less to begin anew, with the
/// index's lists of who has a label.
const FOLLOWED: usize = 128;

/// Subjects of policies, and the sets that rules ask for, each once for all whose selectors are equal.
///
/// They are told apart by what they hold and not by a hash of it, which somebody who may write policies could make collide.
#[derive(Default)]
pub(crate) struct Cache {
    subjects: BTreeMap<Query, Subjects>,
    sets: BTreeMap<Query, Numbered<AddressSet>>,
    port_sets: BTreeMap<(Protocol, String), Numbered<PortSet>>,
    /// How many sets have been asked for, of both sorts.
    asked: [usize; 2],
}

struct Subjects {
    ids: Vec<Id>,
    /// Whether this compilation has asked for them.
    asked: bool,
}

struct Numbered<S> {
    set: Arc<S>,
    /// A hash of what it holds.
    hash: u64,
    /// Its position, once this compilation has asked for it.
    number: Option<usize>,
}

impl Cache {
    /// Brings everything up to date. What it takes is in proportion to what has changed.
    pub(crate) fn update(&mut self, index: &Index, reach: &Reach, touched: &Touched) {
        if touched.members.len() > FOLLOWED {
            *self = Self::default();
            return;
        }
        let stands = |query: &Query| match &query.scope {
            Scope::Everywhere | Scope::Namespace(_) => true,
            Scope::Namespaces(selector) => touched.namespaces.iter().all(|(before, now)| {
                selector.matches_namespace(Some(before)) == selector.matches_namespace(Some(now))
            }),
        };
        self.subjects.retain(|query, _| stands(query));
        self.sets.retain(|query, _| stands(query));
        for (id, before) in &touched.members {
            let now = index.member(*id);
            for (query, subjects) in &mut self.subjects {
                let selected =
                    now.is_some_and(|now| is_in_reach(&now.what, reach) && index.selects(query, now));
                match (subjects.ids.binary_search(id), selected) {
                    (Ok(position), false) => drop(subjects.ids.remove(position)),
                    (Err(position), true) => subjects.ids.insert(position, *id),
                    (Ok(_), true) | (Err(_), false) => {}
                }
            }
            let both = || before.iter().chain(now);
            self.sets.retain(|query, kept| {
                if !both().any(|member| index.selects(query, member)) {
                    return true;
                }
                for address in both().flat_map(|member| &member.addresses) {
                    let held = index.at(*address).any(|member| index.selects(query, member));
                    hold(&mut kept.set, *address, held);
                }
                // Networks are merged where they meet, so they are not taken out one by one.
                both().all(|member| member.nets.is_empty())
            });
            let ports = |member: Option<&Member>, key: &(Protocol, String)| {
                member.map(|member| made::named(member, key.0, &key.1).collect::<Vec<_>>())
            };
            self.port_sets.retain(|key, _| {
                ports(before.as_ref(), key).unwrap_or_default() == ports(now, key).unwrap_or_default()
            });
        }
    }

    /// Who in reach a policy applies to.
    pub(crate) fn subjects(&mut self, index: &Index, reach: &Reach, query: &Query) -> &[Id] {
        let in_reach = |id: &Id| index.member(*id).is_some_and(|it| is_in_reach(&it.what, reach));
        let make = || Subjects {
            ids: index.select(query).into_iter().filter(in_reach).collect(),
            asked: true,
        };
        // Looked up first: almost all have been asked for before, and need not be copied.
        if !self.subjects.contains_key(query) {
            self.subjects.insert(query.clone(), make());
        }
        self.subjects.get_mut(query).map_or(&[], |subjects| {
            subjects.asked = true;
            &subjects.ids
        })
    }

    /// The set of what a query finds.
    pub(crate) fn set(&mut self, index: &Index, query: &Query) -> SetId {
        let [next, _] = &mut self.asked;
        if let Some(kept) = self.sets.get_mut(query) {
            return *kept.number.get_or_insert_with(|| following(next));
        }
        let number = following(next);
        let kept = Numbered {
            set: Arc::new(made::address_set(index, query)),
            hash: fnv1a(&query.to_string()),
            number: Some(number),
        };
        self.sets.insert(query.clone(), kept);
        number
    }

    /// The set of all ports of that name and protocol.
    pub(crate) fn port_set(&mut self, index: &Index, protocol: Protocol, port_name: &str) -> PortSetId {
        let [_, next] = &mut self.asked;
        let key = (protocol, port_name.to_owned());
        if let Some(kept) = self.port_sets.get_mut(&key) {
            return *kept.number.get_or_insert_with(|| following(next));
        }
        let number = following(next);
        let kept = Numbered {
            set: Arc::new(made::port_set(index, protocol, port_name)),
            hash: fnv1a(&format!("{} {port_name}", protocol.0)),
            number: Some(number),
        };
        self.port_sets.insert(key, kept);
        number
    }

    /// All sets that were asked for, with names that no two share. What was not asked for is forgotten.
    pub(crate) fn finish(&mut self) -> (Vec<Arc<AddressSet>>, Vec<Arc<PortSet>>) {
        let [sets, port_sets] = std::mem::take(&mut self.asked);
        self.subjects
            .retain(|_, subjects| std::mem::take(&mut subjects.asked));
        (
            finished(
                &mut self.sets,
                sets,
                "s",
                |set| &set.name,
                |set, name| set.name = name,
            ),
            finished(
                &mut self.port_sets,
                port_sets,
                "p",
                |set| &set.name,
                |set, name| set.name = name,
            ),
        )
    }
}

fn following(next: &mut usize) -> usize {
    *next += 1;
    *next - 1
}

/// Sees to it that a set holds an address, or does not.
fn hold(set: &mut Arc<AddressSet>, address: IpAddr, held: bool) {
    match (set.addresses.binary_search(&address), held) {
        (Ok(position), false) => drop(Arc::make_mut(set).addresses.remove(position)),
        (Err(position), true) => Arc::make_mut(set).addresses.insert(position, address),
        (Ok(_), true) | (Err(_), false) => {}
    }
}

fn finished<K: Ord, S: Clone>(
    kept: &mut BTreeMap<K, Numbered<S>>,
    asked: usize,
    prefix: &str,
    name_of: impl Fn(&S) -> &str,
    rename: impl Fn(&mut S, String),
) -> Vec<Arc<S>> {
    kept.retain(|_, one| one.number.is_some());
    // In the order of what they hold, so that of two whose hashes collide always the same one has the plain name.
    let mut taken: BTreeMap<u64, u32> = BTreeMap::new();
    let mut sets: Vec<Option<Arc<S>>> = vec![None; asked];
    for one in kept.values_mut() {
        let times = taken.entry(one.hash).or_default();
        *times += 1;
        let mut name = format!("{prefix}-{:016x}", one.hash);
        if *times > 1 {
            name += &format!("-{times}");
        }
        if name_of(&one.set) != name {
            rename(Arc::make_mut(&mut one.set), name);
        }
        if let Some(number) = one.number.take() {
            sets[number] = Some(one.set.clone());
        }
    }
    sets.into_iter().flatten().collect()
}
