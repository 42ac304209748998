//! What an attachment is: the result of ADD, in our shape and in that of each CNI version.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize};

use crate::mac::MacAddr;
use crate::names::{IfName, NetnsPath};
use crate::version::SpecVersion;

/// One attachment in full. The agent sends it in this shape; [`AddResult::for_version`] gives that of a CNI version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AddResult {
    /// The interfaces made: the host's end of the veth and the container's.
    pub interfaces: Vec<Interface>,
    /// The addresses of the container's interface.
    pub ips: Vec<IpConfig>,
    /// The routes in the container.
    #[serde(default)]
    pub routes: Vec<Route>,
    /// What resolvers in the container should use, if the network says anything about it.
    #[serde(default, skip_serializing_if = "Dns::is_empty")]
    pub dns: Dns,
}

impl AddResult {
    /// The result in the shape of `version`, ready to be serialised: 0.3 and 0.4 have a family on each address, and
    /// only 1.1 has MTUs.
    pub fn for_version(&self, version: SpecVersion) -> impl Serialize {
        let with_family = version < SpecVersion::V1_0_0;
        let with_mtu = version >= SpecVersion::V1_1_0;
        Printed {
            cni_version: version,
            interfaces: self
                .interfaces
                .iter()
                .map(|interface| Interface {
                    mtu: interface.mtu.filter(|_| with_mtu),
                    ..interface.clone()
                })
                .collect(),
            ips: self
                .ips
                .iter()
                .map(|ip| PrintedIp {
                    version: with_family.then(|| family(ip.address)),
                    ip: ip.clone(),
                })
                .collect(),
            routes: self
                .routes
                .iter()
                .map(|route| Route {
                    mtu: route.mtu.filter(|_| with_mtu),
                    ..route.clone()
                })
                .collect(),
            dns: self.dns.clone(),
        }
    }

    /// Whether each address names an interface that is there.
    ///
    /// # Errors
    /// Names the first address that does not.
    pub fn check(&self) -> Result<(), ResultError> {
        let interfaces = self.interfaces.len();
        let wrong = |ip: &&IpConfig| ip.interface.is_some_and(|index| index >= interfaces);
        self.ips.iter().find(wrong).map_or(Ok(()), |ip| {
            Err(ResultError {
                address: ip.address,
                interfaces,
            })
        })
    }
}

/// An interface of an attachment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Interface {
    /// Its name.
    pub name: IfName,
    /// Its hardware address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddr>,
    /// Its MTU in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// The network namespace it is in, as `CNI_NETNS` had it; none for the host's end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<NetnsPath>,
}

/// An address of an attachment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IpConfig {
    /// The address with its prefix length, `10.244.1.7/32`.
    pub address: IpNet,
    /// The next hop for what is not on the link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// Which of [`AddResult::interfaces`] has it, counted from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<usize>,
}

/// A route in the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Route {
    /// Where to.
    pub dst: IpNet,
    /// Over which next hop; none if the destination is on the link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gw: Option<IpAddr>,
    /// The MTU in bytes of the way there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
}

/// What resolvers should use. Texts are passed on as the administrator wrote them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Dns {
    /// Addresses of name servers, the best first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<String>,
    /// The local domain. An empty one, as Go writes a text that was never set, is read as none.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "empty_as_none"
    )]
    pub domain: Option<String>,
    /// Domains to try short names in, the best first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
    /// Options for the resolver.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

impl Dns {
    /// Whether it says nothing at all.
    pub fn is_empty(&self) -> bool {
        self.nameservers.is_empty()
            && self.domain.as_ref().is_none_or(String::is_empty)
            && self.search.is_empty()
            && self.options.is_empty()
    }
}

/// An address that names an interface which is not in the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("address {address} names an interface that is not among the {interfaces} of the result")]
pub struct ResultError {
    /// The address.
    pub address: IpNet,
    /// How many interfaces the result has.
    pub interfaces: usize,
}

/// The result of the plugins before us (ADD) or of the whole chain (CHECK, DEL), of any CNI version.
///
/// Other plugins wrote parts of it, so only what we compare is read, and names are not held to our own rules.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct PrevResult {
    /// Interfaces of all plugins.
    #[serde(default, deserialize_with = "null_as_empty")]
    pub interfaces: Vec<PrevInterface>,
    /// Addresses of all plugins.
    #[serde(default, deserialize_with = "null_as_empty")]
    pub ips: Vec<PrevIp>,
}

/// An interface in a [`PrevResult`].
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct PrevInterface {
    /// Its name.
    pub name: String,
    /// The network namespace it is in; none or empty for the host.
    #[serde(default)]
    pub sandbox: Option<String>,
}

/// An address in a [`PrevResult`].
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct PrevIp {
    /// The address with its prefix length.
    pub address: IpNet,
    /// Which of [`PrevResult::interfaces`] has it.
    #[serde(default)]
    pub interface: Option<usize>,
}

fn empty_as_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Option::<String>::deserialize(deserializer).map(|text| text.filter(|text| !text.is_empty()))
}

/// Go writes an empty list as `null` where it has not been made.
fn null_as_empty<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::<Vec<T>>::deserialize(deserializer).map(Option::unwrap_or_default)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Printed {
    cni_version: SpecVersion,
    interfaces: Vec<Interface>,
    ips: Vec<PrintedIp>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    routes: Vec<Route>,
    #[serde(skip_serializing_if = "Dns::is_empty")]
    dns: Dns,
}

#[derive(Serialize)]
struct PrintedIp {
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'static str>,
    #[serde(flatten)]
    ip: IpConfig,
}

fn family(address: IpNet) -> &'static str {
    match address {
        IpNet::V4(_) => "4",
        IpNet::V6(_) => "6",
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn result() -> AddResult {
        serde_json::from_value(json!({
            "interfaces": [
                {"name": "wrn0123456789a", "mac": "02:00:00:00:00:01", "mtu": 1420},
                {"name": "eth0", "mac": "02:00:00:00:00:02", "mtu": 1420, "sandbox": "/var/run/netns/a"},
            ],
            "ips": [
                {"address": "10.244.1.2/32", "gateway": "169.254.1.1", "interface": 1},
                {"address": "fd00:1::2/128", "gateway": "fe80::1", "interface": 1},
            ],
            "routes": [{"dst": "0.0.0.0/0", "gw": "169.254.1.1", "mtu": 1420}],
            "dns": {"nameservers": ["10.96.0.10"]},
        }))
        .unwrap()
    }

    fn printed(version: SpecVersion) -> Value {
        serde_json::to_value(result().for_version(version)).unwrap()
    }

    #[test]
    fn old_versions_have_a_family_and_no_mtu() {
        for version in [SpecVersion::V0_3_0, SpecVersion::V0_3_1, SpecVersion::V0_4_0] {
            let expected = json!({
                "cniVersion": version.as_str(),
                "interfaces": [
                    {"name": "wrn0123456789a", "mac": "02:00:00:00:00:01"},
                    {"name": "eth0", "mac": "02:00:00:00:00:02", "sandbox": "/var/run/netns/a"},
                ],
                "ips": [
                    {"version": "4", "address": "10.244.1.2/32", "gateway": "169.254.1.1", "interface": 1},
                    {"version": "6", "address": "fd00:1::2/128", "gateway": "fe80::1", "interface": 1},
                ],
                "routes": [{"dst": "0.0.0.0/0", "gw": "169.254.1.1"}],
                "dns": {"nameservers": ["10.96.0.10"]},
            });
            assert_eq!(printed(version), expected);
        }
    }

    #[test]
    fn version_1_0_has_neither_and_1_1_has_mtus() {
        let new = printed(SpecVersion::V1_1_0);
        assert_eq!(new["interfaces"][1]["mtu"], 1420);
        assert_eq!(new["routes"][0]["mtu"], 1420);
        assert_eq!(new["ips"][0].get("version"), None);
        let old = printed(SpecVersion::V1_0_0);
        assert_eq!(old["interfaces"][1].get("mtu"), None);
        assert_eq!(old["routes"][0].get("mtu"), None);
        assert_eq!(old["ips"][0].get("version"), None);
    }

    #[test]
    fn an_address_of_an_interface_that_is_not_there_is_refused() {
        let mut result = result();
        assert_eq!(result.check(), Ok(()));
        result.ips[1].interface = Some(2);
        assert_eq!(
            result.check(),
            Err(ResultError {
                address: "fd00:1::2/128".parse().unwrap(),
                interfaces: 2
            })
        );
    }

    #[test]
    fn a_previous_result_may_have_nulls_and_anything_of_other_plugins() {
        let prev: PrevResult = serde_json::from_value(json!({
            "cniVersion": "0.4.0",
            "interfaces": null,
            "ips": [{"version": "4", "address": "10.0.0.3/24"}],
            "x": [{}],
        }))
        .unwrap();
        assert!(prev.interfaces.is_empty());
        assert_eq!(prev.ips[0].address.to_string(), "10.0.0.3/24");
    }
}
