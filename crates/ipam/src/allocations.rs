//! Who holds which pod address.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use warren_model::Family;
use warren_model::cidr::bits;

use crate::error::{AllocateError, ReserveError};
use crate::owner::{Allocation, Owner};
use crate::pool::{CidrUsage, PodRange, Pool};

/// Every address held on this node, and by whom.
///
/// Serialised as `{"allocations": [{"containerId", "ifName", "addresses"}], "last": [address]}`; reading that back
/// refuses an address with two owners. `last` is the address given last in each CIDR, kept so that a restart
/// does not make a just freed address the next one to be given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Stored", into = "Stored")]
pub struct Allocations {
    by_owner: BTreeMap<Owner, BTreeSet<IpAddr>>,
    by_address: BTreeMap<IpAddr, Owner>,
    last: BTreeSet<IpAddr>,
}

impl Allocations {
    /// Gives `owner` one address of each family in `pool`, the primary family first.
    ///
    /// An owner that holds addresses already gets just those again, also when the pool has changed since: they are
    /// the ones its interface has. The search goes round: it starts behind the address given last, so that an
    /// address that was freed a moment ago, which peers may still have connections to, comes back last.
    ///
    /// # Errors
    /// With no pod CIDR, or none free in some family, nothing is allocated in any.
    pub fn allocate(&mut self, pool: &Pool, owner: &Owner) -> Result<Vec<IpAddr>, AllocateError> {
        if let Some(held) = self.by_owner.get(owner) {
            let families = pool.families();
            let mut held: Vec<IpAddr> = held.iter().copied().collect();
            held.sort_by_key(|address| families.iter().position(|family| *family == Family::of(*address)));
            return Ok(held);
        }
        let found = self.next(pool)?;
        for &(cidr, address) in &found {
            self.last
                .retain(|last| pool.contains(*last) && !cidr.contains(last));
            self.last.insert(address);
            self.hold(owner, address);
        }
        Ok(found.into_iter().map(|(_, address)| address).collect())
    }

    /// Whether an owner that holds nothing yet would be given addresses.
    ///
    /// # Errors
    /// Those of [`Self::allocate`].
    pub fn room(&self, pool: &Pool) -> Result<(), AllocateError> {
        self.next(pool).map(drop)
    }

    /// Frees all that `owner` holds and returns it, IPv4 first; empty if it holds nothing.
    pub fn release(&mut self, owner: &Owner) -> Vec<IpAddr> {
        let addresses = self.by_owner.remove(owner).unwrap_or_default();
        for address in &addresses {
            self.by_address.remove(address);
        }
        addresses.into_iter().collect()
    }

    /// Records that `owner` holds `addresses` as well, because they were found on its interface.
    ///
    /// They need not be in any pool: what is in use is in use. Repeating a call changes nothing, and the order of
    /// calls that all succeed does not matter.
    ///
    /// # Errors
    /// If any of the addresses is held by another owner, nothing is recorded.
    pub fn reserve(
        &mut self,
        owner: &Owner,
        addresses: impl IntoIterator<Item = IpAddr>,
    ) -> Result<(), ReserveError> {
        let addresses: Vec<IpAddr> = addresses.into_iter().collect();
        for &address in &addresses {
            if let Some(holder) = self.by_address.get(&address).filter(|holder| *holder != owner) {
                return Err(ReserveError {
                    address,
                    holder: holder.clone(),
                    claimant: owner.clone(),
                });
            }
        }
        for address in addresses {
            self.hold(owner, address);
        }
        Ok(())
    }

    /// The owners that are not in `live`: their addresses have leaked. Nothing is released yet, because the caller
    /// first has to take down what is left of the attachment.
    pub fn reconcile(&self, live: &BTreeSet<Owner>) -> Vec<Owner> {
        self.by_owner
            .keys()
            .filter(|owner| !live.contains(*owner))
            .cloned()
            .collect()
    }

    /// What `owner` holds, IPv4 first; `None` if it is unknown.
    pub fn addresses(&self, owner: &Owner) -> Option<Vec<IpAddr>> {
        self.by_owner
            .get(owner)
            .map(|addresses| addresses.iter().copied().collect())
    }

    /// Who holds `address`.
    pub fn owner(&self, address: IpAddr) -> Option<&Owner> {
        self.by_address.get(&address)
    }

    /// All allocations, ordered by owner.
    pub fn iter(&self) -> impl Iterator<Item = Allocation> {
        self.by_owner.iter().map(|(owner, addresses)| Allocation {
            owner: owner.clone(),
            addresses: addresses.iter().copied().collect(),
        })
    }

    /// How many owners hold addresses.
    pub fn len(&self) -> usize {
        self.by_owner.len()
    }

    /// Whether nobody holds any address.
    pub fn is_empty(&self) -> bool {
        self.by_owner.is_empty()
    }

    /// How full each CIDR of `pool` is, in the pool's order.
    pub fn usage(&self, pool: &Pool) -> Vec<CidrUsage> {
        pool.cidrs().iter().map(|cidr| self.cidr_usage(*cidr)).collect()
    }

    /// The addresses that are held though `pool` does not have them: left over from earlier pod CIDRs, and their
    /// owners' until released.
    pub fn foreign(&self, pool: &Pool) -> Vec<IpAddr> {
        self.by_address
            .keys()
            .filter(|address| !pool.contains(**address))
            .copied()
            .collect()
    }

    /// What the next owner gets: an address of each family, with its CIDR.
    fn next(&self, pool: &Pool) -> Result<Vec<(IpNet, IpAddr)>, AllocateError> {
        let families = pool.families();
        if families.is_empty() {
            return Err(AllocateError::NoPodCidr);
        }
        let next = |family| {
            let free = cidrs_of(pool, family).find_map(|cidr| Some((cidr, self.next_free(cidr)?)));
            free.ok_or_else(|| AllocateError::Exhausted {
                family,
                usage: cidrs_of(pool, family).map(|cidr| self.cidr_usage(cidr)).collect(),
            })
        };
        families.into_iter().map(next).collect()
    }

    /// The first free address behind the one given last, else the first free one from the start.
    fn next_free(&self, cidr: IpNet) -> Option<IpAddr> {
        let family = Family::of(cidr.addr());
        let range = PodRange::of(cidr)?;
        let last = self.last.range(cidr.network()..=cidr.broadcast()).next();
        // `last` may have been read from a file, so it is not taken for granted that it lies within the range.
        let start = last
            .and_then(|last| bits(*last).checked_add(1))
            .filter(|start| (range.first..=range.last).contains(start))
            .unwrap_or(range.first);
        self.first_gap(family, start, range.last)
            .or_else(|| self.first_gap(family, range.first, start))
    }

    /// The first address in `from..=to` that nobody holds. Walks over held addresses only, so that the size of the
    /// CIDR does not matter.
    fn first_gap(&self, family: Family, from: u128, to: u128) -> Option<IpAddr> {
        let mut candidate = from;
        for held in self
            .by_address
            .range(family.address(from)..=family.address(to))
            .map(|(held, _)| bits(*held))
        {
            if held != candidate {
                break;
            }
            candidate = held.checked_add(1)?;
        }
        (candidate <= to).then(|| family.address(candidate))
    }

    fn cidr_usage(&self, cidr: IpNet) -> CidrUsage {
        let Some(range) = PodRange::of(cidr) else {
            return CidrUsage {
                cidr,
                capacity: 0,
                used: 0,
            };
        };
        let family = Family::of(cidr.addr());
        let held = self
            .by_address
            .range(family.address(range.first)..=family.address(range.last));
        CidrUsage {
            cidr,
            capacity: range.capacity(),
            used: held.count(),
        }
    }

    fn hold(&mut self, owner: &Owner, address: IpAddr) {
        self.by_owner.entry(owner.clone()).or_default().insert(address);
        self.by_address.insert(address, owner.clone());
    }
}

/// The durable form of [`Allocations`].
#[derive(Serialize, Deserialize)]
struct Stored {
    allocations: Vec<Allocation>,
    #[serde(default)]
    last: Vec<IpAddr>,
}

impl From<Allocations> for Stored {
    fn from(allocations: Allocations) -> Self {
        Self {
            allocations: allocations.iter().collect(),
            last: allocations.last.into_iter().collect(),
        }
    }
}

impl TryFrom<Stored> for Allocations {
    type Error = ReserveError;

    fn try_from(stored: Stored) -> Result<Self, ReserveError> {
        let mut allocations = Self {
            last: stored.last.into_iter().collect(),
            ..Self::default()
        };
        for Allocation { owner, addresses } in stored.allocations {
            allocations.reserve(&owner, addresses)?;
        }
        Ok(allocations)
    }
}

fn cidrs_of(pool: &Pool, family: Family) -> impl Iterator<Item = IpNet> {
    pool.cidrs()
        .iter()
        .copied()
        .filter(move |cidr| Family::of(cidr.addr()) == family)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    fn owner(name: &str) -> Owner {
        Owner {
            container_id: name.into(),
            if_name: "eth0".into(),
        }
    }

    fn pool(cidrs: &[&str]) -> Pool {
        Pool::new(cidrs.iter().map(|cidr| cidr.parse().unwrap())).unwrap()
    }

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn both_families_come_primary_first_also_when_asked_again() {
        for (cidrs, expected) in [
            (["10.0.0.0/24", "fd00::/64"], ["10.0.0.2", "fd00::2"]),
            (["fd00::/64", "10.0.0.0/24"], ["fd00::2", "10.0.0.2"]),
        ] {
            let pool = pool(&cidrs);
            let mut allocations = Allocations::default();
            assert_eq!(allocations.allocate(&pool, &owner("a")).unwrap(), ips(&expected));
            assert_eq!(allocations.allocate(&pool, &owner("a")).unwrap(), ips(&expected));
        }
    }

    #[test]
    fn a_freed_address_comes_back_only_after_all_others() {
        let pool = pool(&["10.0.0.0/29"]);
        let mut allocations = Allocations::default();
        let mut given = Vec::new();
        for round in 0..7 {
            given.extend(allocations.allocate(&pool, &owner(&round.to_string())).unwrap());
            allocations.release(&owner(&round.to_string()));
        }
        let expected = [
            "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6", "10.0.0.2", "10.0.0.3",
        ];
        assert_eq!(given, ips(&expected));
    }

    #[test]
    fn a_full_cidr_hands_over_to_the_next_of_its_family() {
        let pool = pool(&["10.0.0.0/30", "10.0.1.0/30"]);
        let mut allocations = Allocations::default();
        assert_eq!(
            allocations.allocate(&pool, &owner("a")).unwrap(),
            ips(&["10.0.0.2"])
        );
        assert_eq!(
            allocations.allocate(&pool, &owner("b")).unwrap(),
            ips(&["10.0.1.2"])
        );
        assert!(allocations.allocate(&pool, &owner("c")).is_err());
    }

    #[test]
    fn exhaustion_in_one_family_takes_nothing_in_the_other_and_says_what_to_do() {
        let pool = pool(&["fd00::/64", "10.0.0.0/30"]);
        let mut allocations = Allocations::default();
        allocations.allocate(&pool, &owner("a")).unwrap();
        let before = allocations.clone();
        let error = allocations.allocate(&pool, &owner("b")).unwrap_err();
        assert_eq!(allocations, before);
        assert_eq!(allocations.room(&pool).unwrap_err(), error);
        allocations.release(&owner("a"));
        assert_eq!(allocations.room(&pool), Ok(()));
        assert_eq!(
            error.to_string(),
            "no free IPv4 pod address on this node: 10.0.0.0/30 has 1 of 1 pod addresses in use; remove pods, lower \
             the kubelet's --max-pods, or give nodes larger pod CIDRs (--node-cidr-mask-size)"
        );
    }

    #[test]
    fn no_pod_cidr_is_an_error_of_its_own() {
        let error = Allocations::default()
            .allocate(&Pool::default(), &owner("a"))
            .unwrap_err();
        assert_eq!(error, AllocateError::NoPodCidr);
    }

    #[test]
    fn a_claim_on_a_held_address_names_both_and_records_nothing() {
        let mut allocations = Allocations::default();
        allocations.reserve(&owner("a"), ips(&["10.0.0.9"])).unwrap();
        let before = allocations.clone();
        let error = allocations
            .reserve(&owner("b"), ips(&["fd00::9", "10.0.0.9"]))
            .unwrap_err();
        assert_eq!((&error.holder, &error.claimant), (&owner("a"), &owner("b")));
        assert!(error.to_string().contains("a/eth0") && error.to_string().contains("b/eth0"));
        assert_eq!(allocations, before);
    }

    #[test]
    fn addresses_of_an_earlier_pod_cidr_stay_held_and_are_counted_as_foreign() {
        let old = pool(&["10.0.0.0/24"]);
        let new = pool(&["10.9.0.0/24"]);
        let mut allocations = Allocations::default();
        let held = allocations.allocate(&old, &owner("a")).unwrap();
        assert!(allocations.foreign(&old).is_empty());
        assert_eq!(allocations.foreign(&new), held);
        assert_eq!(allocations.allocate(&new, &owner("a")).unwrap(), held);
        assert_eq!(
            allocations.allocate(&new, &owner("b")).unwrap(),
            ips(&["10.9.0.2"])
        );
        assert_eq!(allocations.release(&owner("a")), held);
        assert!(allocations.foreign(&new).is_empty());
    }

    #[test]
    fn what_is_not_live_has_leaked_but_stays_held() {
        let pool = pool(&["10.0.0.0/24"]);
        let mut allocations = Allocations::default();
        for name in ["a", "b", "c"] {
            allocations.allocate(&pool, &owner(name)).unwrap();
        }
        let live = BTreeSet::from([owner("b"), owner("unknown")]);
        assert_eq!(allocations.reconcile(&live), [owner("a"), owner("c")]);
        assert_eq!(allocations.len(), 3);
    }

    #[test]
    fn the_durable_form_is_a_plain_list_and_keeps_the_place_in_the_round() {
        let pool = pool(&["10.0.0.0/24"]);
        let mut allocations = Allocations::default();
        allocations.allocate(&pool, &owner("a")).unwrap();
        allocations.allocate(&pool, &owner("b")).unwrap();
        allocations.release(&owner("b"));
        let text = serde_json::to_string(&allocations).unwrap();
        assert_eq!(
            text,
            r#"{"allocations":[{"containerId":"a","ifName":"eth0","addresses":["10.0.0.2"]}],"last":["10.0.0.3"]}"#
        );
        let mut restored: Allocations = serde_json::from_str(&text).unwrap();
        assert_eq!(restored, allocations);
        assert_eq!(restored.allocate(&pool, &owner("c")).unwrap(), ips(&["10.0.0.4"]));
    }

    #[test]
    fn a_file_that_gives_one_address_to_two_owners_is_refused() {
        let text = r#"{"allocations":[{"containerId":"a","ifName":"eth0","addresses":["10.0.0.2"]},
                                      {"containerId":"b","ifName":"eth0","addresses":["10.0.0.2"]}]}"#;
        let error = serde_json::from_str::<Allocations>(text).unwrap_err().to_string();
        assert!(error.contains("claimed by b/eth0 but held by a/eth0"), "{error}");
    }

    #[test]
    fn a_place_in_the_round_that_no_pod_may_have_does_no_harm() {
        for last in [
            "10.0.0.0",
            "10.0.0.1",
            "10.0.0.6",
            "10.0.0.7",
            "255.255.255.255",
            "fd00::1",
        ] {
            let text = format!(r#"{{"allocations":[],"last":["{last}"]}}"#);
            let mut allocations: Allocations = serde_json::from_str(&text).unwrap();
            let given = allocations
                .allocate(&pool(&["10.0.0.0/29"]), &owner("a"))
                .unwrap();
            assert_eq!(given, ips(&["10.0.0.2"]), "{last}");
        }
    }
}
