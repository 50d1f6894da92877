//! AdamW with moments in 8 bits: a block of numbers has a scale, a number the code of a level
//! (Dettmers et al. 2021, "8-bit Optimizers via Block-wise Quantization").

use super::adamw::{AdamStep, step_one};

/// Numbers of a block: row-major through the whole tensor, so the last block may have fewer.
pub const MOMENT_BLOCK: usize = 256;

/// Words of a whole block: the scale, then four codes a word.
pub const BLOCK_WORDS: usize = 1 + MOMENT_BLOCK / 4;

/// Which moment, and so which levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MomentKind {
    /// The mean of the gradients, of either sign.
    First,
    /// The mean of their squares, never negative.
    Second,
}

/// The levels of codes, rising, and what lies between them.
#[derive(Debug)]
pub struct MomentLevels {
    /// The level of each code; the last is 1.
    pub levels: [f32; 256],
    /// The largest f32 that is not nearer to the level after a code than to its own. The last has
    /// no successor, and no border.
    pub borders: [f32; 256],
}

impl MomentKind {
    /// Its levels.
    pub fn levels(self) -> &'static MomentLevels {
        static FIRST: MomentLevels = MomentLevels::of(MomentKind::First);
        static SECOND: MomentLevels = MomentLevels::of(MomentKind::Second);
        match self {
            Self::First => &FIRST,
            Self::Second => &SECOND,
        }
    }

    /// The code of the level 0.
    pub const fn zero(self) -> u8 {
        match self {
            Self::First => 127,
            Self::Second => 0,
        }
    }
}

/// Decades of levels: the smallest is that below 10^-6.
const DECADES: u32 = 7;

impl MomentLevels {
    /// Decade d = 0 to 6 is `10^(d - 6)` times the range from 0.1 to 1, cut into n parts of one
    /// size, of which the middles are levels: n = 2^d with both signs for the first moment,
    /// 2^(d + 1) for the second. To these come 0 and 1. A level is a quotient of whole numbers,
    /// rounded to f64 and then to f32.
    const fn of(kind: MomentKind) -> Self {
        let mut levels = [0.0; 256];
        let zero = kind.zero() as usize;
        let (mut decade, mut above) = (0, zero + 1);
        while decade < DECADES {
            let parts = match kind {
                MomentKind::First => 1_u64 << decade,
                MomentKind::Second => 2_u64 << decade,
            };
            let mut part = 0;
            while part < parts {
                // 0.1 + 0.9 * (2 * part + 1) / (2 * parts), over 10^(6 - d).
                let over = 2 * parts + 9 * (2 * part + 1);
                let under = 20 * parts * 10_u64.pow(DECADES - 1 - decade);
                levels[above] = (over as f64 / under as f64) as f32;
                if above < 2 * zero + 1 {
                    levels[2 * zero - above] = -levels[above];
                }
                (part, above) = (part + 1, above + 1);
            }
            decade += 1;
        }
        levels[255] = 1.0;
        Self {
            borders: borders(&levels),
            levels,
        }
    }

    /// The code of the level that is nearest to `x`; of two, the lower one. That of the lowest
    /// level for a NaN.
    #[inline(always)]
    pub fn nearest(&self, x: f32) -> u8 {
        let mut code = 0;
        let mut width = 128;
        while width > 0 {
            code += if x > self.borders[(code + width - 1) & 255] {
                width
            } else {
                0
            };
            width /= 2;
        }
        code as u8
    }
}

const fn borders(levels: &[f32; 256]) -> [f32; 256] {
    let mut borders = [f32::INFINITY; 256];
    let mut code = 0;
    while code < 255 {
        // Exact: the sum of two f32 that are near each other, halved.
        let middle = (levels[code] as f64 + levels[code + 1] as f64) / 2.0;
        let border = middle as f32;
        borders[code] = if border as f64 > middle {
            border.next_down()
        } else {
            border
        };
        code += 1;
    }
    borders
}

/// The largest magnitude of `numbers`, by its bits, so that infinities and NaN count as larger
/// than all numbers.
#[inline(always)]
pub fn scale_of(numbers: &[f32]) -> f32 {
    let bits = numbers.iter().map(|x| x.to_bits() & 0x7fff_ffff);
    f32::from_bits(bits.fold(0, u32::max))
}

/// The code of a number of a block.
#[inline(always)]
pub fn encode_one(kind: MomentKind, levels: &MomentLevels, scale: f32, x: f32) -> u8 {
    let share = if scale == 0.0 { 0.0 } else { x / scale };
    let code = levels.nearest(share);
    match kind {
        MomentKind::First => code,
        // A root of 0 under a first moment that is not would make the step enormous.
        MomentKind::Second => code.max(u8::from(x > 0.0)),
    }
}

/// Updates the values of a block and the words of its moments.
#[inline(always)]
pub fn step_block(
    s: &AdamStep,
    gradient: &[f32],
    value: &mut [f32],
    first: &mut [u32],
    second: &mut [u32],
) {
    let (mut m, mut v) = ([0.0; MOMENT_BLOCK], [0.0; MOMENT_BLOCK]);
    let (m, v) = (&mut m[..value.len()], &mut v[..value.len()]);
    decode_block(MomentKind::First, first, m);
    decode_block(MomentKind::Second, second, v);
    let moments = m.iter_mut().zip(v.iter_mut());
    for ((&g, value), (m, v)) in gradient.iter().zip(value).zip(moments) {
        (*value, *m, *v) = step_one(s, g, *value, *m, *v);
    }
    encode_block(MomentKind::First, m, first);
    encode_block(MomentKind::Second, v, second);
}

/// The numbers of a block of words: `scale * level`, rounded once.
#[inline(always)]
pub fn decode_block(kind: MomentKind, words: &[u32], numbers: &mut [f32]) {
    let levels = &kind.levels().levels;
    let scale = f32::from_bits(words[0]);
    let codes: &[u8] = bytemuck::cast_slice(&words[1..]);
    for (number, &code) in numbers.iter_mut().zip(codes) {
        *number = scale * levels[usize::from(code)];
    }
}

/// The words of a block of numbers. What the last word has beyond them stays as it is.
#[inline(always)]
pub fn encode_block(kind: MomentKind, numbers: &[f32], words: &mut [u32]) {
    let (levels, scale) = (kind.levels(), scale_of(numbers));
    words[0] = scale.to_bits();
    let codes: &mut [u8] = bytemuck::cast_slice_mut(&mut words[1..]);
    for (code, &number) in codes.iter_mut().zip(numbers) {
        *code = encode_one(kind, levels, scale, number);
    }
}

/// Updates values and moments in place.
pub fn step(
    s: &AdamStep,
    gradient: &[f32],
    value: &mut [f32],
    first: &mut [u32],
    second: &mut [u32],
) {
    let moments = first
        .chunks_mut(BLOCK_WORDS)
        .zip(second.chunks_mut(BLOCK_WORDS));
    let values = gradient
        .chunks(MOMENT_BLOCK)
        .zip(value.chunks_mut(MOMENT_BLOCK));
    for ((gradient, value), (first, second)) in values.zip(moments) {
        step_block(s, gradient, value, first, second);
    }
}
