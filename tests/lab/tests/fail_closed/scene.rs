//! Two nodes with a pod each, and traffic between all of them that never stops.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use futures::future::{join_all, try_join_all};
use warren_lab::{Counts, Lab, Output, Place, PodOptions, reach};

use crate::support::{assert_all_reach_all, crossed_since, until};

const TRAFFIC: &str = include_str!("traffic.sh");

/// Rounds that each sender makes during a fault, twenty milliseconds or more each.
const ROUNDS: u64 = 15;

/// The lab, and what is sent in it: by each pod and each node to the pod of the other node, in both families.
pub(crate) struct Scene {
    pub(crate) lab: Lab,
    /// Addresses of the pods on node1 and node2, IPv4 first.
    pub(crate) pods: [Vec<String>; 2],
    senders: Vec<Sender>,
}

impl Scene {
    /// Waits until all reach all, and then has them send.
    pub(crate) async fn new(lab: Lab) -> Self {
        let add = async |name: &str, node: &str| {
            let pod = lab.pod_add(PodOptions::new(name, node)).await.unwrap();
            pod.addresses
        };
        let pods = [add("one", "node1").await, add("two", "node2").await];
        assert_all_reach_all(&lab, &lab.facts().await.unwrap()).await;
        let mut scene = Self {
            lab,
            pods,
            senders: Vec::new(),
        };
        for (pod, node, to) in [("one", "node1", 1), ("two", "node2", 0)] {
            for from in [Place::Pod(pod.into()), Place::Node(node.to_owned())] {
                let sender = Sender::start(&scene.lab, from, &scene.pods[to]).await;
                scene.senders.push(sender);
            }
        }
        scene.keep_sending().await;
        let crossed = crossed_since(&scene.lab, &Counts::default()).await;
        assert!(crossed.wireguard_data > 0, "{crossed:?}");
        scene.assert_sealed("before any fault").await;
        scene
    }

    /// Waits until everybody has sent a number of times more, whatever became of it.
    pub(crate) async fn keep_sending(&self) {
        join_all(self.senders.iter().map(|sender| sender.keeps_sending(ROUNDS))).await;
    }

    /// That nothing a pod sends or is sent was ever to be read on the underlay, from before the first agent until now, and
    /// that everybody has sent meanwhile.
    pub(crate) async fn assert_sealed(&self, when: &str) {
        self.keep_sending().await;
        let crossed = crossed_since(&self.lab, &Counts::default()).await;
        assert_eq!(crossed.plaintext, 0, "{when}: {crossed:?}");
    }

    /// Waits until the guard of a node has dropped more for one of these reasons than `before`.
    pub(crate) async fn dropped_more(&self, node: &str, reason: &str, before: u64) {
        until(&format!("{reason} on {node} to be counted"), async || {
            self.drops(node, reason).await > before
        })
        .await;
    }

    /// How many packets a node's guard has dropped for a reason, asked of the kernel: there may be no agent.
    pub(crate) async fn drops(&self, node: &str, reason: &str) -> u64 {
        let counter = ["nft", "list", "counter", "inet", "warren", reason];
        let output = self.on(node, &counter).await;
        let mut words = output.stdout.split_whitespace().skip_while(|it| *it != "packets");
        words.nth(1).unwrap().parse().unwrap()
    }

    /// Waits until every pod and node reaches the other node's pod again.
    pub(crate) async fn healed(&self) {
        let facts = self.lab.facts().await.unwrap();
        until("all to reach all again", async || {
            let pairs = [reach::pod_pairs(&facts), reach::host_pairs(&facts)].concat();
            reach::try_all(&self.lab, pairs).await.failures.is_empty()
        })
        .await;
    }

    /// Runs a command line on a node that must succeed.
    pub(crate) async fn sh(&self, node: &str, script: &str) -> Output {
        self.on(node, &["bash", "-c", script]).await
    }

    async fn on(&self, node: &str, argv: &[&str]) -> Output {
        let output = self.lab.run(Place::Node(node.to_owned()), argv).await.unwrap();
        assert!(output.success(), "{argv:?}: {output:?}");
        output
    }

    /// Ends the agents under traffic, looks once more, and then ends the traffic.
    pub(crate) async fn end(self) {
        let agents = ["node1", "node2"].map(|node| self.lab.node_stop(node));
        try_join_all(agents).await.unwrap();
        self.assert_sealed("after the last agent is gone").await;
        self.senders.into_iter().for_each(Sender::stop);
    }
}

/// One place that sends to some addresses. The lab's end is its end, if nothing else is.
pub(crate) struct Sender {
    go: PathBuf,
    count: PathBuf,
}

impl Sender {
    pub(crate) async fn start(lab: &Lab, from: Place, to: &[String]) -> Self {
        // One that was told to stop must not find another's file in place of its own.
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let file = |what: &str| lab.dir().join(format!("traffic-{number}.{what}"));
        let (go, count) = (file("go"), file("count"));
        std::fs::write(&go, "").unwrap();
        std::fs::write(&count, "0").unwrap();
        let in_background = "bash -c \"$@\" > /dev/null 2>&1 < /dev/null &";
        let mut argv = vec!["bash", "-c", in_background, "start", TRAFFIC, "traffic.sh"];
        argv.extend([go.to_str().unwrap(), count.to_str().unwrap()]);
        argv.extend(to.iter().map(String::as_str));
        let started = lab.run(from, &argv).await.unwrap();
        assert!(started.success(), "{started:?}");
        Self { go, count }
    }

    /// How often it has sent to each address.
    fn rounds(&self) -> u64 {
        let text = std::fs::read_to_string(&self.count).unwrap();
        // Empty while it is being written.
        text.trim().parse().unwrap_or_default()
    }

    /// Waits until it has sent so many times more.
    pub(crate) async fn keeps_sending(&self, rounds: u64) {
        let before = self.rounds();
        until(&format!("{} to grow", self.count.display()), async || {
            self.rounds() >= before + rounds
        })
        .await;
    }

    pub(crate) fn stop(self) {
        std::fs::remove_file(&self.go).unwrap();
    }
}
