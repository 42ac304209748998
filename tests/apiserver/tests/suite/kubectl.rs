//! Stock kubectl against a served API. `KUBECTL` names the binaries to try, separated by commas; by default the one on
//! PATH. Without any, the tests say so, and fail when `WARREN_REQUIRE=all` is set.

use std::path::PathBuf;
use std::process::Stdio;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use warren_testapi::Config;

use crate::common::{CRDS, NODES, PATIENCE, PODS, Served, mesh_crd, node, pod, serve};

/// kubectl with a home of its own: its discovery cache lives there.
struct Kubectl {
    binary: PathBuf,
    home: TempDir,
    url: String,
}

impl Kubectl {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .env_clear()
            .env("HOME", self.home.path())
            .env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command
            .args(["--server", &self.url])
            .args(arguments)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Runs to the end; standard output, or standard error as the failure.
    async fn run(&self, arguments: &[&str]) -> Result<String, String> {
        let output = self.command(arguments).output().await.unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() {
            Ok(text(&output.stdout))
        } else {
            Err(text(&output.stderr))
        }
    }

    async fn ok(&self, arguments: &[&str]) -> String {
        self.run(arguments)
            .await
            .unwrap_or_else(|error| panic!("{} {arguments:?}: {error}", self.binary.display()))
    }

    async fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.ok(&[arguments, &["-o", "json"]].concat()).await).unwrap()
    }

    fn file(&self, name: &str, content: &Value) -> String {
        let path = self.home.path().join(name);
        std::fs::write(&path, content.to_string()).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

/// The binaries to try. Empty, with a word about it, when there is none and none is required.
fn binaries() -> Vec<PathBuf> {
    let named = std::env::var("KUBECTL").unwrap_or_default();
    let mut found: Vec<PathBuf> = named
        .split(',')
        .filter(|name| !name.is_empty())
        .map(PathBuf::from)
        .collect();
    if found.is_empty() {
        let path = std::env::var_os("PATH").unwrap_or_default();
        found.extend(
            std::env::split_paths(&path)
                .map(|dir| dir.join("kubectl"))
                .find(|binary| binary.is_file()),
        );
    }
    if found.is_empty() {
        let message =
            "SKIPPED: no kubectl on PATH, so nothing shows that stock kubectl works against this server";
        assert_ne!(std::env::var("WARREN_REQUIRE").as_deref(), Ok("all"), "{message}");
        // Straight to the terminal: the test harness hides what a passing test prints.
        drop(std::io::Write::write_all(
            &mut std::io::stderr(),
            format!("{message}\n").as_bytes(),
        ));
    }
    found
}

async fn each() -> Vec<(Served, Kubectl)> {
    let mut all = Vec::new();
    for binary in binaries() {
        let served = serve(Config::default()).await;
        let kubectl = Kubectl {
            binary,
            home: tempfile::tempdir().unwrap(),
            url: served.url(),
        };
        all.push((served, kubectl));
    }
    all
}

fn workload(image: &str, mtu: i64) -> Value {
    let template = json!({ "metadata": { "labels": { "a": "b" } },
        "spec": { "containers": [{ "name": "c", "image": image, "ports": [{ "containerPort": 80 }] }] } });
    json!({ "apiVersion": "v1", "kind": "List", "items": [
        { "apiVersion": "warren-mesh.io/v1alpha1", "kind": "Mesh", "metadata": { "name": "default" }, "spec": { "mtu": mtu } },
        { "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "m", "namespace": "default" }, "data": { "k": "v" } },
        { "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": { "name": "d", "namespace": "kube-system" },
            "spec": { "selector": { "matchLabels": { "a": "b" } }, "template": template } }] })
}

#[tokio::test]
async fn apply_creates_configures_and_leaves_alone_without_special_flags() {
    for (served, kubectl) in each().await {
        let crd = kubectl.file("crd.json", &mesh_crd());
        kubectl.ok(&["apply", "-f", &crd]).await;
        kubectl
            .ok(&[
                "wait",
                "--for=condition=Established",
                "crd/meshes.warren-mesh.io",
                "--timeout=5s",
            ])
            .await;
        let file = kubectl.file("all.json", &workload("i", 1400));
        for (verb, extra) in [
            ("created", &[][..]),
            ("unchanged", &[]),
            ("serverside-applied", &["--server-side", "--force-conflicts"]),
        ] {
            let said = kubectl.ok(&[&["apply", "-f", &file], extra].concat()).await;
            assert_eq!(
                said.lines().filter(|line| line.ends_with(verb)).count(),
                3,
                "{said}"
            );
        }
        let version = served.api.version();
        kubectl
            .ok(&["apply", "-f", &file, "--server-side", "--force-conflicts"])
            .await;
        assert_eq!(served.api.version(), version, "applying again writes nothing");
        let file = kubectl.file("all.json", &workload("j", 1500));
        kubectl.ok(&["apply", "-f", &file, "--dry-run=server"]).await;
        assert_eq!(served.api.version(), version, "a dry run writes nothing");
        let said = kubectl.ok(&["apply", "-f", &file]).await;
        assert_eq!(
            said.lines().filter(|line| line.ends_with("configured")).count(),
            2,
            "{said}"
        );
        let set = kubectl.json(&["get", "ds", "d", "-n", "kube-system"]).await;
        assert_eq!(set["spec"]["template"]["spec"]["containers"][0]["image"], "j");
        assert_eq!(
            kubectl.json(&["get", "msh", "default"]).await["spec"],
            json!({ "encryption": "wireguard", "mtu": 1500 })
        );
    }
}

#[tokio::test]
async fn small_verbs_work() {
    for (served, kubectl) in each().await {
        served.api.create(CRDS, "", mesh_crd()).unwrap();
        served.api.create(PODS, "default", pod("p")).unwrap();
        let mesh = kubectl.file("mesh.json", &crate::common::mesh());
        kubectl.ok(&["create", "-f", &mesh]).await;
        assert!(
            kubectl
                .run(&["create", "-f", &mesh])
                .await
                .unwrap_err()
                .contains("AlreadyExists")
        );
        kubectl.ok(&["label", "pod", "p", "a=b"]).await;
        kubectl.ok(&["annotate", "mesh", "default", "q=1"]).await;
        kubectl
            .ok(&[
                "patch",
                "pod",
                "p",
                "-p",
                r#"{"spec":{"containers":[{"name":"c","image":"k"}]}}"#,
            ])
            .await;
        kubectl
            .ok(&[
                "patch",
                "mesh",
                "default",
                "--type=merge",
                "-p",
                r#"{"spec":{"mtu":9}}"#,
            ])
            .await;
        kubectl
            .ok(&[
                "patch",
                "mesh",
                "default",
                "--type=json",
                "-p",
                r#"[{"op":"remove","path":"/spec/mtu"}]"#,
            ])
            .await;
        let bad = kubectl
            .run(&[
                "patch",
                "mesh",
                "default",
                "--type=merge",
                "-p",
                r#"{"spec":{"mtu":-1}}"#,
            ])
            .await;
        assert!(bad.unwrap_err().contains("spec.mtu"));
        let stored = served.api.get(PODS, "default", "p").unwrap();
        assert_eq!(
            (
                &stored["metadata"]["labels"]["a"],
                &stored["spec"]["containers"][0]["image"]
            ),
            (&json!("b"), &json!("k"))
        );

        kubectl.ok(&["create", "namespace", "x"]).await;
        kubectl
            .ok(&["create", "configmap", "m", "-n", "x", "--from-literal=k=v"])
            .await;
        kubectl
            .ok(&[
                "create",
                "secret",
                "generic",
                "s",
                "-n",
                "x",
                "--from-literal=k=v",
            ])
            .await;
        assert_eq!(
            kubectl.json(&["get", "secret", "s", "-n", "x"]).await["data"]["k"],
            "dg=="
        );
        assert_eq!(
            kubectl.json(&["get", "cm", "m", "-n", "x"]).await["data"]["k"],
            "v"
        );
        assert!(
            kubectl
                .ok(&["auth", "can-i", "get", "pods"])
                .await
                .contains("yes")
        );
        kubectl.ok(&["delete", "namespace", "x", "--timeout=5s"]).await;
        kubectl.ok(&["delete", "pod", "p", "--timeout=5s"]).await;
        kubectl.ok(&["delete", "mesh", "--all", "--timeout=5s"]).await;
        assert!(
            kubectl
                .run(&["get", "pod", "p"])
                .await
                .unwrap_err()
                .contains("NotFound")
        );
    }
}

#[tokio::test]
async fn tables_show_the_columns_people_look_for() {
    for (served, kubectl) in each().await {
        let mut worker = node("worker");
        worker["status"] = json!({ "addresses": [{ "type": "InternalIP", "address": "192.0.2.7" }],
            "conditions": [{ "type": "Ready", "status": "True" }] });
        served.api.create(NODES, "", worker).unwrap();
        served.api.create(CRDS, "", mesh_crd()).unwrap();
        served
            .api
            .create(crate::common::MESHES, "", crate::common::mesh())
            .unwrap();
        let words = |text: String| {
            text.lines()
                .map(|l| l.split_whitespace().map(str::to_owned).collect())
                .collect::<Vec<Vec<_>>>()
        };
        let nodes = words(kubectl.ok(&["get", "nodes", "-o", "wide"]).await);
        assert_eq!(nodes[0][..2], ["NAME", "STATUS"]);
        assert_eq!(nodes[1][..3], ["worker", "Ready", "<none>"]);
        assert!(nodes[1].contains(&"192.0.2.7".to_owned()), "{nodes:?}");
        assert_eq!(
            words(kubectl.ok(&["get", "mesh"]).await),
            [vec!["NAME", "ENCRYPTION", "READY"], vec!["default", "wireguard"]]
        );
        assert!(
            kubectl
                .ok(&["get", "mesh", "default", "-o", "yaml"])
                .await
                .contains("encryption: wireguard")
        );
        assert!(kubectl.ok(&["get", "all", "-A"]).await.is_empty());
    }
}

#[tokio::test]
async fn get_watch_prints_changes_as_they_come() {
    for (served, kubectl) in each().await {
        served.api.create(PODS, "default", pod("first")).unwrap();
        let mut child = kubectl
            .command(&["get", "pods", "-w", "--no-headers"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        for (name, make) in [("first", false), ("second", true)] {
            if make {
                served.api.create(PODS, "default", pod(name)).unwrap();
            }
            let line = tokio::time::timeout(PATIENCE, lines.next_line())
                .await
                .unwrap()
                .unwrap()
                .unwrap();
            assert!(line.starts_with(name), "{line}");
        }
        child.kill().await.unwrap();
    }
}
