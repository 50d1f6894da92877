//! Which tensors a fine-tune changes.

use crate::config::{DecoderConfig, LoraSpec, TensorPlace};
use crate::peft::Adapter;

/// What is trained.
#[derive(Clone, Debug, PartialEq)]
pub enum Trainable {
    /// Nothing: the model only computes.
    Nothing,
    /// Every tensor.
    Full,
    /// Low-rank updates, of those matrices that the model has.
    Lora(LoraSpec),
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
            Self::Lora(lora) => lora_tensors(config, lora),
        };
        tensors.sort_by(|a, b| a.name.cmp(&b.name));
        tensors
    }
}

fn lora_tensors(config: &DecoderConfig, lora: &LoraSpec) -> Vec<TrainableTensor> {
    let mut tensors = Vec::new();
    for adapted in lora.adapted(config) {
        let [out, input] = adapted.matrix.shape;
        let rank = adapted.update.rank as usize;
        let place = TensorPlace::Layer(adapted.layer);
        let [a, b] = Adapter::keys(&adapted.matrix.module);
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
        if lora.use_dora {
            tensors.push(TrainableTensor {
                name: Adapter::magnitude_key(&adapted.matrix.module),
                shape: vec![out],
                place,
            });
        }
    }
    for spec in lora.saved_tensors(config) {
        tensors.push(TrainableTensor {
            name: Adapter::saved_key(&spec.name),
            place: TensorPlace::of(&spec.name).expect("a tensor of the model has a place"),
            shape: spec.shape,
        });
    }
    tensors
}
