//! Which form of an object the client takes: itself, a table, or its metadata.

use std::sync::Arc;

use http::{HeaderMap, header};
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::resource::Resource;
use crate::table;

/// The form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Object,
    Table,
    Metadata,
}

impl Form {
    /// The first form in `Accept` that is served. Protobuf is not; a client that takes nothing else gets 400, as it
    /// could not read a proper 406 either.
    pub(crate) fn accepted(headers: &HeaderMap) -> Result<Self, ApiError> {
        let accept = headers
            .get(header::ACCEPT)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        if accept.trim().is_empty() {
            return Ok(Self::Object);
        }
        let found = accept.split(',').find_map(|range| {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default();
            let parameters: Vec<&str> = parts.collect();
            let form = parameters.iter().find_map(|p| p.strip_prefix("as="));
            match (kind, form) {
                ("application/json" | "application/*" | "*/*", None) => Some(Self::Object),
                ("application/json", Some("Table")) if parameters.contains(&"v=v1") => Some(Self::Table),
                ("application/json", Some("PartialObjectMetadata" | "PartialObjectMetadataList")) => {
                    Some(Self::Metadata)
                }
                _ => None,
            }
        });
        found.ok_or_else(|| {
            ApiError::BadRequest("only the following media types are accepted: application/json".to_owned())
        })
    }

    /// One object.
    pub(crate) fn object(self, resource: &Resource, object: &Arc<Value>, include: &str) -> Value {
        match self {
            Self::Object => (**object).clone(),
            Self::Metadata => table::partial(object),
            Self::Table => {
                let version = crate::meta::text(object, "resourceVersion");
                table::render(resource, std::slice::from_ref(object), version, include)
            }
        }
    }

    /// A collection at `version`.
    pub(crate) fn list(
        self,
        resource: &Resource,
        objects: &[Arc<Value>],
        version: u64,
        include: &str,
    ) -> Value {
        let version = version.to_string();
        let metadata = json!({ "resourceVersion": version });
        match self {
            Self::Table => table::render(resource, objects, &version, include),
            Self::Object => {
                let items: Vec<Value> = objects.iter().map(|object| (**object).clone()).collect();
                json!({ "kind": resource.list_kind, "apiVersion": resource.api_version(), "metadata": metadata, "items": items })
            }
            Self::Metadata => {
                let items: Vec<Value> = objects.iter().map(|object| table::partial(object)).collect();
                json!({ "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "items": items })
            }
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn the_first_served_form_wins() {
        let form = |accept: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, accept.parse().unwrap());
            Form::accepted(&headers)
        };
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(form(kubectl), Ok(Form::Table));
        assert_eq!(form("application/vnd.kubernetes.protobuf, */*"), Ok(Form::Object));
        assert_eq!(
            form("application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"),
            Ok(Form::Metadata)
        );
        assert!(form("application/vnd.kubernetes.protobuf").is_err());
    }
}
