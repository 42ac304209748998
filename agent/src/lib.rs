//! The Warren node agent.
//!
//! ```text
//!  Kubernetes API --watch--> Snapshot --+
//!                                       |   +-> status, metrics, readiness, CNI configuration
//!  pods (CNI) --> attachments ----------+-> reconcile --View--+
//!                                       |   +-> publish, steward --> Kubernetes API
//!  the kernel, the devices -- observe --+
//!                   ^                   |
//!                   +------ steps ------+
//! ```
//!
//! | module | what it is about |
//! |---|---|
//! | [`config`] | flags |
//! | [`reconcile`] | the one loop: see, plan, apply |
//! | [`view`] | what a pass saw, wanted and did |
//! | [`devices`] | WireGuard devices, of the kernel or userspace |
//! | [`mtu_probe`] | finding paths that lose packets of full size |
//! | [`greet`] | causing handshakes with new peers |
//! | [`attachments`] | which pods hold which addresses, on disk |
//! | [`pods`], [`cni_server`], [`cni_conf`] | attaching pods, the socket it is asked on, and how the runtime learns of it |
//! | [`policy`] | network policy: compiled, put in force, and kept so |
//! | [`boot_guard`] | the guard a node boots with |
//! | [`opening`] | the state folder at the start, waited for if its disk takes nothing |
//! | [`endpoints`] | where peers were to be sent to, by which those that roamed are told |
//! | [`key_epochs`] | how an agent finds keys again that are kept in memory alone |
//! | [`known_keys`] | which of the keys that other nodes publish are believed |
//! | [`half_written`] | what a killed agent leaves of its files |
//! | [`rotation`] | taking the steps of a key rotation |
//! | [`publish`] | the node's annotation |
//! | [`steward`] | on the agent that is elected: the Mesh's status and Events |
//! | [`ready`], [`status`], [`metrics`] | what an operator sees |
//! | [`run()`] | all of it put together, and its end |

pub mod attachments;
pub mod boot_guard;
pub mod cni_conf;
pub mod cni_server;
pub mod config;
pub mod devices;
pub mod endpoints;
pub mod greet;
pub mod half_written;
pub mod key_epochs;
pub mod known_keys;
pub mod metrics;
pub mod mtu_probe;
pub mod opening;
pub mod pods;
pub mod policy;
pub mod publish;
pub mod ready;
pub mod reconcile;
pub mod rotation;
pub mod run;
pub mod status;
pub mod steward;
pub mod view;

pub use run::run;

/// The command line, for help and the reference documentation.
pub fn command() -> clap::Command {
    <config::Cli as clap::CommandFactory>::command()
}
