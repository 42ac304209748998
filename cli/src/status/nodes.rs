//! The table of nodes.

use warren_model::AnnouncedKey;
use warren_model::status::{AgentStatus, LaneStatus};

use super::report::{NodeReport, StatusReport};
use crate::table::Columns;

const NOTHING: &str = "-";

/// One row a node.
pub(super) fn render(report: &StatusReport) -> String {
    if report.nodes.is_empty() {
        return "The cluster has no nodes.\n".to_owned();
    }
    let mut names = vec!["NODE", "READY", "KEY", "EPOCH", "LANE", "PODS", "MTU", "PEERS"];
    let notes: Vec<String> = report.nodes.iter().map(note).collect();
    let has_notes = notes.iter().any(|note| !note.is_empty());
    if has_notes {
        names.push("NOTE");
    }
    let mut table = Columns::new(&names).right(5).right(6).right(7);
    for (node, note) in report.nodes.iter().zip(notes) {
        let mut cells = row(node);
        if has_notes {
            cells.push(note);
        }
        table.row(&cells);
    }
    table.render()
}

fn row(node: &NodeReport) -> Vec<String> {
    let mut cells = vec![node.node.clone(), ready(node).to_owned()];
    match &node.agent {
        Some(agent) => cells.extend([
            keys(&agent.keys, |key| key.public_key.short()),
            keys(&agent.keys, |key| key.epoch.to_string()),
            lanes(agent),
            agent.pods.to_string(),
            agent.pod_mtu.to_string(),
            peers(agent),
        ]),
        None => {
            let published = node
                .announcement
                .as_ref()
                .map(|it| it.keys.as_slice())
                .unwrap_or_default();
            cells.extend([
                keys(published, |key| key.public_key.short()),
                keys(published, |key| key.epoch.to_string()),
            ]);
            cells.extend([NOTHING; 4].map(str::to_owned));
        }
    }
    cells
}

fn ready(node: &NodeReport) -> &'static str {
    match (&node.agent, &node.agent_error) {
        (Some(agent), _) if agent.ready => "yes",
        (None, Some(error)) if !error.is_from_agent() => "unreachable",
        _ => "no",
    }
}

/// Both while a rotation is under way.
fn keys(keys: &[AnnouncedKey], text: impl Fn(&AnnouncedKey) -> String) -> String {
    if keys.is_empty() {
        return NOTHING.to_owned();
    }
    keys.iter().map(text).collect::<Vec<_>>().join(",")
}

/// The lanes that are up, and their kind of device.
fn lanes(agent: &AgentStatus) -> String {
    let up: Vec<&LaneStatus> = agent.lanes.iter().filter(|lane| lane.up).collect();
    match up.first() {
        Some(first) => {
            let names: Vec<&str> = up.iter().map(|lane| lane.interface.as_str()).collect();
            format!("{} ({})", names.join(","), first.device)
        }
        None if agent.encryption => "down".to_owned(),
        None => NOTHING.to_owned(),
    }
}

fn peers(agent: &AgentStatus) -> String {
    let reached = agent.peers.iter().filter(|peer| peer.path.is_some()).count();
    format!("{reached}/{}", agent.peers.len())
}

/// Why a row is not as it should be.
fn note(node: &NodeReport) -> String {
    let agent_error = node.agent_error.as_ref().map(ToString::to_string);
    let notes: Vec<String> = agent_error
        .into_iter()
        .chain(no_lane(node))
        .chain(node.announcement_error.clone())
        .collect();
    notes.join("; ")
}

/// Why encryption is wanted and there is no device for it.
fn no_lane(node: &NodeReport) -> Option<String> {
    let agent = node.agent.as_ref()?;
    let down = agent.encryption && agent.lanes.iter().all(|lane| !lane.up);
    let reason = &agent.lanes.first().filter(|_| down)?.reason;
    Some(format!("no lane is up: {reason}"))
}
