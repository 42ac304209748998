//! Network policy as nodes enforce it: real pods, real TCP and UDP, held to what `verdict` says of the same objects.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod changes;
mod denied_log;
mod established;
mod guide;
mod hosts;
mod lingering;
mod outages;
mod random;
mod scene;
mod services;
mod shrink;
#[path = "../support/mod.rs"]
mod support;
mod written;
