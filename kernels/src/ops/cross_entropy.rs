//! Softmax cross-entropy of a language model's head, forward and backward.

use super::matmul::tensor;
use crate::coded::Precision;
use crate::reference::cross_entropy::LossForm;
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

    /// As [`Self::cross_entropy`], of the loss that `form` describes: with
    /// `lse = ln(sum(e^logit))`,
    /// `(1 - smoothing) (lse - logit[target]) + smoothing (lse - mean(logit)) + z_loss lse^2`.
    /// Logits become `p (1 + 2 z_loss lse)`: their gradient, but for
    /// `(1 - smoothing) onehot + smoothing / vocab`, which is left to subtract.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU fails.
    pub fn formed_loss(
        &self,
        logits: &mut Tensor,
        targets: &Ids,
        form: LossForm,
    ) -> Result<Tensor, KernelError> {
        let (rows, vocab) = logits.rows_cols();
        assert_eq!(rows, targets.len(), "formed_loss: rows");
        if form.is_plain() {
            return self.cross_entropy(logits, targets);
        }
        if let Self::Cuda(gpu) = self {
            let targets = targets.on(gpu)?;
            let logits = logits.unique_on(gpu)?;
            let losses = cuda::cross_entropy::formed(gpu, logits, vocab, &targets, form)?;
            return tensor(&[rows], losses);
        }
        let targets = host_targets(targets)?;
        let logits = logits.values_mut()?;
        let losses = match self {
            Self::Cpu(cpu) => cpu::cross_entropy::formed(cpu, logits, vocab, &targets, form),
            _ => reference::cross_entropy::formed(logits, vocab, &targets, form),
        };
        tensor(&[rows], losses)
    }

    /// `[m, vocab]` with 1 in each row that has a target, 0 in others: what the spread part of a
    /// smoothed target is, times `vocab`.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU fails.
    pub fn ones_of_targets(&self, targets: &Ids, vocab: usize) -> Result<Tensor, KernelError> {
        let shape = [targets.len(), vocab];
        if let Self::Cuda(gpu) = self {
            let ones = cuda::cross_entropy::ones(gpu, vocab, &targets.on(gpu)?)?;
            return tensor(&shape, ones);
        }
        let targets = host_targets(targets)?;
        tensor(&shape, reference::cross_entropy::ones(vocab, &targets))
    }

    /// Gradient of the head's input: `P W - share * W[target]`. The one-hot part is subtracted
    /// after the product, so that small probabilities keep their bits. w `[vocab, hidden]`, as
    /// codes or packed; `shares` `[m]` are 1 where there are none: see [`Self::soft_cap_targets`].
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU fails.
    pub fn head_dx<'w>(
        &self,
        probabilities: &Tensor,
        targets: &Ids,
        w: impl Into<WeightRef<'w>>,
        precision: Precision,
        shares: Option<&Tensor>,
    ) -> Result<Tensor, KernelError> {
        assert_shares(shares, targets);
        let w = w.into();
        let mut dx = self.matmul_dx(probabilities, w, precision)?;
        if let Self::Cuda(gpu) = self {
            let targets = targets.on(gpu)?;
            let dx_slice = dx.unique_on(gpu)?;
            let w = w.codes();
            let (q, exp) = (w.q.on(gpu)?, w.exp.on(gpu)?);
            let shares = shares.map(|shares| shares.on(gpu)).transpose()?;
            let w = (&q, &exp, w.cols);
            cuda::cross_entropy::take_rows(gpu, dx_slice, w, &targets, shares.as_ref())?;
            return Ok(dx);
        }
        let targets = host_targets(targets)?;
        let shares = shares.map(Tensor::values).transpose()?;
        let ([_, hidden], row) = (w.shape(), |row| w.decoded_row(row));
        let dx_rows = dx.values_mut()?;
        reference::cross_entropy::take_rows(dx_rows, hidden, row, &targets, shares.as_deref());
        Ok(dx)
    }

    /// Subtracts the one-hot part from the gradient of the head's weight `[vocab, hidden]`: for
    /// each token, in order, its input x `[tokens, hidden]` times its share `[tokens]` (1 without
    /// shares) is subtracted from the row of its target.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU fails.
    pub fn take_targets(
        &self,
        dw: &mut Tensor,
        x: &Tensor,
        targets: &Ids,
        shares: Option<&Tensor>,
    ) -> Result<(), KernelError> {
        assert_shares(shares, targets);
        let (_, width) = x.rows_cols();
        if let Self::Cuda(gpu) = self {
            let (x, targets) = (x.on(gpu)?, targets.on(gpu)?);
            let shares = shares.map(|shares| shares.on(gpu)).transpose()?;
            let (dw, shares) = (dw.unique_on(gpu)?, shares.as_ref());
            return cuda::cross_entropy::take_targets(gpu, dw, (&x, width), &targets, shares);
        }
        let (dw, x) = (dw.values_mut()?, x.values()?);
        let targets = host_targets(targets)?;
        let shares = shares.map(Tensor::values).transpose()?;
        reference::cross_entropy::take_targets(dw, &x, width, &targets, shares.as_deref());
        Ok(())
    }
}

fn assert_shares(shares: Option<&Tensor>, targets: &Ids) {
    let fits = shares.is_none_or(|shares| shares.len() == targets.len());
    assert!(fits, "shares of targets: as many as tokens");
}

pub(super) fn host_targets(targets: &Ids) -> Result<Vec<Option<u32>>, KernelError> {
    let ids = targets.0.values()?;
    Ok(ids.iter().map(|&id| (id != NO_ID).then_some(id)).collect())
}
