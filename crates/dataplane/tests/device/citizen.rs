//! A drop-in for `wireguard-go`: what it is started with, what it says, and what it gives up.

use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::process::Command;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use warren_dataplane::tun::Tun;

use super::nodes::{DEVICES, Network, WARREN_WG, join, role};

/// `CAP_NET_ADMIN` and `CAP_NET_BIND_SERVICE`.
const KEPT: &str = "0000000000001400";

#[test]
fn every_thread_has_given_up_what_it_does_not_need_and_configuration_still_works() {
    let Some(mut network) = Network::new() else { return };
    let (a, b) = (network.node(), network.node());
    let (key_a, key_b) = (a.start_device(), b.start_device());
    let pid = a.sh(DEVICES).trim().to_owned();
    let threads = a.sh(&format!("cat /proc/{pid}/task/*/status"));
    let values = |name: &str| -> Vec<String> {
        let lines = threads.lines().filter_map(|line| line.strip_prefix(name));
        lines.map(|value| value.trim().to_owned()).collect()
    };
    let count = values("Name:").len();
    assert!(count > 4, "{threads}");
    for (name, value) in [
        ("CapEff:", KEPT),
        ("CapPrm:", KEPT),
        ("CapInh:", "0000000000000000"),
        ("CapAmb:", "0000000000000000"),
        ("NoNewPrivs:", "1"),
    ] {
        assert_eq!(values(name), vec![value; count], "{name}");
    }
    // The two that are left are for this.
    a.sh("wg set wg0 listen-port 53 fwmark 9");
    join((&a, &key_a), (&b, &key_b), "192.0.2.", "");
    b.sh(&format!("wg set wg0 peer {} endpoint 192.0.2.1:53", key_a.public));
    a.expect_ping("10.5.2.1");
    // And these need none.
    a.sh("ip link set wg0 mtu 1300 && wg set wg0 listen-port 51820 fwmark 0");
    b.sh(&format!(
        "wg set wg0 peer {} endpoint 192.0.2.1:51820",
        key_a.public
    ));
    a.expect_ping("10.5.2.1");
}

/// Runs its arguments as an ordinary user. Where udev has not opened the TUN device to everybody, as its rules do, he sees one that is.
const AS_ORDINARY_USER: &str = r#"
    [ "$(stat -c %a /dev/net/tun)" = 666 ] ||
        { mount -t tmpfs tmpfs /dev/net && mknod -m 666 /dev/net/tun c 10 200; } || exit
    exec setpriv --reuid 65534 --regid 65534 --clear-groups "$@""#;

#[test]
fn an_ordinary_user_has_it_in_a_namespace_of_his_own() {
    // A place that everybody can read, which the build folder need not be.
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let program = folder.path().join("warren-wg");
    std::fs::copy(WARREN_WG, &program).unwrap();
    let script = format!(
        "mount -t tmpfs tmpfs /run && {program} --run-dir /run/own wg0 && ip link show wg0 >/dev/null && \
         test -S /run/own/wg0.sock && grep -l '^CapEff:\t{KEPT}$' /proc/[0-9]*/status >/run/kept; \
         status=$?; rm -f /run/own/wg0.sock; exit $status",
        program = program.display()
    );
    let mut command = if nix::unistd::geteuid().is_root() {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", AS_ORDINARY_USER, "sh", "unshare"]);
        command
    } else {
        Command::new("unshare")
    };
    command.args(["--user", "--map-root-user", "--net", "--mount", "--pid", "--fork"]);
    command.args(["--mount-proc", "--kill-child", "sh", "-c", &script]);
    let output = command.output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    if message.starts_with("unshare:") && std::env::var("WARREN_REQUIRE").as_deref() != Ok("all") {
        eprintln!("skipped: {message}");
        return;
    }
    assert!(output.status.success(), "{message}");
}

#[test]
fn it_takes_over_the_interface_and_the_socket_that_its_starter_has_opened() {
    if role().is_some() {
        let tun = Tun::create("wg7").unwrap();
        std::fs::create_dir_all("/run/wireguard").unwrap();
        let listener = UnixListener::bind("/run/wireguard/wg7.sock").unwrap();
        for fd in [tun.as_fd(), listener.as_fd()] {
            fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
        }
        let status = Command::new(WARREN_WG)
            .arg("wg7")
            .env("WG_TUN_FD", tun.as_fd().as_raw_fd().to_string())
            .env("WG_UAPI_FD", listener.as_raw_fd().to_string())
            .status();
        assert!(status.unwrap().success());
        return;
    }
    let Some(mut network) = Network::new() else { return };
    let node = network.node();
    let starter = node.play(
        "citizen::it_takes_over_the_interface_and_the_socket_that_its_starter_has_opened",
        "starter",
    );
    let output = starter.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
    // The starter has ended; what it opened lives on.
    node.sh("wg set wg7 listen-port 6000");
    assert_eq!(node.sh("wg show wg7 listen-port").trim(), "6000");
    node.sh(&format!("kill -TERM $({DEVICES})"));
    super::nodes::eventually("all of it has ended", || {
        node.sh(DEVICES).is_empty()
            && !node.try_sh("ip link show wg7").status.success()
            && !node.path("/run/wireguard/wg7.sock").exists()
    });
}

#[test]
fn a_descriptor_that_is_not_what_it_should_be_is_refused() {
    let Some(mut network) = Network::new() else { return };
    let node = network.node();
    for (command, reason) in [
        ("WG_TUN_FD=-1", "is not in 0.."),
        ("WG_TUN_FD=77", "descriptor 77 is not open"),
        (
            "WG_UAPI_FD=0",
            "descriptor 0 (WG_UAPI_FD) is no Unix socket that listens",
        ),
        ("WG_TUN_FD=0 WG_UAPI_FD=0", "the same descriptor"),
    ] {
        let output = node.try_sh(&format!("{command} {WARREN_WG} wg0 < /dev/null"));
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{command}: {message}");
        assert!(message.contains(reason), "{command}: {message}");
        assert_eq!(node.sh(DEVICES), "");
    }
}

#[test]
fn arguments_and_exit_codes_are_those_of_wireguard_go() {
    let run = |arguments: &[&str]| Command::new(WARREN_WG).args(arguments).output().unwrap();
    let version = run(&["--version"]);
    assert_eq!(version.status.code(), Some(0));
    assert!(version.stdout.starts_with(b"warren-wg "), "{version:?}");
    assert_eq!(run(&["--help"]).status.code(), Some(0));
    for wrong in [
        [].as_slice(),
        &["-f"],
        &["wg0", "wg1"],
        &["--no-such-thing", "wg0"],
    ] {
        let output = run(wrong);
        assert_eq!(output.status.code(), Some(1), "{wrong:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{wrong:?}");
    }
}

#[test]
fn its_level_of_logging_is_set_as_for_wireguard_go() {
    let Some(mut network) = Network::new() else { return };
    let node = network.node();
    let log = |level: &str| {
        node.sh(&format!(
            "LOG_LEVEL={level} {WARREN_WG} wg0 2>/run/log; wg set wg0 listen-port 6000"
        ));
        assert_eq!(
            node.ask("set=1\nnonsense\n\n"),
            "errno=-22\n\n",
            "which is worth a warning"
        );
        node.sh(&format!("kill -TERM $({DEVICES})"));
        super::nodes::eventually("it has ended", || node.sh(DEVICES).is_empty());
        node.sh("cat /run/log")
    };
    assert_eq!(log("silent"), "");
    assert_eq!(log("error"), "");
    assert!(log("info").contains("listening"));
    assert!(log("verbose").contains("listening"));
}

#[test]
fn wg_quick_brings_it_up_and_down() {
    let Some(mut network) = Network::new() else { return };
    let (a, b) = (network.node(), network.node());
    let key_b = b.start_device();
    let private = a.sh("wg genkey").trim().to_owned();
    let public = a.sh(&format!("echo {private} | wg pubkey")).trim().to_owned();
    b.sh(&format!(
        "wg set wg0 peer {public} allowed-ips 10.5.1.0/24,fd05::1/128"
    ));
    let conf = format!(
        "[Interface]\nPrivateKey = {private}\nAddress = 10.5.1.1/32, fd05::1/128\nMTU = 1400\n\
         [Peer]\nPublicKey = {}\nEndpoint = 192.0.2.2:51820\nAllowedIPs = 10.5.2.0/24, fd05::2/128\n",
        key_b.public
    );
    std::fs::write(a.path("/run/wg0.conf"), conf).unwrap();
    let quick = format!("WG_QUICK_USERSPACE_IMPLEMENTATION={WARREN_WG} wg-quick");
    a.sh(&format!("chmod 600 /run/wg0.conf && {quick} up /run/wg0.conf"));
    a.expect_ping("10.5.2.1");
    a.expect_ping("fd05::2");
    assert!(a.sh("ip link show wg0").contains("mtu 1400"));
    a.sh(&format!("{quick} down /run/wg0.conf"));
    super::nodes::eventually("all of it has ended", || {
        a.sh(DEVICES).is_empty()
            && !a.try_sh("ip link show wg0").status.success()
            && !a.path("/run/wireguard/wg0.sock").exists()
    });
}
