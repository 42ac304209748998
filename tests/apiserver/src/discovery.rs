//! Which groups, versions and resources there are, in the classic (not aggregated) documents.

use serde_json::{Value, json};

use crate::resource::{Registry, Resource};

/// Version the server claims. Fields and behaviour follow Kubernetes 1.33.
pub(crate) const GIT_VERSION: &str = "v1.33.0-warren";

const OBJECT_VERBS: &[&str] = &[
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];
const STATUS_VERBS: &[&str] = &["get", "patch", "update"];

/// Resources that exist only to be posted: group, version, kind, plural.
pub(crate) const REVIEWS: &[(&str, &str, &str, &str)] = &[
    (
        "authentication.k8s.io",
        "v1",
        "SelfSubjectReview",
        "selfsubjectreviews",
    ),
    (
        "authorization.k8s.io",
        "v1",
        "SelfSubjectAccessReview",
        "selfsubjectaccessreviews",
    ),
];

/// `/version`.
pub(crate) fn version() -> Value {
    json!({
        "major": "1", "minor": "33", "gitVersion": GIT_VERSION, "gitCommit": "", "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z", "goVersion": "", "compiler": "rustc", "platform": "linux/amd64",
    })
}

/// `/api`.
pub(crate) fn core_versions() -> Value {
    json!({ "kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [] })
}

/// `/apis`.
pub(crate) fn groups(registry: &Registry) -> Value {
    let mut names: Vec<&str> = Vec::new();
    let served = registry
        .all()
        .iter()
        .map(|r| r.group.as_str())
        .chain(REVIEWS.iter().map(|r| r.0));
    for name in served.filter(|group| !group.is_empty()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let groups: Vec<Value> = names
        .into_iter()
        .filter_map(|name| group_of(registry, name))
        .collect();
    json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups })
}

/// `/apis/GROUP`.
pub(crate) fn group(registry: &Registry, name: &str) -> Option<Value> {
    let mut group = group_of(registry, name)?;
    group["kind"] = json!("APIGroup");
    group["apiVersion"] = json!("v1");
    Some(group)
}

/// `/api/v1` and `/apis/GROUP/VERSION`.
pub(crate) fn resources(registry: &Registry, group: &str, version: &str) -> Option<Value> {
    let mut list = Vec::new();
    for resource in registry
        .all()
        .iter()
        .filter(|r| r.group == group && r.version == version)
    {
        list.push(entry(resource));
        if resource.has_status {
            list.push(status_entry(resource));
        }
    }
    for (_, _, kind, plural) in REVIEWS.iter().filter(|r| r.0 == group && r.1 == version) {
        list.push(json!({ "name": plural, "singularName": kind.to_lowercase(), "namespaced": false, "kind": kind, "verbs": ["create"] }));
    }
    if list.is_empty() {
        return None;
    }
    let version = if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    };
    Some(json!({ "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": list }))
}

fn group_of(registry: &Registry, name: &str) -> Option<Value> {
    let mut versions: Vec<&str> = Vec::new();
    let custom = registry
        .all()
        .iter()
        .filter(|r| r.group == name)
        .map(|r| r.version.as_str());
    for version in custom.chain(REVIEWS.iter().filter(|r| r.0 == name).map(|r| r.1)) {
        if !versions.contains(&version) {
            versions.push(version);
        }
    }
    // Newest and most stable first: clients take the first as the preferred one.
    versions.sort_by_key(|version| std::cmp::Reverse(rank(version)));
    let described =
        |version: &&str| json!({ "groupVersion": format!("{name}/{version}"), "version": version });
    let preferred = described(versions.first()?);
    let versions: Vec<Value> = versions.iter().map(described).collect();
    Some(json!({ "name": name, "versions": versions, "preferredVersion": preferred }))
}

/// Order of versions after the rule of CRDs: `v2` before `v1` before `v1beta1` before `v1alpha1`.
fn rank(version: &str) -> (u8, u32, u32) {
    let digits = |text: &str| text.parse().unwrap_or(0);
    let rest = version.trim_start_matches('v');
    for (word, stability) in [("alpha", 0), ("beta", 1)] {
        if let Some((major, minor)) = rest.split_once(word) {
            return (stability, digits(major), digits(minor));
        }
    }
    (2, digits(rest), 0)
}

fn entry(resource: &Resource) -> Value {
    let mut entry = json!({
        "name": resource.plural, "singularName": resource.singular, "namespaced": resource.namespaced,
        "kind": resource.kind, "verbs": OBJECT_VERBS,
    });
    if !resource.short_names.is_empty() {
        entry["shortNames"] = json!(resource.short_names);
    }
    if !resource.categories.is_empty() {
        entry["categories"] = json!(resource.categories);
    }
    entry
}

fn status_entry(resource: &Resource) -> Value {
    json!({
        "name": format!("{}/status", resource.plural), "singularName": "", "namespaced": resource.namespaced,
        "kind": resource.kind, "verbs": STATUS_VERBS,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stable_versions_come_before_beta_before_alpha() {
        let mut versions = ["v1alpha1", "v2", "v1beta2", "v1", "v1beta1"];
        versions.sort_by_key(|version| std::cmp::Reverse(rank(version)));
        assert_eq!(versions, ["v2", "v1", "v1beta2", "v1beta1", "v1alpha1"]);
    }
}
