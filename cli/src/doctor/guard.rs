//! What bears Warren's mark: is the guard in force, and is anything left over.

use super::agent::AgentFacts;
use super::finding::Finding;
use super::node::{Marks, NodeFacts};
use crate::units::{count, first_few};

/// Reasons to drop that would have been packets in the clear.
const PLAINTEXT: [&str; 2] = ["plaintext-in", "plaintext-out"];

/// How many interfaces are named.
const NAMED: usize = 4;

/// What it means.
pub(super) fn judge(node: &NodeFacts, agent: &AgentFacts) -> Vec<Finding> {
    match &node.marks {
        Ok(marks) => vec![
            guard(marks, node, agent),
            leftovers(marks, node, agent),
            pod_interfaces(marks, node, agent),
        ],
        Err(error) => vec![Finding::fail(
            "guard",
            format!("the kernel cannot be asked: {error}"),
            "see nftables; run this as root, in the node's network",
        )],
    }
}

fn guard(marks: &Marks, node: &NodeFacts, agent: &AgentFacts) -> Finding {
    if marks.observed.guard.is_some() {
        let stopped: Vec<_> = marks
            .drops
            .iter()
            .filter(|drop| drop.packets > 0 && PLAINTEXT.contains(&drop.reason.as_str()))
            .map(|drop| format!("{} {}", drop.packets, drop.reason))
            .collect();
        return if stopped.is_empty() {
            Finding::ok("guard", "table inet warren is in force")
        } else {
            let found = format!(
                "table inet warren is in force, and has dropped {}",
                stopped.join(", ")
            );
            Finding::ok("guard", found)
        };
    }
    if !node.in_use {
        return Finding::skipped("guard", "no agent has been here");
    }
    let found = if marks.drops.is_empty() {
        "table inet warren is gone: what should be encrypted may leave in the clear"
    } else {
        "table inet warren was changed by hand, and may let through what should be encrypted"
    };
    let remedy = if agent.runs() {
        "the agent puts it back with its next pass, within 10 s; if it does not, see agent-pass. Find out what flushes the \
         rules: a firewall service that begins with `flush ruleset` must leave table inet warren alone"
    } else {
        "start the agent: it puts the table back before anything else"
    };
    Finding::fail("guard", found, remedy)
}

/// What an agent that is gone has left.
fn leftovers(marks: &Marks, node: &NodeFacts, agent: &AgentFacts) -> Finding {
    const CHECK: &str = "leftovers";
    if agent.runs() {
        return Finding::skipped(CHECK, "an agent runs: all of it is in use");
    }
    let mut left = Vec::new();
    if !marks.observed.links.is_empty() {
        let names: Vec<_> = marks.observed.links.keys().cloned().collect();
        left.push(format!("interfaces {}", first_few(&names, NAMED)));
    }
    if !marks.observed.routes.is_empty() {
        left.push(format!(
            "{} of protocol 87",
            count(marks.observed.routes.len(), "route")
        ));
    }
    if marks.observed.guard.is_some() || !marks.drops.is_empty() {
        left.push("table inet warren".to_owned());
    }
    if left.is_empty() {
        return Finding::ok(CHECK, "none");
    }
    let remedy = if node.in_use {
        "they carry and seal the pods' traffic until an agent runs again. If Warren is to leave this node: drain it, then \
         warren uninstall-node"
    } else {
        "Warren was taken off this node without its own removal: warren uninstall-node"
    };
    Finding::warn(
        CHECK,
        format!("no agent runs; left are {}", left.join(", ")),
        remedy,
    )
}

/// Veths and the record of pods must tell the same story.
fn pod_interfaces(marks: &Marks, node: &NodeFacts, agent: &AgentFacts) -> Finding {
    const CHECK: &str = "pod-interfaces";
    let recorded = match &node.attachments {
        Ok(recorded) => recorded,
        Err(error) => {
            return Finding::fail(
                CHECK,
                error.clone(),
                "an agent does not start with such a record, because it could give an address twice. Drain the node, remove \
                 the file, start the agent, and let the pods be made anew",
            );
        }
    };
    let is_veth = |name: &&String| name.starts_with(warren_plan::state::VETH_PREFIX);
    let present: Vec<_> = marks.observed.links.keys().filter(is_veth).collect();
    let mut odd: Vec<String> = present
        .iter()
        .filter(|name| !recorded.contains(**name))
        .map(|name| format!("{name} belongs to no pod on record"))
        .collect();
    odd.extend(
        recorded
            .iter()
            .filter(|name| !present.contains(name))
            .map(|name| format!("{name} is on record and gone")),
    );
    if odd.is_empty() {
        return Finding::ok(CHECK, format!("{}, all on record", count(present.len(), "veth")));
    }
    let remedy = if agent.runs() {
        "a pod that is just being attached or detached looks so for a moment; the agent puts the rest right within 10 s"
    } else {
        "the agent puts it right when it starts"
    };
    Finding::warn(CHECK, first_few(&odd, NAMED), remedy)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use std::collections::BTreeSet;

    use warren_kernel::DropCounter;
    use warren_plan::{Link, LinkKind};

    use super::*;
    use crate::doctor::agent::tests::healthy;
    use crate::doctor::finding::Verdict;

    fn node(links: &[&str], recorded: &[&str]) -> NodeFacts {
        let mut marks = Marks::default();
        marks.observed.guard = Some(7);
        for name in links {
            let link = Link {
                kind: LinkKind::Veth,
                mtu: 1440,
                up: true,
            };
            marks.observed.links.insert((*name).to_owned(), link);
        }
        NodeFacts {
            marks: Ok(marks),
            attachments: Ok(recorded.iter().map(|&it| it.to_owned()).collect::<BTreeSet<_>>()),
            in_use: true,
        }
    }

    fn result(check: &str, node: &NodeFacts, agent: &AgentFacts) -> Verdict {
        let findings = judge(node, agent);
        findings.iter().find(|it| it.check == check).unwrap().result
    }

    #[test]
    fn a_guard_that_is_gone_or_changed_is_a_failure_where_pods_may_be() {
        let (agent, mut node) = (AgentFacts::stopped(), node(&[], &[]));
        assert_eq!(result("guard", &node, &agent), Verdict::Ok);
        node.marks.as_mut().unwrap().observed.guard = None;
        assert_eq!(result("guard", &node, &agent), Verdict::Fail);
        let drop = DropCounter {
            reason: "plaintext-out".to_owned(),
            packets: 1,
            bytes: 60,
        };
        node.marks.as_mut().unwrap().drops.push(drop);
        assert!(judge(&node, &agent)[0].found.contains("changed by hand"));
        node.in_use = false;
        assert_eq!(result("guard", &node, &agent), Verdict::Skipped);
    }

    #[test]
    fn veths_and_records_are_compared_both_ways() {
        let agent = AgentFacts::answering(healthy());
        let both = node(&["warren0", "wrn1"], &["wrn1"]);
        assert_eq!(result("pod-interfaces", &both, &agent), Verdict::Ok);
        for (links, recorded) in [(&["wrn1"][..], &[][..]), (&[], &["wrn1"])] {
            let odd = node(links, recorded);
            assert_eq!(result("pod-interfaces", &odd, &agent), Verdict::Warn);
        }
        let damaged = NodeFacts {
            attachments: Err("damaged".to_owned()),
            ..node(&[], &[])
        };
        assert_eq!(result("pod-interfaces", &damaged, &agent), Verdict::Fail);
    }

    #[test]
    fn what_is_left_without_an_agent_is_told() {
        let left = node(&["warren0"], &[]);
        assert_eq!(result("leftovers", &left, &AgentFacts::stopped()), Verdict::Warn);
        let running = AgentFacts::answering(healthy());
        assert_eq!(result("leftovers", &left, &running), Verdict::Skipped);
    }
}
