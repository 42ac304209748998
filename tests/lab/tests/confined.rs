//! What the manifests give an agent is enough for it, and none of it too much: agents run with the capabilities, the read-only root
//! file system and the start command that the DaemonSet names, read from the manifest itself.
//!
//! Each is stricter than a container in one thing: nothing can be gained by executing a program (`no_new_privs`, which the API refuses
//! to set together with SYS_ADMIN). The seccomp profile is the runtime's and not tried here.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod support;

use std::fs;
use std::path::Path;

use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use serde_json::{Value, json};
use support::{a_pod_on_each_of_two_nodes, assert_all_reach_all, devices, lab, ping, until};
use warren_lab::{Families, Lab, LabOptions, Place, PodOptions};

/// Where the image has the agent.
const AGENT: &str = "/usr/local/bin/warren-agent";

/// Namespaces of pods appear where the runtime mounts them, in containers too. Then a mount namespace of the agent's own.
const OUTSIDE: &str = r#"
    set -e
    mkdir -p /run/warren /run/wireguard /run/netns
    mount --bind /run/netns /run/netns
    mount --make-rshared /run/netns
    exec unshare --mount --propagation slave sh -c "$INSIDE" sh "$@"
"#;

/// What a runtime does: the volumes, all else read-only, and of the capabilities those that are named. A control may say otherwise.
const INSIDE: &str = r#"
    set -e
    added=CAPABILITIES
    command='COMMAND'
    read_only='/proc/sys / /run /sys /tmp'
    if [ -e "$WARREN_STATE_DIR/../otherwise" ]; then . "$WARREN_STATE_DIR/../otherwise"; fi
    for dir in VOLUMES /proc/sys; do mount --bind "$dir" "$dir"; done
    for dir in $read_only; do
        if mountpoint -q "$dir"; then mount -o remount,bind,ro "$dir"; fi
    done
    exec setpriv --no-new-privs --inh-caps=-all --ambient-caps=-all --bounding-set="-all$added" /bin/sh -c "$command" sh "$@"
"#;

/// What the manifest says of the agent's container.
struct Container {
    capabilities: Vec<String>,
    /// The folders that it can write to.
    volumes: Vec<String>,
    /// Its command, with the agent's own command line in place of the agent.
    command: String,
}

impl Container {
    fn of_the_manifest() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests/base/daemonset.yaml");
        let daemonset: Value = serde_saphyr::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        let container = &daemonset["spec"]["template"]["spec"]["containers"][0];
        let security = &container["securityContext"];
        assert_eq!(
            (
                &security["readOnlyRootFilesystem"],
                &security["capabilities"]["drop"]
            ),
            (&json!(true), &json!(["ALL"]))
        );
        let texts = |list: &Value| -> Vec<String> {
            let list = list.as_array().unwrap().iter();
            list.map(|it| it.as_str().unwrap().to_owned()).collect()
        };
        let mounts = container["volumeMounts"].as_array().unwrap().iter();
        let writable = mounts.filter(|mount| mount["readOnly"] != true);
        let command = texts(&container["command"]);
        assert_eq!(command[..2], ["/bin/sh", "-c"]);
        assert!(command[2].contains(AGENT), "{command:?}");
        Self {
            capabilities: texts(&security["capabilities"]["add"]),
            volumes: writable
                .map(|mount| mount["mountPath"].as_str().unwrap().to_owned())
                .collect(),
            command: command[2].replace(AGENT, "\"$@\""),
        }
    }

    /// As an option of `setpriv`.
    fn set_without(&self, left_out: &str) -> String {
        let kept = self.capabilities.iter().filter(|name| *name != left_out);
        kept.map(|name| format!(",+{}", name.to_lowercase())).collect()
    }

    /// As /proc/PID/status shows it, by the numbers of capabilities(7).
    fn mask(&self) -> u64 {
        let bit = |name: &String| match name.as_str() {
            "NET_ADMIN" => 1 << 12,
            "NET_RAW" => 1 << 13,
            "SYS_ADMIN" => 1 << 21,
            other => panic!("a capability that this test does not know: {other}"),
        };
        self.capabilities.iter().map(bit).sum()
    }

    /// What starts an agent in a lab as the manifest has it started.
    fn launcher(&self) -> Vec<String> {
        // Where a node of a lab has them.
        let volumes = self.volumes.iter().map(|path| match path.as_str() {
            "/var/lib/warren" => "$WARREN_STATE_DIR",
            "/etc/cni/net.d" => "$WARREN_CNI_CONF_DIR",
            "/opt/cni/bin" => "$WARREN_CNI_BIN_DIR",
            same => same,
        });
        let inside = INSIDE
            .replace("VOLUMES", &volumes.collect::<Vec<_>>().join(" "))
            .replace("CAPABILITIES", &self.set_without(""))
            .replace("COMMAND", &self.command);
        let outside = format!("export INSIDE; {OUTSIDE}");
        let words = ["env", &format!("INSIDE={inside}"), "sh", "-c", &outside, "sh"];
        words.map(str::to_owned).to_vec()
    }
}

fn two_nodes(container: &Container) -> LabOptions {
    LabOptions {
        nodes: 2,
        families: Families::Dual,
        wireguard: "userspace".to_owned(),
        launcher: container.launcher(),
        ..LabOptions::default()
    }
}

#[tokio::test]
async fn agents_confined_as_the_manifest_says_do_all_their_work() {
    let container = Container::of_the_manifest();
    let Some(lab) = lab(two_nodes(&container)).await else {
        return;
    };
    // So it is.
    for program in programs(&lab, "node1").await {
        assert_eq!(program.bounding, container.mask(), "{program:?}");
        assert_eq!(program.effective & !container.mask(), 0, "{program:?}");
        assert!(program.is_read_only, "{program:?}");
    }

    let (from, to) = a_pod_on_each_of_two_nodes(&lab).await;
    let facts = lab.facts().await.unwrap();
    assert_all_reach_all(&lab, &facts).await;
    assert_eq!(lab.counts().await.unwrap().plaintext, 0);

    // To the outside, which the other node's own address is, a pod goes by its node's.
    let [own, other] = [0, 1].map(|node| facts.nodes[node].addresses[0].addr().to_string());
    let count = format!(
        "nft 'add table ip seen; add chain ip seen in {{ type filter hook input priority 0; }}; \
         add rule ip seen in ip saddr {own} icmp type echo-request counter'"
    );
    printed(&lab, "node2", &count).await;
    assert_eq!(ping(&lab, &from, &other, 1).await, (1, 1));
    let seen = printed(&lab, "node2", "nft list table ip seen").await;
    assert!(seen.contains("packets 1 "), "{seen}");

    // Policy.
    let policies: Api<NetworkPolicy> = Api::namespaced(lab.client(), "default");
    let deny = json!({
        "metadata": {"name": "deny"},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress"]}
    });
    let deny = serde_json::from_value(deny).unwrap();
    policies.create(&PostParams::default(), &deny).await.unwrap();
    until("the policy", async || ping(&lab, &from, &to[0], 1).await.1 == 0).await;
    policies.delete("deny", &DeleteParams::default()).await.unwrap();
    until("the policy's end", async || {
        ping(&lab, &from, &to[0], 1).await.1 == 1
    })
    .await;

    // What is left over goes: of a pod, and of nobody that the agent knows.
    printed(&lab, "node1", "ip link add wrnleftover type veth peer name stray").await;
    printed(
        &lab,
        "node1",
        "ip route add unreachable 10.244.77.0/24 proto 87 metric 87",
    )
    .await;
    let links = async || printed(&lab, "node1", "ip -oneline link; ip route show table all").await;
    until("what is left over to go", async || {
        let links = links().await;
        !links.contains("wrnleftover") && !links.contains("10.244.77")
    })
    .await;
    lab.pod_remove("from").await.unwrap();
    let left = links().await;
    assert!(!left.contains(": wrn"), "{left}");

    // And the next agent takes over from this one.
    let before = devices(&lab, "node1").await;
    lab.node_kill("node1").await.unwrap();
    lab.node_start("node1").await.unwrap();
    assert_eq!(devices(&lab, "node1").await, before);
}

#[tokio::test]
async fn without_any_one_of_the_capabilities_something_fails_and_says_so() {
    let container = Container::of_the_manifest();
    assert_eq!(
        container.capabilities,
        ["NET_ADMIN", "NET_RAW", "SYS_ADMIN"],
        "each has its control below"
    );
    let Some(lab) = lab(LabOptions {
        agents: false,
        ..two_nodes(&container)
    })
    .await
    else {
        return;
    };
    lab.node_start("node2").await.unwrap();
    let node1 = lab.facts().await.unwrap().nodes[0].clone();
    let (disk, log) = (node1.disk, node1.log);

    let refused = start_without(&lab, &container, &disk, "NET_ADMIN", "")
        .await
        .unwrap_err();
    assert!(refused.contains("this takes CAP_NET_ADMIN"), "{refused}");
    let refused = start_without(&lab, &container, &disk, "SYS_ADMIN", "")
        .await
        .unwrap_err();
    assert!(refused.contains("/proc/sys"), "{refused}");

    // Were that mount not needed, pods would still have to be entered.
    let without_the_mount = "command='exec \"$@\"'; read_only='/ /run /sys /tmp'";
    start_without(&lab, &container, &disk, "SYS_ADMIN", without_the_mount)
        .await
        .unwrap();
    let refused = lab.pod_add(PodOptions::new("pod", "node1")).await.unwrap_err();
    let refused = format!("{refused:#}");
    assert!(refused.contains("not permitted"), "{refused}");
    lab.node_stop("node1").await.unwrap();

    start_without(&lab, &container, &disk, "NET_RAW", "")
        .await
        .unwrap();
    let (from, to) = a_pod_on_each_of_two_nodes(&lab).await;
    until("the agent to miss it", async || {
        ping(&lab, &from, &to[0], 1).await;
        fs::read_to_string(&log)
            .unwrap()
            .contains("the agent needs CAP_NET_RAW")
    })
    .await;
}

/// Starts node1's agent without one capability; `otherwise`: what else is to be done otherwise. The error says what it died of.
async fn start_without(
    lab: &Lab,
    container: &Container,
    disk: &Path,
    capability: &str,
    otherwise: &str,
) -> Result<(), String> {
    let added = format!("added='{}'\n{otherwise}\n", container.set_without(capability));
    fs::write(disk.join("otherwise"), added).unwrap();
    lab.node_start("node1")
        .await
        .map_err(|error| format!("{error:#}"))
}

/// A process on a node, and how it is confined.
#[derive(Debug)]
struct Program {
    #[expect(dead_code, reason = "shown where a check fails")]
    name: String,
    bounding: u64,
    effective: u64,
    /// Whether its root file system is.
    is_read_only: bool,
}

/// The agent of a node and its devices.
async fn programs(lab: &Lab, node: &str) -> Vec<Program> {
    let agents = printed(lab, node, "pgrep --exact warren-agent --ns $$ --nslist net").await;
    let mut programs = Vec::new();
    for pid in agents
        .split_whitespace()
        .chain(devices(lab, node).await.iter().map(String::as_str))
    {
        let status = printed(lab, node, &format!("cat /proc/{pid}/status")).await;
        let field = |name: &str| {
            let value = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            value.trim().to_owned()
        };
        let set = |name: &str| u64::from_str_radix(&field(name), 16).unwrap();
        let mounts = printed(lab, node, &format!("cat /proc/{pid}/mounts")).await;
        let root = mounts
            .lines()
            .rev()
            .find(|line| line.split(' ').nth(1) == Some("/"))
            .unwrap();
        programs.push(Program {
            name: field("Name:"),
            bounding: set("CapBnd:"),
            effective: set("CapEff:"),
            is_read_only: root
                .split(' ')
                .nth(3)
                .unwrap()
                .split(',')
                .any(|option| option == "ro"),
        });
    }
    assert_eq!(programs.len(), 3, "an agent, and a device a lane: {programs:?}");
    programs
}

/// What a script on a node prints.
async fn printed(lab: &Lab, node: &str, script: &str) -> String {
    let place = Place::Node(node.to_owned());
    let output = lab.run(place, &["sh", "-c", script]).await.unwrap();
    assert!(output.success(), "{script}: {output:?}");
    output.stdout
}
