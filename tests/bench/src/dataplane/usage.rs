//! Processor time: of the whole machine, and of some processes.

use std::fs;
use std::thread::available_parallelism;
use std::time::Instant;

use anyhow::Context;

use crate::probe::{Process, TICKS};

/// Processor time used so far, s.
#[derive(Debug, Clone, Copy)]
pub(super) struct Used {
    /// By anything, on all cores.
    pub(super) machine: f64,
    /// By the devices, user and system.
    pub(super) devices: f64,
}

impl Used {
    /// Now; `devices` are process ids.
    pub(super) fn now(devices: &[u32]) -> anyhow::Result<Self> {
        let stat = fs::read_to_string("/proc/stat").context("read /proc/stat")?;
        let machine = busy(&stat).context("an odd /proc/stat")?;
        let mut ticks = 0;
        for pid in devices {
            ticks += Process::of(*pid)?.ticks;
        }
        Ok(Self {
            machine: seconds(machine),
            devices: seconds(ticks),
        })
    }

    /// What has been used since `before`.
    pub(super) fn since(self, before: Self) -> Self {
        Self {
            machine: self.machine - before.machine,
            devices: self.devices - before.devices,
        }
    }
}

/// The share of all cores that was busy while something was done.
pub(super) fn busy_meanwhile(work: impl FnOnce()) -> anyhow::Result<f64> {
    let (before, started) = (Used::now(&[])?, Instant::now());
    work();
    let used = Used::now(&[])?.since(before);
    Ok(used.machine / started.elapsed().as_secs_f64() / cores())
}

/// How many there are.
pub(super) fn cores() -> f64 {
    let cores = available_parallelism()
        .ok()
        .and_then(|it| u32::try_from(it.get()).ok());
    f64::from(cores.unwrap_or(1))
}

fn seconds(ticks: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "far from 2^53 ticks")]
    let ticks = ticks as f64;
    ticks / TICKS
}

/// User, nice, system, interrupts and soft interrupts of `cpu` in proc_stat(5). Not idle, not waiting for a disk, and not
/// what a hypervisor has taken.
fn busy(stat: &str) -> Option<u64> {
    let all = stat.lines().find_map(|it| it.strip_prefix("cpu "))?;
    let times: Vec<u64> = all.split_whitespace().map_while(|it| it.parse().ok()).collect();
    let [user, nice, system, _idle, _iowait, irq, softirq, ..] = times[..] else {
        return None;
    };
    Some(user + nice + system + irq + softirq)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_busy_with_all_but_idling_and_waiting() {
        let stat = "cpu  1 2 4 1000 1000 8 16 1000 1000 0\ncpu0 9 9 9 9 9 9 9 9 9 9\n";
        assert_eq!(busy(stat), Some(31));
        assert_eq!(busy("cpu0 1 2 3 4 5 6 7\n"), None);
        assert_eq!(busy("cpu  1 2 3\n"), None);
    }
}
