//! Dot products by AVX-512 VNNI, for few rows of A: B is read once, where it lies.
//!
//! The sums are those of [`super::plan`], a pair of them in each lane: a block may be 16 times as
//! deep. A's rows are copied once beside their upper digits, which are signed here; those of B are
//! made on the way, with 128 added.

#![expect(
    clippy::needless_range_loop,
    reason = "counted loops are unrolled, sums stay registers"
)]

use std::arch::x86_64::*;
use std::cell::Cell;
use std::ops::Range;

use super::avx512::add_pairs;
use super::lanes::{OUTPUTS, add_lanes};
use super::lines::{CacheLine, grow};
use super::plan::SumKind;
use super::task::{self, First, GemmTask, TaskOutput, Tasks};
use crate::coded::Operand;
use crate::cpu::Cpu;
use crate::math::pow2_f64;

/// Depth of a step: two vectors of codes, one of digits.
const STEP: usize = 64;
/// Depth of a block: 256 products a lane, as [`SumKind::Wide`] allows.
const BLOCK: usize = 4096;
const STEPS_PER_BLOCK: usize = BLOCK / STEP;

thread_local! {
    static ROWS: Cell<Vec<CacheLine>> = const { Cell::new(Vec::new()) };
}

/// Rows of A as they are read: the codes, then the digits, then what each block's sums start with.
#[derive(Clone, Copy)]
struct Rows<'a> {
    lines: &'a [CacheLine],
    /// `2^exp` of each.
    scales: &'a [f64],
    steps: usize,
    blocks: usize,
}

impl Rows<'_> {
    fn lines_per_row(steps: usize, blocks: usize) -> usize {
        3 * steps + blocks
    }

    /// CacheLine `i` of part 0, 1 or 2 of a row.
    #[inline(always)]
    fn line(&self, row: usize, part: usize, i: usize) -> *const CacheLine {
        let before = [0, 2 * self.steps, 3 * self.steps][part];
        let at = row * Self::lines_per_row(self.steps, self.blocks) + before + i;
        debug_assert!(at < self.lines.len());
        self.lines.as_ptr().wrapping_add(at)
    }
}

/// The product, see [`super::matmul`].
///
/// # Safety
/// The machine has AVX-512 VNNI; the strides stay within the codes, B's depth stride being 1;
/// `output` has `a.rows` by `b.rows` elements that nobody else writes.
pub(super) unsafe fn matmul(
    cpu: Option<&Cpu>,
    a: &Operand<'_>,
    b: &Operand<'_>,
    output: TaskOutput<'_>,
) {
    let (steps, blocks) = (a.depth.div_ceil(STEP), a.depth.div_ceil(BLOCK));
    let mut buffer = ROWS.take();
    let lines = grow(
        &mut buffer,
        a.rows * Rows::lines_per_row(steps, blocks),
        CacheLine::ZERO,
    );
    // SAFETY: the caller's promises.
    unsafe { copy_rows(a, lines, steps, blocks) };
    let scales: Vec<f64> = (0..a.rows).map(|row| scale(a, row)).collect();
    let rows = Rows {
        lines,
        scales: &scales,
        steps,
        blocks,
    };
    let is_wide = SumKind::new(a.precision, b.precision) == SumKind::Wide;
    let work = task::work(a.rows, b.rows, a.depth);
    task::run(
        cpu,
        (First::Columns, Tasks::Many),
        (a.rows, a.rows),
        (b.rows, COLS),
        work,
        |task| {
            // SAFETY: as above; tasks do not overlap.
            unsafe {
                if is_wide {
                    run_task::<true>(&rows, b, &task, &output);
                } else {
                    run_task::<false>(&rows, b, &task, &output);
                }
            }
        },
    );
    ROWS.set(buffer);
}

/// Copies the rows of A.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn copy_rows(a: &Operand<'_>, lines: &mut [CacheLine], steps: usize, blocks: usize) {
    let (half, lower) = (_mm512_set1_epi16(128), _mm512_set1_epi16(0xff));
    let per_row = Rows::lines_per_row(steps, blocks);
    for (row, lines) in lines.chunks_exact_mut(per_row).enumerate() {
        let (codes, rest) = lines.split_at_mut(2 * steps);
        let (digits, starts) = rest.split_at_mut(steps);
        for (k, code) in codes.iter_mut().flat_map(CacheLine::codes_mut).enumerate() {
            let at = row * a.row_stride + k * a.depth_stride;
            *code = if k < a.depth { a.q[at] } else { 0 };
        }
        for (block, start) in starts.iter_mut().enumerate() {
            let mut sum = _mm512_setzero_si512();
            let last = steps.min((block + 1) * STEPS_PER_BLOCK);
            for step in block * STEPS_PER_BLOCK..last {
                let low = _mm512_add_epi16(codes[2 * step].load(), half);
                let high = _mm512_add_epi16(codes[2 * step + 1].load(), half);
                let both = _mm512_or_si512(
                    _mm512_srli_epi16::<8>(low),
                    _mm512_andnot_si512(lower, high),
                );
                digits[step].store(both);
                sum = _mm512_dpbusd_epi32(sum, _mm512_set1_epi8(1), both);
            }
            let zero = _mm512_setzero_si512();
            start.store(_mm512_slli_epi32::<7>(_mm512_sub_epi32(zero, sum)));
        }
    }
}

/// Most columns that are summed together.
const COLS: usize = 4;
/// Most rows that are summed together.
const ROWS_MAX: usize = 4;

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn run_task<const IS_WIDE: bool>(
    rows: &Rows<'_>,
    b: &Operand<'_>,
    task: &GemmTask,
    output: &TaskOutput<'_>,
) {
    // 16 registers of sums at most; with fewer rows, more streams of B at a time.
    let together = if task.rows.len() <= 2 { COLS } else { COLS / 2 };
    for cols in parts(&task.cols, B_COLS) {
        for rows_now in parts(&task.rows, A_ROWS) {
            for cols in parts(&cols, together) {
                let columns = Columns::new(b, &cols);
                for few in parts(&rows_now, ROWS_MAX) {
                    macro_rules! by_size {
                        ($(($rows:literal, $cols:literal))*) => {
                            match (few.len(), cols.len()) {
                                $(
                                    // SAFETY: the caller's promises; these rows and columns exist,
                                    // and their outputs are this task's.
                                    ($rows, $cols) => unsafe {
                                        let row = few.start;
                                        fill::<$rows, $cols, IS_WIDE>(rows, &columns, row, output)
                                    },
                                )*
                                (rows, cols) => unreachable!("{rows} rows by {cols} columns"),
                            }
                        };
                    }
                    by_size!(
                        (1, 1)(1, 2)(1, 3)(1, 4)(2, 1)(2, 2)(2, 3)(2, 4)(3, 1)(3, 2)(4, 1)(4, 2)
                    );
                }
            }
        }
    }
}

/// Rows of A that stay in the first cache, and columns of B that stay in the second, while they
/// meet.
const A_ROWS: usize = 16;
const B_COLS: usize = 64;

/// A range in parts of at most `most`.
fn parts(range: &Range<usize>, most: usize) -> impl Iterator<Item = Range<usize>> + use<> {
    let end = range.end;
    let part = move |start: usize| start..end.min(start + most);
    range.clone().step_by(most).map(part)
}

/// Some columns of the output: rows of B.
struct Columns<'a> {
    b: &'a Operand<'a>,
    first: usize,
    /// `2^exp` of each.
    scales: [f64; COLS],
    /// The last step of each, filled with zeros, where it is not whole.
    tail: [[i16; STEP]; COLS],
}

impl<'a> Columns<'a> {
    fn new(b: &'a Operand<'a>, cols: &Range<usize>) -> Self {
        let (mut scales, mut tail) = ([1.0; COLS], [[0; STEP]; COLS]);
        let rest = b.depth % STEP;
        for (n, col) in cols.clone().enumerate() {
            scales[n] = scale(b, col);
            if rest > 0 {
                let start = col * b.row_stride + b.depth - rest;
                tail[n][..rest].copy_from_slice(&b.q[start..start + rest]);
            }
        }
        Self {
            b,
            first: cols.start,
            scales,
            tail,
        }
    }

    /// Where `N` columns stand from a step on, which is whole or the last.
    #[inline(always)]
    fn at<const N: usize>(&self, step: usize, is_whole: bool) -> [*const i16; N] {
        let mut at = [self.b.q.as_ptr(); N];
        for n in 0..N {
            let start = (self.first + n) * self.b.row_stride + step * STEP;
            at[n] = if is_whole {
                self.b.q.as_ptr().wrapping_add(start)
            } else {
                self.tail[n].as_ptr()
            };
        }
        at
    }
}

fn scale(operand: &Operand<'_>, row: usize) -> f64 {
    operand.exp.get(row).map_or(1.0, |&e| pow2_f64(e))
}

/// Where the codes and the digits of `R` rows of A stand from a step on.
#[inline(always)]
fn lines_from<const R: usize>(
    rows: &Rows<'_>,
    row: usize,
    step: usize,
) -> ([*const CacheLine; R], [*const CacheLine; R]) {
    let mut codes = [rows.line(row, 0, 2 * step); R];
    let mut digits = [rows.line(row, 1, step); R];
    for r in 0..R {
        codes[r] = rows.line(row + r, 0, 2 * step);
        digits[r] = rows.line(row + r, 1, step);
    }
    (codes, digits)
}

/// The outputs of `R` rows by the first `N` columns.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn fill<const R: usize, const N: usize, const IS_WIDE: bool>(
    rows: &Rows<'_>,
    columns: &Columns<'_>,
    row: usize,
    output: &TaskOutput<'_>,
) {
    // SAFETY: the caller's promises.
    let totals = unsafe { sums::<R, N, IS_WIDE>(rows, columns, row) };
    for r in 0..R {
        let a_scale = rows.scales[row + r];
        // SAFETY: the caller's promise.
        let out = unsafe { output.row(row + r, columns.first, N) };
        for n in 0..N {
            out[n] = (totals[r * N + n] * a_scale * columns.scales[n]) as f32;
        }
    }
}

/// The exact sums of `R` rows with the first `N` columns, row by row.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn sums<const R: usize, const N: usize, const IS_WIDE: bool>(
    rows: &Rows<'_>,
    columns: &Columns<'_>,
    row: usize,
) -> [f64; OUTPUTS] {
    let b = columns.b;
    let mut totals = [0.0; OUTPUTS];
    let zero = _mm512_setzero_si512();
    let (half, lower) = (_mm512_set1_epi16(128), _mm512_set1_epi16(0xff));
    let sign = _mm512_set1_epi8(i8::MIN);
    let whole = b.depth / STEP;
    let next = N * b.row_stride;
    let mut first_step = 0;
    while first_step < rows.steps {
        let block_end = (first_step / STEPS_PER_BLOCK + 1) * STEPS_PER_BLOCK;
        let (mut low, mut high) = ([[zero; N]; R], [[zero; N]; R]);
        if IS_WIDE {
            for r in 0..R {
                // SAFETY: a line of the row's third part.
                high[r] =
                    [unsafe { (*rows.line(row + r, 2, first_step / STEPS_PER_BLOCK)).load() }; N];
            }
        }
        while first_step < block_end.min(rows.steps) {
            let is_whole = first_step < whole;
            let end = if is_whole {
                whole.min(block_end)
            } else {
                rows.steps
            };
            let at = columns.at::<N>(first_step, is_whole);
            let (codes, digits) = lines_from::<R>(rows, row, first_step);
            for step in 0..end - first_step {
                for n in 0..N {
                    // SAFETY: whole steps lie within the codes; lines are those of a row.
                    unsafe {
                        let first = _mm512_loadu_si512(at[n].add(step * STEP).cast());
                        let second = _mm512_loadu_si512(at[n].add(step * STEP + STEP / 2).cast());
                        _mm_prefetch::<_MM_HINT_T1>(at[n].wrapping_add(step * STEP + next).cast());
                        _mm_prefetch::<_MM_HINT_T1>(
                            at[n].wrapping_add(step * STEP + next + 32).cast(),
                        );
                        for r in 0..R {
                            let codes = codes[r].add(2 * step);
                            low[r][n] = add_pairs(low[r][n], (*codes).load(), first);
                            low[r][n] = add_pairs(low[r][n], (*codes.add(1)).load(), second);
                        }
                        if IS_WIDE {
                            let first = _mm512_srli_epi16::<8>(_mm512_add_epi16(first, half));
                            let second = _mm512_andnot_si512(lower, _mm512_add_epi16(second, half));
                            let upper = _mm512_xor_si512(_mm512_or_si512(first, second), sign);
                            for r in 0..R {
                                let row = (*digits[r].add(step)).load();
                                high[r][n] = _mm512_dpbusd_epi32(high[r][n], upper, row);
                            }
                        }
                    }
                }
            }
            first_step = end;
        }
        add_lanes(&mut totals, &low, &high);
    }
    totals
}
