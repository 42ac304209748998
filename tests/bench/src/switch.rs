//! How nodes reach each other is changed while all pods send to each other: what is lost.

use std::collections::BTreeMap;

use anyhow::Context;
use serde_json::{Value, json};
use warren_lab::switch::{self, Named, RATE};
use warren_lab::{Lab, LabOptions, PodOptions};

use crate::machine::Machine;
use crate::report::{Report, WARREN};
use crate::statistics::Samples;

/// How many nodes there are, with a pod each.
const NODES: u8 = 4;
/// The last of them.
const LAST: &str = "node4";

/// What one change has sent and lost, round by round.
#[derive(Debug, Default)]
struct Counted {
    sent: Vec<f64>,
    lost: Vec<f64>,
}

pub(crate) async fn bench(rounds: u32) -> anyhow::Result<Report> {
    let mut report = Report::new("switch", Machine::look(&["nftables"]));
    let mut names = Vec::new();
    let mut counted: BTreeMap<&str, Counted> = BTreeMap::new();
    for _ in 0..rounds {
        for (subnets, first, changes) in suites() {
            let lab = four_nodes(subnets).await?;
            switch::begin_with(&lab, &first).await?;
            for (name, change) in changes {
                let tally = switch::during(&lab, RATE, &change).await.context(name)?;
                if !names.contains(&name) {
                    names.push(name);
                }
                let of_change = counted.entry(name).or_default();
                of_change.sent.push(number(tally.sent()));
                of_change.lost.push(number(tally.lost()));
            }
        }
    }
    for name in names {
        let Counted { sent, lost } = counted.remove(name).unwrap_or_default();
        let all_lost = lost.iter().sum();
        let case = format!("{name}, {RATE} a second each way");
        let samples = |values| Samples::new(values).context("nothing was counted");
        report.row(&case, WARREN, "sent", "packets", &samples(sent)?);
        report.row(&case, WARREN, "lost", "packets", &samples(lost)?);
        report.bar_at_most(name, all_lost, "packets lost", 0.0);
    }
    Ok(report)
}

/// Each with how many subnets its nodes are in, and what the Mesh is at first.
fn suites() -> [(u8, Value, Vec<Named>); 7] {
    [
        (1, switch::in_the_clear(), switch::encryption()),
        (1, switch::in_the_clear(), switch::overlay()),
        (2, switch::in_the_clear(), switch::cross_subnet()),
        (1, json!({}), switch::fallback(LAST)),
        (1, json!({"fallback": "vxlan"}), switch::there_and_back(LAST)),
        (1, json!({}), switch::mtu()),
        (1, switch::in_the_clear(), switch::vxlan_port()),
    ]
}

async fn four_nodes(subnets: u8) -> anyhow::Result<Lab> {
    let options = LabOptions {
        nodes: NODES,
        subnets,
        ..LabOptions::default()
    };
    let lab = Lab::up(options).await?;
    for node in lab.facts().await?.nodes {
        let name = format!("on-{}", node.name);
        lab.pod_add(PodOptions::new(name.as_str(), &node.name)).await?;
    }
    Ok(lab)
}

#[expect(clippy::cast_precision_loss, reason = "counts of packets are far below 2^52")]
fn number(count: u64) -> f64 {
    count as f64
}
