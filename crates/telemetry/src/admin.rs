//! The admin server: metrics, health, readiness and a program's own JSON pages, over HTTP on TCP and on a Unix socket.
//!
//! Everything is bounded: the connections open at once, the time for a request and the time for a connection. A
//! connection carries one request, so a client cannot occupy one by holding on to it.

mod routes;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use self::routes::Routes;
use crate::liveness::Liveness;
use crate::readiness::Readiness;
use crate::registry::Registry;
use crate::socket::{PrivateSocket, SocketError};

/// How long a handler may take, and how long a client may take to send its request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may last: the request, the handler and as much again for the answer to be read.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);
/// Connections at once on each listener. Further ones wait in the kernel's backlog.
const MAX_CONNECTIONS: usize = 64;
/// How long to wait after the system had no descriptor for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Where the admin server listens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AdminConfig {
    /// Address and port for TCP; port 0 takes any free one. `None`: not on TCP.
    pub addr: Option<SocketAddr>,
    /// Path of a Unix socket for the owner of the process alone. `None`: no such socket.
    pub unix: Option<PathBuf>,
}

impl AdminConfig {
    /// Binds the listeners. Connections queue from now on, and are answered once [`AdminServer::serve`] runs.
    ///
    /// `metrics` is complete by now: whoever registers metrics does so before the server is built.
    ///
    /// # Errors
    /// When an address or a path cannot be had; the error names it and the flag that chooses another.
    pub async fn build(
        self,
        metrics: Arc<Registry>,
        liveness: Liveness,
        readiness: Readiness,
    ) -> Result<AdminServer, AdminError> {
        let tcp = match self.addr {
            None => None,
            Some(addr) => Some(
                TcpListener::bind(addr)
                    .await
                    .map_err(|source| AdminError::Tcp { addr, source })?,
            ),
        };
        let unix = self.unix.as_deref().map(PrivateSocket::bind).transpose()?;
        Ok(AdminServer {
            tcp,
            unix,
            routes: Routes::new(metrics, liveness, readiness),
            max_connections: MAX_CONNECTIONS,
        })
    }
}

/// A bound admin server that does not answer yet.
#[derive(Debug)]
pub struct AdminServer {
    tcp: Option<TcpListener>,
    unix: Option<PrivateSocket>,
    routes: Routes,
    max_connections: usize,
}

impl AdminServer {
    /// Adds a page: `GET path` answers with the JSON the handler returns, or with status 500 and
    /// `{"error": "..."}` when it returns an error. A handler that takes longer than 10 s is dropped.
    ///
    /// # Panics
    /// When the path does not begin with `/` or has a handler already: mistakes in our code, found at the first start.
    #[must_use]
    pub fn route<H, F>(mut self, path: &'static str, handler: H) -> Self
    where
        H: Fn() -> F + Send + Sync + 'static,
        F: Future<Output = Result<serde_json::Value, String>> + Send + 'static,
    {
        self.routes.add(path, handler);
        self
    }

    /// The TCP address it listens at, its port resolved.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.tcp.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    /// Answers until `stop` resolves, then closes the listeners, removes the Unix socket's file and finishes the
    /// requests in flight. A program stops its admin server last, so that its end can be watched.
    pub async fn serve(self, stop: impl Future<Output = ()>) {
        let (stopping, stopped) = watch::channel(false);
        let routes = Arc::new(self.routes);
        let mut loops = JoinSet::new();
        let listeners = [self.tcp.map(Listener::Tcp), self.unix.map(Listener::Unix)];
        for listener in listeners.into_iter().flatten() {
            let accepting = accept(
                listener,
                Arc::clone(&routes),
                self.max_connections,
                stopped.clone(),
            );
            loops.spawn(accepting);
        }
        stop.await;
        // Without a listener nobody receives this, and nothing has to be stopped.
        let _ = stopping.send(true);
        while let Some(ended) = loops.join_next().await {
            log_panic(ended);
        }
    }
}

/// The admin server cannot be built.
#[derive(Debug, Error)]
pub enum AdminError {
    /// The TCP address cannot be had.
    #[error("cannot listen on {addr} for the admin server: free it, or choose another with --admin-addr")]
    Tcp {
        /// The address as configured.
        addr: SocketAddr,
        /// The system's answer.
        source: io::Error,
    },
    /// The Unix socket cannot be had.
    #[error("cannot open the admin socket: free its path, or choose another folder for it with --run-dir")]
    Unix {
        /// What is wrong with the socket; it names the path.
        #[from]
        source: SocketError,
    },
}

/// One of the two kinds of listeners.
#[derive(Debug)]
enum Listener {
    Tcp(TcpListener),
    Unix(PrivateSocket),
}

impl Listener {
    async fn accept(&self) -> io::Result<Pin<Box<dyn Connection>>> {
        match self {
            Self::Tcp(listener) => Ok(Box::pin(listener.accept().await?.0)),
            Self::Unix(socket) => Ok(Box::pin(socket.accept().await?)),
        }
    }
}

/// A byte stream, whatever its transport.
trait Connection: AsyncRead + AsyncWrite + Send {}

impl<T: AsyncRead + AsyncWrite + Send> Connection for T {}

async fn accept(listener: Listener, routes: Arc<Routes>, max: usize, mut stopped: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    let mut stop = pin!({
        let mut stopped = stopped.clone();
        async move {
            // An error means that the server was dropped, which stops it as well.
            let _ = stopped.wait_for(|stop| *stop).await;
        }
    });
    loop {
        tokio::select! {
            () = &mut stop => break,
            Some(ended) = connections.join_next() => log_panic(ended),
            accepted = listener.accept(), if connections.len() < max => match accepted {
                Ok(stream) => {
                    connections.spawn(answer(stream, Arc::clone(&routes), stopped.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection to the admin server");
                    // A want of descriptors lasts: without a pause this would spin.
                    let _ = tokio::time::timeout(ACCEPT_PAUSE, stopped.wait_for(|stop| *stop)).await;
                }
            },
        }
    }
    drop(listener);
    while let Some(ended) = connections.join_next().await {
        log_panic(ended);
    }
}

/// Reads one request from a connection and answers it. Ends within [`CONNECTION_TIMEOUT`].
async fn answer(stream: Pin<Box<dyn Connection>>, routes: Arc<Routes>, mut stopped: watch::Receiver<bool>) {
    let service = service_fn(|request| {
        let routes = Arc::clone(&routes);
        async move { Ok::<_, Infallible>(routes.answer(&request).await) }
    });
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(REQUEST_TIMEOUT)
            .keep_alive(false)
            .serve_connection(TokioIo::new(stream), service)
    );
    let conversation = async {
        tokio::select! {
            ended = connection.as_mut() => return ended,
            _ = stopped.wait_for(|stop| *stop) => connection.as_mut().graceful_shutdown(),
        }
        connection.await
    };
    match tokio::time::timeout(CONNECTION_TIMEOUT, conversation).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a connection to the admin server broke off"),
        Err(_) => tracing::debug!("a client of the admin server took too long to read its answer"),
    }
}

fn log_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a task of the admin server failed; the others go on");
    }
}
