//! The lanes' WireGuard devices: which kind, why, and whether they answer.

use std::time::SystemTime;

use warren_dataplane::client::Userspace;
use warren_kernel::KernelWireguard;
use warren_model::Lane;
use warren_model::status::LaneStatus;

use super::agent::AgentFacts;
use super::finding::Finding;
use super::node::NodeFacts;
use super::settings::Settings;

const CHECK: &str = "wireguard-device";

/// What answers for each lane, in their order: `kernel`, `userspace` or nothing.
pub(super) type DeviceFacts = Vec<(Lane, Option<&'static str>)>;

/// Asks the devices themselves.
pub(super) async fn gather(settings: &Settings) -> DeviceFacts {
    let userspace = Userspace::new(&settings.wireguard_dir, "warren-wg");
    let mut devices = Vec::new();
    for lane in Lane::ALL {
        let kind = match userspace.observe(lane.interface()).await {
            Ok(Some(_)) => Some("userspace"),
            _ => is_of_kernel(lane).await.then_some("kernel"),
        };
        devices.push((lane, kind));
    }
    devices
}

async fn is_of_kernel(lane: Lane) -> bool {
    let Ok(kernel) = KernelWireguard::new() else {
        return false;
    };
    let observed = kernel.observe(lane.interface(), SystemTime::now()).await;
    observed.is_ok_and(|device| device.is_some())
}

/// What it means.
pub(super) fn judge(devices: &DeviceFacts, agent: &AgentFacts, node: &NodeFacts) -> Finding {
    match &agent.status {
        Ok(status) => of_agent(&status.lanes, devices, status.encryption),
        Err(_) if !node.in_use => Finding::skipped(CHECK, "no agent has been here"),
        Err(_) => without_agent(devices, &node.links()),
    }
}

fn of_agent(lanes: &[LaneStatus], devices: &DeviceFacts, encryption: bool) -> Finding {
    let Some(first) = lanes.first() else {
        return Finding::skipped(CHECK, "the agent tells of no lane");
    };
    let why = format!("{}: {}", first.device, first.reason);
    if first.device == "none" {
        let remedy = "load the module wireguard or tun and restart the agent";
        return if encryption {
            Finding::fail(
                CHECK,
                why,
                format!("{remedy}; until then nothing reaches other nodes"),
            )
        } else {
            Finding::warn(CHECK, why, format!("{remedy}, before encryption is turned on"))
        };
    }
    let answers = |lane: Lane| {
        devices
            .iter()
            .any(|&(other, kind)| other == lane && kind.is_some())
    };
    let down: Vec<_> = lanes
        .iter()
        .filter(|lane| !lane.up || !answers(lane.lane))
        .map(|lane| lane.interface.as_str())
        .collect();
    if down.is_empty() {
        Finding::ok(CHECK, why)
    } else {
        Finding::fail(
            CHECK,
            format!("{} not up ({why})", down.join(" and ")),
            "the agent makes a device that is gone anew with its next pass; if it stays so, agent-pass says what was refused",
        )
    }
}

fn without_agent(devices: &DeviceFacts, links: &[&str]) -> Finding {
    let dead: Vec<String> = devices
        .iter()
        .filter(|(_, kind)| kind.is_none())
        .map(|(lane, _)| {
            if links.contains(&lane.interface()) {
                format!("{lane} is there, but no device answers for it")
            } else {
                format!("{lane} is gone")
            }
        })
        .collect();
    if dead.is_empty() {
        let kinds: Vec<_> = devices
            .iter()
            .map(|(lane, kind)| format!("{lane} {}", kind.unwrap_or_default()))
            .collect();
        Finding::ok(
            CHECK,
            format!("{}: they go on without an agent", kinds.join(", ")),
        )
    } else {
        Finding::fail(
            CHECK,
            dead.join("; "),
            "start the agent, it makes the device anew; until then packets for other nodes are dropped, none leaves in the \
             clear",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::agent::tests::healthy;
    use crate::doctor::finding::Verdict;
    use crate::doctor::node::Marks;

    fn both(kind: Option<&'static str>) -> DeviceFacts {
        vec![(Lane::Zero, Some("userspace")), (Lane::One, kind)]
    }

    fn node(in_use: bool) -> NodeFacts {
        NodeFacts {
            marks: Ok(Marks::default()),
            attachments: Ok([].into()),
            in_use,
        }
    }

    #[test]
    fn a_dead_device_is_found_with_and_without_an_agent() {
        let running = AgentFacts::answering(healthy());
        for agent in [running, AgentFacts::stopped()] {
            let alive = judge(&both(Some("userspace")), &agent, &node(true));
            assert_eq!(alive.result, Verdict::Ok, "{alive:?}");
            let dead = judge(&both(None), &agent, &node(true));
            assert_eq!(dead.result, Verdict::Fail);
            assert!(
                dead.found.contains("warren1") && !dead.found.contains("warren0"),
                "{dead:?}"
            );
        }
        let fresh = judge(&both(None), &AgentFacts::stopped(), &node(false));
        assert_eq!(fresh.result, Verdict::Skipped);
    }

    #[test]
    fn no_device_at_all_fails_only_with_encryption() {
        let mut status = healthy();
        for lane in &mut status.lanes {
            lane.device = "none".to_owned();
        }
        let with = AgentFacts::answering(status.clone());
        assert_eq!(judge(&both(None), &with, &node(true)).result, Verdict::Fail);
        status.encryption = false;
        let without = AgentFacts::answering(status);
        assert_eq!(judge(&both(None), &without, &node(true)).result, Verdict::Warn);
    }
}
