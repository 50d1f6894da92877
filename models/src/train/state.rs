//! Values and moments of what a stage trains, and the update of one step.

use std::collections::BTreeMap;
use std::sync::Arc;

use concord_kernels::cuda::MemoryPurpose;
use concord_kernels::ops::{AdamStep, tree_sum};
use concord_kernels::{Device, KernelError, Tensor};

use crate::decoder::Values;

/// AdamW's constants.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamSettings {
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the square root of the second moment.
    pub epsilon: f32,
    /// Decoupled weight decay.
    pub weight_decay: f32,
    /// Gradients of a larger global norm are scaled down to it; 0 turns clipping off.
    pub max_grad_norm: f32,
}

/// One trained tensor. Its parts are shared, so that an old state can be kept while a new one is
/// computed.
#[derive(Clone, Debug)]
pub struct StateTensor {
    /// The tensor as the model uses it.
    pub value: Arc<Tensor>,
    /// Decaying mean of its gradients.
    pub first_moment: Arc<Tensor>,
    /// Decaying mean of the squares of its gradients.
    pub second_moment: Arc<Tensor>,
}

/// What a stage trains, by name.
#[derive(Clone, Debug, Default)]
pub struct TrainState(pub BTreeMap<String, StateTensor>);

/// What all workers of a step agree on before the update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepScalars {
    /// Which step of the job, from 0.
    pub step: u32,
    /// Predicted tokens of the step.
    pub targets: u64,
    /// Global norm of the mean gradient.
    pub grad_norm: f32,
    /// The rate at this step, after warm-up and schedule.
    pub learning_rate: f32,
}

impl TrainState {
    /// An initial state: all moments are zero.
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

    /// The same state in the memory of `device`.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU fails.
    pub fn placed(self, device: &Device) -> Result<Self, KernelError> {
        let _optimizer = device.account(MemoryPurpose::Optimizer);
        let place = |tensor: Arc<Tensor>| {
            let placed = device.place(Arc::unwrap_or_clone(tensor));
            placed.map(Arc::new)
        };
        let tensor = |(name, held): (String, StateTensor)| {
            let held = StateTensor {
                value: place(held.value)?,
                first_moment: place(held.first_moment)?,
                second_moment: place(held.second_moment)?,
            };
            Ok((name, held))
        };
        Ok(Self(
            self.0
                .into_iter()
                .map(tensor)
                .collect::<Result<_, KernelError>>()?,
        ))
    }

    /// The state after one AdamW step on the summed `gradients`.
    ///
    /// # Errors
    /// [`KernelError::NotFinite`] where a value or moment overflows, naming it;
    /// [`KernelError::Cuda`] where a GPU fails.
    pub fn updated(
        &self,
        device: &Device,
        gradients: &BTreeMap<String, Arc<Tensor>>,
        settings: &AdamSettings,
        scalars: &StepScalars,
    ) -> Result<Self, KernelError> {
        let _optimizer = device.account(MemoryPurpose::Optimizer);
        let step = adam_step(settings, scalars);
        let mut next = Vec::with_capacity(self.0.len());
        for (name, old) in &self.0 {
            let old = [&old.value, &old.first_moment, &old.second_moment];
            let [mut value, mut m, mut v] = old.map(|tensor| (**tensor).clone());
            device.adamw(&step, &gradients[name], &mut value, &mut m, &mut v)?;
            next.push([value, m, v]);
        }
        let names = |name: &String| {
            let moments = ["first moment", "second moment"].map(|m| format!("{m} of {name}"));
            [vec![name.clone()], moments.to_vec()].concat()
        };
        let names: Vec<String> = self.0.keys().flat_map(names).collect();
        let tensors = next.iter_mut().flatten();
        let mut named: Vec<_> = names.iter().map(String::as_str).zip(tensors).collect();
        device.canonicalise(&mut named)?;
        let tensor = |parts: [Tensor; 3]| {
            let [value, first_moment, second_moment] = parts.map(Arc::new);
            StateTensor {
                value,
                first_moment,
                second_moment,
            }
        };
        let next = next.into_iter().map(tensor);
        Ok(Self(self.0.keys().cloned().zip(next).collect()))
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

/// The global norm of the mean gradient. `squared` has the squared norms of the summed gradients,
/// one for each trained tensor in the order of names; they are added along the tree.
pub fn gradient_norm(squared: &[f32], targets: u64) -> f32 {
    let total = tree_sum(squared.len(), &mut |i| squared[i], &mut |a, b| *a += b);
    total.sqrt() / targets as f32
}

/// The mean loss of a step from the sums of its microbatches, which are added along the tree.
pub fn mean_loss(sums: &[f32], targets: u64) -> f32 {
    tree_sum(sums.len(), &mut |i| sums[i], &mut |a, b| *a += b) / targets as f32
}

impl Values for TrainState {
    fn value(&self, name: &str) -> Option<&Tensor> {
        self.0.get(name).map(|held| &*held.value)
    }

    fn all(&self) -> Box<dyn Iterator<Item = (&str, &Tensor)> + '_> {
        Box::new(
            self.0
                .iter()
                .map(|(name, held)| (name.as_str(), &*held.value)),
        )
    }
}
