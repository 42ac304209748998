//! The kinds that are served without a `CustomResourceDefinition`.

use crate::resource::Resource;
use crate::table;

const NAMESPACED: u8 = 1;
const STATUS: u8 = 2;
const GENERATION: u8 = 4;

/// Group, version, kind, plural, short names, flags.
type Row = (
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    &'static [&'static str],
    u8,
);

const ROWS: &[Row] = &[
    ("", "v1", "Node", "nodes", &["no"], STATUS),
    ("", "v1", "Namespace", "namespaces", &["ns"], STATUS),
    ("", "v1", "Pod", "pods", &["po"], NAMESPACED | STATUS),
    ("", "v1", "Service", "services", &["svc"], NAMESPACED | STATUS),
    ("", "v1", "Endpoints", "endpoints", &["ep"], NAMESPACED),
    ("", "v1", "Event", "events", &["ev"], NAMESPACED),
    ("", "v1", "ConfigMap", "configmaps", &["cm"], NAMESPACED),
    ("", "v1", "Secret", "secrets", &[], NAMESPACED),
    ("", "v1", "ServiceAccount", "serviceaccounts", &["sa"], NAMESPACED),
    (
        "apps",
        "v1",
        "DaemonSet",
        "daemonsets",
        &["ds"],
        NAMESPACED | STATUS | GENERATION,
    ),
    (
        "apps",
        "v1",
        "Deployment",
        "deployments",
        &["deploy"],
        NAMESPACED | STATUS | GENERATION,
    ),
    ("coordination.k8s.io", "v1", "Lease", "leases", &[], NAMESPACED),
    (
        "discovery.k8s.io",
        "v1",
        "EndpointSlice",
        "endpointslices",
        &[],
        NAMESPACED | GENERATION,
    ),
    (
        "networking.k8s.io",
        "v1",
        "NetworkPolicy",
        "networkpolicies",
        &["netpol"],
        NAMESPACED | GENERATION,
    ),
    (
        "rbac.authorization.k8s.io",
        "v1",
        "Role",
        "roles",
        &[],
        NAMESPACED,
    ),
    (
        "rbac.authorization.k8s.io",
        "v1",
        "RoleBinding",
        "rolebindings",
        &[],
        NAMESPACED,
    ),
    (
        "rbac.authorization.k8s.io",
        "v1",
        "ClusterRole",
        "clusterroles",
        &[],
        0,
    ),
    (
        "rbac.authorization.k8s.io",
        "v1",
        "ClusterRoleBinding",
        "clusterrolebindings",
        &[],
        0,
    ),
    ("events.k8s.io", "v1", "Event", "events", &["ev"], NAMESPACED),
    (
        "apiextensions.k8s.io",
        "v1",
        "CustomResourceDefinition",
        "customresourcedefinitions",
        &["crd", "crds"],
        STATUS | GENERATION,
    ),
];

/// All built-in resources.
pub(crate) fn resources() -> Vec<Resource> {
    ROWS.iter().map(resource).collect()
}

fn resource(&(group, version, kind, plural, short_names, flags): &Row) -> Resource {
    let workload = ["pods", "services", "daemonsets", "deployments"].contains(&plural);
    Resource {
        group: group.to_owned(),
        version: version.to_owned(),
        kind: kind.to_owned(),
        list_kind: format!("{kind}List"),
        plural: plural.to_owned(),
        singular: kind.to_lowercase(),
        short_names: short_names.iter().map(|&name| name.to_owned()).collect(),
        categories: if workload {
            vec!["all".to_owned()]
        } else {
            Vec::new()
        },
        namespaced: flags & NAMESPACED != 0,
        has_status: flags & STATUS != 0,
        has_generation: flags & GENERATION != 0,
        strategic: true,
        columns: table::builtin::columns(kind),
        schema: None,
    }
}
