//! `warren doctor`: what is wrong on this node, and what to do about it.
//!
//! Each topic is a module that gathers facts and a pure function that judges them, so that every fault can be put to the
//! judge in a test. Nothing is changed: what has to be tried out is tried in a network namespace made for it.
//!
//! | module | checks |
//! |---|---|
//! | `finding`, `report` | one result, and all of them as text or JSON |
//! | `settings`, `node` | where things are, and what several checks look at |
//! | `kernel` | `nftables`, `veth`, `vxlan`, `ipv6`, `wireguard-module`, `tun` |
//! | `agent` | `agent`, `agent-ready`, `agent-pass`, `refusals` |
//! | `device` | `wireguard-device` |
//! | `guard` | `guard`, `leftovers`, `pod-interfaces` |
//! | `peers`, `echo` | `peer-path`, `peer-reachable`, `path-mtu` |
//! | `api`, `clock` | `api-reading`, `api-publishing`, `node-restriction`, `clock` |
//! | `cni` | `cni-conf`, `cni-plugin` |
//! | `keys` | `key-files` |
//! | `sysctls` | `forwarding`, `rp-filter` |
//! | `ports` | `udp-ports` |

mod agent;
mod api;
mod clock;
mod cni;
mod device;
mod finding;
mod guard;
mod kernel;
mod keys;
mod node;
mod peers;
mod ports;
mod report;
mod settings;
mod sysctls;

use anyhow::bail;
use nix::unistd::geteuid;

use crate::arguments::{DoctorArguments, OutputFormat};
use crate::outcome::{self, Outcome};
use agent::AgentFacts;
use finding::Finding;
use node::NodeFacts;
use report::Report;
use settings::Settings;

/// Checks, prints, and says whether any check failed.
pub(crate) async fn doctor(arguments: DoctorArguments) -> anyhow::Result<Outcome> {
    if !geteuid().is_root() {
        bail!("interfaces, keys and the agent's socket are root's: run this as root, on the node");
    }
    let output = arguments.output;
    let agent = AgentFacts::gather(&arguments.run_dir).await;
    let settings = Settings::choose(arguments, agent.config.as_ref())?;
    let findings = examine(&settings, &agent).await;
    let report = Report::new(settings.node.to_string(), findings);
    match output {
        OutputFormat::Table => outcome::print(report.text().as_bytes())?,
        OutputFormat::Json => outcome::print_json(&report)?,
    };
    Ok(if report.failed() {
        Outcome::Short
    } else {
        Outcome::Done
    })
}

async fn examine(settings: &Settings, agent: &AgentFacts) -> Vec<Finding> {
    let node = NodeFacts::gather(settings, agent).await;
    let mut findings = kernel::judge(&kernel::gather().await, agent.status.as_ref().ok());
    findings.extend(agent::judge(agent));
    findings.push(device::judge(&device::gather(settings).await, agent, &node));
    findings.extend(guard::judge(&node, agent));
    findings.extend(sysctls::judge(&sysctls::gather(&node), agent, &node));
    findings.push(ports::judge(&ports::gather(), agent));
    findings.push(keys::judge(
        &settings.state_dir.join("keys"),
        keys::gather(settings),
        agent,
        settings.keys_in_memory,
    ));
    findings.extend(cni::judge(&cni::gather(settings).await, settings, agent));
    findings.extend(api::check(settings, agent).await);
    findings.extend(peers::check(settings, agent).await);
    findings
}
