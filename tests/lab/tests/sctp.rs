//! Network policy for SCTP, which not every kernel has: real associations, held to what `verdict` says. On one node: what carries
//! packets to another does not look at their protocol.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

#[expect(dead_code, reason = "the suite beside this uses the rest")]
#[path = "policy/scene.rs"]
mod scene;
mod support;

use serde_json::json;
use warren_lab::LabOptions;

use scene::{Object, add_listening, assert_as_judged, attempts};
use support::lab;

/// Two ports, one with a name, and the number of the one for another protocol too.
const PORTS: [&str; 3] = ["sctp:3868=diameter", "sctp:2905", "udp:3868"];

#[tokio::test]
#[ignore = "needs a kernel with SCTP: hack/vm.sh"]
async fn nodes_enforce_what_verdict_says_of_associations() {
    let options = LabOptions {
        nodes: 1,
        ..LabOptions::default()
    };
    let Some(lab) = lab(options).await else { return };
    for name in ["hss", "mme", "other"] {
        add_listening(&lab, "core", name, "node1", &json!({"app": name}), &PORTS).await;
    }
    let attempts = attempts(&lab.facts().await.unwrap(), &PORTS);
    assert_eq!(
        assert_as_judged(&lab, &attempts).await,
        attempts.len(),
        "without policies"
    );

    // To the one, only the other and only to the port of that name: the same number by UDP is another port.
    Object::kubernetes(
        "core",
        "hss",
        json!({"podSelector": {"matchLabels": {"app": "hss"}}, "ingress": [{
            "from": [{"podSelector": {"matchLabels": {"app": "mme"}}}],
            "ports": [{"port": "diameter", "protocol": "SCTP"}],
        }]}),
    )
    .apply(&lab)
    .await;
    // And the third sends what it likes, but by SCTP to one port only.
    Object::global(
        "other",
        json!({"selector": "app == 'other'", "types": ["Egress"], "egress": [
            {"action": "Deny", "protocol": "SCTP", "destination": {"notPorts": [2905]}},
            {"action": "Allow"},
        ]}),
    )
    .apply(&lab)
    .await;
    // Of twelve to hss, one in each family; of six from other to mme, four; and all else.
    assert_eq!(assert_as_judged(&lab, &attempts).await, 2 + 4 + 12 + 6);
}
