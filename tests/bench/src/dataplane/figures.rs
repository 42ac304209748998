//! All that was measured, and what it comes to: rows, and the figures that must be reached.

use std::collections::BTreeMap;

use super::system::System;
use crate::report::Report;
use crate::statistics::Samples;

/// One thing that is measured of every system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Figure {
    /// TCP from near to far, so many streams.
    Streams(u32),
    /// TCP in both directions.
    Both,
    /// Processor time of the whole machine, one TCP stream.
    MachineTime,
    /// Processor time of the two devices.
    DeviceTime,
    /// The highest rate of 1,200 byte datagrams with hardly a loss.
    Datagrams,
    /// How many 64 byte datagrams arrive.
    Packets,
    /// Round trip of an idle tunnel.
    IdleTrip,
    /// Round trip beside a TCP stream.
    LoadTrip,
    /// Memory before any load.
    IdleMemory,
    /// Memory with 1,000 peers.
    ManyMemory,
    /// 1,200 byte datagrams that arrive at one peer.
    OnePeer,
    /// Those that arrive at 1,000.
    ManyPeers,
    /// Those that arrive from one peer.
    FromOnePeer,
    /// Those that arrive from 1,000.
    FromManyPeers,
}

impl Figure {
    /// Case, metric and unit, as a row has them.
    fn labels(self) -> (String, &'static str, &'static str) {
        match self {
            Self::Streams(1) => ("TCP, 1 stream".to_owned(), "throughput", "Gbit/s"),
            Self::Streams(count) => (format!("TCP, {count} streams"), "throughput", "Gbit/s"),
            Self::Both => ("TCP, both directions".to_owned(), "throughput, sum", "Gbit/s"),
            Self::MachineTime => ("TCP, 1 stream".to_owned(), "machine's CPU time", "s/GB"),
            Self::DeviceTime => ("TCP, 1 stream".to_owned(), "both devices' CPU time", "s/GB"),
            Self::Datagrams => ("UDP, 1200 bytes".to_owned(), "under 0.1 % lost", "Gbit/s"),
            Self::Packets => ("UDP, 64 bytes".to_owned(), "arrive", "1000/s"),
            Self::IdleTrip => ("round trip, idle".to_owned(), "p50", "ms"),
            Self::LoadTrip => ("round trip, TCP load".to_owned(), "p99", "ms"),
            Self::IdleMemory => ("memory, idle".to_owned(), "resident", "MB"),
            Self::ManyMemory => ("memory, 1000 peers".to_owned(), "resident", "MB"),
            Self::OnePeer => ("to 1 peer".to_owned(), "UDP 1200", "Gbit/s"),
            Self::ManyPeers => ("to 1000 peers".to_owned(), "UDP 1200", "Gbit/s"),
            Self::FromOnePeer => ("from 1 peer".to_owned(), "UDP 1200", "Gbit/s"),
            Self::FromManyPeers => ("from 1000 peers".to_owned(), "UDP 1200", "Gbit/s"),
        }
    }
}

/// Of every figure and system one value a round, in the order of rounds.
#[derive(Debug, Default)]
pub(super) struct Figures(BTreeMap<Figure, BTreeMap<System, Vec<f64>>>);

impl Figures {
    pub(super) fn add(&mut self, figure: Figure, system: System, value: f64) {
        self.0
            .entry(figure)
            .or_default()
            .entry(system)
            .or_default()
            .push(value);
    }

    fn values(&self, figure: Figure, system: System) -> Option<&[f64]> {
        Some(self.0.get(&figure)?.get(&system)?)
    }

    pub(super) fn median(&self, figure: Figure, system: System) -> Option<f64> {
        Some(Samples::new(self.values(figure, system)?.to_vec())?.median())
    }

    /// One row for each figure and system.
    pub(super) fn rows(&self, report: &mut Report) {
        for (figure, systems) in &self.0 {
            let (case, metric, unit) = figure.labels();
            for (system, values) in systems {
                if let Some(samples) = Samples::new(values.clone()) {
                    report.row(&case, system.name(), metric, unit, &samples);
                }
            }
        }
    }

    /// Bars are medians of the rounds' ratios, because a machine's speed drifts between rounds. Where a system of a bar
    /// was not measured there is none.
    pub(super) fn bars(&self, report: &mut Report) {
        for figure in [
            Figure::Streams(1),
            Figure::Streams(4),
            Figure::Streams(16),
            Figure::Both,
        ] {
            if let Some(ratio) = self.against(figure, &[System::WireguardGo], f64::max) {
                report.bar_at_least(&figure.labels().0, ratio, "times wireguard-go's", 2.0);
            }
        }
        for figure in [Figure::Datagrams, Figure::Packets] {
            if let Some(ratio) = self.against(figure, &System::PEERS, f64::max) {
                report.bar_at_least(&figure.labels().0, ratio, "times the best peer's", 1.5);
            }
        }
        if let Some(ratio) = self.against(Figure::MachineTime, &[System::WireguardGo], f64::min) {
            report.bar_at_most("CPU time a GB", ratio, "times wireguard-go's", 0.5);
        }
        for figure in [Figure::IdleTrip, Figure::LoadTrip] {
            if let Some(ratio) = self.against(figure, &System::PEERS, f64::min) {
                let (case, metric, _) = figure.labels();
                report.bar_at_most(&format!("{case}, {metric}"), ratio, "times the best peer's", 1.0);
            }
        }
        for (figure, limit) in [(Figure::IdleMemory, 16.0), (Figure::ManyMemory, 64.0)] {
            if let Some(memory) = self.median(figure, System::Warren) {
                report.bar_at_most(&figure.labels().0, memory, "MB", limit);
            }
        }
        for (many, one) in [
            (Figure::ManyPeers, Figure::OnePeer),
            (Figure::FromManyPeers, Figure::FromOnePeer),
        ] {
            let ours = self.values(many, System::Warren);
            if let (Some(many_values), Some(one_values)) = (ours, self.values(one, System::Warren))
                && let Some(ratio) = ratio(many_values, one_values)
            {
                report.bar_at_least(&many.labels().0, ratio, "times one peer's", 0.9);
            }
        }
    }

    /// Ours in terms of the best of these in the same round.
    fn against(&self, figure: Figure, peers: &[System], best: fn(f64, f64) -> f64) -> Option<f64> {
        let ours = self.values(figure, System::Warren)?;
        let mut theirs: Option<Vec<f64>> = None;
        for values in peers.iter().filter_map(|it| self.values(figure, *it)) {
            theirs = Some(match theirs {
                None => values.to_vec(),
                Some(so_far) => so_far.iter().zip(values).map(|(a, b)| best(*a, *b)).collect(),
            });
        }
        ratio(ours, &theirs?)
    }
}

/// The median of the rounds' ratios.
fn ratio(ours: &[f64], theirs: &[f64]) -> Option<f64> {
    let ratios = ours.iter().zip(theirs).map(|(a, b)| a / b).collect();
    Some(Samples::new(ratios)?.median())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(figure: Figure, all: &[(System, &[f64])]) -> Figures {
        let mut figures = Figures::default();
        for (system, values) in all {
            for value in *values {
                figures.add(figure, *system, *value);
            }
        }
        figures
    }

    #[test]
    fn ours_is_compared_with_the_best_peer_of_each_round() {
        let rates = figures(
            Figure::Packets,
            &[
                (System::Warren, &[6.0, 8.0, 100.0]),
                (System::WireguardGo, &[3.0, 1.0, 1.0]),
                (System::Gotatun, &[2.0, 2.0, 1.0]),
            ],
        );
        assert_eq!(
            rates.against(Figure::Packets, &System::PEERS, f64::max),
            Some(4.0)
        );
        let trips = figures(
            Figure::IdleTrip,
            &[
                (System::Warren, &[1.0]),
                (System::Gotatun, &[4.0]),
                (System::Boringtun, &[2.0]),
            ],
        );
        assert_eq!(
            trips.against(Figure::IdleTrip, &System::PEERS, f64::min),
            Some(0.5)
        );
    }

    #[test]
    fn without_a_peer_or_without_us_there_is_no_comparison() {
        let ours = figures(Figure::Both, &[(System::Warren, &[1.0])]);
        assert_eq!(ours.against(Figure::Both, &System::PEERS, f64::max), None);
        let theirs = figures(Figure::Both, &[(System::Gotatun, &[1.0])]);
        assert_eq!(theirs.against(Figure::Both, &System::PEERS, f64::max), None);
    }
}
