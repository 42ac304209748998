//! What holds of the messages between plugin and agent, whatever the other side sends.

use warren_cni_wire::message::{decode_reply, decode_request, encode_reply, encode_request};

/// What is taken for a message is written again as one line, which is read back as the same message.
pub(crate) fn holds(data: &[u8]) {
    match decode_request(data) {
        Ok(request) => {
            let line = encode_request(&request).expect("what was read can be written");
            assert!(is_one_line(&line));
            assert_eq!(decode_request(&line), Ok(request));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    match decode_reply(data) {
        Ok(reply) => {
            let line = encode_reply(&reply).expect("what was read can be written");
            assert!(is_one_line(&line));
            assert_eq!(decode_reply(&line), Ok(reply));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fn is_one_line(line: &[u8]) -> bool {
    line.iter().position(|byte| *byte == b'\n') == Some(line.len() - 1)
}
