//! Converts the settings of a job spec to those of the model.

use std::collections::BTreeSet;
use std::sync::Arc;

use concord_kernels::Device;
use concord_kernels::coded::Precision;
use concord_models::config::{Cut, DecoderConfig, Projection, Span, TensorPlace};
use concord_models::decoder::{
    LoraSpec, Precisions, StageOptions, StepRegularization, Trainable, TrainableTensor,
};
use concord_models::train::{AdamSettings, Curve, FromZero, LearningRate, MomentForm};
use concord_proto::serving::AdapterManifest;
use concord_proto::{
    AdapterSpec, CurveFromZero, Edge, JobSpec, Layers, ModelPlace, MomentFormat, ScheduleKind,
};

use crate::RuntimeError;

/// The precision of so many bits.
///
/// # Errors
/// [`RuntimeError::Unsupported`], naming the known ones.
pub fn precision(bits: u8) -> Result<Precision, RuntimeError> {
    match bits {
        8 => Ok(Precision::I8),
        14 => Ok(Precision::I14),
        16 => Ok(Precision::I16),
        _ => Err(RuntimeError::Unsupported(format!(
            "{bits}-bit operands: 8, 14 or 16 are known"
        ))),
    }
}

/// Where a tensor stands, as the job spec names it.
pub fn place(place: TensorPlace, tied: bool) -> ModelPlace {
    match place {
        TensorPlace::Embed if tied => ModelPlace::EmbedAndHead,
        TensorPlace::Embed => ModelPlace::Embed,
        TensorPlace::Layer(layer) => ModelPlace::Layer(layer),
        TensorPlace::FinalNorm | TensorPlace::Head => ModelPlace::Head,
    }
}

/// What a spec trains.
///
/// # Errors
/// [`RuntimeError::Model`] for a projection that does not exist.
pub fn trainable(adapter: &AdapterSpec) -> Result<Trainable, RuntimeError> {
    match adapter {
        AdapterSpec::Full => Ok(Trainable::Full),
        AdapterSpec::Lora { rank, targets, .. } => Ok(Trainable::Lora {
            rank: *rank,
            targets: projections(targets)?,
        }),
    }
}

/// The low-rank updates of an adapter.
///
/// # Errors
/// [`RuntimeError`] for a projection that does not exist, and for an invalid rank or scale.
pub(crate) fn lora(adapter: &AdapterManifest) -> Result<LoraSpec, RuntimeError> {
    let (rank, alpha) = (adapter.rank, adapter.alpha.get());
    if rank == 0 || !alpha.is_finite() {
        let why = format!("an adapter of rank {rank} and alpha {alpha}");
        return Err(RuntimeError::Unsupported(why));
    }
    Ok(LoraSpec {
        rank,
        scale: alpha / rank as f32,
        targets: projections(&adapter.targets)?,
    })
}

fn projections(names: &[String]) -> Result<BTreeSet<Projection>, RuntimeError> {
    names
        .iter()
        .map(|name| Ok(name.parse::<Projection>()?))
        .collect()
}

/// Checks that the spec's list of trained tensors is the model's.
///
/// # Errors
/// [`RuntimeError::Unsupported`] where it is another.
pub fn check_trainable(spec: &JobSpec, config: &DecoderConfig) -> Result<(), RuntimeError> {
    let expected = trainable(&spec.adapter)?.tensors(config);
    let same = |(tensor, theirs): (&TrainableTensor, &concord_proto::TrainedTensor)| {
        tensor.name == theirs.name
            && tensor
                .shape
                .iter()
                .map(|&dim| dim as u64)
                .eq(theirs.shape.iter().copied())
            && place(tensor.place, config.tie_embeddings) == theirs.place
    };
    let fits = expected.len() == spec.trainable.len()
        && expected.iter().zip(&spec.trainable).all(same)
        && config.layers == spec.layers as usize;
    let refuse = || RuntimeError::Unsupported("its trained tensors are not the model's".into());
    fits.then_some(()).ok_or_else(refuse)
}

/// Layers, as the decoder has them.
pub fn span(layers: Layers) -> Span {
    let cut = |edge: Edge| Cut {
        layer: edge.layer,
        expert: edge.expert,
    };
    Span {
        start: cut(layers.start),
        end: cut(layers.end),
    }
}

/// The options of the stage of `layers`.
///
/// # Errors
/// [`RuntimeError`] for what this build does not know.
pub fn stage_options(
    spec: &JobSpec,
    config: Arc<DecoderConfig>,
    layers: Layers,
    device: &Device,
    positions: usize,
) -> Result<StageOptions, RuntimeError> {
    let lora = match &spec.adapter {
        AdapterSpec::Full => None,
        AdapterSpec::Lora {
            rank,
            alpha,
            targets,
        } => Some(LoraSpec {
            rank: *rank,
            scale: alpha.get() / *rank as f32,
            targets: projections(targets)?,
        }),
    };
    Ok(StageOptions {
        device: device.clone(),
        config,
        layers: span(layers),
        precisions: Precisions {
            weights: precision(spec.precision.weights)?,
            activations: precision(spec.precision.activations)?,
            key_values: precision(spec.precision.activations)?,
        },
        lora,
        trains_all: spec.adapter == AdapterSpec::Full,
        positions,
    })
}

/// How the batches of a step are regularised.
pub fn regularization(spec: &JobSpec, step: u32) -> StepRegularization {
    let of_job = &spec.regularization;
    StepRegularization {
        lora_dropout: of_job.lora_dropout.get(),
        embedding_noise: of_job.embedding_noise.get(),
        label_smoothing: of_job.label_smoothing.get(),
        z_loss: of_job.z_loss.get(),
        seed: of_job.seed,
        step,
    }
}

/// How the moments of a job are kept.
pub fn moments(spec: &JobSpec) -> MomentForm {
    moment_form(spec.optimizer.moments)
}

/// The form of a format.
pub fn moment_form(format: MomentFormat) -> MomentForm {
    match format {
        MomentFormat::F32 => MomentForm::F32,
        MomentFormat::Bits8 => MomentForm::Bits8,
    }
}

/// AdamW's constants.
pub fn adam(spec: &JobSpec) -> AdamSettings {
    AdamSettings {
        beta1: spec.optimizer.beta1.get(),
        beta2: spec.optimizer.beta2.get(),
        epsilon: spec.optimizer.epsilon.get(),
        weight_decay: spec.optimizer.weight_decay.get(),
        max_grad_norm: spec.optimizer.max_grad_norm.get(),
    }
}

fn from_zero(curve: CurveFromZero) -> FromZero {
    match curve {
        CurveFromZero::Cosine { floor } => FromZero::Cosine { floor: floor.get() },
        CurveFromZero::Linear => FromZero::Linear,
        CurveFromZero::Constant => FromZero::Constant,
        CurveFromZero::InverseSqrt => FromZero::InverseSqrt,
    }
}

/// The learning rate over the steps.
pub fn learning_rate(spec: &JobSpec) -> LearningRate {
    LearningRate {
        curve: match spec.schedule.kind {
            ScheduleKind::Cosine => Curve::Cosine,
            ScheduleKind::Linear => Curve::Linear,
            ScheduleKind::Constant => Curve::Constant,
            ScheduleKind::FromZero(curve) => Curve::FromZero(from_zero(curve)),
        },
        peak: spec.schedule.learning_rate.get(),
        warmup_steps: spec.schedule.warmup_steps,
        steps: spec.steps,
    }
}
