//! Blocks decoded into registers and multiplied there, by AVX-512 VNNI, for few rows of A: the
//! blocks are read once, and nothing is written but the outputs.

use std::arch::x86_64::*;
use std::cell::Cell;
use std::mem::MaybeUninit;
use std::ops::Range;

use super::super::avx512::add_pairs;
use super::super::lines::CacheLine;
use super::super::task::{self, First, TaskOutput};
use super::blocks::{Bf16, Blocks, F16, Nf4, Q4_0, Q4K, Q6K, Q8_0};
use super::rows::{DEPTH, DigitRows, RUN};
use crate::coded::Operand;
use crate::cpu::Cpu;
use crate::isa::Isa;
use crate::math::pow2_f64;
use crate::packed::{BlockFormat, PackedRows};
use crate::reference::code::POISON;

/// Rows of A that are multiplied at a time: 16 registers of sums.
const ROWS: usize = 8;
/// Rows of A up to which decoding the blocks again costs less than writing codes.
const ROWS_MAX: usize = 16;
/// Depth up to which all sums are integers that f64 holds.
const DEPTH_MAX: usize = 1 << 22;

thread_local! {
    // Taken out while in use, as a thread that waits for the pool may take up other work.
    static DIGITS: Cell<Vec<CacheLine>> = const { Cell::new(Vec::new()) };
}

/// Whether the product was one for this path: few rows of A, a format that it decodes, a machine
/// with AVX-512 that is to be used.
pub(super) fn matmul(cpu: &Cpu, a: &Operand<'_>, w: &PackedRows, output: TaskOutput<'_>) -> bool {
    let suits = cpu.isa() == Isa::Avx512
        && cpu.isa().is_available()
        && a.rows <= ROWS_MAX
        && a.depth <= DEPTH_MAX
        && a.depth_stride == 1
        && w.is_plain();
    let by_format = match w.format() {
        BlockFormat::F16 => by_blocks::<F16>,
        BlockFormat::Bf16 => by_blocks::<Bf16>,
        BlockFormat::Q8_0 => by_blocks::<Q8_0>,
        BlockFormat::Q4_0 => by_blocks::<Q4_0>,
        BlockFormat::Q4K => by_blocks::<Q4K>,
        BlockFormat::Q6K => by_blocks::<Q6K>,
        BlockFormat::Nf4 => by_blocks::<Nf4>,
        _ => return false,
    };
    if !suits {
        return false;
    }
    let mut first = 0;
    while first < a.rows {
        // As equal as can be.
        let count = (a.rows - first).div_ceil((a.rows - first).div_ceil(ROWS));
        // SAFETY: the machine has AVX-512 VNNI; sizes and strides have been checked.
        unsafe { by_format(cpu, a, first, count, w, output) };
        first += count;
    }
    true
}

/// The codes of the numbers `cols` of a row, which are whole blocks of the format; false where they
/// are not for this path.
pub(super) fn codes(
    isa: Isa,
    w: &PackedRows,
    row: usize,
    cols: &Range<usize>,
    q: &mut [i16],
) -> bool {
    let by_format = match w.format() {
        BlockFormat::F16 => codes_by::<F16>,
        BlockFormat::Bf16 => codes_by::<Bf16>,
        BlockFormat::Q8_0 => codes_by::<Q8_0>,
        BlockFormat::Q4_0 => codes_by::<Q4_0>,
        BlockFormat::Q4K => codes_by::<Q4K>,
        BlockFormat::Q6K => codes_by::<Q6K>,
        BlockFormat::Nf4 => codes_by::<Nf4>,
        _ => return false,
    };
    let factor = w.factor(row).filter(|_| w.exp()[row] != POISON);
    let (Some(factor), Isa::Avx512, true) = (factor, isa, isa.is_available()) else {
        return false;
    };
    let at = |col: usize| col / w.format().elements() * w.format().bytes();
    let bytes = &w.bytes()[row * w.row_bytes()..][at(cols.start)..at(cols.end)];
    // SAFETY: the machine has AVX-512; the bytes are those of so many numbers.
    unsafe { by_format(bytes, factor, &mut q[..cols.len()]) };
    true
}

/// The codes of as many numbers as `q` has, each times `factor`.
///
/// # Safety
/// The machine has AVX-512; `bytes` are those of so many numbers.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn codes_by<B: Blocks>(bytes: &[u8], factor: f32, q: &mut [i16]) {
    let mut memory = Scales([MaybeUninit::uninit(); 512]);
    let scales: *mut f32 = memory.0.as_mut_ptr().cast();
    let together = DEPTH / B::ELEMENTS;
    let whole = q.len() / B::ELEMENTS;
    let (blocks, rest) = bytes.split_at(whole * B::BYTES);
    let (q, q_rest) = q.split_at_mut(whole * B::ELEMENTS);
    let runs = blocks.chunks(together * B::BYTES);
    for (blocks, q) in runs.zip(q.chunks_mut(together * B::ELEMENTS)) {
        // SAFETY: `scales` has room for the scales of so many blocks.
        unsafe {
            B::scales(blocks.as_ptr(), q.len() / B::ELEMENTS, factor, scales);
            let each = blocks
                .chunks_exact(B::BYTES)
                .zip(q.chunks_exact_mut(B::ELEMENTS));
            for (i, (block, q)) in each.enumerate() {
                store_block::<B>(block, scales.add(i * B::SCALES), q);
            }
        }
    }
    if !rest.is_empty() {
        // Floats fill no whole vector: the rest are zeros.
        let (mut padded, mut codes) = ([0; 64], [0; RUN]);
        padded[..rest.len()].copy_from_slice(rest);
        // SAFETY: as above; a block of floats is 64 bytes.
        unsafe {
            B::scales(padded.as_ptr(), 1, factor, scales);
            store_block::<B>(&padded, scales, &mut codes);
        }
        q_rest.copy_from_slice(&codes[..q_rest.len()]);
    }
}

/// Writes the codes of a block in the order of its numbers.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn store_block<B: Blocks>(block: &[u8], scales: *const f32, q: &mut [i16]) {
    let mut runs = q.chunks_exact_mut(RUN);
    for group in 0..B::GROUPS {
        // SAFETY: the caller's promises; a run of 32 codes is a vector.
        let codes = unsafe { B::decode(block.as_ptr(), group, scales) };
        for (&codes, run) in codes.as_ref().iter().zip(&mut runs) {
            let codes = B::ORDER.natural(codes);
            // SAFETY: as above.
            unsafe { _mm512_storeu_si512(run.as_mut_ptr().cast(), codes) };
        }
    }
}

/// The outputs of rows `[first, first + count)` of A.
///
/// # Safety
/// The machine has AVX-512 VNNI; the strides of A stay within its codes, its depth is that of w;
/// nobody else holds the outputs.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn by_blocks<B: Blocks>(
    cpu: &Cpu,
    a: &Operand<'_>,
    first: usize,
    count: usize,
    w: &PackedRows,
    output: TaskOutput<'_>,
) {
    /// Rows of w that are together in a task.
    const UNIT: usize = 4;
    let mut buffer = DIGITS.take();
    // SAFETY: the caller's promises.
    let rows = unsafe { DigitRows::new(a, first, count, B::ORDER, &mut buffer) };
    let work = task::work(count, w.rows(), a.depth);
    let (bytes, width) = (w.bytes(), w.row_bytes());
    task::run(
        Some(cpu),
        First::Columns,
        (count, count),
        (w.rows(), UNIT),
        work,
        |task| {
            for n in task.cols {
                let row = Row {
                    bytes: &bytes[n * width..(n + 1) * width],
                    cols: w.cols(),
                    factor: w.factor(n).unwrap_or(1.0),
                };
                // SAFETY: the caller's promises.
                let sums = unsafe { sums_of::<B>(&rows, &row) };
                let scale = pow2_f64(w.exp()[n]);
                for (r, sum) in sums[..count].iter().enumerate() {
                    // SAFETY: tasks do not overlap, and this one writes the element now.
                    let out = unsafe { output.row(first + r, n, 1) };
                    out[0] = (sum * rows.scales[r] * scale) as f32;
                }
            }
        },
    );
    DIGITS.set(buffer);
}

/// A row of w.
struct Row<'a> {
    bytes: &'a [u8],
    cols: usize,
    /// `2^-exp`.
    factor: f32,
}

/// The exact sums with each row of A.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn sums_of<B: Blocks>(rows: &DigitRows<'_>, row: &Row<'_>) -> [f64; ROWS] {
    macro_rules! by_count {
        ($($count:literal)*) => {
            match rows.count {
                // SAFETY: the caller's promises.
                $($count => unsafe { sums::<B, $count>(rows, row) },)*
                count => unreachable!("{count} rows"),
            }
        };
    }
    by_count!(1 2 3 4 5 6 7 8)
}

/// Sums of low and of high digits, in lanes; of two sets that take turns, so that additions do not
/// wait for each other where there are few of them.
type Sums<const R: usize> = [[[__m512i; 2]; R]; 2];

/// Memory for the scales of the blocks of [`DEPTH`] numbers.
#[repr(align(64))]
struct Scales([MaybeUninit<f32>; 512]);

#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn sums<B: Blocks, const R: usize>(rows: &DigitRows<'_>, row: &Row<'_>) -> [f64; ROWS] {
    const { assert!(R <= ROWS && DEPTH / B::ELEMENTS * B::SCALES <= 512) };
    let mut totals = [0.0; ROWS];
    let mut scales = Scales([MaybeUninit::uninit(); 512]);
    let scales: *mut f32 = scales.0.as_mut_ptr().cast();
    let (whole, rest) = (row.cols / B::ELEMENTS, row.cols % B::ELEMENTS);
    let runs_per_block = B::ELEMENTS / RUN;
    let blocks_together = DEPTH / B::ELEMENTS;
    for first in (0..whole).step_by(blocks_together) {
        let count = (whole - first).min(blocks_together);
        let mut sums: Sums<R> = [[[_mm512_setzero_si512(); 2]; R]; 2];
        // SAFETY: `count` blocks lie from `at` on; A has lines for all runs.
        unsafe {
            let mut at = row.bytes.as_ptr().add(first * B::BYTES);
            let mut a = rows.lines_of(first * runs_per_block);
            B::scales(at, count, row.factor, scales);
            let mut scales = scales.cast_const();
            for _ in 0..count / 2 {
                a = add_block::<B, R, 0>(&mut sums, at, scales, a);
                a = add_block::<B, R, 1>(&mut sums, at.add(B::BYTES), scales.add(B::SCALES), a);
                (at, scales) = (at.add(2 * B::BYTES), scales.add(2 * B::SCALES));
            }
            if count % 2 == 1 {
                add_block::<B, R, 0>(&mut sums, at, scales, a);
            }
            add_totals(&mut totals, &sums);
        }
    }
    if rest > 0 {
        // Floats fill no whole vector: the rest are zeros.
        let mut padded = [0; 64];
        let from = &row.bytes[whole * B::BYTES..];
        padded[..from.len()].copy_from_slice(from);
        let mut sums: Sums<R> = [[[_mm512_setzero_si512(); 2]; R]; 2];
        // SAFETY: a block of floats is 64 bytes; A has lines for the last run.
        unsafe {
            B::scales(padded.as_ptr(), 1, row.factor, scales);
            let a = rows.lines_of(whole);
            add_block::<B, R, 0>(&mut sums, padded.as_ptr(), scales, a);
            add_totals(&mut totals, &sums);
        }
    }
    totals
}

/// Adds the products of a block; gives the lines of A that follow.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn add_block<B: Blocks, const R: usize, const FIRST: usize>(
    sums: &mut Sums<R>,
    block: *const u8,
    scales: *const f32,
    mut a: *const CacheLine,
) -> *const CacheLine {
    /// Bytes that are on their way to the cache.
    const AHEAD: usize = 2_048;
    for line in 0..B::BYTES.div_ceil(64) {
        _mm_prefetch::<_MM_HINT_T0>(block.wrapping_add(AHEAD + 64 * line).cast());
    }
    for group in 0..B::GROUPS {
        // SAFETY: the caller's promises.
        let codes = unsafe { B::decode(block, group, scales) };
        for (v, &codes) in codes.as_ref().iter().enumerate() {
            let set = if R <= 2 { (FIRST + v) % 2 } else { 0 };
            for sum in &mut sums[set] {
                // SAFETY: as above: two lines for each row of A.
                unsafe {
                    sum[0] = add_pairs(sum[0], (*a).load(), codes);
                    sum[1] = add_pairs(sum[1], (*a.add(1)).load(), codes);
                    a = a.add(2);
                }
            }
        }
    }
    a
}

/// Adds the lanes of all sums: integers that f64 holds, so no addition rounds.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn add_totals<const R: usize>(totals: &mut [f64; ROWS], sums: &Sums<R>) {
    let wide = |sums: __m512i| {
        let first = _mm512_cvtepi32_pd(_mm512_castsi512_si256(sums));
        let second = _mm512_cvtepi32_pd(_mm512_extracti64x4_epi64::<1>(sums));
        _mm512_add_pd(first, second)
    };
    for (r, total) in totals[..R].iter_mut().enumerate() {
        let mut lanes = _mm512_setzero_pd();
        for set in sums.iter().take(if R <= 2 { 2 } else { 1 }) {
            let [low, high] = set[r].map(wide);
            let high = _mm512_mul_pd(high, _mm512_set1_pd(256.0));
            lanes = _mm512_add_pd(lanes, _mm512_add_pd(low, high));
        }
        *total += _mm512_reduce_add_pd(lanes);
    }
}
