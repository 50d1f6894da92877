//! The end of the model: final norm, logits, loss and their gradients.

use concord_kernels::coded::{Coded, Precision};
use concord_kernels::ops::{Atoms, tree_sum};
use concord_kernels::{Device, Tensor};

use super::gradients::End;
use super::linear::Backward;
use super::norm::Norm;

/// Final norm and output matrix.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub(super) norm: Norm,
    pub(super) weight: Coded, // [v, d]
    pub(super) name: String,
    pub(super) trains: bool,
    /// [`End::TiedHead`] where the embedding is the head.
    pub(super) end: End,
}

/// The loss of a microbatch, and the gradient that goes back from it.
#[derive(Debug)]
pub struct HeadLoss {
    /// Sum of the losses over all predicted tokens, in nats.
    pub sum: f32,
    /// Gradient of that sum by the hidden states, `[m, d]`.
    pub d_hidden: Tensor,
}

impl Head {
    /// Logits `[m, v]`.
    pub(super) fn logits(&self, device: &Device, hidden: &Tensor, precision: Precision) -> Tensor {
        let (normed, _) = self.norm.forward(device, hidden);
        let coded = device.code(normed.data(), self.weight.cols, precision);
        device.matmul(&coded, &self.weight)
    }

    /// Loss and gradients, one atom of tokens at a time: never more than an atom's logits are held.
    pub(super) fn loss(
        &self,
        run: &mut Backward<'_>,
        hidden: &Tensor,
        targets: &[Option<u32>],
    ) -> HeadLoss {
        let (device, atoms, precision) = (run.device, run.atoms, run.precision);
        let (normed, inverse) = self.norm.forward(device, hidden);
        let (width, vocab) = (self.weight.cols, self.weight.rows);
        let coded = device.code(normed.data(), width, precision);
        let mut losses = Vec::with_capacity(targets.len());
        let mut d_normed = Vec::with_capacity(normed.data().len());
        let mut atom = |index: usize| {
            let (start, count) = atoms.range(index);
            let targets = &targets[start..start + count];
            let input = rows(&coded, start, count);
            let mut p = device.matmul(&input, &self.weight);
            losses.extend(device.cross_entropy(&mut p, targets));
            let dx = device.head_dx(&p, targets, &self.weight, precision);
            d_normed.extend_from_slice(dx.data());
            let alone = Atoms::new(1, count);
            self.trains
                .then(|| device.matmul_dw(&p, &input, &alone, precision).into_data())
        };
        let mut add = |a: &mut Option<Vec<f32>>, b: Option<Vec<f32>>| {
            if let (Some(a), Some(b)) = (a, b) {
                device.add_assign(a, &b);
            }
        };
        let dw = tree_sum(atoms.count(), &mut atom, &mut add);
        if let Some(mut dw) = dw {
            take_targets(&mut dw, &normed, targets);
            let dw = Tensor::new(&[vocab, width], dw).expect("a gradient of the weight's shape");
            run.gradients.insert(&self.name, self.end, dw);
        }
        let d_normed = Tensor::new(normed.shape(), d_normed).expect("a gradient for each token");
        let d_hidden = self.norm.backward(run, &d_normed, hidden, &inverse);
        HeadLoss {
            sum: device.loss_sum(&losses, atoms),
            d_hidden,
        }
    }
}

/// Takes the one-hot part off the gradient of the weight, tokens in order.
fn take_targets(dw: &mut [f32], x: &Tensor, targets: &[Option<u32>]) {
    let (_, width) = x.rows_cols();
    for (row, target) in x.data().chunks_exact(width).zip(targets) {
        if let Some(target) = target {
            let at = *target as usize * width;
            dw[at..at + width]
                .iter_mut()
                .zip(row)
                .for_each(|(dw, x)| *dw -= x);
        }
    }
}

fn rows(coded: &Coded, start: usize, count: usize) -> Coded {
    Coded {
        rows: count,
        cols: coded.cols,
        precision: coded.precision,
        q: coded.q[start * coded.cols..(start + count) * coded.cols].to_vec(),
        exp: coded.exp[start..start + count].to_vec(),
    }
}
