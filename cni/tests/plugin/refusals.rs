//! Calls that are wrong: they are refused before the agent hears of them.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use serde_json::{Value, json};
use warren_cni_wire::Outcome;

use crate::harness::{Call, FakeAgent, NETNS, nobody};

/// Runs the call that `change` makes of a right one, and asserts that it is refused without the agent's help.
fn refused(command: &str, version: &str, code: u32, change: impl FnOnce(Call) -> Call) -> String {
    let agent = FakeAgent::answering(Outcome::Done);
    let told = change(Call::new(command, version, agent.run_dir()))
        .run()
        .error(version, code);
    assert!(agent.was_not_asked(), "{told}");
    told
}

#[test]
fn without_a_command_it_says_what_it_is() {
    for empty in [false, true] {
        let (_dir, nobody) = nobody();
        let call = Call::new("", "1.0.0", &nobody);
        let ended = if empty { call } else { call.without("CNI_COMMAND") }.run();
        let told = ended.error("1.1.0", 4);
        assert!(told.contains("CNI_COMMAND"), "{told}");
        assert!(
            ended
                .stderr
                .contains(concat!("warren-cni ", env!("CARGO_PKG_VERSION"))),
            "{}",
            ended.stderr
        );
        assert!(
            ended.stderr.contains("0.3.0") && ended.stderr.contains("1.1.0"),
            "{}",
            ended.stderr
        );
    }
}

#[test]
fn an_unknown_command_is_named_with_the_known_ones() {
    for command in ["add", "UPDATE", "ADD "] {
        let told = refused(command, "1.1.0", 4, |call| call);
        assert!(
            told.contains(&format!("{command:?}")) && told.contains("ADD, DEL, CHECK, GC, STATUS, VERSION")
        );
    }
}

#[test]
fn all_missing_variables_are_named_at_once() {
    for command in ["ADD", "CHECK"] {
        let told = refused(command, "1.0.0", 4, |call| {
            call.without("CNI_CONTAINERID")
                .without("CNI_NETNS")
                .env("CNI_IFNAME", "")
        });
        assert!(told.contains("CNI_CONTAINERID, CNI_NETNS, CNI_IFNAME"), "{told}");
    }
    let told = refused("DEL", "1.0.0", 4, |call| {
        call.without("CNI_CONTAINERID").without("CNI_NETNS")
    });
    assert!(
        told.contains("CNI_CONTAINERID") && !told.contains("CNI_NETNS"),
        "{told}"
    );
}

#[test]
fn odd_variables_are_refused_by_name() {
    for (name, value) in [
        ("CNI_CONTAINERID", "../../etc/passwd"),
        ("CNI_CONTAINERID", "a b"),
        ("CNI_IFNAME", "eth0/../../x"),
        ("CNI_IFNAME", "sixteen-letters-"),
        ("CNI_IFNAME", ".."),
        ("CNI_NETNS", "run/netns/a"),
        ("CNI_NETNS", "/run/netns/../../proc/1/ns/net"),
        ("CNI_ARGS", "K8S_POD_NAMESPACE"),
        ("CNI_ARGS", "IgnoreUnknown=0;FOO=BAR"),
        ("CNI_ARGS", "FOO=BAR"),
        ("CNI_ARGS", "K8S_POD_NAMESPACE=default"),
        ("CNI_ARGS", "K8S_POD_NAME=web-0"),
        ("CNI_ARGS", "K8S_POD_NAMESPACE=../x;K8S_POD_NAME=web-0"),
    ] {
        let told = refused("ADD", "1.0.0", 4, |call| call.env(name, value));
        assert!(told.contains(name), "{name}={value}: {told}");
    }
    for name in ["CNI_CONTAINERID", "CNI_IFNAME", "CNI_NETNS", "CNI_ARGS"] {
        let told = refused("ADD", "1.0.0", 4, |call| {
            call.env(name, OsStr::from_bytes(b"a\xff"))
        });
        assert!(told.contains(name) && told.contains("UTF-8"), "{told}");
    }
    let told = refused("ADD", "1.1.0", 4, |call| {
        call.env("CNI_COMMAND", OsStr::from_bytes(b"\xff"))
    });
    assert!(told.contains("CNI_COMMAND"), "{told}");
}

#[test]
fn a_pod_in_the_namespace_of_the_node_itself_is_refused() {
    for path in ["/proc/self/ns/net", "/proc/thread-self/ns/net"] {
        let told = refused("ADD", "1.1.0", 8, |call| call.env("CNI_NETNS", path));
        assert!(told.contains(path) && told.contains("node's own"), "{told}");
    }
}

#[test]
fn a_command_is_refused_before_the_version_that_brought_it() {
    for (command, version, since) in [
        ("CHECK", "0.3.0", "0.4.0"),
        ("CHECK", "0.3.1", "0.4.0"),
        ("GC", "1.0.0", "1.1.0"),
        ("STATUS", "0.4.0", "1.1.0"),
        ("STATUS", "1.0.0", "1.1.0"),
    ] {
        let told = refused(command, version, 1, |call| call);
        assert!(told.contains(command) && told.contains(since), "{told}");
    }
}

#[test]
fn bad_configurations_are_refused_with_their_code() {
    let right = json!({"cniVersion": "1.1.0", "name": "warren", "type": "warren-cni"});
    let with = |key: &str, value: Value| {
        let mut conf = right.clone();
        conf[key] = value;
        conf.to_string()
    };
    for (stdin, code, part) in [
        (String::new(), 6, "not a JSON object"),
        ("{".into(), 6, "not a JSON object"),
        ("[]".into(), 6, "not a JSON object"),
        ("\u{0}\u{1}".into(), 6, "not a JSON object"),
        (with("cniVersion", json!("0.2.0")), 1, "0.2.0"),
        (with("cniVersion", json!(null)), 1, "0.1.0"),
        (
            with("cniVersion", json!("2.0.0")),
            1,
            "0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0",
        ),
        (with("name", json!(null)), 7, "name"),
        (with("name", json!("../x")), 7, "name"),
        (with("timeoutSeconds", json!(0)), 7, "timeoutSeconds"),
        (with("timeoutSeconds", json!("9")), 6, "timeoutSeconds"),
        (with("runDir", json!("relative")), 7, "runDir"),
        (
            with("runDir", json!(format!("/{}", "r".repeat(120)))),
            7,
            "runDir",
        ),
        (with("ipam", json!({"type": "host-local"})), 2, "host-local"),
        (with("mtu", json!(9000)), 2, "9000"),
        (
            with("runtimeConfig", json!({"ips": ["10.0.0.9/24"]})),
            2,
            "10.0.0.9/24",
        ),
        (" ".repeat((1 << 20) + 1), 7, "longer than 1048576 bytes"),
        ("x".repeat(5 << 20), 7, "longer than 1048576 bytes"),
    ] {
        let told = refused("ADD", "1.1.0", code, |call| call.stdin(stdin.clone()));
        assert!(told.contains(part), "{}: {told}", &stdin[..stdin.len().min(80)]);
    }
}

#[test]
fn add_after_another_plugin_is_refused_with_the_order_as_remedy() {
    let made =
        json!({"interfaces": [{"name": "eth0", "sandbox": NETNS}], "ips": [{"address": "10.0.0.2/24"}]});
    let told = refused("ADD", "1.0.0", 7, |call| call.conf("prevResult", made));
    assert!(
        told.contains("interface eth0 was already made") && told.contains("put warren-cni first"),
        "{told}"
    );

    let elsewhere = json!({"interfaces": [{"name": "eth0"}, {"name": "lo", "sandbox": NETNS}]});
    let told = refused("ADD", "0.3.1", 7, |call| call.conf("prevResult", elsewhere));
    assert!(
        told.contains("after another plugin") && told.contains("put warren-cni first"),
        "{told}"
    );

    let told = refused("ADD", "1.0.0", 6, |call| call.conf("prevResult", json!([1])));
    assert!(told.contains("prevResult"), "{told}");
}

#[test]
fn check_without_a_readable_previous_result_is_refused() {
    for (prev, code) in [
        (json!(null), 7),
        (json!("x"), 6),
        (json!({"ips": [{"address": "10.0.0.300/32"}]}), 6),
    ] {
        let told = refused("CHECK", "1.0.0", code, |call| call.conf("prevResult", prev));
        assert!(told.contains("prevResult"), "{told}");
    }
}

#[test]
fn gc_that_does_not_say_what_to_keep_is_refused() {
    let told = refused("GC", "1.1.0", 7, |call| call);
    assert!(told.contains("cni.dev/valid-attachments"), "{told}");
    for wrong in [
        json!([{"containerID": "c1"}]),
        json!([{"containerID": "/", "ifname": "eth0"}]),
        json!("all"),
    ] {
        let told = refused("GC", "1.1.0", 6, |call| {
            call.conf("cni.dev/valid-attachments", wrong)
        });
        assert!(told.contains("cni.dev/valid-attachments"), "{told}");
    }
}
