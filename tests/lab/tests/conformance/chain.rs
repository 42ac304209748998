//! warren-cni with `portmap` and `bandwidth` behind it, as operators chain them, all of the CNI project's own release.
//!
//! `portmap` 1.1.1, Debian 12's, fails CHECK of every pod with a port of the node where both iptables and ip6tables can be used:
//! it looks for the rules of one family among those of the other (mended in 1.3.0). So CHECK goes without ports, and with
//! them that is the only failure that is let pass. `bandwidth` before 1.9.1 crashes on CHECK of a pod without a limit, which is
//! why the agent chains it only where it is told to.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use warren_lab::{Families, Lab, Place, PodOptions};

use crate::client::Client;
use crate::support::{skip, until};
use crate::{here, lab_with_client, two_nodes};

/// Bits a second, either way: 1 MB.
const RATE: u64 = 8_000_000;
/// Bits at once.
const BURST: u64 = 800_000;
/// Bytes sent one way, and then the other.
const SENT: u64 = 700_000;

#[tokio::test]
async fn portmap_and_bandwidth_follow_in_the_chain_dual_stack() {
    chained(Families::Dual).await;
}

#[tokio::test]
async fn portmap_and_bandwidth_follow_in_the_chain_with_ipv4_only() {
    chained(Families::V4).await;
}

#[tokio::test]
async fn portmap_and_bandwidth_follow_in_the_chain_with_ipv6_only() {
    chained(Families::V6).await;
}

async fn chained(families: Families) {
    let Some((lab, cnitool)) = lab_with_client(two_nodes(families)).await else {
        return;
    };
    let far = lab.pod_add(PodOptions::new("far", "node2")).await.unwrap();
    let client = Client::new(&lab, &cnitool).await;
    for plugin in ["portmap", "bandwidth"] {
        if !client.node.disk.join("cni/bin").join(plugin).exists() {
            skip::<()>(&format!(
                "no {plugin} plugin on this machine: Debian package containernetworking-plugins"
            ));
            return;
        }
    }
    if let Some(reason) = no_shaping(&lab).await {
        skip::<()>(&reason);
        return;
    }
    let mut list = client.ours("1.0.0");
    let plugins = list["plugins"].as_array_mut().unwrap();
    // As the agent writes them.
    plugins.push(json!({"type": "portmap", "capabilities": {"portMappings": true}, "snat": true}));
    plugins.push(json!({"type": "bandwidth", "capabilities": {"bandwidth": true}}));
    client.configure(&list);
    let before = left(&client).await;

    let netns = client.namespace("server").await;
    let limits =
        json!({"ingressRate": RATE, "ingressBurst": BURST, "egressRate": RATE, "egressBurst": BURST});
    let ports = json!([{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]);
    let limited = json!({"bandwidth": limits}).to_string();
    let both = json!({"bandwidth": limits, "portMappings": ports}).to_string();
    let added = client.call_with("add", &netns, &[("CAP_ARGS", &both)]).await;
    assert!(added.success(), "{added:?}");
    let added: Value = serde_json::from_str(&added.stdout).unwrap();

    for address in &far.addresses {
        client.ping(&netns, address).await;
    }
    shaped(&client, &added).await;
    client
        .inside(
            &netns,
            "setsid warren-lab pod-serve server tcp:80 >/dev/null 2>&1 </dev/null &",
        )
        .await;
    for address in client.node.addresses.iter().map(|it| it.addr().to_string()) {
        // From outside of the cluster, and from another node.
        for place in [Place::Root, Place::Node("node2".to_owned())] {
            until("the pod's server answers on the node's port", async || {
                say(&lab, &place, &address, 8080, "hello").await == "server hello"
            })
            .await;
        }
    }
    slow(&lab, &added).await;
    let meanwhile = left(&client).await;
    assert!(
        meanwhile.contains("CNI-DN-") && meanwhile.contains("bwp"),
        "{meanwhile}"
    );

    let checked = client.call_with("check", &netns, &[("CAP_ARGS", &limited)]).await;
    assert!(checked.success(), "{checked:?}");
    let checked = client.call_with("check", &netns, &[("CAP_ARGS", &both)]).await;
    assert!(
        checked.success() || checked.stderr.starts_with("could not check ipv"),
        "{checked:?}"
    );
    for _ in 0..2 {
        let deleted = client.call_with("del", &netns, &[("CAP_ARGS", &both)]).await;
        assert!(deleted.success(), "{deleted:?}");
    }
    assert_eq!(client.attached(), 0);
    client.shell("ip netns delete server").await;
    // The guard forgets the pod a moment after DEL is answered.
    until("nothing of the pod is left", async || {
        left(&client).await == before
    })
    .await;
}

/// Why this kernel cannot limit rates as `bandwidth` does, if it cannot.
async fn no_shaping(lab: &Lab) -> Option<String> {
    let script = "ip link add probe type ifb && tc qdisc add dev probe root tbf rate 1mbit burst 10k latency 25ms && \
                  tc qdisc add dev probe ingress; status=$?; ip link delete probe; exit $status";
    let output = lab.run(here(), &["sh", "-c", script]).await.unwrap();
    (!output.success()).then(|| format!("this kernel has no ifb, tbf or ingress: {}", output.stderr))
}

/// The plugin's limits are on our veth: for what goes to the pod on the host's end, for what comes from it on a device of
/// the plugin's.
async fn shaped(client: &Client<'_>, added: &Value) {
    let interfaces = added["interfaces"].as_array().unwrap();
    let name = |prefix: &str| {
        let names = interfaces.iter().map(|it| it["name"].as_str().unwrap());
        let mut found = names.filter(|it| it.starts_with(prefix));
        let name = found.next().unwrap_or_else(|| panic!("no {prefix}: {added}"));
        name.to_owned()
    };
    for device in [name("wrn"), name("bwp")] {
        let text = client
            .shell(&format!("tc -json qdisc show dev {device} root"))
            .await;
        let qdiscs: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(qdiscs[0]["kind"], "tbf", "{device}: {qdiscs}");
        assert_eq!(qdiscs[0]["options"]["rate"], RATE / 8, "{device}: {qdiscs}");
    }
}

/// Bytes sent to the pod, and sent back, take as long as the limits say; without them it would be a few milliseconds.
async fn slow(lab: &Lab, added: &Value) {
    let address = added["ips"][0]["address"].as_str().unwrap();
    let address = address.split('/').next().unwrap();
    let line = format!("$(head -c {SENT} /dev/zero | tr '\\0' x)");
    let started = Instant::now();
    let answer = say(lab, &Place::Pod("far".into()), address, 80, &line).await;
    let took = started.elapsed();
    assert_eq!(answer.len() as u64, "server ".len() as u64 + SENT);
    let each = Duration::from_secs_f64(((SENT * 8 - BURST) / 1000) as f64 / (RATE / 1000) as f64);
    assert!(took >= each * 2, "took {took:?}, not {each:?} each way");
}

/// Says a line to a TCP port and returns the answer.
async fn say(lab: &Lab, place: &Place, address: &str, port: u16, line: &str) -> String {
    let script = format!("exec 3<>/dev/tcp/{address}/{port} && echo \"{line}\" >&3 && head -n 1 <&3");
    let output = lab
        .run_for(place.clone(), &["bash", "-c", &script], Duration::from_secs(30))
        .await
        .unwrap();
    output.stdout.trim().to_owned()
}

/// All that plugins of the chain leave on a node: links, rules of iptables, our table.
async fn left(client: &Client<'_>) -> String {
    // portmap makes the chains at the top with its first port, and keeps them.
    let script = "ls /sys/class/net; ip -4 route; ip -6 route; nft --stateless list table inet warren; \
                  for it in iptables-save ip6tables-save; do $it -t nat 2>/dev/null | grep -E 'CNI-(DN|SN)-' || true; done";
    client.shell(script).await
}
