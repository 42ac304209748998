//! The one's complement sums of IP, TCP and UDP (RFC 1071).

/// Words of 32 bits that are added side by side. Eight keep the vector units busy even with SSE2 alone: 1,400 bytes take
/// about 43 ns on a Xeon of 2023. AVX2 chosen at run time takes 30; a hundredth of what the cipher takes for the packet,
/// and not worth an `unsafe`.
const LANES: usize = 8;

/// A sum that is not folded to 16 bits yet. Kept in the machine's byte order, which folding undoes (RFC 1071, section 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sum(u64);

impl Sum {
    /// The sum of bytes, as 16-bit words in network order; a last odd byte counts as if a zero followed.
    #[inline]
    pub fn of(bytes: &[u8]) -> Self {
        // Carries gather in the upper halves of the lanes: 2^32 words, 16 GiB, do not fill one.
        let mut lanes = [0_u64; LANES];
        let mut blocks = bytes.chunks_exact(4 * LANES);
        for block in &mut blocks {
            for (lane, word) in lanes.iter_mut().zip(block.chunks_exact(4)) {
                *lane += u64::from(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
            }
        }
        let mut sum: u64 = lanes.iter().sum();
        let mut words = blocks.remainder().chunks_exact(4);
        for word in &mut words {
            sum += u64::from(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
        }
        let rest = words.remainder();
        let mut last = [0; 4];
        last[..rest.len()].copy_from_slice(rest);
        Self(sum + u64::from(u32::from_ne_bytes(last)))
    }

    /// With the sum of other bytes, or of the same ones elsewhere at an even place.
    #[inline]
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// With a 16-bit number of a header.
    #[inline]
    #[must_use]
    pub fn plus_number(self, number: u16) -> Self {
        Self(self.0 + u64::from(number.to_be()))
    }

    /// Without a 16-bit number of a header that is part of the sum.
    #[inline]
    #[must_use]
    pub fn minus_number(self, number: u16) -> Self {
        self.plus_number(!number)
    }

    /// The sum in 16 bits, as the number that stands in a header. 0 only if every byte is: other multiples of 0xffff
    /// fold to 0xffff.
    #[inline]
    pub fn folded(self) -> u16 {
        let sum = (self.0 >> 32) + (self.0 & 0xffff_ffff);
        let sum = (sum >> 32) + (sum & 0xffff_ffff);
        let sum = (sum >> 16) + (sum & 0xffff);
        let sum = (sum >> 16) + (sum & 0xffff);
        #[expect(clippy::cast_possible_truncation, reason = "folded to 16 bits just now")]
        let sum = ((sum >> 16) + sum) as u16;
        u16::from_be(sum)
    }

    /// The checksum that makes the sum valid, where its field counted as zero.
    #[inline]
    pub fn checksum(self) -> u16 {
        !self.folded()
    }

    /// Whether bytes are intact whose checksum is part of the sum.
    #[inline]
    pub fn is_valid(self) -> bool {
        self.folded() == 0xffff
    }
}

/// The checksum after a 16-bit word that it covers has changed from `old` to `new` (RFC 1624, equation 3).
pub fn updated(checksum: u16, old: u16, new: u16) -> u16 {
    Sum::default()
        .plus_number(!checksum)
        .minus_number(old)
        .plus_number(new)
        .checksum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As the RFC describes it: word by word, the carry put back at once.
    fn slow(bytes: &[u8]) -> u16 {
        bytes.chunks(2).fold(0, |sum: u16, pair| {
            let word = u16::from(pair[0]) << 8 | u16::from(*pair.get(1).unwrap_or(&0));
            let (sum, carry) = sum.overflowing_add(word);
            sum + u16::from(carry)
        })
    }

    #[test]
    fn the_example_of_the_rfc_adds_up() {
        let sum = Sum::of(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.folded(), 0xddf2);
        assert_eq!(sum.checksum(), 0x220d);
        assert!(sum.plus_number(0x220d).is_valid());
    }

    #[test]
    fn ones_everywhere_carry_to_the_last_bit() {
        for len in [2, 4, 32, 34, 1400, 65_534] {
            assert_eq!(Sum::of(&vec![0xff; len]).folded(), 0xffff, "{len} bytes");
        }
        assert_eq!(Sum::of(&[0; 100]).folded(), 0);
        assert_eq!(Sum::of(&[]).folded(), 0);
    }

    proptest! {
        #[test]
        fn it_is_the_sum_of_the_rfc(bytes in proptest::collection::vec(any::<u8>(), 0..300), start in 0_usize..8) {
            let bytes = &bytes[start.min(bytes.len())..];
            prop_assert_eq!(Sum::of(bytes).folded(), slow(bytes));
        }

        #[test]
        fn parts_add_up(bytes in proptest::collection::vec(any::<u8>(), 2..200), at in 0_usize..100, number: u16) {
            let (left, right) = bytes.split_at((2 * at).min(bytes.len() & !1));
            let sum = Sum::of(left).plus(Sum::of(right));
            prop_assert_eq!(sum.folded(), slow(&bytes));
            let mut longer = number.to_be_bytes().to_vec();
            longer.extend(&bytes);
            prop_assert_eq!(sum.plus_number(number).folded(), slow(&longer));
            // Zero has two forms, and taking away may lead to the other one.
            let again = sum.plus_number(number).minus_number(number).folded();
            prop_assert_eq!(again % 0xffff, slow(&bytes) % 0xffff);
        }

        #[test]
        fn a_changed_word_is_followed(mut bytes in proptest::collection::vec(any::<u8>(), 20), at in 0_usize..10, new: u16) {
            // Some byte that stays is not zero, as in any header: only then zero has one form.
            bytes.push(1);
            let before = Sum::of(&bytes).checksum();
            let word = &mut bytes[2 * at..2 * at + 2];
            let old = u16::from_be_bytes([word[0], word[1]]);
            word.copy_from_slice(&new.to_be_bytes());
            prop_assert_eq!(updated(before, old, new), Sum::of(&bytes).checksum());
        }
    }
}
