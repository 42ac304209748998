//! Strategic merge patch: a merge patch that merges lists of named things by their key.
//!
//! Directives: `$patch: replace | delete | merge`, `$deleteFromPrimitiveList/FIELD`, `$retainKeys`;
//! `$setElementOrder/FIELD` orders the merged list.

use serde_json::{Map, Value};

use super::shape::{ListKind, Shape};

/// Merges `patch` into `object`, whose root has shape `shape`.
pub(crate) fn apply(object: &mut Value, patch: &Value, shape: &Shape<'_>) {
    match patch {
        Value::Object(patch) => merge_map(object, patch, shape),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            *object = patch.clone()
        }
    }
}

fn merge_map(object: &mut Value, patch: &Map<String, Value>, shape: &Shape<'_>) {
    match patch.get("$patch").and_then(Value::as_str) {
        Some("replace") => {
            let kept = patch.iter().filter(|(name, _)| !name.starts_with('$'));
            *object = Value::Object(kept.map(|(name, value)| (name.clone(), value.clone())).collect());
            return;
        }
        Some("delete") => {
            *object = Value::Object(Map::new());
            return;
        }
        Some(_) | None => {}
    }
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    let Some(fields) = object.as_object_mut() else {
        return;
    };
    if let Some(retained) = patch.get("$retainKeys").and_then(Value::as_array) {
        fields.retain(|name, _| retained.iter().any(|kept| kept == name.as_str()));
    }
    for (name, value) in patch.iter().filter(|(name, _)| !name.starts_with('$')) {
        merge_field(fields, name, value, &shape.field(name));
    }
    for (name, value) in patch {
        if let Some(field) = name.strip_prefix("$deleteFromPrimitiveList/") {
            let gone = value.as_array().map(Vec::as_slice).unwrap_or_default();
            if let Some(list) = fields.get_mut(field).and_then(Value::as_array_mut) {
                list.retain(|item| !gone.contains(item));
            }
        }
        if let Some(field) = name.strip_prefix("$setElementOrder/") {
            let wanted = value.as_array().map(Vec::as_slice).unwrap_or_default();
            if let Some(list) = fields.get_mut(field).and_then(Value::as_array_mut) {
                reorder(list, wanted, &shape.field(field).list());
            }
        }
    }
}

fn merge_field(fields: &mut Map<String, Value>, name: &str, value: &Value, shape: &Shape<'_>) {
    match value {
        Value::Null => {
            fields.remove(name);
        }
        Value::Object(patch) if patch.get("$patch").is_some_and(|d| d == "delete") => {
            fields.remove(name);
        }
        Value::Object(patch) => merge_map(fields.entry(name).or_insert(Value::Null), patch, shape),
        Value::Array(patch) => {
            let merged = merge_list(fields.remove(name), patch, shape);
            fields.insert(name.to_owned(), Value::Array(merged));
        }
        Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            fields.insert(name.to_owned(), value.clone());
        }
    }
}

fn merge_list(old: Option<Value>, patch: &[Value], shape: &Shape<'_>) -> Vec<Value> {
    let replace = patch
        .iter()
        .any(|item| item["$patch"] == "replace" && item.as_object().is_some_and(|o| o.len() == 1));
    let plain = || {
        patch
            .iter()
            .filter(|item| item.get("$patch").is_none())
            .cloned()
            .collect()
    };
    let old = match old {
        Some(Value::Array(old)) if !replace => old,
        _ if replace => return plain(),
        // Null and foreign types hold no items; what the patch brings still has to lose its directives.
        _ => Vec::new(),
    };
    match shape.list() {
        ListKind::Atomic => plain(),
        ListKind::Set => {
            let mut merged = old;
            for item in patch {
                if !merged.contains(item) {
                    merged.push(item.clone());
                }
            }
            merged
        }
        ListKind::Map(keys) => merge_by_key(old, patch, &keys[0], &shape.item()),
    }
}

/// Strategic merge knows one key per list, the first.
fn merge_by_key(old: Vec<Value>, patch: &[Value], key: &str, shape: &Shape<'_>) -> Vec<Value> {
    let mut merged = old;
    for item in patch {
        let found = merged
            .iter()
            .position(|have| !item[key].is_null() && have.get(key) == item.get(key));
        if item["$patch"] == "delete" {
            merged.retain(|have| have.get(key) != item.get(key));
        } else if let Some(at) = found {
            apply(&mut merged[at], item, shape);
        } else {
            let mut fresh = Value::Null;
            apply(&mut fresh, item, shape);
            merged.push(fresh);
        }
    }
    merged
}

/// Puts the items `wanted` names into its order, in the places such items had; others stay where they are.
fn reorder(list: &mut [Value], wanted: &[Value], kind: &ListKind) {
    let rank = |item: &Value| match kind {
        ListKind::Map(keys) => wanted
            .iter()
            .position(|w| !w[&keys[0]].is_null() && w.get(&keys[0]) == item.get(&keys[0])),
        ListKind::Set | ListKind::Atomic => wanted.iter().position(|w| w == item),
    };
    let places: Vec<usize> = (0..list.len()).filter(|&at| rank(&list[at]).is_some()).collect();
    let mut named: Vec<Value> = places.iter().map(|&at| list[at].clone()).collect();
    named.sort_by_key(|item| rank(item));
    for (at, item) in places.into_iter().zip(named) {
        list[at] = item;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn patched(object: Value, patch: Value) -> Value {
        let mut object = object;
        apply(&mut object, &patch, &Shape::root(None));
        object
    }

    fn pod() -> Value {
        json!({ "spec": { "tolerations": [{ "key": "a" }],
            "containers": [{ "name": "x", "image": "1", "env": [{ "name": "A", "value": "1" }] }, { "name": "y" }] } })
    }

    #[test]
    fn containers_and_their_env_merge_by_name() {
        let patch = json!({ "spec": { "containers": [{ "name": "x", "image": "2",
            "env": [{ "name": "B", "value": "2" }] }, { "name": "z" }] } });
        let expected = json!([{ "name": "x", "image": "2", "env": [{ "name": "A", "value": "1" },
            { "name": "B", "value": "2" }] }, { "name": "y" }, { "name": "z" }]);
        assert_eq!(patched(pod(), patch)["spec"]["containers"], expected);
    }

    #[test]
    fn directives_delete_and_replace() {
        let delete = json!({ "spec": { "containers": [{ "name": "x", "$patch": "delete" }] } });
        assert_eq!(
            patched(pod(), delete)["spec"]["containers"],
            json!([{ "name": "y" }])
        );
        let replace = json!({ "spec": { "containers": [{ "name": "n" }, { "$patch": "replace" }] } });
        assert_eq!(
            patched(pod(), replace)["spec"]["containers"],
            json!([{ "name": "n" }])
        );
        let whole = json!({ "spec": { "$patch": "replace", "nodeName": "n" } });
        assert_eq!(patched(pod(), whole), json!({ "spec": { "nodeName": "n" } }));
        assert_eq!(
            patched(pod(), json!({ "spec": { "$patch": "delete" } })),
            json!({})
        );
    }

    #[test]
    fn atomic_lists_are_replaced_and_sets_united() {
        let tolerations = json!({ "spec": { "tolerations": [{ "key": "b" }] } });
        assert_eq!(
            patched(pod(), tolerations)["spec"]["tolerations"],
            json!([{ "key": "b" }])
        );
        let object = json!({ "metadata": { "finalizers": ["a", "b"] } });
        let patch =
            json!({ "metadata": { "finalizers": ["c"], "$deleteFromPrimitiveList/finalizers": ["a"] } });
        assert_eq!(
            patched(object, patch)["metadata"]["finalizers"],
            json!(["b", "c"])
        );
    }

    #[test]
    fn conditions_merge_by_type_and_a_null_removes() {
        let node = json!({ "status": { "phase": "x", "conditions": [{ "type": "Ready", "status": "False", "reason": "r" }] } });
        let patch = json!({ "status": { "phase": null, "$setElementOrder/conditions": [{ "type": "Net" }, { "type": "Ready" }],
            "conditions": [{ "type": "Net", "status": "True" }, { "type": "Ready", "status": "True", "reason": null }] } });
        let expected = json!({ "status": { "conditions": [{ "type": "Net", "status": "True" }, { "type": "Ready", "status": "True" }] } });
        assert_eq!(patched(node, patch), expected);
    }
}
