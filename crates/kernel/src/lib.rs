//! Everything Warren asks of the kernel: links, addresses, routes, neighbours, sysctls, network namespaces, kernel
//! WireGuard, the nft tables, connections that are tracked.
//!
//! Floor 3 and thin: what should be is decided by `warren-plan`; here it is observed and one step at a time is applied.
//! Only what bears Warren's mark is seen or touched: our interface names, route protocol 87 and the tables `inet warren` and `inet warren-policy`.
//!
//! | module | what it is about |
//! |---|---|
//! | [`kernel`] | [`Kernel`]: observe, apply one action, watch for changes |
//! | [`links`], [`addresses`], [`routes`], [`neighbours`] | rtnetlink, one kind of object each |
//! | [`sysctl`] | values below `/proc/sys/net`, and the record of what they were before us |
//! | [`guard`] | the fail-closed nft table, and who else changes it |
//! | [`policy`] | network policy as an nft table, kept in force |
//! | [`packet_log`] | the packets that rules log |
//! | [`connections`] | what the kernel tracks, and what policy forbids of it |
//! | [`underlay`] | addresses of interfaces that are not ours, and others' routes |
//! | [`echo`] | ICMP echo of a given size to many addresses at once |
//! | [`events`] | an event for every change that may matter |
//! | [`netns`] | entering network namespaces |
//! | [`veth`] | a pod's link to its node |
//! | [`wireguard`] | the kernel's own WireGuard, through generic netlink |
//! | [`uninstall`] | removal of everything that bears our mark |
//! | [`netlink`] | one socket, requests in turn; `direct`: one without a runtime |

#![expect(
    unsafe_code,
    reason = "handing a netlink socket to the runtime, one of another network namespace too, takes its raw descriptor"
)]

pub mod addresses;
pub mod connections;
mod direct;
pub mod echo;
pub mod events;
mod family;
pub mod guard;
pub mod kernel;
pub mod links;
mod membership;
pub mod neighbours;
pub mod netlink;
pub mod netns;
pub mod packet_log;
pub mod policy;
pub mod routes;
pub mod sysctl;
pub mod underlay;
pub mod uninstall;
pub mod veth;
pub mod wireguard;

pub use events::KernelEvent;
pub use guard::{DropCounter, GuardError};
pub use kernel::{Kernel, KernelConfig, KernelError};
pub use netlink::NetlinkError;
pub use netns::{Namespace, NamespaceError, in_namespace};
pub use packet_log::{LoggedPacket, PacketLog};
pub use sysctl::SysctlError;
pub use uninstall::{Leftover, Sweep};
pub use veth::{Difference, PodLink, VethError};
pub use wireguard::{KernelWireguard, WireguardError};
