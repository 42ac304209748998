//! ChaCha20 (RFC 8439, section 2.3), 4, 8 or 16 blocks at once.
//!
//! For 8 and 16 a vector holds one word of the state of every block. So the rounds take no shuffles; at the end the words of each
//! block are brought together. For 4 a vector holds four words of each: less work, but each step waits for the one before.

use std::arch::x86_64::{
    __m128i, __m256i, __m512i, _mm256_add_epi32, _mm256_permute2x128_si256, _mm256_rol_epi32,
    _mm256_set1_epi32, _mm256_setr_epi32, _mm256_unpackhi_epi32, _mm256_unpackhi_epi64,
    _mm256_unpacklo_epi32, _mm256_unpacklo_epi64, _mm256_xor_si256, _mm512_add_epi32, _mm512_broadcast_i32x4,
    _mm512_castsi256_si512, _mm512_inserti64x4, _mm512_mask_set1_epi32, _mm512_rol_epi32, _mm512_set1_epi32,
    _mm512_setr_epi32, _mm512_setzero_si512, _mm512_shuffle_epi32, _mm512_shuffle_i32x4,
    _mm512_unpackhi_epi32, _mm512_unpackhi_epi64, _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
    _mm512_xor_si512,
};

/// "expand 32-byte k".
const CONSTANTS: [u32; 4] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];

/// The keystream of one message.
pub(super) struct Stream<'k> {
    key: &'k [u32; 8],
    /// The nonce's last two words. Its first is zero.
    nonce: [u32; 2],
}

/// The twenty rounds on a state of vectors, with this type's addition, exclusive or and rotation.
macro_rules! rounds {
    ($state:ident, $add:ident, $xor:ident, $rol:ident) => {
        for _ in 0..10 {
            rounds!(@round $state, $add, $xor, $rol, [0, 4, 8, 12], [1, 5, 9, 13], [2, 6, 10, 14], [3, 7, 11, 15]);
            rounds!(@round $state, $add, $xor, $rol, [0, 5, 10, 15], [1, 6, 11, 12], [2, 7, 8, 13], [3, 4, 9, 14]);
        }
    };
    // Four quarter rounds side by side: each step of one depends on the step before.
    (@round $state:ident, $add:ident, $xor:ident, $rol:ident, $($quarter:tt),*) => {
        $(rounds!(@step $state, $add, $xor, $rol, 0, 1, 3, 16, $quarter);)*
        $(rounds!(@step $state, $add, $xor, $rol, 2, 3, 1, 12, $quarter);)*
        $(rounds!(@step $state, $add, $xor, $rol, 0, 1, 3, 8, $quarter);)*
        $(rounds!(@step $state, $add, $xor, $rol, 2, 3, 1, 7, $quarter);)*
    };
    // a += b; d ^= a; d <<<= by
    (@step $state:ident, $add:ident, $xor:ident, $rol:ident, $a:tt, $b:tt, $d:tt, $by:literal, $quarter:tt) => {{
        const QUARTER: [usize; 4] = $quarter;
        const A: usize = QUARTER[$a];
        const B: usize = QUARTER[$b];
        const D: usize = QUARTER[$d];
        $state[A] = $add($state[A], $state[B]);
        $state[D] = $rol::<$by>($xor($state[D], $state[A]));
    }};
}

impl<'k> Stream<'k> {
    /// The keystream of the message with this counter.
    pub(super) fn new(key: &'k [u32; 8], counter: u64) -> Self {
        Self {
            key,
            nonce: bytemuck::cast(counter),
        }
    }

    /// The state of block 0. Word 12 is the block's number.
    #[inline]
    fn words(&self) -> [u32; 16] {
        let mut words = [0; 16];
        words[..4].copy_from_slice(&CONSTANTS);
        words[4..12].copy_from_slice(self.key);
        words[14..].copy_from_slice(&self.nonce);
        words
    }

    /// Blocks `from` to `from + 16`.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn blocks_16(&self, from: u32) -> [__m512i; 16] {
        let numbers = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        let numbers = _mm512_add_epi32(_mm512_set1_epi32(from.cast_signed()), numbers);
        let nonce = self.nonce.map(|word| _mm512_set1_epi32(word.cast_signed()));
        all_16(self.key, numbers, nonce)
    }

    /// Blocks `from` to `from + 8` of two streams with the same key.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn blocks_8_of_two([one, other]: [&Self; 2], from: u32) -> [__m512i; 16] {
        let numbers = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7);
        let numbers = _mm512_add_epi32(_mm512_set1_epi32(from.cast_signed()), numbers);
        let nonce = [0, 1].map(|at: usize| {
            let word = _mm512_set1_epi32(one.nonce[at].cast_signed());
            _mm512_mask_set1_epi32(word, 0xff00, other.nonce[at].cast_signed())
        });
        all_16(one.key, numbers, nonce)
    }

    /// Blocks `from` to `from + 8`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512vl")]
    pub(super) fn blocks_8(&self, from: u32) -> [__m512i; 8] {
        let numbers = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        let mut start = self.words().map(|word| _mm256_set1_epi32(word.cast_signed()));
        start[12] = _mm256_add_epi32(_mm256_set1_epi32(from.cast_signed()), numbers);
        let mut state = start;
        rounds!(state, _mm256_add_epi32, _mm256_xor_si256, _mm256_rol_epi32);
        for (vector, start) in state.iter_mut().zip(start) {
            *vector = _mm256_add_epi32(*vector, start);
        }
        gather_8(state)
    }

    /// Blocks 0 to 3.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn blocks_4(&self) -> [__m512i; 4] {
        let rows: [__m128i; 4] = bytemuck::cast(self.words());
        let numbers = _mm512_setr_epi32(0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0);
        let start = [
            _mm512_broadcast_i32x4(rows[0]),
            _mm512_broadcast_i32x4(rows[1]),
            _mm512_broadcast_i32x4(rows[2]),
            _mm512_add_epi32(_mm512_broadcast_i32x4(rows[3]), numbers),
        ];
        let [mut a, mut b, mut c, mut d] = start;
        for _ in 0..10 {
            [a, b, c, d] = columns(a, b, c, d);
            // What are diagonals become columns, and columns again.
            b = _mm512_shuffle_epi32::<0b00_11_10_01>(b);
            c = _mm512_shuffle_epi32::<0b01_00_11_10>(c);
            d = _mm512_shuffle_epi32::<0b10_01_00_11>(d);
            [a, b, c, d] = columns(a, b, c, d);
            b = _mm512_shuffle_epi32::<0b10_01_00_11>(b);
            c = _mm512_shuffle_epi32::<0b01_00_11_10>(c);
            d = _mm512_shuffle_epi32::<0b00_11_10_01>(d);
        }
        transpose([
            _mm512_add_epi32(a, start[0]),
            _mm512_add_epi32(b, start[1]),
            _mm512_add_epi32(c, start[2]),
            _mm512_add_epi32(d, start[3]),
        ])
    }
}

/// The quarter rounds of all columns.
#[inline]
#[target_feature(enable = "avx512f")]
fn columns(mut a: __m512i, mut b: __m512i, mut c: __m512i, mut d: __m512i) -> [__m512i; 4] {
    a = _mm512_add_epi32(a, b);
    d = _mm512_rol_epi32::<16>(_mm512_xor_si512(d, a));
    c = _mm512_add_epi32(c, d);
    b = _mm512_rol_epi32::<12>(_mm512_xor_si512(b, c));
    a = _mm512_add_epi32(a, b);
    d = _mm512_rol_epi32::<8>(_mm512_xor_si512(d, a));
    c = _mm512_add_epi32(c, d);
    b = _mm512_rol_epi32::<7>(_mm512_xor_si512(b, c));
    [a, b, c, d]
}

/// The blocks with these numbers, each with the last two words of its nonce.
#[inline]
#[target_feature(enable = "avx512f")]
fn all_16(key: &[u32; 8], numbers: __m512i, nonce: [__m512i; 2]) -> [__m512i; 16] {
    // Made here and not by the callers: it would come through memory.
    let mut start = [_mm512_setzero_si512(); 16];
    for (vector, word) in start.iter_mut().zip(CONSTANTS) {
        *vector = _mm512_set1_epi32(word.cast_signed());
    }
    for (vector, word) in start[4..12].iter_mut().zip(key) {
        *vector = _mm512_set1_epi32(word.cast_signed());
    }
    start[12] = numbers;
    [start[14], start[15]] = nonce;
    let mut state = start;
    rounds!(state, _mm512_add_epi32, _mm512_xor_si512, _mm512_rol_epi32);
    for (vector, start) in state.iter_mut().zip(start) {
        *vector = _mm512_add_epi32(*vector, start);
    }
    gather_16(state)
}

/// From one word of all blocks in a vector to all words of one block in a vector.
#[inline]
#[target_feature(enable = "avx512f")]
fn gather_16(words: [__m512i; 16]) -> [__m512i; 16] {
    // Four words of a block in each 128 bits: of blocks q, 4 + q, 8 + q and 12 + q in `quads[4 * group + q]`.
    let mut quads = words;
    for group in 0..4 {
        let [a, b, c, d] = [0, 1, 2, 3].map(|at| words[4 * group + at]);
        let (ab_low, ab_high) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
        let (cd_low, cd_high) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
        quads[4 * group] = _mm512_unpacklo_epi64(ab_low, cd_low);
        quads[4 * group + 1] = _mm512_unpackhi_epi64(ab_low, cd_low);
        quads[4 * group + 2] = _mm512_unpacklo_epi64(ab_high, cd_high);
        quads[4 * group + 3] = _mm512_unpackhi_epi64(ab_high, cd_high);
    }
    // The four groups of one block's words are each in one 128 bits of four vectors.
    let mut blocks = quads;
    for q in 0..4 {
        let [a, b, c, d] = [0, 1, 2, 3].map(|group| quads[4 * group + q]);
        [blocks[q], blocks[4 + q], blocks[8 + q], blocks[12 + q]] = transpose([a, b, c, d]);
    }
    blocks
}

/// The first 128 bits of all, then the second of all, and so on.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose([a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
    let ab_low = _mm512_shuffle_i32x4::<0b01_00_01_00>(a, b);
    let ab_high = _mm512_shuffle_i32x4::<0b11_10_11_10>(a, b);
    let cd_low = _mm512_shuffle_i32x4::<0b01_00_01_00>(c, d);
    let cd_high = _mm512_shuffle_i32x4::<0b11_10_11_10>(c, d);
    [
        _mm512_shuffle_i32x4::<0b10_00_10_00>(ab_low, cd_low),
        _mm512_shuffle_i32x4::<0b11_01_11_01>(ab_low, cd_low),
        _mm512_shuffle_i32x4::<0b10_00_10_00>(ab_high, cd_high),
        _mm512_shuffle_i32x4::<0b11_01_11_01>(ab_high, cd_high),
    ]
}

/// As [`gather_16`], for eight blocks.
#[inline]
#[target_feature(enable = "avx512f,avx512vl")]
fn gather_8(words: [__m256i; 16]) -> [__m512i; 8] {
    // Four words of a block in each 128 bits: of blocks q and 4 + q in `quads[4 * group + q]`.
    let mut quads = words;
    for group in 0..4 {
        let [a, b, c, d] = [0, 1, 2, 3].map(|at| words[4 * group + at]);
        let (ab_low, ab_high) = (_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
        let (cd_low, cd_high) = (_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d));
        quads[4 * group] = _mm256_unpacklo_epi64(ab_low, cd_low);
        quads[4 * group + 1] = _mm256_unpackhi_epi64(ab_low, cd_low);
        quads[4 * group + 2] = _mm256_unpacklo_epi64(ab_high, cd_high);
        quads[4 * group + 3] = _mm256_unpackhi_epi64(ab_high, cd_high);
    }
    let block = |low: __m256i, high: __m256i| _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high);
    let [mut near, mut far] = [[_mm512_castsi256_si512(words[0]); 4]; 2];
    for q in 0..4 {
        let [a, b, c, d] = [0, 1, 2, 3].map(|group| quads[4 * group + q]);
        near[q] = block(
            _mm256_permute2x128_si256::<0x20>(a, b),
            _mm256_permute2x128_si256::<0x20>(c, d),
        );
        far[q] = block(
            _mm256_permute2x128_si256::<0x31>(a, b),
            _mm256_permute2x128_si256::<0x31>(c, d),
        );
    }
    [near[0], near[1], near[2], near[3], far[0], far[1], far[2], far[3]]
}
