//! What is selected, beside asking each member; and an index that has gone through changes, beside a new one.

use std::sync::Arc;

use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use proptest::sample::select;
use warren_model::PodName;

use super::*;
use crate::cluster::{Cluster, Namespace, NetworkSet, Pod, Since};
use crate::query::Members;

const NAMES: [&str; 3] = ["one", "two", "three"];

fn name() -> impl Strategy<Value = String> {
    select(&NAMES[..]).prop_map(str::to_owned)
}

fn labels() -> impl Strategy<Value = Labels> {
    vec((name(), name()), 0..4).prop_map(Labels::from_iter)
}

fn selector() -> impl Strategy<Value = Selector> {
    let leaf = prop_oneof![
        Just(Selector::All),
        name().prop_map(Selector::Has),
        (name(), name()).prop_map(|(key, value)| Selector::Equals(key, value)),
        (name(), btree_set(name(), 0..3)).prop_map(|(key, values)| Selector::In(key, values)),
        (name(), select(vec!["o", "t"])).prop_map(|(key, part)| Selector::StartsWith(key, part.into())),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(|inner| Selector::Not(Box::new(inner))),
            vec(inner.clone(), 2..4).prop_map(Selector::And),
            vec(inner, 2..4).prop_map(Selector::Or),
        ]
    })
}

fn scope() -> impl Strategy<Value = Scope> {
    prop_oneof![
        Just(Scope::Everywhere),
        name().prop_map(Scope::Namespace),
        selector().prop_map(Scope::Namespaces),
        Just(Scope::Namespaces(Selector::Global)),
    ]
}

fn cluster() -> impl Strategy<Value = Cluster> {
    let pods = vec((name(), labels()), 0..40);
    let sets = vec((proptest::option::of(name()), labels()), 0..10);
    (pods, sets, vec(labels(), 0..3)).prop_map(|(pods, sets, namespaces)| Cluster {
        pods: pods
            .into_iter()
            .enumerate()
            .map(|(index, (namespace, labels))| Pod {
                name: PodName {
                    namespace,
                    name: format!("pod-{index}"),
                },
                uid: String::new(),
                labels,
                addresses: Vec::new(),
                ports: Vec::new(),
                host_network: false,
                finished: false,
                node: None,
                since: Since::Created(0),
            })
            .map(Arc::new)
            .collect(),
        network_sets: sets
            .into_iter()
            .map(|(namespace, labels)| NetworkSet {
                namespace,
                name: "set".into(),
                labels,
                nets: Vec::new(),
            })
            .collect(),
        namespaces: NAMES
            .iter()
            .zip(namespaces)
            .map(|(name, labels)| Namespace {
                name: (*name).into(),
                labels,
            })
            .collect(),
        ..Cluster::default()
    })
}

proptest! {
    #[test]
    fn what_is_selected_is_what_asking_each_member_selects(
        cluster in cluster(),
        queries in vec((scope(), selector(), select(vec![Members::Pods, Members::All])), 8),
    ) {
        let mut index = Index::default();
        index.update(&cluster);
        for (scope, selector, members) in queries {
            let query = Query { scope, members, selector };
            let asked = index.members().filter(|(_, member)| index.selects(&query, member));
            let asked: Vec<Id> = asked.map(|(id, _)| id).collect();
            prop_assert_eq!(index.select(&query), asked, "{}", query);
        }
    }
}
