//! Packing for the AVX-512 tile: pairs of codes along the depth, and quads of their upper digits.

#![expect(
    clippy::needless_range_loop,
    reason = "counted loops are unrolled, vectors stay registers"
)]

use std::arch::x86_64::*;

use super::finish::WIDTH_MAX;
use super::micro::{Packed, Panel, Side};
use super::plan::{DEPTH_UNIT, SumKind};

const LANES: usize = 16;

/// Pairs along 32 depth of 16 rows: lane r of vector t holds depth `2t` and `2t + 1` of row r.
type Pairs = [__m512i; 16];

/// Packs a panel, see [`super::micro::Micro::pack`].
///
/// # Safety
/// As there.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) unsafe fn pack(panel: &Panel<'_>, packed: Packed) {
    let depth = panel.operand.depth;
    let block = panel.kind.block();
    let mut sums = [_mm512_setzero_si512(); WIDTH_MAX / LANES];
    // Depth first: where rows lie across it, both groups are in the same lines.
    for start in (0..depth).step_by(DEPTH_UNIT) {
        for group in (0..panel.width).step_by(LANES) {
            let rows = panel.rows.saturating_sub(group).min(LANES);
            let sum = &mut sums[group / LANES];
            // SAFETY: the caller's promises; whole units of depth have room.
            unsafe {
                let pairs = load(panel, panel.first + group, rows, start);
                if panel.kind != SumKind::Byte {
                    store_words(
                        panel.width,
                        pairs,
                        packed.words.add(start / 2 * panel.width + group),
                    );
                }
                if panel.kind != SumKind::Mixed {
                    let to = packed.high.add(start / 4 * panel.width + group);
                    *sum = store_high(panel, pairs, to, *sum);
                }
                let end = start + DEPTH_UNIT;
                if panel.side == Side::B && (end.is_multiple_of(block) || end >= depth) {
                    let start_sums =
                        _mm512_slli_epi32::<7>(_mm512_sub_epi32(_mm512_setzero_si512(), *sum));
                    let to = packed.sums.add(start / block * panel.width + group);
                    _mm512_storeu_si512(to.cast(), start_sums);
                    *sum = _mm512_setzero_si512();
                }
            }
        }
    }
}

/// 32 depth of up to 16 rows from `start` on, zeros beyond the operand.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn load(panel: &Panel<'_>, first: usize, rows: usize, start: usize) -> Pairs {
    let operand = panel.operand;
    let depth = (operand.depth - start).min(DEPTH_UNIT);
    let at = |row: usize, k: usize| {
        // SAFETY: inside the codes, as the caller of `pack` promises.
        unsafe {
            operand
                .q
                .as_ptr()
                .add((first + row) * operand.row_stride + (start + k) * operand.depth_stride)
        }
    };
    // Loops, not `array::from_fn`: closures of this instruction set are not inlined into it.
    let mut lanes = [_mm512_setzero_si512(); LANES];
    // SAFETY: masks keep loads to the `rows` and the `depth` that are there.
    unsafe {
        if operand.depth_stride == 1 {
            let mask = u32::MAX >> (DEPTH_UNIT - depth);
            for r in 0..rows {
                lanes[r] = _mm512_maskz_loadu_epi16(mask, at(r, 0));
            }
            transpose_lanes(lanes)
        } else if operand.row_stride == 1 && rows > 0 {
            let mask = u16::MAX >> (LANES - rows);
            for t in 0..depth.div_ceil(2) {
                let even = _mm256_maskz_loadu_epi16(mask, at(0, 2 * t));
                lanes[t] = _mm512_cvtepu16_epi32(even);
                if 2 * t + 1 < depth {
                    let odd = _mm256_maskz_loadu_epi16(mask, at(0, 2 * t + 1));
                    let odd = _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(odd));
                    lanes[t] = _mm512_or_si512(lanes[t], odd);
                }
            }
            lanes
        } else {
            let mut codes = [[0i16; DEPTH_UNIT]; LANES];
            for (r, codes) in codes.iter_mut().enumerate().take(rows) {
                for (k, code) in codes.iter_mut().enumerate().take(depth) {
                    *code = *at(r, k);
                }
            }
            for (lanes, codes) in lanes.iter_mut().zip(&codes) {
                *lanes = _mm512_loadu_si512(codes.as_ptr().cast());
            }
            transpose_lanes(lanes)
        }
    }
}

/// Transposes 16 by 16 lanes.
#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) fn transpose_lanes(rows: [__m512i; 16]) -> Pairs {
    let mut lanes = rows;
    // Neighbours trade lanes, then pairs of lanes, within each 128 bits: after both, vector
    // `4 g + c` has column `4 b + c` of rows `4 g..4 g + 4` in its 128-bit block b.
    for i in (0..16).step_by(2) {
        let (a, b) = (lanes[i], lanes[i + 1]);
        lanes[i] = _mm512_unpacklo_epi32(a, b);
        lanes[i + 1] = _mm512_unpackhi_epi32(a, b);
    }
    for g in (0..16).step_by(4) {
        let [a, b, c, d] = [lanes[g], lanes[g + 1], lanes[g + 2], lanes[g + 3]];
        lanes[g] = _mm512_unpacklo_epi64(a, c);
        lanes[g + 1] = _mm512_unpackhi_epi64(a, c);
        lanes[g + 2] = _mm512_unpacklo_epi64(b, d);
        lanes[g + 3] = _mm512_unpackhi_epi64(b, d);
    }
    // Blocks: those of even and of odd number of each half of the rows, then both halves.
    let mut out = lanes;
    for c in 0..4 {
        let [a, b, d, e] = [lanes[c], lanes[4 + c], lanes[8 + c], lanes[12 + c]];
        let even = _mm512_shuffle_i32x4::<0b10_00_10_00>(a, b);
        let odd = _mm512_shuffle_i32x4::<0b11_01_11_01>(a, b);
        let even_below = _mm512_shuffle_i32x4::<0b10_00_10_00>(d, e);
        let odd_below = _mm512_shuffle_i32x4::<0b11_01_11_01>(d, e);
        out[c] = _mm512_shuffle_i32x4::<0b10_00_10_00>(even, even_below);
        out[4 + c] = _mm512_shuffle_i32x4::<0b10_00_10_00>(odd, odd_below);
        out[8 + c] = _mm512_shuffle_i32x4::<0b11_01_11_01>(even, even_below);
        out[12 + c] = _mm512_shuffle_i32x4::<0b11_01_11_01>(odd, odd_below);
    }
    out
}

/// Stores pairs `width` lanes apart. Lanes past a narrow panel are written over by what follows.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn store_words(width: usize, pairs: Pairs, to: *mut i32) {
    for (t, pair) in pairs.into_iter().enumerate() {
        // SAFETY: the caller's promise of room.
        unsafe { _mm512_storeu_si512(to.add(t * width).cast(), pair) }
    }
}

/// Stores a digit of each code, 4 depth a lane, and returns `sum` plus the digits of each lane.
///
/// The order of depth within a lane is 0, 2, 1, 3: the same for both sides.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn store_high(panel: &Panel<'_>, pairs: Pairs, to: *mut i32, sum: __m512i) -> __m512i {
    let mut sum = sum;
    let (half, lower) = (_mm512_set1_epi16(128), _mm512_set1_epi16(0xff));
    let (ones, sign) = (_mm512_set1_epi8(1), _mm512_set1_epi8(i8::MIN));
    for t in 0..8 {
        let (a, b) = (pairs[2 * t], pairs[2 * t + 1]);
        let digits = if panel.kind == SumKind::Byte {
            _mm512_or_si512(_mm512_and_si512(a, lower), _mm512_slli_epi16::<8>(b))
        } else {
            let (a, b) = (_mm512_add_epi16(a, half), _mm512_add_epi16(b, half));
            _mm512_or_si512(_mm512_srli_epi16::<8>(a), _mm512_andnot_si512(lower, b))
        };
        let digits = match panel.side {
            Side::A => _mm512_xor_si512(digits, sign),
            Side::B => {
                sum = _mm512_dpbusd_epi32(sum, ones, digits);
                digits
            }
        };
        // SAFETY: the caller's promise of room.
        unsafe { _mm512_storeu_si512(to.add(t * panel.width).cast(), digits) }
    }
    sum
}
