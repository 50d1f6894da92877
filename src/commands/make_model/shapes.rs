//! The shapes of published models.

use serde_json::{Value, json};

use crate::support::byte_tokenizer::ENDS;

/// The sizes of a model.
#[derive(Clone, Copy, Debug)]
pub struct PublishedShape {
    /// Its name on the command line.
    pub name: &'static str,
    /// Class and type in config.json.
    family: [&'static str; 2],
    hidden: u32,
    intermediate: u32,
    layers: u32,
    heads: u32,
    kv_heads: u32,
    vocab: u32,
    positions: u32,
    rope_theta: f64,
    /// Factor of the rotary scaling of Llama 3.1 and later, over 8,192 positions.
    rope_factor: Option<f64>,
    is_tied: bool,
    /// Experts of a layer, and how many of them a token goes to.
    experts: Option<[u32; 2]>,
}

const LLAMA: [&str; 2] = ["LlamaForCausalLM", "llama"];
const MISTRAL: [&str; 2] = ["MistralForCausalLM", "mistral"];
const MIXTRAL: [&str; 2] = ["MixtralForCausalLM", "mixtral"];

/// A tiny Llama, from which the other shapes take their defaults.
const TINY: PublishedShape = PublishedShape {
    name: "tiny",
    family: LLAMA,
    hidden: 64,
    intermediate: 160,
    layers: 4,
    heads: 4,
    kv_heads: 2,
    vocab: 300,
    positions: 256,
    rope_theta: 10_000.0,
    rope_factor: None,
    is_tied: false,
    experts: None,
};

/// All shapes, by size.
pub const SHAPES: [PublishedShape; 9] = [
    TINY,
    PublishedShape {
        name: "tiny-mixtral",
        family: MIXTRAL,
        layers: 2,
        experts: Some([8, 2]),
        ..TINY
    },
    PublishedShape {
        name: "smollm2-135m",
        hidden: 576,
        intermediate: 1_536,
        layers: 30,
        heads: 9,
        kv_heads: 3,
        vocab: 49_152,
        positions: 8_192,
        rope_theta: 100_000.0,
        is_tied: true,
        ..TINY
    },
    PublishedShape {
        name: "tinyllama-1.1b",
        hidden: 2_048,
        intermediate: 5_632,
        layers: 22,
        heads: 32,
        kv_heads: 4,
        vocab: 32_000,
        positions: 2_048,
        ..TINY
    },
    PublishedShape {
        name: "llama-3.2-1b",
        hidden: 2_048,
        intermediate: 8_192,
        layers: 16,
        heads: 32,
        kv_heads: 8,
        vocab: 128_256,
        positions: 131_072,
        rope_theta: 500_000.0,
        rope_factor: Some(32.0),
        is_tied: true,
        ..TINY
    },
    PublishedShape {
        name: "llama-2-7b",
        hidden: 4_096,
        intermediate: 11_008,
        layers: 32,
        heads: 32,
        kv_heads: 32,
        vocab: 32_000,
        positions: 4_096,
        ..TINY
    },
    PublishedShape {
        name: "mistral-7b",
        family: MISTRAL,
        hidden: 4_096,
        intermediate: 14_336,
        layers: 32,
        heads: 32,
        kv_heads: 8,
        vocab: 32_768,
        positions: 32_768,
        rope_theta: 1_000_000.0,
        ..TINY
    },
    PublishedShape {
        name: "llama-3-8b",
        hidden: 4_096,
        intermediate: 14_336,
        layers: 32,
        heads: 32,
        kv_heads: 8,
        vocab: 128_256,
        positions: 8_192,
        rope_theta: 500_000.0,
        ..TINY
    },
    PublishedShape {
        name: "mixtral-8x7b",
        family: MIXTRAL,
        hidden: 4_096,
        intermediate: 14_336,
        layers: 32,
        heads: 32,
        kv_heads: 8,
        vocab: 32_000,
        positions: 32_768,
        rope_theta: 1_000_000.0,
        experts: Some([8, 2]),
        ..TINY
    },
];

impl PublishedShape {
    /// The shape of this name.
    ///
    /// # Errors
    /// Naming all shapes.
    pub fn parse(name: &str) -> Result<Self, String> {
        let found = SHAPES.into_iter().find(|shape| shape.name == name);
        found.ok_or_else(|| {
            let names = SHAPES.map(|shape| shape.name).join(", ");
            format!("no shape '{name}': one of {names}")
        })
    }

    /// The size of its vocabulary.
    pub fn vocab(&self) -> u32 {
        self.vocab
    }

    /// Its config.json, for weights that are stored as `dtype`.
    pub fn config(&self, dtype: &str) -> Value {
        let mut config = json!({
            "architectures": [self.family[0]], "model_type": self.family[1], "torch_dtype": dtype,
            "hidden_size": self.hidden, "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers, "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads, "head_dim": self.hidden / self.heads,
            "vocab_size": self.vocab, "max_position_embeddings": self.positions,
            "rms_norm_eps": 1e-5, "rope_theta": self.rope_theta, "hidden_act": "silu",
            "tie_word_embeddings": self.is_tied, "bos_token_id": ENDS[0], "eos_token_id": ENDS[1],
        });
        if let Some(factor) = self.rope_factor {
            config["rope_scaling"] = json!({
                "rope_type": "llama3", "factor": factor, "low_freq_factor": 1.0,
                "high_freq_factor": 4.0, "original_max_position_embeddings": 8_192,
            });
        }
        if [MISTRAL, MIXTRAL].contains(&self.family) {
            config["sliding_window"] = Value::Null;
        }
        if let Some([experts, chosen]) = self.experts {
            config["num_local_experts"] = json!(experts);
            config["num_experts_per_tok"] = json!(chosen);
        }
        config
    }
}
