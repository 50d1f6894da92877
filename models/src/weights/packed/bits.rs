//! Codes of a few bits in 32-bit words, low bits first.

/// The field number `at` of a word of fields of `bits` bits.
pub(super) fn field(word: [u8; 4], bits: u32, at: usize) -> u32 {
    (u32::from_le_bytes(word) >> (bits * at as u32)) & ((1 << bits) - 1)
}

/// The field of `bits` bits that begins at bit `start` of `words`; it may cross into the next word.
pub(super) fn dense_field(words: &[[u8; 4]], bits: u32, start: usize) -> u32 {
    let word = |i: usize| u64::from(words.get(i).map_or(0, |word| u32::from_le_bytes(*word)));
    let pair = word(start / 32) | word(start / 32 + 1) << 32;
    (pair >> (start % 32)) as u32 & ((1 << bits) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_in_and_across_words() {
        let words = [0x8765_4321_u32, 0x0fed_cba9].map(u32::to_le_bytes);
        assert_eq!(field(words[0], 4, 2), 3);
        assert_eq!(field(words[1], 8, 3), 0x0f);
        assert_eq!(dense_field(&words, 4, 28), 8);
        assert_eq!(dense_field(&words, 6, 30), 0b10_0110);
        assert_eq!(dense_field(&words, 8, 56), 0x0f);
    }
}
