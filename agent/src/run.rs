//! The agent put together: start, run, end.

use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::sync::watch;
use tokio::task::JoinSet;
use warren_cluster::client::ClientConfig;
use warren_cluster::watch::Watches;
use warren_kernel::{Kernel, KernelConfig, veth};
use warren_model::NodeName;
use warren_model::status::StewardStatus;
use warren_telemetry::{
    AdminConfig, AdminServer, Drain, DrainSignal, Liveness, PrivateSocket, Readiness, Registry,
    shutdown_signal,
};

use crate::attachments::{AttachmentStore, SharedAttachments};
use crate::boot_guard::BootGuard;
use crate::cni_conf::{self, CniConfError};
use crate::cni_server;
use crate::config::Config;
use crate::devices::Devices;
use crate::endpoints::KeptEndpoints;
use crate::half_written;
use crate::key_epochs::{self, KeyEpochs};
use crate::known_keys::KnownKeys;
use crate::metrics::{Metrics, register_watches};
use crate::mtu_probe::{self, Holes};
use crate::opening;
use crate::pods::Pods;
use crate::policy::{self, Enforcer};
use crate::publish::Publishing;
use crate::ready::Follower;
use crate::reconcile::{Parts, ReconcileHandle, Reconciler, plan_report};
use crate::rotation::{self, Rotation};
use crate::status::status;
use crate::steward::{Steward, StewardConfig};

/// The files in the state folder that are replaced whole.
const REPLACED: [&str; 7] = [
    "attachments.json",
    "endpoints.json",
    "guard.json",
    key_epochs::FILE_NAME,
    "known-keys.json",
    rotation::FILE_NAME,
    "sysctls.json",
];
/// A turn of the main loop that takes longer than this is stuck.
const STUCK: Duration = Duration::from_secs(180);
/// How long CNI requests in flight may take once the end has begun: less than the DaemonSet's grace period.
const LAST_REQUESTS: Duration = Duration::from_secs(8);

/// Runs the agent until SIGTERM or SIGINT. Devices, routes, guard and CNI configuration stay: they carry the pods'
/// traffic and keep it from leaving in the clear while no agent runs.
pub async fn run(config: Config) -> Result<()> {
    let mut shutdown = pin!(shutdown_signal().context("cannot catch signals")?);
    let node = node_name(&config)?;
    tracing::info!(%node, version = env!("CARGO_PKG_VERSION"), "starting");
    opening::make_dir(&config.run_dir, 0o755)?;
    half_written::sweep(&config.state_dir, &REPLACED);
    half_written::sweep(&config.cni_conf_dir, &[cni_conf::FILE_NAME]);
    half_written::sweep(&config.cni_bin_dir, &[cni_conf::PLUGIN]);

    let kernel_config = KernelConfig {
        state_dir: config.state_dir.clone(),
        ..KernelConfig::default()
    };
    let kernel = Arc::new(Kernel::new(kernel_config).context("cannot talk to the kernel: run as root")?);
    let kernel_events = kernel.events().context("cannot watch the kernel")?;
    let boot_guard = BootGuard::open(config.state_dir.join("guard.json"));
    if boot_guard
        .install_if_absent(&kernel)
        .await
        .context("cannot install the guard")?
    {
        tracing::info!(
            "the guard was not there; it is in force now, closed to all pods until they are found"
        );
    }
    let endpoints = KeptEndpoints::open(config.state_dir.join("endpoints.json"));
    let mut keys = tokio::select! {
        keys = opening::open_keys(&config) => keys?,
        signal = &mut shutdown => {
            tracing::info!(signal, "stopping before the start was complete");
            return Ok(());
        }
    };
    let veths = veth::host_sides(&kernel)
        .await
        .context("cannot list the pods' interfaces")?;
    let attachments = AttachmentStore::open(config.state_dir.join("attachments.json"), &veths)?;
    let attachments = SharedAttachments::new(attachments);
    let devices = Arc::new(Devices::choose(config.wireguard, &kernel).await);
    tracing::info!(
        kind = devices.kind(),
        reason = devices.reason(),
        "WireGuard device"
    );
    let key_epochs = KeyEpochs::open(config.state_dir.join(key_epochs::FILE_NAME));
    key_epochs.adopt(&mut keys, &devices).await?;

    let has_ipip = match kernel.probe_ipip().await {
        Ok(()) => true,
        Err(error) => {
            tracing::info!(%error, "this kernel has no IPIP: peers are told");
            false
        }
    };

    let credentials = ClientConfig::new(concat!("warren-agent/", env!("CARGO_PKG_VERSION")));
    let reading = credentials.clone().with_kubeconfig(config.kubeconfig.clone());
    let publish_with = config
        .publish_kubeconfig
        .clone()
        .or_else(|| config.kubeconfig.clone());
    let writing = credentials.with_kubeconfig(publish_with);
    let mut watches = Watches::start(reading.build().await?, &node);

    let mut registry = Registry::new();
    let metrics = Metrics::new(&mut registry);
    register_watches(&mut registry, Some(watches.health()));
    let (liveness, readiness) = (Liveness::new(), Readiness::new());
    let admin = AdminConfig {
        addr: Some(config.admin_addr()),
        unix: Some(config.admin_socket()),
    };
    let admin = admin
        .build(Arc::new(registry), liveness.clone(), readiness.clone())
        .await?;
    let cni_socket = PrivateSocket::bind(&config.cni_socket())?;
    install_plugin(&config.cni_bin_dir)?;

    let (drain_signal, drain) = DrainSignal::new();
    let (mtu_found, mtu_holes) = watch::channel(Holes::default());
    let (cannot_log, no_denied_log) = watch::channel(None);
    let (reconciler, handle) = Reconciler::new(Parts {
        node: node.clone(),
        kernel: Arc::clone(&kernel),
        devices: Arc::clone(&devices),
        has_ipip,
        keys,
        key_epochs,
        rotation: Rotation::open(&config),
        attachments: attachments.clone(),
        snapshots: watches.subscribe(),
        boot_guard,
        endpoints,
        known_keys: KnownKeys::open(config.state_dir.join("known-keys.json"), metrics.keys),
        mtu_holes,
        no_denied_log,
        metrics: metrics.pass,
    });
    let follower = Follower::new(
        node.clone(),
        config.clone(),
        Arc::clone(&devices),
        metrics.mesh,
        readiness.clone(),
        watches.health(),
    );
    let alterations = kernel
        .policy_alterations()
        .context("cannot watch the kernel's rules")?;
    let (enforcer, policy) = Enforcer::new(policy::Parts {
        node: node.clone(),
        kernel: Arc::clone(&kernel),
        attachments: attachments.clone(),
        policy: watches.subscribe_policy(),
        snapshots: watches.subscribe(),
        watches: watches.health(),
        metrics: metrics.policy,
        gate: readiness.gate("policy-in-force"),
        cannot_log,
    });
    let (known, steward_known) = watch::channel(None);
    let steward = Steward::new(StewardConfig {
        node: node.clone(),
        namespace: config.namespace.clone(),
        lease: reading.with_token_file(config.steward_token.clone()),
        writing: writing.clone(),
        watches: watches.health(),
        metrics: metrics.steward,
        known,
    });
    let publishing = Publishing {
        node: node.clone(),
        credentials: writing,
        published: readiness.gate("key-published"),
    };
    let pods = Pods::new(
        node.clone(),
        Arc::clone(&kernel),
        attachments,
        policy,
        handle.clone(),
    );
    let admin = routes(
        admin,
        &node,
        &config,
        &devices,
        &readiness,
        &handle,
        steward_known,
    );

    let mut tasks = JoinSet::new();
    tasks.spawn(reconciler.run(kernel_events, drain.clone(), liveness.watch("reconcile", STUCK)));
    tasks.spawn(enforcer.run(alterations, drain.clone(), liveness.watch("policy", STUCK)));
    tasks.spawn(follower.run(handle.views(), drain.clone()));
    tasks.spawn(publishing.run(handle.views(), drain.clone()));
    tasks.spawn(mtu_probe::run(handle.views(), mtu_found, drain.clone()));
    tasks.spawn(steward.run(handle.views(), drain.clone()));
    tasks.spawn(cni_server::serve(cni_socket, pods, metrics.cni, drain.clone()));
    let (admin_stop, admin_stopped) = tokio::sync::oneshot::channel::<()>();
    let admin = tokio::spawn(admin.serve(async {
        // Dropping the sender stops it as well.
        let _ = admin_stopped.await;
    }));

    let outcome = tokio::select! {
        signal = &mut shutdown => {
            tracing::info!(signal, "stopping; the pods' traffic goes on");
            Ok(())
        }
        ended = tasks.join_next() => Err(anyhow::anyhow!("a part of the agent has ended: {ended:?}")),
        () = watches.ended() => Err(anyhow::anyhow!("a watch has ended: the agent must be restarted")),
    };
    stop(drain_signal, &drain, tasks).await;
    drop(admin_stop);
    admin.await.context("the admin server failed")?;
    outcome
}

/// Ends the parts: requests in flight first, which still need the main loop.
async fn stop(drain_signal: DrainSignal, drain: &Drain, mut tasks: JoinSet<()>) {
    drain_signal.signal();
    debug_assert!(drain.is_draining(), "it was just signalled");
    if let Err(busy) = drain_signal.wait_idle(LAST_REQUESTS).await {
        tracing::warn!(%busy, "ending all the same; what is half done is put right at the next start");
    }
    while tasks.join_next().await.is_some() {}
}

fn routes(
    admin: AdminServer,
    node: &NodeName,
    config: &Config,
    devices: &Arc<Devices>,
    readiness: &Readiness,
    handle: &ReconcileHandle,
    steward: watch::Receiver<Option<StewardStatus>>,
) -> AdminServer {
    const NOT_IN_SYNC: &str = "the agent has not read the cluster yet: see /readyz";
    let shown = config.clone();
    let admin = admin.route("/config", move || {
        let shown = serde_json::to_value(&shown).map_err(|error| error.to_string());
        async move { shown }
    });
    let (of, to_ask) = (node.clone(), handle.clone());
    let admin = admin.route("/plan", move || {
        let (node, handle) = (of.clone(), to_ask.clone());
        async move {
            let view = handle.look().await.ok_or("the agent is stopping")?;
            if view.desired.is_none() {
                return Err(view.error.clone().unwrap_or_else(|| NOT_IN_SYNC.to_owned()));
            }
            serde_json::to_value(plan_report(&node, &view)).map_err(|error| error.to_string())
        }
    });
    let (node, handle, devices, readiness) = (
        node.clone(),
        handle.clone(),
        Arc::clone(devices),
        readiness.clone(),
    );
    admin.route("/status", move || {
        let (node, handle, devices) = (node.clone(), handle.clone(), Arc::clone(&devices));
        let ready = readiness.report().is_ok();
        let steward = steward.borrow().clone();
        async move {
            let mut view = (*handle.look().await.ok_or("the agent is stopping")?).clone();
            // A look does nothing, so it cannot fail at anything: what failed is what the last pass knows.
            let last = handle.last();
            view.failures.clone_from(&last.failures);
            let status = status(&node, ready, &devices, &view, steward);
            let status =
                status.ok_or_else(|| view.error.clone().unwrap_or_else(|| NOT_IN_SYNC.to_owned()))?;
            serde_json::to_value(status).map_err(|error| error.to_string())
        }
    })
}

fn install_plugin(dir: &Path) -> Result<()> {
    match cni_conf::install_plugin(dir) {
        Ok(true) => tracing::info!(dir = %dir.display(), "installed the CNI plugin"),
        Ok(false) => {}
        // In a container an init container has installed it.
        Err(CniConfError::NoPlugin) if dir.join(cni_conf::PLUGIN).is_file() => {}
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

fn node_name(config: &Config) -> Result<NodeName> {
    if let Some(name) = &config.node_name {
        return Ok(name.clone());
    }
    let host = nix::unistd::gethostname().context("cannot read the host name")?;
    let host = host.to_string_lossy().to_lowercase();
    host.parse()
        .context("the host name is no node name: set --node-name")
}
