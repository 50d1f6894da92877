//! Numbers to the blocks of GGUF that only files have: Q5_0, Q5_1, Q5_K and Q6_K. Those that a
//! checkpoint is quantised to as it is read, Q4_K and Q8_0, are in the kernels.
//!
//! Each step is in f32 and rounded once, so a file has the same bytes on every machine.

use concord_kernels::packed::{BlockFormat, QuantFormat};
use half::{bf16, f16};

/// Numbers of a run of Q5_K, and of Q6_K.
const RUN_5: usize = 32;
const RUN_6: usize = 16;

/// Appends numbers that fill whole blocks. `false` where a scale, or an f16, would be infinite.
pub(super) fn encode(format: BlockFormat, values: &[f32], out: &mut Vec<u8>) -> bool {
    match format {
        BlockFormat::F32 => {
            out.extend(values.iter().flat_map(|value| value.to_le_bytes()));
            true
        }
        BlockFormat::F16 => each(values, out, |value| {
            let half = f16::from_f32(value);
            half.is_finite().then(|| half.to_le_bytes())
        }),
        BlockFormat::Bf16 => each(values, out, |value| {
            let half = bf16::from_f32(value);
            half.is_finite().then(|| half.to_le_bytes())
        }),
        BlockFormat::Q8_0 => quantized(QuantFormat::Q8_0, values, out),
        BlockFormat::Q4K => quantized(QuantFormat::Q4K, values, out),
        BlockFormat::Q5_0 => blocks(values, out, q5_0),
        BlockFormat::Q5_1 => blocks(values, out, q5_1),
        BlockFormat::Q5K => blocks(values, out, q5_k),
        BlockFormat::Q6K => blocks(values, out, q6_k),
        // No mix of types has others.
        _ => false,
    }
}

fn each(values: &[f32], out: &mut Vec<u8>, half: impl Fn(f32) -> Option<[u8; 2]>) -> bool {
    out.reserve(2 * values.len());
    values.iter().all(|value| match half(*value) {
        Some(bytes) => {
            out.extend(bytes);
            true
        }
        None => false,
    })
}

fn quantized(format: QuantFormat, values: &[f32], out: &mut Vec<u8>) -> bool {
    let bytes = format.blocks().row_bytes(values.len()).unwrap_or(0);
    let start = out.len();
    out.resize(start + bytes, 0);
    format.quantize(values, &mut out[start..]).is_ok()
}

fn blocks<const N: usize, const B: usize>(
    values: &[f32],
    out: &mut Vec<u8>,
    encode: impl Fn(&[f32; N]) -> Option<[u8; B]>,
) -> bool {
    values
        .as_chunks()
        .0
        .iter()
        .all(|values| match encode(values) {
            Some(block) => {
                out.extend(block);
                true
            }
            None => false,
        })
}

/// The nearest f16; none where that is infinite.
fn half(value: f32) -> Option<f16> {
    Some(f16::from_f32(value)).filter(|half| half.is_finite())
}

/// The nearest whole number of one that is not negative and below 2^23; upwards from a half.
fn nearest(value: f32) -> u32 {
    let whole = value as u32;
    whole + u32::from(value - whole as f32 >= 0.5)
}

/// 1 / step, and 0 where the step is 0.
fn inverse(step: f32) -> f32 {
    match step == 0.0 {
        true => 0.0,
        false => 1.0 / step,
    }
}

/// The codes of 5 bits of 32 numbers: low halves of two in a byte, the fifth bits in a word.
fn five_bits(codes: &[u8; 32], high: &mut [u8], low: &mut [u8]) {
    let mut fifth = 0_u32;
    for i in 0..16 {
        low[i] = (codes[i] & 15) | (codes[i + 16] & 15) << 4;
        fifth |= u32::from(codes[i] >> 4) << i | u32::from(codes[i + 16] >> 4) << (i + 16);
    }
    high.copy_from_slice(&fifth.to_le_bytes());
}

/// As ggml has it: the number of the largest magnitude has the code 0, which stands for -16.
fn q5_0(values: &[f32; 32]) -> Option<[u8; 22]> {
    let mut extreme = 0.0_f32;
    for value in values {
        if value.abs() > extreme.abs() {
            extreme = *value;
        }
    }
    let step = extreme / -16.0;
    let scale = inverse(step);
    let codes = values.map(|value| ((value * scale + 16.5) as u32).min(31) as u8);
    let mut block = [0; 22];
    let (head, low) = block.split_at_mut(6);
    head[..2].copy_from_slice(&half(step)?.to_le_bytes());
    five_bits(&codes, &mut head[2..], low);
    Some(block)
}

/// As ggml has it: 31 equal steps from the least number to the largest.
fn q5_1(values: &[f32; 32]) -> Option<[u8; 24]> {
    let least = values.iter().fold(f32::INFINITY, |least, v| least.min(*v));
    let largest = values
        .iter()
        .fold(f32::NEG_INFINITY, |most, v| most.max(*v));
    let step = (largest - least) / 31.0;
    let scale = inverse(step);
    let codes = values.map(|value| (((value - least) * scale + 0.5) as u32).min(31) as u8);
    let mut block = [0; 24];
    let (head, low) = block.split_at_mut(8);
    head[..2].copy_from_slice(&half(step)?.to_le_bytes());
    head[2..4].copy_from_slice(&half(least)?.to_le_bytes());
    five_bits(&codes, &mut head[4..], low);
    Some(block)
}

/// As the kernels make Q4_K, with 31 steps in a run.
fn q5_k(values: &[f32; 256]) -> Option<[u8; 176]> {
    let runs = values.as_chunks::<RUN_5>().0;
    let (mut steps, mut minima) = ([0.0_f32; 8], [0.0_f32; 8]);
    for (i, run) in runs.iter().enumerate() {
        let least = run.iter().fold(0.0_f32, |least, v| least.min(*v));
        let largest = run.iter().fold(0.0_f32, |most, v| most.max(*v));
        // Half of each first, for the difference may be beyond f32.
        steps[i] = (0.5 * largest - 0.5 * least) / 15.5;
        minima[i] = -least;
    }
    let unit = |values: &[f32; 8]| half(values.iter().fold(0.0_f32, |m, v| m.max(*v)) / 63.0);
    let (scale, min) = (unit(&steps)?, unit(&minima)?);
    let mut block = [0; 176];
    block[..2].copy_from_slice(&scale.to_le_bytes());
    block[2..4].copy_from_slice(&min.to_le_bytes());
    let (scale, min) = (scale.to_f32(), min.to_f32());
    let six_bits = |value: f32, unit: f32| nearest((value * inverse(unit)).min(63.0)) as u8;
    let steps = steps.map(|step| six_bits(step, scale));
    let minima = minima.map(|value| six_bits(value, min));
    for i in 0..4 {
        block[4 + i] = steps[i] | steps[i + 4] >> 4 << 6;
        block[8 + i] = minima[i] | minima[i + 4] >> 4 << 6;
        block[12 + i] = steps[i + 4] & 15 | (minima[i + 4] & 15) << 4;
    }
    for (i, run) in runs.iter().enumerate() {
        let step = scale * f32::from(steps[i]);
        let least = min * f32::from(minima[i]);
        for (l, value) in run.iter().enumerate() {
            let quotient = (value + least) * inverse(step);
            let code = nearest(quotient.clamp(0.0, 31.0)) as u8;
            block[16 + l] |= (code >> 4) << i;
            block[48 + 32 * (i / 2) + l] |= (code & 15) << (4 * (i % 2));
        }
    }
    Some(block)
}

/// 16 numbers share a scale of 8 bits, which their largest magnitude is 31 of.
fn q6_k(values: &[f32; 256]) -> Option<[u8; 210]> {
    let runs = values.as_chunks::<RUN_6>().0;
    let mut steps = [0.0_f32; 16];
    for (step, run) in steps.iter_mut().zip(runs) {
        *step = run.iter().fold(0.0_f32, |most, v| most.max(v.abs())) / 31.0;
    }
    let unit = half(steps.iter().fold(0.0_f32, |most, step| most.max(*step)) / 127.0)?;
    let mut block = [0; 210];
    block[208..].copy_from_slice(&unit.to_le_bytes());
    let unit = unit.to_f32();
    for (i, run) in runs.iter().enumerate() {
        let scale = nearest((steps[i] * inverse(unit)).min(127.0)) as u8;
        block[192 + i] = scale;
        let step = inverse(unit * f32::from(scale));
        for (l, value) in run.iter().enumerate() {
            // From 0 to 63, of which 32 stands for zero.
            let code = nearest((value * step).clamp(-32.0, 31.0) + 32.0) as u8;
            let at = RUN_6 * i + l;
            let (half, row, column) = (at / 128, at % 128 / 32, at % 32);
            block[64 * half + 32 * (row % 2) + column] |= (code & 15) << (4 * (row / 2));
            block[128 + 32 * half + column] |= (code >> 4) << (2 * row);
        }
    }
    Some(block)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers without a pattern, from -1 to 1.
    fn numbers(count: usize) -> Vec<f32> {
        let mixed = |i: usize| (i as u32).wrapping_mul(2_654_435_761) >> 8;
        (0..count)
            .map(|i| mixed(i + 1) as f32 / (1 << 23) as f32 - 1.0)
            .collect()
    }

    #[test]
    fn blocks_are_near_to_their_numbers() {
        let values = numbers(512);
        for (format, most) in [
            (BlockFormat::F16, 0.0005),
            (BlockFormat::Q8_0, 0.005),
            (BlockFormat::Q6K, 0.02),
            (BlockFormat::Q5K, 0.04),
            (BlockFormat::Q5_0, 0.07),
            (BlockFormat::Q5_1, 0.035),
            (BlockFormat::Q4K, 0.085),
        ] {
            let (mut bytes, mut near) = (Vec::new(), vec![0.0; values.len()]);
            assert!(encode(format, &values, &mut bytes), "{}", format.name());
            format.decode(&bytes, &mut near);
            let errors = values.iter().zip(&near).map(|(a, b)| (a - b).abs());
            let worst = errors.fold(0.0, f32::max);
            assert!(worst <= most, "{}: {worst}", format.name());
            assert!(worst > most / 4.0, "{}: {worst} is too good", format.name());
        }
    }

    #[test]
    fn zeros_stay_and_what_is_too_large_is_refused() {
        for format in [
            BlockFormat::Q5_0,
            BlockFormat::Q5_1,
            BlockFormat::Q5K,
            BlockFormat::Q6K,
        ] {
            let (mut bytes, mut near) = (Vec::new(), vec![1.0; 256]);
            assert!(encode(format, &[0.0; 256], &mut bytes));
            format.decode(&bytes, &mut near);
            assert!(near.iter().all(|value| *value == 0.0), "{}", format.name());
            let mut large = [0.0; 256];
            (large[3], large[4]) = (3e38, -3e38);
            assert!(
                !encode(format, &large, &mut Vec::new()),
                "{}",
                format.name()
            );
        }
        assert!(!encode(BlockFormat::F16, &[70_000.0], &mut Vec::new()));
    }
}
