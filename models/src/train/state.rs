//! Values and moments of what a stage trains, and the update of one step.

use std::collections::BTreeMap;
use std::sync::Arc;

use concord_kernels::cuda::MemoryPurpose;
use concord_kernels::ops::tree_sum;
use concord_kernels::{Device, KernelError, MomentKind, Tensor};

use super::held::{StateTensor, StepScalars};
use super::moment::{Moment, MomentForm};
use super::optimizer::{OptimizerSettings, RuleStep, Stepped, SteppedMoments, TensorRule};
use crate::decoder::Values;

/// What a stage trains, by name.
#[derive(Clone, Debug, Default)]
pub struct TrainState(pub BTreeMap<String, StateTensor>);

impl TrainState {
    /// An initial state: all moments are zero, in `form`.
    pub fn fresh(values: BTreeMap<String, Tensor>, form: MomentForm) -> Self {
        let tensor = |value: Tensor| {
            let zeros = |kind| Moment::zeros(form, kind, value.shape());
            StateTensor {
                first_moment: zeros(MomentKind::First),
                second_moment: zeros(MomentKind::Second),
                value: Arc::new(value),
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
        let tensor = |(name, held): (String, StateTensor)| {
            let value = device.place(Arc::unwrap_or_clone(held.value))?;
            let held = StateTensor {
                value: Arc::new(value),
                first_moment: held.first_moment.placed(device)?,
                second_moment: held.second_moment.placed(device)?,
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

    /// The state after one step of the optimizer on the summed `gradients`; `rule` says what is
    /// other for a tensor.
    ///
    /// # Errors
    /// [`KernelError::NotFinite`] where a value or moment overflows, naming it;
    /// [`KernelError::Cuda`] where a GPU fails.
    pub fn updated(
        &self,
        device: &Device,
        gradients: &BTreeMap<String, Arc<Tensor>>,
        settings: &OptimizerSettings,
        scalars: &StepScalars,
        rule: impl Fn(&str) -> TensorRule,
    ) -> Result<Self, KernelError> {
        let _optimizer = device.account(MemoryPurpose::Optimizer);
        let step = RuleStep::new(settings, scalars);
        let mut next = Vec::with_capacity(self.0.len());
        for (name, old) in &self.0 {
            let step = step.of(rule(name));
            next.push(step.apply(device, old, &gradients[name])?);
        }
        let names = |name: &String| {
            let moments = ["first moment", "second moment"].map(|m| format!("{m} of {name}"));
            [vec![name.clone()], moments.to_vec()].concat()
        };
        let names: Vec<String> = self.0.keys().flat_map(names).collect();
        check(device, &names, &mut next)?;
        let next = next.into_iter().map(Stepped::into_state);
        Ok(Self(self.0.keys().cloned().zip(next).collect()))
    }
}

impl Stepped {
    fn into_state(self) -> StateTensor {
        let [first_moment, second_moment] = match self.moments {
            SteppedMoments::F32(moments) => moments.map(|m| Moment::F32(Arc::new(m))),
            SteppedMoments::Packed(moments) => moments.map(|m| Moment::Packed(Arc::new(m))),
        };
        StateTensor {
            value: Arc::new(self.value),
            first_moment,
            second_moment,
        }
    }
}

/// Turns every -0 into +0, and refuses what is not finite. `names` has three for each tensor. All
/// tensors at once, so that a GPU is waited for once.
fn check(device: &Device, names: &[String], next: &mut [Stepped]) -> Result<(), KernelError> {
    let (mut numbers, mut packed) = (Vec::new(), Vec::new());
    for (names, tensor) in names.chunks(3).zip(next) {
        numbers.push((&*names[0], &mut tensor.value));
        match &mut tensor.moments {
            SteppedMoments::F32(moments) => {
                numbers.extend(names[1..].iter().map(String::as_str).zip(moments));
            }
            SteppedMoments::Packed(moments) => {
                packed.extend(names[1..].iter().map(String::as_str).zip(&*moments));
            }
        }
    }
    device.canonicalise(&mut numbers)?;
    match packed.is_empty() {
        true => Ok(()),
        false => device.check_moments(&packed),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::StepRule;

    const RULES: [(StepRule, MomentForm); 4] = [
        (ADAMW, MomentForm::F32),
        (ADAMW, MomentForm::Bits8),
        (
            StepRule::Lion {
                beta1: 0.9,
                beta2: 0.99,
            },
            MomentForm::FirstF32,
        ),
        (
            StepRule::Sgd {
                momentum: 0.9,
                nesterov: true,
            },
            MomentForm::FirstF32,
        ),
    ];

    const ADAMW: StepRule = StepRule::AdamW {
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
    };

    fn numbers(scale: f32) -> Tensor {
        let values = (0..600)
            .map(|i| scale * ((i * 7 % 13) as f32 - 6.5))
            .collect::<Vec<f32>>();
        Tensor::new(&[30, 20], values).unwrap()
    }

    /// Two tensors after two steps, the second with `rule`.
    fn stepped(
        (device, step_rule, form): (&Device, StepRule, MomentForm),
        learning_rate: f32,
        rule: TensorRule,
    ) -> [Vec<u32>; 2] {
        let values = ["A", "B"].map(|name| (name.to_string(), numbers(0.1)));
        let mut state = TrainState::fresh(BTreeMap::from(values), form);
        let gradients = ["A", "B"].map(|name| (name.to_string(), Arc::new(numbers(1e-3))));
        let gradients = BTreeMap::from(gradients);
        let settings = OptimizerSettings {
            rule: step_rule,
            weight_decay: 0.1,
            max_grad_norm: 1.0,
        };
        for step in 0..2 {
            let scalars = StepScalars {
                step,
                targets: 3,
                grad_norm: 0.5,
                learning_rate,
            };
            let of = |name: &str| if name == "B" { rule } else { TensorRule::USUAL };
            state = state
                .updated(device, &gradients, &settings, &scalars, of)
                .unwrap();
        }
        let bits = |tensor: &StateTensor| {
            let values = tensor.value.values().unwrap();
            values.iter().map(|value| value.to_bits()).collect()
        };
        ["A", "B"].map(|name| bits(&state.0[name]))
    }

    #[test]
    fn a_tensor_with_a_rate_of_its_own_steps_as_if_all_had_it() {
        for (rule, form) in RULES {
            for device in [Device::Reference, Device::cpu(2)] {
                let case = (&device, rule, form);
                let own = TensorRule {
                    learning_rate: Some(0.016),
                    ..TensorRule::USUAL
                };
                let [a, b] = stepped(case, 0.001, own);
                let [slow, _] = stepped(case, 0.001, TensorRule::USUAL);
                let [fast, _] = stepped(case, 0.016, TensorRule::USUAL);
                assert_eq!((&a, &b), (&slow, &fast), "{rule:?} {form:?}");
                assert_ne!(a, b);
                let bare = TensorRule {
                    decays: false,
                    ..own
                };
                assert_ne!(stepped(case, 0.001, bare)[1], b, "it decays");
            }
        }
    }
}
