//! The text for given policies.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::net::IpAddr;
use std::sync::Arc;

use serde_json::{Value, json};
use warren_model::PodName;
use warren_policy::{
    Cluster, HostEndpoint, Input, Interface, Labels, NamedPort, NetworkSet, Pod, Policy, Protocol, Since,
    compile,
};
use warren_policy::{kubernetes, warren};

use super::*;

fn pod(name: &str, number: u8) -> Pod {
    Pod {
        name: PodName {
            namespace: "shop".to_owned(),
            name: name.to_owned(),
        },
        uid: String::new(),
        labels: Labels::from_iter([("app", name)]),
        addresses: vec![
            IpAddr::from([10, 244, 1, number]),
            format!("fd10:244:1::{number:x}").parse().unwrap(),
        ],
        ports: vec![NamedPort {
            name: "http".to_owned(),
            protocol: Protocol::TCP,
            port: 8000 + u16::from(number),
        }],
        host_network: false,
        finished: false,
        node: None,
        since: Since::Created(0),
    }
}

fn cluster() -> Cluster {
    Cluster {
        pods: [pod("web", 5), pod("db", 6), pod("idle", 7)].map(Arc::new).into(),
        network_sets: vec![NetworkSet {
            namespace: None,
            name: "office".to_owned(),
            labels: Labels::from_iter([("who", "office")]),
            nets: ["198.51.100.0/24", "203.0.113.7/32", "2001:db8::/48"]
                .map(|net| net.parse().unwrap())
                .into(),
        }],
        ..Cluster::default()
    }
}

fn kubernetes(name: &str, spec: Value) -> Policy {
    kubernetes::check("shop", name, &serde_json::from_value(spec).unwrap()).unwrap()
}

fn global(name: &str, spec: Value) -> Policy {
    warren::check_global(name, &serde_json::from_value(spec).unwrap()).unwrap()
}

fn text(policies: &[Policy]) -> String {
    render(&compile(&Input::new(policies, &cluster()))).text()
}

#[test]
fn kubernetes_policies_share_sets_and_chains() {
    let from_web = json!({"from": [{"podSelector": {"matchLabels": {"app": "web"}}}], "ports": [
        {"port": 5432}, {"port": 6000, "endPort": 6010}, {"port": 6005}, {"port": "http"}, {"port": 53, "protocol": "UDP"}
    ]});
    let text = text(&[
        kubernetes(
            "db",
            json!({"podSelector": {"matchLabels": {"app": "db"}}, "ingress": [from_web]}),
        ),
        kubernetes(
            "web",
            json!({
                "podSelector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["web", "db"]}]},
                "policyTypes": ["Egress"],
                "egress": [
                    {"to": [{"podSelector": {"matchLabels": {"app": "web"}}}]},
                    {"to": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16", "10.1.2.0/24"]}}]}
                ]
            }),
        ),
    ]);
    insta::assert_snapshot!(text);
}

/// What is said in the chains whose names end so.
fn rules_of<'t>(text: &'t str, ending: &str) -> Vec<&'t str> {
    let rules = text
        .lines()
        .filter_map(|line| line.strip_prefix("add rule inet warren-policy ")?.split_once(' '));
    rules
        .filter(|(chain, _)| chain.ends_with(ending))
        .map(|(_, rule)| rule)
        .collect()
}

#[test]
fn of_policies_in_a_row_that_only_allow_a_packet_meets_those_about_its_port() {
    let allow = |name: &str, order: u32, ports: Value| {
        global(
            name,
            json!({"order": order, "selector": "app == 'db'", "ingress": [
                {"action": "Allow", "protocol": "TCP", "source": {"selector": "app == 'web'"}, "destination": {"ports": ports}}
            ]}),
        )
    };
    let deny = json!({"order": 5, "selector": "app == 'db'", "ingress": [
        {"action": "Deny", "protocol": "TCP", "destination": {"ports": [81]}}
    ]});
    let policies = [
        allow("a", 1, json!([80, 443])),
        allow("b", 2, json!([80])),
        allow("many", 3, json!(["9000:9008"])),
        allow("named", 4, json!(["http"])),
        global("no", deny),
        allow("c", 6, json!([81])),
        allow("d", 7, json!(["82:83"])),
    ];
    let text = text(&policies);
    let rules = compile(&Input::new(&policies, &cluster()));
    let names = Names::new(&rules);
    let jump = |name: &str| {
        let position = rules.policies.iter().position(|policy| policy.id.name == name);
        format!("jump {}", names.policy(position.unwrap(), Direction::Ingress))
    };
    let stage = rules_of(&text, "-ingress-0");
    assert_eq!(stage.len(), 6, "{stage:#?}");
    let (first, shared) = stage[0].split_once("6 . 80 : jump ").unwrap();
    assert_eq!(first, "meta l4proto . th dport vmap { ");
    let (shared, rest) = shared.split_once(", ").unwrap();
    assert_eq!(rest, format!("6 . 443 : {} }}", jump("a")));
    assert_eq!(rules_of(&text, shared), [jump("a"), jump("b")]);
    assert_eq!(stage[1..4], [jump("many"), jump("named"), jump("no")]);
    let (c, d) = (jump("c"), jump("d"));
    assert_eq!(
        stage[4],
        format!("meta l4proto . th dport vmap {{ 6 . 81 : {c}, 6 . 82 : {d}, 6 . 83 : {d} }}")
    );
}

#[test]
fn warren_policies_log_deny_and_pass_to_the_next_tier() {
    let text = text(&[
        global(
            "guard",
            json!({"order": 1, "selector": "app == 'db'", "ingress": [
                {"action": "Log", "protocol": "TCP", "destination": {"notPorts": [22, "http"]}},
                {"action": "Deny", "source": {"notSelector": "who == 'office'", "notNets": ["10.244.0.0/16"]}},
                {"action": "Pass", "notProtocol": "UDP", "ipVersion": 6},
                {"action": "Allow", "protocol": "ICMP", "icmp": {"type": 8, "code": 0}},
                {"action": "Allow", "protocol": "ICMPv6", "notICMP": {"type": 137, "code": 0}},
            ]}),
        ),
        global(
            "late",
            json!({"selector": "app == 'db'", "ingress": [
                {"action": "Allow", "source": {"selector": "who == 'office'"}}
            ]}),
        ),
    ]);
    insta::assert_snapshot!(text);
}

#[test]
fn networks_and_ranges_are_no_sets_of_intervals_and_a_networks_neighbour_is_an_element() {
    let rule = json!({
        "action": "Allow",
        "protocol": "TCP",
        "source": {
            "selector": "who == 'office'",
            "nets": ["10.0.0.0/8", "172.16.0.0/16", "172.18.0.0/16"],
            "notNets": ["198.51.100.64/26", "198.51.100.192/26"],
        },
        "destination": {
            "ports": [80, 443, "6000:6010", "7000:7010"],
            "notPorts": [6001, "6003:6005"],
        },
    });
    let policies = [global(
        "far",
        json!({"selector": "app == 'db'", "ingress": [rule]}),
    )];
    let text = text(&policies);
    assert!(!text.contains("interval"), "{text}");
    let sets = text.split('{').skip(1).filter_map(|rest| rest.split('}').next());
    let elements = sets.flat_map(|set| set.split(',').map(str::trim));
    let is_range = |it: &str| {
        it.split_once('-')
            .is_some_and(|(first, _)| first.parse::<u16>().is_ok())
    };
    let intervals: Vec<&str> = elements.filter(|it| it.contains('/') || is_range(it)).collect();
    assert_eq!(intervals, Vec::<&str>::new());
    // Of addresses and networks of the set, both lengths of the rule's, ports and both ranges: all ways there are.
    let ways = rules_of(&text, "-ingress")
        .into_iter()
        .filter(|rule| rule.contains("198.51.100"));
    assert_eq!(ways.count(), 2 * 2 * 3, "{text}");
    let mut more = cluster();
    more.network_sets[0].nets.push("192.0.2.0/24".parse().unwrap());
    let changes = difference((&policies, &cluster()), (&policies, &more));
    assert_eq!(changes.len(), 1, "{changes:#?}");
    assert!(changes[0].ends_with("-nets24-v4 { 192.0.2.0 }"), "{changes:#?}");
}

#[test]
fn names_that_somebody_chose_do_not_leave_their_comment() {
    let mut policy = kubernetes("plain", json!({"ingress": [{}]}));
    policy.id.name = "a\" drop; flush ruleset \\\n#".to_owned() + &"x".repeat(300);
    let text = text(&[policy]);
    assert!(
        text.contains("NetworkPolicy/shop/a? drop? flush ruleset ???xxx"),
        "{text}"
    );
    assert!(
        text.lines().all(|line| line.matches('"').count() % 2 == 0),
        "{text}"
    );
    assert!(
        text.lines()
            .all(|line| line.split('"').nth(1).is_none_or(|it| it.len() <= 127)),
        "{text}"
    );
}

/// Where the chain of a pod's address leads.
fn leads(text: &str, address: &str, direction: &str) -> Vec<String> {
    let address = match address.parse().unwrap() {
        IpAddr::V4(v4) => format!("{:08x}", v4.to_bits()),
        IpAddr::V6(v6) => format!("{:032x}", v6.to_bits()),
    };
    let start = format!("add rule inet warren-policy at-{address}-{direction} ");
    let rules = text.lines().filter_map(|line| line.strip_prefix(&start));
    rules.map(str::to_owned).collect()
}

#[test]
fn pods_are_led_by_their_address_and_what_is_no_known_pods_is_dropped() {
    let text = text(&[kubernetes(
        "db",
        json!({"podSelector": {"matchLabels": {"app": "db"}}}),
    )]);
    for (address, direction, to) in [
        ("10.244.1.5", "ingress", "accept"),
        ("10.244.1.6", "ingress", "goto pod-fe145da1741334bc-ingress"),
        ("fd10:244:1::6", "ingress", "goto pod-fe145da1741334bc-ingress"),
        ("10.244.1.6", "egress", "accept"),
    ] {
        assert_eq!(leads(&text, address, direction), [to], "{address} {direction}");
    }
    for (chain, interface) in [
        ("from-pods", "iifname"),
        ("from-pods-to-node", "iifname"),
        ("to-pods", "oifname"),
    ] {
        let mut rules = text.lines().filter(|line| line.contains(&format!(" {chain} ")));
        assert_eq!(
            rules.next_back(),
            Some(
                format!(
                    "add rule inet warren-policy {chain} {interface} \"wrn*\" counter name \"unknown-pod\" goto denied"
                )
                .as_str()
            )
        );
    }
}

#[test]
fn host_endpoints_keep_their_failsafe_ports_open_and_their_link_alive() {
    let host = |name: &str, interface: Option<Interface>, default_allow: bool| HostEndpoint {
        name: name.to_owned(),
        labels: Labels::from_iter([("host", name)]),
        node: "node1".parse().unwrap(),
        expected_addresses: vec!["192.0.2.1".parse().unwrap()],
        interface,
        ports: Vec::new(),
        default_allow,
    };
    let cluster = Cluster {
        host_endpoints: vec![
            host("every", Some(Interface::Every), false),
            host("by-address", None, true),
            host("named", Some(Interface::Named("eth0".to_owned())), false),
        ],
        ..Cluster::default()
    };
    let policies = [global(
        "ssh",
        json!({"selector": "host == 'named'", "ingress": [{"action": "Deny", "protocol": "TCP"}]}),
    )];
    let mut input = Input::new(&policies, &cluster);
    input.failsafe = input
        .failsafe
        .with_mesh(&warren_model::Mesh::default().ports)
        .with_ipip();
    let text = render(&compile(&input)).text();
    let base: Vec<_> = text
        .lines()
        .filter(|line| {
            [" to-node ", " from-node "]
                .iter()
                .any(|chain| line.contains(chain))
        })
        .collect();
    insta::assert_snapshot!(base.join("\n"));
}

/// Who may reach the database, by the label `app`.
fn database(app: &str) -> Policy {
    let from = json!({"from": [{"podSelector": {"matchLabels": {"app": app}}}]});
    kubernetes(
        "db",
        json!({"podSelector": {"matchLabels": {"app": "db"}}, "ingress": [from]}),
    )
}

/// The lines that make the table of these policies and pods of one with those.
fn difference(before: (&[Policy], &Cluster), after: (&[Policy], &Cluster)) -> Vec<String> {
    let [before, after] =
        [before, after].map(|(policies, cluster)| render(&compile(&Input::new(policies, cluster))));
    after.difference(&before).lines().map(str::to_owned).collect()
}

#[test]
fn a_pod_that_comes_changes_elements_and_no_rule() {
    let (few, mut more) = (cluster(), cluster());
    // Its name makes it the first, so that all others move.
    more.pods.push(Arc::new(Pod {
        labels: Labels::from_iter([("app", "web")]),
        ..pod("another", 9)
    }));
    let policies = [database("web")];
    let lines = difference((&policies, &few), (&policies, &more));
    assert!(lines.iter().any(|line| line.starts_with("add element ")));
    let about_it = |line: &&String| {
        [
            "10.244.1.9",
            "fd10:244:1::9",
            "at-0af40109-",
            "at-fd100244000100000000000000000009-",
        ]
        .iter()
        .any(|it| line.contains(it))
    };
    assert_eq!(lines.iter().find(|line| !about_it(line)), None);
    let gone = difference((&policies, &more), (&policies, &few));
    assert!(gone.iter().any(|line| line.starts_with("delete element ")));
    assert_eq!(gone.iter().find(|line| !about_it(line)), None);
    assert_eq!(difference((&policies, &few), (&policies, &few)), [""; 0]);
}

#[test]
fn a_policy_that_changes_changes_its_own_rules() {
    let other = kubernetes(
        "web",
        json!({"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [{}]}),
    );
    let cluster = cluster();
    let lines = difference(
        (&[database("web"), other.clone()], &cluster),
        (&[database("idle"), other], &cluster),
    );
    let rules: Vec<&String> = lines.iter().filter(|line| line.starts_with("add rule")).collect();
    assert_eq!(rules.len(), 2, "{lines:#?}");
    for rule in rules {
        assert!(
            rule.ends_with("comment \"ingress[0] of NetworkPolicy/shop/db\""),
            "{rule}"
        );
    }
    let flushed = lines.iter().filter(|line| line.starts_with("flush"));
    assert_eq!(flushed.count(), 1, "{lines:#?}");
}

#[test]
fn a_policy_that_comes_first_leaves_the_chains_of_others_as_they_are() {
    let cluster = cluster();
    let first = kubernetes("a-first", json!({"podSelector": {"matchLabels": {"app": "web"}}}));
    let lines = difference(
        (&[database("web")], &cluster),
        (&[first, database("web")], &cluster),
    );
    assert!(!lines.is_empty());
    // But for where the selected pod is led, things are added only.
    let adds = |line: &&String| {
        line.starts_with("add ") || line.contains(" at-0af40105-") || line.contains(" at-fd10")
    };
    assert_eq!(lines.iter().find(|line| !adds(line)), None);
    assert!(lines.iter().all(|line| !line.contains("shop/db")), "{lines:#?}");
}
