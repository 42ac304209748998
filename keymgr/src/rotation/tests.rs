use super::*;

fn epoch(number: u32) -> Epoch {
    Epoch::new(number).unwrap()
}

fn epochs(numbers: &[u32]) -> BTreeSet<Epoch> {
    numbers.iter().map(|number| epoch(*number)).collect()
}

fn peer(keys: &[u32], settled: u32, sends: u32) -> Peer {
    Peer {
        keys: epochs(keys),
        settled: epoch(settled),
        sends: Epoch::new(sends),
        ready: true,
    }
}

fn view(mesh: u32, own: &[u32], settled: u32, peers: &[Peer]) -> View {
    let named = peers.iter().enumerate();
    View {
        mesh: epoch(mesh),
        renews: true,
        own: epochs(own),
        settled: Epoch::new(settled),
        peers: named.map(|(at, peer)| (name(at), peer.clone())).collect(),
    }
}

fn name(at: usize) -> NodeName {
    format!("peer{at}").parse().unwrap()
}

const GRACE: Duration = Duration::from_secs(60);
const DEADLINE: Duration = Duration::from_secs(900);

/// What is done at once, by a node that has just begun to look.
fn at_once(view: &View) -> Next {
    next(view, &mut Clocks::default(), Duration::ZERO)
}

#[test]
fn a_rotation_goes_one_step_after_the_other() {
    let make = at_once(&view(2, &[1], 1, &[peer(&[1], 1, 1)]));
    assert_eq!(make.steps, [Step::Make(epoch(2))]);
    let key = at_once(&view(2, &[1, 2], 1, &[peer(&[1], 1, 1)]));
    assert_eq!((key.steps, key.waiting), (vec![], vec![Waiting::Key(name(0))]));
    let handshake = at_once(&view(2, &[1, 2], 1, &[peer(&[1, 2], 1, 1)]));
    assert_eq!(handshake.waiting, [Waiting::Handshake(name(0))]);
    let settle = at_once(&view(2, &[1, 2], 1, &[peer(&[1, 2], 1, 2)]));
    assert_eq!(settle.steps, [Step::Settle(epoch(2))]);
    let others = at_once(&view(2, &[1, 2], 2, &[peer(&[1, 2], 1, 2)]));
    assert_eq!(others.waiting, [Waiting::Settled(name(0))]);

    let last = view(2, &[1, 2], 2, &[peer(&[1, 2], 2, 2)]);
    let mut clocks = Clocks::default();
    let drains = next(&last, &mut clocks, Duration::ZERO);
    assert_eq!(
        (drains.waiting, drains.again),
        (vec![Waiting::Drain], Some(DRAIN))
    );
    let drained = next(&last, &mut clocks, DRAIN);
    assert_eq!(
        (drained.steps, drained.waiting),
        (vec![Step::Retire(epoch(1))], vec![])
    );
    assert_eq!(at_once(&view(2, &[2], 2, &[peer(&[2], 2, 2)])), Next::default());
}

#[test]
fn a_second_rotation_waits_for_the_first_and_goes_by_single_epochs() {
    let early = at_once(&view(9, &[2], 2, &[peer(&[1, 2], 2, 2)]));
    assert_eq!(
        (early.steps, early.waiting),
        (vec![], vec![Waiting::Earlier(name(0))])
    );
    let due = at_once(&view(9, &[2], 2, &[peer(&[2], 2, 2), peer(&[2, 3], 2, 2)]));
    assert_eq!(due.steps, [Step::Make(epoch(3))]);
}

#[test]
fn a_node_that_a_rotation_does_not_name_keeps_its_key() {
    let unnamed = View {
        renews: false,
        ..view(2, &[1], 1, &[peer(&[1], 1, 1)])
    };
    let carry = Step::Carry {
        from: epoch(1),
        to: epoch(2),
    };
    assert_eq!(at_once(&unnamed).steps, [carry]);
}

#[test]
fn past_its_deadline_a_rotation_waits_for_nobody_and_says_whom_it_leaves_behind() {
    let slow = view(2, &[1, 2], 1, &[peer(&[1], 1, 1)]);
    let mut clocks = Clocks::default();
    next(&slow, &mut clocks, Duration::ZERO);
    let before = DEADLINE.saturating_sub(Duration::from_secs(1));
    let waits = next(&slow, &mut clocks, before);
    assert_eq!((waits.steps, waits.again), (vec![], Some(Duration::from_secs(1))));
    let past = next(&slow, &mut clocks, DEADLINE);
    assert_eq!(
        (past.steps, past.given_up),
        (vec![Step::Settle(epoch(2))], vec![Waiting::Key(name(0))])
    );
    let settled = view(2, &[1, 2], 2, &[peer(&[1], 1, 1)]);
    let drains = next(&settled, &mut clocks, DEADLINE);
    assert_eq!(
        (drains.waiting, drains.given_up),
        (vec![Waiting::Drain], vec![Waiting::Settled(name(0))])
    );
    let end = next(&settled, &mut clocks, DEADLINE + DRAIN);
    assert_eq!(end.steps, [Step::Retire(epoch(1))]);
}

#[test]
fn a_restart_does_not_begin_the_deadline_anew() {
    let slow = view(2, &[1, 2], 1, &[peer(&[1], 1, 1)]);
    let mut clocks = Clocks::default();
    next(&slow, &mut clocks, Duration::from_secs(7));
    let kept = clocks.under_way();
    assert_eq!(kept, Some((epoch(2), Duration::from_secs(7))));
    let mut restarted = Clocks::default();
    restarted.resume(epoch(2), Duration::from_secs(7));
    let late = DEADLINE + Duration::from_secs(7);
    assert_eq!(next(&slow, &mut restarted, late).steps, [Step::Settle(epoch(2))]);
    // What was kept of another rotation says nothing of this one.
    let mut other = Clocks::default();
    other.resume(epoch(1), Duration::ZERO);
    assert_eq!(next(&slow, &mut other, late).steps, []);
    assert_eq!(other.under_way(), Some((epoch(2), late)));
    let over = view(2, &[2], 2, &[peer(&[2], 2, 2)]);
    next(&over, &mut other, late);
    assert_eq!(other.under_way(), None);
}

#[test]
fn a_node_that_is_not_ready_is_waited_for_as_long_as_the_grace() {
    let unready = Peer {
        ready: false,
        ..peer(&[1], 1, 1)
    };
    let view = view(2, &[1, 2], 1, &[unready]);
    let mut clocks = Clocks::default();
    assert_eq!(
        next(&view, &mut clocks, Duration::ZERO).waiting,
        [Waiting::Key(name(0))]
    );
    assert_eq!(next(&view, &mut clocks, GRACE).steps, [Step::Settle(epoch(2))]);
}

#[test]
fn a_node_begins_where_its_peers_are_and_alone_where_the_mesh_is() {
    let made = |mesh, peers: &[Peer]| at_once(&view(mesh, &[], 0, peers)).steps;
    assert_eq!(made(4, &[]), [Step::Make(epoch(4))]);
    assert_eq!(made(1, &[peer(&[3], 3, 0)]), [Step::Make(epoch(3))]);
    // In the midst of a rotation: in both.
    let midst = [peer(&[3, 4], 3, 0), peer(&[3], 3, 0)];
    assert_eq!(made(4, &midst), [Step::Make(epoch(3)), Step::Make(epoch(4))]);
    let end = [peer(&[4], 4, 0), peer(&[3, 4], 4, 0)];
    assert_eq!(made(4, &end), [Step::Make(epoch(4)), Step::Make(epoch(3))]);
    // An absurd claim cuts nobody off.
    let absurd = [peer(&[2], 2, 0), peer(&[2], 2, 0), peer(&[u32::MAX], u32::MAX, 0)];
    assert_eq!(made(2, &absurd), [Step::Make(epoch(2))]);
}

#[test]
fn a_node_that_was_away_for_a_rotation_goes_where_the_others_are() {
    let away = at_once(&view(2, &[1], 1, &[peer(&[2], 2, 0)]));
    assert_eq!(away.steps, [Step::Make(epoch(2))]);
    let for_long = at_once(&view(3, &[1], 1, &[peer(&[3], 3, 0)]));
    assert_eq!(
        for_long.steps,
        [Step::Retire(epoch(1)), Step::Make(epoch(3))],
        "one key a lane"
    );
    let beyond = at_once(&view(1, &[1], 1, &[peer(&[2], 2, 0)]));
    assert_eq!(beyond.steps, [], "the Mesh has not asked for it");
}
