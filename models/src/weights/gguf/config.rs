//! Turns the metadata of a GGUF file into the equivalent `config.json`. Every key of the
//! architecture is read, known to change nothing, or refused by name.

use serde_json::{Map, Value, json};

use super::architectures::Architecture;
use super::container::GgufFile;
use super::differences::{self, DIVISORS};
use super::fields::Fields;
use super::rope;
use super::values::GgufValue;
use crate::config::Family;
use crate::error::ModelError;

/// The tensor of RoPE's frequency divisors. In `config.json` they become parameters of llama3
/// scaling.
pub(super) const ROPE_FREQS: &str = "rope_freqs.weight";

/// Whether a tensor is one that the configuration is made of.
pub(super) fn is_made_of(architecture: &Architecture, name: &str) -> bool {
    name == ROPE_FREQS || (architecture.name == "phi3" && DIVISORS.contains(&name))
}

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
const READ: [&str; 8] = [
    "vocab_size",
    "attention.value_length",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.original_context_length",
    "rope.scaling.attn_factor",
];

/// Keys about experts, and what they are in `config.json`.
const EXPERTS: [(&str, &str); 4] = [
    ("expert_count", "num_local_experts"),
    ("expert_used_count", "num_experts_per_tok"),
    ("expert_feed_forward_length", "moe_intermediate_size"),
    (
        "expert_shared_feed_forward_length",
        "shared_expert_intermediate_size",
    ),
];

/// Keys of which 0 says nothing, in any architecture.
const COUNTS: [&str; 5] = [
    "attention.sliding_window",
    EXPERTS[0].0,
    EXPERTS[1].0,
    EXPERTS[2].0,
    EXPERTS[3].0,
];

/// Keys that change nothing: how the file was made.
const NOTHING: [&str; 2] = ["rope.scaling.finetuned", "tensor_data_layout"];

/// Sections of the metadata that do not change what is computed. `tokenizer.` is read with the
/// tokenizer.
const SECTIONS: [&str; 5] = ["general.", "tokenizer.", "split.", "quantize.", "imatrix."];

/// The keys of a `config.json`. `has` tells whether the model has a tensor.
pub(super) fn of(
    file: &GgufFile,
    architecture: &'static Architecture,
    has: impl Fn(&str) -> bool,
) -> Result<Map<String, Value>, ModelError> {
    let fields = Fields { file, architecture };
    fields.check_keys()?;
    let mut config = Map::new();
    let family = fields.family()?;
    config.insert("architectures".to_string(), json!([family.architecture()]));
    // transformers opens no folder without it.
    config.insert("model_type".to_string(), json!(family.model_type()));
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
    let [key, name] = architecture.epsilon;
    if let Some(eps) = fields.number(key)? {
        config.insert(name.to_string(), eps);
    }
    if let Some(window) = fields.count("attention.sliding_window")? {
        config.insert("sliding_window".to_string(), json!(window));
    }
    for (key, name) in EXPERTS {
        if let Some(count) = fields.count(key)? {
            config.insert(name.to_string(), json!(count));
        }
    }
    config.insert(
        "rope_parameters".to_string(),
        fields.rope(&config, has(ROPE_FREQS))?,
    );
    let [key, name] = architecture.activation;
    config.insert(key.to_string(), json!(name));
    let tied = !has("lm_head.weight");
    config.insert("tie_word_embeddings".to_string(), json!(tied));
    if family == Family::Llama {
        let bias = |module: &str| has(&format!("model.layers.0.{module}.bias"));
        config.insert(
            "attention_bias".to_string(),
            json!(bias("self_attn.q_proj")),
        );
        config.insert("mlp_bias".to_string(), json!(bias("mlp.gate_proj")));
    }
    fields.special_tokens(&mut config)?;
    differences::add(&fields, &mut config, &has)?;
    Ok(config)
}

impl Fields<'_> {
    /// The family of the file: in llama.cpp a Mixtral is a llama with experts, and a Mistral one
    /// with a window.
    fn family(&self) -> Result<Family, ModelError> {
        let architecture = self.architecture;
        let is_llama = architecture.name == "llama";
        if is_llama && self.count("expert_count")?.is_some() {
            return Ok(Family::Mixtral);
        }
        if is_llama && self.count("attention.sliding_window")?.is_some() {
            return Ok(Family::Mistral);
        }
        Ok(architecture.family)
    }

    /// A whole number of which 0 means none.
    fn count(&self, key: &str) -> Result<Option<u64>, ModelError> {
        Ok(self.whole(key)?.filter(|count| *count > 0))
    }

    fn check_keys(&self) -> Result<(), ModelError> {
        let prefix = format!("{}.", self.architecture.name);
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
                || self.architecture.keys.contains(&own)
                || self.architecture.epsilon[0] == own
                || NOTHING.contains(&own)
                || (COUNTS.contains(&own) && matches!(self.count(own), Ok(None)));
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
            if key == "rope.dimension_count" && self.architecture.name == "phi3" {
                continue;
            }
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
        // The divisors say more of it.
        let kind = match (kind, self.architecture.name) {
            ("longrope", "phi3") => "none",
            _ => kind,
        };
        let one = |value: &Value| value.as_f64() == Some(1.0);
        if self
            .number("rope.scaling.attn_factor")?
            .is_some_and(|value| !one(&value) && self.architecture.name != "phi3")
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
            let original = self.whole("rope.scaling.original_context_length")?;
            if let Some(original) = original.filter(|_| kind != "linear") {
                rope.insert(
                    "original_max_position_embeddings".to_string(),
                    json!(original),
                );
            }
        }
        Ok(Value::Object(rope))
    }
}
