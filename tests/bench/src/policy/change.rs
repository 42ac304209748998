//! A node's rules in a kernel, and one change after the other.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use anyhow::{Context, anyhow, ensure};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike};
use warren_kernel::policy::{Table, render};
use warren_policy::{Compiler, Labels, compile};

use super::commits::Commits;
use super::scene::{NAMESPACES, PODS, POLICIES, Scene, policy, team};
use crate::namespace::Namespace;

/// What an agent keeps, and a kernel that it is in force in.
pub(super) struct Live {
    scene: Scene,
    compiler: Compiler,
    table: Table,
    node: Namespace,
    commits: Commits,
}

/// What changed, and how long it took, ms.
pub(super) struct Took {
    /// One of [`KINDS`].
    pub(super) kind: &'static str,
    pub(super) compile: f64,
    pub(super) render: f64,
    /// These, and the transaction until it is in force.
    pub(super) in_force: f64,
    /// Until nft has ended.
    pub(super) whole: f64,
    /// How much of the whole a processor was at work, for this program or for nft.
    pub(super) processor: f64,
}

impl Live {
    /// In a namespace of its own.
    pub(super) fn start(scene: Scene) -> anyhow::Result<Self> {
        let mut compiler = Compiler::default();
        let table = render(&compiler.compile(&scene.of_node()));
        let node = Namespace::new()?;
        apply(&node, &table.text())?;
        let commits = Commits::listen(&node)?;
        Ok(Self {
            scene,
            compiler,
            table,
            node,
            commits,
        })
    }

    /// Makes a change, and puts it in force.
    pub(super) fn change(&mut self, number: u32) -> anyhow::Result<Took> {
        self.scene.change(number)?;
        let used = used()?;
        let started = Instant::now();
        let rules = self.compiler.compile(&self.scene.of_node());
        let compile = started.elapsed();
        let table = render(&rules);
        let difference = table.difference(&self.table);
        let render = started.elapsed() - compile;
        ensure!(!difference.is_empty(), "change {number} changes nothing");
        let in_force = thread::scope(|scope| {
            let heard = scope.spawn(|| self.commits.next());
            apply(&self.node, &difference)?;
            let heard = heard.join().unwrap_or_else(|_| Err(anyhow!("a panic")))?;
            heard.context("nf_tables has announced nothing")
        })?;
        let whole = started.elapsed();
        self.table = table;
        let ms = |time: std::time::Duration| time.as_secs_f64() * 1000.0;
        Ok(Took {
            kind: KINDS[number as usize % KINDS.len()],
            compile: ms(compile),
            render: ms(render),
            in_force: ms(in_force - started),
            whole: ms(whole),
            processor: self::used()? - used,
        })
    }

    /// That all changes together have led to what the whole makes.
    pub(super) fn is_what_a_fresh_start_makes(&self) -> anyhow::Result<()> {
        ensure!(
            self.table == render(&compile(&self.scene.of_node())),
            "after all changes the table is not that of a fresh start"
        );
        Ok(())
    }
}

/// What changes, in turn.
pub(super) const KINDS: [&str; 5] = [
    "one change: a pod's label",
    "one change: a policy's rule",
    "one change: a namespace's label",
    "one change: a pod goes",
    "one change: a pod comes",
];

impl Scene {
    /// The next of [`KINDS`].
    fn change(&mut self, number: u32) -> anyhow::Result<()> {
        let turn = number / 5;
        let chosen = (turn * 137 % PODS) as usize % self.cluster.pods.len();
        match number % 5 {
            0 => {
                let pod = Arc::make_mut(&mut self.cluster.pods[chosen]);
                let before = pod.labels.get("tier").map(str::to_owned);
                let other = (0..10).map(|tier| format!("tier-{tier}"));
                let mut other = other
                    .filter(|tier| Some(tier) != before.as_ref())
                    .cycle()
                    .skip(turn as usize % 9);
                pod.labels.set("tier", other.next().context("no other tier")?);
            }
            1 => {
                let chosen = turn * 37 % POLICIES;
                let changed = policy(chosen, (chosen / NAMESPACES + 1 + turn / POLICIES) % 10)?;
                let place = self.policies.iter_mut().find(|it| it.id == changed.id);
                *place.context("no such policy")? = changed;
            }
            2 => {
                let namespace = &mut self.cluster.namespaces[(turn % NAMESPACES) as usize];
                let other = team((turn % NAMESPACES + 1 + turn / NAMESPACES) % 5);
                namespace.labels = Labels::from_iter([("team", other)]);
            }
            // It comes back as another, at the same address.
            3 => self.gone = Some(self.cluster.pods.remove(chosen)),
            _ => {
                let mut pod = self.gone.take().context("no pod has gone")?;
                Arc::make_mut(&mut pod).name.name = format!("new-{number}");
                self.cluster.pods.push(pod);
            }
        }
        Ok(())
    }
}

/// Processor time of this program and of those that it ran to their end, ms.
fn used() -> anyhow::Result<f64> {
    let mut used = TimeVal::zero();
    for who in [UsageWho::RUSAGE_SELF, UsageWho::RUSAGE_CHILDREN] {
        let usage = getrusage(who).context("ask for the processor time")?;
        used = used + usage.user_time() + usage.system_time();
    }
    let microseconds = i32::try_from(used.num_microseconds() / 10).context("a long time")?;
    Ok(f64::from(microseconds) / 100.0)
}

/// Makes a transaction.
pub(super) fn apply(node: &Namespace, text: &str) -> anyhow::Result<()> {
    node.inside(|| feed("nft", &["-f", "-"], text))
}

/// Runs a program with this as its input.
pub(super) fn feed(program: &str, arguments: &[&str], input: &str) -> anyhow::Result<()> {
    let failed = || format!("run {program}");
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .spawn()
        .with_context(failed)?;
    let mut stdin = child.stdin.take().context("no input")?;
    stdin.write_all(input.as_bytes()).with_context(failed)?;
    drop(stdin);
    let status = child.wait().with_context(failed)?;
    ensure!(status.success(), "{program}: {status}");
    Ok(())
}
