//! One thing that selectors can find.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use warren_model::NodeName;

use crate::cluster::{HostEndpoint, NamedPort, NetworkSet, Pod};
use crate::labels::Labels;
use crate::query::{Members, Query};

/// A pod, host endpoint or network set.
#[derive(Clone)]
pub(crate) struct Member {
    pub(crate) what: What,
    /// Its own labels and those that tell what and where it is.
    pub(super) labels: Labels,
    /// The addresses that it has, those of networks of one among them.
    pub(crate) addresses: Vec<IpAddr>,
    /// Its networks of more than one address.
    pub(crate) nets: Vec<IpNet>,
}

/// Of what kind.
#[derive(Clone, PartialEq)]
pub(crate) enum What {
    Pod(Arc<Pod>),
    Host(HostEndpoint),
    Set(NetworkSet),
}

impl Member {
    pub(super) fn pod(pod: &Arc<Pod>) -> Self {
        let mut labels = pod.labels.clone();
        labels.set("projectcalico.org/orchestrator", "k8s");
        Self::new(
            What::Pod(Arc::clone(pod)),
            labels,
            pod.addresses.clone(),
            Vec::new(),
        )
    }

    pub(super) fn set(set: &NetworkSet) -> Self {
        let (single, nets): (Vec<IpNet>, Vec<IpNet>) = set
            .nets
            .iter()
            .copied()
            .partition(|net| net.prefix_len() == net.max_prefix_len());
        let addresses = single.iter().map(IpNet::addr).collect();
        Self::new(What::Set(set.clone()), set.labels.clone(), addresses, nets)
    }

    pub(super) fn host(host: &HostEndpoint, nodes: &BTreeMap<NodeName, Vec<IpAddr>>) -> Self {
        let addresses = host.addresses(nodes).to_vec();
        Self::new(
            What::Host(host.clone()),
            host.labels.clone(),
            addresses,
            Vec::new(),
        )
    }

    fn new(what: What, labels: Labels, addresses: Vec<IpAddr>, nets: Vec<IpNet>) -> Self {
        let mut member = Self {
            what,
            labels,
            addresses,
            nets,
        };
        if let Some(namespace) = member.namespace().map(str::to_owned) {
            member.labels.set("projectcalico.org/namespace", namespace);
        }
        member
    }

    /// The addresses that it is said to have: of a pod, another may have them.
    pub(super) fn claimed(&self) -> &[IpAddr] {
        match &self.what {
            What::Pod(pod) => &pod.addresses,
            What::Host(_) | What::Set(_) => &self.addresses,
        }
    }

    /// Gives it an address that it claims, or takes it away.
    pub(super) fn hold(&mut self, address: IpAddr, held: bool) {
        let had = std::mem::take(&mut self.addresses);
        let has = |it: &IpAddr| if *it == address { held } else { had.contains(it) };
        self.addresses = self.claimed().iter().copied().filter(has).collect();
    }

    /// The namespace it is in, if it is in one.
    pub(crate) fn namespace(&self) -> Option<&str> {
        match &self.what {
            What::Pod(pod) => Some(&pod.name.namespace),
            What::Host(_) => None,
            What::Set(set) => set.namespace.as_deref(),
        }
    }

    /// Its ports with names.
    pub(crate) fn ports(&self) -> &[NamedPort] {
        match &self.what {
            What::Pod(pod) => &pod.ports,
            What::Host(host) => &host.ports,
            What::Set(_) => &[],
        }
    }

    /// Whether a query asks for its kind and its labels; where the query looks is not asked.
    pub(super) fn suits(&self, query: &Query) -> bool {
        let among = match query.members {
            Members::Pods => matches!(self.what, What::Pod(_)),
            Members::Endpoints => !matches!(self.what, What::Set(_)),
            Members::All => true,
        };
        among && query.selector.matches(&self.labels)
    }
}
