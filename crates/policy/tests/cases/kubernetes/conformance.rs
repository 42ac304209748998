//! What Kubernetes's `test/e2e/network/netpol` asks of an implementation, case by case: a truth table of all pods.

use crate::world::{World, of};

const X_A: &str = "podSelector: {matchLabels: {pod: a}}";

fn world() -> World {
    World::new()
}

fn to_x_a(rules: &str) -> World {
    world().kubernetes("x", &format!("{X_A}\n{rules}"))
}

#[test]
fn supports_a_default_deny_ingress_policy() {
    world()
        .kubernetes("x", "{podSelector: {}, policyTypes: [Ingress]}")
        .expect("tcp/80", |_, to| !of(to, "x"));
}

#[test]
fn supports_a_default_deny_all_policy() {
    world()
        .kubernetes("x", "{podSelector: {}, policyTypes: [Ingress, Egress]}")
        .expect("tcp/80", |from, to| !of(to, "x") && !of(from, "x"));
}

#[test]
fn allows_traffic_from_pods_within_the_server_namespace_by_pod_selector() {
    to_x_a("ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}]}]")
        .expect("tcp/80", |from, to| to != "x/a" || from == "x/b");
}

#[test]
fn allows_ingress_for_a_target_beside_a_deny_all_policy() {
    to_x_a("ingress: [{from: [{podSelector: {}, namespaceSelector: {}}]}]")
        .kubernetes("x", "{podSelector: {}, policyTypes: [Ingress]}")
        .expect("tcp/80", |_, to| !of(to, "x") || to == "x/a");
}

#[test]
fn allows_ingress_from_pods_in_all_namespaces() {
    let world = to_x_a("ingress: [{from: [{namespaceSelector: {matchLabels: {}}}]}]");
    world.expect("tcp/80", |_, _| true);
    assert!(
        !world.reaches("outside", "x/a", "tcp/80"),
        "only pods have a namespace"
    );
}

#[test]
fn allows_traffic_only_from_a_different_namespace_by_namespace_selector() {
    to_x_a("ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: y}}}]}]")
        .expect("tcp/80", |from, to| to != "x/a" || of(from, "y"));
}

#[test]
fn selects_pods_by_match_expressions() {
    to_x_a("ingress: [{from: [{podSelector: {matchExpressions: [{key: pod, operator: In, values: [b]}]}}]}]")
        .expect("tcp/80", |from, to| to != "x/a" || from == "x/b");
}

#[test]
fn selects_namespaces_by_match_expressions() {
    to_x_a("ingress: [{from: [{namespaceSelector: {matchExpressions: [{key: ns, operator: In, values: [y]}]}}]}]")
        .expect("tcp/80", |from, to| to != "x/a" || of(from, "y"));
}

const NOT_X: &str = "namespaceSelector: {matchExpressions: [{key: ns, operator: NotIn, values: [x]}]}";

#[test]
fn two_peers_are_a_pod_selector_or_a_namespace_selector() {
    to_x_a(&format!(
        "ingress: [{{from: [{{{NOT_X}}}, {{podSelector: {{matchLabels: {{pod: b}}}}}}]}}]"
    ))
    .expect("tcp/80", |from, to| {
        to != "x/a" || !of(from, "x") || from == "x/b"
    });
}

#[test]
fn one_peer_is_a_pod_selector_and_a_namespace_selector() {
    to_x_a(&format!(
        "ingress: [{{from: [{{{NOT_X}, podSelector: {{matchLabels: {{pod: b}}}}}}]}}]"
    ))
    .expect("tcp/80", |from, to| to != "x/a" || from == "y/b" || from == "z/b");
}

#[test]
fn multiple_pod_and_namespace_selectors_hold_together() {
    let pods = "podSelector: {matchExpressions: [{key: pod, operator: In, values: [b, c]}]}";
    to_x_a(&format!("ingress: [{{from: [{{{NOT_X}, {pods}}}]}}]")).expect("tcp/80", |from, to| {
        to != "x/a" || (!of(from, "x") && !from.ends_with("/a"))
    });
}

#[test]
fn any_of_several_pod_selectors_is_enough() {
    to_x_a(
        "ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}, {podSelector: {matchLabels: {pod: c}}}]}]",
    )
    .expect("tcp/80", |from, to| to != "x/a" || from == "x/b" || from == "x/c");
}

#[test]
fn allows_traffic_only_from_a_pod_in_a_different_namespace() {
    to_x_a("ingress: [{from: [{namespaceSelector: {matchLabels: {ns: y}}, podSelector: {matchLabels: {pod: a}}}]}]")
        .expect("tcp/80", |from, to| to != "x/a" || from == "y/a");
}

#[test]
fn ports_narrow_what_is_allowed() {
    let world =
        to_x_a("ingress: [{from: [{namespaceSelector: {matchLabels: {ns: y}}}], ports: [{port: 81}]}]");
    world.expect("tcp/81", |from, to| to != "x/a" || of(from, "y"));
    world.expect("tcp/80", |_, to| to != "x/a");
}

#[test]
fn stacked_policies_with_overlapping_pod_selectors_add_up() {
    let from_y = |port| {
        format!(
            "{X_A}\ningress: [{{from: [{{namespaceSelector: {{matchLabels: {{ns: y}}}}}}], ports: [{{port: {port}}}]}}]"
        )
    };
    let one = world().kubernetes("x", &from_y(81));
    one.expect("tcp/81", |from, to| to != "x/a" || of(from, "y"));
    one.expect("tcp/80", |_, to| to != "x/a");
    let both = one.kubernetes("x", &from_y(80));
    for port in ["tcp/80", "tcp/81"] {
        both.expect(port, |from, to| to != "x/a" || of(from, "y"));
    }
}

#[test]
fn an_allow_all_policy_allows_all() {
    let world = world().kubernetes("x", "{podSelector: {}, ingress: [{}]}");
    for port in ["tcp/80", "tcp/81", "udp/53", "icmp"] {
        world.expect(port, |_, _| true);
    }
    assert!(world.reaches("outside", "x/a", "tcp/80"));
}

#[test]
fn an_allow_all_policy_beside_a_deny_all_policy_allows_all() {
    world()
        .kubernetes("x", "{podSelector: {}, policyTypes: [Ingress]}")
        .kubernetes("x", "{podSelector: {}, ingress: [{}]}")
        .expect("tcp/80", |_, _| true);
}

#[test]
fn allows_ingress_on_one_named_port() {
    let world = world().kubernetes(
        "x",
        "{podSelector: {}, ingress: [{ports: [{port: serve-81-tcp}]}]}",
    );
    world.expect("tcp/81", |_, _| true);
    world.expect("tcp/80", |_, to| !of(to, "x"));
}

#[test]
fn allows_ingress_from_a_namespace_on_one_named_port() {
    let world = to_x_a(
        "ingress: [{from: [{namespaceSelector: {matchLabels: {ns: y}}}], ports: [{port: serve-80-tcp, protocol: TCP}]}]",
    );
    world.expect("tcp/80", |from, to| to != "x/a" || of(from, "y"));
    world.expect("tcp/81", |_, to| to != "x/a");
}

#[test]
fn allows_egress_on_one_named_port() {
    let world = world().kubernetes(
        "x",
        "{podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: serve-80-tcp}]}]}",
    );
    world.expect("tcp/80", |_, _| true);
    world.expect("tcp/81", |from, _| !of(from, "x"));
    // Nobody knows what an address outside calls its ports.
    assert!(!world.reaches("x/a", "outside", "tcp/80"));
}

#[test]
fn an_updated_policy_replaces_what_it_was() {
    to_x_a("ingress: [{}]").expect("tcp/81", |_, _| true);
    to_x_a("ingress: []").expect("tcp/81", |_, to| to != "x/a");
}

#[test]
fn follows_the_labels_of_namespaces_and_pods() {
    let mut world = to_x_a("ingress: [{from: [{namespaceSelector: {matchLabels: {ns2: updated}}}]}]");
    world.expect("tcp/80", |_, to| to != "x/a");
    world.cluster.namespaces[1].labels.set("ns2", "updated");
    world.expect("tcp/80", |from, to| to != "x/a" || of(from, "y"));

    let mut world = to_x_a("ingress: [{from: [{podSelector: {matchLabels: {pod: b, pod2: updated}}}]}]");
    world.expect("tcp/80", |_, to| to != "x/a");
    world.pod("x/b").labels.set("pod2", "updated");
    world.expect("tcp/80", |from, to| to != "x/a" || from == "x/b");
}

#[test]
fn denies_ingress_from_pods_of_other_namespaces() {
    world()
        .kubernetes("x", "{podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}")
        .expect("tcp/80", |from, to| !of(to, "x") || of(from, "x"));
}

#[test]
fn denies_ingress_to_a_pod_that_is_labelled_into_a_policy() {
    let mut world = world().kubernetes(
        "x",
        "{podSelector: {matchLabels: {target: isolated}}, policyTypes: [Ingress]}",
    );
    world.expect("tcp/80", |_, _| true);
    world.pod("x/a").labels.set("target", "isolated");
    world.expect("tcp/80", |_, to| to != "x/a");
}

#[test]
fn denies_egress_by_pod_selector_and_from_a_whole_namespace() {
    to_x_a("policyTypes: [Egress]").expect("tcp/80", |from, _| from != "x/a");
    world()
        .kubernetes("x", "{podSelector: {}, policyTypes: [Egress]}")
        .expect("tcp/80", |from, _| !of(from, "x"));
}

#[test]
fn ingress_and_egress_work_together() {
    let world = to_x_a(
        "policyTypes: [Egress, Ingress]
ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}]}]
egress: [{ports: [{port: 80}]}]",
    );
    world.expect("tcp/80", |from, to| to != "x/a" || from == "x/b");
    world.expect("tcp/81", |from, to| {
        from != "x/a" && (to != "x/a" || from == "x/b")
    });
}

#[test]
fn egress_is_denied_on_the_client_side_even_if_the_server_allows_it() {
    let from_x_a = "ingress: [{from: [{namespaceSelector: {matchLabels: {ns: x}}, podSelector: {matchLabels: {pod: a}}}]}]";
    to_x_a(
        "policyTypes: [Egress]
egress: [{to: [{namespaceSelector: {matchLabels: {ns: y}}, podSelector: {matchLabels: {pod: a}}}]}]",
    )
    .kubernetes(
        "y",
        &format!("podSelector: {{matchLabels: {{pod: a}}}}\n{from_x_a}"),
    )
    .kubernetes(
        "y",
        &format!("podSelector: {{matchLabels: {{pod: b}}}}\n{from_x_a}"),
    )
    .expect("tcp/80", |from, to| match (from, to) {
        ("x/a", to) => to == "y/a",
        (_, "y/a" | "y/b") => false,
        _ => true,
    });
}

#[test]
fn egress_is_allowed_to_a_server_in_a_different_namespace() {
    to_x_a(
        "policyTypes: [Egress]
egress: [{to: [{namespaceSelector: {matchLabels: {ns: y}}, podSelector: {matchLabels: {pod: a}}}]}]",
    )
    .expect("tcp/80", |from, to| from != "x/a" || to == "y/a");
}

#[test]
fn a_rule_by_protocol_allows_any_port_of_it() {
    let world = to_x_a("ingress: [{ports: [{protocol: TCP}]}]");
    world.expect("tcp/80", |_, _| true);
    world.expect("tcp/1", |_, _| true);
    world.expect("udp/80", |_, to| to != "x/a");
    world.expect("icmp", |_, to| to != "x/a");
}

#[test]
fn multiple_ingress_policies_with_distinct_ports_add_up() {
    let world = to_x_a("ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}], ports: [{port: 80}]}]")
        .kubernetes(
            "x",
            &format!("{X_A}\ningress: [{{from: [{{podSelector: {{matchLabels: {{pod: b}}}}}}], ports: [{{port: 81}}]}}]"),
        );
    for port in ["tcp/80", "tcp/81"] {
        world.expect(port, |from, to| to != "x/a" || from == "x/b");
    }
}

#[test]
fn multiple_egress_policies_add_up() {
    to_x_a("policyTypes: [Egress]\negress: [{to: [{namespaceSelector: {matchLabels: {ns: y}}}]}]")
        .kubernetes(
            "x",
            &format!("{X_A}\npolicyTypes: [Egress]\negress: [{{to: [{{namespaceSelector: {{matchLabels: {{ns: z}}}}}}]}}]"),
        )
        .expect("tcp/80", |from, to| from != "x/a" || !of(to, "x"));
}

#[test]
fn allows_egress_to_a_server_in_a_cidr_block() {
    let world = to_x_a(
        "policyTypes: [Egress]
egress: [{to: [{ipBlock: {cidr: 10.0.1.2/32}}, {ipBlock: {cidr: 'fd00:1::2/128'}}]}]",
    );
    world.expect("tcp/80", |from, to| from != "x/a" || to == "y/b");
}

#[test]
fn an_except_clause_is_not_allowed_unless_another_policy_allows_it() {
    let except = "policyTypes: [Egress]
egress:
- to:
  - ipBlock: {cidr: 10.0.1.0/24, except: [10.0.1.2/32]}
  - ipBlock: {cidr: 'fd00:1::/64', except: ['fd00:1::2/128']}";
    let world = to_x_a(except);
    world.expect("tcp/80", |from, to| from != "x/a" || (of(to, "y") && to != "y/b"));
    let also = "policyTypes: [Egress]
egress: [{to: [{ipBlock: {cidr: 10.0.1.2/32}}, {ipBlock: {cidr: 'fd00:1::2/128'}}]}]";
    world
        .kubernetes("x", &format!("{X_A}\n{also}"))
        .expect("tcp/80", |from, to| from != "x/a" || of(to, "y"));
}

#[test]
fn policies_to_stop_isolating_are_forgotten_with_them() {
    let mut world = to_x_a("policyTypes: [Ingress, Egress]");
    world.expect("tcp/80", |from, to| from != "x/a" && to != "x/a");
    world.policies.clear();
    world.expect("tcp/80", |_, _| true);
}

#[test]
fn a_udp_policy_is_none_for_tcp() {
    let world = to_x_a(
        "ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}], ports: [{port: 81, protocol: UDP}]}]",
    );
    world.expect("udp/81", |from, to| to != "x/a" || from == "x/b");
    world.expect("tcp/81", |_, to| to != "x/a");
}

#[test]
fn an_sctp_policy_is_none_for_tcp() {
    let world = to_x_a("ingress: [{ports: [{port: 81, protocol: SCTP}]}]");
    world.expect("sctp/81", |_, _| true);
    world.expect("sctp/80", |_, to| to != "x/a");
    world.expect("tcp/81", |_, to| to != "x/a");
}

#[test]
fn end_port_makes_a_range_with_both_ends() {
    let world = to_x_a("policyTypes: [Egress]\negress: [{ports: [{port: 80, endPort: 82, protocol: TCP}]}]");
    for port in ["tcp/80", "tcp/81", "tcp/82"] {
        world.expect(port, |_, _| true);
    }
    for port in ["tcp/79", "tcp/83", "udp/81"] {
        world.expect(port, |from, _| from != "x/a");
    }
}
