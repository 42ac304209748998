//! Pods: what people ask for, and what a node makes of it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::process::Child;

use crate::namespaces::Namespaces;

/// A pod's name in the API.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PodKey {
    /// Its namespace.
    pub namespace: String,
    /// Its name there.
    pub name: String,
}

impl PodKey {
    /// A pod of namespace `namespace`.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl From<&str> for PodKey {
    /// A pod of namespace `default`.
    fn from(name: &str) -> Self {
        Self::new("default", name)
    }
}

impl fmt::Display for PodKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A pod to make.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PodOptions {
    /// Its name.
    #[serde(flatten)]
    pub key: PodKey,
    /// The node it runs on.
    pub node: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// What it listens on. Each port answers every line or datagram with the pod's name and what it got.
    pub ports: Vec<Port>,
}

impl PodOptions {
    /// A pod without labels and ports.
    pub fn new(key: impl Into<PodKey>, node: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            node: node.into(),
            labels: BTreeMap::new(),
            ports: Vec::new(),
        }
    }
}

/// A container port: `tcp:80`, `tcp:80=web`, or `tcp:80:8080=web` with 8080 on the node leading to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// Its protocol.
    pub protocol: Protocol,
    /// Its number in the pod.
    pub port: u16,
    /// Its number on the node, by the CNI plugin `portmap`.
    pub host_port: Option<u16>,
    /// Its name, for services and policies.
    pub name: Option<String>,
}

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP, one association a socket.
    Sctp,
}

impl Protocol {
    /// As the API writes it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        }
    }
}

impl FromStr for Port {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (numbers, name) = match text.split_once('=') {
            Some((numbers, name)) => (numbers, Some(name.to_owned())),
            None => (text, None),
        };
        let (protocol, numbers) = numbers
            .split_once(':')
            .with_context(|| format!("{text:?} is no port: write tcp:80 or udp:53=dns"))?;
        let protocol = match protocol.to_ascii_lowercase().as_str() {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            "sctp" => Protocol::Sctp,
            other => bail!("{other:?} is no protocol of a pod's port: tcp, udp or sctp"),
        };
        let number = |text: &str| {
            text.parse()
                .ok()
                .filter(|&it| it > 0u16)
                .with_context(|| format!("{text:?} is no port number"))
        };
        let (port, host_port) = match numbers.split_once(':') {
            Some((port, host)) => (number(port)?, Some(number(host)?)),
            None => (number(numbers)?, None),
        };
        Ok(Self {
            protocol,
            port,
            host_port,
            name,
        })
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.protocol.name().to_ascii_lowercase(), self.port)?;
        self.host_port.map_or(Ok(()), |it| write!(f, ":{it}"))?;
        self.name.as_ref().map_or(Ok(()), |it| write!(f, "={it}"))
    }
}

/// What identifies a pod to CNI plugins.
#[derive(Debug, Clone)]
pub(crate) struct Sandbox {
    pub(crate) key: PodKey,
    pub(crate) uid: String,
    /// Of the sandbox container, as a runtime would make one.
    pub(crate) container_id: String,
    /// Its network namespace, as the node sees it.
    pub(crate) netns: PathBuf,
    pub(crate) ports: Vec<Port>,
}

impl Sandbox {
    /// A new one, with an id and a network namespace of its own.
    pub(crate) fn new(pod: &PodOptions, uid: String) -> anyhow::Result<Self> {
        let unique = || {
            let text =
                std::fs::read_to_string("/proc/sys/kernel/random/uuid").context("make a sandbox id")?;
            anyhow::Ok(text.trim().to_owned())
        };
        // 64 hexadecimal digits, as of a container.
        let container_id = format!("{}{}", unique()?, unique()?).replace('-', "");
        let netns = PathBuf::from(format!("/run/netns/cni-{}", unique()?));
        Ok(Self {
            key: pod.key.clone(),
            uid,
            container_id,
            netns,
            ports: pod.ports.clone(),
        })
    }

    /// The name under which `ip netns` knows it, on its node.
    pub(crate) fn netns_name(&self) -> String {
        self.netns
            .file_name()
            .map(|it| it.to_string_lossy().into_owned())
            .unwrap_or_default()
    }
}

/// A pod that runs.
pub(crate) struct RunningPod {
    pub(crate) node: String,
    pub(crate) sandbox: Sandbox,
    pub(crate) namespaces: Namespaces,
    /// What the last plugin of the chain answered; `None` once the pod is detached.
    pub(crate) result: Option<Value>,
    pub(crate) addresses: Vec<String>,
    /// Answers on its ports.
    pub(crate) server: Option<Child>,
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_written_as_it_is_read() {
        for text in ["tcp:80", "udp:53=dns", "sctp:9=far", "tcp:80:8080=web"] {
            assert_eq!(text.parse::<Port>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_port_is_refused_by_name() {
        for text in ["80", "icmp:80", "tcp:0", "tcp:web", "tcp:80:0"] {
            text.parse::<Port>().unwrap_err();
        }
    }
}
