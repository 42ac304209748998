//! Calls of the plugin that cannot be served, with the real agent behind it.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use warren_lab::{Facts, Lab, LabOptions, Output, Place, PodOptions};

use crate::support::{PATIENCE, lab};

#[tokio::test]
async fn a_cni_call_that_cannot_be_is_refused_with_its_code_and_leaves_nothing() {
    let Some(lab) = lab(LabOptions {
        nodes: 1,
        ..LabOptions::default()
    })
    .await
    else {
        return;
    };
    let pod = lab.pod_add(PodOptions::new("pod", "node1")).await.unwrap();
    let facts = lab.facts().await.unwrap();
    let plugin = Plugin::of(&lab, &facts);
    let netns = pod.netns.to_str().unwrap();
    let before = plugin.attachments();
    assert_eq!(before[0].as_array().unwrap().len(), 1);

    for (container, netns, interface, code, part) in [
        (
            "c1",
            "/run/netns/no-such",
            "eth0",
            103,
            "no network namespace /run/netns/no-such",
        ),
        ("c1", "/etc/passwd", "eth0", 103, "not a network namespace"),
        ("c1", "/proc/self/ns/net", "eth0", 8, "node's own"),
        ("c1", netns, "lo", 103, "already has an interface lo"),
        ("c1", netns, "eth0", 103, "already has an interface eth0"),
        ("../../c1", netns, "eth1", 4, "CNI_CONTAINERID"),
        ("c1", netns, "sixteen-letters-", 4, "CNI_IFNAME"),
        ("c1", "/run/netns/../c1", "eth1", 4, "CNI_NETNS"),
    ] {
        let refused = plugin
            .call("ADD", container, netns, interface, &plugin.config)
            .await;
        let error = error_of(&refused);
        assert_eq!(error["code"], code, "{container} {netns} {interface}: {error}");
        let said = format!("{} {}", error["msg"], error["details"]);
        assert!(said.contains(part), "{container} {netns} {interface}: {error}");
        assert_eq!(
            plugin.attachments(),
            before,
            "{container} {netns} {interface} left something"
        );
    }
    for (field, value, code) in [
        ("cniVersion", json!("0.2.0"), 1),
        ("name", json!("../x"), 7),
        (
            "prevResult",
            json!({"interfaces": [{"name": "eth0", "sandbox": netns}]}),
            7,
        ),
    ] {
        let mut config = plugin.config.clone();
        config[field] = value;
        let refused = plugin.call("ADD", "c1", netns, "eth1", &config).await;
        assert_eq!(error_of(&refused)["code"], code, "{field}");
    }
    assert_eq!(plugin.attachments(), before);
    lab.pod_cni("pod", warren_lab::CniCommand::Check).await.unwrap();
}

#[tokio::test]
async fn cni_calls_may_be_repeated_and_a_container_may_be_gone_or_its_agent_hang() {
    let Some(lab) = lab(LabOptions {
        nodes: 1,
        ..LabOptions::default()
    })
    .await
    else {
        return;
    };
    let facts = lab.facts().await.unwrap();
    let plugin = Plugin::of(&lab, &facts);
    let node = || Place::Node("node1".to_owned());
    let shell = async |script: &str| {
        let output = lab.run(node(), &["sh", "-c", script]).await.unwrap();
        assert!(output.success(), "{output:?}");
    };
    let (config, netns) = (&plugin.config, "/run/netns/passing");
    shell("ip netns add passing").await;

    let first = plugin.call("ADD", "c1", netns, "eth0", config).await;
    assert!(first.success(), "{first:?}");
    let again = plugin.call("ADD", "c1", netns, "eth0", config).await;
    assert_eq!(first.stdout, again.stdout);
    assert_eq!(plugin.attachments()[0].as_array().unwrap().len(), 1);

    let unknown = plugin.call("DEL", "c2", netns, "eth0", config).await;
    assert!(unknown.success() && unknown.stdout.is_empty(), "{unknown:?}");
    shell("ip netns delete passing").await;
    for _ in 0..2 {
        let gone = plugin.call("DEL", "c1", netns, "eth0", config).await;
        assert!(gone.success() && gone.stdout.is_empty(), "{gone:?}");
    }
    assert_eq!(plugin.attachments(), [json!([]), json!([])]);
    shell("! ip -oneline link | grep wrn").await;

    // An agent that hangs holds the runtime no longer than the configuration says.
    shell("ip netns add passing").await;
    let mut hasty = config.clone();
    hasty["timeoutSeconds"] = json!(1);
    shell("kill -STOP $(pgrep --ns $$ --nslist net --exact warren-agent)").await;
    let started = Instant::now();
    let hung = plugin.call("ADD", "c3", netns, "eth0", &hasty).await;
    let took = started.elapsed();
    shell("kill -CONT $(pgrep --ns $$ --nslist net --exact warren-agent)").await;
    assert_eq!(error_of(&hung)["code"], 11, "{hung:?}");
    assert!(took < Duration::from_secs(10), "took {took:?}");
    // The agent may have heard the request after all; the DEL that follows a failed ADD undoes it.
    let undone = plugin.call("DEL", "c3", netns, "eth0", config).await;
    assert!(undone.success(), "{undone:?}");
    shell("ip netns delete passing").await;
    assert_eq!(plugin.attachments(), [json!([]), json!([])]);
}

/// The plugin on the first node, and what its agent remembers.
struct Plugin<'a> {
    lab: &'a Lab,
    facts: &'a Facts,
    /// What the agent wrote, as a runtime would hand it over.
    config: Value,
}

impl<'a> Plugin<'a> {
    fn of(lab: &'a Lab, facts: &'a Facts) -> Self {
        let path = facts.nodes[0].disk.join("cni/net.d/10-warren.conflist");
        let list: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let mut config = list["plugins"][0].clone();
        config["name"] = list["name"].clone();
        config["cniVersion"] = list["cniVersion"].clone();
        Self { lab, facts, config }
    }

    async fn call(
        &self,
        verb: &str,
        container: &str,
        netns: &str,
        interface: &str,
        config: &Value,
    ) -> Output {
        let bin = self.facts.nodes[0].disk.join("cni/bin");
        let program = bin.join("warren-cni");
        let env = [
            ("CNI_COMMAND", verb),
            ("CNI_CONTAINERID", container),
            ("CNI_NETNS", netns),
            ("CNI_IFNAME", interface),
            ("CNI_PATH", bin.to_str().unwrap()),
        ];
        let argv = [program.to_str().unwrap()];
        let place = Place::Node("node1".to_owned());
        self.lab
            .run_with(place, &argv, &env, &config.to_string(), PATIENCE)
            .await
            .unwrap()
    }

    /// The pods attached, and the addresses given.
    fn attachments(&self) -> [Value; 2] {
        let path = self.facts.nodes[0].disk.join("state/attachments.json");
        let stored: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        ["attachments", "allocations"].map(|it| stored[it].clone())
    }
}

fn error_of(output: &Output) -> Value {
    assert!(!output.success(), "{output:?}");
    serde_json::from_str(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}
