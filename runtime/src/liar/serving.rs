//! Ways to cheat about answers.

use concord_kernels::Tensor;
use concord_models::ModelError;
use concord_models::decoder::TensorSource;
use concord_proto::Digest;
use concord_proto::serving::{AnswerVerdict, Drawn, Receipt, StageClaim};

use super::{Cheat, Lie};

impl Lie {
    /// Doubles the last activation of a pass.
    pub(crate) fn alter_activation(&self, pass: u64, rows: &mut [f32]) {
        if self.cheat == Cheat::AlterActivation && pass == u64::from(self.from_step) {
            alter(rows);
        }
    }

    /// The same, on the way out; true where it was done.
    pub(crate) fn alter_sent(&self, pass: u64, rows: &mut [f32]) -> bool {
        let tells = self.cheat == Cheat::AlterSent && pass == u64::from(self.from_step);
        if tells {
            alter(rows);
        }
        tells
    }

    /// Replaces the first token that is drawn in the pass.
    pub(crate) fn wrong_token(&self, pass: u64, vocab: u32, drawn: &mut [Drawn]) {
        let tells = self.cheat == Cheat::WrongToken && pass == u64::from(self.from_step);
        let first = drawn.iter_mut().find_map(|drawn| drawn.token.as_mut());
        if let Some(token) = first.filter(|_| tells) {
            token.token = (token.token + 1) % vocab;
        }
    }

    /// The weights that it computes with.
    pub(crate) fn weights<'a>(&self, source: &'a dyn TensorSource) -> Weights<'a> {
        let other = self.cheat == Cheat::OtherWeights;
        Weights { source, other }
    }

    /// What a checker that does not look says of an answer; nothing where it looks.
    pub(crate) fn verdict(&self, receipt: &Receipt) -> Option<AnswerVerdict> {
        if self.cheat == Cheat::LazyChecker {
            return Some(AnswerVerdict::Agrees);
        }
        let signed = receipt.claims.first()?;
        let claim = signed.open::<StageClaim>().ok()?;
        (self.cheat == Cheat::FalseAccuser).then_some(AnswerVerdict::WrongStage {
            worker: signed.signer,
            layers: claim.layers,
            expected: Digest([0x5a; 32]),
            claimed: claim.output,
        })
    }
}

fn alter(rows: &mut [f32]) {
    if let Some(last) = rows.last_mut() {
        *last = if *last == 0.0 { 1.0 } else { 2.0 * *last };
    }
}

/// A model, perhaps with one matrix of each layer that is another.
pub(crate) struct Weights<'a> {
    source: &'a dyn TensorSource,
    other: bool,
}

impl TensorSource for Weights<'_> {
    fn tensor(&self, name: &str) -> Result<Tensor, ModelError> {
        let mut tensor = self.source.tensor(name)?;
        if self.other && name.ends_with("mlp.up_proj.weight") {
            let values = tensor.values_mut()?;
            values.iter_mut().for_each(|value| *value *= 1.25);
        }
        Ok(tensor)
    }
}
