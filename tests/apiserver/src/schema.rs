//! Structural schemas: defaults, pruning and basic validation of custom resources.
//!
//! Validated are `type`, `enum`, `minimum`, `maximum`, `minLength`, `maxLength`, `minItems`, `maxItems` and
//! `required`. `pattern`, `format` and CEL rules (`x-kubernetes-validations`) are not evaluated.

use serde_json::{Map, Value};

use crate::error::Cause;

/// Fills in `default` values. A default applies where the field is absent, or null and not nullable.
pub(crate) fn apply_defaults(schema: &Value, value: &mut Value) {
    if let Some(fields) = value.as_object_mut() {
        for (name, sub) in properties(schema) {
            if let Some(default) = sub.get("default")
                && lacks(fields, name, sub)
            {
                fields.insert(name.clone(), default.clone());
            }
            if let Some(field) = fields.get_mut(name) {
                apply_defaults(sub, field);
            }
        }
        if let Some(sub) = schema.get("additionalProperties").filter(|sub| sub.is_object()) {
            fields.values_mut().for_each(|field| apply_defaults(sub, field));
        }
    } else if let (Some(items), Some(sub)) = (value.as_array_mut(), schema.get("items")) {
        items.iter_mut().for_each(|item| apply_defaults(sub, item));
    }
}

/// Whether [`apply_defaults`] would change `value`.
pub(crate) fn lacks_default(schema: &Value, value: &Value) -> bool {
    if let Some(fields) = value.as_object() {
        let named = properties(schema).any(|(name, sub)| {
            (sub.get("default").is_some() && lacks(fields, name, sub))
                || fields.get(name).is_some_and(|field| lacks_default(sub, field))
        });
        let extra = schema.get("additionalProperties").filter(|sub| sub.is_object());
        return named || extra.is_some_and(|sub| fields.values().any(|field| lacks_default(sub, field)));
    }
    match (value.as_array(), schema.get("items")) {
        (Some(items), Some(sub)) => items.iter().any(|item| lacks_default(sub, item)),
        _ => false,
    }
}

/// Removes fields the schema does not know and returns their paths.
pub(crate) fn prune(schema: &Value, object: &mut Value) -> Vec<String> {
    let mut unknown = Vec::new();
    prune_at(schema, object, "", true, &mut unknown);
    unknown
}

/// Everything in `object` that breaks the schema.
pub(crate) fn validate(schema: &Value, object: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    validate_at(schema, object, "", &mut causes);
    causes
}

fn properties(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    schema
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
}

fn lacks(fields: &Map<String, Value>, name: &str, sub: &Value) -> bool {
    match fields.get(name) {
        None => true,
        Some(value) => value.is_null() && !flag(sub, "nullable"),
    }
}

fn flag(schema: &Value, name: &str) -> bool {
    schema.get(name).and_then(Value::as_bool).unwrap_or(false)
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

fn prune_at(schema: &Value, value: &mut Value, path: &str, root: bool, unknown: &mut Vec<String>) {
    if let Some(fields) = value.as_object_mut() {
        // apiVersion, kind and metadata belong to every object and are never the schema's to judge.
        let envelope =
            |name: &str| (root || flag(schema, "x-kubernetes-embedded-resource")) && is_envelope(name);
        let known = schema.get("properties").and_then(Value::as_object);
        let extra = schema.get("additionalProperties");
        let keep_all = flag(schema, "x-kubernetes-preserve-unknown-fields")
            || extra.is_some_and(|e| e == &Value::Bool(true));
        fields.retain(|name, field| {
            if envelope(name) {
                return true;
            }
            let at = join(path, name);
            if let Some(sub) = known.and_then(|known| known.get(name)) {
                prune_at(sub, field, &at, false, unknown);
            } else if let Some(sub) = extra.filter(|sub| sub.is_object()) {
                prune_at(sub, field, &at, false, unknown);
            } else if !keep_all {
                unknown.push(at);
                return false;
            }
            true
        });
    } else if let (Some(items), Some(sub)) = (value.as_array_mut(), schema.get("items")) {
        for (index, item) in items.iter_mut().enumerate() {
            prune_at(sub, item, &format!("{path}[{index}]"), false, unknown);
        }
    }
}

fn is_envelope(name: &str) -> bool {
    ["apiVersion", "kind", "metadata"].contains(&name)
}

fn validate_at(schema: &Value, value: &Value, path: &str, causes: &mut Vec<Cause>) {
    if value.is_null() && flag(schema, "nullable") {
        return;
    }
    let mut bad = |reason, message| {
        causes.push(Cause {
            reason,
            field: path.to_owned(),
            message,
        })
    };
    if let Some(wanted) = wrong_type(schema, value) {
        let message = format!(
            "Invalid value: \"{}\": {path} in body must be of type {wanted}: \"{}\"",
            type_of(value),
            type_of(value)
        );
        return bad("FieldValueTypeInvalid", message);
    }
    if let Some(allowed) = schema.get("enum").and_then(Value::as_array)
        && !allowed.contains(value)
    {
        let list: Vec<String> = allowed.iter().map(Value::to_string).collect();
        bad(
            "FieldValueNotSupported",
            format!(
                "Unsupported value: {value}: supported values: {}",
                list.join(", ")
            ),
        );
    }
    for (limit, text) in broken_limits(schema, value) {
        bad(
            "FieldValueInvalid",
            format!("Invalid value: {value}: {path} in body should {text} {limit}"),
        );
    }
    if let Some(fields) = value.as_object() {
        for name in schema
            .get("required")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
        {
            if !fields.contains_key(name) {
                let (field, message) = (join(path, name), "Required value".to_owned());
                causes.push(Cause {
                    reason: "FieldValueRequired",
                    field,
                    message,
                });
            }
        }
        for (name, field) in fields {
            let known = schema.get("properties").and_then(|p| p.get(name));
            let sub = known.or_else(|| schema.get("additionalProperties").filter(|sub| sub.is_object()));
            // The root's metadata is checked by the server itself.
            if let Some(sub) = sub.filter(|_| !(path.is_empty() && is_envelope(name))) {
                validate_at(sub, field, &join(path, name), causes);
            }
        }
    } else if let (Some(items), Some(sub)) = (value.as_array(), schema.get("items")) {
        for (index, item) in items.iter().enumerate() {
            validate_at(sub, item, &format!("{path}[{index}]"), causes);
        }
    }
}

/// The type that was wanted, when `value` is of another.
fn wrong_type<'a>(schema: &'a Value, value: &Value) -> Option<&'a str> {
    if flag(schema, "x-kubernetes-int-or-string") {
        return (!value.is_i64() && !value.is_string()).then_some("integer,string");
    }
    let wanted = schema.get("type").and_then(Value::as_str)?;
    let fits = match wanted {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        _ => true,
    };
    (!fits).then_some(wanted)
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Each limit that does not hold, with the words for the message.
fn broken_limits<'a>(schema: &'a Value, value: &Value) -> Vec<(&'a Value, &'static str)> {
    let size = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => Some(text.chars().count() as f64),
        Value::Array(items) => Some(items.len() as f64),
        Value::Null | Value::Bool(_) | Value::Object(_) => None,
    };
    let Some(size) = size else { return Vec::new() };
    let limits: [(&str, bool, &'static str); 2] = match value {
        Value::Number(_) => [
            ("minimum", true, "be greater than or equal to"),
            ("maximum", false, "be less than or equal to"),
        ],
        Value::String(_) => [
            ("minLength", true, "have at least this many characters:"),
            ("maxLength", false, "have at most this many characters:"),
        ],
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => [
            ("minItems", true, "have at least this many items:"),
            ("maxItems", false, "have at most this many items:"),
        ],
    };
    let broken = |&(name, least, text): &(&str, bool, &'static str)| {
        let limit = schema.get(name)?;
        let bound = limit.as_f64()?;
        (if least { size < bound } else { size > bound }).then_some((limit, text))
    };
    limits.iter().filter_map(broken).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn mesh() -> Value {
        json!({ "type": "object", "properties": {
            "spec": { "type": "object", "default": {}, "required": ["mode"], "properties": {
                "mode": { "type": "string", "enum": ["a", "b"], "default": "a" },
                "mtu": { "type": "integer", "minimum": 0, "maximum": 9000 },
                "port": { "x-kubernetes-int-or-string": true },
                "free": { "type": "object", "x-kubernetes-preserve-unknown-fields": true },
                "list": { "type": "array", "maxItems": 2, "items": { "type": "object", "properties": {
                    "x": { "type": "integer", "default": 7 } } } },
                "labels": { "type": "object", "additionalProperties": { "type": "string" } } } } } })
    }

    #[test]
    fn defaults_reach_into_defaulted_parents_lists_and_nulls() {
        let mut object = json!({ "spec": { "mode": null, "list": [{}, { "x": 1 }] } });
        assert!(lacks_default(&mesh(), &object));
        apply_defaults(&mesh(), &mut object);
        assert_eq!(
            object,
            json!({ "spec": { "mode": "a", "list": [{ "x": 7 }, { "x": 1 }] } })
        );
        assert!(!lacks_default(&mesh(), &object));
        let mut empty = json!({});
        apply_defaults(&mesh(), &mut empty);
        assert_eq!(empty, json!({ "spec": { "mode": "a" } }));
    }

    #[test]
    fn pruning_names_what_it_removes_and_spares_preserved_fields() {
        let mut object = json!({ "apiVersion": "g/v1", "metadata": { "name": "x" }, "extra": 1,
            "spec": { "mode": "a", "odd": 1, "free": { "any": 1 }, "labels": { "k": "v" }, "list": [{ "y": 1 }] } });
        let mut unknown = prune(&mesh(), &mut object);
        unknown.sort();
        assert_eq!(unknown, ["extra", "spec.list[0].y", "spec.odd"]);
        assert_eq!(object["spec"]["free"], json!({ "any": 1 }));
        assert_eq!(object["metadata"]["name"], "x");
    }

    #[test]
    fn each_rule_is_reported_with_its_field() {
        let check = |spec: Value| -> Vec<(String, &'static str)> {
            validate(&mesh(), &json!({ "spec": spec }))
                .into_iter()
                .map(|c| (c.field, c.reason))
                .collect()
        };
        assert_eq!(check(json!({ "mode": "a", "mtu": 1420, "port": "http" })), []);
        assert_eq!(check(json!({})), [("spec.mode".into(), "FieldValueRequired")]);
        assert_eq!(
            check(json!({ "mode": "c" })),
            [("spec.mode".into(), "FieldValueNotSupported")]
        );
        assert_eq!(
            check(json!({ "mode": "a", "mtu": -1 })),
            [("spec.mtu".into(), "FieldValueInvalid")]
        );
        assert_eq!(
            check(json!({ "mode": "a", "mtu": 9001 })),
            [("spec.mtu".into(), "FieldValueInvalid")]
        );
        assert_eq!(
            check(json!({ "mode": "a", "mtu": "x" })),
            [("spec.mtu".into(), "FieldValueTypeInvalid")]
        );
        assert_eq!(
            check(json!({ "mode": "a", "port": 1.5 })),
            [("spec.port".into(), "FieldValueTypeInvalid")]
        );
        assert_eq!(
            check(json!({ "mode": "a", "list": [{}, {}, {}] })),
            [("spec.list".into(), "FieldValueInvalid")]
        );
        assert_eq!(
            check(json!({ "mode": "a", "labels": { "k": 1 } })),
            [("spec.labels.k".into(), "FieldValueTypeInvalid")]
        );
    }
}
