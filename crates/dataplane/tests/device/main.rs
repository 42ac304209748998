//! `warren-wg` as a whole: real processes, interfaces and packets, in network namespaces made for each test.
//!
//! They need either root or user namespaces, and `ip`, `nsenter`, `unshare`, `wg`, `tcpdump` and `ping`. Without them a test says
//! what is missing and does nothing; with `WARREN_REQUIRE=all` it fails.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]
#![expect(
    clippy::print_stdout,
    reason = "a copy of the program inside a node speaks to the one outside"
)]

mod capture;
mod citizen;
mod client;
mod configuration;
mod ending;
mod flood;
mod interop;
mod load;
mod nodes;
mod others;
mod outer;
mod partners;
mod paths;
mod protocol;
mod quick;
mod roaming;
mod soak;
mod streams;
mod traffic;
