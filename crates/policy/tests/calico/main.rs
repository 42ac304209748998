//! Verdicts under random policies of Warren against a naive reading of Calico's documentation. Selectors are written as text
//! for the crate and kept as they were made for the reading, so not even the grammar is shared.

#[expect(dead_code, reason = "policies of Kubernetes are read in the test beside this")]
#[path = "../reading/clusters.rs"]
mod clusters;
mod naive;
mod policies;

use proptest::collection::vec;
use proptest::prelude::*;
use warren_policy::{Decision, Flow, Input, NetworkSet, compile, verdict, warren};

use policies::{RandomPolicy, network_set, policy};

fn scene() -> impl Strategy<Value = (warren_policy::Cluster, Vec<RandomPolicy>, Vec<Flow>)> {
    let sets = vec(network_set(), 0..3);
    let parts = (
        clusters::cluster(),
        sets,
        vec(policy(), 0..5),
        vec(clusters::ends(), 24),
    );
    parts.prop_map(
        |(mut cluster, sets, policies, ends): (_, Vec<NetworkSet>, Vec<_>, Vec<_>)| {
            cluster.network_sets = sets;
            let flows = ends
                .iter()
                .map(|ends: &clusters::Ends| ends.flow(&cluster))
                .collect();
            (cluster, policies, flows)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn verdicts_are_those_of_a_naive_reading((cluster, policies, flows) in scene()) {
        let mut checked = Vec::new();
        for (number, policy) in policies.iter().enumerate() {
            let name = format!("policy-{number}");
            let read = match policy.namespace {
                Some(namespace) => warren::check(namespace, &name, &policy.spec()),
                None => warren::check_global(&name, &policy.spec()),
            };
            checked.push(read.map_err(|invalid| TestCaseError::fail(invalid.refusal().to_string()))?);
        }
        let rules = compile(&Input::new(&checked, &cluster));
        for flow in &flows {
            let ours = verdict(&rules, flow).action == Decision::Allow;
            let theirs = naive::allowed(&policies, &cluster, flow);
            prop_assert_eq!(ours, theirs, "{} (allowed by the naive reading: {})", flow, theirs);
        }
    }
}
