//! Changes of how nodes reach each other while all pods send to each other, and what is lost of what they send.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use warren_cluster::mesh_resource::Mesh;

use crate::control::Place;
use crate::lab::Lab;
use crate::rotation;
use crate::tally::{Tally, tally_during};

/// Packets a second from every pod to every address of every pod on another node.
pub const RATE: u32 = 100;

/// How long a change may take until every node has settled: also where the machine is an emulated one.
const PATIENCE: Duration = Duration::from_secs(60);

/// The annotation that nodes publish.
const ANNOTATION: &str = "warren-mesh.io/wireguard";

/// One change.
#[derive(Debug, Clone)]
pub enum Change {
    /// None: what is lost without any.
    Nothing,
    /// `spec` of the Mesh is this from now on.
    Spec(Value),
    /// The agent of a node is started anew with this `--wireguard`.
    Wireguard(&'static str, &'static str),
    /// The agent of the first node is started anew without WireGuard and, once the second sends to it by the fallback, with
    /// it again. All the while the second cannot publish what it makes of that.
    ThereAndBack(&'static str, &'static str),
    /// All keys are rotated.
    Keys,
}

/// A change and what it is called.
pub type Named = (&'static str, Change);

/// Encryption off, on and off again.
pub fn encryption() -> Vec<Named> {
    vec![
        ("no change", Change::Nothing),
        ("encryption none to wireguard", spec(json!({}))),
        (
            "encryption wireguard to none",
            spec(json!({"encryption": "none"})),
        ),
    ]
}

/// Kinds of path without encryption, from VXLAN on; for nodes in one subnet.
pub fn overlay() -> Vec<Named> {
    let none = |mode: &str| json!({"encryption": "none", "overlay": {"mode": mode}});
    vec![
        ("overlay vxlan to none", spec(none("none"))),
        ("overlay none, encryption on", spec(json!({}))),
        ("overlay none, encryption off", spec(none("none"))),
        ("overlay none to vxlan", spec(none("vxlan"))),
    ]
}

/// IPIP, from VXLAN on, for nodes that have it. It carries IPv4 alone.
pub fn ipip() -> Vec<Named> {
    let none = |mode: &str| json!({"encryption": "none", "overlay": {"mode": mode}});
    vec![
        ("overlay vxlan to ipip", spec(none("ipip"))),
        ("overlay ipip, encryption on", spec(json!({}))),
        ("overlay ipip, encryption off", spec(none("ipip"))),
        ("overlay ipip to none", spec(none("none"))),
    ]
}

/// The same, for nodes in several.
pub fn cross_subnet() -> Vec<Named> {
    let with = |on: bool| json!({"encryption": "none", "overlay": {"mode": "vxlan", "crossSubnet": on}});
    vec![
        ("crossSubnet on", spec(with(true))),
        ("crossSubnet off", spec(with(false))),
    ]
}

/// With encryption on: the fallback, and the node that needs it for a while.
pub fn fallback(node: &'static str) -> Vec<Named> {
    let on = ("fallback on", spec(json!({"fallback": "vxlan"})));
    let off = ("fallback off", spec(json!({})));
    [vec![on], loss_and_gain(node, "auto"), vec![off]].concat()
}

/// With the fallback on: a node that needs it for a while, and then has a device of this kind.
pub fn loss_and_gain(node: &'static str, kind: &'static str) -> Vec<Named> {
    vec![
        ("a node loses WireGuard", Change::Wireguard(node, "none")),
        ("a node gains WireGuard", Change::Wireguard(node, kind)),
    ]
}

/// With the fallback on: the node needs it for so short a time that not all have told how far they have followed.
pub fn there_and_back(node: &'static str) -> Vec<Named> {
    vec![(
        "a node loses WireGuard and regains it before all have followed",
        Change::ThereAndBack(node, "node1"),
    )]
}

/// With encryption on: the MTU.
pub fn mtu() -> Vec<Named> {
    vec![
        ("mtu set", spec(json!({"mtu": 1300}))),
        ("mtu found out again", spec(json!({"mtu": 0}))),
    ]
}

/// With encryption on: the ports of both lanes, each while no peer is sent to by it.
pub fn ports() -> Vec<Named> {
    let ports = |zero: u16, one: u16| json!({"ports": {"wireguard": [zero, one]}});
    vec![
        ("port of the lane not in use", spec(ports(51830, 51821))),
        ("keys rotated into it", Change::Keys),
        ("port of the lane left", spec(ports(51830, 51831))),
    ]
}

/// Without encryption, from VXLAN on: its port, by way of encryption.
pub fn vxlan_port() -> Vec<Named> {
    let by_the_new_port = json!({"encryption": "none", "ports": {"vxlan": 4790}});
    vec![
        ("VXLAN left for WireGuard", spec(json!({}))),
        ("VXLAN taken up by another port", spec(by_the_new_port)),
    ]
}

fn spec(spec: Value) -> Change {
    Change::Spec(spec)
}

/// What `spec` of the Mesh is before the changes of [`encryption`], [`overlay`] and [`cross_subnet`].
pub fn in_the_clear() -> Value {
    json!({"encryption": "none"})
}

/// Makes the change while all pods send to each other, so many packets a second, until every node has settled.
pub async fn during(lab: &Lab, rate: u32, change: &Change) -> anyhow::Result<Tally> {
    let (tally, made) = tally_during(lab, rate, make(lab, change)).await?;
    made?;
    Ok(tally)
}

/// Gives the Mesh its first `spec` and waits until every node has settled. No packet is counted.
pub async fn begin_with(lab: &Lab, spec: &Value) -> anyhow::Result<()> {
    let mesh: Mesh = serde_json::from_value(json!({
        "apiVersion": "warren-mesh.io/v1alpha1", "kind": "Mesh",
        "metadata": {"name": "default"}, "spec": spec,
    }))?;
    let meshes: Api<Mesh> = Api::all(lab.client());
    meshes
        .create(&PostParams::default(), &mesh)
        .await
        .context("make the Mesh")?;
    settled(&lab.client(), None).await.map(drop)
}

/// Makes the change and waits until every node has settled.
pub(crate) async fn make(lab: &Lab, change: &Change) -> anyhow::Result<()> {
    let client = lab.client();
    let before = settled(&client, None).await?;
    match change {
        Change::Nothing => return Ok(()),
        Change::Spec(spec) => {
            let meshes: Api<Mesh> = Api::all(client.clone());
            let old = meshes.get("default").await.context("read the Mesh")?;
            let mut all = json!({"spec": spec});
            // What was set before and is not any more has its default again.
            for (field, default) in [
                ("encryption", json!("wireguard")),
                ("fallback", json!("none")),
                ("overlay", json!({"mode": "vxlan", "crossSubnet": false})),
                ("mtu", json!(0)),
            ] {
                if all["spec"][field].is_null() {
                    all["spec"][field] = default;
                }
            }
            let new = meshes
                .patch("default", &PatchParams::default(), &Patch::Merge(&all))
                .await
                .context("change the Mesh")?;
            if new.metadata.generation == old.metadata.generation {
                bail!("the Mesh was {spec} already");
            }
        }
        Change::Wireguard(node, kind) => {
            lab.node_stop(node).await?;
            lab.node_start_with_wireguard(node, kind).await?;
        }
        Change::ThereAndBack(node, mute) => {
            let refused = json!({"error": {"code": 503}});
            let rule = json!({"verb": "patch", "resource": "nodes", "name": mute, "fault": refused});
            lab.set_faults(&json!({"rules": [rule]})).await?;
            let made = make_there_and_back(lab, node, mute).await;
            lab.clear_faults().await?;
            made?;
        }
        Change::Keys => drop(rotation::rotate(lab, &[]).await?),
    }
    settled(&client, Some(&before)).await.map(drop)
}

async fn make_there_and_back(lab: &Lab, node: &str, mute: &str) -> anyhow::Result<()> {
    lab.node_stop(node).await?;
    lab.node_start_with_wireguard(node, "none").await?;
    let deadline = Instant::now() + PATIENCE;
    let routes = ["ip", "route", "show", "dev", "warren-vx"];
    while lab
        .run(Place::Node(mute.to_owned()), &routes)
        .await?
        .stdout
        .is_empty()
    {
        if Instant::now() > deadline {
            bail!("{mute} does not send to {node} by the fallback within {PATIENCE:?}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    lab.node_stop(node).await?;
    lab.node_start_with_wireguard(node, "auto").await?;
    // An agent serves before it has published anything, and until then all may show that they have followed the loss.
    let nodes: Api<Node> = Api::all(lab.client());
    while !can_wireguard(&nodes.get(node).await.context("read the node")?) {
        if Instant::now() > deadline {
            bail!("{node} does not say that it has WireGuard again within {PATIENCE:?}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Whether a node has published that it can do WireGuard.
fn can_wireguard(node: &Node) -> bool {
    let text = node.annotations().get(ANNOTATION);
    let all: Value = text
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default();
    let paths = all["paths"].as_array();
    paths.is_some_and(|paths| paths.contains(&json!("wireguard")))
}

/// Waits until all nodes that publish anything send and take by one accord, and by nothing that is left of another. Returns
/// the accord.
async fn settled(client: &Client, other_than: Option<&str>) -> anyhow::Result<String> {
    let nodes: Api<Node> = Api::all(client.clone());
    let deadline = Instant::now() + PATIENCE;
    loop {
        let list = nodes.list(&Default::default()).await.context("list the nodes")?;
        let progress: BTreeSet<String> = list
            .iter()
            .filter_map(|node| node.annotations().get(ANNOTATION))
            .map(|text| {
                let all: Value = serde_json::from_str(text).unwrap_or_default();
                // A node without WireGuard sends by less.
                let of = |field: &str| all["progress"][field].as_str().unwrap_or_default().to_owned();
                format!("{}={}", of("accepts"), of("sends"))
            })
            .collect();
        if let (Some(one), 1) = (progress.first(), progress.len())
            && let Some((accepts, sends)) = one.split_once('=')
            && accepts == sends
            && other_than != Some(accepts)
        {
            return Ok(accepts.to_owned());
        }
        if Instant::now() > deadline {
            bail!("not all nodes have settled within {PATIENCE:?}: {progress:?}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
