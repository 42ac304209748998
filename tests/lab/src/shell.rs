//! What people do with a lab that is up, from a shell: the commands of `warren-lab` but those that make or end one.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use serde_json::Value;

use crate::binaries::Binaries;
use crate::capture::Counts;
use crate::cni::CniCommand;
use crate::control::{Place, Request, call, exchange};
use crate::dir::LabDir;
use crate::facts::{Facts, PodFacts};
use crate::namespaces::{Namespaces, exit_code};
use crate::pod::{PodKey, PodOptions};

/// How often `capture --follow` looks.
const LOOK: Duration = Duration::from_secs(1);

/// The shell's side of a lab.
pub struct Shell(LabDir);

impl Shell {
    /// For the lab in a directory; `None`: the one of people who name none.
    pub fn new(dir: Option<&Path>) -> anyhow::Result<Self> {
        let default = LabDir::default_path();
        LabDir::at(dir.unwrap_or(&default)).map(Self)
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        self.0.path()
    }

    /// Runs a program somewhere in the lab with this process's stdio; returns its exit code. The process must have one
    /// thread.
    pub fn exec(&self, place: Place, argv: &[String]) -> anyhow::Result<i32> {
        let (program, arguments) = argv
            .split_first()
            .context("no program to run: give one after --")?;
        let (env, handles): (BTreeMap<String, String>, _) = exchange(&self.0, &Request::Enter { place })?;
        let namespaces = Namespaces::from_handles(handles).context("the keeper sent no namespaces")?;
        namespaces.run_from_outside(Command::new(program).args(arguments).envs(env))
    }

    /// What `warren status` says, then the lab's own facts. Returns the exit code of the former.
    pub fn status(&self, out: &mut impl Write) -> anyhow::Result<i32> {
        let facts: Facts = call(&self.0, &Request::Facts)?;
        let mut warren = Command::new(Binaries::find()?.get("warren")?);
        let status = warren
            .arg("status")
            .arg("--kubeconfig")
            .arg(self.0.kubeconfig())
            .status();
        let code = exit_code(status.context("run warren")?);
        write_facts(out, &facts)?;
        Ok(code)
    }

    /// The lab's facts in JSON.
    pub fn facts(&self, out: &mut impl Write) -> anyhow::Result<()> {
        let facts: Value = call(&self.0, &Request::Facts)?;
        writeln!(out, "{facts:#}").context("write")
    }

    /// Where the capture is and what it counts; with `follow` once a second, until the lab ends.
    pub fn capture(&self, follow: bool, out: &mut impl Write) -> anyhow::Result<()> {
        writeln!(out, "{}", self.0.pcap().display())?;
        let counts: Counts = call(&self.0, &Request::Counts)?;
        write_counts(out, &counts)?;
        if follow { self.follow(counts, out) } else { Ok(()) }
    }

    fn follow(&self, mut counts: Counts, out: &mut impl Write) -> anyhow::Result<()> {
        loop {
            thread::sleep(LOOK);
            let Ok(now) = call::<Counts>(&self.0, &Request::Counts) else {
                return Ok(());
            };
            let since = now.since(&counts);
            if since != Counts::default() {
                writeln!(
                    out,
                    "+{} wireguard, +{} plaintext, +{} api, +{} other",
                    since.wireguard(),
                    since.plaintext,
                    since.api,
                    since.neighbour + since.other
                )?;
            }
            counts = now;
        }
    }

    /// The path of a kubeconfig for the lab's API.
    pub fn kubeconfig(&self, out: &mut impl Write) -> anyhow::Result<()> {
        let _: Counts = call(&self.0, &Request::Counts)?;
        let path = self.0.kubeconfig();
        out.write_all(&std::fs::read(&path).with_context(|| format!("read {}", path.display()))?)
            .context("write")
    }

    /// Makes a pod and tells its addresses.
    pub fn pod_add(&self, pod: PodOptions, out: &mut impl Write) -> anyhow::Result<()> {
        let pod: PodFacts = call(&self.0, &Request::PodAdd(pod))?;
        writeln!(out, "{} on {}: {}", pod.key, pod.node, pod.addresses.join(", ")).context("write")
    }

    /// Removes one.
    pub fn pod_remove(&self, pod: PodKey) -> anyhow::Result<()> {
        call(&self.0, &Request::PodRemove { pod })
    }

    /// Asks the CNI plugins whether a pod is attached as it was.
    pub fn pod_check(&self, pod: PodKey) -> anyhow::Result<()> {
        let _: Value = call(
            &self.0,
            &Request::PodCni {
                pod,
                command: CniCommand::Check,
            },
        )?;
        Ok(())
    }

    /// Ends a node's agent.
    pub fn node_stop(&self, node: String, kill: bool) -> anyhow::Result<()> {
        call(&self.0, &Request::NodeStop { node, kill })
    }

    /// Starts it.
    pub fn node_start(&self, node: String) -> anyhow::Result<()> {
        call(
            &self.0,
            &Request::NodeStart {
                node,
                wireguard: None,
            },
        )
    }

    /// Takes a node's link down.
    pub fn node_cut(&self, node: String) -> anyhow::Result<()> {
        call(&self.0, &Request::NodeCut { node })
    }

    /// Takes it up.
    pub fn node_mend(&self, node: String) -> anyhow::Result<()> {
        call(&self.0, &Request::NodeMend { node })
    }

    /// Restarts a node.
    pub fn node_reboot(&self, node: String) -> anyhow::Result<()> {
        call(&self.0, &Request::NodeReboot { node })
    }
}

/// What a capture has counted, as lines for people.
pub(crate) fn write_counts(out: &mut impl Write, counts: &Counts) -> anyhow::Result<()> {
    let mut table = plain_table();
    for (kind, count, meaning) in [
        (
            "wireguard",
            counts.wireguard_data,
            "encrypted pod packets and keepalives",
        ),
        ("", counts.wireguard_handshake, "handshakes"),
        (
            "plaintext",
            counts.plaintext,
            "pod packets that anyone on the wire can read",
        ),
        ("api", counts.api, "agents and the Kubernetes API"),
        ("neighbour", counts.neighbour, "address resolution"),
        ("other", counts.other, "anything else"),
        ("missed", counts.missed, "not seen, for want of buffer"),
    ] {
        table.add_row([format!("  {kind}"), format!("{count:>8}"), meaning.to_owned()]);
    }
    write_table(out, &table)
}

fn write_facts(out: &mut impl Write, facts: &Facts) -> anyhow::Result<()> {
    let join = |items: &[ipnet::IpNet]| {
        items
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(", ")
    };
    let mut nodes = plain_table();
    nodes.set_header(["NODE", "SUBNET", "ADDRESSES", "POD CIDRS", "AGENT", "LINK"]);
    for node in &facts.nodes {
        nodes.add_row([
            node.name.clone(),
            node.subnet.to_string(),
            join(&node.addresses),
            join(&node.pod_cidrs),
            node.agent.clone(),
            if node.cut { "cut" } else { "up" }.to_owned(),
        ]);
    }
    writeln!(out)?;
    write_table(out, &nodes)?;
    if !facts.pods.is_empty() {
        let mut pods = plain_table();
        pods.set_header(["POD", "NODE", "ADDRESSES"]);
        for pod in &facts.pods {
            pods.add_row([pod.key.to_string(), pod.node.clone(), pod.addresses.join(", ")]);
        }
        writeln!(out)?;
        write_table(out, &pods)?;
    }
    writeln!(
        out,
        "\nAPI {}, underlay capture {}",
        facts.server,
        facts.pcap.display()
    )?;
    write_counts(out, &facts.counts)
}

fn plain_table() -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING);
    table
}

fn write_table(out: &mut impl Write, table: &Table) -> anyhow::Result<()> {
    for line in table.lines() {
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}
