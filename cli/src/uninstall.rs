//! `warren uninstall-node`: removal of everything Warren made on this node.
//!
//! In this order: the CNI configuration, so that no pod comes any more; the plugin; the userspace devices; then what is
//! in the kernel, of which the guard goes last, so that nothing leaves in the clear meanwhile; then the agent's folders.
//! What cannot be removed is named, and does not keep the rest. The record of the sysctls' old values stays until they are
//! restored.

mod folder;
mod record;

use std::io::{self, BufRead, IsTerminal, Write};
use std::path::Path;

use anyhow::{Context, bail};
use kube::Client;
use nix::unistd::geteuid;
use warren_cluster::{ClientConfig, publish};
use warren_dataplane::client::Userspace;
use warren_kernel::{Kernel, KernelConfig, KernelError, uninstall};
use warren_model::announcement::ANNOTATION;
use warren_model::{Lane, NodeName};

use crate::admin_socket;
use crate::arguments::UninstallArguments;
use crate::outcome::Outcome;
use crate::survey::host_name;
use record::Record;

/// The CNI configuration the agent writes.
const CNI_CONFIGURATION: &str = "10-warren.conflist";
/// The CNI plugin the agent installs.
const CNI_PLUGIN: &str = "warren-cni";
/// What the agent keeps in its state folder.
const STATE: [&str; 9] = [
    "attachments.json",
    "attachments.json.damaged",
    "endpoints.json",
    "guard.json",
    "key-epochs.json",
    "keys",
    "known-keys.json",
    "rotation.json",
    SYSCTLS,
];
/// The sysctls' values before the agent changed them.
const SYSCTLS: &str = "sysctls.json";
/// What the agent has in its run folder.
const RUN: [&str; 2] = [admin_socket::FILE_NAME, "cni.sock"];

/// Removes, prints what it removed, and says whether anything is left. Fails before it has changed anything.
pub(crate) async fn uninstall(arguments: UninstallArguments) -> anyhow::Result<Outcome> {
    if !geteuid().is_root() {
        bail!("interfaces, routes and the guard are root's: run this as root, on the node");
    }
    refuse_while_an_agent_runs(&arguments.run_dir).await?;
    let withdrawal = Withdrawal::prepare(&arguments).await?;
    if !arguments.yes && !confirmed()? {
        bail!("not confirmed; nothing was changed");
    }
    let mut record = Record::default();
    remove_file(&mut record, &arguments.cni_conf_dir.join(CNI_CONFIGURATION));
    remove_file(&mut record, &arguments.cni_bin_dir.join(CNI_PLUGIN));
    end_devices(&mut record, &arguments.wireguard_dir).await;
    let sysctls_are_restored = sweep_kernel(&mut record, &arguments.state_dir).await;
    remove_folder(&mut record, &arguments.run_dir, &RUN, None);
    if arguments.keep_state {
        record.note(&format!("{} stays, as asked for", arguments.state_dir.display()));
    } else {
        let kept = (!sysctls_are_restored).then_some(SYSCTLS);
        remove_folder(&mut record, &arguments.state_dir, &STATE, kept);
    }
    match withdrawal {
        Some(withdrawal) => withdrawal.make(&mut record).await,
        None => record.note(&format!(
            "the Node keeps its annotation until it is deleted, or: kubectl annotate node NAME {ANNOTATION}-"
        )),
    }
    Ok(record.finish())
}

/// An agent would make everything anew, and hand a pod out to an interface that is about to go.
async fn refuse_while_an_agent_runs(run_dir: &Path) -> anyhow::Result<()> {
    let socket = run_dir.join(admin_socket::FILE_NAME);
    let listening = admin_socket::is_listening(&socket).await;
    if listening.with_context(|| format!("cannot tell whether an agent runs: {}", socket.display()))? {
        bail!(
            "an agent runs on this node (it listens on {}): stop it first, for example by taking the node out of \
             the DaemonSet; nothing was changed",
            socket.display()
        );
    }
    Ok(())
}

/// Asks, where there is somebody to ask: a script has been written on purpose.
fn confirmed() -> anyhow::Result<bool> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return Ok(true);
    }
    let mut stderr = io::stderr();
    write!(
        stderr,
        "Remove Warren from this node? Its pods lose their network. [y/N] "
    )
    .and_then(|()| stderr.flush())
    .context("cannot ask")?;
    let mut answer = String::new();
    stdin
        .lock()
        .read_line(&mut answer)
        .context("cannot read the answer")?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn remove_file(record: &mut Record, path: &Path) {
    match std::fs::remove_file(path) {
        Ok(()) => record.removed(&path.display()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => record.left(&path.display(), &error),
    }
}

fn remove_folder(record: &mut Record, path: &Path, contents: &[&str], kept: Option<&str>) {
    match folder::remove(path, contents, kept) {
        Ok(true) => record.removed(&path.display()),
        Ok(false) => {}
        Err(error) => record.left(&path.display(), &format!("{:#}", anyhow::Error::from(error))),
    }
}

/// Ends `warren-wg`, and with it the interface. One that does not end loses its interface to the sweep, which should end
/// it as well; that cannot be seen from here, so it counts as left. The folder of their sockets goes unless others use it.
async fn end_devices(record: &mut Record, wireguard_dir: &Path) {
    let devices = Userspace::new(wireguard_dir, "warren-wg");
    for interface in Lane::ALL.map(Lane::interface) {
        let what = format!("userspace device {interface}");
        let was_there = devices.socket(interface).symlink_metadata().is_ok();
        match devices.stop(interface).await {
            Ok(()) if was_there => record.removed(&what),
            Ok(()) => {}
            Err(error) => record.left(&what, &format!("{:#}", anyhow::Error::from(error))),
        }
    }
    match std::fs::remove_dir(wireguard_dir) {
        Ok(()) => record.removed(&wireguard_dir.display()),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::ResourceBusy
            ) => {}
        Err(error) => record.left(&wireguard_dir.display(), &error),
    }
}

/// Says whether the record of the sysctls' old values is not needed any more.
async fn sweep_kernel(record: &mut Record, state_dir: &Path) -> bool {
    let config = KernelConfig {
        state_dir: state_dir.to_owned(),
        ..KernelConfig::default()
    };
    let kernel = match Kernel::new(config) {
        Ok(kernel) => kernel,
        Err(error) => {
            let what = "interfaces, routes, sysctls and the nft table inet warren";
            record.left(&what, &format!("{:#}", anyhow::Error::from(error)));
            return false;
        }
    };
    let (swept, left) = uninstall::sweep(&kernel).await;
    for prefix in swept.routes {
        record.removed(&format!("route {prefix}"));
    }
    for link in swept.links {
        record.removed(&format!("interface {link}"));
    }
    for key in swept.sysctls {
        record.restored(&format!("sysctl net/{key}"));
    }
    if swept.guard {
        record.removed(&"nft table inet warren");
    }
    let mut sysctls_are_restored = true;
    let mut carries_traffic = false;
    for leftover in left {
        match leftover.why {
            KernelError::Sysctl(_) => sysctls_are_restored = false,
            KernelError::Guard(_) | KernelError::Connections(_) | KernelError::PacketLog(_) => {}
            KernelError::Netlink(_) | KernelError::LaneStep(_) | KernelError::NotOurs(_) => {
                carries_traffic = true;
            }
        }
        let why = anyhow::Error::from(leftover.why);
        record.left(&leftover.what, &format!("{why:#}"));
    }
    if carries_traffic {
        let why = "it keeps what is left from sending in the clear; do this again once that can be removed";
        record.left(&"nft table inet warren", &why);
    }
    sysctls_are_restored
}

/// The removal of what the node publishes.
struct Withdrawal {
    client: Client,
    node: NodeName,
}

impl Withdrawal {
    /// Finds out whether it can be done, before anything is.
    async fn prepare(arguments: &UninstallArguments) -> anyhow::Result<Option<Self>> {
        if !arguments.withdraw {
            return Ok(None);
        }
        let node = match &arguments.node_name {
            Some(name) => name.clone(),
            None => host_name()?
                .parse()
                .context("the host name cannot be a Node's: pass --node-name")?,
        };
        let config = ClientConfig::new(concat!("warren/", env!("CARGO_PKG_VERSION")));
        let config = config.with_kubeconfig(arguments.kubeconfig.clone());
        let client = config.build().await.context("cannot reach the API server")?;
        Ok(Some(Self { client, node }))
    }

    async fn make(self, record: &mut Record) {
        let what = format!("annotation {ANNOTATION} of Node {}", self.node.as_str());
        match publish::withdraw(&self.client, &self.node).await {
            Ok(()) => record.removed(&what),
            Err(error) => record.left(&what, &format!("{:#}", anyhow::Error::from(error))),
        }
    }
}
