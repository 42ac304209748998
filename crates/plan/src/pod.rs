//! What an attached pod adds to a plan. The same whether it is planned with all else, or opened by itself the moment
//! it is attached.

use ipnet::IpNet;

use crate::diff::diff;
use crate::guard::{Guard, OpenPod};
use crate::input::Attachment;
use crate::state::{Desired, Link, LinkKind, Observed, Route, RouteTarget};
use crate::step::Step;

impl Desired {
    /// Adds what one attached pod needs on the node: its veth, a route and a neighbour for each address, and its opening in
    /// the guard.
    pub fn attach(&mut self, pod: &Attachment) {
        let veth = Link {
            kind: LinkKind::Veth,
            mtu: self.pod_mtu,
            up: true,
        };
        self.links.insert(pod.interface.clone(), veth);
        for address in &pod.addresses {
            self.neighbours.insert((pod.interface.clone(), *address), pod.mac);
            let route = Route {
                target: RouteTarget::Device(pod.interface.clone()),
                // That would tie the way to the node's own pods to the lanes, which carry it.
                source: None,
                mtu: None,
            };
            self.routes.insert(IpNet::from(*address), route);
            self.guard.pods.insert(OpenPod {
                interface: pod.interface.clone(),
                address: *address,
            });
        }
    }
}

/// How pods are opened that were attached just now.
#[derive(Debug, Clone, PartialEq)]
pub struct Opening {
    /// The guard once they are open.
    pub guard: Guard,
    /// What there is to do.
    pub steps: Vec<Step>,
}

/// How pods are opened whose veths were just made, up and with this MTU, on a node where nothing else is to be done and this
/// guard is in force. A plan of the whole node finds nothing left to do for them: both are made of [`Desired::attach`] and
/// [`diff`].
pub fn open(guard: &Guard, pod_mtu: u32, pods: &[Attachment]) -> Opening {
    let mut desired = Desired {
        guard: guard.clone(),
        pod_mtu,
        ..Desired::default()
    };
    for pod in pods {
        desired.attach(pod);
    }
    let observed = Observed {
        guard: Some(guard.fingerprint()),
        open_pods: guard.pods.clone(),
        links: desired.links.clone(),
        ..Observed::default()
    };
    Opening {
        steps: diff(&desired, &observed),
        guard: desired.guard,
    }
}
