//! A seeded generator for tests (splitmix64).

/// The state of the generator.
pub struct Random(u64);

impl Random {
    /// Starts from a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// 64 random bits.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// From `-limit` to `limit`.
    pub fn within(&mut self, limit: i32) -> i32 {
        self.below(2 * limit as usize + 1) as i32 - limit
    }

    /// A finite float with a random sign and exponent within `spread` of 0.
    pub fn float(&mut self, spread: i32) -> f32 {
        let exponent = (127 + self.within(spread)) as u32;
        let bits = self.next() as u32;
        f32::from_bits(bits & 0x807f_ffff | exponent << 23)
    }
}
