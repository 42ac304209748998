//! All that policies are compiled from, listed once: for who asks what holds, and does not follow it.

use std::sync::Arc;

use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use warren_model::Refusal;
use warren_policy::{Cluster, Invalid, Policy};

use super::decode::{self, ReadPolicy};
use super::resources::{GlobalNetworkPolicy, GlobalNetworkSet, HostEndpoint, NetworkPolicy, NetworkSet};
use crate::api_error::status_code;
use crate::decode::{Decoded, decode_node};

/// How an object of a kind of policy is read.
type ReadObject = fn(DynamicObject) -> ReadPolicy;

/// Objects of one answer: the size that kubectl asks for.
const PAGE: u32 = 500;

/// Policies of all kinds, and the cluster they are about.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Listed {
    /// Policies that can be honoured.
    pub policies: Vec<Policy>,
    /// Policies that cannot.
    pub invalid: Vec<Invalid>,
    /// Pods, namespaces, network sets, host endpoints, and nodes' addresses.
    pub cluster: Cluster,
    /// What was refused of sets and host endpoints. Invalid policies say for themselves why.
    pub refusals: Vec<Refusal>,
}

/// Lists it all. A kind that the server does not know has no objects.
///
/// # Errors
/// The first list that fails.
pub async fn list(client: &Client) -> Result<Listed, kube::Error> {
    let mut listed = Listed::default();
    for pod in all(Api::all(client.clone())).await? {
        listed.cluster.pods.push(Arc::new(decode::pod(&pod)));
    }
    for namespace in all(Api::all(client.clone())).await? {
        listed.cluster.namespaces.push(decode::namespace(&namespace));
    }
    for node in all(Api::all(client.clone())).await? {
        if let Some(node) = decode_node(&node).value {
            listed.cluster.nodes.insert(node.name, node.internal_ips);
        }
    }
    let kinds: [(ApiResource, ReadObject); 3] = [
        (kubernetes_policies(), decode::kubernetes_policy),
        (ApiResource::erase::<NetworkPolicy>(&()), decode::warren_policy),
        (
            ApiResource::erase::<GlobalNetworkPolicy>(&()),
            decode::global_policy,
        ),
    ];
    for (kind, read) in kinds {
        for object in known(client, &kind).await? {
            match read(object) {
                Ok(policy) => listed.policies.push(policy),
                Err(invalid) => listed.invalid.push(*invalid),
            }
        }
    }
    for kind in [
        ApiResource::erase::<NetworkSet>(&()),
        ApiResource::erase::<GlobalNetworkSet>(&()),
    ] {
        for object in known(client, &kind).await? {
            let Decoded { value, refusals } = decode::network_set(object);
            listed.cluster.network_sets.extend(value);
            listed.refusals.extend(refusals);
        }
    }
    for object in known(client, &ApiResource::erase::<HostEndpoint>(&())).await? {
        let Decoded { value, refusals } = decode::host_endpoint(object);
        listed.cluster.host_endpoints.extend(value);
        listed.refusals.extend(refusals);
    }
    Ok(listed)
}

/// `networking.k8s.io/v1` NetworkPolicy. Read as any JSON: a field that is not known must be seen to be refused.
pub(crate) fn kubernetes_policies() -> ApiResource {
    let kind = GroupVersionKind::gvk("networking.k8s.io", "v1", "NetworkPolicy");
    ApiResource::from_gvk_with_plural(&kind, "networkpolicies")
}

/// All objects of a kind that the server may not know.
async fn known(client: &Client, kind: &ApiResource) -> Result<Vec<DynamicObject>, kube::Error> {
    match all(Api::all_with(client.clone(), kind)).await {
        Err(error) if status_code(&error) == Some(404) => Ok(Vec::new()),
        other => other,
    }
}

async fn all<K>(api: Api<K>) -> Result<Vec<K>, kube::Error>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug,
{
    let mut objects = Vec::new();
    let mut params = ListParams::default().limit(PAGE);
    loop {
        let page = api.list(&params).await?;
        objects.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(objects),
        }
    }
}
