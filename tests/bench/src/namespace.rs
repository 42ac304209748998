//! Two hosts and a cable: network namespaces joined by a veth.

use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::process::{self, Command};
use std::thread;

use anyhow::{Context, anyhow, ensure};
use nix::sched::{CloneFlags, setns, unshare};

/// The near and the far host's addresses on the cable.
pub(crate) const UNDERLAY: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 201, 0, 1), Ipv4Addr::new(10, 201, 0, 2)];

/// A network namespace, there as long as this is or a process in it.
#[derive(Debug)]
pub(crate) struct Namespace(File);

impl Namespace {
    /// One with nothing but a loopback interface, which is up.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let made = thread::spawn(|| -> anyhow::Result<File> {
            unshare(CloneFlags::CLONE_NEWNET)?;
            Ok(File::open("/proc/thread-self/ns/net")?)
        });
        let made = made.join().unwrap_or_else(|_| Err(anyhow!("a panic")));
        let namespace = Self(made.context("make a network namespace")?);
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// Does something in here: sockets and processes made by it stay here.
    pub(crate) fn inside<T: Send>(
        &self,
        work: impl FnOnce() -> anyhow::Result<T> + Send,
    ) -> anyhow::Result<T> {
        thread::scope(|scope| {
            let work = || {
                setns(&self.0, CloneFlags::CLONE_NEWNET).context("enter a network namespace")?;
                work()
            };
            let worker = scope.spawn(work);
            worker.join().unwrap_or_else(|_| Err(anyhow!("a panic")))
        })
    }

    /// Runs a program in here to its end, and returns what it writes.
    pub(crate) fn run(&self, program: &str, arguments: &[&str]) -> anyhow::Result<String> {
        let said = || format!("{program} {}", arguments.join(" "));
        let output = self.inside(|| Ok(Command::new(program).args(arguments).output()?));
        let output = output.with_context(said)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        ensure!(
            output.status.success(),
            "{}: {}: {}{}",
            said(),
            output.status,
            text(&output.stderr),
            text(&output.stdout)
        );
        Ok(text(&output.stdout))
    }

    /// Lays a cable from an interface in here to one over there, both of them new.
    pub(crate) fn cable(&self, here: &str, other: &Self, there: &str) -> anyhow::Result<()> {
        let other = format!("/proc/{}/fd/{}", process::id(), other.0.as_raw_fd());
        self.ip(&format!(
            "link add {here} type veth peer name {there} netns {other}"
        ))?;
        Ok(())
    }

    /// `ip` with these words.
    pub(crate) fn ip(&self, words: &str) -> anyhow::Result<String> {
        let words: Vec<&str> = words.split_whitespace().collect();
        self.run("ip", &words)
    }
}

/// Two hosts on a cable, with [`UNDERLAY`] addresses.
#[derive(Debug)]
pub(crate) struct Hosts {
    pub(crate) near: Namespace,
    pub(crate) far: Namespace,
}

impl Hosts {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let (near, far) = (Namespace::new()?, Namespace::new()?);
        near.cable("cable", &far, "cable")?;
        for (host, address) in [&near, &far].into_iter().zip(UNDERLAY) {
            host.ip(&format!("address add {address}/24 dev cable"))?;
            host.ip("link set cable up")?;
        }
        Ok(Self { near, far })
    }
}
