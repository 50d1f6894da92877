//! Philox 4x32-10 (Salmon et al. 2011): a counter-based generator. What it gives depends on key and
//! counter alone, never on what was drawn before.

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
const ROUNDS: u32 = 10;

/// A stream of random words, one for each counter.
///
/// ```
/// use concord_kernels::rng::Philox;
///
/// let stream = Philox::new(7, 0);
/// assert_eq!(stream.words(3), Philox::new(7, 0).words(3));
/// assert!((0.0..1.0).contains(&stream.unit(3)));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Philox {
    key: [u32; 2],
    stream: [u32; 2],
}

impl Philox {
    /// The stream `stream` of the seed `seed`.
    pub fn new(seed: u64, stream: u64) -> Self {
        Self {
            key: halves(seed),
            stream: halves(stream),
        }
    }

    /// Four words for `counter`.
    pub fn words(&self, counter: u64) -> [u32; 4] {
        let [low, high] = halves(counter);
        let mut block = [low, high, self.stream[0], self.stream[1]];
        let mut key = self.key;
        for _ in 0..ROUNDS {
            block = round(block, key);
            key = next(key);
        }
        block
    }

    /// A multiple of 2^-24 in [0, 1).
    pub fn unit(&self, counter: u64) -> f32 {
        (self.words(counter)[0] >> 8) as f32 / 16_777_216.0
    }
}

#[inline(always)]
fn round(block: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let a = u64::from(MULTIPLIERS[0]) * u64::from(block[0]);
    let b = u64::from(MULTIPLIERS[1]) * u64::from(block[2]);
    [
        (b >> 32) as u32 ^ block[1] ^ key[0],
        b as u32,
        (a >> 32) as u32 ^ block[3] ^ key[1],
        a as u32,
    ]
}

#[inline(always)]
fn next(key: [u32; 2]) -> [u32; 2] {
    [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])]
}

/// The words of many counters of one stream, word by word: of `high * 2^32 + low` for each of
/// `lows`. `[high, stream]` are three words, the low half of the stream first.
#[inline(always)]
pub(crate) fn lanes<const N: usize>(
    seed: u64,
    [high, low_stream, high_stream]: [u32; 3],
    lows: [u32; N],
) -> [[u32; N]; 4] {
    let mut blocks = [lows, [high; N], [low_stream; N], [high_stream; N]];
    let mut key = halves(seed);
    for _ in 0..ROUNDS {
        let [first, second, third, fourth] = &mut blocks;
        let lanes = first.iter_mut().zip(second).zip(third).zip(fourth);
        for (((a, b), c), d) in lanes {
            [*a, *b, *c, *d] = round([*a, *b, *c, *d], key);
        }
        key = next(key);
    }
    blocks
}

#[inline(always)]
fn halves(value: u64) -> [u32; 2] {
    [value as u32, (value >> 32) as u32]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_have_the_words_of_their_counters() {
        let words = lanes(7, [3, 5, 6], [0, 1, 99]);
        let stream = Philox::new(7, 6 << 32 | 5);
        for (lane, low) in [0, 1, 99].into_iter().enumerate() {
            let expected = stream.words(3 << 32 | low);
            assert_eq!([0, 1, 2, 3].map(|word: usize| words[word][lane]), expected);
        }
    }

    #[test]
    fn words_of_zero_and_of_ones_are_those_of_the_paper() {
        let zero = Philox::new(0, 0).words(0);
        assert_eq!(zero, [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        let ones = Philox::new(u64::MAX, u64::MAX).words(u64::MAX);
        assert_eq!(ones, [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
    }
}
