//! Removal of everything that bears our mark.

use ipnet::IpNet;

use crate::kernel::{Kernel, KernelError};
use crate::links::{self, is_ours};
use crate::{guard, routes};

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

/// Removes interfaces, routes, sysctl values and the guard, in this order, so that the guard is the last to go. Doing
/// it again finds nothing. A sweep that failed halfway may be repeated.
pub async fn sweep(kernel: &Kernel) -> Result<Sweep, KernelError> {
    let mut swept = Sweep::default();
    for prefix in routes::prefixes(kernel.netlink()).await? {
        routes::remove(kernel.netlink(), prefix).await?;
        swept.routes.push(prefix);
    }
    for entry in links::list(kernel.netlink()).await? {
        if is_ours(&entry.name) {
            links::remove(&entry.name).await?;
            swept.links.push(entry.name);
        }
    }
    swept.sysctls = kernel.record().restore()?;
    swept.guard = guard::remove(&kernel.config().nft).await?;
    Ok(swept)
}
