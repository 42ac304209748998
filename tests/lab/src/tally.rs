//! Packets with sequence numbers between all pods, and which of them were not answered.
//!
//! Each pod runs one process ([`send_and_answer`]) that sends to every other pod of another node at a steady rate and
//! sends back what it gets. A packet counts as lost if it has no answer two seconds after the last of all pods has sent its last, which is a
//! second after all was done. So that it is the network that is measured and not the machine, a process that gets no processor for a while sends
//! less in that time, and what its socket had no room for is told apart.

mod overflow;
mod process;

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures::future::try_join_all;
use serde::{Deserialize, Serialize};

pub use self::process::send_and_answer;
use crate::control::Place;
use crate::facts::Facts;
use crate::lab::Lab;

/// How long it may take until every packet stream has its first answer: also where the machine is an emulated one.
const WARM: Duration = Duration::from_secs(60);
/// How long a tally may take as a whole.
const LIMIT: Duration = Duration::from_secs(300);
/// How often it is looked whether others have come as far.
const LOOK: Duration = Duration::from_millis(10);

/// What became of the packets from one pod to one address of another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stream {
    /// The pod that sent and counted.
    pub from: String,
    /// The address it sent to.
    pub to: IpAddr,
    /// Packets sent.
    pub sent: u64,
    /// The numbers of those that were not answered, each with when it was sent, in milliseconds after the first.
    pub lost: Vec<(u64, u64)>,
}

/// What became of all.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// One a pod pair and address.
    pub streams: Vec<Stream>,
    /// Packets that have come as far as a pod's socket and found no room there: it had no processor to read them with. Each makes one
    /// lost packet, of whichever end.
    pub overflowed: u64,
}

impl Tally {
    /// Packets sent.
    pub fn sent(&self) -> u64 {
        self.streams.iter().map(|stream| stream.sent).sum()
    }

    /// Packets without an answer.
    pub fn lost(&self) -> u64 {
        let lost = self.streams.iter().map(|stream| stream.lost.len());
        lost.map(|count| u64::try_from(count).unwrap_or(u64::MAX)).sum()
    }

    /// The streams that have lost something.
    pub fn lossy(&self) -> Vec<&Stream> {
        self.streams
            .iter()
            .filter(|stream| !stream.lost.is_empty())
            .collect()
    }
}

/// Sends so many packets a second from every pod to every address of every pod on another node, while `act` is done and
/// from well before to well after it. `act` begins when every stream has had its first answer.
pub async fn tally_during<T>(
    lab: &Lab,
    rate: u32,
    act: impl Future<Output = T>,
) -> anyhow::Result<(Tally, T)> {
    let facts = lab.facts().await?;
    let marks = Marks::new(lab.dir());
    fs::create_dir_all(&marks.0).with_context(|| format!("make {}", marks.0.display()))?;
    let senders = facts.pods.iter().map(|pod| {
        let job = Job {
            name: pod.key.name.clone(),
            from: parsed(&pod.addresses).collect(),
            to: others_of(&facts, &pod.node),
            pods: facts.pods.iter().map(|pod| pod.key.name.clone()).collect(),
            rate,
            marks: marks.0.clone(),
        };
        run(lab, Place::Pod(pod.key.clone()), job)
    });
    let acted = async {
        let begun = marks.all_begun(&facts).await;
        let acted = match &begun {
            Ok(()) => Some(act.await),
            Err(_) => None,
        };
        fs::write(marks.end(), "").context("tell the senders to end")?;
        begun.map(|()| acted)
    };
    let (counted, acted) = tokio::join!(try_join_all(senders), acted);
    let removed = fs::remove_dir_all(&marks.0);
    let (counted, acted) = (counted?, acted?);
    removed.with_context(|| format!("remove {}", marks.0.display()))?;
    let tally = Tally {
        overflowed: counted.iter().map(|pod| pod.overflowed).sum(),
        streams: counted.into_iter().flat_map(|pod| pod.streams).collect(),
    };
    Ok((tally, acted.context("nothing was done")?))
}

fn others_of(facts: &Facts, node: &str) -> Vec<IpAddr> {
    let others = facts.pods.iter().filter(|pod| pod.node != node);
    others.flat_map(|pod| parsed(&pod.addresses)).collect()
}

fn parsed(addresses: &[String]) -> impl Iterator<Item = IpAddr> {
    addresses.iter().filter_map(|address| address.parse().ok())
}

async fn run(lab: &Lab, place: Place, job: Job) -> anyhow::Result<Counted> {
    let job = serde_json::to_string(&job)?;
    let output = lab
        .run_for(place, &["warren-lab", "pod-tally", &job], LIMIT)
        .await?;
    ensure!(output.success(), "{}", output.stderr);
    serde_json::from_str(&output.stdout).context("read what a pod has counted")
}

/// Files by which the processes of a tally tell each other how far they are.
#[derive(Debug)]
struct Marks(PathBuf);

impl Marks {
    fn new(lab: &Path) -> Self {
        Self(lab.join("tally"))
    }

    /// Written when all streams of a pod have had an answer.
    fn begun(&self, pod: &str) -> PathBuf {
        self.0.join(pod)
    }

    /// Written when it is to end. No pod has this name: it has a capital.
    fn end(&self) -> PathBuf {
        self.0.join("End")
    }

    /// Written when a pod has sent its last.
    fn sent(&self, pod: &str) -> PathBuf {
        self.0.join(format!("Sent-{pod}"))
    }

    async fn all_begun(&self, facts: &Facts) -> anyhow::Result<()> {
        let deadline = Instant::now() + WARM;
        for pod in &facts.pods {
            while !self.begun(&pod.key.name).exists() {
                ensure!(
                    Instant::now() < deadline,
                    "not all pods that {} sends to answered it within {WARM:?}",
                    pod.key.name
                );
                tokio::time::sleep(LOOK).await;
            }
        }
        Ok(())
    }
}

/// What one pod's process is to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Job {
    name: String,
    /// Its own addresses.
    from: Vec<IpAddr>,
    /// Where it sends to.
    to: Vec<IpAddr>,
    /// All that send.
    pods: Vec<String>,
    rate: u32,
    marks: PathBuf,
}

/// What one pod's process has counted.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Counted {
    streams: Vec<Stream>,
    overflowed: u64,
}
