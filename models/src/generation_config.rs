//! `generation_config.json`: the sampling parameters that a model recommends.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value};

use concord_text::TextTokenizer;

use crate::config::DecoderConfig;
use crate::error::ModelError;
use crate::json::{self, shown};
use crate::neutral::Neutral;

const FILE: &str = "generation_config.json";

/// Keys that are read. `eos_token_id` is [`crate::config::DecoderConfig`]'s.
const READ: &str = "do_sample eos_token_id temperature top_k top_p";

/// Keys that change no token, whatever their value: ids that no draw uses, bounds on length
/// (requests and options set their own), how a program computes, what a call returns, where the
/// file comes from, and options of beam search.
const NOTHING: &str = "pad_token_id bos_token_id decoder_start_token_id transformers_version \
    _from_model_config _commit_hash trust_remote_code max_length max_new_tokens max_time use_cache \
    cache_implementation cache_config max_cache_len return_legacy_cache return_dict_in_generate \
    output_attentions output_hidden_states output_scores output_logits low_memory disable_compile \
    compile_config continuous_batching_config prefill_chunk_size is_assistant use_mtp \
    num_assistant_tokens num_assistant_tokens_schedule assistant_confidence_threshold \
    assistant_early_exit assistant_lookbehind target_lookbehind prompt_lookup_num_tokens \
    max_matching_ngram_size speculation_type early_stopping length_penalty diversity_penalty \
    remove_invalid_values";

/// Keys that change no token at the values that switch them off.
const OFF: &[(Neutral, &str)] = &[
    (
        Neutral::Empty,
        "stop_strings bad_words_ids suppress_tokens begin_suppress_tokens sequence_bias \
         forced_bos_token_id forced_eos_token_id exponential_decay_length_penalty constraints \
         force_words_ids dola_layers watermarking_config assistant_ensemble_weight top_h \
         forced_decoder_ids",
    ),
    (
        Neutral::Zero,
        "min_length min_new_tokens min_p no_repeat_ngram_size encoder_no_repeat_ngram_size \
         epsilon_cutoff eta_cutoff penalty_alpha presence_penalty frequency_penalty",
    ),
    (
        Neutral::One,
        "repetition_penalty encoder_repetition_penalty typical_p num_beams num_beam_groups \
         num_return_sequences guidance_scale",
    ),
    (
        Neutral::False,
        "renormalize_logits token_healing force_bos_token_to_be_generated",
    ),
];

/// The sampling parameters of a model folder; all are absent where the file is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GenerationConfig {
    /// From 0 to 2; 0 takes the most probable token, as `do_sample` false does.
    pub temperature: Option<f32>,
    /// Above 0, at most 1.
    pub top_p: Option<f32>,
    /// 0 keeps all tokens.
    pub top_k: Option<u32>,
    /// A sentence for each key that would change tokens but is not applied, to be shown to the
    /// user.
    pub not_applied: Vec<String>,
}

impl GenerationConfig {
    /// Reads the file of a model folder. The caller chooses what the file leaves out. The defaults
    /// of transformers (greedy, or the 50 most probable tokens) are not used, because the API and
    /// the commands have defaults of their own.
    ///
    /// # Errors
    /// [`ModelError`] naming the file and the key, where a value is out of range.
    pub fn open(folder: &Path) -> Result<Self, ModelError> {
        let path = folder.join(FILE);
        if !path.is_file() {
            return Ok(Self::default());
        }
        let text = fs::read(&path).map_err(ModelError::io("read", &path))?;
        let file = File {
            object: json::object(&path, &text)?,
            path: &path,
        };
        let temperature = file.number("temperature", "a number from 0 to 2", |t| {
            (0.0..=2.0).contains(&t)
        })?;
        let top_p = file.number("top_p", "a number above 0, at most 1", |p| {
            p > 0.0 && p <= 1.0
        })?;
        Ok(Self {
            temperature: match file.flag("do_sample")? {
                Some(false) => Some(0.0),
                _ => temperature,
            },
            // A value that f32 would round to 0 becomes the smallest normal f32.
            top_p: top_p.map(|p| p.max(f32::MIN_POSITIVE)),
            top_k: file.top_k()?,
            not_applied: file.not_applied(),
        })
    }
}

/// The tokens that end a text: those of the model's configuration and of its tokenizer, in
/// ascending order. Ids that the model has no logits for are left out.
pub fn end_tokens(config: &DecoderConfig, tokenizer: &TextTokenizer) -> Vec<u32> {
    let mut tokens = [&config.eos[..], tokenizer.eos_ids()].concat();
    tokens.retain(|token| (*token as usize) < config.vocab);
    tokens.sort_unstable();
    tokens.dedup();
    tokens
}

struct File<'a> {
    path: &'a Path,
    object: Map<String, Value>,
}

impl File<'_> {
    fn get(&self, key: &str) -> Option<&Value> {
        self.object.get(key).filter(|value| !value.is_null())
    }

    fn bad(&self, key: &'static str, value: &Value, expected: &str) -> ModelError {
        ModelError::BadValue {
            path: self.path.to_path_buf(),
            key,
            found: shown(value),
            expected: format!("must be {expected}"),
        }
    }

    fn number(
        &self,
        key: &'static str,
        rule: &str,
        fits: impl Fn(f64) -> bool,
    ) -> Result<Option<f32>, ModelError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let number = value.as_f64().filter(|number| fits(*number));
        let number = number.ok_or_else(|| self.bad(key, value, rule))?;
        // Turns -0 into +0.
        Ok(Some(number as f32 + 0.0))
    }

    fn flag(&self, key: &'static str) -> Result<Option<bool>, ModelError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let flag = value.as_bool();
        flag.map(Some)
            .ok_or_else(|| self.bad(key, value, "true or false"))
    }

    fn top_k(&self) -> Result<Option<u32>, ModelError> {
        let Some(value) = self.get("top_k") else {
            return Ok(None);
        };
        // -1 keeps all in other servers.
        let count = match value.as_i64() {
            Some(-1) => Some(0),
            Some(count) => u32::try_from(count).ok(),
            None => None,
        };
        let rule = "a whole number, 0 or more (0 keeps all tokens)";
        count
            .map(Some)
            .ok_or_else(|| self.bad("top_k", value, rule))
    }

    fn not_applied(&self) -> Vec<String> {
        let told = self.object.iter().filter(|(key, value)| {
            let has = |keys: &str| keys.split_ascii_whitespace().any(|known| known == *key);
            let off = OFF.iter().find(|(_, keys)| has(keys));
            let neutral = off.map_or(Neutral::Empty, |(neutral, _)| *neutral);
            !(has(READ) || has(NOTHING) || neutral.holds(value))
        });
        told.map(|(key, value)| {
            format!(
                "{}: `{key}` is {}, which is not applied: answers may differ from those of \
                 transformers",
                self.path.display(),
                shown(value)
            )
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_key_stands_in_one_place() {
        let mut seen = BTreeSet::new();
        let off = OFF.iter().map(|(_, keys)| *keys);
        for keys in off.chain([READ, NOTHING]) {
            for key in keys.split_ascii_whitespace() {
                assert!(seen.insert(key), "{key} stands twice");
            }
        }
    }
}
