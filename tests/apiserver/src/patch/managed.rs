//! `metadata.managedFields`: who owns which field.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::fields::{self, FieldSet, Path};
use super::shape::Shape;
use crate::meta;

/// One owner: the same manager counts apart for apply and update, and for each subresource.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Owner {
    pub(crate) manager: String,
    pub(crate) apply: bool,
    pub(crate) subresource: String,
}

/// What an owner has, in which version of the API it said so, and since when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owned {
    pub(crate) set: FieldSet,
    api_version: String,
    time: String,
}

/// The owners of one object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Managed(BTreeMap<Owner, Owned>);

impl Managed {
    pub(crate) fn read(object: &Value) -> Self {
        let entries = object["metadata"]["managedFields"]
            .as_array()
            .into_iter()
            .flatten();
        let text = |entry: &Value, field: &str| entry[field].as_str().unwrap_or_default().to_owned();
        let owned = |entry: &Value| Owned {
            set: fields::from_fields_v1(&entry["fieldsV1"]),
            api_version: text(entry, "apiVersion"),
            time: text(entry, "time"),
        };
        let owner = |entry: &Value| Owner {
            manager: text(entry, "manager"),
            apply: entry["operation"] == "Apply",
            subresource: text(entry, "subresource"),
        };
        Self(entries.map(|entry| (owner(entry), owned(entry))).collect())
    }

    pub(crate) fn write(&self, object: &mut Value) {
        let entries: Vec<Value> = self.0.iter().map(|(owner, owned)| entry(owner, owned)).collect();
        meta::metadata(object).insert("managedFields".to_owned(), Value::Array(entries));
    }

    pub(crate) fn set_of(&self, owner: &Owner) -> FieldSet {
        self.0
            .get(owner)
            .map(|owned| owned.set.clone())
            .unwrap_or_default()
    }

    pub(crate) fn others<'a>(&'a self, owner: &'a Owner) -> impl Iterator<Item = (&'a Owner, &'a FieldSet)> {
        self.0
            .iter()
            .filter(move |(other, _)| *other != owner)
            .map(|(other, owned)| (other, &owned.set))
    }

    /// Makes `set` what `owner` has. The time moves only when the set does.
    pub(crate) fn assign(&mut self, owner: &Owner, set: FieldSet, api_version: &str) {
        if self
            .0
            .get(owner)
            .is_some_and(|owned| owned.set == set && owned.api_version == api_version)
        {
            return;
        }
        self.0.insert(
            owner.clone(),
            Owned {
                set,
                api_version: api_version.to_owned(),
                time: meta::now(),
            },
        );
    }

    /// Takes the fields in `lost` from everyone but `winner`.
    pub(crate) fn take<V>(&mut self, winner: &Owner, lost: &BTreeMap<Path, V>) {
        for (owner, owned) in &mut self.0 {
            if owner != winner {
                owned.set.retain(|path| !lost.contains_key(path));
            }
        }
    }

    /// Drops fields that `present` no longer has, and owners without fields.
    pub(crate) fn forget_absent(&mut self, present: &BTreeMap<Path, Value>) {
        for owned in self.0.values_mut() {
            owned.set.retain(|path| fields::covers(present, path));
        }
        self.0.retain(|_, owned| !owned.set.is_empty());
    }
}

/// Records an update: `owner` gets what it changed, others lose it.
pub(crate) fn track_update(old: Option<&Value>, new: &mut Value, owner: &Owner, shape: &Shape<'_>) {
    let before = old.map(|old| owned_leaves(old, shape)).unwrap_or_default();
    let after = owned_leaves(new, shape);
    let changed: BTreeMap<Path, ()> = after
        .iter()
        .filter(|&(path, value)| before.get(path) != Some(value))
        .map(|(path, _)| (path.clone(), ()))
        .collect();
    // An update may send managedFields along (read, change, write), but it never decides them.
    let mut managed = old.map(Managed::read).unwrap_or_default();
    managed.take(owner, &changed);
    if !changed.is_empty() {
        let mut set = managed.set_of(owner);
        set.extend(changed.into_keys());
        let api_version = new["apiVersion"].as_str().unwrap_or_default().to_owned();
        managed.assign(owner, set, &api_version);
    }
    managed.forget_absent(&after);
    managed.write(new);
}

/// Leaves that can be owned: identity and what the server itself writes cannot.
pub(crate) fn owned_leaves(object: &Value, shape: &Shape<'_>) -> BTreeMap<Path, Value> {
    const SERVER: &[&str] = &[
        "name",
        "namespace",
        "generateName",
        "uid",
        "resourceVersion",
        "generation",
        "creationTimestamp",
        "managedFields",
        "selfLink",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ];
    let mut leaves = fields::leaves(object, shape);
    leaves.retain(|path, _| match path.first().map(String::as_str) {
        Some("f:apiVersion" | "f:kind") => false,
        Some("f:metadata") => path
            .get(1)
            .is_some_and(|step| !SERVER.contains(&step.trim_start_matches("f:"))),
        Some(_) | None => true,
    });
    leaves
}

fn entry(owner: &Owner, owned: &Owned) -> Value {
    let mut entry = json!({
        "manager": owner.manager,
        "operation": if owner.apply { "Apply" } else { "Update" },
        "apiVersion": owned.api_version,
        "time": owned.time,
        "fieldsType": "FieldsV1",
        "fieldsV1": fields::to_fields_v1(&owned.set),
    });
    if !owner.subresource.is_empty() {
        entry["subresource"] = json!(owner.subresource);
    }
    entry
}
