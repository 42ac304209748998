//! Text from elsewhere on the operator's terminal.

/// The text on one line and without control characters: a node that was broken into must not steer the terminal of who
/// looks at it.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .map(|character| match character {
            '\n' | '\t' => ' ',
            control if control.is_control() => '\u{fffd}',
            other => other,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_and_line_ends_do_not_get_through() {
        assert_eq!(
            printable("a\nb\u{1b}[31m\u{9b}1m\r"),
            "a b\u{fffd}[31m\u{fffd}1m\u{fffd}"
        );
        assert_eq!(printable("größer → kleiner"), "größer → kleiner");
    }
}
