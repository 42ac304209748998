//! Requests to write Nodes, as the API server shows them to its policies.

use serde_json::{Value, json};
use warren_model::announcement::ANNOTATION;

/// The service account of the agents.
const AGENT: &str = "system:serviceaccount:warren-system:warren-agent";

/// Where a token says what node its pod is on, since Kubernetes 1.30.
const NODE_CLAIM: &str = "authentication.kubernetes.io/node-name";

const OLD: &str = r#"{"version":1,"keys":[{"epoch":1,"publicKey":"HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=","port":51821}],"settled":1,"paths":["wireguard"]}"#;
const NEW: &str = r#"{"version":1,"keys":[{"epoch":2,"publicKey":"xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=","port":51820}],"settled":2,"paths":["wireguard"]}"#;

/// What a policy sees of one request.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) request: Value,
    pub(crate) object: Value,
    pub(crate) old_object: Value,
}

/// What agents do.
pub(crate) fn legitimate() -> Vec<(&'static str, Request)> {
    let first = Request {
        old_object: without_annotations(node("node1")),
        object: annotated(without_annotations(node("node1")), NEW),
        ..publishing()
    };
    let mut by_apply = publishing();
    by_apply.object["metadata"]["managedFields"] = json!([{"manager": "warren-agent", "operation": "Apply"}]);
    by_apply.object["metadata"]["resourceVersion"] = json!("8");
    vec![
        ("a new key", publishing()),
        ("the first key of a Node without annotations", first),
        ("a new key by server-side apply", by_apply),
    ]
}

/// What somebody with an agent's token might try.
pub(crate) fn forgeries() -> Vec<(String, Request)> {
    let mut forgeries: Vec<(String, Request)> = Vec::new();
    let mut add = |what: &str, request: Request| forgeries.push((what.to_owned(), request));

    let mut foreign = publishing();
    foreign.object = annotated(node("node2"), NEW);
    foreign.old_object = node("node2");
    foreign.request["name"] = json!("node2");
    add("another node's annotation", foreign.clone());
    foreign.request["userInfo"]["extra"] = json!({NODE_CLAIM: ["node1", "node2"]});
    add("another node's, by a token of two nodes", foreign);
    let mut unbound = publishing();
    unbound.request["userInfo"]["extra"] = json!({});
    add("a token that is bound to no node", unbound.clone());
    remove(&mut unbound.request["userInfo"], "extra");
    add("a token that says nothing but its account", unbound);

    let mut removed = publishing();
    remove(&mut removed.object["metadata"]["annotations"], ANNOTATION);
    add("the annotation removed", removed);
    let mut all_removed = publishing();
    all_removed.old_object = annotated(without_annotations(node("node1")), OLD);
    all_removed.object = without_annotations(node("node1"));
    add("the only annotation removed", all_removed);
    let mut long = publishing();
    long.object["metadata"]["annotations"][ANNOTATION] = json!("x".repeat(4097));
    add("an annotation too long to be one", long);

    let mut other = publishing();
    other.object["metadata"]["annotations"]["kubeadm.alpha.kubernetes.io/cri-socket"] = json!("/tmp/mine");
    add("another annotation changed", other);
    let mut added = publishing();
    added.object["metadata"]["annotations"]["example.com/mine"] = json!("1");
    add("another annotation added", added);
    let mut dropped = publishing();
    remove(
        &mut dropped.object["metadata"]["annotations"],
        "kubeadm.alpha.kubernetes.io/cri-socket",
    );
    add("another annotation removed", dropped);

    for (pointer, value) in [
        (
            "/metadata/labels/node-role.kubernetes.io~1control-plane",
            json!(""),
        ),
        ("/metadata/finalizers", json!(["example.com/stay"])),
        (
            "/metadata/ownerReferences",
            json!([{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"}]),
        ),
        ("/spec/podCIDRs", json!(["10.244.1.0/24", "10.244.2.0/24"])),
        ("/spec/taints", json!([])),
        ("/spec/unschedulable", json!(true)),
        (
            "/status/addresses",
            json!([{"type": "InternalIP", "address": "10.0.0.66"}]),
        ),
        ("/status/conditions", json!([])),
    ] {
        let mut changed = publishing();
        set(&mut changed.object, pointer, value);
        add(&format!("{pointer} changed besides"), changed);
    }
    let mut unlabelled = publishing();
    remove(&mut unlabelled.object["metadata"], "labels");
    add("all labels removed", unlabelled);

    let mut status = publishing();
    status.request["subResource"] = json!("status");
    add("the annotation by way of the status", status.clone());
    set(&mut status.object, "/status/conditions", json!([]));
    add("the status by way of the status", status);

    let mut created = publishing();
    created.request["operation"] = json!("CREATE");
    created.old_object = Value::Null;
    add("a Node made", created.clone());
    // The other rules compare; with an old object that is the new one only the operation tells.
    created.old_object = created.object.clone();
    add("a Node made as if it was there", created);
    let mut deleted = publishing();
    deleted.request["operation"] = json!("DELETE");
    deleted.object = Value::Null;
    add("a Node deleted", deleted);
    forgeries
}

/// The agent of node1 replaces what its Node says.
fn publishing() -> Request {
    let request = json!({
        "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
        "kind": {"group": "", "version": "v1", "kind": "Node"},
        "resource": {"group": "", "version": "v1", "resource": "nodes"},
        "requestKind": {"group": "", "version": "v1", "kind": "Node"},
        "requestResource": {"group": "", "version": "v1", "resource": "nodes"},
        "name": "node1",
        "operation": "UPDATE",
        "userInfo": {
            "username": AGENT,
            "uid": "014fbff9a07c",
            "groups": ["system:serviceaccounts", "system:serviceaccounts:warren-system", "system:authenticated"],
            "extra": {
                NODE_CLAIM: ["node1"],
                "authentication.kubernetes.io/pod-name": ["warren-agent-x7k2p"],
            },
        },
        "dryRun": false,
    });
    Request {
        request,
        object: annotated(node("node1"), NEW),
        old_object: node("node1"),
    }
}

/// A Node as kubeadm and a kubelet leave it, that publishes a key.
fn node(name: &str) -> Value {
    let node = json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "uid": format!("uid-of-{name}"),
            "resourceVersion": "7",
            "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"},
            "annotations": {"kubeadm.alpha.kubernetes.io/cri-socket": "/run/containerd/containerd.sock"},
        },
        "spec": {
            "podCIDR": "10.244.1.0/24",
            "podCIDRs": ["10.244.1.0/24"],
            "taints": [{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}],
        },
        "status": {
            "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}, {"type": "Hostname", "address": name}],
            "conditions": [{"type": "Ready", "status": "True"}],
            "images": [{"names": ["registry.k8s.io/pause:3.9"], "sizeBytes": 320_000}],
        },
    });
    annotated(node, OLD)
}

fn annotated(mut node: Value, announcement: &str) -> Value {
    node["metadata"]["annotations"][ANNOTATION] = json!(announcement);
    node
}

fn without_annotations(mut node: Value) -> Value {
    remove(&mut node["metadata"], "annotations");
    node
}

fn remove(object: &mut Value, key: &str) {
    object.as_object_mut().unwrap().remove(key).unwrap();
}

/// Sets a field, which may not be there yet, of an object that is.
fn set(object: &mut Value, pointer: &str, value: Value) {
    let (parent, field) = pointer.rsplit_once('/').unwrap();
    let field = field.replace("~1", "/");
    object.pointer_mut(parent).unwrap()[field] = value;
}
