//! Random input from a seed, ordinary and hostile.

use crate::rng::Philox;
use crate::{KernelError, Tensor};

/// Which kind of numbers is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputKind {
    /// Magnitudes near 1, some zeros of both signs, some outliers.
    Ordinary,
    /// Exponents from 2^-60 to 2^60 side by side, whole rows of zeros.
    Wide,
    /// Subnormal numbers, and the smallest normal ones.
    Tiny,
    /// Numbers next to the largest, of both signs: results overflow.
    Huge,
}

impl InputKind {
    /// All kinds.
    pub const ALL: [Self; 4] = [Self::Ordinary, Self::Wide, Self::Tiny, Self::Huge];
}

/// Input of a case: a function of the seed, the kind, and the name of a tensor.
#[derive(Clone, Copy, Debug)]
pub struct CaseInput {
    seed: u64,
    kind: InputKind,
}

impl CaseInput {
    /// Input of `kind` from `seed`.
    pub fn new(seed: u64, kind: InputKind) -> Self {
        Self { seed, kind }
    }

    /// A tensor of the given shape; each `stream` gives another one.
    ///
    /// # Errors
    /// None in practice: the elements fill the shape.
    pub fn tensor(&self, stream: u64, shape: &[usize]) -> Result<Tensor, KernelError> {
        Tensor::new(shape, self.numbers(stream, shape.iter().product()))
    }

    /// `len` numbers.
    pub fn numbers(&self, stream: u64, len: usize) -> Vec<f32> {
        let words = Philox::new(self.seed, stream);
        (0..len as u64)
            .map(|i| {
                number(
                    self.kind,
                    words.words(i),
                    words.words(i / 97 + (1 << 40))[0],
                )
            })
            .collect()
    }

    /// `len` integers below `bound`.
    pub fn ids(&self, stream: u64, len: usize, bound: u32) -> Vec<u32> {
        let words = Philox::new(self.seed, stream);
        (0..len as u64).map(|i| words.words(i)[0] % bound).collect()
    }

    /// `len` targets below `bound`, about a fifth of them missing.
    pub fn targets(&self, stream: u64, len: usize, bound: u32) -> Vec<Option<u32>> {
        let words = Philox::new(self.seed, stream);
        let target = |i| {
            let [id, missing, ..] = words.words(i);
            (!missing.is_multiple_of(5)).then_some(id % bound)
        };
        (0..len as u64).map(target).collect()
    }
}

/// One number; `run` is the same for 97 in a row.
fn number(kind: InputKind, [a, b, c, _]: [u32; 4], run: u32) -> f32 {
    let unit = (a >> 8) as f32 / 8_388_608.0 - 1.0;
    let sign = (a & 1) << 31;
    let mantissa = c & 0x007f_ffff;
    match kind {
        InputKind::Ordinary => match b % 32 {
            0 => 0.0,
            1 => -0.0,
            2 => unit * 1e-30,
            3 => unit * 40.0,
            _ => unit,
        },
        InputKind::Wide if run.is_multiple_of(4) => f32::from_bits(sign),
        InputKind::Wide => f32::from_bits(sign | ((67 + b % 120) << 23) | mantissa),
        InputKind::Tiny => f32::from_bits(sign | ((b % 3) << 23) | mantissa),
        InputKind::Huge => f32::from_bits(sign | ((250 + b % 5) << 23) | mantissa),
    }
}
