//! Pods, peers and ports on the command line.

use std::net::IpAddr;
use std::str::FromStr;

use warren_model::PodName;
use warren_policy::{Peer, Protocol};

/// A pod: `NAMESPACE/NAME`, or `NAME` in the namespace that another argument says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PodArgument {
    namespace: Option<String>,
    name: String,
}

impl PodArgument {
    /// The pod that is meant.
    pub(crate) fn in_namespace(&self, default: &str) -> PodName {
        PodName {
            namespace: self.namespace.as_deref().unwrap_or(default).to_owned(),
            name: self.name.clone(),
        }
    }
}

impl FromStr for PodArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (namespace, name) = match text.split_once('/') {
            Some((namespace, name)) => (Some(namespace), name),
            None => (None, text),
        };
        if name.is_empty() || name.contains('/') || namespace.is_some_and(str::is_empty) {
            return Err("a pod is given as NAMESPACE/NAME or as NAME".to_owned());
        }
        Ok(Self {
            namespace: namespace.map(str::to_owned),
            name: name.to_owned(),
        })
    }
}

/// One side of a connection: a pod or an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PeerArgument {
    /// A pod.
    Pod(PodArgument),
    /// An address.
    Address(IpAddr),
}

impl PeerArgument {
    /// The one that is meant.
    pub(crate) fn in_namespace(&self, default: &str) -> Peer {
        match self {
            Self::Pod(pod) => Peer::Pod(pod.in_namespace(default)),
            Self::Address(address) => Peer::Address(*address),
        }
    }
}

impl FromStr for PeerArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse() {
            Ok(address) => Ok(Self::Address(address)),
            Err(_) => text.parse().map(Self::Pod),
        }
    }
}

/// A protocol and a port: `tcp/80`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PortArgument {
    /// A protocol that has ports.
    pub(crate) protocol: Protocol,
    /// The port.
    pub(crate) port: u16,
}

impl FromStr for PortArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let read = || {
            let (protocol, port) = text.split_once('/')?;
            let protocols = [
                ("tcp", Protocol::TCP),
                ("udp", Protocol::UDP),
                ("sctp", Protocol::SCTP),
            ];
            let known = protocols
                .iter()
                .find(|(name, _)| protocol.eq_ignore_ascii_case(name));
            Some(Self {
                protocol: known?.1,
                port: port.parse().ok().filter(|port| *port != 0)?,
            })
        };
        read().ok_or_else(|| "a port is given as tcp/80, udp/53 or sctp/9999".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_have_a_namespace_or_get_one() {
        let pod = |text: &str| {
            text.parse()
                .map(|pod: PodArgument| pod.in_namespace("here").to_string())
        };
        assert_eq!(pod("web"), Ok("here/web".to_owned()));
        assert_eq!(pod("shop/web"), Ok("shop/web".to_owned()));
        for wrong in ["", "/", "shop/", "/web", "shop/web/1"] {
            assert!(pod(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn what_is_an_address_is_one() {
        let peer = |text: &str| {
            text.parse()
                .map(|peer: PeerArgument| peer.in_namespace("here").to_string())
        };
        assert_eq!(peer("10.0.0.1"), Ok("10.0.0.1".to_owned()));
        assert_eq!(peer("fd00::1"), Ok("fd00::1".to_owned()));
        assert_eq!(peer("here/10.0.0.1"), Ok("pod here/10.0.0.1".to_owned()));
    }

    #[test]
    fn ports_have_a_protocol_that_has_ports() {
        let port = |text: &str| text.parse().map(|it: PortArgument| (it.protocol, it.port));
        assert_eq!(port("tcp/80"), Ok((Protocol::TCP, 80)));
        assert_eq!(port("UDP/53"), Ok((Protocol::UDP, 53)));
        for wrong in ["80", "tcp", "tcp/", "tcp/0", "tcp/65536", "icmp/8", "tcp/http"] {
            assert!(port(wrong).is_err(), "{wrong:?}");
        }
    }
}
