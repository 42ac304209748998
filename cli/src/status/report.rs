//! The report as a value, which is what `--output json` prints: fields are added, never changed or removed.

use serde::Serialize;
use warren_model::status::{AgentStatus, PeerStatus, StewardStatus};
use warren_model::{Announcement, PathKind};

use super::clear::{self, Clear};
use crate::answer::{self, AgentError};
use crate::survey::{Survey, Surveyed};

/// The mesh as all agents see it.
#[derive(Debug, Serialize)]
pub(super) struct StatusReport {
    /// One a node that was asked, by name.
    pub(super) nodes: Vec<NodeReport>,
    /// All of it in numbers.
    pub(super) summary: Summary,
    /// Who writes the Mesh's status and Events: as the agent knows it that has heard of the latest term. `None`: nobody
    /// has yet, or no agent that answers knows.
    pub(super) steward: Option<StewardStatus>,
    /// What crosses between nodes in the clear by configuration; empty: nothing, as far as the agents answer.
    #[serde(rename = "inTheClear")]
    pub(super) in_the_clear: Vec<Clear>,
}

/// One node.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NodeReport {
    /// Its name.
    pub(super) node: String,
    /// What it publishes.
    pub(super) announcement: Option<Announcement>,
    /// Why there is nothing that it publishes; also `None` with `--local`, which does not look.
    pub(super) announcement_error: Option<String>,
    /// What its agent answers.
    pub(super) agent: Option<AgentStatus>,
    /// Why its agent does not answer.
    #[serde(serialize_with = "answer::as_text")]
    pub(super) agent_error: Option<AgentError>,
}

/// The mesh in numbers.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    /// Nodes that were asked.
    pub(super) nodes: usize,
    /// Those whose agent answers that it is ready.
    pub(super) ready: usize,
    /// Whether every agent is ready and every path of theirs is there.
    pub(super) whole: bool,
    /// Paths, from each node that was asked to each of its peers.
    pub(super) paths: PathCounts,
}

/// How many paths there are of a kind.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct PathCounts {
    /// Encrypted.
    pub(super) wireguard: usize,
    /// In the clear.
    pub(super) vxlan: usize,
    /// In the clear.
    pub(super) ipip: usize,
    /// In the clear.
    pub(super) direct: usize,
    /// Peers that are not reached.
    pub(super) none: usize,
    /// Of nodes whose agent did not answer.
    pub(super) unknown: usize,
}

impl PathCounts {
    /// All of them.
    pub(super) fn total(&self) -> usize {
        self.wireguard + self.clear() + self.none + self.unknown
    }

    /// Those in the clear.
    pub(super) fn clear(&self) -> usize {
        self.vxlan + self.ipip + self.direct
    }

    fn count(&mut self, peer: &PeerStatus) {
        *match peer.path {
            Some(PathKind::Wireguard) => &mut self.wireguard,
            Some(PathKind::Vxlan) => &mut self.vxlan,
            Some(PathKind::Ipip) => &mut self.ipip,
            Some(PathKind::Direct) => &mut self.direct,
            None => &mut self.none,
        } += 1;
    }
}

impl StatusReport {
    /// Of what the agents answered.
    pub(super) fn new(survey: Survey<AgentStatus>) -> Self {
        let asked_api = survey.cluster_size.is_some();
        let nodes: Vec<NodeReport> = survey
            .nodes
            .into_iter()
            .map(|surveyed| NodeReport::new(surveyed, asked_api))
            .collect();
        let summary = Summary::new(&nodes, survey.cluster_size);
        let in_the_clear = clear::of(nodes.iter().filter_map(|node| node.agent.as_ref()));
        let known = nodes
            .iter()
            .filter_map(|node| node.agent.as_ref()?.steward.clone());
        let steward = known.max_by_key(|steward| steward.term);
        Self {
            nodes,
            summary,
            steward,
            in_the_clear,
        }
    }

    /// What the agents that answered said.
    pub(super) fn agents(&self) -> impl Iterator<Item = &AgentStatus> {
        self.nodes.iter().filter_map(|node| node.agent.as_ref())
    }

    /// Every path that an agent reports: from which node, and to which peer.
    pub(super) fn paths(&self) -> impl Iterator<Item = (&AgentStatus, &PeerStatus)> {
        self.agents()
            .flat_map(|agent| agent.peers.iter().map(move |peer| (agent, peer)))
    }
}

impl NodeReport {
    fn new(surveyed: Surveyed<AgentStatus>, asked_api: bool) -> Self {
        let (announcement, announcement_error) = match surveyed.announcement {
            Some(Ok(announcement)) => (Some(announcement), None),
            Some(Err(error)) => (None, Some(format!("the annotation {error}"))),
            None => (
                None,
                asked_api.then(|| "its agent has published nothing yet".to_owned()),
            ),
        };
        let (agent, agent_error) = match surveyed.answer {
            Ok(agent) => (Some(agent), None),
            Err(error) => (None, Some(error)),
        };
        // Asked by its socket, only the agent knows what its Node is called.
        let own_name = agent
            .as_ref()
            .filter(|_| !asked_api)
            .map(|agent| agent.node.as_str());
        Self {
            node: own_name.map_or(surveyed.node, str::to_owned),
            announcement,
            announcement_error,
            agent,
            agent_error,
        }
    }
}

impl Summary {
    fn new(nodes: &[NodeReport], cluster_size: Option<usize>) -> Self {
        let mut paths = PathCounts::default();
        for node in nodes {
            match &node.agent {
                Some(agent) => agent.peers.iter().for_each(|peer| paths.count(peer)),
                None => paths.unknown += cluster_size.unwrap_or_default().saturating_sub(1),
            }
        }
        let is_ready = |node: &&NodeReport| node.agent.as_ref().is_some_and(|agent| agent.ready);
        let ready = nodes.iter().filter(is_ready).count();
        Self {
            nodes: nodes.len(),
            ready,
            whole: !nodes.is_empty() && ready == nodes.len() && paths.none == 0 && paths.unknown == 0,
            paths,
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::status::samples::{agent, local, mesh, peer, surveyed, troubled};

    #[test]
    fn a_mesh_is_whole_when_every_agent_is_ready_and_reaches_all_its_peers() {
        let whole = |agents: Vec<AgentStatus>| {
            let nodes = agents.into_iter().map(|agent| surveyed("x", Ok(agent))).collect();
            let cluster_size = Some(2);
            StatusReport::new(Survey { nodes, cluster_size }).summary.whole
        };
        let ready = || agent("a", vec![peer("b", 3)]);
        assert!(whole(vec![ready()]));
        assert!(!whole(vec![]), "an empty cluster has no mesh");
        let mut starting = ready();
        starting.ready = false;
        assert!(!whole(vec![ready(), starting]));
        let mut cut_off = ready();
        cut_off.peers[0].path = None;
        assert!(!whole(vec![cut_off]));
    }

    #[test]
    fn the_paths_of_an_agent_that_does_not_answer_are_unknown_and_not_absent() {
        let summary = troubled().summary;
        assert_eq!(summary.paths.unknown, 4, "one agent of a cluster of five");
        assert_eq!((summary.nodes, summary.ready), (5, 3));
        assert!(!summary.whole);
    }

    #[test]
    fn the_json_has_the_shape_that_is_documented() {
        let value = serde_json::to_value(mesh()).unwrap();
        assert_eq!(
            value["summary"],
            json!({
                "nodes": 3, "ready": 3, "whole": true,
                "paths": {"wireguard": 6, "vxlan": 0, "ipip": 0, "direct": 0, "none": 0, "unknown": 0},
            })
        );
        assert_eq!(value["inTheClear"], json!([]));
        let node = &value["nodes"][0];
        assert_eq!(node["node"], "a");
        assert_eq!(node["announcement"]["keys"][0]["epoch"], 3);
        assert_eq!(node["announcementError"], Value::Null);
        assert_eq!(node["agent"]["peers"][0]["node"], "b");
        assert_eq!(node["agentError"], Value::Null);
        assert_eq!(node.as_object().unwrap().len(), 5, "no undocumented field");

        let value = serde_json::to_value(troubled()).unwrap();
        let silent = &value["nodes"][3];
        assert_eq!(silent["agent"], Value::Null);
        assert_eq!(silent["agentError"], "no answer within 5 s");
        assert_eq!(silent["announcement"], Value::Null);
        assert_eq!(silent["announcementError"], "its agent has published nothing yet");
    }

    #[test]
    fn asked_by_its_socket_an_agent_tells_its_nodes_name() {
        let report = local(Ok(agent("node-of-another-name", Vec::new())));
        assert_eq!(report.nodes[0].node, "node-of-another-name");
        assert_eq!(report.nodes[0].announcement_error, None, "nobody looked");
        let report = local(Err(AgentError::TimedOut));
        assert_eq!(report.nodes[0].node, "this-host");
        assert!(!report.summary.whole);
    }
}
