//! Requests about objects: each verb, from query and body to an answer.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode, header};
use serde_json::{Value, json};

use super::body::{decode, yaml};
use super::negotiate::Form;
use super::route::Address;
use super::{Answer, Received, identity, respond, stream};
use crate::api::Api;
use crate::delete::{DeleteOptions, Deleted};
use crate::error::ApiError;
use crate::meta;
use crate::patch::PatchKind;
use crate::resource::Gvr;
use crate::selector::Selector;
use crate::state::Target;
use crate::watch::{Start, Watch, WatchRequest};
use crate::write::WriteOptions;

pub(crate) fn answer(api: &Api, address: &Address, received: &Received) -> Answer {
    let target = target(api, address)?;
    let form = Form::accepted(&received.headers)?;
    let collection = address.name.is_empty();
    match received.method {
        Method::GET if received.query.flag("watch") => watch(api, target, form, received),
        Method::GET if collection => list(api, &target, form, received),
        Method::GET => {
            let object = api.state().get(&target)?;
            Ok(object_answer(StatusCode::OK, &target, &object, form, received))
        }
        Method::POST if collection => create(api, &target, address, form, received),
        Method::PUT if !collection => {
            let body = decode(received)?;
            identity::check_write(api.config(), &received.user, address, Some(&body))?;
            let options = options(received);
            let object = api.change(|state| state.update(&target, body, &options))?;
            Ok(object_answer(StatusCode::OK, &target, &object, form, received))
        }
        Method::PATCH if !collection => patch(api, &target, address, form, received),
        Method::DELETE if !target.status => delete(api, &target, address, form, received),
        _ => Err(ApiError::MethodNotAllowed),
    }
}

fn target(api: &Api, address: &Address) -> Result<Target, ApiError> {
    let id = Gvr::new(&address.group, &address.version, &address.plural);
    let mut target = api.state().target(id, &address.namespace, &address.name)?;
    target.status = match address.sub.as_str() {
        "" => false,
        "status" if target.resource.has_status => true,
        _ => return Err(ApiError::NoSuchPath),
    };
    let scope_fits = match (target.resource.namespaced, address.namespace.is_empty()) {
        (true, false) | (false, true) => true,
        // All namespaces at once can be listed and watched, nothing else.
        (true, true) => address.name.is_empty(),
        (false, false) => false,
    };
    if scope_fits {
        Ok(target)
    } else {
        Err(ApiError::NoSuchPath)
    }
}

fn list(api: &Api, target: &Target, form: Form, received: &Received) -> Answer {
    let selector = selector(received)?;
    let query = &received.query;
    let limit = query
        .text("limit")
        .parse()
        .ok()
        .filter(|limit: &usize| *limit > 0);
    let page = {
        let mut state = api.state();
        match query.text("continue") {
            "" => {
                let version = state.store.version();
                check_list_version(received, version)?;
                let objects = state.list(target, &selector);
                state.pages.first(objects, version, limit, !selector.is_empty())
            }
            token if version(received)?.is_none_or(|wanted| wanted == 0) => {
                state.pages.following(token, limit)?
            }
            _ => {
                return Err(ApiError::BadRequest(
                    "specifying resource version is not allowed when using continue".to_owned(),
                ));
            }
        }
    };
    let mut list = form.list(&target.resource, &page.objects, page.version, include(received));
    page.mark(&mut list);
    Ok(respond::json(StatusCode::OK, &list))
}

/// A list is always of now, so only versions that now cannot serve are refused.
fn check_list_version(received: &Received, current: u64) -> Result<(), ApiError> {
    let Some(wanted) = version(received)? else {
        return Ok(());
    };
    if wanted > current {
        return Err(ApiError::Timeout(format!(
            "Too large resource version: {wanted}, current: {current}"
        )));
    }
    if received.query.text("resourceVersionMatch") == "Exact" && wanted != current {
        return Err(ApiError::Expired(format!(
            "too old resource version: {wanted} ({current})"
        )));
    }
    Ok(())
}

fn watch(api: &Api, target: Target, form: Form, received: &Received) -> Answer {
    let query = &received.query;
    let bookmarks = query.flag("allowWatchBookmarks");
    let start = match version(received)? {
        _ if query.flag("sendInitialEvents") => {
            if query.text("resourceVersionMatch") != "NotOlderThan" {
                return Err(ApiError::BadRequest(
                    "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan".to_owned(),
                ));
            }
            Start::Initial { bookmark: bookmarks }
        }
        None | Some(0) => Start::Initial { bookmark: false },
        Some(version) => Start::After(version),
    };
    let mut selector = selector(received)?;
    if !target.name.is_empty() {
        selector.require_name(&target.name);
    }
    let timeout = query
        .text("timeoutSeconds")
        .parse()
        .ok()
        .filter(|&seconds: &u64| seconds > 0);
    let request = WatchRequest {
        resource: Arc::clone(&target.resource),
        namespace: target.namespace,
        selector,
        start,
        bookmarks,
        timeout: timeout.map_or(api.config().watch_timeout, Duration::from_secs),
    };
    let watch = Watch::start(api.clone(), request, received.ends.clone());
    Ok(stream::response(
        watch,
        target.resource,
        form,
        include(received).to_owned(),
    ))
}

fn create(api: &Api, target: &Target, address: &Address, form: Form, received: &Received) -> Answer {
    let body = decode(received)?;
    identity::check_write(api.config(), &received.user, address, Some(&body))?;
    let options = options(received);
    let object = api.change(|state| state.create(target, body, &options))?;
    Ok(object_answer(
        StatusCode::CREATED,
        target,
        &object,
        form,
        received,
    ))
}

fn patch(api: &Api, target: &Target, address: &Address, form: Form, received: &Received) -> Answer {
    identity::check_write(api.config(), &received.user, address, None)?;
    let kind = PatchKind::from_content_type(received.header(header::CONTENT_TYPE)).ok_or(
        ApiError::UnsupportedMediaType(
            "application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml",
        ),
    )?;
    let mut options = options(received);
    let patch = if kind == PatchKind::Apply {
        // Apply takes no default from the user agent: ownership has to be meant.
        received
            .query
            .text("fieldManager")
            .clone_into(&mut options.manager);
        yaml(&received.body)?
    } else {
        serde_json::from_slice(&received.body)
            .map_err(|error| ApiError::BadRequest(format!("error decoding patch: {error}")))?
    };
    let (object, created) = api.change(|state| {
        let absent = state.stored(target).is_err();
        state
            .patch(target, kind, &patch, &options)
            .map(|object| (object, absent))
    })?;
    let status = if created {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    Ok(object_answer(status, target, &object, form, received))
}

fn delete(api: &Api, target: &Target, address: &Address, form: Form, received: &Received) -> Answer {
    identity::check_write(api.config(), &received.user, address, None)?;
    let options = delete_options(received)?;
    if target.name.is_empty() {
        let selector = selector(received)?;
        let (objects, version) = api.change(|state| {
            let objects = state.delete_collection(target, &selector, &options);
            objects.map(|objects| (objects, state.store.version()))
        })?;
        let list = form.list(&target.resource, &objects, version, include(received));
        return Ok(respond::json(StatusCode::OK, &list));
    }
    match api.change(|state| state.delete(target, &options))? {
        Deleted::Marked(object) => Ok(object_answer(StatusCode::OK, target, &object, form, received)),
        // The real server returns the pod itself, and a Status for almost everything else.
        Deleted::Gone(object) if target.resource.kind == "Pod" => {
            Ok(object_answer(StatusCode::OK, target, &object, form, received))
        }
        Deleted::Gone(object) => {
            let mut details = json!({ "name": target.name, "kind": target.resource.plural, "uid": meta::text(&object, "uid") });
            if !target.resource.group.is_empty() {
                details["group"] = json!(target.resource.group);
            }
            let status = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details });
            Ok(respond::json(StatusCode::OK, &status))
        }
    }
}

fn object_answer(
    status: StatusCode,
    target: &Target,
    object: &Arc<Value>,
    form: Form,
    received: &Received,
) -> http::Response<super::Body> {
    respond::json(status, &form.object(&target.resource, object, include(received)))
}

fn selector(received: &Received) -> Result<Selector, ApiError> {
    Selector::parse(
        received.query.text("labelSelector"),
        received.query.text("fieldSelector"),
    )
}

fn include(received: &Received) -> &str {
    received.query.text("includeObject")
}

fn version(received: &Received) -> Result<Option<u64>, ApiError> {
    match received.query.text("resourceVersion") {
        "" => Ok(None),
        text => text
            .parse()
            .map(Some)
            .map_err(|_| ApiError::BadRequest(format!("invalid resource version {text:?}"))),
    }
}

fn options(received: &Received) -> WriteOptions {
    received.query.write_options(received.header(header::USER_AGENT))
}

fn delete_options(received: &Received) -> Result<DeleteOptions, ApiError> {
    let body: Value = if received.body.is_empty() {
        json!({})
    } else {
        decode(received)?
    };
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let grace = received.query.text("gracePeriodSeconds").parse().ok();
    Ok(DeleteOptions {
        uid: text(&body["preconditions"]["uid"]),
        resource_version: text(&body["preconditions"]["resourceVersion"]),
        grace: grace.or_else(|| body["gracePeriodSeconds"].as_i64()),
        dry_run: received.query.text("dryRun") == "All" || body["dryRun"] == json!(["All"]),
    })
}
