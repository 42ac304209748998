//! The policies there are, and the rules they come to.

use std::collections::BTreeMap;

use anyhow::{Context, anyhow};
use kube::api::{Api, ApiResource, DynamicObject};
use warren_cluster::ClientConfig;
use warren_cluster::api_error::{describe, status_code};
use warren_cluster::mesh_in_force::{MeshInForce, MeshObject};
use warren_cluster::mesh_resource::Mesh as MeshResource;
use warren_cluster::policy::{Listed, list};
use warren_model::Mesh;
use warren_model::mesh::{MESH_NAME, OnInvalid};
use warren_policy::cluster::Failsafe;
use warren_policy::{Input, RuleSet, compile};

use crate::arguments::PolicyArguments;

/// What was read, and what it means for every pod of the cluster.
pub(super) struct Policies {
    /// As it was read.
    pub(super) listed: Listed,
    /// What becomes of what refused policies select.
    pub(super) on_invalid: OnInvalid,
    /// What it comes to.
    pub(super) rules: RuleSet,
}

/// Reads it all from the API server.
pub(super) async fn look(arguments: &PolicyArguments) -> anyhow::Result<Policies> {
    let config = ClientConfig::new(concat!("warren/", env!("CARGO_PKG_VERSION")));
    let config = config.with_kubeconfig(arguments.kubeconfig.clone());
    let client = config.build().await.context("cannot reach the API server")?;
    let meshes: Api<DynamicObject> = Api::all_with(client.clone(), &ApiResource::erase::<MeshResource>(&()));
    let mesh = meshes.get_opt(MESH_NAME).await;
    let mesh = in_force(mesh.map_err(|error| refused("read the Mesh", &error))?);
    let listed = list(&client)
        .await
        .map_err(|error| refused("list policies and what they are about", &error))?;
    let rules = compile(&Input {
        invalid: &listed.invalid,
        on_invalid: match mesh.policy.on_invalid {
            OnInvalid::Closed => warren_policy::OnInvalid::Closed,
            OnInvalid::Open => warren_policy::OnInvalid::Open,
        },
        failsafe: Failsafe::default().with_mesh(&mesh.ports),
        ..Input::new(&listed.policies, &listed.cluster)
    });
    Ok(Policies {
        on_invalid: mesh.policy.on_invalid,
        listed,
        rules,
    })
}

/// What the Mesh says, or the defaults.
fn in_force(object: Option<DynamicObject>) -> Mesh {
    let named = object.map(|object| (MESH_NAME.to_owned(), MeshObject::from(object)));
    let mut force = MeshInForce::default();
    force.update(&BTreeMap::from_iter(named), None);
    force.mesh().clone()
}

fn refused(act: &str, error: &kube::Error) -> anyhow::Error {
    let remedy = match status_code(error) {
        Some(401 | 403) => "warren policy --help says which permissions it takes",
        Some(_) => "try again",
        None => "check that the API server runs and that the kubeconfig names its address",
    };
    anyhow!("cannot {act}: {}; {remedy}", describe(error))
}
