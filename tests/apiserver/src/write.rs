//! Create, update and patch: from a request body to a stored object.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::admission;
use crate::error::{ApiError, Cause};
use crate::meta;
use crate::patch::managed::{self, Owner};
use crate::patch::shape::Shape;
use crate::patch::{PatchKind, apply, json as rfc, strategic};
use crate::resource::Resource;
use crate::state::{State, Target};
use crate::{convert, crd};

/// Options of a write, as query parameters carry them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WriteOptions {
    /// Who owns what is written (`fieldManager`).
    pub manager: String,
    /// Server-side apply takes fields from other managers.
    pub force: bool,
    /// Check and answer, but store nothing (`dryRun=All`).
    pub dry_run: bool,
    /// Unknown fields of custom resources are refused, not pruned (`fieldValidation=Strict`).
    pub strict: bool,
}

impl State {
    pub(crate) fn create(
        &mut self,
        target: &Target,
        mut body: Value,
        options: &WriteOptions,
    ) -> Result<Arc<Value>, ApiError> {
        let resource = &target.resource;
        check_identity(target, &mut body)?;
        if !meta::text(&body, "resourceVersion").is_empty() {
            return Err(ApiError::BadRequest(
                "resourceVersion should not be set on objects to be created".to_owned(),
            ));
        }
        if resource.namespaced {
            self.check_namespace(&target.namespace)?;
        }
        if meta::name(&body).is_empty() && !meta::text(&body, "generateName").is_empty() {
            let name = format!("{}{}", meta::text(&body, "generateName"), self.rng.suffix());
            meta::metadata(&mut body).insert("name".to_owned(), json!(name));
        }
        let name = meta::name(&body).to_owned();
        if self
            .store
            .get(&resource.storage(), &target.namespace, &name)
            .is_some()
        {
            return Err(ApiError::AlreadyExists(resource.subject(&name)));
        }
        admission::initial_status(resource, &mut body);
        body["metadata"]
            .as_object_mut()
            .map(|m| m.remove("managedFields"));
        self.commit(target, None, body, options, false)
    }

    pub(crate) fn update(
        &mut self,
        target: &Target,
        mut body: Value,
        options: &WriteOptions,
    ) -> Result<Arc<Value>, ApiError> {
        check_identity(target, &mut body)?;
        let live = self.get(target)?;
        check_current(target, &live, &body)?;
        let next = confine(target, &live, body);
        self.commit(target, Some(&live), next, options, false)
    }

    /// Applies a patch. Server-side apply creates what is absent; the others answer 404.
    pub(crate) fn patch(
        &mut self,
        target: &Target,
        kind: PatchKind,
        patch: &Value,
        options: &WriteOptions,
    ) -> Result<Arc<Value>, ApiError> {
        if kind == PatchKind::Apply {
            return self.apply(target, patch, options);
        }
        let live = self.get(target)?;
        let mut next = (*live).clone();
        match kind {
            PatchKind::Json => rfc::apply(&mut next, patch).map_err(|error| match error {
                rfc::PatchError::Unreadable(error) => error,
                rfc::PatchError::DoesNotFit(message) => {
                    let cause = Cause {
                        reason: "FieldValueInvalid",
                        field: "patch".to_owned(),
                        message,
                    };
                    ApiError::Invalid {
                        subject: target.resource.kind_subject(&target.name),
                        causes: vec![cause],
                    }
                }
            })?,
            PatchKind::Strategic if !target.resource.strategic => {
                return Err(ApiError::UnsupportedMediaType(
                    "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
                ));
            }
            PatchKind::Strategic => strategic::apply(&mut next, patch, &shape(&target.resource)),
            PatchKind::Merge | PatchKind::Apply => rfc::merge(&mut next, patch),
        }
        check_identity(target, &mut next)?;
        check_current(target, &live, &next)?;
        let next = confine(target, &live, next);
        self.commit(target, Some(&live), next, options, false)
    }

    fn apply(
        &mut self,
        target: &Target,
        patch: &Value,
        options: &WriteOptions,
    ) -> Result<Arc<Value>, ApiError> {
        let resource = &target.resource;
        if options.manager.is_empty() {
            return Err(ApiError::BadRequest(
                "fieldManager is required for apply patch".to_owned(),
            ));
        }
        let mut wanted = patch.clone();
        for field in ["apiVersion", "kind"] {
            if wanted[field].as_str().is_none_or(str::is_empty) {
                return Err(ApiError::BadRequest(format!(
                    "{field} must be set in an applied configuration"
                )));
            }
        }
        if wanted["metadata"]
            .get("managedFields")
            .is_some_and(|list| !list.is_null())
        {
            return Err(ApiError::BadRequest(
                "metadata.managedFields must be nil".to_owned(),
            ));
        }
        check_identity(target, &mut wanted)?;
        if let Some(schema) = resource.schema.as_deref() {
            admission::prune(schema, &mut wanted, options.strict)?;
        }
        let live = match self.get(target) {
            Ok(live) => Some(live),
            Err(ApiError::NotFound(_)) if !target.status => None,
            Err(error) => return Err(error),
        };
        if let Some(live) = &live {
            check_current(target, live, &wanted)?;
        } else if resource.namespaced {
            self.check_namespace(&target.namespace)?;
        }
        // What this path cannot write is not applied either, so that nobody owns it by accident.
        let scoped = scope(target, wanted);
        let empty = Value::Object(Map::new());
        let subresource = if target.status { "status" } else { "" };
        let owner = Owner {
            manager: options.manager.clone(),
            apply: true,
            subresource: subresource.to_owned(),
        };
        let base = live.as_deref().unwrap_or(&empty);
        let next = apply::apply(base, &scoped, &owner, &shape(resource), options.force)?;
        self.commit(target, live.as_ref(), next, options, true)
    }

    /// Completes, checks and stores `next`. `owned`: managed fields are already written.
    fn commit(
        &mut self,
        target: &Target,
        live: Option<&Arc<Value>>,
        mut next: Value,
        options: &WriteOptions,
        owned: bool,
    ) -> Result<Arc<Value>, ApiError> {
        let resource = &target.resource;
        self.set_system_fields(&mut next, live.map(|live| &**live));
        admission::admit(resource, &mut next, options.strict)?;
        if resource.kind == "CustomResourceDefinition" {
            next["status"] = crd::established(&next);
        }
        if !owned {
            let subresource = if target.status { "status" } else { "" }.to_owned();
            let owner = Owner {
                manager: options.manager.clone(),
                apply: false,
                subresource,
            };
            managed::track_update(live.map(|live| &**live), &mut next, &owner, &shape(resource));
        }
        if let Some(live) = live.filter(|live| ***live == next) {
            return Ok(Arc::clone(live));
        }
        if resource.has_generation {
            let before = live.map_or(0, |live| live["metadata"]["generation"].as_i64().unwrap_or(1));
            let moved = live.is_none_or(|live| content(live, resource) != content(&next, resource));
            meta::metadata(&mut next).insert("generation".to_owned(), json!(before + i64::from(moved)));
        }
        if options.dry_run {
            return Ok(Arc::new(next));
        }
        if live.is_some()
            && meta::is_deleting(&next)
            && !meta::has_finalizers(&next)
            && !self.waits_for_kubelet(resource, &next)
        {
            return Ok(self.finish_deletion(target));
        }
        let stored = self.store.put(&resource.storage(), next);
        if resource.kind == "CustomResourceDefinition" {
            self.serve_custom_resource(&stored);
        }
        Ok(convert::to_version(&stored, resource))
    }

    fn set_system_fields(&mut self, next: &mut Value, live: Option<&Value>) {
        const FIXED: &[&str] = &[
            "uid",
            "creationTimestamp",
            "generation",
            "resourceVersion",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "selfLink",
        ];
        let uid = if live.is_none() {
            self.rng.uuid()
        } else {
            String::new()
        };
        let metadata = meta::metadata(next);
        let none = Map::new();
        let old = live
            .and_then(|live| live["metadata"].as_object())
            .unwrap_or(&none);
        FIXED
            .iter()
            .for_each(|field| meta::copy_field(metadata, old, field));
        if live.is_none() {
            metadata.insert("uid".to_owned(), json!(uid));
            metadata.insert("creationTimestamp".to_owned(), json!(meta::now()));
        }
        // Empty maps and lists are as good as absent ones, and comparing objects should say so.
        for field in ["labels", "annotations", "finalizers", "ownerReferences"] {
            let empty = |value: &Value| value.is_null() || value == &json!({}) || value == &json!([]);
            if metadata.get(field).is_some_and(empty) {
                metadata.remove(field);
            }
        }
    }

    fn check_namespace(&self, namespace: &str) -> Result<(), ApiError> {
        let subject = || crate::error::Subject {
            group: String::new(),
            kind: "namespaces".to_owned(),
            name: namespace.to_owned(),
        };
        if namespace.is_empty() {
            return Err(ApiError::BadRequest(
                "an empty namespace may not be set during creation".to_owned(),
            ));
        }
        let found = self
            .store
            .get("namespaces.", "", namespace)
            .ok_or_else(|| ApiError::NotFound(subject()))?;
        if meta::is_deleting(found) {
            let message =
                "unable to create new content in namespace because it is being terminated".to_owned();
            return Err(ApiError::Forbidden {
                subject: subject(),
                message,
            });
        }
        Ok(())
    }
}

fn shape(resource: &Resource) -> Shape<'_> {
    Shape::root(resource.schema.as_deref())
}

/// The part of an object whose changes `metadata.generation` counts.
fn content(object: &Value, resource: &Resource) -> Value {
    let mut content = object.clone();
    if let Some(fields) = content.as_object_mut() {
        fields.remove("metadata");
        if resource.has_status {
            fields.remove("status");
        }
    }
    content
}

/// Checks that the body is about the target, and fills in what it leaves out.
fn check_identity(target: &Target, body: &mut Value) -> Result<(), ApiError> {
    if !body.is_object() {
        return Err(ApiError::BadRequest("the body is not an object".to_owned()));
    }
    let wrong = |field: &str, have: &str, want: &str| {
        let field = if field == "apiVersion" {
            "API version"
        } else {
            field
        };
        ApiError::BadRequest(format!(
            "the {field} in the data ({have}) does not match the expected {field} ({want})"
        ))
    };
    for (field, want) in [
        ("apiVersion", target.resource.api_version()),
        ("kind", target.resource.kind.clone()),
    ] {
        match body[field].as_str().unwrap_or_default() {
            "" => body[field] = json!(want),
            have if have != want => return Err(wrong(field, have, &want)),
            _ => {}
        }
    }
    let metadata = meta::metadata(body);
    for (field, want) in [("name", &target.name), ("namespace", &target.namespace)] {
        match metadata.get(field).and_then(Value::as_str).unwrap_or_default() {
            have if have == want || (field == "name" && want.is_empty()) => {}
            "" => drop(metadata.insert(field.to_owned(), json!(want))),
            have if target.resource.namespaced || field == "name" => return Err(wrong(field, have, want)),
            _ => drop(metadata.remove(field)),
        }
    }
    Ok(())
}

/// Optimistic locking: the body may name the version and the uid it was made from.
fn check_current(target: &Target, live: &Value, body: &Value) -> Result<(), ApiError> {
    let conflict = |message: &str| ApiError::Conflict {
        subject: target.resource.subject(&target.name),
        message: message.to_owned(),
    };
    let (version, uid) = (meta::text(body, "resourceVersion"), meta::text(body, "uid"));
    if !uid.is_empty() && uid != meta::text(live, "uid") {
        return Err(conflict(
            "Precondition failed: UID in precondition does not match the object's",
        ));
    }
    if !version.is_empty() && version != "0" && version != meta::text(live, "resourceVersion") {
        return Err(conflict(
            "the object has been modified; please apply your changes to the latest version and try again",
        ));
    }
    Ok(())
}

/// Takes from `body` only what this path may write: the status, or everything else.
fn confine(target: &Target, live: &Value, body: Value) -> Value {
    if !target.resource.has_status {
        return body;
    }
    let (mut next, from) = if target.status {
        (live.clone(), &body)
    } else {
        (body, live)
    };
    let status = from.get("status").cloned();
    if let Some(fields) = next.as_object_mut() {
        match status {
            Some(status) if !status.is_null() => fields.insert("status".to_owned(), status),
            Some(_) | None => fields.remove("status"),
        };
    }
    next
}

/// [`confine`] for an applied configuration, which is not a whole object.
fn scope(target: &Target, mut wanted: Value) -> Value {
    let Some(fields) = wanted.as_object_mut().filter(|_| target.resource.has_status) else {
        return wanted;
    };
    if target.status {
        fields.retain(|name, _| ["apiVersion", "kind", "status"].contains(&name.as_str()));
    } else {
        fields.remove("status");
    }
    wanted
}
