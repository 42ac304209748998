//! Attaching and detaching pods, beside the CNI project's own `ptp` with `host-local`: the plainest that does the same,
//! a veth and a route for each pod.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::Context;
use serde_json::{Value, json};
use warren_lab::{Families, Lab, LabOptions};

use crate::machine::Machine;
use crate::plugin::{Calls, Times};
use crate::report::{Report, WARREN};
use crate::statistics::Samples;
use crate::wait::disk;

/// The peer, in rows.
const PTP: &str = "ptp";

/// Where Debian puts it.
const PTP_PLUGIN: &str = "/usr/lib/cni/ptp";

/// The node with our agent, and the node without any, for the peer.
const OURS: &str = "node1";
const THEIRS: &str = "node2";

/// Pods a round: a hundredth of them can be told apart, and a kubelet takes as many on a node.
const PODS: usize = 100;

/// How the calls come.
const CASES: [(&str, usize); 2] = [("one by one", 1), ("16 at once", 16)];

/// The share of calls that are as fast, and what it is called.
const PERCENTILES: [(f64, &str); 2] = [(0.5, "p50"), (0.99, "p99")];

pub(crate) async fn bench(rounds: u32) -> anyhow::Result<Report> {
    let mut report = Report::new("cni", Machine::look(&["containernetworking-plugins", "nftables"]));
    let options = LabOptions {
        nodes: 2,
        agents: false,
        // With IPv6 the peer waits for duplicate address detection, and would lose by seconds.
        families: Families::V4,
        ..LabOptions::default()
    };
    let lab = Lab::up(options).await?;
    lab.node_start(OURS).await?;
    let ours = warren(&disk(&lab, OURS).await?)?;
    let theirs = ptp(&disk(&lab, THEIRS).await?);

    // First once, unmeasured: the programs get into the page cache.
    warm_up(&lab, &ours, OURS).await?;
    warm_up(&lab, &theirs, THEIRS).await?;

    let mut found = Found::default();
    for round in 0..rounds {
        for (case, at_once) in CASES {
            let [ours, theirs] = [&ours, &theirs].map(|it| Calls {
                at_once,
                ..it.clone()
            });
            // In turn, and each first as often.
            let (a, b);
            if round % 2 == 0 {
                a = ours.make_on(&lab, OURS).await?;
                b = theirs.make_on(&lab, THEIRS).await?;
            } else {
                b = theirs.make_on(&lab, THEIRS).await?;
                a = ours.make_on(&lab, OURS).await?;
            }
            found.round(case, a, b)?;
        }
    }
    found.tell(&mut report)?;
    Ok(report)
}

/// Percentiles by case, command and percentile: ours, theirs, and the one in terms of the other, one of each a round.
#[derive(Default)]
struct Found(BTreeMap<(usize, &'static str, usize), [Vec<f64>; 3]>);

impl Found {
    fn round(&mut self, case: &str, ours: Times, theirs: Times) -> anyhow::Result<()> {
        let case = CASES
            .iter()
            .position(|(name, _)| *name == case)
            .context("no such case")?;
        for (command, ours, theirs) in [("ADD", ours.add, theirs.add), ("DEL", ours.del, theirs.del)] {
            let ours = Samples::new(ours).context("none of our calls was measured")?;
            let theirs = Samples::new(theirs).context("none of the peer's calls was measured")?;
            for (index, (share, _)) in PERCENTILES.iter().enumerate() {
                let (a, b) = (ours.percentile(*share), theirs.percentile(*share));
                let all = self.0.entry((case, command, index)).or_default();
                for (values, value) in all.iter_mut().zip([a, b, a / b]) {
                    values.push(value);
                }
            }
        }
        Ok(())
    }

    /// The rows of both; and as bars the median of the rounds' ratios, because a machine's speed drifts between rounds.
    fn tell(self, report: &mut Report) -> anyhow::Result<()> {
        let mut ratios = Vec::new();
        for ((case, command, percentile), values) in self.0 {
            let (case, metric) = (CASES[case].0, PERCENTILES[percentile].1);
            let [ours, theirs, ratio] = values.map(Samples::new);
            let label = format!("{command} {case}");
            report.row(&label, WARREN, metric, "ms", &ours.context("no round")?);
            report.row(&label, PTP, metric, "ms", &theirs.context("no round")?);
            ratios.push((format!("{label} {metric}"), ratio.context("no round")?.median()));
        }
        for (case, ratio) in ratios {
            report.bar_at_most(&case, ratio, "times ptp's", 1.0);
        }
        Ok(())
    }
}

async fn warm_up(lab: &Lab, calls: &Calls, node: &str) -> anyhow::Result<()> {
    let few = Calls {
        pods: 3,
        ..calls.clone()
    };
    few.make_on(lab, node).await?;
    Ok(())
}

/// Our plugin with the configuration that the agent has written.
fn warren(disk: &Path) -> anyhow::Result<Calls> {
    let path = disk.join("cni/net.d/10-warren.conflist");
    let text = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
    let list: Value =
        serde_json::from_slice(&text).with_context(|| format!("{} is not JSON", path.display()))?;
    let mut config = list["plugins"][0].clone();
    config["name"] = list["name"].clone();
    config["cniVersion"] = list["cniVersion"].clone();
    let name = config["type"]
        .as_str()
        .context("a plugin without type")?
        .to_owned();
    Ok(Calls {
        plugin: disk.join("cni/bin").join(name),
        config,
        pods: PODS,
        at_once: 1,
    })
}

/// The peer as `kindnet` has it: no masquerading by the plugin, a default route, addresses kept on the node's disk.
fn ptp(disk: &Path) -> Calls {
    let config = json!({
        "cniVersion": "1.0.0",
        "name": "bench-ptp",
        "type": "ptp",
        "ipMasq": false,
        "ipam": {
            "type": "host-local",
            "dataDir": disk.join("host-local"),
            "ranges": [[{"subnet": "10.250.0.0/24"}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    });
    Calls {
        plugin: PTP_PLUGIN.into(),
        config,
        pods: PODS,
        at_once: 1,
    }
}
