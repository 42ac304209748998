//! What an operator should look at: refused objects, packets the guard or a device dropped, paths that lose packets of full
//! size, passes that failed.

use std::collections::BTreeMap;

use warren_model::Refusal;
use warren_model::status::KeyChange;

use super::report::StatusReport;
use crate::printable::printable;
use crate::table::Columns;
use crate::units::{bytes, first_few};

/// How many of the agents that say the same are named.
const NAMED: usize = 3;

/// The lists, those that are not empty.
pub(super) fn render(report: &StatusReport) -> String {
    let lists = [
        refusals(report),
        drops(report),
        device_drops(report),
        mtu_holes(report),
        rotation(report),
        key_changes(report),
        errors(report),
    ];
    let present: Vec<String> = lists.into_iter().filter(|list| !list.is_empty()).collect();
    present.join("\n")
}

/// What agents say of an object, once however many say it.
fn refusals(report: &StatusReport) -> String {
    let mut seen_by: BTreeMap<&Refusal, Vec<String>> = BTreeMap::new();
    for agent in report.agents() {
        for refusal in &agent.refusals {
            seen_by
                .entry(refusal)
                .or_default()
                .push(agent.node.as_str().to_owned());
        }
    }
    let line = |(refusal, nodes): (&Refusal, Vec<String>)| {
        let text = printable(&refusal.to_string());
        format!("  {text}; seen by {}\n", first_few(&nodes, NAMED))
    };
    let lines: String = seen_by.into_iter().map(line).collect();
    headed("Refused objects:", &lines)
}

fn drops(report: &StatusReport) -> String {
    let mut table = Columns::new(&["  NODE", "REASON", "PACKETS", "BYTES"])
        .right(2)
        .right(3);
    let mut any = false;
    for agent in report.agents() {
        for drop in agent.drops.iter().filter(|drop| drop.packets > 0) {
            any = true;
            let node = format!("  {}", agent.node.as_str());
            table.row(&[
                node,
                drop.reason.clone(),
                drop.packets.to_string(),
                bytes(drop.bytes),
            ]);
        }
    }
    if any {
        headed("Dropped by the guard:", &table.render())
    } else {
        String::new()
    }
}

/// What the devices have dropped, so far as they say.
fn device_drops(report: &StatusReport) -> String {
    let mut table = Columns::new(&["  NODE", "INTERFACE", "REASON", "PACKETS"]).right(3);
    let mut any = false;
    for agent in report.agents() {
        for lane in &agent.lanes {
            for (reason, packets) in lane.drops.iter().filter(|(_, packets)| **packets > 0) {
                any = true;
                table.row(&[
                    format!("  {}", agent.node.as_str()),
                    lane.interface.clone(),
                    printable(reason),
                    packets.to_string(),
                ]);
            }
        }
    }
    if any {
        headed("Dropped by WireGuard devices:", &table.render())
    } else {
        String::new()
    }
}

/// The paths on which packets of full size are lost.
fn mtu_holes(report: &StatusReport) -> String {
    let mut lines = String::new();
    for (agent, peer) in report.paths() {
        if let Some(hole) = peer.mtu_hole {
            lines += &format!(
                "  {} to {}: packets of {} bytes are lost, those of {} come through; pods have {}\n",
                agent.node, peer.node, hole.lost, hole.passes, agent.pod_mtu
            );
        }
    }
    headed("MTU black holes:", &lines)
}

/// What a rotation of keys waits for.
fn rotation(report: &StatusReport) -> String {
    let mut lines = String::new();
    for agent in report
        .agents()
        .filter(|agent| !agent.rotation_waits_for.is_empty())
    {
        let waits: Vec<String> = agent.rotation_waits_for.iter().map(|it| printable(it)).collect();
        lines += &format!("  {}: {}\n", agent.node.as_str(), first_few(&waits, NAMED));
    }
    headed("A rotation of keys waits for:", &lines)
}

/// Keys that changed by themselves, and are in force all the same; those that are not are refused.
fn key_changes(report: &StatusReport) -> String {
    let mut seen_by: BTreeMap<&KeyChange, Vec<String>> = BTreeMap::new();
    for agent in report.agents() {
        for change in agent.key_changes.iter().filter(|change| change.in_force) {
            seen_by
                .entry(change)
                .or_default()
                .push(agent.node.as_str().to_owned());
        }
    }
    let line = |(change, nodes): (&KeyChange, Vec<String>)| {
        format!(
            "  {} of epoch {}: {} came for {}; seen by {}\n",
            change.node,
            change.epoch,
            change.now,
            change.before,
            first_few(&nodes, NAMED)
        )
    };
    let lines: String = seen_by.into_iter().map(line).collect();
    headed("Keys that changed outside a rotation:", &lines)
}

fn errors(report: &StatusReport) -> String {
    let mut lines = String::new();
    for agent in report.agents() {
        if let Some(error) = &agent.last_error {
            lines += &format!("  {}: {}\n", agent.node.as_str(), printable(error));
        }
    }
    headed("Failed in the last pass:", &lines)
}

fn headed(title: &str, lines: &str) -> String {
    if lines.is_empty() {
        String::new()
    } else {
        format!("{title}\n{lines}")
    }
}
