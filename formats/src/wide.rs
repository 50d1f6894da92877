//! Blocks of 256 numbers: runs of 16 or 32 have scales of their own, which are codes, too.

use super::nibbles;
use super::small::half;
use super::tables::IQ4_LEVELS;

/// Where number i stands: its half of the block, its run of 32 there, and its place in that run.
#[inline(always)]
const fn place(i: usize) -> (usize, usize, usize) {
    (i / 128, i % 128 / 32, i % 32)
}

#[inline(always)]
pub(super) fn q2_k(block: &[u8; 84], out: &mut [f32; 256]) {
    let (scale, min) = (half(block, 80), half(block, 82));
    for (i, out) in out.iter_mut().enumerate() {
        let (n, run, l) = place(i);
        let code = block[16 + 32 * n + l] >> (2 * run) & 3;
        let [scale_code, min_code] = nibbles(block[i / 16]).map(f32::from);
        *out = scale * scale_code * f32::from(code) - min * min_code;
    }
}

#[inline(always)]
pub(super) fn q3_k(block: &[u8; 110], out: &mut [f32; 256]) {
    let scale = half(block, 108);
    let scales = &block[96..108];
    for (i, out) in out.iter_mut().enumerate() {
        let (n, run, l) = place(i);
        let low = (block[32 + 32 * n + l] >> (2 * run) & 3) as i8;
        let has_third = block[l] >> (4 * n + run) & 1 == 1;
        let code = if has_third { low } else { low - 4 };
        let k = i / 16;
        let four = nibbles(scales[k % 8])[k / 8];
        let two = scales[8 + k % 4] >> (2 * (k / 4)) & 3;
        let scale_code = (four | two << 4) as i8 - 32;
        *out = scale * f32::from(scale_code) * f32::from(code);
    }
}

/// Scale and minimum of run k, six bits each, of the twelve bytes of Q4_K and Q5_K.
#[inline(always)]
fn six_bits(s: &[u8], k: usize) -> [f32; 2] {
    let pair = match k {
        0..4 => [s[k] & 63, s[k + 4] & 63],
        _ => {
            let [scale, min] = nibbles(s[k + 4]);
            [scale | s[k - 4] >> 6 << 4, min | s[k] >> 6 << 4]
        }
    };
    pair.map(f32::from)
}

/// Q4_K and Q5_K, but for the fifth bits: `fifth(k, l)` of number l of run k, as 0 or 16.
#[inline(always)]
fn six_bit_runs(
    block: &[u8],
    codes: &[u8],
    out: &mut [f32; 256],
    fifth: impl Fn(usize, usize) -> u8,
) {
    let (scale, min) = (half(block, 0), half(block, 2));
    for (k, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let [scale_code, min_code] = six_bits(&block[4..16], k);
        let (scale, min) = (scale * scale_code, min * min_code);
        for (l, out) in out.iter_mut().enumerate() {
            let code = nibbles(codes[32 * (k / 2) + l])[k % 2] | fifth(k, l);
            *out = scale * f32::from(code) - min;
        }
    }
}

#[inline(always)]
pub(super) fn q4_k(block: &[u8; 144], out: &mut [f32; 256]) {
    six_bit_runs(block, &block[16..], out, |_, _| 0);
}

#[inline(always)]
pub(super) fn q5_k(block: &[u8; 176], out: &mut [f32; 256]) {
    six_bit_runs(block, &block[48..], out, |k, l| {
        (block[16 + l] >> k & 1) << 4
    });
}

#[inline(always)]
pub(super) fn q6_k(block: &[u8; 210], out: &mut [f32; 256]) {
    let scale = half(block, 208);
    for (i, out) in out.iter_mut().enumerate() {
        let (n, run, l) = place(i);
        let four = nibbles(block[64 * n + 32 * (run % 2) + l])[run / 2];
        let two = block[128 + 32 * n + l] >> (2 * run) & 3;
        let code = (four | two << 4) as i8 - 32;
        let scale_code = block[192 + i / 16] as i8;
        *out = scale * f32::from(scale_code) * f32::from(code);
    }
}

#[inline(always)]
pub(super) fn iq4_xs(block: &[u8; 136], out: &mut [f32; 256]) {
    let scale = half(block, 0);
    let high = u16::from_le_bytes([block[2], block[3]]);
    for (k, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let four = nibbles(block[4 + k / 2])[k % 2];
        let two = (high >> (2 * k) & 3) as u8;
        let scale = scale * f32::from((four | two << 4) as i8 - 32);
        for (l, out) in out.iter_mut().enumerate() {
            let code = nibbles(block[8 + 16 * k + l % 16])[l / 16];
            *out = scale * f32::from(IQ4_LEVELS[usize::from(code)]);
        }
    }
}
