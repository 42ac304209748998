//! What holds of a datagram from the network, whatever it is: only those that were made with the keys are taken, and one
//! that is refused changes nothing.

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use rand_core::{CryptoRng, RngCore};
use warren_dataplane::noise::{Admission, Gate, MessageKind, Session, Tai64n};
use warren_dataplane::peer::Peer;
use warren_model::{PrivateKey, PublicKey};

/// Takes bytes as a datagram, and as changes to the datagrams of a peer.
pub(crate) fn holds(data: &[u8]) {
    take(data);
    if let Some((first, changes)) = data.split_first() {
        let made = &WORLD.made;
        let mut datagram = made[usize::from(*first) % made.len()].clone();
        change(&mut datagram, changes);
        take(&datagram);
    }
}

/// Each three bytes are a place and what is changed there; a place just behind the end makes the datagram longer, one
/// beyond that cuts it.
fn change(datagram: &mut Vec<u8>, changes: &[u8]) {
    for change in changes.chunks_exact(3).take(64) {
        let at = usize::from(u16::from_le_bytes([change[0], change[1]]));
        let len = datagram.len();
        match datagram.get_mut(at) {
            Some(byte) => *byte ^= change[2],
            None if at == len => datagram.push(change[2]),
            None => datagram.truncate(at % 256),
        }
    }
}

fn take(datagram: &[u8]) {
    // mac2 is only looked at under load.
    let is_made = |but: usize| {
        let same = |made: &&Vec<u8>| {
            made.len() == datagram.len() && made[..made.len() - but] == datagram[..datagram.len() - but]
        };
        WORLD.made.iter().find(same).is_some()
    };
    let (taken, made) = match MessageKind::of(datagram) {
        Ok(MessageKind::Initiation) => (initiation_is_taken(datagram), is_made(16)),
        Ok(MessageKind::Response) => (response_is_taken(datagram), is_made(16)),
        Ok(MessageKind::CookieReply) => (cookie_is_taken(datagram), is_made(0)),
        Ok(MessageKind::Data) => (data_is_taken(datagram), is_made(0)),
        Err(_) => (false, is_made(0)),
    };
    assert_eq!(taken, made, "taken, and made with the keys");
}

fn initiation_is_taken(datagram: &[u8]) -> bool {
    let (us, them) = (&WORLD.us, &WORLD.them);
    let rng = &mut Numbers(5);
    let under_load = us.admit(0, source(), datagram, true, rng);
    assert!(
        !matches!(under_load, Ok(Admission::Pass)),
        "there is no cookie to know"
    );
    if us.admit(0, source(), datagram, false, rng) != Ok(Admission::Pass) {
        return false;
    }
    let Ok(initiation) = us.local().open_initiation(datagram) else {
        return false;
    };
    let peer = Peer::new(public(them), Some(us.local()));
    peer.take_initiation(0, initiation, 9, rng).is_ok()
}

fn response_is_taken(datagram: &[u8]) -> bool {
    let them = &WORLD.them;
    if them.admit(0, source(), datagram, false, &mut Numbers(6)) != Ok(Admission::Pass) {
        return false;
    }
    let (peer, _) = begin(them, &WORLD.us);
    let taken = peer.take_response(0, them.local(), datagram).is_ok();
    let right = peer.take_response(0, them.local(), &WORLD.made[RESPONSE]);
    assert_eq!(
        right.is_err(),
        taken,
        "a response is taken once, and a forged one is in nobody's way"
    );
    taken
}

fn cookie_is_taken(datagram: &[u8]) -> bool {
    let (peer, _) = begin(&WORLD.them, &WORLD.us);
    let taken = peer.take_cookie(0, datagram).is_ok();
    let right = peer.take_cookie(0, &WORLD.made[COOKIE]);
    assert_eq!(
        right.is_err(),
        taken,
        "a cookie is taken once, and a forged one is in nobody's way"
    );
    taken
}

fn data_is_taken(datagram: &[u8]) -> bool {
    let mut place = datagram.to_vec();
    let Ok(opened) = WORLD.session.open(0, &mut place) else {
        return false;
    };
    assert_eq!(&place[opened.packet], TEXTS[opened.counter as usize]);
    true
}

/// Two peers that have shaken hands, and all datagrams that one of them has made for the other.
struct World {
    us: Gate,
    them: Gate,
    /// Ours.
    session: Arc<Session>,
    made: Vec<Vec<u8>>,
}

const RESPONSE: usize = 1;
const COOKIE: usize = 2;

const TEXTS: [&[u8]; 3] = [b"", b"sixteen bytes ..", &[7; 160]];

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let (us, them) = (gate(8), gate(16));
    let (theirs, initiation) = begin(&them, &us);
    let rng = &mut Numbers(2);
    let cookie = us.admit(0, source(), &initiation, true, rng);
    let Ok(Admission::Cookie(cookie)) = cookie else {
        panic!("no cookie")
    };
    let ours = Peer::new(public(&them), Some(us.local()));
    let opened = us.local().open_initiation(&initiation).expect("made for us");
    let answer = ours.take_initiation(0, opened, 7, rng).expect("made by them");
    let session = theirs.take_response(0, them.local(), &answer.response);
    let session = session.expect("the answer to theirs");
    let mut made = vec![initiation, answer.response.to_vec(), cookie.to_vec()];
    for text in TEXTS {
        let mut slot = [&[0; 16], text, &[0; 16]].concat();
        let counter = session.reserve(1).expect("counters are left");
        session.seal(counter, &mut slot).expect("there is room");
        made.push(slot);
    }
    World {
        us,
        them,
        session: answer.session,
        made,
    }
});

/// A peer that has begun a handshake, always the same.
fn begin(own: &Gate, other: &Gate) -> (Peer, Vec<u8>) {
    let peer = Peer::new(public(other), Some(own.local()));
    let _ = peer.want_handshake(0);
    let time = Tai64n::from_unix(Duration::from_secs(1_700_000_000));
    let initiation = peer.begin_handshake(0, own.local(), 3, time, &mut Numbers(1));
    (peer, initiation.expect("it is wanted").to_vec())
}

fn gate(byte: u8) -> Gate {
    Gate::new(&PrivateKey::from_bytes(&mut [byte; 32]))
}

fn public(gate: &Gate) -> PublicKey {
    PublicKey::from_bytes(*gate.local().public_bytes()).expect("of a usable key")
}

fn source() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], 51_820))
}

/// Numbers that are the same each time: a law must not depend on chance.
struct Numbers(u64);

impl RngCore for Numbers {
    fn next_u32(&mut self) -> u32 {
        self.next_u64() as u32
    }

    fn next_u64(&mut self) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        self.0 ^ (self.0 >> 29)
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        bytes.fill_with(|| (self.next_u64() >> 32) as u8);
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), rand_core::Error> {
        self.fill_bytes(bytes);
        Ok(())
    }
}

impl CryptoRng for Numbers {}
