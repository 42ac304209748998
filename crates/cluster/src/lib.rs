//! Kubernetes: what Warren reads from the API, and the little it writes.
//!
//! Floor 3; imports only the model and policy. Text and JSON become values of the model in here, and what cannot becomes a
//! [`warren_model::Refusal`] that names the object and the remedy; it stops nothing else.
//!
//! | module | what it is about |
//! |---|---|
//! | [`client`], [`connection`] | how the API server is reached, and how it shows that it no longer is |
//! | [`watch`], `follower`, [`snapshot`], [`watch_health`] | the cluster as it is now, kept up to date by one watch a kind |
//! | [`contents`], [`backoff`] | their pure halves: objects from events, and how long to wait |
//! | [`decode`] | Node and Pod to the model |
//! | [`mesh_resource`], [`mesh_decode`], [`mesh_in_force`] | the Mesh: its definition, its decoding, which one holds |
//! | [`policy`] | network policy: its kinds and their decoding |
//! | [`publish`] | the own node's annotation |
//! | [`mesh_status`] | what the Mesh's status says, and the write |
//! | [`schedule`] | rotations of keys by schedule, as that status has them |
//! | [`election`], [`lease`] | which agent reports for the mesh: the decisions, and the Lease they are about |
//! | [`events`], [`pace`] | refusals as Kubernetes Events, and how many |
//! | [`write`](mod@write), [`api_error`] | what can go wrong with a write, and what the server meant |

pub mod api_error;
pub mod backoff;
pub mod client;
pub mod connection;
pub mod contents;
pub mod decode;
pub mod election;
pub mod events;
#[cfg(test)]
mod fake_api;
mod follower;
pub mod lease;
pub mod mesh_decode;
pub mod mesh_in_force;
pub mod mesh_resource;
pub mod mesh_status;
pub mod pace;
pub mod policy;
pub mod publish;
pub mod schedule;
pub mod snapshot;
pub mod watch;
pub mod watch_health;
mod watched;
pub mod write;

pub use client::{ClientConfig, ClientError};
pub use mesh_resource::crds;
pub use policy::{PolicyObjects, PolicySnapshot};
pub use snapshot::{ObservedMesh, Snapshot, Synced};
pub use watch::{HealthReader, Watches};
pub use watch_health::{WatchHealth, WatchKind};
pub use write::{Retry, WriteError};
