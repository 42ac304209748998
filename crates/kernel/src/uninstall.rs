//! Removal of everything that bears our mark.

use ipnet::IpNet;

use crate::kernel::{Kernel, KernelError};
use crate::links::{self, is_ours};
use crate::{guard, policy, routes};

/// What was there and is removed, or restored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sweep {
    /// Interfaces deleted.
    pub links: Vec<String>,
    /// Prefixes whose routes of protocol 87 were deleted.
    pub routes: Vec<IpNet>,
    /// Sysctls that have their old values again, by their path below `/proc/sys/net`.
    pub sysctls: Vec<String>,
    /// Whether the nft table was there.
    pub guard: bool,
}

/// What is left of ours.
#[derive(Debug)]
pub struct Leftover {
    /// What it is, for an operator.
    pub what: String,
    /// Why.
    pub why: KernelError,
}

/// Removes routes and interfaces, restores sysctls and removes the guard, in this order, so that the guard is the last to
/// go. What cannot be removed does not keep the rest; only the guard stays with a route or an interface, because traffic
/// that should not be in the clear may come by it. Doing it again goes on with what is left, and finds nothing in the end.
pub async fn sweep(kernel: &Kernel) -> (Sweep, Vec<Leftover>) {
    let mut swept = Sweep::default();
    let mut left = Vec::new();
    sweep_routes(kernel, &mut swept, &mut left).await;
    sweep_links(kernel, &mut swept, &mut left).await;
    let carries_traffic = !left.is_empty();
    let (restored, kept) = kernel.record().restore();
    swept.sysctls = restored;
    left.extend(
        kept.into_iter()
            .map(|error| leftover("old values of sysctls", error)),
    );
    if carries_traffic {
        return (swept, left);
    }
    // Both tables stay as long as there is a pod for them.
    if let Err(error) = policy::installed::remove(&kernel.config().nft).await {
        left.push(leftover("nft table inet warren-policy", error));
    }
    match guard::remove(&kernel.config().nft).await {
        Ok(was_there) => swept.guard = was_there,
        Err(error) => left.push(leftover("nft table inet warren", error)),
    }
    (swept, left)
}

async fn sweep_routes(kernel: &Kernel, swept: &mut Sweep, left: &mut Vec<Leftover>) {
    let prefixes = match routes::prefixes(kernel.netlink()).await {
        Ok(prefixes) => prefixes,
        Err(error) => return left.push(leftover("routes", error)),
    };
    for prefix in prefixes {
        match routes::remove(kernel.netlink(), prefix).await {
            Ok(()) => swept.routes.push(prefix),
            Err(error) => left.push(leftover(&format!("route {prefix}"), error)),
        }
    }
}

async fn sweep_links(kernel: &Kernel, swept: &mut Sweep, left: &mut Vec<Leftover>) {
    let entries = match links::list(kernel.netlink()).await {
        Ok(entries) => entries,
        Err(error) => return left.push(leftover("interfaces", error)),
    };
    for entry in entries.into_iter().filter(|entry| is_ours(&entry.name)) {
        match links::remove(&entry.name).await {
            Ok(()) => swept.links.push(entry.name),
            Err(error) => left.push(leftover(&format!("interface {}", entry.name), error)),
        }
    }
}

fn leftover(what: &str, why: impl Into<KernelError>) -> Leftover {
    Leftover {
        what: what.to_owned(),
        why: why.into(),
    }
}
