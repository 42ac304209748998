//! The agent's client, run inside a node.

use std::collections::BTreeSet;
use std::path::Path;

use warren_dataplane::client::{ClientError, Userspace};
use warren_model::{PrivateKey, PublicKey};
use warren_plan::lane::{LaneChange, PeerConfig};

use super::nodes::{Network, Node, WARREN_WG, role};

/// Runs a test inside a node.
fn inside(name: &str, test: impl Future<Output = ()>) {
    if role().is_some() {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build();
        runtime.unwrap().block_on(test);
        return;
    }
    let Some(mut network) = Network::new() else { return };
    let node: Node = network.node();
    let output = node
        .play(&format!("client::{name}"), "client")
        .wait_with_output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
}

fn devices() -> Userspace {
    Userspace::new("/run/wireguard", WARREN_WG)
}

#[test]
fn a_device_is_started_changed_observed_and_stopped() {
    inside("a_device_is_started_changed_observed_and_stopped", async {
        let devices = devices();
        assert_eq!(devices.observe("warren0").await.unwrap(), None);
        devices.start("warren0").await.unwrap();
        devices.start("warren0").await.unwrap(); // it runs already
        let private = PrivateKey::from_bytes(&mut [9; 32]);
        let peer = PublicKey::from_bytes([7; 32]).unwrap();
        let config = PeerConfig {
            endpoint: "192.0.2.9:51820".parse().unwrap(),
            allowed_ips: ["10.244.1.0/24", "fd00:1::/64"]
                .map(|net| net.parse().unwrap())
                .into(),
            keepalive: 25,
        };
        let found = devices.observe("warren0").await.unwrap().unwrap();
        assert_eq!(found.public_key, None);
        assert!(has_interface("warren0"));

        // The public half, as another implementation computes it.
        let public: PublicKey = wg_pubkey(&private).parse().unwrap();
        let changes = [
            LaneChange::SetKey(Some(public)),
            LaneChange::SetPort(51820),
            LaneChange::AddPeer(peer, config.clone()),
        ];
        devices
            .apply_all("warren0", &changes, Some(&private))
            .await
            .unwrap();
        // A copy of the client is as good: nothing is remembered.
        let found = Userspace::new("/run/wireguard", WARREN_WG)
            .observe("warren0")
            .await
            .unwrap()
            .unwrap();
        assert_eq!((found.public_key, found.port), (Some(public), 51820));
        assert_eq!(found.peers[&peer].allowed_ips, config.allowed_ips);
        assert_eq!(found.peers[&peer].endpoint, Some(config.endpoint));
        assert_eq!(
            (found.peers[&peer].keepalive, found.peers[&peer].handshake_age),
            (25, None)
        );

        let gone = "fd00:1::/64".parse().unwrap();
        devices
            .apply("warren0", &LaneChange::RemoveAllowedIp(peer, gone), None)
            .await
            .unwrap();
        let found = devices.observe("warren0").await.unwrap().unwrap();
        assert_eq!(
            found.peers[&peer].allowed_ips,
            BTreeSet::from(["10.244.1.0/24".parse().unwrap()])
        );
        assert_eq!(devices.drops("warren0").await.unwrap()["bad_source"], 0);

        devices.stop("warren0").await.unwrap();
        assert!(!Path::new("/run/wireguard/warren0.sock").exists());
        assert!(!has_interface("warren0"));
        assert_eq!(devices.observe("warren0").await.unwrap(), None);
        devices.stop("warren0").await.unwrap(); // there is none: nothing to do
    });
}

#[test]
fn failures_say_what_failed_and_whether_to_retry() {
    inside("failures_say_what_failed_and_whether_to_retry", async {
        let devices = devices();
        let port = LaneChange::SetPort(51820);
        let error = devices.apply("warren0", &port, None).await.unwrap_err();
        assert!(matches!(error, ClientError::NotRunning { .. }) && error.is_retryable());

        let error = Userspace::new("/run/wireguard", "/nonexistent/warren-wg")
            .start("warren0")
            .await
            .unwrap_err();
        assert!(matches!(error, ClientError::Spawn { .. }) && !error.is_retryable());
        assert!(error.to_string().contains("/nonexistent/warren-wg"));

        let error = devices.start("eth0").await.unwrap_err();
        let ClientError::Failed { message, .. } = &error else {
            panic!("{error:?}")
        };
        assert!(message.contains("cannot make TUN interface eth0"), "{message}");

        let _taken = std::net::UdpSocket::bind("0.0.0.0:51820").unwrap();
        devices.start("warren0").await.unwrap();
        let error = devices.apply("warren0", &port, None).await.unwrap_err();
        assert!(
            matches!(error, ClientError::Reply { .. }) && error.is_retryable(),
            "{error:?}"
        );
        devices.stop("warren0").await.unwrap();

        // Somebody who listens and never answers.
        let _silent = std::os::unix::net::UnixListener::bind("/run/wireguard/warren1.sock").unwrap();
        let error = devices.observe("warren1").await.unwrap_err();
        assert!(
            matches!(error, ClientError::TimedOut { .. }) && error.is_retryable(),
            "{error:?}"
        );
    });
}

#[test]
fn a_device_keeps_its_log_where_it_is_told() {
    inside("a_device_keeps_its_log_where_it_is_told", async {
        let devices = devices().with_log_dir("/run");
        devices.start("warren0").await.unwrap();
        devices.stop("warren0").await.unwrap();
        let log = std::fs::read_to_string("/run/warren0.log").unwrap();
        assert!(log.contains("ready") && log.contains("ending"), "{log}");
    });
}

fn has_interface(name: &str) -> bool {
    std::process::Command::new("ip")
        .args(["link", "show", name])
        .output()
        .unwrap()
        .status
        .success()
}

fn wg_pubkey(private: &PrivateKey) -> String {
    use std::io::Write;
    use std::process::{Command, Stdio};
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut base64 = String::new();
    for chunk in private.expose_bytes().chunks(3) {
        let mut bytes = [0; 4];
        bytes[1..=chunk.len()].copy_from_slice(chunk);
        let group = u32::from_be_bytes(bytes);
        for at in 0..4 {
            let digit = usize::try_from(group >> (18 - 6 * at) & 63).unwrap();
            base64.push(if at > u32::try_from(chunk.len()).unwrap() {
                '='
            } else {
                DIGITS[digit].into()
            });
        }
    }
    let mut wg = Command::new("wg")
        .arg("pubkey")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    wg.stdin
        .take()
        .unwrap()
        .write_all(format!("{base64}\n").as_bytes())
        .unwrap();
    String::from_utf8(wg.wait_with_output().unwrap().stdout)
        .unwrap()
        .trim()
        .to_owned()
}
