//! Network policy as nft text: what [`warren_policy::compile()`] makes, rendered for the pods of a node.
//!
//! Pure functions so far. **Nothing installs this text**: the agent does not enforce policy yet. What is left to do beside
//! that: host endpoints, the logging of denied packets, and reading back what is installed and its counters.

mod names;
mod render;
mod rule;
mod table;

pub use render::render;
pub use table::{TABLE, Table};
