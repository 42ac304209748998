//! What an agent is killed at: each work, how it is prepared, and when it is done.

use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use warren_lab::{CniCommand, PodOptions};

use crate::trial::{NODE, Trial, UNDISTURBED, patiently};

/// The node that comes and goes.
const PEER: &str = "node3";

/// Where a node publishes its key.
const ANNOTATION: &str = "warren-mesh.io/wireguard";

/// What the agent is killed at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    Attach,
    Detach,
    Peer,
    Publish,
    Start,
}

impl Trial {
    pub(crate) async fn get_ready(&self, work: Work, kills: u32) {
        match work {
            Work::Detach => {
                for n in 0..UNDISTURBED + kills {
                    self.attach(format!("detached-{n}")).await;
                }
            }
            Work::Attach | Work::Peer | Work::Publish | Work::Start => {}
        }
    }

    /// Returns when it is done, however often the agent dies meanwhile: a kubelet does not give up either.
    pub(crate) async fn carry_out(&self, work: Work, n: u32) {
        match work {
            Work::Attach => self.attach(format!("attached-{n}")).await,
            Work::Detach => {
                let name = format!("detached-{n}");
                patiently(&name, async || self.lab.pod_remove(name.as_str()).await).await;
            }
            Work::Peer => {
                self.have_the_peer_register_anew().await;
                patiently("the peer", async || self.assert_peer_is_reached().await).await;
            }
            Work::Publish => {
                self.have_the_annotation_be_out_of_date().await;
                patiently("the annotation", async || {
                    let paths = self.published_by(NODE).await["paths"].clone();
                    // Both nodes have the same kernel.
                    let others = self.published_by(PEER).await["paths"].clone();
                    anyhow::ensure!(paths == others, "{paths} are published, not {others}");
                    Ok(())
                })
                .await;
            }
            Work::Start => {
                self.lab.node_kill(NODE).await.unwrap();
                // The kill may end it; who kills starts it again.
                if self.lab.node_start(NODE).await.is_err() {
                    self.wait_until_it_plans_nothing().await;
                }
            }
        }
    }

    pub(crate) async fn attach(&self, name: String) {
        patiently(&name, async || {
            self.lab
                .pod_add(PodOptions::new(name.as_str(), NODE))
                .await
                .map(drop)
        })
        .await;
        patiently(&name, async || {
            self.lab.pod_cni(name.as_str(), CniCommand::Check).await.map(drop)
        })
        .await;
    }

    /// Without a path that nobody takes, so that peers go on.
    pub(crate) async fn have_the_annotation_be_out_of_date(&self) {
        let mut annotation = self.published_by(NODE).await;
        annotation["paths"] = json!(["wireguard"]);
        let patch = json!({"metadata": {"annotations": {ANNOTATION: annotation.to_string()}}});
        let nodes: Api<Node> = Api::all(self.lab.client());
        nodes
            .patch(NODE, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .unwrap();
    }

    pub(crate) async fn published_by(&self, node: &str) -> Value {
        let nodes: Api<Node> = Api::all(self.lab.client());
        let annotations = nodes.get(node).await.unwrap().metadata.annotations.unwrap();
        serde_json::from_str(&annotations[ANNOTATION]).unwrap()
    }

    pub(crate) async fn have_the_peer_register_anew(&self) {
        let nodes: Api<Node> = Api::all(self.lab.client());
        let old = nodes.get(PEER).await.unwrap();
        nodes.delete(PEER, &DeleteParams::default()).await.unwrap();
        let spec = old.spec.unwrap();
        let new = json!({
            "metadata": {"name": PEER, "labels": old.metadata.labels},
            "spec": {"podCIDR": spec.pod_cidr, "podCIDRs": spec.pod_cidrs},
        });
        let new: Node = serde_json::from_value(new).unwrap();
        nodes.create(&PostParams::default(), &new).await.unwrap();
        let old = old.status.unwrap();
        let status = json!({"status": {"addresses": old.addresses, "conditions": old.conditions}});
        nodes
            .patch_status(PEER, &PatchParams::default(), &Patch::Merge(status))
            .await
            .unwrap();
    }

    pub(crate) async fn assert_peer_is_reached(&self) -> anyhow::Result<()> {
        let output = self
            .in_node(&["warren", "status", "--local", "--output", "json"])
            .await;
        let status: Value = serde_json::from_str(&output.stdout)?;
        let agent = &status["nodes"][0]["agent"];
        let mut peers = agent["peers"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default()
            .iter();
        let reached = peers.any(|peer| peer["node"] == PEER && peer["path"] == "wireguard");
        anyhow::ensure!(reached, "{agent:#}");
        Ok(())
    }
}
