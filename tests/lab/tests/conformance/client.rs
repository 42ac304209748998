//! cnitool on a node, and what it said to the plugin and heard from it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use serde_json::{Value, json};
use warren_lab::{Lab, NodeFacts, Output};

use crate::support::PATIENCE;
use crate::{NODE, here};

/// A node with the client, and one network namespace to attach.
pub(crate) struct Client<'a> {
    lab: &'a Lab,
    cnitool: &'a str,
    pub(crate) node: NodeFacts,
    /// Configurations and the recorder, on the node's disk.
    dir: PathBuf,
}

/// A call of our plugin.
#[derive(Debug)]
pub(crate) struct Asked {
    /// `CNI_COMMAND`.
    pub(crate) command: String,
    /// `CNI_CONTAINERID`.
    pub(crate) container: String,
    pub(crate) stdin: Value,
}

impl<'a> Client<'a> {
    /// Sets it up on [`NODE`].
    pub(crate) async fn new(lab: &'a Lab, cnitool: &'a str) -> Self {
        let nodes = lab.facts().await.unwrap().nodes;
        let node = nodes.into_iter().find(|it| it.name == NODE).unwrap();
        let dir = node.disk.join("conformance");
        fs::create_dir_all(dir.join("net.d")).unwrap();
        let recorder = dir.join("warren-cni");
        fs::write(&recorder, include_str!("recorder.sh")).unwrap();
        fs::set_permissions(&recorder, fs::Permissions::from_mode(0o755)).unwrap();
        let client = Self {
            lab,
            cnitool,
            node,
            dir,
        };
        // libcni remembers results below /var/lib and cannot be told otherwise: this node gets one of its own.
        client.shell("mount -t tmpfs tmpfs /var/lib").await;
        client
    }

    /// Makes a network namespace and gives its path.
    pub(crate) async fn namespace(&self, name: &str) -> String {
        self.shell(&format!("ip netns add {name}")).await;
        format!("/run/netns/{name}")
    }

    /// Puts the configuration in place that the next calls are for.
    pub(crate) fn configure(&self, list: &Value) {
        fs::write(self.dir.join("net.d/net.conflist"), list.to_string()).unwrap();
    }

    /// What the agent wrote, in another version of the specification, and our plugin alone.
    pub(crate) fn ours(&self, version: &str) -> Value {
        let path = self.node.disk.join("cni/net.d/10-warren.conflist");
        let mut list: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        list["cniVersion"] = json!(version);
        list["plugins"] = json!([list["plugins"][0]]);
        assert_eq!(list["plugins"][0]["type"], "warren-cni");
        list
    }

    /// Calls cnitool: `add`, `check`, `del`, `gc` or `status`.
    pub(crate) async fn call(&self, verb: &str, netns: &str) -> Output {
        self.call_with(verb, netns, &[]).await
    }

    /// The same with more of the environment.
    pub(crate) async fn call_with(&self, verb: &str, netns: &str, more: &[(&str, &str)]) -> Output {
        let _ = fs::remove_file(self.dir.join("call"));
        let path = format!(
            "{}:{}",
            self.dir.display(),
            self.node.disk.join("cni/bin").display()
        );
        let conf = self.dir.join("net.d");
        let list: Value = serde_json::from_slice(&fs::read(conf.join("net.conflist")).unwrap()).unwrap();
        let network = list["name"].as_str().unwrap();
        let mut env = vec![
            ("CNI_PATH", path.as_str()),
            ("NETCONFPATH", conf.to_str().unwrap()),
        ];
        env.extend(more);
        self.lab
            .run_with(here(), &[self.cnitool, verb, network, netns], &env, "", PATIENCE)
            .await
            .unwrap()
    }

    /// Calls it for what has to succeed, and gives what it printed.
    pub(crate) async fn succeed(&self, verb: &str, netns: &str) -> String {
        let output = self.call(verb, netns).await;
        assert!(output.success(), "{verb}: {output:?}");
        output.stdout
    }

    /// Calls it for what our plugin has to refuse, and gives code and message as the plugin told them.
    pub(crate) async fn refused(&self, verb: &str, netns: &str) -> (u64, String) {
        let output = self.call(verb, netns).await;
        assert!(!output.success(), "{verb} is not refused: {output:?}");
        let heard = self.heard();
        let msg = heard["msg"].as_str().unwrap_or_default().to_owned();
        assert!(
            !msg.is_empty() && output.stderr.contains(&msg),
            "{verb}: {heard} became {output:?}"
        );
        (heard["code"].as_u64().unwrap(), msg)
    }

    /// What our plugin printed last.
    pub(crate) fn heard(&self) -> Value {
        serde_json::from_slice(&fs::read(self.dir.join("stdout")).unwrap()).unwrap()
    }

    /// What our plugin was asked last, if the client's last call came to it.
    pub(crate) fn asked(&self) -> Option<Asked> {
        let call = fs::read_to_string(self.dir.join("call")).ok()?;
        let (command, container) = call.split_once(' ').unwrap();
        let stdin = fs::read(self.dir.join("stdin")).unwrap();
        Some(Asked {
            command: command.to_owned(),
            container: container.to_owned(),
            stdin: serde_json::from_slice(&stdin).unwrap(),
        })
    }

    /// How many pods the agent has on record.
    pub(crate) fn attached(&self) -> usize {
        let path = self.node.disk.join("state/attachments.json");
        // Written with the first of them.
        let Ok(bytes) = fs::read(path) else { return 0 };
        let stored: Value = serde_json::from_slice(&bytes).unwrap();
        let [pods, addresses] = ["attachments", "allocations"].map(|it| stored[it].as_array().unwrap().len());
        assert_eq!(pods, addresses, "{stored}");
        pods
    }

    /// Our links on the node.
    pub(crate) async fn veths(&self) -> Vec<String> {
        let names = self.shell("ls /sys/class/net").await;
        let ours = names.lines().filter(|it| it.starts_with("wrn"));
        ours.map(str::to_owned).collect()
    }

    /// Runs a line of shell on the node, which has to succeed.
    pub(crate) async fn shell(&self, script: &str) -> String {
        let output = self.lab.run(here(), &["sh", "-c", script]).await.unwrap();
        assert!(output.success(), "{script}: {output:?}");
        output.stdout
    }

    /// Runs a line of shell in a network namespace, which has to succeed.
    pub(crate) async fn inside(&self, netns: &str, script: &str) -> String {
        self.shell(&format!("nsenter --net={netns} sh -c '{script}'"))
            .await
    }

    /// Asks an address for an echo from within a network namespace.
    pub(crate) async fn ping(&self, netns: &str, address: &str) {
        self.inside(netns, &format!("ping -n -q -c 1 -w 10 -i 0.2 {address}"))
            .await;
    }

    /// Links with their addresses, as `ip -json` tells them: on the node, or in a network namespace.
    pub(crate) async fn links(&self, netns: Option<&str>) -> Vec<Value> {
        let ip = "ip -json address";
        let text = match netns {
            Some(netns) => self.inside(netns, ip).await,
            None => self.shell(ip).await,
        };
        serde_json::from_str(&text).unwrap()
    }
}
