//! A large cluster with many policies.

use std::net::IpAddr;
use std::sync::Arc;

use anyhow::Context;
use serde_json::{Value, json};
use warren_model::{NodeName, PodName};
use warren_policy::kubernetes::{self, NetworkPolicySpec};
use warren_policy::{Cluster, Input, Labels, NamedPort, Namespace, Pod, Policy, Protocol, Reach, Since};

pub(super) const PODS: u32 = 10_000;
pub(super) const PODS_OF_A_NODE: u32 = 100;
pub(super) const NAMESPACES: u32 = 10;

/// Half of them select, and let in, a thousand pods each; the others a hundred.
pub(super) const POLICIES: u32 = 1000;

/// What a third of the policies let in: the port `http`.
pub(super) const PORT: u16 = 5201;

/// All of it.
pub(super) struct Scene {
    pub(super) cluster: Cluster,
    pub(super) policies: Vec<Policy>,
    /// The one whose pods policy is enforced for.
    pub(super) node: NodeName,
    /// A pod that has gone and comes again.
    pub(super) gone: Option<Arc<Pod>>,
}

impl Scene {
    pub(super) fn new() -> anyhow::Result<Self> {
        Ok(Self {
            cluster: cluster()?,
            policies: policies()?,
            node: node_name(0)?,
            gone: None,
        })
    }

    /// As that node's agent sees it.
    pub(super) fn of_node(&self) -> Input<'_> {
        Input {
            reach: Reach::Node(self.node.clone()),
            ..Input::new(&self.policies, &self.cluster)
        }
    }
}

/// Pods in ten namespaces, dual-stack, each with labels of 10 and of 100 values.
fn cluster() -> anyhow::Result<Cluster> {
    let mut cluster = Cluster::default();
    for number in 0..NAMESPACES {
        cluster.namespaces.push(Namespace {
            name: format!("ns-{number}"),
            labels: Labels::from_iter([("team", team(number % 5))]),
        });
    }
    for number in 0..PODS {
        cluster.pods.push(Arc::new(pod(number)?));
    }
    Ok(cluster)
}

/// That pod.
pub(super) fn pod(number: u32) -> anyhow::Result<Pod> {
    Ok(Pod {
        name: PodName {
            namespace: format!("ns-{}", number % NAMESPACES),
            name: format!("pod-{number}"),
        },
        uid: String::new(),
        labels: Labels::from_iter([
            ("app", format!("app-{}", number / NAMESPACES % 100)),
            ("tier", format!("tier-{}", number / NAMESPACES % 10)),
            ("pod-template-hash", format!("{number:08x}")),
        ]),
        addresses: vec![
            IpAddr::from((0x0af4_0000 + number).to_be_bytes()),
            IpAddr::from(((0xfd00_u128 << 112) + u128::from(number)).to_be_bytes()),
        ],
        ports: vec![NamedPort {
            name: "http".to_owned(),
            protocol: Protocol::TCP,
            port: PORT,
        }],
        host_network: false,
        finished: false,
        node: Some(node_name(number / PODS_OF_A_NODE)?),
        since: Since::Created(0),
    })
}

fn node_name(number: u32) -> anyhow::Result<NodeName> {
    Ok(format!("node-{number}").parse()?)
}

fn policies() -> anyhow::Result<Vec<Policy>> {
    (0..POLICIES)
        .map(|number| policy(number, number / NAMESPACES % 10))
        .collect()
}

/// That policy, letting in pods of a tier.
pub(super) fn policy(number: u32, tier: u32) -> anyhow::Result<Policy> {
    let (namespace, name, spec) = policy_object(number, tier);
    let spec: NetworkPolicySpec = serde_json::from_value(spec).context("a NetworkPolicy's spec")?;
    kubernetes::check(&namespace, &name, &spec).map_err(|invalid| anyhow::anyhow!("{}", invalid.refusal()))
}

/// Namespace, name and spec of it, as the API has them.
pub(super) fn policy_object(number: u32, tier: u32) -> (String, String, Value) {
    let namespace = format!("ns-{}", number % NAMESPACES);
    // All 1,000 pods of a namespace, and all 1,000 of a tier in any; or the 100 of a tier in one, a few in those of a team.
    let wide = number.is_multiple_of(2);
    let tier = json!({"tier": format!("tier-{tier}")});
    let mut from = json!({"podSelector": {
        "matchLabels": tier,
        // No two policies have equal selectors, so none share a set.
        "matchExpressions": [{"key": "app", "operator": "NotIn", "values": [format!("none-{number}")]}],
    }});
    match number % 50 {
        _ if wide => from["namespaceSelector"] = json!({}),
        1 => from["namespaceSelector"] = json!({"matchLabels": {"team": team(number / 50 % 5)}}),
        _ => {}
    }
    let port = match number % 3 {
        0 => json!("http"),
        _ => json!(80 + number),
    };
    let spec = json!({
        "podSelector": if wide { json!({}) } else { json!({"matchLabels": tier}) },
        "ingress": [{"from": [from], "ports": [{"port": port}]}],
    });
    (namespace, format!("policy-{number}"), spec)
}

/// The label `team` of a namespace.
pub(super) fn team(number: u32) -> String {
    format!("team-{number}")
}
