//! Policies as people write them.

use serde_json::json;

use crate::scene::{Kind, Object, add, all_attempts, assert_as_judged, door, place, scene};
use crate::support::{lab, metric, status_when, until, until_told};
use warren_lab::knock::knock;
use warren_lab::{ApiKind, LabOptions};

/// Calico's, from its documentation; only the apiVersion is another.
const DENY_ALL_BUT_DNS: &str = "
apiVersion: warren-mesh.io/v1alpha1
kind: GlobalNetworkPolicy
metadata:
  name: deny-app-policy
spec:
  namespaceSelector: has(projectcalico.org/name) && projectcalico.org/name not in {\"kube-system\", \"calico-system\", \"calico-apiserver\"}
  types:
  - Ingress
  - Egress
  egress:
  - action: Allow
    protocol: UDP
    destination:
      selector: 'k8s-app == \"kube-dns\"'
      ports:
      - 53
";

/// The same.
const BLUE_TO_RED: &str = "
apiVersion: warren-mesh.io/v1alpha1
kind: NetworkPolicy
metadata:
  name: allow-tcp-6379
  namespace: production
spec:
  selector: color == 'red'
  ingress:
    - action: Allow
      protocol: TCP
      source:
        selector: color == 'blue'
      destination:
        ports:
          - 6379
";

fn read(yaml: &str, kind: Kind, namespace: Option<&'static str>) -> Object {
    let object: serde_json::Value = serde_saphyr::from_str(yaml).unwrap();
    assert_eq!(object["metadata"]["namespace"].as_str(), namespace);
    Object {
        kind,
        namespace,
        name: object["metadata"]["name"].as_str().unwrap().to_owned(),
        labels: json!({}),
        spec: object["spec"].clone(),
    }
}

#[tokio::test]
async fn calicos_examples_do_what_they_say_when_their_api_version_is_changed() {
    calicos_examples(ApiKind::Embedded).await;
}

#[tokio::test]
async fn calicos_examples_do_what_they_say_on_a_real_api_server() {
    calicos_examples(ApiKind::Real).await;
}

async fn calicos_examples(api: ApiKind) {
    let options = LabOptions {
        nodes: 2,
        api,
        ..LabOptions::default()
    };
    let Some(lab) = lab(options).await else { return };
    for (namespace, name, node, labels) in [
        ("kube-system", "dns", "node1", json!({"k8s-app": "kube-dns"})),
        ("production", "blue", "node1", json!({"color": "blue"})),
        ("production", "red", "node2", json!({"color": "red"})),
        ("production", "green", "node2", json!({"color": "green"})),
    ] {
        add(&lab, namespace, name, node, &labels).await;
    }
    let facts = lab.facts().await.unwrap();
    let attempts = all_attempts(&facts);
    let all = attempts.len();
    assert_eq!(assert_as_judged(&lab, &attempts).await, all);

    let open = read(BLUE_TO_RED, Kind::Warren, Some("production"));
    open.apply(&lab).await;
    // Of what goes to red, over two families: blue by one of four ports.
    assert_eq!(assert_as_judged(&lab, &attempts).await, all - 3 * 4 * 2 + 2);
    until(
        "those two to be counted by the rule that let them in",
        async || {
            let policy = "NetworkPolicy.warren-mesh.io/production/allow-tcp-6379";
            let series = format!("warren_policy_allowed_packets{{policy=\"{policy}\",rule=\"ingress[0]\"}}");
            metric(&lab, "node2", &series).await.unwrap_or_default() >= 2
        },
    )
    .await;

    open.delete(&lab).await;
    read(DENY_ALL_BUT_DNS, Kind::Global, None).apply(&lab).await;
    // Each of three applications to the name server by one port, over two families; it may send what it likes, and they get nothing.
    assert_eq!(assert_as_judged(&lab, &attempts).await, 3 * 2);
}

#[tokio::test]
async fn what_cannot_be_honoured_is_told_and_its_pods_fail_as_the_mesh_says() {
    let pods = [
        ("shop", "web", "node1", json!({"app": "web"})),
        ("shop", "db", "node2", json!({"app": "db"})),
    ];
    let Some(lab) = scene(2, &pods).await else { return };
    let facts = lab.facts().await.unwrap();
    let to_db = [
        door(&facts, "shop", "db", 0, "tcp:80"),
        door(&facts, "shop", "db", 1, "udp:53"),
    ];
    let is_open = async |wanted: bool| {
        let patience = std::time::Duration::from_millis(400);
        knock(&lab, &place("shop", "web"), &to_db, patience)
            .await
            .unwrap()
            == [wanted; 2]
    };
    until("all to be open", async || is_open(true).await).await;
    let bad = Object::global(
        "bad",
        json!({"selector": "app == 'db'", "ingress": [
            {"action": "Allow", "source": {"serviceAccounts": {"names": ["web"]}}}
        ]}),
    );
    bad.apply(&lab).await;
    until("its pods to be closed", async || is_open(false).await).await;
    let refused = status_when(&lab, "the refusal", |status| {
        let refusals = status["nodes"][0]["agent"]["refusals"].as_array();
        refusals.is_some_and(|all| all.iter().any(|it| it["object"] == "GlobalNetworkPolicy/bad"))
    })
    .await;
    assert!(refused.to_string().contains("serviceAccounts is not supported"));
    until("the metric", async || {
        metric(&lab, "node1", "warren_refusals{code=\"policy-unsupported\"}").await == Some(1)
    })
    .await;
    until_told(&lab, "globalnetworkpolicy/bad", "PolicyUnsupported").await;

    mesh(&lab, json!({"onInvalid": "open"})).await;
    until("its pods to be open", async || is_open(true).await).await;
    mesh(&lab, json!({"onInvalid": "closed"})).await;
    until("its pods to be closed again", async || is_open(false).await).await;
    bad.delete(&lab).await;
    until("all to be open again", async || is_open(true).await).await;
}

#[tokio::test]
async fn a_policy_in_a_tier_that_there_is_not_is_told_like_any_other() {
    let pods = [
        ("shop", "web", "node1", json!({"app": "web"})),
        ("shop", "db", "node1", json!({"app": "db"})),
    ];
    let Some(lab) = scene(1, &pods).await else { return };
    let facts = lab.facts().await.unwrap();
    let to_db = [door(&facts, "shop", "db", 0, "udp:53")];
    let patience = std::time::Duration::from_millis(400);
    let is_open = async || {
        knock(&lab, &place("shop", "web"), &to_db, patience)
            .await
            .unwrap()
            == [true]
    };
    until("all to be open", async || is_open().await).await;
    let lost = Object::global(
        "lost",
        json!({"tier": "security", "selector": "app == 'db'", "ingress": [{"action": "Allow"}]}),
    );
    lost.apply(&lab).await;
    until("its pods to be closed", async || !is_open().await).await;
    let status = status_when(&lab, "the refusal", |status| {
        let refusals = status["nodes"][0]["agent"]["refusals"].as_array();
        refusals.is_some_and(|all| all.iter().any(|it| it["object"] == "GlobalNetworkPolicy/lost"))
    })
    .await;
    let refusals = status["nodes"][0]["agent"]["refusals"].to_string();
    assert!(
        refusals.contains("there is no tier") && refusals.contains("leave it out"),
        "{refusals}"
    );
    until("the metric", async || {
        metric(&lab, "node1", "warren_refusals{code=\"policy-unknown-tier\"}").await == Some(1)
    })
    .await;
    until_told(&lab, "globalnetworkpolicy/lost", "PolicyUnknownTier").await;
    lost.delete(&lab).await;
    until("all to be open again", async || is_open().await).await;
}

#[tokio::test]
async fn a_pods_first_packet_meets_its_policy_and_one_nobody_knows_gets_nothing_through() {
    let pods = [("shop", "web", "node2", json!({"app": "web"}))];
    let Some(lab) = scene(2, &pods).await else { return };
    Object::kubernetes(
        "shop",
        "jail",
        json!({"podSelector": {"matchLabels": {"app": "jail"}}, "policyTypes": ["Egress", "Ingress"]}),
    )
    .apply(&lab)
    .await;
    let facts = lab.facts().await.unwrap();
    let web = [0, 1].map(|family| door(&facts, "shop", "web", family, "udp:53"));
    let patience = std::time::Duration::from_millis(500);
    for number in 0..4 {
        let name = format!("jailed-{number}");
        add(&lab, "shop", &name, "node1", &json!({"app": "jail"})).await;
        // The first thing that it does.
        let answered = knock(&lab, &place("shop", &name), &web, patience).await.unwrap();
        assert_eq!(answered, [false; 2], "{name}");
    }
    add(&lab, "shop", "free", "node1", &json!({"app": "free"})).await;
    let answered = knock(&lab, &place("shop", "free"), &web, patience * 10)
        .await
        .unwrap();
    assert_eq!(answered, [true; 2]);

    // Its object goes, its interface is still there: policy knows it no more.
    delete_object(&lab, "shop", "free").await;
    until("nothing to pass", async || {
        knock(&lab, &place("shop", "free"), &web, patience).await.unwrap() == [false; 2]
    })
    .await;
    until("that to be counted", async || {
        let series = "warren_policy_denied_packets{policy=\"\",rule=\"its pod is not known yet\"}";
        metric(&lab, "node1", series).await.unwrap_or_default() > 0
    })
    .await;
}

async fn delete_object(lab: &warren_lab::Lab, namespace: &str, name: &str) {
    use k8s_openapi::api::core::v1::Pod;
    use kube::Api;
    use kube::api::DeleteParams;
    let pods: Api<Pod> = Api::namespaced(lab.client(), namespace);
    pods.delete(name, &DeleteParams::default().grace_period(0))
        .await
        .unwrap();
}

/// Sets `spec.policy` of the Mesh.
pub(crate) async fn mesh(lab: &warren_lab::Lab, policy: serde_json::Value) {
    use kube::Api;
    use kube::api::{Patch, PatchParams};
    use warren_cluster::mesh_resource::Mesh;
    let object = json!({"apiVersion": "warren-mesh.io/v1alpha1", "kind": "Mesh",
        "metadata": {"name": "default"}, "spec": {"policy": policy}});
    Api::<Mesh>::all(lab.client())
        .patch(
            "default",
            &PatchParams::apply("test").force(),
            &Patch::Apply(&object),
        )
        .await
        .unwrap();
}
