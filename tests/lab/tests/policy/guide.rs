//! The guide to network policy, gone through with real packets: what it says passes does, and nothing else, after each step.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use kube::Api;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams};
use serde_json::Value;
use warren_lab::knock::Door;
use warren_lab::{Facts, Families, Lab, LabOptions, Place, PodKey, PodOptions, Port};
use warren_policy::{Decision, verdict};

use crate::scene::{Attempt, QUICK, rules, try_all};
use crate::support::{PATIENCE, lab};

const GUIDE: &str = include_str!("../../../../docs/policy.md");
/// Somewhere outside of the cluster, as the guide has it.
const WORLD: &str = "198.51.100.7";
/// How long the answer to what is denied is waited for, once nodes have done as they are told.
const SURE: Duration = Duration::from_secs(1);

/// A part of the guide, in its order.
#[derive(Debug)]
enum Part {
    /// Objects to apply.
    Objects(Vec<Value>),
    /// What is said of connections.
    Claims(Vec<Claim>),
}

/// What the guide says of one connection: from and to as it calls them, the port, and whether it is allowed.
#[derive(Debug, Clone, PartialEq)]
struct Claim {
    from: String,
    to: String,
    port: String,
    allowed: bool,
}

#[tokio::test]
async fn every_connection_is_as_the_guide_says_after_each_of_its_steps() {
    let parts = read_guide();
    let options = LabOptions {
        families: Families::V4,
        ..LabOptions::default()
    };
    let Some(lab) = lab(options).await else { return };
    bring_up(&lab, &parts).await;
    let facts = lab.facts().await.unwrap();
    let (mut allowed, mut denied) = (0, 0);
    for (at, part) in parts.iter().enumerate() {
        match part {
            Part::Objects(objects) => {
                for object in objects {
                    apply(&lab, object).await;
                }
            }
            Part::Claims(claims) => {
                hold(&lab, &facts, claims, &format!("part {at} of {}", parts.len())).await;
                let passing = claims.iter().filter(|it| it.allowed).count();
                allowed += passing;
                denied += claims.len() - passing;
            }
        }
    }
    eprintln!("{allowed} connections were allowed, {denied} denied");
    assert!(
        allowed > 50 && denied > 70,
        "{allowed} were allowed, {denied} denied"
    );
}

/// Holds packets to what the guide says, and the verdicts too. Nodes may take a moment; once all is as it should be it is looked at again,
/// longer.
async fn hold(lab: &Lab, facts: &Facts, claims: &[Claim], when: &str) {
    let rules = rules(lab).await;
    let attempts: Vec<Attempt> = claims.iter().map(|claim| attempt(facts, claim)).collect();
    for (claim, attempt) in claims.iter().zip(&attempts) {
        let judged = verdict(&rules, &attempt.flow());
        assert_eq!(
            judged.action == Decision::Allow,
            claim.allowed,
            "{when}: {claim:?}: {judged:?}"
        );
    }
    let deadline = Instant::now() + PATIENCE / 6;
    let mut patience = QUICK;
    loop {
        let answered = try_all(lab, &attempts, patience).await;
        let differ = claims.iter().zip(answered);
        let differ: Vec<&Claim> = differ
            .filter(|(it, answered)| it.allowed != *answered)
            .map(|(it, _)| it)
            .collect();
        match (differ.is_empty(), patience == SURE) {
            (true, true) => return,
            (true, false) => patience = SURE,
            (false, _) => assert!(
                Instant::now() < deadline,
                "{when}, nodes do otherwise: {differ:#?}"
            ),
        }
    }
}

fn attempt(facts: &Facts, claim: &Claim) -> Attempt {
    let address = |name: &str| -> IpAddr {
        let pod = facts.pods.iter().find(|pod| pod.key.to_string() == name);
        pod.map_or(name, |pod| &pod.addresses[0]).parse().unwrap()
    };
    let port: Port = claim.port.parse().unwrap();
    Attempt {
        from: place_of(&claim.from),
        source: address(&claim.from),
        door: Door {
            protocol: port.protocol,
            address: address(&claim.to),
            port: port.port,
        },
    }
}

/// Where something that the guide names is in the lab.
fn place_of(name: &str) -> Place {
    match name.split_once('/') {
        Some((namespace, pod)) => Place::Pod(PodKey::new(namespace, pod)),
        None => Place::Root,
    }
}

/// The application as the guide tells of it, one pod here and one there, and somebody outside.
async fn bring_up(lab: &Lab, parts: &[Part]) {
    for (name, label, node) in [
        ("shop/front", ("app", "front"), "node1"),
        ("shop/api", ("app", "api"), "node2"),
        ("shop/db", ("app", "db"), "node3"),
        ("kube-system/coredns", ("k8s-app", "kube-dns"), "node2"),
    ] {
        let (namespace, pod) = name.split_once('/').unwrap();
        let mut pod = PodOptions::new(PodKey::new(namespace, pod), node);
        pod.labels = BTreeMap::from([(label.0.to_owned(), label.1.to_owned())]);
        pod.ports = ports(parts, name)
            .iter()
            .map(|port| port.parse().unwrap())
            .collect();
        lab.pod_add(pod).await.unwrap();
    }
    let mut script = format!("ip addr add {WORLD}/32 dev lo\n");
    for node in lab.facts().await.unwrap().nodes {
        for (to, by) in node.pod_cidrs.iter().zip(&node.addresses) {
            script += &format!("ip route add {to} via {} src {WORLD}\n", by.addr());
        }
    }
    let served = ports(parts, WORLD).join(" ");
    script += &format!("warren-lab pod-serve world {served} </dev/null >/dev/null 2>&1 &\n");
    let made = lab.run(Place::Root, &["sh", "-ec", &script]).await.unwrap();
    assert!(made.success(), "{made:?}");
}

/// All ports that the guide speaks of, of one that it names; the one of the front that has a name there has it here.
fn ports(parts: &[Part], of: &str) -> Vec<String> {
    let claims = parts.iter().flat_map(|part| match part {
        Part::Claims(claims) => &claims[..],
        Part::Objects(_) => &[],
    });
    let mut ports: Vec<String> = claims
        .filter(|it| it.to == of)
        .map(|it| it.port.clone())
        .collect();
    ports.sort();
    ports.dedup();
    for port in ports.iter_mut().filter(|port| *port == "tcp:8080") {
        port.push_str("=http");
    }
    ports
}

async fn apply(lab: &Lab, object: &Value) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let version = text(&object["apiVersion"]);
    let (group, version) = version.split_once('/').unwrap_or(("", &version));
    let kind = GroupVersionKind::gvk(group, version, &text(&object["kind"]));
    let resource = ApiResource::from_gvk(&kind);
    let api: Api<DynamicObject> = match object["metadata"]["namespace"].as_str() {
        Some(namespace) => Api::namespaced_with(lab.client(), namespace, &resource),
        None => Api::all_with(lab.client(), &resource),
    };
    let params = PatchParams::apply("test").force();
    let applied = api
        .patch(&text(&object["metadata"]["name"]), &params, &Patch::Apply(object))
        .await;
    applied.unwrap_or_else(|error| panic!("{object}: {error}"));
}

fn read_guide() -> Vec<Part> {
    let mut parts = Vec::new();
    let mut lines = GUIDE.lines().peekable();
    while let Some(line) = lines.next() {
        if line == "```yaml" {
            let block: Vec<&str> = lines.by_ref().take_while(|it| *it != "```").collect();
            let documents = block.split(|it| *it == "---");
            let read = |lines: &[&str]| serde_saphyr::from_str(&lines.join("\n")).unwrap();
            parts.push(Part::Objects(documents.map(read).collect()));
        } else if line == "```console" {
            let block: Vec<&str> = lines.by_ref().take_while(|it| *it != "```").collect();
            parts.push(Part::Claims(block.windows(2).filter_map(explained).collect()));
        } else if line.starts_with("| from |") {
            let mut rows = Vec::new();
            while let Some(row) = lines.next_if(|it| it.starts_with('|')) {
                rows.push(row);
            }
            parts.push(Part::Claims(table(line, &rows)));
        }
    }
    parts
}

/// What an `explain` says: the command, and the first line of what it prints.
fn explained(lines: &[&str]) -> Option<Claim> {
    let words: Vec<&str> = lines[0]
        .strip_prefix("$ warren policy explain ")?
        .split(' ')
        .collect();
    let ["--from", from, "--to", to, "--port", port] = words[..] else {
        panic!("a command that this test does not know: {}", lines[0]);
    };
    let allowed = lines[1].ends_with(" is allowed");
    assert!(allowed || lines[1].ends_with(" is denied"), "{lines:?}");
    Some(Claim {
        from: from.to_owned(),
        to: to.to_owned(),
        port: port.replace('/', ":"),
        allowed,
    })
}

/// What a table says: a row for each who opens connections, a column for each port.
fn table(head: &str, rows: &[&str]) -> Vec<Claim> {
    let cells = |line: &str| -> Vec<String> {
        let cells = line.trim_matches('|').split('|');
        cells.map(|cell| cell.trim().replace('`', "")).collect()
    };
    let head = cells(head);
    let mut claims = Vec::new();
    // The first row is the line between head and body.
    for row in &rows[1..] {
        let row = cells(row);
        assert_eq!(row.len(), head.len(), "{row:?}");
        for (column, cell) in head.iter().zip(&row).skip(1) {
            let (to, port) = column.split_once(' ').unwrap();
            let allowed = match cell.as_str() {
                "-" => continue,
                "yes" => true,
                "no" => false,
                other => panic!("{other:?} in {row:?}"),
            };
            claims.push(Claim {
                from: row[0].clone(),
                to: to.to_owned(),
                port: port.replace('/', ":"),
                allowed,
            });
        }
    }
    claims
}

#[test]
fn the_guide_is_read_as_it_is_written() {
    let parts = read_guide();
    let objects = parts.iter().filter(|it| matches!(it, Part::Objects(_))).count();
    let tables = GUIDE.lines().filter(|it| it.starts_with("| from |")).count();
    let steps = GUIDE.lines().filter(|it| it.starts_with("## ")).count();
    assert!(
        objects >= steps && tables >= steps,
        "{objects} blocks and {tables} tables for {steps} steps"
    );
    let claim = |from: &str, to: &str, port: &str, allowed| Claim {
        from: from.to_owned(),
        to: to.to_owned(),
        port: port.to_owned(),
        allowed,
    };
    let head = "| from | `shop/front` tcp/8080 | `198.51.100.7` tcp/443 |";
    let rows = [
        "|---|---|---|",
        "| `shop/front` | - | no |",
        "| `198.51.100.7` | yes | - |",
    ];
    assert_eq!(
        table(head, &rows),
        [
            claim("shop/front", WORLD, "tcp:443", false),
            claim(WORLD, "shop/front", "tcp:8080", true)
        ]
    );
}
