//! Attention over pages: a task takes some tokens of one sequence, block of keys by block of keys.
//! The bits are those of [`super::forward`].

use rayon::prelude::*;

use super::digits::{self, DEPTH_MAX, Digits, Pairs};
use super::quads::{self, QuadRows, Quads};
use super::rows::{Partials, cap_scores, softmax};
use crate::coded::{Coded, Precision};
use crate::cpu::pages::{HeadCodes, HostPages, LANES, PageHead};
use crate::cpu::{Cpu, code};
use crate::math::pow2_f64;
use crate::reference::attention::{AttentionShape, BLOCK, CHUNK_BLOCKS, ScoreCap, SoftmaxEnd};
use crate::reference::pages::PagedRun;

/// Rows of a tile, about: query heads of a key head times tokens.
const ROWS: usize = 32;
/// Multiply-adds below which a task is not worth a thread.
const TASK_WORK: usize = 1 << 18;

/// What all tasks of a call read.
struct Attend<'a> {
    cpu: &'a Cpu,
    queries: &'a Coded,
    pages: &'a HostPages,
    layer: usize,
    shape: &'a AttentionShape,
    cap: Option<ScoreCap>,
    sinks: Option<&'a [f32]>,
    precision: Precision,
}

/// Tokens `[position, position + count)` of a sequence, from `token` of the batch on, and some of
/// their key heads: all, or one of a single token.
#[derive(Clone, Copy)]
struct Tile<'a> {
    run: &'a PagedRun<'a>,
    token: usize,
    position: usize,
    count: usize,
    first_head: usize,
    heads: usize,
}

/// Attention of `runs`, `[tokens, heads * head_dim]`. Runs and pages have been checked.
pub fn paged(
    cpu: &Cpu,
    queries: &Coded,
    pages: &HostPages,
    layer: usize,
    runs: &[PagedRun<'_>],
    shape: &AttentionShape,
    sinks: Option<&[f32]>,
    precision: Precision,
) -> Vec<f32> {
    let attend = Attend {
        cpu,
        queries,
        pages,
        layer,
        shape,
        cap: shape.score_cap(),
        sinks,
        precision,
    };
    let mut out = vec![0.0; queries.rows * shape.head_dim];
    if shape.head_dim > DEPTH_MAX {
        attend.gathered(runs, &mut out);
        return out;
    }
    let tiles = attend.tiles(runs);
    let work: usize = tiles.iter().map(|tile| tile.work(shape)).sum();
    let mut tasks = Vec::with_capacity(tiles.len());
    let mut rest = &mut out[..];
    for tile in &tiles {
        let len = tile.count * tile.heads * shape.group() * shape.head_dim;
        let (own, later) = rest.split_at_mut(len);
        tasks.push((tile, own));
        rest = later;
    }
    let together = (tasks.len() * TASK_WORK).div_ceil(work.max(1)).max(1);
    if cpu.threads() == 1 || together >= tasks.len() {
        let mut scratch = Scratch::default();
        for (tile, out) in tasks {
            attend.tile(tile, out, &mut scratch);
        }
    } else {
        let tasks = tasks.into_par_iter().with_min_len(together);
        cpu.pool().install(|| {
            tasks.for_each_init(Scratch::default, |scratch, (tile, out)| {
                attend.tile(tile, out, scratch);
            });
        });
    }
    out
}

impl Tile<'_> {
    /// Its multiply-adds, about.
    fn work(&self, shape: &AttentionShape) -> usize {
        let keys = self.position + self.count - shape.first_key(self.position) / BLOCK * BLOCK;
        2 * self.count * self.heads * shape.group() * shape.head_dim * keys
    }
}

/// Memory of a task, for one row and block after another.
#[derive(Default)]
struct Scratch {
    /// Digits of the queries of a key head, `[rows, depth]` each.
    query_high: Vec<i16>,
    query_low: Vec<i16>,
    /// The same queries, where keys have codes of 8 bits; and the probabilities of one row.
    query_quads: QuadRows,
    code_quads: QuadRows,
    /// For one row: sums, scores, codes of probabilities and their digits.
    high: Vec<i32>,
    low: Vec<i32>,
    scores: Vec<f32>,
    codes: Vec<i16>,
    code_high: Vec<i16>,
    code_low: Vec<i16>,
    /// Softmaxes of all rows: over all keys, over a chunk, over a block.
    total: Partials,
    chunk: Partials,
    block: Partials,
}

impl Attend<'_> {
    fn tiles<'r>(&self, runs: &'r [PagedRun<'r>]) -> Vec<Tile<'r>> {
        let (shape, mut tiles, mut token) = (self.shape, Vec::with_capacity(runs.len()), 0);
        let together = (ROWS / shape.group()).max(1);
        for run in runs {
            for position in (run.first..run.end()).step_by(together) {
                let whole = Tile {
                    run,
                    token,
                    position,
                    count: together.min(run.end() - position),
                    first_head: 0,
                    heads: shape.kv_heads,
                };
                token += whole.count;
                // One token with many keys is cut by heads: it may be the only one.
                if whole.count == 1 && whole.work(shape) > 2 * TASK_WORK {
                    let one = |first_head| Tile {
                        first_head,
                        heads: 1,
                        ..whole
                    };
                    tiles.extend((0..shape.kv_heads).map(one));
                } else {
                    tiles.push(whole);
                }
            }
        }
        tiles
    }

    /// `[count, heads, group, head_dim]` of the tile's key heads.
    fn tile(&self, tile: &Tile<'_>, out: &mut [f32], scratch: &mut Scratch) {
        let (group, dim) = (self.shape.group(), self.shape.head_dim);
        let width = tile.heads * group * dim;
        for head in 0..tile.heads {
            self.head(tile, tile.first_head + head, scratch);
            let rows = scratch.total.out.chunks_exact(group * dim);
            for (token, (line, rows)) in out.chunks_exact_mut(width).zip(rows).enumerate() {
                let line = &mut line[head * group * dim..(head + 1) * group * dim];
                let rows = line.chunks_exact_mut(dim).zip(rows.chunks_exact(dim));
                for (member, (line, row)) in rows.enumerate() {
                    let at = token * group + member;
                    let softmax = (scratch.total.max[at], scratch.total.sum[at]);
                    let query_head = (tile.first_head + head) * group + member;
                    let end = SoftmaxEnd::new(softmax, self.sinks.map(|sinks| sinks[query_head]));
                    let values = line.iter_mut().zip(row);
                    values.for_each(|(out, o)| *out = o * end.keep / end.sum);
                }
            }
        }
    }

    /// The softmaxes of the queries of one key head, into `scratch.total`.
    fn head(&self, tile: &Tile<'_>, kv_head: usize, scratch: &mut Scratch) {
        let dim = self.shape.head_dim;
        let rows = tile.count * self.shape.group();
        self.take_queries(tile, kv_head, scratch);
        let end = tile.position + tile.count;
        let first_block = self.shape.first_key(tile.position) / BLOCK * BLOCK;
        let chunk_keys = BLOCK * CHUNK_BLOCKS;
        scratch.total.reset(rows, dim);
        for chunk in (first_block / chunk_keys * chunk_keys..end).step_by(chunk_keys) {
            scratch.chunk.reset(rows, dim);
            for block in (chunk.max(first_block)..end.min(chunk + chunk_keys)).step_by(BLOCK) {
                scratch.block.reset(rows, dim);
                self.block(tile, kv_head, block, scratch);
                scratch.chunk.merge(&scratch.block);
            }
            scratch.total.merge(&scratch.chunk);
        }
    }

    /// The digits of the queries of a tile that read one key head, by token and head.
    fn take_queries(&self, tile: &Tile<'_>, kv_head: usize, scratch: &mut Scratch) {
        let (isa, group, dim) = (self.cpu.isa(), self.shape.group(), self.shape.head_dim);
        let rows = tile.count * group;
        let codes = |row: usize| {
            let at = self.query(tile, kv_head, row) * dim;
            &self.queries.q.data()[at..at + dim]
        };
        if self.pages.are_bytes() {
            scratch.query_quads.reset(rows, dim);
            for row in 0..rows {
                scratch.query_quads.put(isa, row, codes(row));
            }
            return;
        }
        let depth = dim.next_multiple_of(2);
        let high = sized(&mut scratch.query_high, rows * depth);
        let low = sized(&mut scratch.query_low, rows * depth);
        let digits = high
            .chunks_exact_mut(depth)
            .zip(low.chunks_exact_mut(depth));
        for (row, (high, low)) in digits.enumerate() {
            high[dim..].fill(0);
            low[dim..].fill(0);
            digits::split(isa, codes(row), high, low);
        }
    }

    /// Which row of the queries is a row of a tile.
    fn query(&self, tile: &Tile<'_>, kv_head: usize, row: usize) -> usize {
        let group = self.shape.group();
        (tile.token + row / group) * self.shape.heads + kv_head * group + row % group
    }

    /// The softmaxes over the keys of one page, into `scratch.block`.
    fn block(&self, tile: &Tile<'_>, kv_head: usize, block: usize, scratch: &mut Scratch) {
        let page = tile.run.pages[block / BLOCK] as usize;
        let page = self.pages.head(self.layer, page, kv_head);
        let exps = self.queries.exp.data();
        for row in 0..tile.count * self.shape.group() {
            let position = tile.position + row / self.shape.group();
            let count = BLOCK.min((position + 1).saturating_sub(block));
            let seen = super::forward::seen(position, block, count, self.shape);
            if seen.first >= seen.end {
                continue;
            }
            let scale = pow2_f64(exps[self.query(tile, kv_head, row)]);
            self.scores(&page, row, scale, count, scratch);
            let scores = &mut scratch.scores[..count];
            if let Some(cap) = self.cap {
                cap_scores(self.cpu.isa(), scores, cap);
            }
            let partial = &mut scratch.block;
            let (max, sum) = (&mut partial.max[row..=row], &mut partial.sum[row..=row]);
            softmax(self.cpu.isa(), scores, &[seen], max, sum);
            self.mix(&page, count, row, scratch);
        }
    }

    /// The scores of one row, whose power of two is `scale`, with the first `count` keys of a page.
    fn scores(
        &self,
        page: &PageHead<'_>,
        row: usize,
        scale: f64,
        count: usize,
        scratch: &mut Scratch,
    ) {
        let (isa, width) = (self.cpu.isa(), count.next_multiple_of(LANES));
        let scores = sized(&mut scratch.scores, count);
        let high = sized(&mut scratch.high, width);
        match page.codes {
            HeadCodes::Words { keys, .. } => {
                let depth = self.shape.head_dim.next_multiple_of(2);
                let query = Digits {
                    high: &scratch.query_high[row * depth..(row + 1) * depth],
                    low: &scratch.query_low[row * depth..(row + 1) * depth],
                };
                let low = sized(&mut scratch.low, width);
                let keys = Pairs {
                    codes: keys,
                    stride: BLOCK,
                };
                digits::sums(isa, query, keys, high, low);
                digits::round(isa, high, low, scale, page.key_scales, scores);
            }
            HeadCodes::Bytes { keys, .. } => {
                let keys = Quads {
                    bytes: keys,
                    stride: BLOCK,
                };
                quads::sums(isa, scratch.query_quads.row(row), keys, high);
                quads::round(isa, high, scale, page.key_scales, scores);
            }
        }
    }

    /// The sum of the values of a page by the probabilities of one row, into `scratch.block`.
    fn mix(&self, page: &PageHead<'_>, count: usize, row: usize, scratch: &mut Scratch) {
        let (isa, dim) = (self.cpu.isa(), self.shape.head_dim);
        let depth = count.next_multiple_of(2);
        let codes = sized(&mut scratch.codes, depth);
        codes[count..].fill(0);
        let folds = (&page.value_scales[..count], &page.value_exps[..count]);
        let scores = &scratch.scores[..count];
        let exp = code::code_folded_row(isa, scores, folds, self.precision, &mut codes[..count]);
        let scale = pow2_f64(exp);
        let width = dim.next_multiple_of(LANES);
        let sums = sized(&mut scratch.high, width);
        let out = &mut scratch.block.out[row * dim..(row + 1) * dim];
        match page.codes {
            HeadCodes::Words { values, .. } => {
                let high = sized(&mut scratch.code_high, depth);
                let low = sized(&mut scratch.code_low, depth);
                digits::split(isa, codes, high, low);
                let probabilities = Digits { high, low };
                let low = sized(&mut scratch.low, width);
                let values = Pairs {
                    codes: values,
                    stride: width,
                };
                digits::sums(isa, probabilities, values, sums, low);
                digits::round_folded(isa, sums, low, scale, out);
            }
            HeadCodes::Bytes { values, .. } => {
                scratch.code_quads.reset(1, count);
                scratch.code_quads.put(isa, 0, &codes[..count]);
                let values = Quads {
                    bytes: values,
                    stride: width,
                };
                quads::sums(isa, scratch.code_quads.row(0), values, sums);
                quads::round_folded(isa, sums, scale, out);
            }
        }
    }

    /// Heads that are too wide for digits: run by run, over keys and values in one piece.
    fn gathered(&self, runs: &[PagedRun<'_>], out: &mut [f32]) {
        let (shape, mut row) = (self.shape, 0);
        for run in runs {
            let rows = run.count * shape.heads;
            let queries = self.queries.part(row, rows);
            let kv = self.pages.gathered(self.layer, run);
            let (sinks, precision) = (self.sinks, self.precision);
            let one = super::forward(self.cpu, &queries, &kv, run.first, shape, sinks, precision);
            out[row * shape.head_dim..(row + rows) * shape.head_dim].copy_from_slice(&one.out);
            row += rows;
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
