//! The configuration protocol by hand: its flags, its errors, many clients.

use super::nodes::{Network, hex};

/// A stranger's key.
fn key(number: u8) -> String {
    format!("{number:02x}").repeat(32)
}

#[test]
fn each_flag_of_the_protocol_does_what_it_says() {
    let Some(mut network) = Network::new() else { return };
    let a = network.node();
    let own = a.start_device();
    let set = |request: &str| {
        assert_eq!(
            a.ask(&format!("set=1\n{request}\n\n")),
            "errno=0\n\n",
            "{request}"
        );
        a.sh("wg show wg0 allowed-ips")
    };
    let (one, two) = (key(1), key(2));
    let found = set(&format!(
        "public_key={one}\nupdate_only=true\nallowed_ip=10.1.0.0/16"
    ));
    assert_eq!(found, "", "update_only makes no peer");
    let found = set(&format!("public_key={one}\nremove=true"));
    assert_eq!(found, "", "nor does remove, and it is no error");
    let found = set(&format!(
        "public_key={one}\nprotocol_version=1\nallowed_ip=10.1.7.9/16\nallowed_ip=fd01::9/64\npublic_key={two}\n\
         allowed_ip=10.2.0.0/16"
    ));
    assert!(
        found.contains("10.1.0.0/16 fd01::/64") && found.contains("10.2.0.0/16"),
        "{found}"
    );
    let found = set(&format!("public_key={one}\nallowed_ip=10.3.0.0/16"));
    assert!(
        found.contains("10.1.0.0/16 10.3.0.0/16"),
        "added to what there is: {found}"
    );
    let found = set(&format!(
        "public_key={one}\nreplace_allowed_ips=true\nallowed_ip=10.4.0.0/16"
    ));
    assert!(
        found.contains("10.4.0.0/16") && !found.contains("10.1.0.0/16"),
        "{found}"
    );
    let found = set(&format!("public_key={one}\nreplace_allowed_ips=true"));
    assert!(found.contains("(none)"), "{found}");

    let preshared = || a.sh("wg show wg0 preshared-keys").matches("(none)").count();
    set(&format!("public_key={one}\npreshared_key={}", key(9)));
    assert_eq!(preshared(), 1);
    set(&format!("public_key={one}\npreshared_key={}", key(0)));
    assert_eq!(preshared(), 2, "all zeros: none");

    let found = set(&format!(
        "replace_peers=true\npublic_key={two}\nallowed_ip=10.5.0.0/16"
    ));
    assert_eq!(
        found.lines().count(),
        1,
        "only those of the request are left: {found}"
    );
    let found = set(&format!(
        "public_key={}\nallowed_ip=10.6.0.0/16",
        hex(&own.public)
    ));
    assert_eq!(found.lines().count(), 1, "nobody is a peer of itself: {found}");
    set("replace_peers=true\nfwmark=16");
    let state = a.ask("get=1\n\n");
    assert!(
        state.contains("fwmark=16\n") && !state.contains("public_key="),
        "{state}"
    );
    assert!(state.ends_with("errno=0\n\n"), "{state}");

    // EINVAL, and nothing of the request is done.
    for bad in [
        "fwmark=1\nno_such_key=1",
        "fwmark=1\nlisten_port=65536",
        "fwmark=1\nallowed_ip=10.0.0.0/8",
        &format!("fwmark=1\npublic_key={one}\nprotocol_version=2"),
        &format!("fwmark=1\npublic_key={one}\nallowed_ip=10.0.0.0/33"),
        &format!("fwmark=1\npublic_key={one}\nreplace_allowed_ips=false"),
        &format!("fwmark=1\npublic_key={one}\npersistent_keepalive_interval=65536"),
        "fwmark=1\npublic_key=abc",
        "fwmark=1\nprivate_key",
    ] {
        assert_eq!(a.ask(&format!("set=1\n{bad}\n\n")), "errno=-22\n\n", "{bad}");
        assert_eq!(a.ask("get=1\n\n"), state, "{bad}");
    }
}

#[test]
fn clients_at_the_same_time_are_all_served() {
    let Some(mut network) = Network::new() else { return };
    let a = network.node();
    a.start_device();
    std::thread::scope(|scope| {
        for client in 1..=8_u8 {
            let a = &a;
            scope.spawn(move || {
                for round in 0..30 {
                    let request = format!(
                        "set=1\npublic_key={}\nreplace_allowed_ips=true\nallowed_ip=10.{client}.{round}.0/24\n\n",
                        key(client)
                    );
                    assert_eq!(a.ask(&request), "errno=0\n\n");
                    // An answer is whole, whatever the others do meanwhile.
                    let state = a.ask("get=1\n\n");
                    assert!(state.contains(&format!("allowed_ip=10.{client}.{round}.0/24\n")), "{state}");
                    assert!(state.ends_with("errno=0\n\n"), "{state}");
                }
            });
        }
    });
    assert_eq!(a.sh("wg show wg0 allowed-ips").lines().count(), 8);
}
