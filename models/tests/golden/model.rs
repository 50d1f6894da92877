//! A tiny Llama whose weights come from a counter: no file, no library, the same bits everywhere.

use concord_kernels::Tensor;
use concord_kernels::rng::Philox;
use concord_models::ModelError;
use concord_models::config::{DecoderConfig, Family, Rope, RopeScaling};
use concord_models::decoder::TensorSource;

const SEED: u64 = 2_026;

/// Two layers, grouped queries, an own head, and sizes that fill no vector: tails are computed too.
pub fn config() -> DecoderConfig {
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
        rms_eps: 1e-5,
        rope: Rope {
            theta: 10_000.0,
            scaling: RopeScaling::None,
        },
        sliding_window: vec![None, None],
        qkv_bias: false,
        o_bias: false,
        mlp_bias: false,
        qk_norm: false,
        tie_embeddings: false,
        bos: None,
        eos: Vec::new(),
    }
}

/// The weights of [`config`].
pub struct Made;

impl TensorSource for Made {
    fn tensor(&self, name: &str) -> Result<Tensor, ModelError> {
        let specs = config().tensors();
        let index = specs.iter().position(|spec| spec.name == name);
        let index = index.expect("a stage asks for tensors of its model");
        let shape = &specs[index].shape;
        let stream = Philox::new(SEED, index as u64);
        // Norms are near 1, matrices within 1/4.
        let (middle, reach) = if shape.len() == 1 {
            (1.0, 0.125)
        } else {
            (0.0, 0.25)
        };
        let value = |counter| middle + reach * (2.0 * stream.unit(counter) - 1.0);
        let len = shape.iter().product::<usize>() as u64;
        let values = (0..len).map(value).collect();
        Ok(Tensor::new(shape, values).expect("shape and values fit"))
    }
}

/// Tokens `[count]` of one microbatch: a walk with a rule that can be learnt, and some noise.
pub fn tokens(step: u32, microbatch: u32, count: usize) -> Vec<u32> {
    let vocab = config().vocab as u32;
    let stream = Philox::new(SEED, 1 << 32 | u64::from(step) << 8 | u64::from(microbatch));
    let mut token = 1;
    let mut next = |counter| {
        let [noise, choice, ..] = stream.words(counter);
        token = if choice % 8 == 0 {
            noise % vocab
        } else {
            (3 * token + 7) % vocab
        };
        token
    };
    (0..count as u64).map(&mut next).collect()
}
