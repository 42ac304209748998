//! Network policy in the API: its kinds, and what is read of them.
//!
//! | module | what it is about |
//! |---|---|
//! | [`resources`] | the definitions of `warren-mesh.io`'s policy kinds |
//! | [`decode`] | objects to the input of [`warren_policy::compile()`], or to what is refused and why |
//! | [`listed`] | all of it, listed once |

pub mod decode;
pub mod listed;
pub mod resources;

pub use listed::{Listed, list};
