//! The node's kernel: what it says it is, and one step at a time towards what it should be.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use futures::stream::{Stream, StreamExt as _, select};
use thiserror::Error;
use warren_model::Lane;
use warren_plan::{Action, Observed, UnderlayAddress, UnderlayRoute};
use warren_policy::Flow;

use crate::events::KernelEvent;
use crate::guard::{DropCounter, GuardError};
use crate::links::is_ours;
use crate::netlink::{Netlink, NetlinkError};
use crate::packet_log::PacketLog;
use crate::policy::{self, Written};
use crate::sysctl::{self, Record, SysctlError};
use crate::{addresses, connections, events, guard, links, neighbours, packet_log, routes, underlay};

/// What a [`Kernel`] is made from.
#[derive(Debug, Clone)]
pub struct KernelConfig {
    /// The nft program.
    pub nft: PathBuf,
    /// Where the values of sysctls before our change are kept.
    pub state_dir: PathBuf,
}

impl Default for KernelConfig {
    fn default() -> Self {
        Self {
            nft: PathBuf::from("nft"),
            state_dir: PathBuf::from("/var/lib/warren"),
        }
    }
}

/// What cannot be observed or applied.
#[derive(Debug, Error)]
pub enum KernelError {
    /// Links, addresses, routes, neighbours.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// Values below `/proc/sys/net`.
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
    /// The nft table.
    #[error(transparent)]
    Guard(#[from] GuardError),
    /// The connections that the kernel tracks.
    #[error(
        "cannot read or mark tracked connections: this takes CAP_NET_ADMIN and a kernel with nf_conntrack_netlink"
    )]
    Connections(#[source] std::io::Error),
    /// The log of denied packets.
    #[error(
        "cannot read logged packets: this takes CAP_NET_ADMIN, a kernel with nfnetlink_log, and no other reader of log group {}",
        packet_log::GROUP
    )]
    PacketLog(#[source] std::io::Error),
    /// A step about a lane came here, and whether its device is the kernel's or userspace is not known here.
    #[error("{0} is made and configured by its device, not here")]
    LaneStep(Lane),
    /// A step about an interface that does not bear our mark.
    #[error("interface {0} is not ours and stays as it is")]
    NotOurs(String),
}

impl KernelError {
    /// Whether the same may succeed later without a change elsewhere. Otherwise observe again and make a new plan.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Netlink(error) => error.is_transient(),
            Self::Sysctl(error) => error.is_transient(),
            Self::Guard(error) => error.is_transient(),
            Self::Connections(_) | Self::PacketLog(_) => true,
            Self::LaneStep(_) | Self::NotOurs(_) => false,
        }
    }
}

/// The kernel of the network namespace it was made in.
#[derive(Debug)]
pub struct Kernel {
    config: KernelConfig,
    netlink: Netlink,
    record: Record,
    guard: guard::Table,
    policy: policy::installed::Installed,
    /// Who changes rules: one at a time, or each would find the other's generation.
    turn: tokio::sync::Mutex<()>,
}

impl Kernel {
    /// Opens netlink sockets in the namespace of the calling thread; every method must be called from a thread in
    /// that same namespace. Needs a tokio runtime.
    pub fn new(config: KernelConfig) -> Result<Self, KernelError> {
        let netlink = Netlink::open()?;
        let record = Record::new(config.state_dir.clone());
        let guard = guard::Table::new(config.nft.clone())?;
        let policy = policy::installed::Installed::new(config.nft.clone())?;
        Ok(Self {
            config,
            netlink,
            record,
            guard,
            policy,
            turn: tokio::sync::Mutex::new(()),
        })
    }

    /// How the kernel says it is: everything that bears our mark, and the sysctls asked for. The lanes' WireGuard
    /// state is left empty; who made the devices knows how to read them.
    pub async fn observe(&self, sysctls: &[String]) -> Result<Observed, KernelError> {
        Ok(self.observe_with_drops(sysctls).await?.0)
    }

    /// The same with [`Self::guard_counters`], for no more work.
    pub async fn observe_with_drops(
        &self,
        sysctls: &[String],
    ) -> Result<(Observed, Vec<DropCounter>), KernelError> {
        let entries = links::list(&self.netlink).await?;
        let listed = addresses::list(&self.netlink).await?;
        let (guard, drops) = {
            let _turn = self.turn.lock().await;
            self.guard.observe().await?
        };
        let observed = Observed {
            guard: guard.fingerprint,
            open_pods: guard.pods,
            links: links::ours(&entries),
            lanes: BTreeMap::new(),
            addresses: addresses::ours(&entries, &listed),
            neighbours: neighbours::ours(&self.netlink, &entries).await?,
            fdb: neighbours::fdb(&self.netlink, &entries).await?,
            routes: routes::ours(&self.netlink, &entries).await?,
            sysctls: sysctl::read_all(sysctls)?,
        };
        Ok((observed, drops))
    }

    /// Does one step. Done already is no error. Making and configuring a lane is its device's business and refused.
    pub async fn apply(&self, action: &Action) -> Result<(), KernelError> {
        if let Some(name) = interface(action).filter(|name| !is_ours(name)) {
            return Err(KernelError::NotOurs(name.to_owned()));
        }
        let netlink = &self.netlink;
        match action {
            Action::InstallGuard(content) => {
                let _turn = self.turn.lock().await;
                return Ok(self.guard.install(content).await?);
            }
            Action::CreateLane(lane, _) | Action::ConfigureLane(lane, _) => {
                return Err(KernelError::LaneStep(*lane));
            }
            Action::SetSysctl(key, value) => return Ok(self.record.set(key, value)?),
            Action::CreateVxlan(vxlan, mtu) => links::create_vxlan(netlink, vxlan, *mtu).await,
            Action::CreateIpip(ipip, mtu) => links::create_ipip(netlink, ipip, *mtu).await,
            Action::SetMtu(link, mtu) => links::set_mtu(netlink, link, *mtu).await,
            Action::SetUp(link) => links::set_up(netlink, link).await,
            Action::AddAddress(link, address) => addresses::add(netlink, link, *address).await,
            Action::SetNeighbour(link, address, mac) => neighbours::set(netlink, link, *address, *mac).await,
            Action::SetFdb(mac, host) => neighbours::set_fdb(netlink, *mac, *host).await,
            Action::SetRoute(net, route) => routes::set(netlink, *net, route).await,
            Action::RemoveRoute(net) => routes::remove(netlink, *net).await,
            Action::RemoveFdb(mac) => neighbours::remove_fdb(netlink, *mac).await,
            Action::RemoveNeighbour(link, address) => neighbours::remove(netlink, link, *address).await,
            Action::RemoveAddress(link, address) => addresses::remove(netlink, link, *address).await,
            Action::RemoveLink(link, _) => links::remove(link).await,
        }
        .map_err(KernelError::from)
    }

    /// Whether the kernel has IPIP; the error says why not.
    pub async fn probe_ipip(&self) -> Result<(), KernelError> {
        Ok(links::probe_ipip(&self.netlink).await?)
    }

    /// Addresses of the interfaces that are not ours, not a loopback, and up.
    pub async fn underlay(&self) -> Result<Vec<UnderlayAddress>, KernelError> {
        Ok(underlay::observe(&self.netlink).await?)
    }

    /// The routes of the main table that are neither ours nor out of an interface of ours.
    pub async fn underlay_routes(&self) -> Result<Vec<UnderlayRoute>, KernelError> {
        Ok(underlay::routes(&self.netlink).await?)
    }

    /// An event for every change of interfaces, addresses and routes of ours, our own changes among them; and for every
    /// change of the guard that is not ours. The receiver coalesces, and takes them between two steps, not during one.
    pub fn events(&self) -> Result<impl Stream<Item = KernelEvent> + Send + Unpin + use<>, KernelError> {
        let network = events::subscribe()?.map(|()| KernelEvent::Network);
        let guard = self.guard.alterations()?.map(|()| KernelEvent::Guard);
        Ok(select(network, Box::pin(guard)))
    }

    /// Makes the table of network policy this, in one transaction.
    pub async fn install_policy(&self, table: policy::Table) -> Result<Written, KernelError> {
        let _turn = self.turn.lock().await;
        let (written, step) = self.policy.install(table).await?;
        if let Some((before, now)) = step {
            self.guard.passed_by(before, now);
        }
        Ok(written)
    }

    /// A tick for each change of the table of network policy that is not ours: [`Self::install_policy`] then writes all of
    /// it. To be taken by who calls that, between two calls.
    pub fn policy_alterations(&self) -> Result<impl Stream<Item = ()> + Send + Unpin + use<>, KernelError> {
        Ok(Box::pin(self.policy.alterations()?))
    }

    /// What network policy has denied, by the counter's name.
    pub async fn policy_counters(&self) -> Result<Vec<DropCounter>, KernelError> {
        Ok(self.policy.counters().await?)
    }

    /// Becomes the reader of what a table made by [`policy::render_logged`] logs.
    ///
    /// # Errors
    /// There is another reader, or the kernel cannot log: then such a table might be refused as well.
    pub async fn packet_log(&self) -> Result<PacketLog, KernelError> {
        let log = PacketLog::open().map_err(KernelError::PacketLog)?;
        guard::check_script(&self.config.nft, &packet_log::trial(), "try a rule that logs").await?;
        Ok(log)
    }

    /// Looks at all connections that the kernel tracks and cuts those that are forbidden; those that were cut and are not forbidden
    /// any longer go on. `forbidden` says nothing of one that is not ours to judge. Returns how many were cut anew.
    pub async fn cut(
        &self,
        forbidden: impl Fn(&Flow) -> Option<bool> + Send + 'static,
    ) -> Result<usize, KernelError> {
        let cut = tokio::task::spawn_blocking(move || connections::cut(&forbidden)).await;
        cut.map_err(std::io::Error::other)
            .and_then(|cut| cut)
            .map_err(KernelError::Connections)
    }

    /// All addresses of the node, whatever the interface.
    pub async fn own_addresses(&self) -> Result<Vec<IpAddr>, KernelError> {
        let listed = addresses::list(&self.netlink).await?;
        Ok(addresses::all(&listed))
    }

    /// What the guard has dropped, by reason.
    pub async fn guard_counters(&self) -> Result<Vec<DropCounter>, KernelError> {
        Ok(guard::counters(&self.config.nft).await?)
    }

    pub(crate) fn netlink(&self) -> &Netlink {
        &self.netlink
    }

    pub(crate) fn config(&self) -> &KernelConfig {
        &self.config
    }

    pub(crate) fn record(&self) -> &Record {
        &self.record
    }
}

/// The interface a step names.
fn interface(action: &Action) -> Option<&str> {
    match action {
        Action::SetMtu(link, _)
        | Action::SetUp(link)
        | Action::AddAddress(link, _)
        | Action::SetNeighbour(link, _, _)
        | Action::RemoveNeighbour(link, _)
        | Action::RemoveAddress(link, _)
        | Action::RemoveLink(link, _) => Some(link),
        Action::InstallGuard(_)
        | Action::CreateLane(..)
        | Action::CreateVxlan(..)
        | Action::CreateIpip(..)
        | Action::ConfigureLane(..)
        | Action::SetSysctl(..)
        | Action::SetFdb(..)
        | Action::SetRoute(..)
        | Action::RemoveRoute(_)
        | Action::RemoveFdb(_) => None,
    }
}
