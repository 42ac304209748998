//! Takes requests and answers them, until the lab is told to end.

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;

use anyhow::Context;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::pipe;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

use super::state::Keeper;
use crate::control::{Reply, Request};

/// What ends a lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    /// The end of the client that made it.
    Tied,
    /// A request.
    Free,
    Over,
}

/// Serves until a request or the client's end ends the lab.
pub(super) async fn serve(keeper: Arc<Keeper>, control: UnixListener) -> anyhow::Result<()> {
    let (life, mut seen) = watch::channel(Life::Tied);
    let client = std::io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .context("take stdin")?;
    let client = pipe::Receiver::from_owned_fd(client).context("stdin is not the client's pipe")?;
    tokio::spawn(follow_client(client, life.clone()));
    loop {
        tokio::select! {
            accepted = control.accept() => {
                let (stream, _) = accepted.context("accept a request")?;
                tokio::spawn(answer(Arc::clone(&keeper), stream, life.clone()));
            }
            ended = seen.wait_for(|it| *it == Life::Over) => {
                ended.context("the lab's life ended twice")?;
                return Ok(());
            }
        }
    }
}

/// The client that made the lab holds the other end of stdin.
async fn follow_client(mut client: pipe::Receiver, life: watch::Sender<Life>) {
    let mut sink = [0; 64];
    while matches!(client.read(&mut sink).await, Ok(n) if n > 0) {}
    life.send_if_modified(|it| {
        let tied = *it == Life::Tied;
        if tied {
            *it = Life::Over;
        }
        tied
    });
}

async fn answer(keeper: Arc<Keeper>, mut stream: UnixStream, life: watch::Sender<Life>) {
    let mut line = String::new();
    let read = BufReader::new(&mut stream).read_line(&mut line).await;
    let request = match read.map(|_| serde_json::from_str::<Request>(&line)) {
        Ok(Ok(request)) => request,
        Ok(Err(error)) => return reply(&mut stream, Err(anyhow::anyhow!("no request: {error}"))).await,
        Err(_) => return,
    };
    match request {
        Request::Enter { place } => enter(&keeper, stream, &place).await,
        Request::Run(run) => {
            let mut nothing = [0; 1];
            // A program that nobody waits for is ended.
            let output = tokio::select! {
                output = keeper.run(run) => output,
                _ = stream.read(&mut nothing) => return,
            };
            reply(&mut stream, output.and_then(to_value)).await;
        }
        Request::Detach => {
            life.send_replace(Life::Free);
            reply(&mut stream, Ok(Value::Null)).await;
        }
        Request::Down => {
            reply(&mut stream, Ok(Value::Null)).await;
            life.send_replace(Life::Over);
        }
        other @ (Request::Facts
        | Request::Counts
        | Request::NodeStart { .. }
        | Request::NodeStop { .. }
        | Request::NodeCut { .. }
        | Request::NodeMend { .. }
        | Request::NodeReboot { .. }
        | Request::PodAdd(_)
        | Request::PodRemove { .. }
        | Request::PodCni { .. }) => {
            let result = handle(&keeper, other).await;
            reply(&mut stream, result).await;
        }
    }
}

async fn handle(keeper: &Keeper, request: Request) -> anyhow::Result<Value> {
    match request {
        Request::Facts => keeper.facts().await.and_then(to_value),
        Request::Counts => keeper.counts().await.and_then(to_value),
        Request::NodeStart { node, wireguard } => keeper
            .node_start(&node, wireguard.as_deref())
            .await
            .map(|()| Value::Null),
        Request::NodeStop { node, kill } => keeper.node_stop(&node, kill).await.map(|()| Value::Null),
        Request::NodeCut { node } => keeper.node_link(&node, false).map(|()| Value::Null),
        Request::NodeMend { node } => keeper.node_link(&node, true).map(|()| Value::Null),
        Request::NodeReboot { node } => keeper.node_reboot(&node).await.map(|()| Value::Null),
        Request::PodAdd(options) => keeper.pod_add(options).await.and_then(to_value),
        Request::PodRemove { pod } => keeper.pod_remove(&pod).await.map(|()| Value::Null),
        Request::PodCni { pod, command } => keeper.pod_cni(&pod, command).await,
        Request::Run(_) | Request::Enter { .. } | Request::Detach | Request::Down => {
            anyhow::bail!("answered elsewhere")
        }
    }
}

fn to_value(answer: impl Serialize) -> anyhow::Result<Value> {
    serde_json::to_value(answer).context("write the answer")
}

async fn reply(stream: &mut UnixStream, result: anyhow::Result<Value>) {
    // A client that is gone does not wait for it.
    let _ = stream.write_all(&line_of(result)).await;
}

fn line_of(result: anyhow::Result<Value>) -> Vec<u8> {
    let reply = result.map_or_else(|error| Reply::Error(format!("{error:#}")), Reply::Ok);
    let mut line = serde_json::to_vec(&reply).unwrap_or_default();
    line.push(b'\n');
    line
}

/// Answers with the environment, and beside it the namespaces' descriptors.
async fn enter(keeper: &Keeper, mut stream: UnixStream, place: &crate::control::Place) {
    let found = async {
        let rootless = keeper.rootless();
        let handles = keeper
            .within(place, |namespaces| {
                namespaces.handles(rootless).context("hand out the namespaces")
            })
            .await?;
        anyhow::Ok((handles, keeper.environment(place).await?))
    };
    match found.await {
        Ok((handles, environment)) => {
            if let Err(error) = send_with(stream, &line_of(Ok(json!(environment))), &handles) {
                tracing::warn!("{error:#}");
            }
        }
        Err(error) => reply(&mut stream, Err(error)).await,
    }
}

fn send_with(stream: UnixStream, line: &[u8], handles: &[OwnedFd]) -> anyhow::Result<()> {
    let stream = stream.into_std().context("take the socket")?;
    stream.set_nonblocking(false).context("take the socket")?;
    let raw: Vec<_> = handles.iter().map(AsRawFd::as_raw_fd).collect();
    let message = [ControlMessage::ScmRights(&raw)];
    let sent = sendmsg::<()>(
        stream.as_raw_fd(),
        &[IoSlice::new(line)],
        &message,
        MsgFlags::empty(),
        None,
    )
    .context("send the namespaces")?;
    std::io::Write::write_all(&mut &stream, &line[sent..]).context("send the namespaces")
}
