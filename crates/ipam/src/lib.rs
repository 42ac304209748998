//! Which pod address is next, which are free and which leaked.
//!
//! A node hands out addresses of its own pod CIDRs only, so no two nodes ever have to agree: [`Pool`] says which
//! addresses those are, [`Allocations`] says who holds which. Both are plain values; the agent makes the
//! allocations durable before it answers with one, and rebuilds them after a restart from its file and from
//! what it finds in the pods' network namespaces ([`Allocations::reserve`]).
//!
//! Pure: no clock, randomness, file or socket. Given the same calls in the same order, the same addresses come out.

mod allocations;
mod error;
mod owner;
mod pool;

pub use allocations::Allocations;
pub use error::{AllocateError, ReserveError};
pub use owner::{Allocation, Owner};
pub use pool::{CidrUsage, Pool, PoolError};
