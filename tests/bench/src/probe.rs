//! What a node's programs have used so far. Looked up inside the node, by this program started there.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use warren_lab::{Lab, Place};

/// Clock ticks a second in `/proc`: USER_HZ, 100 wherever Linux runs Warren.
pub(crate) const TICKS: f64 = 100.0;

/// TCP port of an agent's admin server.
const ADMIN_PORT: u16 = 9586;

/// The name of the subcommand that answers from inside.
pub(crate) const SUBCOMMAND: &str = "inside-look";

/// A node's programs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Usage {
    /// The agent, with the programs it has run to their end.
    pub(crate) agent: Process,
    /// The userspace devices, one a lane.
    pub(crate) devices: Vec<Process>,
    /// `warren_steps_total`: changes to the kernel.
    pub(crate) steps: u64,
}

/// A process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    /// User and system time, of its own and of children that have ended, in clock ticks.
    pub(crate) ticks: u64,
    /// What it caused to be written to a disk.
    pub(crate) write_bytes: u64,
    /// Resident memory.
    pub(crate) resident_kib: u64,
    /// The most it has been.
    pub(crate) peak_kib: u64,
}

impl Usage {
    /// Processor time of all.
    pub(crate) fn ticks(&self) -> u64 {
        self.processes().map(|it| it.ticks).sum()
    }

    /// Bytes written by all.
    pub(crate) fn write_bytes(&self) -> u64 {
        self.processes().map(|it| it.write_bytes).sum()
    }

    fn processes(&self) -> impl Iterator<Item = &Process> {
        self.devices.iter().chain([&self.agent])
    }

    /// Looks at a node of a lab.
    pub(crate) async fn of(lab: &Lab, node: &str) -> anyhow::Result<Self> {
        let this = std::env::current_exe().context("find this program")?;
        let argv = [this.to_str().context("a path that is not text")?, SUBCOMMAND];
        let output = lab.run(Place::Node(node.to_owned()), &argv).await?;
        if !output.success() {
            bail!("cannot look at {node}: {}", output.stderr.trim());
        }
        serde_json::from_str(&output.stdout).with_context(|| format!("look at {node}: {}", output.stdout))
    }

    /// Looks at the node that this process runs on.
    pub(crate) fn here() -> anyhow::Result<Self> {
        let (mut agent, mut devices) = (None, Vec::new());
        let own = fs::read_link("/proc/self/ns/net").context("read the own namespace")?;
        for entry in fs::read_dir("/proc").context("read /proc")? {
            let dir = entry.context("read /proc")?.path();
            // A process that has ended by now is no part of the answer.
            if !fs::read_link(dir.join("ns/net")).is_ok_and(|it| it == own) {
                continue;
            }
            match fs::read_to_string(dir.join("comm")).unwrap_or_default().trim() {
                "warren-agent" => agent = Some(Process::read(&dir)?),
                "warren-wg" => devices.push(Process::read(&dir)?),
                _ => {}
            }
        }
        devices.sort_by_key(|it| it.pid);
        Ok(Self {
            agent: agent.context("no agent runs here")?,
            devices,
            steps: steps(&metrics()?)?,
        })
    }
}

impl Process {
    /// The most memory that was resident, MiB.
    pub(crate) fn peak_mib(&self) -> f64 {
        f64::from(u32::try_from(self.peak_kib).unwrap_or(u32::MAX)) / 1024.0
    }

    /// That of a number in this PID namespace.
    pub(crate) fn of(pid: u32) -> anyhow::Result<Self> {
        Self::read(&Path::new("/proc").join(pid.to_string()))
    }

    fn read(dir: &Path) -> anyhow::Result<Self> {
        let read = |name: &str| {
            let path = dir.join(name);
            fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
        };
        let pid = dir.file_name().and_then(|it| it.to_str()?.parse().ok());
        Ok(Self {
            pid: pid.context("a process without number")?,
            ticks: ticks(&read("stat")?).context("an odd stat")?,
            write_bytes: number(&read("io")?, "write_bytes:").context("an odd io")?,
            resident_kib: number(&read("status")?, "VmRSS:").context("an odd status")?,
            peak_kib: number(&read("status")?, "VmHWM:").context("an odd status")?,
        })
    }
}

/// utime, stime, cutime and cstime of proc_pid_stat(5): the 12th to 15th after the name, which may hold anything.
fn ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let times: Vec<u64> = fields
        .split_whitespace()
        .skip(11)
        .take(4)
        .filter_map(|it| it.parse().ok())
        .collect();
    (times.len() == 4).then(|| times.iter().sum())
}

/// The number behind a word at the beginning of a line.
fn number(text: &str, word: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(word))?;
    rest.split_whitespace().next()?.parse().ok()
}

fn metrics() -> anyhow::Result<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, ADMIN_PORT))
        .context("connect to the agent's admin server")?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .context("read the agent's metrics")?;
    Ok(answer)
}

fn steps(metrics: &str) -> anyhow::Result<u64> {
    number(metrics, "warren_steps_total").context("the agent's metrics do not tell its steps")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_told_of_a_process_with_any_name() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 2 3 4 10 20 30 40 20 0 1 0 5 6";
        assert_eq!(ticks(stat), Some(100));
        assert_eq!(ticks("7 (short) S 1 7"), None);
    }

    #[test]
    fn a_number_is_found_by_the_word_before_it() {
        let text = "VmHWM:\t 9 kB\nVmRSS:\t   1234 kB\n";
        assert_eq!(number(text, "VmRSS:"), Some(1234));
        assert_eq!(number(text, "VmSwap:"), None);
        assert_eq!(
            steps("# TYPE warren_steps counter\nwarren_steps_total 42\n").ok(),
            Some(42)
        );
    }
}
