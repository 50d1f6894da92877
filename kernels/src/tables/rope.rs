//! Frequencies and angles of rotary position embedding (Su et al. 2021), and how families stretch
//! them for longer contexts.

use concord_formats::trigonometry::{PI, sin_cos};

use super::{exp, ln};
use crate::Buffer;

/// How rotary frequencies are stretched for longer contexts.
#[derive(Clone, Debug, PartialEq)]
pub enum FrequencyScaling {
    /// Not at all.
    None,
    /// All divided by a factor.
    Linear {
        /// Divides every frequency; above 0.
        factor: f64,
    },
    /// Low frequencies divided, high ones kept, a ramp between (Llama 3.1).
    Llama3 {
        /// Divides the low frequencies.
        factor: f64,
        /// Wavelengths above `original_max_positions / low_freq_factor` are low frequencies.
        low_freq_factor: f64,
        /// Wavelengths below `original_max_positions / high_freq_factor` are high frequencies.
        high_freq_factor: f64,
        /// The context that the model was first trained for.
        original_max_positions: f64,
    },
    /// Low frequencies divided, high ones kept, a ramp over the pairs between, and all cosines and
    /// sines multiplied (YaRN, Peng et al. 2023).
    Yarn {
        /// Divides the low frequencies.
        factor: f64,
        /// The context that the model was first trained for.
        original_max_positions: f64,
        /// Pairs that turn more often than this over the first context keep their frequency.
        beta_fast: f64,
        /// Pairs that turn less often than this have theirs divided.
        beta_slow: f64,
        /// Whether the ends of the ramp are moved outwards to whole pairs.
        truncate: bool,
        /// Multiplies cosines and sines.
        attention_factor: f64,
    },
    /// Each frequency divided by a factor of its own (LongRoPE, Ding et al. 2024).
    LongRope {
        /// Divide the frequencies, one for each pair: the set for short or for long contexts, which
        /// the caller chooses by the longest context, so that no key depends on those after it.
        factors: Vec<f64>,
        /// Multiplies cosines and sines.
        attention_factor: f64,
    },
    /// A larger base, by how much the longest context exceeds the first one (NTK-aware).
    Dynamic {
        /// How far the base is stretched for a given excess.
        factor: f64,
        /// The context that the model was first trained for.
        original_max_positions: f64,
        /// The longest context, declared before the first token.
        longest: f64,
    },
    /// All divided by a factor, and only the first pairs turn: those after them have frequency 0.
    /// Unlike in a partial rotation, exponents are over the whole head.
    Proportional {
        /// Divides every frequency.
        factor: f64,
        /// Pairs that turn.
        rotated: usize,
    },
}

impl FrequencyScaling {
    /// Radians a position for each pair of a rotation of `width` elements, `[width / 2]`: pair i
    /// has `theta^(-2 i / width)`, stretched.
    ///
    /// # Panics
    /// Where `factors` of [`Self::LongRope`] are fewer than pairs.
    ///
    /// ```
    /// use concord_kernels::tables::FrequencyScaling;
    ///
    /// let frequencies = FrequencyScaling::Linear { factor: 4.0 }.frequencies(4, 10_000.0);
    /// assert_eq!(frequencies[0], 0.25);
    /// assert!((frequencies[1] - 0.0025).abs() < 1e-15);
    /// ```
    pub fn frequencies(&self, width: usize, theta: f64) -> Vec<f64> {
        let ln_theta = self.ln_theta(width, theta);
        let stretched = |pair: usize| {
            let exponent = 2.0 * pair as f64 / width as f64;
            self.stretched(pair, exp(-exponent * ln_theta), width, ln_theta)
        };
        (0..width / 2).map(stretched).collect()
    }

    /// What cosines and sines are multiplied by.
    pub fn attention_factor(&self) -> f64 {
        match *self {
            Self::Yarn {
                attention_factor, ..
            }
            | Self::LongRope {
                attention_factor, ..
            } => attention_factor,
            _ => 1.0,
        }
    }

    /// The logarithm of the base.
    fn ln_theta(&self, width: usize, theta: f64) -> f64 {
        let Self::Dynamic {
            factor,
            original_max_positions,
            longest,
        } = *self
        else {
            return ln(theta);
        };
        let longest = longest.max(original_max_positions);
        let growth = factor * longest / original_max_positions - (factor - 1.0);
        // The only pair of two elements has frequency 1, whatever the base.
        let power = width as f64 / width.saturating_sub(2).max(1) as f64;
        ln(theta) + power * ln(growth)
    }

    fn stretched(&self, pair: usize, frequency: f64, width: usize, ln_theta: f64) -> f64 {
        match *self {
            Self::None | Self::Dynamic { .. } => frequency,
            Self::Linear { factor } => frequency / factor,
            Self::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_max_positions,
            } => {
                let wavelength = 2.0 * PI / frequency;
                if wavelength < original_max_positions / high_freq_factor {
                    frequency
                } else if wavelength > original_max_positions / low_freq_factor {
                    frequency / factor
                } else {
                    let smooth = (original_max_positions / wavelength - low_freq_factor)
                        / (high_freq_factor - low_freq_factor);
                    (1.0 - smooth) * frequency / factor + smooth * frequency
                }
            }
            Self::Yarn {
                factor,
                original_max_positions,
                beta_fast,
                beta_slow,
                truncate,
                ..
            } => {
                let pair_of = |turns: f64| {
                    width as f64 * ln(original_max_positions / (turns * 2.0 * PI))
                        / (2.0 * ln_theta)
                };
                let ends = (pair_of(beta_fast), pair_of(beta_slow));
                let divided = ramp(pair, ends, truncate, width);
                frequency / factor * divided + frequency * (1.0 - divided)
            }
            Self::LongRope { ref factors, .. } => frequency / factors[pair],
            Self::Proportional { rotated, .. } if pair >= rotated => 0.0,
            Self::Proportional { factor, .. } => frequency / factor,
        }
    }
}

/// Which share of the frequency of `pair` is divided: 0 up to the first end, 1 from the second on.
fn ramp(pair: usize, (first, last): (f64, f64), truncate: bool, width: usize) -> f64 {
    let (first, last) = if truncate {
        (first.floor(), last.ceil())
    } else {
        (first, last)
    };
    let (first, last) = (first.max(0.0), last.min(width as f64 - 1.0));
    // A ramp of no length would divide by zero.
    let last = if first == last { last + 0.001 } else { last };
    ((pair as f64 - first) / (last - first)).clamp(0.0, 1.0)
}

/// Which elements of a head turn together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopePairs {
    /// Pair i is (i, i + half), as Hugging Face stores Llama.
    Halves,
    /// Pair i is (2 i, 2 i + 1), as in GPT-J and GLM.
    Neighbours,
}

/// Cosines and sines of rotary position embedding, `[positions, half]`.
///
/// A head may be wider than its rotated part, and pairs may be laid out in another way:
///
/// ```
/// use concord_kernels::tables::{FrequencyScaling, RopePairs, RopeTable};
///
/// let table = RopeTable {
///     head_dim: 80,
///     pairs: RopePairs::Neighbours,
///     ..RopeTable::new(32, 10_000.0, FrequencyScaling::None, 2_048)
/// };
/// assert_eq!((table.half, table.positions()), (16, 2_048));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct RopeTable {
    /// Elements of a head. The first `2 * half` of them turn, the others stay.
    pub head_dim: usize,
    /// Pairs of a head that turn.
    pub half: usize,
    /// Which elements make a pair.
    pub pairs: RopePairs,
    /// Row-major cosines.
    pub cos: Buffer<f32>,
    /// Row-major sines.
    pub sin: Buffer<f32>,
}

impl RopeTable {
    /// The table for `positions` positions of heads of `width` elements that turn as a whole.
    ///
    /// # Panics
    /// As [`FrequencyScaling::frequencies`].
    pub fn new(width: usize, theta: f64, scaling: FrequencyScaling, positions: usize) -> Self {
        let frequencies = scaling.frequencies(width, theta);
        let factor = scaling.attention_factor();
        let (mut cosines, mut sines) = (Vec::new(), Vec::new());
        for position in 0..positions {
            for frequency in &frequencies {
                let (sin, cos) = sin_cos(position as f64 * frequency);
                cosines.push((cos * factor) as f32);
                sines.push((sin * factor) as f32);
            }
        }
        Self {
            head_dim: width,
            half: width / 2,
            pairs: RopePairs::Halves,
            cos: cosines.into(),
            sin: sines.into(),
        }
    }

    /// Positions in the table.
    pub fn positions(&self) -> usize {
        self.cos.len().checked_div(self.half).unwrap_or(0)
    }
}
