//! Reading and writing the parts every object has.

use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// `metadata.{field}` as text, empty when absent.
pub(crate) fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or_default()
}

/// `metadata.name`.
pub(crate) fn name(object: &Value) -> &str {
    text(object, "name")
}

/// `metadata.namespace`, empty for cluster-scoped objects.
pub(crate) fn namespace(object: &Value) -> &str {
    text(object, "namespace")
}

/// `metadata` for writing; made when absent or when it is no object.
pub(crate) fn metadata(object: &mut Value) -> &mut Map<String, Value> {
    field_map(object, "metadata")
}

/// A field as a map for writing; made when absent or when it is no object.
pub(crate) fn field_map<'a>(object: &'a mut Value, field: &str) -> &'a mut Map<String, Value> {
    if !object.is_object() {
        *object = json!({});
    }
    if !object[field].is_object() {
        object[field] = json!({});
    }
    object[field].as_object_mut().expect("made an object just above")
}

/// Sets `field` to what `from` has there, removing it when `from` has nothing.
pub(crate) fn copy_field(to: &mut Map<String, Value>, from: &Map<String, Value>, field: &str) {
    match from.get(field) {
        Some(value) => to.insert(field.to_owned(), value.clone()),
        None => to.remove(field),
    };
}

/// Whether the object still has finalizers.
pub(crate) fn has_finalizers(object: &Value) -> bool {
    object["metadata"]["finalizers"]
        .as_array()
        .is_some_and(|list| !list.is_empty())
}

/// Whether somebody asked for the object to be deleted.
pub(crate) fn is_deleting(object: &Value) -> bool {
    !object["metadata"]["deletionTimestamp"].is_null()
}

/// Now, in the resolution `metav1.Time` has.
pub(crate) fn now() -> String {
    timestamp(OffsetDateTime::now_utc())
}

/// A moment as `metav1.Time` writes it: RFC 3339, whole seconds, UTC.
pub(crate) fn timestamp(at: OffsetDateTime) -> String {
    at.replace_nanosecond(0)
        .unwrap_or(at)
        .format(&Rfc3339)
        .expect("years 0 to 9999 can be formatted")
}
