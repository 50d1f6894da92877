//! Which tensors a fine-tune changes.

use std::collections::BTreeSet;

use crate::config::{DecoderConfig, Projection, TensorPlace};
use crate::peft::Adapter;

/// What is trained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trainable {
    /// Nothing: the model only computes.
    Nothing,
    /// Every tensor.
    Full,
    /// Low-rank updates of those of these projections that the model has.
    Lora {
        /// Rows of A and columns of B.
        rank: u32,
        /// Projections that have an update.
        targets: BTreeSet<Projection>,
    },
}

/// One trained tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrainableTensor {
    /// Name in the resulting file: a Hugging Face or a PEFT name.
    pub name: String,
    /// Rows and columns as in the file: weights are `[out, in]`.
    pub shape: Vec<usize>,
    /// The part of the model that uses it.
    pub place: TensorPlace,
}

impl TrainableTensor {
    /// Whether it is a bias or the weight of a norm, by its name: what the trainer of transformers
    /// spares from weight decay.
    pub fn is_norm_or_bias(&self) -> bool {
        let is_norm =
            |part: &str| part == "norm" || part.ends_with("_norm") || part.ends_with("layernorm");
        self.name.contains("bias") || self.name.split('.').any(is_norm)
    }
}

impl Trainable {
    /// The trained tensors, in the order of their names.
    pub fn tensors(&self, config: &DecoderConfig) -> Vec<TrainableTensor> {
        let mut tensors: Vec<TrainableTensor> = match self {
            Self::Nothing => Vec::new(),
            Self::Full => {
                let tensor = |spec: crate::config::TensorSpec| TrainableTensor {
                    place: TensorPlace::of(&spec.name).expect("a tensor of the model has a place"),
                    name: spec.name,
                    shape: spec.shape,
                };
                config.tensors().into_iter().map(tensor).collect()
            }
            Self::Lora { rank, targets } => lora_tensors(config, *rank as usize, targets),
        };
        tensors.sort_by(|a, b| a.name.cmp(&b.name));
        tensors
    }
}

fn lora_tensors(
    config: &DecoderConfig,
    rank: usize,
    targets: &BTreeSet<Projection>,
) -> Vec<TrainableTensor> {
    let mut tensors = Vec::new();
    for layer in 0..config.layers {
        for matrix in config.layer_matrices(layer) {
            if !targets.contains(&matrix.projection) {
                continue;
            }
            let [out, input] = matrix.shape;
            let place = TensorPlace::Layer(layer as u32);
            let [a, b] = Adapter::keys(&matrix.module);
            tensors.push(TrainableTensor {
                name: a,
                shape: vec![rank, input],
                place,
            });
            tensors.push(TrainableTensor {
                name: b,
                shape: vec![out, rank],
                place,
            });
        }
    }
    tensors
}
