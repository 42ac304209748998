#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use serde_json::json;

use super::*;
use crate::mesh_resource::MeshSpec;

const ACCEPTED: &str = "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=";
const REVOKED: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";

#[test]
fn nothing_and_null_and_the_resources_own_defaults_are_the_models_defaults() {
    for spec in [
        Value::Null,
        json!({}),
        json!({"keys": null, "ports": {"vxlan": null}}),
        serde_json::to_value(MeshSpec::default()).unwrap(),
    ] {
        assert_eq!(decode_spec(&spec), Ok(Mesh::default()), "{spec}");
    }
}

#[test]
fn every_field_is_read() {
    let spec = json!({
        "encryption": "none",
        "fallback": "ipip",
        "overlay": {"mode": "none", "crossSubnet": true},
        "mtu": 1400,
        "mtuProbe": "lower",
        "ports": {"wireguard": [1, 2], "vxlan": 3},
        "keys": {
            "epoch": 7, "nodes": ["a", "b.example"], "rotationInterval": "720h30m1s",
            "pinning": "strict", "accepted": [ACCEPTED], "revoked": [REVOKED],
        },
        "natOutgoing": false,
        "policy": {"onInvalid": "open", "established": "keep", "logDenied": true},
        "podNetworks": ["10.244.0.0/16", "fd00:10:244::/48", "10.244.0.0/16"],
    });
    let expected = Mesh {
        encryption: Encryption::None,
        fallback: Fallback::Ipip,
        overlay: Overlay {
            mode: OverlayMode::None,
            cross_subnet: true,
        },
        mtu: Some(1400),
        mtu_probe: MtuProbe::Lower,
        ports: Ports {
            wireguard: [1, 2],
            vxlan: 3,
        },
        keys: Keys {
            epoch: Epoch::new(7).unwrap(),
            nodes: vec!["a".into(), "b.example".into()],
            rotation_interval: Some(Duration::from_secs(720 * 3600 + 30 * 60 + 1)),
            pinning: Pinning::Strict,
            accepted: BTreeSet::from([ACCEPTED.parse().unwrap()]),
            revoked: BTreeSet::from([REVOKED.parse().unwrap()]),
        },
        nat_outgoing: false,
        policy: PolicySettings {
            on_invalid: OnInvalid::Open,
            established: Established::Keep,
            log_denied: true,
        },
        pod_networks: vec![
            "10.244.0.0/16".parse().unwrap(),
            "fd00:10:244::/48".parse().unwrap(),
        ],
        generation: 0,
    };
    assert_eq!(decode_spec(&spec), Ok(expected));
}

#[test]
fn each_wrong_field_is_named() {
    let interval = |text: &str| json!({"keys": {"rotationInterval": text}});
    for (spec, field) in [
        (json!("x"), "spec"),
        (json!([]), "spec"),
        (json!({"overlay": 1}), "spec.overlay"),
        (json!({"ports": []}), "spec.ports"),
        (json!({"keys": "1"}), "spec.keys"),
        (json!({"encryption": "aes"}), "spec.encryption"),
        (json!({"encryption": true}), "spec.encryption"),
        (json!({"fallback": "wireguard"}), "spec.fallback"),
        (json!({"overlay": {"mode": "gre"}}), "spec.overlay.mode"),
        (
            json!({"overlay": {"crossSubnet": "yes"}}),
            "spec.overlay.crossSubnet",
        ),
        (json!({"mtu": 575}), "spec.mtu"),
        (json!({"mtu": 9217}), "spec.mtu"),
        (json!({"mtu": -1}), "spec.mtu"),
        (json!({"mtu": 1400.5}), "spec.mtu"),
        (json!({"ports": {"wireguard": [1]}}), "spec.ports.wireguard"),
        (json!({"ports": {"wireguard": [1, 2, 3]}}), "spec.ports.wireguard"),
        (
            json!({"ports": {"wireguard": [1, 65536]}}),
            "spec.ports.wireguard",
        ),
        (json!({"ports": {"wireguard": [0, 1]}}), "spec.ports.wireguard"),
        (json!({"ports": {"wireguard": [7, 7]}}), "spec.ports.wireguard"),
        (json!({"ports": {"wireguard": [7, 4789]}}), "spec.ports.vxlan"),
        (json!({"ports": {"vxlan": 0}}), "spec.ports.vxlan"),
        (json!({"ports": {"vxlan": 51820}}), "spec.ports.vxlan"),
        (json!({"keys": {"epoch": 0}}), "spec.keys.epoch"),
        (json!({"keys": {"epoch": 4_294_967_296_u64}}), "spec.keys.epoch"),
        (json!({"keys": {"nodes": ["Bad"]}}), "spec.keys.nodes"),
        (json!({"keys": {"nodes": "a"}}), "spec.keys.nodes"),
        (interval("59m"), "spec.keys.rotationInterval"),
        (interval("0h"), "spec.keys.rotationInterval"),
        (interval("1d"), "spec.keys.rotationInterval"),
        (interval("h"), "spec.keys.rotationInterval"),
        (interval("1m2h"), "spec.keys.rotationInterval"),
        (interval("1h1h"), "spec.keys.rotationInterval"),
        (interval("+1h"), "spec.keys.rotationInterval"),
        (interval("1234567h"), "spec.keys.rotationInterval"),
        (
            json!({"keys": {"rotationInterval": 3600}}),
            "spec.keys.rotationInterval",
        ),
        (json!({"keys": {"pinning": "loose"}}), "spec.keys.pinning"),
        (json!({"keys": {"accepted": ["key"]}}), "spec.keys.accepted"),
        (
            json!({"keys": {"accepted": vec![ACCEPTED; 1001]}}),
            "spec.keys.accepted",
        ),
        (
            json!({"keys": {"revoked": ["A".repeat(44)]}}),
            "spec.keys.revoked",
        ),
        (json!({"mtuProbe": "on"}), "spec.mtuProbe"),
        (json!({"natOutgoing": 1}), "spec.natOutgoing"),
        (json!({"policy": "closed"}), "spec.policy"),
        (json!({"policy": {"onInvalid": "ajar"}}), "spec.policy.onInvalid"),
        (
            json!({"policy": {"established": true}}),
            "spec.policy.established",
        ),
        (json!({"policy": {"logDenied": "yes"}}), "spec.policy.logDenied"),
        (json!({"podNetworks": "10.0.0.0/8"}), "spec.podNetworks"),
        (json!({"podNetworks": ["10.0.0.1/8"]}), "spec.podNetworks"),
        (json!({"podNetworks": ["0.0.0.0/0"]}), "spec.podNetworks"),
        (json!({"podNetworks": ["fe80::/10"]}), "spec.podNetworks"),
        (json!({"podNetworks": vec!["10.0.0.0/8"; 65]}), "spec.podNetworks"),
    ] {
        let errors = decode_spec(&spec).expect_err(&spec.to_string());
        let fields: Vec<_> = errors.iter().map(|error| error.field).collect();
        assert_eq!(fields, [field], "{spec}");
        assert!(
            errors[0].problem.contains(": "),
            "no remedy in {:?}",
            errors[0].problem
        );
    }
}

#[test]
fn a_list_of_wrong_entries_is_one_refusal_with_their_number() {
    for (field, spec) in [
        ("spec.keys.nodes", json!({"keys": {"nodes": vec!["Bad"; 5000]}})),
        ("spec.podNetworks", json!({"podNetworks": vec!["10.0.0.1/8"; 60]})),
    ] {
        let errors = decode_spec(&spec).unwrap_err();
        assert_eq!(errors.len(), 1, "{field}");
        assert_eq!(errors[0].field, field);
        assert!(errors[0].problem.contains("more)"), "{}", errors[0].problem);
        assert!(errors[0].problem.len() < 300, "{}", errors[0].problem);
    }
}

#[test]
fn all_wrong_fields_are_named_at_once() {
    let errors = decode_spec(&json!({"mtu": 1, "encryption": 1, "keys": {"epoch": 0}})).unwrap_err();
    let fields: Vec<_> = errors.iter().map(|error| error.field).collect();
    assert_eq!(fields, ["spec.encryption", "spec.mtu", "spec.keys.epoch"]);
}
