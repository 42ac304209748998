//! `warren-wg`, the userspace WireGuard device, and the agent's client for it.
//!
//! The device is a process of its own, a drop-in for `wireguard-go` and `boringtun-cli`: it carries packets between a
//! TUN interface and UDP sockets, and is configured over a Unix socket with the protocol that `wg` speaks. It outlives
//! the agent. It runs on plain threads; only the client is asynchronous.
//!
//! | module | what it is about |
//! |---|---|
//! | [`arguments`] | the command line of `warren-wg` |
//! | [`device`] | a device: its peers and the way of a packet through them |
//! | [`tun`], `udp` | the interface on one side, the sockets on the other |
//! | [`noise`] | the protocol, without sockets, clocks and threads |
//! | [`peer`], `allowed_ips` | one peer; which peer an address belongs to |
//! | [`offload`] | one large frame of the interface for many packets: splitting, merging, checksums |
//! | `endpoint`, `ip` | where a peer is reached; what is read from the headers of packets |
//! | [`drops`] | why packets were not carried |
//! | [`uapi`] | the configuration protocol and its server |
//! | [`process`] | becoming a daemon, ending cleanly |
//! | [`client`] | starting, observing, changing and stopping a device from another process |

#![expect(
    unsafe_code,
    reason = "interface requests, fork and an inherited descriptor have no safe form"
)]

mod allowed_ips;
pub mod arguments;
pub mod client;
pub mod device;
pub mod drops;
mod endpoint;
mod ip;
pub mod noise;
pub mod offload;
pub mod peer;
pub mod process;
pub mod tun;
pub mod uapi;
mod udp;
