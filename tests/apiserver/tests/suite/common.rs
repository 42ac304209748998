//! A served API and a kube client for it.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use warren_testapi::{Api, Config, Gvr};

/// How long a test waits for what should take milliseconds.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) const NODES: Gvr<'_> = Gvr::core("nodes");
pub(crate) const PODS: Gvr<'_> = Gvr::core("pods");
pub(crate) const CONFIG_MAPS: Gvr<'_> = Gvr::core("configmaps");
pub(crate) const CRDS: Gvr<'_> = Gvr::new("apiextensions.k8s.io", "v1", "customresourcedefinitions");
pub(crate) const MESHES: Gvr<'_> = Gvr::new("warren-mesh.io", "v1alpha1", "meshes");

/// An API that is served until this is dropped.
pub(crate) struct Served {
    pub(crate) api: Api,
    pub(crate) address: SocketAddr,
    task: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(crate) async fn serve(config: Config) -> Served {
    let api = Api::new(config);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = api.clone();
    Served {
        api,
        address,
        task: tokio::spawn(async move { server.serve(listener).await }),
    }
}

impl Served {
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn client(&self) -> kube::Client {
        kube::Client::try_from(kube::Config::new(self.url().parse().unwrap())).unwrap()
    }

    /// One request with a connection of its own: code, headers and body.
    pub(crate) async fn raw(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Result<Reply, std::io::Error> {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = tokio::net::TcpStream::connect(self.address).await?;
        let extra: String = headers
            .iter()
            .map(|(name, value)| format!("{name}: {value}\r\n"))
            .collect();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n{extra}\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await??;
        let text = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = text
            .split_once("\r\n\r\n")
            .ok_or(std::io::ErrorKind::UnexpectedEof)?;
        let code = head
            .split(' ')
            .nth(1)
            .and_then(|code| code.parse().ok())
            .ok_or(std::io::ErrorKind::InvalidData)?;
        Ok(Reply {
            code,
            head: head.to_lowercase(),
            body: body.to_owned(),
        })
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.raw("GET", path, &[], "").await.unwrap()
    }

    pub(crate) async fn send(&self, method: &str, path: &str, content_type: &str, body: &Value) -> Reply {
        self.raw(method, path, &[("Content-Type", content_type)], &body.to_string())
            .await
            .unwrap()
    }

    /// The lines of a watch that ends by itself.
    pub(crate) async fn watch_lines(&self, path: &str) -> Vec<Value> {
        let reply = self.get(path).await;
        assert_eq!(reply.code, 200, "{}", reply.body);
        reply.lines()
    }
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) code: u16,
    /// Status line and headers in lower case.
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {}", self.body))
    }

    /// JSON lines of a chunked body. The server sends a line per chunk, so that sizes and lines alternate.
    pub(crate) fn lines(&self) -> Vec<Value> {
        self.body
            .lines()
            .filter(|line| line.starts_with('{'))
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

pub(crate) fn node(name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": name }, "spec": { "podCIDRs": ["10.1.0.0/24"] } })
}

pub(crate) fn pod(name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "namespace": "default" },
        "spec": { "containers": [{ "name": "c", "image": "i" }] } })
}

pub(crate) fn mesh_crd() -> Value {
    json!({ "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": "meshes.warren-mesh.io" },
        "spec": { "group": "warren-mesh.io", "scope": "Cluster",
            "names": { "plural": "meshes", "kind": "Mesh", "shortNames": ["msh"] },
            "versions": [{ "name": "v1alpha1", "served": true, "storage": true, "subresources": { "status": {} },
                "additionalPrinterColumns": [
                    { "name": "Encryption", "type": "string", "jsonPath": ".spec.encryption" },
                    { "name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status" }],
                "schema": { "openAPIV3Schema": { "type": "object", "properties": {
                    "spec": { "type": "object", "default": {}, "properties": {
                        "encryption": { "type": "string", "enum": ["wireguard", "none"], "default": "wireguard" },
                        "mtu": { "type": "integer", "minimum": 0, "maximum": 9000 } } },
                    "status": { "type": "object", "properties": {
                        "epoch": { "type": "integer" },
                        "conditions": { "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"],
                            "items": { "type": "object", "required": ["type"], "properties": {
                                "type": { "type": "string" }, "status": { "type": "string" } } } } } } } } } }] } })
}

pub(crate) fn mesh() -> Value {
    json!({ "apiVersion": "warren-mesh.io/v1alpha1", "kind": "Mesh", "metadata": { "name": "default" }, "spec": {} })
}
