//! Logging to standard error.

use std::fmt;
use std::io::{self, IsTerminal};
use std::str::FromStr;

use thiserror::Error;
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Sets up logging for the whole program, to standard error; standard output belongs to what a program answers.
///
/// `filter` is a comma-separated list of a level and `target=level` pairs, such as `info,warren_agent=debug`. Text is
/// coloured where standard error is a terminal.
///
/// # Errors
/// When the filter cannot be read, and when logging is set up already.
pub fn init(filter: &str, format: LogFormat) -> Result<(), LogsError> {
    let subscriber = subscriber(filter, format, io::stderr, io::stderr().is_terminal())?;
    tracing::subscriber::set_global_default(subscriber).map_err(|_| LogsError::AlreadySet)
}

/// How a log line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// One line of text an event, for people.
    #[default]
    Text,
    /// One JSON object an event, for log collectors.
    Json,
}

impl FromStr for LogFormat {
    type Err = LogsError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            other => Err(LogsError::UnknownFormat {
                given: other.to_owned(),
            }),
        }
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

/// Logging cannot be set up. None of these is worth a retry with the same arguments.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum LogsError {
    /// The filter is not one.
    #[error(
        "cannot read the log filter {filter:?}: {problem}; write a level (error, warn, info, debug, trace, off) \
         and, after commas, target=level pairs, such as \"info,warren_agent=debug\""
    )]
    BadFilter {
        /// The filter as given.
        filter: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The name of a format that does not exist.
    #[error("unknown log format {given:?}: use \"text\" or \"json\"")]
    UnknownFormat {
        /// The name as given.
        given: String,
    },
    /// `init` was called before.
    #[error("logging is set up already: call init once, at the start of the program")]
    AlreadySet,
}

fn subscriber<W>(
    filter: &str,
    format: LogFormat,
    writer: W,
    colours: bool,
) -> Result<Box<dyn Subscriber + Send + Sync>, LogsError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let builder = tracing_subscriber::fmt()
        .with_env_filter(parse_filter(filter)?)
        .with_writer(writer)
        .with_ansi(colours);
    Ok(match format {
        LogFormat::Text => Box::new(builder.finish()),
        LogFormat::Json => Box::new(builder.json().flatten_event(true).with_span_list(false).finish()),
    })
}

/// `EnvFilter` reads a bare word as the name of a target, shows everything of it and nothing of the rest: `inf` for
/// `info` would silence a program without a word. So a word that stands alone has to be a level here.
fn parse_filter(filter: &str) -> Result<EnvFilter, LogsError> {
    let bad = |problem: String| LogsError::BadFilter {
        filter: filter.to_owned(),
        problem,
    };
    for directive in filter.split(',') {
        let is_level = !directive.is_empty() && directive.parse::<LevelFilter>().is_ok();
        if !is_level && !directive.contains(['=', '[']) {
            return Err(bad(format!("{directive:?} is not a level")));
        }
    }
    EnvFilter::try_new(filter).map_err(|error| bad(error.to_string()))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn log_lines(filter: &str, format: LogFormat) -> Vec<String> {
        let captured = Captured::default();
        let writer = captured.clone();
        let subscriber = subscriber(filter, format, move || writer.clone(), false).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(node = "n1", "peer added");
            tracing::debug!("handshake");
        });
        let bytes = captured.0.lock().unwrap().clone();
        String::from_utf8(bytes)
            .unwrap()
            .lines()
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn the_filter_decides_what_is_written() {
        let lines = log_lines("info", LogFormat::Text);
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(
            lines[0].contains("INFO") && lines[0].contains("peer added") && lines[0].contains("node=\"n1\"")
        );
        assert_eq!(log_lines("warn,warren_telemetry=debug", LogFormat::Text).len(), 2);
        assert_eq!(log_lines("off", LogFormat::Text), Vec::<String>::new());
    }

    #[test]
    fn a_json_line_is_one_object_with_the_fields_at_its_top() {
        let lines = log_lines("info", LogFormat::Json);
        let event: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
        assert_eq!(
            (&event["node"], &event["message"]),
            (&"n1".into(), &"peer added".into())
        );
    }

    #[test]
    fn a_filter_that_would_silence_the_program_is_refused_with_a_remedy() {
        for bad in [
            "inf",
            "",
            "info,",
            "warren_agent",
            "warren_agent=loud",
            "info debug",
        ] {
            let error = parse_filter(bad).unwrap_err().to_string();
            assert!(
                error.contains(&format!("{bad:?}")) && error.contains("info,warren_agent=debug"),
                "{error}"
            );
        }
        for good in ["info", "OFF", "info,kube=warn", "warn,[sync{node=n1}]=trace"] {
            assert!(parse_filter(good).is_ok(), "{good:?} was refused");
        }
    }

    #[test]
    fn a_format_has_one_name() {
        for format in [LogFormat::Text, LogFormat::Json] {
            assert_eq!(format.to_string().parse(), Ok(format));
        }
        assert!("xml".parse::<LogFormat>().is_err());
    }

    #[test]
    fn setting_up_twice_is_an_error_and_not_a_panic() {
        assert_eq!(init("off", LogFormat::Text), Ok(()));
        assert_eq!(init("off", LogFormat::Text), Err(LogsError::AlreadySet));
    }
}
