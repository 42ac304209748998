//! Laws of the patches, over generated objects: the same input gives the same output, and twice is once.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::managed::Owner;
use super::shape::Shape;
use super::{apply, json as rfc, strategic};
use crate::meta;

fn map(keys: &'static [&'static str]) -> impl Strategy<Value = Value> {
    proptest::collection::btree_map(proptest::sample::select(keys), 0..3u8, 0..4).prop_map(|pairs| {
        pairs
            .into_iter()
            .map(|(k, v)| (k.to_owned(), json!(v.to_string())))
            .collect::<Map<_, _>>()
            .into()
    })
}

fn keyed(key: &'static str, sub: &'static str) -> impl Strategy<Value = Value> {
    let names: &'static [&'static str] = &["a", "b", "c"];
    proptest::collection::btree_map(proptest::sample::select(names), map(&["x", "y"]), 0..4).prop_map(
        move |items| {
            items
                .into_iter()
                .map(|(name, rest)| json!({ key: name, sub: rest }))
                .collect()
        },
    )
}

prop_compose! {
    fn object()(
        labels in map(&["l1", "l2", "l3"]),
        annotations in map(&["a1", "a2"]),
        finalizers in proptest::sample::subsequence(vec!["f1", "f2", "f3"], 0..=3),
        containers in keyed("name", "resources"),
        conditions in keyed("type", "extra"),
        tolerations in keyed("key", "extra"),
        node in proptest::option::of("[ab]"),
    ) -> Value {
        let mut object = json!({ "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": "x", "labels": labels, "annotations": annotations, "finalizers": finalizers },
            "spec": { "containers": containers, "tolerations": tolerations }, "status": { "conditions": conditions } });
        if let Some(node) = node {
            object["spec"]["nodeName"] = json!(node);
        }
        object
    }
}

fn without_managed(mut object: Value) -> Value {
    meta::metadata(&mut object).remove("managedFields");
    object
}

fn owner(manager: &str) -> Owner {
    Owner {
        manager: manager.to_owned(),
        apply: true,
        subresource: String::new(),
    }
}

/// Apply with the times taken out: they are the only part that depends on the clock.
fn applied(live: &Value, wanted: &Value, manager: &str) -> Value {
    let mut next = apply::apply(live, wanted, &owner(manager), &Shape::root(None), true).expect("forced");
    for entry in next["metadata"]["managedFields"]
        .as_array_mut()
        .into_iter()
        .flatten()
    {
        entry["time"] = json!("");
    }
    next
}

proptest! {
    #[test]
    fn merge_twice_is_once(base in object(), patch in object()) {
        let mut once = base;
        rfc::merge(&mut once, &patch);
        let mut twice = once.clone();
        rfc::merge(&mut twice, &patch);
        prop_assert_eq!(once, twice);
    }

    #[test]
    fn strategic_merge_twice_is_once_and_contains_the_patch(base in object(), patch in object()) {
        let shape = Shape::root(None);
        let mut once = base;
        strategic::apply(&mut once, &patch, &shape);
        let mut twice = once.clone();
        strategic::apply(&mut twice, &patch, &shape);
        prop_assert_eq!(&once, &twice);
        let have = super::fields::leaves(&once, &shape);
        for (path, value) in super::fields::leaves(&patch, &shape) {
            // An empty map or list in the patch adds nothing and may meet a full one.
            let empty = value == json!({}) || value == json!([]);
            prop_assert!(empty || have.get(&path) == Some(&value), "{path:?} lost");
        }
    }

    #[test]
    fn apply_twice_is_once_and_deterministic(first in object(), second in object(), third in object()) {
        let live = applied(&applied(&json!({}), &first, "a"), &second, "b");
        let once = applied(&live, &third, "a");
        prop_assert_eq!(&once, &applied(&live, &third, "a"));
        prop_assert_eq!(&once, &applied(&once, &third, "a"));
    }

    #[test]
    fn a_manager_that_applies_alone_gets_exactly_what_it_last_wanted(first in object(), second in object()) {
        let both = without_managed(applied(&applied(&json!({}), &first, "a"), &second, "a"));
        let shape = Shape::root(None);
        let keep = |object: &Value| {
            let mut leaves = super::fields::leaves(object, &shape);
            leaves.retain(|_, value| *value != json!({}) && *value != json!([]));
            leaves
        };
        prop_assert_eq!(keep(&both), keep(&without_managed(second)));
    }
}
