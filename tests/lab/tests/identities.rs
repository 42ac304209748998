//! Who may write what, on the real API server with NodeRestriction and the rights of `manifests/base`: the identities that agents
//! have, each tried for what it must not.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod support;

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;

use k8s_openapi::api::authorization::v1::{ResourceRule, SelfSubjectRulesReview, SelfSubjectRulesReviewSpec};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Event, Node};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use support::{lab, until};
use warren_cluster::ClientConfig;
use warren_cluster::api_error::status_code;
use warren_cluster::decode::decode_node;
use warren_cluster::mesh_resource::Mesh;
use warren_cluster::publish::{publish, withdraw};
use warren_cluster::write::WriteError;
use warren_lab::{ApiKind, Families, Lab, LabOptions};
use warren_model::Announcement;
use warren_model::announcement::ANNOTATION;

/// What everybody who is known may ask about itself.
const ABOUT_ONESELF: [&str; 3] = [
    "selfsubjectaccessreviews",
    "selfsubjectrulesreviews",
    "selfsubjectreviews",
];

#[tokio::test]
async fn the_agent_of_one_node_cannot_publish_for_another() {
    let Some(lab) = with_agents().await else { return };
    let node1 = as_token(&lab, &publishing_token(&lab, "node1")).await;
    // Whatever is written there now was forged.
    lab.node_stop("node2").await.unwrap();
    let nodes: Api<Node> = Api::all(lab.client());
    let victim = nodes.get("node2").await.unwrap();
    let announcement = |port: u16| {
        let text = victim.metadata.annotations.as_ref().unwrap()[ANNOTATION].clone();
        let mut announcement = Announcement::parse(&text).unwrap();
        announcement.keys[0].port = port;
        announcement
    };

    // Just what an agent does, with its own code and the credentials that it has.
    let decoded = decode_node(&victim).value.unwrap();
    let refused = publish(&node1, &decoded, &announcement(1)).await.unwrap_err();
    assert!(
        matches!(&refused, WriteError::Forbidden { reason, .. } if reason.contains("node1") && reason.contains("node2")),
        "{refused}"
    );
    let refused = withdraw(&node1, &decoded.name).await.unwrap_err();
    assert!(matches!(refused, WriteError::Forbidden { .. }), "{refused}");

    // And in any other way that reaches an annotation.
    let forged: Api<Node> = Api::all(node1.clone());
    let patch = Patch::Merge(json!({"metadata": {"annotations": {ANNOTATION: announcement(1).to_json()}}}));
    let by_merge = forged.patch("node2", &PatchParams::default(), &patch).await;
    let by_status = forged
        .patch_status("node2", &PatchParams::default(), &patch)
        .await;
    let by_apply = forged
        .patch(
            "node2",
            &PatchParams::apply("forger").force(),
            &Patch::Apply(json!({
                "apiVersion": "v1", "kind": "Node",
                "metadata": {"annotations": {ANNOTATION: announcement(1).to_json()}},
            })),
        )
        .await;
    let mut whole = victim.clone();
    let annotations = whole.metadata.annotations.as_mut().unwrap();
    annotations.insert(ANNOTATION.to_owned(), announcement(1).to_json());
    let by_update = forged.replace("node2", &PostParams::default(), &whole).await;
    for (way, result) in [
        ("merge patch", by_merge),
        ("the status", by_status),
        ("apply", by_apply),
        ("update", by_update),
    ] {
        assert_eq!(
            result.map_err(|it| status_code(&it)).err(),
            Some(Some(403)),
            "by {way}"
        );
    }
    let after = nodes.get("node2").await.unwrap();
    assert_eq!(after.metadata.annotations, victim.metadata.annotations);

    // That it may do so for its own shows that the refusals are about whose Node it is.
    let own = decode_node(&nodes.get("node1").await.unwrap()).value.unwrap();
    let says = own.announcement.clone().unwrap().unwrap();
    publish(&node1, &own, &says).await.unwrap();
}

#[tokio::test]
async fn the_reading_identity_can_write_nothing() {
    let Some(lab) = with_agents().await else { return };
    let reader = as_file(&lab, "node1", "kubeconfig").await;
    // All that it is allowed to, wherever that is written.
    for namespace in ["default", "kube-system", "warren-system"] {
        let rules = rules(&reader, namespace).await;
        assert!(!rules.is_empty(), "nothing is known of {namespace}");
        let writing: Vec<_> = rules.iter().filter(|rule| writes(rule)).collect();
        assert!(writing.is_empty(), "in {namespace}: {writing:#?}");
    }

    // And as the server answers to somebody who tries.
    let merge = Patch::Merge(json!({"metadata": {"annotations": {ANNOTATION: "{}"}}}));
    let by_default = PatchParams::default();
    let nodes: Api<Node> = Api::all(reader.clone());
    let meshes: Api<Mesh> = Api::all(reader.clone());
    let leases: Api<Lease> = Api::namespaced(reader.clone(), "warren-system");
    let events: Api<Event> = Api::namespaced(reader.clone(), "default");
    let status = Patch::Merge(json!({"status": {"ready": 9}}));
    let event: Event = serde_json::from_value(json!({
        "metadata": {"name": "forged", "namespace": "default"},
        "involvedObject": {"kind": "Node", "name": "node1"}, "reason": "Forged", "message": "forged",
    }))
    .unwrap();
    let codes = [
        code(nodes.patch("node1", &by_default, &merge).await),
        code(nodes.patch_status("node1", &by_default, &merge).await),
        code(meshes.patch("default", &by_default, &merge).await),
        code(meshes.patch_status("default", &by_default, &status).await),
        code(leases.patch("warren-steward", &by_default, &merge).await),
        code(events.create(&PostParams::default(), &event).await),
    ];
    assert_eq!(codes, [Some(403); 6]);
}

#[tokio::test]
async fn the_identity_of_the_lease_can_use_that_and_nothing_else() {
    let Some(lab) = with_agents().await else { return };
    let token = std::fs::read_to_string(lab.dir().join("nodes/node1/token.steward")).unwrap();
    let steward = as_token(&lab, &token).await;
    for namespace in ["default", "kube-system"] {
        let rules = rules(&steward, namespace).await;
        let any: Vec<_> = rules.iter().filter(|rule| !is_about_oneself(rule)).collect();
        assert!(any.is_empty(), "in {namespace}: {any:#?}");
    }
    let rules = rules(&steward, "warren-system").await;
    let given: Vec<_> = rules.iter().filter(|rule| !is_about_oneself(rule)).collect();
    let [lease] = given.as_slice() else {
        panic!("{given:#?}")
    };
    let resources = (&lease.resources, &lease.resource_names);
    assert_eq!(
        resources,
        (&Some(vec!["leases".into()]), &Some(vec!["warren-steward".into()]))
    );
    let verbs: BTreeSet<&str> = lease.verbs.iter().map(String::as_str).collect();
    assert_eq!(verbs, BTreeSet::from(["get", "update"]));

    // It suffices: with it an agent was elected, and has reported.
    let meshes: Api<Mesh> = Api::all(lab.client());
    until("a status of both nodes", async || {
        let mesh = meshes.get("default").await.unwrap();
        mesh.status.is_some_and(|status| status.ready == 2)
    })
    .await;
    let leases: Api<Lease> = Api::namespaced(steward, "warren-system");
    let holder = leases
        .get("warren-steward")
        .await
        .unwrap()
        .spec
        .unwrap()
        .holder_identity;
    assert!(holder.is_some_and(|it| it.starts_with("node")));
}

#[tokio::test]
async fn a_node_reports_of_the_mesh_and_does_not_configure_it() {
    let Some(lab) = with_agents().await else { return };
    let node1 = as_token(&lab, &publishing_token(&lab, "node1")).await;
    let meshes: Api<Mesh> = Api::all(node1.clone());
    let off = Patch::Merge(json!({"spec": {"encryption": "none"}}));
    let by_default = PatchParams::default();
    assert_eq!(code(meshes.patch("default", &by_default, &off).await), Some(403));
    // A write to the status does not reach the spec, whatever it holds.
    let both = Patch::Merge(json!({"spec": {"encryption": "none"}, "status": {"ready": 2}}));
    meshes.patch_status("default", &by_default, &both).await.unwrap();
    let spec = serde_json::to_value(Api::<Mesh>::all(lab.client()).get("default").await.unwrap()).unwrap();
    assert_eq!(spec["spec"]["encryption"], "wireguard");
    // Nor does a node take another's pod network: the control plane gives them.
    let nodes: Api<Node> = Api::all(node1);
    let taken = Patch::Merge(json!({"spec": {"podCIDRs": ["10.244.2.0/24"], "podCIDR": "10.244.2.0/24"}}));
    let refused = nodes.patch("node1", &by_default, &taken).await;
    assert!(matches!(code(refused), Some(403 | 422)));
}

/// Two nodes with agents and a Mesh on the real API.
async fn with_agents() -> Option<Lab> {
    let lab = lab(LabOptions {
        nodes: 2,
        api: ApiKind::Real,
        // Servers as old as 1.20 answer any apply to a Node with two InternalIPs with 500, before they look whose it is.
        families: Families::V4,
        ..LabOptions::default()
    })
    .await?;
    let mesh = json!({
        "apiVersion": "warren-mesh.io/v1alpha1", "kind": "Mesh", "metadata": {"name": "default"}, "spec": {},
    });
    let meshes: Api<Mesh> = Api::all(lab.client());
    meshes
        .create(&PostParams::default(), &serde_json::from_value(mesh).unwrap())
        .await
        .unwrap();
    Some(lab)
}

/// From the host, as whoever a node's file stands for.
async fn as_file(lab: &Lab, node: &str, file: &str) -> Client {
    as_token(lab, &token_in(&lab.dir().join("nodes").join(node).join(file))).await
}

fn publishing_token(lab: &Lab, node: &str) -> String {
    token_in(&lab.dir().join("nodes").join(node).join("kubeconfig.publish"))
}

fn token_in(kubeconfig: &Path) -> String {
    let text = std::fs::read_to_string(kubeconfig).unwrap();
    let config: Value = serde_json::from_str(&text).unwrap();
    config["users"][0]["user"]["token"].as_str().unwrap().to_owned()
}

/// From the host, as whoever a token stands for.
async fn as_token(lab: &Lab, token: &str) -> Client {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(token.trim().as_bytes()).unwrap();
    let (_, path) = file.keep().unwrap();
    let config = ClientConfig::new("warren-test/1")
        .with_kubeconfig(Some(lab.kubeconfig()))
        .with_token_file(Some(path.clone()));
    let client = config.build().await.unwrap();
    std::fs::remove_file(path).unwrap();
    client
}

/// Everything that the server's rules allow whoever asks, in a namespace and in none.
async fn rules(client: &Client, namespace: &str) -> Vec<ResourceRule> {
    let api: Api<SelfSubjectRulesReview> = Api::all(client.clone());
    let review = SelfSubjectRulesReview {
        spec: SelfSubjectRulesReviewSpec {
            namespace: Some(namespace.to_owned()),
        },
        ..SelfSubjectRulesReview::default()
    };
    let answer = api.create(&PostParams::default(), &review).await.unwrap();
    answer.status.unwrap().resource_rules
}

fn writes(rule: &ResourceRule) -> bool {
    let reads = rule
        .verbs
        .iter()
        .all(|verb| ["get", "list", "watch"].contains(&verb.as_str()));
    !reads && !is_about_oneself(rule)
}

fn is_about_oneself(rule: &ResourceRule) -> bool {
    let resources = rule.resources.iter().flatten();
    let mut all = resources.map(|it| ABOUT_ONESELF.contains(&it.as_str()));
    rule.resources.is_some() && all.all(|it| it)
}

/// What the server answered that is not what was asked for.
fn code<T>(result: Result<T, kube::Error>) -> Option<u16> {
    result.err().and_then(|error| status_code(&error))
}
