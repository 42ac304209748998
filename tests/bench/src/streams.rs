//! TCP, by iperf3.

use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::Value;

use crate::namespace::Hosts;

/// How long one measurement takes.
pub(crate) const TIME: Duration = Duration::from_secs(3);

/// How long a server may take to listen.
const PATIENCE: Duration = Duration::from_secs(10);

/// Between two attempts to reach it.
const LOOK: Duration = Duration::from_millis(20);

const PORT: &str = "5201";

/// What flows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Streams {
    /// How many, in each direction.
    pub(crate) count: u32,
    /// From far to near as well as from near to far.
    pub(crate) both: bool,
}

/// What has arrived.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Carried {
    pub(crate) bytes: f64,
    pub(crate) seconds: f64,
}

impl Carried {
    pub(crate) fn gigabits_per_second(self) -> f64 {
        self.bytes * 8.0 / self.seconds / 1e9
    }

    /// 10^9 bytes.
    pub(crate) fn gigabytes(self) -> f64 {
        self.bytes / 1e9
    }
}

impl Streams {
    /// Sends as much as goes to this address of the far host.
    pub(crate) fn run(self, hosts: &Hosts, far: Ipv4Addr) -> anyhow::Result<Carried> {
        let mut server = Server::start(hosts)?;
        let (count, time, far) = (
            self.count.to_string(),
            TIME.as_secs().to_string(),
            far.to_string(),
        );
        let mut arguments = vec![
            "--json",
            "--client",
            &far,
            "--port",
            PORT,
            "--time",
            &time,
            "--parallel",
            &count,
        ];
        if self.both {
            arguments.push("--bidir");
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            let output = hosts
                .near
                .inside(|| Ok(Command::new("iperf3").args(&arguments).output()?))
                .context("run iperf3")?;
            let answer: Value = serde_json::from_slice(&output.stdout).context("iperf3 wrote no JSON")?;
            match answer["error"].as_str() {
                None => {
                    server.0.wait().context("wait for iperf3's server")?;
                    return carried(&answer, self.both)
                        .with_context(|| format!("an odd answer of iperf3: {answer}"));
                }
                // The server does not listen yet.
                Some(error) if error.contains("refused") && Instant::now() < deadline => thread::sleep(LOOK),
                Some(error) => bail!("iperf3: {error}"),
            }
        }
    }
}

fn carried(answer: &Value, both: bool) -> Option<Carried> {
    let number = |sum: &str, field: &str| answer["end"][sum][field].as_f64();
    let mut bytes = number("sum_received", "bytes")?;
    if both {
        bytes += number("sum_received_bidir_reverse", "bytes")?;
    }
    let seconds = number("sum_received", "seconds").filter(|it| *it > 0.0)?;
    Some(Carried { bytes, seconds })
}

/// A server for one client, which it ends with; killed if there was none.
struct Server(Child);

impl Server {
    fn start(hosts: &Hosts) -> anyhow::Result<Self> {
        let start = || {
            let mut server = Command::new("iperf3");
            server.args(["--server", "--one-off", "--port", PORT]);
            Ok(server.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?)
        };
        Ok(Self(hosts.far.inside(start).context("run iperf3")?))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It has ended already where all went well.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
#[expect(clippy::float_cmp, reason = "small whole numbers")]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn both_directions_count_where_both_are_measured() {
        let answer = json!({"end": {
            "sum_received": {"bytes": 3e9, "seconds": 2.0},
            "sum_received_bidir_reverse": {"bytes": 1e9, "seconds": 2.0},
        }});
        assert_eq!(carried(&answer, false).unwrap().gigabits_per_second(), 12.0);
        assert_eq!(carried(&answer, true).unwrap().gigabits_per_second(), 16.0);
    }

    #[test]
    fn an_answer_without_a_sum_says_nothing() {
        assert!(carried(&json!({"end": {}}), false).is_none());
        let answer = json!({"end": {"sum_received": {"bytes": 1, "seconds": 1}}});
        assert!(carried(&answer, true).is_none());
    }
}
