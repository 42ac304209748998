//! The functions that the paper builds on (section 5.4): HASH, MAC, HMAC, KDF, AEAD, XAEAD, DH.
//!
//! | the paper's | here | from |
//! |---|---|---|
//! | HASH | [`hash`] | BLAKE2s of 32 bytes |
//! | MAC | [`mac`] | keyed BLAKE2s of 16 bytes |
//! | KDF1, KDF2, KDF3 | [`derive`] | HKDF of HMAC-BLAKE2s |
//! | AEAD with counter 0 | [`seal`], [`open`] | ChaCha20-Poly1305 (RFC 8439) of `ring` |
//! | XAEAD | [`seal_cookie`], [`open_cookie`] | XChaCha20-Poly1305 |
//! | DH | [`agree`] | X25519; a result of all zeros is refused |
//!
//! What is derived is erased when it is dropped. The hash functions keep intermediate state on the stack that they do
//! not erase; neither does `ring`. What data messages are sealed with is `warren-cipher`'s.

use blake2::digest::consts::U16;
use blake2::digest::{Digest, FixedOutput, KeyInit, Mac, Update};
use blake2::{Blake2s256, Blake2sMac};
use chacha20poly1305::{AeadInPlace, XChaCha20Poly1305, XNonce};
use hmac::SimpleHmac;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use x25519_dalek::{PublicKey, SharedSecret, StaticSecret};
use zeroize::Zeroizing;

use super::TAG_LEN;

/// 32 bytes that are erased when they are dropped.
pub(super) type Secret = Zeroizing<[u8; 32]>;

/// Something was not made with the key, or not for this place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotAuthentic;

/// HASH of the parts, one after the other.
pub(super) fn hash(parts: [&[u8]; 2]) -> [u8; 32] {
    let mut hash = Blake2s256::new();
    for part in parts {
        Digest::update(&mut hash, part);
    }
    hash.finalize().into()
}

/// MAC of the parts, one after the other. Keys have 16 or 32 bytes.
pub(super) fn mac<const KEY: usize>(key: &[u8; KEY], parts: [&[u8]; 2]) -> [u8; 16] {
    const { assert!(KEY <= 32, "keys of BLAKE2s have 32 bytes at most") }
    let mut mac = <Blake2sMac<U16> as KeyInit>::new_from_slice(key).expect("not longer than 32 bytes");
    for part in parts {
        Update::update(&mut mac, part);
    }
    mac.finalize_fixed().into()
}

/// The first `N` outputs of KDFn: 1 to 3 of them.
pub(super) fn derive<const N: usize>(key: &[u8; 32], input: &[u8]) -> [Secret; N] {
    let root = hmac(key, [input, &[]]);
    let mut before: Secret = Zeroizing::new([0; 32]);
    let mut count = 0;
    std::array::from_fn(|_| {
        let chained: &[u8] = if count == 0 { &[] } else { &*before };
        count += 1;
        let output = hmac(&root, [chained, &[count]]);
        before.copy_from_slice(&*output);
        output
    })
}

fn hmac(key: &[u8; 32], parts: [&[u8]; 2]) -> Secret {
    // A key shorter than a block is followed by zeros (RFC 2104): this is the same key, in the form that fits always.
    let mut block = Zeroizing::new([0; 64]);
    block[..32].copy_from_slice(key);
    let mut hmac = <SimpleHmac<Blake2s256> as KeyInit>::new((&*block).into());
    for part in parts {
        Mac::update(&mut hmac, part);
    }
    Zeroizing::new(hmac.finalize_fixed().into())
}

/// Key of a cipher that is used for one message.
fn cipher(key: &[u8; 32]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key).expect("keys of this cipher have 32 bytes"))
}

/// The nonce of what is sealed with a key that is used once.
fn zero() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

/// Seals in place what a handshake message says, under a key that is used once: `text`, then room for the authenticator.
pub(super) fn seal(key: &[u8; 32], bound_to: &[u8; 32], place: &mut [u8]) {
    let (text, tag) = place.split_at_mut(place.len().saturating_sub(TAG_LEN));
    let sealed = cipher(key).seal_in_place_separate_tag(zero(), Aad::from(bound_to), text);
    let sealed = sealed.expect("a handshake message is shorter than the cipher's limit");
    tag.copy_from_slice(sealed.as_ref());
}

/// Opens what [`seal`] has made. `N`: length of the text.
pub(super) fn open<const N: usize>(
    key: &[u8; 32],
    bound_to: &[u8; 32],
    sealed: &[u8],
) -> Result<[u8; N], NotAuthentic> {
    let mut place = [0; 48];
    let place = place.get_mut(..sealed.len()).ok_or(NotAuthentic)?;
    place.copy_from_slice(sealed);
    let text = cipher(key).open_in_place(zero(), Aad::from(bound_to), place);
    <[u8; N]>::try_from(&*text.map_err(|_| NotAuthentic)?).map_err(|_| NotAuthentic)
}

/// Seals a cookie, bound to the mac1 that it answers. Gives cookie and authenticator.
pub(super) fn seal_cookie(key: &[u8; 32], nonce: &[u8; 24], mac1: &[u8; 16], cookie: [u8; 16]) -> [u8; 32] {
    let mut sealed = [0; 32];
    sealed[..16].copy_from_slice(&cookie);
    let tag = XChaCha20Poly1305::new(key.into()).encrypt_in_place_detached(
        XNonce::from_slice(nonce),
        mac1,
        &mut sealed[..16],
    );
    sealed[16..].copy_from_slice(&tag.expect("16 bytes are fewer than the cipher's limit"));
    sealed
}

/// Opens what [`seal_cookie`] has made.
pub(super) fn open_cookie(
    key: &[u8; 32],
    nonce: &[u8; 24],
    mac1: &[u8; 16],
    sealed: &[u8; 32],
) -> Result<[u8; 16], NotAuthentic> {
    let (text, tag) = sealed.split_at(16);
    let mut cookie = <[u8; 16]>::try_from(text).map_err(|_| NotAuthentic)?;
    XChaCha20Poly1305::new(key.into())
        .decrypt_in_place_detached(XNonce::from_slice(nonce), mac1, &mut cookie, tag.into())
        .map_err(|_| NotAuthentic)?;
    Ok(cookie)
}

/// DH. A public key of low order, which makes zeros of every private key, is refused.
pub(super) fn agree(private: &StaticSecret, public: &[u8; 32]) -> Result<SharedSecret, NotAuthentic> {
    let shared = private.diffie_hellman(&PublicKey::from(*public));
    shared.was_contributory().then_some(shared).ok_or(NotAuthentic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_text_opens_with_its_key_at_its_place_and_in_no_other_way() {
        let mut place = [0; 28];
        place[..12].copy_from_slice(b"twelve bytes");
        seal(&[1; 32], &[2; 32], &mut place);
        assert_ne!(&place[..12], b"twelve bytes");
        assert_eq!(open(&[1; 32], &[2; 32], &place), Ok(*b"twelve bytes"));
        assert_eq!(open::<12>(&[9; 32], &[2; 32], &place), Err(NotAuthentic));
        assert_eq!(open::<12>(&[1; 32], &[9; 32], &place), Err(NotAuthentic));
        assert_eq!(
            open::<13>(&[1; 32], &[2; 32], &place),
            Err(NotAuthentic),
            "another length"
        );
        assert_eq!(open::<12>(&[1; 32], &[2; 32], &[0; 64]), Err(NotAuthentic));
    }

    #[test]
    fn outputs_of_the_key_derivation_begin_alike_however_many_are_asked_for() {
        let [one] = derive(&[3; 32], b"input");
        let [first, second] = derive(&[3; 32], b"input");
        let three: [Secret; 3] = derive(&[3; 32], b"input");
        assert_eq!((&one, &first), (&first, &three[0]));
        assert_eq!(second, three[1]);
        assert_ne!(three[1], three[2]);
    }

    #[test]
    fn a_public_key_of_low_order_makes_no_secret() {
        let private = StaticSecret::from([7; 32]);
        assert!(agree(&private, &[0; 32]).is_err());
        assert!(agree(&private, &[9; 32]).is_ok());
    }
}
