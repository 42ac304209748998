//! The CNI plugin as a container runtime meets it: a binary, an environment, a configuration on stdin.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use support::lab;
use warren_lab::{CniCommand, Facts, Lab, LabOptions, Output, Place, PodFacts, PodOptions};

/// "Try again later", CNI specification section 5.
const TRY_AGAIN: u64 = 11;

#[tokio::test]
async fn a_pod_is_attached_checked_and_detached_and_nothing_of_it_stays() {
    let Some(lab) = lab(LabOptions {
        nodes: 1,
        ..LabOptions::default()
    })
    .await
    else {
        return;
    };
    let before = network(&lab).await;
    let pod = lab.pod_add(PodOptions::new("pod", "node1")).await.unwrap();
    let inside = json_of(
        &lab,
        Place::Pod("pod".into()),
        &["ip", "-json", "address", "show", "dev", "eth0"],
    )
    .await;
    let addresses: Vec<_> = inside[0]["addr_info"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|it| it["scope"] == "global")
        .map(|it| it["local"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(addresses, pod.addresses);
    assert_ne!(
        network(&lab).await,
        before,
        "the node has a link and routes for it"
    );

    lab.pod_cni("pod", CniCommand::Check).await.unwrap();
    lab.pod_cni("pod", CniCommand::Del).await.unwrap();
    lab.pod_cni("pod", CniCommand::Check).await.unwrap_err();
    lab.pod_cni("pod", CniCommand::Del)
        .await
        .unwrap_or_else(|error| panic!("again is harmless: {error:#}"));
    assert_eq!(network(&lab).await, before);

    lab.pod_cni("pod", CniCommand::Add).await.unwrap();
    lab.pod_cni("pod", CniCommand::Check).await.unwrap();
    lab.pod_remove("pod").await.unwrap();
    assert_eq!(network(&lab).await, before);
}

#[tokio::test]
async fn a_pod_that_comes_again_at_once_is_open_for_the_addresses_it_has_now() {
    let Some(lab) = lab(LabOptions {
        nodes: 1,
        ..LabOptions::default()
    })
    .await
    else {
        return;
    };
    lab.pod_add(PodOptions::new("pod", "node1")).await.unwrap();
    assert_nothing_to_do(&lab).await;
    for _ in 0..4 {
        lab.pod_cni("pod", CniCommand::Del).await.unwrap();
        let added = lab.pod_cni("pod", CniCommand::Add).await.unwrap();
        let addresses = added["ips"].as_array().unwrap().iter().map(|ip| {
            let address = ip["address"].as_str().unwrap();
            address.split('/').next().unwrap().to_owned()
        });
        // At once, without waiting: DEL leaves it to a later pass, and ADD waits for that one.
        assert_eq!(open_addresses(&lab).await, addresses.collect());
        assert_nothing_to_do(&lab).await;
    }
}

#[tokio::test]
async fn a_port_of_the_node_leads_to_the_pod_through_portmap() {
    let Some(lab) = lab(LabOptions {
        nodes: 2,
        ..LabOptions::default()
    })
    .await
    else {
        return;
    };
    let facts = lab.facts().await.unwrap();
    let portmap = facts.nodes[0].disk.join("cni/bin/portmap");
    if !portmap.exists() {
        support::skip::<()>("no portmap plugin on this machine: Debian package containernetworking-plugins");
        return;
    }
    let mut pod = PodOptions::new("server", "node1");
    pod.ports = vec!["tcp:80:8080=web".parse().unwrap()];
    lab.pod_add(pod).await.unwrap();
    let node1 = facts.nodes[0].addresses[0].addr();
    // From outside of the cluster, and from another node.
    for place in [Place::Root, Place::Node("node2".to_owned())] {
        assert_eq!(ask(&lab, place, &node1.to_string(), 8080).await, "server hello");
    }
    // Not CHECK: portmap 1.1.1, Debian 12's, looks for the IPv4 rules among the IPv6 ones and fails on any pod.
}

#[tokio::test]
async fn a_pods_ports_answer_over_tcp_and_udp_from_another_node() {
    let Some(lab) = lab(LabOptions {
        nodes: 2,
        ..LabOptions::default()
    })
    .await
    else {
        return;
    };
    let mut server = PodOptions::new("server", "node1");
    server.ports = vec!["tcp:80=web".parse().unwrap(), "udp:53=dns".parse().unwrap()];
    let server = lab.pod_add(server).await.unwrap();
    lab.pod_add(PodOptions::new("client", "node2")).await.unwrap();
    for address in &server.addresses {
        assert_eq!(
            ask(&lab, Place::Pod("client".into()), address, 80).await,
            "server hello"
        );
        let script = format!("exec 3<>/dev/udp/{address}/53; printf hello >&3; head -c 12 <&3");
        let answer = lab
            .run(Place::Pod("client".into()), &["bash", "-c", &script])
            .await
            .unwrap();
        assert_eq!(answer.stdout, "server hello", "{answer:?}");
    }
    assert_eq!(lab.counts().await.unwrap().plaintext, 0);
}

#[tokio::test]
async fn the_plugin_tells_its_versions_and_asks_to_try_again_while_no_agent_runs() {
    let Some(lab) = lab(LabOptions {
        nodes: 1,
        ..LabOptions::default()
    })
    .await
    else {
        return;
    };
    let facts = lab.facts().await.unwrap();
    let version = plugin(&lab, &facts, None, "VERSION", &json!({"cniVersion": "1.0.0"})).await;
    assert!(version.success(), "{version:?}");
    let version: Value = serde_json::from_str(&version.stdout).unwrap();
    let supported: Vec<_> = version["supportedVersions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it.as_str())
        .collect();
    for wanted in ["0.3.1", "0.4.0", "1.0.0"] {
        assert!(supported.contains(&Some(wanted)), "{version}");
    }

    let pod = lab.pod_add(PodOptions::new("pod", "node1")).await.unwrap();
    let config = plugin_config(&facts);
    lab.node_stop("node1").await.unwrap();
    let refused = plugin(&lab, &facts, Some(&pod), "ADD", &config).await;
    assert!(!refused.success(), "{refused:?}");
    let error: Value = serde_json::from_str(&refused.stdout).unwrap_or_else(|_| panic!("{refused:?}"));
    assert_eq!(error["code"], TRY_AGAIN, "{error}");
    lab.node_start("node1").await.unwrap();
    lab.pod_cni("pod", CniCommand::Check).await.unwrap();
}

/// What the agent wrote for its own plugin, as a runtime would hand it over.
fn plugin_config(facts: &Facts) -> Value {
    let path = facts.nodes[0].disk.join("cni/net.d/10-warren.conflist");
    let list: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let mut config = list["plugins"][0].clone();
    assert_eq!(config["type"], "warren-cni");
    config["name"] = list["name"].clone();
    config["cniVersion"] = list["cniVersion"].clone();
    config
}

/// Calls the binary itself on the first node.
async fn plugin(lab: &Lab, facts: &Facts, pod: Option<&PodFacts>, command: &str, config: &Value) -> Output {
    let bin = facts.nodes[0].disk.join("cni/bin");
    let (program, bin) = (bin.join("warren-cni"), bin.to_str().unwrap().to_owned());
    let netns = pod
        .map(|it| it.netns.to_str().unwrap().to_owned())
        .unwrap_or_default();
    let id = pod.map(|it| it.container_id.clone()).unwrap_or_default();
    let mut env = vec![("CNI_COMMAND", command), ("CNI_PATH", &bin)];
    if pod.is_some() {
        env.extend([
            ("CNI_CONTAINERID", id.as_str()),
            ("CNI_NETNS", &netns),
            ("CNI_IFNAME", "eth1"),
        ]);
    }
    let place = Place::Node("node1".to_owned());
    let limit = Duration::from_secs(60);
    lab.run_with(
        place,
        &[program.to_str().unwrap()],
        &env,
        &config.to_string(),
        limit,
    )
    .await
    .unwrap()
}

/// What ADD has done by itself is all that a plan wants, without waiting.
async fn assert_nothing_to_do(lab: &Lab) {
    let node = Place::Node("node1".to_owned());
    let plan = lab.run(node, &["warren", "plan", "--local"]).await.unwrap();
    assert!(
        plan.success() && plan.stdout.contains("nothing to do"),
        "{plan:?}"
    );
}

/// The addresses that the first node's guard has open.
async fn open_addresses(lab: &Lab) -> BTreeSet<String> {
    let script = "nft list set inet warren pods4; nft list set inet warren pods6";
    let output = lab
        .run(Place::Node("node1".to_owned()), &["sh", "-c", script])
        .await
        .unwrap();
    assert!(output.success(), "{output:?}");
    // Elements are `"INTERFACE" . ADDRESS`.
    let elements = output.stdout.split("\" . ").skip(1);
    let addresses = elements.filter_map(|rest| rest.split([',', ' ', '\n']).next());
    addresses.map(str::to_owned).collect()
}

/// Names of links and all routes of the first node.
async fn network(lab: &Lab) -> (Vec<String>, String) {
    let node = || Place::Node("node1".to_owned());
    let links = json_of(lab, node(), &["ip", "-json", "link"]).await;
    let names = links
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["ifname"].as_str().unwrap().to_owned())
        .collect();
    let mut routes = String::new();
    for family in ["-4", "-6"] {
        let output = lab
            .run(node(), &["ip", family, "route", "show", "proto", "87"])
            .await
            .unwrap();
        assert!(output.success(), "{output:?}");
        routes += &output.stdout;
    }
    (names, routes)
}

async fn json_of(lab: &Lab, place: Place, argv: &[&str]) -> Value {
    let output = lab.run(place, argv).await.unwrap();
    assert!(output.success(), "{output:?}");
    serde_json::from_str(&output.stdout).unwrap()
}

/// Says hello to a TCP port and returns the answer.
async fn ask(lab: &Lab, place: Place, address: &str, port: u16) -> String {
    let script = format!("exec 3<>/dev/tcp/{address}/{port}; echo hello >&3; head -n 1 <&3");
    let output = lab
        .run_for(place, &["bash", "-c", &script], Duration::from_secs(10))
        .await
        .unwrap();
    assert!(output.success(), "{output:?}");
    output.stdout.trim().to_owned()
}
