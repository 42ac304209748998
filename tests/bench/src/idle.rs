//! A mesh where nothing happens does nothing: no write to the API, the kernel or the disk, and hardly any processor time.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use warren_lab::{Lab, LabOptions, PodOptions, reach};

use crate::machine::Machine;
use crate::probe::{TICKS, Usage};
use crate::report::{Report, WARREN};
use crate::statistics::Samples;
use crate::wait::peers_when;

const NODES: [&str; 3] = ["node1", "node2", "node3"];

/// How long nothing happens.
const IDLE: Duration = Duration::from_secs(60);

/// The verbs that write.
const WRITES: [&str; 5] = ["create", "update", "patch", "delete", "deletecollection"];

/// Percent of a core that a node may use: its agent, what that runs, and its devices.
const PROCESSOR_LIMIT: f64 = 0.5;

pub(crate) async fn bench(rounds: u32) -> anyhow::Result<Report> {
    let mut report = Report::new("idle", Machine::look(&["nftables"]));
    let lab = Lab::up(LabOptions::default()).await?;
    for node in NODES {
        lab.pod_add(PodOptions::new(format!("on-{node}").as_str(), node))
            .await?;
    }
    let facts = lab.facts().await?;
    let reached = reach::try_all(&lab, reach::pod_pairs(&facts)).await;
    ensure!(
        reached.failures.is_empty(),
        "not all pods are reached: {:?}",
        reached.failures
    );
    peers_when(&lab, &NODES, "a handshake with every peer", |peers| {
        peers.len() == NODES.len() - 1 && peers.iter().all(|it| it["handshakeAgeSeconds"].is_u64())
    })
    .await?;

    let mut found = Found::default();
    for _ in 0..rounds {
        let before = State::of(&lab).await?;
        count_api_writes(&lab).await?;
        tokio::time::sleep(IDLE).await;
        let writes = api_writes(&lab).await?;
        let after = State::of(&lab).await?;
        found.round(&before, &after, writes)?;
    }
    found.tell(&mut report)?;
    Ok(report)
}

/// What a mesh has done so far.
struct State {
    usage: Vec<Usage>,
    /// Times of last change of all that is in the nodes' state directories.
    files: BTreeMap<PathBuf, SystemTime>,
}

impl State {
    async fn of(lab: &Lab) -> anyhow::Result<Self> {
        let mut files = BTreeMap::new();
        for node in lab.facts().await?.nodes {
            collect(&node.disk.join("state"), &mut files)?;
        }
        let mut usage = Vec::new();
        for node in NODES {
            usage.push(Usage::of(lab, node).await?);
        }
        Ok(Self { usage, files })
    }
}

#[derive(Default)]
struct Found {
    api: Vec<f64>,
    steps: Vec<f64>,
    files: Vec<f64>,
    bytes: Vec<f64>,
    agent: Vec<f64>,
    node: Vec<f64>,
}

impl Found {
    fn round(&mut self, before: &State, after: &State, api: u64) -> anyhow::Result<()> {
        self.api.push(float(api));
        let changed = after
            .files
            .iter()
            .filter(|(path, time)| before.files.get(*path) != Some(time));
        let gone = before.files.keys().filter(|it| !after.files.contains_key(*it));
        self.files.push(float((changed.count() + gone.count()) as u64));
        let percent = |ticks: u64| float(ticks) / TICKS / IDLE.as_secs_f64() * 100.0;
        let (mut steps, mut bytes) = (0, 0);
        for (before, after) in before.usage.iter().zip(&after.usage) {
            ensure!(
                before.agent.pid == after.agent.pid && before.devices.len() == after.devices.len(),
                "not the same programs as before: {before:?}, {after:?}"
            );
            steps += after.steps - before.steps;
            bytes += after.write_bytes() - before.write_bytes();
            self.agent.push(percent(after.agent.ticks - before.agent.ticks));
            self.node.push(percent(after.ticks() - before.ticks()));
        }
        self.steps.push(float(steps));
        self.bytes.push(float(bytes));
        Ok(())
    }

    fn tell(self, report: &mut Report) -> anyhow::Result<()> {
        let samples = |values| Samples::new(values).context("no round");
        let (api, steps, files, bytes) = (
            samples(self.api)?,
            samples(self.steps)?,
            samples(self.files)?,
            samples(self.bytes)?,
        );
        let (agent, node) = (samples(self.agent)?, samples(self.node)?);
        let mesh = "3 nodes, 60 s";
        report.row(mesh, WARREN, "API writes", "requests", &api);
        report.row(mesh, WARREN, "kernel changes", "steps", &steps);
        report.row(mesh, WARREN, "state files changed", "files", &files);
        report.row(mesh, WARREN, "disk writes", "bytes", &bytes);
        report.row(
            "a node, 60 s",
            WARREN,
            "agent's processor time",
            "% of a core",
            &agent,
        );
        report.row(
            "a node, 60 s",
            WARREN,
            "agent's and devices'",
            "% of a core",
            &node,
        );
        report.bar_at_most("API writes", api.max(), "requests", 0.0);
        report.bar_at_most("kernel changes", steps.max(), "steps", 0.0);
        report.bar_at_most("state files changed", files.max(), "files", 0.0);
        report.bar_at_most("disk writes", bytes.max(), "bytes", 0.0);
        report.bar_under("processor time", node.max(), "% of a core", PROCESSOR_LIMIT);
        Ok(())
    }
}

/// The embedded API counts what its rules fit: here rules that change nothing.
async fn count_api_writes(lab: &Lab) -> anyhow::Result<()> {
    let rules = WRITES.map(|verb| json!({"verb": verb, "fault": {"delay": {"ms": 0}}}));
    lab.set_faults(&json!({ "rules": rules })).await
}

async fn api_writes(lab: &Lab) -> anyhow::Result<u64> {
    let plan = lab.faults().await?;
    let rules = plan["rules"].as_array().context("no rules")?;
    ensure!(rules.len() == WRITES.len(), "the rules are gone: {plan}");
    let hits = rules.iter().map(|rule: &Value| rule["hits"].as_u64());
    hits.sum::<Option<u64>>().context("no count of hits")
}

fn collect(dir: &Path, files: &mut BTreeMap<PathBuf, SystemTime>) -> anyhow::Result<()> {
    let cannot = || format!("read {}", dir.display());
    for entry in std::fs::read_dir(dir).with_context(cannot)? {
        let entry = entry.with_context(cannot)?;
        let meta = entry.metadata().with_context(cannot)?;
        files.insert(entry.path(), meta.modified()?);
        if meta.is_dir() {
            collect(&entry.path(), files)?;
        }
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn float(count: u64) -> f64 {
    count as f64
}
