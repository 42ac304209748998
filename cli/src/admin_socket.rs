//! Asking the agent of this machine, through its Unix socket.

use std::io;
use std::path::Path;

use http::header::HOST;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::answer::{self, AgentError, DEADLINE, MAX_BYTES};

/// The socket's name in the agent's run directory.
pub(crate) const FILE_NAME: &str = "admin.sock";

/// Asks for a page, such as `/status`.
pub(crate) async fn ask<T: DeserializeOwned>(socket: &Path, page: &str) -> Result<T, AgentError> {
    let (status, body) = fetch(socket, page).await?;
    answer::read(status, &body)
}

/// The same as it was answered, for the pages that are plain text.
pub(crate) async fn fetch(socket: &Path, page: &str) -> Result<(StatusCode, Bytes), AgentError> {
    timeout(DEADLINE, exchange(socket, page))
        .await
        .unwrap_or(Err(AgentError::TimedOut))
}

/// Whether anybody listens on a socket.
pub(crate) async fn is_listening(socket: &Path) -> io::Result<bool> {
    match UnixStream::connect(socket).await {
        Ok(_) => Ok(true),
        Err(error) if is_absent(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

async fn exchange(socket: &Path, page: &str) -> Result<(StatusCode, Bytes), AgentError> {
    let stream = UnixStream::connect(socket).await.map_err(|error| {
        let socket = socket.to_owned();
        if is_absent(&error) {
            AgentError::NotRunning { socket }
        } else {
            let reason = error.to_string();
            AgentError::Socket { socket, reason }
        }
    })?;
    let broken = |error: &dyn std::error::Error| AgentError::Unreachable {
        reason: format!("the connection to {} broke: {error}", socket.display()),
    };
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| broken(&error))?;
    // Its end is seen by the request, which fails with it.
    let driver = tokio::spawn(connection);
    let request = Request::get(page)
        .header(HOST, "warren-agent")
        .body(Empty::<Bytes>::new())
        .map_err(|error| broken(&error))?;
    let response = sender
        .send_request(request)
        .await
        .map_err(|error| broken(&error))?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_BYTES).collect().await;
    driver.abort();
    let body = body.map_err(|error| broken(error.as_ref()))?;
    Ok((status, body.to_bytes()))
}

/// No such file, or a file that nobody listens on any more.
fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
    )
}
