//! Verdicts in words.

use warren_model::PodName;
use warren_policy::{
    Change, Direction, ExplainError, Explanation, Flow, Input, Peer, Protocol, compile, explain,
    explain_between, words,
};

use crate::world::{World, ip};

fn name(pod: &str) -> PodName {
    let (namespace, name) = pod.split_once('/').expect("namespace/name");
    PodName {
        namespace: namespace.into(),
        name: name.into(),
    }
}

fn peer(pod: &str) -> Peer {
    Peer::Pod(name(pod))
}

/// Over IPv4.
fn explained(world: &World, from: &str, to: &str, port: u16) -> Explanation {
    let both = explain_between(&world.rules(), &peer(from), &peer(to), Protocol::TCP, port);
    both.expect("both pods are there").remove(0)
}

#[test]
fn without_policies_everything_is_allowed_and_either_side_could_deny_it() {
    assert_eq!(
        explained(&World::new(), "x/a", "y/b", 80).to_string(),
        "\
TCP from 10.0.0.1 to 10.0.1.2:80 is allowed
  egress of pod x/a is allowed: no policy selects it for egress
  ingress of pod y/b is allowed: no policy selects it for ingress
to deny it:
  - a policy that selects pod x/a for egress and does not allow it would deny it
  - a policy that selects pod y/b for ingress and does not allow it would deny it
"
    );
}

#[test]
fn a_near_miss_is_named_with_the_part_that_does_not_hold() {
    let world = World::new().kubernetes(
        "x",
        "podSelector: {matchLabels: {pod: a}}
ingress:
- from: [{podSelector: {matchLabels: {pod: b}}}]
  ports: [{port: 6379}, {port: serve-80-tcp}]
- ports: [{port: 443}]",
    );
    assert_eq!(
        explained(&world, "x/b", "x/a", 81).to_string(),
        "\
TCP from 10.0.0.2 to 10.0.0.1:81 is denied
  egress of pod x/b is allowed: no policy selects it for egress
  ingress of pod x/a is denied: NetworkPolicy/x/policy-0 selects it for ingress, no rule matches, and tier default denies what is left
to allow it:
  - ingress[0] of NetworkPolicy/x/policy-0 would allow it but for the port: it asks for port 6379 or \"serve-80-tcp\"
  - ingress[1] of NetworkPolicy/x/policy-0 would allow it but for the port: it asks for port 443
  - allow it in an ingress rule of a policy that selects pod x/a, such as NetworkPolicy/x/policy-0
"
    );
    let from_elsewhere = explained(&world, "y/b", "x/a", 80);
    assert!(from_elsewhere.to_string().contains(
        "ingress[0] of NetworkPolicy/x/policy-0 would allow it but for the source: it asks for pods of namespace x with pod == \"b\""
    ));
}

#[test]
fn an_allowing_rule_is_told_with_the_others_that_would_allow_as_well() {
    let world = World::new()
        .kubernetes("x", "{podSelector: {}, ingress: [{ports: [{port: 80}]}]}")
        .kubernetes(
            "x",
            "{podSelector: {matchLabels: {pod: a}}, ingress: [{ports: [{port: 81}]}, {}]}",
        );
    let explanation = explained(&world, "y/a", "x/a", 80);
    assert_eq!(
        explanation.ingress,
        "ingress of pod x/a is allowed: ingress[0] of NetworkPolicy/x/policy-0: allow TCP to port 80"
    );
    let last = explanation.changes.last().map(ToString::to_string);
    assert_eq!(
        last.as_deref(),
        Some(
            "ingress[0] of NetworkPolicy/x/policy-0 allows it, and so would ingress[1] of NetworkPolicy/x/policy-1"
        )
    );
}

#[test]
fn both_sides_that_deny_are_told() {
    let world = World::new()
        .kubernetes("x", "{podSelector: {}, policyTypes: [Egress]}")
        .warren(
            "y",
            "no-x",
            "{order: 7, ingress: [{action: Deny, source: {namespaceSelector: \"ns == 'x'\"}}]}",
        );
    assert_eq!(
        explained(&world, "x/a", "y/a", 80).to_string(),
        "\
TCP from 10.0.0.1 to 10.0.1.1:80 is denied
  egress of pod x/a is denied: NetworkPolicy/x/policy-0 selects it for egress, no rule matches, and tier default denies what is left
  ingress of pod y/a is denied: ingress[0] of NetworkPolicy.warren-mesh.io/y/no-x: deny anything from pods, host endpoints and network sets of namespaces with ns == \"x\"
to allow it:
  - allow it in an egress rule of a policy that selects pod x/a, such as NetworkPolicy/x/policy-0
  - ingress[0] of NetworkPolicy.warren-mesh.io/y/no-x denies it: change that rule, or allow it in a policy that is asked before (its order: 7)
"
    );
}

#[test]
fn a_refused_policy_is_told_with_what_is_wrong_with_it() {
    let world = World::new().global("wrong", "{selector: \"pod == 'a'\", ingress: [{action: Permit}]}");
    let rules = compile(&Input {
        invalid: &world.invalid,
        ..Input::new(&[], &world.cluster)
    });
    let explanation = explain(&rules, &world.flow("y/b", "x/a", "tcp/80", 0));
    assert_eq!(
        explanation.ingress,
        "ingress of pod x/a is denied: GlobalNetworkPolicy/wrong was refused, and what it selects fails closed"
    );
    assert_eq!(
        explanation.changes[0].to_string(),
        "repair GlobalNetworkPolicy/wrong: spec.ingress[0].action: \"Permit\" is not Allow, Deny, Log or Pass"
    );
}

#[test]
fn what_no_policy_can_deny_is_said_to_be_so() {
    let world = World::new().kubernetes("x", "{podSelector: {}, policyTypes: [Ingress, Egress]}");
    let explanation = explained(&world, "x/a", "x/a", 80);
    assert_eq!(explanation.changes, []);
    assert!(
        explanation.to_string().ends_with("no policy can deny it\n"),
        "{explanation}"
    );
}

#[test]
fn addresses_outside_are_told_as_addresses() {
    let world = World::new().kubernetes("x", "{podSelector: {}, policyTypes: [Ingress]}");
    let flow = Flow::icmp(ip("2001:db8::7"), world.address("x/a", 1), 128, 0);
    let text = explain(&world.rules(), &flow).to_string();
    assert!(
        text.starts_with("ICMPv6 type 128 code 0 from 2001:db8::7 to fd00::1 is denied"),
        "{text}"
    );
    assert!(
        text.contains("egress of 2001:db8::7 is allowed: no pod or host endpoint here has this address"),
        "{text}"
    );
}

#[test]
fn pods_that_no_policy_speaks_of_are_named() {
    let mut world = World::new();
    world.pod("x/b").host_network = true;
    world.pod("x/c").addresses.remove(0);
    world.pod("y/c").addresses.remove(1);
    let rules = world.rules();
    let asked =
        |from, to| explain_between(&rules, &peer(from), &peer(to), Protocol::TCP, 80).map(|all| all.len());
    assert_eq!(asked("x/a", "y/a"), Ok(2));
    assert_eq!(asked("x/a", "y/c"), Ok(1));
    for gone in ["x/b", "x/nobody"] {
        assert_eq!(
            asked("x/a", gone),
            Err(ExplainError::NoSuchPod { pod: name(gone) })
        );
    }
    let apart = ExplainError::NoCommonFamily {
        from: peer("x/c"),
        to: peer("y/c"),
    };
    assert_eq!(asked("x/c", "y/c"), Err(apart));
    let outside = Peer::Address(ip("2001:db8::7"));
    let asked = |from: &Peer, to: &Peer| {
        explain_between(&rules, from, to, Protocol::TCP, 80).map(|all| all[0].flow.source)
    };
    let pod = peer("x/a");
    assert_eq!(asked(&outside, &pod), Ok(ip("2001:db8::7")));
    assert_eq!(asked(&pod, &outside), Ok(ip("fd00:0::1")));
}

#[test]
fn a_chain_is_told_in_the_order_it_is_asked() {
    let world = World::new()
        .kubernetes("x", "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}]}]}")
        .global(
            "scan",
            "{order: 1, ingress: [{action: Log, protocol: TCP, destination: {notPorts: ['1:1024']}}, {action: Pass, notProtocol: UDP, source: {notSelector: \"pod == 'b'\"}}]}",
        );
    let rules = world.rules();
    assert_eq!(
        words::chain(&rules, 0, Direction::Ingress),
        [
            "GlobalNetworkPolicy/scan (tier default, order 1)",
            "  1. log TCP to any port but 1-1024",
            "  2. leave to the next tier anything but UDP from anybody but pods, host endpoints and network sets with pod == \"b\"",
            "NetworkPolicy/x/policy-0 (tier default, order 1000)",
            "  1. allow anything from 10.0.0.0/8 but 10.1.0.0/16",
            "end of tier default: deny",
            "everything else: allow",
        ]
    );
    assert_eq!(
        words::chain(&rules, 0, Direction::Egress),
        ["everything else: allow"]
    );
}

#[test]
fn changes_are_values_that_can_be_counted() {
    let world = World::new().kubernetes("x", "{podSelector: {}, ingress: [{ports: [{port: 443}]}]}");
    let changes = explained(&world, "y/a", "x/a", 80).changes;
    assert!(
        matches!(changes[..], [Change::Widen { .. }, Change::Allow { .. }]),
        "{changes:?}"
    );
}
