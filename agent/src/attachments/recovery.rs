//! What the veths tell, brought together with what the file of attachments says.
//!
//! A record is written before its veth is made and removed after its veth is gone. So a veth without a record means
//! that the file was lost, damaged or put back from a copy, and the veth is right: its pod has those addresses now.

use std::collections::BTreeSet;
use std::net::IpAddr;

use thiserror::Error;
use warren_ipam::{Owner, ReserveError};
use warren_kernel::veth::HostSide;

use super::contents::{Contents, Record};
use super::interface::{host_interface, pod_mac};
use super::label::Label;

/// Takes up every veth that the contents do not have as it is. Returns whose they are; none: nothing was changed.
///
/// `whole`: the contents were read from a file that was there and in order. Then a veth that bears no label is not a
/// pod's and is left to the next pass, which removes it. Otherwise nobody knows which address it holds.
///
/// # Errors
/// When that would be a guess; the contents are not to be used then.
pub(super) fn adopt(
    contents: &mut Contents,
    veths: &[HostSide],
    whole: bool,
) -> Result<Vec<Owner>, RecoveryError> {
    let mut adopted = Vec::new();
    let mut labels = Vec::new();
    for veth in veths {
        match label_of(veth) {
            Some(label) => labels.push(label),
            // One that was never up is half made: its pod was not told of it.
            None if whole || !veth.up => {}
            None => return Err(RecoveryError::NoLabel(veth.name.clone())),
        }
    }
    let alive: BTreeSet<&Owner> = labels.iter().map(|label| &label.owner).collect();
    let differ: Vec<&Label> = labels
        .iter()
        .filter(|label| !is_recorded(contents, label))
        .collect();
    // All that is not true any more goes first: what one veth had by the file another may have now.
    for label in &differ {
        contents.remove(&label.owner);
    }
    for label in differ {
        for address in &label.addresses {
            let holder = contents.allocations().owner(*address).cloned();
            // Without a veth it has no use for the address.
            if let Some(holder) = holder.filter(|holder| !alive.contains(holder)) {
                contents.remove(&holder);
            }
        }
        let record = Record {
            interface: host_interface(&label.owner),
            mac: pod_mac(&label.owner).0,
            netns: label.netns.clone(),
            pod: None,
            network: None,
        };
        contents.restore(&label.owner, record, &label.addresses)?;
        adopted.push(label.owner.clone());
    }
    Ok(adopted)
}

fn is_recorded(contents: &Contents, label: &Label) -> bool {
    let sorted = |addresses: &[IpAddr]| addresses.iter().copied().collect::<BTreeSet<_>>();
    contents
        .get(&label.owner)
        .is_some_and(|(_, held)| sorted(&held) == sorted(&label.addresses))
}

/// The label of a veth, if it has one and it is its own.
fn label_of(veth: &HostSide) -> Option<Label> {
    let label: Label = veth.label.as_ref()?.parse().ok()?;
    (host_interface(&label.owner) == veth.name).then_some(label)
}

/// Which pod holds which address cannot be told. Nothing was changed; the pods keep working, and no other is attached.
#[derive(Debug, Error)]
pub enum RecoveryError {
    /// A veth does not tell whose it is.
    #[error(
        "interface {0} does not tell whose it is: delete its pod, or drain the node, run `warren uninstall-node` and start \
         the agent again; it does not guess, because a guess could give one address to two pods"
    )]
    NoLabel(String),
    /// Two veths tell the same address.
    #[error(transparent)]
    Twice(#[from] ReserveError),
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn owner(n: u8) -> Owner {
        Owner {
            container_id: format!("c{n}"),
            if_name: "eth0".to_owned(),
        }
    }

    fn address(n: u8) -> IpAddr {
        [10, 244, 1, n].into()
    }

    fn veth(n: u8, address_of: u8) -> HostSide {
        let label = Label {
            owner: owner(n),
            addresses: vec![address(address_of)],
            netns: format!("/run/netns/{n}"),
        };
        HostSide {
            name: host_interface(&label.owner),
            label: label.to_alias(),
            up: true,
        }
    }

    fn contents(recorded: &[(u8, u8)]) -> Contents {
        let mut contents = Contents::default();
        for &(n, address_of) in recorded {
            let record = Record {
                interface: host_interface(&owner(n)),
                mac: pod_mac(&owner(n)).0,
                netns: format!("/run/netns/{n}"),
                pod: Some(format!("default/pod{n}")),
                network: Some("warren".to_owned()),
            };
            contents
                .restore(&owner(n), record, &[address(address_of)])
                .unwrap();
        }
        contents
    }

    #[test]
    fn what_is_recorded_as_it_is_stays_as_it_is_with_its_pods_name() {
        let mut contents = contents(&[(1, 1), (2, 2)]);
        let adopted = adopt(&mut contents, &[veth(1, 1)], true).unwrap();
        assert_eq!(adopted, []);
        assert_eq!(
            contents.get(&owner(1)).unwrap().0.pod.as_deref(),
            Some("default/pod1")
        );
        assert!(contents.get(&owner(2)).is_some(), "freed by a pass, not here");
    }

    #[test]
    fn a_copy_put_back_from_before_gives_way_to_what_the_veths_tell() {
        // Since the copy was made, 1 has gone, its address was given to 3, and 2 came again with another address.
        let mut contents = contents(&[(1, 1), (2, 2)]);
        let adopted = adopt(&mut contents, &[veth(3, 1), veth(2, 4)], true).unwrap();
        assert_eq!(adopted.len(), 2);
        assert!(contents.get(&owner(1)).is_none());
        assert_eq!(contents.get(&owner(2)).unwrap().1, [address(4)]);
        let (record, addresses) = contents.get(&owner(3)).unwrap();
        assert_eq!(addresses, [address(1)]);
        assert_eq!(record.interface, host_interface(&owner(3)));
        assert_eq!(record.mac(), pod_mac(&owner(3)));
        assert_eq!(record.netns, "/run/netns/3");
    }

    #[test]
    fn a_veth_that_does_not_tell_is_named_unless_the_file_knows_all_or_it_was_never_up() {
        let plain = HostSide {
            label: None,
            ..veth(1, 1)
        };
        let of_another = HostSide {
            label: veth(2, 1).label,
            ..veth(1, 1)
        };
        for veth in [plain, of_another] {
            let error = adopt(&mut contents(&[]), std::slice::from_ref(&veth), false).unwrap_err();
            assert!(error.to_string().contains(&veth.name), "{error}");
            assert_eq!(
                adopt(&mut contents(&[]), std::slice::from_ref(&veth), true).unwrap(),
                []
            );
            let half_made = HostSide { up: false, ..veth };
            assert_eq!(adopt(&mut contents(&[]), &[half_made], false).unwrap(), []);
        }
    }

    proptest! {
        /// Whatever the file says and whatever stands: either it is refused, or every veth's addresses are its own.
        #[test]
        fn every_veth_has_its_addresses_for_itself_or_it_is_refused(
            recorded in proptest::collection::btree_map(0u8..8, 0u8..8, 0..6),
            alive in proptest::collection::btree_map(0u8..8, 0u8..8, 0..6),
            whole: bool,
        ) {
            let mut taken = BTreeSet::new();
            let recorded: Vec<(u8, u8)> = recorded.into_iter().filter(|(_, it)| taken.insert(*it)).collect();
            let veths: Vec<HostSide> = alive.iter().map(|(&n, &at)| veth(n, at)).collect();
            let distinct = alive.values().collect::<BTreeSet<_>>().len() == alive.len();
            let mut contents = contents(if whole { &recorded } else { &[] });
            let adopted = adopt(&mut contents, &veths, whole);
            prop_assert_eq!(adopted.is_ok(), distinct);
            if let Ok(adopted) = adopted {
                for (&n, &at) in &alive {
                    prop_assert_eq!(contents.get(&owner(n)).unwrap().1, vec![address(at)]);
                    prop_assert_eq!(contents.allocations().owner(address(at)), Some(&owner(n)));
                }
                // A second start finds nothing to do.
                prop_assert!(adopted.len() <= alive.len());
                prop_assert_eq!(adopt(&mut contents, &veths, true).unwrap(), vec![]);
            }
        }
    }
}
