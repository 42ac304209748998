//! The guide to network policy: its policies are applied in their order, and each command it shows prints what it says.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

#[path = "../policy/fake_api.rs"]
mod fake_api;
#[path = "../served/mod.rs"]
mod served;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::process::Command;

use serde_json::{Value, json};

use fake_api::FakeApi;

const GUIDE: &str = include_str!("../../../docs/policy.md");

/// Set to have the outputs in the guide written anew.
const REWRITE: &str = "WARREN_REWRITE_GUIDE";

/// Objects by the path of their list, and there by namespace and name.
type Objects = BTreeMap<&'static str, BTreeMap<(String, String), Value>>;

#[test]
fn every_step_does_what_the_guide_says() {
    let mut objects = application();
    let (mut shown, mut commands, mut applied) = (String::new(), 0, 0);
    let mut lines = GUIDE.lines();
    while let Some(line) = lines.next() {
        let _ = writeln!(shown, "{line}");
        let block: Vec<&str> = match line {
            "```yaml" | "```console" => lines.by_ref().take_while(|it| *it != "```").collect(),
            _ => continue,
        };
        if line == "```yaml" {
            for document in block.split(|it| *it == "---") {
                apply(
                    &mut objects,
                    serde_saphyr::from_str(&document.join("\n")).unwrap(),
                );
                applied += 1;
            }
            let _ = writeln!(shown, "{}", block.join("\n"));
        } else {
            let api = serve(&objects);
            for command in block.iter().filter_map(|it| it.strip_prefix("$ ")) {
                let _ = writeln!(shown, "$ {command}\n{}", run(&api, command));
                commands += 1;
            }
        }
        shown += "```\n";
    }
    if std::env::var_os(REWRITE).is_some() {
        let guide = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/policy.md");
        std::fs::write(guide, &shown).unwrap();
    } else {
        assert_eq!(
            GUIDE, shown,
            "{REWRITE}=1 writes what the commands print now into the guide"
        );
    }
    assert!(
        applied > 8 && commands > 10,
        "{applied} objects, {commands} commands"
    );
}

/// Pods as the guide describes them, and DNS.
fn application() -> Objects {
    let pod = |namespace: &str, name: &str, label: [&str; 2], ports: Value, address: &str| {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": namespace, "name": name, "labels": {(label[0]): label[1]}},
            "spec": {"nodeName": "node1", "containers": [{"name": "main", "ports": ports}]},
            "status": {"phase": "Running", "podIPs": [{"ip": address}]},
        })
    };
    let mut objects = Objects::new();
    let http = json!([{"name": "http", "containerPort": 8080}]);
    for object in [
        pod("shop", "front", ["app", "front"], http, "10.244.1.5"),
        pod("shop", "api", ["app", "api"], json!([]), "10.244.1.6"),
        pod("shop", "db", ["app", "db"], json!([]), "10.244.2.5"),
        pod(
            "kube-system",
            "coredns",
            ["k8s-app", "kube-dns"],
            json!([]),
            "10.244.2.2",
        ),
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kube-system"}}),
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node1"}}),
    ] {
        apply(&mut objects, object);
    }
    objects
}

fn apply(objects: &mut Objects, object: Value) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let path = match (
        object["apiVersion"].as_str().unwrap(),
        object["kind"].as_str().unwrap(),
    ) {
        ("v1", "Pod") => "/api/v1/pods",
        ("v1", "Namespace") => "/api/v1/namespaces",
        ("v1", "Node") => "/api/v1/nodes",
        ("networking.k8s.io/v1", "NetworkPolicy") => "/apis/networking.k8s.io/v1/networkpolicies",
        ("warren-mesh.io/v1alpha1", "NetworkPolicy") => "/apis/warren-mesh.io/v1alpha1/networkpolicies",
        ("warren-mesh.io/v1alpha1", "GlobalNetworkPolicy") => {
            "/apis/warren-mesh.io/v1alpha1/globalnetworkpolicies"
        }
        other => panic!("the guide has an object of a kind that this test does not know: {other:?}"),
    };
    let metadata = &object["metadata"];
    let name = (text(&metadata["namespace"]), text(&metadata["name"]));
    objects.entry(path).or_default().insert(name, object);
}

fn serve(objects: &Objects) -> FakeApi {
    let lists: Vec<(&str, Vec<Value>)> = objects
        .iter()
        .map(|(path, all)| (*path, all.values().cloned().collect()))
        .collect();
    FakeApi::start(&lists, None)
}

/// What a command of the guide prints, without an end of line; of one that fails nothing but its exit status would be of use.
fn run(api: &FakeApi, command: &str) -> String {
    let mut words = command.split_whitespace();
    assert_eq!(words.next(), Some("warren"), "{command}");
    let output = Command::new(env!("CARGO_BIN_EXE_warren"))
        .args(words)
        .args(["--kubeconfig", api.kubeconfig()])
        .env_clear()
        .output()
        .unwrap();
    assert!(
        matches!(output.status.code(), Some(0 | 1)),
        "{command}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}
