//! Which peer an address belongs to: the longest prefix over all peers decides, in both directions.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;
use prefix_trie::joint::map::JointPrefixMap;

/// The allowed IPs of all peers. A prefix belongs to one peer at a time: adding it to another one moves it.
///
/// `P` is what a look-up gives, `id` tells peers apart.
#[derive(Debug, Clone)]
pub(crate) struct AllowedIps<P> {
    owners: JointPrefixMap<IpNet, (u32, P)>,
    prefixes: HashMap<u32, BTreeSet<IpNet>>,
}

impl<P> Default for AllowedIps<P> {
    fn default() -> Self {
        Self {
            owners: JointPrefixMap::new(),
            prefixes: HashMap::new(),
        }
    }
}

impl<P> AllowedIps<P> {
    /// Gives a prefix (host bits are ignored) to a peer, taking it from whichever peer had it.
    pub(crate) fn insert(&mut self, prefix: IpNet, id: u32, peer: P) {
        let prefix = prefix.trunc();
        if let Some((former, _)) = self.owners.insert(prefix, (id, peer)) {
            self.forget(former, &prefix);
        }
        self.prefixes.entry(id).or_default().insert(prefix);
    }

    /// Takes one prefix from a peer; nothing happens when it belongs to another one or to none.
    pub(crate) fn remove(&mut self, prefix: IpNet, id: u32) {
        let prefix = prefix.trunc();
        if self.owners.get(&prefix).is_some_and(|(owner, _)| *owner == id) {
            self.owners.remove(&prefix);
            self.forget(id, &prefix);
        }
    }

    /// Takes all prefixes from a peer.
    pub(crate) fn remove_all(&mut self, id: u32) {
        for prefix in self.prefixes.remove(&id).unwrap_or_default() {
            self.owners.remove(&prefix);
        }
    }

    /// The peer whose prefix matches an address longest.
    pub(crate) fn lookup(&self, address: IpAddr) -> Option<&P> {
        let (_, (_, peer)) = self.owners.get_lpm(&IpNet::from(address))?;
        Some(peer)
    }

    /// The prefixes of one peer.
    pub(crate) fn of(&self, id: u32) -> impl Iterator<Item = IpNet> + '_ {
        self.prefixes.get(&id).into_iter().flatten().copied()
    }

    fn forget(&mut self, id: u32, prefix: &IpNet) {
        if let Some(prefixes) = self.prefixes.get_mut(&id) {
            prefixes.remove(prefix);
            if prefixes.is_empty() {
                self.prefixes.remove(&id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use ipnet::{Ipv4Net, Ipv6Net};
    use proptest::prelude::*;

    use super::*;

    /// What the table is meant to be: a list, searched from end to end.
    #[derive(Default)]
    struct Model(Vec<(IpNet, u32)>);

    impl Model {
        fn apply(&mut self, change: &Change) {
            match *change {
                Change::Insert(prefix, peer) => {
                    self.0.retain(|(other, _)| *other != prefix.trunc());
                    self.0.push((prefix.trunc(), peer));
                }
                Change::Remove(prefix, peer) => self.0.retain(|entry| *entry != (prefix.trunc(), peer)),
                Change::RemoveAll(peer) => self.0.retain(|(_, owner)| *owner != peer),
            }
        }

        fn lookup(&self, address: IpAddr) -> Option<u32> {
            let matching = self.0.iter().filter(|(prefix, _)| prefix.contains(&address));
            matching
                .max_by_key(|(prefix, _)| prefix.prefix_len())
                .map(|(_, peer)| *peer)
        }
    }

    #[derive(Debug, Clone)]
    enum Change {
        Insert(IpNet, u32),
        Remove(IpNet, u32),
        RemoveAll(u32),
    }

    fn address() -> impl Strategy<Value = IpAddr> {
        // Few distinct addresses, so that prefixes meet and nest.
        prop_oneof![
            (0..4_u8, prop_oneof![Just(0), Just(1), Just(128), Just(255)])
                .prop_map(|(net, host)| IpAddr::from(Ipv4Addr::new(10, net << 6, net, host))),
            (0..4_u16, 0..3_u16).prop_map(|(net, host)| IpAddr::from(Ipv6Addr::new(
                0xfd00,
                net << 14,
                net,
                0,
                0,
                0,
                0,
                host
            ))),
        ]
    }

    fn prefix() -> impl Strategy<Value = IpNet> {
        (address(), 0..=128_u8).prop_map(|(address, len)| match address {
            IpAddr::V4(v4) => IpNet::from(Ipv4Net::new_assert(v4, len % 33)),
            IpAddr::V6(v6) => IpNet::from(Ipv6Net::new_assert(v6, len)),
        })
    }

    fn change() -> impl Strategy<Value = Change> {
        prop_oneof![
            6 => (prefix(), 0..4_u32).prop_map(|(prefix, peer)| Change::Insert(prefix, peer)),
            3 => (prefix(), 0..4_u32).prop_map(|(prefix, peer)| Change::Remove(prefix, peer)),
            1 => (0..4_u32).prop_map(Change::RemoveAll),
        ]
    }

    proptest! {
        #[test]
        fn agrees_with_a_list_searched_from_end_to_end(
            changes in prop::collection::vec(change(), 0..60),
            probes in prop::collection::vec(address(), 1..40),
        ) {
            let mut table = AllowedIps::default();
            let mut model = Model::default();
            for change in &changes {
                match *change {
                    Change::Insert(prefix, peer) => table.insert(prefix, peer, peer),
                    Change::Remove(prefix, peer) => table.remove(prefix, peer),
                    Change::RemoveAll(peer) => table.remove_all(peer),
                }
                model.apply(change);
            }
            for probe in probes {
                prop_assert_eq!(table.lookup(probe).copied(), model.lookup(probe), "{}", probe);
            }
            for peer in 0..4 {
                let listed: BTreeSet<IpNet> = table.of(peer).collect();
                let meant: BTreeSet<IpNet> =
                    model.0.iter().filter(|(_, owner)| *owner == peer).map(|(prefix, _)| *prefix).collect();
                prop_assert_eq!(listed, meant);
            }
        }
    }
}
