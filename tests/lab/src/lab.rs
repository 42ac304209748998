//! A lab, as a test or a program has it.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use kube::Client;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};

use crate::api::{self, last_lines};
use crate::binaries::Binaries;
use crate::capture::Counts;
use crate::cni::CniCommand;
use crate::control::{Output, Place, Request, Run, call};
use crate::dir::LabDir;
use crate::facts::{Facts, PodFacts};
use crate::keeper::{KeepArguments, Progress};
use crate::options::{ApiKind, LabOptions};
use crate::pod::{PodKey, PodOptions};

/// How long a lab may take to be gone.
const GONE: Duration = Duration::from_secs(20);

/// How long a program in a lab may run, where nothing else is said.
const RUN: Duration = Duration::from_secs(60);

/// A lab that is up. Dropped, it is taken down, and nothing of it is left; so it is if this process is killed.
pub struct Lab {
    dir: LabDir,
    /// `None` once the lab has been let go of.
    keeper: Option<(Child, ChildStdin)>,
    client: Option<Client>,
}

impl Lab {
    /// Brings a lab up.
    pub async fn up(options: LabOptions) -> anyhow::Result<Self> {
        Self::up_with(options, |_| {}).await
    }

    /// Brings a lab up and tells of each step. Dropping the future takes down what there is by then.
    pub async fn up_with(mut options: LabOptions, mut step: impl FnMut(&str)) -> anyhow::Result<Self> {
        options.check()?;
        if options.api == ApiKind::Real && options.assets.is_none() {
            step("looking for etcd and kube-apiserver");
            options.assets = Some(tokio::task::spawn_blocking(api::find_assets).await??);
        }
        let program = Binaries::find()?.get("warren-lab")?;
        let dir = LabDir::at(&options.dir.take().unwrap_or_else(fresh_path))?;
        dir.create()?;
        let log =
            File::create(dir.keeper_log()).with_context(|| format!("make {}", dir.keeper_log().display()))?;
        let arguments = KeepArguments {
            dir: dir.path().to_owned(),
            options,
        };
        let mut keeper = Command::new(program)
            .arg("keep")
            .arg(serde_json::to_string(&arguments)?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .context("start the lab's keeper")?;
        let lifeline = keeper.stdin.take().context("a keeper without stdin")?;
        let progress = keeper.stdout.take().context("a keeper without stdout")?;
        let mut lab = Self {
            dir,
            keeper: Some((keeper, lifeline)),
            client: None,
        };

        let mut lines = BufReader::new(progress).lines();
        loop {
            let line = lines.next_line().await.context("listen to the lab's keeper")?;
            match line
                .map(|it| serde_json::from_str(&it))
                .transpose()
                .context("listen to the lab's keeper")?
            {
                Some(Progress::Step(text)) => step(&text),
                Some(Progress::Ready) => break,
                Some(Progress::Failed(text)) => bail!(text),
                None => bail!("the lab's keeper ended; {}", last_lines(&lab.dir.keeper_log())),
            }
        }
        lab.client = Some(api::client(&lab.dir.kubeconfig()).await?);
        Ok(lab)
    }

    /// A client of the lab's API, as an administrator, from the host.
    pub fn client(&self) -> Client {
        #[expect(clippy::expect_used, reason = "set by the only function that returns a lab")]
        self.client.clone().expect("a lab that is up has a client")
    }

    /// A kubeconfig for the same.
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.kubeconfig()
    }

    /// The path of one for inside the lab.
    pub fn kubeconfig_inside(&self) -> String {
        self.dir.inside_kubeconfig().display().to_string()
    }

    /// The lab's directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// What there is.
    pub async fn facts(&self) -> anyhow::Result<Facts> {
        self.ask(Request::Facts).await
    }

    /// What crossed the underlay before this was called.
    pub async fn counts(&self) -> anyhow::Result<Counts> {
        self.ask(Request::Counts).await
    }

    /// Starts a node's agent and waits until it serves.
    pub async fn node_start(&self, node: &str) -> anyhow::Result<()> {
        self.ask(Request::NodeStart {
            node: node.to_owned(),
            wireguard: None,
        })
        .await
    }

    /// The same with another `--wireguard`.
    pub async fn node_start_with_wireguard(&self, node: &str, kind: &str) -> anyhow::Result<()> {
        self.ask(Request::NodeStart {
            node: node.to_owned(),
            wireguard: Some(kind.to_owned()),
        })
        .await
    }

    /// Ends a node's agent by SIGTERM and waits for it to drain.
    pub async fn node_stop(&self, node: &str) -> anyhow::Result<()> {
        self.ask(Request::NodeStop {
            node: node.to_owned(),
            kill: false,
        })
        .await
    }

    /// Ends a node's agent by SIGKILL.
    pub async fn node_kill(&self, node: &str) -> anyhow::Result<()> {
        self.ask(Request::NodeStop {
            node: node.to_owned(),
            kill: true,
        })
        .await
    }

    /// Takes a node's link to the underlay down.
    pub async fn node_cut(&self, node: &str) -> anyhow::Result<()> {
        self.ask(Request::NodeCut {
            node: node.to_owned(),
        })
        .await
    }

    /// Takes it up again.
    pub async fn node_mend(&self, node: &str) -> anyhow::Result<()> {
        self.ask(Request::NodeMend {
            node: node.to_owned(),
        })
        .await
    }

    /// Restarts a node: its pods are gone, its disk is not.
    pub async fn node_reboot(&self, node: &str) -> anyhow::Result<()> {
        self.ask(Request::NodeReboot {
            node: node.to_owned(),
        })
        .await
    }

    /// Makes a pod and attaches it.
    pub async fn pod_add(&self, pod: PodOptions) -> anyhow::Result<PodFacts> {
        self.ask(Request::PodAdd(pod)).await
    }

    /// Detaches and deletes a pod.
    pub async fn pod_remove(&self, pod: impl Into<PodKey>) -> anyhow::Result<()> {
        self.ask(Request::PodRemove { pod: pod.into() }).await
    }

    /// Runs one CNI command for a pod through its node's chain, as a runtime would. Returns the result of ADD.
    pub async fn pod_cni(&self, pod: impl Into<PodKey>, command: CniCommand) -> anyhow::Result<Value> {
        self.ask(Request::PodCni {
            pod: pod.into(),
            command,
        })
        .await
    }

    /// Runs a program to its end, at most a minute.
    pub async fn run(&self, place: Place, argv: &[&str]) -> anyhow::Result<Output> {
        self.run_for(place, argv, RUN).await
    }

    /// The same, with another limit.
    pub async fn run_for(&self, place: Place, argv: &[&str], limit: Duration) -> anyhow::Result<Output> {
        self.run_with(place, argv, &[], "", limit).await
    }

    /// The same, with more environment variables and a stdin.
    pub async fn run_with(
        &self,
        place: Place,
        argv: &[&str],
        env: &[(&str, &str)],
        stdin: &str,
        limit: Duration,
    ) -> anyhow::Result<Output> {
        let env: BTreeMap<_, _> = env
            .iter()
            .map(|&(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let run = Run {
            place,
            argv: argv.iter().map(|&it| it.to_owned()).collect(),
            env,
            stdin: stdin.to_owned(),
            timeout_ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX),
        };
        self.ask(Request::Run(run)).await
    }

    /// Runs the operator's command, `warren`, against the lab's API.
    pub async fn warren(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        self.run(Place::Root, &[&["warren"], arguments].concat()).await
    }

    /// Has the embedded API misbehave, as `warren_testapi` describes.
    pub async fn set_faults(&self, plan: &Value) -> anyhow::Result<()> {
        let request = http::Request::put("/warren-faults")
            .header("content-type", "application/json")
            .body(serde_json::to_vec(plan)?)?;
        self.client()
            .request_text(request)
            .await
            .context("set faults; only the embedded API has them")?;
        Ok(())
    }

    /// How it misbehaves, and how often it has.
    pub async fn faults(&self) -> anyhow::Result<Value> {
        let request = http::Request::get("/warren-faults").body(Vec::new())?;
        self.client()
            .request(request)
            .await
            .context("ask for faults; only the embedded API has them")
    }

    /// Has it behave again.
    pub async fn clear_faults(&self) -> anyhow::Result<()> {
        let request = http::Request::delete("/warren-faults").body(Vec::new())?;
        self.client()
            .request_text(request)
            .await
            .context("clear faults; only the embedded API has them")?;
        Ok(())
    }

    /// Lets go of the lab: it stays up until somebody takes it down.
    pub async fn detach(mut self) -> anyhow::Result<()> {
        self.ask::<()>(Request::Detach).await?;
        self.keeper = None;
        Ok(())
    }

    async fn ask<T: DeserializeOwned + Send + 'static>(&self, request: Request) -> anyhow::Result<T> {
        let dir = self.dir.clone();
        tokio::task::spawn_blocking(move || call(&dir, &request))
            .await
            .context("ask the lab's keeper")?
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let Some((mut keeper, lifeline)) = self.keeper.take() else {
            return;
        };
        if thread::panicking() {
            show_logs(&self.dir);
        }
        drop(lifeline);
        let deadline = Instant::now() + GONE;
        while matches!(keeper.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                // The kernel ends the rest with it.
                let _ = keeper.start_kill();
            }
            thread::sleep(Duration::from_millis(2));
        }
        // Of a keeper that failed: its client has been told why.
        if let Err(error) = self.dir.remove() {
            tracing::warn!("{error:#}");
        }
    }
}

/// Takes down the lab in a directory. Says whether there was one.
pub fn down(path: &Path) -> anyhow::Result<bool> {
    let dir = LabDir::at(path)?;
    let Some(owner) = dir.owner()? else {
        return Ok(false);
    };
    if owner.alive() {
        if call::<()>(&dir, &Request::Down).is_err() && owner.alive() {
            // It does not listen. The kernel ends the rest with it.
            let pid = nix::unistd::Pid::from_raw(owner.pid);
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL)
                .context("kill the lab's keeper")?;
        }
        let deadline = Instant::now() + GONE;
        while owner.alive() {
            if Instant::now() > deadline {
                bail!(
                    "the lab's keeper, process {}, has not ended after {GONE:?}",
                    owner.pid
                );
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
    dir.remove()?;
    Ok(true)
}

/// Why no lab can be on this machine, if none can; in words that say what to do about it.
pub fn obstacle() -> anyhow::Result<Option<String>> {
    let program = Binaries::find()?.get("warren-lab")?;
    let output = std::process::Command::new(program)
        .arg("probe")
        .output()
        .context("run warren-lab")?;
    let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Ok((!output.status.success()).then_some(words))
}

/// A directory for a lab that nobody has to find.
fn fresh_path() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let n = COUNT.fetch_add(1, Ordering::Relaxed);
    PathBuf::from(format!("/tmp/warren-lab-of-{}-{n}", std::process::id()))
}

/// For who reads why a test failed.
#[expect(clippy::print_stderr, reason = "a failing test's captured output")]
fn show_logs(dir: &LabDir) {
    eprintln!("the lab's {}", last_lines(&dir.keeper_log()));
    let nodes = std::fs::read_dir(dir.path().join("nodes"));
    for node in nodes.into_iter().flatten().flatten() {
        eprintln!("{}", last_lines(&node.path().join("agent.log")));
    }
}
