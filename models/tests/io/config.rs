//! `config.json`.

use std::fs;

use concord_models::config::{DecoderConfig, Family, Projection, Rope, RopeScaling, TensorPlace};
use serde_json::{Value, json};

use crate::fixtures::{config_json, config_with, says, shared};

fn parse(config: Value) -> DecoderConfig {
    DecoderConfig::from_json(&config.to_string()).unwrap()
}

#[test]
fn the_families_of_shared() {
    let Some(models) = shared("models") else {
        return;
    };
    let read = |name: &str| DecoderConfig::from_folder(&models.join(name)).unwrap();

    let stories = read("tinystories-260k");
    assert_eq!(stories.family, Family::Llama);
    let sizes = [
        stories.hidden,
        stories.intermediate,
        stories.layers,
        stories.heads,
    ];
    assert_eq!(sizes, [64, 172, 5, 8]);
    let sizes = [
        stories.kv_heads,
        stories.head_dim,
        stories.vocab,
        stories.max_positions,
    ];
    assert_eq!(sizes, [4, 8, 512, 512]);
    assert_eq!(stories.norm_eps, 1e-5);
    assert_eq!(
        stories.rope,
        Rope {
            theta: 1e4,
            scaling: RopeScaling::None
        }
    );
    assert!(stories.tie_embeddings && !stories.qkv_bias && stories.qk_norm.is_none());
    assert_eq!(
        (stories.bos, stories.eos.as_slice()),
        (Some(1), [2].as_slice())
    );

    let qwen2 = read("tiny-qwen2");
    assert_eq!((qwen2.family, qwen2.rope.theta), (Family::Qwen2, 1e6));
    assert!(qwen2.qkv_bias && !qwen2.o_bias && !qwen2.mlp_bias && qwen2.tie_embeddings);
    assert_eq!(qwen2.sliding_window, vec![None; 3]);

    let qwen3 = read("tiny-qwen3");
    assert_eq!(
        (qwen3.family, qwen3.head_dim, qwen3.q_dim()),
        (Family::Qwen3, 32, 128)
    );
    assert!(qwen3.qk_norm.is_some() && !qwen3.qkv_bias && !qwen3.tie_embeddings);

    let mistral = read("tiny-mistral");
    assert_eq!(mistral.sliding_window, vec![Some(24); 3]);

    let scaling = RopeScaling::Llama3 {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_positions: 64,
    };
    assert_eq!(
        read("tiny-llama31").rope,
        Rope {
            theta: 5e5,
            scaling
        }
    );
}

#[test]
fn rope_in_the_old_layout() {
    let llama3 = json!({"type": "llama3", "factor": 32.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 8192});
    let rope = parse(config_with(
        json!({"rope_scaling": llama3, "rope_theta": 500000.0}),
    ))
    .rope;
    assert_eq!(rope.theta, 500000.0);
    let RopeScaling::Llama3 {
        factor,
        original_max_positions,
        ..
    } = rope.scaling
    else {
        panic!("{rope:?}")
    };
    assert_eq!((factor, original_max_positions), (32.0, 8192));

    let linear = json!({"rope_type": "linear", "factor": 2.5});
    let rope = parse(config_with(
        json!({"rope_scaling": linear, "rope_theta": null}),
    ))
    .rope;
    assert_eq!(
        rope,
        Rope {
            theta: 1e4,
            scaling: RopeScaling::Linear { factor: 2.5 }
        }
    );
}

#[test]
fn windows_by_layer() {
    let qwen = json!({"architectures": ["Qwen2ForCausalLM"], "use_sliding_window": true,
        "sliding_window": 16, "max_window_layers": 1});
    let config = parse(config_with(qwen));
    assert_eq!(config.sliding_window, vec![None, Some(16)]);
    let typed = json!({"architectures": ["Qwen3ForCausalLM"], "use_sliding_window": true,
        "sliding_window": 16, "max_window_layers": 1,
        "layer_types": ["sliding_attention", "full_attention"]});
    let config = parse(config_with(typed));
    assert_eq!(config.sliding_window, vec![Some(16), None]);
    assert_eq!(config.head_dim, 128, "transformers' default of Qwen3");
    let off = json!({"architectures": ["Qwen2ForCausalLM"], "sliding_window": 16});
    assert_eq!(parse(config_with(off)).sliding_window, vec![None, None]);
}

#[test]
fn biases_and_their_tensors() {
    let config = parse(config_with(
        json!({"attention_bias": true, "mlp_bias": true}),
    ));
    assert!(config.qkv_bias && config.o_bias && config.mlp_bias);
    let names: Vec<String> = config.tensors().into_iter().map(|spec| spec.name).collect();
    assert_eq!(names.len(), 1 + 2 * (9 + 7) + 2);
    for (name, place) in [
        ("model.embed_tokens.weight", TensorPlace::Embed),
        ("model.layers.1.mlp.down_proj.bias", TensorPlace::Layer(1)),
        ("model.norm.weight", TensorPlace::FinalNorm),
        ("lm_head.weight", TensorPlace::Head),
    ] {
        assert!(names.iter().any(|have| have == name), "{name}");
        assert_eq!(TensorPlace::of(name), Some(place));
    }
    let places: Vec<TensorPlace> = names
        .iter()
        .map(|name| TensorPlace::of(name).unwrap())
        .collect();
    assert!(places.is_sorted(), "the order of the computation");
    assert_eq!(Projection::Down.shape(&config), [8, 12]);
    says(
        "q_prj".parse::<Projection>().unwrap_err(),
        &["q_prj", "did you mean `q_proj`?"],
    );
}

#[test]
fn the_generation_config_knows_the_ends() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.json"), config_json().to_string()).unwrap();
    let config = DecoderConfig::from_folder(folder.path()).unwrap();
    assert_eq!(config.eos, [257]);
    let path = folder.path().join("generation_config.json");
    fs::write(&path, r#"{"eos_token_id": [258, 257]}"#).unwrap();
    assert_eq!(
        DecoderConfig::from_folder(folder.path()).unwrap().eos,
        [258, 257]
    );
    fs::write(&path, r#"{"eos_token_id": 300}"#).unwrap();
    let error = DecoderConfig::from_folder(folder.path()).unwrap_err();
    says(
        error,
        &[
            "generation_config.json",
            "eos_token_id",
            "below vocab_size = 300",
        ],
    );
}

#[test]
fn what_cannot_be_computed_is_refused_by_name() {
    let axial = json!({"rope_type": "axial", "factor": 4.0});
    let table: [(Value, &[&str]); 18] = [
        (
            json!({"architectures": ["GPT2LMHeadModel"]}),
            &["GPT2LMHeadModel", "Qwen3ForCausalLM"],
        ),
        (
            json!({"architectures": null}),
            &["`architectures` is missing"],
        ),
        (
            json!({"hidden_act": "mish"}),
            &["`mish`", "hidden_act", "`silu`"],
        ),
        (json!({"rope_scaling": axial}), &["`axial`", "llama3"]),
        (json!({"rope_parameters": axial}), &["`axial`", "llama3"]),
        (
            json!({"partial_rotary_factor": 0.5}),
            &["partial_rotary_factor", "0.5"],
        ),
        (
            json!({"num_key_value_heads": 3}),
            &["num_key_value_heads", "3", "divide"],
        ),
        (
            json!({"hidden_size": 9}),
            &["hidden_size", "9", "num_attention_heads = 4"],
        ),
        (json!({"head_dim": 7}), &["head_dim", "7", "even"]),
        (json!({"hidden_size": null}), &["`hidden_size` is missing"]),
        (json!({"vocab_size": 0}), &["vocab_size", "from 1 to"]),
        (
            json!({"num_hidden_layers": 1_000_000_000}),
            &["num_hidden_layers", "1000000000"],
        ),
        (
            json!({"intermediate_size": -4}),
            &["intermediate_size", "-4"],
        ),
        (json!({"rms_norm_eps": 0.0}), &["rms_norm_eps", "above 0"]),
        (json!({"rms_norm_eps": 1e-300}), &["rms_norm_eps"]),
        (
            json!({"max_position_embeddings": "many"}),
            &["max_position_embeddings", "many"],
        ),
        (
            json!({"eos_token_id": [2, 300]}),
            &["eos_token_id", "below vocab_size = 300"],
        ),
        (
            json!({"tie_word_embeddings": 1}),
            &["tie_word_embeddings", "true or false"],
        ),
    ];
    for (change, parts) in table {
        let text = config_with(change).to_string();
        let error = DecoderConfig::from_json(&text).unwrap_err();
        says(&error, &["config.json"]);
        says(&error, parts);
    }
}

#[test]
fn a_config_that_is_no_json_or_not_there() {
    let folder = tempfile::tempdir().unwrap();
    says(
        DecoderConfig::from_folder(folder.path()).unwrap_err(),
        &["read", "config.json"],
    );
    fs::write(folder.path().join("config.json"), "{\"a\":\n 1,}").unwrap();
    let error = DecoderConfig::from_folder(folder.path()).unwrap_err();
    says(error, &["config.json", "not valid JSON", "line 2"]);
}
