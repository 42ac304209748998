//! The admin server over real sockets.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::future::pending;
use std::path::Path;

use prometheus_client::metrics::counter::Counter;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::*;

const LIMIT: Duration = Duration::from_secs(20);

/// An answer: status, headers as text in lower case, body.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

/// A server on loopback TCP, and what steers it.
struct Running {
    addr: SocketAddr,
    liveness: Liveness,
    readiness: Readiness,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

async fn start(unix: Option<&Path>, set_up: impl FnOnce(AdminServer) -> AdminServer) -> Running {
    let mut metrics = Registry::new();
    let passes = Counter::<u64>::default();
    passes.inc_by(3);
    metrics.register("plan_passes", "Passes of the loop", passes);
    let (liveness, readiness) = (Liveness::new(), Readiness::new());
    let config = AdminConfig {
        addr: Some("127.0.0.1:0".parse().unwrap()),
        unix: unix.map(Path::to_owned),
    };
    let server = config
        .build(Arc::new(metrics), liveness.clone(), readiness.clone())
        .await
        .unwrap();
    let addr = server.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(set_up(server).serve(async {
        let _ = stopped.await;
    }));
    Running {
        addr,
        liveness,
        readiness,
        stop,
        task,
    }
}

async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin, method: &str, path: &str) -> Answer {
    let request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    tokio::time::timeout(LIMIT, stream.read_to_string(&mut text))
        .await
        .unwrap()
        .unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    Answer {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        head: head.to_ascii_lowercase(),
        body: body.to_owned(),
    }
}

impl Running {
    async fn get(&self, path: &str) -> Answer {
        ask(TcpStream::connect(self.addr).await.unwrap(), "GET", path).await
    }
}

#[tokio::test]
async fn metrics_come_as_openmetrics() {
    let answer = start(None, |server| server).await.get("/metrics?name=x").await;
    assert_eq!(answer.status, 200);
    assert!(
        answer
            .head
            .contains("content-type: application/openmetrics-text; version=1.0.0")
    );
    assert!(
        answer.body.contains("warren_plan_passes_total 3\n"),
        "{}",
        answer.body
    );
    assert!(answer.body.ends_with("# EOF\n"));
}

#[tokio::test]
async fn health_names_the_loop_that_is_stuck() {
    let server = start(None, |server| server).await;
    let heartbeat = server.liveness.watch("plan", Duration::from_secs(3600));
    let well = server.get("/healthz").await;
    assert_eq!((well.status, well.body.as_str()), (200, "ok\n"));
    drop(heartbeat);
    let ill = server.get("/healthz").await;
    assert_eq!(ill.status, 503);
    assert!(ill.body.starts_with("stuck\nplan: has ended"), "{}", ill.body);
}

#[tokio::test]
async fn readiness_has_a_line_for_each_closed_gate() {
    let server = start(None, |server| server).await;
    let (watches, lanes) = (
        server.readiness.gate("watches-synced"),
        server.readiness.gate("lanes-up"),
    );
    watches.close("listing nodes");
    let answer = server.get("/readyz").await;
    let expected = "not ready\nwatches-synced: listing nodes\nlanes-up: not reached yet\n";
    assert_eq!((answer.status, answer.body.as_str()), (503, expected));
    watches.open();
    lanes.open();
    let answer = server.get("/readyz").await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "ok\n"));
}

#[tokio::test]
async fn a_page_answers_json_or_the_reason_why_not() {
    let server = start(None, |server| {
        server
            .route("/config", || async { Ok(json!({"mtu": 1420})) })
            .route("/plan", || async {
                Err("the watches are not in sync".to_owned())
            })
    })
    .await;
    let config = server.get("/config").await;
    assert_eq!(config.status, 200);
    assert!(config.head.contains("content-type: application/json"));
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&config.body).unwrap(),
        json!({"mtu": 1420})
    );
    let plan = server.get("/plan").await;
    assert_eq!(plan.status, 500);
    let body: serde_json::Value = serde_json::from_str(&plan.body).unwrap();
    assert_eq!(body, json!({"error": "the watches are not in sync"}));
}

#[tokio::test]
async fn an_unknown_path_is_told_the_known_ones_and_other_methods_are_refused() {
    let server = start(None, |server| {
        server.route("/status", || async { Ok(json!(null)) })
    })
    .await;
    let lost = server.get("/statusz").await;
    assert_eq!(lost.status, 404);
    let expected = "nothing at /statusz; what there is:\n/healthz\n/metrics\n/readyz\n/status\n";
    assert_eq!(lost.body, expected);
    let post = ask(TcpStream::connect(server.addr).await.unwrap(), "POST", "/status").await;
    assert_eq!(post.status, 405);
    assert!(post.head.contains("allow: get"), "{}", post.head);
}

#[tokio::test]
async fn the_unix_socket_answers_the_same_and_is_removed_at_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("admin.sock");
    let server = start(Some(&path), |server| server).await;
    let answer = ask(UnixStream::connect(&path).await.unwrap(), "GET", "/healthz").await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "ok\n"));
    // A client that is connected and says nothing does not hold up the end.
    let _silent = UnixStream::connect(&path).await.unwrap();
    server.stop.send(()).unwrap();
    let well_below_the_request_timeout = REQUEST_TIMEOUT / 2;
    tokio::time::timeout(well_below_the_request_timeout, server.task)
        .await
        .unwrap()
        .unwrap();
    assert!(!path.exists());
    assert!(TcpStream::connect(server.addr).await.is_err());
}

#[tokio::test]
async fn a_request_in_flight_is_finished_before_the_end() {
    let (entered_tx, mut entered) = tokio::sync::mpsc::unbounded_channel();
    let (release, released) = watch::channel(false);
    let server = start(None, |server| {
        server.route("/slow", move || {
            entered_tx.send(()).unwrap();
            let mut released = released.clone();
            async move {
                released.wait_for(|now| *now).await.unwrap();
                Ok(json!("done"))
            }
        })
    })
    .await;
    let client = TcpStream::connect(server.addr).await.unwrap();
    let answer = tokio::spawn(ask(client, "GET", "/slow"));
    entered.recv().await.unwrap();
    server.stop.send(()).unwrap();
    release.send(true).unwrap();
    assert_eq!(answer.await.unwrap().body, "\"done\"\n");
    tokio::time::timeout(LIMIT, server.task).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_hangs_is_cut_off() {
    let server = start(None, |server| server.route("/plan", pending)).await;
    let answer = server.get("/plan").await;
    assert_eq!(answer.status, 504);
    assert!(
        answer.body.contains("/plan took longer than 10 s"),
        "{}",
        answer.body
    );
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_nothing_is_cut_off() {
    let server = start(None, |server| server).await;
    let mut client = TcpStream::connect(server.addr).await.unwrap();
    client.write_all(b"GET /metrics HT").await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(LIMIT, client.read_to_end(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert!(!answer.starts_with(b"HTTP/1.1 200"), "{answer:?}");
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_a_free_place() {
    let server = start(None, |mut server| {
        server.max_connections = 1;
        server
    })
    .await;
    let first = TcpStream::connect(server.addr).await.unwrap();
    let second = TcpStream::connect(server.addr).await.unwrap();
    let mut answer = tokio::spawn(ask(second, "GET", "/healthz"));
    let early = tokio::time::timeout(Duration::from_millis(300), &mut answer).await;
    assert!(early.is_err(), "answered while the only place was taken");
    drop(first);
    assert_eq!(answer.await.unwrap().status, 200);
}

#[tokio::test]
async fn an_address_in_use_is_named_with_the_flag_that_chooses_another() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = taken.local_addr().unwrap();
    let config = AdminConfig {
        addr: Some(addr),
        unix: None,
    };
    let error = config
        .build(Arc::new(Registry::new()), Liveness::new(), Readiness::new())
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains(&addr.to_string()) && error.contains("--admin-addr"),
        "{error}"
    );
}

#[tokio::test]
async fn a_path_in_use_is_named_with_the_flag_that_chooses_another() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("admin.sock");
    let _taken = PrivateSocket::bind(&path).unwrap();
    let config = AdminConfig {
        addr: None,
        unix: Some(path.clone()),
    };
    let error = config
        .build(Arc::new(Registry::new()), Liveness::new(), Readiness::new())
        .await
        .unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(error.to_string().contains("--run-dir"), "{error}");
    assert!(cause.contains(path.to_str().unwrap()), "{cause}");
}
