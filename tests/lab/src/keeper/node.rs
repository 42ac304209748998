//! One node: a process that holds its namespaces, and its agent.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::api::last_lines;
use crate::binaries::Binaries;
use crate::capture::Capture;
use crate::dir::{LabDir, NodeDir};
use crate::layout::NodeLayout;
use crate::namespaces::Namespaces;
use crate::options::LabOptions;
use crate::underlay;

/// TCP port of an agent's admin server.
const ADMIN_PORT: u16 = 9586;

/// How long an agent may take until it serves pods. A second or two is usual; an emulated machine with three of them on a
/// busy one has taken more than 30.
const READY: Duration = Duration::from_secs(90);

/// How long an agent may take to drain.
const DRAIN: Duration = Duration::from_secs(15);

/// Plugins of others that a node offers for chaining, where Debian or a runtime's installer puts them.
const PLUGIN_FOLDERS: [&str; 2] = ["/opt/cni/bin", "/usr/lib/cni"];
const PLUGINS: [&str; 3] = ["portmap", "bandwidth", "loopback"];

/// One node of a lab.
pub(super) struct Node {
    pub(super) layout: NodeLayout,
    pub(super) dir: NodeDir,
    inside: Mutex<Arc<Inside>>,
    agent: tokio::sync::Mutex<Option<Child>>,
    env: BTreeMap<String, OsString>,
    /// What the agent finds besides.
    agent_env: BTreeMap<String, String>,
    /// What the agent is started by.
    launcher: Vec<String>,
}

/// The namespaces of a node between two reboots.
pub(super) struct Inside {
    pub(super) namespaces: Namespaces,
    pub(super) holder: u32,
    /// Ends when this is dropped.
    _process: Child,
}

impl Node {
    /// Makes the node and plugs it in; `capture` sees its first frame.
    pub(super) async fn start(
        layout: NodeLayout,
        options: &LabOptions,
        lab: &LabDir,
        binaries: &Binaries,
        capture: &Capture,
    ) -> anyhow::Result<Self> {
        let dir = lab.node(&layout.name());
        install_plugins(&dir, binaries)?;
        let inside = Inside::make(layout, options, capture).await?;
        Ok(Self {
            env: environment(layout, options, lab, &dir, binaries),
            agent_env: options.environment.clone(),
            launcher: options.launcher.clone(),
            layout,
            dir,
            inside: Mutex::new(Arc::new(inside)),
            agent: tokio::sync::Mutex::new(None),
        })
    }

    /// Its namespaces.
    pub(super) fn inside(&self) -> Arc<Inside> {
        Arc::clone(&self.inside.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A program to run on the node, set up as on a machine where Warren is installed.
    pub(super) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.envs(&self.env).kill_on_drop(true);
        command
    }

    /// What [`Self::command`] sets.
    pub(super) fn env(&self) -> &BTreeMap<String, OsString> {
        &self.env
    }

    /// Starts the agent. One that runs already is an error.
    pub(super) async fn start_agent(
        &self,
        binaries: &Binaries,
        wireguard: Option<&str>,
    ) -> anyhow::Result<()> {
        let mut agent = self.agent.lock().await;
        if let Some(running) = agent.as_mut() {
            ensure!(
                running.try_wait()?.is_some(),
                "the agent of {} runs already",
                self.layout.name()
            );
        }
        let path = self.dir.agent_log();
        let log = OpenOptions::new()
            .append(true)
            .create(true)
            .open(&path)
            .with_context(|| format!("open {}", path.display()))?;
        let program = binaries.get("warren-agent")?;
        let mut command = match self.launcher.split_first() {
            Some((launcher, arguments)) => {
                let mut command = Command::new(launcher);
                command.args(arguments).arg(program).envs(&self.env);
                command
            }
            None => Command::new(program),
        };
        // Flags, which `ps` shows; the same as environment variables are for programs that people run on the node.
        for (name, value) in &self.env {
            let value = match wireguard {
                Some(kind) if name == "WARREN_WIREGUARD" => OsString::from(kind),
                _ => value.clone(),
            };
            if let Some(name) = name.strip_prefix("WARREN_") {
                command
                    .arg(format!("--{}", name.to_ascii_lowercase().replace('_', "-")))
                    .arg(value);
            }
        }
        if let Some(path) = self.env.get("PATH") {
            command.env("PATH", path);
        }
        command
            .envs(&self.agent_env)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true);
        self.inside().namespaces.apply(command.as_std_mut());
        *agent = Some(
            command
                .spawn()
                .with_context(|| format!("start the agent of {}", self.layout.name()))?,
        );
        Ok(())
    }

    /// Waits until the agent serves pods: it says so and has written the CNI configuration.
    pub(super) async fn agent_ready(&self) -> anyhow::Result<()> {
        let name = self.layout.name();
        let deadline = Instant::now() + READY;
        loop {
            if let Some(end) = self.agent_end().await? {
                bail!(
                    "the agent of {name} ended ({end}); {}",
                    last_lines(&self.dir.agent_log())
                );
            }
            let answer = self.ask_ready().await;
            if matches!(answer, Ok(true)) && self.has_cni_conf() {
                return Ok(());
            }
            if Instant::now() > deadline {
                let said = match answer {
                    Ok(true) => "says it is ready but wrote no CNI configuration".to_owned(),
                    Ok(false) => "says it is not".to_owned(),
                    Err(error) => format!("does not answer: {error:#}"),
                };
                bail!(
                    "the agent of {name} was not ready after {READY:?}: it {said}; {}",
                    last_lines(&self.dir.agent_log())
                );
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Ends the agent and waits for its end, which is an error if it was not a clean one.
    pub(super) async fn stop_agent(&self, at_once: bool) -> anyhow::Result<()> {
        let name = self.layout.name();
        let mut agent = self.agent.lock().await;
        let Some(child) = agent.as_mut() else {
            bail!("no agent runs on {name}")
        };
        if let Some(end) = child.try_wait().context("look after the agent")? {
            bail!("the agent of {name} has ended by itself already: {end}");
        }
        if at_once {
            child.kill().await.context("kill the agent")?;
        } else {
            let pid = child.id().context("the agent has no process id")?;
            kill(Pid::from_raw(pid.cast_signed()), Signal::SIGTERM).context("send SIGTERM to the agent")?;
            let Ok(status) = timeout(DRAIN, child.wait()).await else {
                bail!("the agent of {name} did not end within {DRAIN:?} of SIGTERM; it still runs")
            };
            let status = status.context("wait for the agent")?;
            *agent = None;
            ensure!(
                status.success(),
                "the agent of {name} ended badly on SIGTERM: {status}"
            );
        }
        *agent = None;
        Ok(())
    }

    /// What the agent does, in a word for people.
    pub(super) async fn agent_state(&self) -> String {
        let mut agent = self.agent.lock().await;
        match agent.as_mut().map(|it| (it.id(), it.try_wait())) {
            None => "stopped".to_owned(),
            Some((Some(pid), Ok(None))) => format!("running ({pid})"),
            Some((_, Ok(Some(status)))) => format!("ended by itself ({status})"),
            Some(_) => "unknown".to_owned(),
        }
    }

    /// Ends everything that runs on the node, and its network, and makes it anew. The agent is not started.
    pub(super) async fn reboot(&self, options: &LabOptions, capture: &Capture) -> anyhow::Result<()> {
        let old = self.inside();
        kill_all_in(&old)?;
        *self.agent.lock().await = None;
        underlay::unplug(self.layout)?;
        let new = Inside::make(self.layout, options, capture).await?;
        *self.inside.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
        Ok(())
    }

    async fn agent_end(&self) -> anyhow::Result<Option<std::process::ExitStatus>> {
        match self.agent.lock().await.as_mut() {
            Some(child) => child.try_wait().context("look after the agent"),
            None => bail!("no agent runs on {}", self.layout.name()),
        }
    }

    fn has_cni_conf(&self) -> bool {
        let entries = std::fs::read_dir(self.dir.cni_conf());
        entries.is_ok_and(|mut it| {
            it.any(|it| it.is_ok_and(|it| it.path().extension() == Some("conflist".as_ref())))
        })
    }

    async fn ask_ready(&self) -> anyhow::Result<bool> {
        let address = self
            .layout
            .addresses()
            .first()
            .context("the node has no address")?
            .addr();
        let exchange = async {
            let mut stream = TcpStream::connect(SocketAddr::new(address, ADMIN_PORT)).await?;
            stream
                .write_all(b"GET /readyz HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n")
                .await?;
            let mut answer = Vec::new();
            stream.take(4096).read_to_end(&mut answer).await?;
            anyhow::Ok(answer.starts_with(b"HTTP/1.1 200"))
        };
        timeout(Duration::from_secs(1), exchange)
            .await
            .context("no answer within a second")?
    }
}

impl Inside {
    async fn make(layout: NodeLayout, options: &LabOptions, capture: &Capture) -> anyhow::Result<Self> {
        let exe = std::env::current_exe().context("find this program")?;
        let mut process = Command::new(exe)
            .args(["hold", &layout.name()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("start a node")?;
        let mut answer = String::new();
        let stdout = process.stdout.take().context("a node without stdout")?;
        BufReader::new(stdout)
            .read_line(&mut answer)
            .await
            .context("wait for a node")?;
        ensure!(
            answer == "ready\n",
            "{} could not be made; see keeper.log",
            layout.name()
        );
        let holder = process.id().context("a node ended at once")?;
        let namespaces = Namespaces::of_process(holder)?;
        underlay::plug(layout, holder)?;
        capture.watch(&layout.port())?;
        underlay::connect(layout, options.families, &namespaces)?;
        Ok(Self {
            namespaces,
            holder,
            _process: process,
        })
    }
}

/// The environment of programs on a node: the agent's settings, each as its flag's variable.
fn environment(
    layout: NodeLayout,
    options: &LabOptions,
    lab: &LabDir,
    dir: &NodeDir,
    binaries: &Binaries,
) -> BTreeMap<String, OsString> {
    let mut env: BTreeMap<String, OsString> = [
        ("WARREN_NODE_NAME", layout.name().into()),
        ("WARREN_KUBECONFIG", dir.kubeconfig().into()),
        ("WARREN_PUBLISH_KUBECONFIG", dir.publish_kubeconfig().into()),
        ("WARREN_STEWARD_TOKEN", dir.steward_token().into()),
        ("WARREN_STATE_DIR", dir.state().into()),
        ("WARREN_RUN_DIR", "/run/warren".into()),
        ("WARREN_CNI_CONF_DIR", dir.cni_conf().into()),
        ("WARREN_CNI_BIN_DIR", dir.cni_bin().into()),
        ("WARREN_ADMIN_ADDR", format!("[::]:{ADMIN_PORT}").into()),
        ("WARREN_WIREGUARD", layout.deal(&options.wireguard).into()),
        ("WARREN_LOG", options.log.clone().into()),
    ]
    .map(|(name, value): (&str, OsString)| (name.to_owned(), value))
    .into();
    env.insert("PATH".to_owned(), binaries.search_path());
    env.insert("KUBECONFIG".to_owned(), lab.inside_kubeconfig().into());
    env
}

/// Fills the node's CNI folder, as a machine's image and the DaemonSet's install step do.
fn install_plugins(dir: &NodeDir, binaries: &Binaries) -> anyhow::Result<()> {
    let to = dir.cni_bin();
    let link = |from: &std::path::Path, name: &str| {
        std::os::unix::fs::symlink(from, to.join(name))
            .with_context(|| format!("link {} to {}", from.display(), to.display()))
    };
    link(&binaries.get("warren-cni")?, "warren-cni")?;
    for name in PLUGINS {
        let found = PLUGIN_FOLDERS
            .iter()
            .map(|it| std::path::Path::new(it).join(name))
            .find(|it| it.exists());
        if let Some(path) = found {
            link(&path, name)?;
        }
    }
    Ok(())
}

/// Kills every process whose mounts are the node's: pods have those too.
fn kill_all_in(inside: &Inside) -> anyhow::Result<()> {
    let mounts = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
    let node = mounts(&inside.holder.to_string());
    ensure!(node.is_some(), "the node has ended already");
    for entry in std::fs::read_dir("/proc").context("read /proc")? {
        let name = entry
            .context("read /proc")?
            .file_name()
            .to_string_lossy()
            .into_owned();
        let Ok(pid) = name.parse() else { continue };
        if mounts(&name) == node {
            // One that has just ended is as good as killed.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
    Ok(())
}
