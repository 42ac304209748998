//! ADD, CHECK and DEL, in each version that has them.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Value, json};
use warren_lab::{Families, Lab, Place, PodFacts, PodOptions};

use crate::client::Client;
use crate::{lab_with_client, two_nodes};

/// With the verbs that came last in each.
const VERSIONS: [&str; 4] = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// CHECK found the attachment changed: a code of our own, from 100 on as section 5 of the specification has it.
const DIFFERS: u64 = 101;

#[tokio::test]
async fn every_version_attaches_checks_and_detaches_dual_stack() {
    each_version(Families::Dual).await;
}

#[tokio::test]
async fn every_version_attaches_checks_and_detaches_with_ipv4_only() {
    each_version(Families::V4).await;
}

#[tokio::test]
async fn every_version_attaches_checks_and_detaches_with_ipv6_only() {
    each_version(Families::V6).await;
}

async fn each_version(families: Families) {
    let Some((lab, cnitool)) = lab_with_client(two_nodes(families)).await else {
        return;
    };
    let far = lab.pod_add(PodOptions::new("far", "node2")).await.unwrap();
    let client = Client::new(&lab, &cnitool).await;
    let netns = client.namespace("near").await;
    for version in VERSIONS {
        let mut list = client.ours(version);
        list["plugins"][0]["dns"] = json!({"nameservers": ["10.96.0.10"], "search": ["svc.cluster.local"]});
        client.configure(&list);
        attach(&client, version, &netns).await;
        reach(&lab, &client, &netns, &far).await;
        if version != "0.3.1" {
            check(&client, &netns, families).await;
        }
        detach(&client, version, &netns).await;
    }
}

/// ADD, and that its result has the shape of the version and tells what is there.
async fn attach(client: &Client<'_>, version: &str, netns: &str) {
    let printed: Value = serde_json::from_str(&client.succeed("add", netns).await).unwrap();
    let result = client.heard();
    // The client reads the result into its own types and prints those.
    for field in ["cniVersion", "interfaces", "ips", "routes", "dns"] {
        assert_eq!(printed[field], result[field], "{version}: {field}");
    }
    let old = version.starts_with("0.");
    let newest = version == "1.1.0";
    has_keys(&result, &["cniVersion", "interfaces", "ips", "routes", "dns"]);
    assert_eq!(result["cniVersion"], version);
    assert_eq!(
        result["dns"],
        json!({"nameservers": ["10.96.0.10"], "search": ["svc.cluster.local"]})
    );

    let [host, pod] = &result["interfaces"].as_array().unwrap()[..] else {
        panic!("an interface on either side: {result}")
    };
    let of = |sandbox: bool| {
        let mut keys = vec!["name", "mac"];
        keys.extend(newest.then_some("mtu"));
        keys.extend(sandbox.then_some("sandbox"));
        keys
    };
    has_keys(host, &of(false));
    has_keys(pod, &of(true));
    assert_eq!((&pod["name"], &pod["sandbox"]), (&json!("eth0"), &json!(netns)));
    let inside = client.links(Some(netns)).await;
    for (told, links) in [(host, &client.links(None).await), (pod, &inside)] {
        let link = links.iter().find(|it| it["ifname"] == told["name"]).unwrap();
        assert_eq!(told["mac"], link["address"], "{version}: {told}");
        assert!(!newest || told["mtu"] == link["mtu"], "{version}: {told} {link}");
    }

    let link = inside.iter().find(|it| it["ifname"] == "eth0").unwrap();
    let there: BTreeSet<IpAddr> = link["addr_info"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|it| it["scope"] == "global")
        .map(|it| it["local"].as_str().unwrap().parse().unwrap())
        .collect();
    let ips = result["ips"].as_array().unwrap();
    let told: BTreeSet<IpAddr> = ips.iter().map(|it| address(it).addr()).collect();
    assert_eq!(told, there, "{version}");
    assert_eq!(ips.len(), client.node.pod_cidrs.len(), "one of each family");
    for (ip, cidr) in ips.iter().zip(&client.node.pod_cidrs) {
        let mut keys = vec!["address", "gateway", "interface"];
        keys.extend(old.then_some("version"));
        has_keys(ip, &keys);
        assert!(cidr.contains(&address(ip)), "{version}: {ip} is not of {cidr}");
        assert!(
            !old || ip["version"] == if address(ip).addr().is_ipv4() { "4" } else { "6" },
            "{version}: {ip}"
        );
        assert_eq!(ip["interface"], 1, "{version}: {ip}");
    }
    let routes: Vec<Value> = ips
        .iter()
        .map(|ip| {
            let dst = if address(ip).addr().is_ipv4() {
                "0.0.0.0/0"
            } else {
                "::/0"
            };
            json!({"dst": dst, "gw": ip["gateway"]})
        })
        .collect();
    assert_eq!(result["routes"], json!(routes), "{version}");
}

/// The far pod answers the attached namespace in each family, and the other way round.
async fn reach(lab: &Lab, client: &Client<'_>, netns: &str, far: &PodFacts) {
    assert_eq!(far.addresses.len(), client.node.pod_cidrs.len());
    for address in &far.addresses {
        client.ping(netns, address).await;
    }
    for ip in client.heard()["ips"].as_array().unwrap() {
        let near = address(ip).addr().to_string();
        let ping = ["ping", "-n", "-q", "-c", "1", "-w", "10", "-i0.2", &near];
        let answer = lab.run(Place::Pod("far".into()), &ping).await.unwrap();
        assert!(answer.success(), "far to {near}: {answer:?}");
    }
}

/// CHECK is content, and is not once a route or an address is gone.
async fn check(client: &Client<'_>, netns: &str, families: Families) {
    assert_eq!(client.succeed("check", netns).await, "");
    let asked = client.asked().unwrap();
    assert_eq!(asked.command, "CHECK");
    let stdin = asked.stdin;
    assert_eq!(stdin["prevResult"]["ips"][0]["interface"], 1, "{stdin}");

    let family = if families == Families::V6 { "-6" } else { "-4" };
    client
        .inside(netns, &format!("ip {family} route delete default"))
        .await;
    let (code, msg) = client.refused("check", netns).await;
    assert_eq!(code, DIFFERS, "{msg}");
    assert!(msg.contains("default route"), "{msg}");

    client.succeed("del", netns).await;
    client.succeed("add", netns).await;
    assert_eq!(client.succeed("check", netns).await, "");
    let stdin = client.asked().unwrap().stdin;
    let last = address(stdin["prevResult"]["ips"].as_array().unwrap().last().unwrap());
    client
        .inside(netns, &format!("ip address delete {last} dev eth0"))
        .await;
    let (code, msg) = client.refused("check", netns).await;
    assert_eq!(code, DIFFERS, "{msg}");
    assert!(msg.contains(&last.addr().to_string()), "{msg}");
}

/// DEL, twice, and nothing is left; from 0.4.0 on with the result of ADD, as the client remembers it.
async fn detach(client: &Client<'_>, version: &str, netns: &str) {
    assert_eq!(client.succeed("del", netns).await, "");
    let asked = client.asked().unwrap();
    assert_eq!(asked.command, "DEL");
    let remembered = asked.stdin["prevResult"].is_object();
    assert_eq!(remembered, version != "0.3.1", "{version}");
    assert_eq!(client.attached(), 0, "{version}");
    assert_eq!(client.veths().await, Vec::<String>::new(), "{version}");
    let inside = client.links(Some(netns)).await;
    assert!(inside.iter().all(|it| it["ifname"] != "eth0"), "{version}");
    assert_eq!(client.succeed("del", netns).await, "", "{version}: again");
}

/// The object has just these keys.
fn has_keys(object: &Value, keys: &[&str]) {
    let found: BTreeSet<&str> = object.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(found, keys.iter().copied().collect(), "{object}");
}

fn address(ip: &Value) -> IpNet {
    ip["address"].as_str().unwrap().parse().unwrap()
}
