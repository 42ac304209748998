//! Warren under a container runtime as distributions ship it: containerd finds the configuration that the agent wrote
//! and calls `warren-cni` by it.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{PATIENCE, crossed_since, lab, skip};
use warren_lab::{Counts, Lab, LabOptions, NodeFacts, Output, Place, PodOptions};

/// What the test's image is called; ctr wants full names.
const IMAGE: &str = "docker.io/warren-lab/tools:1";

/// The node that has a runtime.
const NODE: &str = "node1";

/// How long a container may run.
const CONTAINER: Duration = Duration::from_secs(120);

#[tokio::test]
async fn a_container_of_a_stock_containerd_is_a_pod_like_any_other() {
    // Before the lab, so that it is dropped after: what is in them must have ended.
    let groups = ControlGroups::new();
    let Some(lab) = lab_with_runtime().await else {
        return;
    };
    let far = lab.pod_add(PodOptions::new("far", "node2")).await.unwrap();

    let container = run(&lab, &groups, "near", &["sleep", "infinity"]);
    let checks = async {
        running(&lab, "near").await;
        let near = addresses(&lab, "near").await;
        let node = node(&lab).await;
        assert_eq!(
            near.len(),
            node.pod_cidrs.len(),
            "one address of each family: {near:?}"
        );
        for (address, cidr) in near.iter().zip(&node.pod_cidrs) {
            assert!(
                cidr.contains(&address.parse::<std::net::IpAddr>().unwrap()),
                "{address} is not in {cidr}"
            );
        }
        assert_eq!(attachments(&node).len(), 1);

        for address in &far.addresses {
            let answer = exec(&lab, "near", &ping(address)).await;
            assert!(answer.success(), "container to {address}: {answer:?}");
        }
        for address in &near {
            let answer = lab.run(Place::Pod("far".into()), &ping(address)).await.unwrap();
            assert!(answer.success(), "pod to {address} of the container: {answer:?}");
        }
        ctr(&lab, &["task", "kill", "--signal", "KILL", "near"]).await;
    };
    let (ended, ()) = tokio::join!(container, checks);
    assert_eq!(ended.code, 128 + 9, "ended as it was told to: {ended:?}");

    let node = node(&lab).await;
    assert_eq!(
        attachments(&node),
        Vec::<Value>::new(),
        "its addresses are free again"
    );
    let links = lab
        .run(Place::Node(NODE.to_owned()), &["ip", "-brief", "link"])
        .await
        .unwrap();
    assert!(
        links.success() && !links.stdout.contains("wrn"),
        "its link is gone: {links:?}"
    );
    let crossed = crossed_since(&lab, &Counts::default()).await;
    assert_eq!(crossed.plaintext, 0, "{crossed:?}");
    assert!(crossed.wireguard_data > 0, "{crossed:?}");
}

#[tokio::test]
async fn a_container_is_refused_while_no_agent_runs_and_leaves_nothing() {
    let groups = ControlGroups::new();
    let Some(lab) = lab_with_runtime().await else {
        return;
    };
    lab.node_stop(NODE).await.unwrap();
    let refused = run(&lab, &groups, "early", &["ip", "address"]).await;
    assert!(!refused.success(), "{refused:?}");
    assert!(
        refused.stderr.contains("warren-agent"),
        "it says who is not there: {refused:?}"
    );

    lab.node_start(NODE).await.unwrap();
    assert_eq!(attachments(&node(&lab).await), Vec::<Value>::new());
    let second = run(
        &lab,
        &groups,
        "second",
        &["ip", "-brief", "address", "show", "eth0"],
    )
    .await;
    assert!(second.success() && second.stdout.contains("UP"), "{second:?}");
    assert_eq!(
        attachments(&node(&lab).await),
        Vec::<Value>::new(),
        "a container that ends by itself"
    );
}

/// A lab of two nodes, the first with containerd and an image; `None` if this machine cannot have it.
async fn lab_with_runtime() -> Option<Lab> {
    for (program, package) in [
        ("containerd", "containerd"),
        ("ctr", "containerd"),
        ("runc", "runc"),
    ] {
        let found = Command::new("sh")
            .args(["-c", "PATH=$PATH:/usr/sbin:/sbin; command -v \"$0\"", program])
            .output();
        if !found.unwrap().status.success() {
            return skip(&format!(
                "there is no {program} here; Debian's package {package} has it"
            ));
        }
    }
    let lab = lab(LabOptions {
        nodes: 2,
        ..LabOptions::default()
    })
    .await?;
    if lab.facts().await.unwrap().rootless {
        return skip("a container runtime needs root, for the control groups of its containers");
    }
    script(&lab, include_str!("runtime/containerd.sh"), &[]).await;
    let deadline = Instant::now() + PATIENCE;
    while !try_ctr(&lab, &["version"]).await.success() {
        let log = lab
            .run(Place::Node(NODE.to_owned()), &["tail", "/run/runtime/log"])
            .await
            .unwrap();
        assert!(Instant::now() < deadline, "containerd does not answer: {log:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    script(&lab, include_str!("runtime/image.sh"), &[IMAGE]).await;
    Some(lab)
}

/// Runs a container to its end, on a network by CNI.
async fn run(lab: &Lab, groups: &ControlGroups, name: &str, program: &[&str]) -> Output {
    let group = format!("/{}/{name}", groups.name);
    let options = ["ctr", "run", "--rm", "--cni", "--cgroup", &group, IMAGE, name];
    in_runtime(lab, &[&options, program].concat(), "", CONTAINER).await
}

/// Runs a program in a container.
async fn exec(lab: &Lab, container: &str, program: &[&str]) -> Output {
    // Each process in a container needs a name of its own.
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let id = format!("exec{}", COUNT.fetch_add(1, Ordering::Relaxed));
    try_ctr(
        lab,
        &[&["task", "exec", "--exec-id", &id, container], program].concat(),
    )
    .await
}

/// Waits until a container runs, which containerd lets it once its network is made.
async fn running(lab: &Lab, container: &str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let tasks = ctr(lab, &["task", "list"]).await;
        if tasks
            .lines()
            .any(|line| line.starts_with(container) && line.ends_with("RUNNING"))
        {
            return;
        }
        assert!(Instant::now() < deadline, "the container does not run: {tasks}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A container's addresses but the link's own, IPv4 first, as the container sees them.
async fn addresses(lab: &Lab, container: &str) -> Vec<String> {
    let answer = exec(
        lab,
        container,
        &["ip", "-json", "address", "show", "dev", "eth0", "scope", "global"],
    )
    .await;
    assert!(answer.success(), "{answer:?}");
    let links: Value = serde_json::from_str(&answer.stdout).unwrap();
    let link = links
        .as_array()
        .unwrap()
        .iter()
        .find(|it| it["ifname"] == "eth0")
        .unwrap();
    // What the filter leaves out is an empty object.
    let mut all: Vec<_> = link["addr_info"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|it| it["local"].is_string())
        .collect();
    all.sort_by_key(|it| it["family"] != "inet");
    all.iter()
        .map(|it| it["local"].as_str().unwrap().to_owned())
        .collect()
}

/// Asks once; the first to a peer waits for a handshake.
fn ping(address: &str) -> [&str; 9] {
    ["ping", "-n", "-q", "-c", "1", "-w", "10", "-i0.2", address]
}

/// What the node's agent has on disk of containers that have addresses.
fn attachments(node: &NodeFacts) -> Vec<Value> {
    let path = node.disk.join("state/attachments.json");
    // Written with the first of them.
    if !path.exists() {
        return Vec::new();
    }
    let file: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    file["attachments"].as_array().unwrap().clone()
}

async fn node(lab: &Lab) -> NodeFacts {
    let nodes = lab.facts().await.unwrap().nodes;
    nodes.into_iter().find(|it| it.name == NODE).unwrap()
}

/// What a command of ctr says.
async fn ctr(lab: &Lab, arguments: &[&str]) -> String {
    let output = try_ctr(lab, arguments).await;
    assert!(output.success(), "ctr {arguments:?}: {output:?}");
    output.stdout
}

async fn try_ctr(lab: &Lab, arguments: &[&str]) -> Output {
    in_runtime(lab, &[&["ctr"], arguments].concat(), "", CONTAINER).await
}

async fn script(lab: &Lab, text: &str, arguments: &[&str]) {
    let output = in_runtime(lab, &[&["sh", "-eu", "-s"], arguments].concat(), text, CONTAINER).await;
    assert!(output.success(), "{output:?}");
}

async fn in_runtime(lab: &Lab, argv: &[&str], stdin: &str, limit: Duration) -> Output {
    let env = [("CONTAINERD_ADDRESS", "/run/runtime/containerd.sock")];
    lab.run_with(Place::Node(NODE.to_owned()), argv, &env, stdin, limit)
        .await
        .unwrap()
}

/// The control groups of one test's containers. These are the machine's, the one thing that a lab does not take with it:
/// runc removes a container's own, and this what is above it, or both when a test has failed.
struct ControlGroups {
    name: String,
}

impl ControlGroups {
    fn new() -> Self {
        let thread = std::thread::current();
        let test = thread.name().unwrap_or_default().replace("::", "-");
        Self {
            name: format!("warren-lab-{}-{test}", std::process::id()),
        }
    }

    /// Where they are: in version 2 at the top, in version 1 below each controller.
    fn found(&self) -> Vec<PathBuf> {
        let root = Path::new("/sys/fs/cgroup");
        let hierarchies = fs::read_dir(root)
            .into_iter()
            .flatten()
            .flatten()
            .map(|it| it.path());
        let all = hierarchies.chain([root.to_owned()]).map(|it| it.join(&self.name));
        all.filter(|it| it.is_dir()).collect()
    }
}

impl Drop for ControlGroups {
    fn drop(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = self.found();
            for group in &left {
                let containers = fs::read_dir(group)
                    .into_iter()
                    .flatten()
                    .flatten()
                    .map(|it| it.path());
                for container in containers.filter(|it| it.is_dir()) {
                    // Refused until the last process in it is gone.
                    let _ = fs::remove_dir(container);
                }
                let _ = fs::remove_dir(group);
            }
            if left.is_empty() || Instant::now() > deadline {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
