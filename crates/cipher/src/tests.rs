use super::*;
use proptest::prelude::*;

/// Each implementation that this machine has.
fn implementations(key: &[u8; 32]) -> Vec<Key> {
    vec![Key::new(key), Key::with_ring(key)]
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7 % 251) as u8).collect()
}

/// RFC 8439, section 2.8.2 has additional data, which we have not; so this is what an independent implementation
/// (the `cryptography` package of Python, which calls OpenSSL) makes of a key of 0x80 to 0x9f, counter
/// 0x4746454443424140 and the text of that section.
#[test]
fn the_text_of_the_rfc_is_sealed_as_openssl_seals_it() {
    const TEXT: &[u8; 114] = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it.";
    const SEALED: &str = "a479cb54628946d6f4042a8e384ef4bd2fbc7330b8be55eb2d8dc18aaa51d66a8ec1f8d3619a258db0ac56956015b7b4937e9b8e6aa957b3dc0214d803d77660aabc913092971da8f207171ce7843608162e2e759d8efc25d8d0936990af63c820ba87e8a955b5c8274ef7d10f6fafd04647fa6775577a1a250dcc2df37e95e46c4a";
    let key: [u8; 32] = std::array::from_fn(|at| 0x80 + at as u8);
    for key in implementations(&key) {
        let mut text = TEXT.to_vec();
        let tag = key.seal(0x4746_4544_4342_4140, &mut text);
        text.extend(tag);
        let hex: String = text.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, SEALED, "{}", key.implementation());
    }
}

#[test]
fn every_length_up_to_two_packets_is_sealed_and_opened_as_ring_does() {
    let (ours, theirs) = (Key::new(&[7; 32]), Key::with_ring(&[7; 32]));
    for len in 0..=3100 {
        let counter = 1 << (len % 60);
        let (mut one, mut other) = (bytes(len), bytes(len));
        let tag = ours.seal(counter, &mut one);
        assert_eq!(
            tag,
            theirs.seal(counter, &mut other),
            "authenticator of {len} bytes"
        );
        assert!(one == other, "text of {len} bytes");
        one.extend(tag);
        assert_eq!(ours.open(counter, &mut one), Ok(len));
        assert!(one[..len] == bytes(len), "{len} bytes opened");
    }
}

#[test]
fn two_at_once_are_sealed_and_opened_as_one_after_the_other() {
    for key in implementations(&[7; 32]) {
        let lens = (0..40).chain(955..970).chain(1415..1425).chain(1465..1480);
        for (len, other_len) in lens.flat_map(|len| [(len, len), (len, len + 1), (len, 1440)]) {
            let (mut one, mut other) = (bytes(len), bytes(other_len));
            let tags = key.seal_two([5, 1 << 40], [&mut one, &mut other]);
            let (mut alone, mut other_alone) = (bytes(len), bytes(other_len));
            assert_eq!(
                tags,
                [key.seal(5, &mut alone), key.seal(1 << 40, &mut other_alone)],
                "{len}"
            );
            assert!(
                one == alone && other == other_alone,
                "{len} and {other_len} bytes"
            );

            one.extend(tags[0]);
            other.extend(tags[1]);
            for forged in [None, Some(0), Some(1)] {
                let mut messages = [one.clone(), other.clone()];
                if let Some(forged) = forged {
                    *messages[forged].last_mut().expect("it has an authenticator") ^= 1;
                }
                let [first, second] = messages.each_mut();
                let opened = key.open_two([5, 1 << 40], [first, second]);
                for (at, len) in [len, other_len].into_iter().enumerate() {
                    if forged == Some(at) {
                        assert_eq!(opened[at], Err(NotAuthentic), "{len} bytes");
                    } else {
                        assert_eq!(opened[at], Ok(len));
                        assert!(messages[at][..len] == bytes(len), "{len} bytes opened");
                    }
                }
            }
        }
    }
}

#[test]
fn a_changed_bit_anywhere_is_not_authentic() {
    for key in implementations(&[9; 32]) {
        for len in [0, 1, 16, 97, 447, 448, 449, 1440] {
            let mut sealed = bytes(len);
            let tag = key.seal(3, &mut sealed);
            sealed.extend(tag);
            for bit in 0..sealed.len() * 8 {
                let mut forged = sealed.clone();
                forged[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(
                    key.open(3, &mut forged),
                    Err(NotAuthentic),
                    "{} {len} bytes, bit {bit}",
                    key.implementation()
                );
            }
            assert_eq!(
                key.open(2, &mut sealed.clone()),
                Err(NotAuthentic),
                "another counter"
            );
            assert_eq!(key.open(3, &mut sealed), Ok(len));
        }
    }
}

#[test]
fn what_is_shorter_than_an_authenticator_is_not_authentic() {
    for key in implementations(&[1; 32]) {
        assert_eq!(key.open(0, &mut []), Err(NotAuthentic));
        assert_eq!(key.open(0, &mut [0; TAG_LEN - 1]), Err(NotAuthentic));
        let short = key.open_two([0, 1], [&mut [0; 3], &mut [0; TAG_LEN]]);
        assert_eq!(short, [Err(NotAuthentic); 2]);
    }
}

proptest! {
    #[test]
    fn any_message_is_sealed_as_ring_seals_it(
        key: [u8; 32],
        counter: u64,
        text in proptest::collection::vec(any::<u8>(), 0..9000),
    ) {
        let (ours, theirs) = (Key::new(&key), Key::with_ring(&key));
        let (mut one, mut other) = (text.clone(), text.clone());
        let tag = ours.seal(counter, &mut one);
        prop_assert_eq!(tag, theirs.seal(counter, &mut other));
        prop_assert_eq!(&one, &other);
        one.extend(tag);
        prop_assert_eq!(theirs.open(counter, &mut one.clone()), Ok(text.len()));
        prop_assert_eq!(ours.open(counter, &mut one), Ok(text.len()));
        prop_assert_eq!(&one[..text.len()], &text);
    }
}

#[test]
fn keys_are_erased_when_they_are_dropped() {
    assert!(is_erased(RingKey::new(&[0x5a; 32])));
    #[cfg(target_arch = "x86_64")]
    assert!(is_erased(wide::Key::new(&[0x5a; 32])));
}

/// Whether a value's place is all zeros after it was dropped. Of types whose drop writes each byte of theirs.
fn is_erased<T>(value: T) -> bool {
    let mut place = ManuallyDrop::new(value);
    #[expect(unsafe_code, reason = "looks at what is left of a dropped value")]
    // SAFETY: dropped once, here, for it is in a ManuallyDrop; the place stays ours, and its erasure has written each byte.
    let left = unsafe {
        ManuallyDrop::drop(&mut place);
        std::slice::from_raw_parts((&raw const place).cast::<u8>(), size_of::<T>())
    };
    left.iter().all(|byte| *byte == 0)
}
