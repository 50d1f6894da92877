//! NF4, the 4-bit NormalFloat of QLoRA (Dettmers et al. 2023): levels at quantiles of the normal
//! distribution, with a scale of 32 bits for 64 numbers. The levels and the borders between them
//! are those of bitsandbytes.

/// Border i is between levels i and i + 1; a number on it has the lower level.
const BORDERS: [f32; 15] = [
    -0.848_096_4,
    -0.610_632_9,
    -0.459_995_27,
    -0.339_679_43,
    -0.234_607_41,
    -0.137_911_73,
    -0.045_525_018,
    0.039_790_15,
    0.120_255_25,
    0.203_521_25,
    0.292_013_77,
    0.389_312_55,
    0.501_663_45,
    0.642_786_9,
    0.861_478_4,
];

/// The block of 64 numbers, which are finite: the scale is their largest magnitude, and each number
/// has the level next to it, by its quotient with the scale, rounded to f32.
#[inline(always)]
pub(super) fn encode(values: &[f32; 64], block: &mut [u8; 36]) {
    let scale = values.iter().fold(0.0_f32, |most, v| most.max(v.abs()));
    block[..4].copy_from_slice(&scale.to_le_bytes());
    // Of a block of zeros every number has the level 0.
    let divisor = if scale == 0.0 { 1.0 } else { scale };
    let mut codes = [0_u8; 64];
    for (code, value) in codes.iter_mut().zip(values) {
        let quotient = value / divisor;
        *code = BORDERS.iter().map(|b| u8::from(quotient > *b)).sum();
    }
    for (byte, codes) in block[4..].iter_mut().zip(codes.as_chunks::<2>().0) {
        *byte = codes[0] << 4 | codes[1];
    }
}
