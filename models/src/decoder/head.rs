//! The end of the model: final norm, logits, loss and their gradients.

use concord_kernels::coded::{Coded, Precision};
use concord_kernels::ops::{Atoms, LossForm, tree_sum};
use concord_kernels::{Device, Ids, KernelError, Tensor, Weight};

use super::gradients::TensorUse;
use super::linear::Backward;
use super::norm::{Norm, NormTape};

/// Final norm and output matrix.
#[derive(Clone, Debug)]
pub(super) struct OutputHead {
    pub(super) norm: Norm,
    pub(super) weight: Weight,       // [v, d]
    pub(super) bias: Option<Tensor>, // [v]
    pub(super) name: String,
    pub(super) bias_name: String,
    pub(super) trains: bool,
    /// The factor on the logits, applied to the hidden states after the norm.
    pub(super) multiplier: Option<f32>,
    /// With a cap, logits y become `cap * tanh(y / cap)`.
    pub(super) soft_cap: Option<f32>,
    /// [`TensorUse::TiedHead`] where the embedding is the head.
    pub(super) end: TensorUse,
}

/// The loss of a microbatch, and its gradient.
#[derive(Debug)]
pub struct HeadLoss {
    /// Sum of the losses over all predicted tokens, in nats.
    pub sum: f32,
    /// Gradient of that sum with respect to the hidden states, `[m, d]`.
    pub d_hidden: Tensor,
}

impl OutputHead {
    /// Logits `[m, v]`.
    pub(super) fn logits(
        &self,
        device: &Device,
        hidden: &Tensor,
        precision: Precision,
    ) -> Result<Tensor, KernelError> {
        let (normed, _) = self.normed(device, hidden)?;
        let coded = device.code(&normed, self.weight.cols, precision)?;
        let logits = self.product(device, &coded)?;
        match self.soft_cap {
            Some(cap) => device.soft_cap(&logits, cap),
            None => Ok(logits),
        }
    }

    /// Logits `[m, v]` before a soft cap.
    fn product(&self, device: &Device, input: &Coded) -> Result<Tensor, KernelError> {
        let mut logits = device.matmul(input, &self.weight)?;
        if let Some(bias) = &self.bias {
            device.add_bias(&mut logits, bias)?;
        }
        Ok(logits)
    }

    /// The operand of the output matrix, `[m, d]`: normed hidden states times the multiplier.
    fn normed(&self, device: &Device, hidden: &Tensor) -> Result<(Tensor, NormTape), KernelError> {
        let (normed, tape) = self.norm.forward(device, hidden)?;
        match self.multiplier {
            Some(factor) => Ok((device.scaled(&normed, factor)?, tape)),
            None => Ok((normed, tape)),
        }
    }

    /// The loss of the logits `[m, v]`.
    fn logit_loss(
        &self,
        device: &Device,
        mut logits: Tensor,
        targets: &Ids,
        form: LossForm,
    ) -> Result<LogitLoss, KernelError> {
        let is_smooth = form.smoothing > 0.0;
        let (count, vocab) = logits.rows_cols();
        let own = 1.0 - form.smoothing;
        let spread = match is_smooth {
            true => Some(device.ones_of_targets(targets, vocab)?),
            false => None,
        };
        let Some(cap) = self.soft_cap else {
            let losses = device.formed_loss(&mut logits, targets, form)?;
            let shares = match is_smooth {
                true => Some(device.place(Tensor::new(&[count], vec![own; count])?)?),
                false => None,
            };
            return Ok(LogitLoss {
                gradient: logits,
                losses,
                shares,
                spread,
            });
        };
        let capped = device.soft_cap(&logits, cap)?;
        let mut shares = device.soft_cap_targets(&capped, targets, cap)?;
        if is_smooth {
            shares = device.scaled(&shares, own)?;
        }
        let mut p = capped.clone();
        let losses = device.formed_loss(&mut p, targets, form)?;
        let spread = spread.map(|ones| device.soft_cap_backward(&ones, &capped, cap));
        Ok(LogitLoss {
            gradient: device.soft_cap_backward(&p, &capped, cap)?,
            losses,
            shares: Some(shares),
            spread: spread.transpose()?,
        })
    }

    /// Gradients of the head of one atom, from that of its logits and their input.
    fn sums(&self, run: &Backward<'_>, p: &Tensor, input: &Coded) -> Result<HeadSums, KernelError> {
        let alone = Atoms::new(1, input.rows);
        Ok(HeadSums {
            dw: run.device.matmul_dw(p, input, &alone, run.precision)?,
            db: match &self.bias {
                Some(_) => Some(run.device.bias_gradient(p, &alone)?),
                None => None,
            },
        })
    }

    /// Loss and gradients, one atom of tokens at a time, so that only one atom's logits are in
    /// memory.
    pub(super) fn loss(
        &self,
        run: &mut Backward<'_>,
        hidden: &Tensor,
        targets: &Ids,
        form: LossForm,
    ) -> Result<HeadLoss, KernelError> {
        let (device, atoms, precision) = (run.device, run.atoms, run.precision);
        let of_spread = -(form.smoothing / self.weight.rows as f32);
        let (normed, norm_tape) = self.normed(device, hidden)?;
        let coded = device.code(&normed, self.weight.cols, precision)?;
        let mut losses = device.zeros(&[atoms.tokens(), 1])?;
        let mut shares = match self.soft_cap.is_some() || form.smoothing > 0.0 {
            true => Some(device.zeros(&[atoms.tokens(), 1])?),
            false => None,
        };
        let mut d_normed = device.zeros(normed.shape())?;
        let mut atom = |index: usize| -> MaybeSum {
            let (start, count) = atoms.range(index);
            let (input, targets) = (coded.part(start, count), targets.part(start, count));
            let logits = self.product(device, &input)?;
            let of_logits = self.logit_loss(device, logits, &targets, form)?;
            device.put_rows(&mut losses, start, &of_logits.losses.reshaped(&[count, 1])?)?;
            let (p, spread, share) = (of_logits.gradient, of_logits.spread, of_logits.shares);
            let mut dx = device.head_dx(&p, &targets, &self.weight, precision, share.as_ref())?;
            if let Some(spread) = &spread {
                let update = device.matmul_dx(spread, &self.weight, precision)?;
                device.scaled_add_assign(&mut dx, of_spread, &update)?;
            }
            if let (Some(shares), Some(share)) = (&mut shares, share) {
                device.put_rows(shares, start, &share.reshaped(&[count, 1])?)?;
            }
            device.put_rows(&mut d_normed, start, &dx)?;
            if !self.trains {
                return Ok(None);
            }
            let mut sums = self.sums(run, &p, &input)?;
            if let Some(spread) = &spread {
                let others = self.sums(run, spread, &input)?;
                sums.add_scaled(device, of_spread, &others)?;
            }
            Ok(Some(sums))
        };
        let sums = tree_sum(atoms.count(), &mut atom, &mut |a, b| add(device, a, b))?;
        if let Some(HeadSums { mut dw, db }) = sums {
            let shares = shares.map(|shares| shares.reshaped(&[atoms.tokens()]));
            let shares = shares.transpose()?;
            device.take_targets(&mut dw, &normed, targets, shares.as_ref())?;
            run.gradients.insert(&self.name, self.end, dw);
            if let Some(db) = db {
                // The bias is treated as a weight whose input is 1 for every token.
                let mut db = db.reshaped(&[self.weight.rows, 1])?;
                let ones = Tensor::new(&[atoms.tokens(), 1], vec![1.0; atoms.tokens()])?;
                device.take_targets(&mut db, &device.place(ones)?, targets, shares.as_ref())?;
                let db = db.reshaped(&[self.weight.rows])?;
                run.gradients.insert(&self.bias_name, TensorUse::Own, db);
            }
        }
        if let Some(factor) = self.multiplier {
            d_normed = device.scaled(&d_normed, factor)?;
        }
        let d_hidden = self.norm.backward(run, &d_normed, hidden, &norm_tape)?;
        Ok(HeadLoss {
            sum: device.loss_sum(&losses, atoms)?,
            d_hidden,
        })
    }
}

/// The loss of some tokens, and the parts of its gradient: `gradient - share onehot - smoothing / v
/// spread`.
struct LogitLoss {
    /// `[m, v]`.
    gradient: Tensor,
    /// `[m]`.
    losses: Tensor,
    /// The factor of each token's one-hot part `[m]`; 1 where there are none.
    shares: Option<Tensor>,
    /// What is the same for all words of the vocabulary, `[m, v]`, where targets are smoothed: 1,
    /// or the slope of the cap; 0 for tokens without a target.
    spread: Option<Tensor>,
}

impl OutputHead {
    /// The sum of the losses that [`Self::loss`] gives, without gradients.
    pub(super) fn loss_alone(
        &self,
        (device, atoms): (&Device, &Atoms),
        precision: Precision,
        hidden: &Tensor,
        targets: &Ids,
        form: LossForm,
    ) -> Result<f32, KernelError> {
        let (normed, _) = self.normed(device, hidden)?;
        let coded = device.code(&normed, self.weight.cols, precision)?;
        let mut losses = device.zeros(&[atoms.tokens(), 1])?;
        for index in 0..atoms.count() {
            let (start, count) = atoms.range(index);
            let (input, targets) = (coded.part(start, count), targets.part(start, count));
            let logits = self.product(device, &input)?;
            let mut logits = match self.soft_cap {
                Some(cap) => device.soft_cap(&logits, cap)?,
                None => logits,
            };
            let some = device.formed_loss(&mut logits, &targets, form)?;
            device.put_rows(&mut losses, start, &some.reshaped(&[count, 1])?)?;
        }
        device.loss_sum(&losses, atoms)
    }
}

/// Gradients of the head, without the one-hot part.
struct HeadSums {
    dw: Tensor,
    db: Option<Tensor>,
}

impl HeadSums {
    fn add_scaled(
        &mut self,
        device: &Device,
        factor: f32,
        others: &Self,
    ) -> Result<(), KernelError> {
        if let (Some(own), Some(other)) = (&mut self.db, &others.db) {
            device.scaled_add_assign(own, factor, other)?;
        }
        device.scaled_add_assign(&mut self.dw, factor, &others.dw)
    }
}

/// A sum of gradients: `None` where the head is not trained, an error where a GPU failed.
type MaybeSum = Result<Option<HeadSums>, KernelError>;

fn add(device: &Device, sum: &mut MaybeSum, later: MaybeSum) {
    let Ok(held) = sum else { return };
    let added = later.and_then(|later| match (held, later) {
        (Some(held), Some(later)) => {
            if let (Some(held), Some(later)) = (&mut held.db, &later.db) {
                device.add_assign(held, later)?;
            }
            device.add_assign(&mut held.dw, &later.dw)
        }
        _ => Ok(()),
    });
    if let Err(error) = added {
        *sum = Err(error);
    }
}
