//! The laws of the wire: what is written is read back, nothing that comes in makes us panic, and what goes out to a
//! runtime has the shape its CNI version prescribes.

use std::net::IpAddr;

use ipnet::IpNet;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::Value;
use warren_cni_wire::message::{decode_reply, decode_request, encode_reply, encode_request};
use warren_cni_wire::{
    AddResult, AttachmentId, Command, ContainerId, Dns, ErrorCode, IfName, Interface, IpConfig, MacAddr,
    NetConf, NetnsPath, NetworkName, Outcome, PodRef, Reply, Request, Route, SpecVersion, VersionReply,
};

fn container_id() -> impl Strategy<Value = ContainerId> {
    parsed("[A-Za-z0-9][A-Za-z0-9_.-]{0,80}")
}

fn if_name() -> impl Strategy<Value = IfName> {
    parsed("[a-z][a-z0-9.-]{0,14}")
}

fn netns() -> impl Strategy<Value = NetnsPath> {
    parsed("(/[a-z0-9 é\"\\\\-]{1,12}){1,4}")
}

/// Texts of a pattern that only makes right ones.
fn parsed<T>(pattern: &'static str) -> impl Strategy<Value = T>
where
    T: std::str::FromStr + std::fmt::Debug,
    T::Err: std::fmt::Debug,
{
    pattern.prop_map(|text| text.parse().expect("the pattern makes only right texts"))
}

fn attachment() -> impl Strategy<Value = AttachmentId> {
    (container_id(), if_name()).prop_map(|(container_id, if_name)| AttachmentId {
        container_id,
        if_name,
    })
}

fn pod() -> impl Strategy<Value = PodRef> {
    let part = "[a-z0-9][a-z0-9.-]{0,30}";
    (part, part, option::of(part)).prop_map(|(namespace, name, uid)| {
        PodRef::new(namespace, name, uid).expect("the pattern makes only right texts")
    })
}

fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        (attachment(), netns(), option::of(pod())).prop_map(|(attachment, netns, pod)| Command::Add {
            attachment,
            netns,
            pod
        }),
        (attachment(), option::of(netns()), option::of(pod())).prop_map(|(attachment, netns, pod)| {
            Command::Del {
                attachment,
                netns,
                pod,
            }
        }),
        (attachment(), netns(), option::of(pod())).prop_map(|(attachment, netns, pod)| Command::Check {
            attachment,
            netns,
            pod
        }),
        prop::collection::vec(attachment(), 0..5)
            .prop_map(|valid_attachments| Command::Gc { valid_attachments }),
        Just(Command::Status),
    ]
}

fn request() -> impl Strategy<Value = Request> {
    (parsed::<NetworkName>("[a-z][a-z0-9-]{0,20}"), command())
        .prop_map(|(network, command)| Request { network, command })
}

fn net() -> impl Strategy<Value = IpNet> {
    any::<IpAddr>().prop_flat_map(|address| {
        let most: u8 = if address.is_ipv4() { 32 } else { 128 };
        (0..=most).prop_map(move |length| IpNet::new(address, length).expect("the length fits the family"))
    })
}

fn result() -> impl Strategy<Value = AddResult> {
    let interface = (
        if_name(),
        option::of(any::<[u8; 6]>()),
        option::of(any::<u32>()),
        option::of(netns()),
    )
        .prop_map(|(name, mac, mtu, sandbox)| Interface {
            name,
            mac: mac.map(MacAddr),
            mtu,
            sandbox,
        });
    let ip = (
        net(),
        option::of(any::<IpAddr>()),
        option::of(any::<prop::sample::Index>()),
    );
    let route = (net(), option::of(any::<IpAddr>()), option::of(any::<u32>()))
        .prop_map(|(dst, gw, mtu)| Route { dst, gw, mtu });
    (
        prop::collection::vec(interface, 0..4),
        prop::collection::vec(ip, 0..4),
        prop::collection::vec(route, 0..4),
        dns(),
    )
        .prop_map(|(interfaces, ips, routes, dns)| AddResult {
            ips: ips
                .into_iter()
                .map(|(address, gateway, index)| IpConfig {
                    address,
                    gateway,
                    interface: index
                        .filter(|_| !interfaces.is_empty())
                        .map(|index| index.index(interfaces.len())),
                })
                .collect(),
            interfaces,
            routes,
            dns,
        })
}

fn dns() -> impl Strategy<Value = Dns> {
    let texts = || prop::collection::vec(any::<String>(), 0..3);
    // An empty domain says nothing, and is not written.
    (texts(), option::of(".+"), texts(), texts()).prop_map(|(nameservers, domain, search, options)| Dns {
        nameservers,
        domain,
        search,
        options,
    })
}

fn reply() -> impl Strategy<Value = Reply> {
    prop_oneof![
        result().prop_map(Outcome::Added),
        Just(Outcome::Done),
        (any::<u32>(), any::<String>(), any::<String>()).prop_map(|(code, msg, details)| Outcome::Error {
            code: ErrorCode(code),
            msg,
            details
        }),
    ]
    .prop_map(|outcome| Reply { outcome })
}

/// Everything that reads bytes of somebody else.
fn read_all(bytes: &[u8]) {
    drop(decode_request(bytes));
    drop(decode_reply(bytes));
    drop(VersionReply::to_stdin(bytes));
    if let Ok(conf) = NetConf::parse(bytes) {
        drop(conf.prev_result());
        drop(conf.valid_attachments());
    }
}

const CONF: &str = r#"{"cniVersion":"1.1.0","name":"warren","type":"warren-cni","runDir":"/run/warren",
    "timeoutSeconds":9,"dns":{"nameservers":["10.96.0.10"]},"runtimeConfig":{"portMappings":[]},
    "cni.dev/valid-attachments":[{"containerID":"c1","ifname":"eth0"}],
    "prevResult":{"interfaces":[{"name":"eth0","sandbox":"/n"}],"ips":[{"address":"10.0.0.2/32","interface":0}]}}"#;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn requests_are_read_back_as_written(request in request()) {
        let line = encode_request(&request)?;
        prop_assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
        prop_assert_eq!(decode_request(&line)?, request);
    }

    #[test]
    fn replies_are_read_back_as_written(reply in reply()) {
        let line = encode_reply(&reply)?;
        prop_assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
        prop_assert_eq!(decode_reply(&line)?, reply);
    }

    #[test]
    fn a_cut_message_is_never_taken_for_a_whole_one(request in request(), cut in any::<prop::sample::Index>()) {
        let line = encode_request(&request)?;
        let text = line.len() - 1;
        prop_assert!(decode_request(&line[..cut.index(text)]).is_err());
    }

    #[test]
    fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        read_all(&bytes);
    }

    #[test]
    fn damaged_messages_are_read_without_panic(
        request in request(),
        reply in reply(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        for mut bytes in [encode_request(&request)?, encode_reply(&reply)?, CONF.as_bytes().to_vec()] {
            for (at, byte) in &damage {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            read_all(&bytes);
        }
    }

    #[test]
    fn results_have_the_shape_of_each_version(result in result(), version in select(SpecVersion::ALL.to_vec())) {
        let printed = serde_json::to_value(result.for_version(version))?;
        check_shape(&printed, version).map_err(TestCaseError::fail)?;
        prop_assert_eq!(printed["interfaces"].as_array().map(Vec::len), Some(result.interfaces.len()));
        prop_assert_eq!(printed["ips"].as_array().map(Vec::len), Some(result.ips.len()));
    }
}

/// What the text of the specification says of a result, field by field, written without our types.
fn check_shape(printed: &Value, version: SpecVersion) -> Result<(), String> {
    let since_1_0 = version >= SpecVersion::V1_0_0;
    let since_1_1 = version >= SpecVersion::V1_1_0;
    fields(printed, &["cniVersion", "interfaces", "ips"], &["routes", "dns"])?;
    expect(printed["cniVersion"] == version.as_str(), "the version asked for")?;
    for interface in list(&printed["interfaces"])? {
        let optional: &[&str] = if since_1_1 {
            &["mac", "mtu", "sandbox"]
        } else {
            &["mac", "sandbox"]
        };
        fields(interface, &["name"], optional)?;
    }
    for ip in list(&printed["ips"])? {
        let required: &[&str] = if since_1_0 {
            &["address"]
        } else {
            &["version", "address"]
        };
        fields(ip, required, &["gateway", "interface"])?;
        let address = ip["address"].as_str().and_then(|text| text.parse::<IpNet>().ok());
        let address = address.ok_or_else(|| format!("{ip} has no address in CIDR notation"))?;
        if !since_1_0 {
            let family = if address.addr().is_ipv4() { "4" } else { "6" };
            expect(ip["version"] == family, "the version of the address")?;
        }
        if let Some(index) = ip.get("interface") {
            let there = list(&printed["interfaces"])?.len() as u64;
            expect(
                index.as_u64().is_some_and(|index| index < there),
                "an index of an interface",
            )?;
        }
    }
    for route in printed.get("routes").map_or(Ok(&Vec::new()), list)? {
        fields(route, &["dst"], if since_1_1 { &["gw", "mtu"] } else { &["gw"] })?;
    }
    if let Some(dns) = printed.get("dns") {
        fields(dns, &[], &["nameservers", "domain", "search", "options"])?;
    }
    Ok(())
}

fn fields(value: &Value, required: &[&str], optional: &[&str]) -> Result<(), String> {
    let object = value
        .as_object()
        .ok_or_else(|| format!("{value} is not an object"))?;
    for field in required {
        expect(object.contains_key(*field), field)?;
    }
    for (key, field) in object {
        expect(
            required.contains(&key.as_str()) || optional.contains(&key.as_str()),
            key,
        )?;
        expect(!field.is_null(), key)?;
    }
    Ok(())
}

fn list(value: &Value) -> Result<&Vec<Value>, String> {
    value.as_array().ok_or_else(|| format!("{value} is not a list"))
}

fn expect(holds: bool, what: &str) -> Result<(), String> {
    if holds {
        Ok(())
    } else {
        Err(format!("wrong: {what}"))
    }
}
