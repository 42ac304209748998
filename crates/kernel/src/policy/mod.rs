//! Network policy: what [`warren_policy::compile()`] makes, rendered for a node as the nft table `inet warren-policy`, and kept in
//! force. It outlives the agent.
//!
//! | module | what it is about |
//! |---|---|
//! | `table`, `elements` | a table as a value, its text, and the text that makes it of another |
//! | `render`, `stage`, `rule`, `dispatch`, `names`, `parts` | a rule set to such a table |
//! | `installed` | the table in the kernel |
//!
//! A transaction must fit into the send buffer of nft's socket. Root raises that as far as it needs; root of a user namespace may
//! not, and a table with 500 sets of 1,000 pods was refused there (`Message too long`).

mod dispatch;
mod elements;
pub(crate) mod installed;
mod names;
mod parts;
mod render;
mod rule;
mod stage;
mod table;

pub use dispatch::CUT_MARK;
pub use installed::Written;
pub use render::{render, render_logged};
pub use table::{CUT, Ruling, TABLE, Table, UNKNOWN_POD};
