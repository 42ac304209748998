//! From a `Mesh` object, as JSON, to [`warren_model::Mesh`].
//!
//! Everything the schema says is checked again, because a server before 1.25 ignores the CEL rules and the schema that
//! is installed may be another release's. A field that is absent or null has its default. One wrong field refuses the
//! whole object: half of what an operator asked for is a configuration that nobody asked for.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::time::Duration;

use ipnet::IpNet;
use serde::de::DeserializeOwned;
use serde_json::Value;
use thiserror::Error;
use warren_model::mesh::{Established, Keys, OnInvalid, Pinning, PolicySettings, Ports};
use warren_model::{
    Encryption, Epoch, Fallback, Mesh, MtuProbe, NodeName, Overlay, OverlayMode, PodCidr, PublicKey,
};

use crate::mesh_resource::{
    EncryptionSpec, EstablishedSpec, FallbackSpec, MAX_LISTED_KEYS, MAX_MTU, MAX_POD_NETWORKS, MIN_MTU,
    MtuProbeSpec, OnInvalidSpec, OverlayModeSpec, PinningSpec,
};

/// Shortest `spec.keys.rotationInterval`.
pub const MIN_ROTATION_INTERVAL: Duration = Duration::from_secs(3600);

/// One field of a `Mesh` that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{field} {problem}")]
pub struct FieldError {
    /// Where, e.g. `spec.ports.vxlan`.
    pub field: &'static str,
    /// What is wrong and what to write instead.
    pub problem: String,
}

/// Decodes `spec`; fails with every field that is wrong, in the order of the schema.
pub fn decode_spec(spec: &Value) -> Result<Mesh, Vec<FieldError>> {
    let mut reader = Reader {
        spec,
        errors: Vec::new(),
    };
    let mesh = read(&mut reader);
    if reader.errors.is_empty() {
        Ok(mesh)
    } else {
        Err(reader.errors)
    }
}

/// Reads fields one by one and keeps what went wrong, so that one look shows all of it.
struct Reader<'a> {
    spec: &'a Value,
    errors: Vec<FieldError>,
}

fn read(reader: &mut Reader<'_>) -> Mesh {
    let default = Mesh::default();
    for section in ["spec", "spec.overlay", "spec.ports", "spec.keys", "spec.policy"] {
        reader.section(section);
    }
    let encryption = reader.field("spec.encryption", "wireguard or none");
    let fallback = reader.field("spec.fallback", "none, vxlan or ipip");
    let probe = reader.field("spec.mtuProbe", "off, report or lower");
    let mode = reader.field("spec.overlay.mode", "vxlan, ipip or none");
    let overlay = Overlay {
        mode: mode.map_or(default.overlay.mode, overlay_mode),
        cross_subnet: reader
            .field("spec.overlay.crossSubnet", "true or false")
            .unwrap_or(default.overlay.cross_subnet),
    };
    Mesh {
        encryption: encryption.map_or(default.encryption, |it| match it {
            EncryptionSpec::Wireguard => Encryption::Wireguard,
            EncryptionSpec::None => Encryption::None,
        }),
        fallback: fallback.map_or(default.fallback, |it| match it {
            FallbackSpec::None => Fallback::None,
            FallbackSpec::Vxlan => Fallback::Vxlan,
            FallbackSpec::Ipip => Fallback::Ipip,
        }),
        overlay,
        mtu: mtu(reader),
        mtu_probe: probe.map_or(default.mtu_probe, |it| match it {
            MtuProbeSpec::Off => MtuProbe::Off,
            MtuProbeSpec::Report => MtuProbe::Report,
            MtuProbeSpec::Lower => MtuProbe::Lower,
        }),
        ports: ports(reader, default.ports),
        keys: keys(reader, default.keys),
        nat_outgoing: reader
            .field("spec.natOutgoing", "true or false")
            .unwrap_or(default.nat_outgoing),
        policy: policy(reader, default.policy),
        pod_networks: pod_networks(reader),
        generation: default.generation,
    }
}

fn overlay_mode(mode: OverlayModeSpec) -> OverlayMode {
    match mode {
        OverlayModeSpec::Vxlan => OverlayMode::Vxlan,
        OverlayModeSpec::Ipip => OverlayMode::Ipip,
        OverlayModeSpec::None => OverlayMode::None,
    }
}

fn mtu(reader: &mut Reader<'_>) -> Option<u16> {
    const FIELD: &str = "spec.mtu";
    const REMEDY: &str = "0 (find out) or a number from 576 to 9216";
    let bytes: u16 = reader.field(FIELD, REMEDY)?;
    match bytes {
        0 => None,
        MIN_MTU..=MAX_MTU => Some(bytes),
        _ => reader.refuse(FIELD, format!("is {bytes}: use {REMEDY}")),
    }
}

fn ports(reader: &mut Reader<'_>, default: Ports) -> Ports {
    const LANES: &str = "spec.ports.wireguard";
    const VXLAN: &str = "spec.ports.vxlan";
    let ports = Ports {
        wireguard: reader
            .field(LANES, "a list of two port numbers, 1 to 65535")
            .unwrap_or(default.wireguard),
        vxlan: reader
            .field(VXLAN, "a port number, 1 to 65535")
            .unwrap_or(default.vxlan),
    };
    let [zero, one] = ports.wireguard;
    if zero == 0 || one == 0 {
        reader.refuse::<()>(LANES, "has port 0: use 1 to 65535".to_owned());
    }
    if ports.vxlan == 0 {
        reader.refuse::<()>(VXLAN, "is 0: use 1 to 65535".to_owned());
    }
    if zero == one {
        reader.refuse::<()>(
            LANES,
            format!("has {zero} twice: give each lane a port of its own"),
        );
    }
    if ports.wireguard.contains(&ports.vxlan) {
        let problem = format!("is {}, which is also a WireGuard port: use another", ports.vxlan);
        reader.refuse::<()>(VXLAN, problem);
    }
    ports
}

fn keys(reader: &mut Reader<'_>, default: Keys) -> Keys {
    const NODES: &str = "spec.keys.nodes";
    const INTERVAL: &str = "spec.keys.rotationInterval";
    let nodes: Vec<String> = reader.field(NODES, "a list of node names").unwrap_or_default();
    let wrong: Vec<_> = nodes
        .iter()
        .filter_map(|name| name.parse::<NodeName>().err())
        .collect();
    reader.refuse_first(NODES, "holds a wrong name", &wrong);
    let interval: String = reader
        .field(INTERVAL, "a duration such as 720h, or leave it empty")
        .unwrap_or_default();
    let rotation_interval = match parse_interval(&interval) {
        Ok(interval) => interval,
        Err(problem) => reader.refuse(INTERVAL, problem),
    };
    Keys {
        epoch: reader
            .field::<Epoch>("spec.keys.epoch", "a number from 1 to 4294967295")
            .unwrap_or(default.epoch),
        nodes,
        rotation_interval,
        pinning: reader
            .field("spec.keys.pinning", "none or strict")
            .map_or(default.pinning, |it| match it {
                PinningSpec::None => Pinning::None,
                PinningSpec::Strict => Pinning::Strict,
            }),
        accepted: key_list(reader, "spec.keys.accepted"),
        revoked: key_list(reader, "spec.keys.revoked"),
    }
}

fn policy(reader: &mut Reader<'_>, default: PolicySettings) -> PolicySettings {
    let on_invalid = reader.field("spec.policy.onInvalid", "closed or open");
    let established = reader.field("spec.policy.established", "keep or cut");
    let log_denied = reader.field("spec.policy.logDenied", "true or false");
    PolicySettings {
        on_invalid: on_invalid.map_or(default.on_invalid, |it| match it {
            OnInvalidSpec::Closed => OnInvalid::Closed,
            OnInvalidSpec::Open => OnInvalid::Open,
        }),
        established: established.map_or(default.established, |it| match it {
            EstablishedSpec::Keep => Established::Keep,
            EstablishedSpec::Cut => Established::Cut,
        }),
        log_denied: log_denied.unwrap_or(default.log_denied),
    }
}

fn key_list(reader: &mut Reader<'_>, field: &'static str) -> BTreeSet<PublicKey> {
    let texts: Vec<String> = reader.field(field, "a list of public keys").unwrap_or_default();
    if texts.len() > MAX_LISTED_KEYS {
        let problem = format!(
            "has {} entries, more than {MAX_LISTED_KEYS}: take out those that no node has any more",
            texts.len()
        );
        reader.refuse::<()>(field, problem);
        return BTreeSet::new();
    }
    let (keys, wrong): (Vec<_>, Vec<_>) = texts
        .iter()
        .map(|text| text.parse::<PublicKey>())
        .partition(Result::is_ok);
    let wrong: Vec<_> = wrong.into_iter().filter_map(Result::err).collect();
    reader.refuse_first(field, "holds a wrong key", &wrong);
    keys.into_iter().flatten().collect()
}

fn pod_networks(reader: &mut Reader<'_>) -> Vec<IpNet> {
    const FIELD: &str = "spec.podNetworks";
    let texts: Vec<String> = reader.field(FIELD, "a list of CIDRs").unwrap_or_default();
    if texts.len() > MAX_POD_NETWORKS {
        let problem = format!(
            "has {} entries, more than {MAX_POD_NETWORKS}: give the few ranges that hold all pods",
            texts.len()
        );
        reader.refuse::<()>(FIELD, problem);
        return Vec::new();
    }
    let mut networks = Vec::with_capacity(texts.len());
    let mut wrong = Vec::new();
    for text in &texts {
        match text.parse::<PodCidr>() {
            Ok(network) => networks.push(network.net()),
            Err(error) => wrong.push(error),
        }
    }
    reader.refuse_first(FIELD, "holds a wrong range", &wrong);
    networks.sort();
    networks.dedup();
    networks
}

/// Hours, minutes and seconds in that order, each at most once and at most six digits: `720h`, `1h30m`.
fn parse_interval(text: &str) -> Result<Option<Duration>, String> {
    let wrong = || {
        let shown: String = text.chars().take(32).collect();
        format!("is {shown:?}: use hours, minutes and seconds such as 720h, or leave it empty")
    };
    if text.is_empty() {
        return Ok(None);
    }
    let mut rest = text;
    let mut seconds = 0;
    for (unit, length) in [('h', 3600), ('m', 60), ('s', 1)] {
        if let Some((digits, after)) = rest.split_once(unit) {
            let well_formed = (1..=6).contains(&digits.len()) && digits.bytes().all(|it| it.is_ascii_digit());
            let count: u64 = digits.parse().ok().filter(|_| well_formed).ok_or_else(wrong)?;
            seconds += count * length;
            rest = after;
        }
    }
    let interval = Duration::from_secs(seconds);
    if !rest.is_empty() {
        Err(wrong())
    } else if interval < MIN_ROTATION_INTERVAL {
        Err(format!(
            "is {text:?}: rotate at most once an hour (1h), or leave it empty"
        ))
    } else {
        Ok(Some(interval))
    }
}

impl Reader<'_> {
    /// The field of that path, if it is there; a value of another kind is an error.
    fn field<T: DeserializeOwned>(&mut self, field: &'static str, expected: &str) -> Option<T> {
        let value = self.value(field)?;
        match serde_json::from_value(value.clone()) {
            Ok(read) => Some(read),
            Err(_) => {
                let shown: String = value.to_string().chars().take(64).collect();
                self.refuse(field, format!("is {shown}: use {expected}"))
            }
        }
    }

    /// Checks that a section is an object or absent; its fields would else silently get their defaults.
    fn section(&mut self, field: &'static str) {
        if self.value(field).is_some_and(|value| !value.is_object()) {
            self.refuse::<()>(
                field,
                "is not an object: see `kubectl explain mesh.spec`".to_owned(),
            );
        }
    }

    fn value(&self, field: &str) -> Option<&Value> {
        let mut names = field.split('.').skip(1);
        let value = names.try_fold(self.spec, |value, name| value.get(name))?;
        (!value.is_null()).then_some(value)
    }

    /// Refuses a list for its wrong entries: the first by name, the rest as a number. A list may have thousands.
    fn refuse_first(&mut self, field: &'static str, what: &str, wrong: &[impl Display]) {
        if let [first, rest @ ..] = wrong {
            let more = match rest.len() {
                0 => String::new(),
                count => format!(" (and {count} more)"),
            };
            self.refuse::<()>(field, format!("{what}: {first}{more}"));
        }
    }

    fn refuse<T>(&mut self, field: &'static str, problem: String) -> Option<T> {
        self.errors.push(FieldError { field, problem });
        None
    }
}

#[cfg(test)]
#[path = "mesh_decode_tests.rs"]
mod tests;
