//! The configuration socket, by way of the stock `wg` and by hand.

use std::io::{Read, Write};

use super::nodes::{Network, eventually, hex, join};

#[test]
fn wg_shows_a_device_in_all_its_forms() {
    let Some(mut network) = Network::new() else { return };
    let (a, b) = (network.node(), network.node());
    let (key_a, key_b) = (a.start_device(), b.start_device());
    a.sh("wg set wg0 fwmark 7");
    join((&a, &key_a), (&b, &key_b), "192.0.2.", "");
    assert_eq!(a.sh("wg show interfaces").trim(), "wg0");
    let dump = a.sh("wg show all dump");
    let lines: Vec<Vec<&str>> = dump.lines().map(|line| line.split('\t').collect()).collect();
    assert_eq!(lines[0], ["wg0", &key_a.private, &key_a.public, "51820", "0x7"]);
    let peer = [
        "wg0",
        &key_b.public,
        "(none)",
        "192.0.2.2:51820",
        "10.5.2.0/24,fd05::2/128",
        "0",
        "0",
        "0",
        "off",
    ];
    assert_eq!(lines[1], peer);
    let conf = a.sh("wg showconf wg0");
    assert!(
        conf.contains("ListenPort = 51820") && conf.contains(&format!("PublicKey = {}", key_b.public)),
        "{conf}"
    );
}

#[test]
fn setconf_replaces_everything_and_syncconf_only_what_differs() {
    let Some(mut network) = Network::new() else { return };
    let (a, b) = (network.node(), network.node());
    let (key_a, key_b) = (a.start_device(), b.start_device());
    join((&a, &key_a), (&b, &key_b), "192.0.2.", "");
    a.expect_ping("10.5.2.1");
    a.sh("wg showconf wg0 > /run/conf");

    let handshake = a.shows("latest-handshakes", &key_b);
    let other = b.sh("wg genkey | wg pubkey").trim().to_owned();
    a.sh(&format!(
        "(cat /run/conf; printf '[Peer]\\nPublicKey = {other}\\nAllowedIPs = 10.9.0.0/24\\n') > /run/more"
    ));
    a.sh("wg syncconf wg0 /run/more");
    assert!(a.sh("wg show wg0 peers").contains(&other));
    assert!(a.pings("10.5.2.1"));
    assert_eq!(
        a.shows("latest-handshakes", &key_b),
        handshake,
        "the peer has been left alone"
    );
    a.sh("wg syncconf wg0 /run/conf");
    assert!(!a.sh("wg show wg0 peers").contains(&other));
    assert_eq!(a.shows("latest-handshakes", &key_b), handshake);

    a.sh("wg setconf wg0 /run/conf");
    assert_eq!(
        a.shows("latest-handshakes", &key_b),
        "0",
        "a new peer of the same key"
    );
    a.expect_ping("10.5.2.1");
}

#[test]
fn changing_one_peer_does_not_disturb_another() {
    let Some(mut network) = Network::new() else { return };
    let (a, b, c) = (network.node(), network.node(), network.node());
    let (key_a, key_b, key_c) = (a.start_device(), b.start_device(), c.start_device());
    join((&a, &key_a), (&b, &key_b), "192.0.2.", "");
    let stream = "ping -n -q -i 0.01 -c 200 -W 1 10.5.2.1";
    a.expect_ping("10.5.2.1");
    let result = std::thread::scope(|scope| {
        let pinging = scope.spawn(|| a.sh(stream));
        for _ in 0..10 {
            join((&a, &key_a), (&c, &key_c), "192.0.2.", "");
            // Longer than the 20 ms within which C takes no other handshake of A.
            a.sh("ping -n -q -c 5 -i 0.01 -W 1 10.5.3.1");
            a.sh(&format!("wg set wg0 peer {} remove", key_c.public));
        }
        pinging.join().unwrap()
    });
    assert!(result.contains(" 0% packet loss"), "{result}");
}

#[test]
fn an_allowed_ip_moves_to_whom_it_is_given_and_one_alone_can_be_taken_away() {
    let Some(mut network) = Network::new() else { return };
    let (a, b, c) = (network.node(), network.node(), network.node());
    let (key_a, key_b, key_c) = (a.start_device(), b.start_device(), c.start_device());
    join((&a, &key_a), (&b, &key_b), "192.0.2.", "");
    join((&a, &key_a), (&c, &key_c), "192.0.2.", "");
    a.expect_ping("fd05::2");
    a.expect_ping("10.5.3.1");
    let hex = hex(&key_b.public);
    let drops = a.drops("no_peer_for_destination");
    assert_eq!(
        a.ask(&format!(
            "set=1\npublic_key={hex}\nupdate_only=true\nallowed_ip=-10.5.2.0/24\n\n"
        )),
        "errno=0\n\n"
    );
    assert_eq!(a.shows("allowed-ips", &key_b), "fd05::2/128");
    a.pings_in_vain("10.5.2.1");
    assert!(a.drops("no_peer_for_destination") >= drops + 10);
    assert!(a.pings("fd05::2"), "the other prefix of the peer");
    // What is another's cannot be taken away.
    assert_eq!(
        a.ask(&format!("set=1\npublic_key={hex}\nallowed_ip=-10.5.3.0/24\n\n")),
        "errno=0\n\n"
    );
    assert!(a.pings("10.5.3.1"));
    assert_eq!(
        a.ask(&format!("set=1\npublic_key={hex}\nallowed_ip=10.5.3.0/24\n\n")),
        "errno=0\n\n"
    );
    assert_eq!(a.shows("allowed-ips", &key_c), "fd05::3/128");
    assert!(!a.pings("10.5.3.1"));
}

#[test]
fn a_port_in_use_is_refused_and_the_old_one_stays() {
    let Some(mut network) = Network::new() else { return };
    let (a, b) = (network.node(), network.node());
    let (key_a, key_b) = (a.start_device(), b.start_device());
    join((&a, &key_a), (&b, &key_b), "192.0.2.", "");
    a.expect_ping("10.5.2.1");
    a.sh(&format!(
        "{} wg1 && wg set wg1 listen-port 6000",
        super::nodes::WARREN_WG
    ));
    assert_eq!(a.ask("set=1\nlisten_port=6000\nfwmark=9\n\n"), "errno=-98\n\n");
    assert!(!a.try_sh("wg set wg0 listen-port 6000").status.success());
    assert_eq!(a.sh("wg show wg0 listen-port").trim(), "51820");
    assert_eq!(
        a.sh("wg show wg0 fwmark").trim(),
        "off",
        "nothing of a refused request is applied"
    );
    assert!(a.pings("10.5.2.1"));
}

#[test]
fn datagrams_bear_the_mark_also_after_the_port_has_changed() {
    let Some(mut network) = Network::new() else { return };
    let (a, b) = (network.node(), network.node());
    let (key_a, key_b) = (a.start_device(), b.start_device());
    join((&a, &key_a), (&b, &key_b), "192.0.2.", "");
    a.expect_ping("10.5.2.1");
    a.sh("ip rule add fwmark 9 blackhole");
    a.sh("wg set wg0 fwmark 9");
    assert!(!a.pings("10.5.2.1"));
    assert!(a.drops("send_failed") > 0);
    a.sh("wg set wg0 listen-port 6002");
    assert!(!a.pings("10.5.2.1"));
    a.sh("wg set wg0 fwmark 0");
    assert!(a.pings("10.5.2.1"));
}

#[test]
fn a_malformed_or_unfinished_request_changes_nothing() {
    let Some(mut network) = Network::new() else { return };
    let (a, b) = (network.node(), network.node());
    let (_, key_b) = (a.start_device(), b.start_device());
    let before = a.sh("wg show all dump");
    let peer = format!("public_key={}\nallowed_ip=10.5.2.0/24\n", hex(&key_b.public));
    assert_eq!(
        a.ask(&format!("set=1\nlisten_port=6001\n{peer}endpoint=nonsense\n\n")),
        "errno=-22\n\n"
    );
    assert_eq!(
        a.ask(&format!("set=1\n{peer}")),
        "",
        "a client that goes away in the middle"
    );
    assert_eq!(a.ask("get=2\n\n"), "errno=-22\n\n");
    assert_eq!(a.sh("wg show all dump"), before);
    // Several requests on one connection, each with its answer.
    assert_eq!(
        a.ask("set=1\nfwmark=3\n\nset=1\nnonsense\n\nset=1\nfwmark=4\n\n"),
        "errno=0\n\nerrno=-22\n\nerrno=0\n\n"
    );
    assert_eq!(a.sh("wg show wg0 fwmark").trim(), "0x4");
}

#[test]
fn silent_clients_keep_nobody_out() {
    let Some(mut network) = Network::new() else { return };
    let a = network.node();
    let key = a.start_device();
    let mut silent: Vec<_> = (0..100).map(|_| a.connect()).collect();
    silent[99].write_all(b"set=1\nlisten_port=").unwrap();
    assert_eq!(a.sh("wg show wg0 public-key").trim(), key.public);
    // Those who have been silent longest have been sent away.
    assert_eq!(silent[0].read(&mut [0]).unwrap(), 0);
    // A client that asks without reading the answers is not waited for either.
    let mut greedy = a.connect();
    greedy.set_nonblocking(true).unwrap();
    while greedy.write_all(&b"get=1\n\n".repeat(1000)).is_ok() {}
    assert_eq!(a.sh("wg show wg0 public-key").trim(), key.public);
}

#[test]
fn a_new_private_key_takes_effect_and_the_same_one_again_does_not() {
    let Some(mut network) = Network::new() else { return };
    let (a, b) = (network.node(), network.node());
    let (key_a, key_b) = (a.start_device(), b.start_device());
    join((&a, &key_a), (&b, &key_b), "192.0.2.", "");
    a.expect_ping("10.5.2.1");
    let handshake = a.shows("latest-handshakes", &key_b);
    a.sh("wg set wg0 private-key /run/key");
    assert!(a.pings("10.5.2.1"));
    assert_eq!(a.shows("latest-handshakes", &key_b), handshake);

    a.sh("umask 077; wg genkey > /run/key; wg set wg0 private-key /run/key");
    let new = a.sh("wg show wg0 public-key").trim().to_owned();
    assert!(!a.pings("10.5.2.1"), "B does not know the new key");
    b.sh(&format!(
        "wg set wg0 peer {new} allowed-ips 10.5.1.0/24,fd05::1/128"
    ));
    a.expect_ping("10.5.2.1");
    // Without a key nothing goes out.
    a.sh("wg set wg0 private-key /dev/null");
    assert!(!a.pings("10.5.2.1"));
    eventually("the drop is counted", || a.drops("no_private_key") > 0);
}
