//! How a step changes what is trained.

use concord_kernels::ops::{AdamStep, LionStep, SgdStep};
use concord_kernels::{Device, KernelError, PackedMoment, Tensor};

use super::held::{StateTensor, StepScalars};
use super::moment::Moment;

/// The optimizer's constants.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OptimizerSettings {
    /// What is done with gradients.
    pub rule: StepRule,
    /// Weight decay: decoupled, but with [`StepRule::Sgd`], which adds it to the gradient.
    pub weight_decay: f32,
    /// Gradients of a larger global norm are scaled down to it; 0 turns clipping off.
    pub max_grad_norm: f32,
}

/// What is done with gradients.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum StepRule {
    /// AdamW (Loshchilov and Hutter 2019).
    AdamW {
        /// Decay of the first moment.
        beta1: f32,
        /// Decay of the second moment.
        beta2: f32,
        /// Added to the square root of the second moment.
        epsilon: f32,
    },
    /// Lion (Chen et al. 2023). Its momentum is the first moment.
    Lion {
        /// The share of the momentum in the direction.
        beta1: f32,
        /// Decay of the momentum.
        beta2: f32,
    },
    /// Gradient descent. Its momentum is the first moment.
    Sgd {
        /// Decay of the momentum; 0 for none.
        momentum: f32,
        /// Whether the step looks ahead along the momentum.
        nesterov: bool,
    },
}

/// What of a step is a tensor's own.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TensorRule {
    /// Whether weight decay acts on it.
    pub decays: bool,
    /// Its learning rate, where that is not the step's.
    pub learning_rate: Option<f32>,
}

impl TensorRule {
    /// A tensor like all others.
    pub const USUAL: Self = Self {
        decays: true,
        learning_rate: None,
    };
}

/// What one step does with every element.
#[derive(Clone, Copy)]
pub(super) enum RuleStep {
    AdamW(AdamStep),
    Lion(LionStep),
    Sgd(SgdStep),
}

impl RuleStep {
    pub(super) fn new(settings: &OptimizerSettings, scalars: &StepScalars) -> Self {
        let clip = if settings.max_grad_norm > 0.0 {
            (settings.max_grad_norm / (scalars.grad_norm + 1e-6)).min(1.0)
        } else {
            1.0
        };
        let gradient_scale = clip / scalars.targets as f32;
        let (learning_rate, weight_decay) = (scalars.learning_rate, settings.weight_decay);
        // 1 - beta^t, by repeated products in f64: the same on every host.
        let bias = |beta: f32| {
            let power = (0..=scalars.step).fold(1.0f64, |power, _| power * f64::from(beta));
            (1.0 - power) as f32
        };
        match settings.rule {
            StepRule::AdamW {
                beta1,
                beta2,
                epsilon,
            } => Self::AdamW(AdamStep {
                gradient_scale,
                learning_rate,
                beta1,
                beta2,
                bias1: bias(beta1),
                bias2: bias(beta2),
                epsilon,
                weight_decay,
            }),
            StepRule::Lion { beta1, beta2 } => Self::Lion(LionStep {
                gradient_scale,
                learning_rate,
                beta1,
                beta2,
                weight_decay,
            }),
            StepRule::Sgd { momentum, nesterov } => Self::Sgd(SgdStep {
                gradient_scale,
                learning_rate,
                momentum,
                nesterov,
                weight_decay,
            }),
        }
    }

    /// The same for a tensor with such a rule.
    pub(super) fn of(mut self, rule: TensorRule) -> Self {
        let (rate, decay) = match &mut self {
            Self::AdamW(step) => (&mut step.learning_rate, &mut step.weight_decay),
            Self::Lion(step) => (&mut step.learning_rate, &mut step.weight_decay),
            Self::Sgd(step) => (&mut step.learning_rate, &mut step.weight_decay),
        };
        *rate = rule.learning_rate.unwrap_or(*rate);
        if !rule.decays {
            *decay = 0.0;
        }
        self
    }

    /// The tensor after the step.
    pub(super) fn apply(
        &self,
        device: &Device,
        old: &StateTensor,
        gradient: &Tensor,
    ) -> Result<Stepped, KernelError> {
        let mut value = (*old.value).clone();
        let moments = match (&old.first_moment, &old.second_moment) {
            (Moment::F32(m), Moment::F32(v)) => {
                let [mut m, mut v] = [m, v].map(|moment| (**moment).clone());
                match self {
                    Self::AdamW(step) => {
                        device.adamw(step, gradient, &mut value, &mut m, &mut v)?;
                    }
                    Self::Lion(step) => device.lion(step, gradient, &mut value, &mut m)?,
                    Self::Sgd(step) => device.sgd(step, gradient, &mut value, &mut m)?,
                }
                SteppedMoments::F32([m, v])
            }
            (Moment::Packed(m), Moment::Packed(v)) => {
                let [mut m, mut v] = [m, v].map(|moment| (**moment).clone());
                match self {
                    Self::AdamW(step) => {
                        device.adamw_8bit(step, gradient, &mut value, &mut m, &mut v)?;
                    }
                    Self::Lion(step) => device.lion_8bit(step, gradient, &mut value, &mut m)?,
                    Self::Sgd(_) => panic!("gradient descent has no moments in 8 bits"),
                }
                SteppedMoments::Packed([m, v])
            }
            _ => panic!("two moments of one tensor have two forms"),
        };
        Ok(Stepped { value, moments })
    }
}

/// A tensor after a step, before it is checked and shared.
pub(super) struct Stepped {
    pub(super) value: Tensor,
    pub(super) moments: SteppedMoments,
}

pub(super) enum SteppedMoments {
    F32([Tensor; 2]),
    Packed([PackedMoment; 2]),
}
