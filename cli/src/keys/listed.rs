//! `warren keys accept` and `warren keys revoke`: the keys that the Mesh names.

use std::collections::BTreeSet;

use anyhow::{Context, bail};
use kube::Client;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde::Serialize;
use serde_json::json;
use warren_cluster::ClientConfig;
use warren_cluster::api_error::status_code;
use warren_cluster::mesh_resource::{MAX_LISTED_KEYS, Mesh};
use warren_model::PublicKey;
use warren_model::mesh::MESH_NAME;

use super::rotate::{Published, nodes, refused};
use crate::arguments::{KeysNodeArguments, OutputFormat};
use crate::outcome::{self, Outcome};

/// How often a change is made anew because somebody else has changed the Mesh meanwhile.
pub(super) const TRIES: usize = 5;

/// What `--output json` prints: fields are added, never changed or removed.
#[derive(Debug, Serialize)]
struct Done {
    node: String,
    keys: Vec<PublicKey>,
}

/// The Mesh's two lists.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Lists {
    accepted: BTreeSet<String>,
    revoked: BTreeSet<String>,
}

/// Accepts what the node publishes.
pub(super) async fn accept(arguments: KeysNodeArguments) -> anyhow::Result<Outcome> {
    let (client, published, keys) = keys_of(&arguments).await?;
    let in_use: BTreeSet<String> = published
        .iter()
        .filter_map(|(_, says)| says.as_ref())
        .flat_map(|says| &says.keys)
        .map(|key| key.public_key.to_string())
        .collect();
    change(&client, |lists| lists.accept(&keys, &in_use)).await?;
    print(&arguments, keys, "accepted")
}

/// Revokes what the node publishes.
pub(super) async fn revoke(arguments: KeysNodeArguments) -> anyhow::Result<Outcome> {
    let (client, _, keys) = keys_of(&arguments).await?;
    change(&client, |lists| lists.revoke(&keys)).await?;
    print(&arguments, keys, "revoked")
}

impl Lists {
    fn of(mesh: &Mesh) -> Self {
        let set = |keys: &[String]| keys.iter().cloned().collect();
        Self {
            accepted: set(&mesh.spec.keys.accepted),
            revoked: set(&mesh.spec.keys.revoked),
        }
    }

    /// What no node has any more need not be accepted: agents hold a node to what they have taken of it.
    fn accept(&mut self, keys: &[PublicKey], in_use: &BTreeSet<String>) {
        self.accepted.retain(|key| in_use.contains(key));
        self.accepted.extend(keys.iter().map(ToString::to_string));
    }

    fn revoke(&mut self, keys: &[PublicKey]) {
        let keys: BTreeSet<String> = keys.iter().map(ToString::to_string).collect();
        self.accepted.retain(|key| !keys.contains(key));
        self.revoked.extend(keys);
    }
}

/// A client, what all nodes publish, and the keys of the one that is named.
async fn keys_of(arguments: &KeysNodeArguments) -> anyhow::Result<(Client, Published, Vec<PublicKey>)> {
    let config = ClientConfig::new(concat!("warren/", env!("CARGO_PKG_VERSION")));
    let config = config.with_kubeconfig(arguments.kubeconfig.clone());
    let client = config.build().await.context("cannot reach the API server")?;
    let published = nodes(&client).await?;
    let node = &arguments.node;
    let Some((_, says)) = published.iter().find(|(name, _)| name == node.as_str()) else {
        bail!("there is no node {node}: kubectl get nodes lists them");
    };
    let Some(says) = says else {
        bail!("node {node} publishes no key: see that its agent runs");
    };
    let keys: BTreeSet<PublicKey> = says.keys.iter().map(|key| key.public_key).collect();
    Ok((client, published, keys.into_iter().collect()))
}

/// Changes the lists as they are by then, each time somebody else was faster.
async fn change(client: &Client, change: impl Fn(&mut Lists)) -> anyhow::Result<()> {
    let meshes: Api<Mesh> = Api::all(client.clone());
    for _ in 0..TRIES {
        let found = meshes.get_opt(MESH_NAME).await;
        let found = found.map_err(|error| refused("read", &error))?;
        let before = found.as_ref().map(Lists::of).unwrap_or_default();
        let mut after = before.clone();
        change(&mut after);
        if after == before {
            return Ok(());
        }
        if after.revoked.len().max(after.accepted.len()) > MAX_LISTED_KEYS {
            bail!(
                "the Mesh would name more than {MAX_LISTED_KEYS} keys: take out of spec.keys.revoked those that no node can have \
                 any more"
            );
        }
        let spec = json!({"keys": {"accepted": after.accepted, "revoked": after.revoked}});
        let written = match found {
            Some(mesh) => {
                let patch = json!({"metadata": {"resourceVersion": mesh.resource_version()}, "spec": spec});
                let patch = Patch::Merge(patch);
                meshes.patch(MESH_NAME, &PatchParams::default(), &patch).await
            }
            None => {
                let mesh = serde_json::from_value(json!({
                    "apiVersion": "warren-mesh.io/v1alpha1", "kind": "Mesh",
                    "metadata": {"name": MESH_NAME}, "spec": spec,
                }))?;
                meshes.create(&PostParams::default(), &mesh).await
            }
        };
        match written {
            Ok(_) => return Ok(()),
            Err(error) if status_code(&error) == Some(409) => {}
            Err(error) => return Err(refused("change", &error)),
        }
    }
    bail!("the Mesh {MESH_NAME} is changed all the time by somebody else: try again")
}

fn print(arguments: &KeysNodeArguments, keys: Vec<PublicKey>, done: &str) -> anyhow::Result<Outcome> {
    match arguments.output {
        OutputFormat::Table => {
            let line = |key: &PublicKey| format!("{done} {key} of {}\n", arguments.node);
            let lines: String = keys.iter().map(line).collect();
            outcome::print(lines.as_bytes())
        }
        OutputFormat::Json => outcome::print_json(&Done {
            node: arguments.node.to_string(),
            keys,
        }),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    fn key(byte: u8) -> PublicKey {
        PublicKey::from_bytes([byte; 32]).unwrap()
    }

    #[test]
    fn a_key_is_accepted_or_revoked_and_the_list_of_accepted_ones_does_not_grow() {
        let mut lists = Lists::default();
        let in_use = |keys: &[u8]| keys.iter().map(|it| key(*it).to_string()).collect();
        lists.accept(&[key(1)], &in_use(&[1, 2]));
        lists.accept(&[key(2)], &in_use(&[1, 2]));
        assert_eq!(lists.accepted, in_use(&[1, 2]));
        lists.accept(&[key(3)], &in_use(&[2, 3]));
        assert_eq!(lists.accepted, in_use(&[2, 3]));
        lists.revoke(&[key(3)]);
        assert_eq!((lists.accepted, lists.revoked), (in_use(&[2]), in_use(&[3])));
    }
}
