//! The real Kubernetes API: etcd and kube-apiserver as processes of the lab.

use std::fs::File;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::process::{Child, Command};
use tokio::time::Instant;

use super::API_PORT;
use super::credentials::{Certificates, Identities, write_secret};
use crate::layout::Families;

/// How long both together may take to answer. They take 1 to 5 seconds on an idle machine.
const START: Duration = Duration::from_secs(90);

const ETCD: &str = "http://127.0.0.1:2379";

/// The running programs. They end when this is dropped.
pub(crate) struct RealApi {
    etcd: Child,
    apiserver: Child,
    logs: PathBuf,
}

/// The folder that holds both programs: what `hack/real-api.sh` prints, which may build them first.
pub(crate) fn find_assets() -> anyhow::Result<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../hack/real-api.sh");
    let output = std::process::Command::new(&script)
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| {
            format!(
                "run {} (KUBEBUILDER_ASSETS names a folder to use instead)",
                script.display()
            )
        })?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() || text.trim().is_empty() {
        bail!(
            "{} found no etcd and kube-apiserver and could not build them",
            script.display()
        );
    }
    Ok(PathBuf::from(text.trim()))
}

impl RealApi {
    /// Starts both. `dir` takes their secrets and logs; etcd's data goes to the lab's `/run`, which is memory.
    pub(crate) fn start(
        assets: &Path,
        dir: &Path,
        advertise: IpAddr,
        families: Families,
        certificates: &Certificates,
        identities: &Identities,
    ) -> anyhow::Result<Self> {
        let etcd = spawn(
            Command::new(assets.join("etcd")).args([
                "--data-dir=/run/etcd",
                "--unsafe-no-fsync",
                &format!("--listen-client-urls={ETCD}"),
                &format!("--advertise-client-urls={ETCD}"),
                "--listen-peer-urls=http://127.0.0.1:2380",
                "--logger=zap",
                "--log-level=warn",
            ]),
            &dir.join("etcd.log"),
        )?;

        let accounts_key = dir.join("accounts.key");
        let accounts_public = dir.join("accounts.pub");
        let tokens = dir.join("tokens.csv");
        write_secret(&accounts_key, certificates.accounts.serialize_pem().as_bytes())?;
        write_secret(
            &accounts_public,
            certificates.accounts.public_key_pem().as_bytes(),
        )?;
        write_secret(&tokens, token_file(identities).as_bytes())?;
        let services = match families {
            Families::V4 => "10.96.0.0/16",
            Families::V6 => "fd00:10:96::/112",
            Families::Dual => "10.96.0.0/16,fd00:10:96::/112",
        };
        let program = assets.join("kube-apiserver");
        // Before 1.21 a node has one pod CIDR and a pod one address, unless this is asked for; after 1.24 it cannot be.
        let dual_stack = (minor_version(&program)? < 21).then_some("--feature-gates=IPv6DualStack=true");
        let apiserver = spawn(
            Command::new(program)
                .args(dual_stack)
                .arg(format!("--etcd-servers={ETCD}"))
                .arg(format!("--secure-port={API_PORT}"))
                .arg(format!(
                    "--bind-address={}",
                    if advertise.is_ipv4() { "0.0.0.0" } else { "::" }
                ))
                .arg(format!("--advertise-address={advertise}"))
                .arg(format!("--tls-cert-file={}", dir.join("server.crt").display()))
                .arg(format!(
                    "--tls-private-key-file={}",
                    dir.join("server.key").display()
                ))
                .arg(format!("--cert-dir={}", dir.display()))
                .arg(format!("--token-auth-file={}", tokens.display()))
                .arg("--service-account-issuer=https://kubernetes.default.svc")
                .arg(format!(
                    "--service-account-signing-key-file={}",
                    accounts_key.display()
                ))
                .arg(format!(
                    "--service-account-key-file={}",
                    accounts_public.display()
                ))
                .arg(format!("--service-cluster-ip-range={services}"))
                .arg("--authorization-mode=Node,RBAC")
                .arg("--enable-admission-plugins=NodeRestriction")
                // Nobody makes the service accounts' tokens here.
                .arg("--disable-admission-plugins=ServiceAccount")
                .arg("--kubelet-preferred-address-types=InternalIP"),
            &dir.join("kube-apiserver.log"),
        )?;
        Ok(Self {
            etcd,
            apiserver,
            logs: dir.to_owned(),
        })
    }

    /// Waits until the server has finished its start.
    pub(crate) async fn ready(&mut self, client: &kube::Client) -> anyhow::Result<()> {
        let deadline = Instant::now() + START;
        loop {
            for (name, child) in [("etcd", &mut self.etcd), ("kube-apiserver", &mut self.apiserver)] {
                if let Some(status) = child.try_wait().context("look after the API's programs")? {
                    bail!(
                        "{name} ended ({status}); {}",
                        last_lines(&self.logs.join(format!("{name}.log")))
                    );
                }
            }
            let request = http::Request::get("/readyz")
                .body(Vec::new())
                .context("ask for readiness")?;
            match tokio::time::timeout(Duration::from_secs(2), client.request_text(request)).await {
                Ok(Ok(_)) => return Ok(()),
                answer if Instant::now() > deadline => {
                    let log = last_lines(&self.logs.join("kube-apiserver.log"));
                    bail!("kube-apiserver was not ready after {START:?} ({answer:?}); {log}");
                }
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }
}

/// The 20 of `Kubernetes v1.20.2`.
fn minor_version(program: &Path) -> anyhow::Result<u32> {
    let output = std::process::Command::new(program)
        .arg("--version")
        .output()
        .with_context(|| format!("run {}", program.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let minor = text
        .trim()
        .strip_prefix("Kubernetes v1.")
        .and_then(|it| it.split('.').next()?.parse().ok());
    minor.with_context(|| {
        format!(
            "{} --version says {:?}, which is no version",
            program.display(),
            text.trim()
        )
    })
}

fn spawn(command: &mut Command, log: &Path) -> anyhow::Result<Child> {
    let file = File::create(log).with_context(|| format!("make {}", log.display()))?;
    let program = command.as_std().get_program().display().to_string();
    command
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("run {program}"))
}

/// Token, user, uid and groups; the last in quotes, as there are several.
fn token_file(identities: &Identities) -> String {
    let line = |it: &super::credentials::Identity| {
        format!(
            "{},{},{},\"{}\"\n",
            it.token,
            it.user,
            it.user,
            it.groups.join(",")
        )
    };
    identities.all().map(line).collect()
}

/// The end of a log, for an error message.
pub(crate) fn last_lines(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    let tail = lines[lines.len().saturating_sub(8)..].join("\n  ");
    if tail.is_empty() {
        format!("{} is empty", path.display())
    } else {
        format!("{} ends:\n  {tail}", path.display())
    }
}
