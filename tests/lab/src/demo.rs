//! `warren-lab demo`: a cluster comes up, every pod reaches every other, and the wire shows nothing of it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::Context;
use futures::future::try_join_all;
use tokio::signal::unix::{SignalKind, signal};

use crate::capture::Counts;
use crate::dir::LabDir;
use crate::facts::Facts;
use crate::lab::Lab;
use crate::options::{ApiKind, LabOptions};
use crate::pod::PodOptions;
use crate::reach::{self, Reached};
use crate::shell::write_counts;

/// How many pods each node gets.
const PODS_PER_NODE: u8 = 2;

/// How many captured datagrams are shown.
const SAMPLE: &str = "4";

/// What to show.
#[derive(Debug, Clone)]
pub struct DemoOptions {
    /// How many nodes.
    pub nodes: u8,
    /// Whether the lab stays.
    pub keep: bool,
    /// The API.
    pub api: ApiKind,
    /// The lab's directory, if it stays.
    pub dir: Option<PathBuf>,
}

/// What was found.
#[derive(Debug)]
struct Findings {
    nodes: usize,
    pods: usize,
    pods_reached: Reached,
    hosts_reached: Reached,
    status: bool,
    /// Of a pod on the last node.
    address: String,
    counts: Counts,
}

impl Findings {
    fn hold(&self) -> bool {
        self.pods_reached.failures.is_empty()
            && self.hosts_reached.failures.is_empty()
            && self.status
            && self.counts.plaintext == 0
            && self.counts.missed == 0
            && (self.counts.wireguard_data > 0 || self.nodes == 1)
    }
}

/// Runs the demonstration and returns the exit code: 0 only if all held.
pub async fn demo(options: DemoOptions) -> anyhow::Result<i32> {
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for Ctrl-C")?;
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut hangup = signal(SignalKind::hangup()).context("listen for SIGHUP")?;
    let ended = tokio::select! {
        code = run(&options) => return code,
        _ = interrupt.recv() => 2,
        _ = terminate.recv() => 15,
        _ = hangup.recv() => 1,
    };
    // Dropping the run took the lab down.
    say("interrupted; everything that was made is removed");
    Ok(128 + ended)
}

async fn run(options: &DemoOptions) -> anyhow::Result<i32> {
    let started = Instant::now();
    let lab = bring_up(options).await?;
    let findings = look(&lab).await?;
    if options.keep {
        say(&how_to_look_around(lab.dir(), &findings.address));
        lab.detach().await?;
    } else {
        heading("taking everything down");
        drop(lab);
    }
    say(&format!(
        "warren demo: nodes={} pods={} pairs={} reachable={} plaintext={} wireguard={} seconds={}",
        findings.nodes,
        findings.pods,
        findings.pods_reached.pairs,
        findings.pods_reached.reachable(),
        findings.counts.plaintext,
        findings.counts.wireguard(),
        started.elapsed().as_secs_f64().ceil(),
    ));
    Ok(if findings.hold() { 0 } else { 1 })
}

async fn bring_up(options: &DemoOptions) -> anyhow::Result<Lab> {
    let api = match options.api {
        ApiKind::Embedded => "the embedded API",
        ApiKind::Real => "etcd and kube-apiserver",
    };
    heading(&format!(
        "a cluster of {} nodes on this machine, with {api}",
        options.nodes
    ));
    let dir = options
        .keep
        .then(|| options.dir.clone().unwrap_or_else(LabDir::default_path));
    let lab_options = LabOptions {
        nodes: options.nodes,
        api: options.api,
        dir,
        ..LabOptions::default()
    };
    let lab = Lab::up_with(lab_options, |step| say(&format!("    {step}"))).await?;

    heading(&format!(
        "{PODS_PER_NODE} pods a node, attached through warren-cni"
    ));
    let pods = (1..=options.nodes)
        .flat_map(|node| (0..PODS_PER_NODE).map(move |n| (node, n)))
        .map(|(node, n)| PodOptions::new(pod_name(node, n).as_str(), format!("node{node}")));
    for pod in try_join_all(pods.map(|it| lab.pod_add(it))).await? {
        say(&format!(
            "    {:<6} on {:<7} {}",
            pod.key.name,
            pod.node,
            pod.addresses.join("  ")
        ));
    }
    Ok(lab)
}

async fn look(lab: &Lab) -> anyhow::Result<Findings> {
    let facts = lab.facts().await?;
    heading("every pod to every other, IPv4 and IPv6");
    let pods_reached = reach::try_all(lab, reach::pod_pairs(&facts)).await;
    tell(&pods_reached);
    heading("every node to every pod of the others, IPv4 and IPv6");
    let hosts_reached = reach::try_all(lab, reach::host_pairs(&facts)).await;
    tell(&hosts_reached);

    heading("warren status");
    let status = lab
        .warren(&["status", "--kubeconfig", &lab.kubeconfig_inside()])
        .await?;
    say(status.stdout.trim_end());
    if !status.success() {
        say(&format!(
            "    warren status failed with code {}: {}",
            status.code,
            status.stderr.trim_end()
        ));
    }

    heading("what the nodes put on the wire between them");
    let counts = lab.counts().await?;
    let mut text = Vec::new();
    write_counts(&mut text, &counts)?;
    say(String::from_utf8_lossy(&text).trim_end());
    show_sample(&facts);
    Ok(Findings {
        nodes: facts.nodes.len(),
        pods: facts.pods.len(),
        pods_reached,
        hosts_reached,
        status: status.success(),
        address: facts
            .pods
            .last()
            .and_then(|it| it.addresses.first().cloned())
            .unwrap_or_default(),
        counts,
    })
}

fn tell(reached: &Reached) {
    say(&format!(
        "    {} of {} reachable",
        reached.reachable(),
        reached.pairs
    ));
    for failure in &reached.failures {
        say(&format!("    {failure}"));
    }
}

/// Some datagrams as tcpdump sees them: a second opinion, for who has it.
fn show_sample(facts: &Facts) {
    let mut tcpdump = Command::new("tcpdump");
    tcpdump
        .args(["-n", "-t", "-c", SAMPLE, "-r"])
        .arg(&facts.pcap)
        .arg("udp and (port 51820 or port 51821)");
    if let Ok(output) = tcpdump.output() {
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            say(&format!("    {line}"));
        }
    }
}

fn pod_name(node: u8, n: u8) -> String {
    format!("{}{node}", char::from(b'a' + n))
}

fn how_to_look_around(dir: &Path, address: &str) -> String {
    let lab = std::env::current_exe().map_or_else(|_| "warren-lab".to_owned(), |it| it.display().to_string());
    let lab = if dir == LabDir::default_path() {
        lab
    } else {
        format!("{lab} --dir {}", dir.display())
    };
    let ping = format!("pod exec a1 -- ping -c 3 {address}");
    let mut text = String::from("\nThe lab stays up. Look around:\n");
    for (command, meaning) in [
        ("status", "nodes, peers, pods"),
        (ping.as_str(), "from a pod"),
        ("node exec node1 -- wg show", "on a node"),
        ("capture --follow", "what crosses the underlay"),
        (
            "kubeconfig > kc && kubectl --kubeconfig kc get nodes,pods,mesh",
            "the API",
        ),
    ] {
        let _ = writeln!(text, "    {lab} {command}    # {meaning}");
    }
    let _ = writeln!(text, "Take it down:\n    {lab} down");
    text
}

fn heading(text: &str) {
    say(&format!("==> {text}"));
}

#[expect(clippy::print_stdout, reason = "this is what the command is for")]
fn say(text: &str) {
    println!("{text}");
}
