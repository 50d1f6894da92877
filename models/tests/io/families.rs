//! Keys of the families: read where a family has them, refused by name where it has not.

use concord_models::config::{DecoderConfig, Family, RopeScaling, TensorPlace};
use concord_models::error::ModelError;
use serde_json::{Value, json};

use crate::fixtures::says;

/// A file of a family with these keys beside its sizes.
fn with(class: &str, keys: Value) -> Result<DecoderConfig, ModelError> {
    let mut file = json!({
        "architectures": [class], "hidden_size": 64, "intermediate_size": 96,
        "num_hidden_layers": 4, "num_attention_heads": 4, "vocab_size": 300,
    });
    let reads_heads = class != "GPTNeoXForCausalLM";
    if reads_heads {
        file["num_key_value_heads"] = json!(2);
    }
    for (key, value) in keys.as_object().unwrap() {
        file[key] = value.clone();
    }
    DecoderConfig::from_json(&file.to_string())
}

const GEMMA_2: &str = "Gemma2ForCausalLM";
const GEMMA_3: &str = "Gemma3ForCausalLM";
const PHI_3: &str = "Phi3ForCausalLM";
const NEOX: &str = "GPTNeoXForCausalLM";

#[test]
fn what_a_family_does_not_have_is_refused_by_name() {
    let table = [
        (GEMMA_2, "mlp_bias", json!(true)),
        (GEMMA_2, "use_bidirectional_attention", json!(true)),
        (GEMMA_2, "hidden_act", json!("relu")),
        (GEMMA_2, "layer_types", json!(["full_attention"])),
        (GEMMA_2, "final_logit_softcapping", json!(-3.0)),
        (GEMMA_2, "query_pre_attn_scalar", json!("many")),
        (GEMMA_3, "attn_logit_softcapping", json!(50.0)),
        (GEMMA_3, "sliding_window_pattern", json!(0)),
        (PHI_3, "attention_bias", json!(true)),
        (PHI_3, "auto_map", json!({"AutoModel": "other.Model"})),
        (NEOX, "num_key_value_heads", json!(2)),
        (NEOX, "head_dim", json!(32)),
        (NEOX, "rope_theta", json!(5e5)),
        (NEOX, "sliding_window", json!(8)),
        ("Olmo2ForCausalLM", "clip_qkv", json!(8.0)),
        ("SmolLM3ForCausalLM", "no_rope_layers", json!([1, 2, 0, 1])),
        ("SmolLM3ForCausalLM", "no_rope_layers", json!([1])),
        ("GraniteForCausalLM", "residual_multiplier", json!(1e-60)),
        ("GraniteForCausalLM", "logits_scaling", json!(0)),
        ("Glm4ForCausalLM", "partial_rotary_factor", json!(0.2)),
        ("Glm4ForCausalLM", "partial_rotary_factor", json!(1.5)),
        ("Starcoder2ForCausalLM", "attention_bias", json!(true)),
        ("CohereForCausalLM", "use_qk_norm", json!(true)),
        ("StableLmForCausalLM", "use_parallel_residual", json!(true)),
        ("StableLmForCausalLM", "qk_layernorm", json!(true)),
        ("Exaone4ForCausalLM", "attention_bias", json!(true)),
        ("HeliumForCausalLM", "logit_scale", json!(2.0)),
        ("LlamaForCausalLM", "no_rope_layers", json!([1, 0, 1, 0])),
    ];
    for (class, key, value) in table {
        let error = with(class, json!({ key: value })).unwrap_err();
        says(&error, &["config.json", &format!("`{key}`")]);
    }
}

#[test]
fn what_public_files_of_a_family_carry_is_taken() {
    let auto_map = json!({"AutoConfig": "configuration_phi3.Phi3Config",
        "AutoModelForCausalLM": "modeling_phi3.Phi3ForCausalLM", "AutoTokenizer": "a/b"});
    for (class, keys) in [
        (
            GEMMA_2,
            json!({"hidden_act": "gelu_pytorch_tanh", "cache_implementation": "hybrid"}),
        ),
        (
            GEMMA_3,
            json!({"attn_logit_softcapping": null, "rope_local_base_freq": 1e4,
                "rope_theta": 1e6, "sliding_window_pattern": 2, "sliding_window": 512,
                "rope_scaling": {"factor": 8.0, "rope_type": "linear"}}),
        ),
        (
            PHI_3,
            json!({"auto_map": auto_map, "embd_pdrop": 0.0, "resid_pdrop": 0.0,
                "lm_head_bias": false, "mlp_bias": false, "full_attn_mod": 1,
                "interpolate_factor": 1, "attention_bias": false}),
        ),
        (
            NEOX,
            json!({"rotary_emb_base": 10_000, "rotary_pct": 0.25, "rope_scaling": null,
                "hidden_dropout": 0.0, "classifier_dropout": 0.1}),
        ),
        (
            "SmolLM3ForCausalLM",
            json!({"max_window_layers": 28, "no_rope_layer_interval": 4, "pretraining_tp": 2}),
        ),
        (
            "Starcoder2ForCausalLM",
            json!({"norm_type": "layer_norm", "mlp_type": "default", "residual_dropout": 0.1}),
        ),
        (
            "Cohere2ForCausalLM",
            json!({"layer_switch": 4, "rotary_pct": 1.0, "use_gated_activation": true}),
        ),
        (
            "Exaone4ForCausalLM",
            json!({"sliding_window_pattern": "LLLG",
                "layer_types": ["sliding_attention", "sliding_attention", "sliding_attention",
                    "full_attention"]}),
        ),
    ] {
        with(class, keys).unwrap();
    }
}

#[test]
fn gemma_3_has_two_rotary_embeddings() {
    let old = with(
        GEMMA_3,
        json!({"rope_theta": 2e6, "rope_local_base_freq": 500.0, "sliding_window_pattern": 2,
            "rope_scaling": {"rope_type": "linear", "factor": 8.0}}),
    );
    let new = with(
        GEMMA_3,
        json!({"sliding_window_pattern": 2, "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 2e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 500.0}}}),
    );
    let (old, new) = (old.unwrap(), new.unwrap());
    assert_eq!(old, new);
    assert_eq!(old.rope.theta, 2e6);
    assert_eq!(old.rope.scaling, RopeScaling::Linear { factor: 8.0 });
    let local = old.local_rope.unwrap();
    assert_eq!((local.theta, local.scaling), (500.0, RopeScaling::None));
    let flat = json!({"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}});
    says(
        with(GEMMA_3, flat).unwrap_err(),
        &["config.json", "full_attention and sliding_attention"],
    );
}

#[test]
fn longrope_has_a_divisor_for_each_pair() {
    let longrope = |kind: &str, short: &[f64], long: Value| {
        with(
            PHI_3,
            json!({"max_position_embeddings": 4_096, "original_max_position_embeddings": 64,
                "partial_rotary_factor": 0.25,
                "rope_scaling": {"type": kind, "short_factor": short, "long_factor": long}}),
        )
    };
    for kind in ["longrope", "su", "yarn"] {
        let config = longrope(kind, &[1.0, 2.0], json!([3.0, 4.0])).unwrap();
        assert_eq!(config.rotary_dim, Some(4));
        let RopeScaling::LongRope {
            short,
            long,
            original_max_positions,
            attention_factor,
        } = config.rope.scaling
        else {
            panic!("{:?}", config.rope);
        };
        assert_eq!((short, long), (vec![1.0, 2.0], vec![3.0, 4.0]));
        assert_eq!(original_max_positions, 64);
        // sqrt(1 + ln(64) / ln(64))
        assert!((attention_factor - 2f64.sqrt()).abs() < 1e-12);
    }
    for (short, long, key) in [
        (&[1.0][..], json!([3.0, 4.0]), "short_factor"),
        (&[1.0, 2.0], json!([3.0, 0.0]), "long_factor"),
        (&[1.0, 2.0], json!("many"), "long_factor"),
        (&[1.0, 2.0], Value::Null, "long_factor"),
    ] {
        let error = longrope("longrope", short, long).unwrap_err();
        says(&error, &["config.json", &format!("`{key}`")]);
    }
}

#[test]
fn every_tensor_of_every_family_has_its_place() {
    for family in Family::ALL {
        let config = with(family.architecture(), json!({"rope_parameters": null})).unwrap();
        let places: Vec<TensorPlace> = config
            .tensors()
            .iter()
            .map(|spec| TensorPlace::of(&spec.name).unwrap())
            .collect();
        assert!(places.is_sorted(), "{family:?}");
        assert_eq!(places[0], TensorPlace::Embed);
        assert!(places.contains(&TensorPlace::FinalNorm));
        assert_eq!(
            places.contains(&TensorPlace::Head),
            !config.tie_embeddings,
            "{family:?}"
        );
    }
}

#[test]
fn dropout_of_a_family_is_refused_where_it_is_to_be_trained() {
    let folder = tempfile::tempdir().unwrap();
    for (class, key) in [
        ("Starcoder2ForCausalLM", "residual_dropout"),
        (NEOX, "hidden_dropout"),
        (PHI_3, "resid_pdrop"),
    ] {
        let file = json!({
            "architectures": [class], "hidden_size": 64, "intermediate_size": 96,
            "num_hidden_layers": 1, "num_attention_heads": 4, "vocab_size": 300, key: 0.1,
        });
        std::fs::write(folder.path().join("config.json"), file.to_string()).unwrap();
        DecoderConfig::from_folder(folder.path()).unwrap();
        says(
            DecoderConfig::check_training(folder.path()).unwrap_err(),
            &["config.json", &format!("`{key}` is 0.1"), "to 0"],
        );
    }
}
