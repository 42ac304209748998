//! Connections that policy lets through or does not, tried from inside a pod: each by a new socket, so that each is judged.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};
use socket2::{Domain, Socket, Type};

use crate::control::Place;
use crate::lab::Lab;
use crate::pod::Protocol;

/// How often a datagram that is not answered is sent in all.
const ATTEMPTS: u32 = 3;
/// Between two lines of a talk.
const PACE: Duration = Duration::from_millis(20);
/// How long a job may take beyond what it is told.
const GRACE: Duration = Duration::from_secs(20);

/// Where to knock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Door {
    /// By which protocol.
    pub protocol: Protocol,
    /// Where.
    pub address: IpAddr,
    /// At which port.
    pub port: u16,
}

/// What a connection that was kept in use has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Talk {
    /// Lines that were answered.
    pub answers: u64,
    /// When the last answer came, by the wall clock of this machine.
    pub last: Duration,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Job {
    Knock {
        doors: Vec<Door>,
        patience: Duration,
    },
    Storm {
        door: Door,
        every: Duration,
        lasting: Duration,
    },
    Talk {
        door: Door,
        silence: Duration,
        lasting: Duration,
    },
}

/// Knocks at all doors at once; says which are answered within the time given.
pub async fn knock(lab: &Lab, from: &Place, doors: &[Door], patience: Duration) -> anyhow::Result<Vec<bool>> {
    let doors = doors.to_vec();
    run(lab, from, &Job::Knock { doors, patience }, patience).await
}

/// Knocks at one door again and again; says how often it was answered.
pub async fn storm(
    lab: &Lab,
    from: &Place,
    door: Door,
    every: Duration,
    lasting: Duration,
) -> anyhow::Result<u64> {
    let job = Job::Storm { door, every, lasting };
    run(lab, from, &job, lasting).await
}

/// Keeps one TCP connection in use until it is silent for that long, or for as long as it may last.
pub async fn talk(
    lab: &Lab,
    from: &Place,
    door: Door,
    silence: Duration,
    lasting: Duration,
) -> anyhow::Result<Talk> {
    let job = Job::Talk {
        door,
        silence,
        lasting,
    };
    run(lab, from, &job, lasting + GRACE).await
}

/// The wall clock, as talks tell it.
pub fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

async fn run<T: for<'de> Deserialize<'de>>(
    lab: &Lab,
    from: &Place,
    job: &Job,
    takes: Duration,
) -> anyhow::Result<T> {
    let job = serde_json::to_string(job)?;
    let output = lab
        .run_for(from.clone(), &["warren-lab", "pod-knock", &job], takes + GRACE)
        .await?;
    ensure!(output.success(), "{}", output.stderr);
    serde_json::from_str(&output.stdout).context("read what a pod has found")
}

/// What runs in the pod. Returns what is to be printed.
pub fn run_job(job: &str) -> anyhow::Result<String> {
    Ok(match serde_json::from_str(job).context("read the job")? {
        Job::Knock { doors, patience } => {
            let answered = thread::scope(|scope| {
                let knocking: Vec<_> = doors
                    .iter()
                    .map(|door| scope.spawn(move || is_answered(*door, patience)))
                    .collect();
                // One that has panicked has found nothing.
                let found = knocking.into_iter().map(|it| it.join().unwrap_or(false));
                found.collect::<Vec<_>>()
            });
            serde_json::to_string(&answered)?
        }
        Job::Storm { door, every, lasting } => {
            serde_json::to_string(&storm_from_here(door, every, lasting)?)?
        }
        Job::Talk {
            door,
            silence,
            lasting,
        } => serde_json::to_string(&talk_from_here(door, silence, lasting)?)?,
    })
}

fn is_answered(door: Door, patience: Duration) -> bool {
    let to = SocketAddr::new(door.address, door.port);
    let answered = match door.protocol {
        Protocol::Tcp => by_tcp(to, patience),
        Protocol::Udp => by_udp(to, patience),
        Protocol::Sctp => by_sctp(to, patience),
    };
    answered.is_ok()
}

fn by_tcp(to: SocketAddr, patience: Duration) -> io::Result<()> {
    by_stream(TcpStream::connect_timeout(&to, patience)?, patience)
}

fn by_sctp(to: SocketAddr, patience: Duration) -> io::Result<()> {
    let socket = sctp_socket(to)?;
    socket.connect_timeout(&to.into(), patience)?;
    by_stream(socket.into(), patience)
}

/// A socket for one association with that address, or for who listens at it.
pub(crate) fn sctp_socket(address: SocketAddr) -> io::Result<Socket> {
    let sctp = socket2::Protocol::from(libc::IPPROTO_SCTP);
    Socket::new(Domain::for_address(address), Type::STREAM, Some(sctp))
}

fn by_stream(mut stream: TcpStream, patience: Duration) -> io::Result<()> {
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(b"knock\n")?;
    let mut answer = String::new();
    match BufReader::new(stream).read_line(&mut answer)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

fn by_udp(to: SocketAddr, patience: Duration) -> io::Result<()> {
    let socket = bound_for(to, 0)?;
    socket.set_read_timeout(Some(patience / ATTEMPTS))?;
    let mut outcome = Err(io::ErrorKind::TimedOut.into());
    for _ in 0..ATTEMPTS {
        socket.send(b"knock")?;
        outcome = socket.recv(&mut [0; 64]).map(drop);
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

fn storm_from_here(door: Door, every: Duration, lasting: Duration) -> io::Result<u64> {
    let to = SocketAddr::new(door.address, door.port);
    let until = Instant::now() + lasting;
    let (mut sockets, mut answered) = (Vec::new(), 0);
    while Instant::now() < until {
        let socket = bound_for(to, 0)?;
        socket.set_nonblocking(true)?;
        // What is refused at once is as good as dropped.
        let _ = socket.send(b"storm");
        sockets.push(socket);
        thread::sleep(every);
        sockets.retain(|socket| match socket.recv(&mut [0; 64]) {
            Ok(_) => {
                answered += 1;
                false
            }
            Err(_) => true,
        });
        // The oldest are given up: each holds a descriptor.
        if sockets.len() > 500 {
            sockets.remove(0);
        }
    }
    Ok(answered)
}

fn talk_from_here(door: Door, silence: Duration, lasting: Duration) -> io::Result<Talk> {
    let to = SocketAddr::new(door.address, door.port);
    let stream = TcpStream::connect_timeout(&to, GRACE)?;
    stream.set_read_timeout(Some(silence))?;
    let until = Instant::now() + lasting;
    let mut answers = BufReader::new(&stream);
    let mut talk = Talk {
        answers: 0,
        last: now(),
    };
    let mut line = String::new();
    while Instant::now() < until {
        (&stream).write_all(b"line\n")?;
        line.clear();
        match answers.read_line(&mut line) {
            Ok(length) if length > 0 => {}
            Ok(_) | Err(_) => break,
        }
        talk = Talk {
            answers: talk.answers + 1,
            last: now(),
        };
        thread::sleep(PACE);
    }
    Ok(talk)
}

/// A socket that speaks to that address alone, from that port; from any, if it is 0.
pub(crate) fn bound_for(to: SocketAddr, from: u16) -> io::Result<UdpSocket> {
    let any: IpAddr = if to.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let socket = UdpSocket::bind((any, from))?;
    socket.connect(to)?;
    Ok(socket)
}
