//! A Kubernetes cluster on one machine, for tests and for people: each node a set of namespaces with a real
//! `warren-agent`, pods attached through the real `warren-cni`, real packets on an underlay of one or more subnets, and
//! a capture of everything that nodes put on that underlay.
//!
//! ```no_run
//! # async fn run() -> anyhow::Result<()> {
//! use warren_lab::{Lab, LabOptions, Place, PodOptions};
//!
//! let lab = Lab::up(LabOptions { nodes: 2, ..LabOptions::default() }).await?;
//! lab.pod_add(PodOptions::new("a", "node1")).await?;
//! let b = lab.pod_add(PodOptions::new("b", "node2")).await?;
//! let ping = lab.run(Place::Pod("a".into()), &["ping", "-c", "1", &b.addresses[0]]).await?;
//! assert!(ping.success());
//! assert_eq!(lab.counts().await?.plaintext, 0);
//! # Ok(()) }
//! ```
//!
//! # What is in a lab
//! A *keeper* process ([`keep`]) enters namespaces of its own, without root in a user namespace too. There it makes the
//! underlay: a bridge for each subnet and a router between them, which is also where the API runs. All processes of a
//! lab are in its PID namespace: when the keeper ends, however it ends, the kernel removes everything.
//!
//! | | IPv4 | IPv6 |
//! |---|---|---|
//! | router in subnet S | 10.211.S.1 | fd00:211:S::1 |
//! | node N | 10.211.S.(10+N) | fd00:211:S::(10+N) |
//! | pods of node N | 10.244.N.0/24 | fd00:10:244:N::/64 |

mod api;
mod binaries;
mod capture;
mod cni;
mod control;
pub mod demo;
mod dir;
mod facts;
mod keeper;
pub mod knock;
mod lab;
mod layout;
mod namespaces;
mod options;
mod pod;
pub mod reach;
pub mod rotation;
mod serve;
pub mod shell;
pub mod switch;
mod tally;
pub mod turns;
mod underlay;

pub use capture::Counts;
pub use cni::CniCommand;
pub use control::{Output, Place};
pub use facts::{Facts, NodeFacts, PodFacts};
pub use keeper::{hold, keep, probe};
pub use lab::{Lab, down, obstacle};
pub use layout::{Families, MAX_NODES, POD_NETWORK_V4, POD_NETWORK_V6};
pub use options::{ApiKind, LabOptions};
pub use pod::{PodKey, PodOptions, Port, Protocol};
pub use serve::serve;
pub use tally::{Stream, Tally, send_and_answer, tally_during};
