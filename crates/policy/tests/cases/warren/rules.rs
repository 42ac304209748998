//! What a rule matches.

use std::net::IpAddr;

use warren_policy::flow::Detail;
use warren_policy::{Decision, Flow, Labels, NetworkSet, Protocol, verdict, warren};

use crate::world::{OUTSIDE, World, ip, of, yaml};

/// With one rule for what comes in to x/a, in a policy of namespace x.
fn rule(rule: &str) -> World {
    World::new().warren(
        "x",
        "policy",
        &format!("{{selector: \"pod == 'a'\", ingress: [{rule}]}}"),
    )
}

fn global_rule(rule: &str) -> World {
    let selector = "pod == 'a' && projectcalico.org/namespace == 'x'";
    World::new().global(
        "policy",
        &format!("{{selector: \"{selector}\", ingress: [{rule}]}}"),
    )
}

#[test]
fn types_default_by_the_rules_there_are() {
    for (spec, comes_in, goes_out) in [
        ("{}", false, true),
        ("{ingress: []}", false, true),
        ("{ingress: [{action: Allow}]}", true, true),
        ("{egress: [{action: Deny}]}", true, false),
        (
            "{ingress: [{action: Allow}], egress: [{action: Deny}]}",
            true,
            false,
        ),
        ("{types: [Egress]}", true, false),
        ("{types: [Ingress, Egress]}", false, false),
        ("{types: [Egress], ingress: [{action: Deny}]}", true, false),
    ] {
        let world = World::new().warren("x", "policy", spec);
        assert_eq!(world.reaches("y/a", "x/a", "tcp/80"), comes_in, "in: {spec}");
        assert_eq!(world.reaches("x/a", "y/a", "tcp/80"), goes_out, "out: {spec}");
    }
}

#[test]
fn selectors_of_a_namespaced_policy_look_in_its_namespace_unless_it_says_otherwise() {
    for (source, expected) in [
        ("{}", &["x/b", "y/b", "z/c", "outside"][..]),
        ("{selector: \"pod == 'b'\"}", &["x/b"]),
        ("{notSelector: \"pod == 'b'\"}", &["x/c"]),
        ("{namespaceSelector: \"ns == 'y'\"}", &["y/b"]),
        (
            "{namespaceSelector: \"all()\", selector: \"pod == 'b'\"}",
            &["x/b", "y/b"],
        ),
        (
            "{namespaceSelector: \"projectcalico.org/name == 'z'\", notSelector: \"pod == 'b'\"}",
            &["z/c"],
        ),
    ] {
        let world = rule(&format!("{{action: Allow, source: {source}}}"));
        for from in ["x/b", "x/c", "y/b", "z/c", "outside"] {
            let expected = expected.contains(&from) || (source == "{}" && from == "x/c");
            assert_eq!(
                world.reaches(from, "x/a", "tcp/80"),
                expected,
                "{from} by {source}"
            );
        }
    }
}

#[test]
fn selectors_of_a_global_policy_look_everywhere() {
    for (source, expected) in [
        ("{selector: \"pod == 'b'\"}", &["x/b", "y/b"][..]),
        ("{notSelector: \"pod == 'b'\"}", &["x/c", "z/c", "outside"]),
        ("{selector: all()}", &["x/b", "x/c", "y/b", "z/c"]),
        (
            "{selector: \"pod == 'c'\", namespaceSelector: \"ns in {'x', 'y'}\"}",
            &["x/c"],
        ),
    ] {
        let world = global_rule(&format!("{{action: Allow, source: {source}}}"));
        for from in ["x/b", "x/c", "y/b", "z/c", "outside"] {
            assert_eq!(
                world.reaches(from, "x/a", "tcp/80"),
                expected.contains(&from),
                "{from} by {source}"
            );
        }
    }
}

#[test]
fn nets_and_not_nets_are_about_addresses() {
    let world = global_rule(
        "{action: Allow, source: {nets: [10.0.0.0/8, 'fd00::/8'], notNets: [10.0.1.0/24, 'fd00:1::/64']}}",
    );
    world.expect("tcp/80", |from, to| to != "x/a" || !of(from, "y"));
    assert!(!world.reaches("outside", "x/a", "tcp/80"));
    let world = global_rule("{action: Allow, source: {notNets: [198.51.100.7, '2001:db8::/32']}}");
    world.expect("tcp/80", |_, _| true);
    assert!(!world.reaches("outside", "x/a", "tcp/80"));
}

#[test]
fn ports_are_numbers_ranges_and_names() {
    let world = global_rule(
        "{action: Allow, protocol: TCP, destination: {ports: [443, '8000:8080', '9000', serve-80-tcp]}}",
    );
    for (port, expected) in [
        ("tcp/443", true),
        ("tcp/444", false),
        ("tcp/7999", false),
        ("tcp/8000", true),
        ("tcp/8080", true),
        ("tcp/8081", false),
        ("tcp/9000", true),
        ("tcp/80", true),
        ("tcp/81", false),
        ("udp/443", false),
    ] {
        assert_eq!(world.reaches("y/a", "x/a", port), expected, "{port}");
    }
    let world = global_rule("{action: Allow, protocol: TCP, destination: {notPorts: [443, serve-80-tcp]}}");
    for (port, expected) in [
        ("tcp/443", false),
        ("tcp/80", false),
        ("tcp/81", true),
        ("udp/81", false),
    ] {
        assert_eq!(world.reaches("y/a", "x/a", port), expected, "{port}");
    }
}

#[test]
fn source_ports_are_those_the_flow_is_opened_from() {
    let world = global_rule("{action: Allow, protocol: UDP, source: {ports: ['500:600']}}");
    let allowed = |source| {
        let mut flow = world.flow("y/a", "x/a", "udp/4500", 0);
        flow.detail = Detail::Ports {
            source,
            destination: 4500,
        };
        verdict(&world.rules(), &flow).action == Decision::Allow
    };
    assert!(allowed(500) && allowed(600));
    assert!(!allowed(499) && !allowed(601));
}

#[test]
fn protocols_go_by_name_and_number_and_may_be_excluded() {
    let passes = |world: &World, protocol| {
        let flow = Flow {
            protocol,
            detail: Detail::Nothing,
            ..world.flow("y/a", "x/a", "tcp/1", 0)
        };
        verdict(&world.rules(), &flow).action == Decision::Allow
    };
    for (rule, gre, tcp) in [
        ("{action: Allow, protocol: 47}", true, false),
        ("{action: Allow, protocol: TCP}", false, true),
        ("{action: Allow, protocol: tcp}", false, true),
        ("{action: Allow, protocol: '6'}", false, true),
        ("{action: Allow, notProtocol: TCP}", true, false),
        ("{action: Allow, notProtocol: 47}", false, true),
    ] {
        let world = global_rule(rule);
        assert_eq!(passes(&world, Protocol(47)), gre, "GRE by {rule}");
        assert_eq!(passes(&world, Protocol::TCP), tcp, "TCP by {rule}");
    }
}

#[test]
fn icmp_goes_by_type_and_code_and_each_version_is_itself() {
    let passes = |world: &World, family: usize, kind, code| {
        let flow = Flow::icmp(
            world.address("y/a", family),
            world.address("x/a", family),
            kind,
            code,
        );
        verdict(&world.rules(), &flow).action == Decision::Allow
    };
    let ping = global_rule("{action: Allow, protocol: ICMP, icmp: {type: 8}}");
    assert!(passes(&ping, 0, 8, 0) && passes(&ping, 0, 8, 1));
    assert!(!passes(&ping, 0, 0, 0) && !passes(&ping, 1, 8, 0));
    assert!(!ping.reaches("y/a", "x/a", "tcp/8"));
    let unreachable = global_rule("{action: Allow, protocol: ICMPv6, icmp: {type: 1, code: 4}}");
    assert!(passes(&unreachable, 1, 1, 4));
    assert!(!passes(&unreachable, 1, 1, 3) && !passes(&unreachable, 0, 1, 4));
    let no_redirects = global_rule("{action: Allow, protocol: ICMP, notICMP: {type: 5}}");
    assert!(passes(&no_redirects, 0, 8, 0) && !passes(&no_redirects, 0, 5, 1));
    let any = global_rule("{action: Allow, protocol: ICMP}");
    assert!(passes(&any, 0, 13, 0));
}

#[test]
fn ip_version_keeps_to_one_family() {
    let world = global_rule("{action: Allow, ipVersion: 6}");
    let allowed = |family| verdict(&world.rules(), &world.flow("y/a", "x/a", "tcp/80", family)).action;
    assert_eq!(allowed(0), Decision::Deny);
    assert_eq!(allowed(1), Decision::Allow);
}

fn network_set(namespace: Option<&str>, nets: &[&str]) -> NetworkSet {
    let labels = Labels::from_iter([("role", "partners")]);
    let spec = yaml(&format!("{{nets: {nets:?}}}"));
    let (set, refusals) = warren::read_network_set(namespace, "partners", labels, &spec);
    assert_eq!(refusals, []);
    set
}

#[test]
fn network_sets_are_found_like_pods() {
    let partners = "{action: Allow, source: {selector: \"role == 'partners'\"}}";
    let allowed = |world: &World, from: &str| {
        let from: IpAddr = ip(from);
        let family = usize::from(from.is_ipv6());
        let flow = Flow::to_port(from, world.address("x/a", family), Protocol::TCP, 80);
        verdict(&world.rules(), &flow).action == Decision::Allow
    };
    // Namespace of the set, seen by the policy of namespace x, seen by the global one.
    for (namespace, by_namespaced, by_global) in [
        (None, false, true),
        (Some("x"), true, true),
        (Some("y"), false, true),
    ] {
        for (mut world, expected) in [
            (rule(partners), by_namespaced),
            (global_rule(partners), by_global),
        ] {
            world.cluster.network_sets = vec![network_set(namespace, &["198.51.100.0/24", "2001:db8::7"])];
            for from in ["198.51.100.0", "198.51.100.7", "2001:db8::7"] {
                assert_eq!(allowed(&world, from), expected, "{from}, a set of {namespace:?}");
            }
            for from in ["198.51.101.0", "2001:db8::8"] {
                assert!(!allowed(&world, from), "{from}");
            }
        }
    }
    // global() finds what is in no namespace, from inside one.
    let mut world =
        rule("{action: Allow, source: {namespaceSelector: global(), selector: \"role == 'partners'\"}}");
    world.cluster.network_sets = vec![
        network_set(None, &["198.51.100.0/24"]),
        network_set(Some("x"), &["203.0.113.0/24"]),
    ];
    assert!(allowed(&world, OUTSIDE[0]));
    assert!(!allowed(&world, "203.0.113.1"));
    // Kubernetes's selectors know pods only.
    let mut world = World::new().kubernetes("x", "{podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}");
    world.cluster.network_sets = vec![network_set(Some("x"), &["198.51.100.0/24"])];
    assert!(!allowed(&world, OUTSIDE[0]));
}

#[test]
fn networks_that_are_none_are_refused_and_the_others_count() {
    let spec = yaml("{nets: [10.0.0.0/8, ten, 'fd00::/8']}");
    let (set, refusals) = warren::read_network_set(Some("x"), "mixed", Labels::default(), &spec);
    assert_eq!(set.nets.len(), 2);
    assert_eq!(refusals.len(), 1);
    assert_eq!(refusals[0].object, "NetworkSet/x/mixed");
    assert!(
        refusals[0].message.starts_with("spec.nets[1]: \"ten\""),
        "{}",
        refusals[0]
    );
}

#[test]
fn equal_selectors_share_a_set_whatever_they_are_written_like() {
    let world = World::new()
        .warren(
            "x",
            "one",
            "{ingress: [{action: Allow, source: {selector: \"pod == 'a' && has(pod)\"}}]}",
        )
        .warren(
            "x",
            "two",
            "{ingress: [{action: Deny, source: {selector: \"has(pod) && (pod in {'a'})\"}}]}",
        )
        .warren(
            "x",
            "three",
            "{egress: [{action: Deny, destination: {selector: \"pod == 'a'&&has(pod)\"}}]}",
        )
        .warren(
            "y",
            "four",
            "{egress: [{action: Deny, destination: {selector: \"pod == 'a'&&has(pod)\"}}]}",
        );
    let rules = world.rules();
    // Three look in x and share one; that of y is another.
    assert_eq!(rules.sets.len(), 2);
    assert_ne!(rules.sets[0].name, rules.sets[1].name);
    // Elements change with pods, names do not.
    let mut fewer = World::new();
    fewer.policies = world.policies;
    fewer.cluster.pods.retain(|pod| pod.name.name != "a");
    let names =
        |rules: &warren_policy::RuleSet| rules.sets.iter().map(|set| set.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&fewer.rules()), names(&rules));
    assert!(fewer.rules().sets.iter().all(|set| set.addresses.is_empty()));
}
