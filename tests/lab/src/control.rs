//! What a client asks of a lab's keeper, and how: one request and one reply per connection, each one line of JSON, on
//! the Unix socket in the lab's directory.

use std::collections::BTreeMap;
use std::io::{IoSliceMut, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use anyhow::{Context, anyhow, bail};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cni::CniCommand;
use crate::dir::LabDir;
use crate::pod::{PodKey, PodOptions};

/// One request.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
pub(crate) enum Request {
    /// What there is: [`crate::Facts`].
    Facts,
    /// Starts a node's agent and waits until it serves.
    NodeStart {
        node: String,
        /// `--wireguard`; else what the lab's options say.
        #[serde(default)]
        wireguard: Option<String>,
    },
    /// Ends a node's agent, by SIGTERM or at once.
    NodeStop { node: String, kill: bool },
    /// Takes a node's link to the underlay down.
    NodeCut { node: String },
    /// Takes it up again.
    NodeMend { node: String },
    /// Ends everything on a node and starts it again with the disk it had.
    NodeReboot { node: String },
    /// Makes a pod and attaches it.
    PodAdd(PodOptions),
    /// Detaches and deletes a pod.
    PodRemove { pod: PodKey },
    /// Runs one CNI command for a pod, as its runtime would.
    PodCni { pod: PodKey, command: CniCommand },
    /// Runs a program to its end: [`Run`], answered by [`Output`].
    Run(Run),
    /// Asks for the namespaces of a place; they come with the reply.
    Enter { place: Place },
    /// What crossed the underlay so far: [`crate::Counts`].
    Counts,
    /// The lab outlives the client that made it.
    Detach,
    /// The lab ends.
    Down,
}

/// Where in a lab a program runs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// The root namespace: router of the underlay and home of the API.
    Root,
    /// A node, by name.
    Node(String),
    /// A pod.
    Pod(PodKey),
}

/// A program to run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) place: Place,
    pub(crate) argv: Vec<String>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) stdin: String,
    /// It is killed after so long.
    pub(crate) timeout_ms: u64,
}

/// How a program ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Output {
    /// Exit code; 128 and the signal's number if one killed it.
    pub code: i32,
    /// What it wrote.
    pub stdout: String,
    /// What it complained of.
    pub stderr: String,
}

impl Output {
    /// Whether it ended well.
    pub fn success(&self) -> bool {
        self.code == 0
    }
}

/// A reply.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Reply {
    Ok(Value),
    Error(String),
}

/// Asks the keeper of a lab and waits for its answer.
pub(crate) fn call<T: DeserializeOwned>(dir: &LabDir, request: &Request) -> anyhow::Result<T> {
    exchange(dir, request).map(|(answer, _)| answer)
}

/// [`call`], with the descriptors that came along.
pub(crate) fn exchange<T: DeserializeOwned>(
    dir: &LabDir,
    request: &Request,
) -> anyhow::Result<(T, Vec<OwnedFd>)> {
    let mut stream = UnixStream::connect(dir.control()).with_context(|| {
        format!(
            "no lab answers in {}. Bring one up with `warren-lab up`, or name its --dir",
            dir.path().display()
        )
    })?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line).context("ask the lab's keeper")?;
    let (line, descriptors) = read_line_and_descriptors(&stream)?;
    match serde_json::from_slice(&line)
        .context("the lab's keeper ended before it answered; see keeper.log")?
    {
        Reply::Ok(value) => Ok((
            serde_json::from_value(value).context("a reply of another version")?,
            descriptors,
        )),
        Reply::Error(text) => Err(anyhow!(text)),
    }
}

fn read_line_and_descriptors(stream: &UnixStream) -> anyhow::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let (mut line, mut descriptors) = (Vec::new(), Vec::new());
    let mut chunk = vec![0; 64 * 1024];
    let mut control = nix::cmsg_space!([std::os::fd::RawFd; 8]);
    while line.last() != Some(&b'\n') {
        let mut parts = [IoSliceMut::new(&mut chunk)];
        let message = recvmsg::<()>(
            stream.as_raw_fd(),
            &mut parts,
            Some(&mut control),
            MsgFlags::MSG_CMSG_CLOEXEC,
        )
        .context("read the keeper's answer")?;
        for item in message.cmsgs().context("read the keeper's descriptors")? {
            if let ControlMessageOwned::ScmRights(raw) = item {
                descriptors.extend(raw.into_iter().map(own));
            }
        }
        match message.bytes {
            0 if line.is_empty() => bail!("the lab's keeper ended before it answered; see keeper.log"),
            0 => break,
            n => line.extend_from_slice(&chunk[..n]),
        }
    }
    Ok((line, descriptors))
}

#[expect(unsafe_code, reason = "a received descriptor is a bare number")]
fn own(raw: std::os::fd::RawFd) -> OwnedFd {
    // SAFETY: the kernel made this descriptor for this message; nothing else owns it.
    unsafe { OwnedFd::from_raw_fd(raw) }
}
