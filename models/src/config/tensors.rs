//! Which tensors a decoder has: their Hugging Face names, their shapes, and their places.

use super::{DecoderConfig, Family, NormKind, PartNames, Projection, QkNorm};

/// The tensor of the attention sinks within a layer.
pub(crate) const SINKS: &str = "self_attn.sinks";

/// A tensor that a model needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// The name in the safetensors file.
    pub name: String,
    /// The shape there; weights are `[out, in]`.
    pub shape: Vec<usize>,
}

/// The part of the model that a tensor belongs to; it decides which stages load the tensor.
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
        let mut families = Family::ALL.iter().map(|family| family.parts());
        families.find_map(|parts| Self::by(parts, name))
    }

    /// The place of the tensor `name` in families with these names of parts.
    fn by(parts: &PartNames, name: &str) -> Option<TensorPlace> {
        if let Some(rest) = name.strip_prefix(parts.layers) {
            let (layer, _) = rest.strip_prefix('.')?.split_once('.')?;
            return layer.parse().ok().map(TensorPlace::Layer);
        }
        let (module, kind) = name.rsplit_once('.')?;
        let is = |part: &str| module == part && matches!(kind, "weight" | "bias");
        match name {
            _ if is(parts.final_norm) => Some(TensorPlace::FinalNorm),
            _ if module == parts.embed && kind == "weight" => Some(TensorPlace::Embed),
            _ if is(parts.head) => Some(TensorPlace::Head),
            _ => None,
        }
    }
}

impl DecoderConfig {
    /// Every tensor that the model needs, in the order of the computation. With tied embeddings the
    /// head has no weight of its own.
    pub fn tensors(&self) -> Vec<TensorSpec> {
        let parts = self.parts();
        let mut specs = vec![spec(&parts.embed_weight(), &[self.vocab, self.hidden])];
        for layer in 0..self.layers {
            specs.extend(self.layer_tensors(layer));
        }
        specs.extend(norm(parts.final_norm, self.norm, self.hidden));
        if !self.tie_embeddings {
            specs.push(spec(&parts.head_weight(), &[self.vocab, self.hidden]));
        }
        if self.head_bias {
            specs.push(spec(&parts.head_bias(), &[self.vocab]));
        }
        specs
    }

    /// The tensors of one layer, in the order of the computation.
    pub fn layer_tensors(&self, layer: usize) -> Vec<TensorSpec> {
        let parts = self.parts();
        let named = |part: &str| format!("{}.{layer}.{part}", parts.layers);
        let of_norm = |part: Option<&str>| {
            let of = |part| norm(&named(part), self.norm, self.hidden);
            part.map(of).unwrap_or_default()
        };
        let mut specs = of_norm(parts.attention_in);
        for matrix in self.layer_matrices(layer) {
            let (module, shape, projection) = (&matrix.module, matrix.shape, matrix.projection);
            specs.push(spec(&format!("{module}.weight"), &shape));
            if matrix.bias {
                specs.push(spec(&format!("{module}.bias"), &shape[..1]));
            }
            if let (Some(kind), Projection::K | Projection::Qkv) = (self.qk_norm, projection) {
                let [q, k] = kind.widths(self);
                specs.extend(norm(&named(QkNorm::Q_NAME), self.norm, q));
                specs.extend(norm(&named(QkNorm::K_NAME), self.norm, k));
            }
            if projection == Projection::O {
                if self.sinks {
                    specs.push(spec(&named(SINKS), &[self.heads]));
                }
                specs.extend(of_norm(parts.attention_out));
                specs.extend(of_norm(parts.feed_in));
            }
        }
        let of_experts = self.expert_tensors(layer).into_iter();
        specs.extend(of_experts.map(|(name, shape)| TensorSpec { name, shape }));
        specs.extend(of_norm(parts.feed_out));
        specs
    }
}

/// The tensors of a norm of `width`.
fn norm(module: &str, kind: NormKind, width: usize) -> Vec<TensorSpec> {
    let mut specs = vec![spec(&format!("{module}.weight"), &[width])];
    if kind.has_bias() {
        specs.push(spec(&format!("{module}.bias"), &[width]));
    }
    specs
}

fn spec(name: &str, shape: &[usize]) -> TensorSpec {
    TensorSpec {
        name: name.to_string(),
        shape: shape.to_vec(),
    }
}
