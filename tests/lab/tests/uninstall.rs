//! `warren uninstall-node` leaves a node as it was before Warren, whatever state it is in.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod support;

use std::collections::BTreeSet;

use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::DeleteParams;
use serde_json::json;
use support::{devices, lab, until};
use warren_lab::{Lab, LabOptions, Output, Place, PodOptions};

/// A state that a node can be in when Warren is removed from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The agent was stopped; pods are still attached.
    PodsAttached,
    /// The agent was killed while it attached a pod.
    KilledAtAdd,
    /// The agent and then the devices were killed.
    DevicesKilled,
    /// The Node is not in the API any more.
    NodeDeleted,
    /// The node has rebooted, and its agent has been killed since.
    Rebooted,
    /// No file of the state folder is what it was, but for the record of sysctls.
    Corrupt,
    /// The agent has started and never reached the API: the guard is closed to all.
    Sealed,
}

/// The state of each node, by its number. The last one is without an API from then on, and so is the removal.
const STATES: [State; 7] = [
    State::PodsAttached,
    State::KilledAtAdd,
    State::DevicesKilled,
    State::NodeDeleted,
    State::Rebooted,
    State::Corrupt,
    State::Sealed,
];

/// Everything that Warren could leave a trace in: links, addresses, routes, rules, neighbours, nft, sysctls, files. Not
/// compared are what the kernel makes by itself and is not there at once (routes, neighbours, duplicate address detection),
/// what a reboot changes (hardware addresses), and what is the
/// lab's (the pods' namespaces, the folders) or mount's.
const TRACES: &str = "ip -oneline link | sed 's/ state .*//; s/qdisc [^ ]*//; s/@if[0-9]*//'; \
    ip -oneline address | grep -v 'eth0 .* fe80:' | sed 's/ tentative//; s/valid_lft.*//'; \
    ip -4 route show table all; ip -6 route show table all | sed 's/ expires [^ ]*//' | grep -v ' proto kernel\\|^multicast'; \
    ip rule; ip -6 rule; ip neigh show nud permanent; nft list ruleset; \
    grep -r . /proc/sys/net/ipv4/conf /proc/sys/net/ipv6/conf /proc/sys/net/ipv4/ip_forward 2>/dev/null | grep -v stable_secret; \
    find /run -mindepth 1 ! -path '/run/netns*' ! -path '/run/mount*' ! -type s; \
    find $WARREN_STATE_DIR $WARREN_CNI_CONF_DIR $WARREN_CNI_BIN_DIR -mindepth 1 ! -name warren-cni 2>/dev/null; true";

#[tokio::test]
async fn uninstalling_leaves_no_trace_whatever_state_the_node_is_in() {
    let Some(lab) = lab_without_agents(STATES.len()).await else {
        return;
    };
    let mut before = Vec::new();
    for number in 1..=STATES.len() {
        before.push(traces(&lab, number).await);
    }
    let started = (1..=STATES.len()).filter(|number| STATES[number - 1] != State::Sealed);
    let start = async |number| lab.node_start(&name(number)).await;
    try_join_all(started.map(start)).await.unwrap();
    for (index, state) in STATES.into_iter().enumerate() {
        bring_about(&lab, index + 1, state).await;
        let traces = traces(&lab, index + 1).await;
        assert_ne!(traces, before[index], "{state:?}: there is something");
    }
    // None of it needs the API, which nobody reaches since the last.
    for (index, state) in STATES.into_iter().enumerate() {
        let output = uninstall(&lab, index + 1).await;
        assert!(output.success(), "{state:?}: {output:?}");
        assert_no_trace(&lab, index + 1, &before[index]).await;
        // A second time finds nothing to do.
        let again = uninstall(&lab, index + 1).await;
        assert!(
            again.success() && again.stdout.contains("nothing of Warren"),
            "{state:?}: {again:?}"
        );
    }
}

#[tokio::test]
async fn a_full_disk_keeps_nothing_from_being_removed() {
    let Some((lab, before)) = node_with_a_disk_of_its_own().await else {
        return;
    };
    on_node(
        &lab,
        1,
        "head -c 16M /dev/zero >> $WARREN_STATE_DIR/guard.json; ! echo more > $WARREN_STATE_DIR/more",
    )
    .await;
    on_node(&lab, 1, "rm $WARREN_STATE_DIR/more").await;
    let output = uninstall(&lab, 1).await;
    assert!(output.success(), "{output:?}");
    assert_no_trace(&lab, 1, &before).await;
}

#[tokio::test]
async fn a_read_only_disk_is_named_and_everything_else_goes() {
    let Some((lab, before)) = node_with_a_disk_of_its_own().await else {
        return;
    };
    on_node(&lab, 1, "mount -o remount,ro $WARREN_STATE_DIR").await;
    let output = uninstall(&lab, 1).await;
    let said = &output.stderr;
    assert!(output.code == 1, "{output:?}");
    for part in [
        "sysctls.json",
        "Read-only file system",
        "check that its file system is writable, and do this again",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let state = on_node(&lab, 1, "find $WARREN_STATE_DIR -mindepth 1").await;
    let left = &traces(&lab, 1).await - &before;
    let state: BTreeSet<String> = state.lines().map(str::to_owned).collect();
    assert_eq!(left, state, "only what is on that disk is left");

    on_node(&lab, 1, "mount -o remount,rw $WARREN_STATE_DIR").await;
    let output = uninstall(&lab, 1).await;
    assert!(output.success(), "{output:?}");
    assert_no_trace(&lab, 1, &before).await;
}

#[tokio::test]
async fn a_damaged_record_of_sysctls_is_named_and_everything_else_goes() {
    let Some((lab, before)) = node_with_a_disk_of_its_own().await else {
        return;
    };
    on_node(&lab, 1, "echo '{' > $WARREN_STATE_DIR/sysctls.json").await;
    let output = uninstall(&lab, 1).await;
    assert!(
        output.code == 1 && output.stderr.contains("sysctls.json is damaged"),
        "{output:?}"
    );
    let links = on_node(&lab, 1, "ip link; nft list tables; ls $WARREN_STATE_DIR").await;
    assert!(!links.contains("warren") && !links.contains("keys"), "{links}");

    // What it says is to be done.
    for key in ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"] {
        assert!(output.stderr.contains(key), "{output:?}");
        on_node(&lab, 1, &format!("sysctl -w {key}=0")).await;
    }
    on_node(&lab, 1, "rm $WARREN_STATE_DIR/sysctls.json").await;
    let output = uninstall(&lab, 1).await;
    assert!(output.success(), "{output:?}");
    assert_no_trace(&lab, 1, &before).await;
}

/// Takes a node from an agent in operation to a state.
async fn bring_about(lab: &Lab, number: usize, state: State) {
    let node = name(number);
    let pod = |prefix: &str| PodOptions::new(format!("{prefix}-{number}").as_str(), &node);
    if state != State::Sealed {
        lab.pod_add(pod("a")).await.unwrap();
    }
    match state {
        State::PodsAttached => lab.node_stop(&node).await.unwrap(),
        State::KilledAtAdd => {
            let kill = async {
                until("the second pod's interface", async || {
                    let veths = on_node(lab, number, "ls -d /sys/class/net/wrn*").await;
                    veths.lines().count() == 2
                })
                .await;
                lab.node_kill(&node).await.unwrap();
            };
            // Whether it was done just before does not matter.
            let (_added, ()) = tokio::join!(lab.pod_add(pod("b")), kill);
        }
        State::DevicesKilled => {
            lab.node_kill(&node).await.unwrap();
            let devices = devices(lab, &node).await;
            assert!(!devices.is_empty());
            on_node(lab, number, &format!("kill -9 {}", devices.join(" "))).await;
        }
        State::NodeDeleted => {
            let nodes: Api<Node> = Api::all(lab.client());
            nodes.delete(&node, &DeleteParams::default()).await.unwrap();
            lab.node_stop(&node).await.unwrap();
        }
        State::Rebooted => {
            lab.node_stop(&node).await.unwrap();
            lab.node_reboot(&node).await.unwrap();
            lab.node_kill(&node).await.unwrap();
        }
        State::Corrupt => {
            lab.node_stop(&node).await.unwrap();
            let script = "cd $WARREN_STATE_DIR && for file in attachments.json endpoints.json guard.json known-keys.json keys/*; do \
                          test -s $file && echo '{' > $file || exit; done";
            on_node(lab, number, script).await;
        }
        State::Sealed => {
            lab.set_faults(&json!({"rules": [{"fault": "drop"}], "closeWatches": true}))
                .await
                .unwrap();
            let sealed = async {
                until("the guard", async || {
                    on_node(lab, number, "nft list tables").await.contains("warren")
                })
                .await;
                lab.node_kill(&node).await.unwrap();
            };
            let (started, ()) = tokio::join!(lab.node_start(&node), sealed);
            assert!(started.is_err(), "it cannot have become ready");
        }
    }
}

async fn lab_without_agents(nodes: usize) -> Option<Lab> {
    lab(LabOptions {
        nodes: u8::try_from(nodes).unwrap(),
        agents: false,
        ..LabOptions::default()
    })
    .await
}

/// One node whose state folder is a file system, with a pod and a stopped agent; and its traces from before.
async fn node_with_a_disk_of_its_own() -> Option<(Lab, BTreeSet<String>)> {
    let lab = lab_without_agents(1).await?;
    let before = traces(&lab, 1).await;
    on_node(&lab, 1, "mount -t tmpfs -o size=512k tmpfs $WARREN_STATE_DIR").await;
    lab.node_start("node1").await.unwrap();
    lab.pod_add(PodOptions::new("a", "node1")).await.unwrap();
    lab.node_stop("node1").await.unwrap();
    Some((lab, before))
}

async fn assert_no_trace(lab: &Lab, number: usize, before: &BTreeSet<String>) {
    let after = traces(lab, number).await;
    let nothing = BTreeSet::new();
    assert_eq!(&after - before, nothing, "left on {}", name(number));
    assert_eq!(before - &after, nothing, "missing on {}", name(number));
    assert_eq!(devices(lab, &name(number)).await, Vec::<String>::new());
    on_node(lab, number, "test ! -e $WARREN_CNI_BIN_DIR/warren-cni").await;
}

async fn uninstall(lab: &Lab, number: usize) -> Output {
    let argv = ["warren", "uninstall-node"];
    lab.run(Place::Node(name(number)), &argv).await.unwrap()
}

async fn traces(lab: &Lab, number: usize) -> BTreeSet<String> {
    let traces = on_node(lab, number, TRACES).await;
    traces.lines().map(str::to_owned).collect()
}

async fn on_node(lab: &Lab, number: usize, script: &str) -> String {
    let output = lab
        .run(Place::Node(name(number)), &["sh", "-c", script])
        .await
        .unwrap();
    assert!(output.success(), "{script}: {output:?}");
    output.stdout
}

fn name(number: usize) -> String {
    format!("node{number}")
}
