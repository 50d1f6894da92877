//! Converts the settings of a job spec to those of the model.

use std::collections::BTreeSet;
use std::sync::Arc;

use concord_kernels::Device;
use concord_kernels::coded::Precision;
use concord_models::config::{Cut, DecoderConfig, Projection, Span, TensorPlace, UpdateShape};
use concord_models::decoder::{
    LoraSpec, Precisions, StageOptions, StepRegularization, Trainable, TrainableTensor,
};
use concord_models::train::{MomentForm, OptimizerSettings, StepRule};
use concord_proto::{
    AdapterSpec, Edge, JobSpec, Layers, LoraUpdates, ModelPlace, MomentFormat, OtherUpdate,
    UpdateRule, UpdateSize,
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
        AdapterSpec::Lora(updates) => Ok(Trainable::Lora(lora(updates)?)),
    }
}

/// The low-rank updates of an adapter.
///
/// # Errors
/// [`RuntimeError`] for a projection that does not exist, and for an invalid rank or scale.
pub fn lora(updates: &LoraUpdates) -> Result<LoraSpec, RuntimeError> {
    updates.validate().map_err(RuntimeError::Unsupported)?;
    let shape = |update: UpdateSize| UpdateShape {
        rank: update.rank,
        alpha: update.alpha.get(),
    };
    let others = updates.others.iter();
    Ok(LoraSpec {
        common: UpdateShape {
            rank: updates.rank,
            alpha: updates.alpha.get(),
        },
        targets: projections(&updates.targets)?,
        others: others
            .map(|other| (other.module.clone(), other.update.map(shape)))
            .collect(),
        saved: updates.saved.iter().cloned().collect(),
        use_dora: updates.use_dora,
    })
}

/// The updates of `lora` as job specs and adapters of deployments have them.
pub fn updates(lora: &LoraSpec, config: &DecoderConfig) -> LoraUpdates {
    let targets = lora.targets.iter();
    let mut targets: Vec<String> = targets
        .map(|target| config.projection_name(*target).to_string())
        .collect();
    targets.sort();
    let update = |shape: UpdateShape| UpdateSize {
        rank: shape.rank,
        alpha: shape.alpha.into(),
    };
    let others = lora.others.iter().map(|(module, shape)| OtherUpdate {
        module: module.clone(),
        update: shape.map(update),
    });
    LoraUpdates {
        rank: lora.common.rank,
        alpha: lora.common.alpha.into(),
        targets,
        others: others.collect(),
        saved: lora.saved.iter().cloned().collect(),
        use_dora: lora.use_dora,
    }
}

/// The low-rank updates of an adapter that is served beside the model's own weights.
///
/// # Errors
/// As [`lora`], and for an adapter with modules that are trained whole: a stage has one copy of
/// each tensor for all who ask; and for DoRA, whose norms need the weights as they are stored.
pub fn served_lora(updates: &LoraUpdates) -> Result<LoraSpec, RuntimeError> {
    if updates.use_dora {
        return Err(RuntimeError::Unsupported(
            "the adapter is one of DoRA (use_dora), and can be used alone, not beside others: \
             merge it into the model with `concord merge`, or use `concord generate` and `concord \
             chat`"
                .to_string(),
        ));
    }
    match updates.saved.first() {
        None => lora(updates),
        Some(module) => Err(RuntimeError::Unsupported(format!(
            "the adapter has a copy of {module} (modules_to_save), and can be used alone, not \
             beside others: serve what `concord merge` makes of it, or use `concord generate` and \
             `concord chat`"
        ))),
    }
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
    let trainable = trainable(&spec.adapter)?;
    if let Trainable::Lora(lora) = &trainable
        && !lora.is_canonical(config)
    {
        let why = "its low-rank updates have a shorter form, or are of no matrices of the model";
        return Err(RuntimeError::Unsupported(why.into()));
    }
    let expected = trainable.tensors(config);
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
        AdapterSpec::Lora(updates) => Some(lora(updates)?),
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
    moment_form(&spec.optimizer.rule)
}

/// How a rule keeps its moments.
pub fn moment_form(rule: &UpdateRule) -> MomentForm {
    match rule {
        UpdateRule::AdamW { moments, .. } => match moments {
            MomentFormat::F32 => MomentForm::F32,
            MomentFormat::Bits8 => MomentForm::Bits8,
        },
        UpdateRule::Lion { moments, .. } => match moments {
            MomentFormat::F32 => MomentForm::FirstF32,
            MomentFormat::Bits8 => MomentForm::FirstBits8,
        },
        UpdateRule::Sgd { momentum, .. } if momentum.get() == 0.0 => MomentForm::Neither,
        UpdateRule::Sgd { .. } => MomentForm::FirstF32,
    }
}

/// The optimizer's constants.
pub fn optimizer(spec: &JobSpec) -> OptimizerSettings {
    let rule = match spec.optimizer.rule {
        UpdateRule::AdamW {
            beta1,
            beta2,
            epsilon,
            ..
        } => StepRule::AdamW {
            beta1: beta1.get(),
            beta2: beta2.get(),
            epsilon: epsilon.get(),
        },
        UpdateRule::Lion { beta1, beta2, .. } => StepRule::Lion {
            beta1: beta1.get(),
            beta2: beta2.get(),
        },
        UpdateRule::Sgd { momentum, nesterov } => StepRule::Sgd {
            momentum: momentum.get(),
            nesterov,
        },
    };
    OptimizerSettings {
        rule,
        weight_decay: spec.optimizer.weight_decay.get(),
        max_grad_norm: spec.optimizer.max_grad_norm.get(),
    }
}
