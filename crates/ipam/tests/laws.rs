//! The laws of address allocation, checked against a model that is too simple to be wrong: a map, and a list of
//! every address that pods may have.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use proptest::prelude::*;
use proptest::sample::select;
use warren_ipam::{AllocateError, Allocations, CidrUsage, Owner, Pool};
use warren_model::Family;
use warren_model::cidr::node_address;

/// CIDRs that never overlap, small enough to run full.
const CIDRS: [&str; 7] = [
    "10.0.0.0/29",
    "10.0.1.0/30",
    "10.0.2.0/31",
    "10.0.3.0/28",
    "fd00:1::/125",
    "fd00:2::/126",
    "fd00:3::/127",
];

#[derive(Clone, Debug)]
enum Act {
    Allocate(Owner),
    Release(Owner),
    Reserve(Owner, Vec<IpAddr>),
    /// The node's pod CIDRs change.
    Pool(Vec<IpNet>),
    /// The agent restarts: everything goes through the durable form.
    Restart,
}

fn owner() -> impl Strategy<Value = Owner> {
    (0..12_u8, select(vec!["eth0", "net1"])).prop_map(|(id, if_name)| Owner {
        container_id: format!("c{id}"),
        if_name: if_name.into(),
    })
}

fn cidrs() -> impl Strategy<Value = Vec<IpNet>> {
    proptest::sample::subsequence(CIDRS.to_vec(), 0..=CIDRS.len())
        .prop_shuffle()
        .prop_map(|texts| texts.into_iter().map(cidr).collect())
}

fn address() -> impl Strategy<Value = IpAddr> {
    select(
        CIDRS
            .iter()
            .flat_map(|text| every_address(cidr(text)))
            .collect::<Vec<_>>(),
    )
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        8 => owner().prop_map(Act::Allocate),
        4 => owner().prop_map(Act::Release),
        2 => (owner(), prop::collection::vec(address(), 0..3)).prop_map(|(owner, found)| Act::Reserve(owner, found)),
        1 => cidrs().prop_map(Act::Pool),
        1 => Just(Act::Restart),
    ]
}

#[expect(clippy::unwrap_used, reason = "the texts are constants above")]
fn cidr(text: &str) -> IpNet {
    text.parse().unwrap()
}

/// Every address of a small CIDR, by counting from the first to the last.
fn every_address(cidr: IpNet) -> Vec<IpAddr> {
    let count = 1_u128 << (cidr.max_prefix_len() - cidr.prefix_len());
    (0..count)
        .map(|offset| match cidr.network() {
            IpAddr::V4(first) => IpAddr::from((first.to_bits() + offset as u32).to_be_bytes()),
            IpAddr::V6(first) => IpAddr::from((first.to_bits() + offset).to_be_bytes()),
        })
        .collect()
}

/// What pods may have of a CIDR, said the long way.
fn pod_addresses(cidr: IpNet) -> BTreeSet<IpAddr> {
    let mut all: BTreeSet<IpAddr> = every_address(cidr).into_iter().collect();
    all.remove(&cidr.network());
    all.remove(&node_address(cidr));
    if let IpNet::V4(v4) = cidr {
        all.remove(&IpAddr::V4(v4.broadcast()));
    }
    all
}

fn families(cidrs: &[IpNet]) -> BTreeSet<Family> {
    cidrs.iter().map(|cidr| Family::of(cidr.addr())).collect()
}

type Model = BTreeMap<Owner, BTreeSet<IpAddr>>;

fn held(model: &Model) -> BTreeSet<IpAddr> {
    model.values().flatten().copied().collect()
}

fn free(model: &Model, cidrs: &[IpNet], family: Family) -> BTreeSet<IpAddr> {
    let held = held(model);
    let of_family = cidrs.iter().filter(|cidr| Family::of(cidr.addr()) == family);
    of_family
        .flat_map(|cidr| pod_addresses(*cidr))
        .filter(|address| !held.contains(address))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn agrees_with_the_model(first in cidrs(), acts in prop::collection::vec(act(), 1..120)) {
        let mut cidrs = first;
        let mut pool = Pool::new(cidrs.clone())?;
        let mut real = Allocations::default();
        let mut model = Model::new();
        for act in acts {
            match act {
                Act::Allocate(owner) => {
                    let given = real.allocate(&pool, &owner);
                    if let Some(has) = model.get(&owner) {
                        // Idempotent: whatever it holds, and nothing else.
                        prop_assert_eq!(given?.into_iter().collect::<BTreeSet<_>>(), has.clone());
                    } else {
                        check_new(&model, &cidrs, given.clone())?;
                        if let Ok(given) = given {
                            model.insert(owner, given.into_iter().collect());
                        }
                    }
                }
                Act::Release(owner) => {
                    let freed: BTreeSet<IpAddr> = real.release(&owner).into_iter().collect();
                    prop_assert_eq!(freed, model.remove(&owner).unwrap_or_default());
                    prop_assert!(real.release(&owner).is_empty());
                }
                Act::Reserve(owner, found) => {
                    let taken = found.iter().any(|address| {
                        model.iter().any(|(holder, has)| *holder != owner && has.contains(address))
                    });
                    prop_assert_eq!(real.reserve(&owner, found.clone()).is_err(), taken);
                    if !taken && !found.is_empty() {
                        model.entry(owner).or_default().extend(found);
                    }
                }
                Act::Pool(changed) => {
                    pool = Pool::new(changed.clone())?;
                    cidrs = changed;
                }
                Act::Restart => {
                    let text = serde_json::to_string(&real)?;
                    let restored: Allocations = serde_json::from_str(&text)?;
                    prop_assert_eq!(&restored, &real);
                    real = restored;
                }
            }
            check_same(&real, &model, &pool)?;
        }
    }

    #[test]
    fn the_order_of_reservations_does_not_matter(
        (found, shuffled) in prop::collection::btree_map(address(), owner(), 0..20)
            .prop_map(|found| found.into_iter().collect::<Vec<_>>())
            .prop_flat_map(|found| (Just(found.clone()), Just(found).prop_shuffle()))
    ) {
        let adopt = |found: Vec<(IpAddr, Owner)>| {
            let mut allocations = Allocations::default();
            for (address, owner) in found {
                allocations.reserve(&owner, [address])?;
            }
            Ok::<_, warren_ipam::ReserveError>(allocations)
        };
        prop_assert_eq!(adopt(found)?, adopt(shuffled)?);
    }

    #[test]
    fn reading_a_file_never_panics(text in "[\\[\\]{}:,\"a-z0-9.]{0,80}") {
        // The value does not matter; a panic would fail the test.
        drop(serde_json::from_str::<Allocations>(&text));
    }
}

/// A fresh allocation has one free pod address for each family, or names the family that has none.
fn check_new(
    model: &Model,
    cidrs: &[IpNet],
    given: Result<Vec<IpAddr>, AllocateError>,
) -> Result<(), TestCaseError> {
    match given {
        Ok(given) => {
            let families_given: Vec<Family> = given.iter().map(|address| Family::of(*address)).collect();
            prop_assert_eq!(families_given.len(), families(cidrs).len());
            prop_assert_eq!(
                families_given.iter().copied().collect::<BTreeSet<_>>(),
                families(cidrs)
            );
            prop_assert_eq!(
                families_given.first().copied(),
                cidrs.first().map(|cidr| Family::of(cidr.addr()))
            );
            for address in given {
                prop_assert!(
                    free(model, cidrs, Family::of(address)).contains(&address),
                    "{address} was not free"
                );
            }
        }
        Err(AllocateError::NoPodCidr) => prop_assert!(cidrs.is_empty()),
        Err(AllocateError::Exhausted { family, usage }) => {
            prop_assert!(families(cidrs).contains(&family));
            prop_assert_eq!(free(model, cidrs, family), BTreeSet::new());
            for CidrUsage { cidr, capacity, used } in usage {
                prop_assert_eq!(used as u128, capacity);
                prop_assert_eq!(capacity, pod_addresses(cidr).len() as u128);
            }
        }
    }
    Ok(())
}

/// The two hold the same, counted in every way there is to ask.
fn check_same(real: &Allocations, model: &Model, pool: &Pool) -> Result<(), TestCaseError> {
    let listed: Model = real
        .iter()
        .map(|allocation| (allocation.owner, allocation.addresses.into_iter().collect()))
        .collect();
    prop_assert_eq!(&listed, model);
    for (owner, addresses) in model {
        for address in addresses {
            prop_assert_eq!(real.owner(*address), Some(owner));
        }
    }
    let held = held(model);
    prop_assert_eq!(
        model.values().map(BTreeSet::len).sum::<usize>(),
        held.len(),
        "an address with two owners"
    );
    for usage in real.usage(pool) {
        let pods = pod_addresses(usage.cidr);
        prop_assert_eq!(usage.capacity, pods.len() as u128);
        prop_assert_eq!(usage.used, pods.intersection(&held).count());
    }
    let foreign = held
        .iter()
        .filter(|address| !pool.cidrs().iter().any(|cidr| cidr.contains(*address)));
    prop_assert_eq!(real.foreign(pool), foreign.copied().collect::<Vec<_>>());
    Ok(())
}

#[test]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
fn a_full_slash_16_and_a_slash_64_are_filled_without_scanning() {
    // 65 533 pods in each family. Were a search to walk the CIDR, this would take 2^64 steps.
    let pool = Pool::new([cidr("10.0.0.0/16"), cidr("fd00::/64")]).unwrap();
    let mut allocations = Allocations::default();
    let owner = |id: u32| Owner {
        container_id: id.to_string(),
        if_name: "eth0".into(),
    };
    for id in 0..65_533 {
        allocations.allocate(&pool, &owner(id)).unwrap();
    }
    assert!(matches!(
        allocations.allocate(&pool, &owner(65_533)),
        Err(AllocateError::Exhausted {
            family: Family::V4,
            ..
        })
    ));
    let freed = allocations.release(&owner(40_000));
    let given = allocations.allocate(&pool, &owner(65_533)).unwrap();
    assert_eq!(given[0], freed[0]);
    assert_eq!(given[1].to_string(), "fd00::ffff");
}
