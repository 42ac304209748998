use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn record(version: u32, holder: Option<&str>) -> Record {
    Record {
        version: version.to_string(),
        holder: holder.map(str::to_owned),
        duration: LEASE,
    }
}

#[test]
fn an_agent_looks_once_and_rests_while_nothing_is_due() {
    let mut it = Election::new("a");
    assert_eq!(it.next(SECOND, false, 0, 0), Act::Look);
    it.saw(SECOND, record(1, Some("b")));
    assert_eq!(it.next(SECOND * 1000, false, 0, 0), Act::Rest);
    assert_eq!(it.holder(), Some("b"));
}

#[test]
fn the_most_senior_agent_is_the_first_to_take_a_lease_nobody_has() {
    let at = |place| match Election::new("a").next(SECOND, true, place, 7) {
        Act::Look => SECOND,
        Act::Wait(at) => at,
        other @ (Act::Rest | Act::Take | Act::Renew | Act::Write) => panic!("{other:?}"),
    };
    for place in 0..PLACES {
        assert!(at(place) < at(place + 1), "{place}");
    }
    assert!(at(PLACES - 1) < SECOND * 3 && at(PLACES) >= LAST_RESORT);
    let mut it = Election::new("a");
    it.saw(SECOND, record(1, None));
    assert_eq!(it.next(SECOND, true, 0, 0), Act::Take);
}

#[test]
fn a_holder_renews_what_is_old_and_then_writes_until_it_is_old_again() {
    let mut it = Election::new("a");
    it.saw(SECOND, record(1, Some("a")));
    assert_eq!(
        it.next(SECOND, true, 0, 0),
        Act::Renew,
        "it may have had it in a former life"
    );
    it.signed(SECOND, record(2, Some("a")));
    assert_eq!(it.next(SECOND * 5, true, 0, 0), Act::Write);
    assert_eq!(it.next(SECOND + FRESH, true, 0, 0), Act::Renew);
    it.was_changed();
    assert_eq!(it.next(SECOND + FRESH, true, 0, 0), Act::Look);
}

#[test]
fn another_agent_waits_looks_and_takes_only_what_stayed_as_it_was() {
    let mut it = Election::new("a");
    it.saw(SECOND, record(1, Some("b")));
    let due = SECOND * 100;
    let look = due + LOOK_AFTER;
    assert_eq!(it.next(due, true, 0, 0), Act::Wait(look));
    assert_eq!(it.next(look, true, 0, 0), Act::Look);
    it.saw(look, record(2, Some("b")));
    assert_eq!(it.next(look, true, 0, 0), Act::Wait(look + LOOK_EVERY));
    for after in [LOOK_EVERY, LOOK_EVERY * 2] {
        assert_eq!(it.next(look + after, true, 0, 0), Act::Look);
        it.saw(look + after, record(2, Some("b")));
    }
    assert_eq!(
        it.next(look + LOOK_EVERY * 2, true, 0, 0),
        Act::Wait(look + LEASE)
    );
    assert_eq!(it.clone().next(look + LEASE, true, 0, 0), Act::Take);

    it.saw(look + LEASE, record(3, Some("b")));
    let act = it.next(look + LEASE, true, 0, 0);
    assert!(matches!(act, Act::Wait(_)), "the holder is there: {act:?}");
    assert_eq!(it.next(look + LEASE, false, 0, 0), Act::Rest);
}

#[test]
fn a_lease_that_cannot_be_used_is_left_alone_for_a_while() {
    let mut it = Election::new("a");
    it.hold_off(SECOND * 9);
    assert_eq!(it.next(SECOND, true, 0, 0), Act::Wait(SECOND * 9));
    assert_eq!(it.next(SECOND * 9, true, 0, 0), Act::Look);
}

#[test]
fn agents_that_never_agree_write_less_and_less() {
    let mut agents = ["a", "b"].map(Election::new);
    let (mut version, mut holder, mut turns) = (1, "a", Vec::new());
    for agent in &mut agents {
        agent.saw(Duration::ZERO, record(version, Some(holder)));
    }
    // In tenths of a second, for four hours: whoever is not the holder finds something else than it wants.
    for tenth in 0..4 * 36_000_u32 {
        let now = SECOND / 10 * tenth;
        for (index, name) in ["a", "b"].into_iter().enumerate() {
            let agent = &mut agents[index];
            match agent.next(now, holder != name, index, 0) {
                Act::Look => agent.saw(now, record(version, Some(holder))),
                Act::Take => {
                    (version, holder) = (version + 1, name);
                    agent.signed(now, record(version, Some(name)));
                    turns.push(now);
                }
                // It did not know that it is the holder no more.
                Act::Renew => agent.was_changed(),
                Act::Rest | Act::Wait(_) | Act::Write => {}
            }
        }
    }
    let first_hour = turns.iter().filter(|at| **at < SECOND * 3600).count();
    assert!((10..30).contains(&first_hour), "{first_hour}");
    let last_hour = turns.iter().filter(|at| **at >= SECOND * 3 * 3600).count();
    assert!((1..=6).contains(&last_hour), "{last_hour}");
}
