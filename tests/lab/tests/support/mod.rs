//! What the suites share: a lab or a reason, and waiting for a condition.

#![allow(dead_code, reason = "each suite uses a part")]

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use warren_lab::reach::{self, Reached};
use warren_lab::{ApiKind, Counts, Facts, Lab, LabOptions, Place, PodOptions};

/// How long a cluster may take to get where it should be: also where the machine is an emulated one.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Brings a lab up; `None` if this machine cannot have it, which is an error under `WARREN_REQUIRE=all`.
pub(crate) async fn lab(options: LabOptions) -> Option<Lab> {
    if options.api == ApiKind::Real && std::env::var_os("KUBEBUILDER_ASSETS").is_none() {
        return skip("KUBEBUILDER_ASSETS is not set; hack/real-api.sh prints a value");
    }
    if let Some(obstacle) = warren_lab::obstacle().unwrap() {
        return skip(&obstacle);
    }
    Some(Lab::up(options).await.unwrap_or_else(|error| panic!("{error:#}")))
}

/// Says why a test is not done. Returns always `None`.
pub(crate) fn skip<T>(reason: &str) -> Option<T> {
    assert!(
        std::env::var("WARREN_REQUIRE").as_deref() != Ok("all"),
        "a skip is a failure here: {reason}"
    );
    eprintln!("skipped: {reason}");
    None
}

/// Adds two pods to each node and tells what there is then.
pub(crate) async fn two_pods_a_node(lab: &Lab) -> Facts {
    for node in lab.facts().await.unwrap().nodes {
        for prefix in ["a", "b"] {
            let name = format!("{prefix}-{}", node.name);
            lab.pod_add(PodOptions::new(name.as_str(), &node.name))
                .await
                .unwrap();
        }
    }
    lab.facts().await.unwrap()
}

/// Tries every pod pair and every node against every other node's pods, in each family.
pub(crate) async fn assert_all_reach_all(lab: &Lab, facts: &Facts) {
    let (pods, hosts) = (reach::pod_pairs(facts), reach::host_pairs(facts));
    assert!(!pods.is_empty() && !hosts.is_empty());
    let Reached { failures, .. } = reach::try_all(lab, [pods, hosts].concat()).await;
    assert!(failures.is_empty(), "{failures:#?}");
}

/// Waits until there is an Event of that reason about that object, called as kubectl does: `node/node2`.
pub(crate) async fn until_told(lab: &Lab, object: &str, reason: &str) {
    let kubeconfig = lab.kubeconfig_inside();
    let argv = [
        "kubectl",
        "--kubeconfig",
        &kubeconfig,
        "get",
        "events",
        "--all-namespaces",
    ];
    until("the Event", async || {
        let events = lab.run(Place::Root, &argv).await.unwrap().stdout;
        let mut events = events.lines();
        events.any(|event| event.contains(object) && event.contains(reason))
    })
    .await;
}

/// What `warren status` says, once it is what is wanted; the last it said, otherwise.
pub(crate) async fn status_when(lab: &Lab, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = status(lab).await;
        if wanted(&status) {
            return status;
        }
        assert!(
            Instant::now() < deadline,
            "{what} did not come about in {PATIENCE:?}: {status:#}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What `warren status` says now.
pub(crate) async fn status(lab: &Lab) -> Value {
    let output = lab
        .warren(&[
            "status",
            "--output",
            "json",
            "--kubeconfig",
            &lab.kubeconfig_inside(),
        ])
        .await
        .unwrap();
    assert!(output.success(), "{output:?}");
    serde_json::from_str(&output.stdout).unwrap()
}

/// The peers of all nodes in a status.
pub(crate) fn peers(status: &Value) -> Vec<&Value> {
    status["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|node| {
            node["agent"]["peers"]
                .as_array()
                .map(Vec::as_slice)
                .unwrap_or_default()
        })
        .collect()
}

/// What crossed the underlay since `earlier`.
pub(crate) async fn crossed_since(lab: &Lab, earlier: &Counts) -> Counts {
    let since = lab.counts().await.unwrap().since(earlier);
    assert_eq!(since.missed, 0, "the capture is incomplete");
    since
}

/// The process ids of `warren-wg` on a node.
pub(crate) async fn devices(lab: &Lab, node: &str) -> Vec<String> {
    let script = "for p in /proc/[0-9]*; do [ \"$(cat $p/comm 2>/dev/null)\" = warren-wg ] && \
                  [ \"$(readlink $p/ns/net)\" = \"$(readlink /proc/self/ns/net)\" ] && echo ${p#/proc/}; done; true";
    let output = lab
        .run(Place::Node(node.to_owned()), &["sh", "-c", script])
        .await
        .unwrap();
    assert!(output.success(), "{output:?}");
    output.stdout.lines().map(str::to_owned).collect()
}

/// The interfaces of a node's lanes, each with its number, which no later interface gets: where these are the same, the devices
/// are, of whatever kind.
pub(crate) async fn lanes(lab: &Lab, node: &str) -> Vec<String> {
    let argv = ["ip", "-oneline", "link", "show"];
    let output = lab.run(Place::Node(node.to_owned()), &argv).await.unwrap();
    assert!(output.success(), "{output:?}");
    let names = output.stdout.lines().filter_map(|line| {
        let (number, rest) = line.split_once(": ")?;
        let (name, _) = rest.split_once(':')?;
        ["warren0", "warren1"]
            .contains(&name)
            .then(|| format!("{number} {name}"))
    });
    names.collect()
}

/// Sends echo requests, fifty a second, and tells how many of so many were sent and how many of those answered. Ends after
/// twice the time that takes and 3 s, whatever is answered.
pub(crate) async fn ping(lab: &Lab, from: &Place, to: &str, count: u32) -> (u32, u32) {
    let deadline = 3 + count / 25;
    let patience = Duration::from_secs(u64::from(deadline) + 10);
    let (number, deadline) = (count.to_string(), deadline.to_string());
    // Without a deadline of its own, ping waits for a late last answer only as long as two of the others took. With one it
    // goes on until so many were answered, and sends more than that where an answer is late: those do not count.
    let flow = ping_flow();
    if count > 1 {
        ping_first(lab, from, to, &flow).await;
    }
    let argv = [
        "ping", "-n", "-e", &flow, "-i", "0.02", "-w", &deadline, "-c", &number, to,
    ];
    let output = lab.run_for(from.clone(), &argv, patience).await.unwrap();
    let line = output
        .stdout
        .lines()
        .find(|it| it.contains("packets transmitted"));
    let line = line.unwrap_or_else(|| panic!("{output:?}"));
    let (sent, _) = line.split_once(' ').unwrap();
    let sequence = |line: &str| line.split("icmp_seq=").nth(1)?.split(' ').next()?.parse().ok();
    let answers = output.stdout.lines().filter(|line| line.contains(" bytes from "));
    let answered: BTreeSet<u32> = answers
        .filter_map(sequence)
        .filter(|number| *number <= count)
        .collect();
    (
        count.min(sent.parse().unwrap()),
        u32::try_from(answered.len()).unwrap(),
    )
}

/// An identifier for echo requests, so that several runs of ping are one flow to connection tracking.
pub(crate) fn ping_flow() -> String {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed).to_string()
}

/// Sends the first echo request of a flow, alone; it need not be answered. Connection tracking drops a flow's second packet if it
/// comes before it is done with the first, as it does where a virtual machine's processor stands still for a moment: it knows how
/// to resolve such a clash for UDP, not for ICMP. What is counted is about other losses.
pub(crate) async fn ping_first(lab: &Lab, from: &Place, to: &str, flow: &str) {
    let argv = ["ping", "-n", "-q", "-e", flow, "-c", "1", "-w", "1", to];
    lab.run(from.clone(), &argv).await.unwrap();
}

/// Asks a node's agent on its admin port, from the lab's root namespace; `None` while it does not answer.
pub(crate) async fn ask_agent(lab: &Lab, node: &str, path: &str) -> Option<String> {
    let facts = lab.facts().await.unwrap();
    let node = facts.nodes.iter().find(|it| it.name == node).unwrap();
    let script = format!(
        "exec 3<>/dev/tcp/{}/9586 && printf 'GET {path} HTTP/1.0\\r\\n\\r\\n' >&3 && cat <&3",
        node.addresses[0].addr()
    );
    let output = lab.run(Place::Root, &["bash", "-c", &script]).await.unwrap();
    let (_, body) = output.stdout.split_once("\r\n\r\n")?;
    Some(body.to_owned())
}

/// One series of a node's agent, such as `warren_watch_failing{kind="nodes"}`.
pub(crate) async fn metric(lab: &Lab, node: &str, series: &str) -> Option<u64> {
    let metrics = ask_agent(lab, node, "/metrics").await?;
    let line = metrics.lines().find(|it| it.starts_with(series))?;
    line.rsplit_once(' ')?.1.parse().ok()
}

/// Whether processors are emulated, as `hack/vm.sh` says: what they do takes some ten times as long.
pub(crate) fn emulated() -> bool {
    std::env::var_os("WARREN_EMULATED").is_some()
}

/// Waits for a condition.
pub(crate) async fn until(what: &str, wanted: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !wanted().await {
        assert!(
            Instant::now() < deadline,
            "{what} did not come about in {PATIENCE:?}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The place of a pod `from` on the first node, and the addresses, IPv4 and IPv6, of a pod `to` on the second.
pub(crate) async fn a_pod_on_each_of_two_nodes(lab: &Lab) -> (Place, [String; 2]) {
    lab.pod_add(PodOptions::new("from", "node1")).await.unwrap();
    let to = lab.pod_add(PodOptions::new("to", "node2")).await.unwrap();
    (Place::Pod("from".into()), to.addresses.try_into().unwrap())
}
