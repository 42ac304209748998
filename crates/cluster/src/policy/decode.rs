//! From API objects to what policies are made of and compiled against. A policy that cannot be honoured becomes an [`Invalid`] one
//! that says why and stands for as much of it as was understood; it is never an error of the whole.

use std::net::IpAddr;

use k8s_openapi::api::core::v1 as k8s;
use kube::api::DynamicObject;
use serde::de::DeserializeOwned;
use serde_json::Value;
use warren_model::{PodName, Refusal};
use warren_policy::policy::DEFAULT_TIER;
use warren_policy::warren::{HostEndpointSpec, NetworkSetSpec, PolicySpec};
use warren_policy::{
    HostEndpoint, Invalid, Labels, NamedPort, Namespace, NetworkSet, Pod, Policy, PolicyId, PolicyKind,
    Protocol, Since, kubernetes, warren,
};

use crate::decode::{Decoded, created};

/// A policy, or what stands for one that was refused.
pub type ReadPolicy = Result<Policy, Box<Invalid>>;

/// Reads a Pod. An address that is none is left out.
pub fn pod(pod: &k8s::Pod) -> Pod {
    let (spec, status) = (pod.spec.as_ref(), pod.status.as_ref());
    let ips = status.and_then(|it| it.pod_ips.as_deref()).unwrap_or_default();
    let phase = status.and_then(|it| it.phase.as_deref());
    Pod {
        name: PodName {
            namespace: pod.metadata.namespace.clone().unwrap_or_default(),
            name: pod.metadata.name.clone().unwrap_or_default(),
        },
        uid: pod.metadata.uid.clone().unwrap_or_default(),
        labels: Labels::from(pod.metadata.labels.clone().unwrap_or_default()),
        addresses: ips.iter().filter_map(|it| it.ip.parse::<IpAddr>().ok()).collect(),
        ports: spec.map(named_ports).unwrap_or_default(),
        host_network: spec.and_then(|it| it.host_network).unwrap_or(false),
        finished: matches!(phase, Some("Succeeded" | "Failed")),
        node: spec
            .and_then(|it| it.node_name.as_deref())
            .and_then(|name| name.parse().ok()),
        since: Since::Created(created(&pod.metadata)),
    }
}

/// The ports with names of containers, and of init containers that go on running beside them.
fn named_ports(spec: &k8s::PodSpec) -> Vec<NamedPort> {
    let beside = |it: &&k8s::Container| it.restart_policy.as_deref() == Some("Always");
    let containers = spec.init_containers.iter().flatten().filter(beside);
    let ports = containers
        .chain(&spec.containers)
        .flat_map(|it| it.ports.iter().flatten());
    let named = ports.filter_map(|port| {
        Some(NamedPort {
            name: port.name.clone().filter(|name| !name.is_empty())?,
            protocol: Protocol::named(port.protocol.as_deref().unwrap_or("TCP"))?,
            port: u16::try_from(port.container_port).ok()?,
        })
    });
    named.collect()
}

/// Reads a Namespace.
pub fn namespace(namespace: &k8s::Namespace) -> Namespace {
    Namespace {
        name: namespace.metadata.name.clone().unwrap_or_default(),
        labels: Labels::from(namespace.metadata.labels.clone().unwrap_or_default()),
    }
}

/// Reads a `networking.k8s.io/v1` NetworkPolicy.
pub fn kubernetes_policy(mut object: DynamicObject) -> ReadPolicy {
    let id = id(&object, PolicyKind::Kubernetes);
    let spec = spec_of::<kubernetes::NetworkPolicySpec>(&mut object, &id)?;
    kubernetes::check(id.namespace.as_deref().unwrap_or_default(), &id.name, &spec)
}

/// Reads a `warren-mesh.io` NetworkPolicy.
pub fn warren_policy(mut object: DynamicObject) -> ReadPolicy {
    let id = id(&object, PolicyKind::Warren);
    let spec = spec_of::<PolicySpec>(&mut object, &id)?;
    warren::check(id.namespace.as_deref().unwrap_or_default(), &id.name, &spec).and_then(of_known_tier)
}

/// Reads a GlobalNetworkPolicy.
pub fn global_policy(mut object: DynamicObject) -> ReadPolicy {
    let id = id(&object, PolicyKind::Global);
    let spec = spec_of::<PolicySpec>(&mut object, &id)?;
    warren::check_global(&id.name, &spec).and_then(of_known_tier)
}

/// There is one tier, and no kind of object to make others with. Refused here and not first where policies are compiled, because
/// from here each refusal finds its way to Event, metric and status.
fn of_known_tier(policy: Policy) -> ReadPolicy {
    if policy.tier == DEFAULT_TIER {
        Ok(policy)
    } else {
        Err(Box::new(Invalid::of_unknown_tier(&policy)))
    }
}

/// Reads a NetworkSet, or where the object has no namespace a GlobalNetworkSet. What cannot be read as a set at all is empty.
pub fn network_set(mut object: DynamicObject) -> Decoded<NetworkSet> {
    let namespace = object.metadata.namespace.clone();
    let name = object.metadata.name.clone().unwrap_or_default();
    let labels = Labels::from(object.metadata.labels.take().unwrap_or_default());
    let (spec, unreadable) = match serde_json::from_value::<NetworkSetSpec>(take_spec(&mut object)) {
        Ok(spec) => (spec, None),
        Err(error) => (NetworkSetSpec::default(), Some(error)),
    };
    let (value, mut refusals) = warren::read_network_set(namespace.as_deref(), &name, labels, &spec);
    refusals.extend(unreadable.map(|error| {
        let object = match &namespace {
            Some(namespace) => format!("NetworkSet/{namespace}/{name}"),
            None => format!("GlobalNetworkSet/{name}"),
        };
        unreadable_object(object, &error)
    }));
    Decoded {
        value: Some(value),
        refusals,
    }
}

/// Reads a HostEndpoint. One that is refused protects nothing.
pub fn host_endpoint(mut object: DynamicObject) -> Decoded<HostEndpoint> {
    let name = object.metadata.name.clone().unwrap_or_default();
    let labels = Labels::from(object.metadata.labels.take().unwrap_or_default());
    let spec = serde_json::from_value::<HostEndpointSpec>(take_spec(&mut object))
        .map_err(|error| unreadable_object(format!("HostEndpoint/{name}"), &error));
    match spec.and_then(|spec| warren::read_host_endpoint(&name, labels, &spec)) {
        Ok(value) => Decoded {
            value: Some(value),
            refusals: Vec::new(),
        },
        Err(refusal) => Decoded {
            value: None,
            refusals: vec![refusal],
        },
    }
}

fn id(object: &DynamicObject, kind: PolicyKind) -> PolicyId {
    PolicyId {
        kind,
        namespace: match kind {
            PolicyKind::Global => None,
            PolicyKind::Warren | PolicyKind::Kubernetes => {
                Some(object.metadata.namespace.clone().unwrap_or_default())
            }
        },
        name: object.metadata.name.clone().unwrap_or_default(),
    }
}

fn spec_of<T: DeserializeOwned>(object: &mut DynamicObject, id: &PolicyId) -> Result<T, Box<Invalid>> {
    serde_json::from_value(take_spec(object))
        .map_err(|error| Box::new(Invalid::unreadable(id.clone(), format!("spec: {error}"))))
}

/// `spec`; one that is absent says as much as an empty one.
fn take_spec(object: &mut DynamicObject) -> Value {
    match object.data.get_mut("spec").map(Value::take) {
        None | Some(Value::Null) => Value::Object(serde_json::Map::new()),
        Some(spec) => spec,
    }
}

fn unreadable_object(object: String, error: &serde_json::Error) -> Refusal {
    Refusal::new(object, "policy-unreadable", format!("spec: {error}"))
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
