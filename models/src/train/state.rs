//! Values and moments of what a stage trains, and the update of one step.

use std::collections::BTreeMap;
use std::sync::Arc;

use concord_kernels::ops::{AdamStep, tree_sum};
use concord_kernels::{Device, KernelError, Tensor};

/// AdamW's constants.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamSettings {
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub epsilon: f32,
    /// Decoupled weight decay.
    pub weight_decay: f32,
    /// Gradients of a larger global norm are scaled down to it; 0 turns clipping off.
    pub max_grad_norm: f32,
}

/// One trained tensor. Shared, so that an old state can be kept while a new one is made.
#[derive(Clone, Debug)]
pub struct StateTensor {
    /// Value.
    pub value: Arc<Tensor>,
    /// First moment.
    pub first_moment: Arc<Tensor>,
    /// Second moment.
    pub second_moment: Arc<Tensor>,
}

/// What a stage trains, by name.
#[derive(Clone, Debug, Default)]
pub struct TrainState(pub BTreeMap<String, StateTensor>);

/// What all workers of a step agree on before the update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepScalars {
    /// The step, from 0.
    pub step: u32,
    /// Predicted tokens of the step.
    pub targets: u64,
    /// Global norm of the mean gradient.
    pub grad_norm: f32,
    /// Learning rate.
    pub learning_rate: f32,
}

impl TrainState {
    /// A state without history: moments are zero.
    pub fn fresh(values: BTreeMap<String, Tensor>) -> Self {
        let tensor = |value: Tensor| {
            let zeros = Arc::new(Tensor::zeros(value.shape()));
            StateTensor {
                value: Arc::new(value),
                first_moment: zeros.clone(),
                second_moment: zeros,
            }
        };
        Self(
            values
                .into_iter()
                .map(|(name, value)| (name, tensor(value)))
                .collect(),
        )
    }

    /// The values alone.
    pub fn values(&self) -> BTreeMap<String, Tensor> {
        self.0
            .iter()
            .map(|(name, tensor)| (name.clone(), (*tensor.value).clone()))
            .collect()
    }

    /// The state after one AdamW step on the summed `gradients`.
    ///
    /// # Errors
    /// [`KernelError::NotFinite`] where a value or moment overflows, naming it.
    pub fn updated(
        &self,
        device: &Device,
        gradients: &BTreeMap<String, Arc<Tensor>>,
        settings: &AdamSettings,
        scalars: &StepScalars,
    ) -> Result<Self, KernelError> {
        let step = adam_step(settings, scalars);
        let mut next = Self::default();
        for (name, old) in &self.0 {
            let mut value = (*old.value).clone();
            let mut first_moment = (*old.first_moment).clone();
            let mut second_moment = (*old.second_moment).clone();
            let (m, v) = (first_moment.data_mut(), second_moment.data_mut());
            device.adamw(&step, gradients[name].data(), value.data_mut(), m, v);
            value.canonicalise(name)?;
            first_moment.canonicalise(&format!("first moment of {name}"))?;
            second_moment.canonicalise(&format!("second moment of {name}"))?;
            let tensor = StateTensor {
                value: Arc::new(value),
                first_moment: Arc::new(first_moment),
                second_moment: Arc::new(second_moment),
            };
            next.0.insert(name.clone(), tensor);
        }
        Ok(next)
    }
}

fn adam_step(settings: &AdamSettings, scalars: &StepScalars) -> AdamStep {
    // 1 - beta^t, by repeated products in f64: the same on every host.
    let bias = |beta: f32| {
        let power = (0..=scalars.step).fold(1.0f64, |power, _| power * f64::from(beta));
        (1.0 - power) as f32
    };
    let clip = if settings.max_grad_norm > 0.0 {
        (settings.max_grad_norm / (scalars.grad_norm + 1e-6)).min(1.0)
    } else {
        1.0
    };
    AdamStep {
        gradient_scale: clip / scalars.targets as f32,
        learning_rate: scalars.learning_rate,
        beta1: settings.beta1,
        beta2: settings.beta2,
        bias1: bias(settings.beta1),
        bias2: bias(settings.beta2),
        epsilon: settings.epsilon,
        weight_decay: settings.weight_decay,
    }
}

/// The global norm of the mean gradient: squared norms of the summed gradients, one for each
/// trained tensor in the order of their names, added by the tree.
pub fn gradient_norm(squared: &[f32], targets: u64) -> f32 {
    let total = tree_sum(squared.len(), &mut |i| squared[i], &mut |a, b| *a += b);
    total.sqrt() / targets as f32
}

/// The mean loss of a step: sums of its microbatches, added by the tree.
pub fn mean_loss(sums: &[f32], targets: u64) -> f32 {
    tree_sum(sums.len(), &mut |i| sums[i], &mut |a, b| *a += b) / targets as f32
}
