//! The output of a product, cut into rectangles that threads fill side by side.

use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::Range;

use rayon::prelude::*;

use crate::cpu::Cpu;

/// A rectangle of the output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GemmTask {
    pub(super) rows: Range<usize>,
    pub(super) cols: Range<usize>,
}

/// An output that several threads write, each in its own rectangle.
#[derive(Clone, Copy)]
pub(super) struct TaskOutput<'a> {
    data: *mut f32,
    len: usize,
    cols: usize,
    /// The column of the output that counts as the first here.
    first: usize,
    /// Where the product is added to what the output holds: its factor.
    added: Option<f32>,
    lifetime: PhantomData<&'a mut [f32]>,
}

// SAFETY: a `TaskOutput` only holds an address; a caller of `row` promises that no other thread
// writes there.
unsafe impl Send for TaskOutput<'_> {}
// SAFETY: as above.
unsafe impl Sync for TaskOutput<'_> {}

impl<'a> TaskOutput<'a> {
    pub(super) fn new(data: &'a mut [f32], cols: usize) -> Self {
        Self {
            data: data.as_mut_ptr(),
            len: data.len(),
            cols,
            first: 0,
            added: None,
            lifetime: PhantomData,
        }
    }

    /// An output that holds nothing yet. A product writes all of it.
    pub(super) fn not_filled(data: &'a mut [MaybeUninit<f32>], cols: usize) -> Self {
        Self {
            data: data.as_mut_ptr().cast(),
            len: data.len(),
            cols,
            first: 0,
            added: None,
            lifetime: PhantomData,
        }
    }

    /// The output of a product that is multiplied by `factor` and added. Only the packed path adds.
    pub(super) fn scaled_add(self, factor: f32) -> Self {
        Self {
            added: Some(factor),
            ..self
        }
    }

    /// The factor of a product that is added.
    #[inline(always)]
    pub(super) fn added(&self) -> Option<f32> {
        self.added
    }

    /// Brings a part of a row into the second cache.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn prefetch(&self, row: usize, first: usize, count: usize) {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        const LINE: usize = 64 / size_of::<f32>();
        let start = row * self.cols + self.first + first;
        for at in (start..start + count).step_by(LINE) {
            // SAFETY: SSE belongs to every processor of this kind, and a prefetch may name any
            // address.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(self.data.wrapping_add(at).cast()) };
        }
    }

    /// The columns from `first` on.
    pub(super) fn columns_from(self, first: usize) -> Self {
        Self {
            first: self.first + first,
            ..self
        }
    }

    /// Columns `[first, first + count)` of a row.
    ///
    /// # Safety
    /// Nobody else may hold any of these elements while the slice lives.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)]
    pub(super) unsafe fn row(&self, row: usize, first: usize, count: usize) -> &'a mut [f32] {
        let first = self.first + first;
        let start = row * self.cols + first;
        debug_assert!(first + count <= self.cols && start + count <= self.len);
        // SAFETY: inside the output, since tasks cut it; not shared, as the caller promises.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(start), count) }
    }
}

/// The cost of a product: its multiply-adds, and the packing of its codes, which is most of the
/// cost where either side is short.
pub(super) fn work(rows: usize, cols: usize, depth: usize) -> usize {
    /// How many multiply-adds cost as much as packing one element.
    const PER_ELEMENT: usize = 16;
    (rows * cols)
        .saturating_add(PER_ELEMENT * (rows + cols))
        .saturating_mul(depth)
}

/// Whether so much work is worth waking other threads.
pub(super) fn is_parallel(cpu: &Cpu, work: usize) -> bool {
    const WORK_MIN: usize = 1 << 23;
    cpu.threads() > 1 && work >= WORK_MIN
}

/// Which side of the output is cut first; the other only where that gives too few tasks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum First {
    Rows,
    Columns,
}

/// Into how many tasks a product is cut for each thread. At its end, a thread waits for about one
/// task of another.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Tasks {
    /// Tasks that need their side of the product prepared: larger ones prepare less.
    Few,
    /// Tasks that read what lies there. With few rows a product takes some 100 microseconds, and a
    /// task of a fourth of that on each of two threads cost 14 % of a pass of decoding.
    Many,
}

impl Tasks {
    fn per_thread(self) -> usize {
        match self {
            Self::Few => 4,
            Self::Many => 16,
        }
    }
}

/// Runs `fill` on rectangles that cut an output of `(rows, unit)` by `(columns, unit)`; only
/// between units. On the pool of `cpu` where the `work` is worth it.
pub(super) fn run(
    cpu: Option<&Cpu>,
    (first, tasks): (First, Tasks),
    rows: (usize, usize),
    cols: (usize, usize),
    work: usize,
    fill: impl Fn(GemmTask) + Sync,
) {
    match cpu.filter(|cpu| is_parallel(cpu, work)) {
        None => fill(GemmTask {
            rows: 0..rows.0,
            cols: 0..cols.0,
        }),
        Some(cpu) => {
            let tasks = cut(first, rows, cols, tasks.per_thread() * cpu.threads());
            // One by one: of tasks that are taken together, the last ones keep one thread busy
            // while the others wait.
            let tasks = tasks.into_par_iter().with_max_len(1);
            cpu.pool().install(|| tasks.for_each(&fill));
        }
    }
}

/// Cuts `(length, unit)` rows and columns into about `count` rectangles.
fn cut(first: First, rows: (usize, usize), cols: (usize, usize), count: usize) -> Vec<GemmTask> {
    let (one, other) = if first == First::Rows {
        (rows, cols)
    } else {
        (cols, rows)
    };
    let many = count.min(one.0.div_ceil(one.1)).max(1);
    let rest = count.div_ceil(many).min(other.0.div_ceil(other.1)).max(1);
    let (down, across) = if first == First::Rows {
        (many, rest)
    } else {
        (rest, many)
    };
    let cols = pieces(cols, across);
    pieces(rows, down)
        .into_iter()
        .flat_map(|r| {
            cols.iter().map(move |c| GemmTask {
                rows: r.clone(),
                cols: c.clone(),
            })
        })
        .collect()
}

/// Cuts a length into `count` pieces of whole units, as equal as can be.
fn pieces((length, unit): (usize, usize), count: usize) -> Vec<Range<usize>> {
    let units = length.div_ceil(unit);
    let edge = |i: usize| (units * i / count * unit).min(length);
    (0..count)
        .map(|i| edge(i)..edge(i + 1))
        .filter(|r| !r.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rectangles_cut_the_output_once() {
        for (rows, cols, count) in [
            ((7, 3), (100, 16), 8),
            ((1, 14), (5, 16), 4),
            ((64, 1), (1, 1), 9),
        ] {
            let mut seen = vec![0; rows.0 * cols.0];
            for task in [First::Rows, First::Columns]
                .iter()
                .flat_map(|&f| cut(f, rows, cols, count))
            {
                for r in task.rows {
                    task.cols.clone().for_each(|c| seen[r * cols.0 + c] += 1);
                }
            }
            assert!(seen.iter().all(|&n| n == 2), "{rows:?} {cols:?} {count}");
        }
    }
}
