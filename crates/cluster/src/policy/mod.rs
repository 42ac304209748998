//! Network policy in the API: its kinds, and what is read of them.
//!
//! | module | what it is about |
//! |---|---|
//! | [`resources`] | the definitions of `warren-mesh.io`'s policy kinds |
//! | [`decode`] | objects to the input of [`warren_policy::compile()`], or to what is refused and why |
//! | [`listed`] | all of it, listed once |
//! | [`watched`] | all of it, as the watches show it |

pub mod decode;
pub(crate) mod followers;
pub mod listed;
pub mod resources;
pub mod watched;

pub use listed::{Listed, list};
pub use watched::{PolicyObjects, PolicySnapshot};
