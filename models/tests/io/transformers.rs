//! Configurations as transformers 5 reads them. `transformers/facts.json`, written by the script
//! beside it, holds what its classes make of each.

use concord_kernels::ops::Activation;
use concord_models::config::{DecoderConfig, RopeScaling};
use serde_json::{Map, Value, json};

const FACTS: &str = include_str!("transformers/facts.json");

/// Edits that are accepted here though transformers fails on them: a null that other families
/// accept for the same default, and layers that all lack a window, for which it still makes the
/// window's mask.
fn is_lenient(family: &str, edit: &Value) -> bool {
    match family {
        "mistral" => {
            *edit == json!({"num_key_value_heads": null})
                || *edit == json!({"layer_types": vec!["full_attention"; 3]})
        }
        "qwen2" => *edit == json!({"head_dim": null}),
        _ => false,
    }
}

/// Edits that transformers accepts and partly ignores, but that are refused here by name: keys that
/// contradict each other, that its class does not read, or that are not computed.
fn may_be_refused(family: &str, edit: &Value) -> bool {
    let has = |key: &str| edit.get(key).is_some_and(|value| !value.is_null());
    let rope = ["rope_scaling", "rope_parameters"].map(|key| edit.get(key));
    let nested = |key: &str| rope.iter().flatten().find_map(|rope| rope.get(key));
    let kind = nested("rope_type").or(nested("type"));
    let windows = has("sliding_window") || has("layer_types");
    nested("rope_theta").is_some_and(|theta| *theta != json!(20000.0)) && !has_absent(edit)
        || (nested("type").is_some() && nested("rope_type").is_some())
        || (nested("factor").is_some() && kind.is_none())
        || nested("full_attention").is_some()
        || kind == Some(&json!("yarn"))
        || edit.get("partial_rotary_factor") == Some(&json!(0.5))
        || (has("original_max_position_embeddings")
            && nested("original_max_position_embeddings").is_some())
        || edit.get("hidden_act") == Some(&json!("gelu"))
        || (has("mlp_bias") && family != "llama")
        || (has("attention_bias") && family == "mistral")
        || edit.get("hidden_size") == Some(&json!(66))
        || (family == "llama" && windows)
        || (family == "mistral" && has("sliding_window") && has("use_sliding_window"))
}

fn has_absent(edit: &Value) -> bool {
    edit.get("rope_theta") == Some(&json!("(absent)"))
}

/// Whether a message names a key of `value`, or a text in it, at any depth.
fn names_part(message: &str, value: &Value) -> bool {
    match value {
        Value::Object(map) => map
            .iter()
            .any(|(key, value)| message.contains(key.as_str()) || names_part(message, value)),
        Value::Array(items) => items.iter().any(|item| names_part(message, item)),
        Value::String(text) => message.contains(text.as_str()),
        _ => false,
    }
}

/// The base with an edit; "(absent)" removes a key.
fn edited(base: &Value, family: &str, edit: &Value) -> Value {
    let class = match family {
        "llama" => "LlamaForCausalLM",
        "mistral" => "MistralForCausalLM",
        "qwen2" => "Qwen2ForCausalLM",
        _ => "Qwen3ForCausalLM",
    };
    let mut config: Map<String, Value> = base.as_object().unwrap().clone();
    config.insert("architectures".to_string(), json!([class]));
    config.insert("model_type".to_string(), family.into());
    for (key, value) in edit.as_object().unwrap() {
        match *value == "(absent)" {
            true => drop(config.remove(key)),
            false => drop(config.insert(key.clone(), value.clone())),
        }
    }
    Value::Object(config)
}

/// Frequencies of RoPE, by their definition.
fn frequencies(config: &DecoderConfig) -> Vec<f64> {
    let width = config.head_dim as f64;
    let of = |i: usize| config.rope.theta.powf(-2.0 * i as f64 / width);
    let scaled = |frequency: f64| match config.rope.scaling {
        RopeScaling::None => frequency,
        RopeScaling::Linear { factor } => frequency / factor,
        RopeScaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_max_positions,
        } => {
            let turns = original_max_positions as f64 * frequency / std::f64::consts::TAU;
            let kept = (turns - low_freq_factor) / (high_freq_factor - low_freq_factor);
            let kept = kept.clamp(0.0, 1.0);
            (1.0 - kept) * frequency / factor + kept * frequency
        }
        RopeScaling::Yarn {
            factor,
            original_max_positions,
            beta_fast,
            beta_slow,
            truncate,
            ..
        } => {
            assert!(truncate);
            let pair = |turns: f64| {
                let ratio = original_max_positions as f64 / (turns * std::f64::consts::TAU);
                width * ratio.ln() / (2.0 * config.rope.theta.ln())
            };
            let low = pair(beta_fast).floor().max(0.0);
            let high = pair(beta_slow).ceil().min(width - 1.0);
            let index = -frequency.ln() / config.rope.theta.ln() * width / 2.0;
            let divided = ((index - low) / (high - low)).clamp(0.0, 1.0);
            frequency / factor * divided + frequency * (1.0 - divided)
        }
        ref other => panic!("no case has {other:?}"),
    };
    (0..config.head_dim / 2).map(|i| scaled(of(i))).collect()
}

/// The factor on sines and cosines.
fn positions_scaled(config: &DecoderConfig) -> f64 {
    match config.rope.scaling {
        RopeScaling::Yarn {
            attention_factor, ..
        } => attention_factor,
        _ => 1.0,
    }
}

#[track_caller]
fn agrees(config: &DecoderConfig, facts: &Map<String, Value>, place: &str) {
    let windows: Vec<Value> = config.sliding_window.iter().map(|w| json!(w)).collect();
    let ours = json!({
        "kv_heads": config.kv_heads, "head_dim": config.head_dim,
        "windows": windows, "qkv_bias": config.qkv_bias,
        "o_bias": config.o_bias, "mlp_bias": config.mlp_bias, "qk_norm": config.qk_norm.is_some(),
        "tied": config.tie_embeddings, "eos": config.eos,
        "silu": config.activation == Activation::Silu,
        "bos": config.bos.into_iter().collect::<Vec<u32>>(),
        "positions_scaled": positions_scaled(config),
    });
    for (key, expected) in facts {
        match key.as_str() {
            "rms_eps" => {
                assert_eq!(
                    expected.as_f64().unwrap() as f32,
                    config.norm_eps,
                    "{place}"
                );
            }
            "frequencies" => {
                let (ours, theirs) = (frequencies(config), expected.as_array().unwrap());
                assert_eq!(ours.len(), theirs.len(), "{place}");
                for (ours, theirs) in ours.iter().zip(theirs) {
                    // transformers computes them in f32.
                    let theirs = theirs.as_f64().unwrap();
                    assert!(
                        (ours / theirs - 1.0).abs() < 1e-4,
                        "{place}: {ours} {theirs}"
                    );
                }
            }
            // The class has the number of the file, and takes longer texts all the same.
            "max_positions" => {
                let stretched = match config.rope.scaling {
                    RopeScaling::Yarn {
                        factor,
                        original_max_positions,
                        ..
                    } => (original_max_positions as f64 * factor) as u64,
                    _ => 0,
                };
                let expected = expected.as_u64().unwrap().max(stretched);
                assert_eq!(config.max_positions as u64, expected, "{place}");
            }
            key => assert_eq!(&ours[key], expected, "{place}: {key}"),
        }
    }
}

#[test]
fn configurations_are_read_as_transformers_reads_them() {
    let all: Value = serde_json::from_str(FACTS).unwrap();
    let mut of_base = Map::new();
    let (mut taken, mut refused) = (0, 0);
    for case in all["cases"].as_array().unwrap() {
        let (family, edit) = (case["family"].as_str().unwrap(), &case["edit"]);
        let place = format!("{family} {edit}");
        let text = edited(&all["base"], family, edit).to_string();
        let ours = DecoderConfig::from_json(&text);
        let Some(theirs) = case["facts"].as_object() else {
            let fine = ours.is_err() || is_lenient(family, edit);
            assert!(fine, "{place}: transformers fails, and this is {ours:?}");
            continue;
        };
        if *edit == json!({}) {
            of_base = theirs.clone();
        }
        let mut facts = of_base.clone();
        facts.extend(theirs.clone());
        match ours {
            Ok(config) => {
                agrees(&config, &facts, &place);
                taken += 1;
            }
            Err(error) => {
                let message = error.to_string();
                assert!(may_be_refused(family, edit), "{place}: {message}");
                assert!(names_part(&message, edit), "{place}: {message}");
                refused += 1;
            }
        }
    }
    // Neither half of the comparison is empty.
    assert!(
        taken > 200 && refused > 20,
        "{taken} taken, {refused} refused"
    );
}
