//! Changes of a cluster and its policies, one at a time.

use std::sync::Arc;

use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use warren_model::{NodeName, PodName};
use warren_policy::{
    Cluster, HostEndpoint, Interface, Invalid, Labels, Namespace, NetworkSet, Pod, Policy, PolicyId,
    PolicyKind, Reach, kubernetes, warren,
};

use crate::clusters::{self, NAMESPACES};
use crate::policies;

/// Everything that rules are made of.
#[derive(Clone, Debug)]
pub(crate) struct Scene {
    pub(crate) cluster: Cluster,
    pub(crate) policies: Vec<Policy>,
    pub(crate) invalid: Vec<Invalid>,
    pub(crate) reach: Reach,
}

/// A change. Where it says which, it is of those there are then.
#[derive(Clone, Debug)]
pub(crate) enum Edit {
    Relabel(Index, Labels),
    /// Makes a pod what another random one is, but for its name: labels, ports, state, node and addresses.
    Replace(Index, Box<Pod>),
    /// Gives a pod the addresses of another.
    Share(Index, Index),
    Remove(Index),
    /// Puts a pod in front of the others, or behind them.
    Add(Box<Pod>, bool),
    Namespaces(Vec<Labels>),
    NetworkSets(Vec<NetworkSet>),
    Hosts(Vec<HostEndpoint>),
    /// Exchanges a node's addresses for those of the other.
    Nodes,
    Everyone(Box<Cluster>),
    Policy(Box<Policy>),
    NoPolicy(Index),
    Invalid(&'static str),
    Reach(Option<&'static str>),
}

pub(crate) fn scene() -> impl Strategy<Value = Scene> {
    let parts = (cluster(), vec(policy(), 0..5), reach());
    parts.prop_map(|(cluster, policies, reach)| {
        let mut scene = Scene {
            cluster,
            policies: Vec::new(),
            invalid: Vec::new(),
            reach: reach_of(reach),
        };
        for policy in policies {
            scene.set(policy);
        }
        scene
    })
}

pub(crate) fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        4 => (any::<Index>(), clusters::labels()).prop_map(|(pod, labels)| Edit::Relabel(pod, labels)),
        3 => (any::<Index>(), pod()).prop_map(|(place, pod)| Edit::Replace(place, Box::new(pod))),
        2 => any::<[Index; 2]>().prop_map(|[one, other]| Edit::Share(one, other)),
        3 => any::<Index>().prop_map(Edit::Remove),
        3 => (pod(), any::<bool>()).prop_map(|(pod, first)| Edit::Add(Box::new(pod), first)),
        2 => vec(clusters::labels(), 1..4).prop_map(Edit::Namespaces),
        2 => vec(policies::network_set(), 0..4).prop_map(Edit::NetworkSets),
        2 => vec(host(), 0..3).prop_map(Edit::Hosts),
        1 => Just(Edit::Nodes),
        1 => cluster().prop_map(|cluster| Edit::Everyone(Box::new(cluster))),
        4 => policy().prop_map(|policy| Edit::Policy(Box::new(policy))),
        3 => any::<Index>().prop_map(Edit::NoPolicy),
        1 => select(&NAMESPACES[..]).prop_map(Edit::Invalid),
        1 => reach().prop_map(Edit::Reach),
    ]
}

impl Edit {
    pub(crate) fn make(&self, scene: &mut Scene) {
        let pods = &mut scene.cluster.pods;
        let chosen = |index: &Index, pods: &[Arc<Pod>]| (!pods.is_empty()).then(|| index.index(pods.len()));
        match self {
            Self::Relabel(place, labels) => {
                if let Some(place) = chosen(place, pods) {
                    Arc::make_mut(&mut pods[place]).labels = labels.clone();
                }
            }
            Self::Replace(place, pod) => {
                if let Some(place) = chosen(place, pods) {
                    pods[place] = Arc::new(Pod {
                        name: pods[place].name.clone(),
                        ..Pod::clone(pod)
                    });
                }
            }
            Self::Share(one, other) => {
                if let (Some(one), Some(other)) = (chosen(one, pods), chosen(other, pods)) {
                    Arc::make_mut(&mut pods[one]).addresses = pods[other].addresses.clone();
                }
            }
            Self::Remove(place) => {
                if let Some(place) = chosen(place, pods) {
                    pods.remove(place);
                }
            }
            Self::Add(pod, first) => {
                pods.retain(|known| known.name != pod.name);
                pods.insert(if *first { 0 } else { pods.len() }, Arc::new(Pod::clone(pod)));
            }
            Self::Namespaces(labels) => {
                let named = NAMESPACES.iter().zip(labels);
                scene.cluster.namespaces = named
                    .map(|(name, labels)| Namespace {
                        name: (*name).into(),
                        labels: labels.clone(),
                    })
                    .collect();
            }
            Self::NetworkSets(sets) => scene.cluster.network_sets = sets.clone(),
            Self::Hosts(hosts) => {
                scene.cluster.host_endpoints = hosts.clone();
                for (number, host) in scene.cluster.host_endpoints.iter_mut().enumerate() {
                    host.name = format!("host-{number}");
                }
            }
            Self::Nodes => {
                let mut addresses: Vec<_> = scene.cluster.nodes.values().cloned().collect();
                addresses.rotate_left(1);
                for (node, addresses) in scene.cluster.nodes.values_mut().zip(addresses) {
                    *node = addresses;
                }
            }
            Self::Everyone(cluster) => scene.cluster = Cluster::clone(cluster),
            Self::Policy(policy) => scene.set(Policy::clone(policy)),
            Self::NoPolicy(place) => {
                if !scene.policies.is_empty() {
                    scene.policies.remove(place.index(scene.policies.len()));
                }
            }
            Self::Invalid(namespace) => {
                let id = PolicyId {
                    kind: PolicyKind::Kubernetes,
                    namespace: Some((*namespace).to_owned()),
                    name: "invalid".to_owned(),
                };
                // The second time it is mended.
                match scene.invalid.pop() {
                    Some(_) => {}
                    None => scene.invalid.push(Invalid::unreadable(id, "not a policy")),
                }
            }
            Self::Reach(node) => scene.reach = reach_of(*node),
        }
    }
}

impl Scene {
    /// Adds a policy or replaces the one of its name.
    fn set(&mut self, policy: Policy) {
        self.policies.retain(|known| known.id != policy.id);
        self.policies.push(policy);
    }
}

fn cluster() -> impl Strategy<Value = Cluster> {
    (clusters::cluster(), vec(policies::network_set(), 0..3)).prop_map(|(cluster, network_sets)| Cluster {
        network_sets,
        ..cluster
    })
}

/// One of nine names and nine pairs of addresses.
fn pod() -> impl Strategy<Value = Pod> {
    let from = clusters::cluster().prop_map(|cluster| cluster.pods);
    (from, any::<Index>(), 0..9_u8).prop_map(|(pods, index, name)| {
        let pod = Pod::clone(&pods[index.index(pods.len())]);
        Pod {
            name: PodName {
                name: format!("pod-{name}"),
                ..pod.name
            },
            ..pod
        }
    })
}

/// Each of the policies' names is seen again and again.
fn policy() -> impl Strategy<Value = Policy> {
    let kubernetes = clusters::case(0).prop_map(|case| case.policies);
    let kubernetes = kubernetes.prop_filter_map("no policy", |policies| {
        let policy = policies.first()?;
        kubernetes::check(&policy.namespace, &policy.name, &policy.spec).ok()
    });
    let warren = (policies::policy(), 0..3_u8).prop_filter_map("refused", |(policy, number)| {
        let name = format!("policy-{number}");
        match policy.namespace {
            Some(namespace) => warren::check(namespace, &name, &policy.spec()).ok(),
            None => warren::check_global(&name, &policy.spec()).ok(),
        }
    });
    prop_oneof![kubernetes, warren]
}

fn host() -> impl Strategy<Value = HostEndpoint> {
    let interface = select(vec![
        None,
        Some(Interface::Every),
        Some(Interface::Named("eth0".to_owned())),
    ]);
    let address = of(select(vec!["192.0.2.1", "10.0.0.1", "fd00::2"]));
    (clusters::labels(), interface, address, select(&NODES[..])).prop_map(
        |(labels, interface, address, node)| HostEndpoint {
            name: String::new(),
            labels,
            node: node_name(node),
            interface,
            expected_addresses: address.iter().filter_map(|text| text.parse().ok()).collect(),
            ports: Vec::new(),
            default_allow: false,
        },
    )
}

/// The nodes of random clusters.
const NODES: [&str; 2] = ["node1", "node2"];

fn reach() -> impl Strategy<Value = Option<&'static str>> {
    of(select(&NODES[..]))
}

fn reach_of(node: Option<&str>) -> Reach {
    node.map_or(Reach::Cluster, |node| Reach::Node(node_name(node)))
}

#[expect(clippy::unwrap_used, reason = "the texts are constants above")]
fn node_name(text: &str) -> NodeName {
    text.parse().unwrap()
}
