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

use super::avx512::add_pairs;
use super::job::{self, First, Job, Output};
use super::lines::{Line, grow};
use super::plan::Kind;
use crate::coded::Operand;
use crate::cpu::Cpu;
use crate::math::pow2_f64;

/// Depth of a step: two vectors of codes, one of digits.
const STEP: usize = 64;
/// Depth of a block: 256 products a lane, as [`Kind::Wide`] allows.
const BLOCK: usize = 4096;
const STEPS_PER_BLOCK: usize = BLOCK / STEP;

thread_local! {
    static ROWS: Cell<Vec<Line>> = const { Cell::new(Vec::new()) };
}

/// Rows of A as they are read: the codes, then the digits, then what each block's sums start with.
#[derive(Clone, Copy)]
struct Rows<'a> {
    lines: &'a [Line],
    steps: usize,
    blocks: usize,
}

impl Rows<'_> {
    fn lines_per_row(steps: usize, blocks: usize) -> usize {
        3 * steps + blocks
    }

    /// Line `i` of part 0, 1 or 2 of a row.
    #[inline(always)]
    fn line(&self, row: usize, part: usize, i: usize) -> *const Line {
        let before = [0, 2 * self.steps, 3 * self.steps][part];
        let at = row * Self::lines_per_row(self.steps, self.blocks) + before + i;
        debug_assert!(at < self.lines.len());
        self.lines.as_ptr().wrapping_add(at)
    }
}

/// The product, see [`super::gemm`].
///
/// # Safety
/// The machine has AVX-512 VNNI; the strides stay within the codes, B's depth stride being 1; `out`
/// has `a.rows * b.rows` elements.
pub(super) unsafe fn gemm(cpu: Option<&Cpu>, a: &Operand<'_>, b: &Operand<'_>, out: &mut [f32]) {
    let output = Output::new(out, b.rows);
    let (steps, blocks) = (a.depth.div_ceil(STEP), a.depth.div_ceil(BLOCK));
    let mut buffer = ROWS.take();
    let lines = grow(
        &mut buffer,
        a.rows * Rows::lines_per_row(steps, blocks),
        Line::ZERO,
    );
    // SAFETY: the caller's promises.
    unsafe { copy_rows(a, lines, steps, blocks) };
    let rows = Rows {
        lines,
        steps,
        blocks,
    };
    let is_wide = Kind::new(a.precision, b.precision) == Kind::Wide;
    let work = job::work(a.rows, b.rows, a.depth);
    job::run(
        cpu,
        First::Columns,
        (a.rows, a.rows),
        (b.rows, COLS),
        work,
        |job| {
            // SAFETY: as above; jobs do not overlap.
            unsafe {
                if is_wide {
                    run_job::<true>(&rows, a, b, &job, &output);
                } else {
                    run_job::<false>(&rows, a, b, &job, &output);
                }
            }
        },
    );
    ROWS.set(buffer);
}

/// Copies the rows of A.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn copy_rows(a: &Operand<'_>, lines: &mut [Line], steps: usize, blocks: usize) {
    let (half, lower) = (_mm512_set1_epi16(128), _mm512_set1_epi16(0xff));
    let per_row = Rows::lines_per_row(steps, blocks);
    for (row, lines) in lines.chunks_exact_mut(per_row).enumerate() {
        let (codes, rest) = lines.split_at_mut(2 * steps);
        let (digits, starts) = rest.split_at_mut(steps);
        for (k, code) in codes.iter_mut().flat_map(Line::codes_mut).enumerate() {
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
unsafe fn run_job<const IS_WIDE: bool>(
    rows: &Rows<'_>,
    a: &Operand<'_>,
    b: &Operand<'_>,
    job: &Job,
    output: &Output<'_>,
) {
    // 16 registers of sums at most; with fewer rows, more streams of B at a time.
    let together = if job.rows.len() <= 2 { COLS } else { COLS / 2 };
    for col in job.cols.clone().step_by(together) {
        let cols = (job.cols.end - col).min(together);
        let tail = Tail::new(b, col, cols);
        for row in job.rows.clone().step_by(ROWS_MAX) {
            let count = (job.rows.end - row).min(ROWS_MAX);
            macro_rules! by_size {
                ($(($rows:literal, $cols:literal))*) => {
                    match (count, cols) {
                        $(
                            // SAFETY: the caller's promises; these rows and columns exist.
                            ($rows, $cols) => unsafe {
                                sums::<$rows, $cols, IS_WIDE>(rows, b, &tail, row, col)
                            },
                        )*
                        _ => unreachable!("{count} rows by {cols} columns"),
                    }
                };
            }
            let sums =
                by_size!((1, 1)(1, 2)(1, 3)(1, 4)(2, 1)(2, 2)(2, 3)(2, 4)(3, 1)(3, 2)(4, 1)(4, 2));
            for (r, sums) in sums.iter().enumerate().take(count) {
                // SAFETY: the outputs are this job's.
                let out = unsafe { output.row(row + r, col, cols) };
                let a_scale = scale(a, row + r);
                for (n, (out, &sum)) in out.iter_mut().zip(sums).enumerate() {
                    *out = (sum as f64 * a_scale * scale(b, col + n)) as f32;
                }
            }
        }
    }
}

/// The last step of some columns, where it is not whole, filled with zeros.
struct Tail([[i16; STEP]; COLS]);

impl Tail {
    fn new(b: &Operand<'_>, col: usize, cols: usize) -> Self {
        let mut tail = [[0; STEP]; COLS];
        let rest = b.depth % STEP;
        for (n, tail) in tail.iter_mut().enumerate().take(cols).filter(|_| rest > 0) {
            let start = (col + n) * b.row_stride + b.depth - rest;
            tail[..rest].copy_from_slice(&b.q[start..start + rest]);
        }
        Self(tail)
    }
}

fn scale(operand: &Operand<'_>, row: usize) -> f64 {
    operand.exp.get(row).map_or(1.0, |&e| pow2_f64(e))
}

/// Where `N` columns stand from a step on, or the tail that replaces them.
#[inline(always)]
fn columns<const N: usize>(
    b: &Operand<'_>,
    tail: Option<&Tail>,
    col: usize,
    step: usize,
) -> [*const i16; N] {
    let mut at = [b.q.as_ptr(); N];
    for n in 0..N {
        let start = (col + n) * b.row_stride + step * STEP;
        at[n] = match tail {
            None => b.q.as_ptr().wrapping_add(start),
            Some(tail) => tail.0[n].as_ptr(),
        };
    }
    at
}

/// Where the codes and the digits of `R` rows of A stand from a step on.
#[inline(always)]
fn lines_from<const R: usize>(
    rows: &Rows<'_>,
    row: usize,
    step: usize,
) -> ([*const Line; R], [*const Line; R]) {
    let mut codes = [rows.line(row, 0, 2 * step); R];
    let mut digits = [rows.line(row, 1, step); R];
    for r in 0..R {
        codes[r] = rows.line(row + r, 0, 2 * step);
        digits[r] = rows.line(row + r, 1, step);
    }
    (codes, digits)
}

/// The exact sums of `R` rows with `N` columns.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn sums<const R: usize, const N: usize, const IS_WIDE: bool>(
    rows: &Rows<'_>,
    b: &Operand<'_>,
    tail: &Tail,
    row: usize,
    col: usize,
) -> [[i64; COLS]; ROWS_MAX] {
    let mut totals = [[0i64; COLS]; ROWS_MAX];
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
            let at = columns::<N>(b, if is_whole { None } else { Some(tail) }, col, first_step);
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
        for r in 0..R {
            for n in 0..N {
                totals[r][n] += total(low[r][n], high[r][n]);
            }
        }
    }
    totals
}

/// The sum over lanes of `high * 2^16 + i32(low - high * 2^16)`.
#[inline]
#[target_feature(enable = "avx512f")]
fn total(low: __m512i, high: __m512i) -> i64 {
    let rest = _mm512_sub_epi32(low, _mm512_slli_epi32::<16>(high));
    let high = _mm512_add_epi32(high, _mm512_srai_epi32::<16>(rest));
    let low = _mm512_and_si512(low, _mm512_set1_epi32(0xffff));
    (i64::from(_mm512_reduce_add_epi32(high)) << 16) + i64::from(_mm512_reduce_add_epi32(low))
}
