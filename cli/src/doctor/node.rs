//! What several checks look at: what bears Warren's mark in the kernel, and whether the node is one of ours at all.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use serde::Deserialize;
use warren_kernel::{DropCounter, Kernel, KernelConfig};
use warren_plan::Observed;

use super::agent::AgentFacts;
use super::cni::CONFIGURATION;
use super::settings::Settings;

/// The node as it is now.
#[derive(Debug)]
pub(super) struct NodeFacts {
    /// What bears our mark in the kernel, or why that cannot be said.
    pub(super) marks: Result<Marks, String>,
    /// The host sides of the pods on record, or why the record cannot be read.
    pub(super) attachments: Result<BTreeSet<String>, String>,
    /// Whether pods are or may be here: an agent runs, or one has been here and was not uninstalled.
    pub(super) in_use: bool,
}

/// What bears our mark.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// Interfaces, routes and the guard's fingerprint.
    pub(super) observed: Observed,
    /// What the guard has dropped; empty without a table.
    pub(super) drops: Vec<DropCounter>,
}

impl NodeFacts {
    /// Looks.
    pub(super) async fn gather(settings: &Settings, agent: &AgentFacts) -> Self {
        let was_here = settings.cni_conf_dir.join(CONFIGURATION).exists()
            || fs::read_dir(settings.state_dir.join("keys"))
                .is_ok_and(|mut entries| entries.next().is_some());
        Self {
            marks: marks(&settings.state_dir).await,
            attachments: attachments(&settings.state_dir.join("attachments.json")),
            in_use: agent.runs() || was_here,
        }
    }

    /// The names of our interfaces.
    pub(super) fn links(&self) -> Vec<&str> {
        let links = self.marks.iter().flat_map(|marks| marks.observed.links.keys());
        links.map(String::as_str).collect()
    }
}

async fn marks(state_dir: &Path) -> Result<Marks, String> {
    let look = async {
        let kernel = Kernel::new(KernelConfig {
            state_dir: state_dir.to_owned(),
            ..KernelConfig::default()
        })?;
        Ok(Marks {
            observed: kernel.observe(&[]).await?,
            drops: kernel.guard_counters().await?,
        })
    };
    look.await
        .map_err(|error: warren_kernel::KernelError| format!("{:#}", anyhow::Error::from(error)))
}

/// The part of the agent's record that matters here.
#[derive(Deserialize)]
struct Record {
    attachments: Vec<Attached>,
}

#[derive(Deserialize)]
struct Attached {
    interface: String,
}

fn attachments(path: &Path) -> Result<BTreeSet<String>, String> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        Err(error) => return Err(format!("cannot read {}: {error}", path.display())),
    };
    let record: Record =
        serde_json::from_slice(&text).map_err(|error| format!("{} is damaged: {error}", path.display()))?;
    Ok(record.attachments.into_iter().map(|it| it.interface).collect())
}
