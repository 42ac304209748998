//! Each command in each version that has it, when all is well.

use serde_json::{Value, json};
use warren_cni_wire::{
    AddResult, AttachmentId, Command, ErrorCode, Interface, IpConfig, MacAddr, Outcome, PodRef, Route,
};

use crate::harness::{Call, FakeAgent, NETNS, nobody};

const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

fn attachment() -> AttachmentId {
    AttachmentId {
        container_id: "c1".parse().expect("right"),
        if_name: "eth0".parse().expect("right"),
    }
}

fn pod() -> Option<PodRef> {
    Some(PodRef::new("default".into(), "web-0".into(), Some("6f1".into())).expect("right"))
}

fn added() -> AddResult {
    let ip = |address: &str, gateway: &str| IpConfig {
        address: address.parse().expect("right"),
        gateway: Some(gateway.parse().expect("right")),
        interface: Some(1),
    };
    AddResult {
        interfaces: vec![
            Interface {
                name: "wrn0123456789".parse().expect("right"),
                mac: Some(MacAddr([2, 0, 0, 0, 0, 1])),
                mtu: Some(1420),
                sandbox: None,
            },
            Interface {
                name: "eth0".parse().expect("right"),
                mac: Some(MacAddr([2, 0, 0, 0, 0, 2])),
                mtu: Some(1420),
                sandbox: Some(NETNS.parse().expect("right")),
            },
        ],
        ips: vec![ip("10.244.1.2/32", "169.254.1.1"), ip("fd00:1::2/128", "fe80::1")],
        routes: vec![Route {
            dst: "0.0.0.0/0".parse().expect("right"),
            gw: Some("169.254.1.1".parse().expect("right")),
            mtu: None,
        }],
        ..AddResult::default()
    }
}

/// What ADD printed, as the runtime hands it back.
fn prev_result(version: &str) -> Value {
    let agent = FakeAgent::answering(Outcome::Added(added()));
    Call::new("ADD", version, agent.run_dir()).run().result()
}

#[test]
fn add_prints_the_result_in_the_version_asked() {
    for version in VERSIONS {
        let agent = FakeAgent::answering(Outcome::Added(added()));
        let result = Call::new("ADD", version, agent.run_dir()).run().result();
        let request = agent.request();
        assert_eq!(request.network.as_str(), "warren");
        let netns = NETNS.parse().expect("right");
        assert_eq!(
            request.command,
            Command::Add {
                attachment: attachment(),
                netns,
                pod: pod()
            }
        );

        assert_eq!(result["cniVersion"], version);
        let old = version.starts_with("0.");
        assert_eq!(
            result["ips"][0].get("version"),
            old.then_some(&json!("4")),
            "{version}"
        );
        assert_eq!(
            result["ips"][1].get("version"),
            old.then_some(&json!("6")),
            "{version}"
        );
        assert_eq!(result["ips"][1]["address"], "fd00:1::2/128");
        let newest = version == "1.1.0";
        assert_eq!(
            result["interfaces"][1].get("mtu"),
            newest.then_some(&json!(1420)),
            "{version}"
        );
        assert_eq!(result["interfaces"][1]["sandbox"], NETNS);
        assert_eq!(
            result["routes"],
            json!([{"dst": "0.0.0.0/0", "gw": "169.254.1.1"}])
        );
        assert_eq!(result.get("dns"), None);
    }
}

#[test]
fn add_puts_the_configured_dns_into_the_result() {
    let agent = FakeAgent::answering(Outcome::Added(added()));
    let dns = json!({"nameservers": ["10.96.0.10"], "search": ["svc.cluster.local"]});
    let result = Call::new("ADD", "1.0.0", agent.run_dir())
        .conf("dns", dns.clone())
        .run()
        .result();
    assert_eq!(result["dns"], dns);
}

#[test]
fn add_takes_an_empty_previous_result_for_none() {
    for empty in [
        json!(null),
        json!({}),
        json!({"cniVersion": "1.0.0", "interfaces": [], "ips": null, "dns": {}}),
    ] {
        let agent = FakeAgent::answering(Outcome::Added(added()));
        Call::new("ADD", "1.0.0", agent.run_dir())
            .conf("prevResult", empty)
            .run()
            .result();
    }
}

#[test]
fn add_without_pod_args_is_for_no_pod() {
    for args in [
        "",
        "IgnoreUnknown=true;FOO=BAR",
        "K8S_POD_NAMESPACE=;K8S_POD_NAME=;",
    ] {
        let agent = FakeAgent::answering(Outcome::Added(added()));
        Call::new("ADD", "1.0.0", agent.run_dir())
            .env("CNI_ARGS", args)
            .run()
            .result();
        let Command::Add { pod, .. } = agent.request().command else {
            panic!("the agent is asked to add")
        };
        assert_eq!(pod, None, "{args}");
    }
}

#[test]
fn del_says_nothing_and_looks_at_nothing_it_can_do_without() {
    for version in VERSIONS {
        let agent = FakeAgent::answering(Outcome::Done);
        Call::new("DEL", version, agent.run_dir())
            .run()
            .succeeded_silently();
        let netns = Some(NETNS.parse().expect("right"));
        assert_eq!(
            agent.request().command,
            Command::Del {
                attachment: attachment(),
                netns,
                pod: pod()
            }
        );
    }
    for netns in ["", "not/absolute", "/run/../x"] {
        let agent = FakeAgent::answering(Outcome::Done);
        Call::new("DEL", "1.0.0", agent.run_dir())
            .env("CNI_NETNS", netns)
            .env("CNI_ARGS", "nonsense")
            .conf("prevResult", json!("nonsense"))
            .run()
            .succeeded_silently();
        let expected = Command::Del {
            attachment: attachment(),
            netns: None,
            pod: None,
        };
        assert_eq!(agent.request().command, expected);
    }
}

#[test]
fn check_agrees_with_what_add_printed_in_each_version_that_has_it() {
    for version in ["0.4.0", "1.0.0", "1.1.0"] {
        let agent = FakeAgent::answering(Outcome::Added(added()));
        let prev = prev_result(version);
        Call::new("CHECK", version, agent.run_dir())
            .conf("prevResult", prev)
            .run()
            .succeeded_silently();
        let netns = NETNS.parse().expect("right");
        assert_eq!(
            agent.request().command,
            Command::Check {
                attachment: attachment(),
                netns,
                pod: pod()
            }
        );
    }
}

#[test]
fn check_allows_for_what_later_plugins_add_and_change() {
    let mut prev = prev_result("1.1.0");
    prev["interfaces"][1]["mac"] = json!("02:00:00:00:00:99");
    prev["interfaces"][1]["mtu"] = json!(1300);
    prev["routes"] = json!([]);
    prev["interfaces"]
        .as_array_mut()
        .expect("a list")
        .push(json!({"name": "a name of another plugin"}));
    prev["ips"]
        .as_array_mut()
        .expect("a list")
        .push(json!({"address": "10.9.9.9/24", "interface": 2}));
    let agent = FakeAgent::answering(Outcome::Added(added()));
    Call::new("CHECK", "1.1.0", agent.run_dir())
        .conf("prevResult", prev)
        .run()
        .succeeded_silently();
}

#[test]
fn check_refuses_what_the_runtime_does_not_remember_so() {
    let right = prev_result("1.1.0");
    let changed = |pointer: &str, value: Value| {
        let mut prev = right.clone();
        *prev.pointer_mut(pointer).expect("it is there") = value;
        prev
    };
    for (prev, part) in [
        (
            changed("/ips/0/address", json!("10.244.1.3/32")),
            "no address 10.244.1.2/32 on eth0",
        ),
        (
            changed("/ips/1/interface", json!(0)),
            "no address fd00:1::2/128 on eth0",
        ),
        (changed("/ips", json!([])), "no address 10.244.1.2/32"),
        (changed("/interfaces/1/name", json!("eth1")), "no interface eth0"),
        (
            changed("/interfaces/1/sandbox", json!("/var/run/netns/other")),
            "no interface eth0 in /var/run",
        ),
        (json!({}), "no interface eth0"),
    ] {
        let agent = FakeAgent::answering(Outcome::Added(added()));
        let call = Call::new("CHECK", "1.1.0", agent.run_dir()).conf("prevResult", prev);
        let text = call.run().error("1.1.0", ErrorCode::ATTACHMENT_DIFFERS.0);
        assert!(text.contains("c1/eth0") && text.contains(part), "{text}");
    }
    let mut held = added();
    held.interfaces[1].name = "eth7".parse().expect("right");
    let agent = FakeAgent::answering(Outcome::Added(held));
    let call = Call::new("CHECK", "1.1.0", agent.run_dir()).conf("prevResult", right);
    let text = call.run().error("1.1.0", ErrorCode::ATTACHMENT_DIFFERS.0);
    assert!(text.contains("warren-agent holds no interface eth0"), "{text}");
}

#[test]
fn gc_passes_on_what_to_keep_and_needs_no_attachment() {
    for (listed, expected) in [
        (
            json!([{"containerID": "c1", "ifname": "eth0"}]),
            vec![attachment()],
        ),
        (json!([]), vec![]),
    ] {
        let agent = FakeAgent::answering(Outcome::Done);
        Call::new("GC", "1.1.0", agent.run_dir())
            .without("CNI_CONTAINERID")
            .without("CNI_NETNS")
            .without("CNI_IFNAME")
            .without("CNI_ARGS")
            .conf("cni.dev/valid-attachments", listed)
            .run()
            .succeeded_silently();
        assert_eq!(
            agent.request().command,
            Command::Gc {
                valid_attachments: expected
            }
        );
    }
}

#[test]
fn status_passes_on_what_the_agent_says_of_itself() {
    let agent = FakeAgent::answering(Outcome::Done);
    let bare = |agent: &FakeAgent| {
        Call::new("STATUS", "1.1.0", agent.run_dir())
            .without("CNI_CONTAINERID")
            .without("CNI_IFNAME")
            .run()
    };
    bare(&agent).succeeded_silently();
    assert_eq!(agent.request().command, Command::Status);

    for code in [ErrorCode::PLUGIN_NOT_AVAILABLE, ErrorCode::LIMITED_CONNECTIVITY] {
        let agent = FakeAgent::answering(Outcome::Error {
            code,
            msg: "the node has no pod CIDR".into(),
            details: "spec.podCIDRs is empty".into(),
        });
        assert_eq!(
            bare(&agent).error("1.1.0", code.0),
            "the node has no pod CIDR: spec.podCIDRs is empty"
        );
    }
}

#[test]
fn version_answers_without_an_agent_whatever_is_on_stdin() {
    let (_dir, nobody) = nobody();
    for (stdin, expected) in [
        (r#"{"cniVersion":"0.4.0"}"#, "0.4.0"),
        (r#"{"cniVersion":"1.1.0","name":7}"#, "1.1.0"),
        ("", "1.1.0"),
        ("nonsense", "1.1.0"),
    ] {
        let call = Call::new("VERSION", "1.1.0", &nobody)
            .without("CNI_CONTAINERID")
            .without("CNI_NETNS");
        let result = call.without("CNI_IFNAME").stdin(stdin).run().result();
        assert_eq!(
            result,
            json!({"cniVersion": expected, "supportedVersions": VERSIONS})
        );
    }
    let long = vec![b'['; 3 << 20];
    assert_eq!(
        Call::new("VERSION", "1.1.0", &nobody).stdin(long).run().result()["cniVersion"],
        "1.1.0"
    );
}

#[test]
fn errors_of_the_agent_are_told_in_the_version_asked() {
    for version in VERSIONS {
        let agent = FakeAgent::answering(Outcome::Error {
            code: ErrorCode::ADDRESSES_EXHAUSTED,
            msg: "no free IPv4 pod address".into(),
            details: String::new(),
        });
        let ended = Call::new("ADD", version, agent.run_dir()).run();
        assert_eq!(ended.error(version, 102), "no free IPv4 pod address: ");
    }
}
