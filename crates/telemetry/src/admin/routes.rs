//! What the admin server answers to which path.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};

use super::REQUEST_TIMEOUT;
use crate::liveness::Liveness;
use crate::readiness::Readiness;
use crate::registry::{self, Registry};

const BUILT_IN: [&str; 3] = ["/healthz", "/metrics", "/readyz"];
const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

type Answer = Pin<Box<dyn Future<Output = Result<Value, String>> + Send>>;

/// The pages of an admin server.
pub(super) struct Routes {
    metrics: Arc<Registry>,
    liveness: Liveness,
    readiness: Readiness,
    pages: BTreeMap<&'static str, Box<dyn Fn() -> Answer + Send + Sync>>,
}

impl Routes {
    pub(super) fn new(metrics: Arc<Registry>, liveness: Liveness, readiness: Readiness) -> Self {
        Self {
            metrics,
            liveness,
            readiness,
            pages: BTreeMap::new(),
        }
    }

    pub(super) fn add<H, F>(&mut self, path: &'static str, handler: H)
    where
        H: Fn() -> F + Send + Sync + 'static,
        F: Future<Output = Result<Value, String>> + Send + 'static,
    {
        assert!(path.starts_with('/'), "the path {path:?} does not begin with /");
        assert!(
            !self.paths().contains(&path),
            "the path {path:?} has a handler already"
        );
        self.pages.insert(path, Box::new(move || Box::pin(handler())));
    }

    pub(super) async fn answer<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        if request.method() != Method::GET {
            let mut refusal = response(
                StatusCode::METHOD_NOT_ALLOWED,
                TEXT,
                "only GET is answered here\n",
            );
            refusal
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static("GET"));
            return refusal;
        }
        match request.uri().path() {
            "/metrics" => self.metrics(),
            "/healthz" => health(self.liveness.report(), "stuck"),
            "/readyz" => health(self.readiness.report(), "not ready"),
            path => match self.pages.get(path) {
                Some(handler) => page(path, handler()).await,
                None => {
                    let known = self.paths().join("\n");
                    let text = format!("nothing at {path}; what there is:\n{known}\n");
                    response(StatusCode::NOT_FOUND, TEXT, text)
                }
            },
        }
    }

    fn metrics(&self) -> Response<Full<Bytes>> {
        match self.metrics.encode() {
            Ok(text) => response(StatusCode::OK, registry::CONTENT_TYPE, text),
            Err(error) => {
                let text = format!("cannot encode the metrics: {error}\n");
                response(StatusCode::INTERNAL_SERVER_ERROR, TEXT, text)
            }
        }
    }

    fn paths(&self) -> Vec<&'static str> {
        let mut paths: Vec<_> = BUILT_IN.into_iter().chain(self.pages.keys().copied()).collect();
        paths.sort_unstable();
        paths
    }
}

impl fmt::Debug for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Routes")
            .field("paths", &self.paths())
            .finish_non_exhaustive()
    }
}

/// 200 and "ok", or 503 and what is amiss, one a line.
fn health<T: fmt::Display>(report: Result<(), Vec<T>>, otherwise: &str) -> Response<Full<Bytes>> {
    match report {
        Ok(()) => response(StatusCode::OK, TEXT, "ok\n"),
        Err(amiss) => {
            let lines: String = amiss.iter().map(|each| format!("{each}\n")).collect();
            response(
                StatusCode::SERVICE_UNAVAILABLE,
                TEXT,
                format!("{otherwise}\n{lines}"),
            )
        }
    }
}

async fn page(path: &str, answer: Answer) -> Response<Full<Bytes>> {
    let (status, value) = match tokio::time::timeout(REQUEST_TIMEOUT, answer).await {
        Ok(Ok(value)) => (StatusCode::OK, value),
        Ok(Err(error)) => (StatusCode::INTERNAL_SERVER_ERROR, json!({ "error": error })),
        Err(_) => {
            let error = format!("{path} took longer than {} s", REQUEST_TIMEOUT.as_secs());
            (StatusCode::GATEWAY_TIMEOUT, json!({ "error": error }))
        }
    };
    response(status, JSON, format!("{value:#}\n"))
}

fn response(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
