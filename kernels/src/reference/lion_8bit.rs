//! Lion with its momentum in 8 bits, coded as AdamW's first moment is
//! ([`crate::reference::adamw_8bit`]).

use super::adamw_8bit::{BLOCK_WORDS, MOMENT_BLOCK, MomentKind, decode_block, encode_block};
use super::lion::{LionStep, step_one};

/// Updates the values of a block and the words of its momentum.
#[inline(always)]
pub fn step_block(s: &LionStep, gradient: &[f32], value: &mut [f32], momentum: &mut [u32]) {
    let mut m = [0.0; MOMENT_BLOCK];
    let m = &mut m[..value.len()];
    decode_block(MomentKind::First, momentum, m);
    for ((&g, value), m) in gradient.iter().zip(value).zip(m.iter_mut()) {
        (*value, *m) = step_one(s, g, *value, *m);
    }
    encode_block(MomentKind::First, m, momentum);
}

/// Updates values and momentum in place.
pub fn step(s: &LionStep, gradient: &[f32], value: &mut [f32], momentum: &mut [u32]) {
    let values = gradient
        .chunks(MOMENT_BLOCK)
        .zip(value.chunks_mut(MOMENT_BLOCK));
    for ((gradient, value), momentum) in values.zip(momentum.chunks_mut(BLOCK_WORDS)) {
        step_block(s, gradient, value, momentum);
    }
}
