//! An agent in the large cluster: what it takes, and how long after a change in the API the kernel has it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, sleep_until};
use warren_lab::{Lab, LabOptions, Place, PodKey, PodOptions};

use super::MEMORY_LIMIT;
use super::change::KINDS;
use super::commits::Commits;
use super::scene::{NAMESPACES, PODS, PODS_OF_A_NODE, POLICIES, pod, policy_object, team};
use crate::machine::Machine;
use crate::probe::Usage;
use crate::report::{Report, WARREN};
use crate::statistics::Samples;

/// The name of the subcommand that listens inside the node.
pub(crate) const LISTENER: &str = "inside-commits";

const NODE: &str = "node1";

/// Requests under way at a time while the cluster is being made.
const AT_ONCE: usize = 16;

/// Changes of each kind, a round.
const CHANGES: u32 = 20;

/// From one change to the next: one has long been in force when the other is made.
const PACE: Duration = Duration::from_millis(250);

/// Makes a cluster with one true node, where a hundred pods are attached, and changes it.
pub(crate) async fn bench(rounds: u32) -> anyhow::Result<Report> {
    let mut report = Report::new("agent", Machine::look(&["nftables"]));
    let options = LabOptions {
        nodes: 1,
        agents: false,
        ..LabOptions::default()
    };
    let lab = Lab::up(options).await?;
    let world = World(&lab);
    world.make().await?;
    lab.node_start(NODE).await?;
    for number in 0..PODS_OF_A_NODE {
        world.attach(number).await?;
    }
    let this = std::env::current_exe().context("find this program")?;
    let this = this.to_str().context("a path that is not text")?;
    let changes = rounds * CHANGES;
    let time = PACE * changes * u32::try_from(KINDS.len())? + Duration::from_secs(5);
    let argv = [this, LISTENER, &time.as_secs().to_string()];
    let (heard, sent) = tokio::try_join!(
        lab.run_for(Place::Node(NODE.to_owned()), &argv, 2 * time),
        world.change(changes),
    )?;
    ensure!(heard.success(), "{LISTENER}: {}", heard.stderr.trim());
    let heard: Vec<f64> = serde_json::from_str(&heard.stdout).context("read when changes were in force")?;
    let samples = |values| Samples::new(values).context("no change");
    let delays = samples(delays(&sent, &heard)?)?;
    let p99 = samples(vec![delays.percentile(0.99)])?;
    let peak = samples(vec![Usage::of(&lab, NODE).await?.agent.peak_mib()])?;
    let case = format!("{PODS} pods, {POLICIES} policies");
    for (metric, unit, samples) in [
        ("memory at the most", "MiB", &peak),
        ("a change, from the API to the kernel", "ms", &delays),
        ("a change, from the API to the kernel, p99", "ms", &p99),
    ] {
        report.row(&case, WARREN, metric, unit, samples);
    }
    report.bar_under(&case, peak.max(), "MiB at the most", MEMORY_LIMIT);
    Ok(report)
}

/// When transactions of this network namespace were in force, ms of the clock, in the time to come.
pub(crate) fn listen_here(time: Duration) -> anyhow::Result<Vec<f64>> {
    let commits = Commits::here()?;
    let end = std::time::Instant::now() + time;
    let mut heard = Vec::new();
    while std::time::Instant::now() < end {
        if commits.next()?.is_some() {
            heard.push(now());
        }
    }
    Ok(heard)
}

/// From each change to the last transaction before the next one.
fn delays(sent: &[f64], heard: &[f64]) -> anyhow::Result<Vec<f64>> {
    let ends = sent.iter().skip(1).copied().chain([f64::INFINITY]);
    let delay = |(number, (start, end)): (usize, (&f64, f64))| {
        let of_this = heard.iter().filter(|at| **at > *start && **at < end);
        let last = of_this
            .copied()
            .reduce(f64::max)
            .with_context(|| format!("change {number} never reached the kernel"))?;
        Ok(last - start)
    };
    sent.iter().zip(ends).enumerate().map(delay).collect()
}

/// ms of the clock.
fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_secs_f64() * 1000.0
}

struct World<'l>(&'l Lab);

impl World<'_> {
    fn namespaced<T>(&self, namespace: &str) -> Api<T>
    where
        T: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.0.client(), namespace)
    }

    /// All but the pods of the one node.
    async fn make(&self) -> anyhow::Result<()> {
        let namespaces: Api<Namespace> = Api::all(self.0.client());
        for number in 0..NAMESPACES {
            let object = serde_json::from_value(json!({
                "metadata": {"name": format!("ns-{number}"), "labels": {"team": team(number % 5)}},
            }))?;
            namespaces.create(&PostParams::default(), &object).await?;
        }
        let policies = stream::iter(0..POLICIES).map(|number| self.policy(number));
        policies.buffer_unordered(AT_ONCE).try_collect::<()>().await?;
        let pods = stream::iter(PODS_OF_A_NODE..PODS).map(|number| self.pod(number));
        pods.buffer_unordered(AT_ONCE).try_collect::<()>().await
    }

    async fn policy(&self, number: u32) -> anyhow::Result<()> {
        let (namespace, name, spec) = policy_object(number, number / NAMESPACES % 10);
        let object = serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec}))?;
        let api: Api<NetworkPolicy> = self.namespaced(&namespace);
        api.create(&PostParams::default(), &object).await?;
        Ok(())
    }

    /// One of another node.
    async fn pod(&self, number: u32) -> anyhow::Result<()> {
        let pod = pod(number)?;
        let api: Api<Pod> = self.namespaced(&pod.name.namespace);
        let ports: Vec<Value> = pod
            .ports
            .iter()
            .map(|it| json!({"name": it.name, "containerPort": it.port}))
            .collect();
        let object = serde_json::from_value(json!({
            "metadata": {"name": pod.name.name, "labels": labels(number)?},
            "spec": {
                "nodeName": format!("other-{}", number / PODS_OF_A_NODE),
                "containers": [{"name": "it", "image": "it", "ports": ports}],
            },
        }))?;
        api.create(&PostParams::default(), &object).await?;
        let addresses: Vec<Value> = pod.addresses.iter().map(|it| json!({"ip": it})).collect();
        let status = json!({"status": {
            "phase": "Running", "podIP": pod.addresses.first(), "podIPs": addresses,
        }});
        api.patch_status(&pod.name.name, &PatchParams::default(), &Patch::Merge(&status))
            .await?;
        Ok(())
    }

    /// A pod of the one node, as a runtime attaches it.
    async fn attach(&self, number: u32) -> anyhow::Result<()> {
        let name = pod(number)?.name;
        let mut options = PodOptions::new(PodKey::new(name.namespace, name.name), NODE);
        options.labels = serde_json::from_value(labels(number)?)?;
        self.0.pod_add(options).await?;
        Ok(())
    }

    /// Makes one change after the other, and says when each was sent, ms of the clock.
    async fn change(&self, changes: u32) -> anyhow::Result<Vec<f64>> {
        // The listener has begun by then.
        sleep(Duration::from_secs(2)).await;
        let mut sent = Vec::new();
        for turn in 0..changes {
            for (kind, name) in KINDS.iter().enumerate() {
                let due = Instant::now() + PACE;
                sent.push(now());
                self.change_one(kind, turn)
                    .await
                    .with_context(|| format!("{name}, {turn}"))?;
                sleep_until(due).await;
            }
        }
        Ok(sent)
    }

    /// A change of one of [`KINDS`], in the order they have there.
    async fn change_one(&self, kind: usize, turn: u32) -> anyhow::Result<()> {
        let merge = PatchParams::default();
        let number = PODS_OF_A_NODE + turn * 137;
        let name = pod(number)?.name;
        let pods: Api<Pod> = self.namespaced(&name.namespace);
        match kind {
            0 => {
                let tier = format!("tier-{}", (number / NAMESPACES + 1) % 10);
                let patch = json!({"metadata": {"labels": {"tier": tier}}});
                pods.patch(&name.name, &merge, &Patch::Merge(&patch)).await?;
            }
            1 => {
                let chosen = turn * 37 % POLICIES;
                let (namespace, name, spec) = policy_object(chosen, (chosen / NAMESPACES + 1) % 10);
                let api: Api<NetworkPolicy> = self.namespaced(&namespace);
                let patch = json!({"spec": spec});
                api.patch(&name, &merge, &Patch::Merge(&patch)).await?;
            }
            2 => {
                let chosen = turn % NAMESPACES;
                let other = team((chosen + 1 + turn / NAMESPACES) % 5);
                let patch = json!({"metadata": {"labels": {"team": other}}});
                let api: Api<Namespace> = Api::all(self.0.client());
                let name = format!("ns-{chosen}");
                api.patch(&name, &merge, &Patch::Merge(&patch)).await?;
            }
            3 => {
                let at_once = DeleteParams::default().grace_period(0);
                pods.delete(&name.name, &at_once).await?;
            }
            _ => self.pod(number).await?,
        }
        Ok(())
    }
}

fn labels(number: u32) -> anyhow::Result<Value> {
    let pod = pod(number)?;
    Ok(pod
        .labels
        .iter()
        .map(|(key, value)| (key.to_owned(), json!(value)))
        .collect())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_change_takes_until_the_last_transaction_before_the_next() {
        assert_eq!(
            delays(&[10.0, 20.0], &[5.0, 12.0, 14.0, 23.5]).unwrap(),
            [4.0, 3.5]
        );
        assert!(delays(&[10.0, 20.0], &[12.0]).is_err());
    }
}
