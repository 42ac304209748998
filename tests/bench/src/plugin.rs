//! Calls a CNI plugin as a container runtime does, many times, and takes the time. Runs inside a node.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use warren_lab::{Lab, Place};

/// The name of the subcommand that calls from inside.
pub(crate) const SUBCOMMAND: &str = "inside-plugin";

/// Where runtimes have the network namespaces of pods.
const NETNS_DIR: &str = "/run/netns";

/// What to call, and how often.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Calls {
    /// The plugin.
    pub(crate) plugin: PathBuf,
    /// What it gets on its stdin.
    pub(crate) config: Value,
    /// How many pods: all are attached, then all detached.
    pub(crate) pods: usize,
    /// How many at once.
    pub(crate) at_once: usize,
}

/// How long each call took, ms.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Times {
    pub(crate) add: Vec<f64>,
    pub(crate) del: Vec<f64>,
}

impl Calls {
    /// Makes the calls on a node of a lab.
    pub(crate) async fn make_on(&self, lab: &Lab, node: &str) -> anyhow::Result<Times> {
        let this = std::env::current_exe().context("find this program")?;
        let calls = serde_json::to_string(self)?;
        let argv = [
            this.to_str().context("a path that is not text")?,
            SUBCOMMAND,
            &calls,
        ];
        let limit = std::time::Duration::from_secs(600);
        let output = lab.run_for(Place::Node(node.to_owned()), &argv, limit).await?;
        if !output.success() {
            bail!("{}: {}", self.plugin.display(), output.stderr.trim());
        }
        serde_json::from_str(&output.stdout).with_context(|| format!("calls on {node}: {}", output.stdout))
    }

    /// Makes them on the node that this process runs on.
    pub(crate) fn make_here(&self) -> anyhow::Result<Times> {
        let run = fs::read_to_string("/proc/sys/kernel/random/uuid").context("choose container ids")?;
        let run = run.trim().replace('-', "");
        // Made and removed outside of what is measured: a runtime's own business.
        let pods: Vec<Pod> = (0..self.pods)
            .map(|n| Pod::new(&format!("{run}{n:032x}")))
            .collect::<anyhow::Result<_>>()?;
        Ok(Times {
            add: self.each(&pods, "ADD")?,
            del: self.each(&pods, "DEL")?,
        })
    }

    /// One call for each pod, so many at once. The first failure ends it.
    fn each(&self, pods: &[Pod], command: &str) -> anyhow::Result<Vec<f64>> {
        let (next, times) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        let work = || -> anyhow::Result<()> {
            while let Some(pod) = pods.get(next.fetch_add(1, Ordering::Relaxed)) {
                let time = self.call(pod, command)?;
                #[expect(clippy::expect_used, reason = "nothing panics while it is held")]
                times.lock().expect("nothing panics while it is held").push(time);
            }
            Ok(())
        };
        thread::scope(|scope| {
            let workers: Vec<_> = (0..self.at_once).map(|_| scope.spawn(work)).collect();
            workers.into_iter().try_for_each(|it| {
                it.join()
                    .unwrap_or_else(|_| Err(anyhow::anyhow!("a worker has panicked")))
            })
        })?;
        Ok(times.into_inner().unwrap_or_default())
    }

    /// From starting the plugin to having its whole answer, ms.
    fn call(&self, pod: &Pod, command: &str) -> anyhow::Result<f64> {
        let started = Instant::now();
        let mut child = Command::new(&self.plugin)
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", &pod.id)
            .env("CNI_NETNS", &pod.netns)
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", self.plugin.parent().unwrap_or(Path::new("/")))
            .env(
                "CNI_ARGS",
                format!(
                    "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=p{0};K8S_POD_INFRA_CONTAINER_ID={0}",
                    pod.id
                ),
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("run {}", self.plugin.display()))?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin
                .write_all(self.config.to_string().as_bytes())
                .context("write the configuration")?;
        }
        let output = child.wait_with_output().context("wait for the plugin")?;
        let time = started.elapsed().as_secs_f64() * 1000.0;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        ensure!(
            output.status.success(),
            "{command} failed: {}{}",
            text(&output.stdout),
            text(&output.stderr)
        );
        if command == "ADD" {
            let result: Value = serde_json::from_slice(&output.stdout).context("read the result")?;
            ensure!(result["ips"][0]["address"].is_string(), "no address in {result}");
        }
        Ok(time)
    }
}

/// A pod as a plugin sees one: an id and a network namespace, which ends with this.
#[derive(Debug)]
struct Pod {
    id: String,
    netns: PathBuf,
}

impl Pod {
    fn new(id: &str) -> anyhow::Result<Self> {
        fs::create_dir_all(NETNS_DIR).with_context(|| format!("make {NETNS_DIR}"))?;
        let netns = Path::new(NETNS_DIR).join(id);
        File::create(&netns).with_context(|| format!("make {}", netns.display()))?;
        let to = netns.clone();
        let made = thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET)?;
            let here = Some("/proc/thread-self/ns/net");
            mount(here, &to, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        });
        let made = made.join().unwrap_or(Err(nix::errno::Errno::ECHILD));
        made.context("make a network namespace")?;
        Ok(Self {
            id: id.to_owned(),
            netns,
        })
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        // What cannot be removed goes with the node, which is about to end.
        let _ = umount2(&self.netns, MntFlags::MNT_DETACH);
        let _ = fs::remove_file(&self.netns);
    }
}
