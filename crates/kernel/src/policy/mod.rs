//! Network policy as nft text: what [`warren_policy::compile()`] makes, rendered for the pods of a node.
//!
//! Pure functions so far. **Nothing installs this text**: the agent does not enforce policy yet. What is left to do beside
//! that: host endpoints, the logging of denied packets, reading back what is installed and its counters, and sweeping the table
//! away when Warren is removed.
//!
//! A transaction must fit into the send buffer of nft's socket. Root raises that as far as it needs; root of a user namespace may
//! not, and a table with 500 sets of 1,000 pods was refused there (`Message too long`).

mod elements;
mod names;
mod render;
mod rule;
mod table;

pub use render::render;
pub use table::{TABLE, Table};
