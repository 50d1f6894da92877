//! Attention on a GPU: twin of [`crate::reference::attention`].

mod backward;
mod cut;

pub(crate) use backward::backward;

use super::grids::any_grid;
use super::keys::GpuKeys;
use super::page_codes::are_bytes;
use super::pages::GpuPages;
use super::{Cuda, Grid, Kernel, Result, Slice, arguments};
use crate::Tensor;
use crate::coded::{Coded, Precision};
use crate::reference::attention::{
    AttentionCodes, AttentionOut, AttentionShape, CodedKv, ScoreCap,
};
use crate::reference::lengths::{LengthGroup, Lengths};
use crate::reference::pages::PagedRun;
use cut::{KeyCut, QueryPart, QueryRun};

/// Rows of a tile, which a thread block takes: `ROWS` of `attention.cuh`.
const ROWS: u32 = 32;
/// Threads of a block: `THREADS` of `attention.cuh`.
const THREADS: u32 = 256;
/// Bytes that the softmaxes of the slots of a launch may take.
const WORKSPACE: usize = 64 << 20;

/// Heads and masks as kernels take them.
#[derive(Clone, Copy)]
struct Heads {
    heads: u32,
    kv_heads: u32,
    dim: u32,
    /// `u32::MAX` where a query sees all before it.
    window: u32,
}

impl Heads {
    /// For a run of `tokens`, the last of which stands before position `end`.
    ///
    /// # Panics
    /// Where there are more tokens or heads than kernels can count.
    fn new(shape: &AttentionShape, tokens: usize, end: usize) -> Self {
        assert_eq!(shape.heads % shape.kv_heads, 0, "attention: heads");
        let rows = tokens.saturating_mul(shape.group());
        let most = (u32::MAX / 2) as usize;
        assert!(rows.max(end) < most, "attention: too many tokens");
        assert!(shape.heads * shape.head_dim < 1 << 24, "attention: heads");
        Self {
            heads: shape.heads as u32,
            kv_heads: shape.kv_heads as u32,
            dim: shape.head_dim as u32,
            window: shape.window.unwrap_or(u32::MAX),
        }
    }

    /// Thread blocks for the queries of one key head in `tokens` tokens.
    fn tiles(&self, tokens: u32) -> u32 {
        (tokens * (self.heads / self.kv_heads)).div_ceil(ROWS)
    }
}

/// A kernel of `module` for scores and codes of these precisions: `capped` where scores pass a
/// cap, `one` where one digit holds all codes, else `two`.
fn kernel(
    module: &'static str,
    (cap, precisions): (Option<ScoreCap>, &[Precision]),
    [one, two, capped]: [&'static str; 3],
) -> Kernel {
    let single = precisions.iter().all(|&p| p == Precision::I8);
    let name = match cap {
        Some(_) => capped,
        None if single => one,
        None => two,
    };
    Kernel { module, name }
}

/// The factors of a cap as kernels take them: those without a cap do not read them.
fn cap_factors(cap: Option<ScoreCap>) -> (f32, f32) {
    cap.map_or((0.0, 0.0), |cap| (cap.inward, cap.outward))
}

/// Sinks in the memory of a GPU, where there are some.
fn sinks_on(cuda: &Cuda, sinks: Option<&Tensor>) -> Result<Option<Slice<f32>>> {
    sinks.map(|sinks| sinks.on(cuda)).transpose()
}

/// Coded rows in the memory of a GPU.
struct Codes {
    q: Slice<i16>,
    exp: Slice<i32>,
}

impl Codes {
    fn on(cuda: &Cuda, coded: &Coded) -> Result<Self> {
        Ok(Self {
            q: coded.q.on(cuda)?,
            exp: coded.exp.on(cuda)?,
        })
    }
}

/// Where keys and values lie.
enum Keys<'a> {
    /// Each sequence in one piece.
    Dense { k: Codes, v: Codes },
    /// In pages of one sequence, two addresses each, of codes of a precision.
    Paged(&'a Slice<u64>, Precision),
}

/// Attention of runs of tokens that see only themselves, each from position 0.
pub(crate) fn forward(
    cuda: &Cuda,
    codes: &AttentionCodes,
    documents: &Lengths,
    shape: &AttentionShape,
    sinks: Option<&Tensor>,
    precision: Precision,
) -> Result<AttentionOut> {
    let mut groups = documents.groups();
    let (first, second) = (groups.next(), groups.next());
    let (first, None) = (first.unwrap_or(LengthGroup::NONE), second) else {
        return unlike(cuda, codes, documents, shape, sinks, precision);
    };
    let CodedKv { k, v } = &codes.kv;
    let keys = Keys::Dense {
        k: Codes::on(cuda, k)?,
        v: Codes::on(cuda, v)?,
    };
    let precisions = [codes.queries.precision, k.precision, v.precision, precision];
    let run = QueryRun {
        sequences: first.count,
        tokens: first.len,
        first_position: 0,
    };
    let (queries, sinks) = (&codes.queries, sinks_on(cuda, sinks)?);
    let shape = (shape, sinks.as_ref());
    attend(cuda, queries, &keys, run, shape, &precisions, WORKSPACE)
}

/// As [`forward`], for documents of different lengths: neighbours of one length in a launch.
fn unlike(
    cuda: &Cuda,
    codes: &AttentionCodes,
    documents: &Lengths,
    shape: &AttentionShape,
    sinks: Option<&Tensor>,
    precision: Precision,
) -> Result<AttentionOut> {
    let width = shape.heads * shape.head_dim;
    let tokens = documents.tokens();
    let all = cuda.alloc(tokens * width)?;
    let max = cuda.alloc(tokens * shape.heads)?;
    let sum = cuda.alloc(tokens * shape.heads)?;
    for group in documents.groups() {
        let (first, count) = (group.first_token, group.tokens());
        let part = codes.part(first..first + count, shape);
        let alike = Lengths::uniform(group.count, group.len);
        let out = forward(cuda, &part, &alike, shape, sinks, precision)?;
        let rows = (first * shape.heads, count * shape.heads);
        cuda.copy(&out.out.on(cuda)?, &all.part(first * width, count * width))?;
        cuda.copy(&out.max.on(cuda)?, &max.part(rows.0, rows.1))?;
        cuda.copy(&out.sum.on(cuda)?, &sum.part(rows.0, rows.1))?;
    }
    Ok(AttentionOut {
        out: Tensor::new(&[tokens, width], all)?,
        max: max.into(),
        sum: Tensor::new(&[tokens * shape.heads], sum)?,
    })
}

/// Attention of the coded queries of one sequence, whose first token stands at `first_position`,
/// over the keys of `pages` up to each query's own position: `[tokens, heads * head_dim]`.
pub(crate) fn cached(
    cuda: &Cuda,
    queries: &Coded,
    pages: &GpuKeys,
    first_position: usize,
    shape: &AttentionShape,
    sinks: Option<&Tensor>,
    precision: Precision,
) -> Result<Tensor> {
    let run = QueryRun {
        sequences: 1,
        tokens: queries.rows / shape.heads,
        first_position,
    };
    let precisions = [queries.precision, pages.precision(), precision];
    let (keys, sinks) = (
        Keys::Paged(pages.table(), pages.precision()),
        sinks_on(cuda, sinks)?,
    );
    let shape = (shape, sinks.as_ref());
    Ok(attend(cuda, queries, &keys, run, shape, &precisions, WORKSPACE)?.out)
}

/// Attention of the coded queries of `runs`, one run after another, each over the keys in its
/// pages: `[tokens, heads * head_dim]`. Runs and rows have been checked.
pub(crate) fn paged(
    cuda: &Cuda,
    queries: &Coded,
    pages: &GpuPages,
    layer: usize,
    runs: &[PagedRun<'_>],
    shape: &AttentionShape,
    sinks: Option<&Tensor>,
    precision: Precision,
) -> Result<Tensor> {
    let sinks = sinks_on(cuda, sinks)?;
    let tables = pages.tables(layer, runs)?;
    let precisions = [queries.precision, pages.precision(), precision];
    let width = shape.heads * shape.head_dim;
    let tokens = queries.rows / shape.heads;
    let all = cuda.alloc(tokens * width)?;
    let mut token = 0;
    for (index, run) in runs.iter().enumerate() {
        let queries = queries.part(token * shape.heads, run.count * shape.heads);
        let table = tables.of(index);
        let keys = Keys::Paged(&table, pages.precision());
        let one = QueryRun {
            sequences: 1,
            tokens: run.count,
            first_position: run.first,
        };
        let shape = (shape, sinks.as_ref());
        let out = attend(cuda, &queries, &keys, one, shape, &precisions, WORKSPACE)?;
        let target = all.part(token * width, run.count * width);
        cuda.copy(&out.out.on(cuda)?, &target)?;
        token += run.count;
    }
    Tensor::new(&[tokens, width], all)
}

/// With the sinks of the heads, where there are some. `precisions` end with that of the
/// probabilities.
fn attend(
    cuda: &Cuda,
    queries: &Coded,
    keys: &Keys<'_>,
    run: QueryRun,
    (shape, sinks): (&AttentionShape, Option<&Slice<f32>>),
    precisions: &[Precision],
    workspace: usize,
) -> Result<AttentionOut> {
    let heads = Heads::new(shape, run.tokens, run.first_position + run.tokens);
    let (rows, cap) = (queries.rows, shape.score_cap());
    let names = match keys {
        Keys::Paged(_, precision) if are_bytes(*precision) => [
            "attention_forward_bytes",
            "attention_forward_bytes",
            "attention_forward_bytes_capped",
        ],
        _ => [
            "attention_forward_1",
            "attention_forward_2",
            "attention_forward_capped",
        ],
    };
    let attend = Attend {
        cuda,
        heads,
        run,
        queries: Codes::on(cuda, queries)?,
        keys,
        cap,
        sinks,
        kernel: kernel("attention", (cap, precisions), names),
        limit: precisions.last().map_or(0, |p| p.limit()),
        out: cuda.alloc(rows * shape.head_dim)?,
        max: cuda.alloc(rows)?,
        sum: cuda.alloc(rows)?,
    };
    for part in cut::parts(&run, shape, workspace) {
        attend.part(&part, shape)?;
    }
    let width = shape.heads * shape.head_dim;
    Ok(AttentionOut {
        out: Tensor::new(&[rows / shape.heads, width], attend.out)?,
        max: attend.max.into(),
        sum: Tensor::new(&[rows], attend.sum)?,
    })
}

/// A forward pass under way.
struct Attend<'a> {
    cuda: &'a Cuda,
    heads: Heads,
    run: QueryRun,
    queries: Codes,
    keys: &'a Keys<'a>,
    cap: Option<ScoreCap>,
    /// `[heads]`.
    sinks: Option<&'a Slice<f32>>,
    kernel: Kernel,
    limit: i32,
    /// `[sequences, tokens, heads, head_dim]`.
    out: Slice<f32>,
    /// `[sequences, tokens, heads]`, as the sums.
    max: Slice<i32>,
    sum: Slice<f32>,
}

impl Attend<'_> {
    /// Computes the results of some queries.
    fn part(&self, part: &QueryPart, shape: &AttentionShape) -> Result<()> {
        let cut = KeyCut::new(&self.run, part, shape, self.cuda.multiprocessors());
        let heads = shape.heads;
        let rows = part.sequences * part.count * heads;
        let slots = cut.slots as usize;
        // If one slot has all keys, its softmax is written where the result goes.
        let part_out = if slots == 1 && part.count == self.run.tokens {
            let first = part.first_sequence * part.count * heads;
            self.out.part(first * shape.head_dim, rows * shape.head_dim)
        } else {
            self.cuda.alloc(slots * rows * shape.head_dim)?
        };
        let part_max = self.cuda.alloc(slots * rows)?;
        let part_sum = self.cuda.alloc(slots * rows)?;
        self.blocks(part, &cut, (&part_out, &part_max, &part_sum))?;
        self.merge(part, &cut, (&part_out, &part_max, &part_sum))
    }

    fn blocks(&self, part: &QueryPart, cut: &KeyCut, into: Partials<'_>) -> Result<()> {
        let Heads {
            heads,
            kv_heads,
            dim,
            window,
        } = self.heads;
        let (keys, values, pages) = match self.keys {
            Keys::Dense { k, v } => (Some(k), Some(v), None),
            Keys::Paged(table, _) => (None, None, Some(*table)),
        };
        let (part_out, part_max, part_sum) = into;
        let (inward, outward) = cap_factors(self.cap);
        let tiles = self.heads.tiles(part.count as u32);
        let grid = Grid::new(tiles * part.sequences as u32 * cut.slots, THREADS).y(kv_heads);
        let arguments = arguments![
            &self.queries.q,
            &self.queries.exp,
            keys.map(|k| &k.q),
            keys.map(|k| &k.exp),
            values.map(|v| &v.q),
            values.map(|v| &v.exp),
            pages,
            heads,
            kv_heads,
            dim,
            window,
            inward,
            outward,
            self.limit,
            self.run.tokens as u32,
            part.first_sequence as u32,
            part.first_token as u32,
            part.count as u32,
            self.run.first_position as u32,
            cut.first_block,
            cut.slot_blocks,
            cut.slots,
            part_out,
            part_max,
            part_sum,
        ];
        self.cuda.launch(self.kernel, grid, arguments)
    }

    fn merge(&self, part: &QueryPart, cut: &KeyCut, (out, max, sum): Partials<'_>) -> Result<()> {
        let Heads { heads, dim, .. } = self.heads;
        let elements = part.sequences * part.count * (heads * dim) as usize;
        let kernel = Kernel {
            module: "attention",
            name: "attention_merge",
        };
        let arguments = arguments![
            out,
            max,
            sum,
            self.sinks,
            &self.out,
            &self.max,
            &self.sum,
            heads,
            dim,
            self.run.tokens as u32,
            part.first_sequence as u32,
            part.sequences as u32,
            part.first_token as u32,
            part.count as u32,
            cut.first_block,
            cut.slot_blocks,
            cut.slots,
        ];
        self.cuda.launch(kernel, any_grid(elements), arguments)
    }
}

/// Where the softmaxes of slots go: numerators, maxima, denominators.
type Partials<'a> = (&'a Slice<f32>, &'a Slice<i32>, &'a Slice<f32>);

#[cfg(all(test, feature = "emulator"))]
mod tests {
    use super::*;
    use crate::Device;
    use crate::conformance::{CaseInput, InputKind, difference};
    use crate::cuda::emulator::EmulatorOptions;

    /// Queries that are computed launch by launch, where the softmaxes of all would not fit.
    #[test]
    fn the_size_of_the_workspace_does_not_matter() {
        let shape = AttentionShape {
            heads: 2,
            kv_heads: 1,
            head_dim: 4,
            window: None,
            scale: 0.5,
            soft_cap: None,
        };
        let (sequences, tokens) = (2, 1_040);
        let documents = Lengths::uniform(sequences, tokens);
        let draw = CaseInput::new(6, InputKind::Ordinary);
        let cuda = Cuda::emulated(EmulatorOptions::default());
        let run = |device: &Device, workspace: usize| -> Result<Vec<Vec<f32>>> {
            let x = |stream, width| draw.tensor(stream, &[sequences * tokens, width]);
            let (q, k, v) = (x(1, 8)?, x(2, 4)?, x(3, 4)?);
            let p = Precision::I16;
            let codes = device.attention_codes(&q, &k, &v, &shape, p, p)?;
            let Device::Cuda(cuda) = device else {
                let out = device.attention(&codes, &documents, &shape, None, Precision::I16)?;
                return Ok(vec![out.out.into_values()?, out.sum.into_values()?]);
            };
            let keys = Keys::Dense {
                k: Codes::on(cuda, &codes.kv.k)?,
                v: Codes::on(cuda, &codes.kv.v)?,
            };
            let run = QueryRun {
                sequences,
                tokens,
                first_position: 0,
            };
            let (queries, precisions) = (&codes.queries, [Precision::I16]);
            let out = attend(
                cuda,
                queries,
                &keys,
                run,
                (&shape, None),
                &precisions,
                workspace,
            )?;
            Ok(vec![out.out.into_values()?, out.sum.into_values()?])
        };
        let expected = run(&Device::cpu(1), 0).unwrap();
        // 96 bytes per token and slot: parts of 512 and of 20 tokens, and of single sequences.
        for workspace in [1 << 16, 4_000, 250_000] {
            let got = run(&Device::Cuda(cuda.clone()), workspace).unwrap();
            assert_eq!(difference(&got, &expected), None, "{workspace} bytes");
        }
    }
}
