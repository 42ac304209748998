//! What of a pass is to be reported.

use std::collections::BTreeMap;

use warren_cluster::Snapshot;
use warren_cluster::events::{Finding, ROTATION_BEGUN, ROTATION_PUT_OFF};
use warren_cluster::schedule::notice;
use warren_keymgr::trust;
use warren_model::Refusal;

use crate::policy::NO_DENIED_LOG;
use crate::view::View;

/// What depends on the node that finds it, or on its clock: another need not see it.
const SEEN_BY_SOME: [&str; 4] = [
    "mtu-below-ipv6",
    "no-common-family",
    ROTATION_BEGUN,
    ROTATION_PUT_OFF,
];

/// The refusals of objects that exist.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// Of nodes, Meshes and policies.
    mesh: Vec<Finding>,
    /// Of this node's pods, which no other agent watches, and of its kernel.
    own: Vec<Finding>,
}

impl Findings {
    /// Those of a pass; `None` while the watches are not in sync.
    pub(super) fn of(view: &View, now: i64) -> Option<Self> {
        let desired = view.desired.as_ref()?;
        let told = notice(&view.snapshot, now);
        let taken = view.key_changes.iter().filter(|change| change.in_force);
        let taken = taken.map(trust::notice);
        let all: Vec<Refusal> = desired
            .refusals
            .iter()
            .cloned()
            .chain(told)
            .chain(taken)
            .collect();
        Some(Self::among(&view.snapshot, &all))
    }

    fn among(snapshot: &Snapshot, refusals: &[Refusal]) -> Self {
        let uids = uids(snapshot);
        let mut findings = Self::default();
        for refusal in refusals {
            let Some(uid) = uids.get(&refusal.object) else {
                continue;
            };
            let finding = Finding {
                refusal: refusal.clone(),
                uid: (*uid).to_owned(),
            };
            if refusal.object.starts_with("Pod/") || refusal.code == NO_DENIED_LOG {
                findings.own.push(finding);
            } else {
                findings.mesh.push(finding);
            }
        }
        findings
    }

    /// All of them.
    pub(super) fn all(&self) -> impl Iterator<Item = &Finding> {
        self.own.iter().chain(&self.mesh)
    }

    /// Those that nobody else can report.
    pub(super) fn own(&self) -> impl Iterator<Item = &Finding> {
        self.own.iter()
    }

    /// Those of nodes, Meshes and policies: all of them, or only what every agent sees.
    pub(super) fn of_mesh(&self, all: bool) -> impl Iterator<Item = &Finding> {
        self.mesh
            .iter()
            .filter(move |it| all || is_seen_by_all(&it.refusal))
    }

    /// What every agent sees refused of nodes and of policies; what a Mesh is refused for its status says otherwise.
    pub(super) fn of_others(&self) -> Vec<Refusal> {
        let of_others = self
            .of_mesh(false)
            // A key that changed is told, and acted on all the same.
            .filter(|it| !it.refusal.object.starts_with("Mesh/") && it.refusal.code != trust::CHANGED);
        of_others.map(|it| it.refusal.clone()).collect()
    }
}

fn is_seen_by_all(refusal: &Refusal) -> bool {
    !SEEN_BY_SOME.contains(&refusal.code.as_str())
}

/// The uids of all objects there are, by what refusals call them.
fn uids(snapshot: &Snapshot) -> BTreeMap<String, &str> {
    let nodes = snapshot
        .nodes
        .values()
        .map(|it| (format!("Node/{}", it.name), it.uid.as_str()));
    let meshes = snapshot
        .mesh_uids
        .iter()
        .map(|(name, uid)| (format!("Mesh/{name}"), uid.as_str()));
    let pods = snapshot
        .pods
        .iter()
        .map(|it| (format!("Pod/{}", it.name), it.uid.as_str()));
    let policies = snapshot
        .policy_uids
        .iter()
        .map(|(object, uid)| (object.clone(), uid.as_str()));
    nodes.chain(meshes).chain(pods).chain(policies).collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use warren_model::{Node, Pod, PodName};

    use super::*;

    fn findings(refusals: &[(&str, &str)]) -> Findings {
        let node = Node {
            name: "a".parse().unwrap(),
            uid: "node-uid".to_owned(),
            created: 0,
            pod_cidrs: Vec::new(),
            internal_ips: Vec::new(),
            announcement: None,
            ready: true,
        };
        let pod = Pod {
            name: PodName {
                namespace: "ns".to_owned(),
                name: "p".to_owned(),
            },
            uid: "pod-uid".to_owned(),
            ips: Vec::new(),
            host_network: false,
            finished: false,
        };
        let snapshot = Snapshot {
            nodes: BTreeMap::from([(node.name.clone(), node)]),
            mesh_uids: BTreeMap::from([("other".to_owned(), "mesh-uid".to_owned())]),
            policy_uids: BTreeMap::from([("GlobalNetworkPolicy/g".to_owned(), "policy-uid".to_owned())]),
            pods: vec![pod],
            ..Snapshot::default()
        };
        let refused = refusals
            .iter()
            .map(|(object, code)| Refusal::new(*object, code, "text"));
        Findings::among(&snapshot, &refused.collect::<Vec<_>>())
    }

    fn uids_of<'a>(findings: impl Iterator<Item = &'a Finding>) -> Vec<&'a str> {
        findings.map(|it| it.uid.as_str()).collect()
    }

    #[test]
    fn each_refusal_goes_to_those_who_can_report_it() {
        let findings = findings(&[
            ("Mesh/other", "mesh-not-default"),
            ("Node/a", "no-common-family"),
            ("Node/a", "no-pod-cidr"),
            ("Node/gone", "no-pod-cidr"),
            ("Pod/ns/p", "foreign-pod-address"),
            ("Node/a", NO_DENIED_LOG),
            ("GlobalNetworkPolicy/g", "policy-selector"),
            ("GlobalNetworkPolicy/gone", "policy-selector"),
        ]);
        assert_eq!(
            uids_of(findings.of_mesh(true)),
            ["mesh-uid", "node-uid", "node-uid", "policy-uid"]
        );
        assert_eq!(
            uids_of(findings.of_mesh(false)),
            ["mesh-uid", "node-uid", "policy-uid"]
        );
        assert_eq!(uids_of(findings.own()), ["pod-uid", "node-uid"]);
        assert_eq!(findings.all().count(), 6);
        let of_others: Vec<_> = findings.of_others().into_iter().map(|it| it.code).collect();
        assert_eq!(of_others, ["no-pod-cidr", "policy-selector"]);
    }

    #[test]
    fn nothing_is_reported_before_the_watches_are_in_sync() {
        assert!(Findings::of(&View::default(), 0).is_none());
    }
}
