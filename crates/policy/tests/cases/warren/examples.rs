//! Two policies that are widely used with Calico, as they are.

use warren_policy::{Decision, Labels, Reason};

use crate::world::World;

/// Denies all pod traffic but DNS outside of chosen namespaces.
const DENY_APP_POLICY: &str = r#"
namespaceSelector: has(projectcalico.org/name) && projectcalico.org/name not in {"kube-system", "z"}
types:
- Ingress
- Egress
egress:
# allow all namespaces to communicate to DNS pods
- action: Allow
  protocol: UDP
  destination:
    selector: 'k8s-app == "kube-dns"'
    ports:
    - 53
- action: Allow
  protocol: TCP
  destination:
    selector: 'k8s-app == "kube-dns"'
    ports:
    - 53
"#;

fn with_dns() -> World {
    let mut world = World::new().global("deny-app-policy", DENY_APP_POLICY);
    world.pod("z/a").labels = Labels::from_iter([("k8s-app", "kube-dns")]);
    world
}

#[test]
fn a_global_policy_denies_all_but_dns_outside_of_chosen_namespaces() {
    let world = with_dns();
    for port in ["udp/53", "tcp/53"] {
        world.expect(port, |from, to| {
            to == "z/a" || (from.starts_with('z') && to.starts_with('z'))
        });
        assert!(!world.reaches("x/a", "outside", port), "another resolver");
        assert!(world.reaches("z/a", "outside", port), "the resolver asks further");
    }
    world.expect("tcp/80", |from, to| from.starts_with('z') && to.starts_with('z'));
}

#[test]
fn what_a_namespace_needs_is_allowed_by_kubernetes_policies_behind_the_global_one() {
    let world = with_dns().kubernetes("x", "{podSelector: {}, ingress: [{}]}");
    // The global policy has no order, so it is asked last, and its tier's end denies what nobody allowed.
    assert!(world.reaches("z/b", "x/a", "tcp/80"));
    assert!(!world.reaches("x/a", "z/b", "tcp/80"));
    assert!(!world.reaches("z/b", "y/a", "tcp/80"));
}

/// Lets blue reach red on TCP 6379.
const ALLOW_TCP_6379: &str = "
selector: color == 'red'
ingress:
- action: Allow
  protocol: TCP
  source:
    selector: color == 'blue'
  destination:
    ports:
    - 6379
";

#[test]
fn a_policy_lets_blue_reach_red_on_tcp_6379() {
    let mut world = World::new().warren("x", "allow-tcp-6379", ALLOW_TCP_6379);
    for (pod, color) in [
        ("x/a", "red"),
        ("x/b", "blue"),
        ("x/c", "green"),
        ("y/a", "red"),
        ("y/b", "blue"),
    ] {
        world.pod(pod).labels = Labels::from_iter([("color", color)]);
    }
    // Selectors of a NetworkPolicy look in its namespace.
    world.expect("tcp/6379", |from, to| to != "x/a" || from == "x/b");
    world.expect("tcp/6380", |_, to| to != "x/a");
    world.expect("udp/6379", |_, to| to != "x/a");
    assert!(
        world.reaches("x/a", "outside", "tcp/443"),
        "it speaks of ingress only"
    );

    let verdict = world.verdict("x/b", "x/a", "tcp/6379");
    assert_eq!(verdict.action, Decision::Allow);
    let Reason::Rule(rule) = &verdict.deciding().1.reason else {
        panic!("{verdict:?}");
    };
    assert_eq!(
        rule.to_string(),
        "ingress[0] of NetworkPolicy.warren-mesh.io/x/allow-tcp-6379"
    );
}
