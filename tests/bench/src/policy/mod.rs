//! Many policies in a large cluster: how long it takes to compile them and to put one change in force, how much memory, and what they
//! cost packets.
//!
//! | module | what it is about |
//! |---|---|
//! | `scene` | the cluster and its policies |
//! | `change` | one change at a time, compiled and applied |
//! | `commits` | when that is in force |
//! | `agent` | a true agent in such a cluster |
//! | `router` | a node between two pods, and what filters there |
//! | `pairs` | the same policies as one iptables rule for each pair |
//! | `connections` | how many connections are opened a second |

mod agent;
mod change;
mod commits;
mod connections;
mod pairs;
mod router;
mod scene;

use std::collections::BTreeMap;
use std::fs;
use std::hint::black_box;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, ensure};
use warren_kernel::policy::render;
use warren_policy::{Flow, Input, Protocol, RuleSet, compile, verdict};

pub(crate) use self::agent::{LISTENER, bench as bench_agent, listen_here};
use self::change::{KINDS, Live, Took};
use self::router::{Filter, Router};
use self::scene::{PODS, POLICIES, Scene};
use crate::isolate;
use crate::machine::Machine;
use crate::report::{Report, WARREN};
use crate::statistics::Samples;

/// The name of the subcommand that [`peak_here`] is.
pub(crate) const SUBCOMMAND: &str = "inside-policy";

/// Full compilations a round.
const RUNS: usize = 5;

/// Changes a round.
const CHANGES: u32 = 100;

/// A full compilation, ms.
const COMPILE_LIMIT: f64 = 1000.0;

/// A change, p99, ms.
const CHANGE_LIMIT: f64 = 50.0;

/// MiB.
const MEMORY_LIMIT: f64 = 256.0;

/// Of what passes without policies.
const SHARE: f64 = 0.95;

pub(crate) fn bench(rounds: u32) -> anyhow::Result<Report> {
    isolate::enter()?;
    let mut report = Report::new("policy", Machine::look(&["nftables", "iptables", "iperf3"]));
    let case = format!("{PODS} pods, {POLICIES} policies");
    let scene = Scene::new()?;
    let compile = compile_bench(rounds, &scene, &case, &mut report)?;
    let change = change_bench(rounds, &case, &mut report)?;
    let memory = memory_bench(rounds, &case, &mut report)?;
    let shares = traffic_bench(rounds, &scene, &mut report)?;
    report.bar_under(
        &format!("compile for all of {case}"),
        compile.median(),
        "ms",
        COMPILE_LIMIT,
    );
    report.bar_under(
        "one change compiled and applied, p99",
        change.percentile(0.99),
        "ms",
        CHANGE_LIMIT,
    );
    report.bar_under(
        "compile, render and apply",
        memory.max(),
        "MiB at the most",
        MEMORY_LIMIT,
    );
    for (metric, share) in shares {
        report.bar_at_least(metric, share.median(), "times that without policies", SHARE);
    }
    Ok(report)
}

fn compile_bench(rounds: u32, scene: &Scene, case: &str, report: &mut Report) -> anyhow::Result<Samples> {
    let (mut all, mut one, mut judged) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        for _ in 0..RUNS {
            let (time, rules) = timed(&Input::new(&scene.policies, &scene.cluster));
            all.push(time);
            let selected = rules.sets.iter().filter(|set| set.addresses.len() == 2000);
            let selected = selected.count();
            ensure!(
                selected == 500,
                "{selected} sets hold 1,000 pods, each with two addresses"
            );
            judged.push(judge(&rules, scene));
            one.push(timed(&scene.of_node()).0);
        }
    }
    let samples = |values| Samples::new(values).context("no run");
    let all = samples(all)?;
    report.row(case, WARREN, "compile for all pods", "ms", &all);
    report.row(case, WARREN, "compile for one node's pods", "ms", &samples(one)?);
    report.row(case, WARREN, "verdict", "us", &samples(judged)?);
    Ok(all)
}

/// ms, and what came out.
fn timed(input: &Input<'_>) -> (f64, RuleSet) {
    let started = Instant::now();
    let rules = compile(black_box(input));
    (started.elapsed().as_secs_f64() * 1000.0, rules)
}

/// us for one flow, of many.
fn judge(rules: &RuleSet, scene: &Scene) -> f64 {
    const FLOWS: usize = 1000;
    let pods = &scene.cluster.pods;
    let started = Instant::now();
    for number in 0..FLOWS {
        let (from, to) = (&pods[number * 7 % pods.len()], &pods[number * 11 % pods.len()]);
        let flow = Flow::to_port(from.addresses[0], to.addresses[0], Protocol::TCP, 80);
        black_box(verdict(rules, black_box(&flow)));
    }
    started.elapsed().as_secs_f64() * 1_000_000.0 / FLOWS as f64
}

/// The times from a change until it is in force.
fn change_bench(rounds: u32, case: &str, report: &mut Report) -> anyhow::Result<Samples> {
    let mut live = Live::start(Scene::new()?)?;
    let mut took = Vec::new();
    for number in 0..rounds * CHANGES {
        took.push(live.change(number)?);
    }
    live.is_what_a_fresh_start_makes()?;
    let samples =
        |of: &dyn Fn(&Took) -> f64| Samples::new(took.iter().map(of).collect()).context("no change");
    let p99 = |samples: &Samples| Samples::new(vec![samples.percentile(0.99)]).context("no change");
    let mut row = |metric, samples: &Samples| report.row(case, WARREN, metric, "ms", samples);
    row("one change: compile", &samples(&|it| it.compile)?);
    row("one change: render the difference", &samples(&|it| it.render)?);
    for kind in KINDS {
        let of_kind = took.iter().filter(|it| it.kind == kind).map(|it| it.in_force);
        let of_kind = Samples::new(of_kind.collect()).context("no such change")?;
        row(kind, &of_kind);
    }
    let (in_force, processor) = (samples(&|it| it.in_force)?, samples(&|it| it.processor)?);
    row("one change: processor time, nft's too", &processor);
    row("one change: processor time, nft's too, p99", &p99(&processor)?);
    row("one change until nft has ended", &samples(&|it| it.whole)?);
    row("one change compiled and applied", &in_force);
    row("one change compiled and applied, p99", &p99(&in_force)?);
    Ok(in_force)
}

/// The most that a process takes which does for a node what its agent does.
fn memory_bench(rounds: u32, case: &str, report: &mut Report) -> anyhow::Result<Samples> {
    let mut peaks = Vec::new();
    for _ in 0..rounds {
        let this = std::env::current_exe().context("find this program")?;
        let output = Command::new(this)
            .arg(SUBCOMMAND)
            .output()
            .context("start this program")?;
        let said = || String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "{SUBCOMMAND}: {}", said());
        peaks.push(serde_json::from_slice(&output.stdout).context("read what was measured")?);
    }
    let peaks = Samples::new(peaks).context("no round")?;
    report.row(
        case,
        WARREN,
        "compile, render and change: memory at the most",
        "MiB",
        &peaks,
    );
    Ok(peaks)
}

/// Keeps the cluster of policies and a node's rules as an agent does, changes them, and says how much memory that took, MiB.
pub(crate) fn peak_here() -> anyhow::Result<f64> {
    let mut live = Live::start(Scene::new()?)?;
    for number in 0..20 {
        live.change(number)?;
    }
    let status = fs::read_to_string("/proc/self/status").context("read /proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = peak.and_then(|it| it.trim().strip_suffix(" kB")?.parse::<f64>().ok());
    Ok(kib.context("no VmHWM in /proc/self/status")? / 1024.0)
}

/// What is left of throughput and of connections a second with policies, as shares of what passes without.
fn traffic_bench(
    rounds: u32,
    scene: &Scene,
    report: &mut Report,
) -> anyhow::Result<Vec<(&'static str, Samples)>> {
    let rules = compile(&scene.of_node());
    let ends = router::ends(&rules, scene)?;
    let filters = [
        (WARREN, Filter::Nft(render(&rules).text())),
        (
            "no policies",
            Filter::Nft(
                render(&compile(&Input {
                    policies: &[],
                    ..scene.of_node()
                }))
                .text(),
            ),
        ),
        ("iptables pairs", Filter::Iptables(pairs::restore(&rules, ends))),
        ("nothing at all", Filter::None),
    ];
    let routers = filters
        .into_iter()
        .map(|(name, filter)| Ok((name, Router::up(ends, &filter)?)));
    let routers: Vec<(&'static str, Router)> = routers.collect::<anyhow::Result<_>>()?;
    let mut measured: BTreeMap<(&'static str, &'static str), Vec<f64>> = BTreeMap::new();
    for round in 0..rounds as usize {
        // Each is the first as often as any other.
        for turn in 0..routers.len() {
            let (name, router) = &routers[(turn + round) % routers.len()];
            measured
                .entry(("TCP throughput", name))
                .or_default()
                .push(router.throughput()?);
            measured
                .entry(("connections", name))
                .or_default()
                .push(router.connections()?);
        }
    }
    let mut shares = Vec::new();
    for (metric, unit) in [("TCP throughput", "Gbit/s"), ("connections", "1/s")] {
        for (name, _) in &routers {
            let values = measured.get(&(metric, *name)).cloned().unwrap_or_default();
            report.row(
                "to a pod of a node",
                name,
                metric,
                unit,
                &Samples::new(values).context("no round")?,
            );
        }
        let of = |name| measured.get(&(metric, name)).into_iter().flatten();
        // Within a round: a machine's speed drifts.
        let ratios = of(WARREN)
            .zip(of("no policies"))
            .map(|(with, without)| with / without);
        shares.push((metric, Samples::new(ratios.collect()).context("no round")?));
    }
    Ok(shares)
}
