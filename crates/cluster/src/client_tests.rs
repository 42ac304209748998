#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::fs;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::WatchParams;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::connection::REQUEST_DEADLINE;

fn kubeconfig(folder: &TempDir, server: &str, user: &str) -> PathBuf {
    let file = folder.path().join("kubeconfig");
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
         clusters: [{{name: c, cluster: {{server: '{server}'}}}}]\n\
         contexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n\
         users: [{{name: u, user: {{{user}}}}}]\n"
    );
    fs::write(&file, text).unwrap();
    file
}

fn config(file: PathBuf) -> ClientConfig {
    ClientConfig::new("warren-test/1").with_kubeconfig(Some(file))
}

/// `Client` has no `Debug`, so `unwrap_err` cannot be had.
async fn failure(config: &ClientConfig) -> ClientError {
    config.build().await.err().expect("no client can be made of it")
}

#[tokio::test]
async fn errors_name_the_file_and_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing");
    let error = failure(&config(missing.clone())).await;
    assert!(matches!(error, ClientError::Kubeconfig { .. }), "{error:?}");
    assert!(error.to_string().contains(missing.to_str().unwrap()), "{error}");

    let file = folder.path().join("kubeconfig");
    for text in [
        "",
        "[",
        "apiVersion: v1\nkind: Config\ncurrent-context: nowhere\n",
    ] {
        fs::write(&file, text).unwrap();
        let error = failure(&config(file.clone())).await;
        assert!(
            matches!(error, ClientError::Kubeconfig { .. }),
            "{text:?}: {error:?}"
        );
    }

    let file = kubeconfig(
        &folder,
        "https://127.0.0.1:1",
        "client-certificate-data: eA==, client-key-data: eA==",
    );
    let error = failure(&config(file.clone())).await;
    assert!(matches!(error, ClientError::Credentials { .. }), "{error:?}");
    assert!(error.to_string().contains(file.to_str().unwrap()), "{error}");
}

#[tokio::test]
async fn a_user_agent_that_is_no_header_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(kubeconfig(&folder, "http://127.0.0.1:1", "token: t"));
    config.user_agent = "a\nb".to_owned();
    let error = failure(&config).await;
    assert!(matches!(error, ClientError::UserAgent { .. }), "{error:?}");
}

#[tokio::test]
async fn requests_carry_the_user_agent_and_a_busy_server_is_asked_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let answer = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        stream.write_all(answer.as_bytes()).await.unwrap();
        // Dropping the listener makes a second attempt fail otherwise than with 503.
        String::from_utf8(head).unwrap()
    });
    let folder = tempfile::tempdir().unwrap();
    let client = config(kubeconfig(&folder, &format!("http://{address}"), "token: t"))
        .build()
        .await
        .unwrap();
    let nodes: Api<Node> = Api::all(client);
    let error = nodes.get("a").await.unwrap_err();
    assert_eq!(crate::api_error::status_code(&error), Some(503), "{error:?}");
    let head = server.await.unwrap().to_lowercase();
    assert!(head.contains("user-agent: warren-test/1"), "{head}");
    assert!(head.contains("authorization: bearer t"), "{head}");
}

#[tokio::test]
async fn a_server_that_takes_the_request_and_says_nothing_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(kubeconfig(&folder, &format!("http://{address}"), "token: t"));
    config.read_timeout = Duration::from_millis(200);
    let nodes: Api<Node> = Api::all(config.build().await.unwrap());
    let result = tokio::time::timeout(Duration::from_secs(20), nodes.get("a")).await;
    let error = result
        .expect("given up before the test's own deadline")
        .unwrap_err();
    assert_eq!(crate::api_error::status_code(&error), None);
    assert!(describe(&error).contains("timed out"), "{}", describe(&error));
    // The listener lives until here: the connection was accepted by the kernel and hung.
    drop(listener);
}

#[tokio::test]
async fn a_watch_that_does_not_end_is_given_up_though_events_come_and_one_without_an_answer_too() {
    let event = r#"{"type":"BOOKMARK","object":{"apiVersion":"v1","kind":"Node","metadata":{"resourceVersion":"1"}}}"#;
    let event = format!("{:x}\r\n{event}\n\r\n", event.len() + 1);
    for events in [true, false] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let config = config(kubeconfig(&folder, &format!("http://{address}"), "token: t"));
        let nodes: Api<Node> = Api::all(config.build().await.unwrap());
        let event = event.clone();
        let server = async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.read_u8().await.unwrap();
            if events {
                let head =
                    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
                stream.write_all(head.as_bytes()).await.unwrap();
            }
            loop {
                // As long as nobody acts, the clock of the test leaps.
                tokio::time::sleep(Duration::from_secs(3)).await;
                if events {
                    stream.write_all(event.as_bytes()).await.unwrap();
                }
            }
        };
        let began = tokio::time::Instant::now();
        let watch = async {
            let mut seen = 0;
            let error = match nodes.watch(&WatchParams::default(), "0").await {
                Ok(watch) => {
                    let mut watch = std::pin::pin!(watch);
                    loop {
                        match watch.next().await.expect("an error comes before an end") {
                            Ok(_) => seen += 1,
                            Err(error) => break error,
                        }
                    }
                }
                Err(error) => error,
            };
            (seen, error)
        };
        tokio::time::pause();
        let (seen, error) = tokio::select! {
            outcome = watch => outcome,
            () = server => unreachable!("the server goes on"),
        };
        tokio::time::resume();
        let waited = began.elapsed();
        assert!(describe(&error).contains("timed out"), "{}", describe(&error));
        assert!(waited >= REQUEST_DEADLINE && waited < READ_TIMEOUT, "{waited:?}");
        assert_eq!(seen > 3, events, "{seen} events");
    }
}

#[tokio::test]
async fn a_proxy_is_refused_by_name_and_not_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let file = kubeconfig(
        &folder,
        "https://127.0.0.1:1', proxy-url: 'http://127.0.0.1:2",
        "token: t",
    );
    let error = failure(&config(file)).await;
    assert!(matches!(error, ClientError::Proxy { .. }), "{error:?}");
    assert!(error.to_string().contains("http://127.0.0.1:2"), "{error}");
}

#[test]
fn a_quiet_watch_is_shorter_than_the_read_timeout() {
    let kube_margin = Duration::from_secs(5);
    assert!(crate::watch::WATCH_TIMEOUT + kube_margin < READ_TIMEOUT);
    // Otherwise kube would begin the next watch without a word.
    assert!(REQUEST_DEADLINE < crate::watch::WATCH_TIMEOUT + kube_margin);
    assert!(crate::follower::RECOVERY >= READ_TIMEOUT + CONNECT_TIMEOUT);
}
