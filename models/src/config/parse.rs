//! `config.json` to [`DecoderConfig`]: defaults as transformers has them, everything checked.

use std::fs;
use std::path::Path;

use super::fields::ConfigFields;
use super::rope::{self, POSITIONS_MAX};
use super::{DecoderConfig, Family, family, keys, windows};
use crate::error::ModelError;
use crate::json;

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

/// Added in every RMSNorm where the config does not say, as transformers has it.
const RMS_EPS_DEFAULT: f64 = 1e-6;

impl DecoderConfig {
    /// Reads `config.json` of a model folder, and the `eos_token_id` of its
    /// `generation_config.json` where there is one (it wins, as in transformers).
    ///
    /// # Errors
    /// [`ModelError`] naming the file and the key.
    pub fn from_folder(folder: &Path) -> Result<Self, ModelError> {
        Self::read(folder).map(|(config, _)| config)
    }

    /// [`DecoderConfig::from_folder`], with the text of `config.json`.
    pub(crate) fn read(folder: &Path) -> Result<(Self, String), ModelError> {
        let path = folder.join("config.json");
        let text = read(&path)?;
        let mut config = parse(&path, &text)?;
        let path = folder.join("generation_config.json");
        if path.is_file() {
            let object = json::object(&path, read(&path)?.as_bytes())?;
            let fields = ConfigFields {
                path: &path,
                object: &object,
            };
            let eos = fields.token_ids("eos_token_id", config.vocab)?;
            if !eos.is_empty() {
                config.eos = eos;
            }
        }
        Ok((config, text))
    }

    /// Reads the text of a `config.json` that was made of the metadata of `file`.
    pub(crate) fn from_metadata(file: &Path, text: &str) -> Result<Self, ModelError> {
        parse(file, text)
    }

    /// Reads the text of a `config.json`.
    ///
    /// # Errors
    /// [`ModelError`] naming the key.
    pub fn from_json(text: &str) -> Result<Self, ModelError> {
        parse(Path::new("config.json"), text)
    }
}

pub(super) fn read(path: &Path) -> Result<String, ModelError> {
    fs::read_to_string(path).map_err(ModelError::io("read", path))
}

fn parse(path: &Path, text: &str) -> Result<DecoderConfig, ModelError> {
    let object = json::object(path, text.as_bytes())?;
    let fields = ConfigFields {
        path,
        object: &object,
    };
    let family = family::parse(&fields)?;
    keys::check(&fields, family)?;
    check_activation(&fields)?;

    let hidden = fields.size("hidden_size", HIDDEN_MAX)?;
    let layers = fields.size("num_hidden_layers", LAYERS_MAX)?;
    let heads = fields.size("num_attention_heads", HEADS_MAX)?;
    let vocab = fields.size("vocab_size", VOCAB_MAX)?;
    let positions = match family {
        Family::Llama => 2_048,
        Family::Mistral => 131_072,
        Family::Qwen2 | Family::Qwen3 => 32_768,
    };
    let max_positions = fields.size_or("max_position_embeddings", POSITIONS_MAX, positions)?;
    let [attention_bias, mlp_bias] = biases(&fields, family)?;
    Ok(DecoderConfig {
        family,
        hidden,
        intermediate: fields.size("intermediate_size", INTERMEDIATE_MAX)?,
        layers,
        heads,
        kv_heads: kv_heads(&fields, family, heads)?,
        head_dim: head_dim(&fields, family, hidden, heads)?,
        vocab,
        max_positions,
        rms_eps: rms_eps(&fields)?,
        rope: rope::parse(&fields, max_positions)?,
        sliding_window: windows::parse(&fields, family, layers, max_positions)?,
        qkv_bias: attention_bias || family == Family::Qwen2,
        o_bias: attention_bias,
        mlp_bias,
        qk_norm: family == Family::Qwen3,
        tie_embeddings: fields.flag("tie_word_embeddings", false)?,
        bos: special(&fields, "bos_token_id", family, 1, vocab)?
            .first()
            .copied(),
        eos: special(&fields, "eos_token_id", family, 2, vocab)?,
    })
}

/// The ids of a special token. Where a Llama or a Mistral does not say, it is `default`, as the
/// classes of transformers have it; null is none.
fn special(
    fields: &ConfigFields,
    key: &'static str,
    family: Family,
    default: u32,
    vocab: usize,
) -> Result<Vec<u32>, ModelError> {
    let has_default = matches!(family, Family::Llama | Family::Mistral);
    if has_default && !fields.has(key) && (default as usize) < vocab {
        return Ok(vec![default]);
    }
    fields.token_ids(key, vocab)
}

fn kv_heads(fields: &ConfigFields, family: Family, heads: usize) -> Result<usize, ModelError> {
    let default = match family {
        Family::Llama => heads,
        Family::Mistral => 8,
        Family::Qwen2 | Family::Qwen3 => 32,
    };
    let kv_heads = match fields.size_opt("num_key_value_heads", HEADS_MAX)? {
        Some(kv_heads) => kv_heads,
        None if fields.has("num_key_value_heads") => heads,
        None => default,
    };
    if heads.is_multiple_of(kv_heads) {
        return Ok(kv_heads);
    }
    let rule = format!("must divide num_attention_heads = {heads}");
    let found = match fields.has("num_key_value_heads") {
        true => kv_heads.to_string(),
        false => format!("not there, which means {kv_heads} in this family"),
    };
    Err(fields.bad("num_key_value_heads", found, rule))
}

/// Whether q, k, v and o have biases by `attention_bias`, and the feed-forward layer by `mlp_bias`.
/// The classes that do not read these keys have none, but for Qwen2's on q, k and v.
fn biases(fields: &ConfigFields, family: Family) -> Result<[bool; 2], ModelError> {
    let attention = fields.flag("attention_bias", false)?;
    let mlp = fields.flag("mlp_bias", false)?;
    let rule = "this family has no such bias, in transformers either: set it to false where the \
                weights have none";
    if mlp && family != Family::Llama {
        return Err(fields.bad("mlp_bias", mlp, rule));
    }
    match family {
        Family::Mistral if attention => Err(fields.bad("attention_bias", attention, rule)),
        // A Qwen2 has its biases whatever the key says, and their tensors are looked for.
        Family::Qwen2 => Ok([false, false]),
        _ => Ok([attention, mlp]),
    }
}

fn check_activation(fields: &ConfigFields) -> Result<(), ModelError> {
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
    fields: &ConfigFields,
    family: Family,
    hidden: usize,
    heads: usize,
) -> Result<usize, ModelError> {
    let head_dim = match fields.size_opt("head_dim", HEAD_DIM_MAX)? {
        Some(head_dim) => head_dim,
        None if family == Family::Qwen3 && fields.has("head_dim") => {
            let rule = "must be a number in a Qwen3; without the key it is 128";
            return Err(fields.bad("head_dim", "null", rule));
        }
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

fn rms_eps(fields: &ConfigFields) -> Result<f32, ModelError> {
    let eps = match fields.positive_opt("rms_norm_eps")? {
        Some(eps) => eps,
        None if fields.has("rms_norm_eps") => return Err(fields.missing("rms_norm_eps")),
        None => RMS_EPS_DEFAULT,
    };
    // transformers holds it in f64 and adds it to an f32 mean: the same as rounding it once.
    let rounded = eps as f32;
    if rounded > 0.0 && rounded < 1.0 {
        Ok(rounded)
    } else {
        Err(fields.bad("rms_norm_eps", eps, "must be above 0 and below 1"))
    }
}
