//! `warren keys status`: where a rotation stands, and which keys wait for an operator.

use std::collections::BTreeMap;

use serde::Serialize;
use warren_model::status::{AgentStatus, KeyChange};
use warren_model::{Epoch, PublicKey};

use super::verify::Unanswered;
use crate::arguments::{KeysAgentsArguments, OutputFormat};
use crate::outcome::{self, Outcome};
use crate::printable::printable;
use crate::survey::{Survey, survey};
use crate::units::first_few;

/// How many of the things that are waited for are named, and of the agents that say the same.
const NAMED: usize = 3;

/// Asks and prints.
pub(super) async fn progress(arguments: KeysAgentsArguments) -> anyhow::Result<Outcome> {
    let progress = Progress::new(survey(&arguments.agents(), "/status").await?);
    match arguments.output {
        OutputFormat::Table => outcome::print(progress.render().as_bytes())?,
        OutputFormat::Json => outcome::print_json(&progress)?,
    };
    Ok(progress.outcome())
}

/// What `--output json` prints: fields are added, never changed or removed.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Progress {
    /// What the Mesh asks for, by the agent that knows the latest.
    epoch: Option<Epoch>,
    /// The newest epoch that every node that answers has settled in.
    settled: Option<Epoch>,
    /// Whether every node lives in that epoch and in no other.
    finished: bool,
    waiting: Vec<Waiting>,
    changes: Vec<Change>,
    unanswered: Vec<Unanswered>,
}

#[derive(Debug, Serialize)]
struct Waiting {
    node: String,
    r#for: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Change {
    node: String,
    epoch: Epoch,
    before: PublicKey,
    now: PublicKey,
    in_force: bool,
    seen_by: Vec<String>,
}

impl Progress {
    fn new(survey: Survey<AgentStatus>) -> Self {
        let (mut agents, mut unanswered) = (Vec::new(), Vec::new());
        for node in survey.nodes {
            match node.answer {
                Ok(agent) => agents.push(agent),
                Err(error) => unanswered.push(Unanswered::new(node.node, &error)),
            }
        }
        let epoch = agents.iter().map(|agent| agent.epoch).max();
        let lives_there =
            |agent: &AgentStatus| matches!(agent.keys.as_slice(), [key] if Some(key.epoch) == epoch);
        let waiting = agents.iter().filter(|agent| !agent.rotation_waits_for.is_empty());
        let waiting = waiting.map(|agent| Waiting {
            node: agent.node.to_string(),
            r#for: agent.rotation_waits_for.clone(),
        });
        Self {
            epoch,
            settled: agents.iter().map(|agent| agent.settled).min(),
            finished: unanswered.is_empty()
                && agents
                    .iter()
                    .all(|agent| lives_there(agent) && Some(agent.settled) == epoch),
            waiting: waiting.collect(),
            changes: changes(&agents),
            unanswered,
        }
    }

    fn outcome(&self) -> Outcome {
        let is_held = self.changes.iter().any(|change| !change.in_force);
        match self.finished && !is_held {
            true => Outcome::Done,
            false => Outcome::Short,
        }
    }

    fn render(&self) -> String {
        let mut text = match (self.epoch, self.settled) {
            (Some(epoch), _) if self.finished => format!("every node lives in epoch {epoch}\n"),
            (Some(epoch), Some(settled)) if settled < epoch => {
                format!("a rotation to epoch {epoch} is under way; all have settled in {settled}\n")
            }
            (Some(epoch), _) => format!("all that answer have settled in epoch {epoch}\n"),
            (None, _) => "no agent answers\n".to_owned(),
        };
        for waiting in &self.waiting {
            let things: Vec<String> = waiting.r#for.iter().map(|it| printable(it)).collect();
            text += &format!("{} waits: {}\n", waiting.node, first_few(&things, NAMED));
        }
        for change in &self.changes {
            let (verb, advice) = match change.in_force {
                true => ("was taken", "revoke"),
                false => ("is not in force", "accept"),
            };
            text += &format!(
                "{node}: its key of epoch {} changed from {} to {} outside a rotation and {verb} (warren keys {advice} {node}); seen \
                 by {}\n",
                change.epoch,
                change.before,
                change.now,
                first_few(&change.seen_by, NAMED),
                node = change.node,
            );
        }
        if !self.unanswered.is_empty() {
            text += "these agents do not answer:\n";
        }
        for silent in &self.unanswered {
            text += &format!("{}: {}\n", silent.node, printable(&silent.error));
        }
        text
    }
}

/// What agents say of changed keys, once however many say it.
fn changes(agents: &[AgentStatus]) -> Vec<Change> {
    let mut seen: BTreeMap<&KeyChange, Vec<String>> = BTreeMap::new();
    for agent in agents {
        for change in &agent.key_changes {
            seen.entry(change).or_default().push(agent.node.to_string());
        }
    }
    let change = |(change, seen_by): (&KeyChange, Vec<String>)| Change {
        node: change.node.to_string(),
        epoch: change.epoch,
        before: change.before,
        now: change.now,
        in_force: change.in_force,
        seen_by,
    };
    seen.into_iter().map(change).collect()
}
