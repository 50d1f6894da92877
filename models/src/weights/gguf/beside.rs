//! A `config.json` beside a GGUF file, which counts in place of the file's metadata: they must not
//! contradict each other.

use std::path::Path;

use serde_json::Value;

use super::architectures::Architecture;
use super::config::ROPE_FREQS;
use super::container::GgufFile;
use super::differences::DIVISORS;
use crate::config::DecoderConfig;
use crate::error::ModelError;
use crate::json::shown;

/// Fields of a configuration, what they are called in `config.json`, and the keys of which one must
/// be there for the file to say something of the field.
const SAID: [(&str, &str, &[&str]); 15] = [
    ("/hidden", "hidden_size", &["embedding_length"]),
    (
        "/intermediate",
        "intermediate_size",
        &["feed_forward_length", "expert_feed_forward_length"],
    ),
    ("/layers", "num_hidden_layers", &["block_count"]),
    ("/heads", "num_attention_heads", &["attention.head_count"]),
    (
        "/kv_heads",
        "num_key_value_heads",
        &["attention.head_count_kv"],
    ),
    ("/head_dim", "head_dim", &["attention.key_length"]),
    (
        "/max_positions",
        "max_position_embeddings",
        &["context_length"],
    ),
    (
        "/norm_eps",
        "rms_norm_eps",
        &[
            "attention.layer_norm_rms_epsilon",
            "attention.layer_norm_epsilon",
        ],
    ),
    ("/rope/theta", "rope_theta", &["rope.freq_base"]),
    ("/rope/scaling", "rope_scaling", &["rope.scaling.type"]),
    ("/rotary_dim", "rotary_dim", &["rope.dimension_count"]),
    (
        "/sliding_window",
        "sliding_window",
        &["attention.sliding_window"],
    ),
    (
        "/attention_soft_cap",
        "attn_logit_softcapping",
        &["attn_logit_softcapping"],
    ),
    (
        "/logit_soft_cap",
        "final_logit_softcapping",
        &["final_logit_softcapping"],
    ),
    (
        "/experts",
        "num_experts",
        &[
            "expert_count",
            "expert_used_count",
            "expert_feed_forward_length",
        ],
    ),
];

/// Refuses the configuration of the file `path` where the metadata of a GGUF file say something
/// else.
pub(super) fn check(
    file: &GgufFile,
    architecture: &Architecture,
    path: &Path,
    [config, of_file]: [&DecoderConfig; 2],
) -> Result<(), ModelError> {
    let instead = "name the GGUF file itself as the model to use what it says, or take the \
                   config.json that belongs to it";
    let refuse = |key: &str, found: String, reason: String| ModelError::UnusableKey {
        path: path.to_path_buf(),
        key: key.to_string(),
        found,
        reason: format!("{reason}: {instead}"),
    };
    let family = config.family;
    if family != architecture.family && !architecture.others.contains(&family) {
        let file = file.path().display();
        let reason = format!("{file} is of the architecture `{}`", architecture.name);
        let found = family.architecture().to_string();
        return Err(refuse("architectures", found, reason));
    }
    let [ours, theirs] = [config, of_file].map(serde_json::to_value);
    let (Ok(ours), Ok(theirs)) = (ours, theirs) else {
        return Ok(());
    };
    for (field, name, keys) in SAID {
        let said = keys.iter().find(|key| {
            let key = format!("{}.{key}", architecture.name);
            file.get(&key).is_some()
        });
        let tensors = DIVISORS.iter().chain(&[ROPE_FREQS]);
        let divisors = tensors.filter(|_| field == "/rope/scaling");
        let divisors = divisors
            .clone()
            .find(|name| file.tensors.contains_key(**name));
        let Some(said) = said.or(divisors) else {
            continue;
        };
        let (ours, theirs) = (ours.pointer(field), theirs.pointer(field));
        if !alike(ours, theirs) {
            let show = |value: Option<&Value>| value.map_or("null".to_string(), shown);
            let at = file.path().display();
            let reason = format!("{at} says {} (`{said}`)", show(theirs));
            return Err(refuse(name, show(ours), reason));
        }
    }
    Ok(())
}

/// Whether two values are the same, where GGUF holds numbers as f32.
pub(crate) fn alike(a: Option<&Value>, b: Option<&Value>) -> bool {
    match (a, b) {
        (Some(Value::Number(a)), Some(Value::Number(b))) => {
            let narrow = |number: &serde_json::Number| number.as_f64().map(|number| number as f32);
            narrow(a) == narrow(b)
        }
        (Some(Value::Array(a)), Some(Value::Array(b))) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| alike(Some(a), Some(b)))
        }
        (Some(Value::Object(a)), Some(Value::Object(b))) => {
            a.len() == b.len() && a.iter().all(|(key, a)| alike(Some(a), b.get(key)))
        }
        (a, b) => a == b,
    }
}
