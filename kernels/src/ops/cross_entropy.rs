//! Softmax cross-entropy of a language model's head, forward and backward.

use crate::coded::{Coded, Precision};
use crate::{Device, Tensor, cpu, reference};

use super::Atoms;

impl Device {
    /// Turns logits `[tokens, vocab]` into probabilities, in place, and returns the loss of each
    /// token in nats. A token without a target has loss 0 and probabilities 0.
    pub fn cross_entropy(&self, logits: &mut Tensor, targets: &[Option<u32>]) -> Vec<f32> {
        let (rows, vocab) = logits.rows_cols();
        assert_eq!(rows, targets.len(), "cross_entropy: rows");
        match self {
            Self::Reference => reference::cross_entropy::forward(logits.data_mut(), vocab, targets),
            Self::Cpu(cpu) => cpu::cross_entropy::forward(cpu, logits.data_mut(), vocab, targets),
        }
    }

    /// Gradient of the head's input: `P W - W[target]`. The one-hot part is taken off after the
    /// product, so that small probabilities keep their bits. w `[vocab, hidden]`.
    pub fn head_dx(
        &self,
        probabilities: &Tensor,
        targets: &[Option<u32>],
        w: &Coded,
        precision: Precision,
    ) -> Tensor {
        let mut dx = self.matmul_dx(probabilities, w, precision);
        for (row, target) in dx.data_mut().chunks_exact_mut(w.cols).zip(targets) {
            if let Some(target) = target {
                let weight = w.decode_row(*target as usize);
                row.iter_mut().zip(weight).for_each(|(dx, w)| *dx -= w);
            }
        }
        dx
    }

    /// Gradient of the head's weight: `P^T x` by atoms, minus x at each token's target, tokens in
    /// order. x `[tokens, hidden]` with its codes.
    pub fn head_dw(
        &self,
        probabilities: &Tensor,
        targets: &[Option<u32>],
        x: &Tensor,
        x_coded: &Coded,
        atoms: &Atoms,
        precision: Precision,
    ) -> Tensor {
        let (_, hidden) = x.rows_cols();
        let mut dw = self.matmul_dw(probabilities, x_coded, atoms, precision);
        for (row, target) in x.data().chunks_exact(hidden).zip(targets) {
            if let Some(target) = target {
                let at = *target as usize * hidden;
                let dw = &mut dw.data_mut()[at..at + hidden];
                dw.iter_mut().zip(row).for_each(|(dw, x)| *dw -= x);
            }
        }
        dw
    }
}
