//! The node's WireGuard keys: made, kept on disk, carried through epochs and destroyed.
//!
//! A private key never leaves its node. Here that means: files only the agent's user can read, memory that is
//! overwritten when it is freed, no way to print, copy or serialise a key, and no core dump that could hold one.
//!
//! | module | what it is about |
//! |---|---|
//! | [`store`] | the keys of all epochs on this node, in memory and on disk |
//! | [`rotation`] | when a node makes the next key, has settled in it, and destroys the one before; pure |
//! | [`trust`] | which of the keys that other nodes publish are believed; pure |
//! | `directory` | the directory and the key files in it: durable, exclusive, private |
//! | [`error`] | what can be wrong with it, and the remedy |
//! | [`core_dumps`] | keep a process that holds keys from being dumped |
//!
//! All of it blocks on the disk, with an fsync for each change: call it from a thread that may wait.

pub mod core_dumps;
mod directory;
pub mod error;
pub mod rotation;
pub mod store;
pub mod trust;

pub use core_dumps::{CoreDumps, forbid_core_dumps};
pub use error::KeyStoreError;
pub use store::KeyStore;
