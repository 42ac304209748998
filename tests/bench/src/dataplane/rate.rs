//! Sending at a rate, and finding the rate at which what is sent arrives.

use std::thread;
use std::time::{Duration, Instant};

/// How many datagrams go to or come from the kernel at once.
pub(super) const BATCH: usize = 64;

/// How long one attempt takes.
pub(super) const ATTEMPT: Duration = Duration::from_secs(1);

/// The shortest rest of a sender, and the most that it makes up for at once.
const REST: Duration = Duration::from_micros(100);
const LAG: Duration = Duration::from_millis(2);

/// The share that may be lost.
const LOSS: f64 = 0.001;

/// Steps of the search for the highest rate, each halving the distance.
const STEPS: u32 = 7;

/// What was sent and what of it arrived.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counted {
    pub(super) sent: u64,
    pub(super) received: u64,
    /// From the first that arrived to the last.
    pub(super) seconds: f64,
}

impl Counted {
    /// Arrived each second.
    pub(super) fn rate(self) -> f64 {
        if self.seconds > 0.0 {
            float(self.received) / self.seconds
        } else {
            0.0
        }
    }

    fn is_whole(self) -> bool {
        self.received > 0 && float(self.sent.saturating_sub(self.received)) < float(self.sent) * LOSS
    }
}

/// The highest rate at which less than [`LOSS`] is lost, datagrams a second; 0 if there is none. `offer` makes one
/// attempt: at a rate, or without as fast as it goes.
///
/// An attempt that loses more is made once more: a machine that pauses for a moment must not decide.
pub(super) fn highest_whole(
    mut offer: impl FnMut(Option<f64>) -> anyhow::Result<Counted>,
) -> anyhow::Result<f64> {
    // What arrives of a flood says where to look, but it may be less than what arrives of a stream.
    let (mut low, mut high, mut best) = (0.0, offer(None)?.rate() * 1.5, 0.0_f64);
    for _ in 0..STEPS {
        let rate = f64::midpoint(low, high);
        let mut counted = offer(Some(rate))?;
        if !counted.is_whole() {
            counted = offer(Some(rate))?;
        }
        if counted.is_whole() {
            best = best.max(counted.rate());
            low = rate;
        } else {
            high = rate;
        }
    }
    Ok(best)
}

/// The most that arrive, whatever is lost, datagrams a second: of a flood, or of somewhat more than arrives of it.
pub(super) fn most(mut offer: impl FnMut(Option<f64>) -> anyhow::Result<Counted>) -> anyhow::Result<f64> {
    let mut best = offer(None)?.rate();
    for more in [1.4, 1.15] {
        best = best.max(offer(Some(best * more))?.rate());
    }
    Ok(best)
}

/// Sends for [`ATTEMPT`] at this rate, or as fast as it goes, and returns how many were offered. `send` is told how many
/// to send, at most [`BATCH`], and returns how many it did.
pub(super) fn send(
    rate: Option<f64>,
    mut send: impl FnMut(usize) -> anyhow::Result<usize>,
) -> anyhow::Result<u64> {
    let (started, mut sent, mut lag) = (Instant::now(), 0, 0.0);
    loop {
        let elapsed = started.elapsed();
        if elapsed >= ATTEMPT {
            return Ok(sent);
        }
        let mut due = BATCH;
        if let Some(rate) = rate {
            let behind = rate * elapsed.as_secs_f64() - lag - float(sent);
            // Who was kept from sending for a while does not send all of it now.
            let most = rate * LAG.as_secs_f64();
            lag += (behind - most).max(0.0);
            due = whole(behind.min(most)).min(BATCH);
        }
        if due == 0 {
            thread::sleep(REST);
        } else {
            sent += send(due)? as u64;
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "far from 2^53 datagrams")]
fn float(number: u64) -> f64 {
    number as f64
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a small number, and negative ones become 0"
)]
fn whole(number: f64) -> usize {
    number as usize
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    /// A tunnel that carries `limit` a second and drops the rest.
    fn carries(limit: f64) -> impl FnMut(Option<f64>) -> anyhow::Result<Counted> {
        move |rate| {
            let rate = rate.unwrap_or(1e6);
            Ok(Counted {
                sent: whole(rate) as u64,
                received: whole(rate.min(limit)) as u64,
                seconds: 1.0,
            })
        }
    }

    #[test]
    fn the_highest_rate_without_loss_is_found_within_some_percent() {
        let found = highest_whole(carries(1000.0)).unwrap();
        assert!((970.0..=1000.0).contains(&found), "{found}");
    }

    #[test]
    fn a_tunnel_that_always_loses_has_no_rate_without_loss() {
        let found = highest_whole(|_| {
            Ok(Counted {
                sent: 1000,
                received: 900,
                seconds: 1.0,
            })
        });
        assert!(found.unwrap().abs() < f64::EPSILON);
    }

    #[test]
    fn one_pause_of_the_machine_does_not_decide() {
        let (mut carry, mut attempts) = (carries(1000.0), 0);
        let found = highest_whole(|rate| {
            attempts += 1;
            // The first attempt at each rate that the tunnel could carry fails now and then.
            let counted = carry(rate)?;
            let lost = if attempts % 5 == 0 {
                counted.received / 2
            } else {
                0
            };
            Ok(Counted {
                received: counted.received - lost,
                ..counted
            })
        });
        assert!(found.unwrap() > 900.0);
    }

    #[test]
    fn who_sends_at_a_rate_sends_about_that_many() {
        let sent = send(Some(5000.0), Ok).unwrap();
        // Fewer where the machine is busy, never more.
        assert!((1..=5000).contains(&sent), "{sent}");
    }
}
