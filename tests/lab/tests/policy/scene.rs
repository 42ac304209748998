//! A cluster to try policies in: what pods there are, how policies are applied, and whether the nodes do what they say.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use futures::future::try_join_all;
use kube::api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use warren_cluster::policy::list;
use warren_lab::knock::{Door, knock};
use warren_lab::{ApiKind, Facts, Lab, LabOptions, Place, PodKey, PodOptions, Port, Protocol};
use warren_policy::{Decision, Flow, Input, RuleSet, compile, verdict};

use crate::support::{PATIENCE, lab};

/// What each pod listens on.
pub(crate) const PORTS: [&str; 4] = ["tcp:80=http", "tcp:6379=redis", "udp:53=dns", "udp:5000"];
/// How long an answer is waited for: what is denied is never answered, so this is what a look takes.
pub(crate) const QUICK: Duration = Duration::from_millis(300);
/// The same, where an answer is expected and did not come.
const SLOW: Duration = Duration::from_secs(3);

/// A policy object, of any kind.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Object {
    pub(crate) kind: Kind,
    pub(crate) namespace: Option<&'static str>,
    pub(crate) name: String,
    pub(crate) labels: Value,
    pub(crate) spec: Value,
}

/// Which kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Kubernetes,
    Warren,
    Global,
    NetworkSet,
    HostEndpoint,
}

impl Kind {
    fn resource(self) -> ApiResource {
        const OURS: &str = "warren-mesh.io";
        let (group, version, kind, plural) = match self {
            Self::Kubernetes => ("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies"),
            Self::Warren => (OURS, "v1alpha1", "NetworkPolicy", "networkpolicies"),
            Self::Global => (OURS, "v1alpha1", "GlobalNetworkPolicy", "globalnetworkpolicies"),
            Self::NetworkSet => (OURS, "v1alpha1", "NetworkSet", "networksets"),
            Self::HostEndpoint => (OURS, "v1alpha1", "HostEndpoint", "hostendpoints"),
        };
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
    }
}

impl Object {
    pub(crate) fn global(name: &str, spec: Value) -> Self {
        Self {
            kind: Kind::Global,
            namespace: None,
            name: name.to_owned(),
            labels: json!({}),
            spec,
        }
    }

    pub(crate) fn kubernetes(namespace: &'static str, name: &str, spec: Value) -> Self {
        Self {
            kind: Kind::Kubernetes,
            namespace: Some(namespace),
            name: name.to_owned(),
            labels: json!({}),
            spec,
        }
    }

    fn api(&self, lab: &Lab) -> Api<DynamicObject> {
        match self.namespace {
            Some(namespace) => Api::namespaced_with(lab.client(), namespace, &self.kind.resource()),
            None => Api::all_with(lab.client(), &self.kind.resource()),
        }
    }

    /// Makes it, or makes it this.
    pub(crate) async fn apply(&self, lab: &Lab) {
        let resource = self.kind.resource();
        let object = json!({
            "apiVersion": resource.api_version, "kind": resource.kind,
            "metadata": {"name": self.name, "labels": self.labels},
            "spec": self.spec,
        });
        let params = PatchParams::apply("test").force();
        let applied = self
            .api(lab)
            .patch(&self.name, &params, &Patch::Apply(&object))
            .await;
        applied.unwrap_or_else(|error| panic!("{object}: {error}"));
    }

    pub(crate) async fn delete(&self, lab: &Lab) {
        self.api(lab)
            .delete(&self.name, &DeleteParams::default())
            .await
            .unwrap();
    }
}

/// One connection to try.
#[derive(Debug, Clone)]
pub(crate) struct Attempt {
    pub(crate) from: Place,
    pub(crate) source: IpAddr,
    pub(crate) door: Door,
}

impl Attempt {
    pub(crate) fn flow(&self) -> Flow {
        let protocol = match self.door.protocol {
            Protocol::Tcp => warren_policy::Protocol::TCP,
            Protocol::Udp => warren_policy::Protocol::UDP,
            Protocol::Sctp => warren_policy::Protocol::SCTP,
        };
        Flow::to_port(self.source, self.door.address, protocol, self.door.port)
    }
}

/// A lab with a pod for each of these: namespace, name, node and labels.
pub(crate) async fn scene(nodes: u8, pods: &[(&str, &str, &str, Value)]) -> Option<Lab> {
    scene_on(ApiKind::Embedded, nodes, pods).await
}

/// The same, with an API of that kind.
pub(crate) async fn scene_on(api: ApiKind, nodes: u8, pods: &[(&str, &str, &str, Value)]) -> Option<Lab> {
    let lab = lab(LabOptions {
        nodes,
        api,
        ..LabOptions::default()
    })
    .await?;
    for (namespace, name, node, labels) in pods {
        add(&lab, namespace, name, node, labels).await;
    }
    Some(lab)
}

/// Adds a pod that listens on all of [`PORTS`].
pub(crate) async fn add(lab: &Lab, namespace: &str, name: &str, node: &str, labels: &Value) {
    add_listening(lab, namespace, name, node, labels, &PORTS).await;
}

/// Adds a pod that listens on these.
pub(crate) async fn add_listening(
    lab: &Lab,
    namespace: &str,
    name: &str,
    node: &str,
    labels: &Value,
    ports: &[&str],
) {
    let mut pod = PodOptions::new(PodKey::new(namespace, name), node);
    pod.labels = serde_json::from_value(labels.clone()).unwrap();
    pod.ports = ports.iter().map(|port| port.parse().unwrap()).collect();
    lab.pod_add(pod).await.unwrap();
}

/// What the objects that there are come to, for the whole cluster.
pub(crate) async fn rules(lab: &Lab) -> RuleSet {
    let listed = list(&lab.client()).await.unwrap();
    let mut input = Input::new(&listed.policies, &listed.cluster);
    input.invalid = &listed.invalid;
    compile(&input)
}

/// Every pod to every one of [`PORTS`] of every other, over both families.
pub(crate) fn all_attempts(facts: &Facts) -> Vec<Attempt> {
    attempts(facts, &PORTS)
}

/// Every pod to these ports of every other, over both families.
pub(crate) fn attempts(facts: &Facts, ports: &[&str]) -> Vec<Attempt> {
    let mut attempts = Vec::new();
    for from in &facts.pods {
        for to in facts.pods.iter().filter(|to| to.key != from.key) {
            for (source, address) in from.addresses.iter().zip(&to.addresses) {
                attempts.extend(ports.iter().map(|port| {
                    let port: Port = port.parse().unwrap();
                    Attempt {
                        from: Place::Pod(from.key.clone()),
                        source: source.parse().unwrap(),
                        door: Door {
                            protocol: port.protocol,
                            address: address.parse().unwrap(),
                            port: port.port,
                        },
                    }
                }));
            }
        }
    }
    attempts
}

/// Tries connections, those from different places at once; which are answered.
pub(crate) async fn try_all(lab: &Lab, attempts: &[Attempt], patience: Duration) -> Vec<bool> {
    let mut by_place: BTreeMap<&Place, Vec<usize>> = BTreeMap::new();
    for (index, attempt) in attempts.iter().enumerate() {
        by_place.entry(&attempt.from).or_default().push(index);
    }
    let mut answered = vec![false; attempts.len()];
    let tried = by_place.into_iter().map(|(place, indices)| async move {
        let doors: Vec<Door> = indices.iter().map(|index| attempts[*index].door).collect();
        let found = knock(lab, place, &doors, patience).await?;
        anyhow::Ok((indices, found))
    });
    for (indices, found) in try_join_all(tried).await.unwrap() {
        for (index, is_answered) in indices.into_iter().zip(found) {
            answered[index] = is_answered;
        }
    }
    answered
}

/// Holds what is answered to the verdicts. Nodes may take a moment; what differs still after that is returned, in words.
pub(crate) async fn differences(lab: &Lab, attempts: &[Attempt], settle: Duration) -> (Vec<String>, usize) {
    let rules = rules(lab).await;
    let allowed = |attempt: &Attempt| verdict(&rules, &attempt.flow()).action == Decision::Allow;
    let mut open: Vec<Attempt> = attempts.to_vec();
    let deadline = Instant::now() + settle;
    let mut patience = QUICK;
    loop {
        let answered = try_all(lab, &open, patience).await;
        open = open
            .into_iter()
            .zip(answered)
            .filter(|(attempt, answered)| allowed(attempt) != *answered)
            .map(|(attempt, _)| attempt)
            .collect();
        if open.is_empty() || Instant::now() > deadline {
            break;
        }
        // Few are left, and one that is allowed may have been late.
        patience = SLOW.min(patience * 2);
    }
    let passing = attempts.iter().filter(|attempt| allowed(attempt)).count();
    let words = open.iter().map(|attempt| {
        let verdict = verdict(&rules, &attempt.flow());
        format!("{} from {:?}: {verdict:?}", attempt.flow(), attempt.from)
    });
    (words.collect(), passing)
}

/// Fails with what the nodes do otherwise than the verdicts say; says how many connections are allowed.
pub(crate) async fn assert_as_judged(lab: &Lab, attempts: &[Attempt]) -> usize {
    let (differences, passing) = differences(lab, attempts, PATIENCE / 6).await;
    assert!(differences.is_empty(), "{differences:#?}");
    passing
}

/// Sets labels of a pod or, without one, of a namespace.
pub(crate) async fn label(lab: &Lab, namespace: &str, pod: Option<&str>, labels: Value) {
    let kind = if pod.is_some() { "Pod" } else { "Namespace" };
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", kind));
    let api: Api<DynamicObject> = match pod {
        Some(_) => Api::namespaced_with(lab.client(), namespace, &resource),
        None => Api::all_with(lab.client(), &resource),
    };
    let patch = json!({"metadata": {"labels": labels}});
    let name = pod.unwrap_or(namespace);
    let patched = api
        .patch(name, &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .unwrap();
    assert_eq!(patched.name_any(), name);
}

/// A pod's place.
pub(crate) fn place(namespace: &str, name: &str) -> Place {
    Place::Pod(PodKey::new(namespace, name))
}

/// A port of a pod, over IPv4 or IPv6.
pub(crate) fn door(facts: &Facts, namespace: &str, name: &str, family: usize, port: &str) -> Door {
    let key = PodKey::new(namespace, name);
    let pod = facts.pods.iter().find(|pod| pod.key == key).unwrap();
    let port: Port = port.parse().unwrap();
    Door {
        protocol: port.protocol,
        address: pod.addresses[family].parse().unwrap(),
        port: port.port,
    }
}
