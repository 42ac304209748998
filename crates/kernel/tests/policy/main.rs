//! What the kernel does with rendered policies, beside what `verdict` says: random clusters and policies, real packets.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

#[expect(dead_code, reason = "the flows here are all that the places can send")]
#[path = "../../../policy/tests/reading/clusters.rs"]
mod clusters;
mod logged;
mod places;
#[path = "../../../policy/tests/calico/policies.rs"]
mod policies;
#[path = "../rooms/mod.rs"]
mod rooms;

use std::sync::Arc;
use std::time::Instant;

use places::{PODS, PORTS, Place, everywhere, until};
use proptest::collection::vec;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use rooms::{DEADLINE, node, send, sh};
use serde_json::{Value, json};
use warren_kernel::policy::{TABLE, Table, render};
use warren_model::PodName;
use warren_policy::{
    Cluster, Decision, Flow, Input, Labels, NamedPort, NetworkSet, Pod, Policy, Protocol, RuleSet, Since,
    compile, kubernetes, verdict, warren,
};

/// How many random clusters are tried.
const CASES: usize = 24;

/// Installs policies and holds what passes to the verdicts; says how many flows pass and how many do not.
fn holds(
    places: &[Place],
    before: &mut Option<Table>,
    policies: &[Policy],
    cluster: &Cluster,
) -> (usize, usize) {
    let rules = compile(&Input::new(policies, cluster));
    install(&rules, before);
    let expected = expected(&rules, places);
    let found = probe(places);
    let wrong: Vec<_> = expected.iter().zip(&found).filter(|(a, b)| a != b).collect();
    assert!(
        wrong.is_empty(),
        "flows and whether they pass, by verdict and in truth: {wrong:#?}\n{policies:#?}\n{}",
        render(&rules).text()
    );
    let passed = found.iter().filter(|(_, passes)| *passes).count();
    (passed, found.len() - passed)
}

#[test]
fn packets_pass_where_the_verdict_lets_them() {
    node("packets_pass_where_the_verdict_lets_them", async |_| {
        let places = everywhere();
        let mut runner = TestRunner::deterministic();
        let mut before = None;
        let (mut passed, mut dropped) = (0, 0);
        for _ in 0..CASES {
            let mut case = clusters::case(0).new_tree(&mut runner).unwrap().current();
            case.cluster.pods.truncate(PODS);
            let policies: Vec<_> = case
                .policies
                .iter()
                .map(|it| kubernetes::check(&it.namespace, &it.name, &it.spec).unwrap())
                .collect();
            let (more_passed, more_dropped) = holds(&places, &mut before, &policies, &case.cluster);
            passed += more_passed;
            dropped += more_dropped;
        }
        // Both happen often enough for this to mean something.
        assert!(
            passed > 200 && dropped > 200,
            "{passed} passed, {dropped} were dropped"
        );
    });
}

#[test]
fn packets_pass_where_warrens_policies_let_them() {
    node("packets_pass_where_warrens_policies_let_them", async |_| {
        let places = everywhere();
        let mut runner = TestRunner::deterministic();
        let mut before = None;
        let sets = vec(policies::network_set(), 0..3);
        let cases = (clusters::cluster(), sets, vec(policies::policy(), 1..4));
        let (mut passed, mut dropped) = (0, 0);
        for _ in 0..CASES {
            let (mut cluster, sets, random) = cases.new_tree(&mut runner).unwrap().current();
            cluster.pods.truncate(PODS);
            cluster.network_sets = sets;
            let policies = random.iter().enumerate().map(|(number, it)| {
                let name = format!("policy-{number}");
                match it.namespace {
                    Some(namespace) => warren::check(namespace, &name, &it.spec()),
                    None => warren::check_global(&name, &it.spec()),
                }
            });
            let policies: Vec<Policy> = policies.collect::<Result<_, _>>().unwrap();
            let (more_passed, more_dropped) = holds(&places, &mut before, &policies, &cluster);
            passed += more_passed;
            dropped += more_dropped;
        }
        assert!(
            passed > 200 && dropped > 200,
            "{passed} passed, {dropped} were dropped"
        );
    });
}

/// Pods 1 to 4 in one namespace, pod 2 with a port of its own for DNS; outside is a network set.
fn shop() -> Cluster {
    let pod = |number: usize| Pod {
        name: PodName {
            namespace: "shop".to_owned(),
            name: format!("pod-{number}"),
        },
        uid: String::new(),
        labels: Labels::from_iter([("number", number.to_string())]),
        addresses: vec![
            format!("10.0.{}.{number}", (number - 1) % 2).parse().unwrap(),
            format!("fd00::{number}").parse().unwrap(),
        ],
        ports: vec![NamedPort {
            name: "dns".to_owned(),
            protocol: Protocol::UDP,
            port: if number == 2 { 80 } else { 53 },
        }],
        host_network: false,
        finished: false,
        node: None,
        since: Since::Created(0),
    };
    Cluster {
        pods: (1..=PODS).map(pod).map(Arc::new).collect(),
        network_sets: vec![NetworkSet {
            namespace: None,
            name: "partners".to_owned(),
            labels: Labels::from_iter([("who", "partners")]),
            nets: ["198.51.100.0/24", "2001:db8::/32"]
                .map(|net| net.parse().unwrap())
                .into(),
        }],
        ..Cluster::default()
    }
}

#[test]
fn each_kind_of_match_is_the_kernels_too() {
    node("each_kind_of_match_is_the_kernels_too", async |_| {
        let places = everywhere();
        let cluster = shop();
        let mut before = None;
        let kubernetes = |spec: Value| {
            let spec = serde_json::from_value(spec).unwrap();
            kubernetes::check("shop", "policy", &spec).unwrap()
        };
        let global = |name: &str, spec: Value| {
            let spec = serde_json::from_value(spec).unwrap();
            warren::check_global(name, &spec).unwrap()
        };
        let dns = json!([{"ports": [{"port": "dns", "protocol": "UDP"}]}]);
        for policies in [
            vec![kubernetes(json!({"ingress": dns}))],
            vec![kubernetes(json!({"policyTypes": ["Egress"], "egress": dns}))],
            vec![kubernetes(json!({"ingress": [{"ports": [
                {"port": "dns", "protocol": "UDP"}, {"port": 80, "endPort": 90, "protocol": "UDP"}, {"port": 85, "protocol": "UDP"}
            ]}]}))],
            vec![global(
                "not-dns",
                json!({"ingress": [
                    {"action": "Allow", "protocol": "UDP", "destination": {"notPorts": ["dns", 81]}}
                ]}),
            )],
            vec![global(
                "partners",
                json!({"ingress": [{"action": "Allow", "source": {"selector": "who == 'partners'"}}]}),
            )],
            vec![global(
                "others",
                json!({"ingress": [
                    {"action": "Log", "protocol": "UDP"},
                    {"action": "Deny", "source": {"notSelector": "who == 'partners' || number in {'1', '2'}"}},
                    {"action": "Allow", "ipVersion": 6},
                    {"action": "Allow", "source": {"notNets": ["10.0.0.0/24"]}},
                ]}),
            )],
            // What passes the first policy is not asked of the second, which would deny it.
            vec![
                global(
                    "pass",
                    json!({"order": 1, "types": ["Ingress", "Egress"],
                    "ingress": [{"action": "Pass", "source": {"selector": "number == '1'"}}],
                    "egress": [{"action": "Pass", "notProtocol": "TCP"}]}),
                ),
                global(
                    "deny",
                    json!({"order": 2, "ingress": [{"action": "Deny", "protocol": 17, "destination": {"ports": [53]}},
                    {"action": "Allow", "notProtocol": 6}]}),
                ),
            ],
        ] {
            let (passed, dropped) = holds(&places, &mut before, &policies, &cluster);
            assert!(
                passed > 0 && dropped > 0,
                "{passed} passed, {dropped} were dropped: {policies:#?}"
            );
        }
    });
}

#[test]
fn replies_pass_whatever_the_one_that_replies_may_open() {
    node(
        "replies_pass_whatever_the_one_that_replies_may_open",
        async |_| {
            let places = everywhere();
            let spec = json!({"podSelector": {"matchLabels": {"number": "2"}}, "policyTypes": ["Egress"]});
            let policy = kubernetes::check("shop", "silent", &serde_json::from_value(spec).unwrap()).unwrap();
            install(&compile(&Input::new(&[policy], &shop())), &mut None);
            for family in [0, 1] {
                let (asking, answering) = (
                    &places[0].senders[family],
                    &places[1].listeners[family * PORTS.len()],
                );
                assert_eq!(drops(), family as u64);
                // By itself it opens nothing, not even to the one that asks it next.
                send(
                    &places[1].senders[family],
                    places[0].listeners[family * PORTS.len()].local_addr().unwrap(),
                );
                until(|| drops() > family as u64);
                send(asking, answering.local_addr().unwrap());
                until(|| answering.recv(&mut [0; 8]).is_ok());
                send(answering, asking.local_addr().unwrap());
                until(|| asking.recv(&mut [0; 8]).is_ok());
            }
        },
    );
}

/// Makes the table that of these rules, by what differs from the one before.
fn install(rules: &RuleSet, before: &mut Option<Table>) {
    let table = render(rules);
    let text = match before {
        Some(before) => table.difference(before),
        None => table.text(),
    };
    let mut nft = std::process::Command::new("nft")
        .args(["-f", "-"])
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut nft.stdin.take().unwrap(), text.as_bytes()).unwrap();
    assert!(nft.wait().unwrap().success(), "nft refuses:\n{text}");
    *before = Some(table);
}

type Outcome = (String, bool);

/// In the order in which [`probe`] asks.
fn expected(rules: &RuleSet, places: &[Place]) -> Vec<Outcome> {
    each(places, |from, to, family, port| {
        let flow = Flow::to_port(from.addresses[family], to.addresses[family], Protocol::UDP, port);
        (flow.to_string(), verdict(rules, &flow).action == Decision::Allow)
    })
}

/// Sends one datagram for each flow and says which arrive. A datagram is known to be lost by what the table has dropped.
fn probe(places: &[Place]) -> Vec<Outcome> {
    let mut dropped = drops();
    each(places, |from, to, family, port| {
        let flow = Flow::to_port(from.addresses[family], to.addresses[family], Protocol::UDP, port);
        let listener = PORTS.iter().position(|one| *one == port).unwrap();
        let listener = &to.listeners[family * PORTS.len() + listener];
        send(&from.senders[family], listener.local_addr().unwrap());
        let deadline = Instant::now() + DEADLINE;
        let passes = loop {
            if listener.recv(&mut [0; 8]).is_ok() {
                break true;
            }
            if drops() > dropped {
                dropped += 1;
                break false;
            }
            assert!(Instant::now() < deadline, "{flow} neither arrives nor is dropped");
        };
        (flow.to_string(), passes)
    })
}

fn each(places: &[Place], mut judge: impl FnMut(&Place, &Place, usize, u16) -> Outcome) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for (number, from) in places.iter().enumerate() {
        for (other, to) in places.iter().enumerate().filter(|(other, _)| *other != number) {
            // Every pair over one family, and the way back over the other.
            let family = usize::from(number < other);
            outcomes.extend(PORTS.map(|port| judge(from, to, family, port)));
        }
    }
    outcomes
}

/// What all rules of the table have dropped.
fn drops() -> u64 {
    let listing: Value =
        serde_json::from_str(&sh(&format!("nft -j list counters table inet {TABLE}"))).unwrap();
    let objects = listing["nftables"].as_array().unwrap();
    objects
        .iter()
        .filter_map(|object| object["counter"]["packets"].as_u64())
        .sum()
}
