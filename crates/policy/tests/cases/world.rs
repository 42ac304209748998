//! The cluster of the upstream conformance tests: namespaces x, y and z, in each pods a, b and c, dual-stack; and ways to ask
//! who reaches whom.

use std::net::IpAddr;
use std::sync::Arc;

use warren_model::PodName;
use warren_policy::kubernetes::{self, NetworkPolicySpec};
use warren_policy::warren::{self, PolicySpec};
use warren_policy::{
    Cluster, Decision, Flow, Input, Invalid, Labels, NamedPort, Namespace, Pod, Policy, Protocol, RuleSet,
    Since, Verdict, compile, verdict,
};

/// An address outside of the cluster, of each family.
pub(crate) const OUTSIDE: [&str; 2] = ["198.51.100.7", "2001:db8::7"];

pub(crate) struct World {
    pub(crate) cluster: Cluster,
    pub(crate) policies: Vec<Policy>,
    pub(crate) invalid: Vec<Invalid>,
}

impl World {
    pub(crate) fn new() -> Self {
        let mut cluster = Cluster::default();
        for (number, namespace) in ["x", "y", "z"].into_iter().enumerate() {
            cluster.namespaces.push(Namespace {
                name: namespace.into(),
                labels: Labels::from_iter([("ns", namespace)]),
            });
            for (index, name) in ["a", "b", "c"].into_iter().enumerate() {
                let last = index + 1;
                cluster.pods.push(Arc::new(Pod {
                    name: PodName {
                        namespace: namespace.into(),
                        name: name.into(),
                    },
                    uid: String::new(),
                    labels: Labels::from_iter([("pod", name)]),
                    addresses: vec![
                        ip(&format!("10.0.{number}.{last}")),
                        ip(&format!("fd00:{number}::{last}")),
                    ],
                    ports: [
                        ("serve-80-tcp", Protocol::TCP, 80),
                        ("serve-81-tcp", Protocol::TCP, 81),
                    ]
                    .map(|(name, protocol, port)| NamedPort {
                        name: name.into(),
                        protocol,
                        port,
                    })
                    .into(),
                    host_network: false,
                    finished: false,
                    node: None,
                    since: Since::Created(0),
                }));
            }
        }
        Self {
            cluster,
            policies: Vec::new(),
            invalid: Vec::new(),
        }
    }

    /// With a NetworkPolicy of Kubernetes.
    pub(crate) fn kubernetes(mut self, namespace: &str, spec: &str) -> Self {
        let name = format!("policy-{}", self.policies.len() + self.invalid.len());
        let spec: NetworkPolicySpec = yaml(spec);
        self.add(kubernetes::check(namespace, &name, &spec));
        self
    }

    /// With one of Warren's.
    pub(crate) fn warren(mut self, namespace: &str, name: &str, spec: &str) -> Self {
        let spec: PolicySpec = yaml(spec);
        self.add(warren::check(namespace, name, &spec));
        self
    }

    /// With a GlobalNetworkPolicy.
    pub(crate) fn global(mut self, name: &str, spec: &str) -> Self {
        let spec: PolicySpec = yaml(spec);
        self.add(warren::check_global(name, &spec));
        self
    }

    fn add(&mut self, checked: Result<Policy, Box<Invalid>>) {
        match checked {
            Ok(policy) => self.policies.push(policy),
            Err(invalid) => self.invalid.push(*invalid),
        }
    }

    pub(crate) fn pod(&mut self, name: &str) -> &mut Pod {
        let found = self
            .cluster
            .pods
            .iter_mut()
            .find(|pod| pod.name.to_string() == name)
            .map(Arc::make_mut);
        found.unwrap_or_else(|| panic!("there is no pod {name}"))
    }

    pub(crate) fn rules(&self) -> RuleSet {
        assert_eq!(self.invalid, [], "policies were refused");
        compile(&Input::new(&self.policies, &self.cluster))
    }

    /// The address of a pod, of `outside`, or the one that is given.
    pub(crate) fn address(&self, who: &str, family: usize) -> IpAddr {
        if who == "outside" {
            return ip(OUTSIDE[family]);
        }
        match self.cluster.pods.iter().find(|pod| pod.name.to_string() == who) {
            Some(pod) => pod.addresses[family],
            None => ip(who),
        }
    }

    /// What becomes of a connection to `protocol/port`, over IPv4.
    pub(crate) fn verdict(&self, from: &str, to: &str, port: &str) -> Verdict {
        verdict(&self.rules(), &self.flow(from, to, port, 0))
    }

    pub(crate) fn flow(&self, from: &str, to: &str, port: &str, family: usize) -> Flow {
        let (from, to) = (self.address(from, family), self.address(to, family));
        let Some((protocol, port)) = port.split_once('/') else {
            assert_eq!(port, "icmp", "a port is protocol/number");
            return Flow::icmp(from, to, 8, 0);
        };
        let protocol = Protocol::named(protocol).unwrap_or_else(|| panic!("{protocol} is no protocol"));
        let port = port.parse().unwrap_or_else(|_| panic!("{port} is no port"));
        Flow::to_port(from, to, protocol, port)
    }

    /// Whether one reaches the other, the same over both families.
    pub(crate) fn reaches(&self, from: &str, to: &str, port: &str) -> bool {
        reaches(self, &self.rules(), from, to, port)
    }

    /// Holds every pair of pods to an expectation, as the upstream tests do. Pods always reach themselves.
    pub(crate) fn expect(&self, port: &str, expected: impl Fn(&str, &str) -> bool) {
        let rules = self.rules();
        let names: Vec<String> = self.cluster.pods.iter().map(|pod| pod.name.to_string()).collect();
        for from in &names {
            for to in &names {
                let expected = from == to || expected(from, to);
                assert_eq!(
                    reaches(self, &rules, from, to, port),
                    expected,
                    "{from} to {to} on {port}"
                );
            }
        }
    }
}

fn reaches(world: &World, rules: &RuleSet, from: &str, to: &str, port: &str) -> bool {
    let [v4, v6] = [0, 1].map(|family| {
        let flow = world.flow(from, to, port, family);
        verdict(rules, &flow).action == Decision::Allow
    });
    assert_eq!(v4, v6, "{from} to {to} on {port}: IPv4 and IPv6 differ");
    v4
}

pub(crate) fn yaml<T: serde::de::DeserializeOwned>(text: &str) -> T {
    serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{text}\nis not what it should be: {error}"))
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap_or_else(|_| panic!("{text} is no address"))
}

/// Whether a pod's name has that namespace.
pub(crate) fn of(pod: &str, namespace: &str) -> bool {
    pod.split_once('/').is_some_and(|(of, _)| of == namespace)
}
