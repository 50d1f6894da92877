//! Keys of `config.json` that are not read: known to change nothing, or refused by name.

use std::path::Path;

use concord_models::config::DecoderConfig;
use serde_json::{Value, json};

use crate::fixtures::{config_with, says};

fn read(change: Value) -> Result<DecoderConfig, concord_models::ModelError> {
    DecoderConfig::from_json(&config_with(change).to_string())
}

#[test]
fn what_public_files_carry_changes_nothing() {
    let plain = read(json!({})).unwrap();
    let of_transformers_4 = json!({
        "model_type": "llama", "return_dict": true, "output_hidden_states": false,
        "torchscript": false, "use_bfloat16": false, "tf_legacy_loss": false, "pruned_heads": {},
        "chunk_size_feed_forward": 0, "is_encoder_decoder": false, "is_decoder": false,
        "cross_attention_hidden_size": null, "add_cross_attention": false,
        "tie_encoder_decoder": false, "max_length": 20, "temperature": 0.9, "top_p": 0.6,
        "repetition_penalty": 1.2, "bad_words_ids": null, "finetuning_task": null,
        "id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}, "tokenizer_class": null,
        "prefix": null, "sep_token_id": null, "task_specific_params": null, "problem_type": null,
        "_name_or_path": "x", "_attn_implementation_autoset": true, "pad_token_id": -1,
        "transformers_version": "4.50.0", "pretraining_tp": 2, "initializer_range": 0.02,
        "use_cache": false, "attention_dropout": 0.1
    });
    let of_tools = json!({
        "unsloth_version": "2026.1", "unsloth_fixed": true, "is_llama_config": true,
        "rope_interleaved": false, "transformers.js_config": {"dtype": "q4"}, "use_mrope": false,
        "max_sequence_length": 2048, "quantization_config": null, "auto_map": {},
        "a_key_of_tomorrow": null, "another": {}, "use_sliding_window": false,
        "sliding_window": 32, "max_window_layers": 1, "resid_pdrop": 0.0, "num_experts": 0,
        "rotary_pct": 1.0, "is_causal": true, "qk_norm": false, "partial_rotary_factor": 1.0
    });
    for change in [of_transformers_4, of_tools] {
        assert_eq!(read(change).unwrap(), plain);
    }
}

#[test]
fn what_may_make_another_model_is_refused_by_name() {
    let table = [
        ("quantization", json!({"bits": 4}), "quantized"),
        (
            "auto_map",
            json!({"AutoConfig": "x.Config"}),
            "code of its own",
        ),
        ("text_config", json!({"hidden_size": 8}), "several parts"),
        ("vision_config", json!({"depth": 2}), "several parts"),
        ("attn_logit_softcapping", json!(50.0), "another one"),
        ("final_logit_softcapping", json!(30.0), "another one"),
        ("logits_scaling", json!(8.0), "another one"),
        ("embedding_multiplier", json!(12), "another one"),
        ("pruned_heads", json!({"0": [1]}), "another one"),
        (
            "per_layer_config",
            json!({"1": {"head_dim": 4}}),
            "another one",
        ),
        ("is_encoder_decoder", json!(true), "another one"),
        ("is_causal", json!(false), "another one"),
        ("use_rope", json!(false), "another one"),
        ("qk_norm", json!(true), "does not read it"),
        ("lm_head_bias", json!(true), "another one"),
        ("no_rope_layers", json!([1, 0]), "another one"),
        ("num_local_experts", json!(8), "another one"),
        ("resid_pdrop", json!(0.1), "set it to 0"),
        ("prefix", json!("Say: "), "another one"),
        (
            "a_key_of_tomorrow",
            json!(1.5),
            "nothing is known of this key",
        ),
        ("use_a_trick", json!(false), "nothing is known of this key"),
        ("rope_tetha", json!(1e6), "did you mean `rope_theta`?"),
    ];
    for (key, value, reason) in table {
        let error = read(json!({ key: value })).unwrap_err();
        says(&error, &["config.json", reason]);
        assert!(error.to_string().contains(&format!("`{key}`")), "{error}");
    }
}

#[test]
fn layers_and_classes_that_make_another_model_are_refused_by_name() {
    let table = [
        ("sliding_window", json!(16), "no sliding windows"),
        (
            "layer_types",
            json!(["full_attention", "sliding_attention"]),
            "no sliding windows",
        ),
        ("layer_types", json!(["full_attention"]), "every layer"),
        (
            "model_type",
            json!("qwen2"),
            "whose model_type is \"llama\"",
        ),
        ("model_type", json!("gpt2"), "one of the two is wrong"),
        (
            "architectures",
            json!(["LlamaForCausalLM", "OtherModel"]),
            "a list of one name",
        ),
        (
            "architectures",
            json!(["LlamaForSequenceClassification"]),
            "not supported",
        ),
        (
            "architectures",
            json!(["Qwen3ForEmbedding"]),
            "not supported",
        ),
        ("architectures", json!(["LlamaModel"]), "not supported"),
    ];
    for (key, value, reason) in table {
        let error = read(json!({ key: value })).unwrap_err();
        says(&error, &["config.json", reason]);
        let is_architecture = key == "architectures" && reason == "not supported";
        assert!(
            is_architecture || error.to_string().contains(&format!("`{key}`")),
            "{error}"
        );
    }
}

#[test]
fn what_other_families_have_is_refused_by_name() {
    let with = |class: &str, change: Value| {
        let mut change = change;
        change["architectures"] = json!([class]);
        read(change)
    };
    let (mistral, qwen) = ("MistralForCausalLM", "Qwen2ForCausalLM");
    let table = [
        (mistral, "attention_bias", json!({"attention_bias": true})),
        (mistral, "mlp_bias", json!({"mlp_bias": true})),
        (qwen, "mlp_bias", json!({"mlp_bias": true})),
        (
            mistral,
            "use_sliding_window",
            json!({"use_sliding_window": false, "sliding_window": 8}),
        ),
        (
            mistral,
            "max_window_layers",
            json!({"max_window_layers": 1, "sliding_window": 8}),
        ),
        (
            qwen,
            "layer_types",
            json!({"sliding_window": 8, "use_sliding_window": false,
                "layer_types": ["full_attention", "sliding_attention"]}),
        ),
        (
            qwen,
            "num_key_value_heads",
            json!({"num_key_value_heads": null}),
        ),
    ];
    for (class, key, change) in table {
        says(
            with(class, change).unwrap_err(),
            &["config.json", &format!("`{key}`")],
        );
    }
    with("Qwen3ForCausalLM", json!({"qk_norm": true})).unwrap();
    with(qwen, json!({"qkv_bias": true})).unwrap();
    // As transformers 5 saves a Mistral whose layers differ.
    let ministral = json!({"model_type": "ministral", "sliding_window": 8,
        "layer_types": ["sliding_attention", "full_attention"]});
    let config = with("MinistralForCausalLM", ministral).unwrap();
    assert_eq!(config.sliding_window, [Some(8), None]);
}

#[test]
fn rope_keys_are_used_by_their_type_or_refused() {
    let nested = |value: Value| read(json!({ "rope_scaling": value }));
    let table = [
        (json!({"rope_type": "default", "factor": 8.0}), "factor"),
        (json!({"factor": 8.0}), "factor"),
        (
            json!({"rope_type": "linear", "factor": 2.0, "low_freq_factor": 1.0}),
            "low_freq_factor",
        ),
        (
            json!({"rope_type": "linear", "factor": 2.0, "mrope_section": [1, 1]}),
            "mrope_section",
        ),
        (
            json!({"rope_type": "linear", "factor": 2.0, "attention_factor": 0.5}),
            "attention_factor",
        ),
        (
            json!({"rope_type": "linear", "factor": 2.0, "rope_theta": 5e5}),
            "rope_theta",
        ),
        (
            json!({"rope_type": "linear", "type": "yarn", "factor": 2.0}),
            "type",
        ),
        (
            json!({"full_attention": {"rope_type": "default"}}),
            "full_attention",
        ),
    ];
    for (value, key) in table {
        says(
            nested(value).unwrap_err(),
            &["config.json", &format!("`{key}`")],
        );
    }
    for value in [
        json!({"rope_type": "default", "factor": 1.0, "original_max_position_embeddings": 64}),
        json!({"type": "linear", "rope_type": "linear", "factor": 2.0, "beta_fast": null}),
        json!({"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}),
    ] {
        nested(value).unwrap();
    }
    let both = json!({"rope_scaling": {"rope_type": "linear", "factor": 2.0},
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}});
    says(
        read(both).unwrap_err(),
        &["`rope_scaling`", "rope_parameters", "remove one"],
    );
}

#[test]
fn a_key_with_two_values_is_refused() {
    let text = config_with(json!({})).to_string();
    let twice = text.replacen('{', r#"{"rms_norm_eps": 1e-6, "#, 1);
    let error = DecoderConfig::from_json(&twice).unwrap_err();
    says(error, &["config.json", "`rms_norm_eps` is there twice"]);
}

#[test]
fn dropout_is_refused_where_a_model_is_to_be_trained() {
    let folder = tempfile::tempdir().unwrap();
    let check = |dropout: Value| {
        let text = config_with(json!({"attention_dropout": dropout})).to_string();
        std::fs::write(folder.path().join("config.json"), text).unwrap();
        DecoderConfig::from_folder(folder.path()).unwrap();
        DecoderConfig::check_training(folder.path())
    };
    check(json!(0.0)).unwrap();
    check(Value::Null).unwrap();
    says(
        check(json!(0.1)).unwrap_err(),
        &["config.json", "`attention_dropout` is 0.1", "to 0"],
    );
}

/// What transformers computes in a family, and Concord does not, is no key to be removed.
#[test]
fn what_transformers_alone_computes_is_said_to_be_so() {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/families");
    for (family, key, off, on) in [
        ("cohere", "use_qk_norm", json!(false), json!(true)),
        ("phi", "qk_layernorm", json!(false), json!(true)),
        ("stablelm", "qk_layernorm", json!(false), json!(true)),
        (
            "stablelm",
            "use_parallel_residual",
            json!(false),
            json!(true),
        ),
        (
            "gemma3",
            "use_bidirectional_attention",
            json!(false),
            json!(true),
        ),
        ("olmoe", "clip_qkv", Value::Null, json!(8.0)),
    ] {
        let text = std::fs::read(own.join(family).join("config.json")).unwrap();
        let mut config: Value = serde_json::from_slice(&text).unwrap();
        config[key] = off;
        DecoderConfig::from_json(&config.to_string()).unwrap();
        config[key] = on;
        let error = DecoderConfig::from_json(&config.to_string()).unwrap_err();
        says(
            error,
            &[
                &format!("`{key}`"),
                "transformers computes this",
                "Concord does not",
            ],
        );
    }
}

#[test]
fn all_dropouts_are_named_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/families");
    let text = std::fs::read(own.join("seed_oss/config.json")).unwrap();
    let mut config: Value = serde_json::from_slice(&text).unwrap();
    config["attention_dropout"] = json!(0.1);
    config["residual_dropout"] = json!(0.1);
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    let error = DecoderConfig::check_training(folder.path()).unwrap_err();
    says(
        error,
        &["`attention_dropout` is 0.1", "`residual_dropout`, too"],
    );
}
