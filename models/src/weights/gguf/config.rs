//! Turns the metadata of a GGUF file into the equivalent `config.json`. Every key of the
//! architecture is read, known to change nothing, or refused by name.

use serde_json::{Map, Number, Value, json};

use super::container::GgufFile;
use super::rope;
use super::values::GgufValue;
use crate::error::ModelError;

/// The tensor of RoPE's frequency divisors. In `config.json` they become parameters of llama3
/// scaling.
pub(super) const ROPE_FREQS: &str = "rope_freqs.weight";

/// Architectures in GGUF, with the class and the `model_type` in transformers.
const ARCHITECTURES: [(&str, &str, &str); 3] = [
    ("llama", "LlamaForCausalLM", "llama"),
    ("qwen2", "Qwen2ForCausalLM", "qwen2"),
    ("qwen3", "Qwen3ForCausalLM", "qwen3"),
];

/// Keys (after the architecture's name) of whole numbers, and their names in `config.json`.
const WHOLE: [(&str, &str); 7] = [
    ("context_length", "max_position_embeddings"),
    ("embedding_length", "hidden_size"),
    ("block_count", "num_hidden_layers"),
    ("feed_forward_length", "intermediate_size"),
    ("attention.head_count", "num_attention_heads"),
    ("attention.head_count_kv", "num_key_value_heads"),
    ("attention.key_length", "head_dim"),
];

/// Other keys that are read.
const READ: [&str; 12] = [
    "vocab_size",
    "attention.value_length",
    "attention.layer_norm_rms_epsilon",
    "attention.sliding_window",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.original_context_length",
    "rope.scaling.attn_factor",
    "expert_count",
    "expert_used_count",
];

/// Keys that change nothing: how the file was made.
const NOTHING: [&str; 2] = ["rope.scaling.finetuned", "tensor_data_layout"];

/// Sections of the metadata that do not change what is computed. `tokenizer.` is read with the
/// tokenizer.
const SECTIONS: [&str; 5] = ["general.", "tokenizer.", "split.", "quantize.", "imatrix."];

/// The keys of a `config.json`. `has` tells whether the model has a tensor.
pub(super) fn of(
    file: &GgufFile,
    architecture: &str,
    has: impl Fn(&str) -> bool,
) -> Result<Map<String, Value>, ModelError> {
    let known = ARCHITECTURES.iter().find(|known| known.0 == architecture);
    let (_, class, model_type) = known.ok_or_else(|| ModelError::UnknownArchitecture {
        path: file.path().to_path_buf(),
        found: architecture.to_string(),
        known: ARCHITECTURES.map(|known| known.0).join(", "),
    })?;
    let fields = Fields { file, architecture };
    fields.check_keys()?;
    let mut config = Map::new();
    let is_mistral = fields.get("attention.sliding_window").is_some() && architecture == "llama";
    let [class, model_type] = match is_mistral {
        // llama.cpp writes Mistral as the architecture `llama`, with a window.
        true => ["MistralForCausalLM", "mistral"],
        false => [*class, *model_type],
    };
    config.insert("architectures".to_string(), json!([class]));
    config.insert("model_type".to_string(), json!(model_type));
    for (key, name) in WHOLE {
        if let Some(number) = fields.whole(key)? {
            config.insert(name.to_string(), json!(number));
        }
    }
    let heads = config
        .get("num_attention_heads")
        .cloned()
        .unwrap_or_default();
    config.entry("num_key_value_heads").or_insert(heads);
    fields.head_width(&mut config)?;
    fields.vocabulary(&mut config)?;
    if let Some(eps) = fields.number("attention.layer_norm_rms_epsilon")? {
        config.insert("rms_norm_eps".to_string(), eps);
    }
    if let Some(window) = fields.whole("attention.sliding_window")? {
        config.insert("sliding_window".to_string(), json!(window));
    }
    for (key, name) in [
        ("expert_count", "num_local_experts"),
        ("expert_used_count", "num_experts_per_tok"),
    ] {
        // The reader of `config.json` refuses experts, with its own message.
        if let Some(count) = fields.whole(key)?.filter(|count| *count > 0) {
            config.insert(name.to_string(), json!(count));
        }
    }
    config.insert(
        "rope_parameters".to_string(),
        fields.rope(&config, has(ROPE_FREQS))?,
    );
    config.insert("hidden_act".to_string(), json!("silu"));
    let tied = !has("lm_head.weight");
    config.insert("tie_word_embeddings".to_string(), json!(tied));
    if architecture == "llama" && !is_mistral {
        let bias = |module: &str| has(&format!("model.layers.0.{module}.bias"));
        config.insert(
            "attention_bias".to_string(),
            json!(bias("self_attn.q_proj")),
        );
        config.insert("mlp_bias".to_string(), json!(bias("mlp.gate_proj")));
    }
    fields.special_tokens(&mut config)?;
    Ok(config)
}

struct Fields<'a> {
    file: &'a GgufFile,
    architecture: &'a str,
}

impl Fields<'_> {
    fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }

    fn get(&self, key: &str) -> Option<GgufValue<'_>> {
        self.file.get(&self.key(key))
    }

    fn bad(&self, key: &str, reason: impl Into<String>) -> ModelError {
        self.file.bad_key(&self.key(key), reason)
    }

    fn whole(&self, key: &str) -> Result<Option<u64>, ModelError> {
        match self.get(key) {
            None => Ok(None),
            // One number for each layer: all must be equal.
            Some(GgufValue::List(list)) => {
                let mut values = list.values().map(GgufValue::whole);
                let first = values.next().flatten();
                match values.all(|value| value == first) {
                    true if first.is_some() => Ok(first),
                    _ => Err(self.bad(key, "layers of several sizes are not read")),
                }
            }
            Some(value) => {
                let whole = value.whole();
                whole
                    .map(Some)
                    .ok_or_else(|| self.bad(key, "it must be a whole number"))
            }
        }
    }

    /// A float as the shortest decimal that rounds to it, which is probably what it was made from.
    fn number(&self, key: &str) -> Result<Option<Value>, ModelError> {
        let decimal = match self.get(key) {
            None => return Ok(None),
            Some(GgufValue::Float32(number)) => number.to_string().parse().ok(),
            Some(GgufValue::Float64(number)) => Some(number),
            Some(value) => value.whole().map(|number| number as f64),
        };
        let number = decimal.and_then(Number::from_f64).map(Value::Number);
        number
            .map(Some)
            .ok_or_else(|| self.bad(key, "it must be a finite number"))
    }

    fn check_keys(&self) -> Result<(), ModelError> {
        let prefix = format!("{}.", self.architecture);
        for key in self.file.keys() {
            let Some(own) = key.strip_prefix(&prefix) else {
                if SECTIONS.iter().any(|section| key.starts_with(section)) {
                    continue;
                }
                let reason = "nothing is known of this key, and it may change what is computed";
                return Err(self.file.bad_key(key, reason));
            };
            let is_known = WHOLE.iter().any(|(known, _)| *known == own)
                || READ.contains(&own)
                || NOTHING.contains(&own);
            if !is_known {
                let reason = "nothing is known of this key, and it may change what is computed: \
                              take the model's safetensors";
                return Err(self.file.bad_key(key, reason));
            }
        }
        Ok(())
    }

    /// Sets `head_dim`. Values must be as wide as keys, and whole heads be rotated.
    fn head_width(&self, config: &mut Map<String, Value>) -> Result<(), ModelError> {
        let size = |config: &Map<String, Value>, key: &str| config.get(key).and_then(Value::as_u64);
        let width = size(config, "head_dim").or_else(|| {
            let heads = size(config, "num_attention_heads")?;
            size(config, "hidden_size")?.checked_div(heads)
        });
        if let Some(width) = width {
            config.insert("head_dim".to_string(), json!(width));
        }
        for key in ["attention.value_length", "rope.dimension_count"] {
            let found = self.whole(key)?;
            if found.is_some() && found != width {
                let width = width.map_or("none".to_string(), |width| width.to_string());
                let reason = format!("the width of a head is {width}, and no other one is read");
                return Err(self.bad(key, reason));
            }
        }
        Ok(())
    }

    /// Sets `vocab_size`: as many as there are tokens, unless the file has a number.
    fn vocabulary(&self, config: &mut Map<String, Value>) -> Result<(), ModelError> {
        let tokens = match self.file.get("tokenizer.ggml.tokens") {
            Some(GgufValue::List(list)) => Some(list.len()),
            _ => None,
        };
        let embedding = self.file.tensors.get("token_embd.weight");
        let embedding = embedding.and_then(|tensor| tensor.shape.first());
        let rows = embedding.map(|rows| *rows as u64);
        if let Some(size) = rows.or(self.whole("vocab_size")?).or(tokens) {
            config.insert("vocab_size".to_string(), json!(size));
        }
        Ok(())
    }

    fn special_tokens(&self, config: &mut Map<String, Value>) -> Result<(), ModelError> {
        let id = |key: &str| {
            let key = format!("tokenizer.ggml.{key}");
            match self.file.get(&key) {
                None => Ok(None),
                Some(value) => {
                    let id = value.whole();
                    let bad = || self.file.bad_key(&key, "it must be the number of a token");
                    id.map(Some).ok_or_else(bad)
                }
            }
        };
        config.insert("bos_token_id".to_string(), json!(id("bos_token_id")?));
        let mut ends = Vec::new();
        for key in ["eos_token_id", "eot_token_id", "eom_token_id"] {
            ends.extend(id(key)?.filter(|id| !ends.contains(id)));
        }
        config.insert("eos_token_id".to_string(), json!(ends));
        Ok(())
    }

    fn rope(&self, config: &Map<String, Value>, has_freqs: bool) -> Result<Value, ModelError> {
        let mut rope = Map::new();
        let theta = self.number("rope.freq_base")?;
        rope.insert("rope_theta".to_string(), theta.unwrap_or(json!(10_000.0)));
        let key = "rope.scaling.type";
        let kind = match self.get(key) {
            None => "none",
            Some(value) => value
                .text()
                .ok_or_else(|| self.bad(key, "it must be a text"))?,
        };
        let one = |value: &Value| value.as_f64() == Some(1.0);
        if self
            .number("rope.scaling.attn_factor")?
            .is_some_and(|value| !one(&value))
        {
            return Err(self.bad("rope.scaling.attn_factor", "only 1 is read"));
        }
        if has_freqs {
            if kind != "none" {
                return Err(self.bad(key, format!("beside it stands {ROPE_FREQS}: one is wrong")));
            }
            let more = rope::llama3(self.file, ROPE_FREQS, &rope, config)?;
            rope.extend(more);
            return Ok(Value::Object(rope));
        }
        let kind = if kind == "none" { "default" } else { kind };
        rope.insert("rope_type".to_string(), json!(kind));
        if kind != "default" {
            let factor = self.number("rope.scaling.factor")?;
            let factor =
                factor.ok_or_else(|| self.bad("rope.scaling.factor", "it must be there"))?;
            rope.insert("factor".to_string(), factor);
            if let Some(original) = self.number("rope.scaling.original_context_length")? {
                rope.insert("original_max_position_embeddings".to_string(), original);
            }
        }
        Ok(Value::Object(rope))
    }
}
