//! What a lab and an agent leave behind: nothing.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod support;

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::{PATIENCE, devices, lab, lanes, skip, two_pods_a_node};
use warren_lab::{LabOptions, Place, PodOptions};

const WARREN_LAB: &str = env!("CARGO_BIN_EXE_warren-lab");

/// Runs its arguments as "nobody". Where udev has not opened the TUN device to everybody, as its rules do, he sees one that is.
const AS_ORDINARY_USER: &str = r#"
    [ "$(stat -c %a /dev/net/tun)" = 666 ] ||
        { mount -t tmpfs tmpfs /dev/net && mknod -m 666 /dev/net/tun c 10 200; } || exit
    exec setpriv --reuid 65534 --regid 65534 --clear-groups "$@""#;

#[tokio::test]
async fn uninstalling_a_node_leaves_nothing_of_warren_there() {
    let Some(lab) = lab(LabOptions {
        nodes: 2,
        ..LabOptions::default()
    })
    .await
    else {
        return;
    };
    let facts = two_pods_a_node(&lab).await;
    for pod in &facts.pods {
        lab.pod_remove(pod.key.clone()).await.unwrap();
    }
    lab.node_stop("node1").await.unwrap();
    let node = || Place::Node("node1".to_owned());
    let disk = &facts.nodes[0].disk;
    assert!(
        disk.join("state").read_dir().unwrap().next().is_some(),
        "there was something"
    );
    assert!(!lanes(&lab, "node1").await.is_empty(), "there was something");

    let uninstall = lab.run(node(), &["warren", "uninstall-node"]).await.unwrap();
    assert!(uninstall.success(), "{uninstall:?}");
    for (argv, left) in [
        (vec!["ip", "-oneline", "link"], vec!["warren", "wrn"]),
        (
            vec!["ip", "-4", "route", "show", "table", "all"],
            vec!["proto 87", "10.244."],
        ),
        (
            vec!["ip", "-6", "route", "show", "table", "all"],
            vec!["proto 87", "fd00:10:244"],
        ),
        (vec!["ip", "rule"], vec!["proto 87"]),
        (vec!["nft", "list", "tables"], vec!["warren"]),
        (vec!["find", "/run"], vec!["warren"]),
    ] {
        let output = lab.run(node(), &argv).await.unwrap();
        assert!(output.success(), "{output:?}");
        for word in left {
            assert!(
                !output.stdout.contains(word),
                "{argv:?} shows {word:?}: {}",
                output.stdout
            );
        }
    }
    assert_eq!(devices(&lab, "node1").await, Vec::<String>::new());
    for (dir, kind) in [("state", "keys and addresses"), ("cni/net.d", "configuration")] {
        let left: Vec<_> = disk
            .join(dir)
            .read_dir()
            .into_iter()
            .flatten()
            .flatten()
            .map(|it| it.path())
            .collect();
        assert!(left.is_empty(), "{kind}: {left:?}");
    }
    assert!(!disk.join("cni/bin/warren-cni").exists());
}

#[tokio::test]
async fn a_command_in_a_lab_ends_as_it_would_outside() {
    let Some(lab) = lab(LabOptions {
        nodes: 1,
        ..LabOptions::default()
    })
    .await
    else {
        return;
    };
    lab.pod_add(PodOptions::new("pod", "node1")).await.unwrap();
    for (place, name) in [("node", "node1"), ("pod", "pod")] {
        let exec = |script: &str| {
            let mut command = Command::new(WARREN_LAB);
            command.args([
                "--dir",
                lab.dir().to_str().unwrap(),
                place,
                "exec",
                name,
                "--",
                "sh",
                "-c",
                script,
            ]);
            command.output().unwrap()
        };
        let output = exec("hostname; echo complaint >&2; exit 7");
        assert_eq!(output.status.code(), Some(7), "{output:?}");
        assert_eq!(output.stdout, b"node1\n");
        assert_eq!(output.stderr, b"complaint\n");
        assert_eq!(exec("kill -TERM $$").status.code(), Some(128 + 15));
    }
}

#[tokio::test]
async fn two_labs_know_nothing_of_each_other() {
    let options = || LabOptions {
        nodes: 1,
        agents: false,
        ..LabOptions::default()
    };
    let Some(one) = lab(options()).await else { return };
    let Some(other) = lab(options()).await else { return };
    let (facts, others) = (one.facts().await.unwrap(), other.facts().await.unwrap());
    assert_ne!((facts.dir, facts.server), (others.dir, others.server));
    drop(one);
    assert!(
        other
            .run(Place::Root, &["ping", "-c", "1", "-w", "5", "10.211.1.11"])
            .await
            .unwrap()
            .success()
    );
}

#[tokio::test]
async fn an_interrupted_demonstration_removes_everything_and_says_so_in_its_status() {
    for (signal, code) in [
        (Signal::SIGINT, Some(130)),
        (Signal::SIGTERM, Some(143)),
        (Signal::SIGKILL, None),
    ] {
        if !possible() {
            return;
        }
        let mut demo = Demo::start();
        demo.wait_for("==> 2 pods a node");
        let keeper = demo.keeper();
        kill(Pid::from_raw(demo.process.id().cast_signed()), signal).unwrap();
        let status = demo.process.wait().unwrap();
        assert_eq!(status.code(), code, "{status}");
        if code.is_none() {
            assert_eq!(status.signal(), Some(signal as i32));
        }
        until(&format!("the end of the lab after {signal}"), || {
            !alive(keeper) && !demo.dir().exists()
        });
    }
}

#[tokio::test]
async fn taking_down_what_is_not_up_is_harmless() {
    let temp = tempfile::tempdir().unwrap();
    let status = Command::new(WARREN_LAB)
        .arg("--dir")
        .arg(temp.path())
        .arg("down")
        .status()
        .unwrap();
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn a_user_without_root_has_a_lab_too() {
    if !possible() {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    std::fs::set_permissions(temp.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    // The checkout may be where only its owner can read.
    let bin = bin_for_all(temp.path());
    let manifests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests/base");
    std::fs::copy(manifests.join("rbac.yaml"), temp.path().join("rbac.yaml")).unwrap();
    let program = bin.join("warren-lab");
    let mut command = if nix::unistd::geteuid().is_root() {
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-c", AS_ORDINARY_USER, "sh"])
            .arg(program);
        command
    } else {
        Command::new(program)
    };
    command
        .args(["demo", "--nodes", "2"])
        .env_remove("WARREN_BIN_DIR")
        .env("WARREN_MANIFESTS", temp.path());
    command.current_dir("/").stdin(Stdio::null());
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let last = text.lines().last().unwrap();
    let expected = "warren demo: nodes=2 pods=4 pairs=12 reachable=12 plaintext=0 wireguard=";
    assert!(last.starts_with(expected), "{last}");
}

/// A demonstration under way.
struct Demo {
    process: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Demo {
    fn start() -> Self {
        let mut process = Command::new(WARREN_LAB)
            .arg("demo")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { process, lines }
    }

    fn wait_for(&mut self, beginning: &str) {
        let found = self.lines.any(|line| line.unwrap().starts_with(beginning));
        assert!(found, "the demonstration did not come to {beginning:?}");
    }

    /// Where its lab is: named by the process that made it.
    fn dir(&self) -> PathBuf {
        PathBuf::from(format!("/tmp/warren-lab-of-{}-0", self.process.id()))
    }

    fn keeper(&self) -> i32 {
        let lab = std::fs::read(self.dir().join("lab.json")).unwrap();
        let lab: serde_json::Value = serde_json::from_slice(&lab).unwrap();
        lab["pid"].as_i64().unwrap().try_into().unwrap()
    }
}

fn possible() -> bool {
    warren_lab::obstacle()
        .unwrap()
        .is_none_or(|it| skip::<()>(&it).is_some())
}

fn alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // A zombie is what an init that does not collect leaves; nothing of the lab is in it.
    !stat.is_empty() && !stat.contains(") Z ")
}

fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(
            Instant::now() < deadline,
            "{what} did not come about in {PATIENCE:?}"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A folder with all programs that everybody may run.
fn bin_for_all(temp: &Path) -> PathBuf {
    let from = std::env::var_os("WARREN_BIN_DIR").map_or_else(
        || Path::new(WARREN_LAB).parent().unwrap().to_owned(),
        PathBuf::from,
    );
    let bin = temp.join("bin");
    std::fs::create_dir(&bin).unwrap();
    for name in ["warren", "warren-agent", "warren-cni", "warren-lab", "warren-wg"] {
        std::fs::copy(from.join(name), bin.join(name)).unwrap();
    }
    bin
}
