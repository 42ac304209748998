//! The ValidatingAdmissionPolicy for agents that publish with their service account, over requests as they should be and
//! over forged ones. The server that the other suites run has no such policies, so a CEL engine evaluates this one here.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod policy;
mod requests;

use policy::{Policy, Verdict};
use requests::{forgeries, legitimate};

#[test]
fn an_agent_publishes_for_its_own_node() {
    let policy = Policy::shipped();
    for (what, request) in legitimate() {
        assert_eq!(policy.judge(&request), Verdict::Allowed, "{what}");
    }
}

#[test]
fn every_forgery_is_refused() {
    let policy = Policy::shipped();
    for (what, request) in forgeries() {
        let verdict = policy.judge(&request);
        assert!(matches!(verdict, Verdict::Denied(_)), "{what}: {verdict:?}");
    }
}

#[test]
fn whoever_is_no_agent_is_not_judged() {
    let policy = Policy::shipped();
    for user in [
        "system:node:node1",
        "system:serviceaccount:kube-system:node-controller",
        "admin",
    ] {
        for (what, mut request) in forgeries() {
            request.request["userInfo"]["username"] = user.into();
            assert_eq!(policy.judge(&request), Verdict::NotMatched, "{user}: {what}");
        }
    }
}

/// Each rule refuses something that no other one does, so none is there for show and none is doubled.
#[test]
fn without_any_one_rule_a_forgery_gets_through() {
    let whole = Policy::shipped();
    for left_out in 0..whole.rules() {
        let (policy, rule) = Policy::shipped_without(left_out);
        let through = forgeries()
            .into_iter()
            .any(|(_, request)| policy.judge(&request) == Verdict::Allowed);
        assert!(through, "{rule}");
    }
}

#[test]
fn the_policy_covers_nodes_and_their_status_and_denies_what_it_cannot_judge() {
    let policy = Policy::shipped();
    assert_eq!(policy.resources(), ["nodes", "nodes/status"]);
    assert_eq!(policy.operations(), ["CREATE", "UPDATE", "DELETE"]);
    assert_eq!(policy.failure_policy(), "Fail");
    assert_eq!(policy.bound_actions(), ["Deny"]);
}
