//! The API objects that a lab makes: what an administrator applies, what kubelets write.

use std::path::{Path, PathBuf};

use anyhow::Context;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::core::{DynamicObject, GroupVersionKind};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use crate::layout::NodeLayout;
use crate::pod::{PodKey, PodOptions};

const MANAGER: &str = "warren-lab";

/// The API groups of what agents are given.
const GIVEN: [&str; 2] = ["rbac.authorization.k8s.io/", "coordination.k8s.io/"];

/// The one container of a pod, and what it would be made of: nobody pulls it.
const CONTAINER: &str = "main";
const IMAGE: &str = "warren-lab/pod";

/// Applies what `manifests/base` gives agents: resource definitions, rights, and the Lease.
pub(crate) async fn prepare(client: &Client) -> anyhow::Result<()> {
    for crd in warren_cluster::crds() {
        let api: Api<CustomResourceDefinition> = Api::all(client.clone());
        let name = crd.name_any();
        // Not applied: to a server before 1.25 an apply patch with CEL rules is an error, and a create is not.
        api.create(&PostParams::default(), &crd)
            .await
            .with_context(|| format!("create the resource definition {name}"))?;
        let served = await_condition(api, &name, conditions::is_crd_established());
        tokio::time::timeout(std::time::Duration::from_secs(30), served)
            .await
            .with_context(|| format!("the API did not take up the resource definition {name} in 30 s"))?
            .with_context(|| format!("watch the resource definition {name}"))?;
    }
    ensure_namespace(client, "warren-system").await?;
    for object in given()? {
        let types = object.types.as_ref().context("a manifest without kind")?;
        let kind = GroupVersionKind::try_from(types).context("a manifest without kind")?;
        let resource = kube::core::ApiResource::from_gvk(&kind);
        let api: Api<DynamicObject> = match object.namespace() {
            Some(namespace) => Api::namespaced_with(client.clone(), &namespace, &resource),
            None => Api::all_with(client.clone(), &resource),
        };
        api.patch(
            &object.name_any(),
            &PatchParams::apply(MANAGER).force(),
            &Patch::Apply(&object),
        )
        .await
        .with_context(|| format!("apply {} {}", kind.kind, object.name_any()))?;
    }
    Ok(())
}

/// The objects of `manifests/base` that give rights, and the Lease that they are about.
fn given() -> anyhow::Result<Vec<DynamicObject>> {
    let mut objects = Vec::new();
    for path in yaml_files(&manifests())? {
        let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let documents: Vec<Value> =
            serde_saphyr::from_multiple(&text).with_context(|| format!("{} is not YAML", path.display()))?;
        for document in documents {
            if document["apiVersion"]
                .as_str()
                .is_some_and(|it| GIVEN.iter().any(|group| it.starts_with(group)))
            {
                objects.push(
                    serde_json::from_value(document)
                        .with_context(|| format!("{} holds no object", path.display()))?,
                );
            }
        }
    }
    Ok(objects)
}

/// `$WARREN_MANIFESTS`, else that of the checkout this was built from.
fn manifests() -> PathBuf {
    std::env::var_os("WARREN_MANIFESTS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests/base"),
        PathBuf::from,
    )
}

fn yaml_files(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(dir).with_context(|| {
        format!(
            "read the manifests in {} (WARREN_MANIFESTS names another place)",
            dir.display()
        )
    })?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.context("read the manifests")?.path();
        if path.is_dir() {
            files.extend(yaml_files(&path)?);
        } else if path.extension().is_some_and(|it| it == "yaml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Makes a node's object as its kubelet and the control plane would.
pub(crate) async fn create_node(client: &Client, node: NodeLayout) -> anyhow::Result<()> {
    let api: Api<Node> = Api::all(client.clone());
    let name = node.name();
    let cidrs: Vec<_> = node.pod_cidrs().iter().map(ToString::to_string).collect();
    let object = serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {
            "kubernetes.io/hostname": name,
            "kubernetes.io/os": "linux",
            "topology.kubernetes.io/zone": format!("subnet{}", node.subnet().0),
        }},
        "spec": {"podCIDR": cidrs.first(), "podCIDRs": cidrs},
    }))?;
    api.create(&PostParams::default(), &object)
        .await
        .with_context(|| format!("create Node {name}"))?;
    let addresses: Vec<_> = node
        .addresses()
        .iter()
        .map(|it| json!({"type": "InternalIP", "address": it.addr()}))
        .chain([json!({"type": "Hostname", "address": name})])
        .collect();
    let status = json!({"status": {
        "addresses": addresses,
        "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady",
            "message": "a node of warren-lab", "lastHeartbeatTime": null, "lastTransitionTime": null}],
    }});
    api.patch_status(&name, &PatchParams::default(), &Patch::Merge(&status))
        .await
        .with_context(|| format!("write the status of Node {name}"))?;
    Ok(())
}

/// Makes a pod's object, bound to its node, and returns its uid.
pub(crate) async fn create_pod(client: &Client, pod: &PodOptions) -> anyhow::Result<String> {
    ensure_namespace(client, &pod.key.namespace).await?;
    let ports: Vec<_> = pod
        .ports
        .iter()
        .map(|it| {
            let mut port = json!({"containerPort": it.port, "protocol": it.protocol.name()});
            if let Some(name) = &it.name {
                port["name"] = json!(name);
            }
            if let Some(host) = it.host_port {
                port["hostPort"] = json!(host);
            }
            port
        })
        .collect();
    let object = serde_json::from_value(json!({
        "metadata": {"name": pod.key.name, "labels": pod.labels},
        "spec": {
            "nodeName": pod.node,
            "automountServiceAccountToken": false,
            "containers": [{"name": CONTAINER, "image": IMAGE, "ports": ports}],
        },
    }))?;
    let api: Api<Pod> = Api::namespaced(client.clone(), &pod.key.namespace);
    let created = api
        .create(&PostParams::default(), &object)
        .await
        .with_context(|| format!("create Pod {}", pod.key))?;
    created
        .uid()
        .with_context(|| format!("the API gave Pod {} no uid", pod.key))
}

/// Writes the status of a pod that runs, as its kubelet would.
pub(crate) async fn set_pod_running(
    client: &Client,
    key: &PodKey,
    addresses: &[String],
) -> anyhow::Result<()> {
    let api: Api<Pod> = Api::namespaced(client.clone(), &key.namespace);
    let all: Vec<_> = addresses.iter().map(|it| json!({"ip": it})).collect();
    let status = json!({"status": {
        "phase": "Running",
        "podIP": addresses.first(),
        "podIPs": all,
        "conditions": [{"type": "Ready", "status": "True"}],
        "containerStatuses": [{
            "name": CONTAINER, "image": IMAGE, "imageID": "", "ready": true, "restartCount": 0,
            "state": {"running": {}},
        }],
    }});
    api.patch_status(&key.name, &PatchParams::default(), &Patch::Merge(&status))
        .await
        .with_context(|| format!("write the status of Pod {key}"))?;
    Ok(())
}

/// Deletes a pod's object at once, as its kubelet does when nothing of it is left. One that is gone is fine.
pub(crate) async fn delete_pod(client: &Client, key: &PodKey) -> anyhow::Result<()> {
    let api: Api<Pod> = Api::namespaced(client.clone(), &key.namespace);
    match api
        .delete(&key.name, &DeleteParams::default().grace_period(0))
        .await
    {
        Err(error) if !is_code(&error, 404) => Err(error).with_context(|| format!("delete Pod {key}")),
        _ => Ok(()),
    }
}

async fn ensure_namespace(client: &Client, name: &str) -> anyhow::Result<()> {
    let api: Api<Namespace> = Api::all(client.clone());
    let object = serde_json::from_value(json!({"metadata": {"name": name}}))?;
    match api.create(&PostParams::default(), &object).await {
        Err(error) if !is_code(&error, 409) => Err(error).with_context(|| format!("create Namespace {name}")),
        _ => Ok(()),
    }
}

fn is_code(error: &kube::Error, code: u16) -> bool {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "one kind of the library's many is about an answer of the API"
    )]
    match error {
        kube::Error::Api(status) => status.code == code,
        _ => false,
    }
}
