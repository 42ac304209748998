//! Host endpoints: nodes under policy.

use warren_model::NodeName;
use warren_policy::cluster::Failsafe;
use warren_policy::policy::TierEnd;
use warren_policy::{
    Decision, Flow, HostEndpoint, Input, Interface, Labels, NamedPort, Order, Protocol, Reason, RuleSet,
    Verdict, compile, verdict, warren,
};

use crate::world::{OUTSIDE, World, ip, yaml};

const NODE1: &str = "192.0.2.1";
const NODE2: &str = "192.0.2.2";

/// Two nodes, of which the first has a host endpoint and runs x/a.
fn world() -> World {
    let mut world = World::new();
    for (name, address) in [("node1", NODE1), ("node2", NODE2)] {
        world.cluster.nodes.insert(node(name), vec![ip(address)]);
    }
    world.pod("x/a").node = Some(node("node1"));
    world.pod("x/b").node = Some(node("node2"));
    world.cluster.host_endpoints.push(HostEndpoint {
        name: "node1-all".into(),
        labels: Labels::from_iter([("role", "node")]),
        node: node("node1"),
        interface: Some(Interface::Every),
        expected_addresses: Vec::new(),
        ports: Vec::new(),
        default_allow: false,
    });
    world
}

fn node(name: &str) -> NodeName {
    name.parse().expect("a node's name")
}

fn judge(rules: &RuleSet, from: &str, to: &str, protocol: Protocol, port: u16) -> Verdict {
    verdict(rules, &Flow::to_port(ip(from), ip(to), protocol, port))
}

#[test]
fn a_host_endpoint_without_policy_is_closed_but_for_the_failsafe_ports() {
    let rules = world().rules();
    for (from, to, protocol, port, action) in [
        (OUTSIDE[0], NODE1, Protocol::TCP, 22, Decision::Allow),
        (OUTSIDE[0], NODE1, Protocol::TCP, 6443, Decision::Allow),
        (OUTSIDE[0], NODE1, Protocol::UDP, 68, Decision::Allow),
        (OUTSIDE[0], NODE1, Protocol::UDP, 53, Decision::Deny),
        (OUTSIDE[0], NODE1, Protocol::TCP, 80, Decision::Deny),
        (NODE1, OUTSIDE[0], Protocol::UDP, 53, Decision::Allow),
        (NODE1, OUTSIDE[0], Protocol::TCP, 2379, Decision::Allow),
        (NODE1, OUTSIDE[0], Protocol::TCP, 443, Decision::Deny),
        (OUTSIDE[0], NODE2, Protocol::TCP, 80, Decision::Allow),
    ] {
        let verdict = judge(&rules, from, to, protocol, port);
        assert_eq!(verdict.action, action, "{from} to {to} {protocol} {port}");
    }
}

#[test]
fn failsafe_ports_stand_against_any_policy() {
    let world = world().global("deny-nodes", "{order: 1, selector: role == 'node', types: [Ingress, Egress], ingress: [{action: Deny}], egress: [{action: Deny}]}");
    let verdict = judge(&world.rules(), OUTSIDE[0], NODE1, Protocol::TCP, 22);
    assert_eq!(verdict.action, Decision::Allow);
    assert_eq!(verdict.ingress.reason, Reason::Failsafe);
}

#[test]
fn the_meshs_own_ports_can_be_kept_open() {
    let world = world();
    let mesh = warren_model::Mesh::default();
    let with = |failsafe| {
        let rules = compile(&Input {
            failsafe,
            ..Input::new(&[], &world.cluster)
        });
        judge(&rules, NODE2, NODE1, Protocol::UDP, 51821).action
    };
    assert_eq!(with(Failsafe::default()), Decision::Deny);
    assert_eq!(with(Failsafe::default().with_mesh(&mesh.ports)), Decision::Allow);
}

#[test]
fn global_policies_select_host_endpoints_by_labels() {
    let web =
        "{selector: role == 'node', ingress: [{action: Allow, protocol: TCP, destination: {ports: [80]}}]}";
    let rules = world().global("web", web).rules();
    assert_eq!(
        judge(&rules, OUTSIDE[0], NODE1, Protocol::TCP, 80).action,
        Decision::Allow
    );
    assert_eq!(
        judge(&rules, OUTSIDE[0], NODE1, Protocol::TCP, 81).action,
        Decision::Deny
    );
    // With a namespaceSelector a policy is about pods.
    let pods = format!("{{namespaceSelector: all(), {}", &web[1..]);
    let rules = world().global("web", &pods).rules();
    assert_eq!(
        judge(&rules, OUTSIDE[0], NODE1, Protocol::TCP, 80).action,
        Decision::Deny
    );
    // A NetworkPolicy never is about nodes.
    let rules = world().warren("x", "web", web).rules();
    assert_eq!(
        judge(&rules, OUTSIDE[0], NODE1, Protocol::TCP, 80).action,
        Decision::Deny
    );
}

#[test]
fn a_node_and_its_own_pods_reach_each_other_without_the_host_endpoint() {
    let world = world();
    let rules = world.rules();
    let (own, other) = (
        world.address("x/a", 0).to_string(),
        world.address("x/b", 0).to_string(),
    );
    assert_eq!(
        judge(&rules, NODE1, &own, Protocol::TCP, 80).action,
        Decision::Allow
    );
    assert_eq!(
        judge(&rules, &own, NODE1, Protocol::TCP, 80).action,
        Decision::Allow
    );
    assert_eq!(
        judge(&rules, &other, NODE1, Protocol::TCP, 80).action,
        Decision::Deny
    );
    assert_eq!(
        judge(&rules, NODE1, NODE1, Protocol::TCP, 80).action,
        Decision::Allow
    );
}

#[test]
fn a_host_endpoint_with_the_allowing_profile_is_open_until_a_policy_speaks_of_it() {
    let mut world = world();
    world.cluster.host_endpoints[0].default_allow = true;
    assert_eq!(
        judge(&world.rules(), OUTSIDE[0], NODE1, Protocol::TCP, 80).action,
        Decision::Allow
    );
    let world = world.global(
        "web",
        "{selector: role == 'node', ingress: [{action: Deny, protocol: UDP}]}",
    );
    let rules = world.rules();
    assert_eq!(
        judge(&rules, OUTSIDE[0], NODE1, Protocol::TCP, 80).action,
        Decision::Deny
    );
    assert_eq!(
        judge(&rules, NODE1, OUTSIDE[0], Protocol::TCP, 80).action,
        Decision::Allow
    );
}

#[test]
fn rules_find_host_endpoints_by_their_expected_addresses() {
    let mut world = world().global(
        "from-nodes",
        "{selector: \"pod == 'a'\", ingress: [{action: Allow, source: {selector: role == 'node'}}]}",
    );
    world.cluster.host_endpoints[0].expected_addresses = vec![ip("192.0.2.77")];
    let y_a = world.address("y/a", 0).to_string();
    let rules = world.rules();
    assert_eq!(
        judge(&rules, "192.0.2.77", &y_a, Protocol::TCP, 22)
            .ingress
            .decision,
        Decision::Allow
    );
    assert_eq!(
        judge(&rules, NODE1, &y_a, Protocol::TCP, 22).ingress.decision,
        Decision::Deny
    );
}

#[test]
fn a_host_endpoint_is_read_as_calicos_is_written() {
    let spec = yaml(
        "node: node1
interfaceName: eth0
expectedIPs: [192.0.2.1, 'fd00::1']
profiles: [projectcalico-default-allow]
ports: [{name: metrics, protocol: TCP, port: 9100}]",
    );
    let read = warren::read_host_endpoint("node1-eth0", Labels::default(), &spec);
    let expected = HostEndpoint {
        name: "node1-eth0".into(),
        labels: Labels::default(),
        node: node("node1"),
        interface: Some(Interface::Named("eth0".into())),
        expected_addresses: vec![ip("192.0.2.1"), ip("fd00::1")],
        ports: vec![NamedPort {
            name: "metrics".into(),
            protocol: Protocol::TCP,
            port: 9100,
        }],
        default_allow: true,
    };
    assert_eq!(read, Ok(expected));
    let every = warren::read_host_endpoint(
        "all",
        Labels::default(),
        &yaml("{node: node1, interfaceName: '*'}"),
    );
    let every = every.map(|it| (it.interface, it.default_allow));
    assert_eq!(every, Ok((Some(Interface::Every), false)));
}

#[test]
fn host_endpoints_and_tiers_that_are_not_understood_are_refused_by_name() {
    for (spec, message) in [
        (
            "{node: node1}",
            "spec: a host endpoint needs an interfaceName or expectedIPs",
        ),
        (
            "{node: No Node, interfaceName: eth0}",
            "spec.node: \"No Node\" is not a node's name",
        ),
        (
            "{node: node1, expectedIPs: [ten]}",
            "spec.expectedIPs[0]: \"ten\" is not an address",
        ),
        (
            "{node: node1, interfaceName: eth0, profiles: [mine]}",
            "spec.profiles: \"mine\"",
        ),
        (
            "{node: node1, interfaceName: eth0, ports: [{name: a, protocol: TCP, port: 0}]}",
            "spec.ports[0].port: \"0\"",
        ),
        (
            "{node: node1, interfaceName: eth0, speed: 10}",
            "spec.speed is not supported",
        ),
    ] {
        let Err(refusal) = warren::read_host_endpoint("one", Labels::default(), &yaml(spec)) else {
            panic!("{spec} was taken");
        };
        assert_eq!(refusal.object, "HostEndpoint/one");
        assert!(refusal.message.contains(message), "{spec}: {refusal}");
    }
    let tier = |spec| warren::read_tier("security", &yaml(spec)).map(|tier| (tier.order, tier.end));
    assert_eq!(
        tier("{order: 10, defaultAction: Pass}").ok(),
        Order::new(10.0).map(|ten| (ten, TierEnd::Pass))
    );
    assert_eq!(tier("{}"), Ok((Order::LAST, TierEnd::Deny)));
    for spec in ["{defaultAction: Allow}", "{order: .nan}", "{rank: 1}"] {
        let refused = tier(spec).map_err(|refusal| refusal.object);
        assert_eq!(refused, Err("Tier/security".to_owned()), "{spec}");
    }
}
