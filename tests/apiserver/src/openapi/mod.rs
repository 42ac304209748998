//! As much OpenAPI as clients look at: which resources can be patched, and that the server validates fields and
//! knows dry runs. Schemas are left out, so `kubectl explain` has nothing to say.
//!
//! `kubectl` 1.27 and later ask `/openapi/v3` whether PATCH takes `fieldValidation` and leave validation to the
//! server if so; older ones read `/openapi/v2` in protobuf and skip validation of kinds without a definition.

mod proto;

use serde_json::{Map, Value, json};

use crate::resource::{Registry, Resource};

pub(crate) use proto::document as v2_protobuf;

/// Media type `kubectl` asks for at `/openapi/v2`.
pub(crate) const V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

/// Media type of the answer: Go's own parser refuses the `@`, so the real server spells it with a dot.
pub(crate) const V2_PROTOBUF_ANSWER: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

const TITLE: &str = "Kubernetes";

/// Query parameters of every PATCH.
const PARAMETERS: &[&str] = &["dryRun", "fieldManager", "fieldValidation", "force"];

/// `/openapi/v3`: where the document of each group and version is.
pub(crate) fn v3_index(registry: &Registry) -> Value {
    let mut paths = Map::new();
    for resource in registry.all() {
        let root = root(resource);
        let url = format!("/openapi/v3/{root}");
        paths.insert(root, json!({ "serverRelativeURL": url }));
    }
    json!({ "paths": paths })
}

/// `/openapi/v3/api/v1` and `/openapi/v3/apis/GROUP/VERSION`.
pub(crate) fn v3_document(registry: &Registry, wanted: &str) -> Option<Value> {
    let mut paths = Map::new();
    for resource in registry.all().iter().filter(|resource| root(resource) == wanted) {
        let parameter = |name: &&str| json!({ "name": name, "in": "query", "schema": { "type": "string" } });
        let parameters: Vec<Value> = PARAMETERS.iter().map(parameter).collect();
        let mut patch = json!({
            "operationId": format!("patch{}", resource.kind),
            "parameters": parameters,
            // Strategic merge is not offered here, since clients would then look for its schema.
            "requestBody": { "content": { "application/apply-patch+yaml": {}, "application/merge-patch+json": {} } },
            "responses": { "200": { "description": "OK" } },
        });
        patch["x-kubernetes-action"] = json!("patch");
        patch["x-kubernetes-group-version-kind"] = kind(resource);
        paths.insert(object_path(resource), json!({ "patch": patch }));
    }
    let info = json!({ "title": TITLE, "version": crate::discovery::GIT_VERSION });
    (!paths.is_empty()).then(|| json!({ "openapi": "3.0.0", "info": info, "paths": paths, "components": {} }))
}

/// `/openapi/v2` in JSON.
pub(crate) fn v2_json(registry: &Registry) -> Value {
    let mut paths = Map::new();
    for resource in registry.all() {
        let parameter =
            |name: &&str| json!({ "name": name, "in": "query", "type": "string", "uniqueItems": true });
        let parameters: Vec<Value> = PARAMETERS.iter().map(parameter).collect();
        let patch = json!({
            "parameters": parameters, "responses": { "200": { "description": "OK" } },
            "x-kubernetes-group-version-kind": kind(resource),
        });
        paths.insert(object_path(resource), json!({ "patch": patch }));
    }
    let info = json!({ "title": TITLE, "version": crate::discovery::GIT_VERSION });
    json!({ "swagger": "2.0", "info": info, "paths": paths, "definitions": {} })
}

fn kind(resource: &Resource) -> Value {
    json!({ "group": resource.group, "version": resource.version, "kind": resource.kind })
}

fn root(resource: &Resource) -> String {
    if resource.group.is_empty() {
        format!("api/{}", resource.version)
    } else {
        format!("apis/{}/{}", resource.group, resource.version)
    }
}

fn object_path(resource: &Resource) -> String {
    let namespace = if resource.namespaced {
        "namespaces/{namespace}/"
    } else {
        ""
    };
    format!("/{}/{namespace}{}/{{name}}", root(resource), resource.plural)
}
