//! What the API's field documentation says beside the examples, and what is refused.

use warren_model::NodeName;
use warren_policy::{Decision, Input, OnInvalid, Reach, compile, verdict};

use crate::world::{World, ip};

fn with(spec: &str) -> World {
    World::new().kubernetes("x", spec)
}

#[test]
fn policy_types_default_by_what_the_policy_has() {
    // Of each: whether x/a may be reached, and whether it may reach.
    for (spec, comes_in, goes_out) in [
        ("{podSelector: {}}", false, true),
        ("{podSelector: {}, ingress: []}", false, true),
        ("{podSelector: {}, egress: []}", false, true),
        ("{podSelector: {}, egress: [{}]}", false, true),
        ("{podSelector: {}, egress: [{ports: [{port: 1}]}]}", false, false),
        (
            "{podSelector: {}, policyTypes: [], egress: [{ports: [{port: 1}]}]}",
            false,
            false,
        ),
        ("{podSelector: {}, policyTypes: [Egress]}", true, false),
        (
            "{podSelector: {}, policyTypes: [Egress], ingress: [{ports: [{port: 1}]}]}",
            true,
            false,
        ),
        (
            "{podSelector: {}, policyTypes: [Ingress], egress: [{ports: [{port: 1}]}]}",
            false,
            true,
        ),
        ("{podSelector: {}, ingress: [{from: [], ports: []}]}", true, true),
        ("{podSelector: {}, ingress: null, policyTypes: null}", false, true),
    ] {
        let world = with(spec);
        assert_eq!(world.reaches("y/a", "x/a", "tcp/80"), comes_in, "in: {spec}");
        assert_eq!(world.reaches("x/a", "y/a", "tcp/80"), goes_out, "out: {spec}");
    }
}

#[test]
fn an_empty_selector_is_everything_and_an_absent_one_is_not_asked() {
    for (peer, same, other, outside) in [
        ("podSelector: {}", true, false, false),
        ("namespaceSelector: {}", true, true, false),
        ("podSelector: {}, namespaceSelector: {}", true, true, false),
        (
            "namespaceSelector: {matchLabels: {ns: y}}, podSelector: {}",
            false,
            true,
            false,
        ),
    ] {
        let world = with(&format!(
            "{{podSelector: {{}}, ingress: [{{from: [{{{peer}}}]}}]}}"
        ));
        assert_eq!(world.reaches("x/b", "x/a", "tcp/80"), same, "{peer}");
        assert_eq!(world.reaches("y/b", "x/a", "tcp/80"), other, "{peer}");
        assert_eq!(world.reaches("outside", "x/a", "tcp/80"), outside, "{peer}");
    }
}

#[test]
fn requirements_hold_together_and_the_negative_ones_for_what_has_no_such_label() {
    for (expressions, a, b) in [
        ("{key: pod, operator: In, values: [a, c]}", true, false),
        ("{key: pod, operator: NotIn, values: [a]}", false, true),
        ("{key: tier, operator: NotIn, values: [db]}", true, true),
        ("{key: pod, operator: Exists}", true, true),
        ("{key: tier, operator: Exists}", false, false),
        ("{key: tier, operator: DoesNotExist}", true, true),
        (
            "{key: pod, operator: Exists}, {key: pod, operator: NotIn, values: [b]}",
            true,
            false,
        ),
    ] {
        let spec = format!(
            "{{podSelector: {{matchLabels: {{pod: c}}}}, ingress: [{{from: [{{podSelector: {{matchExpressions: [{expressions}]}}}}]}}]}}"
        );
        let world = with(&spec);
        assert_eq!(world.reaches("x/a", "x/c", "tcp/80"), a, "{expressions}");
        assert_eq!(world.reaches("x/b", "x/c", "tcp/80"), b, "{expressions}");
    }
}

#[test]
fn a_port_name_leads_to_the_port_of_the_pod_that_is_reached() {
    let mut world = with("{podSelector: {}, ingress: [{ports: [{port: serve-80-tcp}]}]}");
    world.pod("x/a").ports[0].port = 8080;
    world.pod("x/b").ports.clear();
    let reached = |to, port| world.reaches("y/a", to, port);
    assert!(reached("x/a", "tcp/8080") && !reached("x/a", "tcp/80"));
    assert!(!reached("x/b", "tcp/80"), "x/b has no port of that name");
    assert!(reached("x/c", "tcp/80") && !reached("x/c", "tcp/8080"));
    assert!(!reached("x/c", "udp/80"), "the name is of another protocol");
}

#[test]
fn pods_on_the_hosts_network_and_finished_ones_are_left_out() {
    let mut world = with(
        "{podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{from: [{podSelector: {}}]}], egress: [{}]}",
    );
    world.pod("x/b").finished = true;
    world.pod("x/c").host_network = true;
    assert!(
        world.reaches("y/a", "x/b", "tcp/80"),
        "a finished pod is not protected"
    );
    assert!(
        world.reaches("y/a", "x/c", "tcp/80"),
        "a pod on the host's network is not"
    );
    assert!(
        !world.reaches("x/b", "x/a", "tcp/80"),
        "a finished pod is nobody's peer"
    );
    assert!(
        !world.reaches("x/c", "x/a", "tcp/80"),
        "nor is one on the host's network"
    );
    // The address of a finished pod may be another's.
    world.pod("y/a").addresses = vec![ip("10.0.0.2"), ip("fd00::2")];
    assert!(!world.reaches("y/a", "x/a", "tcp/80"));
}

#[test]
fn an_ip_block_is_about_addresses_whoever_has_them() {
    let world = with("{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.1.0/24}}]}]}");
    let allowed = |family| {
        verdict(&world.rules(), &world.flow("y/a", "x/a", "tcp/80", family)).action == Decision::Allow
    };
    assert!(allowed(0));
    assert!(!allowed(1), "a block of IPv4 says nothing of IPv6");
    // Bits behind the prefix do not count.
    let loose = with("{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.1.77/24}}]}]}");
    assert_eq!(loose.rules().policies, world.rules().policies);
}

#[test]
fn rules_of_a_node_are_those_of_its_pods_with_peers_everywhere() {
    let mut world =
        with("{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: y}}}]}]}");
    let node: NodeName = "node1".parse().expect("a node's name");
    world.pod("x/a").node = Some(node.clone());
    let rules = compile(&Input {
        reach: Reach::Node(node),
        ..Input::new(&world.policies, &world.cluster)
    });
    assert_eq!(rules.endpoints.len(), 1);
    let action = |from, to| verdict(&rules, &world.flow(from, to, "tcp/80", 0)).action;
    assert_eq!(action("y/a", "x/a"), Decision::Allow);
    assert_eq!(action("z/a", "x/a"), Decision::Deny);
    assert_eq!(
        action("z/a", "x/b"),
        Decision::Allow,
        "x/b is for its own node to judge"
    );
}

#[test]
fn what_is_invalid_is_refused_by_name_with_the_field_and_the_reason() {
    for (spec, code, message) in [
        (
            "{ingress: [{from: [{}]}]}",
            "policy-contradiction",
            "spec.ingress[0].from[0]: a peer needs",
        ),
        (
            "{ingress: [{from: [{podSelector: {}, ipBlock: {cidr: 10.0.0.0/8}}]}]}",
            "policy-contradiction",
            "an ipBlock stands alone",
        ),
        (
            "{ingress: [{from: [{ipBlock: {cidr: ten}}]}]}",
            "policy-value",
            "spec.ingress[0].from[0].ipBlock.cidr: \"ten\"",
        ),
        (
            "{egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/16]}}]}]}",
            "policy-except",
            "11.0.0.0/16 is not inside 10.0.0.0/8",
        ),
        (
            "{ingress: [{ports: [{port: 0}]}]}",
            "policy-value",
            "spec.ingress[0].ports[0].port: \"0\"",
        ),
        ("{ingress: [{ports: [{port: 65536}]}]}", "policy-value", "65536"),
        (
            "{ingress: [{ports: [{port: Not_a_name}]}]}",
            "policy-value",
            "Not_a_name",
        ),
        (
            "{ingress: [{ports: [{port: 80, endPort: 79}]}]}",
            "policy-contradiction",
            "the last port is smaller",
        ),
        (
            "{ingress: [{ports: [{port: http, endPort: 90}]}]}",
            "policy-contradiction",
            "endPort goes with a port by number",
        ),
        (
            "{ingress: [{ports: [{endPort: 90}]}]}",
            "policy-contradiction",
            "endPort goes with a port by number",
        ),
        (
            "{ingress: [{ports: [{protocol: ICMP}]}]}",
            "policy-value",
            "\"ICMP\" is not TCP, UDP or SCTP",
        ),
        ("{policyTypes: [ingress]}", "policy-value", "spec.policyTypes"),
        (
            "{podSelector: {matchExpressions: [{key: a, operator: In}]}}",
            "policy-match-expression",
            "spec.podSelector.matchExpressions[0]: there are no values",
        ),
        (
            "{podSelector: {matchExpressions: [{key: a, operator: Exists, values: [b]}]}}",
            "policy-match-expression",
            "there are values",
        ),
        (
            "{podSelector: {matchExpressions: [{key: a, operator: Gt, values: ['1']}]}}",
            "policy-match-expression",
            "\"Gt\" is not an operator",
        ),
        (
            "{ingress: [{from: [{serviceSelector: {}}]}]}",
            "policy-unsupported",
            "spec.ingress[0].from[0].serviceSelector",
        ),
        (
            "{stages: 2}",
            "policy-unsupported",
            "spec.stages is not supported",
        ),
    ] {
        let world = with(spec);
        assert_eq!(world.invalid.len(), 1, "{spec} was taken");
        let refusal = world.invalid[0].refusal();
        assert_eq!(refusal.object, "NetworkPolicy/x/policy-0", "{spec}");
        assert_eq!(refusal.code, code, "{spec}");
        assert!(refusal.message.contains(message), "{spec}: {refusal}");
    }
}

#[test]
fn pods_of_an_invalid_policy_fail_closed_by_default_and_open_if_asked_for() {
    let world = with("{podSelector: {matchLabels: {pod: a}}, ingress: [{ports: [{port: 0}]}]}")
        .kubernetes("x", "{podSelector: {}, ingress: [{ports: [{port: 443}]}]}");
    let action = |on_invalid, to, port| {
        let rules = compile(&Input {
            invalid: &world.invalid,
            on_invalid,
            ..Input::new(&world.policies[..usize::from(port == "tcp/443")], &world.cluster)
        });
        assert_eq!(rules.refusals.len(), 1);
        verdict(&rules, &world.flow("y/a", to, port, 0)).action
    };
    assert_eq!(action(OnInvalid::Closed, "x/a", "tcp/80"), Decision::Deny);
    assert_eq!(
        action(OnInvalid::Closed, "x/b", "tcp/80"),
        Decision::Allow,
        "it does not select x/b"
    );
    assert_eq!(action(OnInvalid::Open, "x/a", "tcp/80"), Decision::Allow);
    // What another policy allows could not have been denied by this one.
    assert_eq!(action(OnInvalid::Closed, "x/a", "tcp/443"), Decision::Allow);
}

#[test]
fn a_selector_that_is_not_understood_selects_the_whole_namespace() {
    let world = with("{podSelector: {matchExpressions: [{key: a, operator: Gt}]}, policyTypes: [Egress]}");
    let rules = compile(&Input {
        invalid: &world.invalid,
        ..Input::new(&[], &world.cluster)
    });
    let action = |from, to| verdict(&rules, &world.flow(from, to, "tcp/80", 0)).action;
    assert_eq!(action("x/c", "y/a"), Decision::Deny);
    assert_eq!(action("y/a", "x/c"), Decision::Allow, "it speaks of egress only");
    assert_eq!(action("y/a", "z/a"), Decision::Allow);
}
