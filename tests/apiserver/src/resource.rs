//! The kinds of objects that are served, and where a request finds them.

use std::sync::Arc;

use serde_json::Value;

use crate::error::{ApiError, Subject};
use crate::table::Column;

/// Group, version and plural name: how a client addresses a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gvr<'a> {
    /// API group, empty for the core group.
    pub group: &'a str,
    /// Version, such as `v1`.
    pub version: &'a str,
    /// Lower-case plural, such as `pods`.
    pub plural: &'a str,
}

impl<'a> Gvr<'a> {
    /// Any resource.
    #[must_use]
    pub const fn new(group: &'a str, version: &'a str, plural: &'a str) -> Self {
        Self {
            group,
            version,
            plural,
        }
    }

    /// A resource of the core group, version `v1`.
    #[must_use]
    pub const fn core(plural: &'a str) -> Self {
        Self::new("", "v1", plural)
    }
}

/// One served kind in one version.
#[derive(Debug, Clone, Default)]
pub(crate) struct Resource {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) kind: String,
    pub(crate) list_kind: String,
    pub(crate) plural: String,
    pub(crate) singular: String,
    pub(crate) short_names: Vec<String>,
    pub(crate) categories: Vec<String>,
    pub(crate) namespaced: bool,
    /// Whether status is written by a path of its own.
    pub(crate) has_status: bool,
    /// Whether `metadata.generation` counts changes of the spec.
    pub(crate) has_generation: bool,
    /// Whether strategic merge patches are understood: not for custom resources.
    pub(crate) strategic: bool,
    pub(crate) columns: Vec<Column>,
    /// OpenAPI v3 schema of a custom resource.
    pub(crate) schema: Option<Arc<Value>>,
}

impl Resource {
    /// `group/version`, or the version alone in the core group.
    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.clone()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// The key objects are stored under. Versions of one resource share it, and so do the two event APIs.
    pub(crate) fn storage(&self) -> String {
        let group = if self.group == "events.k8s.io" {
            ""
        } else {
            &self.group
        };
        format!("{}.{group}", self.plural)
    }

    pub(crate) fn subject(&self, name: &str) -> Subject {
        Subject {
            group: self.group.clone(),
            kind: self.plural.clone(),
            name: name.to_owned(),
        }
    }

    /// The subject of a validation error, which names the kind and not the resource.
    pub(crate) fn kind_subject(&self, name: &str) -> Subject {
        Subject {
            group: self.group.clone(),
            kind: self.kind.clone(),
            name: name.to_owned(),
        }
    }
}

/// All served kinds.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    resources: Vec<Arc<Resource>>,
}

impl Registry {
    pub(crate) fn new(resources: Vec<Resource>) -> Self {
        Self {
            resources: resources.into_iter().map(Arc::new).collect(),
        }
    }

    pub(crate) fn all(&self) -> &[Arc<Resource>] {
        &self.resources
    }

    pub(crate) fn find(&self, id: Gvr<'_>) -> Result<Arc<Resource>, ApiError> {
        self.resources
            .iter()
            .find(|r| r.group == id.group && r.version == id.version && r.plural == id.plural)
            .cloned()
            .ok_or(ApiError::NoSuchPath)
    }

    /// Replaces all versions of a custom resource.
    pub(crate) fn replace(&mut self, group: &str, plural: &str, versions: Vec<Resource>) {
        self.resources
            .retain(|r| !(r.group == group && r.plural == plural));
        self.resources.extend(versions.into_iter().map(Arc::new));
    }
}
