//! What the server adds to an object, and refuses, before it is stored.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::error::{ApiError, Cause};
use crate::resource::Resource;
use crate::{crd, meta, schema};

/// Completes and checks `object`. With `strict`, an unknown field of a custom resource is an error and is not pruned.
pub(crate) fn admit(resource: &Resource, object: &mut Value, strict: bool) -> Result<(), ApiError> {
    let mut causes = name_causes(resource, meta::name(object));
    match resource.schema.as_deref() {
        Some(schema) => {
            prune(schema, object, strict)?;
            schema::apply_defaults(schema, object);
            causes.extend(schema::validate(schema, object));
        }
        None => default_builtin(resource, object),
    }
    if resource.kind == "CustomResourceDefinition" {
        causes.extend(crd::validate(object));
    }
    if resource.kind == "Pod" && object["spec"]["containers"].as_array().is_none_or(Vec::is_empty) {
        let message = "Required value".to_owned();
        causes.push(Cause {
            reason: "FieldValueRequired",
            field: "spec.containers".to_owned(),
            message,
        });
    }
    if causes.is_empty() {
        return Ok(());
    }
    Err(ApiError::Invalid {
        subject: resource.kind_subject(meta::name(object)),
        causes,
    })
}

/// Removes fields a custom resource does not have. 400 instead, if `strict`.
pub(crate) fn prune(schema: &Value, object: &mut Value, strict: bool) -> Result<(), ApiError> {
    let unknown = schema::prune(schema, object);
    if !strict || unknown.is_empty() {
        return Ok(());
    }
    let list: Vec<String> = unknown
        .iter()
        .map(|path| format!("unknown field \"{path}\""))
        .collect();
    Err(ApiError::BadRequest(format!(
        "strict decoding error: {}",
        list.join(", ")
    )))
}

/// Status of an object that has just been created: clients do not set it, except for nodes, which kubelets register
/// with their addresses in one request.
pub(crate) fn initial_status(resource: &Resource, object: &mut Value) {
    if !resource.has_status || resource.kind == "Node" {
        return;
    }
    let status = match resource.kind.as_str() {
        "Namespace" => json!({ "phase": "Active" }),
        "Pod" => json!({ "phase": "Pending" }),
        _ => Value::Null,
    };
    if let Some(fields) = object.as_object_mut() {
        fields.remove("status");
    }
    if !status.is_null() {
        object["status"] = status;
    }
}

fn default_builtin(resource: &Resource, object: &mut Value) {
    match resource.kind.as_str() {
        "Namespace" => {
            let name = meta::name(object).to_owned();
            meta::field_map(&mut object["metadata"], "labels")
                .insert("kubernetes.io/metadata.name".to_owned(), json!(name));
        }
        "Node" => {
            // The one is the head of the other, whichever was given.
            let spec = meta::field_map(object, "spec");
            let (one, all) = (spec.get("podCIDR").cloned(), spec.get("podCIDRs").cloned());
            match (one, all) {
                (Some(one), None) => drop(spec.insert("podCIDRs".to_owned(), json!([one]))),
                (None, Some(all)) if all[0].is_string() => {
                    drop(spec.insert("podCIDR".to_owned(), all[0].clone()))
                }
                _ => {}
            }
        }
        "Secret" => {
            let plain = object
                .as_object_mut()
                .and_then(|secret| secret.remove("stringData"));
            for (key, value) in plain.as_ref().and_then(Value::as_object).into_iter().flatten() {
                let encoded = STANDARD.encode(value.as_str().unwrap_or_default());
                meta::field_map(object, "data").insert(key.clone(), json!(encoded));
            }
            meta::field_map(object, "data");
            object["type"] = object["type"]
                .as_str()
                .map_or(json!("Opaque"), |kind| json!(kind));
        }
        "Service" => {
            meta::field_map(object, "spec")
                .entry("type")
                .or_insert_with(|| json!("ClusterIP"));
        }
        "CustomResourceDefinition" => crd::apply_defaults(object),
        _ => {}
    }
}

/// RFC 1123 subdomain, except RBAC names, which may hold a colon.
fn name_causes(resource: &Resource, name: &str) -> Vec<Cause> {
    let rbac = resource.group == "rbac.authorization.k8s.io";
    let label = |label: &str| {
        let inner = label
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        inner && !label.is_empty() && !label.starts_with('-') && !label.ends_with('-')
    };
    let fine = name.len() <= 253
        && if rbac {
            !name.contains(['/', '%'])
        } else {
            name.split('.').all(label)
        };
    if fine && !name.is_empty() {
        return Vec::new();
    }
    let message = format!(
        "Invalid value: \"{name}\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.'"
    );
    vec![Cause {
        reason: "FieldValueInvalid",
        field: "metadata.name".to_owned(),
        message,
    }]
}
