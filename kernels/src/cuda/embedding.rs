//! Embedding: rows of a table, and their gradient by (token id, position) order.

use super::grids::{over, over_rows};
use super::{Argument, Cuda, Kernel, Result, Slice, arguments};

const fn kernel(name: &'static str) -> Kernel {
    let module = "embedding";
    Kernel { module, name }
}

/// Row `ids[t]` of `table` `[vocab, hidden]` for each token t: `[tokens, hidden]`.
pub(crate) fn forward(
    cuda: &Cuda,
    table: &Slice<f32>,
    hidden: usize,
    ids: &Slice<u32>,
) -> Result<Slice<f32>> {
    let tokens = ids.len();
    let rows = cuda.alloc(tokens * hidden)?;
    if !rows.is_empty() {
        let (vocab, grid) = (table.len() / hidden, over_rows(tokens, hidden, 256));
        let (tokens, hidden, vocab) = (tokens as u32, hidden as u32, vocab as u32);
        let arguments = arguments![table, ids, &rows, tokens, hidden, vocab];
        cuda.launch(kernel("embedding_rows"), grid, arguments)?;
    }
    Ok(rows)
}

/// Gradient `[vocab, hidden]` of the table: each row adds the gradients of its tokens by rising
/// position. dy `[tokens, hidden]`.
pub(crate) fn backward(
    cuda: &Cuda,
    dy: &Slice<f32>,
    hidden: usize,
    ids: &Slice<u32>,
    vocab: usize,
) -> Result<Slice<f32>> {
    let gradient = cuda.zeros(vocab * hidden)?;
    let tokens_of_ids = Chains { ids, hidden, vocab };
    tokens_of_ids.walk(cuda, kernel("embedding_add"), arguments![dy], &gradient)?;
    Ok(gradient)
}

/// Subtracts the rows of x `[tokens, hidden]`, times their shares where there are shares, from the
/// rows of dw `[vocab, hidden]` at their targets, by rising position.
pub(super) fn take(
    cuda: &Cuda,
    dw: &Slice<f32>,
    (x, hidden): (&Slice<f32>, usize),
    targets: &Slice<u32>,
    shares: Option<&Slice<f32>>,
) -> Result<()> {
    let tokens_of_targets = Chains {
        ids: targets,
        hidden,
        vocab: dw.len().checked_div(hidden).unwrap_or(0),
    };
    tokens_of_targets.walk(cuda, kernel("embedding_take"), arguments![x, shares], dw)
}

/// The tokens of each id, by rising position, and the table whose rows they write to.
struct Chains<'a> {
    ids: &'a Slice<u32>,
    hidden: usize,
    vocab: usize,
}

impl Chains<'_> {
    /// Runs the kernel `by`, in which the first token of each id walks the others, and which writes
    /// to `table` `[vocab, hidden]`. Its arguments begin with `rows`: `[tokens, hidden]`, and what
    /// else it takes.
    fn walk(&self, cuda: &Cuda, by: Kernel, rows: &[Argument], table: &Slice<f32>) -> Result<()> {
        let (tokens, hidden) = (self.ids.len(), self.hidden);
        if tokens * hidden == 0 {
            return Ok(());
        }
        let (next, follows) = (cuda.alloc::<u32>(tokens)?, cuda.zeros::<u32>(tokens)?);
        let chains = arguments![self.ids, &next, &follows, tokens as u32];
        cuda.launch(kernel("embedding_chains"), over(cuda, tokens), chains)?;
        let (count, width, vocab) = (tokens as u32, hidden as u32, self.vocab as u32);
        let others = arguments![self.ids, &next, &follows, table, count, width, vocab];
        let grid = over_rows(tokens, hidden, 256);
        cuda.launch(by, grid, &[rows, others].concat())
    }
}
