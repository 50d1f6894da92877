//! `config.json` to [`DecoderConfig`]: defaults are those of transformers, everything is checked.

use std::fs;
use std::path::Path;

use super::family;
use super::fields::ConfigFields;
use super::rope::{self, POSITIONS_MAX};
use super::rules::FamilyRules;
use super::{DecoderConfig, Family, NormKind, Rope, RopeScaling, activation, keys};
use crate::error::ModelError;
use crate::json;

// Limits: about eight times the largest published decoder, so that a broken or hostile file
// cannot make a reader allocate or loop without end.
pub(super) const HIDDEN_MAX: usize = 1 << 17;
pub(super) const INTERMEDIATE_MAX: usize = 1 << 20;
pub(super) const LAYERS_MAX: usize = 1 << 10;
pub(super) const HEADS_MAX: usize = 1 << 10;
pub(super) const HEAD_DIM_MAX: usize = 1 << 10;
pub(super) const VOCAB_MAX: usize = 1 << 21;

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

    /// Reads the text of a `config.json` that was made from the metadata of the GGUF file `file`.
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
    let rules = family.rules();
    keys::check(&fields, family)?;
    let mut config = as_llama(&fields, family)?;
    (config.rope, config.rotary_dim) = rope::parse(&fields, rules, &config)?;
    (rules.differ)(&fields, &mut config)?;
    lengthen(&mut config);
    Ok(config.normalised())
}

/// YaRN makes a model of its pre-training's positions one of `factor` times as many. Public files
/// leave `max_position_embeddings` as it was before; transformers takes longer texts all the same.
fn lengthen(config: &mut DecoderConfig) {
    if let RopeScaling::Yarn {
        factor,
        original_max_positions,
        ..
    } = config.rope.scaling
    {
        let stretched = (original_max_positions as f64 * factor) as usize;
        config.max_positions = config.max_positions.max(stretched.min(POSITIONS_MAX));
    }
}

/// Reads what all families have, with the defaults and key names of this one; the other fields
/// are those of a Llama.
fn as_llama(fields: &ConfigFields, family: Family) -> Result<DecoderConfig, ModelError> {
    let rules = family.rules();
    let hidden = fields.size("hidden_size", HIDDEN_MAX)?;
    let layers = fields.size("num_hidden_layers", LAYERS_MAX)?;
    let heads = fields.size("num_attention_heads", HEADS_MAX)?;
    let vocab = fields.size("vocab_size", VOCAB_MAX)?;
    let (key, default) = rules.activation;
    Ok(DecoderConfig {
        family,
        hidden,
        intermediate: fields.size("intermediate_size", INTERMEDIATE_MAX)?,
        layers,
        heads,
        kv_heads: kv_heads(fields, rules, heads)?,
        head_dim: head_dim(fields, rules, hidden, heads)?,
        vocab,
        max_positions: fields.size_or("max_position_embeddings", POSITIONS_MAX, rules.positions)?,
        norm: NormKind::Rms,
        norm_eps: norm_eps(fields, rules)?,
        parallel_residual: false,
        rope: Rope {
            theta: rules.rope.theta,
            scaling: RopeScaling::None,
        },
        local_rope: None,
        unrotated: Vec::new(),
        rotary_dim: None,
        rope_neighbours: rules.rope.neighbours,
        sliding_window: vec![None; layers],
        qkv_bias: false,
        o_bias: false,
        mlp_bias: false,
        experts: None,
        fused_qkv: None,
        fused_gate_up: false,
        gated: true,
        activation: activation::read(fields, key, default)?,
        qk_norm: None,
        attention_scale: None,
        attention_soft_cap: None,
        sinks: false,
        embedding_multiplier: None,
        residual_multiplier: None,
        head_bias: false,
        logit_multiplier: None,
        logit_soft_cap: None,
        tie_embeddings: fields.flag("tie_word_embeddings", rules.tied)?,
        bos: special(fields, "bos_token_id", rules.special.0, vocab)?
            .first()
            .copied(),
        eos: special(fields, "eos_token_id", rules.special.1, vocab)?,
    })
}

/// The ids of a special token. Where the key is absent, the family's defaults that are in the
/// vocabulary; null means none.
fn special(
    fields: &ConfigFields,
    key: &'static str,
    default: &[u32],
    vocab: usize,
) -> Result<Vec<u32>, ModelError> {
    if fields.has(key) {
        return fields.token_ids(key, vocab);
    }
    let known = default.iter().filter(|id| (**id as usize) < vocab);
    Ok(known.copied().collect())
}

fn kv_heads(fields: &ConfigFields, rules: &FamilyRules, heads: usize) -> Result<usize, ModelError> {
    let kv_heads = match fields.size_opt("num_key_value_heads", HEADS_MAX)? {
        Some(kv_heads) => kv_heads,
        None if fields.has("num_key_value_heads") => heads,
        None => rules.kv_heads.unwrap_or(heads),
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

fn head_dim(
    fields: &ConfigFields,
    rules: &FamilyRules,
    hidden: usize,
    heads: usize,
) -> Result<usize, ModelError> {
    let head_dim = match (fields.size_opt("head_dim", HEAD_DIM_MAX)?, rules.head_dim) {
        (Some(head_dim), _) => head_dim,
        (None, Some(default)) if fields.has("head_dim") => {
            let class = rules.names.0;
            let rule = format!("must be a number in a {class}; without the key it is {default}");
            return Err(fields.bad("head_dim", "null", rule));
        }
        (None, Some(default)) => default,
        (None, None) if hidden.is_multiple_of(heads) => hidden / heads,
        (None, None) => {
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

fn norm_eps(fields: &ConfigFields, rules: &FamilyRules) -> Result<f32, ModelError> {
    let (key, default) = rules.norm_eps;
    let eps = match fields.positive_opt(key)? {
        Some(eps) => eps,
        None if fields.has(key) => return Err(fields.missing(key)),
        None => default,
    };
    // transformers holds it in f64 and adds it to an f32 mean: the same as rounding it once.
    let rounded = eps as f32;
    if rounded > 0.0 && rounded < 1.0 {
        Ok(rounded)
    } else {
        Err(fields.bad(key, eps, "must be above 0 and below 1"))
    }
}
