//! What is in a set of nft, and how two of them differ.

use std::cmp::Ordering;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use warren_model::Family;
use warren_policy::ruleset::{AddressSet, PortSet};

/// The elements of a set. Most are addresses that selectors have found: these stay as the rule set has them, shared with it, and
/// become text only where they differ.
#[derive(Debug, Clone)]
pub(super) enum Elements {
    /// Any, in text and in order.
    Text(Vec<String>),
    /// Those addresses of a set that are of a family; its networks are not among them.
    Addresses(Arc<AddressSet>, Family),
    /// Those pairs of a set that are of a family.
    Ports(Arc<PortSet>, Family),
}

/// One of them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Element<'e> {
    Text(&'e str),
    Address(IpAddr),
    Port(IpAddr, u16),
}

impl fmt::Display for Element<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Address(address) => address.fmt(f),
            Self::Port(address, port) => write!(f, "{address} . {port}"),
        }
    }
}

impl Elements {
    /// All of them.
    pub(super) fn all(&self) -> Vec<Element<'_>> {
        self.slice().elements()
    }

    /// Those of these that are not there any more in `now`, and those that are new there.
    pub(super) fn difference<'e>(&'e self, now: &'e Self) -> (Vec<Element<'e>>, Vec<Element<'e>>) {
        if self.is_shared_with(now) {
            return (Vec::new(), Vec::new());
        }
        match (self.slice(), now.slice()) {
            (Slice::Addresses(before), Slice::Addresses(now)) => differing(before, now, Slice::Addresses),
            (Slice::Ports(before), Slice::Ports(now)) => differing(before, now, Slice::Ports),
            (Slice::Text(before), Slice::Text(now)) => differing(before, now, Slice::Text),
            (before, now) => (before.elements(), now.elements()),
        }
    }

    fn slice(&self) -> Slice<'_> {
        match self {
            Self::Text(elements) => Slice::Text(elements),
            Self::Addresses(set, family) => Slice::Addresses(of_family(&set.addresses, *family, |it| *it)),
            Self::Ports(set, family) => Slice::Ports(of_family(&set.members, *family, |(it, _)| *it)),
        }
    }

    /// Whether both are one allocation. Then they are equal; that they are not equal it does not say.
    fn is_shared_with(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Addresses(one, a), Self::Addresses(other, b)) => a == b && Arc::ptr_eq(one, other),
            (Self::Ports(one, a), Self::Ports(other, b)) => a == b && Arc::ptr_eq(one, other),
            (Self::Text(_) | Self::Addresses(..) | Self::Ports(..), _) => false,
        }
    }
}

impl PartialEq for Elements {
    fn eq(&self, other: &Self) -> bool {
        let (gone, new) = self.difference(other);
        gone.is_empty() && new.is_empty()
    }
}

impl Eq for Elements {}

impl FromIterator<String> for Elements {
    fn from_iter<I: IntoIterator<Item = String>>(elements: I) -> Self {
        let mut elements: Vec<String> = elements.into_iter().collect();
        elements.sort_unstable();
        elements.dedup();
        Self::Text(elements)
    }
}

/// The elements of one set as they lie in memory, in order and each once.
#[derive(Clone, Copy)]
enum Slice<'e> {
    Text(&'e [String]),
    Addresses(&'e [IpAddr]),
    Ports(&'e [(IpAddr, u16)]),
}

impl<'e> Slice<'e> {
    fn elements(self) -> Vec<Element<'e>> {
        match self {
            Self::Text(all) => all.iter().map(|it| Element::Text(it)).collect(),
            Self::Addresses(all) => all.iter().map(|it| Element::Address(*it)).collect(),
            Self::Ports(all) => all.iter().map(|(it, port)| Element::Port(*it, *port)).collect(),
        }
    }
}

/// Those of a family: all of IPv4 come before all of IPv6.
fn of_family<T>(all: &[T], family: Family, address: impl Fn(&T) -> IpAddr) -> &[T] {
    let (v4, v6) = all.split_at(all.partition_point(|it| address(it).is_ipv4()));
    match family {
        Family::V4 => v4,
        Family::V6 => v6,
    }
}

fn differing<'e, T: Ord>(
    mut before: &'e [T],
    mut now: &'e [T],
    slice: impl Fn(&'e [T]) -> Slice<'e>,
) -> (Vec<Element<'e>>, Vec<Element<'e>>) {
    let (mut gone, mut new) = (Vec::new(), Vec::new());
    loop {
        let same = before
            .iter()
            .zip(now)
            .take_while(|(one, other)| one == other)
            .count();
        (before, now) = (&before[same..], &now[same..]);
        let order = match (before.first(), now.first()) {
            (None, None) => return (gone, new),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(one), Some(other)) => one.cmp(other),
        };
        let (differ, from) = match order {
            Ordering::Less => (&mut gone, &mut before),
            Ordering::Equal | Ordering::Greater => (&mut new, &mut now),
        };
        let (first, rest) = from.split_at(1);
        differ.extend(slice(first).elements());
        *from = rest;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::collection::btree_set;
    use proptest::prelude::*;
    use warren_policy::query::{Members, Query, Scope};
    use warren_policy::selector::Selector;

    use super::*;

    fn set(addresses: &BTreeSet<IpAddr>) -> Arc<AddressSet> {
        Arc::new(AddressSet {
            name: String::new(),
            query: Query {
                scope: Scope::Everywhere,
                members: Members::Pods,
                selector: Selector::All,
            },
            addresses: addresses.iter().copied().collect(),
            nets: Vec::new(),
        })
    }

    fn addresses() -> impl Strategy<Value = BTreeSet<IpAddr>> {
        let v4 = (0..20_u8).prop_map(|last| IpAddr::from([10, 0, 0, last]));
        let v6 = (0..20_u16).prop_map(|last| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, last]));
        btree_set(prop_oneof![v4, v6], 0..24)
    }

    proptest! {
        #[test]
        fn what_differs_is_what_only_one_of_both_has(before in addresses(), now in addresses()) {
            for family in [Family::V4, Family::V6] {
                let [one, other] = [&before, &now].map(|it| Elements::Addresses(set(it), family));
                let only = |here: &BTreeSet<IpAddr>, there: &BTreeSet<IpAddr>| {
                    let of_family = here.difference(there).filter(|it| Family::of(**it) == family);
                    of_family.map(ToString::to_string).collect::<Vec<_>>()
                };
                let text = |elements: Vec<Element<'_>>| elements.iter().map(ToString::to_string).collect::<Vec<_>>();
                let (gone, new) = one.difference(&other);
                prop_assert_eq!((text(gone), text(new)), (only(&before, &now), only(&now, &before)));
                prop_assert_eq!(one == other, only(&before, &now) == only(&now, &before));
            }
        }
    }
}
