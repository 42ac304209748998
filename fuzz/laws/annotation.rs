//! What holds of [`Announcement::parse`], whatever the annotation says.

use warren_model::Announcement;
use warren_model::announcement::MAX_KEYS;

/// Longest refusal in bytes: it is shown in tables, and stands in the status of every node.
const MESSAGE: usize = 400;

/// A text is read to something usable that is read back as written, or is refused in a few words and with a code.
pub(crate) fn holds(data: &[u8]) {
    // The API holds text only.
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    match Announcement::parse(text) {
        Ok(announcement) => {
            let written = announcement.to_json();
            assert_eq!(Announcement::parse(&written).as_ref(), Ok(&announcement));
            let keys = &announcement.keys;
            assert!((1..=MAX_KEYS).contains(&keys.len()), "{written}");
            assert!(keys.is_sorted_by(|a, b| a.epoch < b.epoch), "{written}");
            assert!(keys.iter().all(|key| key.port != 0), "{written}");
            assert!(announcement.settled <= keys[keys.len() - 1].epoch, "{written}");
        }
        Err(error) => {
            assert!(error.code().starts_with("annotation-"), "{error}");
            let message = error.to_string();
            assert!(message.len() <= MESSAGE, "{} bytes: {message}", message.len());
            assert!(message.contains(": "), "no remedy: {message}");
        }
    }
}
