//! `warren-lab`: a Kubernetes cluster on one machine, to try Warren and to test it.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use warren_lab::demo::{DemoOptions, demo};
use warren_lab::shell::Shell;
use warren_lab::{
    ApiKind, Families, Lab, LabOptions, Place, PodKey, PodOptions, Port, hold, keep, probe, send_and_answer,
    serve,
};

/// A Kubernetes cluster on one machine: each node a set of namespaces with a real agent, real packets.
///
/// Needs no root, only Linux with user namespaces. Nothing of a lab is left on the machine when it is taken down.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    /// The lab's directory; labs with different ones know nothing of each other [default: /tmp/warren-lab-UID].
    #[arg(long, global = true, env = "WARREN_LAB_DIR")]
    dir: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Bring a lab up. It stays until `down`.
    Up(Up),
    /// Show what there is: `warren status`, then nodes, pods and the underlay.
    Status {
        /// The lab's facts alone, in JSON.
        #[arg(long)]
        json: bool,
    },
    /// Make, remove or enter pods.
    #[command(subcommand)]
    Pod(Pod),
    /// Stop, start, cut off or enter nodes.
    #[command(subcommand)]
    Node(Node),
    /// Print a kubeconfig of an administrator, for use on this machine.
    Kubeconfig,
    /// Print where the capture of the underlay is, and what it counts.
    Capture {
        /// Go on printing what is added.
        #[arg(long, short)]
        follow: bool,
    },
    /// Take the lab down. Does nothing where there is none.
    Down,
    /// Bring a lab up, try every connection, show what crossed the wire, and take it down.
    Demo(Demo),
    #[command(hide = true)]
    Keep { arguments: String },
    #[command(hide = true)]
    Probe,
    #[command(hide = true)]
    Hold { name: String },
    #[command(hide = true)]
    PodServe { name: String, ports: Vec<Port> },
    #[command(hide = true)]
    PodTally { job: String },
    #[command(hide = true)]
    PodKnock { job: String },
    #[command(hide = true)]
    PodWatch { job: String },
}

#[derive(Debug, Args)]
struct Up {
    /// How many nodes.
    #[arg(long, default_value_t = 3)]
    nodes: u8,
    /// How many subnets they are dealt to.
    #[arg(long, default_value_t = 1)]
    subnets: u8,
    /// Which Kubernetes API: one in memory, or etcd and kube-apiserver.
    #[arg(long, value_enum, default_value_t)]
    api: ApiKind,
    /// Address families of nodes and pods.
    #[arg(long, value_enum, default_value_t)]
    families: Families,
    /// `--wireguard` of the agents; several, with commas between them, are dealt to the nodes in turn.
    #[arg(long, default_value = "auto")]
    wireguard: String,
    /// `--log` of the agents.
    #[arg(long, default_value = "info")]
    log: String,
    /// Start no agent: `node start` does.
    #[arg(long)]
    without_agents: bool,
}

#[derive(Debug, Args)]
struct Demo {
    /// How many nodes.
    #[arg(long, default_value_t = 3)]
    nodes: u8,
    /// Leave the lab up.
    #[arg(long)]
    keep: bool,
    /// etcd and kube-apiserver instead of the embedded API.
    #[arg(long)]
    real: bool,
}

#[derive(Debug, Subcommand)]
enum Pod {
    /// Make a pod and attach it.
    Add {
        #[command(flatten)]
        pod: PodName,
        /// The node it runs on.
        #[arg(long)]
        node: String,
        /// A label, as key=value.
        #[arg(long = "label", value_parser = label)]
        labels: Vec<(String, String)>,
        /// A port that answers: tcp:80, tcp:80=web, or tcp:80:8080=web with 8080 on the node.
        #[arg(long = "port")]
        ports: Vec<Port>,
    },
    /// Detach and delete a pod.
    Rm {
        #[command(flatten)]
        pod: PodName,
    },
    /// Run a program in a pod.
    Exec {
        #[command(flatten)]
        pod: PodName,
        /// The program and its arguments.
        #[arg(last = true, required = true)]
        argv: Vec<String>,
    },
    /// Ask the CNI plugins whether a pod is attached as it was.
    Check {
        #[command(flatten)]
        pod: PodName,
    },
}

#[derive(Debug, Args)]
struct PodName {
    /// The pod's name.
    name: String,
    /// Its namespace.
    #[arg(long, short, default_value = "default")]
    namespace: String,
}

impl From<PodName> for PodKey {
    fn from(pod: PodName) -> Self {
        Self::new(pod.namespace, pod.name)
    }
}

#[derive(Debug, Subcommand)]
enum Node {
    /// End the node's agent.
    Stop {
        /// The node's name.
        node: String,
        /// By SIGKILL.
        #[arg(long)]
        kill: bool,
    },
    /// Start the node's agent, and wait until it serves.
    Start {
        /// The node's name.
        node: String,
    },
    /// Take the node's link down.
    Cut {
        /// The node's name.
        node: String,
    },
    /// Take it up again.
    Mend {
        /// The node's name.
        node: String,
    },
    /// End everything on the node, and start it again with the disk it had.
    Reboot {
        /// The node's name.
        node: String,
    },
    /// Run a program on a node.
    Exec {
        /// The node's name, or `root` for the router between the subnets.
        node: String,
        /// The program and its arguments.
        #[arg(last = true, required = true)]
        argv: Vec<String>,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    // The keeper's stderr is its log; what people read is said without a logger.
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(false)
        .init();
    match run(cli) {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        Err(error) => {
            say(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// To people, beside what a command prints.
#[expect(
    clippy::print_stderr,
    reason = "a command's way to tell of progress and failure"
)]
fn say(text: &str) {
    eprintln!("warren-lab: {text}");
}

/// Returns the exit code. Has one thread, which entering namespaces needs; only [`wait_for`] starts more.
fn run(cli: Cli) -> anyhow::Result<i32> {
    match &cli.command {
        Command::Keep { arguments } => return keep(arguments),
        Command::Probe => return probe().map(|()| 0),
        Command::Hold { name } => return hold(name).map(|()| 0),
        Command::PodServe { name, ports } => return serve(name, ports).map(|()| 0),
        Command::PodTally { job } => return send_and_answer(job, &mut io::stdout()).map(|()| 0),
        Command::PodKnock { job } => {
            let found = warren_lab::knock::run_job(job)?;
            writeln!(io::stdout(), "{found}").context("tell what was found")?;
            return Ok(0);
        }
        Command::PodWatch { job } => return warren_lab::turns::watch_door(job).map(|()| 0),
        Command::Up(_)
        | Command::Status { .. }
        | Command::Pod(_)
        | Command::Node(_)
        | Command::Kubeconfig
        | Command::Capture { .. }
        | Command::Down
        | Command::Demo(_) => {}
    }
    let shell = Shell::new(cli.dir.as_deref())?;
    let out = &mut io::stdout().lock();
    match cli.command {
        Command::Up(up) => wait_for(bring_up(up, &shell))??,
        Command::Status { json: true } => shell.facts(out)?,
        Command::Status { json: false } => return shell.status(out),
        Command::Pod(pod) => return on_pod(&shell, pod),
        Command::Node(node) => return on_node(&shell, node),
        Command::Kubeconfig => shell.kubeconfig(out)?,
        Command::Capture { follow } => shell.capture(follow, out)?,
        Command::Down => {
            if !warren_lab::down(shell.dir())? {
                say(&format!("no lab in {}", shell.dir().display()));
            }
        }
        Command::Demo(options) => return wait_for(demo(options.with(cli.dir)))?,
        Command::Keep { .. }
        | Command::Probe
        | Command::Hold { .. }
        | Command::PodServe { .. }
        | Command::PodTally { .. }
        | Command::PodKnock { .. }
        | Command::PodWatch { .. } => {}
    }
    Ok(0)
}

async fn bring_up(up: Up, shell: &Shell) -> anyhow::Result<()> {
    let options = LabOptions {
        nodes: up.nodes,
        subnets: up.subnets,
        api: up.api,
        families: up.families,
        agents: !up.without_agents,
        wireguard: up.wireguard,
        log: up.log,
        environment: BTreeMap::new(),
        launcher: Vec::new(),
        assets: None,
        dir: Some(shell.dir().to_owned()),
    };
    let lab = Lab::up_with(options, say).await?;
    lab.detach().await?;
    say(&format!("the lab is up, in {}", shell.dir().display()));
    Ok(())
}

fn on_pod(shell: &Shell, command: Pod) -> anyhow::Result<i32> {
    match command {
        Pod::Add {
            pod,
            node,
            labels,
            ports,
        } => {
            let pod = PodOptions {
                key: pod.into(),
                node,
                labels: labels.into_iter().collect(),
                ports,
            };
            shell.pod_add(pod, &mut io::stdout())?;
        }
        Pod::Rm { pod } => shell.pod_remove(pod.into())?,
        Pod::Check { pod } => shell.pod_check(pod.into())?,
        Pod::Exec { pod, argv } => return shell.exec(Place::Pod(pod.into()), &argv),
    }
    Ok(0)
}

fn on_node(shell: &Shell, command: Node) -> anyhow::Result<i32> {
    match command {
        Node::Stop { node, kill } => shell.node_stop(node, kill)?,
        Node::Start { node } => shell.node_start(node)?,
        Node::Cut { node } => shell.node_cut(node)?,
        Node::Mend { node } => shell.node_mend(node)?,
        Node::Reboot { node } => shell.node_reboot(node)?,
        Node::Exec { node, argv } if node == "root" => return shell.exec(Place::Root, &argv),
        Node::Exec { node, argv } => return shell.exec(Place::Node(node), &argv),
    }
    Ok(0)
}

impl Demo {
    fn with(self, dir: Option<PathBuf>) -> DemoOptions {
        let api = if self.real {
            ApiKind::Real
        } else {
            ApiKind::Embedded
        };
        DemoOptions {
            nodes: self.nodes,
            keep: self.keep,
            api,
            dir,
        }
    }
}

fn wait_for<T>(work: impl Future<Output = T>) -> anyhow::Result<T> {
    Ok(tokio::runtime::Runtime::new()
        .context("start threads")?
        .block_on(work))
}

fn label(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .ok_or_else(|| format!("{text:?} is no label: write key=value"))
}
