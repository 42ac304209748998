//! For tests: an API server that is a function, so that the clock can be tokio's paused one. It serves what the test
//! tells it to and records what it was asked; it has no logic of its own that a test could come to rely on.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::http::{Method, Request, Response};
use bytes::Bytes;
use kube::Client;
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc};

/// The kinds, by the path of their collection.
pub(crate) const NODES: &str = "/api/v1/nodes";
pub(crate) const PODS: &str = "/api/v1/pods";
pub(crate) const MESHES: &str = "/apis/warren-mesh.io/v1alpha1/meshes";
pub(crate) const NAMESPACES: &str = "/api/v1/namespaces";
pub(crate) const KUBERNETES_POLICIES: &str = "/apis/networking.k8s.io/v1/networkpolicies";
pub(crate) const GLOBAL_POLICIES: &str = "/apis/warren-mesh.io/v1alpha1/globalnetworkpolicies";
pub(crate) const NETWORK_SETS: &str = "/apis/warren-mesh.io/v1alpha1/networksets";
const ALL: [&str; 10] = [
    NODES,
    PODS,
    MESHES,
    NAMESPACES,
    KUBERNETES_POLICIES,
    GLOBAL_POLICIES,
    NETWORK_SETS,
    "/apis/warren-mesh.io/v1alpha1/networkpolicies",
    "/apis/warren-mesh.io/v1alpha1/globalnetworksets",
    "/apis/warren-mesh.io/v1alpha1/hostendpoints",
];

/// One request that was made.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) content_type: String,
    pub(crate) body: String,
}

impl Asked {
    /// Whether it begins a watch of that collection.
    pub(crate) fn is_watch(&self, path: &str) -> bool {
        self.path == path && self.query.contains("watch=true")
    }

    /// Whether it lists that collection.
    pub(crate) fn is_list(&self, path: &str) -> bool {
        self.method == Method::GET && self.path == path && !self.query.contains("watch=true")
    }
}

/// An answer that is not the usual one.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) body: Value,
}

/// The server; clones are the same one.
#[derive(Clone, Default)]
pub(crate) struct FakeApi {
    inner: Arc<Mutex<Inner>>,
    asked: Arc<Notify>,
}

#[derive(Default)]
struct Inner {
    collections: Vec<(&'static str, Collection)>,
    log: Vec<Asked>,
    writes: VecDeque<Answer>,
}

#[derive(Default)]
struct Collection {
    pages: Vec<Vec<Value>>,
    list_answer: Option<Answer>,
    watch_answers: VecDeque<Answer>,
    /// While set, lists of pages after the first wait for it.
    gate: Option<Arc<Notify>>,
    watchers: Vec<mpsc::UnboundedSender<io::Result<Bytes>>>,
}

/// A `Status` as the server words it.
pub(crate) fn status(code: u16, reason: &str) -> Answer {
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure",
        "code": code, "reason": reason, "message": format!("scripted {code}"),
    });
    Answer { code, body }
}

impl FakeApi {
    pub(crate) fn client(&self) -> Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let api = api.clone();
            async move { Ok::<_, Infallible>(api.answer(request).await) }
        });
        Client::new(service, "default")
    }

    /// What lists of that collection return from now on.
    pub(crate) fn holds(&self, path: &'static str, objects: &[Value]) {
        self.with(path, |it| it.pages = vec![objects.to_vec()]);
    }

    /// The same in pages, of which those after the first wait for the gate that is returned.
    pub(crate) fn holds_pages(&self, path: &'static str, pages: &[Vec<Value>]) -> Arc<Notify> {
        let gate = Arc::new(Notify::new());
        self.with(path, |it| {
            it.pages = pages.to_vec();
            it.gate = Some(Arc::clone(&gate));
        });
        gate
    }

    /// What lists are answered with instead; `None`: with objects again.
    pub(crate) fn lists_answer(&self, path: &'static str, answer: Option<Answer>) {
        self.with(path, |it| it.list_answer = answer);
    }

    /// What the next attempt to watch is answered with.
    pub(crate) fn next_watch_answers(&self, path: &'static str, answer: Answer) {
        self.with(path, |it| it.watch_answers.push_back(answer));
    }

    /// What the next PATCH, PUT or POST is answered with.
    pub(crate) fn next_write_answers(&self, answer: Answer) {
        self.inner
            .lock()
            .expect("no test panics with it")
            .writes
            .push_back(answer);
    }

    /// Sends an event to all open watches of a collection.
    pub(crate) fn event(&self, path: &'static str, kind: &str, object: &Value) {
        let line = format!("{}\n", json!({"type": kind, "object": object}));
        self.with(path, |it| {
            it.watchers
                .retain(|watcher| watcher.send(Ok(Bytes::from(line.clone()))).is_ok());
        });
    }

    /// Closes all open watches of a collection.
    pub(crate) fn cut(&self, path: &'static str) {
        self.with(path, |it| it.watchers.clear());
    }

    /// Breaks all open watches of a collection off, as a connection that is reset.
    pub(crate) fn reset(&self, path: &'static str) {
        self.with(path, |it| {
            for watcher in it.watchers.drain(..) {
                let _ = watcher.send(Err(io::ErrorKind::ConnectionReset.into()));
            }
        });
    }

    /// Everything asked so far.
    pub(crate) fn log(&self) -> Vec<Asked> {
        self.inner.lock().expect("no test panics with it").log.clone()
    }

    /// Waits until so many requests of a sort were made.
    pub(crate) async fn until_asked(&self, count: usize, sort: impl Fn(&Asked) -> bool) {
        loop {
            let asked = self.asked.notified();
            if self.log().iter().filter(|it| sort(it)).count() >= count {
                return;
            }
            asked.await;
        }
    }

    fn with<T>(&self, path: &'static str, act: impl FnOnce(&mut Collection) -> T) -> T {
        let mut inner = self.inner.lock().expect("no test panics with it");
        let index = inner.collections.iter().position(|(known, _)| *known == path);
        let index = index.unwrap_or_else(|| {
            inner.collections.push((path, Collection::default()));
            inner.collections.len() - 1
        });
        act(&mut inner.collections[index].1)
    }

    async fn answer(&self, request: Request<kube::client::Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let bytes = body.collect_bytes().await.expect("the body is in memory");
        let header = parts.headers.get("content-type").and_then(|it| it.to_str().ok());
        let asked = Asked {
            method: parts.method,
            path: parts.uri.path().to_owned(),
            query: parts.uri.query().unwrap_or_default().to_owned(),
            content_type: header.unwrap_or_default().to_owned(),
            body: String::from_utf8(bytes.to_vec()).expect("requests are text"),
        };
        let response = self.respond(&asked).await;
        self.inner.lock().expect("no test panics with it").log.push(asked);
        self.asked.notify_waiters();
        response
    }

    async fn respond(&self, asked: &Asked) -> Response<Body> {
        if [Method::PATCH, Method::PUT, Method::POST].contains(&asked.method) {
            let scripted = self
                .inner
                .lock()
                .expect("no test panics with it")
                .writes
                .pop_front();
            return respond(scripted.unwrap_or_else(|| status(500, "NothingScripted")));
        }
        let Some(path) = ALL.into_iter().find(|path| *path == asked.path) else {
            return respond(status(404, "NotFound"));
        };
        if asked.is_watch(path) {
            return self.with(path, |it| match it.watch_answers.pop_front() {
                Some(answer) => respond(answer),
                None => {
                    let (sender, receiver) = mpsc::unbounded_channel();
                    it.watchers.push(sender);
                    stream(receiver)
                }
            });
        }
        let page: usize = query(asked, "continue")
            .and_then(|it| it.parse().ok())
            .unwrap_or(0);
        let gate = self.with(path, |it| it.gate.clone());
        if let (Some(gate), true) = (gate, page > 0) {
            gate.notified().await;
        }
        self.with(path, |it| match &it.list_answer {
            Some(answer) => respond(answer.clone()),
            None => {
                let next = (page + 1 < it.pages.len()).then(|| (page + 1).to_string());
                let metadata = json!({"resourceVersion": "100", "continue": next.unwrap_or_default()});
                let items = it.pages.get(page).cloned().unwrap_or_default();
                let body = json!({"kind": "List", "apiVersion": "v1", "metadata": metadata, "items": items});
                respond(Answer { code: 200, body })
            }
        })
    }
}

fn query(asked: &Asked, name: &str) -> Option<String> {
    let mut pairs = asked.query.split('&').filter_map(|pair| pair.split_once('='));
    pairs
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value.to_owned())
}

fn respond(answer: Answer) -> Response<Body> {
    let builder = Response::builder().status(answer.code);
    builder
        .body(Body::from(answer.body.to_string()))
        .expect("the status is a number the test wrote")
}

fn stream(receiver: mpsc::UnboundedReceiver<io::Result<Bytes>>) -> Response<Body> {
    let lines = futures::stream::unfold(receiver, |mut receiver| async move {
        let line = receiver.recv().await?;
        Some((line, receiver))
    });
    Response::new(Body::from_stream(lines))
}
