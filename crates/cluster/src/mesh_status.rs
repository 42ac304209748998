//! The status of `Mesh/default`: what it says, and the write.
//!
//! What it says is a function of what every agent sees alike, so that any of them may be the one that writes it:
//! [`crate::election`] decides which. Nothing is in it that one agent knows and another does not.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use warren_model::mesh::{MESH_NAME, OnInvalid};
use warren_model::{Epoch, Node, NodeName, Refusal};

use crate::mesh_resource::{GROUP, Mesh, MeshStatus, VERSION};
use crate::schedule::since;
use crate::snapshot::{ObservedMesh, Snapshot};
use crate::write::{FIELD_MANAGER, WriteError};

/// Most nodes that a condition's message names.
const NAMED: usize = 5;

/// How many agents are more senior than that node's and able to report; one that is not Ready or has not published comes
/// after all of those that are.
pub fn place(snapshot: &Snapshot, name: &NodeName) -> usize {
    let is_able = |node: &&Node| node.ready && settled(node).is_some();
    let able = || snapshot.nodes.values().filter(is_able);
    match snapshot.nodes.get(name).filter(is_able) {
        Some(own) => able().filter(|node| node.seniority() < own.seniority()).count(),
        None => usize::MAX,
    }
}

/// What the status should say. `refused`: what is refused of nodes and policies, as every agent sees it. `now`, seconds since 1970, becomes the transition time of a condition whose status
/// differs from what the object shows; the others keep theirs, so that nothing is written while nothing changes.
pub fn mesh_status(snapshot: &Snapshot, refused: &[Refusal], now: i64) -> MeshStatus {
    let epoch = snapshot.mesh.keys.epoch;
    let counted: Vec<_> = snapshot
        .nodes
        .values()
        .filter(|node| !node.pod_cidrs.is_empty())
        .collect();
    let ready = counted.iter().filter(|node| is_ready_in(node, epoch)).count();
    let reporting = counted.iter().filter(|node| node.ready);
    let lowest = reporting.filter_map(|node| settled(node)).min();
    let old = snapshot.mesh_object.as_ref();
    let conditions = [
        accepted(old),
        nodes_accepted(refused),
        policies_accepted(snapshot, refused),
        all_ready(&counted, epoch),
        all_settled(&counted, epoch),
    ];
    MeshStatus {
        nodes: count(counted.len()),
        ready: count(ready),
        epoch: i64::from(epoch.number()),
        epoch_since: Some(since(snapshot, now).unwrap_or_else(|| at(now))),
        scheduled_epoch: old.and_then(|old| old.status.as_ref()?.scheduled_epoch),
        settled: lowest.map(|epoch| i64::from(epoch.number())),
        conditions: conditions.map(|verdict| verdict.into_condition(old, now)).into(),
    }
}

/// Whether the object shows something else.
pub fn needs_write(observed: &ObservedMesh, desired: &MeshStatus) -> bool {
    observed.status.as_ref() != Some(desired)
}

/// Writes the status by server-side apply, to the object as it was observed: a Mesh that was made anew, or that another
/// agent has written meanwhile, is not written ([`WriteError::Changed`]).
pub async fn write_status(
    client: &Client,
    observed: &ObservedMesh,
    desired: &MeshStatus,
) -> Result<(), WriteError> {
    let patch = json!({
        "apiVersion": format!("{GROUP}/{VERSION}"),
        "kind": "Mesh",
        "metadata": {"name": MESH_NAME, "uid": observed.uid, "resourceVersion": observed.version},
        "status": desired,
    });
    let meshes = Api::<DynamicObject>::all_with(client.clone(), &ApiResource::erase::<Mesh>(&()));
    let params = PatchParams::apply(FIELD_MANAGER).force();
    match meshes
        .patch_status(MESH_NAME, &params, &Patch::Apply(&patch))
        .await
    {
        Ok(_) => Ok(()),
        Err(error) => Err(WriteError::new(format!("Mesh/{MESH_NAME}"), &error)),
    }
}

/// A condition but for its time.
struct Verdict {
    kind: &'static str,
    holds: bool,
    reason: &'static str,
    message: String,
}

impl Verdict {
    fn into_condition(self, old: Option<&ObservedMesh>, now: i64) -> Condition {
        let status = if self.holds { "True" } else { "False" };
        let conditions = old
            .and_then(|it| it.status.as_ref())
            .map(|it| it.conditions.as_slice());
        let same = conditions
            .unwrap_or_default()
            .iter()
            .find(|it| it.type_ == self.kind && it.status == status);
        Condition {
            type_: self.kind.to_owned(),
            status: status.to_owned(),
            reason: self.reason.to_owned(),
            message: self.message,
            last_transition_time: same.map_or_else(|| at(now), |it| it.last_transition_time.clone()),
            observed_generation: old.map(|it| it.generation),
        }
    }
}

fn accepted(mesh: Option<&ObservedMesh>) -> Verdict {
    let problems = mesh.map(|it| it.problems.as_slice()).unwrap_or_default();
    let holds = problems.is_empty();
    Verdict {
        kind: "Accepted",
        holds,
        reason: if holds { "Valid" } else { "Invalid" },
        message: if holds {
            "the spec is in force".to_owned()
        } else {
            format!(
                "{}; until then each agent keeps what it held before, or the defaults (encryption on, no fallback)",
                problems.join("; ")
            )
        },
    }
}

/// The Events of the nodes have the remedies.
fn nodes_accepted(refused: &[Refusal]) -> Verdict {
    let named = named(refused, |object| object.starts_with("Node/"));
    let holds = named.is_empty();
    Verdict {
        kind: "NodesAccepted",
        holds,
        reason: if holds { "NothingRefused" } else { "NodesRefused" },
        message: if holds {
            "nothing that the nodes say is refused".to_owned()
        } else {
            format!("refused: {}", listed(&named))
        },
    }
}

/// The Events of the policies have the remedies.
fn policies_accepted(snapshot: &Snapshot, refused: &[Refusal]) -> Verdict {
    let named = named(refused, |object| !object.starts_with("Node/"));
    let holds = named.is_empty();
    Verdict {
        kind: "PoliciesAccepted",
        holds,
        reason: if holds {
            "NothingRefused"
        } else {
            "PoliciesRefused"
        },
        message: if holds {
            "every policy is honoured".to_owned()
        } else {
            let fate = match snapshot.mesh.policy.on_invalid {
                OnInvalid::Closed => "the pods that refused policies select fail closed",
                OnInvalid::Open => "refused policies do not count",
            };
            format!("{fate}; refused: {}", listed(&named))
        },
    }
}

/// The objects that are refused, and why in a word.
fn named(refused: &[Refusal], is_meant: fn(&str) -> bool) -> Vec<String> {
    let meant = refused.iter().filter(|it| is_meant(&it.object));
    let mut named: Vec<_> = meant.map(|it| format!("{} ({})", it.object, it.code)).collect();
    named.sort();
    named.dedup();
    named
}

fn all_ready(counted: &[&Node], epoch: Epoch) -> Verdict {
    let kind = "Ready";
    if counted.is_empty() {
        return no_nodes(kind);
    }
    let missing: Vec<_> = counted.iter().filter(|node| !is_ready_in(node, epoch)).collect();
    let holds = missing.is_empty();
    Verdict {
        kind,
        holds,
        reason: if holds { "AllNodesReady" } else { "NodesNotReady" },
        message: if holds {
            format!("all nodes are Ready and publish a key of epoch {epoch}")
        } else {
            let names = names(missing.iter().map(|node| &node.name));
            format!("not Ready or without a published key of epoch {epoch}: {names}")
        },
    }
}

fn all_settled(counted: &[&Node], epoch: Epoch) -> Verdict {
    let kind = "Settled";
    let reporting: Vec<_> = counted.iter().filter(|node| node.ready).collect();
    if reporting.is_empty() {
        return no_nodes(kind);
    }
    let behind: Vec<_> = reporting
        .iter()
        .filter(|node| settled(node).is_none_or(|it| it < epoch))
        .collect();
    let holds = behind.is_empty();
    Verdict {
        kind,
        holds,
        reason: if holds { "EpochSettled" } else { "NodesBehind" },
        message: if holds {
            format!("every Ready node has settled in epoch {epoch}")
        } else {
            format!(
                "not settled in epoch {epoch}: {}",
                names(behind.iter().map(|node| &node.name))
            )
        },
    }
}

fn no_nodes(kind: &'static str) -> Verdict {
    Verdict {
        kind,
        holds: false,
        reason: "NoNodes",
        message: "no Ready node has a pod CIDR: let the controller manager allocate them \
                  (--allocate-node-cidrs, --cluster-cidr)"
            .to_owned(),
    }
}

fn is_ready_in(node: &Node, epoch: Epoch) -> bool {
    let published = matches!(&node.announcement, Some(Ok(it)) if it.key(epoch).is_some());
    node.ready && published
}

/// The epoch a node says it has settled in; `None`: it has published nothing that can be read.
fn settled(node: &Node) -> Option<Epoch> {
    match &node.announcement {
        Some(Ok(announcement)) => Some(announcement.settled),
        Some(Err(_)) | None => None,
    }
}

fn names<'a>(all: impl Iterator<Item = &'a NodeName>) -> String {
    listed(&all.map(NodeName::as_str).collect::<Vec<_>>())
}

/// The first few, and how many more.
fn listed<S: AsRef<str>>(all: &[S]) -> String {
    let shown: Vec<_> = all.iter().take(NAMED).map(AsRef::as_ref).collect();
    let shown = shown.join(", ");
    match all.len().saturating_sub(NAMED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

fn count(nodes: usize) -> i64 {
    i64::try_from(nodes).unwrap_or(i64::MAX)
}

fn at(seconds: i64) -> Time {
    Time(Timestamp::from_second(seconds).unwrap_or_default())
}

#[cfg(test)]
#[path = "mesh_status_tests.rs"]
mod tests;
