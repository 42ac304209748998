//! Network policy: which traffic may pass, decided by pure functions.
//!
//! | module | what it is about |
//! |---|---|
//! | [`labels`], [`selector`] | labels, and the expressions that select by them |

pub mod labels;
pub mod selector;

pub use labels::Labels;
pub use selector::{Selector, SelectorError};
