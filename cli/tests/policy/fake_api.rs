//! An API server that has the objects that a test gives it, and knows no other kinds than theirs.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::served::Served;

/// Answers by path: a list's items, or an object.
type Answers = BTreeMap<String, Value>;

/// Runs until it is dropped.
pub(crate) struct FakeApi(Served);

impl FakeApi {
    /// `objects` by the path of their list; a `Mesh` has a path of its own.
    pub(crate) fn start(lists: &[(&str, Vec<Value>)], mesh: Option<Value>) -> Self {
        let mut answers = Answers::new();
        for (path, items) in lists {
            let list = json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": items});
            answers.insert((*path).to_owned(), list);
        }
        if let Some(mesh) = mesh {
            answers.insert("/apis/warren-mesh.io/v1alpha1/meshes/default".to_owned(), mesh);
        }
        let routes = Router::new().fallback(answer).with_state(Arc::new(answers));
        Self(Served::start(routes))
    }

    pub(crate) fn kubeconfig(&self) -> &str {
        self.0.kubeconfig()
    }
}

async fn answer(State(answers): State<Arc<Answers>>, uri: Uri) -> Response {
    match answers.get(uri.path()) {
        Some(answer) => answer.to_string().into_response(),
        None => {
            let status = json!({
                "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404,
                "message": "the server could not find the requested resource",
            });
            (StatusCode::NOT_FOUND, status.to_string()).into_response()
        }
    }
}
