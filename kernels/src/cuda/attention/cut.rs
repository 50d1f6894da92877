//! How attention is cut over thread blocks: pure functions, which change speed and memory, never
//! bits.

use super::{ROWS, THREADS};
use crate::reference::attention::AttentionShape;
use crate::reference::attention::{BLOCK, CHUNK_BLOCKS};

/// The most thread blocks along x.
const GRID_MAX: usize = (1 << 31) - 1;
const CHUNK: usize = BLOCK * CHUNK_BLOCKS;

const _: () = assert!(THREADS as usize >= BLOCK && BLOCK.is_multiple_of(ROWS as usize));

/// The queries of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct QueryRun {
    pub(super) sequences: usize,
    /// Tokens of each sequence.
    pub(super) tokens: usize,
    /// Where the first token of each sequence stands in it.
    pub(super) first_position: usize,
}

impl QueryRun {
    /// The position of a token.
    fn position(&self, token: usize) -> usize {
        self.first_position + token
    }
}

/// The queries of one launch: tokens `[first_token, + count)` of some sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct QueryPart {
    pub(super) first_sequence: usize,
    pub(super) sequences: usize,
    pub(super) first_token: usize,
    pub(super) count: usize,
}

/// Cuts a run into launches whose partial results fit into `workspace` bytes (one token is always
/// launched): whole sequences where one fits, else tokens of one sequence.
pub(super) fn parts(run: &QueryRun, shape: &AttentionShape, workspace: usize) -> Vec<QueryPart> {
    let QueryRun {
        sequences, tokens, ..
    } = *run;
    if sequences == 0 || tokens == 0 {
        return Vec::new();
    }
    let chunks = chunks(run, (0, tokens), shape).1;
    // A softmax over one chunk is built where the result goes.
    let fit = if chunks == 1 {
        usize::MAX
    } else {
        let token_bytes = shape.heads * (shape.head_dim + 2) * size_of::<f32>() * chunks;
        (workspace / token_bytes).max(1)
    };
    if fit >= tokens {
        let blocks = (tokens * shape.group()).div_ceil(ROWS as usize) * chunks;
        let whole = (fit / tokens).min(GRID_MAX / blocks).clamp(1, sequences);
        return (0..sequences)
            .step_by(whole)
            .map(|first_sequence| QueryPart {
                first_sequence,
                sequences: whole.min(sequences - first_sequence),
                first_token: 0,
                count: tokens,
            })
            .collect();
    }
    // Full tiles, where that many fit.
    let tile = ROWS as usize;
    let count = if fit > tile { fit / tile * tile } else { fit };
    (0..sequences)
        .flat_map(|first_sequence| {
            (0..tokens)
                .step_by(count)
                .map(move |first_token| QueryPart {
                    first_sequence,
                    sequences: 1,
                    first_token,
                    count: count.min(tokens - first_token),
                })
        })
        .collect()
}

/// The first chunk that tokens `[first, + count)` of a run see, and how many from there on.
fn chunks(
    run: &QueryRun,
    (first, count): (usize, usize),
    shape: &AttentionShape,
) -> (usize, usize) {
    let seen = shape.first_key(run.position(first)) / CHUNK;
    (seen, run.position(first + count - 1) / CHUNK - seen + 1)
}

/// How the keys of a launch are cut: slot s has key blocks `[first_block + s * slot_blocks, +
/// slot_blocks)`, and a softmax of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KeyCut {
    pub(super) first_block: u32,
    /// [`CHUNK_BLOCKS`], or 1.
    pub(super) slot_blocks: u32,
    pub(super) slots: u32,
}

impl KeyCut {
    /// Slots are chunks; blocks where chunks would not give every multiprocessor two thread blocks.
    pub(super) fn new(
        run: &QueryRun,
        part: &QueryPart,
        shape: &AttentionShape,
        multiprocessors: u32,
    ) -> Self {
        let tokens = (part.first_token, part.count);
        let (first_chunk, chunks) = chunks(run, tokens, shape);
        let tiles = (part.count * shape.group()).div_ceil(ROWS as usize);
        let blocks = tiles * shape.kv_heads * part.sequences * chunks;
        if blocks >= 2 * multiprocessors as usize {
            return Self {
                first_block: (first_chunk * CHUNK_BLOCKS) as u32,
                slot_blocks: CHUNK_BLOCKS as u32,
                slots: chunks as u32,
            };
        }
        let first = shape.first_key(run.position(part.first_token)) / BLOCK;
        let last = run.position(part.first_token + part.count - 1) / BLOCK;
        Self {
            first_block: first as u32,
            slot_blocks: 1,
            slots: (last - first + 1) as u32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORKSPACE: usize = 64 << 20;

    fn shape(heads: usize, kv_heads: usize, window: Option<u32>) -> AttentionShape {
        AttentionShape {
            heads,
            kv_heads,
            head_dim: 128,
            window,
            scale: 0.1,
            soft_cap: None,
        }
    }

    fn run(sequences: usize, tokens: usize, first_position: usize) -> QueryRun {
        QueryRun {
            sequences,
            tokens,
            first_position,
        }
    }

    /// Every query is in one part, and no part takes more than its share of memory.
    #[test]
    fn parts_cover_every_query_once() {
        let shapes = [
            shape(32, 8, None),
            shape(4, 1, Some(300)),
            shape(9, 3, None),
        ];
        let runs = [
            run(1, 1, 0),
            run(3, 1_024, 0),
            run(2, 1_025, 0),
            run(1, 40_000, 0),
            run(1, 100, 16_000_000),
            run(1_000, 2_048, 0),
        ];
        for shape in &shapes {
            for run in &runs {
                let mut next = (0, 0);
                for part in parts(run, shape, WORKSPACE) {
                    assert_eq!((part.first_sequence, part.first_token), next, "{run:?}");
                    assert!(part.count > 0 && part.sequences > 0);
                    let end = part.first_token + part.count;
                    next = if end == run.tokens {
                        (part.first_sequence + part.sequences, 0)
                    } else {
                        assert_eq!(part.sequences, 1);
                        (part.first_sequence, end)
                    };
                    let cut = KeyCut::new(run, &part, shape, 132);
                    let rows = part.sequences * part.count * shape.heads;
                    let bytes = rows * (shape.head_dim + 2) * 4 * cut.slots as usize;
                    let single = part.count * part.sequences == 1;
                    assert!(
                        cut.slots == 1 || single || bytes <= 2 * WORKSPACE,
                        "{part:?}"
                    );
                }
                assert_eq!(next, (run.sequences, 0), "{run:?}");
            }
        }
    }

    #[test]
    fn no_tokens_are_no_parts() {
        assert_eq!(parts(&run(0, 7, 0), &shape(2, 1, None), WORKSPACE), []);
        assert_eq!(parts(&run(3, 0, 0), &shape(2, 1, None), WORKSPACE), []);
    }

    #[test]
    fn chunks_are_cut_further_where_multiprocessors_would_idle() {
        let cut = |tokens, first_position, shape: &AttentionShape| {
            let run = run(1, tokens, first_position);
            let part = QueryPart {
                first_sequence: 0,
                sequences: 1,
                first_token: 0,
                count: tokens,
            };
            let cut = KeyCut::new(&run, &part, shape, 16);
            (cut.first_block, cut.slot_blocks, cut.slots)
        };
        // Training: many tiles, chunks.
        assert_eq!(cut(2_048, 0, &shape(32, 8, None)), (0, 8, 2));
        // One token after 3,000: 8 heads x 3 chunks leave 16 multiprocessors idle.
        assert_eq!(cut(1, 3_000, &shape(32, 8, None)), (0, 1, 24));
        assert_eq!(cut(1, 40_000, &shape(32, 8, None)), (0, 8, 40));
        // A window leaves the blocks before it out.
        assert_eq!(cut(1, 3_000, &shape(32, 8, Some(100))), (22, 1, 2));
        assert_eq!(cut(1_024, 5_000, &shape(32, 8, Some(1_024))), (24, 8, 3));
    }
}
