//! The hidden states of a sequence, computed again stage by stage as the claims cut the model.

use concord_kernels::Tensor;
use concord_models::decoder::{Stage, StageInput};
use concord_models::peft::Adapter;
use concord_proto::serving::AnswerVerdict;
use concord_proto::{Layers, merkle};
use concord_verify::serving::CheckedReceipt;

use super::lender::Lender;
use super::{AnswerCase, JudgeProgress, Stop};
use crate::serving::stage::digests;

/// Tokens of a prefill that are computed at a time.
const CHUNK: usize = 512;

/// What comes out of the last layer.
pub(super) struct ComputedAnswer {
    /// The stage that has the head.
    pub(super) last: Stage,
    /// Its layers.
    pub(super) layers: Layers,
    /// Hidden states of all positions, row after row.
    pub(super) rows: Vec<f32>,
}

/// Computes what the stages claim, and stops at the first that is wrong: all before it are right,
/// and so was its input.
pub(super) fn compute(
    case: &AnswerCase<'_>,
    checked: &CheckedReceipt,
    lender: &Lender<'_>,
    progress: &mut dyn FnMut(JudgeProgress),
) -> Result<ComputedAnswer, Stop> {
    check_adapter(case, checked)?;
    let mut rows = Vec::new();
    let mut last: Option<(Layers, Stage)> = None;
    for (layers, claimed) in checked.cuts() {
        // The stage before makes room first.
        if let Some((layers, stage)) = last.take() {
            lender.give_back(layers, stage);
        }
        let stage = lender.stage(layers)?;
        rows = forward(&stage, &checked.tokens, rows)?;
        if let Some(claimed) = claimed {
            let expected = merkle::root(&digests(&rows, stage.widths()[1]));
            if expected != claimed.claim.output {
                return Err(Stop::Verdict(AnswerVerdict::WrongStage {
                    worker: claimed.worker,
                    layers,
                    expected,
                    claimed: claimed.claim.output,
                }));
            }
        }
        last = Some((layers, stage));
        progress(JudgeProgress {
            layers: layers.touched().end,
            layers_total: checked.receipt.deployment.layers,
            drawn: 0,
            drawn_total: checked.receipt.answer.len() as u32,
        });
    }
    let (layers, last) = last.ok_or_else(|| Stop::inconclusive("the model has no layers"))?;
    Ok(ComputedAnswer { last, layers, rows })
}

/// The adapter that the receipt names is at hand, and is one of this model.
fn check_adapter(case: &AnswerCase<'_>, checked: &CheckedReceipt) -> Result<(), Stop> {
    let asked = checked.receipt.spec.adapter;
    let adapter = match (asked, case.adapter) {
        (None, _) => return Ok(()),
        (Some(_), Some(adapter)) => adapter,
        (Some(asked), None) => {
            let why = format!("adapter {} is not at hand", asked.short());
            return Err(Stop::inconclusive(why));
        }
    };
    let shapes = Adapter::shapes(&case.config, &adapter.lora);
    for (name, shape) in shapes {
        if adapter.tensors.get(&name).map(Tensor::shape) != Some(&shape[..]) {
            let why = format!("the adapter's {name} is missing or has another shape");
            return Err(Stop::inconclusive(why));
        }
    }
    Ok(())
}

/// All positions through a stage.
fn forward(stage: &Stage, tokens: &[u32], input: Vec<f32>) -> Result<Vec<f32>, Stop> {
    let device = &stage.options().device;
    let [entering, leaving] = stage.widths();
    device.on_its_threads(|| {
        let mut cache = stage.cache()?;
        let mut output = Vec::with_capacity(tokens.len() * leaving);
        for (index, chunk) in tokens.chunks(CHUNK).enumerate() {
            let start = index * CHUNK * entering;
            let entering = if stage.is_first() {
                StageInput::Tokens
            } else {
                let rows = input[start..start + chunk.len() * entering].to_vec();
                StageInput::Hidden(Tensor::new(&[chunk.len(), entering], rows)?)
            };
            let rows = stage.extend(&mut cache, chunk, entering)?;
            output.extend_from_slice(&rows.values()?);
        }
        Ok(output)
    })
}
