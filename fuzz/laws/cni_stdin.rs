//! What holds of [`NetConf::parse`] and [`VersionReply::to_stdin`], whatever a runtime writes.

use std::time::Duration;

use warren_cni_wire::{ErrorCode, NetConf, VersionReply};

/// Longest path of a Unix socket, unix(7).
const SOCKET_PATH: usize = 107;

/// VERSION is always answered, and in the same way when it is given its own answer. A configuration is read to one that
/// can be acted on, or is refused with a code of the specification.
pub(crate) fn holds(data: &[u8]) {
    let reply = VersionReply::to_stdin(data);
    let printed = serde_json::to_vec(&reply).expect("the reply has only texts");
    assert_eq!(VersionReply::to_stdin(&printed), reply);

    match NetConf::parse(data) {
        Ok(conf) => {
            assert!(conf.timeout >= Duration::from_secs(1) && conf.timeout <= Duration::from_secs(600));
            let socket = conf.socket();
            assert!(
                socket.is_absolute() && socket.as_os_str().len() <= SOCKET_PATH,
                "{socket:?}"
            );
            let errors = [conf.prev_result().err(), conf.valid_attachments().err()];
            for error in errors.into_iter().flatten() {
                assert!(is_of_the_specification(error.code()), "{error}");
                assert_eq!(error.version(), conf.cni_version);
            }
        }
        Err(error) => {
            assert!(is_of_the_specification(error.code()), "{error}");
            assert!(!error.to_string().is_empty());
        }
    }
}

fn is_of_the_specification(code: ErrorCode) -> bool {
    (1..=99).contains(&code.0)
}
