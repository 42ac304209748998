//! All results, for people and for programs.

use serde::Serialize;

use super::finding::{Finding, Verdict};
use crate::printable::printable;
use crate::table::Columns;

/// What `warren doctor` prints.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    node: String,
    findings: Vec<Finding>,
    summary: Summary,
}

/// How many of each result.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
struct Summary {
    ok: usize,
    warn: usize,
    fail: usize,
    skipped: usize,
}

impl Report {
    /// Of these findings, in this order.
    pub(super) fn new(node: String, findings: Vec<Finding>) -> Self {
        let count = |verdict| {
            findings
                .iter()
                .filter(|finding| finding.result == verdict)
                .count()
        };
        let summary = Summary {
            ok: count(Verdict::Ok),
            warn: count(Verdict::Warn),
            fail: count(Verdict::Fail),
            skipped: count(Verdict::Skipped),
        };
        Self {
            node,
            findings,
            summary,
        }
    }

    /// Whether any check failed.
    pub(super) fn failed(&self) -> bool {
        self.summary.fail > 0
    }

    /// A table of all results, then the remedies of those that need one, then the count.
    pub(super) fn text(&self) -> String {
        let mut table = Columns::new(&["RESULT", "CHECK", "FOUND"]);
        let mut remedies = String::new();
        for finding in &self.findings {
            let name = match &finding.subject {
                Some(subject) => format!("{} {subject}", finding.check),
                None => finding.check.to_owned(),
            };
            if let Some(remedy) = &finding.remedy {
                let line = format!("{} {name}: {}", finding.result.word(), finding.found);
                remedies.push_str(&format!("\n{}\n  -> {}\n", printable(&line), printable(remedy)));
            }
            table.row(&[finding.result.word().to_owned(), name, finding.found.clone()]);
        }
        let Summary {
            ok,
            warn,
            fail,
            skipped,
        } = self.summary;
        let node = printable(&self.node);
        format!(
            "{}{remedies}\n{node}: {fail} failed, {warn} to look at, {ok} ok, {skipped} skipped\n",
            table.render()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_shown_with_its_remedy_and_counted() {
        let report = Report::new(
            "node1".to_owned(),
            vec![
                Finding::ok("agent", "it answers"),
                Finding::fail("forwarding", "net.ipv4.ip_forward is 0", "start the agent").about("IPv4"),
                Finding::skipped("vxlan", "no\u{1b}t used"),
            ],
        );
        assert!(report.failed());
        let text = report.text();
        assert!(
            text.contains("\nfail forwarding IPv4: net.ipv4.ip_forward is 0\n  -> start the agent\n"),
            "{text}"
        );
        assert!(
            text.ends_with("node1: 1 failed, 0 to look at, 1 ok, 1 skipped\n"),
            "{text}"
        );
        assert!(!text.contains('\u{1b}'), "{text}");
    }

    #[test]
    fn warnings_alone_are_no_failure() {
        let report = Report::new("n".to_owned(), vec![Finding::warn("clock", "off by 8 s", "ntp")]);
        assert!(!report.failed());
    }
}
