//! Packing for the AVX-512 tile: pairs of codes along the depth, and quads of their upper digits.

use std::arch::x86_64::*;

use super::plan::{DEPTH_UNIT, Kind, Packed, Panel, Side};

const LANES: usize = 16;

/// Pairs along 32 depth of 16 rows: lane r of vector t holds depth `2t` and `2t + 1` of row r.
type Pairs = [__m512i; 16];

/// Packs a panel, see [`super::plan::Micro::pack`].
///
/// # Safety
/// As there.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) unsafe fn pack(panel: &Panel<'_>, packed: Packed) {
    let depth = panel.operand.depth;
    let block = panel.kind.block();
    for group in (0..panel.width).step_by(LANES) {
        let rows = panel.rows.saturating_sub(group).min(LANES);
        let mut sum = _mm512_setzero_si512();
        for start in (0..depth).step_by(DEPTH_UNIT) {
            // SAFETY: the caller's promises; whole units of depth have room.
            unsafe {
                let pairs = load(panel, panel.first + group, rows, start);
                if panel.kind != Kind::Byte {
                    store_words(
                        panel.width,
                        pairs,
                        packed.words.add(start / 2 * panel.width + group),
                    );
                }
                if panel.kind != Kind::Mixed {
                    let to = packed.high.add(start / 4 * panel.width + group);
                    sum = store_high(panel, pairs, to, sum);
                }
                let end = start + DEPTH_UNIT;
                if panel.side == Side::B && (end.is_multiple_of(block) || end >= depth) {
                    let start_sums =
                        _mm512_slli_epi32::<7>(_mm512_sub_epi32(_mm512_setzero_si512(), sum));
                    let to = packed.sums.add(start / block * panel.width + group);
                    _mm512_storeu_si512(to.cast(), start_sums);
                    sum = _mm512_setzero_si512();
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
    // SAFETY: masks keep loads to the `rows` and the `depth` that are there.
    unsafe {
        if operand.depth_stride == 1 {
            let mask = u32::MAX >> (32 - depth);
            transpose_lanes(std::array::from_fn(|r| {
                if r < rows {
                    _mm512_maskz_loadu_epi16(mask, at(r, 0))
                } else {
                    _mm512_setzero_si512()
                }
            }))
        } else if operand.row_stride == 1 {
            let mask = (u32::MAX >> (16 - rows.min(16))) as u16;
            let row = |k: usize| {
                if k < depth && rows > 0 {
                    _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, at(0, k)))
                } else {
                    _mm512_setzero_si512()
                }
            };
            std::array::from_fn(|t| {
                _mm512_or_si512(row(2 * t), _mm512_slli_epi32::<16>(row(2 * t + 1)))
            })
        } else {
            let mut codes = [[0i16; DEPTH_UNIT]; LANES];
            for (r, codes) in codes.iter_mut().enumerate().take(rows) {
                codes
                    .iter_mut()
                    .enumerate()
                    .take(depth)
                    .for_each(|(k, code)| *code = *at(r, k));
            }
            transpose_lanes(std::array::from_fn(|r| {
                _mm512_loadu_si512(codes[r].as_ptr().cast())
            }))
        }
    }
}

/// Transposes 16 by 16 lanes.
#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) fn transpose_lanes(rows: [__m512i; 16]) -> Pairs {
    // Pairs, then quads of rows, within each 128 bits; then 128-bit blocks, twice.
    let twos: [__m512i; 16] = std::array::from_fn(|i| {
        let (a, b) = (rows[i / 2 * 2], rows[i / 2 * 2 + 1]);
        if i % 2 == 0 {
            _mm512_unpacklo_epi32(a, b)
        } else {
            _mm512_unpackhi_epi32(a, b)
        }
    });
    // fours[4g + c]: depth 4b + c of rows 4g..4g+4, b being the 128-bit block.
    let fours: [__m512i; 16] = std::array::from_fn(|i| {
        let (a, b) = (twos[i / 4 * 4 + i % 4 / 2], twos[i / 4 * 4 + i % 4 / 2 + 2]);
        if i % 2 == 0 {
            _mm512_unpacklo_epi64(a, b)
        } else {
            _mm512_unpackhi_epi64(a, b)
        }
    });
    // eights[8h + 4o + c]: rows 8h..8h+8; blocks 0 and 2 (o = 0) or 1 and 3 (o = 1) of each half.
    let eights: [__m512i; 16] = std::array::from_fn(|i| {
        let (half, odd, c) = (i / 8, i / 4 % 2, i % 4);
        let (a, b) = (fours[8 * half + c], fours[8 * half + 4 + c]);
        if odd == 0 {
            _mm512_shuffle_i32x4::<0b10_00_10_00>(a, b)
        } else {
            _mm512_shuffle_i32x4::<0b11_01_11_01>(a, b)
        }
    });
    std::array::from_fn(|t| {
        let (block, c) = (t / 4, t % 4);
        let (a, b) = (eights[4 * (block % 2) + c], eights[8 + 4 * (block % 2) + c]);
        if block < 2 {
            _mm512_shuffle_i32x4::<0b10_00_10_00>(a, b)
        } else {
            _mm512_shuffle_i32x4::<0b11_01_11_01>(a, b)
        }
    })
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
        let digits = if panel.kind == Kind::Byte {
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
