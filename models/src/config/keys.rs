//! Which keys of a `config.json` change nothing; all others that are not read are refused by name.
//!
//! transformers 5 decides what a key means: one that none of its classes for the family reads
//! changes nothing there. But the model may come with code of its own that reads the key, so only
//! keys that are listed here are passed over.

use serde_json::Value;

use super::Family;
use super::fields::ConfigFields;
use crate::error::{ModelError, nearest_hint};
use crate::json::shown;
use crate::neutral::Neutral;

/// Keys that every family reads.
const READ: &str = "architectures attention_dropout bos_token_id eos_token_id hidden_size \
    intermediate_size max_position_embeddings model_type num_attention_heads num_hidden_layers \
    original_max_position_embeddings quantization_config rope_parameters rope_scaling \
    tie_word_embeddings vocab_size";

/// Keys that some families read. In a file of another family they are accepted only with a value
/// that switches them off.
const SOME_READ: &str = "attention_bias head_dim hidden_act hidden_activation layer_norm_eps \
    layer_types max_window_layers mlp_bias norm_epsilon num_key_value_heads \
    partial_rotary_factor rms_norm_eps rope_theta sliding_window use_sliding_window";

/// Keys that change nothing, whatever their value: (reason, keys).
const NOTHING: &[(&str, &str)] = &[
    (
        "they say where the file comes from",
        "_name_or_path name_or_path _commit_hash transformers_version transformers.js_config \
         finetuning_task model_name language license is_llama_config unsloth_version \
         unsloth_fixed unsloth_optimized unsloth_tiled_mlp",
    ),
    (
        "each tensor of the weights says its own format",
        "dtype torch_dtype",
    ),
    (
        "they say how a program computes, not what",
        "use_cache cache_implementation gradient_checkpointing torchscript use_bfloat16 \
         tf_legacy_loss chunk_size_feed_forward pretraining_tp tp_plan base_model_tp_plan \
         base_model_pp_plan base_model_ep_plan base_model_fsdp_plan attn_implementation \
         _attn_implementation _attn_implementation_internal _attn_implementation_autoset \
         experts_implementation _experts_implementation _experts_implementation_internal \
         _flash_attn_2_enabled use_flash_attn use_flash_attention use_flash_attention_2 \
         flash_attention use_sdpa keys_to_ignore_at_inference is_decoder",
    ),
    (
        "they say what a call of transformers gives back",
        "return_dict use_return_dict output_attentions _output_attentions output_hidden_states \
         output_past output_logits tie_last_hidden_states",
    ),
    (
        "they shape weights before any are read or trained",
        "initializer_range initializer_factor init_std init_method",
    ),
    (
        "they belong to heads that are no language model's, which are refused by architecture",
        "id2label label2id num_labels _num_labels problem_type classifier_dropout",
    ),
    (
        "transformers 5 takes settings of generation from generation_config.json alone",
        "max_length min_length max_new_tokens min_new_tokens do_sample early_stopping num_beams \
         temperature top_k top_p min_p typical_p repetition_penalty length_penalty \
         no_repeat_ngram_size encoder_no_repeat_ngram_size bad_words_ids num_return_sequences \
         output_scores return_dict_in_generate forced_bos_token_id forced_eos_token_id \
         remove_invalid_values exponential_decay_length_penalty suppress_tokens \
         begin_suppress_tokens epsilon_cutoff eta_cutoff encoder_repetition_penalty \
         num_assistant_tokens num_assistant_tokens_schedule assistant_confidence_threshold \
         assistant_lookbehind target_lookbehind num_beam_groups diversity_penalty \
         task_specific_params",
    ),
    (
        "the tokenizer's files say how a text becomes tokens; padding is never attended to",
        "pad_token_id sep_token_id unk_token_id cls_token_id mask_token_id pad_token \
         decoder_start_token_id tokenizer_class tokenizer_padding_side padding_side",
    ),
    (
        "max_position_embeddings is the length that is read",
        "max_sequence_length max_seq_length max_seq_len max_model_len seq_length seq_len \
         model_max_length tokenizer_model_max_length n_positions n_ctx",
    ),
    (
        "intermediate_size already includes them",
        "ffn_dim_multiplier multiple_of",
    ),
    (
        "they add a loss for the router, so only training checks them (`training.rs`)",
        "router_aux_loss_coef output_router_logits",
    ),
];

/// Keys that change nothing at the values that switch them off: (those values, what another value
/// means, keys).
const OFF: &[(Neutral, &str, &str)] = &[
    (
        Neutral::Empty,
        "the weights are quantized: take the model as it was before",
        "quantization compression_config",
    ),
    (
        Neutral::Empty,
        "the folder brings code of its own, which is never run: where the plain architecture \
         computes the same, remove the key",
        "auto_map custom_pipelines",
    ),
    (
        Neutral::Empty,
        "it belongs to a model of several parts: take the folder of its language model",
        "text_config vision_config audio_config encoder decoder speech_config",
    ),
    (
        Neutral::Empty,
        "an adapter belongs to the model: merge it into the weights, or give its folder as the \
         adapter",
        "peft_config adapters",
    ),
    (
        Neutral::Empty,
        NOT_COMPUTED,
        "pruned_heads per_layer_config block_configs prefix cross_attention_hidden_size \
         attn_logit_softcapping final_logit_softcapping attention_multiplier \
         query_pre_attn_scalar clip_qkv attention_chunk_size rope_local_base_freq rotary_dim \
         sliding_window_pattern _sliding_window_pattern no_rope_layers no_rope_layer_interval \
         scale_depth dim_model_base",
    ),
    (
        Neutral::False,
        NOT_COMPUTED,
        "is_encoder_decoder add_cross_attention tie_encoder_decoder qk_layernorm lm_head_bias \
         head_bias bias use_bias qkv_bias o_bias attention_out_bias attention_output_bias \
         norm_bias alibi use_alibi parallel_attn use_parallel_residual rope_interleaved use_mrope \
         use_mup use_logn_attn use_dynamic_ntk use_bidirectional_attention",
    ),
    (Neutral::True, NOT_COMPUTED, "is_causal use_rope"),
    (
        Neutral::Zero,
        "models are computed and trained without this dropout, in transformers too: set it to 0",
        "hidden_dropout hidden_dropout_prob hidden_dropout_rate attention_probs_dropout_prob \
         attention_dropout_prob resid_pdrop embd_pdrop attn_pdrop resid_dropout embd_dropout \
         embed_dropout residual_dropout mlp_dropout ffn_dropout dropout dropout_rate layerdrop",
    ),
    (
        Neutral::Zero,
        NOT_COMPUTED,
        "num_experts num_local_experts n_routed_experts n_shared_experts num_experts_per_tok \
         num_nextn_predict_layers mtp_num_layers num_mtp_layers",
    ),
    (
        Neutral::One,
        NOT_COMPUTED,
        "rotary_pct rotary_percent rotary_emb_fraction rope_ratio logits_scaling logit_scale \
         embedding_multiplier residual_multiplier scale_emb lm_head_multiplier",
    ),
];

const NOT_COMPUTED: &str = "this family does not compute that, so the weights may be of another \
    one; where they are not, remove the key";

/// What transformers computes in a family, and Concord does not.
const THEIRS: &str = "transformers computes this in the family, and Concord does not: take a model \
    without it. Removed, the key would be missing, and the answers would be wrong";

/// The value that switches such a key off, where `key` is one.
fn theirs(family: Family, key: &str) -> Option<Neutral> {
    match (family, key) {
        (Family::Cohere, "use_qk_norm")
        | (Family::Phi, "qk_layernorm")
        | (Family::StableLm, "qk_layernorm" | "use_parallel_residual")
        | (Family::Gemma3, "use_bidirectional_attention") => Some(Neutral::False),
        (Family::Olmoe, "clip_qkv") => Some(Neutral::Empty),
        _ => None,
    }
}

/// Refuses the first key that is neither read nor known to change nothing.
pub(super) fn check(fields: &ConfigFields, family: Family) -> Result<(), ModelError> {
    for (key, value) in fields.object {
        let rules = family.rules();
        let is_read = has(READ, key) || rules.reads(key);
        let is_nothing = rules.ignores(key) || NOTHING.iter().any(|(_, keys)| has(keys, key));
        if value.is_null() || is_read || is_nothing {
            continue;
        }
        let refuse = |reason: String| ModelError::UnusableKey {
            path: fields.path.to_path_buf(),
            key: key.clone(),
            found: shown(value),
            reason,
        };
        if let Some(off) = theirs(family, key) {
            match off.holds(value) {
                true => continue,
                false => return Err(refuse(THEIRS.to_string())),
            }
        }
        match OFF.iter().find(|(_, _, keys)| has(keys, key)) {
            Some((neutral, _, _)) if neutral.holds(value) || own(family, key, value) => {}
            Some((_, reason, _)) => return Err(refuse((*reason).to_string())),
            None if own(family, key, value) || Neutral::Empty.holds(value) => {}
            None if has(SOME_READ, key) && Neutral::False.holds(value) => {}
            None if has(SOME_READ, key) => return Err(refuse(not_of(family))),
            None => return Err(refuse(unknown(family, key))),
        }
    }
    Ok(())
}

fn has(keys: &str, key: &str) -> bool {
    keys.split_ascii_whitespace().any(|known| known == key)
}

/// Whether `key` is written by other programs and states what the family computes in any case.
fn own(family: Family, key: &str, value: &Value) -> bool {
    match (family, key) {
        (Family::Qwen2, "qkv_bias") | (Family::Qwen3, "qk_norm" | "use_qk_norm") => {
            value.is_boolean()
        }
        (_, "qk_norm" | "use_qk_norm") => Neutral::False.holds(value),
        // Published files of Phi 3 name code that transformers includes by now, and a tokenizer
        // class, for which tokenizer.json stands.
        (Family::Phi3, "auto_map") => value.as_object().is_some_and(|map| {
            map.iter().all(|(kind, class)| {
                let class = class.as_str().unwrap_or_default();
                kind == "AutoTokenizer" || class.contains("_phi3.Phi3")
            })
        }),
        _ => false,
    }
}

fn not_of(family: Family) -> String {
    format!(
        "transformers' {} does not read it, so the weights may be of another family; where they \
         are not, remove the key",
        family.architecture()
    )
}

fn unknown(family: Family, key: &str) -> String {
    let own = family.rules().keys.split_ascii_whitespace();
    let rope = family.rules().rope.theta_key;
    let known: Vec<&str> = READ
        .split_ascii_whitespace()
        .chain(own)
        .chain([rope])
        .collect();
    let hint = nearest_hint(key, &known);
    let hint = match hint.starts_with("did you mean") {
        true => format!("; {hint}"),
        false => String::new(),
    };
    format!(
        "nothing is known of this key, and transformers' {} does not read it: the model may need \
         code of its own. Where the key changes nothing, remove it{hint}",
        family.architecture()
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_key_stands_in_one_place() {
        let nothing = NOTHING.iter().map(|(_, keys)| *keys);
        let off = OFF.iter().map(|(_, _, keys)| *keys);
        let mut seen = BTreeSet::new();
        for keys in nothing.chain(off).chain([READ, SOME_READ]) {
            for key in keys.split_ascii_whitespace() {
                assert!(seen.insert(key), "{key} stands twice");
            }
        }
    }
}
