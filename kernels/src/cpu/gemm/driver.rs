//! The packed path: panels, blocks of depth, tiles.
//!
//! B is packed once for all threads, some columns at a time; each job packs its rows of A for the
//! second cache, and takes the depth in blocks, so that a panel of B stays in the first.

use std::cell::Cell;

use rayon::prelude::*;

use super::finish::{self, Range};
use super::job::{self, Job, Output};
use super::plan::{DEPTH, DEPTH_UNIT, Finish, Kind, Micro, Packed, Panel, Side, Tile};
use crate::coded::Operand;
use crate::cpu::Cpu;

/// Bytes of packed A that a job holds at a time: half of a second cache of 1 MiB.
const A_BYTES: usize = 512 << 10;
/// Rows that a job holds even where they are deeper than that.
const A_ROWS_MIN: usize = 84;
/// Bytes of packed B at a time.
const B_BYTES: usize = 16 << 20;

/// A cache line.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line(#[expect(dead_code, reason = "read through pointers")] [i32; 16]);

/// `i32` in a line.
const LINE: usize = 16;

/// Memory that a thread keeps for its next job.
#[derive(Default)]
struct Scratch {
    a: Vec<Line>,
    state: Vec<Line>,
    deep: Vec<i64>,
}

thread_local! {
    // Both are taken out while in use, as a thread that waits for the pool may take up other work.
    static PACKED_B: Cell<Vec<Line>> = const { Cell::new(Vec::new()) };
    static SCRATCH: Cell<Scratch> =
        const { Cell::new(Scratch { a: Vec::new(), state: Vec::new(), deep: Vec::new() }) };
}

fn grow<T: Clone>(buffer: &mut Vec<T>, len: usize, zero: T) -> &mut [T] {
    if buffer.len() < len {
        buffer.resize(len, zero);
    }
    &mut buffer[..len]
}

/// A product, as its jobs see it.
struct Product<'a> {
    kind: Kind,
    a: &'a Operand<'a>,
    b: &'a Operand<'a>,
    output: Output<'a>,
}

/// The sizes of packed panels, in lines.
#[derive(Clone, Copy)]
struct Layout {
    words: usize,
    high: usize,
    sums: usize,
}

impl Layout {
    fn new<M: Micro>(kind: Kind, depth: usize, width: usize) -> Self {
        let depth = depth.next_multiple_of(DEPTH_UNIT);
        // One line more: narrow panels are written in whole vectors.
        let lines = |per: usize| (depth / per * width).div_ceil(LINE) + 1;
        Self {
            words: if kind == Kind::Byte { 0 } else { lines(2) },
            high: if kind == Kind::Mixed {
                0
            } else {
                lines(M::HIGH_DEPTH)
            },
            sums: (depth.div_ceil(kind.block()) * width).div_ceil(LINE),
        }
    }

    fn lines(self) -> usize {
        self.words + self.high + self.sums
    }

    /// The parts of a panel that starts at `lines`.
    fn parts(self, lines: *mut Line) -> Packed {
        Packed {
            words: lines.cast(),
            high: lines.wrapping_add(self.words).cast(),
            sums: lines.wrapping_add(self.words + self.high).cast(),
        }
    }
}

/// The product, see [`super::gemm`].
///
/// # Safety
/// The machine has the instruction set of `M`; the strides stay within the codes; `out` has
/// `a.rows * b.rows` elements.
pub(super) unsafe fn gemm<M: Micro>(
    cpu: Option<&Cpu>,
    a: &Operand<'_>,
    b: &Operand<'_>,
    out: &mut [f32],
) {
    let kind = M::kind(a.precision, b.precision);
    let product = Product {
        kind,
        a,
        b,
        output: Output::new(out, b.rows),
    };
    let layout = Layout::new::<M>(kind, b.depth, M::COLS);
    let panel_lines = layout.lines();
    let panels = (B_BYTES / 64 / panel_lines).max(8);
    let mut buffer = PACKED_B.take();
    for first in (0..b.rows).step_by(panels * M::COLS) {
        let cols = (b.rows - first).min(panels * M::COLS);
        let lines = cols.div_ceil(M::COLS) * panel_lines;
        let packed = grow(&mut buffer, lines, Line([0; LINE]));
        let pack = |(i, lines): (usize, &mut [Line])| {
            let first = first + i * M::COLS;
            let rows = (b.rows - first).min(M::COLS);
            let panel = Panel {
                operand: b,
                side: Side::B,
                kind,
                first,
                rows,
                width: M::COLS,
            };
            // SAFETY: the caller's promises; the chunk has the layout's room.
            unsafe { M::pack(&panel, layout.parts(lines.as_mut_ptr())) };
        };
        let products = a.rows * cols * a.depth;
        match cpu.filter(|cpu| job::is_parallel(cpu, products)) {
            None => packed.chunks_mut(panel_lines).enumerate().for_each(pack),
            Some(cpu) => {
                let chunks = packed.par_chunks_mut(panel_lines).enumerate();
                cpu.pool().install(|| chunks.for_each(pack));
            }
        }
        let packed = &*packed;
        job::run(cpu, (a.rows, M::ROWS), (cols, M::COLS), products, |job| {
            // SAFETY: as above; jobs do not overlap.
            unsafe { run_job::<M>(&product, &job, first, packed) }
        });
    }
    PACKED_B.set(buffer);
}

/// Fills a rectangle whose columns count from `first`, where the packed panels of B start.
unsafe fn run_job<M: Micro>(product: &Product<'_>, job: &Job, first: usize, b: &[Line]) {
    let layout = Layout::new::<M>(product.kind, product.a.depth, M::ROWS);
    let fit = A_BYTES / 64 / layout.lines().max(1) * M::ROWS;
    let most = fit.max(A_ROWS_MIN).next_multiple_of(M::ROWS);
    let rows = job.rows.len();
    // As equal as can be, so that the last is not a sliver.
    let blocks = rows.div_ceil(most);
    let mut scratch = SCRATCH.take();
    for block in 0..blocks {
        let start = job.rows.start + rows * block / blocks;
        let end = job.rows.start + rows * (block + 1) / blocks;
        let panels = (end - start).div_ceil(M::ROWS);
        let lines = grow(&mut scratch.a, panels * layout.lines(), Line([0; LINE]));
        // SAFETY: the caller's promises; there is room for so many panels.
        let panels = unsafe { pack_rows::<M>(product, start..end, layout, lines) };
        let state = panels.len() * 2 * M::ROWS * M::COLS / LINE;
        let state = grow(&mut scratch.state, state, Line([0; LINE]));
        for col in job.cols.clone().step_by(M::COLS) {
            let lines = Layout::new::<M>(product.kind, product.b.depth, M::COLS);
            let packed = lines.parts(b[col / M::COLS * lines.lines()..].as_ptr().cast_mut());
            let cols = (job.cols.end - col).min(M::COLS);
            let column = Strip {
                first: first + col,
                count: cols,
                packed,
            };
            // SAFETY: as above.
            unsafe { multiply::<M>(product, &panels, &column, state, &mut scratch.deep) };
        }
    }
    SCRATCH.set(scratch);
}

/// A packed panel: rows of A, or columns of the output.
struct Strip {
    first: usize,
    count: usize,
    packed: Packed,
}

/// Packs rows of A into panels as equal as can be.
unsafe fn pack_rows<M: Micro>(
    product: &Product<'_>,
    rows: std::ops::Range<usize>,
    layout: Layout,
    lines: &mut [Line],
) -> Vec<Strip> {
    let count = rows.len().div_ceil(M::ROWS);
    let edge = |i: usize| rows.start + rows.len() * i / count;
    let strip = |(i, lines): (usize, &mut [Line])| {
        let (first, width) = (edge(i), edge(i + 1) - edge(i));
        let packed = layout.parts(lines.as_mut_ptr());
        let (operand, kind) = (product.a, product.kind);
        let panel = Panel {
            operand,
            side: Side::A,
            kind,
            first,
            rows: width,
            width,
        };
        // SAFETY: the caller's promises; the chunk has the layout's room.
        unsafe { M::pack(&panel, packed) };
        Strip {
            first,
            count: width,
            packed,
        }
    };
    lines
        .chunks_mut(layout.lines())
        .enumerate()
        .map(strip)
        .collect()
}

/// Multiplies packed rows by a panel of B, and writes their outputs.
unsafe fn multiply<M: Micro>(
    product: &Product<'_>,
    panels: &[Strip],
    column: &Strip,
    state: &mut [Line],
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
        for (i, panel) in panels.iter().enumerate() {
            let tile = Tile {
                a: at_depth::<M>(kind, panel.packed, panel.count, start),
                b,
                state: state.wrapping_add(i * 2 * tile_sums),
                depth: (depth - start).min(kind.block()),
                is_first: start % DEPTH == 0,
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
    let exp = Range::new(product.b.exp, column.first, column.count);
    for (i, panel) in panels.iter().enumerate() {
        let state = state.wrapping_add(i * 2 * tile_sums).cast_const();
        let finish = Finish {
            output: &product.output,
            state,
            row: panel.first,
            rows: panel.count,
            col: column.first,
            cols: column.count,
            a_exp: product.a.exp,
            b_exp: product.b.exp,
        };
        let is_narrow = Range::new(product.a.exp, panel.first, panel.count).is_narrow(exp);
        // SAFETY: the tile is complete, and its outputs are this job's.
        unsafe {
            if is_deep {
                finish::in_f64(&finish, |r, n| deep[i * tile_sums + r * M::COLS + n]);
            } else if is_narrow {
                M::finish(kind, &finish);
            } else {
                finish::in_f64(&finish, |r, n| read_sum::<M>(kind, state, r, n));
            }
        }
    }
}

/// The parts of a panel from a depth on, which is the start of a block.
fn at_depth<M: Micro>(kind: Kind, packed: Packed, width: usize, depth: usize) -> Packed {
    Packed {
        words: packed.words.wrapping_add(depth / 2 * width),
        high: packed.high.wrapping_add(depth / M::HIGH_DEPTH * width),
        sums: packed.sums.wrapping_add(depth / kind.block() * width),
    }
}

/// The exact sum of an element of a tile.
unsafe fn read_sum<M: Micro>(kind: Kind, state: *const i32, row: usize, col: usize) -> i64 {
    let at = row * M::COLS + col;
    // SAFETY: the caller's promise of a tile.
    let (low, high) = unsafe { (*state.add(at), *state.add(M::ROWS * M::COLS + at)) };
    finish::sum(kind, low, high)
}

/// Adds the sums of tiles to 64 bits.
unsafe fn add_deep<M: Micro>(
    kind: Kind,
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
