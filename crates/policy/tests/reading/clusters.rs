//! Random clusters small enough that rules meet: few names, labels, ports and networks.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use proptest::collection::vec;
use proptest::option::{of, weighted};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use warren_model::{NodeName, PodName};
use warren_policy::kubernetes::{EgressRule, IngressRule, IpBlock, NetworkPolicySpec, Peer, PolicyPort};
use warren_policy::spec::{IntOrString, LabelSelector, Requirement};
use warren_policy::{Cluster, Flow, Labels, NamedPort, Namespace, Pod, Protocol, Since};

pub(crate) const NAMESPACES: [&str; 3] = ["one", "two", "three"];
pub(crate) const KEYS: [&str; 3] = ["app", "env", "tier"];
pub(crate) const VALUES: [&str; 3] = ["a", "b", "c"];
pub(crate) const PORT_NAMES: [&str; 3] = ["http", "dns", "admin"];
pub(crate) const PORTS: [u16; 4] = [53, 80, 81, 8080];
const PROTOCOLS: [Protocol; 3] = [Protocol::TCP, Protocol::UDP, Protocol::SCTP];
const BLOCKS: [(&str, &[&str]); 6] = [
    ("10.0.0.0/8", &["10.0.1.0/24", "10.0.0.3/32"]),
    ("10.0.0.0/30", &["10.0.0.2/31"]),
    ("0.0.0.0/0", &["10.0.0.0/8", "192.0.2.0/24"]),
    ("::/0", &["fd00::/16"]),
    ("fd00::/64", &["fd00::2/127", "fd00::8/125"]),
    ("198.51.100.7/32", &[]),
];
const NODES: [&str; 2] = ["node1", "node2"];
/// Addresses of nobody in the cluster.
const OUTSIDE: [&str; 2] = ["198.51.100.7", "2001:db8::7"];

/// A NetworkPolicy.
#[derive(Clone, Debug)]
pub(crate) struct NamedPolicy {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) spec: NetworkPolicySpec,
}

/// One thing to try.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) cluster: Cluster,
    pub(crate) policies: Vec<NamedPolicy>,
    pub(crate) flows: Vec<Flow>,
}

pub(crate) fn case(flows: usize) -> impl Strategy<Value = Case> {
    let parts = (
        cluster(),
        vec((select(&NAMESPACES[..]), spec()), 0..5),
        vec(ends(), flows),
    );
    parts.prop_map(|(cluster, specs, flows)| Case {
        policies: specs
            .into_iter()
            .enumerate()
            .map(|(index, (namespace, spec))| NamedPolicy {
                namespace: namespace.into(),
                name: format!("policy-{index}"),
                spec,
            })
            .collect(),
        flows: flows.into_iter().map(|ends| ends.flow(&cluster)).collect(),
        cluster,
    })
}

/// Two ends, a protocol and a port: of pods most of the time.
#[derive(Clone, Debug)]
pub(crate) struct Ends {
    v6: bool,
    from: Index,
    to: Index,
    protocol: Protocol,
    port: u16,
}

pub(crate) fn ends() -> impl Strategy<Value = Ends> {
    let protocol = prop_oneof![3 => Just(Protocol::TCP), 1 => select(&PROTOCOLS[..])];
    let parts = (
        any::<bool>(),
        any::<Index>(),
        any::<Index>(),
        protocol,
        select(&PORTS[..]),
    );
    parts.prop_map(|(v6, from, to, protocol, port)| Ends {
        v6,
        from,
        to,
        protocol,
        port,
    })
}

impl Ends {
    pub(crate) fn flow(&self, cluster: &Cluster) -> Flow {
        let pods = cluster.pods.iter().flat_map(|pod| &pod.addresses);
        let nodes = cluster.nodes.values().flatten();
        let mut all: Vec<IpAddr> = pods.chain(nodes).copied().collect();
        all.extend(OUTSIDE.map(ip));
        all.retain(|address| address.is_ipv6() == self.v6);
        Flow::to_port(*self.from.get(&all), *self.to.get(&all), self.protocol, self.port)
    }
}

pub(crate) fn cluster() -> impl Strategy<Value = Cluster> {
    let pods = vec(
        (
            select(&NAMESPACES[..]),
            labels(),
            ports(),
            state(),
            of(select(&NODES[..])),
            // Some objects outlive their pods, whose addresses are others' by then.
            (weighted(0.1, 0..8_usize), 0..3_i64),
        ),
        2..9,
    );
    // The last namespace's object may not have been seen yet.
    (pods, vec(labels(), 2..4)).prop_map(|(pods, namespaces)| Cluster {
        pods: pods
            .into_iter()
            .enumerate()
            .map(
                |(index, (namespace, labels, ports, (host_network, finished), node, (like, created)))| {
                    Arc::new(Pod {
                        name: PodName {
                            namespace: namespace.into(),
                            name: format!("pod-{index}"),
                        },
                        uid: index.to_string(),
                        labels,
                        addresses: addresses(like.unwrap_or(index)),
                        ports,
                        host_network,
                        finished,
                        node: node.map(node_name),
                        since: Since::Created(created),
                    })
                },
            )
            .collect(),
        namespaces: NAMESPACES
            .iter()
            .zip(namespaces)
            .map(|(name, labels)| Namespace {
                name: (*name).into(),
                labels,
            })
            .collect(),
        nodes: BTreeMap::from([
            (node_name(NODES[0]), vec![ip("192.0.2.1"), ip("fd00:ff::1")]),
            (node_name(NODES[1]), vec![ip("192.0.2.2")]),
        ]),
        ..Cluster::default()
    })
}

fn addresses(number: usize) -> Vec<IpAddr> {
    vec![
        ip(&format!("10.0.{}.{}", number % 2, number + 1)),
        ip(&format!("fd00::{:x}", number + 1)),
    ]
}

pub(crate) fn labels() -> impl Strategy<Value = Labels> {
    vec((select(&KEYS[..]), select(&VALUES[..])), 0..4).prop_map(|pairs| pairs.into_iter().collect())
}

fn ports() -> impl Strategy<Value = Vec<NamedPort>> {
    let port = (
        select(&PORT_NAMES[..]),
        select(&PROTOCOLS[..]),
        select(&PORTS[..]),
    );
    vec(port, 0..3).prop_map(|ports| {
        let named = ports.into_iter().map(|(name, protocol, port)| NamedPort {
            name: name.into(),
            protocol,
            port,
        });
        named.collect()
    })
}

/// On the host's network; finished.
fn state() -> impl Strategy<Value = (bool, bool)> {
    prop_oneof![8 => Just((false, false)), 1 => Just((true, false)), 1 => Just((false, true))]
}

fn spec() -> impl Strategy<Value = NetworkPolicySpec> {
    let types = select(vec![
        None,
        Some(vec![]),
        Some(vec!["Ingress"]),
        Some(vec!["Egress"]),
        Some(vec!["Ingress", "Egress"]),
    ]);
    let parts = (
        of(selector()),
        of(vec(rule(), 0..3)),
        of(vec(rule(), 0..3)),
        types,
    );
    parts.prop_map(|(pod_selector, ingress, egress, types)| NetworkPolicySpec {
        pod_selector,
        ingress: ingress.map(|rules| {
            let rules = rules.into_iter().map(|(from, ports)| IngressRule {
                from,
                ports,
                ..IngressRule::default()
            });
            rules.collect()
        }),
        egress: egress.map(|rules| {
            let rules = rules.into_iter().map(|(to, ports)| EgressRule {
                to,
                ports,
                ..EgressRule::default()
            });
            rules.collect()
        }),
        policy_types: types.map(|types| types.into_iter().map(str::to_owned).collect()),
        ..NetworkPolicySpec::default()
    })
}

type Rule = (Option<Vec<Peer>>, Option<Vec<PolicyPort>>);

fn rule() -> impl Strategy<Value = Rule> {
    (of(vec(peer(), 0..3)), weighted(0.6, vec(policy_port(), 0..3)))
}

fn peer() -> impl Strategy<Value = Peer> {
    let pods = selector().prop_map(|pods| (Some(pods), None));
    let namespaces = selector().prop_map(|namespaces| (None, Some(namespaces)));
    let both = (selector(), selector()).prop_map(|(pods, namespaces)| (Some(pods), Some(namespaces)));
    let by_labels = prop_oneof![pods, namespaces, both].prop_map(|(pod_selector, namespace_selector)| Peer {
        pod_selector,
        namespace_selector,
        ..Peer::default()
    });
    let block = (select(&BLOCKS[..]), any::<u8>()).prop_map(|((cidr, except), chosen)| Peer {
        ip_block: Some(IpBlock {
            cidr: cidr.into(),
            except: match chosen % 4 {
                0 => None,
                bits => Some(chosen_of(except, bits)),
            },
            ..IpBlock::default()
        }),
        ..Peer::default()
    });
    prop_oneof![3 => by_labels, 1 => block]
}

fn chosen_of(except: &[&str], bits: u8) -> Vec<String> {
    let chosen = except
        .iter()
        .enumerate()
        .filter(|(index, _)| bits & (1 << index) != 0);
    chosen.map(|(_, cidr)| (*cidr).to_owned()).collect()
}

fn policy_port() -> impl Strategy<Value = PolicyPort> {
    let protocol = select(vec![None, Some("TCP"), Some("TCP"), Some("UDP"), Some("SCTP")]);
    let port = prop_oneof![
        1 => Just((None, None)),
        3 => select(&PORTS[..]).prop_map(|port| (Some(IntOrString::from(port)), None)),
        1 => select(&PORTS[..]).prop_map(|port| (Some(IntOrString::from(port)), Some(i64::from(port) + 30))),
        2 => select(&PORT_NAMES[..]).prop_map(|name| (Some(IntOrString::from(name)), None)),
    ];
    (protocol, port).prop_map(|(protocol, (port, end_port))| PolicyPort {
        protocol: protocol.map(str::to_owned),
        port,
        end_port,
        ..PolicyPort::default()
    })
}

fn selector() -> impl Strategy<Value = LabelSelector> {
    let equal = vec((select(&KEYS[..]), select(&VALUES[..])), 0..2);
    (of(equal), of(vec(requirement(), 0..2))).prop_map(|(equal, match_expressions)| LabelSelector {
        match_labels: equal.map(|pairs| {
            let pairs = pairs.into_iter();
            pairs
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect()
        }),
        match_expressions,
        ..LabelSelector::default()
    })
}

fn requirement() -> impl Strategy<Value = Requirement> {
    let listed = vec(select(&VALUES[..]), 1..3);
    let operator = prop_oneof![
        (select(vec!["In", "NotIn"]), listed).prop_map(|(operator, values)| {
            (operator, Some(values.into_iter().map(str::to_owned).collect()))
        }),
        select(vec!["Exists", "DoesNotExist"]).prop_map(|operator| (operator, None)),
    ];
    (select(&KEYS[..]), operator).prop_map(|(key, (operator, values))| Requirement {
        key: key.into(),
        operator: operator.into(),
        values,
        ..Requirement::default()
    })
}

#[expect(clippy::unwrap_used, reason = "the texts are made above")]
fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[expect(clippy::unwrap_used, reason = "the texts are constants above")]
fn node_name(text: &str) -> NodeName {
    text.parse().unwrap()
}
