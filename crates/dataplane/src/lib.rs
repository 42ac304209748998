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
//!
//! # Unsafe code
//!
//! It is denied but where an `expect` names the reason. Each block says why it is sound, and is run by a test.
//!
//! | where | what for | run by |
//! |---|---|---|
//! | [`tun`] | ioctl on the interface and the union in their argument; reading without waiting | `tests/device`, all of it |
//! | `udp::receive`, `udp::send`, `udp::control` | recvmmsg, sendmmsg, socket options, and the addresses and control messages that the kernel writes | `udp::tests`, and in memory alone `udp::control`'s tests |
//! | `device::turn` | the class of the scheduler that a worker is in | its tests |
//! | [`process`] | fork, before there are threads; `capset` | `tests/device`, `ending` and `citizen` |
//! | [`client`] | a child that enters its cgroup between fork and exec | the lab's suites |
//! | `main` | taking over descriptors that the program was started with | `tests/device`, `citizen` |

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
