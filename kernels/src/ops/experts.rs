//! Rows of experts: a token's row goes to each of its experts, and their results are added to the
//! token again. Rows are grouped by expert, in the order of the tokens, so that each expert is one
//! product.

use std::ops::Range;

use super::matmul::tensor;
use super::route::Routes;
use crate::coded::Coded;
use crate::{Buffer, Device, Ids, KernelError, Tensor, cpu, cuda, reference};

/// Which rows go to which expert: `m * chosen` rows, by (expert, token).
#[derive(Clone, Debug)]
pub struct ExpertRows {
    /// The token of each row `[m * chosen]`.
    pub tokens: Ids,
    /// The row of each token's choices `[m * chosen]`, a token's by rising expert.
    pub slots: Ids,
    on_host: Vec<u32>,
    /// Where the rows of each expert start, and the end of the last: `experts + 1`.
    starts: Vec<usize>,
}

impl ExpertRows {
    /// The rows of an expert.
    pub fn of(&self, expert: usize) -> Range<usize> {
        self.starts[expert]..self.starts[expert + 1]
    }

    /// How many rows each expert has: its load.
    pub fn counts(&self) -> impl ExactSizeIterator<Item = usize> + '_ {
        self.starts.windows(2).map(|ends| ends[1] - ends[0])
    }

    /// The rows of an expert whose tokens are in `[first, first + count)`: those of one sequence.
    pub fn within(&self, expert: usize, first: usize, count: usize) -> Range<usize> {
        let rows = self.of(expert);
        let tokens = &self.on_host[rows.clone()];
        let before = |end: usize| rows.start + tokens.partition_point(|&t| (t as usize) < end);
        before(first)..before(first + count)
    }
}

impl Device {
    /// The rows of each of `experts` experts. It waits for a GPU to make the choice: how many rows
    /// an expert has decides what is launched.
    ///
    /// # Errors
    /// [`KernelError::DoesNotFit`] for an expert that is not there; [`KernelError::Cuda`] where a
    /// GPU fails.
    pub fn expert_rows(&self, routes: &Routes, experts: usize) -> Result<ExpertRows, KernelError> {
        let chosen = routes.experts.0.values()?;
        let per_token = routes.weights.rows_cols().1;
        if let Some(expert) = chosen.iter().find(|&&expert| expert as usize >= experts) {
            let reason = format!("a token goes to expert {expert} of {experts}");
            return Err(KernelError::DoesNotFit(reason));
        }
        let mut starts = vec![0; experts + 1];
        chosen
            .iter()
            .for_each(|&expert| starts[expert as usize + 1] += 1);
        for expert in 0..experts {
            starts[expert + 1] += starts[expert];
        }
        let mut next = starts.clone();
        let (mut tokens, mut slots) = (vec![0; chosen.len()], vec![0; chosen.len()]);
        for (at, &expert) in chosen.iter().enumerate() {
            let row = &mut next[expert as usize];
            tokens[*row] = (at / per_token) as u32;
            slots[at] = *row as u32;
            *row += 1;
        }
        Ok(ExpertRows {
            tokens: self.ids(&tokens)?,
            slots: self.ids(&slots)?,
            on_host: tokens,
            starts,
        })
    }

    /// The rows of `x` at `rows`. No row's code depends on another row, so these are the codes of
    /// the gathered rows.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU fails.
    pub fn gather(&self, x: &Coded, rows: &Ids) -> Result<Coded, KernelError> {
        if let Self::Cuda(gpu) = self {
            return cuda::experts::gather(gpu, x, &rows.on(gpu)?);
        }
        Ok(reference::experts::gather(
            &*x.on_host()?,
            &rows.0.values()?,
        ))
    }

    /// `y = fma(weight, row, y)` over the rows of each token, by rising expert: y `[m, cols]`, rows
    /// `[m * chosen, cols]`, slots `[m * chosen]` as in [`ExpertRows::slots`], weights
    /// `[m, chosen]`, or all 1: plain additions.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU fails.
    pub fn combine(
        &self,
        y: &mut Tensor,
        rows: &Tensor,
        slots: &Ids,
        weights: Option<&Tensor>,
    ) -> Result<(), KernelError> {
        let (tokens, cols) = y.rows_cols();
        check("combine", (tokens, cols), rows, slots);
        if y.is_empty() {
            return Ok(());
        }
        if let Self::Cuda(gpu) = self {
            let weights = weights.map(|w| w.on(gpu)).transpose()?;
            let (rows, slots) = (rows.on(gpu)?, slots.on(gpu)?);
            let y = y.unique_on(gpu)?;
            return cuda::experts::combine(gpu, y, cols, &rows, &slots, weights.as_ref());
        }
        let weights = weights.map(Tensor::values).transpose()?;
        let (weights, rows, slots) = (weights.as_deref(), rows.values()?, slots.0.values()?);
        let y = y.values_mut()?;
        match self {
            Self::Cpu(cpu) => cpu::experts::combine(cpu, y, cols, &rows, &slots, weights),
            _ => reference::experts::combine(y, cols, &rows, &slots, weights),
        }
        Ok(())
    }

    /// Gradients of rows `[m * chosen, cols]` and weights `[m, chosen]` of [`Self::combine`] from
    /// dy `[m, cols]`.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU fails.
    pub fn combine_backward(
        &self,
        dy: &Tensor,
        rows: &Tensor,
        slots: &Ids,
        weights: &Tensor,
    ) -> Result<(Tensor, Tensor), KernelError> {
        let (tokens, cols) = dy.rows_cols();
        check("combine_backward", (tokens, cols), rows, slots);
        assert_eq!(weights.len(), slots.len(), "combine_backward: weights");
        let shapes = (rows.shape(), weights.shape());
        let (d_rows, d_weights): (Buffer<f32>, Buffer<f32>) = match self {
            Self::Cuda(gpu) => {
                let (dy, rows) = (dy.on(gpu)?, rows.on(gpu)?);
                let (slots, weights) = (slots.on(gpu)?, weights.on(gpu)?);
                let (d_rows, d_weights) =
                    cuda::experts::combine_backward(gpu, &dy, cols, &rows, &slots, &weights)?;
                (d_rows.into(), d_weights.into())
            }
            _ if dy.is_empty() => (Vec::new().into(), Vec::new().into()),
            _ => {
                let (dy, rows) = (dy.values()?, rows.values()?);
                let (slots, weights) = (slots.0.values()?, weights.values()?);
                let backward = match self {
                    Self::Cpu(cpu) => {
                        cpu::experts::combine_backward(cpu, &dy, cols, &rows, &slots, &weights)
                    }
                    _ => reference::experts::combine_backward(&dy, cols, &rows, &slots, &weights),
                };
                (backward.0.into(), backward.1.into())
            }
        };
        Ok((tensor(shapes.0, d_rows)?, tensor(shapes.1, d_weights)?))
    }
}

fn check(what: &str, (tokens, cols): (usize, usize), rows: &Tensor, slots: &Ids) {
    let shape = rows.rows_cols();
    assert_eq!((slots.len(), cols), shape, "{what}: rows");
    let fits = tokens == 0 && slots.is_empty() || tokens > 0 && slots.len().is_multiple_of(tokens);
    assert!(fits, "{what}: {} rows of {tokens} tokens", slots.len());
}
