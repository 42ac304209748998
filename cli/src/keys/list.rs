//! `warren keys list`: every node's keys, and what a rotation waits for.

use serde::Serialize;
use warren_model::status::AgentStatus;
use warren_model::{Epoch, PublicKey};

use crate::answer::{self, AgentError};
use crate::arguments::{KeysListArguments, OutputFormat};
use crate::outcome::{self, Outcome};
use crate::printable::printable;
use crate::survey::{Survey, Surveyed, survey};
use crate::table::Columns;
use crate::units::{count, first_few};

/// How many of the things that a node waits for are named.
const NAMED: usize = 2;

/// Asks and prints.
pub(super) async fn list(arguments: KeysListArguments) -> anyhow::Result<Outcome> {
    let list = List::new(survey(&arguments.agents, "/status").await?);
    match arguments.agents.output {
        OutputFormat::Table => outcome::print(list.render().as_bytes()),
        OutputFormat::Json => outcome::print_json(&list),
    }
}

/// What `--output json` prints: fields are added, never changed or removed.
#[derive(Debug, Serialize)]
struct List {
    nodes: Vec<NodeKeys>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct NodeKeys {
    node: String,
    keys: Vec<Key>,
    settled: Option<Epoch>,
    waits_for: Vec<String>,
    #[serde(serialize_with = "answer::as_text")]
    agent_error: Option<AgentError>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Key {
    epoch: Epoch,
    lane: &'static str,
    public_key: PublicKey,
}

impl List {
    fn new(survey: Survey<AgentStatus>) -> Self {
        Self {
            nodes: survey.nodes.into_iter().map(NodeKeys::new).collect(),
        }
    }

    fn render(&self) -> String {
        let mut table = Columns::new(&["NODE", "EPOCH", "LANE", "PUBLIC KEY", "SETTLED", "WAITS FOR"])
            .right(1)
            .right(4);
        for node in &self.nodes {
            for line in node.lines() {
                table.row(&line);
            }
        }
        let newest = self
            .nodes
            .iter()
            .flat_map(|node| &node.keys)
            .map(|key| key.epoch)
            .max();
        let Some(newest) = newest else {
            return format!("{}no node publishes a key\n", table.render());
        };
        let there = self
            .nodes
            .iter()
            .filter(|node| node.lives_only_in(newest))
            .count();
        let all = count(self.nodes.len(), "node");
        format!(
            "{}epoch {newest}: {there} of {all} have no other key\n",
            table.render()
        )
    }
}

impl NodeKeys {
    fn new(surveyed: Surveyed<AgentStatus>) -> Self {
        let (agent, agent_error) = match surveyed.answer {
            Ok(agent) => (Some(agent), None),
            Err(error) => (None, Some(error)),
        };
        // What the node publishes is what its peers go by; asked by its socket, the agent knows.
        let published = surveyed.announcement.and_then(Result::ok);
        let (keys, settled) = match (&published, &agent) {
            (Some(published), _) => (published.keys.as_slice(), Some(published.settled)),
            (None, Some(agent)) => (agent.keys.as_slice(), Some(agent.settled)),
            (None, None) => (&[][..], None),
        };
        let keys = keys.iter().map(|key| Key {
            epoch: key.epoch,
            lane: key.epoch.lane().interface(),
            public_key: key.public_key,
        });
        Self {
            node: surveyed.node,
            keys: keys.collect(),
            settled,
            waits_for: agent.map(|agent| agent.rotation_waits_for).unwrap_or_default(),
            agent_error,
        }
    }

    fn lives_only_in(&self, epoch: Epoch) -> bool {
        matches!(self.keys.as_slice(), [key] if key.epoch == epoch)
    }

    /// A line for each key; what is about the node is on the first.
    fn lines(&self) -> Vec<[String; 6]> {
        let nothing = || "-".to_owned();
        let settled = self.settled.map_or_else(nothing, |epoch| epoch.to_string());
        let waits = match (&self.agent_error, self.waits_for.as_slice()) {
            (Some(error), _) => printable(&error.to_string()),
            (None, []) => nothing(),
            (None, waits) => {
                let waits: Vec<String> = waits.iter().map(|it| printable(it)).collect();
                first_few(&waits, NAMED)
            }
        };
        if self.keys.is_empty() {
            return vec![[self.node.clone(), nothing(), nothing(), nothing(), settled, waits]];
        }
        let line = |(at, key): (usize, &Key)| {
            let [node, settled, waits] = match at {
                0 => [self.node.clone(), settled.clone(), waits.clone()],
                _ => [String::new(), String::new(), String::new()],
            };
            [
                node,
                key.epoch.to_string(),
                key.lane.to_owned(),
                key.public_key.to_string(),
                settled,
                waits,
            ]
        };
        self.keys.iter().enumerate().map(line).collect()
    }
}
