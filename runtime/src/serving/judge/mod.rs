//! The judge of an answer: what was signed about it, compared with the model. It is a pure function
//! of the receipt, the model and the arithmetic: everybody who asks gets the same verdict.
//!
//! Cheap checks come first: signatures, then whether what was signed fits together, then one
//! prefill over prompt and answer that computes every stage's output again, then every draw with
//! its logprobs, then why the answer ended.

mod audit;
mod compute;
mod draws;
mod end;
mod lender;

use std::collections::BTreeMap;
use std::sync::Arc;

use concord_kernels::{Device, KernelError, Tensor};
use concord_models::ModelError;
use concord_models::config::DecoderConfig;
use concord_models::decoder::{LoraSpec, TensorSource};
use concord_proto::PublicKey;
use concord_proto::serving::{AdapterManifest, AnswerVerdict, BatchedReceipt};
use concord_text::TextTokenizer;
use concord_verify::serving::CheckedReceipt;

use crate::stage_cache::StageCache;
use crate::{RuntimeError, spec};
use lender::Lender;

pub(crate) use audit::{audit, fetch_receipt};

/// What an answer is judged by. Model, tokenizer and adapter are those that the receipt names: the
/// caller makes sure of it.
pub struct AnswerCase<'a> {
    /// What was signed about the answer.
    pub receipt: &'a BatchedReceipt,
    /// Who should have signed it; with none, any signer is accepted.
    pub coordinator: Option<PublicKey>,
    /// The model.
    pub config: Arc<DecoderConfig>,
    /// Its tensors.
    pub tensors: &'a dyn TensorSource,
    /// Its tokenizer: answers under a grammar, or whose text is signed, cannot be judged without.
    pub tokenizer: Option<Arc<TextTokenizer>>,
    /// The adapter, where the receipt names one.
    pub adapter: Option<&'a JudgedAdapter>,
    /// Where to compute.
    pub device: &'a Device,
}

/// An adapter, whole.
#[derive(Clone, Debug)]
pub struct JudgedAdapter {
    pub(crate) lora: LoraSpec,
    pub(crate) tensors: BTreeMap<String, Tensor>,
}

impl JudgedAdapter {
    /// The adapter of a manifest, with its tensors by name.
    ///
    /// # Errors
    /// [`RuntimeError`] for a projection that does not exist, and for an invalid rank or scale.
    pub fn new(
        manifest: &AdapterManifest,
        tensors: BTreeMap<String, Tensor>,
    ) -> Result<Self, RuntimeError> {
        let lora = spec::served_lora(&manifest.lora)?;
        Ok(Self { lora, tensors })
    }
}

/// How far a judge is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JudgeProgress {
    /// Layers computed, each for all positions.
    pub layers: u32,
    /// Of how many.
    pub layers_total: u32,
    /// Tokens drawn again.
    pub drawn: u32,
    /// Of how many.
    pub drawn_total: u32,
}

/// Judges an answer.
///
/// # Errors
/// [`RuntimeError`] if this machine cannot compute it, which says nothing about the answer.
pub fn judge(
    case: &AnswerCase<'_>,
    progress: &mut dyn FnMut(JudgeProgress),
) -> Result<AnswerVerdict, RuntimeError> {
    judge_on(case, &StageCache::new(0), progress)
}

/// As [`judge`], on stages that stay loaded from one answer to the next.
pub(crate) fn judge_on(
    case: &AnswerCase<'_>,
    stages: &StageCache,
    progress: &mut dyn FnMut(JudgeProgress),
) -> Result<AnswerVerdict, RuntimeError> {
    match look(case, stages, progress) {
        Ok(verdict) | Err(Stop::Verdict(verdict)) => Ok(verdict),
        Err(Stop::Error(error)) => Err(error),
    }
}

fn look(
    case: &AnswerCase<'_>,
    stages: &StageCache,
    progress: &mut dyn FnMut(JudgeProgress),
) -> Result<AnswerVerdict, Stop> {
    let checked = CheckedReceipt::open(case.receipt, case.coordinator)?;
    checked.check_model(case.config.layers, case.config.vocab)?;
    let lender = Lender::new(case, &checked, stages);
    let computed = compute::compute(case, &checked, &lender, progress)?;
    let orders = draws::orders(case, &checked);
    let drawn = orders.and_then(|orders| {
        draws::check(case, &checked, &computed, &orders, progress)?;
        end::check(case, &checked, &orders)
    });
    lender.give_back(computed.layers, computed.last);
    drawn?;
    match checked.missing() {
        None => Ok(AnswerVerdict::Agrees),
        Some(missing) => Ok(AnswerVerdict::Inconclusive {
            why: format!("{missing}; all that was signed is right"),
        }),
    }
}

/// Why the judge stops.
enum Stop {
    Verdict(AnswerVerdict),
    Error(RuntimeError),
}

impl Stop {
    fn altered(what: impl Into<String>) -> Self {
        let what = what.into();
        Self::Verdict(AnswerVerdict::Altered { what })
    }

    fn inconclusive(why: impl Into<String>) -> Self {
        let why = why.into();
        Self::Verdict(AnswerVerdict::Inconclusive { why })
    }
}

impl From<AnswerVerdict> for Stop {
    fn from(verdict: AnswerVerdict) -> Self {
        Self::Verdict(verdict)
    }
}

impl From<RuntimeError> for Stop {
    fn from(error: RuntimeError) -> Self {
        Self::Error(error)
    }
}

impl From<ModelError> for Stop {
    fn from(error: ModelError) -> Self {
        Self::Error(error.into())
    }
}

impl From<KernelError> for Stop {
    fn from(error: KernelError) -> Self {
        match error {
            KernelError::NotFinite { .. } => {
                Self::inconclusive(format!("the model overflows for this input: {error}"))
            }
            error => Self::Error(error.into()),
        }
    }
}
