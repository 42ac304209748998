//! Who reaches whom: pings between pods and from nodes to pods, many at a time.

use futures::stream::{self, StreamExt};

use crate::control::Place;
use crate::facts::{Facts, PodFacts};
use crate::lab::Lab;

/// How many pings run at a time.
const CONCURRENCY: usize = 12;

/// Seconds a ping may take. The first to a peer waits for a handshake, which is repeated after five.
const PATIENCE: &str = "8";

/// One connection to try: it works if every address answers.
#[derive(Debug, Clone)]
pub struct Pair {
    /// Where the pings start.
    pub from: Place,
    /// The pod they go to.
    pub to: PodFacts,
}

/// How connections were found to be.
#[derive(Debug, Default)]
pub struct Reached {
    /// How many were tried.
    pub pairs: usize,
    /// What did not work, each as a sentence.
    pub failures: Vec<String>,
}

impl Reached {
    /// How many worked in every family.
    pub fn reachable(&self) -> usize {
        self.pairs - self.failures.len()
    }
}

/// Every pod to every other.
pub fn pod_pairs(facts: &Facts) -> Vec<Pair> {
    let pairs = facts
        .pods
        .iter()
        .flat_map(|from| facts.pods.iter().map(move |to| (from, to)));
    pairs
        .filter(|(from, to)| from.key != to.key)
        .map(|(from, to)| Pair {
            from: Place::Pod(from.key.clone()),
            to: to.clone(),
        })
        .collect()
}

/// Every node to every pod of another node.
pub fn host_pairs(facts: &Facts) -> Vec<Pair> {
    let pairs = facts
        .nodes
        .iter()
        .flat_map(|from| facts.pods.iter().map(move |to| (from, to)));
    pairs
        .filter(|(from, to)| from.name != to.node)
        .map(|(from, to)| Pair {
            from: Place::Node(from.name.clone()),
            to: to.clone(),
        })
        .collect()
}

/// Tries all.
pub async fn try_all(lab: &Lab, pairs: Vec<Pair>) -> Reached {
    let count = pairs.len();
    let failures = stream::iter(pairs)
        .map(|pair| async move { try_one(lab, &pair).await.err() })
        .buffer_unordered(CONCURRENCY)
        .filter_map(std::future::ready)
        .collect()
        .await;
    Reached {
        pairs: count,
        failures,
    }
}

async fn try_one(lab: &Lab, pair: &Pair) -> Result<(), String> {
    let from = match &pair.from {
        Place::Root => "the router".to_owned(),
        Place::Node(name) => name.clone(),
        Place::Pod(key) => key.name.clone(),
    };
    for address in &pair.to.addresses {
        // One answer is enough; it is asked for five times a second.
        let argv = [
            "ping", "-n", "-q", "-c", "1", "-i", "0.2", "-w", PATIENCE, address,
        ];
        let to = &pair.to.key.name;
        match lab.run(pair.from.clone(), &argv).await {
            Ok(output) if output.success() => {}
            Ok(output) => {
                let words = if output.stderr.is_empty() {
                    &output.stdout
                } else {
                    &output.stderr
                };
                let last = words.trim().lines().last().unwrap_or_default();
                return Err(format!("{from} does not reach {to} at {address}: {last}"));
            }
            Err(error) => return Err(format!("{from} to {to} at {address}: {error:#}")),
        }
    }
    Ok(())
}
