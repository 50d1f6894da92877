//! Softmax cross-entropy of a language model's head, forward and backward.

use crate::coded::{Coded, Precision};
use crate::{Device, Tensor, cpu, reference};

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
}
