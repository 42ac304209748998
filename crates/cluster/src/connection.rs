//! The connections to the API server: how long each part may take, and how one that hangs is noticed.
//!
//! Several things can hang without anything being closed. The way to the server, or the own address, when the node's has
//! changed: the kernel asks the other side whether it is there ([`KEEPALIVE`]) and gives the connection up after
//! [`USER_TIMEOUT`]. But it takes anything that still comes for an answer, even what the server repeats because it does not
//! hear us; and the kernel of a server (or of a load balancer before it) may answer while the program hangs. So no request
//! goes on for longer than [`REQUEST_DEADLINE`], whatever comes meanwhile.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Response;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use hyper_timeout::TimeoutConnector;
use hyper_util::client::legacy::{self, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use kube::client::{Body, ClientBuilder, ConfigExt as _};
use kube::{Client, Config};
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};
use tower::util::{ServiceExt as _, option_layer};
use tower::{BoxError, timeout::error::Elapsed};

use crate::watch::WATCH_TIMEOUT;

/// How long a connection and its TLS handshake may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// After how much silence, and then how often, the kernel asks the other side whether it is still there. An empty packet
/// and its answer, not seen by the server's program.
pub const KEEPALIVE: Duration = Duration::from_secs(4);

/// How long the other side may leave unacknowledged what was sent, such questions included, before the connection is
/// given up (`TCP_USER_TIMEOUT`, RFC 5482).
pub const USER_TIMEOUT: Duration = Duration::from_secs(12);

/// How long one request may take, all of its answer included. Of a watch the server itself ends the answer after
/// [`WATCH_TIMEOUT`]; where that end does not come, something hangs.
pub const REQUEST_DEADLINE: Duration = WATCH_TIMEOUT.saturating_add(Duration::from_secs(4));

/// How long a connection may stay silent while something is awaited from it. Longer than a watch without events
/// ([`crate::watch::WATCH_TIMEOUT`] and kube's 5 s on top of it), or quiet watches would fail.
pub const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a connection may refuse to take what is written to it.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// A client with these bounds, but for those that the config itself has: connect, read and write. What kube's own client
/// does not do is set [`KEEPALIVE`], [`USER_TIMEOUT`] and [`REQUEST_DEADLINE`]; what it does besides, trace each request and
/// repeat those that failed, is left to those who ask. Must be called in a tokio runtime.
///
/// # Errors
/// When the credentials cannot be used.
pub(crate) fn client_of(config: &Config) -> Result<Client, kube::Error> {
    let mut connector = HttpConnector::new();
    // TLS is the next layer's.
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_keepalive(Some(KEEPALIVE));
    connector.set_keepalive_interval(Some(KEEPALIVE));
    connector.set_tcp_user_timeout(Some(USER_TIMEOUT));
    let mut connector = TimeoutConnector::new(config.rustls_https_connector_with_connector(connector)?);
    connector.set_connect_timeout(config.connect_timeout);
    connector.set_read_timeout(config.read_timeout);
    connector.set_write_timeout(config.write_timeout);
    let http: legacy::Client<_, Body> = legacy::Builder::new(TokioExecutor::new()).build(connector);
    let bounded = http.map_future(bounded);
    Ok(ClientBuilder::new(bounded, config.default_namespace.clone())
        .with_layer(&config.extra_headers_layer()?)
        .with_layer(&option_layer(config.auth_layer()?))
        .with_layer(&config.base_uri_layer())
        .build())
}

/// The answer, if it begins before the deadline; its body ends by then too.
async fn bounded<B, E: Into<BoxError>>(
    answer: impl Future<Output = Result<Response<B>, E>>,
) -> Result<Response<Bounded<B>>, BoxError> {
    let deadline = Instant::now() + REQUEST_DEADLINE;
    let answer = timeout_at(deadline, answer).await.map_err(|_| Elapsed::new())?;
    Ok(answer.map_err(Into::into)?.map(|body| Bounded {
        body,
        deadline: Box::pin(sleep_until(deadline)),
    }))
}

/// A body that fails at a deadline, however much of it has come.
struct Bounded<B> {
    body: B,
    deadline: Pin<Box<Sleep>>,
}

impl<B> HttpBody for Bounded<B>
where
    B: HttpBody + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = B::Data;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, BoxError>>> {
        if let Poll::Ready(frame) = pin!(&mut self.body).poll_frame(cx) {
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        match self.deadline.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Some(Err(Elapsed::new().into()))),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
