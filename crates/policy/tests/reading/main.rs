//! Verdicts on random clusters, policies and flows against a naive reading of the Kubernetes rules that shares no code
//! with the crate but the shape of its input.

mod clusters;
mod naive;

use proptest::prelude::*;
use warren_policy::kubernetes::{self, NetworkPolicySpec};
use warren_policy::ruleset::{End, Part};
use warren_policy::{
    Change, Decision, Direction, Input, Protocol, RuleRef, RuleSet, compile, explain, verdict,
};

use clusters::{Case, NamedPolicy, case};

/// Flows asked of each random cluster.
const FLOWS: usize = 24;

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    #[test]
    fn verdicts_are_those_of_a_naive_reading(case in case(FLOWS)) {
        let rules = rules(&case, &case.policies);
        for flow in &case.flows {
            let ours = verdict(&rules, flow).action == Decision::Allow;
            let theirs = naive::allowed(&case.policies, &case.cluster, flow);
            prop_assert_eq!(ours, theirs, "{} (allowed by the naive reading: {})", flow, theirs);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn the_order_of_objects_makes_no_difference(case in case(0)) {
        let rules_before = rules(&case, &case.policies);
        let mut turned = case.clone();
        turned.policies.reverse();
        turned.cluster.pods.reverse();
        turned.cluster.namespaces.reverse();
        prop_assert_eq!(rules_before, rules(&turned, &turned.policies));
    }

    #[test]
    fn a_policy_that_only_isolates_allows_nothing_that_was_denied(case in case(FLOWS)) {
        // It selects every pod of a namespace, both ways, and has no rules.
        let isolating: NetworkPolicySpec = NetworkPolicySpec {
            policy_types: Some(vec!["Ingress".into(), "Egress".into()]),
            ..NetworkPolicySpec::default()
        };
        let mut more = case.policies.clone();
        more.push(NamedPolicy {
            namespace: "one".into(),
            name: "isolating".into(),
            spec: isolating,
        });
        let (before, after) = (rules(&case, &case.policies), rules(&case, &more));
        for flow in &case.flows {
            let denied_before = verdict(&before, flow).action == Decision::Deny;
            let allowed_after = verdict(&after, flow).action == Decision::Allow;
            prop_assert!(!(denied_before && allowed_after), "{flow}");
        }
    }

    #[test]
    fn a_rule_that_is_said_to_be_a_near_miss_allows_once_its_part_is_gone(case in case(FLOWS)) {
        let rules = rules(&case, &case.policies);
        for flow in &case.flows {
            for change in explain(&rules, flow).changes {
                let Change::Widen { rule, part, .. } = change else {
                    continue;
                };
                let mut widened = rules.clone();
                widen(&mut widened, &rule, part);
                let verdict = verdict(&widened, flow);
                let side = match rule.direction {
                    Direction::Ingress => verdict.ingress,
                    Direction::Egress => verdict.egress,
                };
                prop_assert_eq!(side.decision, Decision::Allow, "{} by {}", flow, rule);
            }
        }
    }

    #[test]
    fn icmp_passes_only_where_no_port_is_asked_for(case in case(FLOWS)) {
        let rules = rules(&case, &case.policies);
        for flow in &case.flows {
            let ping = warren_policy::Flow::icmp(flow.source, flow.destination, 8, 0);
            let ours = verdict(&rules, &ping).action == Decision::Allow;
            prop_assert_eq!(ours, naive::allowed(&case.policies, &case.cluster, &ping));
            // What lets a ping pass lets every protocol pass.
            if ours {
                let sctp = warren_policy::Flow::to_port(flow.source, flow.destination, Protocol::SCTP, 9);
                prop_assert_eq!(verdict(&rules, &sctp).action, Decision::Allow);
            }
        }
    }
}

/// Takes one part from what a policy's rule asks for.
fn widen(rules: &mut RuleSet, rule: &RuleRef, part: Part) {
    let policies = rules
        .policies
        .iter_mut()
        .filter(|policy| policy.id == rule.policy);
    let lists = policies.flat_map(|policy| match rule.direction {
        Direction::Ingress => &mut policy.ingress,
        Direction::Egress => &mut policy.egress,
    });
    for one in lists.filter(|one| one.written == rule.written) {
        match part {
            Part::Family => one.family = None,
            Part::Protocol => (one.protocol, one.not_protocol) = (None, None),
            Part::Icmp => (one.icmp, one.not_icmp) = (None, None),
            Part::SourcePort => (one.source.ports, one.source.not_ports) = (None, None),
            Part::DestinationPort => (one.destination.ports, one.destination.not_ports) = (None, None),
            Part::Source => {
                one.source = End {
                    ports: one.source.ports.take(),
                    not_ports: one.source.not_ports.take(),
                    ..End::default()
                }
            }
            Part::Destination => {
                one.destination = End {
                    ports: one.destination.ports.take(),
                    not_ports: one.destination.not_ports.take(),
                    ..End::default()
                }
            }
        }
    }
}

#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
fn rules(case: &Case, policies: &[NamedPolicy]) -> RuleSet {
    let checked: Vec<_> = policies
        .iter()
        .map(|policy| kubernetes::check(&policy.namespace, &policy.name, &policy.spec).unwrap())
        .collect();
    compile(&Input::new(&checked, &case.cluster))
}
