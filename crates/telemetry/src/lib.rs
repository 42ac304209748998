//! What an operator sees of a running Warren program: its logs, its metrics, whether it is alive and ready, and how
//! it ends.
//!
//! Floor 0: knows nothing of nodes, pods or keys. Every part is a value that is handed around; there is no global but
//! the log subscriber, which `tracing` makes one.
//!
//! | module | what it is about |
//! |---|---|
//! | [`logs`] | set up logging, once, at the start of a program |
//! | [`registry`] | the metrics registry each part registers its metrics in |
//! | [`readiness`] | named gates that must all be open before a program is ready |
//! | [`liveness`] | loops that must keep beating, or the program is stuck |
//! | [`drain`] | stop taking new work, finish what is in flight, within a limit |
//! | [`socket`] | a Unix socket only its owner can connect to |
//! | [`admin`] | the HTTP server that shows all of this |

pub mod admin;
pub mod drain;
pub mod liveness;
pub mod logs;
pub mod readiness;
pub mod registry;
pub mod socket;

pub use admin::{AdminConfig, AdminError, AdminServer};
pub use drain::{Drain, DrainGuard, DrainSignal, StillBusy, shutdown_signal};
pub use liveness::{Heartbeat, Liveness, Stuck};
pub use logs::{LogFormat, LogsError};
pub use readiness::{ClosedGate, Gate, Readiness};
pub use registry::{MetricDescription, MetricKind, Registry};
pub use socket::{PrivateSocket, SocketError};
