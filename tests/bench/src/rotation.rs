//! Keys are rotated while all pods send to each other: what is lost, and how long it takes.

use std::collections::BTreeMap;

use anyhow::Context;
use warren_lab::rotation::{self, Case, NamedCase};
use warren_lab::switch::RATE;

use crate::machine::Machine;
use crate::report::{Report, WARREN};
use crate::statistics::Samples;

/// What one case has sent and lost and how long its rotation took, round by round.
#[derive(Debug, Default)]
struct Counted {
    sent: Vec<f64>,
    lost: Vec<f64>,
    seconds: Vec<f64>,
}

pub(crate) async fn bench(rounds: u32) -> anyhow::Result<Report> {
    let mut report = Report::new("rotation", Machine::look(&["nftables"]));
    let mut names = Vec::new();
    let mut counted: BTreeMap<&str, Counted> = BTreeMap::new();
    for _ in 0..rounds {
        for (last, cases) in suites() {
            let lab = rotation::lab_for(last).await?;
            for (name, case) in cases {
                let (tally, took) = rotation::during(&lab, &case).await.context(name)?;
                if !names.contains(&name) {
                    names.push(name);
                }
                let of_case = counted.entry(name).or_default();
                of_case.sent.push(number(tally.sent()));
                of_case.lost.push(number(tally.lost()));
                if !matches!(case, Case::Nothing) {
                    of_case.seconds.push(took.as_secs_f64());
                }
            }
        }
    }
    for name in names {
        let Counted { sent, lost, seconds } = counted.remove(name).unwrap_or_default();
        let all_lost = lost.iter().sum();
        let case = format!("{name}, {RATE} a second each way");
        let samples = |values| Samples::new(values).context("nothing was counted");
        report.row(&case, WARREN, "sent", "packets", &samples(sent)?);
        report.row(&case, WARREN, "lost", "packets", &samples(lost)?);
        if !seconds.is_empty() {
            report.row(&case, WARREN, "takes", "s", &samples(seconds)?);
        }
        report.bar_at_most(name, all_lost, "packets lost", 0.0);
    }
    Ok(report)
}

/// Each with whether the fifth node is the one that comes and goes.
fn suites() -> [(bool, Vec<NamedCase>); 4] {
    [
        (false, rotation::cases()),
        (false, rotation::cases_of_encryption()),
        (false, rotation::cases_of_fallback()),
        (true, rotation::cases_of_the_last()),
    ]
}

#[expect(clippy::cast_precision_loss, reason = "counts of packets are far below 2^52")]
fn number(count: u64) -> f64 {
    count as f64
}
