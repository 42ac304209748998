//! What happens while keys are rotated, and what is lost then.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Context;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::{begin, finished, finished_without, keys_of, published_when};
use crate::lab::Lab;
use crate::options::LabOptions;
use crate::pod::PodOptions;
use crate::switch::{self, Change, RATE};
use crate::tally::{Tally, tally_during};

/// The last node of five: the one that joins, leaves or is not reached.
pub const LAST: &str = "node5";

/// How many agents are killed, one after the other.
const KILLS: usize = 10;

/// For how long the API fails and works, in turn.
const FLAP: Duration = Duration::from_millis(900);

/// What `--rotation-grace` is in [`lab_for`], seconds: nobody has to see a minute pass.
const GRACE: &str = "8";

/// What happens while keys are rotated.
#[derive(Debug, Clone)]
pub enum Case {
    /// Keys are not rotated: what is lost without.
    Nothing,
    /// Nothing else.
    All,
    /// Only this node's key is renewed.
    One(&'static str),
    /// So many rotations are asked for at once.
    Several(u64),
    /// Agents are killed and started, which ones this seed decides.
    Killed(u64),
    /// The API fails requests and breaks watches off, comes back, and does it again.
    ApiFlaps,
    /// How nodes reach each other is changed when the rotation has come that far.
    Changed(Moment, Change),
    /// The last node starts its agent for the first time.
    Joins,
    /// The last node is cut off and not ready, until the others have finished.
    Unreachable,
    /// The last node is deleted.
    Leaves,
}

/// How far a rotation has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Some node has published its new key.
    Published,
    /// Some node has settled.
    Settled,
}

/// A case and what it is called.
pub type NamedCase = (&'static str, Case);

impl Case {
    /// Whether all that pods send is encrypted meanwhile.
    pub fn is_encrypted(&self) -> bool {
        !matches!(self, Self::Changed(..))
    }
}

/// The cases for five nodes that each have a pod, encryption on.
pub fn cases() -> Vec<NamedCase> {
    vec![
        ("no rotation", Case::Nothing),
        ("all keys", Case::All),
        ("one node's key", Case::One("node2")),
        ("three in a row", Case::Several(3)),
        ("agents are killed", Case::Killed(6)),
        ("the API flaps", Case::ApiFlaps),
    ]
}

/// The same, where paths are changed in the midst: encryption, off and on again.
pub fn cases_of_encryption() -> Vec<NamedCase> {
    let off = || Change::Spec(switch::in_the_clear());
    let on = || Change::Spec(json!({}));
    let case = |moment, change| Case::Changed(moment, change);
    vec![
        ("encryption is turned off, early", case(Moment::Published, off())),
        ("encryption is turned on, early", case(Moment::Published, on())),
        ("encryption is turned off, late", case(Moment::Settled, off())),
        ("encryption is turned on, late", case(Moment::Settled, on())),
    ]
}

/// The same: the fallback, and a node that needs it for a while.
pub fn cases_of_fallback() -> Vec<NamedCase> {
    let case = |change| Case::Changed(Moment::Published, change);
    let fallback = Change::Spec(json!({"fallback": "vxlan"}));
    vec![
        ("a fallback is allowed", case(fallback)),
        ("a node loses WireGuard", case(Change::Wireguard("node4", "none"))),
        ("a node gains WireGuard", case(Change::Wireguard("node4", "auto"))),
    ]
}

/// The cases for five nodes of which all but the last have a pod, and where the last has no agent yet.
pub fn cases_of_the_last() -> Vec<NamedCase> {
    vec![
        ("a node joins", Case::Joins),
        ("a node is not reached", Case::Unreachable),
        ("a node leaves", Case::Leaves),
    ]
}

/// Five nodes and a Mesh for [`cases`], or for [`cases_of_the_last`].
pub async fn lab_for(last: bool) -> anyhow::Result<Lab> {
    let environment = BTreeMap::from([("WARREN_ROTATION_GRACE".to_owned(), GRACE.to_owned())]);
    let options = LabOptions {
        nodes: 5,
        agents: !last,
        environment,
        ..LabOptions::default()
    };
    let lab = Lab::up(options).await?;
    for node in lab.facts().await?.nodes {
        if last && node.name == LAST {
            continue;
        }
        if last {
            lab.node_start(&node.name).await?;
        }
        let name = format!("on-{}", node.name);
        lab.pod_add(PodOptions::new(name.as_str(), &node.name)).await?;
    }
    switch::begin_with(&lab, &json!({})).await?;
    Ok(lab)
}

/// Rotates while all pods send to each other and the case happens. Gives what was lost and how long the rotation took.
pub async fn during(lab: &Lab, case: &Case) -> anyhow::Result<(Tally, Duration)> {
    let (tally, took) = tally_during(lab, RATE, happen(lab, case)).await?;
    let took = took?;
    if let Case::Unreachable = case {
        come_back(lab).await?;
    }
    Ok((tally, took))
}

async fn happen(lab: &Lab, case: &Case) -> anyhow::Result<Duration> {
    let (by, nodes): (u64, &[&str]) = match case {
        Case::Nothing => {
            tokio::time::sleep(Duration::from_secs(3)).await;
            return Ok(Duration::ZERO);
        }
        Case::One(node) => (1, &[node]),
        Case::Several(by) => (*by, &[]),
        Case::Unreachable => {
            lab.node_cut(LAST).await?;
            be_ready(lab, false).await?;
            (1, &[])
        }
        Case::All | Case::Killed(_) | Case::ApiFlaps | Case::Changed(..) | Case::Joins | Case::Leaves => {
            (1, &[])
        }
    };
    let started = Instant::now();
    let epoch = begin(lab, by, nodes).await?;
    match case {
        Case::Nothing | Case::All | Case::One(_) | Case::Several(_) => {
            finished(lab, epoch).await?;
        }
        Case::Killed(seed) => {
            kill(lab, *seed).await?;
            finished(lab, epoch).await?;
        }
        Case::ApiFlaps => flap(lab, epoch).await?,
        Case::Changed(moment, change) => {
            reached(lab, epoch, *moment).await?;
            switch::make(lab, change).await?;
            finished(lab, epoch).await?;
        }
        Case::Joins => {
            reached(lab, epoch, Moment::Published).await?;
            lab.node_start(LAST).await?;
            finished(lab, epoch).await?;
        }
        Case::Unreachable => {
            finished_without(lab, epoch, LAST).await?;
        }
        Case::Leaves => {
            reached(lab, epoch, Moment::Published).await?;
            lab.node_stop(LAST).await?;
            let nodes: Api<Node> = Api::all(lab.client());
            nodes.delete(LAST, &DeleteParams::default()).await?;
            finished(lab, epoch).await?;
        }
    }
    Ok(started.elapsed())
}

/// Waits until the rotation to this epoch has come that far.
async fn reached(lab: &Lab, epoch: u64, moment: Moment) -> anyhow::Result<()> {
    let is_there = |value: &Value| match moment {
        Moment::Published => keys_of(value).contains_key(&epoch),
        Moment::Settled => value["settled"] == epoch,
    };
    let what = format!("{moment:?} in epoch {epoch}");
    published_when(lab, &what, |published| published.values().any(is_there)).await?;
    Ok(())
}

/// Kills agents, one after the other, and starts each again.
async fn kill(lab: &Lab, seed: u64) -> anyhow::Result<()> {
    let nodes = lab.facts().await?.nodes;
    let mut chance = seed;
    for _ in 0..KILLS {
        // Knuth's constants for a generator of 64 bits; the upper ones are the better ones.
        chance = chance
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let node = usize::try_from(chance >> 33).unwrap_or_default() % nodes.len();
        lab.node_kill(&nodes[node].name).await?;
        lab.node_start(&nodes[node].name).await?;
    }
    Ok(())
}

/// The API fails and works in turn, until the rotation is over.
async fn flap(lab: &Lab, epoch: u64) -> anyhow::Result<()> {
    let rules = json!([
        {"probability": 0.3, "fault": "drop"},
        {"probability": 0.2, "fault": "dropAnswer"},
        {"probability": 0.2, "fault": {"error": {"code": 503}}},
    ]);
    let faults = json!({"seed": 6, "rules": rules, "cutWatchesEveryMs": 300, "jitterMs": 100});
    let flaps = async {
        loop {
            lab.set_faults(&faults).await?;
            tokio::time::sleep(FLAP).await;
            lab.clear_faults().await?;
            tokio::time::sleep(FLAP).await;
        }
    };
    let over = tokio::select! {
        over = finished(lab, epoch) => over.map(drop),
        failed = flaps => failed,
    };
    lab.clear_faults().await?;
    over
}

/// The last node is back, and follows the others.
async fn come_back(lab: &Lab) -> anyhow::Result<()> {
    lab.node_mend(LAST).await?;
    be_ready(lab, true).await?;
    let published = published_when(lab, "an epoch", |_| true).await?;
    let epochs = published.values().filter_map(|value| value["settled"].as_u64());
    let epoch = epochs.max().context("nobody has settled")?;
    finished(lab, epoch).await.map(drop)
}

/// Has the last node be ready, or not, as the node controller would say it.
async fn be_ready(lab: &Lab, ready: bool) -> anyhow::Result<()> {
    let nodes: Api<Node> = Api::all(lab.client());
    let status = if ready { "True" } else { "Unknown" };
    let ready = json!({"status": {"conditions": [{"type": "Ready", "status": status}]}});
    nodes
        .patch_status(LAST, &PatchParams::default(), &Patch::Merge(&ready))
        .await
        .context("say whether the node is ready")?;
    Ok(())
}
