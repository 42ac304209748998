//! Deleting objects, and what goes with them: finalizers, namespaces' contents, custom resources.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::error::ApiError;
use crate::meta;
use crate::resource::Resource;
use crate::selector::Selector;
use crate::state::{State, Target};
use crate::{convert, crd};

/// What a delete request asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct DeleteOptions {
    /// Delete only the object with this uid.
    pub uid: Option<String>,
    /// Delete only this version of the object.
    pub resource_version: Option<String>,
    /// Seconds a pod gets to stop; 0 deletes at once.
    pub grace: Option<i64>,
    /// Check and answer, but delete nothing.
    pub dry_run: bool,
}

/// What became of the object.
#[derive(Debug, Clone, PartialEq)]
pub enum Deleted {
    /// It is gone. This was its last state.
    Gone(Arc<Value>),
    /// It is marked and waits for its finalizers or its kubelet.
    Marked(Arc<Value>),
}

impl State {
    pub(crate) fn delete(&mut self, target: &Target, options: &DeleteOptions) -> Result<Deleted, ApiError> {
        let live = self.stored(target)?;
        check_preconditions(target, &live, options)?;
        let now = options.grace == Some(0);
        let stopping = target.resource.kind == "Pod" && self.graceful_pods && bound(&live) && !now;
        let keeps = meta::has_finalizers(&live) || stopping || self.has_contents(target);
        if options.dry_run {
            let seen = convert::to_version(&live, &target.resource);
            return Ok(if keeps {
                Deleted::Marked(seen)
            } else {
                Deleted::Gone(seen)
            });
        }
        if !keeps {
            return Ok(Deleted::Gone(self.finish_deletion(target)));
        }
        let marked = if meta::is_deleting(&live) {
            live
        } else {
            self.mark(target, &live, stopping, options)
        };
        if target.resource.kind == "Namespace" {
            self.delete_contents(&target.name);
            if self.stored(target).is_err() {
                return Ok(Deleted::Gone(marked));
            }
        }
        Ok(Deleted::Marked(convert::to_version(&marked, &target.resource)))
    }

    /// Deletes what `selector` matches; the objects, as they were.
    pub(crate) fn delete_collection(
        &mut self,
        target: &Target,
        selector: &Selector,
        options: &DeleteOptions,
    ) -> Result<Vec<Arc<Value>>, ApiError> {
        let objects = self.list(target, selector);
        for object in &objects {
            let (namespace, name) = (meta::namespace(object).to_owned(), meta::name(object).to_owned());
            self.delete(
                &Target {
                    namespace,
                    name,
                    ..target.clone()
                },
                options,
            )?;
        }
        Ok(objects)
    }

    /// Removes the object itself and what hangs on it. Returns its last state.
    pub(crate) fn finish_deletion(&mut self, target: &Target) -> Arc<Value> {
        let removed = self
            .store
            .remove(&target.resource.storage(), &target.namespace, &target.name);
        let last = removed.expect("callers looked it up under the same lock");
        if target.resource.kind == "CustomResourceDefinition" {
            self.drop_custom_resource(&last);
        }
        if !target.namespace.is_empty() {
            self.settle_namespace(&target.namespace);
        }
        convert::to_version(&last, &target.resource)
    }

    /// Whether a marked object goes only when a kubelet confirms that it has stopped.
    pub(crate) fn waits_for_kubelet(&self, resource: &Resource, object: &Value) -> bool {
        resource.kind == "Pod" && self.graceful_pods && bound(object)
    }

    /// Serves what a stored definition defines.
    pub(crate) fn serve_custom_resource(&mut self, definition: &Value) {
        let (group, plural) = names(definition);
        self.registry.replace(&group, &plural, crd::resources(definition));
    }

    fn drop_custom_resource(&mut self, definition: &Value) {
        let (group, plural) = names(definition);
        let storage = format!("{plural}.{group}");
        let keys: Vec<(String, String)> = self
            .store
            .list(&storage, "")
            .map(|object| (meta::namespace(object).to_owned(), meta::name(object).to_owned()))
            .collect();
        for (namespace, name) in keys {
            self.store.remove(&storage, &namespace, &name);
        }
        self.registry.replace(&group, &plural, Vec::new());
    }

    fn mark(&mut self, target: &Target, live: &Value, stopping: bool, options: &DeleteOptions) -> Arc<Value> {
        let mut marked = live.clone();
        if target.resource.kind == "Namespace" {
            marked["status"]["phase"] = json!("Terminating");
        }
        let seconds = if stopping { options.grace.unwrap_or(30) } else { 0 };
        let metadata = meta::metadata(&mut marked);
        metadata.insert("deletionTimestamp".to_owned(), json!(meta::now()));
        metadata.insert("deletionGracePeriodSeconds".to_owned(), json!(seconds));
        self.store.put(&target.resource.storage(), marked)
    }

    fn has_contents(&self, target: &Target) -> bool {
        target.resource.kind == "Namespace" && !self.store.storages_in(&target.name).is_empty()
    }

    fn delete_contents(&mut self, namespace: &str) {
        for storage in self.store.storages_in(namespace) {
            let Some(resource) = self
                .registry
                .all()
                .iter()
                .find(|r| r.storage() == *storage)
                .cloned()
            else {
                continue;
            };
            let names: Vec<String> = self
                .store
                .list(&storage, namespace)
                .map(|object| meta::name(object).to_owned())
                .collect();
            for name in names {
                let target = Target {
                    resource: Arc::clone(&resource),
                    namespace: namespace.to_owned(),
                    name,
                    status: false,
                };
                // The only failure is that it is gone already, which is what is wanted.
                drop(self.delete(
                    &target,
                    &DeleteOptions {
                        grace: Some(0),
                        ..DeleteOptions::default()
                    },
                ));
            }
        }
    }

    /// A namespace that is being deleted goes with its last object.
    fn settle_namespace(&mut self, name: &str) {
        let deleting = self
            .store
            .get("namespaces.", "", name)
            .is_some_and(|namespace| meta::is_deleting(namespace) && !meta::has_finalizers(namespace));
        if deleting && self.store.storages_in(name).is_empty() {
            self.store.remove("namespaces.", "", name);
        }
    }
}

fn names(definition: &Value) -> (String, String) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    (
        text(&definition["spec"]["group"]),
        text(&definition["spec"]["names"]["plural"]),
    )
}

fn bound(pod: &Value) -> bool {
    pod["spec"]["nodeName"]
        .as_str()
        .is_some_and(|node| !node.is_empty())
}

fn check_preconditions(target: &Target, live: &Value, options: &DeleteOptions) -> Result<(), ApiError> {
    for (field, wanted) in [
        ("uid", &options.uid),
        ("resourceVersion", &options.resource_version),
    ] {
        let have = meta::text(live, field);
        if let Some(wanted) = wanted.as_deref().filter(|wanted| *wanted != have) {
            let message =
                format!("Precondition failed: {field} in precondition: {wanted}, in object meta: {have}");
            return Err(ApiError::Conflict {
                subject: target.resource.subject(&target.name),
                message,
            });
        }
    }
    Ok(())
}
