//! Kubernetes: watches, decoding, the Mesh resource and publishing.
pub mod backoff;
pub mod contents;
pub mod decode;
pub mod mesh_decode;
pub mod mesh_in_force;
pub mod mesh_resource;
pub mod snapshot;
