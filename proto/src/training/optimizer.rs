//! How a step changes what is trained.

use borsh::{BorshDeserialize, BorshSerialize};

use super::f32_bits::F32Bits;

/// The optimizer, with clipping by the global norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Optimizer {
    /// What is done with gradients.
    pub rule: UpdateRule,
    /// Weight decay: decoupled, but with [`UpdateRule::Sgd`], which adds it to the gradient.
    pub weight_decay: F32Bits,
    /// Gradients of a larger global norm are scaled down to it; 0 turns clipping off.
    pub max_grad_norm: F32Bits,
}

/// What is done with gradients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum UpdateRule {
    /// AdamW (Loshchilov and Hutter 2019).
    AdamW {
        /// Decay of the first moment.
        beta1: F32Bits,
        /// Decay of the second moment.
        beta2: F32Bits,
        /// Added to the root of the second moment.
        epsilon: F32Bits,
        /// How the moments are kept between two steps.
        moments: MomentFormat,
    },
    /// Lion (Chen et al. 2023).
    Lion {
        /// The share of the momentum in the direction.
        beta1: F32Bits,
        /// Decay of the momentum.
        beta2: F32Bits,
        /// How the momentum is kept between two steps.
        moments: MomentFormat,
    },
    /// Gradient descent.
    Sgd {
        /// Decay of the momentum; 0 for none.
        momentum: F32Bits,
        /// Whether the step looks ahead along the momentum; never without momentum.
        nesterov: bool,
    },
}

/// How moments are kept between two steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum MomentFormat {
    /// Numbers as f32.
    F32,
    /// Codes of 8 bits, with a scale for each block of 256 numbers ([`crate::moment`]).
    Bits8,
}

impl MomentFormat {
    /// Bytes of one moment of `elements` numbers, without a header.
    fn bytes(self, elements: u64) -> u64 {
        match self {
            Self::F32 => elements.saturating_mul(4),
            Self::Bits8 => elements.saturating_add(elements.div_ceil(256).saturating_mul(4)),
        }
    }
}

impl UpdateRule {
    /// Bytes of both moments of a tensor of `elements` numbers, without headers. Lion and gradient
    /// descent keep the first alone, or none.
    pub fn moment_bytes(&self, elements: u64) -> u64 {
        match self {
            Self::AdamW { moments, .. } => moments.bytes(elements).saturating_mul(2),
            Self::Lion { moments, .. } => moments.bytes(elements),
            Self::Sgd { momentum, .. } if momentum.get() == 0.0 => 0,
            Self::Sgd { .. } => elements.saturating_mul(4),
        }
    }
}

impl Optimizer {
    /// Whether its numbers are what they must be.
    ///
    /// # Errors
    /// A sentence, where they are not.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        let own = match self.rule {
            UpdateRule::AdamW {
                beta1,
                beta2,
                epsilon,
                ..
            } => [beta1, beta2, epsilon],
            UpdateRule::Lion { beta1, beta2, .. } => [beta1, beta2, beta1],
            UpdateRule::Sgd { momentum, .. } => [momentum; 3],
        };
        let all = own
            .into_iter()
            .chain([self.weight_decay, self.max_grad_norm]);
        let is_number = |value: F32Bits| value.get().is_finite() && value.get() >= 0.0;
        if !all.into_iter().all(is_number) {
            return Err("optimizer values must be finite and not negative");
        }
        match self.rule {
            // The same step would have two encodings.
            UpdateRule::Sgd {
                momentum,
                nesterov: true,
            } if momentum.get() == 0.0 => Err("Nesterov's step has a momentum"),
            _ => Ok(()),
        }
    }
}
