//! Pods: what kubelet and container runtime do together, from the object in the API to the last plugin of the chain.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::process::Command;
use tokio::time::{Instant, sleep};

use super::node::{Inside, Node};
use super::state::{Keeper, lock};
use crate::api::objects;
use crate::cni::{self, CniCommand};
use crate::facts::PodFacts;
use crate::namespaces::Namespaces;
use crate::pod::{PodKey, PodOptions, RunningPod, Sandbox};

/// How long a kubelet's attempts to attach a pod are repeated.
const ATTACH: Duration = Duration::from_secs(30);

impl Keeper {
    /// Makes and attaches a pod, as kubelet and container runtime do together. What fails leaves nothing.
    pub(super) async fn pod_add(&self, options: PodOptions) -> anyhow::Result<PodFacts> {
        let node = self.node(&options.node)?;
        let uid = objects::create_pod(&self.api.client, &options).await?;
        let sandbox = Sandbox::new(&options, uid)?;
        let inside = node.inside();
        let attached = self.attach(node, &inside, &options, &sandbox).await;
        let pod = match attached {
            Ok(pod) => pod,
            Err(error) => {
                if let Err(error) = self.discard(node, &inside, &sandbox, None).await {
                    tracing::warn!(pod = %sandbox.key, "{error:#}");
                }
                return Err(error.context(format!("attach Pod {}", sandbox.key)));
            }
        };
        let facts = facts_of(&pod);
        lock(&self.pods).insert(options.key, Arc::new(tokio::sync::Mutex::new(pod)));
        Ok(facts)
    }

    async fn attach(
        &self,
        node: &Node,
        inside: &Inside,
        options: &PodOptions,
        sandbox: &Sandbox,
    ) -> anyhow::Result<RunningPod> {
        let netns = sandbox.netns_name();
        ip(inside, &["netns", "add", &netns]).await?;
        ip(inside, &["-netns", &netns, "link", "set", "lo", "up"]).await?;
        let namespaces = inside.namespaces.with_net(inside.holder, &sandbox.netns)?;
        let deadline = Instant::now() + ATTACH;
        let result = loop {
            match cni::run(&node.dir, &inside.namespaces, CniCommand::Add, sandbox, None).await {
                Ok(result) => break result.context("a CNI chain without result")?,
                Err(failure) if failure.try_again() && Instant::now() < deadline => {
                    sleep(Duration::from_millis(100)).await;
                }
                Err(failure) => return Err(failure.into()),
            }
        };
        let addresses = cni::addresses(&result);
        ensure!(
            addresses.len() == self.options.families.count(),
            "the CNI result has the addresses {addresses:?}, not one of each family: {result}"
        );
        let server = if options.ports.is_empty() {
            None
        } else {
            Some(serve_ports(node, &namespaces, options)?)
        };
        objects::set_pod_running(&self.api.client, &sandbox.key, &addresses).await?;
        Ok(RunningPod {
            node: options.node.clone(),
            sandbox: sandbox.clone(),
            namespaces,
            result: Some(result),
            addresses,
            server,
        })
    }

    /// Detaches and deletes a pod.
    pub(super) async fn pod_remove(&self, key: &PodKey) -> anyhow::Result<()> {
        let pod = self.pod(key)?;
        let mut pod = pod.lock().await;
        let node = self.node(&pod.node)?;
        if let Some(mut server) = pod.server.take() {
            server.kill().await.context("end the pod's server")?;
        }
        self.discard(node, &node.inside(), &pod.sandbox, pod.result.as_ref())
            .await?;
        lock(&self.pods).remove(key);
        Ok(())
    }

    /// The order of a kubelet: plugins, then the network namespace, then the object.
    async fn discard(
        &self,
        node: &Node,
        inside: &Inside,
        sandbox: &Sandbox,
        result: Option<&serde_json::Value>,
    ) -> anyhow::Result<()> {
        let detached = cni::run(&node.dir, &inside.namespaces, CniCommand::Del, sandbox, result).await;
        if Path::new("/proc")
            .join(inside.holder.to_string())
            .join("root")
            .join(relative(&sandbox.netns))
            .exists()
        {
            ip(inside, &["netns", "delete", &sandbox.netns_name()]).await?;
        }
        objects::delete_pod(&self.api.client, &sandbox.key).await?;
        detached
            .map(drop)
            .with_context(|| format!("detach Pod {}", sandbox.key))
    }

    /// One CNI command, for a pod that exists.
    pub(super) async fn pod_cni(
        &self,
        key: &PodKey,
        command: CniCommand,
    ) -> anyhow::Result<serde_json::Value> {
        let pod = self.pod(key)?;
        let mut pod = pod.lock().await;
        let node = self.node(&pod.node)?;
        let previous = if command == CniCommand::Add {
            None
        } else {
            pod.result.clone()
        };
        let inside = node.inside();
        let answer = cni::run(
            &node.dir,
            &inside.namespaces,
            command,
            &pod.sandbox,
            previous.as_ref(),
        )
        .await?;
        if command == CniCommand::Add {
            pod.addresses = answer.as_ref().map(cni::addresses).unwrap_or_default();
            pod.result.clone_from(&answer);
        }
        Ok(answer.unwrap_or_default())
    }
}

/// What there is to tell of a pod.
pub(super) fn facts_of(pod: &RunningPod) -> PodFacts {
    PodFacts {
        key: pod.sandbox.key.clone(),
        node: pod.node.clone(),
        addresses: pod.addresses.clone(),
        container_id: pod.sandbox.container_id.clone(),
        netns: pod.sandbox.netns.clone(),
    }
}

fn serve_ports(
    node: &Node,
    namespaces: &Namespaces,
    options: &PodOptions,
) -> anyhow::Result<tokio::process::Child> {
    let exe = std::env::current_exe().context("find this program")?;
    let mut command = node.command(&exe.to_string_lossy());
    command
        .arg("pod-serve")
        .arg(&options.key.name)
        .args(options.ports.iter().map(ToString::to_string));
    command.stdin(Stdio::null());
    namespaces.apply(command.as_std_mut());
    command.spawn().context("start the pod's server")
}

async fn ip(inside: &Inside, arguments: &[&str]) -> anyhow::Result<()> {
    let mut command = Command::new("ip");
    command.args(arguments).stdin(Stdio::null());
    inside.namespaces.apply(command.as_std_mut());
    let output = command
        .output()
        .await
        .context("run ip (Debian package iproute2)")?;
    ensure!(
        output.status.success(),
        "ip {} failed: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

fn relative(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}
