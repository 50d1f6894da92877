//! Transposition of square tiles of codes.

use crate::isa::Isa;

/// Rows and columns of a tile.
pub(super) const SIDE: usize = 32;

/// Codes by rows.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(super) struct Tile(pub(super) [[i16; SIDE]; SIDE]);

impl Tile {
    /// A tile of zeros.
    pub(super) const ZERO: Self = Self([[0; SIDE]; SIDE]);
}

/// Writes column c of the first `tall` rows of a tile at `q[c * stride + top]`, for as many columns
/// as `q` has.
pub(super) fn store_transposed(
    isa: Isa,
    tile: &Tile,
    tall: usize,
    stride: usize,
    top: usize,
    q: &mut [i16],
) {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 if tall == SIDE && isa.is_available() => {
            // SAFETY: the machine has the instruction set.
            let columns = unsafe { avx512::transposed(tile) };
            for (column, q) in columns.0.iter().zip(q.chunks_exact_mut(stride)) {
                q[top..top + SIDE].copy_from_slice(column);
            }
        }
        _ => {
            for (c, q) in q.chunks_exact_mut(stride).enumerate() {
                for (q, row) in q[top..top + tall].iter_mut().zip(&tile.0) {
                    *q = row[c];
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::*;

    use super::{SIDE, Tile};
    use crate::cpu::matmul::transpose_lanes;

    /// The columns of a tile.
    #[target_feature(enable = "avx512f,avx512bw")]
    pub(super) fn transposed(tile: &Tile) -> Tile {
        let mut columns = Tile::ZERO;
        for half in 0..2 {
            // Pairs along the columns become lanes, and lanes are transposed.
            let mut pairs = [_mm512_setzero_si512(); SIDE / 2];
            for (pair, rows) in pairs.iter_mut().zip(tile.0.as_chunks::<2>().0) {
                let [even, odd] = [&rows[0], &rows[1]].map(|row| row[half * SIDE / 2..].as_ptr());
                // SAFETY: half a row is 16 codes.
                let (even, odd) = unsafe {
                    (
                        _mm256_loadu_si256(even.cast()),
                        _mm256_loadu_si256(odd.cast()),
                    )
                };
                let odd = _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(odd));
                *pair = _mm512_or_si512(_mm512_cvtepu16_epi32(even), odd);
            }
            for (c, lanes) in transpose_lanes(pairs).into_iter().enumerate() {
                let to = columns.0[half * SIDE / 2 + c].as_mut_ptr();
                // SAFETY: a column is 32 codes.
                unsafe { _mm512_storeu_si512(to.cast(), lanes) }
            }
        }
        columns
    }
}
