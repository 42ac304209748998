//! What `kubectl apply --kustomize manifests/base` sends is taken by a real API server, and does what it says.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod support;

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};
use support::{lab, skip};
use warren_lab::{ApiKind, Lab, LabOptions};

#[tokio::test]
async fn a_real_api_server_takes_the_manifests() {
    let Some(lab) = real_api().await else { return };
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests/base");
    let base = base.to_str().unwrap();
    // Not validated on this side: CEL rules are younger than this server, which leaves out what it does not know.
    let applied = kubectl(&lab, &["apply", "--validate=false", "--kustomize", base]);
    assert!(applied.status.success(), "{applied:?}");
    for (kind, name) in [
        ("customresourcedefinition", "meshes.warren-mesh.io"),
        ("customresourcedefinition", "globalnetworkpolicies.warren-mesh.io"),
        ("customresourcedefinition", "hostendpoints.warren-mesh.io"),
        ("namespace", "warren-system"),
        ("serviceaccount", "warren-agent"),
        ("serviceaccount", "warren-steward"),
        ("secret", "warren-steward"),
        ("daemonset", "warren-agent"),
        ("clusterrole", "warren-agent"),
        ("clusterrolebinding", "warren-agent"),
        ("rolebinding", "warren-steward"),
        ("lease", "warren-steward"),
    ] {
        let found = kubectl(&lab, &["get", kind, name, "--namespace", "warren-system"]);
        assert!(found.status.success(), "{kind} {name}: {found:?}");
    }
    let again = kubectl(&lab, &["apply", "--validate=false", "--kustomize", base]);
    assert!(again.status.success(), "{again:?}");
}

#[tokio::test]
async fn the_rights_that_agents_get_are_those_they_need_and_no_more() {
    let Some(lab) = real_api().await else { return };
    let reader = "system:serviceaccount:warren-system:warren-agent";
    let node = "system:node:node1";
    for (user, group, verb, resource, allowed) in [
        (reader, "system:serviceaccounts", "list", "nodes", true),
        (reader, "system:serviceaccounts", "watch", "pods", true),
        (
            reader,
            "system:serviceaccounts",
            "watch",
            "meshes.warren-mesh.io",
            true,
        ),
        (reader, "system:serviceaccounts", "watch", "namespaces", true),
        (
            reader,
            "system:serviceaccounts",
            "watch",
            "networkpolicies.networking.k8s.io",
            true,
        ),
        (
            reader,
            "system:serviceaccounts",
            "watch",
            "globalnetworkpolicies.warren-mesh.io",
            true,
        ),
        (
            reader,
            "system:serviceaccounts",
            "patch",
            "globalnetworkpolicies.warren-mesh.io",
            false,
        ),
        (reader, "system:serviceaccounts", "patch", "nodes", false),
        (reader, "system:serviceaccounts", "get", "secrets", false),
        (
            reader,
            "system:serviceaccounts",
            "patch",
            "meshes.warren-mesh.io",
            false,
        ),
        (node, "system:nodes", "patch", "nodes", true),
        (node, "system:nodes", "patch", "meshes.warren-mesh.io", false),
    ] {
        let asked = kubectl(
            &lab,
            &[
                "auth",
                "can-i",
                verb,
                resource,
                "--as",
                user,
                "--as-group",
                group,
                "--all-namespaces",
            ],
        );
        let answer = String::from_utf8_lossy(&asked.stdout).trim().to_owned();
        assert_eq!(
            answer,
            if allowed { "yes" } else { "no" },
            "{user} {verb} {resource}: {asked:?}"
        );
    }
}

#[tokio::test]
async fn agents_may_use_the_one_lease_and_no_other() {
    let Some(lab) = real_api().await else { return };
    let steward = "system:serviceaccount:warren-system:warren-steward";
    let ours = "leases.coordination.k8s.io/warren-steward";
    for (verb, resource, namespace, allowed) in [
        ("get", ours, "warren-system", "yes"),
        ("update", ours, "warren-system", "yes"),
        ("delete", ours, "warren-system", "no"),
        ("update", ours, "kube-system", "no"),
        (
            "update",
            "leases.coordination.k8s.io/other",
            "warren-system",
            "no",
        ),
        ("create", "leases.coordination.k8s.io", "warren-system", "no"),
        ("create", "events", "default", "no"),
    ] {
        let question = [
            "auth",
            "can-i",
            verb,
            resource,
            "--as",
            steward,
            "--namespace",
            namespace,
        ];
        let asked = kubectl(&lab, &question);
        let answer = String::from_utf8_lossy(&asked.stdout).trim().to_owned();
        assert_eq!(answer, allowed, "{verb} {resource} in {namespace}: {asked:?}");
    }
}

#[tokio::test]
async fn the_zero_trust_overlay_is_taken_and_trusts_nothing_it_need_not() {
    let Some(lab) = real_api().await else { return };
    let objects = rendered("zero-trust");
    let mesh = of_kind(&objects, "Mesh");
    assert_eq!(
        (&mesh["spec"]["encryption"], &mesh["spec"]["fallback"]),
        (&json!("wireguard"), &json!("none"))
    );
    assert_eq!(mesh["spec"]["keys"]["pinning"], "strict");
    assert!(
        mesh["spec"]["podNetworks"]
            .as_array()
            .is_some_and(|it| !it.is_empty())
    );

    let pod = &of_kind(&objects, "DaemonSet")["spec"]["template"]["spec"];
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    for (container, added) in [
        (&pod["initContainers"][0], json!(null)),
        (
            &pod["containers"][0],
            json!(["NET_ADMIN", "NET_RAW", "SYS_ADMIN"]),
        ),
    ] {
        let security = &container["securityContext"];
        assert_eq!(security["readOnlyRootFilesystem"], true, "{container:#}");
        assert_eq!(
            security["seccompProfile"]["type"], "RuntimeDefault",
            "{container:#}"
        );
        assert_eq!(security["capabilities"]["drop"], json!(["ALL"]), "{container:#}");
        assert_eq!(security["capabilities"]["add"], added, "{container:#}");
        assert_eq!(security["privileged"], json!(null), "{container:#}");
    }
    assert_eq!(pod["initContainers"].as_array().unwrap().len(), 1);
    assert_eq!(pod["containers"].as_array().unwrap().len(), 1);
    let env = pod["containers"][0]["env"].as_array().unwrap();
    assert!(
        env.iter().any(|it| it["name"] == "WARREN_PUBLISH_KUBECONFIG"),
        "it publishes as the node, which NodeRestriction confines"
    );

    let deny = objects
        .iter()
        .find(|it| it["kind"] == "NetworkPolicy" && it["metadata"]["name"] == "default-deny");
    let deny = &deny.unwrap()["spec"];
    assert_eq!(deny["podSelector"], json!({}));
    assert_eq!(deny["policyTypes"], json!(["Ingress", "Egress"]));
    assert!(deny["ingress"].is_null() && deny["egress"].is_null());

    let folder = overlay("zero-trust");
    let applied = kubectl(&lab, &["apply", "--validate=false", "--kustomize", &folder]);
    assert!(applied.status.success(), "{applied:?}");
}

#[test]
fn with_the_service_accounts_publishing_nothing_of_the_kubelets_is_mounted() {
    if !has_kubectl() {
        return;
    }
    let objects = rendered("service-account-publishing");
    let daemonset = of_kind(&objects, "DaemonSet").to_string();
    assert!(!daemonset.contains("kubelet"), "{daemonset}");
    assert!(!daemonset.contains("WARREN_PUBLISH_KUBECONFIG"), "{daemonset}");
    // What may write Nodes never comes without what narrows it.
    let role = objects
        .iter()
        .find(|it| it["kind"] == "ClusterRole" && it["metadata"]["name"] == "warren-publish");
    let nodes = &role.unwrap()["rules"][0];
    assert_eq!(
        (&nodes["resources"], &nodes["verbs"]),
        (&json!(["nodes"]), &json!(["patch"]))
    );
    of_kind(&objects, "ValidatingAdmissionPolicy");
    of_kind(&objects, "ValidatingAdmissionPolicyBinding");
}

#[test]
fn every_overlay_can_be_rendered() {
    if !has_kubectl() {
        return;
    }
    let overlays = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests/overlays");
    let mut count = 0;
    for entry in std::fs::read_dir(overlays).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let objects = rendered(&name);
        of_kind(&objects, "DaemonSet");
        count += 1;
    }
    assert!(count >= 5, "{count}");
}

#[tokio::test]
async fn a_mesh_that_makes_no_sense_is_refused_and_a_good_one_has_columns() {
    let Some(lab) = real_api().await else { return };
    let refused = apply(&lab, "spec: {encryption: rot13}");
    assert!(!refused.status.success(), "{refused:?}");
    let taken = apply(&lab, "spec: {encryption: none}");
    assert!(taken.status.success(), "{taken:?}");
    let shown = kubectl(&lab, &["get", "mesh"]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    let mut lines = shown.lines();
    assert!(lines.next().unwrap().contains("ENCRYPTION"), "{shown}");
    assert!(lines.next().unwrap().contains("none"), "{shown}");
}

fn has_kubectl() -> bool {
    let asked = Command::new("kubectl").args(["version", "--client"]).output();
    asked.is_ok() || skip::<()>("no kubectl: Debian package kubernetes-client").is_some()
}

/// The folder of an overlay.
fn overlay(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../manifests/overlays")
        .join(name);
    folder.to_str().unwrap().to_owned()
}

/// What is sent of an overlay.
fn rendered(name: &str) -> Vec<Value> {
    let output = Command::new("kubectl")
        .args(["kustomize", &overlay(name)])
        .output()
        .unwrap();
    assert!(output.status.success(), "{name}: {output:?}");
    serde_saphyr::from_multiple(&String::from_utf8(output.stdout).unwrap()).unwrap()
}

/// The one object of a kind.
fn of_kind<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    let mut found = objects.iter().filter(|it| it["kind"] == kind);
    let object = found.next().unwrap_or_else(|| panic!("no {kind}"));
    assert!(found.next().is_none(), "more than one {kind}");
    object
}

/// A lab without agents on the real API; `None` with a reason.
async fn real_api() -> Option<Lab> {
    if !has_kubectl() {
        return None;
    }
    lab(LabOptions {
        nodes: 2,
        api: ApiKind::Real,
        agents: false,
        ..LabOptions::default()
    })
    .await
}

fn apply(lab: &Lab, rest: &str) -> Output {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mesh =
        format!("apiVersion: warren-mesh.io/v1alpha1\nkind: Mesh\nmetadata: {{name: default}}\n{rest}\n");
    std::fs::write(file.path(), mesh).unwrap();
    kubectl(
        lab,
        &[
            "apply",
            "--validate=false",
            "--filename",
            file.path().to_str().unwrap(),
        ],
    )
}

/// From the host, as an administrator.
fn kubectl(lab: &Lab, arguments: &[&str]) -> Output {
    Command::new("kubectl")
        .arg("--kubeconfig")
        .arg(lab.kubeconfig())
        .args(arguments)
        .output()
        .unwrap()
}
