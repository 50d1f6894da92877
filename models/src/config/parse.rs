//! `config.json` to [`DecoderConfig`]: defaults as transformers has them, everything checked.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value};

use super::fields::Fields;
use super::rope::{self, POSITIONS_MAX};
use super::{DecoderConfig, Family};
use crate::error::ModelError;

// Limits: about eight times the largest published decoder, so that a broken or hostile file
// cannot make a reader allocate or loop without end.
const HIDDEN_MAX: usize = 1 << 17;
const INTERMEDIATE_MAX: usize = 1 << 20;
const LAYERS_MAX: usize = 1 << 10;
const HEADS_MAX: usize = 1 << 10;
const HEAD_DIM_MAX: usize = 1 << 10;
const VOCAB_MAX: usize = 1 << 21;

/// Head width of Qwen3 where its config does not say, as transformers has it.
const QWEN3_HEAD_DIM: usize = 128;

impl DecoderConfig {
    /// Reads `config.json` of a model folder, and the `eos_token_id` of its
    /// `generation_config.json` where there is one (it wins, as in transformers).
    ///
    /// # Errors
    /// [`ModelError`] naming the file and the key.
    pub fn from_folder(folder: &Path) -> Result<Self, ModelError> {
        let path = folder.join("config.json");
        let mut config = parse(&path, &read(&path)?)?;
        let path = folder.join("generation_config.json");
        if path.is_file() {
            let value = json_object(&path, &read(&path)?)?;
            let fields = Fields {
                path: &path,
                object: &value,
            };
            let eos = fields.token_ids("eos_token_id", config.vocab)?;
            if !eos.is_empty() {
                config.eos = eos;
            }
        }
        Ok(config)
    }

    /// Reads the text of a `config.json`.
    ///
    /// # Errors
    /// [`ModelError`] naming the key.
    pub fn from_json(text: &str) -> Result<Self, ModelError> {
        parse(Path::new("config.json"), text)
    }
}

fn read(path: &Path) -> Result<String, ModelError> {
    fs::read_to_string(path).map_err(ModelError::io("read", path))
}

fn json_object(path: &Path, text: &str) -> Result<Map<String, Value>, ModelError> {
    serde_json::from_str(text).map_err(ModelError::json(path))
}

fn parse(path: &Path, text: &str) -> Result<DecoderConfig, ModelError> {
    let object = json_object(path, text)?;
    let fields = Fields {
        path,
        object: &object,
    };
    let family = family(&fields)?;
    check_activation(&fields)?;

    let hidden = fields.size("hidden_size", HIDDEN_MAX)?;
    let layers = fields.size("num_hidden_layers", LAYERS_MAX)?;
    let heads = fields.size("num_attention_heads", HEADS_MAX)?;
    let kv_heads = fields
        .size_opt("num_key_value_heads", HEADS_MAX)?
        .unwrap_or(heads);
    if heads % kv_heads != 0 {
        let rule = format!("must divide num_attention_heads = {heads}");
        return Err(fields.bad("num_key_value_heads", kv_heads, rule));
    }
    let vocab = fields.size("vocab_size", VOCAB_MAX)?;
    let attention_bias = match family {
        Family::Llama | Family::Qwen3 => fields.flag("attention_bias", false)?,
        Family::Qwen2 | Family::Mistral => false,
    };
    Ok(DecoderConfig {
        family,
        hidden,
        intermediate: fields.size("intermediate_size", INTERMEDIATE_MAX)?,
        layers,
        heads,
        kv_heads,
        head_dim: head_dim(&fields, family, hidden, heads)?,
        vocab,
        max_positions: fields.size("max_position_embeddings", POSITIONS_MAX)?,
        rms_eps: rms_eps(&fields)?,
        rope: rope::parse(&fields)?,
        sliding_window: sliding_window(&fields, family, layers)?,
        qkv_bias: attention_bias || family == Family::Qwen2,
        o_bias: attention_bias,
        mlp_bias: family == Family::Llama && fields.flag("mlp_bias", false)?,
        qk_norm: family == Family::Qwen3,
        tie_embeddings: fields.flag("tie_word_embeddings", false)?,
        bos: fields.token_ids("bos_token_id", vocab)?.first().copied(),
        eos: fields.token_ids("eos_token_id", vocab)?,
    })
}

fn family(fields: &Fields) -> Result<Family, ModelError> {
    let value = fields
        .get("architectures")
        .ok_or_else(|| fields.missing("architectures"))?;
    let first = value
        .as_array()
        .and_then(|names| names.first())
        .and_then(Value::as_str);
    let found =
        first.ok_or_else(|| fields.bad("architectures", value, "must be a list of names"))?;
    let known = Family::ALL
        .into_iter()
        .find(|family| family.architecture() == found);
    known.ok_or_else(|| ModelError::UnknownArchitecture {
        path: fields.path.to_path_buf(),
        found: found.to_string(),
        known: Family::ALL.map(Family::architecture).join(", "),
    })
}

fn check_activation(fields: &Fields) -> Result<(), ModelError> {
    match fields.text("hidden_act")?.unwrap_or("silu") {
        // transformers maps both names to the same function.
        "silu" | "swish" => Ok(()),
        other => Err(ModelError::UnknownActivation {
            path: fields.path.to_path_buf(),
            found: other.to_string(),
        }),
    }
}

fn head_dim(
    fields: &Fields,
    family: Family,
    hidden: usize,
    heads: usize,
) -> Result<usize, ModelError> {
    let head_dim = match fields.size_opt("head_dim", HEAD_DIM_MAX)? {
        Some(head_dim) => head_dim,
        None if family == Family::Qwen3 => QWEN3_HEAD_DIM,
        None if hidden.is_multiple_of(heads) => hidden / heads,
        None => {
            let rule = format!("must be a multiple of num_attention_heads = {heads}");
            return Err(fields.bad("hidden_size", hidden, rule));
        }
    };
    if head_dim % 2 == 0 && head_dim <= HEAD_DIM_MAX {
        Ok(head_dim)
    } else {
        let rule = format!("must be even for RoPE, and at most {HEAD_DIM_MAX}");
        Err(fields.bad("head_dim", head_dim, rule))
    }
}

fn rms_eps(fields: &Fields) -> Result<f32, ModelError> {
    let eps = fields.positive("rms_norm_eps")?;
    // transformers holds it in f64 and adds it to an f32 mean: the same as rounding it once.
    let rounded = eps as f32;
    if rounded > 0.0 && rounded < 1.0 {
        Ok(rounded)
    } else {
        Err(fields.bad("rms_norm_eps", eps, "must be above 0 and below 1"))
    }
}

fn sliding_window(
    fields: &Fields,
    family: Family,
    layers: usize,
) -> Result<Vec<Option<u32>>, ModelError> {
    let window = match family {
        Family::Llama => None,
        Family::Mistral => fields.size_opt("sliding_window", POSITIONS_MAX)?,
        Family::Qwen2 | Family::Qwen3 if fields.flag("use_sliding_window", false)? => {
            fields.size_opt("sliding_window", POSITIONS_MAX)?
        }
        Family::Qwen2 | Family::Qwen3 => None,
    };
    // POSITIONS_MAX fits in 32 bits.
    let window = window.map(|positions| positions as u32);
    if family == Family::Mistral || window.is_none() {
        return Ok(vec![window; layers]);
    }
    if let Some(types) = fields.get("layer_types") {
        return layer_types(fields, types, window, layers);
    }
    let first_windowed = match fields.get("max_window_layers") {
        Some(value) => value.as_u64().ok_or_else(|| {
            fields.bad(
                "max_window_layers",
                value,
                "must be a whole number of layers",
            )
        })?,
        None => return Err(fields.missing("max_window_layers")),
    };
    Ok((0..layers as u64)
        .map(|layer| window.filter(|_| layer >= first_windowed))
        .collect())
}

fn layer_types(
    fields: &Fields,
    types: &Value,
    window: Option<u32>,
    layers: usize,
) -> Result<Vec<Option<u32>>, ModelError> {
    let rule = "must list full_attention or sliding_attention for every layer";
    let bad = || fields.bad("layer_types", types, rule);
    let names = types
        .as_array()
        .filter(|names| names.len() == layers)
        .ok_or_else(bad)?;
    names
        .iter()
        .map(|name| match name.as_str() {
            Some("full_attention") => Ok(None),
            Some("sliding_attention") => Ok(window),
            _ => Err(bad()),
        })
        .collect()
}
