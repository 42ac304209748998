//! The log of denied flows: who is named, what a flood may cost, and that it is off unless it is asked for.

use std::time::{Duration, Instant};

use serde_json::json;
use warren_lab::knock::{Door, knock};
use warren_lab::{Lab, Place};

use crate::scene::{Object, door, place, scene};
use crate::support::{metric, until, until_told};
use crate::written::mesh;

/// A datagram is sent three times in this.
const GLANCE: Duration = Duration::from_millis(90);
/// What a flood sends.
const FLOOD: u64 = 10_000;

/// For how long somebody else reads the packets.
const OTHERS_TURN: &str = "12";

/// A shop whose database lets nobody in, and a guest who may speak to nobody.
async fn shop() -> Option<Lab> {
    let pods = [
        ("shop", "web", "node1", json!({"app": "web"})),
        ("shop", "db", "node2", json!({"app": "db"})),
        ("shop", "near", "node2", json!({"app": "near"})),
        ("other", "guest", "node1", json!({"app": "guest"})),
    ];
    let lab = scene(2, &pods).await?;
    let closed = json!({"podSelector": {"matchLabels": {"app": "db"}}});
    Object::kubernetes("shop", "closed", closed).apply(&lab).await;
    let silent = json!({"selector": "app == 'guest'", "types": ["Egress"], "egress": [{"action": "Deny"}]});
    Object::global("silent", silent).apply(&lab).await;
    Some(lab)
}

/// What a node's agent has logged of denied flows.
async fn lines(lab: &Lab, node: &str) -> Vec<String> {
    let log = log(lab, node).await;
    let lines = log.lines().filter(|line| line.contains("warren_agent::denied:"));
    lines.map(str::to_owned).collect()
}

async fn log(lab: &Lab, node: &str) -> String {
    let facts = lab.facts().await.unwrap();
    let node = facts.nodes.iter().find(|it| it.name == node).unwrap();
    std::fs::read_to_string(&node.log).unwrap()
}

/// Turns the log on or off, on both nodes.
async fn turn(lab: &Lab, is_on: bool) {
    const TURNS: [&str; 2] = [
        "denied flows are logged no longer",
        "denied flows are logged from now on",
    ];
    let said = async |node| {
        let log = log(lab, node).await;
        log.matches(TURNS[usize::from(is_on)]).count()
    };
    let before = [said("node1").await, said("node2").await];
    mesh(lab, json!({"logDenied": is_on})).await;
    until("both agents to follow", async || {
        said("node1").await > before[0] && said("node2").await > before[1]
    })
    .await;
    until("their rules to follow", async || {
        let mut rules = String::new();
        for node in ["node1", "node2"] {
            let argv = ["nft", "list", "table", "inet", "warren-policy"];
            let listed = lab.run(Place::Node(node.to_owned()), &argv).await.unwrap();
            rules += if listed.stdout.contains("log prefix") {
                "+"
            } else {
                "-"
            };
        }
        rules == if is_on { "++" } else { "--" }
    })
    .await;
}

/// What a node's rules have denied, whatever denies it.
async fn denied_packets(lab: &Lab, node: &str) -> u64 {
    let argv = [
        "nft",
        "--json",
        "list",
        "counters",
        "table",
        "inet",
        "warren-policy",
    ];
    let listed = lab.run(Place::Node(node.to_owned()), &argv).await.unwrap();
    let listed: serde_json::Value = serde_json::from_str(&listed.stdout).unwrap();
    let counters = listed["nftables"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| &it["counter"]);
    let denied = counters.filter(|it| !it["name"].to_string().contains("allow-"));
    denied.filter_map(|it| it["packets"].as_u64()).sum()
}

/// Knocks in vain until a node's agent has a line that says all of this.
async fn denied(lab: &Lab, from: &Place, door: Door, node: &str, said: &[String]) {
    until(&format!("a line with {said:?}"), async || {
        assert_eq!(knock(lab, from, &[door], GLANCE).await.unwrap(), [false]);
        let lines = lines(lab, node).await;
        lines.iter().any(|line| said.iter().all(|it| line.contains(it)))
    })
    .await;
}

#[tokio::test]
async fn a_denied_flow_has_a_line_with_both_pods_the_policy_and_the_rule_while_that_is_on() {
    let Some(lab) = shop().await else { return };
    let facts = lab.facts().await.unwrap();
    let (web, guest) = (place("shop", "web"), place("other", "guest"));
    let db = |family, port| door(&facts, "shop", "db", family, port);
    // Off, as it is by default.
    until("the policy to be in force", async || {
        knock(&lab, &web, &[db(0, "udp:5000")], GLANCE).await.unwrap() == [false]
    })
    .await;
    turn(&lab, true).await;
    for (family, port, protocol) in [
        (0, "tcp:6379", "TCP"),
        (1, "tcp:6379", "TCP"),
        (1, "udp:53", "UDP"),
    ] {
        let door = db(family, port);
        let of_flow = |from: &str| {
            vec![
                format!("from=\"{from}\""),
                "to=\"shop/db\"".to_owned(),
                format!(
                    "to_address={} to_port={} protocol={protocol}",
                    door.address, door.port
                ),
            ]
        };
        let mut said = of_flow("shop/web");
        said.push(
            "policy=\"NetworkPolicy/shop/closed\" rule=\"ingress: no rule of tier default allows it\""
                .to_owned(),
        );
        denied(&lab, &web, door, "node2", &said).await;
        let mut said = of_flow("other/guest");
        said.push("policy=\"GlobalNetworkPolicy/silent\" rule=\"egress[0]\"".to_owned());
        denied(&lab, &guest, door, "node1", &said).await;
    }
    let metric = metric(&lab, "node2", "warren_policy_denied_logged_flows_total").await;
    assert_eq!(metric, Some(3), "one for each flow, whatever was sent");

    turn(&lab, false).await;
    let quiet = db(0, "tcp:80");
    assert_eq!(knock(&lab, &web, &[quiet], GLANCE).await.unwrap(), [false]);
    turn(&lab, true).await;
    let said = [format!("to_address={} to_port=53", quiet.address)];
    denied(&lab, &web, db(0, "udp:53"), "node2", &said).await;
    let lines = lines(&lab, "node2").await;
    for (address, port) in [(quiet.address, 80), (quiet.address, 5000)] {
        let said = format!("to_address={address} to_port={port}");
        assert!(!lines.iter().any(|line| line.contains(&said)), "{lines:#?}");
    }
}

#[tokio::test]
async fn a_node_that_cannot_log_says_so_once_and_denies_all_the_same() {
    let Some(lab) = shop().await else { return };
    let facts = lab.facts().await.unwrap();
    let node = Place::Node("node2".to_owned());
    let (web, db) = (place("shop", "web"), door(&facts, "shop", "db", 1, "tcp:80"));
    let is_refused = async || {
        let refused = metric(&lab, "node2", "warren_refusals{code=\"denied-log-unavailable\"}").await;
        refused.unwrap_or_default() > 0
    };
    // A group has one reader.
    let reader = [
        "timeout",
        OTHERS_TURN,
        "tcpdump",
        "-Z",
        "root",
        "-i",
        "nflog:87",
        "-w",
        "/dev/null",
    ];
    let reading = lab.run_for(node.clone(), &reader, Duration::from_secs(60));
    let meanwhile = async {
        until("the other reader", async || {
            let groups = ["cat", "/proc/net/netfilter/nfnetlink_log"];
            let groups = lab.run(node.clone(), &groups).await.unwrap();
            groups.stdout.lines().any(|line| line.trim().starts_with("87 "))
        })
        .await;
        mesh(&lab, json!({"logDenied": true})).await;
        until("the refusal", async || is_refused().await).await;
        assert_eq!(knock(&lab, &web, &[db], GLANCE).await.unwrap(), [false]);
        let rules = lab.run(node.clone(), &["nft", "list", "table", "inet", "warren-policy"]);
        let rules = rules.await.unwrap().stdout;
        assert!(
            rules.contains("goto denied") && !rules.contains("log prefix"),
            "{rules}"
        );
        until_told(&lab, "node/node2", "DeniedLogUnavailable").await;
    };
    let (read, ()) = tokio::join!(reading, meanwhile);
    assert_eq!(read.unwrap().stdout, "");
    let said = log(&lab, "node2")
        .await
        .matches("denied flows cannot be logged")
        .count();
    assert_eq!(said, 1);

    mesh(&lab, json!({"logDenied": false})).await;
    until("the refusal to go", async || !is_refused().await).await;
    mesh(&lab, json!({"logDenied": true})).await;
    denied(&lab, &web, db, "node2", &["from=\"shop/web\" ".to_owned()]).await;
}

#[tokio::test]
async fn a_flood_of_denied_packets_costs_a_few_lines_and_the_rest_is_counted() {
    let Some(lab) = shop().await else { return };
    let facts = lab.facts().await.unwrap();
    let db = door(&facts, "shop", "db", 0, "udp:53").address;
    let counted = async || {
        let logged = metric(&lab, "node2", "warren_policy_denied_logged_flows_total").await;
        let unlogged = metric(&lab, "node2", "warren_policy_denied_unlogged_packets_total").await;
        (logged.unwrap_or_default(), unlogged.unwrap_or_default())
    };
    turn(&lab, true).await;
    let began = Instant::now();
    // Each to another port, so that each is another flow.
    let script = format!("for i in $(seq {FLOOD}); do echo x > /dev/udp/{db}/$((i + 1000)); done");
    let sent = lab
        .run(place("shop", "near"), &["bash", "-c", &script])
        .await
        .unwrap();
    assert!(sent.success(), "{sent:?}");
    // Some may be lost on their way to the rules.
    let denied = denied_packets(&lab, "node2").await;
    assert!(denied > FLOOD / 2, "{denied} of {FLOOD} were denied");
    until("all to be counted", async || {
        let (logged, unlogged) = counted().await;
        logged + unlogged >= denied
    })
    .await;
    let (logged, unlogged) = counted().await;
    eprintln!(
        "{logged} lines, {unlogged} packets without, in {:?}",
        began.elapsed()
    );
    let lines = lines(&lab, "node2").await;
    let (flows, rest): (Vec<&String>, Vec<_>) = lines.iter().partition(|line| line.contains("denied flow "));
    assert_eq!(flows.len() as u64, logged);
    // By the rules' limit for one denial, which is less than a window's.
    let most = 20 + 10 * (began.elapsed().as_secs() + 1);
    assert!(
        (20..=most.min(200)).contains(&logged),
        "{logged} of at most {most} lines"
    );
    assert_eq!(logged + unlogged, denied_packets(&lab, "node2").await);
    let told = rest.iter().map(|line| {
        let number = line.split("packets=").nth(1).unwrap().split(' ').next().unwrap();
        number.parse::<u64>().unwrap()
    });
    assert_eq!(told.sum::<u64>(), unlogged, "{rest:#?}");
}
