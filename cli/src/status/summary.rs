//! The verdict: is all traffic between nodes encrypted, and is there a path to everywhere?

use warren_model::PathKind;
use warren_model::status::{AgentStatus, PeerStatus};

use super::report::StatusReport;
use crate::printable::printable;
use crate::units::{count, first_few};

/// How many paths are named in the verdict.
const NAMED: usize = 4;

/// Nodes, paths, and who reports them to the API.
pub(super) fn render(report: &StatusReport) -> String {
    let summary = &report.summary;
    let steward = report.steward.as_ref();
    let steward = steward.map(|it| format!("steward: {}\n", printable(&it.node)));
    format!(
        "ready: {} of {}\n{}\n{}",
        summary.ready,
        count(summary.nodes, "node"),
        paths(report),
        steward.unwrap_or_default()
    )
}

fn paths(report: &StatusReport) -> String {
    let counts = &report.summary.paths;
    let total = counts.total();
    if total == 0 {
        return "encrypted: there are no paths: no node has a peer that is known".to_owned();
    }
    let mut parts = vec![format!(
        "encrypted: {} of {}",
        counts.wireguard,
        count(total, "path")
    )];
    let silent = report.paths().filter(|(_, peer)| is_silent(peer)).count();
    if silent > 0 {
        parts.push(format!("without a handshake yet: {silent}"));
    }
    if counts.clear() > 0 {
        let kinds = [
            ("vxlan", counts.vxlan),
            ("ipip", counts.ipip),
            ("direct", counts.direct),
        ];
        let kinds: Vec<String> = kinds
            .into_iter()
            .filter(|(_, number)| *number > 0)
            .map(|(kind, number)| format!("{number} {kind}"))
            .collect();
        let named = named(report, |peer| peer.path.is_some_and(|path| !path.is_encrypted()));
        parts.push(format!("in the clear: {} ({named})", kinds.join(", ")));
    }
    if counts.none > 0 {
        let named = named(report, |peer| peer.path.is_none());
        parts.push(format!("no path: {} ({named})", counts.none));
    }
    if counts.unknown > 0 {
        parts.push(format!(
            "unknown: {} (their agents did not answer)",
            counts.unknown
        ));
    }
    parts.join("; ")
}

/// Whether a peer has an encrypted path on which nothing was heard from it.
fn is_silent(peer: &PeerStatus) -> bool {
    peer.path.is_some_and(PathKind::is_encrypted) && peer.handshake_age_seconds.is_none()
}

fn named(report: &StatusReport, of: impl Fn(&PeerStatus) -> bool) -> String {
    let name = |(agent, peer): (&AgentStatus, &PeerStatus)| {
        format!("{} to {}", agent.node.as_str(), peer.node.as_str())
    };
    let names: Vec<String> = report.paths().filter(|(_, peer)| of(peer)).map(name).collect();
    first_few(&names, NAMED)
}
