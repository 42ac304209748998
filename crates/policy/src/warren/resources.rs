//! The kinds beside policies: NetworkSet, GlobalNetworkSet, HostEndpoint and Tier.

use std::net::IpAddr;

use serde::Deserialize;
use warren_model::{NodeName, Refusal};

use crate::cluster::{HostEndpoint, Interface, NamedPort, NetworkSet};
use crate::invalid::Problem;
use crate::labels::Labels;
use crate::policy::{Order, Tier, TierEnd};
use crate::spec::{IntOrString, Unknown, read_net, read_port, read_protocol, refuse_unknown, wrong_value};

/// `spec` of a NetworkSet or GlobalNetworkSet.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkSetSpec {
    /// Its networks.
    pub nets: Option<Vec<String>>,
}

/// `spec` of a HostEndpoint.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostEndpointSpec {
    /// The node.
    pub node: String,
    /// An interface's name, or `*`; absent: the one with an expected address.
    pub interface_name: Option<String>,
    /// Addresses that stand for it in selectors.
    #[serde(rename = "expectedIPs")]
    pub expected_ips: Option<Vec<String>>,
    /// `projectcalico-default-allow` or nothing.
    pub profiles: Option<Vec<String>>,
    /// Ports that rules may name.
    pub ports: Option<Vec<EndpointPort>>,
    /// What else there was.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// A port of a host endpoint that has a name.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct EndpointPort {
    /// The name.
    pub name: String,
    /// The protocol, by name or number.
    pub protocol: IntOrString,
    /// The port.
    pub port: i64,
}

/// `spec` of a Tier.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TierSpec {
    /// Its place, smaller first; absent: last.
    pub order: Option<f64>,
    /// `Deny` or `Pass`; absent: Deny.
    pub default_action: Option<String>,
    /// What else there was.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// The profile with which a host endpoint lets pass what no policy speaks of.
pub const DEFAULT_ALLOW: &str = "projectcalico-default-allow";

/// Reads a NetworkSet, or without a namespace a GlobalNetworkSet. Networks that are none are refused each for itself; the others
/// count.
pub fn read_network_set(
    namespace: Option<&str>,
    name: &str,
    labels: Labels,
    spec: &NetworkSetSpec,
) -> (NetworkSet, Vec<Refusal>) {
    let object = match namespace {
        Some(namespace) => format!("NetworkSet/{namespace}/{name}"),
        None => format!("GlobalNetworkSet/{name}"),
    };
    let mut refusals = Vec::new();
    let mut nets = Vec::new();
    for (index, text) in spec.nets.iter().flatten().enumerate() {
        match read_net(text, &format!("spec.nets[{index}]")) {
            Ok(net) => nets.push(net),
            Err(problem) => refusals.push(refusal(&object, &problem)),
        }
    }
    let set = NetworkSet {
        namespace: namespace.map(str::to_owned),
        name: name.to_owned(),
        labels,
        nets,
    };
    (set, refusals)
}

/// Reads a HostEndpoint. One that is refused protects nothing.
pub fn read_host_endpoint(
    name: &str,
    labels: Labels,
    spec: &HostEndpointSpec,
) -> Result<HostEndpoint, Refusal> {
    host_endpoint(name, labels, spec).map_err(|problem| refusal(&format!("HostEndpoint/{name}"), &problem))
}

/// Reads a Tier. Policies of one that is refused are in a tier that there is not.
pub fn read_tier(name: &str, spec: &TierSpec) -> Result<Tier, Refusal> {
    tier(name, spec).map_err(|problem| refusal(&format!("Tier/{name}"), &problem))
}

fn host_endpoint(name: &str, labels: Labels, spec: &HostEndpointSpec) -> Result<HostEndpoint, Problem> {
    refuse_unknown(&spec.unknown, "spec")?;
    let node: NodeName = spec
        .node
        .parse()
        .map_err(|_| wrong_value("spec.node", &spec.node, "a node's name"))?;
    let mut expected_addresses: Vec<IpAddr> = Vec::new();
    for (index, text) in spec.expected_ips.iter().flatten().enumerate() {
        let address = text.parse();
        let field = format!("spec.expectedIPs[{index}]");
        expected_addresses.push(address.map_err(|_| wrong_value(&field, text, "an address"))?);
    }
    let interface = match spec.interface_name.as_deref() {
        None | Some("") => None,
        Some("*") => Some(Interface::Every),
        Some(name) if is_interface(name) => Some(Interface::Named(name.to_owned())),
        Some(other) => {
            let wanted = "an interface's name, at most 15 letters, digits and '-_.@', or *";
            return Err(wrong_value("spec.interfaceName", other, wanted));
        }
    };
    if interface.is_none() && expected_addresses.is_empty() {
        return Err(Problem::Together {
            field: "spec".to_owned(),
            rule: "a host endpoint needs an interfaceName or expectedIPs",
        });
    }
    let profiles = spec.profiles.as_deref().unwrap_or_default();
    if let Some(other) = profiles.iter().find(|profile| *profile != DEFAULT_ALLOW) {
        return Err(wrong_value("spec.profiles", other, "projectcalico-default-allow"));
    }
    let mut ports = Vec::new();
    for (index, port) in spec.ports.iter().flatten().enumerate() {
        let field = format!("spec.ports[{index}]");
        ports.push(NamedPort {
            name: port.name.clone(),
            protocol: read_protocol(&port.protocol, &format!("{field}.protocol"))?,
            port: read_port(port.port, &format!("{field}.port"))?,
        });
    }
    Ok(HostEndpoint {
        name: name.to_owned(),
        labels,
        node,
        interface,
        expected_addresses,
        ports,
        default_allow: !profiles.is_empty(),
    })
}

/// Whether an interface can be called so. The kernel takes more; nobody uses it, and it would have to be quoted everywhere.
fn is_interface(name: &str) -> bool {
    /// `IFNAMSIZ`, with the end of the text.
    const LONGEST: usize = 15;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.@".contains(&byte);
    name.len() <= LONGEST && name.bytes().all(plain)
}

fn tier(name: &str, spec: &TierSpec) -> Result<Tier, Problem> {
    refuse_unknown(&spec.unknown, "spec")?;
    let order = match spec.order {
        None => Order::LAST,
        Some(order) => Order::new(order)
            .ok_or_else(|| wrong_value("spec.order", &order.to_string(), "a number to sort by"))?,
    };
    let end = match spec.default_action.as_deref() {
        None | Some("Deny") => TierEnd::Deny,
        Some("Pass") => TierEnd::Pass,
        Some(other) => return Err(wrong_value("spec.defaultAction", other, "Deny or Pass")),
    };
    Ok(Tier {
        name: name.to_owned(),
        order,
        end,
    })
}

fn refusal(object: &str, problem: &Problem) -> Refusal {
    Refusal::new(object, problem.code(), problem.to_string())
}
