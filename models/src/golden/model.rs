//! Small models whose weights come from a counter.

use std::sync::Arc;

use concord_kernels::Tensor;
use concord_kernels::ops::Activation;
use concord_kernels::rng::Philox;

use crate::ModelError;
use crate::config::{
    DecoderConfig, ExpertNames, ExpertsShape, Family, NormKind, Rope, RopeScaling, RouterScores,
    SharedExpertShape,
};
use crate::decoder::TensorSource;

/// Two layers, grouped queries, a head that is not tied, and sizes that fill no SIMD vector, so
/// that tails are computed, too.
pub fn tiny_llama() -> DecoderConfig {
    DecoderConfig {
        family: Family::Llama,
        hidden: 40,
        intermediate: 72,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        head_dim: 10,
        vocab: 67,
        max_positions: 64,
        norm: NormKind::Rms,
        norm_eps: 1e-5,
        parallel_residual: false,
        rope: Rope {
            theta: 10_000.0,
            scaling: RopeScaling::None,
        },
        local_rope: None,
        unrotated: Vec::new(),
        rotary_dim: None,
        rope_neighbours: false,
        sliding_window: vec![None, None],
        qkv_bias: false,
        o_bias: false,
        mlp_bias: false,
        fused_qkv: None,
        fused_gate_up: false,
        gated: true,
        activation: Activation::Silu,
        qk_norm: None,
        attention_scale: None,
        attention_soft_cap: None,
        sinks: false,
        experts: None,
        embedding_multiplier: None,
        residual_multiplier: None,
        head_bias: false,
        logit_multiplier: None,
        logit_soft_cap: None,
        tie_embeddings: false,
        bos: None,
        eos: Vec::new(),
    }
}

/// [`tiny_llama`] with experts in its first layer, a shared one among them.
pub fn tiny_experts() -> DecoderConfig {
    DecoderConfig {
        family: Family::Qwen2Moe,
        experts: Some(ExpertsShape {
            count: 5,
            chosen: 2,
            intermediate: 24,
            scores: RouterScores::Softmax,
            normalised: false,
            factor: 1.0,
            router_bias: false,
            correction: false,
            shared: Some(SharedExpertShape {
                intermediate: 36,
                gated: true,
            }),
            dense_layers: vec![1],
            names: ExpertNames::QWEN,
        }),
        ..tiny_llama()
    }
}

/// Random weights for a configuration, a function of the seed.
#[derive(Clone, Debug)]
pub struct MadeModel {
    /// The model.
    pub config: Arc<DecoderConfig>,
    /// Key of the weights.
    pub seed: u64,
    /// Elements of matrices are uniform in `[-reach, reach]`.
    pub reach: f32,
}

impl TensorSource for MadeModel {
    /// The weights `name`: matrices within `reach`, norms near 1.
    ///
    /// # Errors
    /// None for a tensor of the model.
    ///
    /// # Panics
    /// Where the model has no such tensor; a stage asks only for tensors of its model.
    fn tensor(&self, name: &str) -> Result<Tensor, ModelError> {
        let specs = self.config.tensors();
        let index = specs.iter().position(|spec| spec.name == name);
        let index = index.expect("a stage asks for tensors of its model");
        let shape = &specs[index].shape;
        let stream = Philox::new(self.seed, index as u64);
        let (middle, reach) = if shape.len() == 1 {
            (1.0, 0.125)
        } else {
            (0.0, self.reach)
        };
        let value = |counter| middle + reach * (2.0 * stream.unit(counter) - 1.0);
        let len = shape.iter().product::<usize>() as u64;
        let values: Vec<f32> = (0..len).map(value).collect();
        Ok(Tensor::new(shape, values)?)
    }
}
