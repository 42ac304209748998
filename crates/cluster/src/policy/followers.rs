//! The watches that policy takes, one a kind.

use std::sync::Arc;

use k8s_openapi::api::core::v1 as k8s;
use kube::api::{ApiResource, DynamicObject};
use kube::runtime::watcher;
use kube::{Api, Client, ResourceExt};
use tokio::task::JoinSet;
use warren_policy::{HostEndpoint, NetworkSet};

use super::decode::{self, ReadPolicy};
use super::listed::kubernetes_policies;
use super::resources;
use super::watched::{WatchedPolicy, WithUid};
use crate::contents::Contents;
use crate::decode::Decoded;
use crate::follower::{Follower, Shared};
use crate::watch_health::WatchKind;
use crate::watched::Watched;

/// Starts them.
pub(crate) fn spawn(
    tasks: &mut JoinSet<()>,
    client: &Client,
    config: &watcher::Config,
    shared: &Arc<Shared>,
) {
    let pods = Follower {
        kind: WatchKind::AllPods,
        api: Api::<k8s::Pod>::all(client.clone()),
        config: config.clone(),
        decode: |pod| (key(&pod), Arc::new(decode::pod(&pod))),
        contents: |state| &mut state.policy.pods,
        shared: Arc::clone(shared),
    };
    tasks.spawn(pods.run());
    let namespaces = Follower {
        kind: WatchKind::Namespaces,
        api: Api::<k8s::Namespace>::all(client.clone()),
        config: config.clone(),
        decode: |namespace| (key(&namespace), decode::namespace(&namespace)),
        contents: |state| &mut state.policy.namespaces,
        shared: Arc::clone(shared),
    };
    tasks.spawn(namespaces.run());

    let mut of = Dynamic {
        tasks,
        client,
        config,
        shared,
    };
    of.follow::<ReadPolicy>(
        WatchKind::KubernetesPolicies,
        &kubernetes_policies(),
        |object| of_object(object, decode::kubernetes_policy),
        |state| &mut policy(state).kubernetes,
    );
    of.follow::<ReadPolicy>(
        WatchKind::WarrenPolicies,
        &ApiResource::erase::<resources::NetworkPolicy>(&()),
        |object| of_object(object, decode::warren_policy),
        |state| &mut policy(state).warren,
    );
    of.follow::<ReadPolicy>(
        WatchKind::GlobalPolicies,
        &ApiResource::erase::<resources::GlobalNetworkPolicy>(&()),
        |object| of_object(object, decode::global_policy),
        |state| &mut policy(state).global,
    );
    of.follow::<Decoded<NetworkSet>>(
        WatchKind::NetworkSets,
        &ApiResource::erase::<resources::NetworkSet>(&()),
        |object| of_object(object, decode::network_set),
        |state| &mut policy(state).sets,
    );
    of.follow::<Decoded<NetworkSet>>(
        WatchKind::GlobalNetworkSets,
        &ApiResource::erase::<resources::GlobalNetworkSet>(&()),
        |object| of_object(object, decode::network_set),
        |state| &mut policy(state).global_sets,
    );
    of.follow::<Decoded<HostEndpoint>>(
        WatchKind::HostEndpoints,
        &ApiResource::erase::<resources::HostEndpoint>(&()),
        |object| of_object(object, decode::host_endpoint),
        |state| &mut policy(state).host_endpoints,
    );
}

/// What the watches of objects that are read as any JSON have in common.
struct Dynamic<'a> {
    tasks: &'a mut JoinSet<()>,
    client: &'a Client,
    config: &'a watcher::Config,
    shared: &'a Arc<Shared>,
}

impl Dynamic<'_> {
    fn follow<T: PartialEq + Send + 'static>(
        &mut self,
        kind: WatchKind,
        resource: &ApiResource,
        decode: fn(DynamicObject) -> (String, WithUid<T>),
        contents: fn(&mut Watched) -> &mut Contents<WithUid<T>>,
    ) {
        let follower = Follower {
            kind,
            api: Api::<DynamicObject>::all_with(self.client.clone(), resource),
            config: self.config.clone(),
            decode,
            contents,
            shared: Arc::clone(self.shared),
        };
        self.tasks.spawn(follower.run());
    }
}

fn policy(state: &mut Watched) -> &mut WatchedPolicy {
    &mut state.policy
}

fn of_object<T>(mut object: DynamicObject, read: fn(DynamicObject) -> T) -> (String, WithUid<T>) {
    let key = key(&object);
    let uid = object.metadata.uid.take().unwrap_or_default();
    let read = read(object);
    (key, WithUid { uid, read })
}

fn key(object: &impl ResourceExt) -> String {
    match object.namespace() {
        Some(namespace) => format!("{namespace}/{}", object.name_any()),
        None => object.name_any(),
    }
}
