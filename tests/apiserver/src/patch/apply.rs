//! Server-side apply: merge what a manager wants, remove what it wanted before, refuse what others own.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::fields::{self, FieldSet, Path};
use super::managed::{Managed, Owner, owned_leaves};
use super::shape::{ListKind, Shape};
use crate::error::{ApiError, Cause};

/// The object after `owner` has applied `wanted` to `live` (an empty object when there is none yet).
///
/// 409 with one cause for each field that another manager owns with another value, unless `force`.
pub(crate) fn apply(
    live: &Value,
    wanted: &Value,
    owner: &Owner,
    shape: &Shape<'_>,
    force: bool,
) -> Result<Value, ApiError> {
    let mut wanted = wanted.clone();
    strip_nulls(&mut wanted);
    let applied: FieldSet = owned_leaves(&wanted, shape).into_keys().collect();
    let mut managed = Managed::read(live);
    let before = owned_leaves(live, shape);

    let mut merged = live.clone();
    merge(&mut merged, &wanted, shape);
    let after = owned_leaves(&merged, shape);
    let changed: BTreeMap<Path, ()> = after
        .iter()
        .filter(|&(path, value)| before.get(path) != Some(value))
        .map(|(path, _)| (path.clone(), ()))
        .collect();
    let conflicts = conflicts(&managed, owner, &changed);
    if !conflicts.is_empty() && !force {
        return Err(ApiError::ApplyConflict { causes: conflicts });
    }
    managed.take(owner, &changed);

    for path in managed.set_of(owner).difference(&applied) {
        let shared = managed
            .others(owner)
            .any(|(_, set)| fields::set_covers(set, path));
        if !shared && !fields::set_covers(&applied, path) {
            fields::remove(&mut merged, path, shape, &applied);
        }
    }
    let api_version = wanted["apiVersion"].as_str().unwrap_or_default().to_owned();
    managed.assign(owner, applied, &api_version);
    managed.forget_absent(&owned_leaves(&merged, shape));
    managed.write(&mut merged);
    Ok(merged)
}

fn conflicts(managed: &Managed, owner: &Owner, changed: &BTreeMap<Path, ()>) -> Vec<Cause> {
    let mut causes = Vec::new();
    for (other, set) in managed.others(owner) {
        for path in set.iter().filter(|path| changed.contains_key(*path)) {
            causes.push(Cause {
                reason: "FieldManagerConflict",
                field: fields::display(path),
                message: format!("conflict with \"{}\"", other.manager),
            });
        }
    }
    causes
}

/// In an applied configuration null means absent.
fn strip_nulls(value: &mut Value) {
    if let Some(fields) = value.as_object_mut() {
        fields.retain(|_, field| !field.is_null());
        fields.values_mut().for_each(strip_nulls);
    } else if let Some(items) = value.as_array_mut() {
        items.iter_mut().for_each(strip_nulls);
    }
}

fn merge(live: &mut Value, wanted: &Value, shape: &Shape<'_>) {
    match wanted {
        Value::Object(fields) if !shape.is_atomic_map() => {
            if !live.is_object() {
                *live = Value::Object(Map::new());
            }
            for (name, field) in fields {
                merge(&mut live[name.as_str()], field, &shape.field(name));
            }
        }
        Value::Array(items) if shape.list() != ListKind::Atomic => {
            let mut merged = live.as_array().cloned().unwrap_or_default();
            match shape.list() {
                ListKind::Map(keys) => merge_items(&mut merged, items, &keys, &shape.item()),
                ListKind::Set | ListKind::Atomic => {
                    let fresh: Vec<Value> = items
                        .iter()
                        .filter(|item| !merged.contains(item))
                        .cloned()
                        .collect();
                    merged.extend(fresh);
                }
            }
            *live = Value::Array(merged);
        }
        Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Array(_)
        | Value::Object(_) => {
            *live = wanted.clone();
        }
    }
}

fn merge_items(live: &mut Vec<Value>, wanted: &[Value], keys: &[String], shape: &Shape<'_>) {
    for item in wanted {
        let step = fields::item_step(item, keys);
        match live.iter_mut().find(|have| fields::item_step(have, keys) == step) {
            Some(have) => merge(have, item, shape),
            None => live.push(item.clone()),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;
    use serde_json::json;

    fn owner(manager: &str) -> Owner {
        Owner {
            manager: manager.to_owned(),
            apply: true,
            subresource: String::new(),
        }
    }

    fn annotate(live: &Value, manager: &str, annotations: Value, force: bool) -> Result<Value, ApiError> {
        let wanted = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "n", "annotations": annotations } });
        apply(live, &wanted, &owner(manager), &Shape::root(None), force)
    }

    #[test]
    fn a_field_no_longer_applied_goes_unless_someone_else_owns_it() {
        let first = annotate(&json!({}), "a", json!({ "x": "1", "y": "1" }), false).unwrap();
        let both = annotate(&first, "b", json!({ "y": "1" }), false).unwrap();
        let less = annotate(&both, "a", json!({ "z": "1" }), false).unwrap();
        assert_eq!(less["metadata"]["annotations"], json!({ "y": "1", "z": "1" }));
    }

    #[test]
    fn a_foreign_field_conflicts_and_force_takes_it() {
        let first = annotate(&json!({}), "a", json!({ "x": "1" }), false).unwrap();
        let refused = annotate(&first, "b", json!({ "x": "2" }), false).unwrap_err();
        assert_eq!(refused.code(), 409);
        let status = refused.status();
        assert_eq!(status["details"]["causes"][0]["field"], ".metadata.annotations.x");
        assert_eq!(status["details"]["causes"][0]["message"], "conflict with \"a\"");
        let taken = annotate(&first, "b", json!({ "x": "2" }), true).unwrap();
        assert_eq!(taken["metadata"]["annotations"]["x"], "2");
        let managed = Managed::read(&taken);
        assert!(
            managed.set_of(&owner("a")).is_empty(),
            "the loser owns nothing any more"
        );
    }

    #[test]
    fn list_items_are_owned_one_by_one() {
        let conditions = |live: &Value, manager: &str, list: Value| {
            let wanted = json!({ "apiVersion": "v1", "kind": "Node", "status": { "conditions": list } });
            apply(live, &wanted, &owner(manager), &Shape::root(None), false).unwrap()
        };
        let kubelet = conditions(
            &json!({}),
            "kubelet",
            json!([{ "type": "Ready", "status": "True" }]),
        );
        let both = conditions(&kubelet, "agent", json!([{ "type": "Net", "status": "True" }]));
        assert_eq!(both["status"]["conditions"].as_array().unwrap().len(), 2);
        let gone = conditions(&both, "agent", json!([]));
        assert_eq!(
            gone["status"]["conditions"],
            json!([{ "type": "Ready", "status": "True" }])
        );
    }
}
