//! What a keeper keeps: the API, the nodes and the pods; and what can be done to them.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use futures::future::{join_all, try_join_all};
use tokio::net::UnixListener;
use tokio::process::Command;
use tokio::time::{Instant, sleep};

use super::node::{Inside, Node};
use super::{Progress, report};
use crate::api::{LabApi, objects};
use crate::binaries::Binaries;
use crate::capture::{Capture, Counts};
use crate::cni::{self, CniCommand};
use crate::control::{Output, Place, Run};
use crate::dir::LabDir;
use crate::facts::{Facts, NodeFacts, PodFacts};
use crate::layout::NodeLayout;
use crate::namespaces::{Namespaces, exit_code};
use crate::options::LabOptions;
use crate::pod::{PodKey, PodOptions, RunningPod, Sandbox};
use crate::underlay;

/// How long a kubelet's attempts to attach a pod are repeated.
const ATTACH: Duration = Duration::from_secs(30);

/// A lab that is up.
pub(super) struct Keeper {
    dir: LabDir,
    options: LabOptions,
    binaries: Binaries,
    capture: Capture,
    api: LabApi,
    nodes: Vec<Node>,
    pods: Mutex<BTreeMap<PodKey, Arc<tokio::sync::Mutex<RunningPod>>>>,
    cut: Mutex<Vec<NodeLayout>>,
    rootless: bool,
}

impl Keeper {
    /// Builds everything, in order; returns the listener for requests.
    pub(super) async fn start(
        dir: LabDir,
        options: LabOptions,
        host: std::net::TcpListener,
        rootless: bool,
    ) -> anyhow::Result<(Arc<Self>, UnixListener)> {
        let step = |text: &str| report(&Progress::Step(text.to_owned()));
        let binaries = Binaries::find()?;
        step("making the underlay")?;
        underlay::build(options.subnets, options.families)?;
        let capture = Capture::start(&dir.pcap())?;

        step("starting the API")?;
        let layouts: Vec<_> = (1..=options.nodes)
            .map(|n| NodeLayout::new(n, options.subnets, options.families))
            .collect();
        let api = LabApi::start(&options, &dir, &layouts, host).await?;
        objects::prepare(&api.client).await?;

        step("making the nodes")?;
        let mut nodes = Vec::new();
        for layout in layouts {
            nodes.push(Node::start(layout, &options, &dir, &binaries, &capture).await?);
        }
        try_join_all(
            nodes
                .iter()
                .map(|it| objects::create_node(&api.client, it.layout)),
        )
        .await?;

        if options.agents {
            step("starting the agents")?;
            for node in &nodes {
                node.start_agent(&binaries).await?;
            }
            try_join_all(nodes.iter().map(Node::agent_ready)).await?;
        }
        let control = UnixListener::bind(dir.control()).context("listen for requests")?;
        let keeper = Self {
            dir,
            options,
            binaries,
            capture,
            api,
            nodes,
            pods: Mutex::default(),
            cut: Mutex::default(),
            rootless,
        };
        Ok((Arc::new(keeper), control))
    }

    pub(super) fn rootless(&self) -> bool {
        self.rootless
    }

    /// What crossed the underlay before this was called.
    pub(super) async fn counts(&self) -> anyhow::Result<Counts> {
        let capture = self.capture.clone();
        tokio::task::spawn_blocking(move || capture.counts())
            .await
            .context("read the capture")
    }

    pub(super) async fn facts(&self) -> anyhow::Result<Facts> {
        let nodes = join_all(self.nodes.iter().map(async |node| NodeFacts {
            name: node.layout.name(),
            subnet: node.layout.subnet().0,
            addresses: node.layout.addresses(),
            pod_cidrs: node.layout.pod_cidrs(),
            agent: node.agent_state().await,
            cut: lock(&self.cut).contains(&node.layout),
            log: node.dir.agent_log(),
            disk: node.dir.path().to_owned(),
        }))
        .await;
        let running: Vec<_> = lock(&self.pods).values().map(Arc::clone).collect();
        let mut pods = Vec::new();
        for pod in running {
            pods.push(facts_of(&*pod.lock().await));
        }
        Ok(Facts {
            dir: self.dir.path().to_owned(),
            api: self.options.api,
            server: self.api.host_url.clone(),
            rootless: self.rootless,
            nodes,
            pods,
            counts: self.counts().await?,
            pcap: self.dir.pcap(),
        })
    }

    pub(super) async fn node_start(&self, name: &str) -> anyhow::Result<()> {
        let node = self.node(name)?;
        node.start_agent(&self.binaries).await?;
        node.agent_ready().await
    }

    pub(super) async fn node_stop(&self, name: &str, kill: bool) -> anyhow::Result<()> {
        self.node(name)?.stop_agent(kill).await
    }

    /// Cuts or mends a node's link.
    pub(super) fn node_link(&self, name: &str, up: bool) -> anyhow::Result<()> {
        let layout = self.node(name)?.layout;
        underlay::set_port(layout, up)?;
        let mut cut = lock(&self.cut);
        cut.retain(|it| *it != layout);
        if !up {
            cut.push(layout);
        }
        Ok(())
    }

    /// Restarts a node: its pods are gone, its disk is not. Its agent starts with it.
    pub(super) async fn node_reboot(&self, name: &str) -> anyhow::Result<()> {
        let node = self.node(name)?;
        node.reboot(&self.options, &self.capture).await?;
        lock(&self.cut).retain(|it| *it != node.layout);
        let all: Vec<_> = lock(&self.pods)
            .iter()
            .map(|(key, pod)| (key.clone(), Arc::clone(pod)))
            .collect();
        for (key, pod) in all {
            if pod.lock().await.node == name {
                lock(&self.pods).remove(&key);
                objects::delete_pod(&self.api.client, &key).await?;
            }
        }
        node.start_agent(&self.binaries).await?;
        node.agent_ready().await
    }

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

    /// Runs a program to its end.
    pub(super) async fn run(&self, run: Run) -> anyhow::Result<Output> {
        let (program, arguments) = run.argv.split_first().context("no program to run")?;
        let mut command = match &run.place {
            Place::Root => self.root_command(program),
            Place::Node(name) => self.node(name)?.command(program),
            Place::Pod(key) => {
                let node = self.pod(key)?.lock().await.node.clone();
                self.node(&node)?.command(program)
            }
        };
        command.args(arguments).envs(&run.env);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        // The handles live until the program has started.
        let mut child = self
            .within(&run.place, |namespaces| {
                namespaces.apply(command.as_std_mut());
                command.spawn().with_context(|| format!("run {program}"))
            })
            .await?;
        let mut stdin = child.stdin.take();
        let feed = async {
            if let Some(mut stdin) = stdin.take() {
                // A program need not read what it is given.
                let _ = tokio::io::AsyncWriteExt::write_all(&mut stdin, run.stdin.as_bytes()).await;
            }
        };
        let limit = Duration::from_millis(run.timeout_ms);
        let both = async { tokio::join!(feed, child.wait_with_output()).1 };
        let Ok(output) = tokio::time::timeout(limit, both).await else {
            bail!("{} did not end within {limit:?}", run.argv.join(" "))
        };
        let output = output.with_context(|| format!("wait for {program}"))?;
        Ok(Output {
            code: exit_code(output.status),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Does something with the namespaces of a place.
    pub(super) async fn within<T>(
        &self,
        place: &Place,
        act: impl FnOnce(&Namespaces) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        match place {
            Place::Root => act(&Namespaces::of_process(std::process::id())?),
            Place::Node(name) => act(&self.node(name)?.inside().namespaces),
            Place::Pod(key) => act(&self.pod(key)?.lock().await.namespaces),
        }
    }

    /// What a program that is run in a place finds in its environment.
    pub(super) async fn environment(&self, place: &Place) -> anyhow::Result<BTreeMap<String, String>> {
        let node = match place {
            Place::Root => None,
            Place::Node(name) => Some(self.node(name)?),
            Place::Pod(key) => {
                let name = self.pod(key)?.lock().await.node.clone();
                Some(self.node(&name)?)
            }
        };
        let mut env = BTreeMap::new();
        match node {
            Some(node) => {
                env.extend(
                    node.env()
                        .iter()
                        .map(|(k, v)| (k.clone(), v.to_string_lossy().into_owned())),
                );
            }
            None => {
                env.insert(
                    "PATH".to_owned(),
                    self.binaries.search_path().to_string_lossy().into_owned(),
                );
                env.insert(
                    "KUBECONFIG".to_owned(),
                    self.dir.inside_kubeconfig().to_string_lossy().into_owned(),
                );
            }
        }
        Ok(env)
    }

    fn root_command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env("PATH", self.binaries.search_path())
            .env("KUBECONFIG", self.dir.inside_kubeconfig());
        command
    }

    fn node(&self, name: &str) -> anyhow::Result<&Node> {
        self.nodes
            .iter()
            .find(|it| it.layout.name() == name)
            .with_context(|| {
                format!(
                    "no node {name:?} in this lab: it has node1 to node{}",
                    self.nodes.len()
                )
            })
    }

    fn pod(&self, key: &PodKey) -> anyhow::Result<Arc<tokio::sync::Mutex<RunningPod>>> {
        lock(&self.pods)
            .get(key)
            .cloned()
            .with_context(|| format!("no pod {key} in this lab"))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change under these locks is a single insertion or removal.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn relative(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}

fn facts_of(pod: &RunningPod) -> PodFacts {
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
