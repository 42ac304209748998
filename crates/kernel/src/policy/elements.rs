//! What is in a set of nft, and how two of them differ.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use warren_model::Family;
use warren_policy::ruleset::{AddressSet, PortSet};

/// The elements of a set. Most are addresses that selectors have found: these stay as the rule set has them, shared with it, and
/// become text only where they differ.
#[derive(Debug, Clone)]
pub(super) enum Elements {
    /// Any, in text.
    Text(BTreeSet<String>),
    /// Those addresses of a set that are of a family; its networks are not among them.
    Addresses(Arc<AddressSet>, Family),
    /// Those pairs of a set that are of a family.
    Ports(Arc<PortSet>, Family),
}

/// One of them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
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
    /// None.
    pub(super) fn none() -> Self {
        Self::Text(BTreeSet::new())
    }

    /// All of them, in order.
    pub(super) fn iter(&self) -> Box<dyn Iterator<Item = Element<'_>> + '_> {
        match self {
            Self::Text(elements) => Box::new(elements.iter().map(|it| Element::Text(it))),
            Self::Addresses(set, family) => {
                let of_family = set.addresses.iter().filter(|it| Family::of(**it) == *family);
                Box::new(of_family.map(|address| Element::Address(*address)))
            }
            Self::Ports(set, family) => {
                let of_family = set.members.iter().filter(|(it, _)| Family::of(*it) == *family);
                Box::new(of_family.map(|(address, port)| Element::Port(*address, *port)))
            }
        }
    }

    /// Those that are not there as well, in order.
    pub(super) fn without<'e>(&'e self, there: &'e Self) -> Vec<Element<'e>> {
        let mut only = Vec::new();
        if self.is_shared_with(there) {
            return only;
        }
        let mut there = there.iter().peekable();
        for element in self.iter() {
            while there.next_if(|other| *other < element).is_some() {}
            if there.peek() != Some(&element) {
                only.push(element);
            }
        }
        only
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
        self.is_shared_with(other) || self.iter().cmp(other.iter()) == Ordering::Equal
    }
}

impl Eq for Elements {}

impl FromIterator<String> for Elements {
    fn from_iter<I: IntoIterator<Item = String>>(elements: I) -> Self {
        Self::Text(elements.into_iter().collect())
    }
}
