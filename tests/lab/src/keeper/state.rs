//! What a keeper keeps: the API, the nodes and the pods; and what can be done to them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context;
use futures::future::{join_all, try_join_all};
use tokio::net::UnixListener;

use super::node::Node;
use super::pods::facts_of;
use super::{Progress, report};
use crate::api::{LabApi, objects};
use crate::binaries::Binaries;
use crate::capture::{Capture, Counts};
use crate::dir::LabDir;
use crate::facts::{Facts, NodeFacts};
use crate::layout::NodeLayout;
use crate::options::LabOptions;
use crate::pod::{PodKey, RunningPod};
use crate::underlay;

/// A lab that is up.
pub(super) struct Keeper {
    pub(super) dir: LabDir,
    pub(super) options: LabOptions,
    pub(super) binaries: Binaries,
    capture: Capture,
    pub(super) api: LabApi,
    nodes: Vec<Node>,
    pub(super) pods: Mutex<BTreeMap<PodKey, Arc<tokio::sync::Mutex<RunningPod>>>>,
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
                node.start_agent(&binaries, None).await?;
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

    pub(super) async fn node_start(&self, name: &str, wireguard: Option<&str>) -> anyhow::Result<()> {
        let node = self.node(name)?;
        node.start_agent(&self.binaries, wireguard).await?;
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
        node.start_agent(&self.binaries, None).await?;
        node.agent_ready().await
    }

    /// The node of that name.
    pub(super) fn node(&self, name: &str) -> anyhow::Result<&Node> {
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

    /// The pod of that name.
    pub(super) fn pod(&self, key: &PodKey) -> anyhow::Result<Arc<tokio::sync::Mutex<RunningPod>>> {
        lock(&self.pods)
            .get(key)
            .cloned()
            .with_context(|| format!("no pod {key} in this lab"))
    }
}

/// Locks what no panic can have left half done.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change under these locks is a single insertion or removal.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
