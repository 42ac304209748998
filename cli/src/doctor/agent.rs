//! The agent: does it answer, is it ready, did its last pass go through.

use std::path::Path;

use http::StatusCode;
use warren_model::status::AgentStatus;

use super::finding::Finding;
use super::settings::AgentConfig;
use crate::admin_socket;
use crate::answer::AgentError;
use crate::units::{count, first_few};

/// How many refusals are named.
const NAMED: usize = 3;

/// What the agent answers.
#[derive(Debug)]
pub(super) struct AgentFacts {
    /// Of itself and all peers.
    pub(super) status: Result<AgentStatus, AgentError>,
    /// How it was started.
    pub(super) config: Option<AgentConfig>,
    /// What keeps it from being ready, one each.
    closed_gates: Result<Vec<String>, AgentError>,
}

impl AgentFacts {
    /// Asks it.
    pub(super) async fn gather(run_dir: &Path) -> Self {
        let socket = run_dir.join(admin_socket::FILE_NAME);
        Self {
            status: admin_socket::ask(&socket, "/status").await,
            config: admin_socket::ask(&socket, "/config").await.ok(),
            closed_gates: admin_socket::fetch(&socket, "/readyz")
                .await
                .map(|(status, body)| closed_gates(status, &String::from_utf8_lossy(&body))),
        }
    }

    /// Whether one runs on this node, be it well or not.
    pub(super) fn runs(&self) -> bool {
        !matches!(
            self.status,
            Err(AgentError::NotRunning { .. } | AgentError::Socket { .. })
        )
    }

    #[cfg(test)]
    pub(super) fn answering(status: AgentStatus) -> Self {
        Self {
            status: Ok(status),
            config: None,
            closed_gates: Ok(Vec::new()),
        }
    }

    #[cfg(test)]
    pub(super) fn stopped() -> Self {
        let error = || AgentError::NotRunning {
            socket: "/run/warren/admin.sock".into(),
        };
        Self {
            status: Err(error()),
            config: None,
            closed_gates: Err(error()),
        }
    }
}

/// Of `/readyz`: "ok", or a heading and a line for each closed gate.
fn closed_gates(status: StatusCode, body: &str) -> Vec<String> {
    if status.is_success() {
        return Vec::new();
    }
    body.lines().skip(1).map(str::to_owned).collect()
}

/// What it means.
pub(super) fn judge(agent: &AgentFacts) -> Vec<Finding> {
    let mut findings = vec![answers(agent)];
    match &agent.closed_gates {
        Ok(closed) if closed.is_empty() => findings.push(Finding::ok("agent-ready", "every gate is open")),
        Ok(closed) => findings.push(Finding::fail(
            "agent-ready",
            closed.join("; "),
            "the gate says what is waited for; the agent's log says more, and the other checks here name the usual \
             causes (API rights, nftables, the WireGuard device, pod CIDRs of the Node)",
        )),
        Err(_) => findings.push(Finding::skipped("agent-ready", "the agent does not answer")),
    }
    if let Ok(status) = &agent.status {
        findings.push(last_pass(status));
        findings.push(refusals(status));
    }
    findings
}

fn answers(agent: &AgentFacts) -> Finding {
    match &agent.status {
        Ok(status) => Finding::ok("agent", format!("release {} answers", status.version)),
        Err(error @ (AgentError::NotRunning { .. } | AgentError::Socket { .. })) => Finding::fail(
            "agent",
            error.to_string(),
            "start warren-agent, on a cluster: kubectl -n warren-system get pods -o wide, then the log of the one on this \
             node. Pods that are attached keep their network meanwhile; none can be attached or detached",
        ),
        Err(error) => Finding::fail(
            "agent",
            format!("it runs but does not tell its status: {error}"),
            "see agent-ready and the agent's log",
        ),
    }
}

fn last_pass(status: &AgentStatus) -> Finding {
    match &status.last_error {
        None => Finding::ok("agent-pass", "the last pass went through"),
        Some(error) => Finding::fail(
            "agent-pass",
            error.clone(),
            "the kernel or a device refused a step; `warren plan --local` lists what is still to be done, and it is tried \
             again within 10 s",
        ),
    }
}

fn refusals(status: &AgentStatus) -> Finding {
    if status.refusals.is_empty() {
        return Finding::ok("refusals", "no object is refused");
    }
    let texts: Vec<String> = status
        .refusals
        .iter()
        .map(|refusal| format!("{}: {}", refusal.object, refusal.message))
        .collect();
    Finding::warn(
        "refusals",
        format!(
            "{} refused: {}",
            count(texts.len(), "object"),
            first_few(&texts, NAMED)
        ),
        "correct the objects named; until then they are left out, and nothing else is affected",
    )
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
pub(super) mod tests {
    use serde_json::json;

    use super::*;
    use crate::doctor::finding::Verdict;

    /// A node that is as it should be, with one peer.
    pub(in crate::doctor) fn healthy() -> AgentStatus {
        let key = "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=";
        let lane = |lane: &str, interface: &str, port: u16| {
            json!({"lane": lane, "interface": interface, "device": "userspace", "reason": "no kernel module",
                "up": true, "publicKey": null, "port": port})
        };
        serde_json::from_value(json!({
            "node": "a", "version": "0.1.0", "ready": true, "encryption": true, "epoch": 1, "settled": 1,
            "keys": [], "podCidrs": ["10.244.0.0/24"], "pods": 0, "podMtu": 1440,
            "lanes": [lane("zero", "warren0", 51820), lane("one", "warren1", 51821)],
            "peers": [{
                "node": "b", "path": "wireguard", "lane": "one", "reason": "handshake completed",
                "publicKey": key, "epoch": 1, "endpoint": "192.0.2.1:51821", "podCidrs": ["10.244.1.0/24"],
                "internalIps": ["192.0.2.1"], "handshakeAgeSeconds": 3, "rxBytes": 10, "txBytes": 20,
            }],
            "drops": [], "refusals": [], "lastError": null,
        }))
        .unwrap()
    }

    fn failed(agent: &AgentFacts) -> Vec<&'static str> {
        let findings = judge(agent).into_iter();
        findings
            .filter(|it| it.result == Verdict::Fail)
            .map(|it| it.check)
            .collect()
    }

    #[test]
    fn a_stopped_agent_is_one_failure_and_not_several() {
        assert_eq!(failed(&AgentFacts::stopped()), ["agent"]);
        assert_eq!(failed(&AgentFacts::answering(healthy())), Vec::<&str>::new());
    }

    #[test]
    fn closed_gates_and_a_failed_pass_are_named() {
        let mut agent = AgentFacts::answering(AgentStatus {
            last_error: Some("route add: no such device".to_owned()),
            ..healthy()
        });
        let body = "not ready\nkey-published: the server refused\n";
        agent.closed_gates = Ok(closed_gates(StatusCode::SERVICE_UNAVAILABLE, body));
        assert_eq!(failed(&agent), ["agent-ready", "agent-pass"]);
        assert!(judge(&agent)[1].found.contains("key-published"), "{agent:?}");
    }
}
