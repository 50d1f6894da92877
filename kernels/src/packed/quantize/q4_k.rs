//! Q4_K: 8 runs of 32 codes of 4 bits, with a scale and a minimum of 6 bits each, times an f16.
//!
//! A format says how to read blocks, not how to make them: ggml searches for scales that make small
//! errors, in an order of operations that compilers may change. Here a run lies between its least
//! and its largest number, which is defined in a few roundings.

use super::{half, nearest};

/// Numbers of a run.
const RUN: usize = 32;

#[inline(always)]
pub(super) fn encode(values: &[f32; 256], block: &mut [u8; 144]) -> bool {
    let runs = values.as_chunks::<RUN>().0;
    let (mut steps, mut minima) = ([0.0_f32; 8], [0.0_f32; 8]);
    for (i, run) in runs.iter().enumerate() {
        // The codes reach zero, too: the stored minimum is what is taken away, and has no sign.
        let least = run.iter().fold(0.0_f32, |least, v| least.min(*v));
        let largest = run.iter().fold(0.0_f32, |most, v| most.max(*v));
        // Half of each first, for the difference may be beyond f32.
        steps[i] = (0.5 * largest - 0.5 * least) / 7.5;
        minima[i] = -least;
    }
    let [Some(scale), Some(min)] = [unit(&steps), unit(&minima)] else {
        return false;
    };
    block[..2].copy_from_slice(&scale.to_le_bytes());
    block[2..4].copy_from_slice(&min.to_le_bytes());
    let (scale, min) = (scale.to_f32(), min.to_f32());
    let steps = steps.map(|step| six_bits(step, scale));
    let minima = minima.map(|value| six_bits(value, min));
    write_six_bits(&steps, &minima, &mut block[4..16]);
    let mut codes = [0_u8; 256];
    for (i, (codes, run)) in codes
        .as_chunks_mut::<RUN>()
        .0
        .iter_mut()
        .zip(runs)
        .enumerate()
    {
        let step = scale * f32::from(steps[i]);
        let least = min * f32::from(minima[i]);
        for (code, value) in codes.iter_mut().zip(run) {
            // Beyond the ends: scales are rounded.
            let quotient = (value + least) / step;
            *code = nearest(quotient.clamp(0.0, 15.0)) as u8;
        }
        if step == 0.0 {
            codes.fill(0);
        }
    }
    // Two runs share 32 bytes: the first has the low halves.
    for (bytes, codes) in block[16..].chunks_mut(RUN).zip(codes.chunks(2 * RUN)) {
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = codes[i] | codes[i + RUN] << 4;
        }
    }
    true
}

/// What the largest of some numbers is 63 of.
fn unit(values: &[f32; 8]) -> Option<half::f16> {
    half(values.iter().fold(0.0_f32, |most, v| most.max(*v)) / 63.0)
}

fn six_bits(value: f32, unit: f32) -> u8 {
    match unit == 0.0 {
        true => 0,
        false => nearest((value / unit).min(63.0)) as u8,
    }
}

/// The first four of each are in the low six bits of bytes; of the last four, the low halves share
/// bytes, and the upper two bits are above the first four.
fn write_six_bits(steps: &[u8; 8], minima: &[u8; 8], out: &mut [u8]) {
    for i in 0..4 {
        out[i] = steps[i] | steps[i + 4] >> 4 << 6;
        out[i + 4] = minima[i] | minima[i + 4] >> 4 << 6;
        out[i + 8] = steps[i + 4] & 15 | (minima[i + 4] & 15) << 4;
    }
}
