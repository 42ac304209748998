//! Calls CNI plugins as a container runtime does: the agent's configuration list, its plugins in order, and their
//! binaries, per the CNI specification 1.0 sections 2 to 4.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use thiserror::Error;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::dir::NodeDir;
use crate::namespaces::{Namespaces, exit_code};
use crate::pod::Sandbox;

/// The interface that a pod gets.
pub(crate) const POD_INTERFACE: &str = "eth0";

/// "Try again later", CNI specification section 5.
const TRY_AGAIN: u64 = 11;

/// What a runtime asks of a plugin chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum CniCommand {
    /// Attach.
    Add,
    /// Is it still attached as it was?
    Check,
    /// Detach.
    Del,
}

impl CniCommand {
    fn name(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Check => "CHECK",
            Self::Del => "DEL",
        }
    }
}

/// Why a chain failed.
#[derive(Debug, Error)]
pub(crate) enum CniFailure {
    /// The node has no usable configuration: its agent is not ready, or was never there.
    #[error("no CNI configuration in {0}: the node's agent is not ready")]
    NoConfiguration(PathBuf),
    /// A plugin answered with an error.
    #[error("{plugin} {command} failed with code {code}: {message}")]
    Plugin {
        /// Type of the plugin.
        plugin: String,
        /// What it was asked.
        command: &'static str,
        /// CNI specification section 5.
        code: u64,
        /// Its own words.
        message: String,
    },
    /// It could not be asked.
    #[error("{0:#}")]
    Other(#[from] anyhow::Error),
}

impl CniFailure {
    /// Whether a kubelet's next attempt may succeed.
    pub(crate) fn try_again(&self) -> bool {
        match self {
            Self::NoConfiguration(_) => true,
            Self::Plugin { code, .. } => *code == TRY_AGAIN,
            Self::Other(_) => false,
        }
    }
}

/// Runs a chain. Returns the last plugin's result, for ADD; `previous` is that, for the other two.
pub(crate) async fn run(
    node: &NodeDir,
    inside: &Namespaces,
    command: CniCommand,
    sandbox: &Sandbox,
    previous: Option<&Value>,
) -> Result<Option<Value>, CniFailure> {
    let mut list = ConfList::read(&node.cni_conf())?;
    if command == CniCommand::Del {
        list.plugins.reverse();
    }
    let mut result = previous.cloned();
    for plugin in &list.plugins {
        let config = list.config(plugin, result.as_ref(), sandbox);
        let answer = call(&node.cni_bin(), inside, command, sandbox, plugin, &config).await?;
        if command == CniCommand::Add {
            result = Some(answer);
        }
    }
    Ok(result)
}

/// The addresses in an ADD result, in its order, without prefix length.
pub(crate) fn addresses(result: &Value) -> Vec<String> {
    let ips = result["ips"].as_array().map(Vec::as_slice).unwrap_or_default();
    ips.iter()
        .filter_map(|it| it["address"].as_str())
        .map(|it| it.split_once('/').map_or(it, |(address, _)| address).to_owned())
        .collect()
}

/// A configuration list.
struct ConfList {
    name: String,
    version: String,
    plugins: Vec<Value>,
}

impl ConfList {
    /// The first by name, as runtimes choose.
    fn read(dir: &Path) -> Result<Self, CniFailure> {
        let entries = std::fs::read_dir(dir).with_context(|| format!("read {}", dir.display()))?;
        let mut files: Vec<_> = entries
            .filter_map(|it| it.ok().map(|it| it.path()))
            .filter(|it| it.extension().is_some_and(|it| it == "conflist"))
            .collect();
        files.sort();
        let path = files
            .first()
            .ok_or_else(|| CniFailure::NoConfiguration(dir.to_owned()))?;
        let bytes = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
        let list: Value =
            serde_json::from_slice(&bytes).with_context(|| format!("{} is not JSON", path.display()))?;
        let text = |field: &str| {
            let value = list[field].as_str().map(str::to_owned);
            value.with_context(|| format!("{} has no {field}", path.display()))
        };
        let plugins = list["plugins"].as_array().filter(|it| !it.is_empty());
        Ok(Self {
            name: text("name")?,
            version: text("cniVersion")?,
            plugins: plugins
                .with_context(|| format!("{} has no plugins", path.display()))?
                .clone(),
        })
    }

    /// What one plugin gets on its stdin.
    fn config(&self, plugin: &Value, previous: Option<&Value>, sandbox: &Sandbox) -> Value {
        let mut config = plugin.clone();
        config["name"] = json!(self.name);
        config["cniVersion"] = json!(self.version);
        if let Some(previous) = previous {
            config["prevResult"] = previous.clone();
        }
        if plugin["capabilities"]["portMappings"] == true {
            let mappings: Vec<_> = sandbox
                .ports
                .iter()
                .filter_map(|it| {
                    let host = it.host_port?;
                    let protocol = it.protocol.name().to_ascii_lowercase();
                    Some(json!({"hostPort": host, "containerPort": it.port, "protocol": protocol}))
                })
                .collect();
            if !mappings.is_empty() {
                config["runtimeConfig"] = json!({"portMappings": mappings});
            }
        }
        config
    }
}

async fn call(
    bin: &Path,
    inside: &Namespaces,
    command: CniCommand,
    sandbox: &Sandbox,
    plugin: &Value,
    config: &Value,
) -> Result<Value, CniFailure> {
    let name = plugin["type"].as_str().context("a plugin without type")?;
    let mut process = Command::new(bin.join(name));
    process
        .env("CNI_COMMAND", command.name())
        .env("CNI_CONTAINERID", &sandbox.container_id)
        .env("CNI_NETNS", &sandbox.netns)
        .env("CNI_IFNAME", POD_INTERFACE)
        .env("CNI_PATH", bin)
        .env("CNI_ARGS", arguments(sandbox))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    inside.apply(process.as_std_mut());
    let mut child = process
        .spawn()
        .with_context(|| format!("run {}", bin.join(name).display()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A plugin that fails early reads nothing: what it answers says more than a broken pipe.
        let _ = stdin.write_all(config.to_string().as_bytes()).await;
    }
    let output = child
        .wait_with_output()
        .await
        .with_context(|| format!("wait for {name}"))?;
    if output.status.success() {
        if command != CniCommand::Add {
            return Ok(Value::Null);
        }
        return Ok(serde_json::from_slice(&output.stdout).with_context(|| {
            format!(
                "{name} {}: no result: {}",
                command.name(),
                String::from_utf8_lossy(&output.stdout)
            )
        })?);
    }
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let words = |field: &str| answer[field].as_str().unwrap_or_default().to_owned();
    let message = match (answer["code"].is_u64(), words("details").as_str()) {
        (true, "") => words("msg"),
        (true, details) => format!("{} ({details})", words("msg")),
        (false, _) => format!(
            "exit code {} without an error in JSON: {}{}",
            exit_code(output.status),
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        ),
    };
    Err(CniFailure::Plugin {
        plugin: name.to_owned(),
        command: command.name(),
        code: answer["code"].as_u64().unwrap_or_default(),
        message,
    })
}

/// `CNI_ARGS` as containerd and CRI-O give them.
fn arguments(sandbox: &Sandbox) -> String {
    format!(
        "IgnoreUnknown=1;K8S_POD_NAMESPACE={};K8S_POD_NAME={};K8S_POD_INFRA_CONTAINER_ID={};K8S_POD_UID={}",
        sandbox.key.namespace, sandbox.key.name, sandbox.container_id, sandbox.uid
    )
}
