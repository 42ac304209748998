//! How a device begins and ends.

use super::nodes::{DEVICES, Network, Node, WARREN_WG, eventually, join};

fn expect_ended(node: &Node) {
    eventually("the process has ended", || node.sh(DEVICES).is_empty());
    assert!(!node.path("/run/wireguard/wg0.sock").exists());
    assert!(!node.try_sh("ip link show wg0").status.success());
}

#[test]
fn sigterm_leaves_nothing_behind() {
    let Some(mut network) = Network::new() else { return };
    let node = network.node();
    for signal in ["TERM", "INT"] {
        node.start_device();
        node.sh(&format!("kill -{signal} $({DEVICES})"));
        expect_ended(&node);
    }
}

#[test]
fn it_ends_with_its_interface_and_with_its_socket() {
    let Some(mut network) = Network::new() else { return };
    let node = network.node();
    node.start_device();
    node.sh("ip link del wg0");
    expect_ended(&node);
    node.start_device();
    node.sh("rm /run/wireguard/wg0.sock");
    expect_ended(&node);
}

#[test]
fn it_outlives_who_started_and_configured_it() {
    let Some(mut network) = Network::new() else { return };
    let (a, b) = (network.node(), network.node());
    // Each command is a process of its own that has ended by the time the next one begins.
    let (key_a, key_b) = (a.start_device(), b.start_device());
    join((&a, &key_a), (&b, &key_b), "192.0.2.", "");
    a.expect_ping("10.5.2.1");
    let stat = a.sh(&format!("cat /proc/$({DEVICES})/stat"));
    let fields: Vec<&str> = stat.split_whitespace().collect();
    assert_eq!(fields[3], "1", "process 1 has adopted it");
    assert_eq!(fields[5], fields[0], "it leads a session of its own");
    assert_eq!(fields[6], "0", "it has no terminal");
}

#[test]
fn a_name_in_use_is_refused_and_a_dead_socket_is_not_in_the_way() {
    let Some(mut network) = Network::new() else { return };
    let node = network.node();
    let key = node.start_device();
    let second = node.try_sh(&format!("{WARREN_WG} wg0"));
    assert_eq!(second.status.code(), Some(1));
    let message = String::from_utf8(second.stderr).unwrap();
    assert!(
        message.contains("another process answers on /var/run/wireguard/wg0.sock"),
        "{message}"
    );
    assert_eq!(
        node.sh("wg show wg0 public-key").trim(),
        key.public,
        "the first one is not disturbed"
    );

    node.sh(&format!("kill -KILL $({DEVICES})"));
    eventually("the process has ended", || {
        !node.try_sh("ip link show wg0").status.success()
    });
    assert!(
        node.path("/run/wireguard/wg0.sock").exists(),
        "a killed process leaves its socket behind"
    );
    node.start_device();
}

#[test]
fn its_socket_may_be_elsewhere() {
    let Some(mut network) = Network::new() else { return };
    let node = network.node();
    node.sh(&format!("cd /run && {WARREN_WG} --run-dir elsewhere wg0"));
    assert!(node.path("/run/elsewhere/wg0.sock").exists());
    // It leaves the directory it was started in, and goes on finding the file.
    let pid = node.sh(DEVICES).trim().to_owned();
    assert_eq!(node.sh(&format!("readlink /proc/{pid}/cwd")).trim(), "/");
    let woken = || -> u64 {
        let line = node.sh(&format!("grep ^voluntary /proc/{pid}/status"));
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    let before = woken();
    eventually("it has looked for the file some times", || woken() > before + 3);
    node.sh("rm /run/elsewhere/wg0.sock");
    expect_ended(&node);
}

#[test]
fn what_cannot_work_fails_before_it_goes_to_the_background() {
    let Some(mut network) = Network::new() else { return };
    let node = network.node();
    for (command, reason) in [
        (
            format!("{WARREN_WG} a-name-of-too-many-letters"),
            "is no interface name",
        ),
        (format!("{WARREN_WG} eth0"), "cannot make TUN interface eth0"),
        (
            format!("WG_TUN_FD=0 {WARREN_WG} wg0 < /dev/null"),
            "is no TUN interface",
        ),
        (
            format!("touch /run/file; {WARREN_WG} --run-dir /run/file wg0"),
            "cannot listen on /run/file",
        ),
    ] {
        let output = node.try_sh(&command);
        assert_eq!(output.status.code(), Some(1), "{command}");
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(message.contains(reason), "{command}: {message}");
        assert_eq!(node.sh(DEVICES), "");
    }
}

#[test]
fn in_the_foreground_it_stays_with_who_started_it() {
    let Some(mut network) = Network::new() else { return };
    let node = network.node();
    for start in [
        format!("{WARREN_WG} -f wg0"),
        format!("WG_PROCESS_FOREGROUND=1 {WARREN_WG} wg0"),
    ] {
        std::thread::scope(|scope| {
            let running = scope.spawn(|| node.try_sh(&start));
            eventually("it answers", || node.try_sh("wg show wg0").status.success());
            assert!(!running.is_finished());
            node.sh(&format!("kill -TERM $({DEVICES})"));
            assert_eq!(running.join().unwrap().status.code(), Some(0));
        });
        expect_ended(&node);
    }
}
