//! What holds of the device configuration protocol, whatever a client asks and whatever a device answers.

use warren_dataplane::uapi::{Request, parse_device, parse_drops, parse_status};

/// A change that is understood means the same when it is written anew, and so does a device's answer. Keys are compared as
/// text and never shown.
pub(crate) fn holds(data: &[u8]) {
    if let Ok(Request::Set(change)) = Request::parse(data) {
        let written = change.to_text();
        let again = Request::parse(without_end(&written).as_bytes());
        let Ok(Request::Set(again)) = again else {
            panic!("what was written is not understood");
        };
        assert!(
            again.to_text() == written,
            "it means something else when it is written anew"
        );
    }
    let Ok(answer) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(device) = parse_device(answer) {
        let written = device.to_text();
        let Ok(again) = parse_device(&written) else {
            panic!("what was written is not understood");
        };
        assert!(
            again.to_text() == written,
            "it means something else when it is written anew"
        );
    }
    for error in [parse_drops(answer).err(), parse_status(answer).err()]
        .into_iter()
        .flatten()
    {
        assert!(
            error.to_string().len() < 400,
            "a refusal as long as what it refuses"
        );
    }
}

/// A request ends with an empty line, which the parser is not given.
fn without_end(text: &str) -> &str {
    text.strip_suffix("\n\n").expect("a text ends with an empty line")
}
