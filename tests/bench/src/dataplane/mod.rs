//! `warren-wg` beside other userspace WireGuard devices: two hosts, a cable, the same implementation at both ends.
//!
//! | module | what it is about |
//! |---|---|
//! | `figures` | what is measured, and what it must come to |
//! | `system`, `device` | the implementations, and their processes |
//! | `datagrams`, `rate`, `echo` | UDP and round trips |
//! | `swarm`, `packet` | a thousand peers |
//! | `bound` | what the cores would allow |
//! | `usage` | processor time |

mod bound;
mod datagrams;
mod device;
mod echo;
mod figures;
mod packet;
mod rate;
mod swarm;
mod system;
mod usage;

use std::thread;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, ValueEnum};
use warren_cipher::Key;

use self::bound::Cipher;
use self::datagrams::Datagrams;
use self::figures::{Figure, Figures};
use self::system::{System, Tunnel};
use self::usage::Used;
use crate::isolate;
use crate::machine::Machine;
use crate::report::Report;
use crate::statistics::Samples;
use crate::streams::{self, Streams};

/// How long round trips are measured in an idle tunnel, and the rest between two.
const IDLE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_millis(2));

/// The rest between two round trips beside a stream.
const LOADED: Duration = Duration::from_millis(4);

/// How long the machine is looked at before a round: what it does then, is not ours.
const LOOK: Duration = Duration::from_millis(500);

/// How long a stream gets to be as fast as it will be.
const SLOW_START: Duration = Duration::from_millis(500);

/// What is measured, and of whom. Figures that need what is left out are left out too.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Only these, in this order.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = System::value_variants().to_vec())]
    systems: Vec<System>,
    /// Only these.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Case::value_variants().to_vec())]
    cases: Vec<Case>,
    /// One round, for a first look; not what figures are told from.
    #[arg(long)]
    quick: bool,
}

/// What is done with every system in turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Case {
    /// TCP, one stream, and the processor time it takes.
    Tcp1,
    /// TCP, four streams.
    Tcp4,
    /// TCP, sixteen streams.
    Tcp16,
    /// TCP, one stream in each direction.
    Both,
    /// The highest rate of 1,200 byte datagrams.
    Udp1200,
    /// The most 64 byte datagrams.
    Udp64,
    /// Round trips of an idle tunnel.
    Idle,
    /// Round trips beside a TCP stream.
    Load,
    /// Resident memory, idle.
    Memory,
    /// A thousand peers.
    Peers,
}

/// Measures all that is asked for.
pub(crate) fn bench(options: &Options, rounds: u32) -> anyhow::Result<Report> {
    isolate::enter()?;
    let mut machine = Machine::look(&["iperf3"]);
    for system in &options.systems {
        if let Some(version) = system.version()?.filter(|_| *system != System::Warren) {
            machine = machine.with_version(system.name(), version);
        }
    }
    let keys = [Key::new(&[7; 32]), Key::with_ring(&[7; 32])];
    machine = machine.with_version("cipher", keys[0].implementation().to_owned());
    let mut report = Report::new("dataplane", machine);
    let tunnels = options.systems.iter().enumerate();
    let tunnels: Vec<Tunnel> = tunnels
        .map(|(number, system)| Tunnel::up(*system, number))
        .collect::<anyhow::Result<_>>()?;
    let mut figures = Figures::default();
    let (mut ciphers, mut busy) = ([Vec::new(), Vec::new()], Vec::new());
    for round in 0..if options.quick { 1 } else { rounds as usize } {
        busy.push(usage::busy_meanwhile(|| thread::sleep(LOOK))? * 100.0);
        for (key, measured) in keys.iter().zip(&mut ciphers) {
            measured.push(Cipher::measure(key)?);
        }
        for case in &options.cases {
            // Each system is the first as often as any other.
            for turn in 0..tunnels.len() {
                let tunnel = &tunnels[(turn + round) % tunnels.len()];
                let failed = || format!("{case:?} of {}, round {}", tunnel.system.name(), round + 1);
                case.measure(tunnel, &mut figures).with_context(failed)?;
            }
        }
    }
    let busy = Samples::new(busy).context("no round")?;
    report.row("machine, before a round", "others", "busy", "%", &busy);
    figures.rows(&mut report);
    let [ours, ring] = &ciphers;
    tell_cipher(ring, "ring", &mut report)?;
    let ours = tell_cipher(ours, crate::report::WARREN, &mut report)?;
    tell_bound(ours, &figures, &mut report)?;
    figures.bars(&mut report);
    Ok(report)
}

impl Case {
    fn measure(self, tunnel: &Tunnel, figures: &mut Figures) -> anyhow::Result<()> {
        let system = tunnel.system;
        tunnel.wake()?;
        match self {
            Self::Tcp1 => return one_stream(tunnel, figures),
            Self::Tcp4 => streams(tunnel, 4, figures)?,
            Self::Tcp16 => streams(tunnel, 16, figures)?,
            Self::Both => {
                let both = Streams { count: 1, both: true };
                let carried = both.run(&tunnel.hosts, tunnel.far)?;
                figures.add(Figure::Both, system, carried.gigabits_per_second());
            }
            Self::Udp1200 => {
                let rate = rate::highest_whole(|rate| datagrams(tunnel, 1200).offer(rate))?;
                figures.add(Figure::Datagrams, system, rate * 1200.0 * 8.0 / 1e9);
            }
            Self::Udp64 => {
                let rate = rate::most(|rate| datagrams(tunnel, 64).offer(rate))?;
                figures.add(Figure::Packets, system, rate / 1000.0);
            }
            Self::Idle => {
                let trips = echo::round_trips(&tunnel.hosts.near, tunnel.far, IDLE.0, IDLE.1)?;
                let trips = Samples::new(trips).context("no round trip")?;
                figures.add(Figure::IdleTrip, system, trips.percentile(0.5));
            }
            Self::Load => {
                let trips = trips_beside_a_stream(tunnel)?;
                figures.add(Figure::LoadTrip, system, trips.percentile(0.99));
            }
            Self::Memory => idle_memory(tunnel, figures)?,
            Self::Peers => swarm::measure(system, figures)?,
        }
        Ok(())
    }
}

fn one_stream(tunnel: &Tunnel, figures: &mut Figures) -> anyhow::Result<()> {
    let (system, devices) = (tunnel.system, tunnel.pids());
    let before = Used::now(&devices)?;
    let one = Streams {
        count: 1,
        both: false,
    };
    let carried = one.run(&tunnel.hosts, tunnel.far)?;
    let used = Used::now(&devices)?.since(before);
    figures.add(Figure::Streams(1), system, carried.gigabits_per_second());
    figures.add(Figure::MachineTime, system, used.machine / carried.gigabytes());
    if !devices.is_empty() {
        figures.add(Figure::DeviceTime, system, used.devices / carried.gigabytes());
    }
    Ok(())
}

fn streams(tunnel: &Tunnel, count: u32, figures: &mut Figures) -> anyhow::Result<()> {
    let carried = Streams { count, both: false }.run(&tunnel.hosts, tunnel.far)?;
    figures.add(
        Figure::Streams(count),
        tunnel.system,
        carried.gigabits_per_second(),
    );
    Ok(())
}

fn datagrams(tunnel: &Tunnel, size: usize) -> Datagrams<'_> {
    Datagrams {
        hosts: &tunnel.hosts,
        far: tunnel.far,
        size,
    }
}

fn trips_beside_a_stream(tunnel: &Tunnel) -> anyhow::Result<Samples> {
    let one = Streams {
        count: 1,
        both: false,
    };
    let trips = thread::scope(|scope| {
        let load = scope.spawn(|| one.run(&tunnel.hosts, tunnel.far));
        thread::sleep(SLOW_START);
        let time = streams::TIME.saturating_sub(2 * SLOW_START);
        let trips = echo::round_trips(&tunnel.hosts.near, tunnel.far, time, LOADED);
        load.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a panic")))?;
        trips
    })?;
    Samples::new(trips).context("no round trip")
}

/// In a tunnel of its own, which has carried no more than an echo.
fn idle_memory(tunnel: &Tunnel, figures: &mut Figures) -> anyhow::Result<()> {
    if tunnel.devices.is_empty() {
        return Ok(());
    }
    let fresh = Tunnel::up(tunnel.system, FRESH)?;
    for device in &fresh.devices {
        figures.add(Figure::IdleMemory, tunnel.system, device.resident()?);
    }
    Ok(())
}

/// The number of a tunnel that is there for a moment only.
const FRESH: usize = 99;

/// How fast an implementation of the cipher was, and its medians.
fn tell_cipher(measured: &[Cipher], name: &'static str, report: &mut Report) -> anyhow::Result<Cipher> {
    let mut tell = |metric, of: fn(&Cipher) -> f64| {
        let speeds = measured.iter().map(|it| of(it) * 8.0 / 1e9).collect();
        let speeds = Samples::new(speeds).context("no round")?;
        report.row("cipher, 1420 bytes, 1 core", name, metric, "Gbit/s", &speeds);
        anyhow::Ok(speeds.median() * 1e9 / 8.0)
    };
    Ok(Cipher {
        sealing: tell("sealing", |it| it.sealing)?,
        opening: tell("opening", |it| it.opening)?,
    })
}

/// What the cores would allow, and how much of that ours reaches.
fn tell_bound(cipher: Cipher, figures: &Figures, report: &mut Report) -> anyhow::Result<()> {
    let Some(plain) = figures.median(Figure::MachineTime, System::Veth) else {
        return Ok(());
    };
    let cores = usage::cores();
    let bound = cipher.bound(cores, plain) * 8.0;
    let one = |value| Samples::new(vec![value]).context("no number");
    report.row("bound", "these cores", "throughput", "Gbit/s", &one(bound)?);
    for (figure, label) in [
        (Figure::Streams(1), "bound, 1 stream"),
        (Figure::Streams(4), "bound, 4 streams"),
        (Figure::Streams(16), "bound, 16 streams"),
    ] {
        if let Some(ours) = figures.median(figure, System::Warren) {
            report.row(
                label,
                crate::report::WARREN,
                "share",
                "%",
                &one(ours / bound * 100.0)?,
            );
        }
    }
    Ok(())
}
