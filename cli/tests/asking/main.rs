//! `warren status` and `warren plan` against an API server and agents that say what the test wants.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod fake_agent;
mod fake_api;
#[path = "../served/mod.rs"]
mod served;

use std::process::{Command, Output};

use serde_json::{Value, json};

use fake_agent::FakeAgent;
use fake_api::{FakeApi, Page};

const KEY: &str = "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=";

fn warren(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_warren"))
        .args(arguments)
        .env_clear()
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn status_of(node: &str, peers: &[&str]) -> Value {
    let peer = |name: &&str| {
        json!({
            "node": name, "path": "wireguard", "lane": "one", "reason": "handshake completed", "publicKey": KEY,
            "epoch": 1, "endpoint": "192.0.2.1:51821", "podCidrs": ["10.244.1.0/24"], "internalIps": ["192.0.2.1"],
            "handshakeAgeSeconds": 3, "mtu": 1420, "mtuHole": null, "keys": [], "rxBytes": 10, "txBytes": 20,
        })
    };
    json!({
        "node": node, "version": "0.1.0", "ready": true, "encryption": true, "epoch": 1, "settled": 1,
        "keys": [{"epoch": 1, "publicKey": KEY, "port": 51821}], "podCidrs": ["10.244.0.0/24"], "pods": 2,
        "podMtu": 1420, "lanes": [], "peers": peers.iter().map(peer).collect::<Vec<_>>(), "drops": [],
        "refusals": [], "lastError": null, "steward": {"node": "a", "term": 1},
    })
}

#[test]
fn status_asks_every_agent_through_the_api_server() {
    let api = FakeApi::start(&["a", "b", "c"], |node, page| match node {
        "a" => Page::json(200, &status_of("a", &["b", "c"])),
        "b" => Page::json(503, &json!({"error": "the watch of nodes is not in sync"})),
        "c" => Page::json(
            503,
            &json!({"kind": "Status", "message": format!("dial {page}: refused"), "code": 503}),
        ),
        other => panic!("no such node: {other}"),
    });
    let output = warren(&["status", "--kubeconfig", api.kubeconfig(), "-o", "json"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["nodes"][0]["agent"], status_of("a", &["b", "c"]));
    assert_eq!(report["nodes"][0]["announcement"]["keys"][0]["publicKey"], KEY);
    assert_eq!(
        report["nodes"][1]["agentError"],
        "the watch of nodes is not in sync"
    );
    assert_eq!(report["nodes"][2]["agentError"], "dial /status: refused");
    assert_eq!(report["summary"]["paths"]["wireguard"], 2);
    assert_eq!(report["summary"]["paths"]["unknown"], 4);

    let table = stdout(&warren(&["status", "--kubeconfig", api.kubeconfig()]));
    assert!(table.contains("dial /status: refused"), "{table}");
    assert!(
        table.ends_with("encrypted: 2 of 6 paths; unknown: 4 (their agents did not answer)\nsteward: a\n"),
        "{table}"
    );
}

#[test]
fn only_with_check_is_a_mesh_that_is_not_whole_a_failure() {
    let api = FakeApi::start(&["a", "b"], |node, _| match node {
        "a" => Page::json(200, &status_of("a", &["b"])),
        _ => Page::json(500, &json!({"error": "the kernel refuses"})),
    });
    let code = |arguments: &[&str]| {
        let mut all = vec!["status", "--kubeconfig", api.kubeconfig()];
        all.extend(arguments);
        warren(&all).status.code()
    };
    assert_eq!(code(&[]), Some(0));
    assert_eq!(code(&["--check"]), Some(1));
    assert_eq!(code(&["--check", "--node", "a"]), Some(0));
    assert_eq!(code(&["--check", "--node", "no-such-node"]), Some(2));
}

#[test]
fn an_agent_that_never_answers_costs_five_seconds_and_not_the_report() {
    let api = FakeApi::start(&["a", "b"], |node, _| match node {
        "a" => Page::json(200, &status_of("a", &["b"])),
        _ => Page::Never,
    });
    let output = warren(&["status", "--kubeconfig", api.kubeconfig(), "-o", "json"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["nodes"][0]["agent"]["ready"], true);
    assert_eq!(report["nodes"][1]["agentError"], "no answer within 5 s");
}

#[test]
fn agents_are_asked_at_once_but_not_more_than_32_of_them() {
    let names: Vec<String> = (100..180).map(|number| format!("n{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    // An answer is held back until as many are under way as there may be, or until all were asked.
    let api = FakeApi::start_together(&names, 32, |node, _| Page::json(200, &status_of(node, &[])));
    let output = warren(&["status", "--kubeconfig", api.kubeconfig(), "--check"]);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}{}",
        stdout(&output),
        stderr(&output)
    );
    assert_eq!(api.most_at_once(), 32);
}

#[test]
fn plan_prints_each_agents_steps_and_the_port_can_be_chosen() {
    let plan = json!({
        "node": "a", "refusals": [],
        "steps": [{"action": "route add 10.244.2.0/24 dev warren1", "reason": "node c is a peer"}],
    });
    let api = FakeApi::start(&["a:1234"], move |_, page| {
        assert_eq!(page, "/plan");
        Page::json(200, &plan)
    });
    let output = warren(&["plan", "--kubeconfig", api.kubeconfig(), "--agent-port", "1234"]);
    let expected = "a: 1 step\n  1. route add 10.244.2.0/24 dev warren1\n     because node c is a peer\n\
                    1 step to do; 1 of 1 node answered\n";
    assert_eq!(stdout(&output), expected, "{}", stderr(&output));
}

#[test]
fn locally_the_agent_is_asked_through_its_socket_and_no_api_server_is_needed() {
    let agent = FakeAgent::start(200, &status_of("a", &["b"]).to_string());
    let output = warren(&[
        "status",
        "--local",
        "--run-dir",
        agent.run_dir(),
        "--check",
        "-o",
        "json",
    ]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["nodes"][0]["node"], "a");
    assert_eq!(report["nodes"][0]["agent"], status_of("a", &["b"]));
    assert_eq!(report["nodes"][0]["announcementError"], Value::Null);
}

#[test]
fn locally_an_agent_that_is_not_there_or_not_in_sync_is_told_apart() {
    let nowhere = tempfile::tempdir().unwrap();
    let folder = nowhere.path().to_str().unwrap();
    let output = warren(&["status", "--local", "--run-dir", folder, "--check"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stdout(&output).contains("nothing answers on"),
        "{}",
        stdout(&output)
    );

    let agent = FakeAgent::start(503, r#"{"error": "not in sync"}"#);
    let output = warren(&["plan", "--local", "--run-dir", agent.run_dir()]);
    assert!(stdout(&output).contains(": not in sync\n"), "{}", stdout(&output));
}

#[test]
fn what_cannot_be_asked_at_all_is_an_error_that_names_the_remedy() {
    let api = FakeApi::start_forbidden();
    let output = warren(&["status", "--kubeconfig", api.kubeconfig()]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("permission list on nodes"),
        "{}",
        stderr(&output)
    );

    let output = warren(&["status", "--kubeconfig", "/no/such/kubeconfig"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("/no/such/kubeconfig"),
        "{}",
        stderr(&output)
    );

    assert_eq!(
        warren(&["status", "--local", "--node", "a"]).status.code(),
        Some(2)
    );
}

#[test]
fn completions_are_printed_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = warren(&["completions", shell]);
        assert!(stdout(&output).contains("uninstall-node"), "{shell}");
    }
    assert_eq!(stdout(&warren(&["version"])), stdout(&warren(&["--version"])));
}
