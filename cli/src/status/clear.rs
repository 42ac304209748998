//! What crosses between nodes in the clear because the configuration says so: which peers, by which path, and why.

use std::collections::BTreeMap;

use serde::Serialize;
use warren_model::PathKind;
use warren_model::status::AgentStatus;

use crate::printable::printable;
use crate::units::first_few;

/// How many of the pairs that have the same path for the same reason are named to people.
const NAMED: usize = 6;

/// The pairs of nodes of which one sends to the other in the clear, by the same path and for the same reason.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Clear {
    /// What is readable on the wire.
    pub(super) path: PathKind,
    /// What of the configuration asks for it.
    pub(super) reason: String,
    /// All of them.
    pub(super) pairs: Vec<Pair>,
}

/// A node and one of its peers.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Pair {
    /// Who sends.
    pub(super) from: String,
    /// To whose pods.
    pub(super) to: String,
}

/// Of what the agents report. No agent takes a path in the clear for another reason than the configuration.
pub(super) fn of<'a>(agents: impl Iterator<Item = &'a AgentStatus>) -> Vec<Clear> {
    let mut groups: BTreeMap<(PathKind, &str), Vec<Pair>> = BTreeMap::new();
    for agent in agents {
        for peer in &agent.peers {
            if let Some(path) = peer.path.filter(|path| !path.is_encrypted()) {
                let pairs = groups.entry((path, &peer.reason)).or_default();
                pairs.push(Pair {
                    from: agent.node.to_string(),
                    to: peer.node.to_string(),
                });
            }
        }
    }
    let clear = |((path, reason), pairs): ((PathKind, &str), Vec<Pair>)| Clear {
        path,
        reason: reason.to_owned(),
        pairs,
    };
    groups.into_iter().map(clear).collect()
}

/// A line for each path and reason.
pub(super) fn render(in_the_clear: &[Clear]) -> String {
    let mut text = String::new();
    for clear in in_the_clear {
        let names: Vec<String> = clear
            .pairs
            .iter()
            .map(|pair| format!("{} to {}", pair.from, pair.to))
            .collect();
        let (path, reason) = (clear.path, printable(&clear.reason));
        text += &format!("  {path}, because {reason}: {}\n", first_few(&names, NAMED));
    }
    if text.is_empty() {
        return text;
    }
    format!("In the clear by configuration:\n{text}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::samples::{in_the_clear, mesh};

    #[test]
    fn a_mesh_that_is_encrypted_has_nothing_in_the_clear() {
        assert_eq!(mesh().in_the_clear, []);
        assert_eq!(render(&mesh().in_the_clear), "");
    }

    #[test]
    fn each_path_in_the_clear_is_told_with_its_reason_and_who_is_concerned() {
        insta::assert_snapshot!(render(&in_the_clear().in_the_clear), @r"
        In the clear by configuration:
          vxlan, because the peer cannot do WireGuard and spec.fallback allows vxlan: a to c, b to c
          direct, because encryption is off and the peer is in this subnet: c to a
        ");
        assert_eq!(
            serde_json::to_value(&in_the_clear().in_the_clear).ok(),
            Some(serde_json::json!([
                {
                    "path": "vxlan",
                    "reason": "the peer cannot do WireGuard and spec.fallback allows vxlan",
                    "pairs": [{"from": "a", "to": "c"}, {"from": "b", "to": "c"}],
                },
                {
                    "path": "direct",
                    "reason": "encryption is off and the peer is in this subnet",
                    "pairs": [{"from": "c", "to": "a"}],
                },
            ]))
        );
    }
}
