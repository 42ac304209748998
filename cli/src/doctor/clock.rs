//! How far this node's clock is from the API server's.

use std::time::Duration;

use time::{OffsetDateTime, PrimitiveDateTime};

use super::finding::Finding;

const CHECK: &str = "clock";

/// Worth a look from here on.
const WARN: f64 = 5.0;
/// Certificates and tokens that are just made fail from here on.
const FAIL: f64 = 60.0;

/// One comparison.
#[derive(Debug, Clone, Copy)]
pub(super) struct ClockFacts {
    /// What the server said, whole seconds.
    pub(super) server: OffsetDateTime,
    /// When its answer came here.
    pub(super) local: OffsetDateTime,
    /// How long it took.
    pub(super) round_trip: Duration,
}

/// Reads a `Date` header (RFC 9110, section 5.6.7): `Sun, 06 Nov 1994 08:49:37 GMT`.
pub(super) fn parse(date: &str) -> Option<OffsetDateTime> {
    let format = time::macros::format_description!(
        "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
    );
    PrimitiveDateTime::parse(date, format)
        .map(PrimitiveDateTime::assume_utc)
        .ok()
}

/// What it means.
pub(super) fn judge(facts: Option<ClockFacts>) -> Finding {
    let Some(facts) = facts else {
        return Finding::skipped(CHECK, "the API server gave no date to compare with");
    };
    // The header has whole seconds, and was made somewhere in the round trip: what that explains is no offset.
    let ahead = (facts.local - facts.server).as_seconds_f64();
    let explained = 1.0 + facts.round_trip.as_secs_f64();
    let offset = (ahead.abs() - explained).max(0.0);
    let direction = if ahead > 0.0 { "ahead of" } else { "behind" };
    let found = format!("{:.0} s {direction} the API server's", ahead.abs());
    let remedy = "set the clock by NTP (timedatectl, chronyc) on whichever is wrong. Certificates and tokens depend on it, and a \
                  clock that is set back makes peers refuse this node's handshakes until it has caught up";
    if offset >= FAIL {
        Finding::fail(CHECK, found, remedy)
    } else if offset >= WARN {
        Finding::warn(CHECK, found, remedy)
    } else {
        Finding::ok(CHECK, "agrees with the API server's")
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;
    use crate::doctor::finding::Verdict;

    #[test]
    fn offsets_either_way_are_found_and_the_round_trip_is_no_offset() {
        let server = parse("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        assert_eq!(server.unix_timestamp(), 784_111_777);
        let judged = |seconds: i64, round_trip| {
            judge(Some(ClockFacts {
                server,
                local: server + time::Duration::seconds(seconds),
                round_trip: Duration::from_secs(round_trip),
            }))
        };
        assert_eq!(judged(1, 0).result, Verdict::Ok);
        assert_eq!(judged(9, 8).result, Verdict::Ok);
        assert_eq!(judged(9, 0).result, Verdict::Warn);
        let behind = judged(-3600, 0);
        assert_eq!(behind.result, Verdict::Fail);
        assert!(behind.found.contains("3600 s behind"), "{behind:?}");
        assert_eq!(judge(None).result, Verdict::Skipped);
    }
}
