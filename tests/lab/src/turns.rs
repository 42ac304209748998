//! When a door opens and when it closes: knocked at from inside a pod every few milliseconds, by a new socket each time, so that
//! each knock is judged by itself.
//!
//! The process in the pod tells of each turn at once, by a Unix socket in the lab's directory, which it and the test both see.

use std::collections::VecDeque;
use std::io;
use std::net::UdpSocket;
use std::ops::RangeInclusive;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram as Teller;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::{Deserialize, Serialize};
use tokio::net::UnixDatagram;
use tokio::time::timeout;

use crate::control::Place;
use crate::knock::{Door, bound_for, now};
use crate::lab::Lab;
use crate::pod::Protocol;

/// Between two knocks: as exactly as this a turn is known.
const PACE: Duration = Duration::from_millis(5);
/// A door is closed when no knock of so long was answered. Where answers take longer than this it would open and close by itself.
const SILENCE: Duration = Duration::from_millis(150);
/// The ports that knocks come from, one after the other: none comes again before connection tracking has forgotten the last knock
/// from there, which would pass, or not, for what had become of that.
const PORTS: RangeInclusive<u16> = 20_000..=60_000;
/// How long a door may be watched.
const LIMIT: Duration = Duration::from_secs(600);

/// A door that has opened or closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    /// Which of both.
    pub is_open: bool,
    /// When the first knock was sent that found it so, by the wall clock of this machine.
    pub at: Duration,
    /// The longest time between two knocks since the turn before: beyond that nothing is known.
    pub longest_pause: Duration,
}

/// The turns of a door that is watched.
#[derive(Debug)]
pub struct Turns {
    told: UnixDatagram,
    path: PathBuf,
}

#[derive(Debug, Serialize, Deserialize)]
struct Job {
    door: Door,
    /// Where turns are told, for as long as it is there.
    tell: PathBuf,
}

/// Watches a UDP door from inside a pod while something is done. The first turn tells how it is at the beginning.
pub async fn watching<T>(
    lab: &Lab,
    from: &Place,
    door: Door,
    act: impl AsyncFnOnce(&mut Turns) -> T,
) -> anyhow::Result<T> {
    ensure!(
        door.protocol == Protocol::Udp,
        "{door:?} is not watched: it is no UDP"
    );
    let path = lab.dir().join("turns.sock");
    let told = UnixDatagram::bind(&path).with_context(|| format!("make {}", path.display()))?;
    let mut turns = Turns { told, path };
    let tell = turns.path.clone();
    let job = serde_json::to_string(&Job { door, tell })?;
    let argv = ["warren-lab", "pod-watch", &job];
    let watched = lab.run_for(from.clone(), &argv, LIMIT);
    let acted = async {
        let acted = act(&mut turns).await;
        drop(turns);
        acted
    };
    let (watched, acted) = tokio::join!(watched, acted);
    let watched = watched?;
    ensure!(watched.success(), "{}", watched.stderr);
    Ok(acted)
}

impl Turns {
    /// The next turn; `None` if there is none for so long.
    pub async fn next(&mut self, patience: Duration) -> anyhow::Result<Option<Turn>> {
        let mut line = [0; 256];
        let Ok(length) = timeout(patience, self.told.recv(&mut line)).await else {
            return Ok(None);
        };
        let length = length.context("hear of a turn")?;
        serde_json::from_slice(&line[..length])
            .map(Some)
            .context("read a turn")
    }
}

impl Drop for Turns {
    /// Has the process in the pod end.
    fn drop(&mut self) {
        // It goes with the lab's directory otherwise.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// What runs in the pod, until nobody listens any more.
pub fn watch_door(job: &str) -> anyhow::Result<()> {
    let Job { door, tell } = serde_json::from_str(job).context("read the job")?;
    let teller = Teller::unbound().context("make a socket")?;
    let mut watch = Watch::default();
    let mut ports = PORTS.cycle();
    while tell.exists() {
        let port = ports.next().unwrap_or_default();
        watch.knock(door, port).context("knock")?;
        if let Some(turn) = watch.look().context("look for answers")? {
            tell_of(&teller, &tell, turn)?;
        }
        thread::sleep(PACE);
    }
    Ok(())
}

fn tell_of(teller: &Teller, path: &Path, turn: Turn) -> anyhow::Result<()> {
    let sent = teller.send_to(&serde_json::to_vec(&turn)?, path);
    match sent {
        Err(error) if path.exists() => Err(error).context("tell of a turn"),
        // Nobody listens any more.
        Ok(_) | Err(_) => Ok(()),
    }
}

/// A knock that has not been answered.
struct Knock {
    socket: UdpSocket,
    at: Duration,
    sent: Instant,
}

/// What is known of a door.
#[derive(Default)]
struct Watch {
    is_open: Option<bool>,
    /// In the order they were sent, none older than need be.
    unanswered: VecDeque<Knock>,
    last: Option<Instant>,
    longest_pause: Duration,
}

impl Watch {
    fn knock(&mut self, door: Door, from: u16) -> io::Result<()> {
        let socket = bound_for((door.address, door.port).into(), from)?;
        socket.set_nonblocking(true)?;
        let (at, sent) = (now(), Instant::now());
        // What is refused at once is as good as dropped.
        let _ = socket.send(b"knock");
        let pause = self.last.replace(sent).map_or(Duration::ZERO, |last| sent - last);
        self.longest_pause = self.longest_pause.max(pause);
        if pause >= SILENCE {
            // Whoever is to answer may have stood still as well, and not have gone on yet.
            self.unanswered.clear();
        }
        self.unanswered.push_back(Knock { socket, at, sent });
        Ok(())
    }

    /// Takes the answers that there are. An answer to a knock says nothing against the silence of those before: they may be lost
    /// or late, and are not looked at any more.
    fn look(&mut self) -> io::Result<Option<Turn>> {
        let mut polled: Vec<PollFd<'_>> = self
            .unanswered
            .iter()
            .map(|knock| PollFd::new(knock.socket.as_fd(), PollFlags::POLLIN))
            .collect();
        poll(&mut polled, PollTimeout::ZERO)?;
        let answered: Vec<bool> = polled.iter().map(|it| it.any().unwrap_or(false)).collect();
        let is_answered =
            |index: &usize| answered[*index] && self.unanswered[*index].socket.recv(&mut [0; 64]).is_ok();
        let found: Vec<usize> = (0..answered.len()).filter(is_answered).collect();
        if let (Some(first), Some(last)) = (found.first(), found.last()) {
            let at = self.unanswered[*first].at;
            self.unanswered.drain(..=*last);
            return Ok(self.turn(true, at));
        }
        let is_over = |knock: &Knock| knock.sent.elapsed() >= SILENCE;
        let Some(at) = self.unanswered.front().filter(|it| is_over(it)).map(|it| it.at) else {
            return Ok(None);
        };
        while self.unanswered.front().is_some_and(is_over) {
            self.unanswered.pop_front();
        }
        Ok(self.turn(false, at))
    }

    fn turn(&mut self, is_open: bool, at: Duration) -> Option<Turn> {
        (self.is_open.replace(is_open) != Some(is_open)).then(|| Turn {
            is_open,
            at,
            longest_pause: std::mem::take(&mut self.longest_pause),
        })
    }
}
