//! Which keys of a `quantization_config` are read, which change nothing, and which must have a
//! value that switches them off.

use std::path::Path;

use serde_json::{Map, Value};

use crate::error::ModelError;
use crate::json::shown;
use crate::neutral::Neutral;

/// How a key is treated.
#[derive(Clone, Copy, Debug)]
pub(super) enum KeyUse {
    /// The reader takes it.
    Read,
    /// It changes nothing.
    Nothing,
    /// It changes nothing at a value of this kind, and is refused at any other.
    Off(Neutral),
}

/// How some keys are treated, the reason, and the keys, separated by spaces.
type KeyRule = (KeyUse, &'static str, &'static str);

use KeyUse::{Nothing, Off, Read};

const KEYS_DECIDE: &str = "the tensors that are there say which weights are packed";
const MAKING: &str = "they say how the codes were found, and not what they mean";
const RUNNING: &str = "they say how a program computes with the weights, which are exact here";

pub(super) const GPTQ: &[KeyRule] = &[
    (
        Read,
        "",
        "quant_method bits group_size checkpoint_format format sym",
    ),
    (
        Nothing,
        "the groups of the inputs are in the file (g_idx)",
        "desc_act",
    ),
    (
        Nothing,
        KEYS_DECIDE,
        "lm_head modules_in_block_to_quantize modules_to_not_convert block_name_to_quantize \
         module_name_preceding_first_block",
    ),
    (
        Nothing,
        MAKING,
        "meta damp_percent damp_auto_increment static_groups true_sequential tokenizer dataset \
         model_name_or_path model_file_base_name model_seqlen batch_size pad_token_id quantizer \
         cache_block_outputs mse act_group_aware",
    ),
    (
        Nothing,
        RUNNING,
        "use_cuda_fp16 disable_exllama use_exllama exllama_config max_input_length backend \
         pack_dtype",
    ),
    (
        Off(Neutral::False),
        "the codes are in the order of a kernel: take the model as GPTQ stores it",
        "is_marlin_format use_marlin",
    ),
    (
        Off(Neutral::Empty),
        "weights that are packed in several ways are not read: take the model as it was before, \
         or with one way for all",
        "dynamic rotation",
    ),
];

pub(super) const AWQ: &[KeyRule] = &[
    (
        Read,
        "",
        "quant_method bits w_bit group_size q_group_size zero_point version",
    ),
    (Nothing, KEYS_DECIDE, "modules_to_not_convert lm_head"),
    (
        Nothing,
        MAKING,
        "damp_percent desc_act true_sequential static_groups model_seqlen",
    ),
    (
        Nothing,
        RUNNING,
        "backend do_fuse fuse_max_seq_len modules_to_fuse exllama_config",
    ),
];

pub(super) const FP8: &[KeyRule] = &[
    (Read, "", "quant_method fmt weight_block_size"),
    (
        Nothing,
        KEYS_DECIDE,
        "modules_to_not_convert ignored_layers",
    ),
    (
        Nothing,
        "activations are not rounded to eight bits here",
        "activation_scheme activation_scale_ub",
    ),
    (
        Nothing,
        "the tensor of the scales says their type",
        "scale_fmt",
    ),
    (Nothing, RUNNING, "dequantize"),
];

pub(super) const BITSANDBYTES: &[KeyRule] = &[
    (Read, "", "quant_method"),
    (
        Nothing,
        "each weight says how it is packed, by the tensors that are there",
        "load_in_4bit load_in_8bit _load_in_4bit _load_in_8bit bnb_4bit_quant_type \
         bnb_4bit_use_double_quant bnb_4bit_quant_storage llm_int8_skip_modules",
    ),
    (
        Nothing,
        RUNNING,
        "bnb_4bit_compute_dtype llm_int8_threshold llm_int8_enable_fp32_cpu_offload \
         llm_int8_has_fp16_weight",
    ),
];

pub(super) const MXFP4: &[KeyRule] = &[
    (Read, "", "quant_method"),
    (Nothing, KEYS_DECIDE, "modules_to_not_convert"),
    (Nothing, RUNNING, "dequantize"),
];

pub(super) const COMPRESSED: &[KeyRule] = &[
    (Read, "", "quant_method format config_groups"),
    (Nothing, KEYS_DECIDE, "ignore"),
    (
        Nothing,
        MAKING,
        "quantization_status global_compression_ratio version",
    ),
    (
        Off(Neutral::Empty),
        "keys and values are not rounded to eight bits here: remove the key to compute with more \
         digits",
        "kv_cache_scheme",
    ),
    (
        Off(Neutral::Empty),
        "sparse weights, and weights behind a transform, are not read: take the model as it was \
         before",
        "sparsity_config transform_config",
    ),
];

pub(super) const COMPRESSED_GROUP: &[KeyRule] = &[
    (Read, "", "weights format"),
    (Nothing, KEYS_DECIDE, "targets"),
    (
        Nothing,
        "activations are not rounded to eight bits here",
        "input_activations output_activations",
    ),
];

pub(super) const COMPRESSED_WEIGHTS: &[KeyRule] = &[
    (
        Read,
        "",
        "num_bits type strategy group_size block_structure",
    ),
    (Nothing, "zero points are there or not", "symmetric"),
    (
        Nothing,
        "the groups of the inputs are in the file (weight_g_idx)",
        "actorder",
    ),
    (Nothing, MAKING, "observer observer_kwargs"),
    (
        Nothing,
        "the tensors say their types",
        "scale_dtype zp_dtype",
    ),
    (
        Off(Neutral::False),
        "weights have their scales in the file",
        "dynamic",
    ),
];

/// Refuses the first key that is neither read nor known to change nothing.
pub(super) fn check(
    path: &Path,
    object: &Map<String, Value>,
    rules: &[KeyRule],
) -> Result<(), ModelError> {
    for (key, value) in object {
        if value.is_null() {
            continue;
        }
        let rule = rules
            .iter()
            .find(|(_, _, keys)| keys.split_ascii_whitespace().any(|known| known == key));
        let reason = match rule {
            Some((Read | Nothing, _, _)) => continue,
            Some((Off(neutral), _, _)) if neutral.holds(value) || excludes_only(key, value) => {
                continue;
            }
            Some((_, reason, _)) => *reason,
            None if Neutral::Empty.holds(value) => continue,
            None => {
                "nothing is known of this key of quantization_config, and it may change what the \
                 weights mean. Where it does not, remove it"
            }
        };
        return Err(refuse(path, key, Some(value), reason.to_string()));
    }
    Ok(())
}

/// Overrides of GPTQModel that only say which modules are not packed.
fn excludes_only(key: &str, value: &Value) -> bool {
    let rules = value.as_object().filter(|_| key == "dynamic");
    rules.is_some_and(|rules| rules.keys().all(|rule| rule.starts_with("-:")))
}

/// The error about a key of `quantization_config`.
pub(super) fn refuse(path: &Path, key: &str, found: Option<&Value>, reason: String) -> ModelError {
    ModelError::UnusableKey {
        path: path.to_path_buf(),
        key: format!("quantization_config.{key}"),
        found: found.map_or_else(|| "not there".to_string(), shown),
        reason,
    }
}
