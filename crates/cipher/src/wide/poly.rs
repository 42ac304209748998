//! Poly1305 (RFC 8439, section 2.5), eight blocks at once.
//!
//! A number modulo 2^130 - 5 is three limbs of 44, 44 and 42 bits, so that sums of products fit what IFMA multiplies: 52 bits by
//! 52 bits, low and high half. The polynomial is evaluated in eight lanes, which at the end are multiplied with the powers of r that
//! their last blocks are due, and added. Two ways of dealing out the blocks:
//!
//! | | even lanes | odd lanes | step |
//! |---|---|---|---|
//! | [`One`] message | the first four of every eight blocks | the last four | r^8 |
//! | [`Two`] messages of the same length | four blocks of one | four of the other | its own r^4 |
//!
//! Two at once share what is done once a message, and half of the carries.
//!
//! Limbs may exceed their bits a little between steps. What is multiplied must stay below 2^52; the bounds are beside the code.

use std::arch::x86_64::{
    __m512i, _mm512_add_epi64, _mm512_and_si512, _mm512_madd52hi_epu64, _mm512_madd52lo_epu64,
    _mm512_mask_blend_epi64, _mm512_mask_reduce_add_epi64, _mm512_or_si512, _mm512_reduce_add_epi64,
    _mm512_set1_epi64, _mm512_set4_epi64, _mm512_setzero_si512, _mm512_shuffle_i64x2, _mm512_slli_epi64,
    _mm512_srli_epi64, _mm512_unpackhi_epi64, _mm512_unpacklo_epi64,
};

use crate::TAG_LEN;

const MASK_44: u64 = (1 << 44) - 1;
const MASK_42: u64 = (1 << 42) - 1;

/// Length of a block, bytes.
const BLOCK: usize = 16;
/// Four blocks: what either the even or the odd lanes take at once.
const FOUR: usize = 4 * BLOCK;

/// The one-time authenticator of a message.
pub(super) struct One {
    /// r^8 in every lane.
    step: Factor,
    /// r^8, r^4, r^7, r^3, r^6, r^2, r^5, r^1.
    last: Factor,
    /// What is added at the end.
    s: u128,
}

/// The one-time authenticators of two messages.
pub(super) struct Two {
    /// r^4.
    step: Factor,
    /// r^8.
    two_steps: Factor,
    /// r^4, r^4, r^3, r^3, r^2, r^2, r^1, r^1.
    last: Factor,
    s: [u128; 2],
}

/// Eight numbers, by limb.
#[derive(Clone, Copy)]
struct Lanes([__m512i; 3]);

/// Eight numbers to multiply with, and their upper limbs times 20: a carry out of 2^132 comes back in as 4 * 5.
#[derive(Clone, Copy)]
struct Factor {
    limbs: Lanes,
    times_20: [__m512i; 2],
}

/// Sums of products of limbs, low halves and high halves, before carrying.
struct Products {
    low: [__m512i; 3],
    high: [__m512i; 3],
}

impl One {
    /// With the key that is the first half of a block of keystream.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub(super) fn new(block: __m512i) -> Self {
        let (r, s) = key_of(block);
        let r1 = Lanes::of(r, r);
        // Exponents of the lanes: 2 2 1 1 2 2 1 1, then 4 4 3 3 2 2 1 1, then 8 8 7 7 6 6 5 5.
        let r2 = r1.times(&Factor::new(r1));
        let to_2 = r1.or(0b0011_0011, r2);
        let to_4 = to_2.or(0b0000_1111, to_2.times(&Factor::new(r2)));
        let from_5 = to_4.times(&Factor::new(to_4.first()));
        Self {
            step: Factor::new(from_5.first()),
            last: Factor::new(to_4.or(0b0101_0101, from_5)),
            s,
        }
    }

    /// The authenticator of an encrypted text: of the text up to a whole block with zeros, and its length (RFC 8439, section 2.8).
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub(super) fn tag(&self, text: &[u8]) -> [u8; TAG_LEN] {
        let blocks = text.len().div_ceil(BLOCK) + 1;
        // Missing blocks are zeros before the first one: they add nothing.
        let missing = blocks.next_multiple_of(8) - blocks;
        let [mut first, mut last] = [[0; 2 * FOUR]; 2];
        let bits = [top_bits(missing), top_bits(missing.saturating_sub(4))];
        let top = _mm512_mask_blend_epi64(0b1010_1010, bits[0], bits[1]);

        let mut sum;
        if blocks <= 8 {
            last[missing * BLOCK..][..text.len()].copy_from_slice(text);
            end_with_length(&mut last, text.len());
            sum = Lanes::read_eight(&last, top);
        } else {
            let (start, rest) = text.split_at((8 - missing) * BLOCK);
            first[missing * BLOCK..].copy_from_slice(start);
            sum = Lanes::read_eight(&first, top);
            // The last eight blocks have the length among them.
            let (middle, end) = rest.as_chunks::<{ 2 * FOUR }>();
            for eight in middle {
                sum = sum.times(&self.step).plus(Lanes::read_eight(eight, top_bits(0)));
            }
            last[..end.len()].copy_from_slice(end);
            end_with_length(&mut last, text.len());
            sum = sum.times(&self.step).plus(Lanes::read_eight(&last, top_bits(0)));
        }
        let sums = sum
            .times(&self.last)
            .0
            .map(|limb| _mm512_reduce_add_epi64(limb).cast_unsigned());
        finish(sums, self.s)
    }
}

impl Two {
    /// With the keys that are the first halves of blocks of keystream.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub(super) fn new(blocks: [__m512i; 2]) -> Self {
        let ((r, s), (r_other, s_other)) = (key_of(blocks[0]), key_of(blocks[1]));
        let r1 = Lanes::of(r, r_other);
        // Exponents of the pairs of lanes: 2 1 2 1, then 4 3 2 1.
        let r2 = r1.times(&Factor::new(r1));
        let to_2 = r1.or(0b0011_0011, r2);
        let to_4 = to_2.or(0b0000_1111, to_2.times(&Factor::new(r2)));
        let step = Factor::new(to_4.first());
        Self {
            two_steps: Factor::new(step.limbs.times(&step)),
            step,
            last: Factor::new(to_4),
            s: [s, s_other],
        }
    }

    /// The authenticators of two encrypted texts of the same length.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub(super) fn tags(&self, texts: [&[u8]; 2]) -> [[u8; TAG_LEN]; 2] {
        let len = texts[0].len();
        assert_eq!(len, texts[1].len(), "two texts of the same length");
        let blocks = len.div_ceil(BLOCK) + 1;
        let missing = blocks.next_multiple_of(4) - blocks;
        let (top, all) = (top_bits(missing), top_bits(0));
        let [mut first, mut last] = [[[0; FOUR]; 2]; 2];

        let mut sum;
        if blocks <= 4 {
            for (last, text) in last.iter_mut().zip(texts) {
                last[missing * BLOCK..][..len].copy_from_slice(text);
                end_with_length(last, len);
            }
            sum = Lanes::read(&last[0], &last[1], top);
        } else {
            let start = (4 - missing) * BLOCK;
            for (first, text) in first.iter_mut().zip(texts) {
                first[missing * BLOCK..].copy_from_slice(&text[..start]);
            }
            sum = Lanes::read(&first[0], &first[1], top);

            let (middle, end) = texts[0][start..].as_chunks::<FOUR>();
            let (middle_other, end_other) = texts[1][start..].as_chunks::<FOUR>();
            let (mut eights, mut eights_other) = (middle.chunks_exact(2), middle_other.chunks_exact(2));
            for (ours, theirs) in eights.by_ref().zip(eights_other.by_ref()) {
                // (sum * r^4 + four) * r^4 + four, with one carrying.
                let near = Lanes::read(&ours[0], &theirs[0], all);
                let far = Lanes::read(&ours[1], &theirs[1], all);
                sum = Products::none()
                    .add(near, &self.step)
                    .add(sum, &self.two_steps)
                    .carried()
                    .plus(far);
            }
            if let ([ours], [theirs]) = (eights.remainder(), eights_other.remainder()) {
                sum = sum.times(&self.step).plus(Lanes::read(ours, theirs, all));
            }
            for (last, end) in last.iter_mut().zip([end, end_other]) {
                last[..end.len()].copy_from_slice(end);
                end_with_length(last, len);
            }
            sum = sum.times(&self.step).plus(Lanes::read(&last[0], &last[1], all));
        }
        let sums = sum.times(&self.last).0;
        let of = |lanes: u8| sums.map(|limb| _mm512_mask_reduce_add_epi64(lanes, limb).cast_unsigned());
        [
            finish(of(0b0101_0101), self.s[0]),
            finish(of(0b1010_1010), self.s[1]),
        ]
    }
}

/// r and s of a key (RFC 8439, section 2.5.1).
#[inline]
#[target_feature(enable = "avx512f")]
fn key_of(block: __m512i) -> (u128, u128) {
    let key: [u128; 4] = bytemuck::cast(block);
    let r = key[0].to_le() & 0x0fff_fffc_0fff_fffc_0fff_fffc_0fff_ffff;
    (r, key[1].to_le())
}

/// Puts the block with the lengths of additional data, of which there is none, and of the text at the end.
#[inline]
fn end_with_length(group: &mut [u8], len: usize) {
    let start = group.len() - BLOCK;
    group[start..].copy_from_slice(&((len as u128) << 64).to_le_bytes());
}

/// The bit above a block (2^128), in the lanes of the blocks of four after the first `missing`.
#[inline]
#[target_feature(enable = "avx512f")]
fn top_bits(missing: usize) -> __m512i {
    bytemuck::cast([0, 0, 1, 1, 2, 2, 3, 3].map(|block| u64::from(block >= missing) << 40))
}

impl Factor {
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn new(limbs: Lanes) -> Self {
        // At most 20 * 2^45.
        let times_20 = |limb| _mm512_add_epi64(_mm512_slli_epi64::<4>(limb), _mm512_slli_epi64::<2>(limb));
        Self {
            limbs,
            times_20: [times_20(limbs.0[1]), times_20(limbs.0[2])],
        }
    }
}

impl Lanes {
    /// A number in the even lanes, and another in the odd ones.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn of(even: u128, odd: u128) -> Self {
        let limb = |at: u32| {
            let limb = |number: u128| (low(number >> (44 * at)) & MASK_44).cast_signed();
            _mm512_set4_epi64(limb(odd), limb(even), limb(odd), limb(even))
        };
        Self([limb(0), limb(1), limb(2)])
    }

    /// Eight blocks in a row: the first four for the even lanes.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn read_eight(eight: &[u8; 2 * FOUR], top_bits: __m512i) -> Self {
        let [even, odd]: &[[u8; FOUR]; 2] = bytemuck::cast_ref(eight);
        Self::read(even, odd, top_bits)
    }

    /// Four blocks for the even lanes and four for the odd ones, each with its bit above.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn read(even: &[u8; FOUR], odd: &[u8; FOUR], top_bits: __m512i) -> Self {
        let (even, odd): (__m512i, __m512i) = (bytemuck::cast(*even), bytemuck::cast(*odd));
        let (low, high) = (_mm512_unpacklo_epi64(even, odd), _mm512_unpackhi_epi64(even, odd));
        let mask = _mm512_set1_epi64(MASK_44.cast_signed());
        let middle = _mm512_or_si512(_mm512_srli_epi64::<44>(low), _mm512_slli_epi64::<20>(high));
        Self([
            _mm512_and_si512(low, mask),
            _mm512_and_si512(middle, mask),
            _mm512_or_si512(_mm512_srli_epi64::<24>(high), top_bits),
        ])
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn plus(self, other: Self) -> Self {
        let [a, b, c] = self.0;
        let [d, e, f] = other.0;
        Self([
            _mm512_add_epi64(a, d),
            _mm512_add_epi64(b, e),
            _mm512_add_epi64(c, f),
        ])
    }

    /// Those of `other` where `lanes` has a bit.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn or(self, lanes: u8, other: Self) -> Self {
        let [a, b, c] = self.0;
        let [d, e, f] = other.0;
        Self([
            _mm512_mask_blend_epi64(lanes, a, d),
            _mm512_mask_blend_epi64(lanes, b, e),
            _mm512_mask_blend_epi64(lanes, c, f),
        ])
    }

    /// The first two lanes' numbers in all even and all odd lanes.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn first(self) -> Self {
        let [a, b, c] = self.0;
        Self([
            _mm512_shuffle_i64x2::<0>(a, a),
            _mm512_shuffle_i64x2::<0>(b, b),
            _mm512_shuffle_i64x2::<0>(c, c),
        ])
    }

    /// The product, lane by lane.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn times(self, factor: &Factor) -> Self {
        Products::none().add(self, factor).carried()
    }
}

impl Products {
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn none() -> Self {
        let zero = _mm512_setzero_si512();
        Self {
            low: [zero; 3],
            high: [zero; 3],
        }
    }

    /// Adds a product, lane by lane. Limbs of `lanes` are below 2^45.1, 2^45.1 and 2^43, those of `factor` below 2^44.1, 2^44.1 and
    /// 2^42.1.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn add(self, lanes: Lanes, factor: &Factor) -> Self {
        let [r0, r1, r2] = factor.limbs.0;
        let [s1, s2] = factor.times_20;
        let Self { mut low, mut high } = self;
        for (at, with) in [[r0, s2, s1], [r1, r0, s2], [r2, r1, r0]].into_iter().enumerate() {
            for (limb, with) in lanes.0.into_iter().zip(with) {
                low[at] = _mm512_madd52lo_epu64(low[at], limb, with);
                high[at] = _mm512_madd52hi_epu64(high[at], limb, with);
            }
        }
        Self { low, high }
    }

    /// The numbers they stand for, of one product or two: its limbs are as those of a factor, so that a block may be added.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn carried(self) -> Lanes {
        let ([low_0, low_1, low_2], [high_0, high_1, high_2]) = (self.low, self.high);
        // A high half counts 2^52: 2^8 of the next limb, or 2^10 beyond the last, where 2^130 is 5. That of limb 2 is below 2^39,
        // so 5 * 2^10 times it is within 52 bits. All sums are below 2^56.
        let d0 = _mm512_madd52lo_epu64(low_0, high_2, _mm512_set1_epi64(5 << 10));
        let d1 = _mm512_add_epi64(low_1, _mm512_slli_epi64::<8>(high_0));
        let d2 = _mm512_add_epi64(low_2, _mm512_slli_epi64::<8>(high_1));

        // All carries at once: what they bring is below 2^17, so limbs stay that little above their bits.
        let mask_44 = _mm512_set1_epi64(MASK_44.cast_signed());
        let mask_42 = _mm512_set1_epi64(MASK_42.cast_signed());
        let back = _mm512_srli_epi64::<42>(d2);
        Lanes([
            _mm512_madd52lo_epu64(_mm512_and_si512(d0, mask_44), back, _mm512_set1_epi64(5)),
            _mm512_add_epi64(_mm512_and_si512(d1, mask_44), _mm512_srli_epi64::<44>(d0)),
            _mm512_add_epi64(_mm512_and_si512(d2, mask_42), _mm512_srli_epi64::<44>(d1)),
        ])
    }
}

/// The number of these sums of limbs modulo 2^130 - 5, and `s`, modulo 2^128: the authenticator.
#[inline]
fn finish(sums: [u64; 3], s: u128) -> [u8; TAG_LEN] {
    let [mut h0, mut h1, mut h2] = sums;
    // Limbs are below 2^49 at first, and within their bits after two rounds: what the second still brings to limb 0 is 5, after
    // a carry out of it has left it small.
    for _ in 0..2 {
        h1 += h0 >> 44;
        h0 &= MASK_44;
        h2 += h1 >> 44;
        h1 &= MASK_44;
        h0 += 5 * (h2 >> 42);
        h2 &= MASK_42;
    }
    // h - (2^130 - 5), which is h + 5 without its 130th bit. Taken if there is such a bit.
    let mut g0 = h0 + 5;
    let mut g1 = h1 + (g0 >> 44);
    g0 &= MASK_44;
    let mut g2 = h2 + (g1 >> 44);
    g1 &= MASK_44;
    let take = (g2 >> 42).wrapping_neg();
    g2 &= MASK_42;
    let choose = |g: u64, h: u64| u128::from((g & take) | (h & !take));
    let number = choose(g0, h0) | (choose(g1, h1) << 44) | (choose(g2, h2) << 88);
    number.wrapping_add(s).to_le_bytes()
}

/// The low 64 bits.
fn low(number: u128) -> u64 {
    number as u64
}

#[cfg(test)]
mod tests {
    use poly1305::Poly1305;
    use poly1305::universal_hash::KeyInit;
    use proptest::prelude::*;

    use super::*;
    use crate::wide::is_supported;

    /// The authenticator under a key (r and s) as it comes.
    fn tag(key: &[u8; 32], text: &[u8]) -> [u8; TAG_LEN] {
        let mut block = [0; 64];
        block[..32].copy_from_slice(key);
        #[expect(unsafe_code, reason = "functions that need processor features")]
        // SAFETY: every caller has asked whether the processor has them.
        unsafe {
            let one = One::new(bytemuck::cast(block)).tag(text);
            let two = Two::new([bytemuck::cast(block); 2]).tags([text; 2]);
            assert_eq!(two, [one; 2]);
            one
        }
    }

    /// The same by another implementation.
    fn expected(key: &[u8; 32], text: &[u8]) -> [u8; TAG_LEN] {
        let mut padded = text.to_vec();
        padded.resize(text.len().next_multiple_of(16), 0);
        padded.extend(0_u64.to_le_bytes());
        padded.extend((text.len() as u64).to_le_bytes());
        Poly1305::new(key.into()).compute_unpadded(&padded).into()
    }

    /// Runs of bytes that make carries go as far as they can, and others.
    fn extreme() -> impl Strategy<Value = u8> {
        prop_oneof![Just(0), Just(0xff), Just(0xfe), Just(1), Just(0x80), any::<u8>()]
    }

    proptest! {
        #[test]
        fn extreme_numbers_are_carried_as_they_must_be(
            fill in extreme(),
            key in proptest::collection::vec(extreme(), 32),
            changes in proptest::collection::vec((0_usize..600, extreme()), 0..40),
            len in 0_usize..600,
        ) {
            if !is_supported() {
                return Ok(());
            }
            let key: [u8; 32] = key.try_into().expect("32 bytes were asked for");
            let mut text = vec![fill; len];
            for (at, byte) in changes {
                if let Some(place) = text.get_mut(at) {
                    *place = byte;
                }
            }
            prop_assert_eq!(tag(&key, &text), expected(&key, &text));
        }
    }

    #[test]
    fn numbers_about_the_modulus_are_reduced() {
        if !is_supported() {
            return;
        }
        // r = 1 adds blocks up: two blocks of ones and the length come close to 2^130 - 5 from either side.
        let mut key = [0; 32];
        key[0] = 1;
        for ones in 0..=32 {
            for low in 0..=255 {
                let mut text = vec![0xff; ones];
                text.insert(0, low);
                assert_eq!(
                    tag(&key, &text),
                    expected(&key, &text),
                    "{ones} bytes of ones after {low}"
                );
            }
        }
    }
}
