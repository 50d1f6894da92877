//! NF4, the 4-bit NormalFloat of QLoRA (Dettmers et al. 2023): levels at quantiles of the normal
//! distribution, with a scale of 32 bits for 64 numbers.

use super::tables::NF4_LEVELS;
use super::{nibbles, single};

/// Number 2i is named by the high half of byte i, number 2i + 1 by the low one.
#[inline(always)]
pub(super) fn decode(block: &[u8; 36], out: &mut [f32; 64]) {
    let scale = single(block);
    for (out, byte) in out.as_chunks_mut().0.iter_mut().zip(&block[4..]) {
        let [low, high] = nibbles(*byte);
        *out = [high, low].map(|code| NF4_LEVELS[usize::from(code)] * scale);
    }
}
