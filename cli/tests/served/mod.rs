//! What stands for an API server, on loopback, and the kubeconfig that leads there.

#![allow(dead_code, reason = "each suite uses a part")]

use std::future::IntoFuture;
use std::net::SocketAddr;

use axum::Router;
use serde_json::{Value, json};
use tempfile::NamedTempFile;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

/// Answers until it is dropped.
pub(crate) struct Served {
    kubeconfig: NamedTempFile,
    _runtime: Runtime,
}

impl Served {
    /// Answers by these routes.
    pub(crate) fn start(routes: Router) -> Self {
        let runtime = Runtime::new().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let kubeconfig = NamedTempFile::new().unwrap();
        let config = kubeconfig_to(listener.local_addr().unwrap());
        std::fs::write(kubeconfig.path(), config.to_string()).unwrap();
        runtime.spawn(axum::serve(listener, routes).into_future());
        Self {
            kubeconfig,
            _runtime: runtime,
        }
    }

    pub(crate) fn kubeconfig(&self) -> &str {
        self.kubeconfig.path().to_str().unwrap()
    }
}

/// What leads to a server at this address.
pub(crate) fn kubeconfig_to(address: SocketAddr) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "fake",
        "clusters": [{"name": "fake", "cluster": {"server": format!("http://{address}")}}],
        "users": [{"name": "fake", "user": {"token": "fake"}}],
        "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake"}}],
    })
}
