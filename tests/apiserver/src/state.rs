//! Everything behind the lock, and reading from it.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::config::Config;
use crate::error::ApiError;
use crate::pages::Pages;
use crate::resource::{Gvr, Registry, Resource};
use crate::rng::Rng;
use crate::selector::Selector;
use crate::store::Store;
use crate::write::WriteOptions;
use crate::{builtin, convert};

/// Kinds, objects and the source of uids.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) registry: Registry,
    pub(crate) store: Store,
    pub(crate) pages: Pages,
    pub(crate) rng: Rng,
    pub(crate) graceful_pods: bool,
}

/// An object or a collection a request is about.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) resource: Arc<Resource>,
    /// Empty: cluster-scoped, or all namespaces.
    pub(crate) namespace: String,
    /// Empty for a collection.
    pub(crate) name: String,
    /// Whether the status subresource is meant.
    pub(crate) status: bool,
}

impl State {
    pub(crate) fn new(config: &Config) -> Self {
        let mut state = Self {
            registry: Registry::new(builtin::resources()),
            store: Store::new(config.history),
            pages: Pages::default(),
            rng: Rng::new(config.seed),
            graceful_pods: config.graceful_pods,
        };
        for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
            let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } });
            let target = state
                .target(Gvr::core("namespaces"), "", "")
                .expect("namespaces are built in");
            state
                .create(&target, namespace, &WriteOptions::default())
                .expect("the name is valid and free");
        }
        state
    }

    pub(crate) fn target(&self, id: Gvr<'_>, namespace: &str, name: &str) -> Result<Target, ApiError> {
        let resource = self.registry.find(id)?;
        // A namespace is no part of the key of a cluster-scoped object, whatever the caller says.
        let namespace = if resource.namespaced {
            namespace.to_owned()
        } else {
            String::new()
        };
        Ok(Target {
            resource,
            namespace,
            name: name.to_owned(),
            status: false,
        })
    }

    pub(crate) fn stored(&self, target: &Target) -> Result<Arc<Value>, ApiError> {
        let found = self
            .store
            .get(&target.resource.storage(), &target.namespace, &target.name)
            .cloned();
        found.ok_or_else(|| ApiError::NotFound(target.resource.subject(&target.name)))
    }

    pub(crate) fn get(&self, target: &Target) -> Result<Arc<Value>, ApiError> {
        Ok(convert::to_version(&self.stored(target)?, &target.resource))
    }

    pub(crate) fn list(&self, target: &Target, selector: &Selector) -> Vec<Arc<Value>> {
        let objects = self
            .store
            .list(&target.resource.storage(), &target.namespace)
            .cloned()
            .collect::<Vec<_>>();
        let versions = objects
            .iter()
            .map(|object| convert::to_version(object, &target.resource));
        versions.filter(|object| selector.matches(object)).collect()
    }
}
