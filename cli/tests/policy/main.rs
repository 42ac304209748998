//! `warren policy` against an API server that has what the test gives it.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod fake_api;
#[path = "../served/mod.rs"]
mod served;

use std::process::{Command, Output};

use serde_json::{Value, json};

use fake_api::FakeApi;

const PODS: &str = "/api/v1/pods";
const NAMESPACES: &str = "/api/v1/namespaces";
const NODES: &str = "/api/v1/nodes";
const KUBERNETES: &str = "/apis/networking.k8s.io/v1/networkpolicies";
const WARREN: &str = "/apis/warren-mesh.io/v1alpha1/networkpolicies";
const GLOBAL: &str = "/apis/warren-mesh.io/v1alpha1/globalnetworkpolicies";

fn warren(api: &FakeApi, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_warren"))
        .arg("policy")
        .args(arguments)
        .args(["--kubeconfig", api.kubeconfig()])
        .env_clear()
        .output()
        .unwrap()
}

/// Its exit status and what it printed.
fn told(api: &FakeApi, arguments: &[&str]) -> (Option<i32>, String) {
    let output = warren(api, arguments);
    let text = String::from_utf8(output.stdout).unwrap();
    (
        output.status.code(),
        text + &String::from_utf8(output.stderr).unwrap(),
    )
}

fn json(api: &FakeApi, arguments: &[&str]) -> Value {
    let output = warren(api, &[arguments, &["--output", "json"]].concat());
    serde_json::from_slice(&output.stdout).unwrap()
}

fn pod(name: &str, number: u8) -> Value {
    json!({
        "metadata": {"namespace": "shop", "name": name, "labels": {"app": name}},
        "spec": {"nodeName": "node1", "containers": [
            {"name": "main", "ports": [{"name": "http", "containerPort": 8080}]}
        ]},
        "status": {"phase": "Running", "podIPs": [
            {"ip": format!("10.244.1.{number}")}, {"ip": format!("fd10:244:1::{number}")}
        ]},
    })
}

fn policy(namespace: &str, name: &str, spec: Value) -> Value {
    json!({"metadata": {"namespace": namespace, "name": name}, "spec": spec})
}

/// A shop whose database lets the web in, and nobody else.
fn shop() -> Vec<(&'static str, Vec<Value>)> {
    let db = json!({
        "podSelector": {"matchLabels": {"app": "db"}},
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "web"}}}], "ports": [{"port": 5432}]}]
    });
    vec![
        (PODS, vec![pod("web", 5), pod("db", 6)]),
        (NAMESPACES, vec![json!({"metadata": {"name": "shop"}})]),
        (NODES, Vec::new()),
        (KUBERNETES, vec![policy("shop", "db", db)]),
    ]
}

#[test]
fn an_allowed_connection_is_explained_with_the_rule_that_allows_it() {
    let api = FakeApi::start(&shop(), None);
    let asked = [
        "explain", "--from", "shop/web", "--to", "shop/db", "--port", "tcp/5432",
    ];
    let (status, text) = told(&api, &asked);
    assert_eq!(status, Some(0), "{text}");
    assert!(
        text.starts_with(
            "TCP from 10.244.1.5 to 10.244.1.6:5432 is allowed\n  \
             egress of pod shop/web is allowed: no policy selects it for egress\n  \
             ingress of pod shop/db is allowed: ingress[0] of NetworkPolicy/shop/db: allow TCP to port 5432 from pods of namespace shop \
             with app == \"web\"\n"
        ),
        "{text}"
    );
    assert!(
        text.contains("\n\nTCP from fd10:244:1::5 to [fd10:244:1::6]:5432 is allowed\n"),
        "{text}"
    );
    let answer = json(&api, &asked);
    assert_eq!(answer["allowed"], true);
    let ingress = &answer["flows"][0]["ingress"];
    assert_eq!(
        [
            &ingress["reason"],
            &ingress["policy"],
            &ingress["rule"],
            &ingress["endpoint"]
        ],
        [
            &json!("rule"),
            &json!("NetworkPolicy/shop/db"),
            &json!(0),
            &json!("pod shop/db")
        ]
    );
}

#[test]
fn a_denied_connection_ends_with_1_and_says_what_would_have_to_change() {
    let api = FakeApi::start(&shop(), None);
    let (status, text) = told(
        &api,
        &[
            "explain", "-n", "shop", "--from", "web", "--to", "db", "--port", "tcp/80",
        ],
    );
    assert_eq!(status, Some(1), "{text}");
    assert!(
        text.contains(
            "to allow it:\n  - ingress[0] of NetworkPolicy/shop/db would allow it but for the port: it asks for port 5432\n  - allow it"
        ),
        "{text}"
    );
    let outside = [
        "explain",
        "--from",
        "198.51.100.7",
        "--to",
        "shop/db",
        "--port",
        "tcp/5432",
    ];
    let answer = json(&api, &outside);
    assert_eq!(answer["flows"].as_array().unwrap().len(), 1);
    assert_eq!(answer["flows"][0]["ingress"]["reason"], "end-of-tier");
    assert_eq!(told(&api, &outside).0, Some(1));
}

#[test]
fn who_is_not_there_is_no_answer() {
    let api = FakeApi::start(&shop(), None);
    for asked in [
        &[
            "explain",
            "--from",
            "shop/nobody",
            "--to",
            "shop/db",
            "--port",
            "tcp/80",
        ][..],
        &["show", "shop/nobody"],
    ] {
        let (status, text) = told(&api, asked);
        assert_eq!(status, Some(2), "{text}");
        assert!(text.contains("pod shop/nobody is unknown"), "{text}");
    }
    let (status, text) = told(
        &api,
        &["explain", "--from", "shop/web", "--to", "shop/db", "--port", "80"],
    );
    assert_eq!(status, Some(2));
    assert!(
        text.contains("a port is given as tcp/80, udp/53 or sctp/9999"),
        "{text}"
    );
}

#[test]
fn a_pods_chains_are_shown_in_words() {
    let api = FakeApi::start(&shop(), None);
    let (status, text) = told(&api, &["show", "shop/db"]);
    assert_eq!(status, Some(0), "{text}");
    assert_eq!(
        text,
        "\
pod shop/db on node1: 10.244.1.6, fd10:244:1::6
what comes in:
  NetworkPolicy/shop/db (tier default, order 1000)
    1. allow TCP to port 5432 from pods of namespace shop with app == \"web\"
  everything else: deny
what goes out:
  no policy selects it for egress: everything passes
"
    );
    let shown = json(&api, &["show", "db", "-n", "shop"]);
    assert_eq!(
        [&shown["ingress"]["isolated"], &shown["egress"]["isolated"]],
        [true, false]
    );
    assert_eq!(shown["ingress"]["tiers"][0]["end"], "deny");
    assert_eq!(
        shown["ingress"]["tiers"][0]["policies"][0]["policy"],
        "NetworkPolicy/shop/db"
    );
}

#[test]
fn policies_are_listed_in_the_order_they_are_asked_with_those_that_are_refused() {
    let mut lists = shop();
    lists.push((
        GLOBAL,
        vec![json!({"metadata": {"name": "guard"}, "spec": {"order": 10, "egress": [{"action": "Deny"}]}})],
    ));
    let wrong = json!({"selector": "app = 'web'", "ingress": [{"action": "Allow"}]});
    lists.push((WARREN, vec![policy("shop", "mistyped", wrong)]));
    let api = FakeApi::start(&lists, None);
    let (status, text) = told(&api, &["list"]);
    assert_eq!(status, Some(0), "{text}");
    let lines: Vec<Vec<&str>> = text
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(
        lines[1][..7],
        [
            "GlobalNetworkPolicy/guard",
            "default",
            "10",
            "2",
            "-",
            "1",
            "rule"
        ],
        "{text}"
    );
    assert_eq!(
        lines[2][..6],
        ["NetworkPolicy/shop/db", "default", "1000", "1", "1", "rule"],
        "{text}"
    );
    assert_eq!(
        lines[3][..4],
        [
            "NetworkPolicy.warren-mesh.io/shop/mistyped",
            "default",
            "last",
            "2"
        ],
        "{text}"
    );
    assert!(text.contains("refused: spec.selector: "), "{text}");
    assert!(
        text.ends_with("3 policies; 1 refused, and what they select fails closed\n"),
        "{text}"
    );
    let list = json(&api, &["list"]);
    assert_eq!(list["policies"][2]["order"], Value::Null);
    assert!(
        list["policies"][2]["refused"]
            .as_str()
            .unwrap()
            .starts_with("spec.selector: ")
    );
    assert_eq!(list["policies"][1]["ingressRules"], 1);
}

#[test]
fn refused_policies_fail_as_the_mesh_says() {
    let mut lists = shop();
    lists.push((
        GLOBAL,
        vec![json!({"metadata": {"name": "broken"}, "spec": {"ingress": "none"}})],
    ));
    let asked = [
        "explain", "--from", "shop/web", "--to", "shop/db", "--port", "tcp/5432",
    ];
    let closed = json(&FakeApi::start(&lists, None), &asked);
    assert_eq!(closed["flows"][0]["egress"]["reason"], "refused");
    assert_eq!(
        closed["flows"][0]["egress"]["policy"],
        "GlobalNetworkPolicy/broken"
    );
    let mesh = json!({
        "apiVersion": "warren-mesh.io/v1alpha1", "kind": "Mesh", "metadata": {"name": "default", "uid": "1"},
        "spec": {"policy": {"onInvalid": "open"}},
    });
    let open = FakeApi::start(&lists, Some(mesh));
    assert_eq!(json(&open, &asked)["allowed"], true);
    let (_, text) = told(&open, &["list"]);
    assert!(
        text.ends_with("2 policies; 1 refused, and what they select fails open\n"),
        "{text}"
    );
}

#[test]
fn without_policies_the_list_says_what_that_means() {
    let mut lists = shop();
    lists.pop();
    let api = FakeApi::start(&lists, None);
    assert_eq!(
        told(&api, &["list"]),
        (Some(0), "no policies: everything passes\n".to_owned())
    );
}
