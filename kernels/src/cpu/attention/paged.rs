//! Attention over pages: a task takes some tokens of one sequence and one key head, all query heads of
//! which are the rows of one product. The bits are those of [`super::forward`].

use rayon::prelude::*;

use super::rows::{Partials, Visible, softmax};
use crate::coded::{Coded, Operand, Precision};
use crate::cpu::pages::{HostPages, PageHead};
use crate::cpu::{Cpu, code, gemm};
use crate::ops::PagedRun;
use crate::reference::attention::{AttentionShape, BLOCK, CHUNK_BLOCKS};

/// Rows of a tile: query heads of a key head times tokens.
const ROWS: usize = 128;
/// Products of a row of queries with a row of keys, below which a task is not worth a thread.
const TASK_WORK: usize = 1 << 17;

/// What all tasks of a call read.
struct Attend<'a> {
    cpu: &'a Cpu,
    queries: &'a Coded,
    pages: &'a HostPages,
    layer: usize,
    shape: &'a AttentionShape,
    precision: Precision,
}

/// Tokens `[position, position + count)` of a sequence, from `token` of the batch on.
#[derive(Clone, Copy)]
struct Tile<'a> {
    run: &'a PagedRun<'a>,
    token: usize,
    position: usize,
    count: usize,
}

impl Tile<'_> {
    /// Multiply-adds of one of its heads, about.
    fn work(&self, shape: &AttentionShape) -> usize {
        let keys = self.position + self.count - shape.first_key(self.position) / BLOCK * BLOCK;
        2 * self.count * shape.group() * shape.head_dim * keys.max(BLOCK / 2)
    }
}

/// Attention of `runs`, `[tokens, heads * head_dim]`. Runs and pages have been checked.
pub fn paged(
    cpu: &Cpu,
    queries: &Coded,
    pages: &HostPages,
    layer: usize,
    runs: &[PagedRun<'_>],
    shape: &AttentionShape,
    precision: Precision,
) -> Vec<f32> {
    let attend = Attend {
        cpu,
        queries,
        pages,
        layer,
        shape,
        precision,
    };
    let tiles = tiles(runs, shape);
    let tasks = tiles.len() * shape.kv_heads;
    let task = |index: usize| attend.head(&tiles[index / shape.kv_heads], index % shape.kv_heads);
    let work: usize = tiles.iter().map(|tile| tile.work(shape)).sum::<usize>() * shape.kv_heads;
    let together = (tasks * TASK_WORK).div_ceil(work.max(1)).max(1);
    let heads: Vec<Vec<f32>> = if cpu.threads() == 1 || together >= tasks {
        (0..tasks).map(task).collect()
    } else {
        let all = (0..tasks).into_par_iter().with_min_len(together);
        cpu.pool().install(|| all.map(task).collect())
    };
    let (width, row) = (shape.group() * shape.head_dim, shape.heads * shape.head_dim);
    let mut out = vec![0.0; queries.rows * shape.head_dim];
    for (index, head) in heads.iter().enumerate() {
        let (tile, kv_head) = (&tiles[index / shape.kv_heads], index % shape.kv_heads);
        for (i, part) in head.chunks_exact(width).enumerate() {
            let at = (tile.token + i) * row + kv_head * width;
            out[at..at + width].copy_from_slice(part);
        }
    }
    out
}

fn tiles<'a>(runs: &'a [PagedRun<'a>], shape: &AttentionShape) -> Vec<Tile<'a>> {
    let together = (ROWS / shape.group()).max(1);
    let mut tiles = Vec::with_capacity(runs.len());
    let mut token = 0;
    for run in runs {
        for position in (run.first..run.end()).step_by(together) {
            let count = together.min(run.end() - position);
            tiles.push(Tile {
                run,
                token,
                position,
                count,
            });
            token += count;
        }
    }
    tiles
}

/// Memory of a task, for one block of keys after another.
#[derive(Default)]
struct Scratch {
    scores: Vec<f32>,
    codes: Vec<i16>,
    exps: Vec<i32>,
    visible: Vec<Visible>,
}

impl Attend<'_> {
    /// `[count, group, head_dim]` of one key head.
    fn head(&self, tile: &Tile<'_>, kv_head: usize) -> Vec<f32> {
        let (group, dim) = (self.shape.group(), self.shape.head_dim);
        let rows = tile.count * group;
        let (codes, exps) = self.gathered(tile, kv_head);
        let queries = Operand {
            q: &codes,
            rows,
            depth: dim,
            row_stride: dim,
            depth_stride: 1,
            exp: &exps,
            precision: self.queries.precision,
        };
        let end = tile.position + tile.count;
        let first_block = self.shape.first_key(tile.position) / BLOCK * BLOCK;
        let chunk_keys = BLOCK * CHUNK_BLOCKS;
        let mut scratch = Scratch::default();
        let mut total = Partials::empty(rows, dim);
        for chunk in (first_block / chunk_keys * chunk_keys..end).step_by(chunk_keys) {
            let mut part = Partials::empty(rows, dim);
            for block in (chunk.max(first_block)..end.min(chunk + chunk_keys)).step_by(BLOCK) {
                part.merge(&self.block(&queries, tile, kv_head, block, &mut scratch));
            }
            total.merge(&part);
        }
        let mut out = total.out;
        for (out, sum) in out.chunks_exact_mut(dim).zip(&total.sum) {
            out.iter_mut().for_each(|o| *o /= sum);
        }
        out
    }

    /// Codes and exponents of the queries of a tile that read one key head, by token and head.
    fn gathered(&self, tile: &Tile<'_>, kv_head: usize) -> (Vec<i16>, Vec<i32>) {
        let (group, dim) = (self.shape.group(), self.shape.head_dim);
        let (q, exp) = (self.queries.q.data(), self.queries.exp.data());
        let mut codes = Vec::with_capacity(tile.count * group * dim);
        let mut exps = Vec::with_capacity(tile.count * group);
        for token in tile.token..tile.token + tile.count {
            let row = token * self.shape.heads + kv_head * group;
            codes.extend_from_slice(&q[row * dim..(row + group) * dim]);
            exps.extend_from_slice(&exp[row..row + group]);
        }
        (codes, exps)
    }

    /// The softmaxes over the keys of one page.
    fn block(
        &self,
        queries: &Operand<'_>,
        tile: &Tile<'_>,
        kv_head: usize,
        block: usize,
        scratch: &mut Scratch,
    ) -> Partials {
        let (isa, dim, rows) = (self.cpu.isa(), self.shape.head_dim, queries.rows);
        let end = tile.position + tile.count;
        let count = BLOCK.min(end - block);
        let page = tile.run.pages[block / BLOCK] as usize;
        let page = self.pages.head(self.layer, page, kv_head);
        let (keys, values) = (self.keys(&page, count), self.values(&page, count));
        scratch.visible.clear();
        for position in tile.position..end {
            let seen = super::forward::seen(position, block, count, self.shape);
            let heads = std::iter::repeat_n(seen, self.shape.group());
            scratch.visible.extend(heads);
        }
        let mut partial = Partials::empty(rows, dim);
        let scores = sized(&mut scratch.scores, rows * count);
        gemm::gemm_serial(isa, *queries, keys, scores);
        softmax(isa, scores, &scratch.visible, &mut partial.max, &mut partial.sum);
        let codes = sized(&mut scratch.codes, rows * count);
        let exps = sized(&mut scratch.exps, rows);
        let folds = Some(&page.value_exps[..count]);
        code::code_rows_serial(isa, scores, folds, self.precision, codes, exps);
        let probabilities = Operand {
            q: codes,
            rows,
            depth: count,
            row_stride: count,
            depth_stride: 1,
            exp: exps,
            precision: self.precision,
        };
        debug_assert_eq!(partial.out.len(), rows * dim);
        gemm::gemm_serial(isa, probabilities, values, &mut partial.out);
        partial
    }

    /// Tokens as rows, summed over the features of the head.
    fn keys<'p>(&self, page: &PageHead<'p>, count: usize) -> Operand<'p> {
        let dim = self.shape.head_dim;
        Operand {
            q: page.keys,
            rows: count,
            depth: dim,
            row_stride: dim,
            depth_stride: 1,
            exp: &page.key_exps[..count],
            precision: self.pages.precision(),
        }
    }

    /// Features as rows, summed over the tokens, whose exponents are folded into the probabilities.
    fn values<'p>(&self, page: &PageHead<'p>, count: usize) -> Operand<'p> {
        Operand {
            q: page.values,
            rows: self.shape.head_dim,
            depth: count,
            row_stride: BLOCK,
            depth_stride: 1,
            exp: &[],
            precision: self.pages.precision(),
        }
    }
}

/// The first `len` elements, of any content.
fn sized<T: Clone + Default>(buffer: &mut Vec<T>, len: usize) -> &mut [T] {
    if buffer.len() < len {
        buffer.resize(len, T::default());
    }
    &mut buffer[..len]
}
