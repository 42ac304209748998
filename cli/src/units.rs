//! Numbers for people.

/// Bytes as `1.5 KiB`: at most four digits.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut unit = 0;
    // Tenths, rounded down.
    let mut tenths = u128::from(count) * 10 / 1024;
    while tenths >= 10240 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

/// An age as `12s ago`, `3m ago`, `5h ago` or `2d ago`; `never` without one.
pub(crate) fn age(seconds: Option<u64>) -> String {
    match seconds {
        None => "never".to_owned(),
        Some(age @ 0..120) => format!("{age}s ago"),
        Some(age @ 120..7200) => format!("{}m ago", age / 60),
        Some(age @ 7200..172_800) => format!("{}h ago", age / 3600),
        Some(age) => format!("{}d ago", age / 86_400),
    }
}

/// `1 step`, `2 steps`.
pub(crate) fn count(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

/// The first few of a list, and how many more there are.
pub(crate) fn first_few(items: &[String], few: usize) -> String {
    let shown = items.iter().take(few).cloned().collect::<Vec<_>>().join(", ");
    match items.len().saturating_sub(few) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_keep_four_digits_at_most() {
        for (count, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (1024 * 1024 - 1, "1023.9 KiB"),
            (1024 * 1024, "1.0 MiB"),
            (u64::MAX, "15.9 EiB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn ages_are_told_in_the_unit_that_matters() {
        for (seconds, text) in [
            (Some(0), "0s ago"),
            (Some(119), "119s ago"),
            (Some(120), "2m ago"),
            (Some(7200), "2h ago"),
            (Some(172_800), "2d ago"),
            (None, "never"),
        ] {
            assert_eq!(age(seconds), text);
        }
    }

    #[test]
    fn lists_and_counts_read_as_people_say_them() {
        assert_eq!(count(1, "step"), "1 step");
        assert_eq!(count(0, "step"), "0 steps");
        let items = ["a".to_owned(), "b".to_owned(), "c".to_owned()];
        assert_eq!(first_few(&items, 2), "a, b and 1 more");
        assert_eq!(first_few(&items, 3), "a, b, c");
    }
}
