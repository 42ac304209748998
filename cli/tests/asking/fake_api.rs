//! An API server that has nodes and whose node proxy answers what the test says.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::served::Served;

/// What a node's agent, or the API server in its place, answers.
pub(crate) enum Page {
    Answer(StatusCode, String),
    Never,
}

impl Page {
    pub(crate) fn json(status: u16, body: &Value) -> Self {
        Self::Answer(StatusCode::from_u16(status).unwrap(), body.to_string())
    }
}

type Agents = dyn Fn(&str, &str) -> Page + Send + Sync;

/// Runs until it is dropped.
pub(crate) struct FakeApi {
    server: Arc<Server>,
    served: Served,
}

struct Server {
    /// The nodes' names; `None`: nobody may list them.
    nodes: Option<Vec<String>>,
    agents: Box<Agents>,
    /// How many requests to agents must be under way before the first is answered.
    together: usize,
    asked: watch::Sender<usize>,
    under_way: AtomicUsize,
    most: AtomicUsize,
}

impl FakeApi {
    /// `agents` is given a node and a path such as `/status`. A node that is named with a port has its agent there.
    pub(crate) fn start(nodes: &[&str], agents: impl Fn(&str, &str) -> Page + Send + Sync + 'static) -> Self {
        Self::start_together(nodes, 1, agents)
    }

    pub(crate) fn start_together(
        nodes: &[&str],
        together: usize,
        agents: impl Fn(&str, &str) -> Page + Send + Sync + 'static,
    ) -> Self {
        let nodes = nodes.iter().map(|name| (*name).to_owned()).collect();
        Self::serve(Some(nodes), together, Box::new(agents))
    }

    pub(crate) fn start_forbidden() -> Self {
        Self::serve(None, 1, Box::new(|_, _| Page::Never))
    }

    pub(crate) fn kubeconfig(&self) -> &str {
        self.served.kubeconfig()
    }

    /// The most agents that were asked at the same time.
    pub(crate) fn most_at_once(&self) -> usize {
        self.server.most.load(Ordering::SeqCst)
    }

    fn serve(nodes: Option<Vec<String>>, together: usize, agents: Box<Agents>) -> Self {
        let server = Arc::new(Server {
            nodes,
            agents,
            together,
            asked: watch::Sender::new(0),
            under_way: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
        });
        let routes = Router::new()
            .route("/api/v1/nodes", get(list))
            .route("/api/v1/nodes/{node}/proxy/{page}", get(proxy))
            .with_state(Arc::clone(&server));
        Self {
            server,
            served: Served::start(routes),
        }
    }
}

async fn list(State(server): State<Arc<Server>>) -> Response {
    let Some(nodes) = &server.nodes else {
        let status = json!({
            "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Forbidden", "code": 403,
            "message": "nodes is forbidden",
        });
        return (StatusCode::FORBIDDEN, status.to_string()).into_response();
    };
    let announcement = json!({
        "version": 1, "settled": 1, "paths": ["wireguard"],
        "keys": [{"epoch": 1, "publicKey": super::KEY, "port": 51821}],
    });
    let node = |name: &String| {
        let name = name.split(':').next();
        json!({"metadata": {"name": name, "annotations": {"warren-mesh.io/wireguard": announcement.to_string()}}})
    };
    let items: Vec<Value> = nodes.iter().map(node).collect();
    let list =
        json!({"kind": "NodeList", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": items});
    list.to_string().into_response()
}

async fn proxy(State(server): State<Arc<Server>>, Path((node, page)): Path<(String, String)>) -> Response {
    let under_way = server.under_way.fetch_add(1, Ordering::SeqCst) + 1;
    server.most.fetch_max(under_way, Ordering::SeqCst);
    server.asked.send_modify(|asked| *asked += 1);
    let mut asked = server.asked.subscribe();
    asked.wait_for(|asked| *asked >= server.together).await.unwrap();
    let (name, port) = node.split_once(':').expect("agents are asked at their port");
    let is_there = |known: &String| match known.split_once(':') {
        Some((known, at)) => known == name && at == port,
        None => known == name && port == "9586",
    };
    let page = if server.nodes.iter().flatten().any(is_there) {
        (server.agents)(name, &format!("/{page}"))
    } else {
        Page::json(
            404,
            &json!({"kind": "Status", "message": format!("nothing at {node}"), "code": 404}),
        )
    };
    let answer = match page {
        Page::Answer(status, body) => (status, body).into_response(),
        Page::Never => std::future::pending().await,
    };
    server.under_way.fetch_sub(1, Ordering::SeqCst);
    answer
}
