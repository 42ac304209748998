//! A Kubernetes API server in memory, for tests: real enough for kube-rs watchers, server-side apply and stock
//! `kubectl`, and able to misbehave on request.
//!
//! ```no_run
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! use warren_testapi::{Api, Config, Gvr};
//!
//! let api = Api::new(Config::default());
//! let node = serde_json::json!({ "metadata": { "name": "a" }, "spec": { "podCIDRs": ["10.1.0.0/24"] } });
//! api.create(Gvr::core("nodes"), "", node)?;
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:8001").await?;
//! api.serve(listener).await?; // kubectl --server http://127.0.0.1:8001 get nodes
//! # Ok(()) }
//! ```
//!
//! # What differs from the real server
//! - There are no controllers: nothing is garbage collected by owner, no service gets an address, no pod is
//!   scheduled. A `CustomResourceDefinition` is established the moment it is stored, and a namespace is emptied when
//!   it is deleted.
//! - CEL rules, `pattern` and `format` in schemas are **not** evaluated; built-in kinds are hardly validated.
//! - The rest of a list that is read in parts is kept for the last 32 such lists, and not for five minutes.
//! - A watch from a version that is still to come gets 410 (an ERROR event) and not an endless wait, since it means that the client
//!   knew a former server.
//! - Answers are JSON. Request bodies in protobuf are read for the small kinds that `kubectl create` sends so
//!   (namespaces, config maps, secrets, service accounts, RBAC, reviews); others get 415.
//! - OpenAPI documents hold no schemas: `kubectl explain` has nothing to say.
//! - No authorization but the simplified NodeRestriction of [`Config::node_restriction`].
//!
//! # Faults
//! [`Faults`] makes requests fail, hang or vanish and watches break, in-process or by `curl -X PUT
//! http://HOST/warren-faults -d '{"rules":[{"verb":"watch","resource":"nodes","fault":{"error":{"code":410}}}]}'`;
//! `GET` shows the plan with its hits, `DELETE` clears it.

mod admission;
mod api;
mod builtin;
mod config;
mod convert;
mod crd;
mod delete;
mod discovery;
mod error;
mod faults;
mod http;
mod meta;
mod openapi;
mod pages;
mod patch;
mod resource;
mod rng;
mod schema;
mod selector;
mod state;
mod store;
mod table;
mod watch;
mod write;

pub use api::Api;
pub use config::{Config, User};
pub use delete::Deleted;
pub use error::{ApiError, Cause, Subject};
pub use faults::{Call, Fault, FaultPlan, Faults, Rule};
pub use patch::PatchKind;
pub use resource::Gvr;
pub use write::WriteOptions;
