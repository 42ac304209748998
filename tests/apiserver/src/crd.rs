//! `CustomResourceDefinition`s: from the stored object to the resources it makes the server serve.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::error::Cause;
use crate::meta;
use crate::resource::Resource;
use crate::table::Column;

/// Fills in what the real server defaults: singular, list kind and scope-independent names.
pub(crate) fn apply_defaults(crd: &mut Value) {
    let kind = crd["spec"]["names"]["kind"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let spec = meta::field_map(crd, "spec");
    spec.entry("conversion")
        .or_insert_with(|| json!({ "strategy": "None" }));
    if let Some(names) = spec.get_mut("names").and_then(Value::as_object_mut) {
        names
            .entry("singular")
            .or_insert_with(|| json!(kind.to_lowercase()));
        names
            .entry("listKind")
            .or_insert_with(|| json!(format!("{kind}List")));
    }
}

/// What keeps a definition from being served.
pub(crate) fn validate(crd: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let spec = &crd["spec"];
    for (field, value) in [
        ("spec.group", &spec["group"]),
        ("spec.names.plural", &spec["names"]["plural"]),
        ("spec.names.kind", &spec["names"]["kind"]),
    ] {
        if value.as_str().is_none_or(str::is_empty) {
            causes.push(required(field));
        }
    }
    let wanted = format!("{}.{}", text(&spec["names"]["plural"]), text(&spec["group"]));
    if causes.is_empty() && meta::name(crd) != wanted {
        let message = format!(
            "Invalid value: \"{}\": must be spec.names.plural+\".\"+spec.group",
            meta::name(crd)
        );
        causes.push(Cause {
            reason: "FieldValueInvalid",
            field: "metadata.name".to_owned(),
            message,
        });
    }
    if !["Namespaced", "Cluster"].contains(&text(&spec["scope"])) {
        let message = "supported values: \"Cluster\", \"Namespaced\"".to_owned();
        causes.push(Cause {
            reason: "FieldValueNotSupported",
            field: "spec.scope".to_owned(),
            message,
        });
    }
    let versions = spec["versions"].as_array().map(Vec::as_slice).unwrap_or_default();
    if versions.is_empty() {
        causes.push(required("spec.versions"));
    }
    if versions
        .iter()
        .filter(|version| version["storage"] == true)
        .count()
        != 1
    {
        let message = "must have exactly one version marked as storage version".to_owned();
        causes.push(Cause {
            reason: "FieldValueInvalid",
            field: "spec.versions".to_owned(),
            message,
        });
    }
    for (index, version) in versions.iter().enumerate() {
        if !version["schema"]["openAPIV3Schema"].is_object() {
            causes.push(required(&format!(
                "spec.versions[{index}].schema.openAPIV3Schema"
            )));
        }
    }
    causes
}

/// The status of a definition that is served: there is no controller to wait for.
pub(crate) fn established(crd: &Value) -> Value {
    let since = meta::now();
    let condition = |kind: &str, reason: &str, message: &str| {
        // A condition keeps its time while its status stays: an update of a definition is no transition.
        let before = crd["status"]["conditions"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|c| c["type"] == kind);
        let since = before.map_or_else(|| json!(since), |c| c["lastTransitionTime"].clone());
        json!({ "type": kind, "status": "True", "reason": reason, "message": message, "lastTransitionTime": since })
    };
    let versions = crd["spec"]["versions"].as_array().into_iter().flatten();
    let stored: Vec<&Value> = versions
        .filter(|v| v["storage"] == true)
        .map(|v| &v["name"])
        .collect();
    json!({
        "acceptedNames": crd["spec"]["names"],
        "conditions": [
            condition("NamesAccepted", "NoConflicts", "no conflicts found"),
            condition("Established", "InitialNamesAccepted", "the initial names have been accepted"),
        ],
        "storedVersions": stored,
    })
}

/// One resource for each served version.
pub(crate) fn resources(crd: &Value) -> Vec<Resource> {
    let versions = crd["spec"]["versions"].as_array().into_iter().flatten();
    versions
        .filter(|version| version["served"] == true)
        .map(|version| resource(&crd["spec"], version))
        .collect()
}

fn resource(spec: &Value, version: &Value) -> Resource {
    let names = &spec["names"];
    let columns = version["additionalPrinterColumns"]
        .as_array()
        .into_iter()
        .flatten();
    let mut columns: Vec<Column> = columns.map(Column::from_crd).collect();
    if columns.is_empty() {
        columns.push(Column::age());
    }
    Resource {
        group: text(&spec["group"]).to_owned(),
        version: text(&version["name"]).to_owned(),
        kind: text(&names["kind"]).to_owned(),
        list_kind: text(&names["listKind"]).to_owned(),
        plural: text(&names["plural"]).to_owned(),
        singular: text(&names["singular"]).to_owned(),
        short_names: texts(&names["shortNames"]),
        categories: texts(&names["categories"]),
        namespaced: spec["scope"] == "Namespaced",
        has_status: version["subresources"]["status"].is_object(),
        has_generation: true,
        strategic: false,
        columns,
        schema: Some(Arc::new(version["schema"]["openAPIV3Schema"].clone())),
    }
}

fn required(field: &str) -> Cause {
    Cause {
        reason: "FieldValueRequired",
        field: field.to_owned(),
        message: "Required value".to_owned(),
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn texts(value: &Value) -> Vec<String> {
    value
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}
