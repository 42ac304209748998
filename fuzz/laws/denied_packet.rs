//! What holds of the headers of a packet that policy has denied, whatever a pod has put into them.

use warren_policy::flow::Detail;
use warren_policy::packet::flow;

/// It is read or it is not; and what is cut off of it is missing, and changes nothing of what is left.
pub(crate) fn holds(data: &[u8]) {
    let Some(whole) = flow(data) else {
        return;
    };
    for end in 0..data.len() {
        let Some(part) = flow(&data[..end]) else {
            continue;
        };
        assert_eq!((part.source, part.destination), (whole.source, whole.destination));
        assert!(
            part.detail == whole.detail || part.detail == Detail::Nothing,
            "{end} bytes: {part} of {whole}"
        );
    }
}
