//! Packed panels: their sizes, their parts, and the making of them.

use std::ops::Range;

use rayon::prelude::*;

use super::finish::Scales;
use super::lines::CacheLine;
use super::micro::{Micro, Packed, Panel, Side};
use super::plan::{DEPTH_UNIT, SumKind};
use crate::coded::Operand;
use crate::cpu::Cpu;

/// The sizes of packed panels, in lines.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    words: usize,
    high: usize,
    sums: usize,
}

impl Layout {
    pub(super) fn new<M: Micro>(kind: SumKind, depth: usize, width: usize) -> Self {
        let depth = depth.next_multiple_of(DEPTH_UNIT);
        // One line more: narrow panels are written in whole vectors.
        let lines = |per: usize| (depth / per * width).div_ceil(CacheLine::I32) + 1;
        Self {
            words: if kind == SumKind::Byte { 0 } else { lines(2) },
            high: if kind == SumKind::Mixed {
                0
            } else {
                lines(M::HIGH_DEPTH)
            },
            sums: (depth.div_ceil(kind.block()) * width).div_ceil(CacheLine::I32),
        }
    }

    pub(super) fn lines(self) -> usize {
        self.words + self.high + self.sums
    }

    /// The parts of a panel that starts at `lines`.
    pub(super) fn parts(self, lines: *mut CacheLine) -> Packed {
        Packed {
            words: lines.cast(),
            high: lines.wrapping_add(self.words).cast(),
            sums: lines.wrapping_add(self.words + self.high).cast(),
        }
    }
}

/// A packed panel: rows of A, or columns of the output.
pub(super) struct Strip {
    pub(super) first: usize,
    pub(super) count: usize,
    pub(super) packed: Packed,
    pub(super) scales: Scales,
}

// SAFETY: the parts of a strip are written while it is made, and read afterwards.
unsafe impl Send for Strip {}
// SAFETY: as above.
unsafe impl Sync for Strip {}

/// Packs panels of A, each in its lines.
///
/// # Safety
/// That of [`Micro::pack`].
pub(super) unsafe fn pack_panels<M: Micro>(
    cpu: Option<&Cpu>,
    kind: SumKind,
    a: &Operand<'_>,
    panels: &[Range<usize>],
    layout: Layout,
    lines: &mut [CacheLine],
) -> Vec<Strip> {
    assert!(
        lines.len() >= panels.len() * layout.lines(),
        "room for panels"
    );
    let strip = |(rows, lines): (&Range<usize>, &mut [CacheLine])| {
        let (first, width) = (rows.start, rows.len());
        let packed = layout.parts(lines.as_mut_ptr());
        let panel = Panel {
            operand: a,
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
            scales: Scales::new(a.exp, first, width),
        }
    };
    match cpu {
        None => {
            let lines = lines.chunks_mut(layout.lines());
            panels.iter().zip(lines).map(strip).collect()
        }
        Some(cpu) => {
            let lines = lines.par_chunks_mut(layout.lines());
            let strips = panels.par_iter().zip(lines).map(strip);
            cpu.pool().install(|| strips.collect())
        }
    }
}

/// Packs a panel of B: the columns from `first` on, as many as a tile has or there are.
///
/// # Safety
/// That of [`Micro::pack`].
pub(super) unsafe fn pack_columns<M: Micro>(
    kind: SumKind,
    b: &Operand<'_>,
    first: usize,
    layout: Layout,
    lines: &mut [CacheLine],
) {
    assert!(lines.len() >= layout.lines(), "room for a panel");
    let rows = (b.rows - first).min(M::COLS);
    let panel = Panel {
        operand: b,
        side: Side::B,
        kind,
        first,
        rows,
        width: M::COLS,
    };
    // SAFETY: the caller's promises; the lines have the layout's room.
    unsafe { M::pack(&panel, layout.parts(lines.as_mut_ptr())) }
}

/// The parts of a panel from a depth on, which is the start of a block.
pub(super) fn at_depth<M: Micro>(
    kind: SumKind,
    packed: Packed,
    width: usize,
    depth: usize,
) -> Packed {
    Packed {
        words: packed.words.wrapping_add(depth / 2 * width),
        high: packed.high.wrapping_add(depth / M::HIGH_DEPTH * width),
        sums: packed.sums.wrapping_add(depth / kind.block() * width),
    }
}
