//! The canonical text of a configuration.

use std::path::Path;

use concord_models::config::DecoderConfig;
use serde_json::{Value, json};

use crate::fixtures::config_json;

/// The configurations of all families that have a reference.
fn all() -> Vec<DecoderConfig> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/families");
    let entries = std::fs::read_dir(folder).unwrap();
    let folders = entries.map(|entry| entry.unwrap().path());
    let with_config = folders.filter(|path| path.join("config.json").is_file());
    with_config
        .map(|path| DecoderConfig::from_folder(&path).unwrap())
        .collect()
}

#[test]
fn every_family_comes_back_from_it() {
    let all = all();
    assert!(all.len() >= 20, "{}", all.len());
    for config in all {
        let text = config.canonical();
        let back = DecoderConfig::from_canonical(&text).unwrap();
        let expected = DecoderConfig {
            // The first family with parts of these names.
            family: back.family,
            bos: None,
            eos: Vec::new(),
            ..config
        };
        assert_eq!(back, expected, "{text}");
        assert_eq!(back.canonical(), text);
    }
}

#[test]
fn what_is_beyond_a_bound_is_refused() {
    let text = DecoderConfig::from_json(&config_json().to_string())
        .unwrap()
        .canonical();
    for (from, to) in [
        ("\"hidden\":8", "\"hidden\":0"),
        ("\"hidden\":8", "\"hidden\":1000000000000"),
        ("\"kv_heads\":2", "\"kv_heads\":3"),
        ("\"head_dim\":2", "\"head_dim\":5"),
        ("\"layers\":2", "\"layers\":900"),
        ("\"sliding_window\":[null,null]", "\"sliding_window\":[]"),
        ("\"unrotated\":[]", "\"unrotated\":[77]"),
        ("\"norm_eps\":", "\"norm_eps\":-"),
        ("\"rotary_dim\":null", "\"rotary_dim\":100000"),
        ("\"attention_scale\":null", "\"attention_scale\":0.0"),
        ("\"theta\":", "\"theta\":-"),
        ("\"vocab\":300", "\"vocab\":\"many\""),
    ] {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text, "{from}");
        let error = DecoderConfig::from_canonical(&changed).unwrap_err();
        assert!(error.to_string().contains("`config`"), "{error}");
    }
    // Another text for the same configuration.
    for other in [format!(" {text}"), text.replacen('{', r#"{"more":1,"#, 1)] {
        assert!(DecoderConfig::from_canonical(&other).is_err());
    }
}

/// What a file says in more words than it needs is the same model.
#[test]
fn one_model_has_one_text() {
    let family = |name: &str| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/families");
        let text = std::fs::read(folder.join(name).join("config.json")).unwrap();
        serde_json::from_slice::<Value>(&text).unwrap()
    };
    let canonical = |config: &Value| {
        let config = DecoderConfig::from_json(&config.to_string()).unwrap();
        let text = config.canonical();
        let back = DecoderConfig::from_canonical(&text).unwrap();
        assert_eq!(back.canonical(), text);
        text
    };
    let without = |name: &str, keys: &[&str], changes: Value| {
        let mut config = family(name);
        for key in keys {
            config.as_object_mut().unwrap().remove(*key);
        }
        for (key, value) in changes.as_object().unwrap() {
            config[key] = value.clone();
        }
        canonical(&config)
    };
    let with = |name: &str, changes: Value| without(name, &[], changes);
    let granite = [
        "embedding_multiplier",
        "residual_multiplier",
        "logits_scaling",
    ];
    let ones =
        json!({"embedding_multiplier": 1.0, "residual_multiplier": 1, "logits_scaling": 1.0});
    assert_eq!(
        with("granite", ones),
        without("granite", &granite, json!({}))
    );
    // The scale of a head of 16, which is what a Llama has without a word.
    let usual = json!({"attention_multiplier": 0.25, "head_dim": 16});
    assert!(with("granite", usual).contains(r#""attention_scale":null"#));
    let rope = |share: f64| {
        json!({"rope_parameters": {"rope_theta": 1e4, "rope_type": "default",
                                   "partial_rotary_factor": share}})
    };
    assert!(with("stablelm", rope(1.0)).contains(r#""rotary_dim":null"#));
    assert_ne!(with("stablelm", rope(0.5)), with("stablelm", rope(1.0)));
    let linear = json!({"rope_parameters": {"rope_theta": 1e4, "rope_type": "linear",
                                            "factor": 1.0}});
    let plain = json!({"rope_parameters": {"rope_theta": 1e4, "rope_type": "default"}});
    assert_eq!(with("olmo2", linear), with("olmo2", plain));
    let dense = |layers: Value| with("qwen2_moe", json!({"mlp_only_layers": layers}));
    assert_eq!(dense(json!([1, 0, 1])), dense(json!([0, 1])));
    // Where every layer has experts, nothing has the width of the layers without.
    let width = |width: u32| {
        with(
            "qwen2_moe",
            json!({"mlp_only_layers": [], "intermediate_size": width}),
        )
    };
    assert_eq!(width(56), width(64));
    // A Gemma 3 whose windowed layers are rotated as the others.
    let both = |theta: f64| {
        let rope = json!({"rope_theta": theta, "rope_type": "default"});
        let both = json!({"full_attention": rope, "sliding_attention": rope});
        with("gemma3", json!({"rope_parameters": both}))
    };
    assert!(both(50.0).contains(r#""local_rope":null"#));
}

/// A text that says the same in another way would be a second name of one model.
#[test]
fn texts_in_more_words_are_refused() {
    let text = |name: &str| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/families");
        let config = DecoderConfig::from_folder(&folder.join(name)).unwrap();
        config.canonical()
    };
    let head_dim = |text: &str| {
        let config: Value = serde_json::from_str(text).unwrap();
        config["head_dim"].as_u64().unwrap()
    };
    let llama = text("olmo2");
    let width = head_dim(&llama);
    let rotary = format!("\"rotary_dim\":{width}");
    let scale = 1.0 / (width as f32).sqrt();
    let scale = format!(
        "\"attention_scale\":{}",
        serde_json::to_string(&scale).unwrap()
    );
    for (text, from, to) in [
        (&llama, "\"rotary_dim\":null", rotary.as_str()),
        (&llama, "\"attention_scale\":null", scale.as_str()),
        (
            &llama,
            "\"residual_multiplier\":null",
            "\"residual_multiplier\":1.0",
        ),
        (
            &llama,
            "\"logit_multiplier\":null",
            "\"logit_multiplier\":1.0",
        ),
        (&llama, "\"unrotated\":[]", "\"unrotated\":[1,0]"),
        (&llama, "\"unrotated\":[]", "\"unrotated\":[1,1]"),
        (
            &text("qwen2_moe"),
            "\"dense_layers\":[1]",
            "\"dense_layers\":[1,0]",
        ),
        (
            &text("starcoder2"),
            "\"fused_gate_up\":false",
            "\"fused_gate_up\":true",
        ),
    ] {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, *text, "{from}");
        let error = DecoderConfig::from_canonical(&changed).unwrap_err();
        assert!(error.to_string().contains("one form"), "{to}: {error}");
    }
}
