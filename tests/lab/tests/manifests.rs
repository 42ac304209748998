//! What `kubectl apply --kustomize manifests/base` sends is taken by a real API server, and does what it says.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod support;

use std::path::Path;
use std::process::{Command, Output};

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
        ("namespace", "warren-system"),
        ("serviceaccount", "warren-agent"),
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
    let reader = "system:serviceaccount:warren-system:warren-agent";
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
            reader,
            "--namespace",
            namespace,
        ];
        let asked = kubectl(&lab, &question);
        let answer = String::from_utf8_lossy(&asked.stdout).trim().to_owned();
        assert_eq!(answer, allowed, "{verb} {resource} in {namespace}: {asked:?}");
    }
}

#[tokio::test]
async fn a_node_publishes_for_itself_and_not_for_another() {
    let Some(lab) = real_api().await else { return };
    let config = lab.dir().join("nodes/node1/kubeconfig.publish");
    let annotate = |node: &str| {
        let inside = [
            "kubectl",
            "--kubeconfig",
            config.to_str().unwrap(),
            "annotate",
            "node",
            node,
            "x=y",
        ];
        inside.map(str::to_owned)
    };
    for (node, allowed) in [("node1", true), ("node2", false)] {
        let argv = annotate(node);
        let argv: Vec<_> = argv.iter().map(String::as_str).collect();
        let output = lab.run(warren_lab::Place::Root, &argv).await.unwrap();
        assert_eq!(output.success(), allowed, "{node}: {output:?}");
    }
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

/// A lab without agents on the real API; `None` with a reason.
async fn real_api() -> Option<Lab> {
    if Command::new("kubectl")
        .args(["version", "--client"])
        .output()
        .is_err()
    {
        return skip("no kubectl: Debian package kubernetes-client");
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
