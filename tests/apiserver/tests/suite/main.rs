//! The server as its users see it. One binary, so that it is linked once.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;
mod custom;
mod deletion;
mod faults;
mod http;
mod kube_rs;
mod kubectl;
mod semantics;
mod watching;
