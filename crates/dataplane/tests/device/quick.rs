//! `wg-quick`, which makes a device of ours where the kernel has no WireGuard.

use super::nodes::{Network, WARREN_WG, eventually};

/// A default route among the allowed IPs makes wg-quick mark datagrams, and add rules and a firewall.
#[test]
fn wg_quick_takes_the_default_route_and_gives_it_back() {
    if std::path::Path::new("/sys/module/wireguard").exists() {
        eprintln!("skipped: wg-quick uses the kernel's WireGuard where there is one");
        return;
    }
    let Some(mut network) = Network::new() else { return };
    let (a, b) = (network.node(), network.node());
    let key_b = b.start_device();
    b.sh("ip addr add 203.0.113.7/32 dev lo; ip -6 addr add 2001:db8::7/128 dev lo nodad");
    let system = "ip rule; ip -6 rule; ip route; ip -6 route; nft list ruleset";
    let before = a.sh(system);
    let private = a.sh("wg genkey");
    let text = format!(
        "[Interface]\nPrivateKey = {private}ListenPort = 51820\nAddress = 10.5.1.1/24, fd05::1/128\nMTU = 1400\n\n\
         [Peer]\nPublicKey = {}\nEndpoint = 192.0.2.2:51820\nAllowedIPs = 0.0.0.0/0, ::/0\n",
        key_b.public
    );
    a.sh(&format!("umask 077; printf '%s' '{text}' >/run/wg0.conf"));
    let quick = |what| {
        a.sh(&format!(
            "WG_QUICK_USERSPACE_IMPLEMENTATION={WARREN_WG} wg-quick {what} /run/wg0.conf"
        ))
    };
    quick("up");
    b.sh(&format!(
        "wg set wg0 peer {} allowed-ips 10.5.1.0/24,fd05::1/128",
        a.sh("wg show wg0 public-key").trim()
    ));
    assert!(a.sh("ip link show wg0").contains("mtu 1400"));
    assert_ne!(a.sh("wg show wg0 fwmark").trim(), "off");
    a.expect_ping("203.0.113.7");
    a.expect_ping("2001:db8::7");
    quick("down");
    eventually("the device is gone", || {
        !a.path("/run/wireguard/wg0.sock").exists()
    });
    assert_eq!(a.sh(system), before);
}
