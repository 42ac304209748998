//! The policy kinds as they stand in the API: `warren-mesh.io/v1alpha1`, with the fields of Calico's kinds of the same names, so
//! that nothing of an object but its `apiVersion` changes.
//!
//! These types make the schemas and write objects. An object that is *read* goes through [`super::decode`], which takes any
//! JSON. The schemas keep fields they do not know: were the server to drop them, a policy with a match that is not
//! supported would match more than it says, and nobody could name it.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{CustomResource, CustomResourceExt};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The definitions of all policy kinds.
pub fn crds() -> Vec<CustomResourceDefinition> {
    vec![
        GlobalNetworkPolicy::crd(),
        NetworkPolicy::crd(),
        GlobalNetworkSet::crd(),
        NetworkSet::crd(),
        HostEndpoint::crd(),
    ]
}

/// A policy for pods of any namespace, and for host endpoints.
#[derive(CustomResource, JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "warren-mesh.io",
    version = "v1alpha1",
    kind = "GlobalNetworkPolicy",
    plural = "globalnetworkpolicies",
    singular = "globalnetworkpolicy",
    shortname = "gnp",
    category = "warren",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Order","type":"number","jsonPath":".spec.order"}"#,
    printcolumn = r#"{"name":"Selector","type":"string","jsonPath":".spec.selector"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    doc = "GlobalNetworkPolicy says what pods of any namespace, and host endpoints, may send and receive."
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct GlobalNetworkPolicySpec {
    /// The tier it is in. There is one, `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<String>,
    /// Its place among the policies: smaller ones are asked first, and those without one last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<f64>,
    /// What it applies to, by labels, such as `role == 'db' && !has(spare)`; absent: everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// Only pods of the namespaces with such labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<String>,
    /// `Ingress`, `Egress` or both; absent: what it has rules for, and without any ingress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub types: Option<Vec<String>>,
    /// Rules for what comes in, asked in their order until one decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<Vec<Rule>>,
    /// Rules for what goes out, asked in their order until one decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<Vec<Rule>>,
}

/// A policy for pods of its own namespace.
#[derive(CustomResource, JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "warren-mesh.io",
    version = "v1alpha1",
    kind = "NetworkPolicy",
    plural = "networkpolicies",
    singular = "networkpolicy",
    namespaced,
    category = "warren",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Order","type":"number","jsonPath":".spec.order"}"#,
    printcolumn = r#"{"name":"Selector","type":"string","jsonPath":".spec.selector"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    doc = "NetworkPolicy says what pods of its namespace may send and receive. It is not the kind of the same name of \
           networking.k8s.io, which is honoured too."
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct NetworkPolicySpec {
    /// The tier it is in. There is one, `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<String>,
    /// Its place among the policies: smaller ones are asked first, and those without one last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<f64>,
    /// The pods of its namespace that it applies to, by labels; absent: all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// `Ingress`, `Egress` or both; absent: what it has rules for, and without any ingress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub types: Option<Vec<String>>,
    /// Rules for what comes in, asked in their order until one decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<Vec<Rule>>,
    /// Rules for what goes out, asked in their order until one decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<Vec<Rule>>,
}

/// One rule of a policy. All that it says must hold.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct Rule {
    /// `Allow`, `Deny`, `Log` (and go on with the next rule) or `Pass` (to the next tier).
    pub action: String,
    /// 4 or 6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_version: Option<i64>,
    /// TCP, UDP, SCTP, UDPLite, ICMP, ICMPv6, or a number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "int_or_string")]
    pub protocol: Option<IntOrString>,
    /// Every protocol but this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "int_or_string")]
    pub not_protocol: Option<IntOrString>,
    /// ICMP messages of this type and code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp: Option<Icmp>,
    /// ICMP messages but of this type and code.
    #[serde(default, rename = "notICMP", skip_serializing_if = "Option::is_none")]
    pub not_icmp: Option<Icmp>,
    /// Who opens the connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Entity>,
    /// With whom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<Entity>,
    /// Annotations, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "anything")]
    pub metadata: Option<Value>,
}

/// Type and code of ICMP messages.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct Icmp {
    /// 0 to 255.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<i64>,
    /// 0 to 255; absent: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i64>,
}

/// One side of a rule. All that it says must hold.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct Entity {
    /// In one of these networks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nets: Option<Vec<String>>,
    /// In none of these networks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_nets: Option<Vec<String>>,
    /// Pods, host endpoints and network sets with such labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// None with such labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_selector: Option<String>,
    /// Of namespaces with such labels; `global()`: of none. Absent in a NetworkPolicy: of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<String>,
    /// Numbers, ranges such as `8000:8080`, or names of ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "ports")]
    pub ports: Option<Vec<IntOrString>>,
    /// None of these ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "ports")]
    pub not_ports: Option<Vec<IntOrString>>,
}

/// Networks with labels, for rules of any namespace.
#[derive(CustomResource, JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "warren-mesh.io",
    version = "v1alpha1",
    kind = "GlobalNetworkSet",
    plural = "globalnetworksets",
    singular = "globalnetworkset",
    category = "warren",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    doc = "GlobalNetworkSet gives networks labels, by which rules of any namespace find them like pods."
)]
pub struct GlobalNetworkSetSpec {
    /// Its networks, such as `198.51.100.0/24`; an address alone is a network of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nets: Option<Vec<String>>,
}

/// Networks with labels, for rules that look into its namespace.
#[derive(CustomResource, JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "warren-mesh.io",
    version = "v1alpha1",
    kind = "NetworkSet",
    plural = "networksets",
    singular = "networkset",
    namespaced,
    category = "warren",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    doc = "NetworkSet gives networks labels, by which rules that look into its namespace find them like pods."
)]
pub struct NetworkSetSpec {
    /// Its networks, such as `198.51.100.0/24`; an address alone is a network of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nets: Option<Vec<String>>,
}

/// Interfaces of a node, protected by the GlobalNetworkPolicies that select it.
#[derive(CustomResource, JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "warren-mesh.io",
    version = "v1alpha1",
    kind = "HostEndpoint",
    plural = "hostendpoints",
    singular = "hostendpoint",
    shortname = "hep",
    category = "warren",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Node","type":"string","jsonPath":".spec.node"}"#,
    printcolumn = r#"{"name":"Interface","type":"string","jsonPath":".spec.interfaceName"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    doc = "HostEndpoint puts interfaces of a node under the GlobalNetworkPolicies that select it by its labels. What these do \
           not allow is dropped, but for the failsafe ports, Warren's own, and what the node and its pods say to each other."
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct HostEndpointSpec {
    /// The node's name.
    pub node: String,
    /// An interface's name, or `*`: all of them; absent: the one with an expected address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface_name: Option<String>,
    /// Its addresses, by which selectors find it.
    #[serde(default, rename = "expectedIPs", skip_serializing_if = "Option::is_none")]
    pub expected_ips: Option<Vec<String>>,
    /// `projectcalico-default-allow`: what no policy speaks of passes; absent: it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profiles: Option<Vec<String>>,
    /// Ports that rules may name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<Vec<EndpointPort>>,
}

/// A port of a host endpoint that has a name.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EndpointPort {
    /// Its name.
    pub name: String,
    /// TCP, UDP, SCTP, or a number.
    #[schemars(schema_with = "int_or_string")]
    pub protocol: IntOrString,
    /// Its number.
    pub port: i64,
}

fn int_or_string(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"x-kubernetes-int-or-string": true})
}

fn ports(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "array", "items": {"x-kubernetes-int-or-string": true}})
}

fn anything(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use std::path::Path;

    use super::*;

    /// Every object in a schema, with its path.
    fn objects(path: &str, schema: &Value, found: &mut Vec<(String, Value)>) {
        if schema["type"] == "object" {
            found.push((path.to_owned(), schema.clone()));
        }
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            objects(&format!("{path}.{name}"), property, found);
        }
        if let Some(items) = schema.get("items") {
            objects(&format!("{path}[]"), items, found);
        }
    }

    #[test]
    fn the_server_keeps_what_a_policy_says_that_is_not_known() {
        for crd in crds().iter().take(2) {
            let crd = serde_json::to_value(crd).unwrap();
            let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
            let mut found = Vec::new();
            objects("spec", &schema["properties"]["spec"], &mut found);
            assert!(found.len() > 10, "{found:?}");
            for (path, object) in found {
                assert_eq!(object["x-kubernetes-preserve-unknown-fields"], true, "{path}");
            }
            let text = schema.to_string();
            assert!(
                !text.contains("$ref") && !text.contains("anyOf"),
                "not structural: {text}"
            );
        }
    }

    #[test]
    fn the_manifests_are_the_definitions() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests/base");
        let all = std::fs::read_to_string(folder.join("kustomization.yaml")).unwrap();
        for crd in crds() {
            let file = format!("crds/{}.yaml", crd.spec.names.singular.as_ref().unwrap());
            let text = std::fs::read_to_string(folder.join(&file)).unwrap();
            let manifest: Value = serde_saphyr::from_str(&text).unwrap();
            let manifest: CustomResourceDefinition = serde_json::from_value(manifest).unwrap();
            assert_eq!(manifest, crd, "out of date: run `cargo xtask generate`");
            assert!(all.contains(&file), "{file} is not applied");
        }
    }
}
