//! The packed path: panels, blocks of depth, tiles.
//!
//! Where all rows of A fit the second cache, tasks cut the columns and pack B as they go, a panel
//! at a time, and read ahead what they pack next. Otherwise both sides are packed beforehand, once
//! for all threads; a task holds as many rows of A as fill [`HELD_BYTES`] over a part of the depth
//! ([`CHUNK_BLOCKS`]), goes over some panels of B with them before it takes the next part, and
//! reads ahead what it multiplies next. So a byte of packed B, which may come from memory, meets as
//! many rows however deep the product is.

use std::cell::Cell;
use std::ops::Range;

use rayon::prelude::*;

use super::ahead::{Ahead, PackedBlock};
use super::finish::{self, Scales, TileFinish};
use super::lines::{CacheLine, grow};
use super::micro::{Micro, OutputTile};
use super::plan::{DEPTH, SumKind};
use super::strip::{Layout, Strip, at_depth, pack_columns, pack_panels};
use super::task::{self, First, GemmTask, TaskOutput, Tasks};
use crate::coded::Operand;
use crate::cpu::Cpu;

/// Bytes of packed A up to which tasks pack A themselves: half of a second cache of 1 MiB.
const A_BYTES: usize = 512 << 10;
/// Rows up to which they do even where those are deeper than that.
const A_ROWS_MIN: usize = 84;
/// Bytes of packed B at a time, and of A where it is packed beforehand.
const PACKED_BYTES: usize = 16 << 20;
/// Blocks of depth for which a task goes over several panels of B with the same rows of A.
const CHUNK_BLOCKS: usize = 4;
/// Panels of B that it goes over.
const PANELS_TOGETHER: usize = 8;

/// Bytes of packed A that are gone over again and again. On an Intel Xeon with 2 MiB of second
/// cache, twice and four times as much were slower, by 5 and by 10 %.
const HELD_BYTES: usize = 256 << 10;

/// Memory that a thread keeps for its next task.
#[derive(Default)]
struct Scratch {
    a: Vec<CacheLine>,
    b: Vec<CacheLine>,
    state: Vec<CacheLine>,
    deep: Vec<i64>,
}

/// Memory of panels that are packed beforehand.
#[derive(Default)]
struct PackedSides {
    a: Vec<CacheLine>,
    b: Vec<CacheLine>,
}

thread_local! {
    // Both are taken out while in use, as a thread that waits for the pool may take up other work.
    static PACKED: Cell<PackedSides> =
        const { Cell::new(PackedSides { a: Vec::new(), b: Vec::new() }) };
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
    let product = Product {
        kind,
        a,
        b,
        output,
        a_layout,
        b_layout,
    };
    let fit = A_BYTES / size_of::<CacheLine>() / a_layout.lines() * M::ROWS;
    if a.rows <= fit.max(A_ROWS_MIN).next_multiple_of(M::ROWS) {
        let work = task::work(a.rows, b.rows, a.depth);
        task::run(
            cpu,
            (First::Columns, Tasks::Few),
            (a.rows, M::ROWS),
            (b.rows, M::COLS),
            work,
            |task| {
                // SAFETY: the caller's promises; tasks do not overlap.
                unsafe { run_task::<M>(&product, &task) }
            },
        );
        return;
    }
    // SAFETY: as above.
    unsafe { multiply_packed::<M>(cpu, &product) }
}

/// The product where A has more rows than a task packs: both sides are packed beforehand.
unsafe fn multiply_packed<M: Micro>(cpu: Option<&Cpu>, product: &Product<'_>) {
    let Product {
        kind,
        a,
        b,
        a_layout,
        b_layout,
        ..
    } = *product;
    let panels_at_once =
        |layout: Layout| (PACKED_BYTES / size_of::<CacheLine>() / layout.lines()).max(8);
    let cols_at_once = panels_at_once(b_layout) * M::COLS;
    let rows_at_once = panels_at_once(a_layout) * M::ROWS;
    let mut buffers = PACKED.take();
    for first in (0..b.rows).step_by(cols_at_once) {
        let cols = (b.rows - first).min(cols_at_once);
        let parallel = cpu.filter(|cpu| task::is_parallel(cpu, task::work(a.rows, cols, a.depth)));
        let len = cols.div_ceil(M::COLS) * b_layout.lines();
        let lines = grow(&mut buffers.b, len, CacheLine::ZERO);
        let pack = |(i, lines): (usize, &mut [CacheLine])| {
            // SAFETY: the caller's promises.
            unsafe { pack_columns::<M>(kind, b, first + i * M::COLS, b_layout, lines) };
        };
        match parallel {
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
        for top in (0..a.rows).step_by(rows_at_once) {
            let rows = top..(top + rows_at_once).min(a.rows);
            let blocks = equal_parts(rows.clone(), held_rows::<M>(product));
            let panels: Vec<Range<usize>> = blocks
                .iter()
                .flat_map(|block| equal_parts(block.clone(), M::ROWS))
                .collect();
            let lines = grow(
                &mut buffers.a,
                panels.len() * a_layout.lines(),
                CacheLine::ZERO,
            );
            // SAFETY: the caller's promises.
            let panels = unsafe { pack_panels::<M>(parallel, kind, a, &panels, a_layout, lines) };
            task::run(
                cpu,
                (First::Rows, Tasks::Few),
                (blocks.len(), 1),
                (cols, M::COLS),
                task::work(rows.len(), cols, a.depth),
                |task| {
                    for block in &blocks[task.rows] {
                        let from = panels.partition_point(|panel| panel.first < block.start);
                        let to = panels.partition_point(|panel| panel.first < block.end);
                        // SAFETY: as above; tasks do not overlap.
                        unsafe {
                            run_packed::<M>(product, &panels[from..to], task.cols.clone(), ready);
                        }
                    }
                },
            );
        }
    }
    PACKED.set(buffers);
}

/// Rows of A that are held over a part of the depth.
fn held_rows<M: Micro>(product: &Product<'_>) -> usize {
    let depth = product.a.depth.min(chunk_depth(product));
    let layout = Layout::new::<M>(product.kind, depth, M::ROWS);
    (HELD_BYTES / size_of::<CacheLine>() / layout.lines()).max(1) * M::ROWS
}

/// The depth for which a task goes over several panels of B; all of a depth that leaves 32 bits.
fn chunk_depth(product: &Product<'_>) -> usize {
    match product.a.depth > DEPTH {
        true => product.a.depth,
        false => CHUNK_BLOCKS * product.kind.block(),
    }
}

/// Cuts a range into as few parts of at most `most` as can be, as equal as can be, so that the last
/// is not a sliver.
fn equal_parts(range: Range<usize>, most: usize) -> Vec<Range<usize>> {
    let count = range.len().div_ceil(most);
    let edge = |i: usize| range.start + range.len() * i / count;
    (0..count).map(|i| edge(i)..edge(i + 1)).collect()
}

/// Fills a rectangle: packs its rows of A, and its panels of B as it goes.
unsafe fn run_task<M: Micro>(product: &Product<'_>, task: &GemmTask) {
    let Product {
        kind,
        a,
        b,
        a_layout,
        b_layout,
        ..
    } = *product;
    let mut scratch = SCRATCH.take();
    let panels = equal_parts(task.rows.clone(), M::ROWS);
    let lines = grow(
        &mut scratch.a,
        panels.len() * a_layout.lines(),
        CacheLine::ZERO,
    );
    // SAFETY: the caller's promises.
    let panels = unsafe { pack_panels::<M>(None, kind, a, &panels, a_layout, lines) };
    let state = grow(
        &mut scratch.state,
        state_lines::<M>(&panels),
        CacheLine::ZERO,
    );
    for col in task.cols.clone().step_by(M::COLS) {
        let lines = grow(&mut scratch.b, b_layout.lines(), CacheLine::ZERO);
        // SAFETY: as above.
        unsafe { pack_columns::<M>(kind, b, col, b_layout, lines) };
        let column = column::<M>(product, col..task.cols.end, lines);
        let ahead = Ahead::new::<M>(kind, b, col + M::COLS, panels.len());
        // SAFETY: as above.
        unsafe {
            multiply::<M>(product, &panels, &column, &ahead, state, &mut scratch.deep);
        }
    }
    SCRATCH.set(scratch);
}

/// Fills the columns of some panels of A, both sides being packed; `cols` count from the first of
/// those that are ready.
unsafe fn run_packed<M: Micro>(
    product: &Product<'_>,
    panels: &[Strip],
    cols: Range<usize>,
    ready: Ready<'_>,
) {
    let depth = product.a.depth;
    let chunk = chunk_depth(product);
    let together = if depth <= chunk { 1 } else { PANELS_TOGETHER };
    let panel_of = |col: usize| &ready.lines[col / M::COLS * product.b_layout.lines()..];
    let block_of = |col: usize, start: usize| {
        PackedBlock::new::<M>(
            product.kind,
            product.b_layout,
            panel_of(col).as_ptr(),
            start,
        )
    };
    let mut scratch = SCRATCH.take();
    let state_lines = state_lines::<M>(panels);
    let state = grow(&mut scratch.state, together * state_lines, CacheLine::ZERO);
    for group in cols.clone().step_by(together * M::COLS) {
        let end = (group + together * M::COLS).min(cols.end);
        let column = |col: usize| {
            let own = ready.first + col..ready.first + end;
            column::<M>(product, own, panel_of(col))
        };
        let columns: Vec<Strip> = (group..end).step_by(M::COLS).map(column).collect();
        for start in (0..depth).step_by(chunk) {
            let part = start..(start + chunk).min(depth);
            for (i, column) in columns.iter().enumerate() {
                let following = if i + 1 < columns.len() {
                    Some((group + (i + 1) * M::COLS, start))
                } else if part.end < depth {
                    Some((group, part.end))
                } else {
                    Some((end, 0)).filter(|_| end < cols.end)
                };
                let here = block_of(group + i * M::COLS, start);
                let following = following.map_or(here, |(col, start)| block_of(col, start));
                let blocks = (here, following);
                let ahead = Ahead::packed::<M>(product.kind, part.clone(), blocks, panels.len());
                let state = &mut state[i * state_lines..][..state_lines];
                // SAFETY: the caller's promises; over all the depth, each part is added once.
                unsafe {
                    if depth > DEPTH {
                        multiply::<M>(product, panels, column, &ahead, state, &mut scratch.deep);
                    } else {
                        add_depth::<M>(product, panels, column, &ahead, state, part.clone());
                        if part.end == depth {
                            finish_tiles::<M>(product, panels, column, state);
                        }
                    }
                }
            }
        }
    }
    SCRATCH.set(scratch);
}

/// Lines of the sums of some panels of A by one of B.
fn state_lines<M: Micro>(panels: &[Strip]) -> usize {
    panels.len() * 2 * M::ROWS * M::COLS / CacheLine::I32
}

/// The panel that starts with the first of `cols`, packed in `lines`.
fn column<M: Micro>(product: &Product<'_>, cols: Range<usize>, lines: &[CacheLine]) -> Strip {
    let count = cols.len().min(M::COLS);
    Strip {
        first: cols.start,
        count,
        packed: product.b_layout.parts(lines.as_ptr().cast_mut()),
        scales: Scales::new(product.b.exp, cols.start, count),
    }
}

/// Multiplies packed rows by a panel of B over the whole depth, and writes their outputs.
unsafe fn multiply<M: Micro>(
    product: &Product<'_>,
    panels: &[Strip],
    column: &Strip,
    ahead: &Ahead,
    state: &mut [CacheLine],
    deep: &mut Vec<i64>,
) {
    let depth = product.a.depth;
    if depth <= DEPTH {
        // SAFETY: the caller's promises.
        unsafe {
            add_depth::<M>(product, panels, column, ahead, state, 0..depth);
            finish_tiles::<M>(product, panels, column, state);
        }
        return;
    }
    let tile_sums = M::ROWS * M::COLS;
    grow(deep, panels.len() * tile_sums, 0).fill(0);
    for start in (0..depth).step_by(DEPTH) {
        let part = start..(start + DEPTH).min(depth);
        // SAFETY: the caller's promises; every tile of the state has been written when it is read.
        unsafe {
            add_depth::<M>(product, panels, column, ahead, state, part);
            let state = state.as_ptr().cast();
            add_deep::<M>(product.kind, panels, column.count, state, deep);
        }
    }
    for (i, panel) in panels.iter().enumerate() {
        let finish = tile_finish::<M>(product, panel, column, state.as_ptr().cast());
        // SAFETY: the sums are complete, and its outputs are this task's.
        unsafe { finish::in_f64(&finish, |r, n| deep[i * tile_sums + r * M::COLS + n]) };
    }
}

/// Adds a part of the depth, which starts with a block, to the sums of panels of A by one of B.
unsafe fn add_depth<M: Micro>(
    product: &Product<'_>,
    panels: &[Strip],
    column: &Strip,
    ahead: &Ahead,
    state: &mut [CacheLine],
    part: Range<usize>,
) {
    let kind = product.kind;
    let tile_sums = M::ROWS * M::COLS;
    let state: *mut i32 = state.as_mut_ptr().cast();
    for start in part.clone().step_by(kind.block()) {
        let b = at_depth::<M>(kind, column.packed, M::COLS, start);
        let block = (part.end - start).min(kind.block());
        for (i, panel) in panels.iter().enumerate() {
            if start + block == product.a.depth {
                let (first, count) = (column.first, column.count);
                let rows = panel.first..panel.first + panel.count;
                rows.for_each(|row| product.output.prefetch(row, first, count));
            }
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
    }
}

/// Writes the outputs of panels of A by one of B, whose sums are complete.
unsafe fn finish_tiles<M: Micro>(
    product: &Product<'_>,
    panels: &[Strip],
    column: &Strip,
    state: &[CacheLine],
) {
    let kind = product.kind;
    for (i, panel) in panels.iter().enumerate() {
        let tiles: *const i32 = state.as_ptr().cast();
        let state = tiles.wrapping_add(i * 2 * M::ROWS * M::COLS);
        let finish = tile_finish::<M>(product, panel, column, state);
        // SAFETY: the tile is complete, and its outputs are this task's.
        unsafe {
            if panel.scales.is_narrow(&column.scales) {
                M::finish(kind, &finish);
            } else {
                finish::in_f64(&finish, |r, n| read_sum::<M>(kind, state, r, n));
            }
        }
    }
}

/// What is written of a tile, and where.
fn tile_finish<'a, M: Micro>(
    product: &'a Product<'_>,
    panel: &'a Strip,
    column: &'a Strip,
    state: *const i32,
) -> TileFinish<'a> {
    TileFinish {
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
