//! A compiler that has gone through any changes beside one that knows of nothing: what they make is equal, to the last position.

#[expect(dead_code, reason = "flows are judged in the test beside this")]
#[path = "../reading/clusters.rs"]
mod clusters;
mod edits;
#[path = "../calico/policies.rs"]
mod policies;

use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use warren_model::PodName;
use warren_policy::kubernetes::{self, NetworkPolicySpec};
use warren_policy::{Cluster, Compiler, Input, Labels, OnInvalid, Pod, Policy, Since, compile};

use edits::{Scene, edit, scene};

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn what_has_changed_makes_what_everything_makes(
        mut scene in scene(),
        edits in vec(vec(edit(), 1..3), 1..12),
    ) {
        let mut compiler = Compiler::default();
        compiler.compile(&input(&scene));
        for some in edits {
            for edit in &some {
                edit.make(&mut scene);
            }
            let input = input(&scene);
            prop_assert_eq!(compiler.compile(&input), compile(&input), "after {:#?}", some);
        }
    }
}

fn input(scene: &Scene) -> Input<'_> {
    Input {
        invalid: &scene.invalid,
        on_invalid: OnInvalid::Closed,
        reach: scene.reach.clone(),
        ..Input::new(&scene.policies, &scene.cluster)
    }
}

/// So many pods that not each is followed by itself when all change.
const MANY: u8 = 250;

fn many(app: &str) -> Cluster {
    let pod = |number: u8| Pod {
        name: PodName {
            namespace: "shop".to_owned(),
            name: format!("pod-{number}"),
        },
        uid: String::new(),
        labels: Labels::from_iter([("app", app)]),
        addresses: vec![[10, 244, 0, number].into()],
        ports: Vec::new(),
        host_network: false,
        finished: false,
        node: None,
        since: Since::Created(0),
    };
    Cluster {
        pods: (0..MANY).map(pod).map(Arc::new).collect(),
        ..Cluster::default()
    }
}

#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
fn letting_in(app: &str) -> Policy {
    let spec: NetworkPolicySpec = serde_json::from_value(serde_json::json!({
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": app}}}]}]
    }))
    .unwrap();
    kubernetes::check("shop", app, &spec).unwrap()
}

#[test]
fn everything_may_change_at_once() {
    let policies = [letting_in("web"), letting_in("db")];
    let mut compiler = Compiler::default();
    for app in ["web", "db", "web"] {
        let cluster = many(app);
        let input = Input::new(&policies, &cluster);
        let rules = compiler.compile(&input);
        assert_eq!(rules, compile(&input));
        let sizes: Vec<usize> = rules.sets.iter().map(|set| set.addresses.len()).collect();
        let expected = if app == "web" { [0, 250] } else { [250, 0] };
        assert_eq!(sizes, expected, "of the policies db and web");
    }
}

#[test]
fn sets_that_have_not_changed_are_not_made_again() {
    let policies = [letting_in("web"), letting_in("db")];
    let mut compiler = Compiler::default();
    let mut cluster = many("web");
    let before = compiler.compile(&Input::new(&policies, &cluster));
    let changed = Arc::make_mut(&mut cluster.pods[7]);
    changed.ports.clear();
    changed.labels = Labels::from_iter([("app", "other")]);
    let after = compiler.compile(&Input::new(&policies, &cluster));
    let [db, web] = &after.sets[..] else {
        panic!("{:?}", after.sets);
    };
    assert!(Arc::ptr_eq(db, &before.sets[0]), "nobody was in it and nobody is");
    assert_eq!(web.addresses.len(), usize::from(MANY) - 1);
    // What was handed out before stays as it was.
    assert_eq!(before.sets[1].addresses.len(), usize::from(MANY));
}
