//! `warren doctor` finds nothing on a healthy node, and on a broken one what was broken.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod support;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{PATIENCE, devices, lab, peers, status_when};
use warren_lab::{ApiKind, Lab, LabOptions, Place, PodOptions};

/// How long one examination may take: that of a peer which is silent in a live session takes 12 s.
const EXAMINATION: Duration = Duration::from_secs(40);

#[tokio::test]
async fn a_healthy_node_has_no_finding_and_wrong_credentials_are_found_on_a_real_api_server() {
    let Some(lab) = two_nodes(ApiKind::Real).await else {
        return;
    };
    lab.pod_add(PodOptions::new("pod", "node1")).await.unwrap();
    let healthy = healthy(&lab).await;
    assert!(healthy.of("warn").is_empty(), "{:#}", healthy.json);
    assert_eq!(healthy.code, 0);
    for check in [
        "node-restriction",
        "clock",
        "peer-reachable",
        "path-mtu",
        "udp-ports",
    ] {
        assert!(
            healthy.of("ok").contains_key(check),
            "{check} was looked at: {:#}",
            healthy.json
        );
    }

    let disk = disk(&lab).await;
    let own = std::fs::read_to_string(disk.join("kubeconfig.publish")).unwrap();
    let mut config: Value = serde_json::from_str(&own).unwrap();
    config["users"][0]["user"]["token"] = "expired".into();
    let stale = disk.join("kubeconfig.stale");
    std::fs::write(&stale, config.to_string()).unwrap();
    let stale = stale.to_str().unwrap();
    let found = examine(&lab, &["--kubeconfig", stale]).await;
    assert_eq!(found.failures(), ["api-reading"]);
    assert!(
        found.of("fail")["api-reading"].contains("401"),
        "{:#}",
        found.json
    );

    // The reading identity can change nothing, so it cannot publish; an administrator can too much.
    let reader = disk.join("kubeconfig");
    let found = examine(&lab, &["--publish-kubeconfig", reader.to_str().unwrap()]).await;
    assert_eq!(found.failures(), ["api-publishing"]);
    assert_eq!(found.code, 1);
    let admin = lab.kubeconfig_inside();
    let found = examine(&lab, &["--kubeconfig", &admin, "--publish-kubeconfig", &admin]).await;
    assert_eq!(found.failures(), Vec::<&str>::new());
    assert_eq!(found.code, 0, "warnings alone are no failure");
    let warned: Vec<_> = found.of("warn").into_keys().collect();
    assert_eq!(warned, ["api-reading", "node-restriction"]);
}

#[tokio::test]
async fn broken_files_and_a_stopped_agent_with_all_that_can_break_then_are_found_one_by_one() {
    let Some(lab) = two_nodes(ApiKind::Embedded).await else {
        return;
    };
    healthy(&lab).await;
    let disk = disk(&lab).await;

    let key = disk.join("state/keys/epoch-1.key");
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o644)).unwrap();
    finds(&lab, "key-files", "mode 0644").await;
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o600)).unwrap();

    let other = disk.join("cni/net.d/00-other.conflist");
    std::fs::write(&other, "{}").unwrap();
    finds(&lab, "cni-conf", "00-other.conflist sorts before").await;
    std::fs::remove_file(&other).unwrap();

    let (plugin, aside) = (
        disk.join("cni/bin/warren-cni"),
        disk.join("cni/bin/warren-cni.aside"),
    );
    std::fs::rename(&plugin, &aside).unwrap();
    finds(&lab, "cni-plugin", "cannot be run").await;
    std::fs::rename(&aside, &plugin).unwrap();
    assert_eq!(examine(&lab, &[]).await.failures(), Vec::<&str>::new());

    lab.node_stop("node1").await.unwrap();
    let stopped = examine(&lab, &[]).await;
    assert_eq!(stopped.failures(), ["agent"]);
    assert!(stopped.of("warn").contains_key("leftovers"), "{:#}", stopped.json);

    // What follows an agent would put right by itself.
    let conf = disk.join("cni/net.d/10-warren.conflist");
    let text = std::fs::read(&conf).unwrap();
    std::fs::remove_file(&conf).unwrap();
    finds(&lab, "cni-conf", "there is no").await;
    std::fs::write(&conf, text).unwrap();

    on_node1(&lab, "echo 0 > /proc/sys/net/ipv4/ip_forward").await;
    finds(&lab, "forwarding", "net.ipv4.ip_forward is 0").await;
    on_node1(&lab, "echo 1 > /proc/sys/net/ipv4/ip_forward").await;

    on_node1(&lab, "nft delete chain inet warren fingerprint").await;
    finds(&lab, "guard", "changed by hand").await;
    on_node1(&lab, "nft delete table inet warren").await;
    finds(&lab, "guard", "gone").await;

    let processes = devices(&lab, "node1").await;
    assert_eq!(processes.len(), 2, "a device for each lane");
    on_node1(&lab, &format!("kill -9 {}", processes.join(" "))).await;
    finds(&lab, "wireguard-device", "warren1 is gone").await;

    lab.node_start("node1").await.unwrap();
    healthy(&lab).await;
}

#[tokio::test]
async fn a_port_that_a_firewall_drops_is_named_with_peer_and_endpoint() {
    let options = LabOptions {
        nodes: 2,
        agents: false,
        ..LabOptions::default()
    };
    let Some(lab) = lab(options).await else { return };
    drop_at_node2(&lab, "udp dport 51821").await;
    for node in ["node1", "node2"] {
        lab.node_start(node).await.unwrap();
    }
    status_when(&lab, "a path to each peer", |status| {
        let peers = peers(status);
        peers.len() == 2 && peers.iter().all(|it| it["path"] == "wireguard")
    })
    .await;
    let found = examine(&lab, &[]).await;
    assert_eq!(found.failures(), ["peer-reachable"], "{:#}", found.json);
    let finding = found.finding("peer-reachable");
    assert_eq!(finding["subject"], "node2");
    let (said, remedy) = (
        finding["found"].as_str().unwrap(),
        finding["remedy"].as_str().unwrap(),
    );
    assert!(
        said.contains("10.211.1.12:51821") && said.contains("never"),
        "{said}"
    );
    assert!(
        remedy.contains("UDP 51821") && remedy.contains("firewall"),
        "{remedy}"
    );
    mend_node2(&lab).await;
    healthy(&lab).await;
}

#[tokio::test]
async fn an_mtu_black_hole_is_found_with_what_comes_through() {
    let Some(lab) = two_nodes(ApiKind::Embedded).await else {
        return;
    };
    healthy(&lab).await;
    // Both families' probes may leave in one message. A network card would cut it; a veth carries it whole, longer than
    // any of its datagrams, unless it is told to take one at a time.
    on(&lab, "node1", "ip link set eth0 gso_max_segs 1").await;
    drop_at_node2(&lab, "udp dport 51821 meta length > 1300").await;
    let found = examine(&lab, &[]).await;
    assert_eq!(found.failures(), ["path-mtu"], "{:#}", found.json);
    let finding = found.finding("path-mtu");
    assert_eq!(finding["subject"], "node2");
    // 1232 and the 60 bytes of WireGuard.
    let said = finding["found"].as_str().unwrap();
    assert!(
        said.contains("packets of 1440 bytes") && said.contains("1232 do"),
        "{said}"
    );
    mend_node2(&lab).await;
    healthy(&lab).await;
}

#[tokio::test]
async fn a_peer_that_drops_echo_requests_is_not_taken_for_one_that_is_cut_off() {
    let Some(lab) = two_nodes(ApiKind::Embedded).await else {
        return;
    };
    healthy(&lab).await;
    drop_at_node2(&lab, "iifname warren1 meta l4proto { icmp, icmpv6 }").await;
    let found = examine(&lab, &[]).await;
    assert_eq!(found.failures(), Vec::<&str>::new(), "{:#}", found.json);
    assert!(
        found.of("warn")["peer-reachable"].contains("heard"),
        "{:#}",
        found.json
    );
}

/// A lab of two nodes.
async fn two_nodes(api: ApiKind) -> Option<Lab> {
    lab(LabOptions {
        nodes: 2,
        api,
        ..LabOptions::default()
    })
    .await
}

/// What `warren doctor` says of node 1.
struct Found {
    code: i32,
    json: Value,
}

impl Found {
    fn findings(&self) -> impl Iterator<Item = &Value> {
        self.json["findings"].as_array().unwrap().iter()
    }

    /// Checks with that result, and what they found.
    fn of(&self, result: &str) -> BTreeMap<&str, &str> {
        self.findings()
            .filter(|it| it["result"] == result)
            .map(|it| {
                let remedy = it["remedy"].as_str();
                assert_eq!(
                    remedy.is_some(),
                    matches!(result, "warn" | "fail"),
                    "a remedy where one is needed: {it:#}"
                );
                (it["check"].as_str().unwrap(), it["found"].as_str().unwrap())
            })
            .collect()
    }

    fn failures(&self) -> Vec<&str> {
        self.of("fail").into_keys().collect()
    }

    fn finding(&self, check: &str) -> &Value {
        self.findings().find(|it| it["check"] == check).unwrap()
    }
}

async fn examine(lab: &Lab, arguments: &[&str]) -> Found {
    let argv = [&["warren", "doctor", "--output", "json"], arguments].concat();
    let node = Place::Node("node1".to_owned());
    let output = lab.run_for(node, &argv, EXAMINATION).await.unwrap();
    let json = serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    let found = Found {
        code: output.code,
        json,
    };
    let expected = i32::from(!found.failures().is_empty());
    assert_eq!(found.code, expected, "the exit status tells: {:#}", found.json);
    found
}

/// Waits for a node without a failure.
async fn healthy(lab: &Lab) -> Found {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = examine(lab, &[]).await;
        if found.failures().is_empty() {
            return found;
        }
        assert!(
            Instant::now() < deadline,
            "node1 did not get well: {:#}",
            found.json
        );
    }
}

/// The check fails, and says so.
async fn finds(lab: &Lab, check: &str, words: &str) {
    let found = examine(lab, &[]).await;
    let failures = found.of("fail");
    let said = failures
        .get(check)
        .unwrap_or_else(|| panic!("{check} is no failure: {:#}", found.json));
    assert!(said.contains(words), "{check}: {said}");
}

async fn disk(lab: &Lab) -> PathBuf {
    lab.facts().await.unwrap().nodes[0].disk.clone()
}

async fn on_node1(lab: &Lab, script: &str) {
    on(lab, "node1", script).await;
}

async fn on(lab: &Lab, node: &str, script: &str) {
    let place = Place::Node(node.to_owned());
    let output = lab.run(place, &["sh", "-ec", script]).await.unwrap();
    assert!(output.success(), "{script}: {output:?}");
}

/// A firewall as an operator may have one: a table of its own.
async fn drop_at_node2(lab: &Lab, what: &str) {
    let table = format!(
        "nft 'table inet firewall {{ chain input {{ type filter hook input priority 0; {what} drop; }}; }}'"
    );
    on(lab, "node2", &table).await;
}

async fn mend_node2(lab: &Lab) {
    on(lab, "node2", "nft delete table inet firewall").await;
}
