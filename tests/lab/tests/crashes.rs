//! The agent is killed at any moment of its work and started again at once: nothing leaks, nothing stays half made, and
//! who does not depend on that work notices nothing.
//!
//! The moments are dealt over the time that the work takes undisturbed. They come from a seed, which is printed;
//! `WARREN_LAB_SEED` repeats one.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod support;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use support::{PATIENCE, assert_all_reach_all, crossed_since, lab};
use warren_lab::{ApiKind, CniCommand, Counts, Lab, LabOptions, Output, Place, PodFacts, PodOptions};

/// Kills a test; the five tests on the embedded API make fifty.
const KILLS: u32 = 10;

/// So many kills that one of them must come while the work is under way.
const MANY: u32 = 10;

/// How often a work is done undisturbed, to know how long it takes.
const UNDISTURBED: u32 = 2;

/// The node whose agent is killed.
const NODE: &str = "node1";
/// The node that comes and goes.
const PEER: &str = "node3";

/// Where a node publishes its key.
const ANNOTATION: &str = "warren-mesh.io/wireguard";

/// What the agent keeps in its state folder.
const STATE: [&str; 5] = [
    "attachments.json",
    "endpoints.json",
    "guard.json",
    "keys",
    "sysctls.json",
];

#[tokio::test]
async fn an_agent_that_is_killed_while_pods_are_attached() {
    killed(ApiKind::Embedded, &[Work::Attach], KILLS).await;
}

#[tokio::test]
async fn an_agent_that_is_killed_while_pods_are_detached() {
    killed(ApiKind::Embedded, &[Work::Detach], KILLS).await;
}

#[tokio::test]
async fn an_agent_that_is_killed_while_a_peer_leaves_and_joins() {
    killed(ApiKind::Embedded, &[Work::Peer], KILLS).await;
}

#[tokio::test]
async fn an_agent_that_is_killed_while_it_publishes() {
    killed(ApiKind::Embedded, &[Work::Publish], KILLS).await;
}

#[tokio::test]
async fn an_agent_that_is_killed_while_it_starts() {
    killed(ApiKind::Embedded, &[Work::Start], KILLS).await;
}

#[tokio::test]
async fn an_agent_that_is_killed_at_its_work_on_a_real_api_server() {
    let all = [Work::Attach, Work::Detach, Work::Peer, Work::Publish, Work::Start];
    killed(ApiKind::Real, &all, 2).await;
}

/// What the agent is killed at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    Attach,
    Detach,
    Peer,
    Publish,
    Start,
}

async fn killed(api: ApiKind, works: &[Work], kills: u32) {
    let options = LabOptions {
        api,
        ..LabOptions::default()
    };
    let Some(lab) = lab(options).await else { return };
    let trial = Trial::prepare(lab).await;
    let over = Cell::new(false);
    let drive = async {
        for work in works {
            trial.kill_at(*work, kills).await;
        }
        trial.assert_that_a_restart_changes_nothing().await;
        over.set(true);
    };
    let (here, there) = (&trial.here, &trial.there);
    let (to, fro, looks, ()) = tokio::join!(
        trial.ping_until(here, there, &over),
        trial.ping_until(there, here, &over),
        trial.look_for_the_guard_until(&over),
        drive
    );
    eprintln!("answered without a loss: {to} and {fro} echo requests; the guard was there {looks} times");
    assert!(looks > 10 && to > 50 && fro > 50, "nobody looked");
    assert_all_reach_all(&trial.lab, &trial.lab.facts().await.unwrap()).await;

    for pod in trial.pods().await {
        if pod.key != trial.here.key {
            trial.lab.pod_remove(pod.key).await.unwrap();
        }
    }
    trial.assert_sound().await;
    assert_eq!(crossed_since(&trial.lab, &Counts::default()).await.plaintext, 0);
}

/// A lab with traffic that must not stop, and a seed.
struct Trial {
    lab: Lab,
    /// A pod on the node whose agent is killed.
    here: PodFacts,
    /// One on another node.
    there: PodFacts,
    disk: PathBuf,
    seed: u64,
}

impl Trial {
    async fn prepare(lab: Lab) -> Self {
        let seed = std::env::var("WARREN_LAB_SEED").map_or_else(
            |_| RandomState::new().hash_one("a seed"),
            |text| text.parse().unwrap(),
        );
        eprintln!("WARREN_LAB_SEED={seed}");
        let here = lab.pod_add(PodOptions::new("here", NODE)).await.unwrap();
        let there = lab.pod_add(PodOptions::new("there", "node2")).await.unwrap();
        assert_all_reach_all(&lab, &lab.facts().await.unwrap()).await;
        let disk = lab.facts().await.unwrap().nodes[0].disk.clone();
        Self {
            lab,
            here,
            there,
            disk,
            seed,
        }
    }

    /// Has the agent do the work once undisturbed, and then again and again with a kill in it.
    async fn kill_at(&self, work: Work, kills: u32) {
        self.get_ready(work, kills).await;
        let mut usual = Duration::MAX;
        for n in 0..UNDISTURBED {
            let began = Instant::now();
            self.carry_out(work, n).await;
            usual = usual.min(began.elapsed());
            self.assert_sound().await;
        }
        let quiet = self.log().len();
        let mut hits = 0;
        for n in UNDISTURBED..UNDISTURBED + kills {
            let delay = usual.mul_f64(self.share(work, n));
            let done = Cell::new(false);
            let carried_out = async {
                self.carry_out(work, n).await;
                done.set(true);
            };
            let kill = async {
                // The moment is the point here; nothing is waited for.
                tokio::time::sleep(delay).await;
                let in_it = !done.get();
                self.kill_and_start().await;
                in_it
            };
            let ((), in_it) = tokio::join!(carried_out, kill);
            eprintln!(
                "{work:?} {n}: killed after {delay:?} of usually {usual:?}{}",
                if in_it { "" } else { ", when it was done" }
            );
            hits += u32::from(in_it);
            self.assert_sound().await;
        }
        // How long the work takes differs with what else the machine does. Of a few kills none may come in time; of ten,
        // none would mean that this test kills nothing at work.
        eprintln!("{hits} of {kills} kills came while the work was under way");
        assert!(
            kills < MANY || hits > 0,
            "no kill of {kills} came while the work was under way"
        );
        if work == Work::Start {
            self.assert_nothing_was_changed_since(quiet);
        }
    }

    /// A number from 0 to 1 that depends on the seed.
    fn share(&self, work: Work, n: u32) -> f64 {
        // splitmix64.
        let mut z = self.seed ^ (u64::from(n) << 8 | work as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let bits = u32::try_from((z ^ (z >> 31)) >> 32).unwrap();
        f64::from(bits) / f64::from(u32::MAX)
    }

    async fn get_ready(&self, work: Work, kills: u32) {
        match work {
            Work::Detach => {
                for n in 0..UNDISTURBED + kills {
                    self.attach(format!("detached-{n}")).await;
                }
            }
            Work::Attach | Work::Peer | Work::Publish | Work::Start => {}
        }
    }

    /// Returns when it is done, however often the agent dies meanwhile: a kubelet does not give up either.
    async fn carry_out(&self, work: Work, n: u32) {
        match work {
            Work::Attach => self.attach(format!("attached-{n}")).await,
            Work::Detach => {
                let name = format!("detached-{n}");
                patiently(&name, async || self.lab.pod_remove(name.as_str()).await).await;
            }
            Work::Peer => {
                self.have_the_peer_register_anew().await;
                patiently("the peer", async || self.assert_peer_is_reached().await).await;
            }
            Work::Publish => {
                self.have_the_annotation_be_out_of_date().await;
                patiently("the annotation", async || {
                    let paths = self.annotation().await["paths"].clone();
                    anyhow::ensure!(paths == json!(["wireguard", "vxlan"]), "{paths} are published");
                    Ok(())
                })
                .await;
            }
            Work::Start => {
                self.lab.node_kill(NODE).await.unwrap();
                // The kill may end it; who kills starts it again.
                if self.lab.node_start(NODE).await.is_err() {
                    self.wait_until_it_plans_nothing().await;
                }
            }
        }
    }

    async fn attach(&self, name: String) {
        patiently(&name, async || {
            self.lab
                .pod_add(PodOptions::new(name.as_str(), NODE))
                .await
                .map(drop)
        })
        .await;
        patiently(&name, async || {
            self.lab.pod_cni(name.as_str(), CniCommand::Check).await.map(drop)
        })
        .await;
    }

    /// Without a path that nobody takes, so that peers go on.
    async fn have_the_annotation_be_out_of_date(&self) {
        let mut annotation = self.annotation().await;
        annotation["paths"] = json!(["wireguard"]);
        let patch = json!({"metadata": {"annotations": {ANNOTATION: annotation.to_string()}}});
        let nodes: Api<Node> = Api::all(self.lab.client());
        nodes
            .patch(NODE, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .unwrap();
    }

    async fn annotation(&self) -> Value {
        let nodes: Api<Node> = Api::all(self.lab.client());
        let annotations = nodes.get(NODE).await.unwrap().metadata.annotations.unwrap();
        serde_json::from_str(&annotations[ANNOTATION]).unwrap()
    }

    async fn have_the_peer_register_anew(&self) {
        let nodes: Api<Node> = Api::all(self.lab.client());
        let old = nodes.get(PEER).await.unwrap();
        nodes.delete(PEER, &DeleteParams::default()).await.unwrap();
        let spec = old.spec.unwrap();
        let new = json!({
            "metadata": {"name": PEER, "labels": old.metadata.labels},
            "spec": {"podCIDR": spec.pod_cidr, "podCIDRs": spec.pod_cidrs},
        });
        let new: Node = serde_json::from_value(new).unwrap();
        nodes.create(&PostParams::default(), &new).await.unwrap();
        let old = old.status.unwrap();
        let status = json!({"status": {"addresses": old.addresses, "conditions": old.conditions}});
        nodes
            .patch_status(PEER, &PatchParams::default(), &Patch::Merge(status))
            .await
            .unwrap();
    }

    async fn assert_peer_is_reached(&self) -> anyhow::Result<()> {
        let output = self
            .in_node(&["warren", "status", "--local", "--output", "json"])
            .await;
        let status: Value = serde_json::from_str(&output.stdout)?;
        let agent = &status["nodes"][0]["agent"];
        let mut peers = agent["peers"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default()
            .iter();
        let reached = peers.any(|peer| peer["node"] == PEER && peer["path"] == "wireguard");
        anyhow::ensure!(reached, "{agent:#}");
        Ok(())
    }

    async fn kill_and_start(&self) {
        // Where the work is a start, the agent may not be there yet.
        patiently("an agent to kill", async || self.lab.node_kill(NODE).await).await;
        self.lab.node_start(NODE).await.unwrap();
    }

    async fn pods(&self) -> Vec<PodFacts> {
        let pods = self.lab.facts().await.unwrap().pods;
        pods.into_iter().filter(|pod| pod.node == NODE).collect()
    }

    async fn in_node(&self, argv: &[&str]) -> Output {
        self.lab.run(Place::Node(NODE.to_owned()), argv).await.unwrap()
    }

    /// Nothing is left to do, and record, links and pods tell the same.
    async fn assert_sound(&self) {
        self.wait_until_it_plans_nothing().await;
        let pods = self.pods().await;
        let containers: BTreeSet<&str> = pods.iter().map(|pod| pod.container_id.as_str()).collect();

        let stored = std::fs::read(self.disk.join("state/attachments.json")).unwrap();
        let stored: Value = serde_json::from_slice(&stored).unwrap();
        let of = |list: &str, field: &str| -> Vec<String> {
            let list = stored[list].as_array().unwrap().iter();
            list.map(|it| it[field].as_str().unwrap().to_owned()).collect()
        };
        for list in ["attachments", "allocations"] {
            let recorded = of(list, "containerId");
            assert_eq!(recorded.len(), pods.len(), "{list}: {stored:#}");
            let recorded: BTreeSet<&str> = recorded.iter().map(String::as_str).collect();
            assert_eq!(recorded, containers, "{list}");
        }
        for pod in &pods {
            let mut held = stored["allocations"].as_array().unwrap().iter();
            let held = held.find(|it| it["containerId"] == *pod.container_id).unwrap();
            let held: BTreeSet<&str> = held["addresses"]
                .as_array()
                .unwrap()
                .iter()
                .filter_map(Value::as_str)
                .collect();
            assert_eq!(
                held,
                pod.addresses.iter().map(String::as_str).collect(),
                "{}",
                pod.key
            );
        }
        let given: Vec<&String> = pods.iter().flat_map(|pod| &pod.addresses).collect();
        let distinct: BTreeSet<&String> = given.iter().copied().collect();
        assert_eq!(distinct.len(), given.len(), "an address twice: {given:?}");

        let links = self
            .in_node(&["ip", "-json", "link", "show", "type", "veth"])
            .await;
        let links: Vec<Value> = serde_json::from_str(&links.stdout).unwrap();
        let ours: Vec<&Value> = links
            .iter()
            .filter(|link| link["ifname"].as_str().unwrap().starts_with("wrn"))
            .collect();
        let names: BTreeSet<String> = ours
            .iter()
            .map(|it| it["ifname"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(names, of("attachments", "interface").into_iter().collect());
        for link in ours {
            assert!(
                link["link_netnsid"].is_u64() && link["operstate"] == "UP",
                "half a veth: {link}"
            );
        }

        let files = std::fs::read_dir(self.disk.join("state")).unwrap();
        let files: Vec<String> = files
            .map(|it| it.unwrap().file_name().into_string().unwrap())
            .collect();
        let foreign: Vec<&String> = files.iter().filter(|it| !STATE.contains(&it.as_str())).collect();
        assert!(foreign.is_empty(), "left in the state folder: {foreign:?}");
    }

    async fn wait_until_it_plans_nothing(&self) {
        patiently("a plan without steps", async || {
            let plan = self.in_node(&["warren", "plan", "--local"]).await;
            anyhow::ensure!(
                plan.success() && plan.stdout.contains("nothing to do"),
                "{plan:?}"
            );
            Ok(())
        })
        .await;
    }

    /// What is right already is adopted.
    async fn assert_that_a_restart_changes_nothing(&self) {
        let before = self.log().len();
        for _ in 0..3 {
            self.kill_and_start().await;
            self.wait_until_it_plans_nothing().await;
        }
        self.assert_nothing_was_changed_since(before);
    }

    fn assert_nothing_was_changed_since(&self, position: usize) {
        let text = &self.log()[position..];
        assert!(text.contains("starting"), "no start: {text}");
        let changed = text
            .lines()
            .find(|line| line.contains("applied") || line.contains("published"));
        assert_eq!(changed, None);
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.disk.join("agent.log")).unwrap()
    }

    /// How many of how many echo requests were answered; stops at the first that was not.
    async fn ping_until(&self, from: &PodFacts, to: &PodFacts, over: &Cell<bool>) -> usize {
        let mut answered = 0;
        while !over.get() {
            for address in &to.addresses {
                // With a deadline it goes on until so many have been answered, so a late last answer is waited for.
                let argv = ["ping", "-n", "-i", "0.02", "-w", "10", "-c", "40", address];
                let output = self.lab.run(Place::Pod(from.key.clone()), &argv).await.unwrap();
                let sequence = |line: &str| line.split("icmp_seq=").nth(1)?.split(' ').next()?.parse().ok();
                let seen: BTreeSet<u32> = output.stdout.lines().filter_map(sequence).collect();
                let lost: Vec<u32> = (1..=40).filter(|n| !seen.contains(n)).collect();
                if !lost.is_empty() {
                    panic!(
                        "{address} did not answer {lost:?}; dropped by the guards: {}",
                        self.drops().await
                    );
                }
                answered += 40;
            }
        }
        answered
    }

    /// What the guards of both pods' nodes have dropped.
    async fn drops(&self) -> String {
        let counters = ["nft", "list", "counters", "table", "inet", "warren"];
        let mut drops = String::new();
        for pod in [&self.here, &self.there] {
            let output = self
                .lab
                .run(Place::Node(pod.node.clone()), &counters)
                .await
                .unwrap();
            drops += &output.stdout;
        }
        drops
    }

    /// How often it was looked for, and found.
    async fn look_for_the_guard_until(&self, over: &Cell<bool>) -> usize {
        let mut looks = 0;
        while !over.get() {
            let table = self
                .in_node(&["nft", "--terse", "list", "table", "inet", "warren"])
                .await;
            assert!(table.success(), "the guard is not there: {table:?}");
            assert!(
                table.stdout.contains("counter name \"plaintext-out\" drop"),
                "the guard is empty: {table:?}"
            );
            looks += 1;
        }
        looks
    }
}

/// Tries until it succeeds.
async fn patiently(what: &str, attempt: impl AsyncFn() -> anyhow::Result<()>) {
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = attempt().await {
        assert!(Instant::now() < deadline, "{what}: {error:#}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
