//! The table of paths: one row from every node to each of its peers.

use warren_model::PathKind;
use warren_model::status::{AgentStatus, PeerStatus};

use super::report::StatusReport;
use crate::table::Columns;
use crate::units::{age, bytes, count};

/// As many paths as ten nodes have are listed without being asked for.
const LISTED: usize = 90;

/// How many paths with trouble are listed when the others are not.
const TROUBLED: usize = 20;

const NOTHING: &str = "-";

/// All paths, or of many those with trouble.
pub(super) fn render(report: &StatusReport, all: bool) -> String {
    let total = report.paths().count();
    if all || total <= LISTED {
        return table(report.paths());
    }
    let troubled = report
        .paths()
        .filter(|(agent, peer)| has_trouble(agent, peer))
        .count();
    if troubled == 0 {
        return format!(
            "{}, all as they should be; --peers lists them\n",
            count(total, "path")
        );
    }
    let shown = table(
        report
            .paths()
            .filter(|(agent, peer)| has_trouble(agent, peer))
            .take(TROUBLED),
    );
    let not_shown = match troubled.saturating_sub(TROUBLED) {
        0 => String::new(),
        more => format!("... and {more} more\n"),
    };
    let totals = count(total, "path");
    format!("{totals}, {troubled} of them with trouble; --peers lists all\n{shown}{not_shown}")
}

/// No path, or one in the clear where encryption is asked for.
fn has_trouble(agent: &AgentStatus, peer: &PeerStatus) -> bool {
    peer.path
        .is_none_or(|path| agent.encryption && !path.is_encrypted())
}

fn table<'a>(paths: impl Iterator<Item = (&'a AgentStatus, &'a PeerStatus)>) -> String {
    let paths: Vec<_> = paths.collect();
    if paths.is_empty() {
        return String::new();
    }
    let has_reasons = paths.iter().any(|(agent, peer)| has_trouble(agent, peer));
    let mut names = vec![
        "FROM",
        "TO",
        "PATH",
        "KEY",
        "EPOCH",
        "ENDPOINT",
        "HANDSHAKE",
        "RECEIVED",
        "SENT",
    ];
    if has_reasons {
        names.push("REASON");
    }
    let mut table = Columns::new(&names).right(7).right(8);
    for (agent, peer) in paths {
        let mut cells = row(agent, peer);
        if has_reasons {
            let reason = if has_trouble(agent, peer) {
                peer.reason.as_str()
            } else {
                ""
            };
            cells.push(reason.to_owned());
        }
        table.row(&cells);
    }
    table.render()
}

fn row(agent: &AgentStatus, peer: &PeerStatus) -> Vec<String> {
    let or_nothing = |text: Option<String>| text.unwrap_or_else(|| NOTHING.to_owned());
    let encrypted = peer.path.is_some_and(PathKind::is_encrypted);
    // A peer in the clear has no handshake to miss.
    let handshake =
        (encrypted || peer.handshake_age_seconds.is_some()).then(|| age(peer.handshake_age_seconds));
    vec![
        agent.node.as_str().to_owned(),
        peer.node.as_str().to_owned(),
        peer.path
            .map_or_else(|| "none".to_owned(), |path| path.to_string()),
        or_nothing(peer.public_key.map(|key| key.short())),
        or_nothing(peer.epoch.map(|epoch| epoch.to_string())),
        or_nothing(peer.endpoint.map(|endpoint| endpoint.to_string())),
        or_nothing(handshake),
        bytes(peer.rx_bytes),
        bytes(peer.tx_bytes),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::samples::large;

    #[test]
    fn of_many_paths_only_those_with_trouble_are_listed() {
        let whole = render(&large(11, 0), false);
        assert_eq!(whole, "110 paths, all as they should be; --peers lists them\n");
        assert_eq!(render(&large(11, 0), true).lines().count(), 1 + 110);
        assert_eq!(
            render(&large(10, 0), false).lines().count(),
            1 + 90,
            "ten nodes are listed"
        );

        let some = render(&large(11, 2), false);
        assert!(
            some.starts_with("110 paths, 2 of them with trouble; --peers lists all\n"),
            "{some}"
        );
        assert_eq!(some.lines().count(), 2 + 2, "{some}");

        let many = render(&large(11, 30), false);
        assert!(many.ends_with("... and 10 more\n"), "{many}");
    }
}
