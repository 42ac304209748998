//! The body of a watch: one JSON line per event.

use std::sync::Arc;

use bytes::Bytes;
use futures::stream;
use http::{Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};

use super::negotiate::Form;
use super::{Body, respond};
use crate::error::ApiError;
use crate::faults::WatchEnd;
use crate::resource::Resource;
use crate::watch::{Next, Notice, Watch};

pub(crate) fn response(watch: Watch, resource: Arc<Resource>, form: Form, include: String) -> Response<Body> {
    let lines = stream::unfold(Some(watch), move |watch| {
        let (resource, include) = (Arc::clone(&resource), include.clone());
        async move {
            let mut watch = watch?;
            match watch.next().await {
                Next::Notice(notice) => {
                    let mut line = line(&notice, &resource, form, &include).to_string();
                    line.push('\n');
                    Some((Ok(Frame::data(Bytes::from(line))), Some(watch)))
                }
                Next::End(WatchEnd::Close) => None,
                // An error in the body makes hyper break the connection, which is what is asked for.
                Next::End(WatchEnd::Cut) => Some((Err(std::io::ErrorKind::ConnectionReset.into()), None)),
            }
        }
    });
    respond::with_body(
        StatusCode::OK,
        "application/json",
        BodyExt::boxed_unsync(StreamBody::new(lines)),
    )
}

/// A watch that says one ERROR and ends.
pub(crate) fn refused(error: &ApiError) -> Response<Body> {
    respond::json(
        StatusCode::OK,
        &json!({ "type": "ERROR", "object": error.status() }),
    )
}

fn line(notice: &Notice, resource: &Resource, form: Form, include: &str) -> Value {
    let (kind, object) = match notice {
        Notice::Added(object) => ("ADDED", form.object(resource, object, include)),
        Notice::Modified(object) => ("MODIFIED", form.object(resource, object, include)),
        Notice::Deleted(object) => ("DELETED", form.object(resource, object, include)),
        Notice::Bookmark { version, initial_end } => {
            ("BOOKMARK", bookmark(*version, *initial_end, resource, form))
        }
        Notice::Error(error) => ("ERROR", error.status()),
    };
    json!({ "type": kind, "object": object })
}

fn bookmark(version: u64, initial_end: bool, resource: &Resource, form: Form) -> Value {
    let mut metadata = json!({ "resourceVersion": version.to_string(), "creationTimestamp": null });
    if initial_end {
        metadata["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
    }
    let (kind, version) = match form {
        Form::Object => (resource.kind.clone(), resource.api_version()),
        Form::Metadata => ("PartialObjectMetadata".to_owned(), "meta.k8s.io/v1".to_owned()),
        Form::Table => ("Table".to_owned(), "meta.k8s.io/v1".to_owned()),
    };
    json!({ "kind": kind, "apiVersion": version, "metadata": metadata })
}
