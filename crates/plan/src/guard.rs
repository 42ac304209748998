//! What the fail-closed guard must hold: which pod networks may cross by which carrier, and which pods are open.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use warren_model::PathKind;
use warren_model::fnv::Fnv;

/// The content of the nft table `inet warren`. It outlives the agent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guard {
    /// This node's pod CIDRs. Traffic to and from them on this node's own veths is the pods' business.
    pub local: BTreeSet<IpNet>,
    /// Remote pod networks that only a lane may carry, in both directions. May contain `local` and networks of `clear`,
    /// which come first.
    pub sealed: BTreeSet<IpNet>,
    /// Remote pod CIDRs that may cross in the clear, and how: because the Mesh allows it, or for as long as a hand-over
    /// needs it. One that is in `sealed` too is on its way into the lanes.
    #[serde(default)]
    pub clear: BTreeMap<IpNet, Clear>,
    /// The pods: which address may be used on which veth. All else on a `wrn*` interface is dropped.
    pub pods: BTreeSet<OpenPod>,
    /// Sources to masquerade when they leave the pod network; empty: none.
    pub masquerade: BTreeSet<IpNet>,
    /// The pod network of the whole cluster, to which nothing is masqueraded.
    pub pod_networks: BTreeSet<IpNet>,
}

/// How one pod network may cross in the clear. The lanes may carry it as well.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clear {
    /// What comes from it may come by these.
    pub incoming: BTreeSet<Carrier>,
    /// What goes to it may leave by these.
    pub outgoing: BTreeSet<Carrier>,
}

impl Clear {
    /// Both ways by one carrier.
    pub fn by(carrier: Carrier) -> Self {
        Self {
            incoming: [carrier].into(),
            outgoing: [carrier].into(),
        }
    }

    /// Whether nothing may cross.
    pub fn is_empty(&self) -> bool {
        self.incoming.is_empty() && self.outgoing.is_empty()
    }

    /// Whether this carrier may take anything, in either direction.
    pub fn has(&self, carrier: Carrier) -> bool {
        self.incoming.contains(&carrier) || self.outgoing.contains(&carrier)
    }
}

/// What may carry pod packets in the clear.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Carrier {
    /// The interface `warren-vx`.
    Vxlan,
    /// The interface `warren-ipip`.
    Ipip,
    /// Any other interface: plain routes.
    Direct,
}

impl Carrier {
    /// What carries a kind of path; `None` for WireGuard, which is not in the clear.
    pub fn of(kind: PathKind) -> Option<Self> {
        match kind {
            PathKind::Vxlan => Some(Self::Vxlan),
            PathKind::Ipip => Some(Self::Ipip),
            PathKind::Direct => Some(Self::Direct),
            PathKind::Wireguard => None,
        }
    }
}

/// One pod address and the veth it belongs to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct OpenPod {
    /// Host side of its veth.
    pub interface: String,
    /// The address.
    pub address: IpAddr,
}

/// Raised whenever the same [`Guard`] is rendered to other rules, so that an upgraded agent installs them.
const RULES_VERSION: u32 = 6;

impl Guard {
    /// A number that stands for exactly this content but for the pods (FNV-1a, 64 bits, of its text). It is kept in the
    /// table itself, so that what is installed can be compared without reading thousands of elements back. Which pods are
    /// open is read back, because each pod that comes or goes would otherwise mean another table.
    pub fn fingerprint(&self) -> u64 {
        struct Text(Fnv);
        impl fmt::Write for Text {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                self.0.update(text);
                Ok(())
            }
        }
        // Taken apart, so that a new field is not forgotten.
        let Self {
            local,
            sealed,
            clear,
            pods: _,
            masquerade,
            pod_networks,
        } = self;
        let rules = (local, sealed, clear, masquerade, pod_networks);
        let mut hashed = Text(Fnv::new());
        let written = fmt::write(&mut hashed, format_args!("{RULES_VERSION} {rules:?}"));
        debug_assert!(written.is_ok(), "hashing cannot fail");
        hashed.0.finish()
    }
}
