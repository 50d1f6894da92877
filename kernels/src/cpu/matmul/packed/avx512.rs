//! Blocks decoded into registers and multiplied there, by AVX-512 VNNI, for few rows of A: the
//! blocks are read once, and no codes are written.

mod digits;
mod words;

use std::arch::x86_64::*;
use std::cell::Cell;
use std::ops::Range;

use super::super::lines::CacheLine;
use super::super::task::{self, First, TaskOutput, Tasks};
use super::blocks::{
    Bf16, Blocks, DEPTH, E4m3, F16, Int8, Nf4, Q4_0, Q4K, Q6K, Q8_0, Scales, U4, U8,
};
use super::rows::{DigitRows, RUN, WordRows};
use crate::coded::Operand;
use crate::cpu::Cpu;
use crate::isa::Isa;
use crate::math::pow2_f64;
use crate::packed::{BlockFormat, PackedRows};
use crate::reference::code::POISON;

/// Rows of A that are multiplied at a time: 16 registers of sums.
const ROWS: usize = 8;
/// Rows of A up to which A is cut into digits: more instructions, of which none cuts w.
const DIGIT_ROWS: usize = 2;
/// Rows of A up to which decoding the blocks again costs less than writing codes.
const ROWS_MAX: usize = 16;
/// Depth up to which all sums are integers that f64 holds.
const DEPTH_MAX: usize = 1 << 22;

thread_local! {
    // Taken out while in use, as a thread that waits for the pool may take up other work.
    static LINES: Cell<Vec<CacheLine>> = const { Cell::new(Vec::new()) };
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
        BlockFormat::U4x32 => by_blocks::<U4<32>>,
        BlockFormat::U4x64 => by_blocks::<U4<64>>,
        BlockFormat::U4x128 => by_blocks::<U4<128>>,
        BlockFormat::U8x64 => by_blocks::<U8>,
        BlockFormat::E4m3x64 => by_blocks::<E4m3>,
        BlockFormat::Int8x64 => by_blocks::<Int8>,
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
        BlockFormat::U4x32 => codes_by::<U4<32>>,
        BlockFormat::U4x64 => codes_by::<U4<64>>,
        BlockFormat::U4x128 => codes_by::<U4<128>>,
        BlockFormat::U8x64 => codes_by::<U8>,
        BlockFormat::E4m3x64 => codes_by::<E4m3>,
        BlockFormat::Int8x64 => codes_by::<Int8>,
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
    let mut memory = Scales::new();
    let scales = memory.of::<B>();
    let together = DEPTH / B::ELEMENTS;
    let whole = q.len() / B::ELEMENTS;
    let (units, rest) = bytes.split_at(whole * B::BYTES);
    let (q, q_rest) = q.split_at_mut(whole * B::ELEMENTS);
    let runs = units.chunks(together * B::BYTES);
    for (units, q) in runs.zip(q.chunks_mut(together * B::ELEMENTS)) {
        // SAFETY: `scales` has room for the scales of so many units.
        unsafe {
            B::scales(units.as_ptr(), q.len() / B::ELEMENTS, factor, scales);
            let each = units
                .chunks_exact(B::BYTES)
                .zip(q.chunks_exact_mut(B::ELEMENTS));
            for (i, (unit, q)) in each.enumerate() {
                store_unit::<B>(unit, scales.add(i * B::SCALES), q);
            }
        }
    }
    if !rest.is_empty() {
        let (padded, mut codes) = (padded(rest), [0; UNIT]);
        // SAFETY: as above.
        unsafe {
            B::scales(padded.as_ptr(), 1, factor, scales);
            store_unit::<B>(&padded, scales, &mut codes);
        }
        q_rest.copy_from_slice(&codes[..q_rest.len()]);
    }
}

/// Numbers of a unit of a format with short blocks; rows of others are whole units.
const UNIT: usize = 64;

/// What is short of a unit, filled with zeros, whose codes are zeros.
fn padded(rest: &[u8]) -> [u8; 2 * UNIT] {
    let mut unit = [0; 2 * UNIT];
    unit[..rest.len()].copy_from_slice(rest);
    unit
}

/// Writes the codes of a unit in the order of its numbers.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn store_unit<B: Blocks>(unit: &[u8], scales: *const f32, q: &mut [i16]) {
    let mut runs = q.chunks_exact_mut(RUN);
    for group in 0..B::GROUPS {
        // SAFETY: the caller's promises; a run of 32 codes is a vector.
        let codes = unsafe { B::decode(unit.as_ptr(), group, scales) };
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
    let mut buffer = LINES.take();
    let work = task::work(count, w.rows(), a.depth);
    let unit = if count <= DIGIT_ROWS {
        4
    } else {
        words::TOGETHER
    };
    let (rows, cols) = ((count, count), (w.rows(), unit));
    if count <= DIGIT_ROWS {
        // SAFETY: the caller's promises; tasks do not overlap.
        unsafe {
            let a = DigitRows::new(a, first, count, B::ORDER, &mut buffer);
            task::run(
                Some(cpu),
                (First::Columns, Tasks::Many),
                rows,
                cols,
                work,
                |task| {
                    digits::fill::<B>(&a, w, task.cols, output);
                },
            );
        }
    } else {
        // SAFETY: as above.
        unsafe {
            let a = WordRows::new(a, first, count, B::ORDER, &mut buffer);
            task::run(
                Some(cpu),
                (First::Columns, Tasks::Many),
                rows,
                cols,
                work,
                |task| {
                    words::fill::<B>(&a, w, task.cols, output);
                },
            );
        }
    }
    LINES.set(buffer);
}

/// All rows of w, with what would otherwise be found anew for each.
struct Rows<'a> {
    w: &'a PackedRows,
    bytes: &'a [u8],
    /// Bytes of a row.
    width: usize,
}

/// A row of w.
struct Row<'a> {
    bytes: &'a [u8],
    cols: usize,
    /// `2^-exp`.
    factor: f32,
}

impl<'a> Rows<'a> {
    fn of(w: &'a PackedRows) -> Self {
        Self {
            w,
            bytes: w.bytes(),
            width: w.row_bytes(),
        }
    }

    #[inline]
    fn row(&self, row: usize) -> Row<'a> {
        Row {
            bytes: &self.bytes[row * self.width..(row + 1) * self.width],
            cols: self.w.cols(),
            factor: self.w.factor(row).unwrap_or(1.0),
        }
    }
}

/// Writes the outputs of a row of w, from the exact sums with rows `[first, ..)` of A.
///
/// # Safety
/// Nobody else holds these outputs.
unsafe fn finish(
    w: &PackedRows,
    row: usize,
    sums: &[f64],
    first: usize,
    scales: &[f64],
    output: TaskOutput<'_>,
) {
    let scale = pow2_f64(w.exp()[row]);
    for (i, (sum, a_scale)) in sums.iter().zip(scales).enumerate() {
        // SAFETY: the caller's promise.
        let out = unsafe { output.row(first + i, row, 1) };
        out[0] = (sum * a_scale * scale) as f32;
    }
}

/// Asks for the bytes of a unit.
#[inline(always)]
fn prefetch<B: Blocks>(unit: *const u8) {
    for line in 0..B::BYTES.div_ceil(64) {
        // SAFETY: a hint, which does nothing where there is no memory.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(unit.wrapping_add(64 * line).cast()) };
    }
}
