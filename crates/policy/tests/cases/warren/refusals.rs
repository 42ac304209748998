//! What is refused, and what becomes of the pods.

use warren_policy::{Decision, Input, Invalid, OnInvalid, PolicyId, PolicyKind, compile, verdict};

use crate::world::World;

#[test]
fn what_is_invalid_is_refused_by_name_with_the_field_and_the_reason() {
    for (spec, code, message) in [
        (
            "{selector: \"color = 'red'\"}",
            "policy-selector",
            "spec.selector: selector, character 7: expected ==, !=",
        ),
        (
            "{selector: global()}",
            "policy-selector",
            "spec.selector: global() says",
        ),
        (
            "{ingress: [{action: Allow, source: {selector: \"a ==\"}}]}",
            "policy-selector",
            "spec.ingress[0].source.selector: selector, character 5",
        ),
        (
            "{ingress: [{action: Allow, source: {notSelector: \"(a\"}}]}",
            "policy-selector",
            "spec.ingress[0].source.notSelector",
        ),
        (
            "{ingress: [{action: Permit}]}",
            "policy-value",
            "spec.ingress[0].action: \"Permit\" is not Allow, Deny, Log or Pass",
        ),
        ("{types: [Both]}", "policy-value", "spec.types: \"Both\""),
        ("{order: .inf}", "policy-value", "spec.order: \"inf\""),
        (
            "{ingress: [{action: Allow, destination: {ports: [80]}}]}",
            "policy-contradiction",
            "ports go with protocol",
        ),
        (
            "{ingress: [{action: Allow, protocol: ICMP, destination: {notPorts: [80]}}]}",
            "policy-contradiction",
            "ports go with protocol",
        ),
        (
            "{ingress: [{action: Allow, protocol: TCP, icmp: {type: 8}}]}",
            "policy-contradiction",
            "icmp and notICMP go with",
        ),
        (
            "{ingress: [{action: Allow, protocol: ICMP, icmp: {code: 8}}]}",
            "policy-contradiction",
            "an ICMP code goes with a type",
        ),
        (
            "{ingress: [{action: Allow, protocol: ICMP, icmp: {type: 256}}]}",
            "policy-value",
            "spec.ingress[0].icmp.type: \"256\"",
        ),
        (
            "{ingress: [{action: Allow, protocol: ICMPv6, ipVersion: 4}]}",
            "policy-contradiction",
            "ICMPv6 with 6",
        ),
        (
            "{ingress: [{action: Allow, ipVersion: 5}]}",
            "policy-value",
            "\"5\" is not 4 or 6",
        ),
        (
            "{ingress: [{action: Allow, protocol: TCPP}]}",
            "policy-value",
            "\"TCPP\"",
        ),
        (
            "{ingress: [{action: Allow, protocol: 0}]}",
            "policy-value",
            "1 to 255",
        ),
        (
            "{ingress: [{action: Allow, protocol: TCP, destination: {ports: ['90:80']}}]}",
            "policy-contradiction",
            "the last port is smaller",
        ),
        (
            "{ingress: [{action: Allow, protocol: TCP, destination: {ports: [65536]}}]}",
            "policy-value",
            "65536",
        ),
        (
            "{ingress: [{action: Allow, protocol: TCP, destination: {ports: ['a b']}}]}",
            "policy-value",
            "a b",
        ),
        (
            "{egress: [{action: Allow, destination: {nets: [10.0.0.0/33]}}]}",
            "policy-value",
            "spec.egress[0].destination.nets[0]",
        ),
        (
            "{egress: [{action: Allow, destination: {services: {name: db}}}]}",
            "policy-unsupported",
            "spec.egress[0].destination.services",
        ),
        (
            "{ingress: [{action: Allow, source: {serviceAccounts: {names: [a]}}}]}",
            "policy-unsupported",
            "serviceAccounts",
        ),
        (
            "{ingress: [{action: Allow, http: {methods: [GET]}}]}",
            "policy-unsupported",
            "spec.ingress[0].http",
        ),
        ("{doNotTrack: true}", "policy-unsupported", "spec.doNotTrack"),
        ("{preDNAT: true}", "policy-unsupported", "spec.preDNAT"),
        (
            "{applyOnForward: true}",
            "policy-unsupported",
            "spec.applyOnForward",
        ),
        (
            "{namespaceSelector: all()}",
            "policy-contradiction",
            "of its own namespace only",
        ),
    ] {
        let world = World::new().warren("x", "wrong", spec);
        assert_eq!(world.invalid.len(), 1, "{spec} was taken");
        let refusal = world.invalid[0].refusal();
        assert_eq!(refusal.object, "NetworkPolicy.warren-mesh.io/x/wrong", "{spec}");
        assert_eq!(refusal.code, code, "{spec}");
        assert!(refusal.message.contains(message), "{spec}: {refusal}");
    }
}

#[test]
fn fields_that_change_nothing_are_taken() {
    let world = World::new().global(
        "fine",
        "{doNotTrack: false, preDNAT: false, applyOnForward: false, performanceHints: [AssumeNeededOnEveryNode],
          ingress: [{action: allow, metadata: {annotations: {from: tool}}, source: {selector: '', nets: []}}]}",
    );
    world.expect("tcp/80", |_, _| true);
}

#[test]
fn from_the_place_of_an_invalid_policy_on_its_pods_are_closed() {
    let world = World::new()
        .global(
            "first",
            "{order: 1, ingress: [{action: Allow, protocol: TCP, destination: {ports: [22]}}]}",
        )
        .global(
            "wrong",
            "{order: 2, selector: \"pod == 'a'\", ingress: [{action: Deny, protocol: XYZ}]}",
        )
        .global("third", "{order: 3, ingress: [{action: Allow}]}");
    let judged = |on_invalid, to, port| {
        let rules = compile(&Input {
            invalid: &world.invalid,
            on_invalid,
            ..Input::new(&world.policies, &world.cluster)
        });
        assert_eq!(rules.refusals[0].object, "GlobalNetworkPolicy/wrong");
        verdict(&rules, &world.flow("y/b", to, port, 0)).action
    };
    assert_eq!(
        judged(OnInvalid::Closed, "x/a", "tcp/22"),
        Decision::Allow,
        "an earlier policy has decided"
    );
    assert_eq!(judged(OnInvalid::Closed, "x/a", "tcp/80"), Decision::Deny);
    assert_eq!(
        judged(OnInvalid::Closed, "x/b", "tcp/80"),
        Decision::Allow,
        "it does not select x/b"
    );
    assert_eq!(judged(OnInvalid::Open, "x/a", "tcp/80"), Decision::Allow);
}

#[test]
fn a_policy_of_which_only_the_name_is_known_closes_everything_it_could_select() {
    let world = World::new().global(
        "open",
        "{order: -5, types: [Ingress, Egress], ingress: [{action: Allow}], egress: [{action: Allow}]}",
    );
    let unreadable = |namespace: Option<&str>| {
        let id = PolicyId {
            kind: namespace.map_or(PolicyKind::Global, |_| PolicyKind::Warren),
            namespace: namespace.map(str::to_owned),
            name: "broken".into(),
        };
        Invalid::unreadable(id, "spec.ingress is not a list")
    };
    let judged = |invalid: Invalid, from, to| {
        let rules = compile(&Input {
            invalid: &[invalid],
            ..Input::new(&world.policies, &world.cluster)
        });
        verdict(&rules, &world.flow(from, to, "tcp/80", 0)).action
    };
    assert_eq!(judged(unreadable(Some("x")), "y/a", "x/a"), Decision::Deny);
    assert_eq!(judged(unreadable(Some("x")), "x/a", "y/a"), Decision::Deny);
    assert_eq!(judged(unreadable(Some("x")), "y/a", "z/a"), Decision::Allow);
    assert_eq!(judged(unreadable(None), "y/a", "z/a"), Decision::Deny);
}
