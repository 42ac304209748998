//! Peers against each other in virtual time, and against `boringtun`.
//!
//! | module | what it is about |
//! |---|---|
//! | `end` | one end: a device with one peer, without sockets and threads |
//! | `network` | two ends and what lies between them, in virtual time |
//! | `handshakes` | how sessions come about |
//! | `rules` | the paper's rules about time, one by one |
//! | `hours` | hours of traffic over bad networks |
//! | `interop` | `boringtun` at the other end |

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod end;
mod handshakes;
mod hours;
mod interop;
mod network;
mod rules;
