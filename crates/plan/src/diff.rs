//! The steps from what the kernel is to what it should be.
//!
//! Additions follow their dependencies: the guard before anything can carry a packet, devices before peers, peers before
//! the routes that lead to them. Removals run in reverse: routes, neighbours, addresses, peers, devices. So any prefix
//! of the steps leaves a node where nothing that must be encrypted can leave in the clear, and where no route leads
//! to a peer that is not there. A guard that is to let less out than the routes now need comes in the plan after the one
//! that moves them: see [`handover`](crate::handover).

use std::collections::BTreeMap;

use warren_model::Lane;

use crate::lane::{LaneChanges, LaneObserved};
use crate::state::{Desired, Link, LinkKind, Observed};
use crate::step::{Action, Step};

/// The steps that make `observed` what `desired` is; none if it is already.
pub fn diff(desired: &Desired, observed: &Observed) -> Vec<Step> {
    let mut steps = Steps::default();
    steps.guard(desired, observed);
    // An interface that must be made anew is gone, with all that hangs on it, before anything else is compared.
    let mut remaining = observed.clone();
    steps.replace_links(desired, &mut remaining);
    let observed = &remaining;

    steps.add_links(desired, observed);
    let lanes = lane_changes(desired, observed);
    steps.configure_lanes(&lanes, |changes| &changes.adds, "the mesh has it");
    steps.set_up_links(desired, observed);
    steps.add_addresses(desired, observed);
    steps.add_neighbours(desired, observed);
    steps.set_sysctls(desired, observed);
    steps.set_routes(desired, observed);

    steps.remove_routes(desired, observed);
    steps.remove_neighbours(desired, observed);
    steps.remove_addresses(desired, observed);
    steps.configure_lanes(&lanes, |changes| &changes.removes, "the mesh has it no longer");
    steps.remove_links(desired, observed);
    steps.0
}

fn lane_changes(desired: &Desired, observed: &Observed) -> BTreeMap<Lane, LaneChanges> {
    let fresh = LaneObserved::default();
    let changes = |(lane, config): (&Lane, &crate::lane::LaneConfig)| {
        (
            *lane,
            config.changes_from(observed.lanes.get(lane).unwrap_or(&fresh)),
        )
    };
    desired.lanes.iter().map(changes).collect()
}

/// Whether a live interface can become the wanted one without being made anew.
fn compatible(wanted: &Link, found: &Link) -> bool {
    wanted.kind == found.kind
}

#[derive(Default)]
struct Steps(Vec<Step>);

impl Steps {
    fn push(&mut self, action: Action, reason: impl Into<String>) {
        self.0.push(Step {
            action,
            reason: reason.into(),
        });
    }

    fn guard(&mut self, desired: &Desired, observed: &Observed) {
        let same_rules = observed.guard == Some(desired.guard.fingerprint());
        let reason = match observed.guard {
            _ if same_rules && observed.open_pods == desired.guard.pods => return,
            None => "it is not there, or not whole",
            Some(_) if same_rules => "pods have come or gone",
            Some(_) => "nodes or the Mesh have changed",
        };
        self.push(Action::InstallGuard(desired.guard.clone()), reason);
    }

    fn replace_links(&mut self, desired: &Desired, remaining: &mut Observed) {
        for (name, wanted) in &desired.links {
            let Some(found) = remaining.links.get(name) else {
                continue;
            };
            if !compatible(wanted, found) {
                let kind = found.kind.clone();
                self.push(
                    Action::RemoveLink(name.clone(), kind),
                    "it must be made anew with other settings",
                );
                remaining.remove_link(name);
            }
        }
    }

    fn add_links(&mut self, desired: &Desired, observed: &Observed) {
        for (name, wanted) in &desired.links {
            match (&wanted.kind, observed.links.get(name)) {
                (LinkKind::Lane(lane), None) => {
                    self.push(Action::CreateLane(*lane, wanted.mtu), "each node has both lanes");
                }
                (LinkKind::Vxlan(vxlan), None) => {
                    self.push(
                        Action::CreateVxlan(vxlan.clone(), wanted.mtu),
                        "the Mesh allows vxlan",
                    );
                }
                (LinkKind::Ipip(ipip), None) => {
                    self.push(
                        Action::CreateIpip(ipip.clone(), wanted.mtu),
                        "the Mesh allows ipip",
                    );
                }
                // Only attaching a pod makes a veth.
                (LinkKind::Veth | LinkKind::Foreign, None) => {}
                (_, Some(found)) if found.mtu != wanted.mtu => {
                    self.push(
                        Action::SetMtu(name.clone(), wanted.mtu),
                        format!("it was {}", found.mtu),
                    );
                }
                (_, Some(_)) => {}
            }
        }
    }

    fn set_up_links(&mut self, desired: &Desired, observed: &Observed) {
        for (name, wanted) in &desired.links {
            let found = observed.links.get(name);
            let made_here = found.is_none()
                && matches!(
                    wanted.kind,
                    LinkKind::Lane(_) | LinkKind::Vxlan(_) | LinkKind::Ipip(_)
                );
            if wanted.up && (made_here || found.is_some_and(|found| !found.up)) {
                self.push(Action::SetUp(name.clone()), "it is down");
            }
        }
    }

    fn configure_lanes(
        &mut self,
        lanes: &BTreeMap<Lane, LaneChanges>,
        half: impl Fn(&LaneChanges) -> &Vec<crate::lane::LaneChange>,
        reason: &str,
    ) {
        for (lane, changes) in lanes {
            for change in half(changes) {
                self.push(Action::ConfigureLane(*lane, change.clone()), reason);
            }
        }
    }

    fn add_addresses(&mut self, desired: &Desired, observed: &Observed) {
        for (link, address) in desired.addresses.difference(&observed.addresses) {
            self.push(
                Action::AddAddress(link.clone(), *address),
                "node-local address of this node's pod CIDR",
            );
        }
    }

    fn add_neighbours(&mut self, desired: &Desired, observed: &Observed) {
        for ((link, address), mac) in &desired.neighbours {
            if observed.neighbours.get(&(link.clone(), *address)) != Some(mac) {
                self.push(
                    Action::SetNeighbour(link.clone(), *address, *mac),
                    "its MAC is known beforehand",
                );
            }
        }
        for (mac, host) in &desired.fdb {
            if observed.fdb.get(mac) != Some(host) {
                self.push(Action::SetFdb(*mac, *host), "the peer's InternalIP");
            }
        }
    }

    fn set_sysctls(&mut self, desired: &Desired, observed: &Observed) {
        for (key, value) in &desired.sysctls {
            if observed.sysctls.get(key) != Some(value) {
                self.push(
                    Action::SetSysctl(key.clone(), value.clone()),
                    "pod traffic needs it",
                );
            }
        }
    }

    fn set_routes(&mut self, desired: &Desired, observed: &Observed) {
        for (net, route) in &desired.routes {
            let reason = match observed.routes.get(net) {
                Some(found) if found == route => continue,
                Some(found) => format!("it was {found}"),
                None => "there is none".to_owned(),
            };
            self.push(Action::SetRoute(*net, route.clone()), reason);
        }
    }

    fn remove_routes(&mut self, desired: &Desired, observed: &Observed) {
        for net in observed
            .routes
            .keys()
            .filter(|net| !desired.routes.contains_key(*net))
        {
            self.push(Action::RemoveRoute(*net), "no node or pod has it");
        }
    }

    fn remove_neighbours(&mut self, desired: &Desired, observed: &Observed) {
        for mac in observed.fdb.keys().filter(|mac| !desired.fdb.contains_key(*mac)) {
            self.push(Action::RemoveFdb(*mac), "no peer has it");
        }
        for key in observed
            .neighbours
            .keys()
            .filter(|key| !desired.neighbours.contains_key(*key))
        {
            self.push(
                Action::RemoveNeighbour(key.0.clone(), key.1),
                "no peer or pod has it",
            );
        }
    }

    fn remove_addresses(&mut self, desired: &Desired, observed: &Observed) {
        for (link, address) in observed.addresses.difference(&desired.addresses) {
            if desired.links.contains_key(link) {
                self.push(
                    Action::RemoveAddress(link.clone(), *address),
                    "not in this node's pod CIDRs",
                );
            }
        }
    }

    fn remove_links(&mut self, desired: &Desired, observed: &Observed) {
        for (name, found) in observed
            .links
            .iter()
            .filter(|(name, _)| !desired.links.contains_key(*name))
        {
            let reason = match found.kind {
                LinkKind::Veth => "no attached pod has it",
                LinkKind::Lane(_) | LinkKind::Vxlan(_) | LinkKind::Ipip(_) | LinkKind::Foreign => {
                    "the Mesh has no use for it"
                }
            };
            self.push(Action::RemoveLink(name.clone(), found.kind.clone()), reason);
        }
    }
}
