//! One stored object, seen through any version of its resource.
//!
//! Versions of a custom resource differ only in `apiVersion` (`conversion: None`). The two event APIs are one
//! store in the real server, with fields renamed; so they are here, and `kubectl get events` shows what a
//! recorder wrote through `events.k8s.io`.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::resource::Resource;
use crate::schema;

/// Core name, `events.k8s.io` name.
const EVENT_FIELDS: &[(&str, &str)] = &[
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

/// `object` as `resource` presents it.
pub(crate) fn to_version(object: &Arc<Value>, resource: &Resource) -> Arc<Value> {
    let wanted = resource.api_version();
    // Defaults are applied on reading too: the schema may have got one after the object was stored.
    let undefaulted = resource
        .schema
        .as_deref()
        .filter(|schema| schema::lacks_default(schema, object));
    if object["apiVersion"] == wanted.as_str() && undefaulted.is_none() {
        return Arc::clone(object);
    }
    let mut converted = (**object).clone();
    if resource.kind == "Event" && object["apiVersion"] != wanted.as_str() {
        rename_event_fields(&mut converted, resource.group.is_empty());
    }
    converted["apiVersion"] = json!(wanted);
    if let Some(schema) = undefaulted {
        schema::apply_defaults(schema, &mut converted);
    }
    Arc::new(converted)
}

fn rename_event_fields(event: &mut Value, to_core: bool) {
    let Some(fields) = event.as_object_mut() else {
        return;
    };
    for &(core, grouped) in EVENT_FIELDS {
        let (from, to) = if to_core { (grouped, core) } else { (core, grouped) };
        if let Some(value) = fields.remove(from) {
            fields.insert(to.to_owned(), value);
        }
    }
}
