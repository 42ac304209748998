//! `warren keys verify`: what the agents' devices hold, against what nodes publish.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use warren_model::status::{AgentStatus, PeerStatus};
use warren_model::{Announcement, Epoch, Lane, PathKind, PublicKey};

use crate::answer::AgentError;
use crate::arguments::{KeysAgentsArguments, OutputFormat};
use crate::outcome::{self, Outcome};
use crate::printable::printable;
use crate::survey::{Survey, survey};
use crate::table::Columns;
use crate::units::count;

/// How often it is looked while something differs: agents and the API are not asked in the same instant.
const LOOKS: usize = 3;

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(1);

/// Asks, compares and prints.
pub(super) async fn verify(arguments: KeysAgentsArguments) -> anyhow::Result<Outcome> {
    let mut report = Report::new(survey(&arguments.agents(), "/status").await?);
    for _ in 1..LOOKS {
        if report.differences.is_empty() {
            break;
        }
        tokio::time::sleep(PAUSE).await;
        report = report.that_stays(Report::new(survey(&arguments.agents(), "/status").await?));
    }
    match arguments.output {
        OutputFormat::Table => outcome::print(report.render().as_bytes())?,
        OutputFormat::Json => outcome::print_json(&report)?,
    };
    Ok(
        match report.differences.is_empty() && report.unanswered.is_empty() {
            true => Outcome::Done,
            false => Outcome::Short,
        },
    )
}

/// What `--output json` prints: fields are added, never changed or removed.
#[derive(Debug, Serialize)]
struct Report {
    /// Agents that answered.
    agents: usize,
    /// Views of a node's key in a lane that were compared.
    compared: usize,
    differences: Vec<Difference>,
    unanswered: Vec<Unanswered>,
}

/// An agent's view of a node's key that is not what the API shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Difference {
    agent: String,
    node: String,
    lane: &'static str,
    /// What the node publishes; `None`: nothing that this agent can use.
    published: Option<PublicKey>,
    /// What the agent's device holds; `None`: nothing of that node.
    held: Option<PublicKey>,
}

/// A node whose agent does not answer.
#[derive(Debug, Serialize)]
pub(super) struct Unanswered {
    pub(super) node: String,
    pub(super) error: String,
}

impl Unanswered {
    pub(super) fn new(node: String, error: &AgentError) -> Self {
        Self {
            node,
            error: error.to_string(),
        }
    }
}

impl Report {
    fn new(survey: Survey<AgentStatus>) -> Self {
        let mut published = BTreeMap::new();
        let (mut agents, mut unanswered) = (Vec::new(), Vec::new());
        for node in survey.nodes {
            if let Some(Ok(says)) = node.announcement {
                published.insert(node.node.clone(), says);
            }
            match node.answer {
                Ok(agent) => agents.push(agent),
                Err(error) => unanswered.push(Unanswered::new(node.node, &error)),
            }
        }
        let mut report = Self {
            agents: agents.len(),
            compared: 0,
            differences: Vec::new(),
            unanswered,
        };
        for agent in &agents {
            report.compare_own(agent, published.get(agent.node.as_str()));
            // Without encryption a peer may be in no device, and need not be.
            for peer in agent.peers.iter().filter(|_| agent.encryption) {
                report.compare(agent, peer, published.get(peer.node.as_str()));
            }
        }
        report
    }

    /// What a node publishes, against the keys of its own devices.
    fn compare_own(&mut self, agent: &AgentStatus, says: Option<&Announcement>) {
        for lane in agent.lanes.iter().filter(|lane| lane.up) {
            let published = says.and_then(|says| in_lane(says, lane.lane));
            // A device that holds no key is one that no epoch needs.
            if published.is_some() || lane.public_key.is_some() {
                self.add(
                    agent,
                    agent.node.as_str(),
                    lane.lane,
                    published.map(|(_, key)| key),
                    lane.public_key,
                );
            }
        }
    }

    /// What a peer publishes, against what the agent's devices hold of it, in each lane that both use.
    fn compare(&mut self, agent: &AgentStatus, peer: &PeerStatus, says: Option<&Announcement>) {
        if peer.pod_cidrs.is_empty() {
            return;
        }
        let says = says.filter(|says| says.paths.contains(&PathKind::Wireguard));
        for lane in Lane::ALL {
            let own = agent.keys.iter().find(|key| key.epoch.lane() == lane);
            let published = says
                .and_then(|says| in_lane(says, lane))
                .filter(|(epoch, _)| own.is_some_and(|own| own.epoch == *epoch))
                .map(|(_, key)| key);
            let mut held = peer.keys.iter().filter(|key| key.lane == lane).peekable();
            if held.peek().is_none() && published.is_some() {
                self.add(agent, peer.node.as_str(), lane, published, None);
            }
            for held in held {
                self.add(agent, peer.node.as_str(), lane, published, Some(held.public_key));
            }
        }
    }

    fn add(
        &mut self,
        agent: &AgentStatus,
        node: &str,
        lane: Lane,
        published: Option<PublicKey>,
        held: Option<PublicKey>,
    ) {
        self.compared += 1;
        if published != held {
            self.differences.push(Difference {
                agent: agent.node.to_string(),
                node: node.to_owned(),
                lane: lane.interface(),
                published,
                held,
            });
        }
    }

    /// A later look, with what it has in common with this one: the rest was on its way.
    fn that_stays(self, mut later: Self) -> Self {
        later.differences.retain(|it| self.differences.contains(it));
        later
    }

    fn render(&self) -> String {
        let mut text = String::new();
        if !self.differences.is_empty() {
            let mut table = Columns::new(&["AGENT", "NODE", "LANE", "PUBLISHED", "HELD"]);
            for it in &self.differences {
                let key = |key: Option<PublicKey>| key.map_or_else(|| "-".to_owned(), |key| key.to_string());
                table.row(&[
                    it.agent.clone(),
                    it.node.clone(),
                    it.lane.to_owned(),
                    key(it.published),
                    key(it.held),
                ]);
            }
            text += &table.render();
        }
        for silent in &self.unanswered {
            text += &format!("{} does not answer: {}\n", silent.node, printable(&silent.error));
        }
        let differ = match self.differences.len() {
            0 => "all as published".to_owned(),
            differ => format!("{differ} not as published"),
        };
        let views = count(self.compared, "view");
        text + &format!("{views} of keys by {}: {differ}\n", count(self.agents, "agent"))
    }
}

fn in_lane(says: &Announcement, lane: Lane) -> Option<(Epoch, PublicKey)> {
    let key = says.keys.iter().find(|key| key.epoch.lane() == lane)?;
    Some((key.epoch, key.public_key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::samples;
    use warren_model::status::HeldKey;

    /// Two agents, each of which holds the other's key.
    fn whole() -> Survey<AgentStatus> {
        let node = |name: &str, peer: &str| {
            let mut agent = samples::agent(name, vec![samples::peer(peer, 3)]);
            for lane in &mut agent.lanes {
                let own = samples::key(name, 3);
                lane.public_key = (own.epoch.lane() == lane.lane).then_some(own.public_key);
            }
            let theirs = samples::key(peer, 3);
            agent.peers[0].pod_cidrs = vec!["10.244.1.0/24".parse().expect("a pod CIDR")];
            agent.peers[0].keys = vec![HeldKey {
                lane: theirs.epoch.lane(),
                public_key: theirs.public_key,
            }];
            agent
        };
        let surveyed = |name: &str, peer: &str| samples::surveyed(name, Ok(node(name, peer)));
        Survey {
            nodes: vec![surveyed("a", "b"), surveyed("b", "a")],
            cluster_size: Some(2),
        }
    }

    fn agent<'a>(survey: &'a mut Survey<AgentStatus>, name: &str) -> &'a mut AgentStatus {
        let node = survey.nodes.iter_mut().find(|it| it.node == name);
        let answer = node.map(|it| it.answer.as_mut());
        answer.and_then(Result::ok).expect("this agent answers")
    }

    #[test]
    fn what_devices_hold_is_compared_with_what_nodes_publish() {
        let report = Report::new(whole());
        assert_eq!((report.agents, report.compared), (2, 4), "{report:?}");
        assert_eq!(report.differences, []);
    }

    #[test]
    fn another_key_a_missing_one_and_one_too_many_are_found() {
        let mut survey = whole();
        let (other, published) = (samples::key("other", 3), samples::key("b", 3));
        let lane = published.epoch.lane();
        agent(&mut survey, "a").peers[0].keys[0].public_key = other.public_key;
        let [found] = Report::new(survey)
            .differences
            .try_into()
            .expect("one difference");
        assert_eq!(
            found,
            Difference {
                agent: "a".to_owned(),
                node: "b".to_owned(),
                lane: lane.interface(),
                published: Some(published.public_key),
                held: Some(other.public_key),
            }
        );

        let mut survey = whole();
        agent(&mut survey, "a").peers[0].keys.clear();
        let [found] = Report::new(survey)
            .differences
            .try_into()
            .expect("one difference");
        assert_eq!((found.published, found.held), (Some(published.public_key), None));

        let mut survey = whole();
        survey.nodes[1].announcement = None;
        let differences = Report::new(survey).differences;
        assert!(
            differences
                .iter()
                .any(|it| it.agent == "a" && it.published.is_none()),
            "{differences:?}"
        );
    }

    #[test]
    fn what_differs_in_one_look_only_was_on_its_way() {
        let mut survey = whole();
        agent(&mut survey, "a").peers[0].keys.clear();
        let before = Report::new(survey);
        assert_eq!(before.differences.len(), 1);
        assert_eq!(before.that_stays(Report::new(whole())).differences, []);
    }
}
