//! Network policy as nft text: what [`warren_policy::compile()`] makes, rendered for the pods of a node.
//!
//! A pure function so far. **Nothing installs this text**: the agent does not enforce policy yet. What is left to do beside
//! that: writing only what has changed, host endpoints, the logging of denied packets, and reading counters back.

mod render;
mod rule;

pub use render::{TABLE, render};
