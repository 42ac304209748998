//! The examples of <https://kubernetes.io/docs/concepts/services-networking/network-policies/>.

use warren_policy::Labels;

use crate::world::{World, ip, of};

/// The first example of the page: a database that front ends of its namespace, a project's namespace and a block of
/// addresses may reach.
fn database() -> World {
    let mut world = World::new().kubernetes(
        "x",
        "
podSelector: {matchLabels: {role: db}}
policyTypes: [Ingress, Egress]
ingress:
- from:
  - ipBlock: {cidr: 172.17.0.0/16, except: [172.17.1.0/24]}
  - namespaceSelector: {matchLabels: {project: myproject}}
  - podSelector: {matchLabels: {role: frontend}}
  ports:
  - {protocol: TCP, port: 6379}
egress:
- to:
  - ipBlock: {cidr: 10.0.2.0/24}
  ports:
  - {protocol: TCP, port: 5978}",
    );
    world.pod("x/a").labels = Labels::from_iter([("role", "db")]);
    world.pod("x/b").labels = Labels::from_iter([("role", "frontend")]);
    world.pod("z/b").labels = Labels::from_iter([("role", "frontend")]);
    world.cluster.namespaces[1].labels.set("project", "myproject");
    world
}

#[test]
fn the_database_is_reached_by_front_ends_of_its_namespace_and_by_the_project() {
    let world = database();
    for (from, expected) in [
        ("x/b", true),
        ("x/c", false),
        ("y/a", true),
        ("y/c", true),
        ("z/b", false),
    ] {
        assert_eq!(world.reaches(from, "x/a", "tcp/6379"), expected, "{from}");
        assert!(!world.reaches(from, "x/a", "tcp/6380"), "{from}");
    }
}

#[test]
fn the_database_is_reached_from_the_block_but_not_from_the_exception() {
    let world = database();
    let allowed = |from: &str, port| {
        let flow = world.flow(from, "x/a", port, 0);
        warren_policy::verdict(&world.rules(), &flow).action == warren_policy::Decision::Allow
    };
    for (from, expected) in [
        ("172.17.0.0", true),
        ("172.17.0.255", true),
        ("172.17.1.0", false),
        ("172.17.1.255", false),
        ("172.17.2.0", true),
        ("172.17.255.255", true),
        ("172.18.0.0", false),
        ("172.16.255.255", false),
    ] {
        assert_eq!(allowed(from, "tcp/6379"), expected, "{from}");
    }
    assert!(!allowed("172.17.0.1", "udp/6379"));
}

#[test]
fn the_database_reaches_the_block_on_one_port() {
    let world = database();
    let allowed = |to: &str, port| {
        let flow = world.flow("x/a", to, port, 0);
        warren_policy::verdict(&world.rules(), &flow).action == warren_policy::Decision::Allow
    };
    assert!(allowed("10.0.2.1", "tcp/5978"));
    assert!(!allowed("10.0.2.1", "tcp/5979"));
    assert!(!allowed("10.0.3.1", "tcp/5978"));
}

#[test]
fn a_namespace_and_a_pod_selector_in_one_element_are_both_needed() {
    let peer = |from: &str| format!("podSelector: {{matchLabels: {{pod: a}}}}\ningress:\n- from:\n{from}");
    let both = "  - namespaceSelector: {matchLabels: {ns: y}}\n    podSelector: {matchLabels: {pod: b}}";
    World::new()
        .kubernetes("x", &peer(both))
        .expect("tcp/80", |from, to| to != "x/a" || from == "y/b");
    let either = "  - namespaceSelector: {matchLabels: {ns: y}}\n  - podSelector: {matchLabels: {pod: b}}";
    World::new()
        .kubernetes("x", &peer(either))
        .expect("tcp/80", |from, to| to != "x/a" || of(from, "y") || from == "x/b");
}

#[test]
fn default_policies_do_what_their_names_say() {
    let with = |spec: &str| World::new().kubernetes("x", spec);
    // default-deny-ingress, allow-all-ingress, default-deny-egress, allow-all-egress, default-deny-all
    with("{podSelector: {}, policyTypes: [Ingress]}").expect("tcp/80", |_, to| !of(to, "x"));
    with("{podSelector: {}, ingress: [{}], policyTypes: [Ingress]}").expect("tcp/80", |_, _| true);
    with("{podSelector: {}, policyTypes: [Egress]}").expect("tcp/80", |from, _| !of(from, "x"));
    with("{podSelector: {}, egress: [{}], policyTypes: [Egress]}").expect("tcp/80", |_, _| true);
    with("{podSelector: {}, policyTypes: [Ingress, Egress]}")
        .expect("tcp/80", |from, to| !of(from, "x") && !of(to, "x"));
}

#[test]
fn default_deny_egress_also_keeps_a_pod_from_dns_until_it_is_allowed() {
    let mut world = World::new().kubernetes("x", "{podSelector: {}, policyTypes: [Egress]}");
    world.pod("z/a").labels = Labels::from_iter([("k8s-app", "kube-dns")]);
    assert!(!world.reaches("x/a", "z/a", "udp/53"));
    let world = world.kubernetes(
        "x",
        "
podSelector: {}
policyTypes: [Egress]
egress:
- to:
  - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: z}}
    podSelector: {matchLabels: {k8s-app: kube-dns}}
  ports:
  - {protocol: UDP, port: 53}
  - {protocol: TCP, port: 53}",
    );
    assert!(world.reaches("x/a", "z/a", "udp/53"));
    assert!(world.reaches("x/a", "z/a", "tcp/53"));
    assert!(!world.reaches("x/a", "z/a", "tcp/80"));
    assert!(!world.reaches("x/a", "z/b", "udp/53"));
    assert!(!world.reaches("x/a", "outside", "udp/53"));
}

#[test]
fn a_range_of_ports_is_targeted_by_end_port() {
    let mut world = World::new().kubernetes(
        "x",
        "
podSelector: {matchLabels: {role: db}}
policyTypes: [Egress]
egress:
- to:
  - ipBlock: {cidr: 10.0.0.0/24}
  ports:
  - {protocol: TCP, port: 32000, endPort: 32768}",
    );
    world.pod("x/a").labels = Labels::from_iter([("role", "db")]);
    let allowed = |port: &str| {
        let flow = world.flow("x/a", "10.0.0.77", port, 0);
        warren_policy::verdict(&world.rules(), &flow).action == warren_policy::Decision::Allow
    };
    for (port, expected) in [
        ("tcp/31999", false),
        ("tcp/32000", true),
        ("tcp/32768", true),
        ("tcp/32769", false),
        ("udp/32100", false),
    ] {
        assert_eq!(allowed(port), expected, "{port}");
    }
}

#[test]
fn several_namespaces_are_targeted_by_label() {
    World::new()
        .kubernetes(
            "x",
            "
podSelector: {matchLabels: {pod: a}}
policyTypes: [Egress]
egress:
- to:
  - namespaceSelector:
      matchExpressions:
      - {key: ns, operator: In, values: [y, z]}",
        )
        .expect("tcp/80", |from, to| from != "x/a" || !of(to, "x"));
}

#[test]
fn a_pod_cannot_block_itself_and_its_node_always_reaches_it() {
    let mut world = World::new().kubernetes("x", "{podSelector: {}, policyTypes: [Ingress, Egress]}");
    assert!(world.reaches("x/a", "x/a", "tcp/80"));
    for (node, address) in [("node1", "192.0.2.1"), ("node2", "192.0.2.2")] {
        let node = node.parse().expect("a node's name");
        world.cluster.nodes.insert(node, vec![ip(address)]);
    }
    world.pod("x/a").node = Some("node1".parse().expect("a node's name"));
    let allowed = |from: &str, to: &str| {
        let flow = world.flow(from, to, "tcp/80", 0);
        warren_policy::verdict(&world.rules(), &flow).action == warren_policy::Decision::Allow
    };
    assert!(allowed("192.0.2.1", "x/a"));
    assert!(!allowed("192.0.2.2", "x/a"), "another node is anybody");
    assert!(
        !allowed("x/a", "192.0.2.1"),
        "what a pod opens to its node is egress like any other"
    );
}
