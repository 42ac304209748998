//! What the client's errors mean, for people and for retries.

use std::error::Error as _;
use std::time::Duration;

use kube::Error;

/// The error as one line: what the server said, or the chain of causes that kept it from being asked.
pub fn describe(error: &Error) -> String {
    if let Error::Api(status) = error {
        return format!("{} {}: {}", status.code, status.reason, status.message);
    }
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        // kube's texts already contain their source's; the layers below it do not.
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}

/// The HTTP status the server answered with; `None`: it did not answer.
pub fn status_code(error: &Error) -> Option<u16> {
    if let Error::Api(status) = error {
        Some(status.code)
    } else {
        None
    }
}

/// How long the server asks to be left alone.
pub fn retry_after(error: &Error) -> Option<Duration> {
    let Error::Api(status) = error else {
        return None;
    };
    let seconds = status.details.as_ref()?.retry_after_seconds;
    (seconds > 0).then(|| Duration::from_secs(u64::from(seconds)))
}
