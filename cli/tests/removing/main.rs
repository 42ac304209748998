//! `warren uninstall-node` on a machine of its own: namespaces for users, network and mounts.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod fake_api;
mod machine;
#[path = "../served/mod.rs"]
mod served;

use std::fs;
use std::os::unix::net::UnixListener;

use fake_api::FakeApi;
use machine::{Machine, alone};

#[test]
fn everything_of_ours_goes_and_nothing_else() {
    alone("everything_of_ours_goes_and_nothing_else", || {
        let machine = Machine::installed();
        machine.run("ip link add others type veth peer name others-peer");
        machine.run("ip link set others up");
        machine.run("ip route add 10.99.0.0/24 dev others");
        machine.run("ip route add 10.244.8.0/24 dev others proto 87");
        machine.run("nft add table inet others");
        fs::write(machine.path("cni-conf/20-others.conflist"), "{}").unwrap();

        let output = machine.uninstall(&[]);
        assert_eq!(output.code, 0, "{output:?}");
        for line in [
            "removed route 10.244.7.7/32",
            "removed route 10.244.8.0/24",
            "removed interface wrn0123456789a",
            "removed interface warren0",
            "removed nft table inet warren",
            "removed userspace device warren1",
            "restored sysctl net/ipv4/conf/all/rp_filter",
            "10-warren.conflist",
            "cni-bin/warren-cni",
            "Warren is removed from this node",
        ] {
            assert!(output.stdout.contains(line), "{line}: {output:?}");
        }
        let position = |line: &str| output.stdout.find(line).unwrap();
        assert!(
            position("10-warren.conflist") < position("interface"),
            "no new pod first"
        );
        assert!(position("interface") < position("nft table"), "the guard last");

        machine.holds_nothing_of_ours();
        assert!(machine.says("ip -o link show").contains("others"));
        assert!(machine.says("ip route show").contains("10.99.0.0/24"));
        assert!(machine.says("nft list tables").contains("others"));
        assert!(machine.path("cni-conf/20-others.conflist").exists());
    });
}

#[test]
fn a_second_time_there_is_nothing_to_do() {
    alone("a_second_time_there_is_nothing_to_do", || {
        let machine = Machine::installed();
        assert_eq!(machine.uninstall(&[]).code, 0);
        let again = machine.uninstall(&[]);
        assert_eq!(again.code, 0, "{again:?}");
        assert!(
            again.stdout.ends_with("nothing of Warren is on this node\n"),
            "{again:?}"
        );
        assert!(!again.stdout.contains("removed"), "{again:?}");
    });
}

#[test]
fn the_state_stays_where_that_is_asked_for() {
    alone("the_state_stays_where_that_is_asked_for", || {
        let machine = Machine::installed();
        assert_eq!(machine.uninstall(&["--keep-state"]).code, 0);
        assert!(machine.path("state-of-warren/keys/epoch-1.key").exists());
        assert!(machine.says("nft list tables").is_empty());
    });
}

#[test]
fn nothing_is_touched_while_an_agent_listens() {
    alone("nothing_is_touched_while_an_agent_listens", || {
        let machine = Machine::installed();
        let socket = machine.path("run-of-warren/admin.sock");
        fs::remove_file(&socket).unwrap();
        let agent = UnixListener::bind(&socket).unwrap();
        let refused = machine.uninstall(&[]);
        assert_eq!(refused.code, 2, "{refused:?}");
        assert!(refused.stderr.contains("stop it first"), "{refused:?}");
        assert_eq!(refused.stdout, "");
        assert!(machine.says("nft list tables").contains("inet warren"));
        assert!(machine.path("cni-conf/10-warren.conflist").exists());

        drop(agent);
        assert_eq!(
            machine.uninstall(&[]).code,
            0,
            "its socket is left behind, and nobody listens"
        );
    });
}

#[test]
fn what_cannot_be_removed_is_named_and_the_rest_goes() {
    alone("what_cannot_be_removed_is_named_and_the_rest_goes", || {
        let machine = Machine::installed();
        // A folder where the plugin's file is expected.
        fs::remove_file(machine.path("cni-bin/warren-cni")).unwrap();
        fs::create_dir(machine.path("cni-bin/warren-cni")).unwrap();
        let output = machine.uninstall(&[]);
        assert_eq!(output.code, 1, "{output:?}");
        assert!(
            output.stderr.contains("left") && output.stderr.contains("cni-bin/warren-cni"),
            "{output:?}"
        );
        assert!(machine.says("nft list tables").is_empty());
        assert!(!machine.path("state-of-warren").exists());
    });
}

#[test]
fn a_device_that_does_not_end_is_named_and_loses_its_interface() {
    alone(
        "a_device_that_does_not_end_is_named_and_loses_its_interface",
        || {
            let machine = Machine::installed();
            machine.device_that_hangs("warren0");
            let output = machine.uninstall(&[]);
            assert_eq!(output.code, 1, "{output:?}");
            assert!(
                output.stderr.contains("left userspace device warren0"),
                "{output:?}"
            );
            machine.holds_nothing_of_ours();
        },
    );
}

#[test]
fn sysctls_whose_old_values_nobody_knows_are_named_and_the_rest_goes() {
    alone(
        "sysctls_whose_old_values_nobody_knows_are_named_and_the_rest_goes",
        || {
            let machine = Machine::installed();
            let record = machine.path("state-of-warren/sysctls.json");
            let good = fs::read(&record).unwrap();
            fs::write(&record, "damaged").unwrap();
            let output = machine.uninstall(&[]);
            assert_eq!(output.code, 1, "{output:?}");
            assert!(
                output.stderr.contains("sysctls.json is damaged")
                    && output.stderr.contains("net.ipv4.ip_forward"),
                "{output:?}"
            );
            assert_eq!(machine.says("nft list tables"), "");
            assert!(!machine.says("ip -o link show").contains("wrn"));
            let left = fs::read_dir(record.parent().unwrap()).unwrap();
            let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
            assert_eq!(left, ["sysctls.json"], "the keys among others are gone");

            fs::write(&record, good).unwrap();
            let output = machine.uninstall(&[]);
            assert_eq!(output.code, 0, "{output:?}");
            machine.holds_nothing_of_ours();
        },
    );
}

#[test]
fn what_the_node_publishes_is_withdrawn_where_that_is_asked_for() {
    alone(
        "what_the_node_publishes_is_withdrawn_where_that_is_asked_for",
        || {
            let machine = Machine::installed();
            let api = FakeApi::start(&machine.path("cni-conf"));
            let output =
                machine.uninstall(&["--withdraw", "--node-name", "a", "--kubeconfig", api.kubeconfig()]);
            assert_eq!(output.code, 0, "{output:?}");
            assert!(
                output
                    .stdout
                    .contains("removed annotation warren-mesh.io/wireguard of Node a"),
                "{output:?}"
            );
            let (line, body) = api.asked();
            assert!(line.starts_with("patch /api/v1/nodes/a?"), "{line}");
            assert_eq!(
                body,
                r#"{"metadata":{"annotations":{"warren-mesh.io/wireguard":null}}}"#
            );
        },
    );
}

#[test]
fn a_withdrawal_that_cannot_work_is_found_out_before_anything_is_removed() {
    alone(
        "a_withdrawal_that_cannot_work_is_found_out_before_anything_is_removed",
        || {
            let machine = Machine::installed();
            let output = machine.uninstall(&[
                "--withdraw",
                "--node-name",
                "a",
                "--kubeconfig",
                "/no/such/kubeconfig",
            ]);
            assert_eq!(output.code, 2, "{output:?}");
            assert!(output.stderr.contains("/no/such/kubeconfig"), "{output:?}");
            assert!(machine.path("cni-conf/10-warren.conflist").exists());
            assert!(machine.says("nft list tables").contains("inet warren"));
        },
    );
}
