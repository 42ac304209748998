//! One pod's process: it sends, answers, and counts what became of what it has sent.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{RcvBuf, RcvBufForce};

use super::overflow::overflowed;
use super::{Counted, Job, LIMIT, LOOK, Marks, Stream};

/// The port of both ends.
const PORT: u16 = 7077;
/// For how long packets are sent after what is done is done: what follows from it by itself is to be seen too.
const AFTER: Duration = Duration::from_secs(1);
/// How long a packet's answer may take.
const LATE: Duration = Duration::from_secs(2);
/// Bytes of packets that wait for a process which gets no processor for a while: it is not the network that lost them.
const BUFFER: usize = 8 << 20;
/// How long the receiving side waits for a packet before it looks whether it is to end.
const GLANCE: Duration = Duration::from_millis(50);
/// After how many packets the receiving side rests, and for how long. Who was kept from the processor for seconds finds thousands to answer,
/// more than the queue of an interface holds.
const BURST: u64 = 16;
const BREATH: Duration = Duration::from_millis(1);

/// The process in one pod: sends, answers, and in the end writes what became of what it sent. `job` is what
/// [`tally_during`](super::tally_during) has written.
pub fn send_and_answer(job: &str, out: &mut impl io::Write) -> anyhow::Result<()> {
    let job: Job = serde_json::from_str(job).context("read what to do")?;
    let mut families = Vec::new();
    for from in &job.from {
        let same_family = |to: &IpAddr| to.is_ipv4() == from.is_ipv4();
        let to = job.to.iter().copied().filter(same_family).collect();
        families.push(FamilyOf::new(*from, to)?);
    }
    let marks = Marks(job.marks.clone());
    let before = overflowed()?;
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for family in &families {
            scope.spawn(|| family.receive(&over));
        }
        let sent = send(&job, &families, &marks).and_then(|()| wait_for_all(&job, &marks));
        if sent.is_ok() {
            thread::sleep(LATE);
        }
        over.store(true, Ordering::Relaxed);
        sent
    })?;
    let counted = Counted {
        streams: families.iter().flat_map(|family| family.streams(&job)).collect(),
        overflowed: overflowed()?.saturating_sub(before),
    };
    serde_json::to_writer(out, &counted).context("write what was counted")
}

/// Waits until all pods have sent their last: until then they are to be answered.
fn wait_for_all(job: &Job, marks: &Marks) -> anyhow::Result<()> {
    fs::write(marks.sent(&job.name), "").context("tell that the last was sent")?;
    let deadline = Instant::now() + LIMIT;
    while let Some(pod) = job.pods.iter().find(|pod| !marks.sent(pod).exists()) {
        ensure!(
            Instant::now() < deadline,
            "{pod} has not sent its last within {LIMIT:?}"
        );
        thread::sleep(LOOK);
    }
    Ok(())
}

/// Sends a packet to everybody at every tick, until a while after it is said to end.
fn send(job: &Job, families: &[FamilyOf], marks: &Marks) -> anyhow::Result<()> {
    let started = Instant::now();
    let period = Duration::from_secs(1) / job.rate;
    let (mut has_begun, mut ended) = (false, None);
    let mut due = started;
    while ended.is_none_or(|ended: Instant| ended.elapsed() < AFTER) {
        if ended.is_none() && marks.end().exists() {
            ended = Some(Instant::now());
        }
        for family in families {
            family.send(started.elapsed());
        }
        if !has_begun && families.iter().all(FamilyOf::all_answered) {
            fs::write(marks.begun(&job.name), "").context("tell that all have answered")?;
            has_begun = true;
        }
        let now = Instant::now();
        due = next(due, now, period);
        thread::sleep(due.saturating_duration_since(now));
    }
    Ok(())
}

/// When the tick after the one that was due is. Who was kept from the processor for longer than a tick goes on from now: to make up
/// for it would be to send at once what belongs into seconds, and the queues of interfaces and sockets do not hold that.
fn next(due: Instant, now: Instant, period: Duration) -> Instant {
    (due + period).max(now)
}

/// One family's socket, and the packets to addresses of that family.
struct FamilyOf {
    socket: UdpSocket,
    packets: BTreeMap<IpAddr, Mutex<Packets>>,
}

/// When each packet was sent, and whether it was answered.
type Packets = Vec<(Duration, bool)>;

/// The first byte of a packet.
const ASK: u8 = b'?';
const ANSWER: u8 = b'!';

impl FamilyOf {
    fn new(from: IpAddr, to: Vec<IpAddr>) -> anyhow::Result<Self> {
        let socket = UdpSocket::bind(SocketAddr::new(from, PORT)).context("open a socket")?;
        socket.set_read_timeout(Some(GLANCE)).context("limit a wait")?;
        // Without this right the system's own limit holds, which a second without a processor is enough to exceed.
        if setsockopt(&socket, RcvBufForce, &BUFFER).is_err() {
            setsockopt(&socket, RcvBuf, &BUFFER).context("ask for room for packets")?;
        }
        Ok(Self {
            socket,
            packets: to.into_iter().map(|to| (to, Mutex::default())).collect(),
        })
    }

    /// One packet to everybody. One that cannot be sent is sent and lost.
    fn send(&self, now: Duration) {
        for (to, packets) in &self.packets {
            let number = {
                let mut packets = lock(packets);
                packets.push((now, false));
                packets.len() - 1
            };
            let packet = [&[ASK][..], &number.to_be_bytes()].concat();
            let _ = self.socket.send_to(&packet, (*to, PORT));
        }
    }

    /// Answers, and notes answers, until it is over and all that has come is read.
    fn receive(&self, over: &AtomicBool) {
        let mut buffer = [0; 64];
        let mut taken = 0_u64;
        loop {
            match self.socket.recv_from(&mut buffer) {
                Ok((length, from)) => {
                    self.take(&mut buffer[..length], from);
                    taken += 1;
                    if taken.is_multiple_of(BURST) {
                        thread::sleep(BREATH);
                    }
                }
                // Nothing came for a while, or an error about one packet: an unreachable address.
                Err(_) if over.load(Ordering::Relaxed) => return,
                Err(_) => {}
            }
        }
    }

    fn take(&self, packet: &mut [u8], from: SocketAddr) {
        match packet.split_first() {
            Some((&ASK, _)) => {
                packet[0] = ANSWER;
                let _ = self.socket.send_to(packet, from);
            }
            Some((&ANSWER, number)) => {
                let number = number.try_into().map(usize::from_be_bytes);
                let packets = self.packets.get(&from.ip());
                if let (Ok(number), Some(packets)) = (number, packets)
                    && let Some(packet) = lock(packets).get_mut(number)
                {
                    packet.1 = true;
                }
            }
            Some(_) | None => {}
        }
    }

    fn all_answered(&self) -> bool {
        let answered = |packets: &Mutex<Packets>| lock(packets).iter().any(|packet| packet.1);
        self.packets.values().all(answered)
    }

    /// What became of the packets after the first that was answered: the way there had to be found first.
    fn streams(&self, job: &Job) -> Vec<Stream> {
        let stream = |(to, packets): (&IpAddr, &Mutex<Packets>)| {
            let packets = lock(packets);
            let counted = packets.iter().zip(0..).skip_while(|(packet, _)| !packet.1);
            let counted: Vec<_> = counted.collect();
            let lost = counted.iter().filter(|(packet, _)| !packet.1);
            let millis = |sent: Duration| u64::try_from(sent.as_millis()).unwrap_or(u64::MAX);
            Stream {
                from: job.name.clone(),
                to: *to,
                sent: u64::try_from(counted.len()).unwrap_or(u64::MAX),
                lost: lost.map(|(packet, number)| (*number, millis(packet.0))).collect(),
            }
        };
        self.packets.iter().map(stream).collect()
    }
}

fn lock(packets: &Mutex<Packets>) -> std::sync::MutexGuard<'_, Packets> {
    packets.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_was_held_up_does_not_send_at_once_what_it_has_missed() {
        const PERIOD: Duration = Duration::from_millis(10);
        let start = Instant::now();
        let late = |by: u64| next(start, start + Duration::from_millis(by), PERIOD);
        assert_eq!(late(0), start + PERIOD);
        // A little late is no reason to send less.
        assert_eq!(late(9), start + PERIOD);
        // After a second, a hundred would be due at once.
        let resumed = start + Duration::from_secs(1);
        assert_eq!(next(start, resumed, PERIOD), resumed);
        assert_eq!(next(resumed, resumed, PERIOD), resumed + PERIOD);
    }
}
