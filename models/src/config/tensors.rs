//! Which tensors a decoder has: their Hugging Face names, shapes, and the part they belong to.

use super::{DecoderConfig, Projection};

/// A tensor that a model needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// The name in the safetensors file.
    pub name: String,
    /// The shape there; weights are `[out, in]`.
    pub shape: Vec<usize>,
}

/// The part of the model that a tensor belongs to; what a stage loads is decided by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TensorPlace {
    /// The token embedding, before layer 0.
    Embed,
    /// A decoder layer, from 0.
    Layer(u32),
    /// The norm after the last layer.
    FinalNorm,
    /// The projection onto the vocabulary.
    Head,
}

impl TensorPlace {
    /// The place of the tensor `name`, or `None` where no decoder has such a tensor.
    ///
    /// ```
    /// use concord_models::config::TensorPlace;
    /// let place = TensorPlace::of("model.layers.3.mlp.up_proj.weight");
    /// assert_eq!(place, Some(TensorPlace::Layer(3)));
    /// assert_eq!(TensorPlace::of("vision.patch.weight"), None);
    /// ```
    pub fn of(name: &str) -> Option<TensorPlace> {
        match name {
            "model.embed_tokens.weight" => Some(TensorPlace::Embed),
            "model.norm.weight" => Some(TensorPlace::FinalNorm),
            "lm_head.weight" => Some(TensorPlace::Head),
            _ => {
                let (layer, _) = name.strip_prefix("model.layers.")?.split_once('.')?;
                layer.parse().ok().map(TensorPlace::Layer)
            }
        }
    }
}

impl DecoderConfig {
    /// Every tensor that the model needs, in the order of the computation. With tied embeddings
    /// there is no `lm_head.weight`.
    pub fn tensors(&self) -> Vec<TensorSpec> {
        let mut specs = vec![spec(
            "model.embed_tokens.weight",
            &[self.vocab, self.hidden],
        )];
        for layer in 0..self.layers {
            specs.extend(self.layer_tensors(layer));
        }
        specs.push(spec("model.norm.weight", &[self.hidden]));
        if !self.tie_embeddings {
            specs.push(spec("lm_head.weight", &[self.vocab, self.hidden]));
        }
        specs
    }

    /// The tensors of one layer, in the order of the computation.
    pub fn layer_tensors(&self, layer: usize) -> Vec<TensorSpec> {
        let mut specs = Vec::new();
        let mut add = |part: &str, shape: &[usize]| {
            specs.push(spec(&format!("model.layers.{layer}.{part}"), shape));
        };
        add("input_layernorm.weight", &[self.hidden]);
        for projection in Projection::ALL {
            if projection == Projection::Gate {
                add("post_attention_layernorm.weight", &[self.hidden]);
            }
            let shape = projection.shape(self);
            add(&format!("{}.weight", projection.module()), &shape);
            if projection.has_bias(self) {
                add(&format!("{}.bias", projection.module()), &shape[..1]);
            }
            if self.qk_norm && projection == Projection::K {
                add("self_attn.q_norm.weight", &[self.head_dim]);
                add("self_attn.k_norm.weight", &[self.head_dim]);
            }
        }
        specs
    }
}

fn spec(name: &str, shape: &[usize]) -> TensorSpec {
    TensorSpec {
        name: name.to_string(),
        shape: shape.to_vec(),
    }
}
