//! Rotating the mesh's keys, and seeing when every node has followed.

mod case;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};
use warren_cluster::mesh_resource::Mesh;

pub use self::case::{
    Case, LAST, Moment, NamedCase, cases, cases_of_encryption, cases_of_fallback, cases_of_the_last, during,
    lab_for,
};
use crate::lab::Lab;

/// The annotation that nodes publish.
const ANNOTATION: &str = "warren-mesh.io/wireguard";

/// How long a rotation may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// How often is looked.
const LOOK: Duration = Duration::from_millis(50);

/// The keys that nodes publish, by node and epoch.
pub type Keys = BTreeMap<String, BTreeMap<u64, String>>;

/// Raises the Mesh's epoch by so many. `nodes`: whose keys are renewed; empty: all nodes'. Gives the new epoch.
pub async fn begin(lab: &Lab, by: u64, nodes: &[&str]) -> anyhow::Result<u64> {
    let meshes: Api<Mesh> = Api::all(lab.client());
    let now = meshes.get("default").await.context("read the Mesh")?;
    let now = serde_json::to_value(now)?["spec"]["keys"]["epoch"]
        .as_u64()
        .unwrap_or(1);
    let keys = json!({"spec": {"keys": {"epoch": now + by, "nodes": nodes}}});
    meshes
        .patch("default", &PatchParams::default(), &Patch::Merge(&keys))
        .await
        .context("raise the Mesh's epoch")?;
    Ok(now + by)
}

/// Waits until every node lives in this epoch and in no other. Gives their keys and how long it took.
pub async fn finished(lab: &Lab, epoch: u64) -> anyhow::Result<(Keys, Duration)> {
    finished_without(lab, epoch, "").await
}

/// The same, but for one node.
pub async fn finished_without(lab: &Lab, epoch: u64, node: &str) -> anyhow::Result<(Keys, Duration)> {
    let started = Instant::now();
    let is_there = |(name, value): (&String, &Value)| {
        name == node || (value["settled"] == epoch && keys_of(value).keys().eq([&epoch]))
    };
    let what = format!("epoch {epoch}");
    let published = published_when(lab, &what, |published| published.iter().all(is_there)).await?;
    let keys = published
        .iter()
        .map(|(node, value)| (node.clone(), keys_of(value)));
    Ok((keys.collect(), started.elapsed()))
}

/// Rotates once and waits for the end of it.
pub async fn rotate(lab: &Lab, nodes: &[&str]) -> anyhow::Result<(Keys, Duration)> {
    let epoch = begin(lab, 1, nodes).await?;
    finished(lab, epoch).await
}

/// The keys that nodes publish now.
pub async fn keys(lab: &Lab) -> anyhow::Result<Keys> {
    let published = published(lab).await?;
    Ok(published
        .into_iter()
        .map(|(node, value)| (node, keys_of(&value)))
        .collect())
}

/// Waits until the nodes publish what is wanted. That the API fails meanwhile is borne.
async fn published_when(
    lab: &Lab,
    what: &str,
    wanted: impl Fn(&BTreeMap<String, Value>) -> bool,
) -> anyhow::Result<BTreeMap<String, Value>> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let published = published(lab).await;
        match &published {
            Ok(all) if wanted(all) => return published,
            Ok(_) | Err(_) if Instant::now() < deadline => {}
            Ok(_) | Err(_) => bail!("{what} has not been reached within {PATIENCE:?}: {published:#?}"),
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn published(lab: &Lab) -> anyhow::Result<BTreeMap<String, Value>> {
    let nodes: Api<Node> = Api::all(lab.client());
    let nodes = nodes.list(&Default::default()).await.context("list the nodes")?;
    let value = |node: &Node| {
        let text = node.annotations().get(ANNOTATION).map(String::as_str);
        serde_json::from_str(text.unwrap_or("null")).unwrap_or_default()
    };
    Ok(nodes.iter().map(|node| (node.name_any(), value(node))).collect())
}

fn keys_of(published: &Value) -> BTreeMap<u64, String> {
    let keys = published["keys"].as_array().into_iter().flatten();
    keys.filter_map(|key| Some((key["epoch"].as_u64()?, key["publicKey"].as_str()?.to_owned())))
        .collect()
}
