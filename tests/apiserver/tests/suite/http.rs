//! What goes over the wire: selectors, tables, discovery, identity and the node proxy.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::common::{CRDS, MESHES, NODES, PODS, Served, mesh, mesh_crd, node, pod, serve};
use serde_json::{Value, json};
use warren_testapi::{Config, Fault, Rule, User};

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

async fn open() -> Served {
    serve(Config::default()).await
}

#[tokio::test]
async fn a_list_is_read_in_parts_as_it_was_when_it_was_begun() {
    let served = open().await;
    for name in ["a", "b", "c", "d", "e"] {
        served.api.create(PODS, "default", pod(name)).unwrap();
    }
    let names = |list: &Value| -> Vec<String> {
        let items = list["items"].as_array().unwrap().iter();
        items
            .map(|it| it["metadata"]["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let path = "/api/v1/pods?limit=2";
    let first = served.get(path).await.json();
    assert_eq!(names(&first), ["a", "b"]);
    assert_eq!(first["metadata"]["remainingItemCount"], 3);
    served.api.delete(PODS, "default", "c").unwrap();
    served.api.create(PODS, "default", pod("bb")).unwrap();
    let following = |list: &Value| {
        let token = list["metadata"]["continue"].as_str().unwrap();
        format!("{path}&continue={token}")
    };
    // Also a second time: the answer to the first may have been lost.
    for _ in 0..2 {
        let second = served.get(&following(&first)).await.json();
        assert_eq!(names(&second), ["c", "d"]);
        assert_eq!(
            second["metadata"]["resourceVersion"],
            first["metadata"]["resourceVersion"]
        );
        let last = served.get(&following(&second)).await.json();
        assert_eq!(names(&last), ["e"]);
        assert_eq!(last["metadata"].get("continue"), None);
    }
    let whole = served.get("/api/v1/pods?limit=5").await.json();
    assert_eq!(names(&whole), ["a", "b", "bb", "d", "e"]);
    assert_eq!(whole["metadata"].get("continue"), None);

    let selected = served
        .get(&format!("{path}&fieldSelector=metadata.name!%3Da"))
        .await
        .json();
    assert_eq!(names(&selected), ["b", "bb"]);
    assert_eq!(selected["metadata"].get("remainingItemCount"), None);
    for (query, code) in [
        ("continue=nonsense", 400),
        ("continue=1-2&resourceVersion=1", 400),
        ("continue=77-2", 410),
    ] {
        assert_eq!(served.get(&format!("{path}&{query}")).await.code, code, "{query}");
    }
    served.api.expire_history();
    let late = served.get(&following(&first)).await;
    assert_eq!((late.code, &late.json()["reason"]), (410, &json!("Expired")));
}

#[tokio::test]
async fn lists_select_by_labels_and_fields() {
    let served = open().await;
    for (name, node) in [("a", "n1"), ("b", "n2")] {
        let mut pod = pod(name);
        pod["spec"]["nodeName"] = json!(node);
        pod["metadata"]["labels"] = json!({ "app": name });
        served.api.create(PODS, "default", pod).unwrap();
    }
    for (query, expected) in [
        ("fieldSelector=spec.nodeName%3Dn1", vec!["a"]),
        ("fieldSelector=metadata.name!%3Da", vec!["b"]),
        ("fieldSelector=status.phase%3DPending", vec!["a", "b"]),
        ("labelSelector=app+in+(b,c)", vec!["b"]),
        ("labelSelector=!app", vec![]),
    ] {
        let list = served.get(&format!("/api/v1/pods?{query}")).await.json();
        let names: Vec<&str> = list["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|p| p["metadata"]["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, expected, "{query}");
    }
    assert_eq!(
        served
            .get("/api/v1/pods?fieldSelector=spec.colour%3Dred")
            .await
            .code,
        400
    );
    let gone = served
        .send(
            "DELETE",
            "/api/v1/namespaces/default/pods?labelSelector=app%3Da",
            "application/json",
            &json!({}),
        )
        .await;
    assert_eq!(gone.code, 200);
    assert_eq!(served.api.list(PODS, "").unwrap().len(), 1);
}

#[tokio::test]
async fn tables_and_metadata_are_served_to_those_who_prefer_them() {
    let served = open().await;
    served.api.create(CRDS, "", mesh_crd()).unwrap();
    served.api.create(MESHES, "", mesh()).unwrap();
    let path = "/apis/warren-mesh.io/v1alpha1/meshes";
    let table = served
        .raw("GET", path, &[("Accept", TABLE)], "")
        .await
        .unwrap()
        .json();
    assert_eq!(table["kind"], "Table");
    assert_eq!(table["rows"][0]["cells"], json!(["default", "wireguard", null]));
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let watch = format!("{path}?watch=1&timeoutSeconds=1");
    let lines = served
        .raw("GET", &watch, &[("Accept", TABLE)], "")
        .await
        .unwrap()
        .lines();
    assert_eq!(lines[0]["object"]["rows"][0]["cells"][0], "default");
    let accept = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
    let metadata = served
        .raw("GET", path, &[("Accept", accept)], "")
        .await
        .unwrap()
        .json();
    assert_eq!(metadata["kind"], "PartialObjectMetadataList");
    assert!(metadata["items"][0].get("spec").is_none());
}

#[tokio::test]
async fn preconditions_and_stale_versions_conflict_over_the_wire() {
    let served = open().await;
    served.api.create(NODES, "", node("a")).unwrap();
    let body = json!({ "preconditions": { "uid": "other" } });
    let refused = served
        .send("DELETE", "/api/v1/nodes/a", "application/json", &body)
        .await;
    assert_eq!(
        (refused.code, refused.json()["details"]["name"].as_str()),
        (409, Some("a"))
    );
    let patch = json!({ "metadata": { "resourceVersion": "1", "labels": { "a": "b" } } });
    assert_eq!(
        served
            .send("PATCH", "/api/v1/nodes/a", "application/merge-patch+json", &patch)
            .await
            .code,
        409
    );
    let bad = json!([{ "op": "remove", "path": "/spec/nothing" }]);
    assert_eq!(
        served
            .send("PATCH", "/api/v1/nodes/a", "application/json-patch+json", &bad)
            .await
            .code,
        422
    );
    assert_eq!(
        served
            .send("PATCH", "/api/v1/nodes/a", "text/plain", &bad)
            .await
            .code,
        415
    );
    let status = served
        .send("DELETE", "/api/v1/nodes/a", "application/json", &json!({}))
        .await
        .json();
    assert_eq!(
        (&status["kind"], &status["status"]),
        (&json!("Status"), &json!("Success"))
    );
}

#[tokio::test]
async fn apply_takes_yaml() {
    let served = open().await;
    let yaml = "apiVersion: v1\nkind: Node\nmetadata:\n  name: y\n  annotations: {a: 'true'}\n";
    let headers = [("Content-Type", "application/apply-patch+yaml")];
    let made = served
        .raw("PATCH", "/api/v1/nodes/y?fieldManager=m", &headers, yaml)
        .await
        .unwrap();
    assert_eq!(
        (made.code, made.json()["metadata"]["annotations"]["a"].as_str()),
        (201, Some("true"))
    );
    assert_eq!(
        served
            .raw("PATCH", "/api/v1/nodes/y", &headers, yaml)
            .await
            .unwrap()
            .code,
        400
    );
    assert_eq!(
        served
            .raw("PATCH", "/api/v1/nodes/y?fieldManager=m", &headers, yaml)
            .await
            .unwrap()
            .code,
        200
    );
}

#[tokio::test]
async fn discovery_follows_custom_resources() {
    let served = open().await;
    let has_group = |groups: Value| {
        groups["groups"]
            .as_array()
            .unwrap()
            .iter()
            .any(|g| g["name"] == "warren-mesh.io")
    };
    assert!(!has_group(served.get("/apis").await.json()));
    served.api.create(CRDS, "", mesh_crd()).unwrap();
    assert!(has_group(served.get("/apis").await.json()));
    let resources = served.get("/apis/warren-mesh.io/v1alpha1").await.json();
    assert_eq!(resources["resources"][0]["shortNames"], json!(["msh"]));
    assert_eq!(resources["resources"][1]["name"], "meshes/status");
    let index = served.get("/openapi/v3").await.json();
    let url = index["paths"]["apis/warren-mesh.io/v1alpha1"]["serverRelativeURL"]
        .as_str()
        .unwrap()
        .to_owned();
    let document = served.get(&url).await.json();
    let patch = &document["paths"]["/apis/warren-mesh.io/v1alpha1/meshes/{name}"]["patch"];
    assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], "Mesh");
    assert!(
        served.get("/openapi/v2").await.json()["paths"]
            .as_object()
            .unwrap()
            .len()
            > 10
    );
    for path in ["/healthz", "/livez", "/readyz"] {
        assert_eq!(served.get(path).await.body, "ok");
    }
    assert_eq!(served.get("/apis/none").await.code, 404);
}

#[tokio::test]
async fn tokens_name_the_caller_and_nodes_write_only_themselves() {
    let tokens = BTreeMap::from([
        (
            "admin-token".to_owned(),
            User {
                name: "admin".to_owned(),
                groups: vec!["system:masters".to_owned()],
            },
        ),
        ("a-token".to_owned(), User::node("a")),
    ]);
    let served = serve(Config {
        tokens,
        ..Config::default()
    })
    .await;
    for name in ["a", "b"] {
        served.api.create(NODES, "", node(name)).unwrap();
    }
    assert_eq!(served.get("/api/v1/nodes").await.code, 401);
    let send = |token: &'static str, method: &'static str, path: &'static str, body: Value| {
        let served = &served;
        async move {
            let authorization = format!("Bearer {token}");
            let kind = if method == "PATCH" {
                "application/merge-patch+json"
            } else {
                "application/json"
            };
            let headers = [("Authorization", authorization.as_str()), ("Content-Type", kind)];
            let reply = served
                .raw(method, path, &headers, &body.to_string())
                .await
                .unwrap();
            (reply.code, reply)
        }
    };
    let label = json!({ "metadata": { "labels": { "x": "y" } } });
    assert_eq!(send("wrong", "GET", "/api/v1/nodes", json!({})).await.0, 401);
    assert_eq!(send("a-token", "GET", "/api/v1/nodes", json!({})).await.0, 200);
    assert_eq!(
        send("a-token", "PATCH", "/api/v1/nodes/a", label.clone()).await.0,
        200
    );
    let (code, refused) = send("a-token", "PATCH", "/api/v1/nodes/b", label.clone()).await;
    assert_eq!(
        (code, refused.json()["reason"].as_str()),
        (403, Some("Forbidden"))
    );
    assert_eq!(send("a-token", "DELETE", "/api/v1/nodes", json!({})).await.0, 403);
    assert_eq!(send("a-token", "POST", "/api/v1/nodes", node("c")).await.0, 403);
    assert_eq!(
        send("admin-token", "PATCH", "/api/v1/nodes/b", label).await.0,
        200
    );
    let review = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview" });
    let (_, who) = send(
        "a-token",
        "POST",
        "/apis/authentication.k8s.io/v1/selfsubjectreviews",
        review,
    )
    .await;
    assert_eq!(who.json()["status"]["userInfo"]["username"], "system:node:a");
}

#[tokio::test]
async fn the_node_proxy_reaches_the_node_and_says_when_it_cannot() {
    // A second server is as good a node as any.
    let (served, backend) = (
        serve(Config {
            proxy_timeout: Duration::from_millis(300),
            ..Config::default()
        })
        .await,
        open().await,
    );
    let mut object = node("n");
    object["status"] = json!({ "addresses": [{ "type": "Hostname", "address": "n" }, { "type": "InternalIP", "address": "127.0.0.1" }] });
    served.api.create(NODES, "", object).unwrap();
    served.api.create(NODES, "", node("bare")).unwrap();
    let port = backend.address.port();
    let reply = served
        .get(&format!(
            "/api/v1/nodes/n:{port}/proxy/api/v1/namespaces?labelSelector=none"
        ))
        .await;
    assert_eq!((reply.code, reply.json()["items"].clone()), (200, json!([])));
    assert_eq!(
        served
            .get(&format!("/api/v1/nodes/http:n:{port}/proxy/nothing"))
            .await
            .code,
        404
    );
    assert_eq!(served.get("/api/v1/nodes/bare/proxy/").await.code, 503);
    assert_eq!(served.get("/api/v1/nodes/none/proxy/").await.code, 404);
    backend.api.faults().add(Rule::all(Fault::Hang));
    assert_eq!(
        served
            .get(&format!("/api/v1/nodes/n:{port}/proxy/healthz"))
            .await
            .code,
        504
    );
    let refusing = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    assert_eq!(
        served
            .get(&format!("/api/v1/nodes/n:{refusing}/proxy/"))
            .await
            .code,
        503
    );
}
