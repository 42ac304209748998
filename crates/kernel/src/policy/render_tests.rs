//! The text for given policies.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use serde_json::{Value, json};
use warren_model::PodName;
use warren_policy::{Cluster, Input, Labels, NamedPort, NetworkSet, Pod, Policy, Protocol, compile};
use warren_policy::{kubernetes, warren};

use super::*;

fn pod(name: &str, number: u8) -> Pod {
    Pod {
        name: PodName {
            namespace: "shop".to_owned(),
            name: name.to_owned(),
        },
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
    }
}

fn cluster() -> Cluster {
    Cluster {
        pods: vec![pod("web", 5), pod("db", 6), pod("idle", 7)],
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

#[test]
fn pods_without_policies_are_led_nowhere() {
    let text = text(&[]);
    assert!(!text.contains(" goto "), "{text}");
    let text = self::text(&[kubernetes(
        "db",
        json!({"podSelector": {"matchLabels": {"app": "db"}}}),
    )]);
    let led: Vec<&str> = text.lines().filter(|line| line.contains(" goto ")).collect();
    assert_eq!(
        led,
        [
            "add element inet warren-policy ingress-v4 { 10.244.1.6 : goto pod-fe145da1741334bc-ingress }",
            "add element inet warren-policy ingress-v6 { fd10:244:1::6 : goto pod-fe145da1741334bc-ingress }",
        ]
    );
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
    more.pods.push(Pod {
        labels: Labels::from_iter([("app", "web")]),
        ..pod("another", 9)
    });
    let policies = [database("web")];
    let lines = difference((&policies, &few), (&policies, &more));
    assert!(!lines.is_empty());
    for line in &lines {
        assert!(line.starts_with("add element inet warren-policy "), "{line}");
        assert!(
            line.contains("10.244.1.9") || line.contains("fd10:244:1::9"),
            "{line}"
        );
    }
    let gone = difference((&policies, &more), (&policies, &few));
    assert_eq!(
        gone,
        lines
            .iter()
            .map(|line| line.replacen("add", "delete", 1))
            .collect::<Vec<_>>()
    );
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
    assert!(
        lines
            .iter()
            .all(|line| line.starts_with("add ") && !line.contains("shop/db")),
        "{lines:#?}"
    );
}
