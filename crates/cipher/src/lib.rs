//! ChaCha20-Poly1305 (RFC 8439) as WireGuard's data messages use it: a counter for a nonce, no additional data, in place.
//!
//! Two implementations behind one [`Key`]:
//!
//! | which | where | what it is |
//! |---|---|---|
//! | `wide` | x86-64 with AVX-512 and IFMA | our own: 16 blocks of ChaCha20 at once, 8 of Poly1305 |
//! | `ring`'s | everywhere else | the library's |
//!
//! The cipher is the largest part of what a userspace WireGuard does. `ring` has code for AVX2 at most; the wide one takes about
//! half its time (docs/benchmarks.md). What it must be is tested against `ring`, byte by byte.
//!
//! No branch and no address depends on a key or on what is encrypted, only on lengths and on whether a message is authentic.
//! A key is erased when it is dropped. What is derived from it for one message (keystream, the authenticator's key) stays in
//! registers and on the stack until something overwrites it, as with `ring`.
//!
//! # Unsafe code
//!
//! Calls of functions that need processor features, in this file: [`Key::new`] is the only maker of keys and asks the
//! processor first. And erasing a key of `ring`'s.

#[cfg(target_arch = "x86_64")]
mod wide;

use std::mem::ManuallyDrop;

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use zeroize::zeroize_flat_type;

/// Length of the authenticator, bytes.
pub const TAG_LEN: usize = 16;

/// The longest text, bytes: far beyond any packet, and far below the 256 GiB at which the block counter ends.
pub const MAX_LEN: usize = 1 << 30;

/// A message was not made with the key, or not with this counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAuthentic;

/// The key of one direction of a session.
pub struct Key(Implementation);

enum Implementation {
    #[cfg(target_arch = "x86_64")]
    Wide(wide::Key),
    Ring(Box<RingKey>),
}

impl Key {
    /// A key for whichever implementation is best on this processor.
    pub fn new(key: &[u8; 32]) -> Self {
        #[cfg(target_arch = "x86_64")]
        if wide::is_supported() {
            return Self(Implementation::Wide(wide::Key::new(key)));
        }
        Self(Implementation::Ring(Box::new(RingKey::new(key))))
    }

    /// A key for `ring`'s implementation, to compare with.
    pub fn with_ring(key: &[u8; 32]) -> Self {
        Self(Implementation::Ring(Box::new(RingKey::new(key))))
    }

    /// The implementation in use, for people.
    pub fn implementation(&self) -> &'static str {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Implementation::Wide(_) => "AVX-512",
            Implementation::Ring(_) => "ring",
        }
    }

    /// Encrypts `text` in place and gives its authenticator. A counter must be used once only.
    ///
    /// # Panics
    /// For a text of more than [`MAX_LEN`] bytes.
    pub fn seal(&self, counter: u64, text: &mut [u8]) -> [u8; TAG_LEN] {
        assert!(text.len() <= MAX_LEN, "a message is at most {MAX_LEN} bytes long");
        match &self.0 {
            #[cfg(target_arch = "x86_64")]
            #[expect(unsafe_code, reason = "a function that needs processor features")]
            // SAFETY: a wide key is only made where `wide::is_supported` has said that the processor has the features.
            Implementation::Wide(key) => unsafe { key.seal(counter, text) },
            Implementation::Ring(key) => {
                let tag = key
                    .0
                    .seal_in_place_separate_tag(nonce(counter), Aad::empty(), text);
                let tag = tag.expect("the text is shorter than the cipher's limit");
                tag.as_ref().try_into().expect("authenticators have 16 bytes")
            }
        }
    }

    /// Decrypts in place what [`Self::seal`] made: the encrypted text, then its authenticator. Gives the text's length.
    ///
    /// # Errors
    /// It is not authentic. What is in its place then is of no use.
    pub fn open(&self, counter: u64, sealed: &mut [u8]) -> Result<usize, NotAuthentic> {
        let Some((text, tag)) = sealed.split_last_chunk_mut::<TAG_LEN>() else {
            return Err(NotAuthentic);
        };
        if text.len() > MAX_LEN {
            return Err(NotAuthentic);
        }
        match &self.0 {
            #[cfg(target_arch = "x86_64")]
            #[expect(unsafe_code, reason = "a function that needs processor features")]
            // SAFETY: as in `seal`.
            Implementation::Wide(key) => unsafe { key.open(counter, text, tag) }?,
            Implementation::Ring(key) => {
                let opened = key.0.open_in_place(nonce(counter), Aad::empty(), sealed);
                return opened.map(|text| text.len()).map_err(|_| NotAuthentic);
            }
        }
        Ok(text.len())
    }

    /// As [`Self::seal`] on each of two texts, in less time than one after the other if they are of the same length and as long as
    /// most packets are: 960 to 1,472 bytes.
    ///
    /// # Panics
    /// For texts of more than [`MAX_LEN`] bytes.
    pub fn seal_two(&self, counters: [u64; 2], texts: [&mut [u8]; 2]) -> [[u8; TAG_LEN]; 2] {
        #[cfg(target_arch = "x86_64")]
        if let Implementation::Wide(key) = &self.0 {
            let longest = texts[0].len().max(texts[1].len());
            assert!(longest <= MAX_LEN, "a message is at most {MAX_LEN} bytes long");
            #[expect(unsafe_code, reason = "a function that needs processor features")]
            // SAFETY: as in `seal`.
            return unsafe { key.seal_two(counters, texts) };
        }
        let [one, other] = texts;
        [self.seal(counters[0], one), self.seal(counters[1], other)]
    }

    /// As [`Self::open`] on each of two messages. See [`Self::seal_two`].
    pub fn open_two(&self, counters: [u64; 2], sealed: [&mut [u8]; 2]) -> [Result<usize, NotAuthentic>; 2] {
        let [one, other] = sealed;
        #[cfg(target_arch = "x86_64")]
        if let Implementation::Wide(key) = &self.0
            && one.len().max(other.len()) <= MAX_LEN
            && let Some((one, tag)) = one.split_last_chunk_mut()
            && let Some((other, tag_of_other)) = other.split_last_chunk_mut()
        {
            let lens = [one.len(), other.len()];
            #[expect(unsafe_code, reason = "a function that needs processor features")]
            // SAFETY: as in `seal`.
            let [first, second] = unsafe { key.open_two(counters, [one, other], [tag, tag_of_other]) };
            return [first.map(|()| lens[0]), second.map(|()| lens[1])];
        }
        [self.open(counters[0], one), self.open(counters[1], other)]
    }
}

/// The nonce of a message: four zero bytes and its counter (the WireGuard paper, section 5.4.6).
fn nonce(counter: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    Nonce::assume_unique_for_key(nonce)
}

/// A key of `ring`'s, which does not erase itself. This erases it where it is at last; copies that the compiler made on
/// its way there stay on the stack until something overwrites them.
struct RingKey(ManuallyDrop<LessSafeKey>);

impl RingKey {
    fn new(key: &[u8; 32]) -> Self {
        let key = UnboundKey::new(&CHACHA20_POLY1305, key).expect("keys of this cipher have 32 bytes");
        Self(ManuallyDrop::new(LessSafeKey::new(key)))
    }
}

impl Drop for RingKey {
    fn drop(&mut self) {
        #[expect(unsafe_code, reason = "ring has no keys that erase themselves")]
        // SAFETY: the value is neither dropped nor read again: it is in a ManuallyDrop, and we are in the drop of the
        // only type that has it, with the only reference to it. Any bytes may be written to a place that is not read
        // again. The key is part of the value itself: a LessSafeKey owns nothing on the heap.
        unsafe {
            ManuallyDrop::drop(&mut self.0);
            zeroize_flat_type(&raw mut self.0);
        }
    }
}

#[cfg(test)]
mod tests;
