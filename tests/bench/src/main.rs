//! `warren-bench NAME`: measures one thing, prints what it found and which figures are reached. `hack/bench.sh` builds and
//! runs it.
//!
//! | module | what it is about |
//! |---|---|
//! | `cni` | attaching pods, beside `ptp` and `host-local` |
//! | `plan` | planning for large clusters, and the agent's memory there |
//! | `join` | from a published key to the first packet |
//! | `idle` | what a mesh does when there is nothing to do |
//! | `policy` | many policies in a large cluster: compiling and applying them, and what they cost packets |
//! | `switch` | what is lost while the paths between nodes are changed |
//! | `rotation` | what is lost while keys are rotated, and how long that takes |
//! | `dataplane` | `warren-wg` beside other WireGuard devices |
//! | `statistics`, `report`, `machine` | what measurements come to, and how it is told |
//! | `cluster`, `resident`, `plugin`, `probe`, `wait`, `streams` | what the benchmarks are made of |
//! | `namespace`, `isolate` | hosts, and hiding all of it from the machine's own |

mod cluster;
mod cni;
mod dataplane;
mod idle;
mod isolate;
mod join;
mod machine;
mod namespace;
mod plan;
mod plugin;
mod policy;
mod probe;
mod report;
mod resident;
mod rotation;
mod statistics;
mod streams;
mod switch;
mod wait;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, Subcommand};

use crate::report::Report;

/// Measures Warren. Exit status 1: a figure that must be reached is not; 2: it could not be measured.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    /// Write the report there too, in JSON.
    #[arg(long, global = true)]
    json: Option<PathBuf>,
    /// How often everything is measured.
    #[arg(long, global = true, default_value_t = 3, value_parser = clap::value_parser!(u32).range(3..))]
    rounds: u32,
    #[command(subcommand)]
    name: Name,
}

#[derive(Debug, Subcommand)]
enum Name {
    /// ADD and DEL, beside Debian's ptp and host-local.
    Cni,
    /// compute and diff for 1,000 and 5,000 nodes; memory of an agent with 1,000 peers.
    Plan,
    /// From a node's annotation to the first packet, 10 nodes.
    Join,
    /// 60 s of a mesh of 3 nodes where nothing happens.
    Idle,
    /// 1,000 policies for 10,000 pods: compiled, changed and applied; what they cost TCP, beside none and iptables' pairs.
    Policy,
    /// An agent in that cluster: its memory, and the time from a change in the API to the kernel.
    Agent,
    /// Encryption, overlay, fallback and MTU are changed under traffic, 4 nodes.
    Switch,
    /// Keys are rotated under traffic, 5 nodes: nothing else, and all that may happen meanwhile.
    Rotation,
    /// warren-wg beside wireguard-go, gotatun, boringtun and no tunnel: throughput, round trips, memory.
    Dataplane(dataplane::Options),
    #[command(hide = true, name = plugin::SUBCOMMAND)]
    InsidePlugin { calls: String },
    #[command(hide = true, name = probe::SUBCOMMAND)]
    InsideLook,
    #[command(hide = true, name = policy::SUBCOMMAND)]
    InsidePolicy,
    #[command(hide = true, name = policy::LISTENER)]
    InsideCommits { seconds: u64 },
}

#[expect(clippy::print_stderr, reason = "this is what a command says when it fails")]
fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("warren-bench: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Says whether all figures are reached.
fn run(cli: Cli) -> anyhow::Result<bool> {
    let report = match cli.name {
        Name::InsidePlugin { calls } => {
            let calls: plugin::Calls = serde_json::from_str(&calls).context("read what to call")?;
            return print(&serde_json::to_string(&calls.make_here()?)?);
        }
        Name::InsideLook => return print(&serde_json::to_string(&probe::Usage::here()?)?),
        Name::InsidePolicy => return print(&serde_json::to_string(&policy::peak_here()?)?),
        Name::InsideCommits { seconds } => {
            let heard = policy::listen_here(Duration::from_secs(seconds))?;
            return print(&serde_json::to_string(&heard)?);
        }
        Name::Cni => measure(cni::bench(cli.rounds)),
        Name::Plan => measure(plan::bench(cli.rounds)),
        Name::Join => measure(join::bench(cli.rounds)),
        Name::Idle => measure(idle::bench(cli.rounds)),
        Name::Switch => measure(switch::bench(cli.rounds)),
        Name::Rotation => measure(rotation::bench(cli.rounds)),
        Name::Policy => policy::bench(cli.rounds),
        Name::Agent => measure(policy::bench_agent(cli.rounds)),
        Name::Dataplane(options) => dataplane::bench(&options, cli.rounds),
    }?;
    report.print(&mut std::io::stdout().lock())?;
    if let Some(path) = cli.json {
        std::fs::write(&path, report.json()? + "\n").with_context(|| format!("write {}", path.display()))?;
    }
    Ok(report.holds())
}

fn measure(bench: impl Future<Output = anyhow::Result<Report>>) -> anyhow::Result<Report> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("start a runtime")?
        .block_on(bench)
}

#[expect(clippy::print_stdout, reason = "this is what the command is for")]
fn print(text: &str) -> anyhow::Result<bool> {
    println!("{text}");
    Ok(true)
}
