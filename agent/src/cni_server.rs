//! The socket that `warren-cni` asks: one request and one reply a connection.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use warren_cni_wire::message::{decode_request, encode_reply};
use warren_cni_wire::{Command, ErrorCode, MAX_MESSAGE_BYTES, Outcome, Reply, Request};
use warren_telemetry::{Drain, PrivateSocket};

use crate::metrics::CniMetrics;
use crate::pods::{PodError, Pods};

/// How long a client may take to send its request and to read its reply.
const PATIENCE: Duration = Duration::from_secs(10);
/// Requests at once. More wait: each pass serves all that are waiting, so this bounds memory rather than speed.
const AT_ONCE: usize = 256;

/// Serves until the drain is signalled. A request that has begun is finished; the drain waits for it.
pub async fn serve(socket: PrivateSocket, pods: Pods, metrics: CniMetrics, drain: Drain) {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        let accepted = tokio::select! {
            () = drain.drained() => return,
            accepted = socket.accept() => accepted,
        };
        let stream = match accepted {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a CNI request");
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            }
        };
        let (pods, metrics, drain) = (pods.clone(), metrics.clone(), drain.clone());
        let places = Arc::clone(&places);
        tokio::spawn(async move {
            // The semaphore is never closed.
            let Ok(_place) = places.acquire_owned().await else {
                return;
            };
            if let Err(error) = converse(stream, &pods, &metrics, &drain).await {
                tracing::debug!(%error, "a CNI client broke off");
            }
        });
    }
}

async fn converse(
    stream: UnixStream,
    pods: &Pods,
    metrics: &CniMetrics,
    drain: &Drain,
) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = Vec::new();
    let limit = u64::try_from(MAX_MESSAGE_BYTES).unwrap_or(u64::MAX);
    timeout(PATIENCE, (&mut stream).take(limit).read_until(b'\n', &mut line)).await??;
    let outcome = match (decode_request(&line), drain.guard()) {
        (Err(error), _) => Outcome::Error {
            code: ErrorCode::AGENT_PROTOCOL,
            msg: "the agent cannot read the request".to_owned(),
            details: error.to_string(),
        },
        (Ok(request), None) => failure(&request, &PodError::Stopping),
        (Ok(request), Some(_guard)) => {
            let started = Instant::now();
            let outcome = answer(pods, &request).await;
            metrics.observe(request.command.verb(), &outcome, started.elapsed());
            outcome
        }
    };
    let reply = Reply { outcome };
    let bytes = encode_reply(&reply).unwrap_or_else(|error| {
        tracing::error!(%error, "cannot encode a CNI reply");
        Vec::new()
    });
    timeout(PATIENCE, stream.write_all(&bytes)).await?
}

#[tracing::instrument(name = "cni", skip_all, fields(verb = request.command.verb(), attachment, pod))]
async fn answer(pods: &Pods, request: &Request) -> Outcome {
    let span = tracing::Span::current();
    if let Some(attachment) = request.command.attachment() {
        span.record("attachment", tracing::field::display(attachment));
    }
    let result = match &request.command {
        Command::Add {
            attachment,
            netns,
            pod,
        } => {
            if let Some(pod) = pod {
                span.record("pod", tracing::field::display(pod));
            }
            pods.add(attachment, netns, pod.as_ref(), &request.network)
                .await
                .map(Outcome::Added)
        }
        Command::Del { attachment, .. } => pods.del(attachment).await.map(|()| Outcome::Done),
        Command::Check {
            attachment, netns, ..
        } => pods.check(attachment, netns).await.map(Outcome::Added),
        Command::Gc { valid_attachments } => pods
            .gc(&request.network, valid_attachments)
            .await
            .map(|()| Outcome::Done),
        Command::Status => pods.ready().map(|()| Outcome::Done),
    };
    match result {
        Ok(outcome) => {
            tracing::info!("done");
            outcome
        }
        Err(error) => {
            tracing::warn!(error = format!("{error:#}"), "failed");
            failure(request, &error)
        }
    }
}

fn failure(request: &Request, error: &PodError) -> Outcome {
    let code = match request.command {
        Command::Status => error.status_code(),
        Command::Add { .. } | Command::Del { .. } | Command::Check { .. } | Command::Gc { .. } => {
            error.code()
        }
    };
    let about = request
        .command
        .attachment()
        .map(|id| format!(" {id}"))
        .unwrap_or_default();
    let sources: Vec<String> =
        std::iter::successors(std::error::Error::source(error), |error| error.source())
            .map(ToString::to_string)
            .collect();
    Outcome::Error {
        code,
        msg: format!("cannot {}{about}: {error}", request.command.verb()),
        details: sources.join(": "),
    }
}
