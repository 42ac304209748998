//! ChaCha20-Poly1305 for processors with AVX-512 and IFMA.
//!
//! The first pass of ChaCha20 makes 4, 8 or 16 blocks: block 0 is the authenticator's key (RFC 8439, section 2.6), those after
//! it are the first of the keystream. So a packet of up to 192 or 448 bytes takes one narrow pass. One of the usual 1,424 bytes takes
//! one pass and a half, and two of these share the third.

mod chacha;
mod poly;

use std::arch::x86_64::{__m512i, _mm512_xor_si512};

use subtle::ConstantTimeEq;
use zeroize::Zeroize;

use self::chacha::Stream;
use self::poly::{One, Two};
use crate::{NotAuthentic, TAG_LEN};

/// Length of a block of ChaCha20, bytes.
const BLOCK: usize = 64;

/// Whether this processor has all that the functions here need.
pub(crate) fn is_supported() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512ifma")
}

pub(crate) struct Key([u32; 8]);

impl Drop for Key {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl Key {
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        let (words, _) = key.as_chunks::<4>();
        Self(std::array::from_fn(|at| u32::from_le_bytes(words[at])))
    }

    /// Encrypts in place and gives the authenticator.
    #[target_feature(enable = "avx512f,avx512vl,avx512ifma")]
    pub(crate) fn seal(&self, counter: u64, text: &mut [u8]) -> [u8; TAG_LEN] {
        let stream = Stream::new(&self.0, counter);
        if text.len() <= 3 * BLOCK {
            let blocks = stream.blocks_4();
            let authenticator = One::new(blocks[0]);
            apply(&blocks[1..], text);
            authenticator.tag(text)
        } else if text.len() <= 7 * BLOCK {
            let blocks = stream.blocks_8(0);
            let authenticator = One::new(blocks[0]);
            apply(&blocks[1..], text);
            authenticator.tag(text)
        } else {
            let blocks = stream.blocks_16(0);
            let authenticator = One::new(blocks[0]);
            let rest = apply(&blocks[1..], text);
            apply_all(&stream, 16, rest);
            authenticator.tag(text)
        }
    }

    /// Decrypts in place what has this authenticator. Nothing is changed where it has another.
    #[target_feature(enable = "avx512f,avx512vl,avx512ifma")]
    pub(crate) fn open(
        &self,
        counter: u64,
        text: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> Result<(), NotAuthentic> {
        let stream = Stream::new(&self.0, counter);
        if text.len() <= 3 * BLOCK {
            let blocks = stream.blocks_4();
            check(One::new(blocks[0]), text, tag)?;
            apply(&blocks[1..], text);
        } else if text.len() <= 7 * BLOCK {
            let blocks = stream.blocks_8(0);
            check(One::new(blocks[0]), text, tag)?;
            apply(&blocks[1..], text);
        } else {
            let blocks = stream.blocks_16(0);
            check(One::new(blocks[0]), text, tag)?;
            let rest = apply(&blocks[1..], text);
            apply_all(&stream, 16, rest);
        }
        Ok(())
    }

    /// Encrypts two texts in place and gives their authenticators.
    #[target_feature(enable = "avx512f,avx512vl,avx512ifma")]
    pub(crate) fn seal_two(&self, counters: [u64; 2], texts: [&mut [u8]; 2]) -> [[u8; TAG_LEN]; 2] {
        let [one, other] = texts;
        if !fit(one, other) {
            return [self.seal(counters[0], one), self.seal(counters[1], other)];
        }
        let streams = counters.map(|counter| Stream::new(&self.0, counter));
        let first = streams[0].blocks_16(0);
        apply(&first[1..], one);
        let second = streams[1].blocks_16(0);
        apply(&second[1..], other);
        // Before the third pass: what waits for one product after another goes on beside it.
        let authenticators = Two::new([first[0], second[0]]);
        let third = Stream::blocks_8_of_two([&streams[0], &streams[1]], 16);
        apply(&third[..8], &mut one[15 * BLOCK..]);
        apply(&third[8..], &mut other[15 * BLOCK..]);
        authenticators.tags([one, other])
    }

    /// Decrypts in place those of two texts that have these authenticators, and says which have.
    #[target_feature(enable = "avx512f,avx512vl,avx512ifma")]
    pub(crate) fn open_two(
        &self,
        counters: [u64; 2],
        texts: [&mut [u8]; 2],
        tags: [&[u8; TAG_LEN]; 2],
    ) -> [Result<(), NotAuthentic>; 2] {
        let [one, other] = texts;
        if !fit(one, other) {
            return [
                self.open(counters[0], one, tags[0]),
                self.open(counters[1], other, tags[1]),
            ];
        }
        let streams = counters.map(|counter| Stream::new(&self.0, counter));
        let [first, second] = [streams[0].blocks_16(0), streams[1].blocks_16(0)];
        let authenticators = Two::new([first[0], second[0]]);
        let third = Stream::blocks_8_of_two([&streams[0], &streams[1]], 16);
        let expected = authenticators.tags([one, other]);
        // That is what comes as good as always: both are as they should be.
        apply(&third[..8], apply(&first[1..], one));
        apply(&third[8..], apply(&second[1..], other));
        [0, 1].map(|at| compare(expected[at], tags[at]))
    }
}

/// Whether two texts are worth being handled as one: of the same length, beyond what one pass of a stream gives and within what
/// one and a half do.
fn fit(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.len() > 15 * BLOCK && one.len() <= 23 * BLOCK
}

#[target_feature(enable = "avx512f,avx512vl,avx512ifma")]
fn check(authenticator: One, text: &[u8], tag: &[u8; TAG_LEN]) -> Result<(), NotAuthentic> {
    compare(authenticator.tag(text), tag)
}

/// Whether an authenticator is the one expected, in a time that does not tell where they differ.
fn compare(expected: [u8; TAG_LEN], tag: &[u8; TAG_LEN]) -> Result<(), NotAuthentic> {
    let [expected, tag]: [[u64; 2]; 2] = [bytemuck::cast(expected), bytemuck::cast(*tag)];
    if (expected[0].ct_eq(&tag[0]) & expected[1].ct_eq(&tag[1])).into() {
        Ok(())
    } else {
        Err(NotAuthentic)
    }
}

/// Applies the keystream from block `counter` on.
#[target_feature(enable = "avx512f,avx512vl")]
fn apply_all(stream: &Stream<'_>, mut counter: u32, mut text: &mut [u8]) {
    while text.len() > 8 * BLOCK {
        text = apply(&stream.blocks_16(counter), text);
        counter += 16;
    }
    if !text.is_empty() {
        apply(&stream.blocks_8(counter), text);
    }
}

/// Applies these blocks of the keystream to the beginning of the text, and gives the rest of it.
#[inline]
#[target_feature(enable = "avx512f")]
fn apply<'t>(blocks: &[__m512i], text: &'t mut [u8]) -> &'t mut [u8] {
    let (now, rest) = text.split_at_mut(text.len().min(blocks.len() * BLOCK));
    let (whole, last) = now.as_chunks_mut::<BLOCK>();
    for (place, block) in whole.iter_mut().zip(blocks) {
        *place = bytemuck::cast(_mm512_xor_si512(bytemuck::cast(*place), *block));
    }
    if !last.is_empty() {
        let block: [u8; BLOCK] = bytemuck::cast(blocks[whole.len()]);
        for (byte, key) in last.iter_mut().zip(block) {
            *byte ^= key;
        }
    }
    rest
}
