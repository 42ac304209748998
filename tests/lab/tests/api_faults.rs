//! The API server absent, gone, busy, forgetful, forbidding or silent: what holds meanwhile, and what follows.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod support;

use std::time::{Duration, Instant};

use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use serde_json::{Value, json};
use support::{
    a_pod_on_each_of_two_nodes, ask_agent, assert_all_reach_all, lab, metric, ping, two_pods_a_node, until,
};
use warren_cluster::WatchKind;
use warren_cluster::mesh_resource::Mesh;
use warren_lab::{Lab, LabOptions, Place, PodOptions};

#[tokio::test]
async fn agents_that_start_before_the_api_form_the_mesh_once_it_is_there() {
    let Some(lab) = lab(two_nodes(false)).await else {
        return;
    };
    lab.set_faults(&json!({"rules": [{"fault": "drop"}]}))
        .await
        .unwrap();
    let comes = async {
        // As often as if every agent had tried each kind twice.
        let twice = u64::try_from(2 * 2 * WatchKind::ALL.len()).unwrap();
        until("requests in vain", async || hits(&lab, 0).await >= twice).await;
        for node in ["node1", "node2"] {
            let unready = ask_agent(&lab, node, "/readyz").await.unwrap();
            assert!(unready.contains("watches-in-sync"), "{unready}");
        }
        lab.clear_faults().await.unwrap();
    };
    let starts = try_join_all(["node1", "node2"].map(|it| lab.node_start(it)));
    let (started, ()) = tokio::join!(starts, comes);
    started.unwrap();
    let facts = two_pods_a_node(&lab).await;
    assert_all_reach_all(&lab, &facts).await;
    assert_eq!(lab.counts().await.unwrap().plaintext, 0);
}

#[tokio::test]
async fn the_api_is_gone_under_traffic_and_neither_a_packet_nor_a_route_is_lost_though_an_agent_restarts() {
    let Some(lab) = lab(two_nodes(true)).await else {
        return;
    };
    let (from, to) = a_pod_on_each_of_two_nodes(&lab).await;
    for address in &to {
        assert_eq!(ping(&lab, &from, address, 1).await, (1, 1));
    }
    let before = kernel_state(&lab, "node2").await;
    lab.set_faults(&json!({"rules": [{"fault": "drop"}], "cutWatchesEveryMs": 100}))
        .await
        .unwrap();
    lab.node_kill("node2").await.unwrap();
    let restart = lab.node_start("node2");
    let gone = async {
        let watched = async {
            until("the loss of the API to show", async || {
                metric(&lab, "node1", FAILING_NODES).await == Some(1)
            })
            .await;
            until("the other agent to run again", async || {
                let unready = ask_agent(&lab, "node2", "/readyz").await;
                unready.is_some_and(|it| it.contains("watches-in-sync"))
            })
            .await;
        };
        let traffic = async { tokio::join!(ping(&lab, &from, &to[0], 500), ping(&lab, &from, &to[1], 500)) };
        let (lost, ()) = tokio::join!(traffic, watched);
        // All that time the restarted agent knew of no other node, and swept nothing.
        assert_eq!(kernel_state(&lab, "node2").await, before);
        lab.clear_faults().await.unwrap();
        lost
    };
    let (restarted, lost) = tokio::join!(restart, gone);
    assert_eq!(lost, ((500, 500), (500, 500)), "sent and received");
    restarted.unwrap();
    assert_eq!(kernel_state(&lab, "node2").await, before);
    let late = lab.pod_add(PodOptions::new("late", "node2")).await.unwrap();
    assert_eq!(ping(&lab, &from, &late.addresses[0], 1).await, (1, 1));
    assert_eq!(lab.counts().await.unwrap().plaintext, 0);
}

/// How soon after the return of the API all is followed again: the longest pause between attempts, and time for the attempt.
const BACK: Duration = Duration::from_secs(25);

#[tokio::test]
async fn the_api_is_gone_for_a_minute_under_traffic_without_a_loss_and_is_followed_soon_after_its_return() {
    let Some(lab) = lab(two_nodes(true)).await else {
        return;
    };
    let (from, to) = a_pod_on_each_of_two_nodes(&lab).await;
    for address in &to {
        assert_eq!(ping(&lab, &from, address, 1).await, (1, 1));
    }
    let before = kernel_state(&lab, "node2").await;
    lab.set_faults(&json!({"rules": [{"fault": "drop"}], "closeWatches": true}))
        .await
        .unwrap();
    let gone = Instant::now();
    let (one, other) = tokio::join!(ping(&lab, &from, &to[0], 3000), ping(&lab, &from, &to[1], 3000));
    assert_eq!((one, other), ((3000, 3000), (3000, 3000)), "sent and received");
    assert!(gone.elapsed() >= Duration::from_secs(55), "{:?}", gone.elapsed());
    assert!(failing(&lab, "node1", "nodes").await && failing(&lab, "node2", "nodes").await);
    assert_eq!(kernel_state(&lab, "node2").await, before);
    lab.clear_faults().await.unwrap();
    let back = Instant::now();
    assert_that_a_node_is_seen_to_come_and_go(&lab, "ghost").await;
    eprintln!("followed again after {:?}", back.elapsed());
    assert!(back.elapsed() < BACK, "{:?}", back.elapsed());
    assert_eq!(lab.counts().await.unwrap().plaintext, 0);
}

#[tokio::test]
async fn an_agent_that_may_not_list_a_kind_when_it_starts_changes_nothing_and_says_which() {
    let Some(lab) = lab(two_nodes(true)).await else {
        return;
    };
    let (from, to) = a_pod_on_each_of_two_nodes(&lab).await;
    for address in &to {
        assert_eq!(ping(&lab, &from, address, 1).await, (1, 1));
    }
    let before = kernel_state(&lab, "node2").await;
    for kind in ["nodes", "pods", "meshes"] {
        let rule = json!({"verb": "list", "resource": kind, "fault": {"error": {"code": 403}}});
        lab.set_faults(&json!({"rules": [rule]})).await.unwrap();
        lab.node_kill("node2").await.unwrap();
        let refused = async {
            until("the agent to say what it lacks", async || {
                let unready = ask_agent(&lab, "node2", "/readyz").await.unwrap_or_default();
                unready.contains(&format!("{kind}: 403")) && unready.contains("ClusterRole")
            })
            .await;
            for address in &to {
                assert_eq!(ping(&lab, &from, address, 20).await, (20, 20), "without {kind}");
            }
            assert_eq!(kernel_state(&lab, "node2").await, before, "without {kind}");
            lab.clear_faults().await.unwrap();
        };
        let (started, ()) = tokio::join!(lab.node_start("node2"), refused);
        started.unwrap();
        assert_eq!(kernel_state(&lab, "node2").await, before, "with {kind} again");
    }
    assert_eq!(lab.counts().await.unwrap().plaintext, 0);
}

#[tokio::test]
async fn a_node_joins_in_a_storm_of_cut_watches_lost_history_and_conflicts_and_no_traffic_suffers() {
    let options = LabOptions {
        agents: false,
        ..LabOptions::default()
    };
    let Some(lab) = lab(options).await else { return };
    try_join_all(["node1", "node2"].map(|it| lab.node_start(it)))
        .await
        .unwrap();
    let (from, to) = a_pod_on_each_of_two_nodes(&lab).await;
    assert_eq!(ping(&lab, &from, &to[0], 1).await, (1, 1));
    let storm = json!({"seed": 3, "cutWatchesEveryMs": 1000, "rules": [
        {"verb": "watch", "probability": 0.5, "fault": {"error": {"code": 410}}},
        {"verb": "patch", "resource": "nodes", "count": 3, "fault": {"error": {"code": 409}}},
        // Counts, and changes nothing.
        {"verb": "list", "fault": {"delay": {"ms": 0}}},
    ]});
    lab.set_faults(&storm).await.unwrap();
    let breaks_out = Instant::now();
    let ((sent, received), joined) = tokio::join!(ping(&lab, &from, &to[0], 300), lab.node_start("node3"));
    joined.unwrap();
    assert_eq!((sent, received), (300, 300), "sent and received");
    let late = lab.pod_add(PodOptions::new("late", "node3")).await.unwrap();
    until("the node that joined to be reached", async || {
        ping(&lab, &from, &late.addresses[0], 1).await == (1, 1)
    })
    .await;
    let (forgotten, conflicts, lists) = (hits(&lab, 0).await, hits(&lab, 1).await, hits(&lab, 2).await);
    assert!(
        forgotten >= 5 && conflicts == 3,
        "{forgotten} times 410, {conflicts} times 409"
    );
    // Who asks again at once lists several times a second; here are a first list of each watch and no more than one a second.
    let (lasted, watches) = (breaks_out.elapsed(), 3 * WatchKind::ALL.len());
    let most = u64::try_from(watches).unwrap() * (lasted.as_secs() + 2);
    eprintln!("{lists} lists by {watches} watches in {lasted:?}");
    assert!(
        lists <= most,
        "{watches} watches listed {lists} times in {lasted:?}"
    );
    assert_eq!(lab.counts().await.unwrap().plaintext, 0);
}

#[tokio::test]
async fn a_busy_server_is_left_alone_for_as_long_as_it_asks() {
    const ASKED: Duration = Duration::from_secs(5);
    let options = LabOptions {
        nodes: 1,
        agents: false,
        ..LabOptions::default()
    };
    let Some(lab) = lab(options).await else { return };
    let busy = json!({"error": {"code": 429, "retryAfter": ASKED.as_secs()}});
    // The second rule of each pair counts what comes after, and changes nothing.
    let rules = json!({"rules": [
        {"verb": "list", "resource": "nodes", "count": 1, "fault": busy},
        {"verb": "list", "resource": "nodes", "fault": {"delay": {"ms": 0}}},
        {"verb": "patch", "resource": "nodes", "count": 1, "fault": busy},
        {"verb": "patch", "resource": "nodes", "fault": {"delay": {"ms": 0}}},
    ]});
    lab.set_faults(&rules).await.unwrap();
    let left_alone = async {
        for rule in [0, 2] {
            until("the server to be asked", async || hits(&lab, rule).await == 1).await;
            let refused = Instant::now();
            until("the server to be asked again", async || {
                hits(&lab, rule + 1).await > 0
            })
            .await;
            let waited = refused.elapsed();
            // The first look may come a moment after the refusal.
            let earliest = ASKED - Duration::from_millis(500);
            assert!(waited >= earliest, "it was asked again after {waited:?}");
        }
    };
    let (started, ()) = tokio::join!(lab.node_start("node1"), left_alone);
    started.unwrap();
}

#[tokio::test]
async fn one_kind_that_is_forbidden_stops_no_other_and_what_was_seen_of_it_holds() {
    let Some(lab) = lab(two_nodes(false)).await else {
        return;
    };
    // Not the default, so that falling back to that would show.
    let mesh: Mesh = serde_json::from_value(json!({
        "apiVersion": "warren-mesh.io/v1alpha1", "kind": "Mesh", "metadata": {"name": "default"},
        "spec": {"encryption": "none"},
    }))
    .unwrap();
    Api::all(lab.client())
        .create(&PostParams::default(), &mesh)
        .await
        .unwrap();
    try_join_all(["node1", "node2"].map(|it| lab.node_start(it)))
        .await
        .unwrap();
    let (from, to) = a_pod_on_each_of_two_nodes(&lab).await;
    assert_eq!(ping(&lab, &from, &to[0], 1).await, (1, 1));
    for (kind, others) in [("meshes", ["nodes", "pods"]), ("pods", ["nodes", "nodes"])] {
        let forbidden = |verb| json!({"verb": verb, "resource": kind, "fault": {"error": {"code": 403}}});
        let rules = [forbidden("list"), forbidden("watch")];
        lab.set_faults(&json!({"rules": rules, "closeWatches": true}))
            .await
            .unwrap();
        until(&format!("{kind} to fail"), async || {
            failing(&lab, "node1", kind).await
        })
        .await;

        assert_that_a_node_is_seen_to_come_and_go(&lab, &format!("ghost-{kind}")).await;

        let late = PodOptions::new(format!("late-{kind}").as_str(), "node2");
        let late = lab.pod_add(late).await.unwrap();
        for address in &to {
            assert_eq!(ping(&lab, &from, address, 5).await, (5, 5), "without {kind}");
        }
        // Of a pod that cannot be seen nobody knows the policy: it is closed until it is seen.
        let answered = if kind == "pods" { 0 } else { 5 };
        let late = &late.addresses[0];
        assert_eq!(ping(&lab, &from, late, 5).await, (5, answered), "without {kind}");
        assert!(failing(&lab, "node1", kind).await);
        for other in others {
            assert!(!failing(&lab, "node1", other).await, "{other} fails with {kind}");
        }
        assert_eq!(agent_status(&lab, "node1").await["encryption"], false);
        lab.clear_faults().await.unwrap();
        until("the late pod to be reached", async || {
            ping(&lab, &from, late, 1).await == (1, 1)
        })
        .await;
    }
}

/// How long a link that hangs may go unnoticed.
const NOTICED: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_link_to_the_api_that_hangs_in_either_direction_is_noticed_and_costs_no_packet() {
    let Some(lab) = lab(LabOptions::default()).await else {
        return;
    };
    let (from, to) = a_pod_on_each_of_two_nodes(&lab).await;
    for address in &to {
        assert_eq!(ping(&lab, &from, address, 1).await, (1, 1));
    }
    let port = api_port(&lab).await;
    // Not a word more from the server, to it, or either, nor that it is gone.
    let hangs = [
        ("node1", vec!["in", "out"]),
        ("node2", vec!["out"]),
        ("node3", vec!["in"]),
    ];
    for (node, directions) in &hangs {
        for direction in directions {
            let (hook, end) = match *direction {
                "in" => ("input", "sport"),
                _ => ("output", "dport"),
            };
            let hang = format!(
                "nft add table inet hang && nft 'add chain inet hang {direction} {{ type filter hook {hook} priority 0; }}' \
                 && nft add rule inet hang {direction} tcp {end} {port} drop"
            );
            on_node(&lab, node, &hang).await;
        }
    }
    let began = Instant::now();
    let noticed = async {
        for (node, directions) in &hangs {
            until(&format!("{node} to notice"), async || {
                failing(&lab, node, "nodes").await
            })
            .await;
            let after = began.elapsed();
            eprintln!("{directions:?}: noticed after {after:?}");
            assert!(after < NOTICED, "{directions:?}: noticed after {after:?}");
        }
    };
    let (one, other, ()) = tokio::join!(
        ping(&lab, &from, &to[0], 1200),
        ping(&lab, &from, &to[1], 1200),
        noticed
    );
    assert_eq!((one, other), ((1200, 1200), (1200, 1200)), "sent and received");
    for (node, _) in &hangs {
        on_node(&lab, node, "nft delete table inet hang").await;
    }
    assert_that_a_node_is_seen_to_come_and_go(&lab, "ghost").await;
    assert_eq!(lab.counts().await.unwrap().plaintext, 0);
}

const FAILING_NODES: &str = "warren_watch_failing{kind=\"nodes\"}";

fn two_nodes(agents: bool) -> LabOptions {
    LabOptions {
        nodes: 2,
        agents,
        ..LabOptions::default()
    }
}

/// How often a rule of the fault plan was met.
async fn hits(lab: &Lab, rule: usize) -> u64 {
    lab.faults().await.unwrap()["rules"][rule]["hits"]
        .as_u64()
        .unwrap()
}

async fn failing(lab: &Lab, node: &str, kind: &str) -> bool {
    let series = format!("warren_watch_failing{{kind=\"{kind}\"}}");
    metric(lab, node, &series).await.unwrap() == 1
}

async fn agent_status(lab: &Lab, node: &str) -> Value {
    serde_json::from_str(&ask_agent(lab, node, "/status").await.unwrap()).unwrap()
}

/// All nodes' agents follow the API.
async fn assert_that_a_node_is_seen_to_come_and_go(lab: &Lab, name: &str) {
    let nodes: Api<Node> = Api::all(lab.client());
    let object = json!({"metadata": {"name": name}, "spec": {"podCIDRs": ["10.244.77.0/24"]}});
    let object = serde_json::from_value(object).unwrap();
    nodes.create(&PostParams::default(), &object).await.unwrap();
    let here = lab.facts().await.unwrap().nodes;
    for node in &here {
        until(&format!("{} to see a new node", node.name), async || {
            agent_status(lab, &node.name).await.to_string().contains(name)
        })
        .await;
    }
    nodes.delete(name, &DeleteParams::default()).await.unwrap();
    for node in &here {
        until(&format!("{} to see it gone", node.name), async || {
            !agent_status(lab, &node.name).await.to_string().contains(name)
        })
        .await;
    }
}

/// The port of the API server that agents ask.
async fn api_port(lab: &Lab) -> String {
    let facts = lab.facts().await.unwrap();
    let kubeconfig = std::fs::read_to_string(facts.nodes[0].disk.join("kubeconfig")).unwrap();
    let (_, server) = kubeconfig.split_once("https://").unwrap();
    let (_, port) = server.split_once(':').unwrap();
    port.chars().take_while(char::is_ascii_digit).collect()
}

async fn on_node(lab: &Lab, node: &str, script: &str) -> String {
    let output = lab
        .run(Place::Node(node.to_owned()), &["sh", "-c", script])
        .await
        .unwrap();
    assert!(output.success(), "{script}: {output:?}");
    output.stdout
}

/// What the agent has put into a node's kernel: links, routes, and the guard without its counters.
async fn kernel_state(lab: &Lab, node: &str) -> String {
    let script = "for link in /sys/class/net/w*; do echo ${link##*/} $(cat $link/mtu); done; \
                  ip -4 route show proto 87; ip -6 route show proto 87; nft --stateless list table inet warren";
    let state = on_node(lab, node, script).await;
    assert!(state.contains("10.244.1.0/24"), "{state}");
    state
}
