//! Softmax cross-entropy of a language model's head, forward and backward.

use super::matmul::tensor;
use crate::coded::Precision;
use crate::{Device, Ids, KernelError, NO_ID, Tensor, WeightRef, cpu, cuda, reference};

impl Device {
    /// Turns logits `[tokens, vocab]` into probabilities, in place, and returns the loss of each
    /// token in nats. A token without a target has loss 0 and probabilities 0.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU fails.
    pub fn cross_entropy(&self, logits: &mut Tensor, targets: &Ids) -> Result<Tensor, KernelError> {
        let (rows, vocab) = logits.rows_cols();
        assert_eq!(rows, targets.len(), "cross_entropy: rows");
        if let Self::Cuda(gpu) = self {
            let targets = targets.on(gpu)?;
            let logits = logits.unique_on(gpu)?;
            let losses = cuda::cross_entropy::forward(gpu, logits, vocab, &targets)?;
            return tensor(&[rows], losses);
        }
        let targets = host_targets(targets)?;
        let logits = logits.values_mut()?;
        let losses = match self {
            Self::Cpu(cpu) => cpu::cross_entropy::forward(cpu, logits, vocab, &targets),
            _ => reference::cross_entropy::forward(logits, vocab, &targets),
        };
        tensor(&[rows], losses)
    }

    /// Gradient of the head's input: `P W - W[target]`. The one-hot part is taken off after the
    /// product, so that small probabilities keep their bits. w `[vocab, hidden]`,
    /// as codes or packed.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU fails.
    pub fn head_dx<'w>(
        &self,
        probabilities: &Tensor,
        targets: &Ids,
        w: impl Into<WeightRef<'w>>,
        precision: Precision,
    ) -> Result<Tensor, KernelError> {
        let w = w.into();
        let mut dx = self.matmul_dx(probabilities, w, precision)?;
        if let Self::Cuda(gpu) = self {
            let targets = targets.on(gpu)?;
            let dx_slice = dx.unique_on(gpu)?;
            let w = w.codes();
            let (q, exp) = (w.q.on(gpu)?, w.exp.on(gpu)?);
            cuda::cross_entropy::take_rows(gpu, dx_slice, (&q, &exp, w.cols), &targets)?;
            return Ok(dx);
        }
        let targets = host_targets(targets)?;
        let [_, hidden] = w.shape();
        let row = |row| w.decoded_row(row);
        reference::cross_entropy::take_rows(dx.values_mut()?, hidden, row, &targets);
        Ok(dx)
    }

    /// Takes the one-hot part off the gradient of the head's weight `[vocab, hidden]`: for each
    /// token, in order, its input x `[tokens, hidden]` off the row of its target.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU fails.
    pub fn take_targets(
        &self,
        dw: &mut Tensor,
        x: &Tensor,
        targets: &Ids,
    ) -> Result<(), KernelError> {
        let (_, width) = x.rows_cols();
        if let Self::Cuda(gpu) = self {
            let (x, targets) = (x.on(gpu)?, targets.on(gpu)?);
            return cuda::cross_entropy::take_targets(gpu, dw.unique_on(gpu)?, &x, width, &targets);
        }
        let (dw, x) = (dw.values_mut()?, x.values()?);
        let targets = host_targets(targets)?;
        reference::cross_entropy::take_targets(dw, &x, width, &targets);
        Ok(())
    }
}

fn host_targets(targets: &Ids) -> Result<Vec<Option<u32>>, KernelError> {
    let ids = targets.0.values()?;
    Ok(ids.iter().map(|&id| (id != NO_ID).then_some(id)).collect())
}
