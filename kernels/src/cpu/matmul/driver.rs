//! The packed path: panels, blocks of depth, tiles.
//!
//! A task packs its rows of A for the second cache, and takes the depth in blocks, so that a panel
//! of B stays in the first. Where all rows of A fit a task, tasks cut the columns and pack B as
//! they go, a panel at a time, and read ahead what they pack next; otherwise B is packed
//! beforehand, once for all threads.

use std::cell::Cell;

use rayon::prelude::*;

use super::ahead::Ahead;
use super::finish::{self, Scales, TileFinish};
use super::lines::{CacheLine, grow};
use super::micro::{Micro, OutputTile};
use super::plan::{DEPTH, SumKind};
use super::strip::{Layout, Strip, at_depth, pack_columns, pack_rows};
use super::task::{self, First, GemmTask, TaskOutput, Tasks};
use crate::coded::Operand;
use crate::cpu::Cpu;

/// Bytes of packed A that a task holds at a time: half of a second cache of 1 MiB.
const A_BYTES: usize = 512 << 10;
/// Rows that a task holds even where they are deeper than that.
const A_ROWS_MIN: usize = 84;
/// Bytes of packed B at a time.
const B_BYTES: usize = 16 << 20;

/// Memory that a thread keeps for its next task.
#[derive(Default)]
struct Scratch {
    a: Vec<CacheLine>,
    b: Vec<CacheLine>,
    state: Vec<CacheLine>,
    deep: Vec<i64>,
}

thread_local! {
    // Both are taken out while in use, as a thread that waits for the pool may take up other work.
    static PACKED_B: Cell<Vec<CacheLine>> = const { Cell::new(Vec::new()) };
    static SCRATCH: Cell<Scratch> = const {
        Cell::new(Scratch { a: Vec::new(), b: Vec::new(), state: Vec::new(), deep: Vec::new() })
    };
}

/// A product, as its tasks see it.
struct Product<'a> {
    kind: SumKind,
    a: &'a Operand<'a>,
    b: &'a Operand<'a>,
    output: TaskOutput<'a>,
    a_layout: Layout,
    b_layout: Layout,
    /// Rows of A that a task packs at a time.
    rows_together: usize,
}

/// Panels of B that are packed already, and the column that the first of them starts with.
#[derive(Clone, Copy)]
struct Ready<'a> {
    first: usize,
    lines: &'a [CacheLine],
}

/// The product, see [`super::matmul`].
///
/// # Safety
/// The machine has the instruction set of `M`; the strides stay within the codes; `output`
/// has `a.rows` by `b.rows` elements that nobody else writes, and neither it nor the depth is
/// empty.
pub(super) unsafe fn matmul<M: Micro>(
    cpu: Option<&Cpu>,
    a: &Operand<'_>,
    b: &Operand<'_>,
    output: TaskOutput<'_>,
) {
    let kind = M::kind(a.precision, b.precision);
    let a_layout = Layout::new::<M>(kind, a.depth, M::ROWS);
    let b_layout = Layout::new::<M>(kind, b.depth, M::COLS);
    let fit = A_BYTES / size_of::<CacheLine>() / a_layout.lines() * M::ROWS;
    let rows_together = fit.max(A_ROWS_MIN).next_multiple_of(M::ROWS);
    let product = Product {
        kind,
        a,
        b,
        output,
        a_layout,
        b_layout,
        rows_together,
    };
    if a.rows <= rows_together {
        let work = task::work(a.rows, b.rows, a.depth);
        task::run(
            cpu,
            (First::Columns, Tasks::Few),
            (a.rows, M::ROWS),
            (b.rows, M::COLS),
            work,
            |task| {
                // SAFETY: the caller's promises; tasks do not overlap.
                unsafe { run_task::<M>(&product, &task, None) }
            },
        );
        return;
    }
    // SAFETY: as above.
    unsafe { multiply_packed::<M>(cpu, &product) }
}

/// The product where A has more rows than a task packs: B is packed beforehand.
unsafe fn multiply_packed<M: Micro>(cpu: Option<&Cpu>, product: &Product<'_>) {
    let Product {
        kind,
        a,
        b,
        b_layout,
        ..
    } = *product;
    let cols_together = (B_BYTES / size_of::<CacheLine>() / b_layout.lines()).max(8) * M::COLS;
    let mut buffer = PACKED_B.take();
    for first in (0..b.rows).step_by(cols_together) {
        let cols = (b.rows - first).min(cols_together);
        let work = task::work(a.rows, cols, a.depth);
        let len = cols.div_ceil(M::COLS) * b_layout.lines();
        let lines = grow(&mut buffer, len, CacheLine::ZERO);
        let pack = |(i, lines): (usize, &mut [CacheLine])| {
            // SAFETY: the caller's promises.
            unsafe { pack_columns::<M>(kind, b, first + i * M::COLS, b_layout, lines) };
        };
        match cpu.filter(|cpu| task::is_parallel(cpu, work)) {
            None => lines
                .chunks_mut(b_layout.lines())
                .enumerate()
                .for_each(pack),
            Some(cpu) => {
                let chunks = lines.par_chunks_mut(b_layout.lines()).enumerate();
                cpu.pool().install(|| chunks.for_each(pack));
            }
        }
        let ready = Ready { first, lines };
        task::run(
            cpu,
            (First::Rows, Tasks::Few),
            (a.rows, M::ROWS),
            (cols, M::COLS),
            work,
            |task| {
                // SAFETY: as above; tasks do not overlap.
                unsafe { run_task::<M>(product, &task, Some(ready)) }
            },
        );
    }
    PACKED_B.set(buffer);
}

/// Fills a rectangle, whose columns count from the first of those that are ready.
unsafe fn run_task<M: Micro>(product: &Product<'_>, task: &GemmTask, ready: Option<Ready<'_>>) {
    let Product {
        kind,
        a,
        b,
        a_layout,
        b_layout,
        rows_together,
        ..
    } = *product;
    // As equal as can be, so that the last is not a sliver.
    let blocks = task.rows.len().div_ceil(rows_together);
    let edge = |block: usize| task.rows.start + task.rows.len() * block / blocks;
    let mut scratch = SCRATCH.take();
    for rows in (0..blocks).map(|block| edge(block)..edge(block + 1)) {
        let panels = rows.len().div_ceil(M::ROWS);
        let lines = grow(&mut scratch.a, panels * a_layout.lines(), CacheLine::ZERO);
        // SAFETY: the caller's promises.
        let panels = unsafe { pack_rows::<M>(kind, a, rows, a_layout, lines) };
        let state = panels.len() * 2 * M::ROWS * M::COLS / CacheLine::I32;
        let state = grow(&mut scratch.state, state, CacheLine::ZERO);
        for col in task.cols.clone().step_by(M::COLS) {
            let count = (task.cols.end - col).min(M::COLS);
            let (first, lines) = match ready {
                Some(ready) => (
                    ready.first + col,
                    &ready.lines[col / M::COLS * b_layout.lines()..],
                ),
                None => {
                    let lines = grow(&mut scratch.b, b_layout.lines(), CacheLine::ZERO);
                    // SAFETY: the caller's promises.
                    unsafe { pack_columns::<M>(kind, b, col, b_layout, lines) };
                    (col, &*lines)
                }
            };
            let packed = b_layout.parts(lines.as_ptr().cast_mut());
            let column = Strip {
                first,
                count,
                packed,
                scales: Scales::new(b.exp, first, count),
            };
            let ahead = match ready {
                Some(_) => Ahead::nothing(b),
                None => Ahead::new::<M>(kind, b, col + M::COLS, panels.len()),
            };
            // SAFETY: as above.
            unsafe { multiply::<M>(product, &panels, &column, &ahead, state, &mut scratch.deep) };
        }
    }
    SCRATCH.set(scratch);
}

/// Multiplies packed rows by a panel of B, and writes their outputs.
unsafe fn multiply<M: Micro>(
    product: &Product<'_>,
    panels: &[Strip],
    column: &Strip,
    ahead: &Ahead,
    state: &mut [CacheLine],
    deep: &mut Vec<i64>,
) {
    let (kind, depth) = (product.kind, product.a.depth);
    let tile_sums = M::ROWS * M::COLS;
    let state: *mut i32 = state.as_mut_ptr().cast();
    let is_deep = depth > DEPTH;
    if is_deep {
        grow(deep, panels.len() * tile_sums, 0).fill(0);
    }
    for start in (0..depth).step_by(kind.block()) {
        let b = at_depth::<M>(kind, column.packed, M::COLS, start);
        let block = (depth - start).min(kind.block());
        for (i, panel) in panels.iter().enumerate() {
            let tile = OutputTile {
                a: at_depth::<M>(kind, panel.packed, panel.count, start),
                b,
                state: state.wrapping_add(i * 2 * tile_sums),
                depth: block,
                is_first: start % DEPTH == 0,
                ahead: ahead.of_tile(start, block, i),
            };
            // SAFETY: both were packed for this kind, over the whole depth.
            unsafe { M::multiply(kind, panel.count, column.count, &tile) };
        }
        let end = start + kind.block();
        if is_deep && (end % DEPTH == 0 || end >= depth) {
            // SAFETY: every tile of the state has just been written.
            unsafe { add_deep::<M>(kind, panels, column.count, state, deep) };
        }
    }
    for (i, panel) in panels.iter().enumerate() {
        let state = state.wrapping_add(i * 2 * tile_sums).cast_const();
        let finish = TileFinish {
            output: &product.output,
            state,
            row: panel.first,
            rows: panel.count,
            col: column.first,
            cols: column.count,
            a_exp: product.a.exp,
            b_exp: product.b.exp,
            a_scales: &panel.scales,
            b_scales: &column.scales,
        };
        // SAFETY: the tile is complete, and its outputs are this task's.
        unsafe {
            if is_deep {
                finish::in_f64(&finish, |r, n| deep[i * tile_sums + r * M::COLS + n]);
            } else if panel.scales.is_narrow(&column.scales) {
                M::finish(kind, &finish);
            } else {
                finish::in_f64(&finish, |r, n| read_sum::<M>(kind, state, r, n));
            }
        }
    }
}

/// The exact sum of an element of a tile.
unsafe fn read_sum<M: Micro>(kind: SumKind, state: *const i32, row: usize, col: usize) -> i64 {
    let at = row * M::COLS + col;
    // SAFETY: the caller's promise of a tile.
    let (low, high) = unsafe { (*state.add(at), *state.add(M::ROWS * M::COLS + at)) };
    finish::sum(kind, low, high)
}

/// Adds the sums of tiles to 64 bits.
unsafe fn add_deep<M: Micro>(
    kind: SumKind,
    panels: &[Strip],
    cols: usize,
    state: *const i32,
    deep: &mut [i64],
) {
    let tile_sums = M::ROWS * M::COLS;
    for (i, panel) in panels.iter().enumerate() {
        for r in 0..panel.count {
            for n in 0..cols {
                let tile = state.wrapping_add(i * 2 * tile_sums);
                // SAFETY: the caller's promise.
                let sum = unsafe { read_sum::<M>(kind, tile, r, n) };
                deep[i * tile_sums + r * M::COLS + n] += sum;
            }
        }
    }
}
