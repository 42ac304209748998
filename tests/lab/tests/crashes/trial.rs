//! A lab, the moments of the kills in it, and the kills.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use warren_lab::{Lab, Output, Place, PodFacts, PodOptions};

use crate::support::{PATIENCE, assert_all_reach_all};
use crate::work::Work;

/// So many kills that one of them must come while the work is under way.
const MANY: u32 = 10;

/// How often a work is done undisturbed, to know how long it takes.
pub(crate) const UNDISTURBED: u32 = 2;

/// The node whose agent is killed.
pub(crate) const NODE: &str = "node1";

/// A lab with traffic that must not stop, and a seed.
pub(crate) struct Trial {
    pub(crate) lab: Lab,
    /// A pod on the node whose agent is killed.
    pub(crate) here: PodFacts,
    /// One on another node.
    pub(crate) there: PodFacts,
    /// Of the node whose agent is killed.
    pub(crate) disk: PathBuf,
    seed: u64,
}

impl Trial {
    pub(crate) async fn prepare(lab: Lab) -> Self {
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
    pub(crate) async fn kill_at(&self, work: Work, kills: u32) {
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
    pub(crate) fn share(&self, work: Work, n: u32) -> f64 {
        // splitmix64.
        let mut z = self.seed ^ (u64::from(n) << 8 | work as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let bits = u32::try_from((z ^ (z >> 31)) >> 32).unwrap();
        f64::from(bits) / f64::from(u32::MAX)
    }

    pub(crate) async fn kill_and_start(&self) {
        // Where the work is a start, the agent may not be there yet.
        patiently("an agent to kill", async || self.lab.node_kill(NODE).await).await;
        self.lab.node_start(NODE).await.unwrap();
    }

    pub(crate) async fn pods(&self) -> Vec<PodFacts> {
        let pods = self.lab.facts().await.unwrap().pods;
        pods.into_iter().filter(|pod| pod.node == NODE).collect()
    }

    pub(crate) async fn in_node(&self, argv: &[&str]) -> Output {
        self.lab.run(Place::Node(NODE.to_owned()), argv).await.unwrap()
    }

    /// What is right already is adopted.
    pub(crate) async fn assert_that_a_restart_changes_nothing(&self) {
        let before = self.log().len();
        for _ in 0..3 {
            self.kill_and_start().await;
            self.wait_until_it_plans_nothing().await;
        }
        self.assert_nothing_was_changed_since(before);
    }

    pub(crate) fn assert_nothing_was_changed_since(&self, position: usize) {
        let text = &self.log()[position..];
        assert!(text.contains("starting"), "no start: {text}");
        let changed = text
            .lines()
            .find(|line| line.contains("applied") || line.contains("published"));
        assert_eq!(changed, None);
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.disk.join("agent.log")).unwrap()
    }
}

/// Tries until it succeeds.
pub(crate) async fn patiently(what: &str, attempt: impl AsyncFn() -> anyhow::Result<()>) {
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = attempt().await {
        assert!(Instant::now() < deadline, "{what}: {error:#}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
