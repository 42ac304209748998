//! Sets of fields, as `managedFields` records them (format `FieldsV1`).
//!
//! A path is a list of steps in that format's own spelling: `f:NAME` for a field, `k:{"name":"x"}` for an item of
//! a keyed list, `v:"x"` for a member of a set.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::shape::{ListKind, Shape, key_default};

pub(crate) type Path = Vec<String>;
pub(crate) type FieldSet = BTreeSet<Path>;

/// All leaves of `value` with what stands there. Items of keyed lists are listed too, as null: owning the item is
/// owning its existence.
pub(crate) fn leaves(value: &Value, shape: &Shape<'_>) -> BTreeMap<Path, Value> {
    let mut found = BTreeMap::new();
    collect(value, shape, &mut Vec::new(), &mut found);
    found
}

/// The step that names `item` in a list keyed by `keys`.
pub(crate) fn item_step(item: &Value, keys: &[String]) -> String {
    let field = |key: &String| {
        let value = match item.get(key) {
            Some(value) => value.clone(),
            None => key_default(key).map_or(Value::Null, Value::from),
        };
        (key.clone(), value)
    };
    // serde_json's map is sorted, so equal keys spell equal steps.
    format!("k:{}", Value::Object(keys.iter().map(field).collect()))
}

pub(crate) fn member_step(member: &Value) -> String {
    format!("v:{member}")
}

/// Whether `paths` holds `path` or something below it.
pub(crate) fn covers<V>(paths: &BTreeMap<Path, V>, path: &Path) -> bool {
    paths
        .range(path.clone()..)
        .next()
        .is_some_and(|(first, _)| first.starts_with(path))
}

/// [`covers`] for a set.
pub(crate) fn set_covers(paths: &FieldSet, path: &Path) -> bool {
    paths
        .range(path.clone()..)
        .next()
        .is_some_and(|first| first.starts_with(path))
}

/// Removes what stands at `path`; containers that this leaves empty go too, unless `keep` covers them.
pub(crate) fn remove(value: &mut Value, path: &[String], shape: &Shape<'_>, keep: &FieldSet) {
    remove_at(value, path, 0, shape, keep);
}

pub(crate) fn to_fields_v1(set: &FieldSet) -> Value {
    let mut root = json!({});
    for path in set {
        let mut at = &mut root;
        for (depth, step) in path.iter().enumerate() {
            // A path with more below it is marked by "." there: it is a member itself.
            let inner = depth + 1 < path.len() && set.contains(&path[..=depth].to_vec());
            at = &mut at[step.as_str()];
            if at.is_null() {
                *at = json!({});
            }
            if inner {
                at["."] = json!({});
            }
        }
    }
    root
}

pub(crate) fn from_fields_v1(fields: &Value) -> FieldSet {
    let mut set = FieldSet::new();
    if let Some(fields) = fields.as_object() {
        read(fields, &mut Vec::new(), &mut set);
    }
    set
}

/// A path for people, as conflict messages show it: `.spec.containers[name="x"].image`.
pub(crate) fn display(path: &Path) -> String {
    let step = |step: &String| {
        let (kind, rest) = step.split_once(':').unwrap_or(("f", step));
        match kind {
            "k" => {
                let keys: Map<String, Value> = serde_json::from_str(rest).unwrap_or_default();
                let pairs: Vec<String> = keys.iter().map(|(key, value)| format!("{key}={value}")).collect();
                format!("[{}]", pairs.join(","))
            }
            "v" => format!("[={rest}]"),
            _ => format!(".{rest}"),
        }
    };
    path.iter().map(step).collect()
}

fn collect(value: &Value, shape: &Shape<'_>, path: &mut Path, found: &mut BTreeMap<Path, Value>) {
    match value {
        Value::Object(fields) if !fields.is_empty() && !shape.is_atomic_map() => {
            for (name, field) in fields {
                path.push(format!("f:{name}"));
                collect(field, &shape.field(name), path, found);
                path.pop();
            }
        }
        Value::Array(items) if !items.is_empty() && shape.list() != ListKind::Atomic => {
            let kind = shape.list();
            for item in items {
                match &kind {
                    ListKind::Map(keys) => {
                        path.push(item_step(item, keys));
                        found.insert(path.clone(), Value::Null);
                        collect(item, &shape.item(), path, found);
                    }
                    ListKind::Set | ListKind::Atomic => {
                        path.push(member_step(item));
                        found.insert(path.clone(), item.clone());
                    }
                }
                path.pop();
            }
        }
        Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Array(_)
        | Value::Object(_) => {
            if !path.is_empty() {
                found.insert(path.clone(), value.clone());
            }
        }
    }
}

fn remove_at(value: &mut Value, path: &[String], depth: usize, shape: &Shape<'_>, keep: &FieldSet) {
    let Some(step) = path.get(depth) else { return };
    let last = depth + 1 == path.len();
    let kept = || set_covers(keep, &path[..=depth].to_vec());
    if let Some(name) = step.strip_prefix("f:") {
        let Some(fields) = value.as_object_mut() else {
            return;
        };
        let Some(field) = fields.get_mut(name) else { return };
        if !last {
            remove_at(field, path, depth + 1, &shape.field(name), keep);
        }
        if last || (is_empty(field) && !kept()) {
            fields.remove(name);
        }
        return;
    }
    let Some(items) = value.as_array_mut() else { return };
    let found = items.iter().position(|item| match shape.list() {
        ListKind::Map(keys) => &item_step(item, &keys) == step,
        ListKind::Set | ListKind::Atomic => &member_step(item) == step,
    });
    let Some(at) = found else { return };
    if last {
        items.remove(at);
    } else {
        remove_at(&mut items[at], path, depth + 1, &shape.item(), keep);
    }
}

fn is_empty(value: &Value) -> bool {
    value.as_object().is_some_and(Map::is_empty) || value.as_array().is_some_and(Vec::is_empty)
}

fn read(fields: &Map<String, Value>, path: &mut Path, set: &mut FieldSet) {
    for (step, below) in fields {
        if step == "." {
            set.insert(path.clone());
            continue;
        }
        path.push(step.clone());
        match below.as_object() {
            Some(below) if !below.is_empty() => read(below, path, set),
            Some(_) | None => {
                set.insert(path.clone());
            }
        }
        path.pop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_v1_is_written_as_the_real_server_writes_it_and_read_back() {
        let pod = json!({ "metadata": { "labels": { "app": "x" }, "finalizers": ["f"] },
            "spec": { "containers": [{ "name": "c", "image": "i", "ports": [{ "containerPort": 80 }] }] } });
        let set: FieldSet = leaves(&pod, &Shape::root(None)).into_keys().collect();
        let written = to_fields_v1(&set);
        assert_eq!(
            written,
            json!({ "f:metadata": { "f:labels": { "f:app": {} }, "f:finalizers": { "v:\"f\"": {} } },
                "f:spec": { "f:containers": { "k:{\"name\":\"c\"}": { ".": {}, "f:name": {}, "f:image": {},
                    "f:ports": { "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": { ".": {}, "f:containerPort": {} } } } } } })
        );
        assert_eq!(from_fields_v1(&written), set);
    }

    #[test]
    fn removing_the_last_field_removes_the_map_around_it() {
        let mut node = json!({ "metadata": { "annotations": { "a": "1" }, "name": "n" } });
        let path: Path = ["f:metadata", "f:annotations", "f:a"].map(str::to_owned).to_vec();
        remove(&mut node, &path, &Shape::root(None), &FieldSet::new());
        assert_eq!(node, json!({ "metadata": { "name": "n" } }));
    }

    #[test]
    fn paths_are_shown_as_conflict_messages_show_them() {
        let path: Path = ["f:spec", "k:{\"name\":\"c\"}", "f:image"]
            .map(str::to_owned)
            .to_vec();
        assert_eq!(display(&path), ".spec[name=\"c\"].image");
    }
}
